/* What processes synchronise with, in memory that another process has scribbled
 * over: every operation ends by its deadline. */
#include "memory/pool.h"
#include "support/scribble.h"
#include "sync/barrier.h"
#include "sync/condition.h"
#include "sync/event.h"
#include "sync/semaphore.h"

#include <stdint.h>
#include <stdlib.h>

#define N_MORE 12 /* more waiters than a condition has entries of its own */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_data);

static struct scribble scribble, of_pool;
static struct dragon_pool *pool;

static _Alignas(64) struct {
    struct dragon_semaphore semaphore;
    struct dragon_event event;
    struct dragon_barrier barrier;
    struct dragon_condition condition;
} shared;

static void make_shared(void)
{
    struct dragon_condition_waiter *waiters[N_MORE];

    if (dragon_pool_create_managed(UINT64_C(1) << 16, 7, 1, &pool) != 0)
        abort();
    dragon_semaphore_init(&shared.semaphore, 1, 3);
    dragon_event_init(&shared.event);
    if (dragon_barrier_init(&shared.barrier, 3) != 0 ||
        dragon_condition_init(&shared.condition) != 0)
        abort();
    for (int i = 0; i < N_MORE; i++)
        if (dragon_condition_enter(&shared.condition, pool, &waiters[i]) != 0)
            abort();
    for (int i = 0; i < N_MORE; i++)
        dragon_condition_leave(waiters[i]);
    scribble_take(&scribble, &shared, sizeof shared);
    scribble_add_region(&scribble, 0, sizeof shared);
    scribble_take_pool(&of_pool, pool);
}

static volatile uint64_t sink;

static void use_small_ones(void)
{
    for (int i = 0; i < 4; i++) {
        dragon_semaphore_acquire(&shared.semaphore, 0);
        dragon_semaphore_try_acquire(&shared.semaphore);
        dragon_semaphore_release(&shared.semaphore);
    }
    sink = dragon_semaphore_value(&shared.semaphore);
    dragon_event_wait(&shared.event, dragon_event_begin(&shared.event), 0);
    dragon_event_set(&shared.event);
    dragon_event_clear(&shared.event);
}

static void use_barrier(void)
{
    struct dragon_barrier_place place;
    int r;

    for (int i = 0; i < 4; i++) {
        r = dragon_barrier_arrive(&shared.barrier, NULL, i & 1, 0, &place);
        if (r == 0) {
            dragon_barrier_wait(&shared.barrier, &place, 0);
            dragon_barrier_expire(&shared.barrier, &place);
        } else if (r == DRAGON_BARRIER_LAST && (i & 1)) {
            dragon_barrier_finish(&shared.barrier, &place, true);
        }
    }
    dragon_barrier_reset(&shared.barrier);
}

static void use_condition(void)
{
    struct dragon_condition_waiter *waiters[N_MORE];
    int n = 0;

    while (n < N_MORE && dragon_condition_enter(&shared.condition, pool, &waiters[n]) == 0)
        n++;
    sink = dragon_condition_n_waiting(&shared.condition, pool);
    sink = dragon_condition_notify(&shared.condition, pool, 1);
    sink = dragon_condition_notify(&shared.condition, pool, 1000);
    for (int i = 0; i < n; i++) {
        dragon_condition_wait(waiters[i], 0);
        if (i % 2)
            dragon_condition_leave(waiters[i]);
        else
            dragon_condition_cancel(&shared.condition, pool, waiters[i]);
    }
    dragon_condition_fini(&shared.condition, pool);
}

/* Input: as scribble_write takes it. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_data)
{
    if (!pool)
        make_shared();
    scribble_restore(&scribble);
    scribble_restore(&of_pool);
    scribble_write(&scribble, data, n_data);
    use_small_ones();
    use_barrier();
    use_condition();
    return 0;
}
