#include "memory/heap_runs.h"

#include "memory/heap_chunks.h"
#include "memory/heap_place.h"

#include <criterion/criterion.h>
#include <errno.h>

#define CHUNK DRAGON_HEAP_CHUNK_BYTES
#define N_CHUNKS 64
#define N_KEPT DRAGON_HEAP_N_KEPT_RUNS
#define HOLDER DRAGON_HOLDER_FIRST_SLOT
#define OTHER_HOLDER (DRAGON_HOLDER_FIRST_SLOT + 1)

static struct dragon_segment segment;
static struct dragon_heap heap;

static void open_heap(void)
{
    uint64_t segment_bytes = dragon_heap_segment_bytes(N_CHUNKS * CHUNK, CHUNK);
    struct dragon_heap_options options = {.chunk_bytes = CHUNK};

    cr_assert_eq(dragon_segment_create_anonymous(&segment, "test", segment_bytes), 0);
    cr_assert_eq(dragon_heap_init(&heap, &segment, &options), 0);
}

static void close_heap(void)
{
    dragon_heap_close(&heap);
    dragon_segment_close(&segment);
}

TestSuite(heap_runs, .timeout = 60, .init = open_heap, .fini = close_heap);

struct block {
    uint64_t offset;
    uint32_t generation;
};

static struct block alloc(uint64_t size_bytes)
{
    struct block block;

    cr_assert_eq(dragon_heap_alloc(&heap, size_bytes, HOLDER, &block.offset, &block.generation), 0);
    return block;
}

static void release(struct block block)
{
    cr_assert_eq(dragon_heap_free(&heap, block.offset, block.generation), 0);
}

static uint32_t chunk_of(struct block block)
{
    return (uint32_t)((block.offset - heap.data_offset) / CHUNK);
}

static uint64_t size_of(struct block block)
{
    uint64_t size_bytes = 0;

    cr_assert_eq(dragon_heap_resolve(&heap, block.offset, block.generation, &size_bytes), 0);
    return size_bytes;
}

static uint64_t n_blocks(void)
{
    struct dragon_heap_usage usage;

    dragon_heap_usage(&heap, &usage);
    return usage.n_blocks;
}

static int n_entries(void)
{
    int n = 0;

    for (int i = 0; i < N_KEPT; i++)
        n += dragon_peek(&heap.header->kept_runs[i].run) != 0;
    return n;
}

static void write_entry(int i, uint32_t first, uint32_t n_chunks)
{
    dragon_poke(&heap.header->kept_runs[i].run, (uint64_t)first << 32 | n_chunks);
}

/* ---- without the mutex ---- */

Test(heap_runs, a_run_is_freed_and_taken_again_while_somebody_has_the_mutex)
{
    struct block run = alloc(CHUNK), long_run = alloc(20 * CHUNK), again;

    cr_assert_eq(dragon_heap_lock(&heap), 0); /* who wants it now hangs */
    release(run);
    release(long_run);
    again = alloc(CHUNK - 5);
    cr_assert_eq(again.offset, run.offset);
    cr_assert_neq(again.generation, run.generation);
    cr_assert_eq(size_of(again), CHUNK - 5);
    cr_assert_eq(alloc(20 * CHUNK).offset, long_run.offset);
    dragon_heap_unlock(&heap);
    cr_assert(dragon_heap_check(&heap));
}

Test(heap_runs, a_swept_run_serves_again_without_the_mutex)
{
    struct block run = alloc(3 * CHUNK);

    cr_assert_eq(dragon_heap_sweep(&heap, HOLDER, NULL, NULL), 1);
    cr_assert_eq(dragon_heap_lock(&heap), 0);
    cr_assert_eq(alloc(3 * CHUNK).offset, run.offset);
    dragon_heap_unlock(&heap);
}

Test(heap_runs, the_first_entries_are_used_again_and_again)
{
    struct block runs[4];

    for (int round = 0; round < 100; round++) {
        for (int i = 0; i < 4; i++)
            runs[i] = alloc(CHUNK);
        for (int i = 0; i < 4; i++)
            release(runs[i]);
    }
    cr_assert_eq(n_entries(), 4);
    cr_assert_eq(dragon_heap_n_committed(&heap), 4);
    for (int i = 0; i < 4; i++)
        cr_assert_neq(dragon_peek(&heap.header->kept_runs[i].run), 0);
}

