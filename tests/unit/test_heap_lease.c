/* Threads and processes over one heap: what one leases is no less everybody's. */
#include "memory/pool.h"
#include "support/heap_walk.h"
#include "support/shared_page.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>

#define MIB (UINT64_C(1) << 20)
#define CHUNK UINT64_C(65536)
#define SIZE_BYTES (4 * MIB)
#define N_CHUNKS (SIZE_BYTES / CHUNK)
#define MINE DRAGON_HOLDER_FIRST_SLOT
#define OTHERS (DRAGON_HOLDER_FIRST_SLOT + 1)
#define BLOCK_BYTES UINT64_C(1024)
#define N_ALL (SIZE_BYTES / BLOCK_BYTES)

static struct dragon_pool *pool;
static struct dragon_handle handles[N_ALL];

static void open_pool(void)
{
    cr_assert_eq(dragon_pool_create_managed(SIZE_BYTES, 1, 1, &pool), 0);
}

static void close_pool(void)
{
    cr_assert(dragon_pool_check(pool));
    dragon_pool_close(pool);
}

TestSuite(heap_lease, .timeout = 60, .init = open_pool, .fini = close_pool);

static struct dragon_pool_statistics statistics(void)
{
    struct dragon_pool_statistics s;

    dragon_pool_statistics(pool, &s);
    return s;
}

/* Allocate until the pool is full; the number. */
static uint64_t fill(uint64_t size_bytes, uint32_t holder)
{
    struct dragon_handle handle;
    uint64_t n = 0;

    while (dragon_pool_alloc(pool, size_bytes, holder, n < N_ALL ? &handles[n] : &handle) == 0)
        n++;
    return n;
}

static void free_handles(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        cr_assert_eq(dragon_pool_free(pool, &handles[i]), 0);
}

