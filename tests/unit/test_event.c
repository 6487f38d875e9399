#include "support/shared_page.h"
#include "sync/event.h"

#include <criterion/criterion.h>

TestSuite(event, .timeout = 60);

static struct dragon_event *new_event(void)
{
    struct dragon_event *event = shared_page(4096);

    dragon_event_init(event);
    return event;
}

Test(event, a_new_one_is_down)
{
    cr_assert_not(dragon_event_is_set(new_event()));
}

Test(event, set_and_clear_change_the_flag_and_may_be_repeated)
{
    struct dragon_event *e = new_event();

    dragon_event_set(e);
    dragon_event_set(e);
    cr_assert(dragon_event_is_set(e));
    dragon_event_clear(e);
    dragon_event_clear(e);
    cr_assert_not(dragon_event_is_set(e));
}

Test(event, a_wait_for_a_raised_flag_does_not_block)
{
    struct dragon_event *e = new_event();

    dragon_event_set(e);
    cr_assert_eq(dragon_event_wait(e, dragon_event_begin(e), DRAGON_FOREVER), 0);
}

Test(event, a_wait_times_out_at_its_deadline)
{
    struct dragon_event *e = new_event();
    int64_t deadline_ns = dragon_deadline_after_ns(TEST_SECOND / 20);

    cr_assert_eq(dragon_event_wait(e, dragon_event_begin(e), deadline_ns), DRAGON_EVENT_TIMEOUT);
    cr_assert(dragon_deadline_passed(deadline_ns));
}

Test(event, a_wait_that_began_before_set_and_clear_is_released)
{
    struct dragon_event *e = new_event();
    uint32_t begin = dragon_event_begin(e);

    dragon_event_set(e);
    dragon_event_clear(e);
    cr_assert_eq(dragon_event_wait(e, begin, DRAGON_FOREVER), 0);
}

Test(event, a_wait_that_begins_after_clear_is_not)
{
    struct dragon_event *e = new_event();

    dragon_event_set(e);
    dragon_event_clear(e);
    cr_assert_eq(dragon_event_wait(e, dragon_event_begin(e), DRAGON_AT_ONCE), DRAGON_EVENT_TIMEOUT);
}

Test(event, repeated_set_counts_as_one)
{
    struct dragon_event *e = new_event();
    uint32_t begin;

    dragon_event_set(e);
    begin = dragon_event_begin(e);
    dragon_event_set(e);
    cr_assert_eq(dragon_event_begin(e), begin);
}

struct room {
    struct dragon_event event;
    _Atomic uint32_t n_inside;
};

static int wait_inside(void *argument)
{
    struct room *room = argument;
    uint32_t begin = dragon_event_begin(&room->event);

    dragon_fetch_add(&room->n_inside, 1);
    return dragon_event_wait(&room->event, begin, test_soon());
}

static bool four_are_inside(void *argument)
{
    return dragon_observe(&((struct room *)argument)->n_inside) == 4;
}

Test(event, set_followed_at_once_by_clear_releases_all_processes_that_wait)
{
    struct room *room = (struct room *)new_event();
    pid_t pids[4];

    for (int i = 0; i < 4; i++)
        pids[i] = child_start(wait_inside, room);
    cr_assert(becomes_true(four_are_inside, room));
    dragon_event_set(&room->event);
    dragon_event_clear(&room->event);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(child_result(pids[i]), 0);
}

static bool has_waiters(void *event)
{
    return dragon_eventcount_has_waiters(&((struct dragon_event *)event)->waiters);
}

Test(event, a_killed_waiter_leaves_nothing_behind)
{
    struct dragon_event *e = new_event();
    pid_t victim = child_start(wait_inside, e);

    cr_assert(becomes_true(has_waiters, e));
    child_kill(victim);
    dragon_event_set(e);
    cr_assert_not(has_waiters(e)); /* the wake found nobody */
    cr_assert(dragon_event_is_set(e));
}

static int raise_and_die(void *argument)
{
    struct dragon_event *e = argument;

    dragon_fetch_add(&e->word, 3); /* what set does before it wakes */
    kill(getpid(), SIGKILL);
    return 1;
}

Test(event, waiters_see_the_flag_of_a_setter_that_died_before_waking)
{
    struct dragon_event *e = new_event();
    pid_t waiter = child_start(wait_inside, e);

    cr_assert(becomes_true(has_waiters, e));
    child_result(child_start(raise_and_die, e));
    cr_assert_eq(child_result(waiter), 0);
}