Test(heap_runs, runs_of_another_length_stay_where_they_are)
{
    struct block three = alloc(3 * CHUNK), one = alloc(CHUNK);

    release(three);
    release(one);
    cr_assert_eq(alloc(CHUNK).offset, one.offset);
    cr_assert_neq(alloc(2 * CHUNK).offset, three.offset);
    cr_assert_eq(alloc(3 * CHUNK).offset, three.offset);
}

Test(heap_runs, the_one_that_has_to_make_room_is_given_back)
{
    struct block runs[N_KEPT + 1];

    for (int i = 0; i <= N_KEPT; i++)
        runs[i] = alloc(2 * CHUNK);
    for (int i = 0; i <= N_KEPT; i++)
        release(runs[i]);
    cr_assert_eq(n_entries(), N_KEPT);
    for (int i = 0; i <= N_KEPT; i++)
        cr_assert_eq(dragon_heap_is_run(&heap, chunk_of(runs[i])), i > 0);
    cr_assert(dragon_heap_check(&heap));
}

/* ---- entries may say anything ---- */

Test(heap_runs, a_run_that_is_noted_twice_is_handed_out_once)
{
    struct block run = alloc(CHUNK), again;

    release(run);
    write_entry(7, chunk_of(run), 1);
    again = alloc(CHUNK);
    cr_assert_eq(again.offset, run.offset);
    cr_assert_neq(alloc(CHUNK).offset, run.offset);
    cr_assert_eq(size_of(again), CHUNK);
    cr_assert_eq(n_entries(), 0, "the wrong one is forgotten");
    cr_assert(dragon_heap_check(&heap));
}

Test(heap_runs, an_entry_with_another_length_leads_to_no_run)
{
    struct block one = alloc(CHUNK), five = alloc(5 * CHUNK), runs[] = {one, five};

    release(one);
    release(five);
    dragon_heap_forget_kept_runs(&heap);
    for (int i = 0; i < 2; i++) {
        write_entry(i, chunk_of(runs[i]), 2);
        cr_assert_neq(alloc(2 * CHUNK).offset, runs[i].offset);
    }
    cr_assert_eq(n_entries(), 0);
    cr_assert(dragon_heap_check(&heap));
}

Test(heap_runs, an_entry_of_what_is_no_free_run_leads_nowhere)
{
    struct block live = alloc(2 * CHUNK), small = alloc(100), five = alloc(5 * CHUNK);
    struct block freed = alloc(2 * CHUNK);
    uint32_t firsts[] = {chunk_of(live),  chunk_of(live) + 1, chunk_of(small), chunk_of(five) + 1,
                         chunk_of(freed), N_CHUNKS - 1,       N_CHUNKS,        UINT32_MAX};

    release(freed);
    dragon_heap_trim(&heap, 0); /* now it is no run */
    for (size_t i = 0; i < sizeof firsts / sizeof *firsts; i++) {
        struct block mine;

        write_entry(0, firsts[i], 2);
        mine = alloc(2 * CHUNK);
        cr_assert_eq(size_of(mine), 2 * CHUNK);
        cr_assert_eq(n_entries(), 0);
        cr_assert(dragon_heap_check(&heap));
        release(mine);
        dragon_heap_trim(&heap, 0);
    }
    cr_assert_eq(n_blocks(), 3);
    cr_assert_eq(size_of(live), 2 * CHUNK);
    cr_assert_eq(size_of(small), 100);
    cr_assert_eq(size_of(five), 5 * CHUNK);
}

Test(heap_runs, an_entry_of_a_chunk_of_small_blocks_leads_to_none_of_them)
{
    struct block small = alloc(100);

    release(small); /* its word is free, and stays so: the chunk is not given back */
    cr_assert(dragon_heap_kind_is_small(dragon_peek(&heap.chunks[chunk_of(small)].kind)));
    write_entry(0, chunk_of(small), 1);
    cr_assert_neq(chunk_of(alloc(CHUNK)), chunk_of(small));
    cr_assert_eq(n_entries(), 0);
    cr_assert(dragon_heap_check(&heap));
}

