#include "base/deadline.h"
#include "support/shared_page.h"
#include "wait/eventcount.h"

#include <criterion/criterion.h>

TestSuite(eventcount, .timeout = 60);

Test(eventcount, a_new_one_has_no_waiters)
{
    struct dragon_eventcount e;

    dragon_eventcount_init(&e);
    cr_assert_not(dragon_eventcount_has_waiters(&e));
}

Test(eventcount, an_announced_waiter_is_seen_by_wakers)
{
    struct dragon_eventcount e = {0};

    dragon_eventcount_prepare(&e);
    cr_assert(dragon_eventcount_has_waiters(&e));
}

Test(eventcount, a_wake_that_finds_nobody_clears_the_announcements)
{
    struct dragon_eventcount e = {0};

    dragon_eventcount_prepare(&e);
    dragon_eventcount_prepare(&e);
    dragon_eventcount_wake_one(&e);
    cr_assert_not(dragon_eventcount_has_waiters(&e));
}

Test(eventcount, a_wake_between_announcement_and_park_refuses_the_sleep)
{
    struct dragon_eventcount e = {0};
    uint32_t key = dragon_eventcount_prepare(&e);

    dragon_eventcount_wake_one(&e);
    cr_assert_eq(dragon_eventcount_park(&e, key, DRAGON_FOREVER), 0);
}

Test(eventcount, a_park_ends_at_its_deadline)
{
    struct dragon_eventcount e = {0};
    uint32_t key = dragon_eventcount_prepare(&e);
    int64_t deadline_ns = dragon_deadline_after_ns(TEST_SECOND / 20);

    cr_assert_eq(dragon_eventcount_park(&e, key, deadline_ns), DRAGON_EVENTCOUNT_TIMEOUT);
    cr_assert(dragon_deadline_passed(deadline_ns));
}

Test(eventcount, a_park_without_deadline_ends_for_another_look)
{
    struct dragon_eventcount e = {0};
    uint32_t key = dragon_eventcount_prepare(&e);
    int64_t begin_ns = dragon_now_ns();

    cr_assert_eq(dragon_eventcount_park(&e, key, DRAGON_FOREVER), 0);
    cr_assert_geq(dragon_now_ns() - begin_ns, DRAGON_EVENTCOUNT_PARK_NS);
}

static void nothing(int number)
{
    (void)number;
}

Test(eventcount, a_signal_handler_interrupts_a_park)
{
    struct dragon_eventcount e = {0};
    struct sigaction action = {.sa_handler = nothing};
    uint32_t key = dragon_eventcount_prepare(&e);

    sigaction(SIGALRM, &action, NULL);
    ualarm(50000, 0);
    cr_assert_eq(dragon_eventcount_park(&e, key, DRAGON_FOREVER), DRAGON_EVENTCOUNT_INTERRUPTED);
}

struct game {
    struct dragon_eventcount e;
    _Atomic uint32_t items;
    _Atomic uint32_t taken;
};

#define N_ITEMS 20000

static int take_items(void *argument)
{
    struct game *game = argument;

    while (dragon_observe(&game->taken) < N_ITEMS) {
        uint32_t key = dragon_eventcount_prepare(&game->e);
        uint32_t items = dragon_observe(&game->items);

        if (items > 0) {
            if (dragon_replace(&game->items, &items, items - 1) &&
                dragon_fetch_add(&game->taken, 1) + 1 == N_ITEMS)
                dragon_eventcount_wake_all(&game->e);
            continue;
        }
        if (dragon_observe(&game->taken) < N_ITEMS &&
            dragon_eventcount_park(&game->e, key, DRAGON_FOREVER) < 0)
            return 1;
    }
    return 0;
}

static int give_items(void *argument)
{
    struct game *game = argument;

    for (int i = 0; i < N_ITEMS / 2; i++) {
        dragon_fetch_add(&game->items, 1);
        dragon_eventcount_wake_one(&game->e);
    }
    return 0;
}

Test(eventcount, processes_hand_over_all_items)
{
    struct game *game = shared_page(sizeof *game);
    pid_t pids[] = {child_start(take_items, game), child_start(take_items, game),
                    child_start(take_items, game), child_start(give_items, game),
                    child_start(give_items, game)};

    for (size_t i = 0; i < sizeof pids / sizeof *pids; i++)
        cr_assert_eq(child_result(pids[i]), 0);
    cr_assert_eq(dragon_observe(&game->items), 0);
}
