#include "channel/blocked.h"
#include "support/shared_page.h"

#include <criterion/criterion.h>

TestSuite(blocked, .timeout = 30);

static struct dragon_blocked *blocked;
static bool *is_in;

static int enter_and_stay(void *unused)
{
    (void)unused;
    if (dragon_blocked_enter(blocked, dragon_blocked_self()) < 0)
        return 1;
    __atomic_store_n(is_in, true, __ATOMIC_SEQ_CST);
    for (;;)
        pause();
}

static bool child_is_in(void *unused)
{
    (void)unused;
    return __atomic_load_n(is_in, __ATOMIC_SEQ_CST);
}

static void open_blocked(void)
{
    blocked = shared_page(sizeof *blocked);
    is_in = shared_page(1);
}

Test(blocked, counts_those_who_came_and_did_not_leave)
{
    uint64_t self = dragon_blocked_self();
    int first, second;

    open_blocked();
    cr_assert_neq(self, 0);
    first = dragon_blocked_enter(blocked, self);
    second = dragon_blocked_enter(blocked, self);
    cr_assert_eq(dragon_blocked_count(blocked), 2);
    dragon_blocked_leave(blocked, first);
    cr_assert_eq(dragon_blocked_count(blocked), 1);
    dragon_blocked_leave(blocked, second);
    cr_assert_eq(dragon_blocked_count(blocked), 0);
}

Test(blocked, one_that_was_killed_does_not_count)
{
    pid_t child;

    open_blocked();
    child = child_start(enter_and_stay, NULL);
    cr_assert(becomes_true(child_is_in, NULL));
    cr_assert_eq(dragon_blocked_count(blocked), 1);
    cr_assert_eq(child_kill(child), 256 + SIGKILL);
    cr_assert_eq(dragon_blocked_count(blocked), 0);
}

Test(blocked, more_than_there_are_places_for_are_not_counted)
{
    uint64_t self = dragon_blocked_self();

    open_blocked();
    for (int i = 0; i < DRAGON_BLOCKED_MAX; i++)
        cr_assert_eq(dragon_blocked_enter(blocked, self), i);
    cr_assert_eq(dragon_blocked_enter(blocked, self), -1);
    dragon_blocked_leave(blocked, -1);
    cr_assert_eq(dragon_blocked_count(blocked), DRAGON_BLOCKED_MAX);
}

Test(blocked, places_of_the_dead_are_taken_when_there_are_no_others)
{
    pid_t child;

    open_blocked();
    child = child_start(enter_and_stay, NULL);
    cr_assert(becomes_true(child_is_in, NULL));
    for (int i = 1; i < DRAGON_BLOCKED_MAX; i++)
        dragon_blocked_enter(blocked, dragon_blocked_self());
    cr_assert_eq(dragon_blocked_enter(blocked, dragon_blocked_self()), -1);
    cr_assert_eq(child_kill(child), 256 + SIGKILL);
    cr_assert_eq(dragon_blocked_enter(blocked, dragon_blocked_self()), 0);
}
