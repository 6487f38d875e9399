#include "support/shared_page.h"
#include "sync/lock.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

TestSuite(lock, .timeout = 60);

#define PAGE_BYTES 8192

struct shared {
    _Alignas(64) unsigned char memory[PAGE_BYTES];
    _Atomic int n_begun;
    _Atomic int n_got;
    _Atomic int order[8];
    _Atomic int result;
};

static struct shared *shared;
static struct dragon_lock lock;

static const enum dragon_lock_kind kinds[] = {DRAGON_LOCK_FIFO, DRAGON_LOCK_FIFO_LITE,
                                              DRAGON_LOCK_GREEDY};

static void make(enum dragon_lock_kind kind)
{
    if (!shared)
        shared = shared_page(sizeof *shared);
    memset(shared, 0, sizeof *shared);
    cr_assert_eq(dragon_lock_init(kind, shared->memory, PAGE_BYTES, &lock), 0);
}

/* Each test below runs for every kind. */
#define FOR_EACH_KIND(kind)                                                                        \
    for (const enum dragon_lock_kind *kind = kinds; kind < kinds + 3; kind++)

static int64_t in_ms(int64_t ms)
{
    return dragon_deadline_after_ns(ms * 1000000);
}

/* ---- lifetime ---- */

Test(lock, each_kind_says_its_size_and_needs_it)
{
    FOR_EACH_KIND(kind)
    {
        size_t size_bytes = dragon_lock_size_bytes(*kind);

        make(*kind);
        cr_assert(size_bytes >= 192 && size_bytes <= PAGE_BYTES);
        cr_assert_eq(dragon_lock_kind(&lock), *kind);
        cr_assert_eq(dragon_lock_init(*kind, shared->memory, size_bytes - 1, &lock), -EINVAL);
        cr_assert_eq(dragon_lock_init(*kind, shared->memory + 1, size_bytes, &lock), -EINVAL);
    }
    cr_assert_eq(dragon_lock_size_bytes((enum dragon_lock_kind)0), 0);
    cr_assert_eq(dragon_lock_init((enum dragon_lock_kind)9, shared->memory, PAGE_BYTES, &lock),
                 -EINVAL);
}

Test(lock, bytes_that_are_no_lock_are_refused)
{
    struct dragon_lock opened;

    FOR_EACH_KIND(kind)
    {
        struct dragon_lock_shared *state;

        make(*kind);
        state = (struct dragon_lock_shared *)shared->memory;
        cr_assert_eq(dragon_lock_open(shared->memory, PAGE_BYTES, &opened), 0);
        cr_assert_eq(dragon_lock_open(shared->memory, 191, &opened), -EBADMSG);
        cr_assert_eq(dragon_lock_open(shared->memory, dragon_lock_size_bytes(*kind) - 1, &opened),
                     -EBADMSG);
        cr_assert_eq(dragon_lock_open(shared->memory + 4, PAGE_BYTES - 4, &opened), -EINVAL);
        state->version++;
        cr_assert_eq(dragon_lock_open(shared->memory, PAGE_BYTES, &opened), -EBADMSG);
        state->version--;
        state->kind = 77;
        cr_assert_eq(dragon_lock_open(shared->memory, PAGE_BYTES, &opened), -EBADMSG);
        state->kind = *kind;
        memset(&state->holder, 0xff, sizeof state->holder);
        cr_assert_eq(dragon_lock_open(shared->memory, PAGE_BYTES, &opened), -EBADMSG);
    }
    memset(shared->memory, 0, PAGE_BYTES);
    cr_assert_eq(dragon_lock_open(shared->memory, PAGE_BYTES, &opened), -EBADMSG);
}

Test(lock, a_lock_that_nobody_holds_is_destroyed_once)
{
    FOR_EACH_KIND(kind)
    {
        struct dragon_lock opened;

        make(*kind);
        cr_assert_eq(dragon_lock_open(shared->memory, PAGE_BYTES, &opened), 0);
        cr_assert_eq(dragon_lock_fini(&lock), 0);
        cr_assert_eq(dragon_lock_fini(&lock), DRAGON_LOCK_DESTROYED);
        cr_assert_eq(dragon_lock_lock(&opened, DRAGON_FOREVER), DRAGON_LOCK_DESTROYED);
        cr_assert_eq(dragon_lock_try_lock(&opened), DRAGON_LOCK_DESTROYED);
        cr_assert_eq(dragon_lock_open(shared->memory, PAGE_BYTES, &opened), DRAGON_LOCK_DESTROYED);
        make(*kind);
        cr_assert_eq(dragon_lock_lock(&lock, 0), 0);
    }
}

