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
