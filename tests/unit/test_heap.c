#include "memory/heap.h"
#include "memory/heap_lease.h"
#include "memory/heap_place.h"
#include "support/seed.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define CHUNK DRAGON_HEAP_CHUNK_BYTES
#define N_CHUNKS 64
#define LARGEST_SMALL_BLOCK DRAGON_HEAP_LARGEST_SMALL
#define HOLDER DRAGON_HOLDER_FIRST_SLOT
#define OTHER_HOLDER (DRAGON_HOLDER_FIRST_SLOT + 1)

static struct dragon_segment segment;
static struct dragon_heap heap;

static void open_heap_with(uint64_t size_bytes, const struct dragon_heap_options *options)
{
    uint64_t segment_bytes = dragon_heap_segment_bytes(size_bytes, options->chunk_bytes);

    cr_assert_eq(dragon_segment_create_anonymous(&segment, "test", segment_bytes), 0);
    cr_assert_eq(dragon_heap_init(&heap, &segment, options), 0);
}

static void open_heap_of(uint64_t size_bytes)
{
    open_heap_with(size_bytes, &(struct dragon_heap_options){.chunk_bytes = CHUNK});
}

static void open_heap(void)
{
    open_heap_of(N_CHUNKS * CHUNK);
}

static void close_heap(void)
{
    dragon_heap_close(&heap);
    dragon_segment_close(&segment);
}

TestSuite(heap, .timeout = 60, .init = open_heap, .fini = close_heap);

struct block {
    uint64_t offset;
    uint32_t generation;
    uint32_t holder;
    uint64_t size_bytes;
    unsigned char fill;
};

static struct block alloc(uint64_t size_bytes, uint32_t holder)
{
    struct block block = {.holder = holder, .size_bytes = size_bytes};

    cr_assert_eq(dragon_heap_alloc(&heap, size_bytes, holder, &block.offset, &block.generation), 0);
    return block;
}

static int try_alloc(uint64_t size_bytes)
{
    uint32_t generation;
    uint64_t offset;

    return dragon_heap_alloc(&heap, size_bytes, HOLDER, &offset, &generation);
}

static void release(const struct block *block)
{
    cr_assert_eq(dragon_heap_free(&heap, block->offset, block->generation), 0);
}

static void fill(struct block *block, unsigned char value)
{
    block->fill = value;
    memset(segment.base + block->offset, value, block->size_bytes);
}

static bool is_filled(const struct block *block)
{
    for (uint64_t i = 0; i < block->size_bytes; i++)
        if (segment.base[block->offset + i] != block->fill)
            return false;
    return true;
}

static struct dragon_heap_usage usage(void)
{
    struct dragon_heap_usage usage;

    dragon_heap_usage(&heap, &usage);
    return usage;
}

static uint64_t n_blocks(void)
{
    return usage().n_blocks;
}

static uint64_t used_bytes(void)
{
    return usage().used_bytes;
}

static bool is_sane(void)
{
    return dragon_heap_check(&heap);
}

/* What a block occupies, by the rule: multiples of 64 up to 512, then four
 * steps a doubling up to 32 KiB, then whole chunks. */
static uint64_t occupied_bytes(uint64_t size_bytes)
{
    uint64_t step = 64;

    if (size_bytes > LARGEST_SMALL_BLOCK)
        return (size_bytes + CHUNK - 1) / CHUNK * CHUNK;
    while (size_bytes > 8 * step)
        step *= 2;
    return (size_bytes + step - 1) / step * step;
}

/* ---- shape ---- */

Test(heap, segment_size_leaves_room_for_as_many_chunks_as_asked)
{
    for (uint64_t n = 1; n < 3000; n += 7) {
        struct dragon_segment s = {.size_bytes = dragon_heap_segment_bytes(n * CHUNK, CHUNK)};

        /* Header, a line of 64 bytes a chunk to whole pages, an eighth of a chunk for words,
         * and the chunks, to whole chunks. */
        cr_assert_geq(s.size_bytes, 4096 + n * 64 + n * CHUNK / 8 + n * CHUNK);
        cr_assert_lt(s.size_bytes, 4096 + n * 64 + n * CHUNK / 8 + n * CHUNK + 2 * CHUNK);
    }
}

Test(heap, an_empty_one_uses_nothing)
{
    cr_assert_eq(n_blocks(), 0);
    cr_assert_eq(used_bytes(), 0);
    cr_assert(is_sane());
}

