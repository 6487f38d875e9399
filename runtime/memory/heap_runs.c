/*
 * Freeing: the swap of the word (memory/heap.c), then a swap that puts {first chunk,
 * length} into an entry that is empty. Allocating: a swap that empties an entry,
 * then that of the word, in this order of steps: read the word; look whether the
 * chunk is a run, and of that length; swap. Had the chunk become something else
 * in between, its word would have another generation.
 *
 * A size does not fit into the word, so it is written after the swap, by who has
 * the block then, beside the word: on a line that comes to this core anyway. Who reads
 * it compares the generation beside it.
 *
 * If a process dies: between freeing a run and noting it, or between emptying an
 * entry and taking the run, the run is free without an entry, and the next who looks
 * for room gives it back. After the swap it is the dead one's, and is swept.
 * tests/model/heap_runs.py searches this, for entries that say anything at any time.
 */
#include "memory/heap_runs.h"

#include "base/check.h"
#include "memory/heap_chunks.h"
#include "memory/heap_lease.h"
#include "memory/heap_place.h"

#define LONG_RUN_BYTES (UINT64_C(1) << 20) /* as much as a core's own caches hold, or more */

static bool is_long(const struct dragon_heap *heap, uint32_t n_chunks)
{
    return (uint64_t)n_chunks << heap->chunk_shift > LONG_RUN_BYTES;
}

/* ---- entries ---- */

static uint64_t run_of(uint32_t first, uint32_t n_chunks)
{
    return (uint64_t)first << 32 | n_chunks;
}

static uint32_t first_of(uint64_t run)
{
    return (uint32_t)(run >> 32);
}

static uint32_t length_of(uint64_t run)
{
    return (uint32_t)run;
}

/* One that is a little too long serves as well. */
static bool suits(uint64_t run, uint32_t n)
{
    return length_of(run) >= n && length_of(run) <= n + n / 8;
}

/* By distance: orders may have passed 2^32. */
static bool is_newer(const struct dragon_heap_kept_run *runs, int a, int b)
{
    return (int32_t)(dragon_peek(&runs[a].order) - dragon_peek(&runs[b].order)) > 0;
}

/* The first that suits. A freed run is noted in the first empty entry, so the first
 * entries change most often, and what is there is warm. */
static int find_short(const struct dragon_heap_kept_run *runs, uint32_t n)
{
    for (int i = 0; i < DRAGON_HEAP_N_KEPT_RUNS; i++)
        if (suits(dragon_peek(&runs[i].run), n))
            return i;
    return -1;
}

/* The last one that this process freed, which is warm. But where another process has
 * just read a long run, its lines lie in the caches of another core, and to write
 * them costs twice as much as to write others: then the oldest, and the last one not
 * at all. (docs/heap.md, section 4) */
static int find_long(const struct dragon_heap_kept_run *runs, uint32_t n, uint32_t pid)
{
    int own = -1, newest = -1, oldest = -1;

    for (int i = 0; i < DRAGON_HEAP_N_KEPT_RUNS; i++) {
        if (!suits(dragon_peek(&runs[i].run), n))
            continue;
        if (dragon_peek(&runs[i].freed_by) == pid && (own < 0 || is_newer(runs, i, own)))
            own = i;
        if (newest < 0 || is_newer(runs, i, newest))
            newest = i;
        if (oldest < 0 || is_newer(runs, oldest, i))
            oldest = i;
    }
    if (own >= 0)
        return own;
    return oldest != newest ? oldest : -1;
}

/* Index of the entry that serves best, -1: none does. */
static int find_kept_run(struct dragon_heap *heap, uint32_t n)
{
    const struct dragon_heap_kept_run *runs = heap->header->kept_runs;

    return is_long(heap, n) ? find_long(runs, n, dragon_heap_pid(heap)) : find_short(runs, n);
}

static void note_who_freed(struct dragon_heap *heap, struct dragon_heap_kept_run *kept, uint32_t n)
{
    const struct dragon_heap_kept_run *runs = heap->header->kept_runs;
    int newest = 0;

    if (!is_long(heap, n))
        return; /* nobody will ask */
    for (int i = 1; i < DRAGON_HEAP_N_KEPT_RUNS; i++)
        if (is_newer(runs, i, newest))
            newest = i;
    dragon_poke(&kept->order, dragon_peek(&runs[newest].order) + 1);
    dragon_poke(&kept->freed_by, dragon_heap_pid(heap));
}

/* The run that has to make room, by its first chunk; NO_CHUNK: none has. */
static uint32_t note_run(struct dragon_heap *heap, uint32_t first)
{
    struct dragon_heap_header *header = heap->header;
    uint64_t run = run_of(first, dragon_peek(&heap->chunks[first].n_chunks)), before;
    struct dragon_heap_kept_run *kept;

    for (int i = 0; i < DRAGON_HEAP_N_KEPT_RUNS; i++) {
        kept = &header->kept_runs[i];
        before = dragon_peek(&kept->run);
        if (before != 0)
            continue;
        note_who_freed(heap, kept, length_of(run));
        if (dragon_replace(&kept->run, &before, run))
            return DRAGON_HEAP_NO_CHUNK;
    }
    kept = &header->kept_runs[dragon_fetch_add(&header->n_displaced, 1) % DRAGON_HEAP_N_KEPT_RUNS];
    note_who_freed(heap, kept, length_of(run));
    before = dragon_exchange(&kept->run, run);
    DRAGON_TEST_POINT("heap-run-displaced");
    return before != 0 ? first_of(before) : DRAGON_HEAP_NO_CHUNK;
}

