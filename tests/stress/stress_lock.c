/* Threads over one lock of each kind until the time is up: stress_lock SEED
 * SECONDS. They wait, try and give up, and some end while they hold it; a counter
 * without atomics says whether two ever held it. Also a program for the thread
 * sanitizer. */
#include "base/atomic.h"
#include "base/deadline.h"
#include "support/stress.h"
#include "sync/lock.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define N_THREADS 20 /* more than FIFO_LITE has places */
#define N_EACH 300

static _Alignas(64) unsigned char memory[8192];
static struct dragon_lock lock;
static uint64_t counter;

/* What a thread wrote that ended with the lock is there for the next holder: the
 * kernel sees to it, which the thread sanitizer does not know. */
static _Atomic uint64_t n_ended;

struct worker {
    struct seed seed;
    uint64_t n_locked;
};

static bool is_locked(int r)
{
    require(r == 0 || r == DRAGON_LOCK_OWNER_DIED || r == DRAGON_LOCK_TIMEOUT ||
            r == DRAGON_LOCK_BUSY);
    if (r == DRAGON_LOCK_OWNER_DIED)
        require(dragon_observe(&n_ended) > 0); /* pairs with the addition in lock_often */
    return r == 0 || r == DRAGON_LOCK_OWNER_DIED;
}

static int lock_as_may_be(struct seed *seed)
{
    int64_t patience_ns = (int64_t)seed_below(seed, 200000);

    switch (seed_below(seed, 4)) {
    case 0:
        return dragon_lock_try_lock(&lock);
    case 1:
        return dragon_lock_lock(&lock, dragon_deadline_after_ns(patience_ns));
    default:
        return dragon_lock_lock(&lock, dragon_deadline_after_ns(60 * DRAGON_NS_PER_S));
    }
}

static void *lock_often(void *argument)
{
    struct worker *worker = argument;

    for (int i = 0; i < N_EACH; i++) {
        if (!is_locked(lock_as_may_be(&worker->seed)))
            continue;
        counter++;
        worker->n_locked++;
        if (seed_below(&worker->seed, 500) == 0) {
            dragon_fetch_add(&n_ended, 1);
            return NULL; /* with the lock */
        }
        require(dragon_lock_unlock(&lock) == 0);
    }
    return NULL;
}

static void run_round(struct seed *seed)
{
    static const enum dragon_lock_kind kinds[] = {DRAGON_LOCK_FIFO, DRAGON_LOCK_FIFO_LITE,
                                                  DRAGON_LOCK_GREEDY};
    struct worker workers[N_THREADS] = {0};
    pthread_t threads[N_THREADS];
    uint64_t n_locked = 0;

    require(dragon_lock_init(kinds[seed_below(seed, 3)], memory, sizeof memory, &lock) == 0);
    counter = 0;
    for (int i = 0; i < N_THREADS; i++) {
        workers[i].seed = seed_from(seed_next(seed));
        pthread_create(&threads[i], NULL, lock_often, &workers[i]);
    }
    for (int i = 0; i < N_THREADS; i++) {
        pthread_join(threads[i], NULL);
        n_locked += workers[i].n_locked;
    }
    require(is_locked(dragon_lock_lock(&lock, dragon_deadline_after_ns(DRAGON_NS_PER_S))));
    require(counter == n_locked);
    require(dragon_lock_fini(&lock) == 0);
}

int main(int argc, char **argv)
{
    int n = stress_run(argc, argv, run_round);

    printf("stress_lock: %d rounds of %d threads\n", n, N_THREADS);
    return 0;
}
