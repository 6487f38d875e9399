#include "os/rights.h"
#include "support/shared_page.h"

#include <criterion/criterion.h>
#include <grp.h>
#include <sched.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define NOBODY 65534

static struct dragon_os_rights ours;

static void know_ours(void)
{
    cr_assert_eq(dragon_os_rights(&ours), 0);
}

TestSuite(rights, .timeout = 30, .init = know_ours);

/* In a child that has given something up: 0 if it is unlike its parent then, and like itself. */
static int is_unlike(bool has_given_up)
{
    struct dragon_os_rights mine;

    if (!has_given_up)
        return 77;
    if (dragon_os_check_rights(getpid(), &ours) != DRAGON_OS_OTHER_RIGHTS)
        return 2;
    if (dragon_os_check_rights(getppid(), &ours) != 0)
        return 3;
    return dragon_os_rights(&mine) == 0 && dragon_os_check_rights(getpid(), &mine) == 0 ? 0 : 4;
}

static void expect_unlike(int (*give_up)(void *))
{
    int r = child_result(child_start(give_up, NULL));

    if (r == 77)
        cr_skip_test("this user cannot give that up");
    cr_assert_eq(r, 0);
}

Test(rights, a_process_has_its_own)
{
    cr_assert_eq(dragon_os_check_rights(getpid(), &ours), 0);
}

static int do_nothing(void *argument)
{
    (void)argument;
    return dragon_os_check_rights(getpid(), &ours);
}

Test(rights, a_child_has_those_of_its_parent)
{
    cr_assert_eq(child_result(child_start(do_nothing, NULL)), 0);
}

Test(rights, a_process_that_does_not_exist_has_none)
{
    cr_assert_lt(dragon_os_check_rights(0x7fffffff, &ours), 0);
}

static int become_nobody(void *argument)
{
    (void)argument;
    return is_unlike(setgroups(0, NULL) == 0 && setgid(NOBODY) == 0 && setuid(NOBODY) == 0);
}

Test(rights, another_user_has_others)
{
    expect_unlike(become_nobody);
}

static int act_as_nobody(void *argument)
{
    (void)argument;
    return is_unlike(seteuid(NOBODY) == 0);
}

Test(rights, so_has_one_that_acts_as_another_user)
{
    expect_unlike(act_as_nobody);
}

static int leave_groups(void *argument)
{
    gid_t group = 4711;

    (void)argument;
    return is_unlike(setgroups(1, &group) == 0);
}

Test(rights, so_has_a_member_of_other_groups)
{
    expect_unlike(leave_groups);
}

static int join_many_groups(void *argument)
{
    static gid_t groups[3000];

    (void)argument;
    for (size_t i = 0; i < 3000; i++)
        groups[i] = (gid_t)(1000000000 + i);
    return is_unlike(setgroups(3000, groups) == 0);
}

Test(rights, a_process_may_be_in_very_many_groups)
{
    expect_unlike(join_many_groups);
}

static int want_no_privileges(void *argument)
{
    (void)argument;
    return is_unlike(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
}

Test(rights, so_has_one_that_wants_no_new_privileges)
{
    expect_unlike(want_no_privileges);
}

static int change_root(void *argument)
{
    (void)argument;
    if (chroot("/proc") != 0)
        return 77;
    return dragon_os_check_rights(getpid(), &ours) < 0 ? 0 : 2; /* there is no /proc/proc */
}

Test(rights, what_cannot_be_told_is_an_error)
{
    expect_unlike(change_root);
}

static int unshare_mounts(void *argument)
{
    (void)argument;
    return is_unlike(unshare(CLONE_NEWNS) == 0);
}

Test(rights, so_has_one_with_mounts_of_its_own)
{
    expect_unlike(unshare_mounts);
}