Test(heap, every_block_is_aligned_and_usable_to_its_last_byte)
{
    /* Around the bounds of all size classes, and some runs. */
    for (uint64_t unit = 64; unit <= 4 * CHUNK; unit += unit <= 512 ? 64 : unit / 8) {
        for (int64_t d = -1; d <= 1; d++) {
            struct block blocks[6];

            for (int i = 0; i < 6; i++) {
                blocks[i] = alloc(unit + (uint64_t)d, HOLDER);
                cr_assert_eq(blocks[i].offset % 64, 0);
                fill(&blocks[i], (unsigned char)(i + 1));
            }
            cr_assert(is_sane(), "blocks of %lu reach into the heap's own data",
                      (unsigned long)unit);
            for (int i = 0; i < 6; i++) {
                cr_assert(is_filled(&blocks[i]), "blocks of %lu overlap", (unsigned long)unit);
                release(&blocks[i]);
            }
        }
    }
    cr_assert_eq(n_blocks(), 0);
}

Test(heap, a_chunk_full_of_blocks_of_each_class_overlaps_nothing)
{
    static struct block blocks[2000];

    for (uint64_t size = 64; size <= LARGEST_SMALL_BLOCK; size = occupied_bytes(size + 1)) {
        /* More than fit into one chunk, so its last block is among them. */
        uint64_t n = CHUNK / size + 2;

        for (uint64_t i = 0; i < n; i++) {
            blocks[i] = alloc(size, HOLDER);
            fill(&blocks[i], (unsigned char)i);
        }
        cr_assert(is_sane());
        for (uint64_t i = 0; i < n; i++) {
            cr_assert(is_filled(&blocks[i]));
            release(&blocks[i]);
        }
    }
    cr_assert(is_sane());
}

Test(heap, blocks_occupy_what_their_class_says)
{
    for (uint64_t size = 1; size <= 5 * CHUNK; size += 1 + size / 9) {
        struct block block = alloc(size, HOLDER);

        cr_assert_eq(used_bytes(), occupied_bytes(size), "%lu bytes", (unsigned long)size);
        release(&block);
    }
}

/* ---- names of blocks ---- */

Test(heap, resolve_tells_the_size_that_was_asked_for)
{
    for (uint64_t size = 1; size <= 5 * CHUNK; size += 1 + size / 5) {
        struct block block = alloc(size, HOLDER);
        uint64_t size_bytes = 0;

        cr_assert_eq(dragon_heap_resolve(&heap, block.offset, block.generation, &size_bytes), 0);
        cr_assert_eq(size_bytes, size);
        release(&block);
    }
}

Test(heap, find_tells_generation_and_size)
{
    uint64_t sizes[] = {100, 100000}, size_bytes;
    uint32_t generation;

    for (int i = 0; i < 2; i++) {
        struct block block = alloc(sizes[i], HOLDER);

        cr_assert_eq(dragon_heap_find(&heap, block.offset, &generation, &size_bytes), 0);
        cr_assert_eq(generation, block.generation);
        cr_assert_eq(size_bytes, sizes[i]);
        release(&block);
        cr_assert_eq(dragon_heap_find(&heap, block.offset, &generation, &size_bytes), -EBADMSG);
    }
}

static void refuse(uint64_t offset, uint32_t generation)
{
    uint64_t size_bytes;

    cr_assert_eq(dragon_heap_resolve(&heap, offset, generation, &size_bytes), -EBADMSG);
    cr_assert_eq(dragon_heap_free(&heap, offset, generation), -EBADMSG);
}

Test(heap, an_offset_that_is_no_block_is_refused)
{
    struct block small = alloc(256, HOLDER), run = alloc(2 * CHUNK, HOLDER);
    uint64_t offsets[] = {
        0,
        64,
        DRAGON_HEAP_HEADER_BYTES,
        segment.size_bytes - 1,
        segment.size_bytes,
        segment.size_bytes + CHUNK,
        UINT64_MAX,
        UINT64_MAX - CHUNK + 1,
        small.offset + 1,
        small.offset + 64,
        small.offset + 255,
        (uint64_t)(heap.words - segment.base), /* the word of the first block */
        run.offset + 1,
        run.offset + 64,
        run.offset + CHUNK, /* the second chunk of the run */
        run.offset + 2 * CHUNK,
    };

    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        refuse(offsets[i], small.generation);
        refuse(offsets[i], run.generation);
        refuse(offsets[i], 0);
    }
    cr_assert_eq(n_blocks(), 2);
    cr_assert(is_sane());
}

Test(heap, a_block_that_was_never_given_out_is_refused)
{
    struct block small = alloc(256, HOLDER);

    refuse(small.offset + 256, small.generation);
    refuse(small.offset + 256, 0);
}

Test(heap, the_generation_of_one_block_does_not_fit_its_neighbour)
{
    struct block a = alloc(256, HOLDER), b = alloc(256, HOLDER);

    refuse(a.offset, b.generation);
    refuse(b.offset, a.generation);
}

Test(heap, another_generation_is_refused)
{
    struct block small = alloc(100, HOLDER), run = alloc(CHUNK, HOLDER);

    refuse(small.offset, small.generation + 1);
    refuse(small.offset, 0);
    refuse(run.offset, run.generation - 1);
    refuse(run.offset, 0);
}

