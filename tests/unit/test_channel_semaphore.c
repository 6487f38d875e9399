#include "channel/channel_semaphore.h"
#include "support/channel_fixture.h"
#include "support/shared_page.h"

#include <criterion/criterion.h>
#include <pthread.h>

TestSuite(channel_semaphore, .timeout = 60);

static struct channel_fixture fixture;
static struct dragon_channel *channel = &fixture.channel;
static struct dragon_channel_semaphore *semaphore;

static void open_semaphore(uint32_t value)
{
    channel_fixture_open(&fixture, 1 << 20, 1, DRAGON_CHANNEL_UNBOUNDED);
    semaphore = shared_page(sizeof *semaphore);
    dragon_semaphore_init(&semaphore->semaphore, value, 5);
}

static void close_semaphore(void)
{
    cr_assert_eq(channel_fixture_blocks_left(&fixture), 0);
    dragon_pool_close(fixture.pool);
}

static int take_at_once(void)
{
    return dragon_channel_semaphore_take(channel, semaphore, DRAGON_AT_ONCE);
}

/* A thread that waits to take, or for zero. */
struct waiter {
    pthread_t thread;
    bool for_zero;
    int result;
};

static void *wait_for_it(void *argument)
{
    struct waiter *waiter = argument;

    do
        waiter->result = waiter->for_zero
                             ? dragon_channel_semaphore_wait_zero(channel, semaphore, test_soon())
                             : dragon_channel_semaphore_take(channel, semaphore, test_soon());
    while (waiter->result == DRAGON_CHANNEL_SEMAPHORE_INTERRUPTED);
    return NULL;
}

static bool has_waiters(void *eventcount)
{
    return dragon_eventcount_has_waiters(eventcount);
}

static void start_waiter(struct waiter *waiter, bool for_zero)
{
    waiter->for_zero = for_zero;
    pthread_create(&waiter->thread, NULL, wait_for_it, waiter);
    cr_assert(
        becomes_true(has_waiters, for_zero ? &semaphore->zero : &semaphore->semaphore.waiters));
}

static void join_waiter(struct waiter *waiter, int result)
{
    int64_t begin_ns = dragon_now_ns();

    pthread_join(waiter->thread, NULL);
    cr_assert_eq(waiter->result, result);
    cr_assert_lt(dragon_now_ns() - begin_ns, 9 * TEST_SECOND / 10); /* not a look by itself */
}

Test(channel_semaphore, takes_what_is_there_and_no_more)
{
    open_semaphore(2);
    cr_assert_eq(take_at_once(), 0);
    cr_assert_eq(take_at_once(), 0);
    cr_assert_eq(take_at_once(), DRAGON_CHANNEL_SEMAPHORE_TIMEOUT);
    close_semaphore();
}

Test(channel_semaphore, a_release_wakes_who_waits_to_take)
{
    struct waiter waiter;

    open_semaphore(0);
    start_waiter(&waiter, false);
    cr_assert_eq(dragon_semaphore_release(&semaphore->semaphore), 0);
    join_waiter(&waiter, 0);
    cr_assert_eq(dragon_semaphore_value(&semaphore->semaphore), 0);
    close_semaphore();
}

Test(channel_semaphore, taking_the_last_unit_wakes_all_who_wait_for_zero)
{
    struct waiter waiters[2];

    open_semaphore(2);
    start_waiter(&waiters[0], true);
    start_waiter(&waiters[1], true);
    cr_assert_eq(take_at_once(), 0);
    cr_assert_eq(dragon_channel_semaphore_wait_zero(channel, semaphore, DRAGON_AT_ONCE),
                 DRAGON_CHANNEL_SEMAPHORE_TIMEOUT);
    cr_assert_eq(take_at_once(), 0);
    join_waiter(&waiters[0], 0);
    join_waiter(&waiters[1], 0);
    close_semaphore();
}

Test(channel_semaphore, destroying_the_channel_ends_all_waits)
{
    struct waiter taker, other = {.for_zero = true};

    open_semaphore(0);
    start_waiter(&taker, false);
    cr_assert_eq(dragon_semaphore_release(&semaphore->semaphore), 0);
    join_waiter(&taker, 0);
    start_waiter(&taker, false);
    cr_assert(dragon_channel_destroy(channel));
    dragon_channel_semaphore_wake_all(semaphore);
    join_waiter(&taker, DRAGON_CHANNEL_SEMAPHORE_DESTROYED);
    dragon_semaphore_init(&semaphore->semaphore, 1, 5);
    pthread_create(&other.thread, NULL, wait_for_it, &other);
    join_waiter(&other, DRAGON_CHANNEL_SEMAPHORE_DESTROYED);
    close_semaphore();
}
