#include "os/fork.h"

#include "base/atomic.h"
#include "base/check.h"
#include "base/deadline.h"
#include "base/error.h"
#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

#define LOOK_AGAIN_NS (DRAGON_NS_PER_S / 10)

static void close_from(unsigned first, unsigned last);

static void announce(_Atomic uint32_t *word)
{
    dragon_publish(word, 1);
    dragon_os_futex_wake(word, 1);
}

static void wait_for(_Atomic uint32_t *word)
{
    while (dragon_observe(word) == 0)
        (void)dragon_os_futex_wait(word, 0, DRAGON_FOREVER);
}

/* Wait for what a child announces. False: it was killed before. It is not reaped here. */
static bool wait_for_child(_Atomic uint32_t *word, int32_t pid)
{
    while (dragon_observe(word) == 0) {
        siginfo_t ended = {0};

        if (waitid(P_PID, (id_t)pid, &ended, WEXITED | WNOHANG | WNOWAIT | __WALL) == 0 &&
            ended.si_pid == pid)
            return dragon_observe(word) != 0;
        (void)dragon_os_futex_wait(word, 0, dragon_deadline_after_ns(LOOK_AGAIN_NS));
    }
    return true;
}

/* ---- forking ---- */

/* A child whose exit signal is none is not one that wait() waits for. No fork() of the C
 * library can ask for that. */
int dragon_os_fork_hidden(int32_t *pid_out)
{
    long pid = syscall(SYS_clone, 0, NULL, NULL, NULL, NULL);

    if (pid < 0)
        return dragon_error_origin(-errno);
    *pid_out = (int32_t)pid;
    return 0;
}