Test(heap, a_freed_block_is_refused_also_when_its_place_is_used_again)
{
    uint64_t sizes[] = {100, 100000};

    for (int i = 0; i < 2; i++) {
        struct block old = alloc(sizes[i], HOLDER), new;

        release(&old);
        refuse(old.offset, old.generation);
        new = alloc(sizes[i], HOLDER);
        cr_assert_eq(new.offset, old.offset);
        refuse(old.offset, old.generation);
        release(&new);
    }
    cr_assert(is_sane());
}

Test(heap, generation_zero_means_no_block_and_is_never_given_out)
{
    uint64_t sizes[] = {64, CHUNK};

    for (int i = 0; i < 2; i++) {
        struct block block = alloc(sizes[i], HOLDER);
        struct dragon_heap_place place;

        release(&block);
        cr_assert_eq(dragon_heap_locate(&heap, block.offset, &place), 0);
        dragon_poke(place.word, dragon_heap_word_of(DRAGON_HOLDER_NONE, 0, UINT32_MAX));
        cr_assert_eq(alloc(sizes[i], HOLDER).offset, block.offset);
        cr_assert_eq(dragon_heap_word_generation(dragon_peek(place.word)), 1);
    }
}

/* ---- reuse ---- */

Test(heap, the_block_freed_last_is_used_first)
{
    struct block a, b;

    for (int i = 0; i < 8; i++) /* from then on the thread leases a chunk */
        alloc(500, HOLDER);
    a = alloc(500, HOLDER);
    b = alloc(500, HOLDER);
    release(&a);
    release(&b);
    cr_assert_eq(alloc(500, HOLDER).offset, b.offset);
    cr_assert_eq(alloc(500, HOLDER).offset, a.offset);
}

Test(heap, a_freed_run_serves_again_also_when_it_is_a_little_too_long)
{
    struct block run = alloc(9 * CHUNK, HOLDER), barrier = alloc(CHUNK, HOLDER), again;

    (void)barrier;
    release(&run);
    again = alloc(8 * CHUNK, HOLDER); /* an eighth too long is allowed */
    cr_assert_eq(again.offset, run.offset);
    cr_assert_eq(used_bytes(), 10 * CHUNK);
    release(&again);
    cr_assert_neq(alloc(7 * CHUNK, HOLDER).offset, run.offset);
    cr_assert(is_sane());
}

Test(heap, a_freed_run_becomes_small_blocks_when_nothing_else_is_left)
{
    struct block run = alloc(N_CHUNKS * CHUNK, HOLDER);

    release(&run);
    cr_assert_eq(try_alloc(64), 0);
    cr_assert(is_sane());
}

Test(heap, short_runs_become_a_long_one_again)
{
    struct block runs[N_CHUNKS];

    for (int i = 0; i < N_CHUNKS; i++)
        runs[i] = alloc(CHUNK, HOLDER);
    for (int i = 0; i < N_CHUNKS; i++)
        release(&runs[i]);
    cr_assert_eq(try_alloc(N_CHUNKS * CHUNK), 0);
    cr_assert(is_sane());
}

Test(heap, chunks_of_small_blocks_become_a_long_run_again)
{
    static struct block blocks[N_CHUNKS * 2];

    for (int i = 0; i < N_CHUNKS * 2; i++)
        blocks[i] = alloc(LARGEST_SMALL_BLOCK, HOLDER);
    for (int i = 0; i < N_CHUNKS * 2; i++)
        release(&blocks[i]);
    cr_assert_eq(try_alloc(N_CHUNKS * CHUNK), 0);
    cr_assert(is_sane());
}

Test(heap, a_thread_keeps_few_empty_chunks_of_a_class)
{
    struct block blocks[40];
    uint32_t n_kept = 0;

    for (int i = 0; i < 40; i++) /* in 20 chunks */
        blocks[i] = alloc(30000, HOLDER);
    for (int i = 0; i < 40; i++)
        release(&blocks[i]);
    for (uint32_t i = 0; i < N_CHUNKS; i++)
        n_kept += dragon_peek(&heap.chunks[i].kind) != DRAGON_HEAP_CHUNK_FREE;
    /* The first four were taken from chunks that nobody leases. */
    cr_assert_leq(n_kept, 4 + 2);
}

Test(heap, a_thread_forgets_the_chunks_that_were_taken_from_it)
{
    uint32_t size_class = dragon_heap_class_of(&heap, 30000);

    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 40; i++)
            alloc(30000, HOLDER);
        dragon_heap_sweep(&heap, HOLDER, NULL, NULL);
        dragon_heap_trim(&heap, 0);
    }
    alloc(30000, HOLDER);
    cr_assert_leq(dragon_heap_lease_at_hand(&heap)->classes[size_class].n_all, N_CHUNKS);
}

