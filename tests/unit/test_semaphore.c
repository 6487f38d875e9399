#include "support/shared_page.h"
#include "sync/semaphore.h"

#include <criterion/criterion.h>
#include <pthread.h>

TestSuite(semaphore, .timeout = 60);

static struct dragon_semaphore *new_semaphore(uint32_t value, uint32_t maximum)
{
    struct dragon_semaphore *semaphore = shared_page(4096);

    dragon_semaphore_init(semaphore, value, maximum);
    return semaphore;
}

Test(semaphore, try_acquire_takes_each_unit_once)
{
    struct dragon_semaphore *s = new_semaphore(2, 5);

    cr_assert(dragon_semaphore_try_acquire(s));
    cr_assert(dragon_semaphore_try_acquire(s));
    cr_assert_not(dragon_semaphore_try_acquire(s));
    cr_assert_eq(dragon_semaphore_value(s), 0);
}

Test(semaphore, release_above_the_maximum_overflows_and_changes_nothing)
{
    struct dragon_semaphore *s = new_semaphore(1, 2);

    cr_assert_eq(dragon_semaphore_release(s), 0);
    cr_assert_eq(dragon_semaphore_release(s), DRAGON_SEMAPHORE_OVERFLOW);
    cr_assert_eq(dragon_semaphore_value(s), 2);
}

Test(semaphore, a_first_value_above_the_maximum_can_only_come_down)
{
    struct dragon_semaphore *s = new_semaphore(3, 1);

    cr_assert_eq(dragon_semaphore_release(s), DRAGON_SEMAPHORE_OVERFLOW);
    cr_assert(dragon_semaphore_try_acquire(s));
    cr_assert_eq(dragon_semaphore_value(s), 2);
}

Test(semaphore, acquire_times_out_at_its_deadline)
{
    struct dragon_semaphore *s = new_semaphore(0, 1);
    int64_t deadline_ns = dragon_deadline_after_ns(TEST_SECOND / 20);

    cr_assert_eq(dragon_semaphore_acquire(s, deadline_ns), DRAGON_SEMAPHORE_TIMEOUT);
    cr_assert(dragon_deadline_passed(deadline_ns));
}

Test(semaphore, acquire_at_once_takes_what_is_there)
{
    struct dragon_semaphore *s = new_semaphore(1, 1);

    cr_assert_eq(dragon_semaphore_acquire(s, DRAGON_AT_ONCE), 0);
    cr_assert_eq(dragon_semaphore_acquire(s, DRAGON_AT_ONCE), DRAGON_SEMAPHORE_TIMEOUT);
}

static void nothing(int number)
{
    (void)number;
}

Test(semaphore, a_signal_handler_interrupts_acquire)
{
    struct dragon_semaphore *s = new_semaphore(0, 1);
    struct sigaction action = {.sa_handler = nothing};

    sigaction(SIGALRM, &action, NULL);
    ualarm(50000, 0);
    cr_assert_eq(dragon_semaphore_acquire(s, DRAGON_FOREVER), DRAGON_SEMAPHORE_INTERRUPTED);
    cr_assert_eq(dragon_semaphore_value(s), 0);
}

static int acquire_once(void *semaphore)
{
    return dragon_semaphore_acquire(semaphore, test_soon());
}

Test(semaphore, each_release_lets_one_of_several_processes_in)
{
    struct dragon_semaphore *s = new_semaphore(0, 10);
    pid_t pids[4];

    for (int i = 0; i < 4; i++)
        pids[i] = child_start(acquire_once, s);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(dragon_semaphore_release(s), 0);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(child_result(pids[i]), 0);
    cr_assert_eq(dragon_semaphore_value(s), 0);
}

static bool has_waiters(void *semaphore)
{
    return dragon_eventcount_has_waiters(&((struct dragon_semaphore *)semaphore)->waiters);
}

Test(semaphore, a_killed_waiter_takes_no_unit_from_the_living)
{
    struct dragon_semaphore *s = new_semaphore(0, 1);
    pid_t victim = child_start(acquire_once, s);

    cr_assert(becomes_true(has_waiters, s));
    cr_assert_eq(child_kill(victim), 256 + SIGKILL);
    cr_assert_eq(dragon_semaphore_release(s), 0);
    cr_assert_eq(dragon_semaphore_acquire(s, test_soon()), 0);
}

static int raise_and_die(void *argument)
{
    struct dragon_semaphore *s = argument;

    dragon_fetch_add(&s->value, 1); /* what release does before it wakes */
    kill(getpid(), SIGKILL);
    return 1;
}

Test(semaphore, a_waiter_finds_the_unit_of_a_releaser_that_died_before_waking)
{
    struct dragon_semaphore *s = new_semaphore(0, 1);
    pid_t waiter = child_start(acquire_once, s);

    cr_assert(becomes_true(has_waiters, s));
    child_result(child_start(raise_and_die, s));
    cr_assert_eq(child_result(waiter), 0);
}

struct count {
    struct dragon_semaphore lock;
    int n;
};

static int add(void *argument)
{
    struct count *count = argument;

    for (int i = 0; i < 20000; i++) {
        if (dragon_semaphore_acquire(&count->lock, test_soon()) != 0)
            return 1;
        count->n++;
        if (dragon_semaphore_release(&count->lock) != 0)
            return 2;
    }
    return 0;
}

Test(semaphore, as_a_lock_it_keeps_processes_apart)
{
    struct count *count = (struct count *)new_semaphore(1, 1);
    pid_t pids[] = {child_start(add, count), child_start(add, count), child_start(add, count)};

    for (int i = 0; i < 3; i++)
        cr_assert_eq(child_result(pids[i]), 0);
    cr_assert_eq(count->n, 60000);
}

static void *add_in_thread(void *argument)
{
    return (void *)(intptr_t)add(argument);
}

Test(semaphore, as_a_lock_it_keeps_threads_apart)
{
    struct count *count = (struct count *)new_semaphore(1, 1);
    pthread_t threads[3];

    for (int i = 0; i < 3; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, add_in_thread, count), 0);
    for (int i = 0; i < 3; i++) {
        void *result;

        pthread_join(threads[i], &result);
        cr_assert_null(result);
    }
    cr_assert_eq(count->n, 60000);
}
