#pragma once

/*
 * The limits that control groups put on this process, as an administrator, a service
 * manager or a container sets them. Above a memory limit the kernel kills; a process
 * that has used up its time of processors waits for the next period.
 *
 * The least limit counts, of the groups that the process is in and of those around
 * them. Versions 1 and 2, also both at once. What is missing, unreadable or no number
 * limits nothing.
 * root: "" for this system; else a folder with proc/self/cgroup, proc/self/mountinfo
 * and, below their mount points, the groups' files.
 * Both read files: some tens of microseconds. Any thread, not signal handlers.
 */

#include <stdint.h>

/* In bytes; UINT64_MAX if there is none. */
uint64_t dragon_cgroup_memory_limit(const char *root);

/* In processors, rounded up, at least 1; UINT64_MAX if there is none. */
uint64_t dragon_cgroup_cpu_limit(const char *root);
