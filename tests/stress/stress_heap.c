/* Threads over one pool until the time is up: stress_heap SEED SECONDS. Each
 * fills its blocks with a pattern of its own and hands some to others, who free
 * them. Also a program for the thread sanitizer. */
#include "base/atomic.h"
#include "base/deadline.h"
#include "support/heap_walk.h"
#include "support/seed.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_THREADS 4
#define N_STEPS 4000
#define N_OWN 40
#define N_SHELVES 64
#define POOL_BYTES (UINT64_C(32) << 20)

#define require(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);              \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static struct dragon_pool *pool;

/* Blocks on their way from one thread to another, by offset; 0: none. */
static _Atomic uint64_t shelves[N_SHELVES];

struct worker {
    struct seed seed;
    uint32_t holder;
    struct dragon_handle own[N_OWN];
};

static unsigned char fill_of(const struct dragon_handle *handle)
{
    return (unsigned char)(handle->generation * 31);
}

static void check_and_free(const struct dragon_handle *handle)
{
    unsigned char *bytes;
    uint64_t size_bytes;
    void *address;

    require(dragon_pool_resolve(pool, handle, &address, &size_bytes) == 0);
    bytes = address;
    require(bytes[0] == fill_of(handle) && bytes[size_bytes - 1] == fill_of(handle));
    require(dragon_pool_free(pool, handle) == 0);
    require(dragon_pool_free(pool, handle) < 0);
}

static void alloc(struct worker *worker, struct dragon_handle *handle)
{
    uint64_t largest[] = {100, 2000, 16384, 300000};
    uint64_t size_bytes = 1 + seed_below(&worker->seed, largest[seed_below(&worker->seed, 4)]);
    int r = dragon_pool_alloc(pool, size_bytes, worker->holder, handle);

    require(r == 0 || r == DRAGON_POOL_FULL);
    if (r == 0)
        memset(dragon_pool_at(pool, handle->offset), fill_of(handle), size_bytes);
    else
        handle->generation = 0;
}

/* Lay a block on a shelf, and free what was there. */
static void give_away(struct worker *worker, struct dragon_handle *handle)
{
    struct dragon_handle other;
    uint64_t size_bytes, offset;
    uint32_t before;

    require(dragon_pool_hold(pool, handle, DRAGON_HOLDER_SHARED, &before) == 0);
    require(before == worker->holder);
    offset = dragon_exchange(&shelves[seed_below(&worker->seed, N_SHELVES)], handle->offset);
    handle->generation = 0;
    if (offset == 0)
        return;
    require(dragon_pool_find(pool, offset, &other, &size_bytes) == 0);
    check_and_free(&other);
}

static void *work(void *argument)
{
    struct worker *worker = argument;

    for (int i = 0; i < N_STEPS; i++) {
        struct dragon_handle *handle = &worker->own[seed_below(&worker->seed, N_OWN)];

        if (handle->generation == 0) {
            alloc(worker, handle);
        } else if (seed_below(&worker->seed, 3) == 0) {
            give_away(worker, handle);
        } else {
            check_and_free(handle);
            handle->generation = 0;
        }
    }
    return NULL;
}

static uint64_t count_own(const struct worker *worker)
{
    uint64_t n = 0;

    for (int i = 0; i < N_OWN; i++)
        n += worker->own[i].generation != 0;
    return n;
}

static void run_round(struct seed *seed)
{
    struct worker workers[N_THREADS] = {0};
    struct dragon_pool_statistics statistics;
    pthread_t threads[N_THREADS];

    require(dragon_pool_create_managed(POOL_BYTES, 7, 1, &pool) == 0);
    memset(shelves, 0, sizeof shelves);
    for (uint32_t i = 0; i < N_THREADS; i++) {
        workers[i].seed = seed_from(seed_next(seed));
        workers[i].holder = DRAGON_HOLDER_FIRST_SLOT + i;
        pthread_create(&threads[i], NULL, work, &workers[i]);
    }
    for (int i = 0; i < N_THREADS; i++)
        pthread_join(threads[i], NULL);
    require(dragon_pool_check(pool));
    for (int i = 0; i < N_THREADS; i++)
        require(dragon_pool_sweep(pool, workers[i].holder) == count_own(&workers[i]));
    dragon_pool_sweep(pool, DRAGON_HOLDER_SHARED);
    dragon_pool_statistics(pool, &statistics);
    require(statistics.n_blocks == 0 && statistics.free_bytes == POOL_BYTES);
    require(dragon_pool_check(pool));
    dragon_pool_close(pool);
}

int main(int argc, char **argv)
{
    struct seed seed = seed_from(argc > 1 ? strtoull(argv[1], NULL, 10) : 1);
    int64_t seconds = argc > 2 ? strtoll(argv[2], NULL, 10) : 5;
    int64_t deadline_ns = dragon_deadline_after_ns(seconds * DRAGON_NS_PER_S);
    int n = 0;

    do {
        run_round(&seed);
        n++;
    } while (!dragon_deadline_passed(deadline_ns));
    printf("stress_heap: %d rounds of %d steps\n", n, N_THREADS * N_STEPS);
    return 0;
}
