#include "inspect/start_checks.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/deadline.h"
#include "os/fork.h"
#include "os/os.h"
#include "os/socket.h"

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

#define PATIENCE_NS (INT64_C(10) * DRAGON_NS_PER_S)

int dragon_check_hidden_child(void)
{
    int32_t pid;
    int r = dragon_os_fork_hidden(&pid);
    if (r < 0) {
        return r;
    }
    if (pid == 0) {
        _exit(0);
    }
    dragon_os_end_hidden(pid, dragon_deadline_after_ns(PATIENCE_NS));
    return 0;
}

static int send_descriptor(int socket, int fd)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.header = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    char byte = 0;
    struct iovec part = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof control,
    };
    control.header.cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    return sendmsg(socket, &message, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int dragon_check_descriptor_passing(void)
{
    int fds[2], received_fd = -1;
    char byte;
    int r = dragon_os_socket_pair(fds);
    if (r < 0) {
        return r;
    }
    r = send_descriptor(fds[0], fds[0]);
    if (r == 0) {
        r = dragon_os_receive(fds[1], &byte, 1, &received_fd);
    }
    if (r >= 0) {
        r = received_fd < 0 ? -ENOTSUP : 0;
    }
    if (received_fd >= 0) {
        dragon_os_close(received_fd);
    }
    dragon_os_close(fds[0]);
    dragon_os_close(fds[1]);
    return r;
}

/* ---- adoption ---- */

/* In the spare: its pid, or what went wrong. */
static int32_t be_adopted(int32_t middle_pid, int32_t doctor_pid)
{
    dragon_os_expect_adoption();
    dragon_os_release_middle(middle_pid);
    int r = dragon_os_wait_for_adoption(middle_pid, dragon_deadline_after_ns(PATIENCE_NS));
    if (r == 0 && getppid() != doctor_pid) {
        r = -ECHILD;
    }
    return r < 0 ? r : dragon_os_pid();
}

/* The fork server's part. */
static _Noreturn void serve(int socket, int32_t doctor_pid)
{
    struct dragon_os_middle middle;
    int status, r = dragon_os_fork_spare(&middle);
    if (r == 0) {
        (void)dragon_os_wait(middle.pid, &status);
    } else if (r == DRAGON_OS_SPARE) {
        dragon_os_report(socket, be_adopted(middle.pid, doctor_pid));
    } else {
        dragon_os_report(socket, r);
    }
    _exit(0);
}

/* The seed's part. */
static _Noreturn void be_seed(int socket, int32_t doctor_pid)
{
    int32_t pid = -1;
    int status;
    dragon_os_block_signals();
    int r = dragon_os_die_with_parent(doctor_pid);
    if (r == 0) {
        r = dragon_os_fork(&pid);
    }
    if (r < 0) {
        dragon_os_report(socket, r);
    } else if (pid == 0) {
        serve(socket, doctor_pid);
    } else {
        dragon_os_close(socket);
        (void)dragon_os_wait(pid, &status);
    }
    _exit(0);
}

/* Hear of the spare, and reap it as only its parent can. */
static int expect_child(int socket)
{
    int32_t answer;
    int no_fd, status;
    int r = dragon_os_receive(socket, &answer, sizeof answer, &no_fd);
    if (r < 0) {
        return r;
    }
    if (r != sizeof answer) {
        return -EPIPE;
    }
    return answer < 0 ? answer : dragon_os_wait(answer, &status);
}

static int adopt_one(void)
{
    int32_t doctor_pid = dragon_os_pid(), seed_pid;
    int fds[2];
    int r = dragon_os_socket_pair(fds);
    if (r < 0) {
        return r;
    }
    r = dragon_os_fork_hidden(&seed_pid);
    if (r == 0 && seed_pid == 0) {
        dragon_os_close(fds[0]);
        be_seed(fds[1], doctor_pid);
    }
    dragon_os_close(fds[1]);
    if (r == 0) {
        r = expect_child(fds[0]);
        dragon_os_end_hidden(seed_pid, dragon_deadline_after_ns(PATIENCE_NS));
    }
    dragon_os_close(fds[0]);
    return r;
}

int dragon_check_adoption(void)
{
    bool adopted_before, adopts;
    int r = dragon_os_adopt_orphans(true, &adopted_before);
    if (r < 0) {
        return r;
    }
    r = adopt_one();
    (void)dragon_os_adopt_orphans(adopted_before, &adopts);
    return r;
}

int dragon_check_close_range(void)
{
    return syscall(SYS_close_range, UINT_MAX, UINT_MAX, 0) == 0 ? 0 : -errno;
}
