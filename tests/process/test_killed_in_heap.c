/* A process is killed in the middle of an allocation or a release: the others
 * go on at once, keep what they have, and can take back what it had. */
#include "support/heap_walk.h"
#include "support/test_point.h"

#include <criterion/criterion.h>
#include <string.h>

#define SIZE_BYTES (UINT64_C(4) << 20)
#define MINE DRAGON_HOLDER_FIRST_SLOT
#define VICTIMS (DRAGON_HOLDER_FIRST_SLOT + 1)
#define N_MINE 100
#define LONG_BYTES (UINT64_C(192) << 20)

TestSuite(killed_in_heap, .timeout = 60);

static struct dragon_pool *pool;
static struct dragon_handle mine[N_MINE];

/* Blocks of many sizes, some of the victim's between mine. */
static void open_pool(void)
{
    struct dragon_handle handle;

    cr_assert_eq(dragon_pool_create_managed(SIZE_BYTES, 7, 1, &pool), 0);
    for (int i = 0; i < N_MINE; i++) {
        uint64_t size_bytes = (uint64_t)(1 + i * 41);

        cr_assert_eq(dragon_pool_alloc(pool, size_bytes, MINE, &mine[i]), 0);
        memset(dragon_pool_at(pool, mine[i].offset), i, size_bytes);
        cr_assert_eq(dragon_pool_alloc(pool, size_bytes, VICTIMS, &handle), 0);
    }
}

static bool mine_are_whole(void)
{
    for (int i = 0; i < N_MINE; i++) {
        uint64_t size_bytes;
        void *address;

        if (dragon_pool_resolve(pool, &mine[i], &address, &size_bytes) != 0 ||
            size_bytes != (uint64_t)(1 + i * 41))
            return false;
        for (uint64_t j = 0; j < size_bytes; j++)
            if (((unsigned char *)address)[j] != i)
                return false;
    }
    return true;
}

static uint64_t n_blocks(void)
{
    struct dragon_pool_statistics statistics;

    dragon_pool_statistics(pool, &statistics);
    return statistics.n_blocks;
}

static uint64_t most_blocks(void)
{
    struct dragon_pool_statistics statistics;

    dragon_pool_statistics(pool, &statistics);
    return statistics.most_blocks;
}

static void alloc_and_free_at_once(void)
{
    int64_t begin_ns = dragon_now_ns();
    struct dragon_handle handle;

    for (int i = 0; i < 50; i++) {
        cr_assert_eq(dragon_pool_alloc(pool, (uint64_t)(1 + i * 700), MINE, &handle), 0);
        cr_assert_eq(dragon_pool_free(pool, &handle), 0);
    }
    cr_assert_lt(dragon_now_ns() - begin_ns, TEST_SECOND);
}

static void check_survivors(uint64_t n_victims_low, uint64_t n_victims_high)
{
    uint64_t n_swept;

    alloc_and_free_at_once();
    cr_assert(dragon_pool_check(pool));
    n_swept = dragon_pool_sweep(pool, VICTIMS);
    cr_assert_geq(n_swept, n_victims_low);
    cr_assert_leq(n_swept, n_victims_high);
    cr_assert_eq(n_blocks(), N_MINE);
    cr_assert(mine_are_whole());
    for (int i = 0; i < N_MINE; i++)
        cr_assert_eq(dragon_pool_free(pool, &mine[i]), 0);
    cr_assert_eq(n_blocks(), 0);
    cr_assert(dragon_pool_check(pool));
    dragon_pool_close(pool);
}

static int alloc_one(void *size_bytes)
{
    struct dragon_handle handle;

    return dragon_pool_alloc(pool, *(uint64_t *)size_bytes, VICTIMS, &handle);
}

static int alloc_and_free_one(void *size_bytes)
{
    struct dragon_handle handle;
    int r = dragon_pool_alloc(pool, *(uint64_t *)size_bytes, VICTIMS, &handle);

    return r == 0 ? dragon_pool_free(pool, &handle) : r;
}

/* Of a class that has a common chunk, of one that needs a new chunk, and a run. */
static uint64_t sizes[] = {100, 30000, 100000};
#define N_SIZES 3

static int alloc_many(void *size_bytes)
{
    struct dragon_handle handle;
    int r = 0;

    /* Enough for the thread to lease a chunk. */
    for (int i = 0; i < 10 && r == 0; i++)
        r = dragon_pool_alloc(pool, *(uint64_t *)size_bytes, VICTIMS, &handle);
    return r;
}