Test(heap, of_many_freed_runs_the_last_few_are_kept_as_they_are)
{
    struct block runs[DRAGON_HEAP_N_KEPT_RUNS + 2];

    for (int i = 0; i < DRAGON_HEAP_N_KEPT_RUNS + 2; i++)
        runs[i] = alloc(2 * CHUNK, HOLDER);
    for (int i = 0; i < DRAGON_HEAP_N_KEPT_RUNS + 2; i++)
        release(&runs[i]);
    for (int i = 0; i < DRAGON_HEAP_N_KEPT_RUNS + 2; i++)
        cr_assert_eq(dragon_peek(&heap.chunks[2 * i].kind),
                     i < 2 ? DRAGON_HEAP_CHUNK_FREE : DRAGON_HEAP_CHUNK_RUN);
    cr_assert(is_sane());
}

/* ---- limits ---- */

Test(heap, full_is_an_outcome_and_passes_when_a_block_is_freed)
{
    struct block last = {0};
    int n = 0;

    while (try_alloc(CHUNK) == 0)
        n++;
    cr_assert_eq(n, N_CHUNKS);
    cr_assert_eq(try_alloc(1), DRAGON_POOL_FULL);
    cr_assert_eq(try_alloc(CHUNK), DRAGON_POOL_FULL);
    cr_assert_eq(used_bytes(), N_CHUNKS * CHUNK);
    last.offset = heap.data - segment.base;
    cr_assert_eq(dragon_heap_find(&heap, last.offset, &last.generation, &last.size_bytes), 0);
    release(&last);
    cr_assert_eq(try_alloc(CHUNK), 0);
    cr_assert(is_sane());
}

Test(heap, small_blocks_fill_it_to_the_last_chunk)
{
    int n = 0;

    while (try_alloc(LARGEST_SMALL_BLOCK) == 0)
        n++;
    cr_assert_eq(n, 2 * N_CHUNKS); /* 64 KiB hold two of 32 KiB */
    cr_assert_eq(try_alloc(LARGEST_SMALL_BLOCK), DRAGON_POOL_FULL);
    cr_assert_eq(try_alloc(64), DRAGON_POOL_FULL);
    cr_assert(is_sane());
}

Test(heap, a_block_larger_than_the_heap_is_full)
{
    cr_assert_eq(try_alloc(N_CHUNKS * CHUNK), 0);
    close_heap();
    open_heap();
    cr_assert_eq(try_alloc(N_CHUNKS * CHUNK + 1), DRAGON_POOL_FULL);
    cr_assert_eq(try_alloc(UINT64_C(1) << 48), DRAGON_POOL_FULL);
    cr_assert_eq(try_alloc((UINT64_C(1) << 48) + 1), DRAGON_POOL_FULL);
    cr_assert_eq(n_blocks(), 0);
    cr_assert(is_sane());
}

/* Rounded up to whole chunks these sizes would wrap around to none. */
Test(heap, a_block_of_nearly_all_numbers_is_full)
{
    struct block first = alloc(CHUNK, HOLDER);

    fill(&first, 0x5a);
    for (uint64_t size = UINT64_MAX - CHUNK; size >= UINT64_MAX - CHUNK; size += CHUNK / 4)
        cr_assert_eq(try_alloc(size), DRAGON_POOL_FULL, "%lx", (unsigned long)size);
    cr_assert_eq(try_alloc(UINT64_MAX), DRAGON_POOL_FULL);
    cr_assert_eq(n_blocks(), 1);
    release(&first);
    cr_assert(is_sane());
}

/* Let the system refuse memory: put a descriptor in the segment's place that
 * cannot be grown. */
static void refuse_memory(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    cr_assert_geq(dup2(fd, segment.fd), 0);
    close(fd);
}

Test(heap, memory_that_the_system_refuses_is_an_error_and_changes_nothing)
{
    struct block kept = alloc(64, HOLDER);

    fill(&kept, 3);
    refuse_memory();
    cr_assert_lt(try_alloc(2 * CHUNK), 0);
    cr_assert_lt(try_alloc(300), 0);
    cr_assert_eq(try_alloc(64), 0, "its chunk has memory");
    cr_assert_eq(n_blocks(), 2);
    cr_assert(is_filled(&kept));
    cr_assert(is_sane());
}

Test(heap, memory_of_freed_runs_serves_when_the_system_refuses_more)
{
    struct block runs[4];

    for (int i = 0; i < 4; i++)
        runs[i] = alloc(CHUNK, HOLDER);
    for (int i = 0; i < 4; i++)
        release(&runs[i]);
    refuse_memory();
    cr_assert_eq(try_alloc(200), 0);
    cr_assert_eq(try_alloc(3 * CHUNK), 0);
    cr_assert(is_sane());
}