void dragon_os_end_hidden(int32_t pid, int64_t deadline_ns)
{
    struct pollfd item = {.events = POLLIN};
    int r = dragon_os_pidfd_open(pid, &item.fd);

    if (r == 0) {
        int64_t left_ns = dragon_deadline_remaining_ns(deadline_ns);

        if (poll(&item, 1, (int)(left_ns / 1000000)) != 1)
            r = -ETIMEDOUT;
        close(item.fd);
    }
    if (r < 0)
        kill(pid, SIGKILL);
    while (waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
        continue;
}

int dragon_os_fork(int32_t *pid_out)
{
    pid_t pid = fork();

    if (pid < 0)
        return dragon_error_origin(-errno);
    *pid_out = pid;
    return 0;
}

/* ---- a hidden process that is executed ---- */

#define KEEPER_STACK_BYTES 65536

/* What the parties tell each other, on the caller's stack. */
struct execution {
    char **words, **variables;
    int order_fd, at_fd;
    int32_t pid; /* of this process */
    int32_t keeper_pid;
    char *stack; /* the upper half is the keeper's, the lower one the new process's */
    int error;
    _Atomic uint32_t is_tried; /* the keeper's: it has been executed, or cannot be */
    _Atomic uint32_t is_over;  /* the thread's: error is final */
};

static int become(const struct execution *execution)
{
    int r = dragon_os_die_with_parent(execution->keeper_pid);

    if (r < 0)
        return r;
    if (execution->order_fd == execution->at_fd)
        r = fcntl(execution->at_fd, F_SETFD, 0);
    else
        r = dup2(execution->order_fd, execution->at_fd);
    if (r < 0)
        return -errno;
    dragon_os_forget_files(execution->at_fd);
    execve("/proc/self/exe", execution->words, execution->variables);
    return -errno;
}

/* The process to be: its descriptors are its own, its memory is still the caller's. */
static int execute(void *argument)
{
    struct execution *execution = argument;

    execution->error = become(execution);
    syscall(SYS_exit_group, 1);
    __builtin_unreachable();
}

/* The keeper. Until execution->is_tried the thread waits that made it; from then on it runs, and
 * its errno is this process's, too: only system calls that do not fail. CLONE_VFORK returns when
 * the other process has been executed, or has given up. */
static int keep(void *argument)
{
    struct execution *execution = argument;
    int pid = -1;

    execution->keeper_pid = (int32_t)syscall(SYS_getpid);
    execution->error = dragon_os_die_with_parent(execution->pid);
    DRAGON_TEST_POINT("keeper_before_exec");
    if (execution->error == 0) {
        pid = clone(execute, execution->stack + KEEPER_STACK_BYTES / 2,
                    CLONE_VM | CLONE_VFORK | SIGCHLD, execution);
        if (pid < 0)
            execution->error = -errno;
    }
    DRAGON_TEST_POINT("keeper_after_exec");
    close_from(0, UINT_MAX);
    announce(&execution->is_tried);
    if (pid > 0)
        syscall(SYS_wait4, pid, NULL, 0, NULL);
    syscall(SYS_exit_group, 0);
    __builtin_unreachable();
}

/* Keepers end with the thread that made them, so it is one that stays, until it has reaped its
 * keeper. All its signals are blocked, which the keeper and the new process inherit. */
static void *make_keeper(void *argument)
{
    struct execution *execution = argument;
    char *stack;
    int pid;

    dragon_os_thread_name("dragon/keeper");
    stack = mmap(NULL, KEEPER_STACK_BYTES, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stack == MAP_FAILED) {
        execution->error = dragon_error_origin(-errno);
        announce(&execution->is_over);
        return NULL;
    }
    execution->stack = stack;
    pid = clone(keep, stack + KEEPER_STACK_BYTES, CLONE_VM, execution);
    if (pid < 0)
        execution->error = dragon_error_origin(-errno);
    else if (!wait_for_child(&execution->is_tried, pid))
        execution->error = dragon_error_origin(-EAGAIN);
    announce(&execution->is_over); /* and not a look at it after this */
    while (pid > 0 && waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
        continue;
    munmap(stack, KEEPER_STACK_BYTES);
    return NULL;
}

int dragon_os_execute_hidden(char **words, char **variables, int order_fd, int at_fd)
{
    struct execution execution = {
        .words = words,
        .variables = variables,
        .order_fd = order_fd,
        .at_fd = at_fd,
        .pid = getpid(),
    };
    int r = dragon_os_thread_start(make_keeper, &execution);

    if (r < 0)
        return dragon_error_trace(r);
    wait_for(&execution.is_over);
    return execution.error;
}

/* ---- a spare and its middle ---- */

#define MIDDLE_STACK_BYTES 65536

/* What a middle waits for, beside the end of its spare. Signals that are ignored unless somebody
 * asks for them, should one ever go astray. */
#define RELEASE SIGURG
#define DISMISS SIGWINCH

/* What the caller and the middle tell each other, on the caller's stack. */
struct birth {
    int32_t server_pid;
    int error;
    _Atomic uint32_t is_over; /* the spare exists, or cannot */
    jmp_buf in_spare;
};

/* The middle's life after the birth. It shares the memory, and errno, of a process that runs by
 * now: only plain system calls that do not fail. All signals are blocked and wait until they are
 * taken here. */
static _Noreturn void be_middle(int32_t spare_pid)
{
    const uint64_t awaited =
        UINT64_C(1) << (SIGCHLD - 1) | UINT64_C(1) << (RELEASE - 1) | UINT64_C(1) << (DISMISS - 1);
    long number;

    do
        number = syscall(SYS_rt_sigtimedwait, &awaited, NULL, NULL, sizeof awaited);
    while (number != SIGCHLD && number != RELEASE && number != DISMISS);
    if (number == DISMISS)
        syscall(SYS_kill, spare_pid, SIGKILL);
    if (number != RELEASE)
        syscall(SYS_wait4, spare_pid, NULL, 0, NULL);
    syscall(SYS_exit_group, 0);
    __builtin_unreachable();
}

/* The middle, on a stack of its own; the caller waits until birth->is_over. The spare, a copy of
 * all memory, leaves for the caller's stack. */
static int run_middle(void *argument)
{
    struct birth *birth = argument;
    int32_t middle_pid = (int32_t)syscall(SYS_getpid), spare_pid = -1;

    birth->error = dragon_os_die_with_parent(birth->server_pid);
    DRAGON_TEST_POINT("middle_before_fork");
    if (birth->error == 0)
        birth->error = dragon_os_fork(&spare_pid);
    if (birth->error == 0 && spare_pid == 0) {
        birth->error = dragon_os_die_with_parent(middle_pid);
        longjmp(birth->in_spare, 1);
    }
    DRAGON_TEST_POINT("middle_after_fork");
    close_from(0, UINT_MAX);
    announce(&birth->is_over);
    if (spare_pid > 0)
        be_middle(spare_pid);
    syscall(SYS_exit_group, 0);
    __builtin_unreachable();
}

static int fork_through_middle(struct birth *birth, struct dragon_os_middle *middle)
{
    char *top = (char *)middle->stack + MIDDLE_STACK_BYTES;

    if (setjmp(birth->in_spare) != 0)
        return DRAGON_OS_SPARE;
    middle->pid = clone(run_middle, top, CLONE_VM | SIGCHLD, birth);
    if (middle->pid < 0)
        return dragon_error_origin(-errno);
    return wait_for_child(&birth->is_over, middle->pid) ? birth->error
                                                        : dragon_error_origin(-EAGAIN);
}

int dragon_os_fork_spare(struct dragon_os_middle *middle_out)
{
    struct birth birth = {.server_pid = getpid()};
    int r, status;

    middle_out->stack = mmap(NULL, MIDDLE_STACK_BYTES, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (middle_out->stack == MAP_FAILED)
        return dragon_error_origin(-errno);
    r = fork_through_middle(&birth, middle_out);
    if (r == DRAGON_OS_SPARE) {
        if (birth.error < 0)
            _exit(0);
        middle_out->pid = getppid();
    } else if (r < 0 && middle_out->pid > 0) {
        dragon_os_wait(middle_out->pid, &status);
    }
    if (r != 0)
        dragon_os_forget_middle(middle_out);
    return r;
}

void dragon_os_dismiss_spare(const struct dragon_os_middle *middle)
{
    kill(middle->pid, DISMISS);
}

void dragon_os_release_middle(int32_t middle_pid)
{
    if (getppid() == middle_pid)
        kill(middle_pid, RELEASE);
}

void dragon_os_forget_middle(struct dragon_os_middle *middle)
{
    munmap(middle->stack, MIDDLE_STACK_BYTES);
}

int dragon_os_wait(int32_t pid, int *status_out)
{
    while (waitpid(pid, status_out, 0) < 0)
        if (errno != EINTR)
            return dragon_error_origin(-errno);
    return 0;
}

void dragon_os_block_signals(void)
{
    sigset_t all;

    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
}

void dragon_os_set_blocked_signals(uint64_t mask)
{
    sigset_t set;

    sigemptyset(&set);
    for (int number = 1; number <= 64; number++)
        if (mask >> (number - 1) & 1)
            sigaddset(&set, number);
    sigprocmask(SIG_SETMASK, &set, NULL);
}

/* ---- parents ---- */

int dragon_os_die_with_parent(int32_t parent_pid)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    return getppid() == parent_pid ? 0 : dragon_error_origin(-ESRCH);
}

void dragon_os_leave_group(void)
{
    (void)setpgid(0, 0);
}

void dragon_os_join_group_of(int32_t pid)
{
    pid_t group = getpgid(pid);

    if (group > 0)
        (void)setpgid(0, group);
}

void dragon_os_expect_adoption(void)
{
    prctl(PR_SET_PDEATHSIG, SIGRTMAX, 0, 0, 0);
}

/* The kernel sends the parent-death signal after it has written down the new parent. It may
 * have ended before we asked for it, and others may send the same signal: getppid tells. */
int dragon_os_wait_for_adoption(int32_t parent_pid, int64_t deadline_ns)
{
    struct timespec no_time = {0};
    sigset_t set;
    int r = 0;

    sigemptyset(&set);
    sigaddset(&set, SIGRTMAX);
    while (r == 0 && getppid() == parent_pid) {
        int64_t left_ns = dragon_deadline_remaining_ns(deadline_ns);
        struct timespec left = {left_ns / DRAGON_NS_PER_S, left_ns % DRAGON_NS_PER_S};

        if (left_ns == 0)
            r = dragon_error_origin(-ETIMEDOUT);
        else
            sigtimedwait(&set, NULL, &left);
    }
    prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0);
    while (sigtimedwait(&set, NULL, &no_time) > 0)
        continue;
    return r;
}

int dragon_os_adopt_orphans(bool adopts, bool *was_out)
{
    int was;

    if (prctl(PR_GET_CHILD_SUBREAPER, &was, 0, 0, 0) < 0 ||
        prctl(PR_SET_CHILD_SUBREAPER, adopts, 0, 0, 0) < 0)
        return dragon_error_origin(-errno);
    *was_out = was != 0;
    return 0;
}

/* ---- descriptors ---- */

static void close_from(unsigned first, unsigned last)
{
    if (first > last || syscall(SYS_close_range, first, last, 0) == 0)
        return;
    if (last > 65536)
        last = 65536; /* Linux before 5.9: most programs have no more */
    for (unsigned fd = first; fd <= last; fd++)
        close((int)fd);
}

void dragon_os_forget_files(int keep)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    for (int fd = 0; null >= 0 && fd <= STDERR_FILENO; fd++)
        dup2(null, fd);
    close_from(STDERR_FILENO + 1, (unsigned)keep - 1);
    close_from((unsigned)keep + 1, UINT_MAX);
}

uint64_t dragon_os_socket_id(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode) ? st.st_ino : 0;
}

int dragon_os_receive(int socket, void *bytes_out, size_t size_bytes, int *fd_out)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {.iov_base = bytes_out, .iov_len = size_bytes};
    struct msghdr message = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof control,
    };
    const struct cmsghdr *header;
    ssize_t n;

    *fd_out = -1;
    do {
        n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return dragon_error_origin(-errno);
    header = CMSG_FIRSTHDR(&message);
    if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
        memcpy(fd_out, CMSG_DATA(header), sizeof *fd_out);
    return (int)n;
}

void dragon_os_report(int socket, int32_t number)
{
    (void)!send(socket, &number, sizeof number, MSG_NOSIGNAL | MSG_DONTWAIT);
}