static void in_thread(void *(*run)(void *), void *argument)
{
    pthread_t thread;

    cr_assert_eq(pthread_create(&thread, NULL, run, argument), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
}

/* ---- full means full ---- */

static void *lease_chunks(void *argument)
{
    struct dragon_handle handle;

    (void)argument;
    for (uint64_t size = 64; size <= BLOCK_BYTES; size += 64)
        for (int i = 0; i < 10; i++)
            (void)dragon_pool_alloc(pool, size, OTHERS, &handle);
    return NULL;
}

Test(heap_lease, a_block_fills_the_pool_to_the_last_byte)
{
    cr_assert_eq(fill(BLOCK_BYTES, MINE), N_ALL);
    cr_assert_eq(statistics().free_bytes, 0);
}

Test(heap_lease, what_a_thread_leased_serves_others_after_its_end)
{
    in_thread(lease_chunks, NULL);
    cr_assert_eq(dragon_pool_sweep(pool, OTHERS), 10 * BLOCK_BYTES / 64);
    cr_assert_eq(fill(BLOCK_BYTES, MINE), N_ALL);
}

struct sleeper {
    pthread_barrier_t has_leased;
    pthread_barrier_t may_end;
};

Test(heap_lease, empty_chunks_that_are_leased_become_a_run)
{
    free_handles(fill(BLOCK_BYTES, MINE));
    cr_assert_eq(dragon_pool_alloc(pool, SIZE_BYTES, MINE, &handles[0]), 0);
}

static void *lease_chunk_of_1_kib(void *argument)
{
    struct sleeper *sleeper = argument;
    struct dragon_handle handle;

    for (int i = 0; i < 20; i++)
        (void)dragon_pool_alloc(pool, BLOCK_BYTES, OTHERS, &handle);
    pthread_barrier_wait(&sleeper->has_leased);
    pthread_barrier_wait(&sleeper->may_end);
    return NULL;
}

static void start_sleeper(struct sleeper *sleeper, void *(*run)(void *), pthread_t *thread)
{
    pthread_barrier_init(&sleeper->has_leased, NULL, 2);
    pthread_barrier_init(&sleeper->may_end, NULL, 2);
    cr_assert_eq(pthread_create(thread, NULL, run, sleeper), 0);
    pthread_barrier_wait(&sleeper->has_leased);
}

Test(heap_lease, not_one_block_less_fits_because_another_thread_leases)
{
    struct sleeper sleeper;
    pthread_t thread;

    start_sleeper(&sleeper, lease_chunk_of_1_kib, &thread);
    cr_assert_eq(fill(BLOCK_BYTES, MINE), N_ALL - 20);
    pthread_barrier_wait(&sleeper.may_end);
    pthread_join(thread, NULL);
}

/* ---- what is free is used before the heap grows ---- */

static void alloc_without_growth(int n)
{
    uint64_t committed_bytes = statistics().committed_bytes;
    struct dragon_handle handle;

    for (int i = 0; i < n; i++)
        cr_assert_eq(dragon_pool_alloc(pool, BLOCK_BYTES, MINE, &handle), 0);
    cr_assert_eq(statistics().committed_bytes, committed_bytes);
}

static void *alloc_20(void *unused)
{
    struct dragon_handle handle;

    (void)unused;
    for (int i = 0; i < 20; i++)
        (void)dragon_pool_alloc(pool, BLOCK_BYTES, OTHERS, &handle);
    return NULL;
}

static int alloc_20_in_child(void *unused)
{
    alloc_20(unused);
    return 0;
}

Test(heap_lease, the_rest_of_an_ended_threads_chunks_is_used_before_the_heap_grows)
{
    in_thread(alloc_20, NULL);
    alloc_without_growth(40); /* of 64 in a chunk */
}

Test(heap_lease, the_rest_of_a_dead_process_chunks_is_used_once_they_were_looked_for)
{
    cr_assert_eq(child_result(child_start(alloc_20_in_child, NULL)), 0);
    dragon_pool_trim(pool, SIZE_BYTES); /* looks for what nobody uses */
    alloc_without_growth(40);
}

Test(heap_lease, a_block_of_a_full_chunk_is_used_again_before_the_heap_grows)
{
    struct dragon_handle again;

    for (int i = 0; i < 4; i++) /* two fill a chunk; so few come without a lease */
        cr_assert_eq(dragon_pool_alloc(pool, 30000, MINE, &handles[i]), 0);
    free_handles(1);
    cr_assert_eq(dragon_pool_alloc(pool, 30000, MINE, &again), 0);
    cr_assert_eq(again.offset, handles[0].offset);
}

Test(heap_lease, swept_blocks_of_a_full_chunk_are_used_again_before_the_heap_grows)
{
    struct dragon_handle again;

    for (int i = 0; i < 4; i++)
        cr_assert_eq(dragon_pool_alloc(pool, 30000, i == 1 ? OTHERS : MINE, &handles[i]), 0);
    cr_assert_eq(dragon_pool_sweep(pool, OTHERS), 1);
    cr_assert_eq(dragon_pool_alloc(pool, 30000, MINE, &again), 0);
    cr_assert_eq(again.offset, handles[1].offset);
}

Test(heap_lease, swept_blocks_of_a_leased_chunk_are_used_again_before_the_heap_grows)
{
    for (int i = 0; i < 64; i++) /* the thread leases the chunk, and it is full */
        cr_assert_eq(dragon_pool_alloc(pool, BLOCK_BYTES, OTHERS, &handles[i]), 0);
    cr_assert_eq(dragon_pool_sweep(pool, OTHERS), 64);
    alloc_without_growth(64);
}

static int leave_empty_chunks(void *unused)
{
    (void)unused;
    for (int i = 0; i < 200; i++)
        if (dragon_pool_alloc(pool, 30000, OTHERS, &handles[0]) != 0)
            return 1;
    return 0;
}

Test(heap_lease, what_nobody_uses_is_looked_for_before_the_heap_grows_much)
{
    close_pool();
    cr_assert_eq(dragon_pool_create_managed(64 * MIB, 1, 1, &pool), 0);
    cr_assert_eq(child_result(child_start(leave_empty_chunks, NULL)), 0);
    cr_assert_eq(dragon_pool_sweep(pool, OTHERS), 200);
    for (int i = 0; i < 20; i++)
        cr_assert_eq(dragon_pool_alloc(pool, MIB, MINE, &handles[i]), 0);
    cr_assert_leq(statistics().committed_bytes, 21 * MIB); /* not the 6 MiB of the dead more */
}

/* ---- blocks that others free ---- */

static void *free_in_thread(void *n)
{
    for (uint64_t i = 0; i < *(uint64_t *)n; i++)
        if (dragon_pool_free(pool, &handles[i]) != 0)
            return handles;
    return NULL;
}

Test(heap_lease, blocks_that_another_thread_freed_are_used_again)
{
    uint64_t n = N_ALL / 4, committed_bytes = 0;

    for (int round = 0; round < 20; round++) {
        for (uint64_t i = 0; i < n; i++)
            cr_assert_eq(dragon_pool_alloc(pool, BLOCK_BYTES, MINE, &handles[i]), 0);
        if (round == 1) /* at first a few chunks more, until the freed ones are seen */
            committed_bytes = statistics().committed_bytes;
        in_thread(free_in_thread, &n);
        cr_assert_eq(statistics().n_blocks, 0);
    }
    cr_assert_leq(statistics().committed_bytes, committed_bytes + 8 * CHUNK);
}

static int free_in_child(void *n)
{
    return free_in_thread(n) ? 1 : 0;
}

Test(heap_lease, blocks_that_another_process_freed_are_used_again)
{
    uint64_t n = fill(BLOCK_BYTES, MINE);

    cr_assert_eq(child_result(child_start(free_in_child, &n)), 0);
    cr_assert_eq(statistics().n_blocks, 0);
    cr_assert_eq(fill(BLOCK_BYTES, MINE), N_ALL);
}

static int free_twice(void *unused)
{
    (void)unused;
    return dragon_pool_free(pool, &handles[0]) == 0 &&
                   dragon_pool_free(pool, &handles[0]) == -EBADMSG
               ? 0
               : 1;
}

Test(heap_lease, what_another_process_freed_cannot_be_freed_again)
{
    for (int i = 0; i < 20; i++)
        cr_assert_eq(dragon_pool_alloc(pool, BLOCK_BYTES, MINE, &handles[0]), 0);
    cr_assert_eq(child_result(child_start(free_twice, NULL)), 0);
    cr_assert_eq(dragon_pool_free(pool, &handles[0]), -EBADMSG);
    cr_assert_eq(statistics().n_blocks, 19);
}

/* ---- fork and death ---- */

static int alloc_and_mark(void *unused)
{
    (void)unused;
    for (int i = 0; i < 200; i++) {
        if (dragon_pool_alloc(pool, BLOCK_BYTES, OTHERS, &handles[i]) != 0)
            return 1;
        memset(dragon_pool_at(pool, handles[i].offset), 0xcc, BLOCK_BYTES);
    }
    return 0;
}

Test(heap_lease, a_forked_copy_takes_none_of_its_parents_blocks)
{
    pid_t child;

    for (int i = 0; i < 20; i++)
        cr_assert_eq(dragon_pool_alloc(pool, BLOCK_BYTES, MINE, &handles[i]), 0);
    child = child_start(alloc_and_mark, NULL);
    for (int i = 20; i < 200; i++)
        cr_assert_eq(dragon_pool_alloc(pool, BLOCK_BYTES, MINE, &handles[i]), 0);
    for (int i = 0; i < 200; i++)
        memset(dragon_pool_at(pool, handles[i].offset), 0xaa, BLOCK_BYTES);
    cr_assert_eq(child_result(child), 0);
    for (int i = 0; i < 200; i++)
        for (uint64_t b = 0; b < BLOCK_BYTES; b++)
            cr_assert_eq(((unsigned char *)dragon_pool_at(pool, handles[i].offset))[b], 0xaa);
    cr_assert_eq(dragon_pool_sweep(pool, OTHERS), 200);
    cr_assert_eq(dragon_pool_sweep(pool, MINE), 200);
}

static int fill_in_child(void *unused)
{
    (void)unused;
    return fill(BLOCK_BYTES, OTHERS) == N_ALL ? 0 : 1;
}

Test(heap_lease, all_that_a_dead_process_had_comes_back)
{
    cr_assert_eq(child_result(child_start(fill_in_child, NULL)), 0);
    cr_assert_eq(dragon_pool_sweep(pool, OTHERS), N_ALL);
    cr_assert_eq(statistics().free_bytes, SIZE_BYTES);
    cr_assert_eq(dragon_pool_alloc(pool, SIZE_BYTES, MINE, &handles[0]), 0);
}

static bool somebody_waits_for(void *mutex)
{
    const struct dragon_mutex *m = mutex;

    return __atomic_load_n(&m->mutex.__data.__lock, __ATOMIC_RELAXED) & 0x80000000;
}

/* A thread that ends waits for the heap's mutex, and holds what guards the leases of
 * the process, when this is copied. */
Test(heap_lease, a_copy_made_while_another_thread_changes_its_leases_can_allocate)
{
    struct heap_view view;
    struct sleeper sleeper;
    pthread_t thread;
    pid_t child;

    heap_view_open(&view, pool);
    start_sleeper(&sleeper, lease_chunk_of_1_kib, &thread);
    cr_assert_eq(dragon_heap_lock(&view.heap), 0);
    pthread_barrier_wait(&sleeper.may_end);
    cr_assert(becomes_true(somebody_waits_for, &view.heap.header->mutex));
    child = child_start(alloc_20_in_child, NULL);
    dragon_heap_unlock(&view.heap);
    pthread_join(thread, NULL);
    cr_assert_eq(child_result(child), 0);
    cr_assert_eq(dragon_pool_sweep(pool, OTHERS), 40);
    heap_view_close(&view);
}

/* ---- several heaps, closing ---- */

static void *use_and_wait_for_close(void *argument)
{
    struct sleeper *sleeper = argument;
    struct dragon_handle handle;
    void *result = NULL;

    lease_chunks(NULL);
    pthread_barrier_wait(&sleeper->has_leased);
    pthread_barrier_wait(&sleeper->may_end); /* the first pool is closed now, another is there */
    for (int i = 0; i < 20; i++)
        if (dragon_pool_alloc(pool, BLOCK_BYTES, OTHERS, &handle) != 0)
            result = handles;
    return result;
}

Test(heap_lease, a_thread_that_leased_survives_the_closing_of_the_pool)
{
    struct sleeper sleeper;
    pthread_t thread;
    void *result;

    pthread_barrier_init(&sleeper.has_leased, NULL, 2);
    pthread_barrier_init(&sleeper.may_end, NULL, 2);
    cr_assert_eq(pthread_create(&thread, NULL, use_and_wait_for_close, &sleeper), 0);
    pthread_barrier_wait(&sleeper.has_leased);
    dragon_pool_close(pool);
    open_pool();
    pthread_barrier_wait(&sleeper.may_end);
    pthread_join(thread, &result);
    cr_assert_null(result);
    cr_assert_eq(statistics().n_blocks, 20);
}

Test(heap_lease, more_pools_than_a_thread_has_at_hand_keep_their_blocks_apart)
{
    struct dragon_pool *pools[9];
    struct dragon_handle blocks[9][30];

    for (uint32_t p = 0; p < 9; p++)
        cr_assert_eq(dragon_pool_create_managed(MIB, 1, p + 2, &pools[p]), 0);
    for (int i = 0; i < 30; i++)
        for (int p = 0; p < 9; p++)
            cr_assert_eq(dragon_pool_alloc(pools[p], 100, MINE, &blocks[p][i]), 0);
    for (int p = 0; p < 9; p++)
        for (int i = 0; i < 30; i++) {
            cr_assert_eq(dragon_pool_free(pools[(p + 1) % 9], &blocks[p][i]), -EBADMSG);
            cr_assert_eq(dragon_pool_free(pools[p], &blocks[p][i]), 0);
        }
    for (int p = 0; p < 9; p++) {
        cr_assert(dragon_pool_check(pools[p]));
        dragon_pool_close(pools[p]);
    }
}

/* ---- memory ---- */

Test(heap_lease, a_thread_that_needs_few_blocks_takes_no_chunk_of_its_own)
{
    uint64_t one = 8; /* so many before a lease */

    for (int i = 0; i < 100; i++) {
        for (uint64_t k = 0; k < one; k++)
            cr_assert_eq(dragon_pool_alloc(pool, 64, MINE, &handles[k]), 0);
        in_thread(free_in_thread, &one);
    }
    cr_assert_leq(statistics().committed_bytes, 2 * CHUNK);
}

/* Of the system's memory, whatever the heap says. */
static uint64_t file_bytes(void)
{
    struct stat status;

    cr_assert_eq(fstat(dragon_pool_fd(pool), &status), 0);
    return (uint64_t)status.st_blocks * 512;
}

/* ---- long runs that another process has just read ---- */

static int free_first_two(void *unused)
{
    (void)unused;
    return dragon_pool_free(pool, &handles[0]) == 0 && dragon_pool_free(pool, &handles[1]) == 0 ? 0
                                                                                                : 1;
}

Test(heap_lease, a_long_run_that_another_process_freed_last_is_left_alone)
{
    struct dragon_handle again;

    for (int i = 0; i < 2; i++)
        cr_assert_eq(dragon_pool_alloc(pool, MIB + CHUNK, MINE, &handles[i]), 0);
    cr_assert_eq(child_result(child_start(free_first_two, NULL)), 0);
    cr_assert_eq(dragon_pool_alloc(pool, MIB + CHUNK, MINE, &again), 0);
    cr_assert_eq(again.offset, handles[0].offset, "the oldest");
    cr_assert_eq(dragon_pool_alloc(pool, MIB + CHUNK, MINE, &again), 0);
    cr_assert_neq(again.offset, handles[1].offset, "not the last");
    cr_assert_eq(dragon_pool_alloc(pool, MIB + CHUNK, MINE, &again), 0);
    cr_assert_eq(again.offset, handles[1].offset, "but before the pool is full");
}

Test(heap_lease, a_long_run_that_this_process_freed_last_is_used_first)
{
    struct dragon_handle again;

    for (int i = 0; i < 2; i++)
        cr_assert_eq(dragon_pool_alloc(pool, MIB + CHUNK, MINE, &handles[i]), 0);
    free_handles(2);
    cr_assert_eq(dragon_pool_alloc(pool, MIB + CHUNK, MINE, &again), 0);
    cr_assert_eq(again.offset, handles[1].offset);
}

#define LONG_BYTES (UINT64_C(200) << 20)

Test(heap_lease, a_long_run_is_made_of_what_is_free_and_fits_to_the_byte)
{
    struct dragon_handle handle, again;
    struct dragon_pool *other = pool;

    cr_assert_eq(dragon_pool_create_managed(LONG_BYTES, 1, 1, &pool), 0);
    cr_assert_eq(dragon_pool_alloc(pool, 100, MINE, &handle), 0);
    cr_assert_eq(dragon_pool_alloc(pool, LONG_BYTES, MINE, &again), DRAGON_POOL_FULL);
    cr_assert_eq(dragon_pool_alloc(pool, LONG_BYTES - CHUNK, MINE, &again), 0);
    memset(dragon_pool_at(pool, again.offset), 1, LONG_BYTES - CHUNK);
    cr_assert_eq(statistics().committed_bytes, LONG_BYTES);
    cr_assert_eq(dragon_pool_free(pool, &again), 0);
    cr_assert_eq(dragon_pool_free(pool, &handle), 0);
    cr_assert_eq(dragon_pool_alloc(pool, LONG_BYTES, MINE, &handle), 0);
    close_pool();
    pool = other;
}

Test(heap_lease, memory_that_nobody_uses_is_given_back_and_comes_again)
{
    uint64_t n = fill(BLOCK_BYTES, MINE);

    cr_assert_eq(statistics().committed_bytes, SIZE_BYTES);
    free_handles(n);
    cr_assert_eq(dragon_pool_trim(pool, MIB), SIZE_BYTES - MIB);
    cr_assert_eq(statistics().committed_bytes, MIB);
    cr_assert_lt(file_bytes(), 2 * MIB);
    cr_assert_eq(dragon_pool_trim(pool, MIB), 0);
    cr_assert_eq(fill(BLOCK_BYTES, MINE), N_ALL);
    cr_assert_eq(statistics().committed_bytes, SIZE_BYTES);
    for (uint64_t i = 0; i < N_ALL; i++)
        memset(dragon_pool_at(pool, handles[i].offset), 1, BLOCK_BYTES);
}

Test(heap_lease, memory_that_was_used_since_the_last_look_stays_until_the_next)
{
    struct dragon_handle run, again;

    cr_assert_eq(dragon_pool_alloc(pool, MIB, MINE, &run), 0);
    cr_assert_eq(dragon_pool_free(pool, &run), 0);
    cr_assert_eq(dragon_pool_trim_idle(pool, 0), 0);
    cr_assert_eq(dragon_pool_trim_idle(pool, 0), MIB);
    /* The same for a run that is kept, and serves again as it is. */
    cr_assert_eq(dragon_pool_alloc(pool, MIB, MINE, &run), 0);
    cr_assert_eq(dragon_pool_trim_idle(pool, 0), 0);
    cr_assert_eq(dragon_pool_free(pool, &run), 0);
    cr_assert_eq(dragon_pool_alloc(pool, MIB, MINE, &again), 0);
    cr_assert_eq(again.offset, run.offset);
    cr_assert_eq(dragon_pool_free(pool, &again), 0);
    cr_assert_eq(dragon_pool_trim_idle(pool, 0), 0);
    cr_assert_eq(dragon_pool_trim_idle(pool, 0), MIB);
}

/* Most of the time one block in the middle of an else empty chunk comes and goes. */
static void *alloc_and_free_one(void *argument)
{
    struct dragon_handle blocks[512];

    for (int round = 0; round < 300; round++) {
        for (int i = 0; i < 512; i++)
            (void)dragon_pool_alloc(pool, 64, OTHERS, &blocks[i]);
        for (int i = 0; i < 512; i++)
            (void)dragon_pool_free(pool, &blocks[i]);
        for (int i = 0; i < 2000; i++) {
            (void)dragon_pool_alloc(pool, 64, OTHERS, &blocks[0]);
            (void)dragon_pool_free(pool, &blocks[0]);
        }
    }
    dragon_publish((_Atomic bool *)argument, true);
    return NULL;
}

/* Between the look whether a chunk is empty and its closing a block of it is taken. */
Test(heap_lease, a_chunk_whose_closing_comes_too_late_is_whole)
{
    _Atomic bool has_ended = false;
    pthread_t thread;

    cr_assert_eq(pthread_create(&thread, NULL, alloc_and_free_one, &has_ended), 0);
    while (!dragon_observe(&has_ended)) {
        dragon_pool_trim(pool, SIZE_BYTES);
        cr_assert(dragon_pool_check(pool));
    }
    pthread_join(thread, NULL);
}

Test(heap_lease, who_waits_for_room_hears_of_another_limit)
{
    struct dragon_heap_header *header = dragon_pool_at(pool, 0);
    uint32_t key = dragon_eventcount_prepare(&header->freed);

    dragon_pool_limit(pool, MIB);
    cr_assert_eq(dragon_eventcount_park_until(&header->freed, key, DRAGON_AT_ONCE), 0);
}

Test(heap_lease, more_is_given_back_than_at_one_time)
{
    close_pool();
    cr_assert_eq(dragon_pool_create_managed(200 * MIB, 1, 1, &pool), 0);
    cr_assert_eq(dragon_pool_prefault(pool, 200 * MIB), 0);
    cr_assert_eq(dragon_pool_trim(pool, MIB), 199 * MIB);
    cr_assert_eq(statistics().committed_bytes, MIB);
}

Test(heap_lease, trimming_touches_no_block)
{
    uint64_t n = fill(BLOCK_BYTES, MINE), n_kept = 0;

    for (uint64_t i = 0; i < n; i++)
        memset(dragon_pool_at(pool, handles[i].offset), (int)(i % 251), BLOCK_BYTES);
    for (uint64_t i = 0; i < n; i++)
        if (i % 100 == 0)
            handles[n_kept++] = handles[i];
        else
            cr_assert_eq(dragon_pool_free(pool, &handles[i]), 0);
    dragon_pool_trim(pool, 0);
    for (uint64_t i = 0; i < n_kept; i++)
        for (uint64_t b = 0; b < BLOCK_BYTES; b++)
            cr_assert_eq(((unsigned char *)dragon_pool_at(pool, handles[i].offset))[b],
                         i * 100 % 251);
    free_handles(n_kept);
}