Test(heap, commit_brings_memory_once_and_not_beyond_the_end)
{
    cr_assert_eq(dragon_heap_commit(&heap, 10), 0);
    cr_assert_eq(heap.header->n_backed, 10);
    cr_assert_eq(dragon_heap_commit(&heap, 5), 0);
    cr_assert_eq(heap.header->n_backed, 10);
    cr_assert_eq(dragon_heap_commit(&heap, UINT32_MAX), 0);
    cr_assert_eq(heap.header->n_backed, N_CHUNKS);
    cr_assert(is_sane());
}

/* ---- holders ---- */

Test(heap, sweep_frees_all_blocks_of_a_holder_and_no_other)
{
    uint64_t sizes[] = {10, 64, 300, 5000, LARGEST_SMALL_BLOCK, 70000, 3 * CHUNK};
    uint64_t n_sizes = sizeof sizes / sizeof *sizes;

    for (uint64_t i = 0; i < 6 * n_sizes; i++)
        alloc(sizes[i % n_sizes] / (i % 3 + 1) + 1, i % 2 ? HOLDER : OTHER_HOLDER);
    cr_assert_eq(dragon_heap_sweep(&heap, HOLDER, NULL, NULL), 3 * n_sizes);
    cr_assert_eq(n_blocks(), 3 * n_sizes);
    cr_assert_eq(dragon_heap_sweep(&heap, HOLDER, NULL, NULL), 0);
    cr_assert(is_sane());
    cr_assert_eq(dragon_heap_sweep(&heap, OTHER_HOLDER, NULL, NULL), 3 * n_sizes);
    cr_assert_eq(used_bytes(), 0);
    cr_assert(is_sane());
}

/* The holder before, or 0 if the block may not be held. */
static uint32_t hold(const struct block *block, uint32_t holder)
{
    uint32_t before = 0;
    int r = dragon_heap_hold(&heap, block->offset, block->generation, holder, &before);

    cr_assert(r == 0 || r == -EBADMSG);
    return before;
}

Test(heap, a_block_is_swept_with_its_new_holder)
{
    struct block small = alloc(64, HOLDER), run = alloc(CHUNK, HOLDER);

    hold(&small, OTHER_HOLDER);
    hold(&run, OTHER_HOLDER);
    cr_assert_eq(dragon_heap_sweep(&heap, HOLDER, NULL, NULL), 0);
    cr_assert_eq(dragon_heap_sweep(&heap, OTHER_HOLDER, NULL, NULL), 2);
}

Test(heap, holding_what_is_no_live_block_changes_nothing)
{
    struct block small = alloc(64, HOLDER), run = alloc(CHUNK, HOLDER);

    release(&small);
    release(&run);
    cr_assert_eq(hold(&small, HOLDER), 0);
    cr_assert_eq(hold(&run, HOLDER), 0);
    cr_assert_eq(hold(&(struct block){.offset = 0}, HOLDER), 0);
    cr_assert_eq(hold(&(struct block){.offset = UINT64_MAX}, HOLDER), 0);
    cr_assert(is_sane());
    cr_assert_eq(n_blocks(), 0);
}

/* ---- opening ---- */

Test(heap, another_view_of_it_sees_the_same_blocks)
{
    struct block block = alloc(1000, HOLDER);
    struct dragon_heap other;
    uint64_t size_bytes;

    cr_assert_eq(dragon_heap_open(&other, &segment), 0);
    cr_assert_eq(dragon_heap_resolve(&other, block.offset, block.generation, &size_bytes), 0);
    cr_assert_eq(size_bytes, 1000);
    cr_assert_eq(dragon_heap_free(&other, block.offset, block.generation), 0);
    cr_assert_eq(n_blocks(), 0);
    dragon_heap_close(&other);
}

static void refuse_header(void *field, size_t size_bytes)
{
    unsigned char kept[8];
    struct dragon_heap other;

    memcpy(kept, field, size_bytes);
    for (size_t i = 0; i < size_bytes; i++) {
        ((unsigned char *)field)[i] ^= 0x10;
        cr_assert_eq(dragon_heap_open(&other, &segment), -EBADMSG);
        memcpy(field, kept, size_bytes);
    }
    memset(field, 0, size_bytes);
    cr_assert_eq(dragon_heap_open(&other, &segment), -EBADMSG);
    memset(field, 0xff, size_bytes);
    cr_assert_eq(dragon_heap_open(&other, &segment), -EBADMSG);
    memcpy(field, kept, size_bytes);
    cr_assert_eq(dragon_heap_open(&other, &segment), 0);
    dragon_heap_close(&other);
}