/* The run to give back instead, as note_run. */
static uint32_t keep(struct dragon_heap *heap, uint32_t first)
{
    /* Where room is scarce it is taken from the front, so that it stays in one piece. */
    return heap->chunk_bytes == DRAGON_HEAP_SHORT_CHUNK_BYTES ? first : note_run(heap, first);
}

void dragon_heap_keep_run_locked(struct dragon_heap *heap, uint32_t first)
{
    uint32_t displaced = keep(heap, first);

    if (dragon_heap_is_run(heap, displaced))
        dragon_heap_close_chunk_locked(heap, displaced);
}

void dragon_heap_keep_run(struct dragon_heap *heap, uint32_t first)
{
    uint32_t displaced = keep(heap, first);

    if (displaced == DRAGON_HEAP_NO_CHUNK || dragon_heap_lock(heap) < 0)
        return; /* whoever looks for room finds it */
    if (dragon_heap_is_run(heap, displaced))
        dragon_heap_close_chunk_locked(heap, displaced);
    dragon_heap_unlock(heap);
}

void dragon_heap_forget_kept_runs(struct dragon_heap *heap)
{
    /* Not by a store, which might be seen after the words are read: then a run could be
     * freed and noted in between, and the entry be cleared all the same. */
    for (int i = 0; i < DRAGON_HEAP_N_KEPT_RUNS; i++)
        dragon_exchange(&heap->header->kept_runs[i].run, 0);
}

/* ---- allocation ---- */

static uint64_t chunks_for(const struct dragon_heap *heap, uint64_t size_bytes)
{
    return (dragon_heap_room(heap, size_bytes) + heap->chunk_bytes - 1) >> heap->chunk_shift;
}

/* Take a run that may be free, and may be no run. */
static bool take_run(struct dragon_heap *heap, uint64_t run, uint64_t size_bytes, uint32_t holder,
                     uint64_t *offset_out, uint32_t *generation_out)
{
    uint32_t first = first_of(run);
    uint64_t word;

    if (first >= dragon_heap_n_committed(heap) || !dragon_peek(&heap->chunks[first].n_words) ||
        !dragon_heap_read_free(dragon_heap_words(heap, first), &word))
        return false;
    /* After the word, as in dragon_heap_take. */
    if (!dragon_heap_is_run(heap, first) || dragon_heap_run_length(heap, first) != length_of(run) ||
        !dragon_heap_take_word(dragon_heap_words(heap, first), word, 0, holder, generation_out))
        return false;
    dragon_heap_write_run_size(heap, first, *generation_out, size_bytes);
    dragon_heap_note_taken(heap, first + length_of(run));
    *offset_out = dragon_heap_chunk_offset(heap, first);
    return true;
}

bool dragon_heap_take_kept_run(struct dragon_heap *heap, uint64_t size_bytes, uint32_t holder,
                               uint64_t *offset_out, uint32_t *generation_out)
{
    uint64_t n = chunks_for(heap, size_bytes), run;
    struct dragon_heap_kept_run *kept;
    int best;

    /* Each look that fails has forgotten an entry, or somebody else has had one. */
    for (int i = 0; i < DRAGON_HEAP_N_KEPT_RUNS && n <= heap->n_chunks; i++) {
        best = find_kept_run(heap, (uint32_t)n);
        if (best < 0)
            return false;
        kept = &heap->header->kept_runs[best];
        run = dragon_peek(&kept->run);
        if (!suits(run, (uint32_t)n) || !dragon_replace(&kept->run, &run, 0))
            continue;
        DRAGON_TEST_POINT("heap-run-found");
        if (take_run(heap, run, size_bytes, holder, offset_out, generation_out))
            return true;
    }
    return false;
}

int dragon_heap_alloc_run_locked(struct dragon_heap *heap, uint64_t size_bytes, uint32_t holder,
                                 uint64_t *offset_out, uint32_t *generation_out)
{
    uint64_t n = chunks_for(heap, size_bytes);
    uint32_t first;
    int r;

    if (n > heap->n_chunks)
        return DRAGON_POOL_FULL;
    if (dragon_heap_take_kept_run(heap, size_bytes, holder, offset_out, generation_out))
        return 0;
    do {
        r = dragon_heap_make_run_locked(heap, (uint32_t)n, &first);
        if (r != 0)
            return dragon_error_trace(r);
        /* Who has a stale entry of it may be faster. */
    } while (!take_run(heap, run_of(first, (uint32_t)n), size_bytes, holder, offset_out,
                       generation_out));
    return 0;
}

static bool is_at_most_blocks(const struct dragon_heap *heap)
{
    return heap->max_blocks != 0 && heap->header->n_blocks >= heap->max_blocks;
}

bool dragon_heap_prepare_run_locked(struct dragon_heap *heap, uint64_t size_bytes)
{
    uint64_t n = chunks_for(heap, size_bytes);

    if (n > heap->n_chunks || find_kept_run(heap, (uint32_t)n) >= 0 || is_at_most_blocks(heap))
        return false;
    return dragon_heap_prepare_chunks_locked(heap, (uint32_t)n);
}