/* ---- one thread ---- */

Test(lock, locks_and_unlocks)
{
    FOR_EACH_KIND(kind)
    {
        make(*kind);
        for (int i = 0; i < 3; i++) {
            cr_assert_eq(dragon_lock_lock(&lock, DRAGON_FOREVER), 0);
            cr_assert(dragon_lock_is_held_here(&lock));
            cr_assert_eq(dragon_lock_unlock(&lock), 0);
            cr_assert_not(dragon_lock_is_held_here(&lock));
            cr_assert_eq(dragon_lock_try_lock(&lock), 0);
            cr_assert_eq(dragon_lock_unlock(&lock), 0);
        }
    }
}

Test(lock, locking_twice_is_an_error_and_not_a_deadlock)
{
    FOR_EACH_KIND(kind)
    {
        struct dragon_lock other_view;

        make(*kind);
        cr_assert_eq(dragon_lock_open(shared->memory, PAGE_BYTES, &other_view), 0);
        cr_assert_eq(dragon_lock_lock(&lock, DRAGON_FOREVER), 0);
        cr_assert_eq(dragon_lock_lock(&lock, DRAGON_FOREVER), -EDEADLK);
        cr_assert_eq(dragon_lock_lock(&other_view, DRAGON_FOREVER), -EDEADLK);
        cr_assert_eq(dragon_lock_try_lock(&lock), DRAGON_LOCK_BUSY);
        cr_assert_eq(dragon_lock_unlock(&lock), 0);
    }
}

Test(lock, unlocking_what_is_not_locked_is_refused)
{
    FOR_EACH_KIND(kind)
    {
        make(*kind);
        cr_assert_eq(dragon_lock_unlock(&lock), -EPERM);
        cr_assert_eq(dragon_lock_lock(&lock, 0), 0);
        cr_assert_eq(dragon_lock_unlock(&lock), 0);
        cr_assert_eq(dragon_lock_unlock(&lock), -EPERM);
    }
}

static void *lock_unlock_in_thread(void *results)
{
    int *r = results;

    r[0] = dragon_lock_try_lock(&lock);
    r[1] = dragon_lock_unlock(&lock);
    r[2] = dragon_lock_lock(&lock, in_ms(20));
    r[3] = dragon_lock_fini(&lock);
    return NULL;
}

Test(lock, another_thread_can_neither_lock_nor_unlock_nor_destroy_it)
{
    FOR_EACH_KIND(kind)
    {
        int results[4];
        pthread_t thread;

        make(*kind);
        cr_assert_eq(dragon_lock_lock(&lock, 0), 0);
        pthread_create(&thread, NULL, lock_unlock_in_thread, results);
        pthread_join(thread, NULL);
        cr_assert_eq(results[0], DRAGON_LOCK_BUSY);
        cr_assert_eq(results[1], -EPERM);
        cr_assert_eq(results[2], DRAGON_LOCK_TIMEOUT);
        cr_assert_eq(results[3], DRAGON_LOCK_BUSY);
        cr_assert_eq(dragon_lock_unlock(&lock), 0);
    }
}

/* ---- processes ---- */

static int unlock_in_child(void *argument)
{
    (void)argument;
    if (dragon_lock_is_held_here(&lock))
        return 100;
    if (dragon_lock_unlock(&lock) != -EPERM)
        return 101;
    return dragon_lock_lock(&lock, in_ms(20));
}

Test(lock, the_forked_child_of_a_holder_does_not_hold_it)
{
    FOR_EACH_KIND(kind)
    {
        make(*kind);
        cr_assert_eq(dragon_lock_lock(&lock, 0), 0);
        cr_assert_eq(child_result(child_start(unlock_in_child, NULL)), DRAGON_LOCK_TIMEOUT);
        cr_assert_eq(dragon_lock_unlock(&lock), 0);
        cr_assert_eq(child_result(child_start(unlock_in_child, NULL)), 0);
    }
}

static int lock_and_die(void *argument)
{
    (void)argument;
    if (dragon_lock_lock(&lock, test_soon()) != 0)
        return 100;
    kill(getpid(), SIGKILL);
    return 101;
}