Test(heap, a_header_that_was_written_over_is_refused)
{
    struct dragon_heap_header *header = heap.header;

    refuse_header(&header->magic, sizeof header->magic);
    refuse_header(&header->version, sizeof header->version);
    refuse_header(&header->n_chunks, sizeof header->n_chunks);
    refuse_header(&header->data_offset, sizeof header->data_offset);
    refuse_header(&header->chunk_bytes, sizeof header->chunk_bytes);
}

Test(heap, a_segment_without_one_is_refused)
{
    struct dragon_segment empty;
    struct dragon_heap other;

    cr_assert_eq(dragon_segment_create_anonymous(&empty, "test", 4096), 0);
    cr_assert_eq(dragon_heap_open(&other, &empty), -EBADMSG);
    dragon_segment_close(&empty);
}

/* Another process may write anything into a chunk's line at any time. */
Test(heap, a_chunk_line_that_was_written_over_names_no_place_outside)
{
    struct block small = alloc(64, HOLDER), run = alloc(3 * CHUNK, HOLDER);
    struct dragon_heap_chunk *of_small = &heap.chunks[0], *of_run = &heap.chunks[1];
    uint64_t size_bytes;

    of_small->kind = dragon_heap_kind_small(heap.n_classes);
    cr_assert_eq(dragon_heap_resolve(&heap, small.offset, small.generation, &size_bytes), -EBADMSG);
    of_small->kind = UINT32_MAX;
    cr_assert_eq(dragon_heap_resolve(&heap, small.offset, small.generation, &size_bytes), -EBADMSG);
    of_small->kind = dragon_heap_kind_small(0);
    dragon_heap_write_run_size(&heap, 1, run.generation, N_CHUNKS * CHUNK);
    cr_assert_eq(dragon_heap_resolve(&heap, run.offset, run.generation, &size_bytes), -EBADMSG);
    dragon_heap_write_run_size(&heap, 1, run.generation, 3 * CHUNK);
    of_run->kind = 77;
    cr_assert_eq(dragon_heap_resolve(&heap, run.offset, run.generation, &size_bytes), -EBADMSG);
    of_run->kind = DRAGON_HEAP_CHUNK_RUN;
    cr_assert_eq(dragon_heap_resolve(&heap, run.offset, run.generation, &size_bytes), 0);
}

#if DRAGON_CHECK_LEVEL < 3 /* at that level a heap that is not whole ends the process */

/* What was written over is given up, but every call comes back. */
static void use_what_is_left(void)
{
    uint64_t offset = 0, size_bytes;
    uint32_t generation, holder;

    for (uint64_t size = 64; size <= 4 * CHUNK; size *= 4)
        for (int i = 0; i < 12; i++)
            (void)try_alloc(size);
    while (
        dragon_heap_next(&heap, DRAGON_HOLDER_NONE, &offset, &generation, &size_bytes, &holder)) {
        (void)dragon_heap_free(&heap, offset, generation);
        offset++;
    }
    dragon_heap_sweep(&heap, HOLDER, NULL, NULL);
    dragon_heap_trim(&heap, 0);
    (void)try_alloc(N_CHUNKS * CHUNK);
    (void)usage();
    (void)is_sane();
}

static void write_over(int what, const struct block *run, uint32_t value)
{
    struct dragon_heap_header *header = heap.header;
    uint32_t listed = header->partial[0];
    uint32_t of_run = (uint32_t)((run->offset - heap.data_offset) / CHUNK);

    switch (what) {
    case 0:
        header->partial[0] = value;
        break;
    case 1:
        heap.chunks[listed].next = value;
        heap.chunks[listed].previous = value;
        break;
    case 2:
        dragon_poke(&header->kept_runs[0].run, (uint64_t)value << 32 | 1);
        break;
    case 3:
        dragon_poke(&heap.chunks[of_run].n_chunks, value);
        break;
    case 4:
        header->n_used = value;
        break;
    case 5:
        header->scan_from = value;
        break;
    default:
        dragon_poke(&header->n_committed, value);
    }
}

Test(heap, numbers_that_were_written_over_lead_nobody_out_of_it)
{
    uint32_t values[] = {0, 1, N_CHUNKS, UINT32_C(1) << 30, UINT32_MAX - 1};

    for (int what = 0; what <= 6; what++) {
        for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
            struct block run;

            close_heap();
            open_heap();
            alloc(64, HOLDER);
            run = alloc(3 * CHUNK, HOLDER);
            write_over(what, &run, values[i]);
            use_what_is_left();
        }
    }
}

#endif

/* ---- any sequence ---- */

#define N_MODEL_BLOCKS 300
#define N_STEPS 20000

struct model {
    struct block blocks[N_MODEL_BLOCKS];
    int n;
    uint64_t used_bytes;
};

static void model_remove(struct model *model, int i)
{
    model->used_bytes -= occupied_bytes(model->blocks[i].size_bytes);
    model->blocks[i] = model->blocks[--model->n];
}