/* Chunks of small blocks become a run: they are closed. */
static int alloc_free_and_fill(void *unused)
{
    struct dragon_handle handles[100];

    (void)unused;
    for (int i = 0; i < 40; i++)
        if (dragon_pool_alloc(pool, 30000, VICTIMS, &handles[i]) != 0)
            return 1;
    for (int i = 0; i < 40; i++)
        if (dragon_pool_free(pool, &handles[i]) != 0)
            return 1;
    return dragon_pool_alloc(pool, 40 * DRAGON_HEAP_CHUNK_BYTES, VICTIMS, &handles[0]);
}

static int trim(void *unused)
{
    (void)unused;
    if (alloc_free_and_fill(NULL) != 0 || dragon_pool_sweep(pool, VICTIMS) == 0)
        return 1;
    return dragon_pool_trim(pool, 0) > 0 ? 0 : 1;
}

Test(killed_in_heap, before_the_swap_there_is_no_block)
{
    for (int i = 0; i < N_SIZES; i++) {
        open_pool();
        cr_assert(child_dies_at("heap-before-take", alloc_one, &sizes[i]));
        check_survivors(N_MINE, N_MINE);
    }
}

Test(killed_in_heap, after_the_swap_there_is_a_block)
{
    for (int i = 0; i < N_SIZES; i++) {
        open_pool();
        cr_assert(child_dies_at("heap-after-take", alloc_one, &sizes[i]));
        check_survivors(N_MINE + 1, N_MINE + 1);
    }
}

Test(killed_in_heap, a_chunk_that_was_being_opened_is_free)
{
    const char *points[] = {"heap-opening", "heap-opened"};

    for (int i = 0; i < 2; i++) {
        open_pool();
        cr_assert(child_dies_at(points[i], alloc_one, &sizes[1]));
        check_survivors(N_MINE, N_MINE);
    }
}

Test(killed_in_heap, a_run_that_was_being_made_is_free)
{
    open_pool();
    cr_assert(child_dies_at("heap-run-made", alloc_one, &sizes[2]));
    check_survivors(N_MINE, N_MINE);
}

static int alloc_long_run(void *unused)
{
    struct dragon_handle handle;

    (void)unused;
    return dragon_pool_alloc(pool, LONG_BYTES, VICTIMS, &handle);
}

/* So long that its memory is brought in pieces; with the mutex held. */
Test(killed_in_heap, a_long_run_that_was_being_prepared_takes_nothing_along)
{
    struct dragon_handle handle;

    cr_assert_eq(dragon_pool_create_managed(LONG_BYTES, 7, 1, &pool), 0);
    cr_assert(child_dies_at("heap-preparing-run", alloc_long_run, NULL));
    cr_assert_eq(n_blocks(), 0);
    cr_assert_eq(dragon_pool_alloc(pool, LONG_BYTES, MINE, &handle), 0);
    cr_assert(dragon_pool_check(pool));
    dragon_pool_close(pool);
}

Test(killed_in_heap, the_lease_of_a_dead_process_costs_nobody_a_block)
{
    for (int i = 0; i < 2; i++) {
        open_pool();
        cr_assert(child_dies_at("heap-leased", alloc_many, &sizes[i]));
        check_survivors(N_MINE + 8, N_MINE + 8);
    }
}

Test(killed_in_heap, after_the_release_the_block_is_free)
{
    for (int i = 0; i < N_SIZES; i++) {
        open_pool();
        cr_assert(child_dies_at("heap-after-release", alloc_and_free_one, &sizes[i]));
        check_survivors(N_MINE, N_MINE);
    }
}

static struct dragon_heap_header *header(void)
{
    return dragon_pool_at(pool, 0);
}

static void forget_entries(void)
{
    for (int i = 0; i < DRAGON_HEAP_N_KEPT_RUNS; i++)
        dragon_poke(&header()->kept_runs[i].run, 0);
}

/* The dead one had it from the list of kept runs, or was about to put it there. */
Test(killed_in_heap, a_free_run_that_is_in_no_list_is_found_by_who_looks_for_room)
{
    const char *points[] = {"heap-run-found", "heap-after-release"};
    struct dragon_handle run, rest;

    for (int i = 0; i < 2; i++) {
        cr_assert_eq(dragon_pool_create_managed(SIZE_BYTES, 7, 1, &pool), 0);
        cr_assert_eq(dragon_pool_alloc(pool, sizes[2], MINE, &run), 0);
        cr_assert_eq(dragon_pool_free(pool, &run), 0);
        cr_assert(child_dies_at(points[i], alloc_and_free_one, &sizes[2]));
        cr_assert_eq(dragon_peek(&header()->kept_runs[0].run), 0, "in no list");
        cr_assert_eq(n_blocks(), 0);
        cr_assert_eq(dragon_pool_alloc(pool, SIZE_BYTES, MINE, &rest), 0);
        cr_assert(dragon_pool_check(pool));
        dragon_pool_close(pool);
    }
}

