#pragma once

/*
 * The memory limit that control groups put on this process, as an administrator,
 * a service manager or a container sets it. Beyond it the kernel kills.
 */

#include <stdint.h>

/* The least memory limit of the groups that the process is in and of those around
 * them, in bytes; UINT64_MAX if there is none. Versions 1 and 2, also both at once.
 * What is missing, unreadable or no number limits nothing.
 * root: "" for this system; else a folder with proc/self/cgroup, proc/self/mountinfo
 * and, below their mount points, the groups' files.
 * Reads files: some tens of microseconds. Any thread, not signal handlers. */
uint64_t dragon_cgroup_memory_limit(const char *root);