static void step_alloc(struct model *model, struct seed *seed)
{
    /* Up to 7 chunks: an eighth too long is not a chunk yet, so that a run
     * which serves again has exactly the length that the model expects. */
    uint64_t largest[] = {200, 3000, LARGEST_SMALL_BLOCK, 7 * CHUNK};
    struct block block = {
        .size_bytes = 1 + seed_below(seed, largest[seed_below(seed, 4)]),
        .holder = HOLDER + (uint32_t)seed_below(seed, 3),
    };
    int r =
        dragon_heap_alloc(&heap, block.size_bytes, block.holder, &block.offset, &block.generation);

    if (r == DRAGON_POOL_FULL)
        return;
    cr_assert_eq(r, 0);
    fill(&block, (unsigned char)seed_next(seed));
    model->blocks[model->n++] = block;
    model->used_bytes += occupied_bytes(block.size_bytes);
}

static void step_free(struct model *model, struct seed *seed)
{
    int i = (int)seed_below(seed, (uint64_t)model->n);

    cr_assert(is_filled(&model->blocks[i]));
    release(&model->blocks[i]);
    refuse(model->blocks[i].offset, model->blocks[i].generation);
    model_remove(model, i);
}

static void step_hold(struct model *model, struct seed *seed)
{
    struct block *block = &model->blocks[seed_below(seed, (uint64_t)model->n)];
    uint32_t before = block->holder;

    block->holder = HOLDER + (uint32_t)seed_below(seed, 3);
    cr_assert_eq(hold(block, block->holder), before);
}

static void step_sweep(struct model *model, struct seed *seed)
{
    uint32_t holder = HOLDER + (uint32_t)seed_below(seed, 3);
    uint64_t n_expected = 0;

    for (int i = model->n; i-- > 0;) {
        if (model->blocks[i].holder != holder)
            continue;
        model_remove(model, i);
        n_expected++;
    }
    cr_assert_eq(dragon_heap_sweep(&heap, holder, NULL, NULL), n_expected);
}

static void step(struct model *model, struct seed *seed)
{
    uint64_t what = seed_below(seed, 1000);

    if (what < 2)
        step_sweep(model, seed);
    else if (model->n < N_MODEL_BLOCKS && (model->n == 0 || what < 500))
        step_alloc(model, seed);
    else if (what < 950)
        step_free(model, seed);
    else
        step_hold(model, seed);
}

Test(heap, says_what_a_simple_model_says_after_any_sequence)
{
    struct seed seed = seed_new("heap");
    static struct model model;

    for (int i = 0; i < N_STEPS; i++) {
        step(&model, &seed);
        cr_assert_eq(n_blocks(), (uint64_t)model.n);
        cr_assert_eq(used_bytes(), model.used_bytes);
        if (i % 100 == 0)
            cr_assert(is_sane(), "step %d", i);
    }
    while (model.n > 0)
        step_free(&model, &seed);
    cr_assert_eq(used_bytes(), 0);
    cr_assert(is_sane());
}

/* ---- options ---- */

#define SHORT DRAGON_HEAP_SHORT_CHUNK_BYTES

static void open_short_heap(uint32_t n_chunks)
{
    close_heap();
    open_heap_with(n_chunks * SHORT, &(struct dragon_heap_options){.chunk_bytes = SHORT});
}

Test(heap, of_32_kib_has_short_chunks_and_holds_blocks_of_eight_sizes)
{
    struct block blocks[8];

    cr_assert_eq(dragon_heap_chunk_bytes(32768), SHORT);
    cr_assert_eq(dragon_heap_chunk_bytes(DRAGON_HEAP_SHORT_BELOW_BYTES - 1), SHORT);
    cr_assert_eq(dragon_heap_chunk_bytes(DRAGON_HEAP_SHORT_BELOW_BYTES), CHUNK);
    open_short_heap(8);
    for (int i = 0; i < 8; i++) {
        blocks[i] = alloc((uint64_t)i * 128 + 1, HOLDER);
        fill(&blocks[i], (unsigned char)i);
    }
    cr_assert_eq(try_alloc(SHORT), DRAGON_POOL_FULL);
    for (int i = 0; i < 8; i++) {
        cr_assert(is_filled(&blocks[i]));
        release(&blocks[i]);
    }
    cr_assert_eq(try_alloc(8 * SHORT), 0, "chunks that classes keep are given up for it");
    cr_assert(is_sane());
}

Test(heap, with_short_chunks_gives_runs_of_4_kib_from_2049_bytes_on)
{
    open_short_heap(8);
    alloc(2048, HOLDER);
    cr_assert_eq(used_bytes(), 2048);
    alloc(2049, HOLDER);
    cr_assert_eq(used_bytes(), 2048 + SHORT);
    alloc(6 * SHORT, HOLDER);
    cr_assert_eq(used_bytes(), 2048 + 7 * SHORT);
    cr_assert_eq(try_alloc(2048), 0);
    cr_assert_eq(try_alloc(2049), DRAGON_POOL_FULL);
    cr_assert(is_sane());
}