static int free_more_than_are_kept(void *unused)
{
    struct dragon_handle handles[DRAGON_HEAP_N_KEPT_RUNS + 1];

    (void)unused;
    for (int i = 0; i <= DRAGON_HEAP_N_KEPT_RUNS; i++)
        if (dragon_pool_alloc(pool, sizes[2], VICTIMS, &handles[i]) != 0)
            return 1;
    for (int i = 0; i <= DRAGON_HEAP_N_KEPT_RUNS; i++)
        if (dragon_pool_free(pool, &handles[i]) != 0)
            return 1;
    return 0;
}

Test(killed_in_heap, a_run_that_made_room_for_another_is_found_by_who_looks_for_room)
{
    struct dragon_handle handle;

    cr_assert_eq(dragon_pool_create_managed(SIZE_BYTES, 7, 1, &pool), 0);
    cr_assert(child_dies_at("heap-run-displaced", free_more_than_are_kept, NULL));
    cr_assert_eq(n_blocks(), 0);
    cr_assert_eq(dragon_pool_alloc(pool, SIZE_BYTES, MINE, &handle), 0);
    cr_assert(dragon_pool_check(pool));
    dragon_pool_close(pool);
}

/* What the dead one took has a holder, but no size yet. */
Test(killed_in_heap, a_kept_run_that_was_just_taken_is_swept)
{
    struct dragon_handle run, again;
    uint64_t size_bytes;

    open_pool();
    cr_assert_eq(dragon_pool_alloc(pool, sizes[2], MINE, &run), 0);
    cr_assert_eq(dragon_pool_free(pool, &run), 0);
    cr_assert(child_dies_at("heap-after-take", alloc_one, &sizes[2]));
    cr_assert_lt(dragon_pool_find(pool, run.offset, &again, &size_bytes), 0);
    check_survivors(N_MINE + 1, N_MINE + 1);
}

static int alloc_free_and_trim(void *unused)
{
    (void)unused;
    if (alloc_and_free_one(&(uint64_t){5 * DRAGON_HEAP_CHUNK_BYTES}) != 0)
        return 1;
    dragon_pool_trim(pool, 0);
    return 0;
}

/* A stale entry leads to it, but its last chunk is free already. */
Test(killed_in_heap, a_run_that_was_being_given_back_is_not_taken_by_a_stale_entry)
{
    const char *points[] = {"heap-closed", "heap-freeing-chunks"};
    struct dragon_handle before, run, small;

    for (int i = 0; i < 2; i++) {
        uint32_t first;

        cr_assert_eq(dragon_pool_create_managed(SIZE_BYTES, 7, 1, &pool), 0);
        cr_assert_eq(dragon_pool_alloc(pool, 5 * DRAGON_HEAP_CHUNK_BYTES, MINE, &before), 0);
        cr_assert_eq(dragon_pool_free(pool, &before), 0);
        first = (uint32_t)(dragon_peek(&header()->kept_runs[0].run) >> 32);
        cr_assert(child_dies_at(points[i], alloc_free_and_trim, NULL));
        forget_entries();
        dragon_poke(&header()->kept_runs[0].run, (uint64_t)first << 32 | 5);
        cr_assert_eq(dragon_pool_alloc(pool, 5 * DRAGON_HEAP_CHUNK_BYTES, MINE, &run), 0);
        cr_assert_neq(run.generation, before.generation);
        cr_assert_eq(dragon_pool_alloc(pool, 100, MINE, &small), 0);
        cr_assert(small.offset < run.offset ||
                  small.offset >= run.offset + 5 * DRAGON_HEAP_CHUNK_BYTES);
        cr_assert(dragon_pool_check(pool));
        dragon_pool_close(pool);
    }
}

Test(killed_in_heap, chunks_that_were_being_closed_are_whole_again_or_free)
{
    const char *points[] = {"heap-closing", "heap-closed", "heap-freeing-chunks"};

    for (int i = 0; i < 3; i++) {
        open_pool();
        cr_assert(child_dies_at(points[i], alloc_free_and_fill, NULL));
        check_survivors(N_MINE, N_MINE + 40);
    }
}

