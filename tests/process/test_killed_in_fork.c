/* Middles and keepers are killed while somebody waits for what they have to say. */
#include "os/fork.h"
#include "os/os.h"
#include "os/socket.h"
#include "support/test_point.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

TestSuite(killed_in_fork, .timeout = 30);

/* A server whose first middle is killed; the second lives. */
static int survive_middle(void *argument)
{
    struct dragon_os_middle middle;
    int r, status;

    (void)argument;
    dragon_os_block_signals();
    r = dragon_os_fork_spare(&middle);
    if (r == DRAGON_OS_SPARE)
        _exit(0);
    if (r != -EAGAIN)
        return 1;
    dragon_test_point = NULL;
    r = dragon_os_fork_spare(&middle);
    if (r == DRAGON_OS_SPARE)
        _exit(0);
    if (r != 0 || dragon_os_wait(middle.pid, &status) != 0 || status != 0)
        return 2;
    dragon_os_forget_middle(&middle);
    return waitpid(-1, &status, 0) == -1 && errno == ECHILD ? 42 : 3;
}

/* A process whose first keeper is killed; the second lives. */
static int survive_keeper(void *argument)
{
    char *words[] = {(char *)"test", (char *)"--version", NULL}, *variables[] = {NULL};
    int fds[2], fd;
    char byte;

    (void)argument;
    if (dragon_os_socket_pair(fds) != 0 ||
        dragon_os_execute_hidden(words, variables, fds[1], 3) != -EAGAIN)
        return 1;
    dragon_test_point = NULL;
    if (dragon_os_execute_hidden(words, variables, fds[1], 3) != 0)
        return 2;
    dragon_os_close(fds[1]);
    return dragon_os_receive(fds[0], &byte, 1, &fd) == 0 ? 42 : 3;
}

Test(killed_in_fork, who_waits_for_a_middle_learns_that_it_was_killed)
{
    cr_expect_eq(child_result(child_start_to_die_at("middle_before_fork", survive_middle, NULL)),
                 42);
    cr_expect_eq(child_result(child_start_to_die_at("middle_after_fork", survive_middle, NULL)),
                 42);
}

Test(killed_in_fork, who_waits_for_a_keeper_learns_that_it_was_killed)
{
    cr_expect_eq(child_result(child_start_to_die_at("keeper_before_exec", survive_keeper, NULL)),
                 42);
    cr_expect_eq(child_result(child_start_to_die_at("keeper_after_exec", survive_keeper, NULL)),
                 42);
}