Test(heap, with_short_chunks_is_opened_as_it_was_made)
{
    struct block block;
    struct dragon_heap other;
    uint64_t size_bytes;

    open_short_heap(8);
    alloc(1, HOLDER);
    block = alloc(5000, HOLDER);
    cr_assert_eq(dragon_heap_open(&other, &segment), 0);
    cr_assert_eq(other.chunk_bytes, SHORT);
    cr_assert_eq(other.n_chunks, 8);
    cr_assert_eq(dragon_heap_resolve(&other, block.offset, block.generation, &size_bytes), 0);
    cr_assert_eq(size_bytes, 5000);
    dragon_heap_close(&other);
}

static void open_heap_of_min(uint64_t min_block_bytes)
{
    close_heap();
    open_heap_with(N_CHUNKS * CHUNK, &(struct dragon_heap_options){
                                         .chunk_bytes = CHUNK, .min_block_bytes = min_block_bytes});
}

Test(heap, no_block_occupies_less_than_the_least)
{
    struct block block;
    uint64_t size_bytes;

    open_heap_of_min(1000);
    block = alloc(1, HOLDER);
    cr_assert_eq(used_bytes(), 1024);
    cr_assert_eq(dragon_heap_resolve(&heap, block.offset, block.generation, &size_bytes), 0);
    cr_assert_eq(size_bytes, 1);
    alloc(1500, HOLDER);
    cr_assert_eq(used_bytes(), 1024 + 1536);
    open_heap_of_min(LARGEST_SMALL_BLOCK + 1);
    alloc(1, HOLDER);
    cr_assert_eq(used_bytes(), CHUNK);
    cr_assert(is_sane());
}

Test(heap, a_least_block_that_is_larger_than_the_heap_is_refused)
{
    struct dragon_heap_options options = {.chunk_bytes = CHUNK,
                                          .min_block_bytes = N_CHUNKS * CHUNK + 1};
    struct dragon_heap other;

    cr_assert_eq(dragon_heap_init(&other, &segment, &options), -EINVAL);
    heap.header->min_block_bytes = UINT64_MAX;
    cr_assert_eq(dragon_heap_open(&other, &segment), -EBADMSG);
}

Test(heap, more_blocks_than_allowed_are_full_until_one_is_freed)
{
    struct block first;

    close_heap();
    open_heap_with(N_CHUNKS * CHUNK,
                   &(struct dragon_heap_options){.chunk_bytes = CHUNK, .max_blocks = 3});
    first = alloc(1, HOLDER);
    alloc(CHUNK, HOLDER);
    alloc(1, HOLDER);
    cr_assert_eq(try_alloc(1), DRAGON_POOL_FULL);
    cr_assert_eq(try_alloc(CHUNK), DRAGON_POOL_FULL);
    release(&first);
    cr_assert_eq(try_alloc(CHUNK), 0);
    cr_assert_eq(try_alloc(1), DRAGON_POOL_FULL);
    cr_assert_eq(n_blocks(), 3);
    cr_assert(is_sane());
}

static void open_counted_heap(uint64_t max_blocks)
{
    close_heap();
    open_heap_with(N_CHUNKS * CHUNK,
                   &(struct dragon_heap_options){.chunk_bytes = CHUNK, .max_blocks = max_blocks});
}

Test(heap, a_counted_one_uses_a_block_of_a_full_chunk_again_before_it_grows)
{
    struct block blocks[4];

    open_counted_heap(10);
    for (int i = 0; i < 4; i++) /* two fill a chunk */
        blocks[i] = alloc(30000, HOLDER);
    release(&blocks[0]);
    cr_assert_eq(alloc(30000, HOLDER).offset, blocks[0].offset);
}

/* Keeps the last block; by then the others are free, and one may come instead. */
static bool alloc_in_the_last_look(void *context, uint64_t offset, uint32_t generation)
{
    int *n_looks = context;

    (void)offset;
    (void)generation;
    if (++*n_looks < 3)
        return false;
    cr_assert_eq(try_alloc(100), 0);
    return true;
}

Test(heap, the_count_is_exact_in_the_middle_of_a_sweep)
{
    int n_looks = 0;

    open_counted_heap(3);
    for (int i = 0; i < 3; i++)
        alloc(100, OTHER_HOLDER);
    cr_assert_eq(dragon_heap_sweep(&heap, OTHER_HOLDER, alloc_in_the_last_look, &n_looks), 2);
    cr_assert_eq(n_blocks(), 2);
    cr_assert_eq(usage().most_blocks, 3);
    cr_assert(is_sane());
}
