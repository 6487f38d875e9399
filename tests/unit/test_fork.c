/* Processes that are made of this one: who their parent is, who sees them, and who ends with whom.
 * What happens in processes that fork is told by a page that all of them share. */
#include "base/atomic.h"
#include "base/deadline.h"
#include "os/fork.h"
#include "os/os.h"
#include "os/socket.h"
#include "support/shared_page.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define A_WHILE_NS (10 * DRAGON_NS_PER_S)

TestSuite(fork, .timeout = 30);

struct page {
    _Atomic int32_t spare_pid, middle_pid, parent_before, parent_after, result;
};

static struct page *page;

static void open_page(void)
{
    page = shared_page(sizeof *page);
}

/* True once the process is gone, reaped by whoever had to: its parent, or this process if it is an
 * orphan that came to it. */
static bool is_gone(int32_t pid)
{
    int64_t deadline_ns = dragon_deadline_after_ns(A_WHILE_NS);

    while (waitpid(pid, NULL, WNOHANG) <= 0 && kill(pid, 0) == 0 &&
           !dragon_deadline_passed(deadline_ns))
        usleep(1000);
    return kill(pid, 0) < 0;
}

/* Orphans come to this process, which reaps them. The init of a container may take seconds, or
 * never do it. */
static void adopt_orphans(void)
{
    bool was;

    cr_assert_eq(dragon_os_adopt_orphans(true, &was), 0);
}

/* ---- hidden children ---- */

Test(fork, a_hidden_child_is_not_waited_for_and_sends_no_signal)
{
    int32_t pid;
    int status;

    signal(SIGCHLD, SIG_DFL);
    cr_assert_eq(dragon_os_fork_hidden(&pid), 0);
    if (pid == 0)
        _exit(0);
    cr_assert_eq(waitpid(-1, &status, 0), -1);
    cr_assert_eq(errno, ECHILD);
    dragon_os_end_hidden(pid, dragon_deadline_after_ns(A_WHILE_NS));
    cr_assert_eq(kill(pid, 0), -1, "it has been reaped");
}

Test(fork, a_hidden_child_that_does_not_end_is_killed_at_the_deadline)
{
    int32_t pid;

    cr_assert_eq(dragon_os_fork_hidden(&pid), 0);
    while (pid == 0)
        pause();
    dragon_os_end_hidden(pid, DRAGON_AT_ONCE);
    cr_assert_eq(kill(pid, 0), -1);
}

Test(fork, a_process_dies_with_its_parent, .init = open_page)
{
    int32_t parent, pid;
    int status;

    adopt_orphans();
    cr_assert_eq(dragon_os_fork(&parent), 0);
    if (parent == 0) {
        parent = dragon_os_pid();
        if (dragon_os_fork(&pid) == 0 && pid == 0) {
            atomic_store(&page->result, dragon_os_die_with_parent(parent));
            atomic_store(&page->spare_pid, dragon_os_pid());
            for (;;)
                pause();
        }
        while (atomic_load(&page->spare_pid) == 0)
            usleep(1000);
        _exit(0);
    }
    dragon_os_wait(parent, &status);
    cr_assert_eq(atomic_load(&page->result), 0);
    cr_assert(is_gone(atomic_load(&page->spare_pid)));
}

Test(fork, who_has_another_parent_by_now_learns_it)
{
    cr_assert_eq(dragon_os_die_with_parent(getppid() + 1), -ESRCH);
}

Test(fork, what_is_executed_hidden_has_one_descriptor_and_is_not_waited_for)
{
    char *words[] = {(char *)"test", (char *)"--version", NULL}, *variables[] = {NULL};
    int fds[2], fd, status;
    char byte;

    cr_assert_eq(dragon_os_socket_pair(fds), 0);
    cr_assert_eq(dragon_os_execute_hidden(words, variables, fds[1], 3), 0);
    close(fds[1]);
    cr_assert_eq(waitpid(-1, &status, WNOHANG), -1);
    cr_assert_eq(errno, ECHILD);
    cr_assert_eq(dragon_os_receive(fds[0], &byte, 1, &fd), 0, "it and its keeper let go of it");
}

Test(fork, what_cannot_be_executed_is_an_error)
{
    static char much[3 << 20]; /* more than the kernel takes in a word */
    char *words[] = {much, NULL}, *variables[] = {NULL};
    int fds[2];

    memset(much, 'x', sizeof much - 1);
    cr_assert_eq(dragon_os_socket_pair(fds), 0);
    cr_assert_eq(dragon_os_execute_hidden(words, variables, fds[1], 3), -E2BIG);
}

/* ---- spares ---- */

enum spare_does { RELEASES, DIES, WAITS };

static _Noreturn void be_spare(enum spare_does what, int32_t middle_pid)
{
    atomic_store(&page->parent_before, getppid());
    atomic_store(&page->spare_pid, dragon_os_pid());
    if (what == DIES)
        _exit(0);
    while (what == WAITS)
        pause();
    dragon_os_expect_adoption();
    dragon_os_release_middle(middle_pid);
    atomic_store(&page->result,
                 dragon_os_wait_for_adoption(middle_pid, dragon_deadline_after_ns(A_WHILE_NS)));
    atomic_store(&page->parent_after, getppid());
    _exit(42);
}