/* As if its freer had been killed before it could note it. */
Test(heap_runs, a_free_run_without_an_entry_is_found_before_the_heap_is_full)
{
    struct block run = alloc(N_CHUNKS * CHUNK);

    release(run);
    dragon_heap_forget_kept_runs(&heap);
    alloc(CHUNK);
    cr_assert(dragon_heap_check(&heap));
}

/* ---- sizes ---- */

/* As if who took it had been killed before it could write the size. */
Test(heap_runs, a_run_whose_size_is_not_written_yet_is_nobodys_block_but_is_swept)
{
    struct block run = alloc(CHUNK);
    _Atomic uint64_t *word = dragon_heap_words(&heap, chunk_of(run));
    uint64_t offset = 0, size_bytes;
    uint32_t generation, holder;

    release(run);
    cr_assert(dragon_heap_take(&heap, chunk_of(run), DRAGON_HEAP_CHUNK_RUN, 0, 0, OTHER_HOLDER,
                               &generation));
    cr_assert_eq(dragon_heap_resolve(&heap, run.offset, generation, &size_bytes), -EBADMSG);
    cr_assert_eq(dragon_heap_find(&heap, run.offset, &generation, &size_bytes), -EBADMSG);
    cr_assert_not(
        dragon_heap_next(&heap, DRAGON_HOLDER_NONE, &offset, &generation, &size_bytes, &holder));
    cr_assert_eq(n_blocks(), 1);
    cr_assert_eq(dragon_heap_sweep(&heap, OTHER_HOLDER, NULL, NULL), 1);
    cr_assert_not(dragon_heap_word_is_live(dragon_peek(word)));
    cr_assert_eq(size_of(alloc(CHUNK - 1)), CHUNK - 1);
}

Test(heap_runs, the_words_that_say_a_size_fit_no_swap_of_a_small_block)
{
    struct block run = alloc(3 * CHUNK);
    _Atomic uint64_t *words = dragon_heap_words(&heap, chunk_of(run));

    for (uint32_t i = DRAGON_HEAP_RUN_SIZE; i <= DRAGON_HEAP_RUN_SIZED; i++)
        cr_assert_eq(dragon_heap_word_holder(dragon_peek(&words[i])), DRAGON_HEAP_HOLDER_CLOSED);
}

Test(heap_runs, a_run_that_becomes_small_blocks_and_a_run_again_tells_its_own_size)
{
    struct block run = alloc(CHUNK), small;

    for (int i = 0; i < 10; i++) {
        release(run);
        dragon_heap_trim(&heap, 0);
        small = alloc(1000);
        cr_assert_eq(chunk_of(small), chunk_of(run));
        cr_assert_eq(size_of(small), 1000);
        release(small);
        dragon_heap_trim(&heap, 0);
        run = alloc(CHUNK - (uint64_t)i);
        cr_assert_eq(chunk_of(small), chunk_of(run));
        cr_assert_eq(size_of(run), CHUNK - (uint64_t)i);
    }
}

Test(heap_runs, memory_that_was_brought_for_a_long_run_is_not_idle, .init = NULL, .fini = NULL)
{
    uint64_t size_bytes = 3 * DRAGON_HEAP_AT_ONCE_BYTES;
    struct dragon_heap_options options = {.chunk_bytes = CHUNK};
    uint64_t segment_bytes = dragon_heap_segment_bytes(size_bytes, CHUNK);

    cr_assert_eq(dragon_segment_create_anonymous(&segment, "test", segment_bytes), 0);
    cr_assert_eq(dragon_heap_init(&heap, &segment, &options), 0);
    cr_assert_eq(dragon_heap_lock(&heap), 0);
    cr_assert(dragon_heap_prepare_run_locked(&heap, size_bytes), "there is more to bring");
    dragon_heap_unlock(&heap);
    cr_assert_eq(dragon_heap_trim_idle(&heap, 0), 0);
    cr_assert_eq(dragon_heap_trim_idle(&heap, 0), DRAGON_HEAP_AT_ONCE_BYTES, "nobody came");
    close_heap();
}
