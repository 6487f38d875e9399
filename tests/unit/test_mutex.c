#include "support/shared_page.h"
#include "wait/mutex.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

TestSuite(mutex, .timeout = 60);

static struct dragon_mutex *new_mutex(void)
{
    struct dragon_mutex *mutex = shared_page(4096);

    cr_assert_eq(dragon_mutex_init(mutex), 0);
    return mutex;
}

static int lock_and_die(void *mutex)
{
    if (dragon_mutex_lock(mutex) != 0)
        return 1;
    kill(getpid(), SIGKILL);
    return 2;
}

static int try_lock(void *mutex)
{
    return dragon_mutex_try_lock(mutex);
}

Test(mutex, locks_and_unlocks)
{
    struct dragon_mutex *mutex = new_mutex();

    for (int i = 0; i < 3; i++) {
        cr_assert_eq(dragon_mutex_lock(mutex), 0);
        dragon_mutex_unlock(mutex);
    }
}

Test(mutex, try_lock_of_a_held_one_is_busy_for_the_holder_and_for_others)
{
    struct dragon_mutex *mutex = new_mutex();

    cr_assert_eq(dragon_mutex_lock(mutex), 0);
    cr_assert_eq(dragon_mutex_try_lock(mutex), DRAGON_MUTEX_BUSY);
    cr_assert_eq(child_result(child_start(try_lock, mutex)), DRAGON_MUTEX_BUSY);
}

Test(mutex, the_next_holder_learns_of_a_death_once)
{
    struct dragon_mutex *mutex = new_mutex();

    cr_assert_eq(child_result(child_start(lock_and_die, mutex)), 256 + SIGKILL);
    cr_assert_eq(dragon_mutex_lock(mutex), DRAGON_MUTEX_OWNER_DIED);
    dragon_mutex_unlock(mutex);
    cr_assert_eq(dragon_mutex_lock(mutex), 0);
}

Test(mutex, try_lock_learns_of_a_death)
{
    struct dragon_mutex *mutex = new_mutex();

    cr_assert_eq(child_result(child_start(lock_and_die, mutex)), 256 + SIGKILL);
    cr_assert_eq(dragon_mutex_try_lock(mutex), DRAGON_MUTEX_OWNER_DIED);
}

struct count {
    struct dragon_mutex mutex;
    int n;
};

static int add(void *argument)
{
    struct count *count = argument;

    for (int i = 0; i < 20000; i++) {
        if (dragon_mutex_lock(&count->mutex) < 0)
            return 1;
        count->n++;
        dragon_mutex_unlock(&count->mutex);
    }
    return 0;
}

Test(mutex, only_one_process_at_a_time_is_inside)
{
    struct count *count = (struct count *)new_mutex();
    pid_t a = child_start(add, count), b = child_start(add, count);

    cr_assert_eq(child_result(a), 0);
    cr_assert_eq(child_result(b), 0);
    cr_assert_eq(count->n, 40000);
}

/* ---- checked ones ---- */

static int unlock_checked(void *mutex)
{
    return -dragon_mutex_unlock_checked(mutex);
}

static int lock_and_sleep(void *mutex)
{
    if (dragon_mutex_lock(mutex) != 0)
        return 1;
    pause();
    return 2;
}

static int lock(void *mutex)
{
    return dragon_mutex_lock(mutex);
}

static bool is_held(void *mutex)
{
    return dragon_mutex_holder(mutex) != 0;
}

static _Atomic uint32_t *word_of(struct dragon_mutex *mutex)
{
    return (_Atomic uint32_t *)&mutex->mutex.__data.__lock;
}

static bool has_waiter(void *mutex)
{
    return (atomic_load(word_of(mutex)) & UINT32_C(0x80000000)) != 0; /* FUTEX_WAITERS */
}

/* One waiter is woken and killed, while somebody else has taken the mutex, who does not
 * know of further waiters and wakes none: the word is what he leaves. */
Test(mutex, who_waits_gets_it_though_the_one_that_was_woken_died)
{
    struct dragon_mutex *mutex = new_mutex();
    int64_t begin_ns = dragon_now_ns();
    pid_t holder = child_start(lock_and_sleep, mutex), waiter;

    cr_assert(becomes_true(is_held, mutex));
    waiter = child_start(lock, mutex);
    cr_assert(becomes_true(has_waiter, mutex));
    atomic_store(word_of(mutex), 0);
    cr_assert_eq(child_result(waiter), 0);
    cr_assert_lt(dragon_now_ns() - begin_ns, 3 * TEST_SECOND);
    child_kill(holder);
}

Test(mutex, a_checked_one_knows_its_holder)
{
    struct dragon_mutex *mutex = shared_page(4096);

    cr_assert_eq(dragon_mutex_init_checked(mutex), 0);
    cr_assert_eq(dragon_mutex_unlock_checked(mutex), -EPERM);
    cr_assert_eq(dragon_mutex_holder(mutex), 0);
    cr_assert_eq(dragon_mutex_lock(mutex), 0);
    cr_assert_eq(dragon_mutex_holder(mutex), getpid());
    cr_assert_eq(dragon_mutex_lock(mutex), DRAGON_MUTEX_MINE);
    cr_assert_eq(dragon_mutex_try_lock(mutex), DRAGON_MUTEX_MINE);
    cr_assert_eq(child_result(child_start(unlock_checked, mutex)), EPERM);
    cr_assert_eq(child_result(child_start(try_lock, mutex)), DRAGON_MUTEX_BUSY);
    cr_assert_eq(dragon_mutex_unlock_checked(mutex), 0);
    cr_assert_eq(dragon_mutex_holder(mutex), 0);
}

Test(mutex, bytes_that_make_another_kind_of_mutex_are_told)
{
    struct dragon_mutex *mutex = new_mutex();

    cr_assert(dragon_mutex_is_sane(mutex, false));
    cr_assert_not(dragon_mutex_is_sane(mutex, true));
    cr_assert_eq(dragon_mutex_init_checked(mutex), 0);
    cr_assert(dragon_mutex_is_sane(mutex, true));
    memset(mutex, 0, sizeof *mutex); /* a plain mutex of this process */
    cr_assert_not(dragon_mutex_is_sane(mutex, false));
    cr_assert_eq(dragon_mutex_lock(mutex), -EBADMSG);
    cr_assert_eq(dragon_mutex_try_lock(mutex), -EBADMSG);
}