Test(lock, the_next_holder_is_told_of_a_death_once)
{
    FOR_EACH_KIND(kind)
    {
        make(*kind);
        cr_assert_eq(child_result(child_start(lock_and_die, NULL)), 256 + SIGKILL);
        cr_assert_eq(dragon_lock_lock(&lock, test_soon()), DRAGON_LOCK_OWNER_DIED);
        cr_assert_eq(dragon_lock_unlock(&lock), 0);
        cr_assert_eq(child_result(child_start(lock_and_die, NULL)), 256 + SIGKILL);
        cr_assert_eq(dragon_lock_try_lock(&lock), DRAGON_LOCK_OWNER_DIED);
        cr_assert_eq(dragon_lock_unlock(&lock), 0);
        cr_assert_eq(dragon_lock_lock(&lock, 0), 0);
    }
}

static void *lock_and_end(void *argument)
{
    return dragon_lock_lock(&lock, test_soon()) == 0 ? argument : NULL;
}

Test(lock, a_thread_that_ends_with_it_counts_as_dead)
{
    FOR_EACH_KIND(kind)
    {
        pthread_t thread;

        make(*kind);
        pthread_create(&thread, NULL, lock_and_end, NULL);
        pthread_join(thread, NULL);
        cr_assert_eq(dragon_lock_lock(&lock, test_soon()), DRAGON_LOCK_OWNER_DIED);
        cr_assert_eq(dragon_lock_unlock(&lock), 0);
        cr_assert_not(dragon_lock_is_held_here(&lock));
    }
}

static int lock_elsewhere(void *argument)
{
    struct shared *mapped = mremap(shared, 0, sizeof *shared, MREMAP_MAYMOVE);
    struct dragon_lock there;

    (void)argument;
    if (mapped == MAP_FAILED || dragon_lock_open(mapped->memory, PAGE_BYTES, &there) != 0)
        return 100;
    munmap(shared, sizeof *shared);
    for (int i = 0; i < 1000; i++) {
        int n;

        if (dragon_lock_lock(&there, test_soon()) != 0)
            return 101;
        n = atomic_load_explicit(&mapped->n_got, memory_order_relaxed);
        atomic_store_explicit(&mapped->n_got, n + 1, memory_order_relaxed);
        if (dragon_lock_unlock(&there) != 0)
            return 102;
    }
    return 0;
}

Test(lock, processes_that_map_it_at_other_addresses_exclude_each_other)
{
    FOR_EACH_KIND(kind)
    {
        pid_t children[3];

        make(*kind);
        for (int i = 0; i < 3; i++)
            children[i] = child_start(lock_elsewhere, NULL);
        for (int i = 0; i < 3; i++)
            cr_assert_eq(child_result(children[i]), 0);
        cr_assert_eq(atomic_load(&shared->n_got), 3000);
    }
}

/* ---- waiting ---- */

static int report_lock(void *argument)
{
    int r;

    (void)argument;
    atomic_fetch_add(&shared->n_begun, 1);
    r = dragon_lock_lock(&lock, test_soon());
    if (r == 0 || r == DRAGON_LOCK_OWNER_DIED)
        dragon_lock_unlock(&lock);
    return r;
}

static bool somebody_waits(void *argument)
{
    struct dragon_lock_shared *state = (struct dragon_lock_shared *)shared->memory;
    int n = *(int *)argument;

    if (atomic_load(&shared->n_begun) < n)
        return false;
    return dragon_lock_kind(&lock) == DRAGON_LOCK_GREEDY
               ? dragon_eventcount_has_waiters(&state->door)
               : __builtin_popcountll(atomic_load(&state->queued)) >= n;
}

Test(lock, a_waiter_gets_it_when_its_holder_unlocks)
{
    FOR_EACH_KIND(kind)
    {
        pid_t waiter;
        int n = 1;

        make(*kind);
        cr_assert_eq(dragon_lock_lock(&lock, 0), 0);
        waiter = child_start(report_lock, NULL);
        cr_assert(becomes_true(somebody_waits, &n));
        cr_assert_eq(dragon_lock_unlock(&lock), 0);
        cr_assert_eq(child_result(waiter), 0);
    }
}

static int hold_until_killed(void *argument)
{
    (void)argument;
    if (dragon_lock_lock(&lock, test_soon()) != 0)
        return 100;
    atomic_fetch_add(&shared->n_got, 1);
    for (;;)
        pause();
}

