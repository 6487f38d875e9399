/* A process is killed in the middle of an operation on a semaphore, an event, a
 * condition or a barrier: those who wait go on within a park, and the structure
 * stays of use. */
#include "memory/pool.h"
#include "support/test_point.h"
#include "sync/barrier.h"
#include "sync/condition.h"
#include "sync/event.h"
#include "sync/semaphore.h"

#include <criterion/criterion.h>

TestSuite(killed_in_sync, .timeout = 60);

/* What the processes of a test share. */
struct shared {
    struct dragon_semaphore semaphore;
    struct dragon_event event;
    struct dragon_barrier barrier;
    struct dragon_condition condition;
    _Atomic int n_waiting;
};

static struct shared *shared;
static struct dragon_pool *pool;

static void make_shared(void)
{
    shared = shared_page(sizeof *shared);
    dragon_semaphore_init(&shared->semaphore, 0, 5);
    dragon_event_init(&shared->event);
    cr_assert_eq(dragon_condition_init(&shared->condition), 0);
    cr_assert_eq(dragon_pool_create_managed(1 << 20, 7, 1, &pool), 0);
}

static bool somebody_waits(void *n)
{
    return atomic_load(&shared->n_waiting) >= *(int *)n;
}

static void await_waiters(int n)
{
    cr_assert(becomes_true(somebody_waits, &n));
}

static bool has_waiter(void *eventcount)
{
    return dragon_eventcount_has_waiters(eventcount);
}

/* The dead one was to wake it: it looks again by itself. */
static void check_goes_on(pid_t waiter, int result, int64_t begin_ns)
{
    cr_assert_eq(child_result(waiter), result);
    cr_assert_lt(dragon_now_ns() - begin_ns, DRAGON_EVENTCOUNT_PARK_NS + TEST_SECOND / 2);
}

/* ---- semaphore, event ---- */

static int acquire(void *argument)
{
    (void)argument;
    return dragon_semaphore_acquire(&shared->semaphore, test_soon());
}

static int release(void *argument)
{
    (void)argument;
    return dragon_semaphore_release(&shared->semaphore);
}

Test(killed_in_sync, a_unit_whose_releaser_died_is_taken, .init = make_shared)
{
    pid_t waiter = child_start(acquire, NULL);
    int64_t begin_ns;

    cr_assert(becomes_true(has_waiter, &shared->semaphore.waiters));
    begin_ns = dragon_now_ns();
    cr_assert(child_dies_at("semaphore-raised", release, NULL));
    check_goes_on(waiter, 0, begin_ns);
    cr_assert_eq(dragon_semaphore_value(&shared->semaphore), 0);
}

static int await_event(void *argument)
{
    (void)argument;
    return dragon_event_wait(&shared->event, dragon_event_begin(&shared->event), test_soon());
}

static int set_event(void *argument)
{
    (void)argument;
    dragon_event_set(&shared->event);
    return 0;
}

Test(killed_in_sync, a_flag_whose_raiser_died_is_seen, .init = make_shared)
{
    pid_t waiter = child_start(await_event, NULL);
    int64_t begin_ns;

    cr_assert(becomes_true(has_waiter, &shared->event.waiters));
    begin_ns = dragon_now_ns();
    cr_assert(child_dies_at("event-raised", set_event, NULL));
    check_goes_on(waiter, 0, begin_ns);
    cr_assert(dragon_event_is_set(&shared->event));
}

/* ---- condition ---- */

static int await_condition(void *argument)
{
    struct dragon_condition_waiter *waiter;
    int r = dragon_condition_enter(&shared->condition, pool, &waiter);

    (void)argument;
    if (r != 0)
        return 100;
    atomic_fetch_add(&shared->n_waiting, 1);
    r = dragon_condition_wait(waiter, test_soon());
    return r != 0 ? r : dragon_condition_leave(waiter);
}

static int notify_one(void *argument)
{
    (void)argument;
    return dragon_condition_notify(&shared->condition, pool, 1) == 1 ? 0 : 1;
}

Test(killed_in_sync, a_waiter_whose_notifier_died_goes_on, .init = make_shared)
{
    pid_t waiter = child_start(await_condition, NULL);
    int64_t begin_ns;

    await_waiters(1);
    begin_ns = dragon_now_ns();
    cr_assert(child_dies_at("condition-notified", notify_one, NULL));
    check_goes_on(waiter, 0, begin_ns);
    cr_assert_eq(dragon_condition_n_waiting(&shared->condition, pool), 0);
}

