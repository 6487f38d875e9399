/* A process is killed in the middle of an operation on a lock: the others get it
 * within some looks, in their order, and are told of a death in the lock. */
#include "support/test_point.h"
#include "sync/lock.h"

#include <criterion/criterion.h>
#include <errno.h>

TestSuite(killed_in_lock, .timeout = 60);

#define LOCK_BYTES 8192

struct shared {
    _Alignas(64) unsigned char memory[LOCK_BYTES];
    _Atomic int n_got;
    _Atomic int order[4];
};

static struct shared *shared;
static struct dragon_lock lock;

static const enum dragon_lock_kind kinds[] = {DRAGON_LOCK_FIFO, DRAGON_LOCK_FIFO_LITE,
                                              DRAGON_LOCK_GREEDY};

static void make(enum dragon_lock_kind kind)
{
    shared = shared_page(sizeof *shared);
    cr_assert_eq(dragon_lock_init(kind, shared->memory, LOCK_BYTES, &lock), 0);
}

static struct dragon_lock_shared *state(void)
{
    return (struct dragon_lock_shared *)shared->memory;
}

static bool n_in_line(void *n)
{
    return __builtin_popcountll(atomic_load(&state()->queued)) == *(int *)n;
}

static bool somebody_is_at_the_door(void *argument)
{
    (void)argument;
    return dragon_eventcount_has_waiters(&state()->door);
}

static int lock_and_unlock(void *number)
{
    int r = dragon_lock_lock(&lock, test_soon());

    if (r != 0 && r != DRAGON_LOCK_OWNER_DIED)
        return 100;
    atomic_store(&shared->order[atomic_fetch_add(&shared->n_got, 1)], (int)(intptr_t)number);
    return dragon_lock_unlock(&lock) == 0 ? r : 101;
}

/* Start a child that waits, and be sure that it does. */
static pid_t start_waiter(int number)
{
    int n = __builtin_popcountll(atomic_load(&state()->queued)) + 1;
    pid_t pid = child_start(lock_and_unlock, (void *)(intptr_t)number);

    if (dragon_lock_kind(&lock) == DRAGON_LOCK_GREEDY)
        cr_assert(becomes_true(somebody_is_at_the_door, NULL));
    else
        cr_assert(becomes_true(n_in_line, &n));
    return pid;
}

/* Those who look again by themselves need a look for each who is dead. */
static void check_goes_on(pid_t waiter, int result, int64_t begin_ns)
{
    cr_assert_eq(child_result(waiter), result);
    cr_assert_lt(dragon_now_ns() - begin_ns, TEST_SECOND);
}

/* ---- the holder ---- */

Test(killed_in_lock, a_holder_killed_as_it_got_it_leaves_it_to_the_next)
{
    for (int i = 0; i < 3; i++) {
        make(kinds[i]);
        cr_assert(child_dies_at("lock-taken", lock_and_unlock, NULL));
        cr_assert_eq(dragon_lock_lock(&lock, test_soon()), DRAGON_LOCK_OWNER_DIED);
        cr_assert_eq(dragon_lock_unlock(&lock), 0);
        cr_assert_eq(dragon_lock_lock(&lock, 0), 0);
    }
}

static int hold_and_wait_for_line(void *n)
{
    if (dragon_lock_lock(&lock, test_soon()) != 0)
        return 100;
    atomic_fetch_add(&shared->n_got, 1);
    if (dragon_lock_kind(&lock) == DRAGON_LOCK_GREEDY ? !becomes_true(somebody_is_at_the_door, NULL)
                                                      : !becomes_true(n_in_line, n))
        return 101;
    return dragon_lock_unlock(&lock);
}

static bool somebody_got_it(void *argument)
{
    (void)argument;
    return atomic_load(&shared->n_got) > 0;
}

Test(killed_in_lock, an_unlocker_killed_before_it_wakes_delays_the_next_by_a_look)
{
    for (int i = 0; i < 3; i++) {
        pid_t holder, waiter;
        int n = 1;

        make(kinds[i]);
        holder = child_start_to_die_at("lock-released", hold_and_wait_for_line, &n);
        cr_assert(becomes_true(somebody_got_it, NULL));
        waiter = child_start(lock_and_unlock, (void *)1);
        cr_assert_eq(child_result(holder), 256 + SIGKILL);
        check_goes_on(waiter, 0, dragon_now_ns());
    }
}

static int destroy(void *argument)
{
    (void)argument;
    return dragon_lock_fini(&lock);
}

Test(killed_in_lock, a_process_killed_as_it_destroys_has_destroyed)
{
    for (int i = 0; i < 3; i++) {
        make(kinds[i]);
        cr_assert(child_dies_at("lock-destroyed", destroy, NULL));
        cr_assert_eq(dragon_lock_lock(&lock, test_soon()), DRAGON_LOCK_DESTROYED);
        cr_assert_eq(dragon_lock_fini(&lock), DRAGON_LOCK_DESTROYED);
    }
}