static bool somebody_holds(void *argument)
{
    (void)argument;
    return atomic_load(&shared->n_got) > 0;
}

Test(lock, a_waiter_gets_it_when_its_holder_is_killed)
{
    FOR_EACH_KIND(kind)
    {
        pid_t holder, waiter;
        int64_t begin_ns;
        int n = 1;

        make(*kind);
        holder = child_start(hold_until_killed, NULL);
        cr_assert(becomes_true(somebody_holds, NULL));
        waiter = child_start(report_lock, NULL);
        cr_assert(becomes_true(somebody_waits, &n));
        begin_ns = dragon_now_ns();
        cr_assert_eq(child_kill(holder), 256 + SIGKILL);
        cr_assert_eq(child_result(waiter), DRAGON_LOCK_OWNER_DIED);
        cr_assert_lt(dragon_now_ns() - begin_ns, TEST_SECOND);
    }
}

Test(lock, those_who_wait_for_a_lock_that_is_destroyed_are_told)
{
    FOR_EACH_KIND(kind)
    {
        pid_t waiters[2];
        int n = 2;

        make(*kind);
        cr_assert_eq(dragon_lock_lock(&lock, 0), 0);
        for (int i = 0; i < 2; i++)
            waiters[i] = child_start(report_lock, NULL);
        cr_assert(becomes_true(somebody_waits, &n));
        cr_assert_eq(dragon_lock_fini(&lock), 0);
        for (int i = 0; i < 2; i++)
            cr_assert_eq(child_result(waiters[i]), DRAGON_LOCK_DESTROYED);
        cr_assert_eq(dragon_lock_unlock(&lock), -EPERM);
    }
}

static int note_order(void *number)
{
    int r = dragon_lock_lock(&lock, test_soon());

    if (r != 0)
        return r;
    atomic_store(&shared->order[atomic_fetch_add(&shared->n_got, 1)], (int)(intptr_t)number);
    return -dragon_lock_unlock(&lock);
}

static bool stand_in_line(void *n)
{
    struct dragon_lock_shared *state = (struct dragon_lock_shared *)shared->memory;

    return __builtin_popcountll(atomic_load(&state->queued)) == *(int *)n;
}

static void queue_up(pid_t *children, int n)
{
    for (int i = 0; i < n; i++) {
        int n_in_line = i + 1;

        children[i] = child_start(note_order, (void *)(intptr_t)i);
        cr_assert(becomes_true(stand_in_line, &n_in_line));
    }
}

Test(lock, those_in_line_get_it_in_the_order_of_their_arrival)
{
    for (int round = 0; round < 2; round++) {
        pid_t children[6];

        make(kinds[round]);
        cr_assert_eq(dragon_lock_lock(&lock, 0), 0);
        queue_up(children, 6);
        cr_assert_eq(dragon_lock_unlock(&lock), 0);
        for (int i = 0; i < 6; i++)
            cr_assert_eq(child_result(children[i]), 0);
        for (int i = 0; i < 6; i++)
            cr_assert_eq(atomic_load(&shared->order[i]), i);
    }
}

Test(lock, the_dead_in_line_are_passed_over)
{
    for (int round = 0; round < 2; round++) {
        static const int left[] = {1, 3, 5};
        pid_t children[6];

        make(kinds[round]);
        cr_assert_eq(dragon_lock_lock(&lock, 0), 0);
        queue_up(children, 6);
        for (int i = 0; i < 6; i += 2)
            cr_assert_eq(child_kill(children[i]), 256 + SIGKILL);
        cr_assert_eq(dragon_lock_unlock(&lock), 0);
        for (int i = 0; i < 3; i++) {
            cr_assert_eq(child_result(children[left[i]]), 0);
            cr_assert_eq(atomic_load(&shared->order[i]), left[i]);
        }
        cr_assert_eq(dragon_lock_try_lock(&lock), 0);
    }
}