/* In the server: a spare, which does that. */
static struct dragon_os_middle make_spare(enum spare_does what)
{
    struct dragon_os_middle middle = {0};
    int r = dragon_os_fork_spare(&middle);

    if (r == DRAGON_OS_SPARE)
        be_spare(what, middle.pid);
    if (r < 0)
        _exit(1);
    atomic_store(&page->middle_pid, middle.pid);
    while (atomic_load(&page->spare_pid) == 0)
        usleep(1000);
    return middle;
}

static int32_t start_server(enum spare_does what, bool dismisses)
{
    int32_t pid;
    int status;

    cr_assert_eq(dragon_os_fork(&pid), 0);
    if (pid == 0) {
        struct dragon_os_middle middle;

        dragon_os_block_signals();
        middle = make_spare(what);
        if (dismisses)
            dragon_os_dismiss_spare(&middle);
        dragon_os_wait(middle.pid, &status);
        dragon_os_forget_middle(&middle);
        _exit(status == 0 ? 0 : 2);
    }
    return pid;
}

Test(fork, a_spare_becomes_the_child_of_who_adopts_orphans, .init = open_page)
{
    bool was = true;
    int32_t server;
    int status;

    cr_assert_eq(dragon_os_adopt_orphans(true, &was), 0);
    cr_assert_not(was);
    server = start_server(RELEASES, false);
    dragon_os_wait(server, &status);
    cr_assert_eq(status, 0);
    cr_assert_eq(atomic_load(&page->parent_before), atomic_load(&page->middle_pid));
    cr_assert_eq(dragon_os_wait(atomic_load(&page->spare_pid), &status), 0);
    cr_assert_eq(WEXITSTATUS(status), 42);
    cr_assert_eq(atomic_load(&page->result), 0);
    cr_assert_eq(atomic_load(&page->parent_after), dragon_os_pid());
    cr_assert_eq(dragon_os_adopt_orphans(false, &was), 0);
    cr_assert(was);
}

Test(fork, a_spare_that_dies_unreleased_is_reaped_by_its_middle, .init = open_page)
{
    int status;

    adopt_orphans();
    dragon_os_wait(start_server(DIES, false), &status);
    cr_assert_eq(status, 0);
    cr_assert_eq(waitpid(-1, &status, 0), -1, "nobody was adopted");
    cr_assert(is_gone(atomic_load(&page->spare_pid)));
}

Test(fork, a_dismissed_spare_is_killed_and_reaped, .init = open_page)
{
    int status;

    adopt_orphans();
    dragon_os_wait(start_server(WAITS, true), &status);
    cr_assert_eq(status, 0);
    cr_assert_eq(waitpid(-1, &status, 0), -1, "nobody was adopted");
    cr_assert(is_gone(atomic_load(&page->spare_pid)));
}

Test(fork, middle_and_spare_die_with_a_killed_server, .init = open_page)
{
    int32_t server;
    int status;

    adopt_orphans();
    server = start_server(WAITS, false);
    /* Both: the spare may run before the server does again, and then nobody has said who is the
     * middle. */
    while (atomic_load(&page->spare_pid) == 0 || atomic_load(&page->middle_pid) == 0)
        usleep(1000);
    kill(server, SIGKILL);
    dragon_os_wait(server, &status);
    cr_assert(is_gone(atomic_load(&page->middle_pid)));
    cr_assert(is_gone(atomic_load(&page->spare_pid)));
}

Test(fork, adoption_that_does_not_come_ends_with_the_deadline, .init = open_page)
{
    cr_assert_eq(dragon_os_wait_for_adoption(getppid(), DRAGON_AT_ONCE), -ETIMEDOUT);
}

/* ---- descriptors ---- */

Test(fork, a_descriptor_arrives_with_the_bytes_it_was_sent_with)
{
    char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 'x', bytes[4];
    struct iovec part = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = control,
        .msg_controllen = sizeof control,
    };
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    int fds[2], fd;

    cr_assert_eq(dragon_os_socket_pair(fds), 0);
    *header = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
    *(int *)CMSG_DATA(header) = fds[0];
    cr_assert_eq(sendmsg(fds[0], &message, 0), 1);
    cr_assert_eq(send(fds[0], "y", 1, 0), 1);
    cr_assert_eq(dragon_os_receive(fds[1], bytes, sizeof bytes, &fd), 1);
    cr_assert_eq(dragon_os_socket_id(fd), dragon_os_socket_id(fds[0]));
    cr_assert_neq(dragon_os_socket_id(fd), dragon_os_socket_id(fds[1]));
    close(fd);
    cr_assert_eq(dragon_os_receive(fds[1], bytes, sizeof bytes, &fd), 1);
    cr_assert_eq(fd, -1);
    close(fds[0]);
    cr_assert_eq(dragon_os_receive(fds[1], bytes, sizeof bytes, &fd), 0);
    cr_assert_eq(dragon_os_socket_id(-1), 0);
}

Test(fork, signals_are_blocked_by_the_bits_of_a_mask)
{
    sigset_t set;

    dragon_os_set_blocked_signals(UINT64_C(1) << (SIGUSR1 - 1));
    sigprocmask(SIG_BLOCK, NULL, &set);
    cr_assert_eq(sigismember(&set, SIGUSR1), 1);
    cr_assert_eq(sigismember(&set, SIGUSR2), 0);
    dragon_os_set_blocked_signals(0);
}
