/* Processes that lock, wait and give up are killed at random moments, again and
 * again. Two never hold the lock at once, and nobody waits long for it while its
 * holder is dead. */
#include "support/seed.h"
#include "support/shared_page.h"
#include "support/storm.h"
#include "sync/lock.h"

#include <criterion/criterion.h>
#include <string.h>

#define N_KILLS 400
#define N_WORKERS 6
#define LOCK_BYTES 8192
#define LONGEST_LIFE_US 6000

/* How long they may take is for meson and ./dev soak to say. */
TestSuite(storm_lock);

struct shared {
    _Alignas(64) unsigned char memory[LOCK_BYTES];
    /* Written by the holder only, with plain stores. */
    volatile uint64_t first, second;
    volatile int holder;
    /* Written by anybody. */
    _Atomic int64_t longest_wait_ns;
    _Atomic uint64_t n_told;
    _Atomic int n_wrong;
};

static struct shared *shared;
static struct dragon_lock lock;

/* In the lock: two counters are the same, unless the last holder died in between. */
static void count(bool was_told, bool takes_long)
{
    if (shared->holder != 0 && !was_told)
        atomic_fetch_add(&shared->n_wrong, 1);
    if (shared->first != shared->second && !was_told)
        atomic_fetch_add(&shared->n_wrong, 1);
    shared->holder = getpid();
    shared->second = shared->first;
    shared->first++;
    if (takes_long)
        usleep(200);
    shared->second++;
    if (shared->holder != getpid() || shared->first != shared->second)
        atomic_fetch_add(&shared->n_wrong, 1);
    shared->holder = 0;
}

static int lock_for_ever(void *argument)
{
    struct seed seed = seed_from((uint64_t)(uintptr_t)argument);

    for (;;) {
        int64_t begin_ns = dragon_now_ns();
        int64_t patience_ns =
            seed_below(&seed, 4) == 0 ? (int64_t)seed_below(&seed, 300000) : 20 * TEST_SECOND;
        int r = dragon_lock_lock(&lock, dragon_deadline_after_ns(patience_ns));

        storm_note_wait(&shared->longest_wait_ns, begin_ns);
        if (r == DRAGON_LOCK_TIMEOUT)
            continue;
        if (r != 0 && r != DRAGON_LOCK_OWNER_DIED)
            return 1;
        if (r == DRAGON_LOCK_OWNER_DIED)
            atomic_fetch_add(&shared->n_told, 1);
        count(r == DRAGON_LOCK_OWNER_DIED, seed_below(&seed, 8) == 0);
        if (dragon_lock_unlock(&lock) != 0)
            return 2;
    }
}

static pid_t start_worker(struct seed *seed)
{
    return child_start(lock_for_ever, (void *)(uintptr_t)(seed_next(seed) >> 1));
}

static void storm(enum dragon_lock_kind kind, const char *name)
{
    struct seed seed = seed_new("storm_lock");
    struct storm_end end = storm_end(N_KILLS);
    struct storm_result result = {.name = name,
                                  .n_lost = STORM_NOT_COUNTED,
                                  .n_duplicated = STORM_NOT_COUNTED,
                                  .n_blocks_left = STORM_NOT_COUNTED};
    pid_t workers[N_WORKERS];
    int r;

    shared = shared_page(sizeof *shared);
    cr_assert_eq(dragon_lock_init(kind, shared->memory, LOCK_BYTES, &lock), 0);
    for (int i = 0; i < N_WORKERS; i++)
        workers[i] = start_worker(&seed);
    for (; !storm_is_over(&end, result.n_kills); result.n_kills++) {
        uint64_t victim = seed_below(&seed, N_WORKERS);

        usleep((useconds_t)seed_below(&seed, LONGEST_LIFE_US));
        cr_assert_eq(child_kill(workers[victim]), 256 + SIGKILL, "a worker found an error");
        workers[victim] = start_worker(&seed);
    }
    for (int i = 0; i < N_WORKERS; i++)
        cr_assert_eq(child_kill(workers[i]), 256 + SIGKILL);
    r = dragon_lock_lock(&lock, test_soon());
    cr_assert(r == 0 || r == DRAGON_LOCK_OWNER_DIED);
    fprintf(stderr, "# %s: %" PRIu64 " owners died\n", name, atomic_load(&shared->n_told));
    result.n_messages = shared->first;
    result.longest_wait_ns = atomic_load(&shared->longest_wait_ns);
    storm_print(&result);
    cr_assert_eq(atomic_load(&shared->n_wrong), 0);
    cr_assert_gt(shared->first, result.n_kills);
    /* Tens of ms where the cores are free; some seconds may pass where they are not. A wait
     * that is forgotten lasts as long as the patience. */
    cr_assert_lt(result.longest_wait_ns, 10 * TEST_SECOND);
}

Test(storm_lock, a_fifo_lock_survives_its_holders_and_waiters)
{
    storm(DRAGON_LOCK_FIFO, "FIFO lock");
}

Test(storm_lock, a_fifo_lite_lock_survives_its_holders_and_waiters)
{
    storm(DRAGON_LOCK_FIFO_LITE, "FIFO_LITE lock");
}

Test(storm_lock, a_greedy_lock_survives_its_holders_and_waiters)
{
    storm(DRAGON_LOCK_GREEDY, "GREEDY lock");
}