static int make_again(void *kind)
{
    return dragon_lock_init(*(enum dragon_lock_kind *)kind, shared->memory, LOCK_BYTES, &lock);
}

Test(killed_in_lock, a_process_killed_as_it_makes_one_leaves_no_lock)
{
    for (int i = 0; i < 3; i++) {
        struct dragon_lock opened;
        enum dragon_lock_kind kind = kinds[i];

        make(kind);
        cr_assert(child_dies_at("lock-made", make_again, &kind));
        cr_assert_eq(dragon_lock_open(shared->memory, LOCK_BYTES, &opened), -EBADMSG);
    }
}

/* ---- those in line ---- */

/* The lock is held; one dies at the point as it gets into line, then two more
 * come: the order of the living holds. */
static void die_in_line(const char *point, enum dragon_lock_kind kind)
{
    pid_t waiters[2];

    make(kind);
    cr_assert_eq(dragon_lock_lock(&lock, 0), 0);
    cr_assert(child_dies_at(point, lock_and_unlock, NULL));
    waiters[0] = start_waiter(1);
    waiters[1] = start_waiter(2);
    cr_assert_eq(dragon_lock_unlock(&lock), 0);
    for (int i = 0; i < 2; i++) {
        check_goes_on(waiters[i], 0, dragon_now_ns());
        cr_assert_eq(atomic_load(&shared->order[i]), i + 1);
    }
}

Test(killed_in_lock, one_killed_before_it_is_in_line_is_not_in_line)
{
    die_in_line("lock-claimed", DRAGON_LOCK_FIFO);
    die_in_line("lock-claimed", DRAGON_LOCK_FIFO_LITE);
}

static int wait_and_leave(void *argument)
{
    (void)argument;
    return dragon_lock_lock(&lock, dragon_deadline_after_ns(TEST_SECOND / 100));
}

Test(killed_in_lock, one_killed_as_it_gives_up_is_not_in_line)
{
    for (int i = 0; i < 2; i++) {
        pid_t waiter;

        make(kinds[i]);
        cr_assert_eq(dragon_lock_lock(&lock, 0), 0);
        cr_assert(child_dies_at("lock-left", wait_and_leave, NULL));
        waiter = start_waiter(1);
        cr_assert_eq(dragon_lock_unlock(&lock), 0);
        check_goes_on(waiter, 0, dragon_now_ns());
    }
}

static bool the_second_is_alone_in_line(void *argument)
{
    (void)argument;
    return atomic_load(&state()->next_ticket) == 2 && atomic_load(&state()->queued) == 1;
}

Test(killed_in_lock, one_killed_first_in_line_is_passed_over)
{
    for (int i = 0; i < 2; i++) {
        pid_t waiter;

        make(kinds[i]);
        cr_assert_eq(dragon_lock_lock(&lock, 0), 0);
        cr_assert(child_dies_at("lock-queued", lock_and_unlock, NULL));
        waiter = child_start(lock_and_unlock, (void *)1);
        cr_assert(becomes_true(the_second_is_alone_in_line, NULL));
        cr_assert_eq(dragon_lock_unlock(&lock), 0);
        check_goes_on(waiter, 0, dragon_now_ns());
        cr_assert_eq(dragon_lock_try_lock(&lock), 0);
    }
}

Test(killed_in_lock, one_killed_as_it_buries_the_dead_leaves_it_to_others)
{
    for (int i = 0; i < 2; i++) {
        pid_t holder;

        make(kinds[i]);
        holder = child_start(hold_and_wait_for_line, &(int){2}); /* there are never two */
        cr_assert(becomes_true(somebody_got_it, NULL));
        cr_assert(child_dies_at("lock-queued", lock_and_unlock, NULL));
        cr_assert_eq(child_kill(holder), 256 + SIGKILL);
        cr_assert(child_dies_at("lock-buried", lock_and_unlock, NULL));
        cr_assert_eq(dragon_lock_lock(&lock, test_soon()), DRAGON_LOCK_OWNER_DIED);
        cr_assert_eq(dragon_lock_unlock(&lock), 0);
        cr_assert(n_in_line(&(int){0}));
    }
}

Test(killed_in_lock, places_of_the_dead_are_used_again)
{
    make(DRAGON_LOCK_FIFO_LITE);
    for (int round = 0; round < 3; round++) {
        pid_t waiter;

        cr_assert_eq(dragon_lock_lock(&lock, test_soon()), 0);
        waiter = start_waiter(1); /* the first in line lives, so that nobody is buried */
        for (int i = 0; i < 20; i++)
            cr_assert(child_dies_at("lock-queued", lock_and_unlock, NULL));
        cr_assert_eq(dragon_lock_unlock(&lock), 0);
        check_goes_on(waiter, 0, dragon_now_ns());
        atomic_store(&shared->n_got, 0);
    }
}
