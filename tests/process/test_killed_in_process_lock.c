/* A lock that a process holds goes to the next one when its holder is killed, at any step; each
 * time exactly one is told. */
#include "support/test_point.h"
#include "sync/process_lock.h"

#include <criterion/criterion.h>

/* The lock, and who has ended: bit n for number n. */
struct shared {
    struct dragon_process_lock lock;
    _Atomic uint32_t gone;
};

static struct shared *shared;

static bool is_there(void *context, uint64_t process)
{
    return !(dragon_observe(&((struct shared *)context)->gone) >> process & 1);
}

static struct dragon_process_lock_user user(uint64_t number)
{
    return (struct dragon_process_lock_user){number, is_there, shared};
}

static void make_lock(void)
{
    shared = shared_page(sizeof *shared);
    dragon_process_lock_init(&shared->lock);
}

TestSuite(killed_in_process_lock, .timeout = 60, .init = make_lock);

static int try_as(uint64_t number)
{
    struct dragon_process_lock_user me = user(number);

    return dragon_process_lock_try(&shared->lock, &me);
}

static int lock_as(const uint64_t *number)
{
    struct dragon_process_lock_user me = user(*number);

    return dragon_process_lock_lock(&shared->lock, &me, test_soon());
}

static void bury(uint64_t number)
{
    dragon_fetch_or(&shared->gone, 1u << number);
    dragon_process_lock_wake(&shared->lock, number);
}

Test(killed_in_process_lock, it_is_held_by_one_and_unlocked_by_anybody)
{
    cr_assert_eq(try_as(1), 0);
    cr_assert_eq(try_as(2), DRAGON_PROCESS_LOCK_BUSY);
    cr_assert_eq(try_as(1), DRAGON_PROCESS_LOCK_BUSY, "also its holder");
    cr_assert_eq(dragon_process_lock_holder(&shared->lock), 1);
    cr_assert_eq(dragon_process_lock_unlock(&shared->lock), 0);
    cr_assert_eq(dragon_process_lock_unlock(&shared->lock), DRAGON_PROCESS_LOCK_NOT_LOCKED);
    cr_assert_eq(try_as(2), 0);
}

Test(killed_in_process_lock, a_dead_holders_next_is_told_once)
{
    cr_assert_eq(try_as(1), 0);
    bury(1);
    cr_assert_eq(try_as(2), DRAGON_PROCESS_LOCK_OWNER_DIED);
    cr_assert_eq(dragon_process_lock_unlock(&shared->lock), 0);
    cr_assert_eq(try_as(3), 0);
}

Test(killed_in_process_lock, a_wait_ends_at_its_deadline)
{
    struct dragon_process_lock_user me = user(2);

    cr_assert_eq(try_as(1), 0);
    cr_assert_eq(dragon_process_lock_lock(&shared->lock, &me, DRAGON_AT_ONCE),
                 DRAGON_PROCESS_LOCK_TIMEOUT);
}

static int lock_in_child(void *number)
{
    return lock_as(number);
}

static int lock_and_unlock(void *number)
{
    int r = lock_as(number);

    return r != 0 ? r : dragon_process_lock_unlock(&shared->lock);
}

static int unlock(void *argument)
{
    (void)argument;
    return dragon_process_lock_unlock(&shared->lock);
}

static bool somebody_waits(void *lock)
{
    return dragon_eventcount_has_waiters(&((struct dragon_process_lock *)lock)->waiters);
}

Test(killed_in_process_lock, one_that_waits_gets_it_when_the_holder_is_swept)
{
    uint64_t number = 2;
    pid_t waiter;

    cr_assert_eq(try_as(1), 0);
    waiter = child_start(lock_in_child, &number);
    cr_assert(becomes_true(somebody_waits, &shared->lock));
    bury(1);
    cr_assert_eq(child_result(waiter), DRAGON_PROCESS_LOCK_OWNER_DIED);
}

/* Number 2 dies at the point; what number 3 gets. */
static int after_death_at(const char *point, int (*run)(void *))
{
    uint64_t number = 2;

    cr_assert(child_dies_at(point, run, &number));
    bury(2);
    return try_as(3);
}

Test(killed_in_process_lock, who_dies_before_taking_over_leaves_it_to_the_next)
{
    cr_assert_eq(try_as(1), 0);
    bury(1);
    cr_assert_eq(after_death_at("process-lock-before-taking-over", lock_in_child),
                 DRAGON_PROCESS_LOCK_OWNER_DIED);
}

Test(killed_in_process_lock, who_dies_when_he_has_taken_over_leaves_it_to_the_next)
{
    cr_assert_eq(try_as(1), 0);
    bury(1);
    cr_assert_eq(after_death_at("process-lock-taken-over", lock_in_child),
                 DRAGON_PROCESS_LOCK_OWNER_DIED);
}

Test(killed_in_process_lock, who_dies_when_he_has_unlocked_leaves_it_free)
{
    cr_assert_eq(after_death_at("process-lock-unlocked", lock_and_unlock), 0);
}

Test(killed_in_process_lock, one_that_waits_goes_on_when_the_unlocker_died_before_waking)
{
    uint64_t number = 2;
    pid_t waiter;
    int64_t begin_ns;

    cr_assert_eq(try_as(1), 0);
    waiter = child_start(lock_in_child, &number);
    cr_assert(becomes_true(somebody_waits, &shared->lock));
    begin_ns = dragon_now_ns();
    cr_assert(child_dies_at("process-lock-unlocked", unlock, NULL));
    cr_assert_eq(child_result(waiter), 0);
    cr_assert_lt(dragon_now_ns() - begin_ns, DRAGON_EVENTCOUNT_PARK_NS + TEST_SECOND / 2);
}