Test(lock, a_free_lock_is_not_taken_by_trying_while_somebody_stands_in_line)
{
    struct dragon_lock_turn turn = {0};
    pid_t waiter;
    int n = 1;

    make(DRAGON_LOCK_FIFO);
    cr_assert_eq(dragon_lock_lock(&lock, 0), 0);
    waiter = child_start(note_order, NULL);
    cr_assert(becomes_true(stand_in_line, &n));
    kill(waiter, SIGSTOP);
    cr_assert_eq(waitpid(waiter, NULL, WUNTRACED), waiter);
    cr_assert_eq(dragon_lock_unlock(&lock), 0);
    cr_assert_eq(dragon_lock_try_lock(&lock), DRAGON_LOCK_BUSY);
    cr_assert_eq(dragon_lock_wait(&lock, &turn, in_ms(20)), DRAGON_LOCK_TIMEOUT);
    kill(waiter, SIGCONT);
    cr_assert_eq(child_result(waiter), 0);
    cr_assert_eq(dragon_lock_wait(&lock, &turn, test_soon()), 0);
    dragon_lock_leave(&lock, &turn);
    cr_assert_eq(dragon_lock_unlock(&lock), 0);
}

Test(lock, a_wait_in_pieces_keeps_its_place)
{
    struct dragon_lock_turn turn = {0};
    pid_t holder, later;
    int n = 2;

    make(DRAGON_LOCK_FIFO_LITE);
    holder = child_start(hold_until_killed, NULL);
    cr_assert(becomes_true(somebody_holds, NULL));
    cr_assert_eq(dragon_lock_wait(&lock, &turn, in_ms(1)), DRAGON_LOCK_TIMEOUT);
    later = child_start(report_lock, NULL);
    cr_assert(becomes_true(stand_in_line, &n));
    cr_assert_eq(child_kill(holder), 256 + SIGKILL);
    cr_assert_eq(dragon_lock_wait(&lock, &turn, test_soon()), DRAGON_LOCK_OWNER_DIED);
    cr_assert_eq(dragon_lock_unlock(&lock), 0);
    cr_assert_eq(child_result(later), 0);
}

Test(lock, who_gives_up_leaves_the_line)
{
    struct dragon_lock_turn turn = {0};
    pid_t holder;
    int n = 0;

    make(DRAGON_LOCK_FIFO);
    holder = child_start(hold_until_killed, NULL);
    cr_assert(becomes_true(somebody_holds, NULL));
    cr_assert_eq(dragon_lock_wait(&lock, &turn, in_ms(1)), DRAGON_LOCK_TIMEOUT);
    dragon_lock_leave(&lock, &turn);
    cr_assert(stand_in_line(&n));
    cr_assert_eq(dragon_lock_lock(&lock, in_ms(1)), DRAGON_LOCK_TIMEOUT);
    cr_assert(stand_in_line(&n));
    child_kill(holder);
}

Test(lock, more_than_have_a_place_get_it_too)
{
    enum { N = 20 }; /* FIFO_LITE has 16 places */
    pid_t children[N];

    make(DRAGON_LOCK_FIFO_LITE);
    cr_assert_eq(dragon_lock_lock(&lock, 0), 0);
    for (int i = 0; i < N; i++)
        children[i] = child_start(report_lock, NULL);
    cr_assert(becomes_true(stand_in_line, &(int){16}));
    for (int i = 0; i < 3; i++)
        cr_assert_eq(child_kill(children[i]), 256 + SIGKILL);
    cr_assert_eq(dragon_lock_unlock(&lock), 0);
    for (int i = 3; i < N; i++)
        cr_assert_eq(child_result(children[i]), 0);
    cr_assert_eq(dragon_lock_lock(&lock, 0), 0);
}

static void note_signal(int number)
{
    (void)number;
}

static int wait_for_signal(void *argument)
{
    struct sigaction action = {.sa_handler = note_signal};

    (void)argument;
    sigaction(SIGUSR1, &action, NULL);
    return report_lock(NULL);
}

Test(lock, a_signal_ends_the_wait)
{
    FOR_EACH_KIND(kind)
    {
        pid_t waiter;
        int n = 1, status;

        make(*kind);
        cr_assert_eq(dragon_lock_lock(&lock, 0), 0);
        waiter = child_start(wait_for_signal, NULL);
        cr_assert(becomes_true(somebody_waits, &n));
        /* Until it comes while it sleeps. */
        while (waitpid(waiter, &status, WNOHANG) == 0) {
            kill(waiter, SIGUSR1);
            usleep(1000);
        }
        cr_assert(WIFEXITED(status));
        cr_assert_eq(WEXITSTATUS(status), DRAGON_LOCK_INTERRUPTED);
        cr_assert_eq(dragon_lock_unlock(&lock), 0);
        cr_assert_eq(dragon_lock_lock(&lock, 0), 0);
    }
}
