#include "os/fork.h"

#include "base/atomic.h"
#include "base/deadline.h"
#include "base/error.h"
#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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

int dragon_os_fork(int32_t *pid_out)
{
    pid_t pid = fork();

    if (pid < 0)
        return dragon_error_origin(-errno);
    *pid_out = pid;
    return 0;
}

/* ---- a spare and its middle ---- */

#define MIDDLE_STACK_BYTES 65536

/* What the caller and the middle tell each other, on the caller's stack. */
struct birth {
    int32_t server_pid;
    int release[2];
    _Atomic uint32_t is_over; /* the spare exists, or cannot */
    int error;
    jmp_buf in_spare;
};

/* The middle's life after the birth. It shares the memory, and errno, of a process that runs by
 * now: only plain system calls that do not fail. */
static _Noreturn void be_middle(int32_t spare_pid, int release_fd)
{
    char byte;

    if (read(release_fd, &byte, 1) != 1)
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
    int release_fd = birth->release[0];

    birth->error = dragon_os_die_with_parent(birth->server_pid);
    if (birth->error == 0)
        birth->error = dragon_os_fork(&spare_pid);
    if (birth->error == 0 && spare_pid == 0) {
        birth->error = dragon_os_die_with_parent(middle_pid);
        longjmp(birth->in_spare, 1);
    }
    close(birth->release[1]);
    dragon_publish(&birth->is_over, 1);
    dragon_os_futex_wake(&birth->is_over, 1);
    if (spare_pid > 0)
        be_middle(spare_pid, release_fd);
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
    while (dragon_observe(&birth->is_over) == 0)
        (void)dragon_os_futex_wait(&birth->is_over, 0, DRAGON_FOREVER);
    return birth->error;
}

int dragon_os_fork_spare(struct dragon_os_middle *middle_out, int *release_out)
{
    struct birth birth = {.server_pid = getpid()};
    int r, status;

    middle_out->stack = mmap(NULL, MIDDLE_STACK_BYTES, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (middle_out->stack == MAP_FAILED)
        return dragon_error_origin(-errno);
    if (pipe2(birth.release, O_CLOEXEC) < 0) {
        r = dragon_error_origin(-errno);
        goto unmap;
    }
    r = fork_through_middle(&birth, middle_out);
    close(birth.release[0]);
    if (r == DRAGON_OS_SPARE) {
        if (birth.error < 0)
            _exit(0);
        middle_out->pid = getppid();
        *release_out = birth.release[1];
        dragon_os_forget_middle(middle_out);
        return DRAGON_OS_SPARE;
    }
    close(birth.release[1]);
    if (r == 0)
        return 0;
    if (middle_out->pid > 0)
        dragon_os_wait(middle_out->pid, &status);

unmap:
    dragon_os_forget_middle(middle_out);
    return r;
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

int dragon_os_socket_pair(int fds_out[2])
{
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds_out) < 0)
        return dragon_error_origin(-errno);
    return 0;
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
