#pragma once

/*
 * All that the runtime asks of the operating system, in one header, so that a
 * port or a fake replaces one file. Unless said otherwise a function returns 0
 * or -errno, may be called by any thread, and retries on EINTR itself.
 * File descriptors that are made here are close-on-exec.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* ---- memory ---- */

/* An anonymous memory file of size_bytes (sparse: no page is used yet) that
 * can be neither shrunk nor, later, sealed. name shows in /proc/PID/maps. */
int dragon_os_memfd(const char *name, uint64_t size_bytes, int *fd_out);

/* A POSIX shared-memory file "/name", mode 0600. create: fails with -EEXIST if
 * it exists. size_bytes is used only then. */
int dragon_os_shm_open(const char *name, bool create, uint64_t size_bytes, int *fd_out);

/* Remove its name; who has it open keeps it. -ENOENT: there is none. */
int dragon_os_shm_unlink(const char *name);

struct dragon_os_file {
    uint64_t size_bytes;
    uint64_t device;
    uint64_t inode;
    bool is_own; /* of the user that this process runs as now */
};

/* What is behind fd. -EBADMSG if that is no regular file. */
int dragon_os_file_of(int fd, struct dragon_os_file *file_out);

/* Map the whole file, readable and writable, shared. */
int dragon_os_map(int fd, uint64_t size_bytes, void **base_out);

/* Private zero memory that is taken from the system page by page as it is used. */
int dragon_os_reserve(uint64_t size_bytes, void **base_out);

/* The same, and a forked copy of the process finds it zero again. -EINVAL: the system
 * cannot (Linux before 4.14). */
int dragon_os_reserve_unforked(uint64_t size_bytes, void **base_out);

/* Undo any of the three: the same base and size. */
void dragon_os_unmap(void *base, uint64_t size_bytes);

/* Make sure that the range has memory behind it, so that touching it cannot
 * raise SIGBUS. -ENOSPC or -ENOMEM if there is none, -EFBIG above RLIMIT_FSIZE
 * (SIGXFSZ must be ignored by the process). */
int dragon_os_commit(int fd, uint64_t offset, uint64_t size_bytes);

/* Give the pages of a range back to the system. They read as zero afterwards. */
int dragon_os_decommit(int fd, uint64_t offset, uint64_t size_bytes);

/* How much a file in memory could grow and be mapped: the least of physical
 * memory, RLIMIT_FSIZE and a quarter of RLIMIT_AS. Bytes. Cheap. */
uint64_t dragon_os_memory_limit(void);

/* ---- signs of life ---- */

/* Lock a byte of fd's file until dragon_os_life_end or the end of the calling process's
 * memory: by exec, exit, or a kill, by then that its parent learns of it. No descriptor
 * stays open for it, so a program that closes those of others does not end it, and a
 * forked copy of the process has no part in it (but for one that another thread forks at
 * the very moment: the lock lasts until both have ended). -EAGAIN: it is locked, perhaps
 * by this process. -EINVAL, -ENOENT, -EACCES, ...: the system cannot (no /proc), or fd
 * may not be opened again. */
int dragon_os_life_begin(int fd, uint64_t byte, void **life_out);

/* Unlock it. */
void dragon_os_life_end(void *life);

/* True if anybody has the byte locked, or the system does not tell. */
bool dragon_os_life_goes_on(int fd, uint64_t byte);

/* ---- sleeping ---- */

enum dragon_os_futex_outcome {
    DRAGON_OS_FUTEX_TIMEOUT = 1,
    DRAGON_OS_FUTEX_INTERRUPTED, /* a signal handler ran */
};

/* Sleep while *word == value, until woken or deadline_ns. Works between
 * processes that map the same file. 0 (woken, spurious, or *word differed),
 * or an outcome. The one call here that reports EINTR: signal handlers of the
 * program (Ctrl-C) must get their turn. */
int dragon_os_futex_wait(_Atomic uint32_t *word, uint32_t value, int64_t deadline_ns);

/* A word to sleep on together with others. */
struct dragon_os_futex {
    _Atomic uint32_t *word;
    uint32_t value;
};