Test(killed_in_heap, memory_that_was_being_given_back_comes_again)
{
    open_pool();
    cr_assert(child_dies_at("heap-trimming", trim, NULL));
    check_survivors(0, 0);
}

static int sweep(void *argument)
{
    (void)argument;
    dragon_pool_sweep(pool, VICTIMS);
    return 0;
}

Test(killed_in_heap, a_sweep_that_was_cut_short_can_be_done_again)
{
    open_pool();
    cr_assert(child_dies_at("heap-sweeping", sweep, NULL));
    check_survivors(N_MINE - 1, N_MINE - 1);
}

Test(killed_in_heap, many_deaths_in_a_row_leave_a_whole_heap)
{
    open_pool();
    for (int i = 0; i < 20; i++) {
        cr_assert(child_dies_at("heap-after-take", alloc_one, &sizes[i % 2]));
        cr_assert(child_dies_at("heap-before-take", alloc_one, &sizes[i % 2]));
    }
    check_survivors(N_MINE + 20, N_MINE + 20);
}

Test(killed_in_heap, a_block_of_a_dead_allocation_gets_no_name_that_was_used)
{
    struct dragon_handle before, after;

    open_pool();
    cr_assert_eq(dragon_pool_alloc(pool, 100, MINE, &before), 0);
    cr_assert_eq(dragon_pool_free(pool, &before), 0);
    cr_assert(child_dies_at("heap-after-take", alloc_one, &sizes[0]));
    dragon_pool_sweep(pool, VICTIMS);
    for (int i = 0; i < 1000; i++) {
        cr_assert_eq(dragon_pool_alloc(pool, 100, MINE, &after), 0);
        cr_assert_not(dragon_handle_is_same(&before, &after));
    }
}

static int close_empty_chunks(void *argument)
{
    (void)argument;
    dragon_pool_trim(pool, 0);
    return 0;
}

/* Names of n blocks that are allocated and freed one after the other. */
static void use_names(uint64_t size_bytes, struct dragon_handle *names, int n)
{
    for (int i = 0; i < n; i++) {
        cr_assert_eq(dragon_pool_alloc(pool, size_bytes, MINE, &names[i]), 0);
        cr_assert_eq(dragon_pool_free(pool, &names[i]), 0);
    }
}

Test(killed_in_heap, no_name_comes_again_after_a_death_in_the_middle_of_closing)
{
    struct dragon_handle names[12], again;

    /* The first block of the chunk has had many names, the second none. */
    cr_assert_eq(dragon_pool_create_managed(SIZE_BYTES, 7, 1, &pool), 0);
    use_names(30000, names, 6);
    cr_assert(child_dies_at("heap-closed", close_empty_chunks, NULL));
    use_names(30000, &names[6], 6);
    close_empty_chunks(NULL);
    for (int i = 0; i < 12; i++) {
        cr_assert_eq(dragon_pool_alloc(pool, 20000, MINE, &again), 0);
        cr_assert_eq(again.offset, names[0].offset);
        for (int k = 0; k < 12; k++)
            cr_assert_neq(again.generation, names[k].generation);
        cr_assert_eq(dragon_pool_free(pool, &again), 0);
    }
    cr_assert(dragon_pool_check(pool));
    dragon_pool_close(pool);
}

/* Dies with the lock, and with all that the heap knows by heart wrong. */
static int forget_and_die(void *argument)
{
    struct heap_view view;
    struct dragon_heap_header *heap;

    (void)argument;
    heap_view_open(&view, pool);
    heap = view.heap.header;
    if (dragon_mutex_lock(&heap->mutex) != 0)
        return 1;
    heap->n_used = 1;
    heap->scan_from = heap->n_committed;
    heap->n_backed = 12345;
    memset(heap->partial, 0, sizeof heap->partial);
    memset(heap->kept_runs, 0xff, sizeof heap->kept_runs);
    /* The rest of a run whose first chunk was not marked any more. */
    view.heap.chunks[heap->n_committed - 1].kind = DRAGON_HEAP_CHUNK_RUN_REST;
    kill(getpid(), SIGKILL);
    return 2;
}

Test(killed_in_heap, lists_and_counters_are_rebuilt_from_words_and_kinds)
{
    open_pool();
    cr_assert_eq(dragon_pool_prefault(pool, SIZE_BYTES), 0);
    cr_assert_eq(child_result(child_start(forget_and_die, NULL)), 256 + SIGKILL);
    check_survivors(N_MINE, N_MINE);
}

