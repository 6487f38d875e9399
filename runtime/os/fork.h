#pragma once

/*
 * Processes that a process makes of itself, and who their parent is. Beside os.h,
 * for the few that fork. Functions return 0 or -errno unless said otherwise; but for
 * dragon_os_execute_hidden they are for processes with one thread.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Fork a child that is hidden from its parent's wait() and sends it no signal when it
 * ends. For a process with one thread that has taken no lock; what the child does with
 * the C library is up to its first real fork() system calls and memory. The child's pid; 0 in the
 * child. */
int dragon_os_fork_hidden(int32_t *pid_out);

/* Reap such a child, which is about to end; kill it at deadline_ns. Blocking. */
void dragon_os_end_hidden(int32_t pid, int64_t deadline_ns);

/* Execute this executable anew, with other words and another environment, and order_fd as its
 * descriptor at_fd, hidden from this process's wait() as a child of dragon_os_fork_hidden is. It
 * has no other descriptor but the standard ones, which lead nowhere, and blocks all signals.
 *
 * Between the two stands a *keeper*, because exec makes a hidden process a visible one: the
 * keeper is the hidden child, the new process the keeper's child. The keeper does nothing but wait
 * for its end. It uses this process's memory (ps shows the same size for both) and a stack of its
 * own. A thread, dragon/keeper, waits for the keeper. All end with this process.
 *
 * Any thread, in a process with any number of them. -errno of clone or exec; -EAGAIN: no
 * thread. */
int dragon_os_execute_hidden(char **words, char **variables, int order_fd, int at_fd);

/* fork() of the C library: its handlers run. The child's pid; 0 in the child. */
int dragon_os_fork(int32_t *pid_out);

/* A process between a server and a spare that it forks; see dragon_os_fork_spare. */
struct dragon_os_middle {
    int32_t pid;
    void *stack;
};

/* Fork a spare that is not the caller's child but that of a *middle*, which is, and does nothing
 * but wait. The middle runs in the caller's memory, so that making it and its end cost next to
 * nothing. It ends when the spare releases it, or is dead, or when the caller dismisses the spare,
 * and dies with the caller; the spare dies with the middle, until it expects adoption. When the
 * middle ends released, the kernel gives the spare to the nearest ancestor that adopts
 * orphans; in all other cases the middle reaps it.
 *
 * For a process with one thread that blocks all signals. fork handlers of the C library run. 0: in
 * the caller; DRAGON_OS_SPARE: in the spare, where middle_out->pid is set, too. */
int dragon_os_fork_spare(struct dragon_os_middle *middle_out);
enum { DRAGON_OS_SPARE = 1 };

/* In the spare: let its middle end. */
void dragon_os_release_middle(int32_t middle_pid);

/* In the caller, which has not waited for the middle yet: have the spare killed, unless it has
 * released the middle. */
void dragon_os_dismiss_spare(const struct dragon_os_middle *middle);

/* In the caller: the middle has ended and was reaped. */
void dragon_os_forget_middle(struct dragon_os_middle *middle);

/* Have the kernel end the calling process, which has one thread, by SIGKILL when the
 * thread ends that forked it. -ESRCH: its parent, parent_pid, is gone already. */
int dragon_os_die_with_parent(int32_t parent_pid);

/* Become the first of a process group of its own, or one of another group, of the same session, if
 * that exists: who signals the caller's group from then on does not mean this process. */
void dragon_os_leave_group(void);
void dragon_os_join_group_of(int32_t pid);

/* From now on the end of the parent is not this process's end any more, but something that
 * wait_for_adoption waits for. All signals must be blocked until it has returned. */
void dragon_os_expect_adoption(void);

/* Wait until parent_pid has ended and this process has another parent. -ETIMEDOUT. Blocking. */
int dragon_os_wait_for_adoption(int32_t parent_pid, int64_t deadline_ns);

/* Become, or cease to be, the process that adopts orphans among its descendants.
 * was_out: whether it was one. */
int dragon_os_adopt_orphans(bool adopts, bool *was_out);

/* Wait for the end of a child. Its status as of waitpid(2). */
int dragon_os_wait(int32_t pid, int *status_out);

/* Block all signals in the calling thread; or those whose bits are set, SIGHUP being
 * bit 0, as /proc/PID/status shows them. */
void dragon_os_block_signals(void);
void dragon_os_set_blocked_signals(uint64_t mask);

/* Close all descriptors but the standard ones and `keep`, and have the standard ones lead
 * nowhere (/dev/null). */
void dragon_os_forget_files(int keep);

/* What tells a socket from all others; 0 if fd is none. */
uint64_t dragon_os_socket_id(int fd);

/* Receive up to size_bytes, and with it one descriptor (-1: none came). Bytes received;
 * 0: the other end is closed. Blocking. */
int dragon_os_receive(int socket, void *bytes_out, size_t size_bytes, int *fd_out);

/* Send 4 bytes to a socket; whether anybody reads them does not matter. */
void dragon_os_report(int socket, int32_t number);