Test(killed_in_sync, a_waiter_that_died_as_it_entered_takes_no_notification, .init = make_shared)
{
    pid_t waiter;

    cr_assert(child_dies_at("condition-entered", await_condition, NULL));
    waiter = child_start(await_condition, NULL);
    await_waiters(1);
    cr_assert_eq(dragon_condition_notify(&shared->condition, pool, 1), 1);
    cr_assert_eq(child_result(waiter), 0);
}

static int enter_often(void *argument)
{
    struct dragon_condition_waiter *waiter;

    (void)argument;
    for (int i = 0; i <= DRAGON_CONDITION_N_INLINE; i++)
        if (dragon_condition_enter(&shared->condition, pool, &waiter) != 0)
            return 1;
    return 0;
}

Test(killed_in_sync, a_condition_grows_after_a_process_died_while_it_grew, .init = make_shared)
{
    enum { N = DRAGON_CONDITION_N_INLINE + 2 };
    struct dragon_pool_statistics statistics;
    pid_t waiters[N];

    cr_assert(child_dies_at("condition-growing", enter_often, NULL));
    for (int i = 0; i < N; i++)
        waiters[i] = child_start(await_condition, NULL);
    await_waiters(N);
    cr_assert_eq(dragon_condition_notify(&shared->condition, pool, N), N);
    for (int i = 0; i < N; i++)
        cr_assert_eq(child_result(waiters[i]), 0);
    dragon_condition_fini(&shared->condition, pool);
    dragon_pool_statistics(pool, &statistics);
    cr_assert_leq(statistics.n_blocks, 1, "the block of the dead one");
}

/* ---- barrier ---- */

static int arrive(void *has_action)
{
    struct dragon_barrier_place place;
    int r = dragon_barrier_arrive(&shared->barrier, NULL, has_action != NULL, test_soon(), &place);

    if (r == DRAGON_BARRIER_LAST)
        return has_action ? dragon_barrier_finish(&shared->barrier, &place, true) : 0;
    if (r != 0)
        return r;
    atomic_fetch_add(&shared->n_waiting, 1);
    return dragon_barrier_wait(&shared->barrier, &place, test_soon());
}

static int arrive_and_expire(void *argument)
{
    struct dragon_barrier_place place;
    int r = dragon_barrier_arrive(&shared->barrier, NULL, false, test_soon(), &place);

    (void)argument;
    if (r == 0)
        dragon_barrier_expire(&shared->barrier, &place);
    return r;
}

/* Two wait for a third, which dies at the point. */
static void kill_third(const char *point, int (*run)(void *), void *has_action, int result)
{
    pid_t waiters[2];
    int64_t begin_ns;

    cr_assert_eq(dragon_barrier_init(&shared->barrier, 3), 0);
    for (int i = 0; i < 2; i++)
        waiters[i] = child_start(arrive, has_action);
    await_waiters(2);
    begin_ns = dragon_now_ns();
    cr_assert(child_dies_at(point, run, has_action));
    for (int i = 0; i < 2; i++)
        check_goes_on(waiters[i], result, begin_ns);
}

static void check_next_round(void *has_action)
{
    pid_t parties[3];

    for (int i = 0; i < 3; i++)
        parties[i] = child_start(arrive, has_action);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(child_result(parties[i]), 0);
}

Test(killed_in_sync, a_barrier_whose_last_party_died_lets_the_others_go, .init = make_shared)
{
    kill_third("barrier-released", arrive, NULL, 0);
    check_next_round(NULL);
}

Test(killed_in_sync, a_barrier_whose_leader_died_before_the_action_breaks, .init = make_shared)
{
    kill_third("barrier-full", arrive, shared, DRAGON_BARRIER_BROKEN);
    dragon_barrier_reset(&shared->barrier);
    check_next_round(shared);
}

Test(killed_in_sync, a_barrier_whose_leader_died_after_the_action_lets_the_others_go,
     .init = make_shared)
{
    kill_third("barrier-finished", arrive, shared, 0);
    check_next_round(shared);
}

Test(killed_in_sync, a_barrier_whose_breaker_died_is_broken_for_all, .init = make_shared)
{
    pid_t waiter;
    int64_t begin_ns;

    cr_assert_eq(dragon_barrier_init(&shared->barrier, 3), 0);
    waiter = child_start(arrive, NULL);
    await_waiters(1);
    begin_ns = dragon_now_ns();
    cr_assert(child_dies_at("barrier-broken", arrive_and_expire, NULL));
    check_goes_on(waiter, DRAGON_BARRIER_BROKEN, begin_ns);
    dragon_barrier_reset(&shared->barrier);
    check_next_round(NULL);
}