static int grow(void *unused)
{
    (void)unused;
    return dragon_pool_prefault(pool, 2 * DRAGON_POOL_HIGH_WATER_BYTES);
}

Test(killed_in_heap, who_gives_memory_back_hears_of_growth)
{
    uint32_t key;

    cr_assert_eq(dragon_pool_create_managed(2 * DRAGON_POOL_HIGH_WATER_BYTES, 7, 1, &pool), 0);
    key = dragon_eventcount_prepare(dragon_pool_grown(pool));
    cr_assert_eq(grow(NULL), 0);
    cr_assert_eq(dragon_eventcount_park_until(dragon_pool_grown(pool), key, DRAGON_AT_ONCE), 0);
    dragon_pool_close(pool);
}

Test(killed_in_heap, who_gives_memory_back_hears_of_growth_though_its_maker_died)
{
    struct dragon_handle handle;
    uint32_t key;

    cr_assert_eq(dragon_pool_create_managed(2 * DRAGON_POOL_HIGH_WATER_BYTES, 7, 1, &pool), 0);
    key = dragon_eventcount_prepare(dragon_pool_grown(pool));
    cr_assert(child_dies_at("heap-grown", grow, NULL));
    cr_assert_eq(dragon_pool_alloc(pool, 1, MINE, &handle), 0);
    cr_assert_eq(dragon_eventcount_park_until(dragon_pool_grown(pool), key, DRAGON_AT_ONCE), 0);
    dragon_pool_close(pool);
}

/* ---- a counted pool ---- */

static void open_counted_pool(void)
{
    struct dragon_pool_options options = {
        .size_bytes = SIZE_BYTES, .node = 7, .number = 1, .max_blocks = 3};

    cr_assert_eq(dragon_pool_make_managed(&options, &pool), 0);
}

Test(killed_in_heap, the_number_of_blocks_is_right_after_each_death)
{
    const char *points[] = {"heap-before-take", "heap-after-take", "heap-after-release"};
    uint64_t n_left[] = {0, 1, 0};
    struct dragon_handle handle;

    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < N_SIZES; k++) {
            open_counted_pool();
            cr_assert(child_dies_at(points[i], alloc_and_free_one, &sizes[k]));
            cr_assert(dragon_pool_check(pool)); /* takes the mutex from the dead */
            cr_assert_geq(most_blocks(), n_left[i]);
            for (uint64_t n = n_left[i]; n < 3; n++)
                cr_assert_eq(dragon_pool_alloc(pool, 100, MINE, &handle), 0);
            cr_assert_eq(dragon_pool_alloc(pool, 100, MINE, &handle), DRAGON_POOL_FULL);
            cr_assert_eq(dragon_pool_sweep(pool, VICTIMS), n_left[i]);
            cr_assert_eq(n_blocks(), 3 - n_left[i]);
            cr_assert(dragon_pool_check(pool));
            dragon_pool_close(pool);
        }
    }
}

/* ---- somebody waits for room ---- */

static struct dragon_handle everything;

static int free_everything(void *argument)
{
    (void)argument;
    return dragon_pool_free(pool, &everything);
}

static int wait_for_room(void *argument)
{
    struct dragon_handle handle;

    (void)argument;
    return dragon_pool_alloc_wait(pool, SIZE_BYTES, MINE, test_soon(), &handle);
}

static bool somebody_waits(void *argument)
{
    (void)argument;
    return dragon_eventcount_has_waiters(&header()->freed);
}

static void wait_while_a_free_dies_at(const char *point)
{
    pid_t waiter;

    cr_assert_eq(dragon_pool_create_managed(SIZE_BYTES, 7, 1, &pool), 0);
    cr_assert_eq(dragon_pool_alloc(pool, SIZE_BYTES, VICTIMS, &everything), 0);
    waiter = child_start(wait_for_room, NULL);
    cr_assert(becomes_true(somebody_waits, NULL));
    cr_assert(child_dies_at(point, free_everything, NULL));
    cr_assert_eq(child_result(waiter), 0);
    cr_assert_eq(n_blocks(), 1);
    cr_assert(dragon_pool_check(pool));
}

Test(killed_in_heap, who_waits_for_room_finds_it_though_nobody_wakes)
{
    int64_t begin_ns = dragon_now_ns();

    wait_while_a_free_dies_at("heap-before-wake");
    cr_assert_lt(dragon_now_ns() - begin_ns, 3 * TEST_SECOND);
}