#define DRAGON_OS_FUTEX_MANY 128

/* Sleep while each of n words (1 to DRAGON_OS_FUTEX_MANY) has its value, until one
 * is woken or deadline_ns. As dragon_os_futex_wait; -ENOSYS: this system cannot
 * (Linux before 5.16, or a filter of system calls). */
int dragon_os_futex_wait_many(const struct dragon_os_futex *futexes, unsigned n,
                              int64_t deadline_ns);

/* Wake at most n sleepers; the number woken. Async-signal-safe. */
int dragon_os_futex_wake(_Atomic uint32_t *word, int n);

/* Let another thread run that waits for this core. */
void dragon_os_yield(void);

/* ---- processes and threads ---- */

/* The calling process. */
int32_t dragon_os_pid(void);

/* The calling thread, by the number the kernel knows it by. */
int32_t dragon_os_thread_id(void);

/* True if a thread of this process has that number. */
bool dragon_os_thread_exists(int32_t thread_id);

/* When the process started, in clock ticks since boot: tells a reused pid from
 * the process that had it before. -ESRCH if there is no such process. */
int dragon_os_start_time(int32_t pid, uint64_t *ticks_out);

/* False if there is no process of that pid. A zombie is one. */
bool dragon_os_is_alive(int32_t pid);

/* False if the calling process has no child, alive or zombie. */
bool dragon_os_has_children(void);

/* A descriptor that is readable once the process has ended. -ESRCH: there is none of
 * that pid. */
int dragon_os_pidfd_open(int32_t pid, int *fd_out);

/* Send SIGKILL to the calling process. Does not return. */
_Noreturn void dragon_os_kill_self(void);

/* Kill (SIGKILL) the process that has that pid and start time, if it is of the caller's
 * session; no other. */
void dragon_os_kill_process_of_session(int32_t pid, uint64_t start_ticks);

/* True if the process behind pidfd has ended (it may still be a zombie). */
bool dragon_os_pidfd_ended(int pidfd);

/* The status of an ended process behind pidfd, as wait() gives it: of any process of the
 * user's that is a zombie; of one that was reaped with kernels from 6.15 on. False: nobody can
 * tell. pid: its pid. Reaps nothing. */
bool dragon_os_wait_status(int pidfd, int32_t pid, uint32_t *status_out);

/* Start a thread that is detached, blocks all signals and has a small stack.
 * -EAGAIN as pthread_create. */
int dragon_os_thread_start(void *(*run)(void *), void *argument);

/* The name (at most 15 bytes) that ps -T shows for the calling thread. */
void dragon_os_thread_name(const char *name);

/* Number of cores this process may run on, at least 1. */
int dragon_os_cpu_count(void);

/* ---- file descriptors ---- */

/* A new eventfd that is not readable, for raise and lower below. */
int dragon_os_eventfd(int *fd_out);

/* Make an eventfd readable, or not. Never blocks. */
void dragon_os_eventfd_raise(int fd);
void dragon_os_eventfd_lower(int fd);

/* A set of descriptors to wait for. add: tells tag whenever fd is readable; remove: of
 * one that is in the set. */
int dragon_os_epoll_create(int *fd_out);
int dragon_os_epoll_add(int epoll_fd, int fd, uint64_t tag);
void dragon_os_epoll_remove(int epoll_fd, int fd);

/* Wait for up to max ready fds; their tags into tags_out. The number, which is
 * 0 at the deadline. */
int dragon_os_epoll_wait(int epoll_fd, uint64_t *tags_out, int max, int64_t deadline_ns);

/* The same file at a number that programs do not count on: out of the way of
 * those who expect the lowest free one. close-on-exec; fd itself is closed.
 * Where there is no room up there, fd stays. */
int dragon_os_move_high(int fd);

/* Close fd, which is valid. */
void dragon_os_close(int fd);

/* Remove a folder with all that is in it, on its own file system, without following links. What
 * is not there, or cannot be removed, is left. For a process with one thread. */
void dragon_os_remove_tree(const char *path);

/* Fill size_bytes (at most 256) with random bytes. */
int dragon_os_random(void *bytes_out, size_t size_bytes);
