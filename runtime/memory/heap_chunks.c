/*
 * A chunk changes its kind only here, with the mutex held and all its words
 * closed: "nobody holds it" becomes "closed" word by word, each by compare and
 * swap, and if one cannot be had the others are opened again. While a word is
 * closed nobody can allocate the block; stale handles of it were refused before
 * and stay so. When a chunk is opened for a class, its words start above every
 * generation that any of its words ever had, so that a thread which has read a
 * word, and lost its core, finds it changed. (docs/heap.md, section 2.)
 *
 * Numbers of chunks that lie in shared memory are looked at before they are used:
 * a process that writes where it should not may cost memory, but leads nobody out
 * of the segment.
 *
 * If the holder of the mutex dies: words that are closed in a chunk of small blocks
 * are opened again; a run that was half made or half given back is free.
 */
#include "memory/heap_chunks.h"

#include "base/check.h"
#include "memory/heap_lease.h"
#include "memory/heap_place.h"
#include "memory/heap_runs.h"
#include "os/os.h"

#include <string.h>

#define WORDS_PER_PAGE 512u
#define CHUNK_GENERATIONS UINT32_C(0x9e3779b9) /* 2^32 over the golden ratio: far apart */
#define RECLAIM_AT_LEAST_BYTES (UINT64_C(16) << 20)

/* ---- words ---- */

static bool word_is_free(uint64_t word)
{
    return dragon_heap_word_holder(word) == DRAGON_HOLDER_NONE;
}

static bool word_is_closed(uint64_t word)
{
    return dragon_heap_word_holder(word) == DRAGON_HEAP_HOLDER_CLOSED;
}

static bool has_free_block(struct dragon_heap *heap, uint32_t chunk)
{
    uint32_t n = dragon_heap_n_readable(heap, chunk, dragon_peek(&heap->chunks[chunk].kind));

    for (uint32_t i = 0; i < n; i++)
        if (word_is_free(dragon_peek(&dragon_heap_words(heap, chunk)[i])))
            return true;
    return false;
}

static bool is_empty(struct dragon_heap *heap, uint32_t chunk)
{
    uint32_t n = dragon_heap_n_readable(heap, chunk, dragon_peek(&heap->chunks[chunk].kind));

    for (uint32_t i = 0; i < n; i++)
        if (!word_is_free(dragon_peek(&dragon_heap_words(heap, chunk)[i])))
            return false;
    return true;
}

static void reopen_words_locked(struct dragon_heap *heap, uint32_t chunk, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        _Atomic uint64_t *at = &dragon_heap_words(heap, chunk)[i];
        uint64_t word = dragon_peek(at);

        /* A closed word is ours alone. */
        if (word_is_closed(word))
            dragon_publish(
                at, dragon_heap_word_of(DRAGON_HOLDER_NONE, 0, dragon_heap_word_generation(word)));
    }
}

/* True: all words are closed, and generation_out is the greatest of them. */
static bool close_words_locked(struct dragon_heap *heap, uint32_t chunk, uint32_t n,
                               uint32_t *generation_out)
{
    /* Not last_generation: a closer that died may have noted it, and the words, opened
     * again, are not greater than that. */
    uint32_t first = heap->chunks[chunk].opened_generation, greatest = first;

    for (uint32_t i = 0; i < n; i++) {
        _Atomic uint64_t *at = &dragon_heap_words(heap, chunk)[i];
        uint64_t word = dragon_peek(at);
        uint32_t generation = dragon_heap_word_generation(word);

        if (!word_is_free(word) ||
            !dragon_replace(at, &word,
                            dragon_heap_word_of(DRAGON_HEAP_HOLDER_CLOSED, 0, generation))) {
            reopen_words_locked(heap, chunk, i);
            return false;
        }
        DRAGON_TEST_POINT("heap-closing");
        /* By distance: generations may have passed 2^32. */
        if (generation - first > greatest - first)
            greatest = generation;
    }
    *generation_out = greatest;
    return true;
}

/* ---- numbers that lie in shared memory ---- */

static uint32_t n_used(struct dragon_heap *heap)
{
    uint32_t n = dragon_heap_n_committed(heap), end = dragon_read_once(&heap->header->n_used);

    return end < n ? end : n;
}

uint32_t dragon_heap_run_length(struct dragon_heap *heap, uint32_t first)
{
    uint32_t n = dragon_peek(&heap->chunks[first].n_chunks);

    return n > 0 && n <= dragon_heap_n_committed(heap) - first ? n : 1;
}

bool dragon_heap_is_run(struct dragon_heap *heap, uint32_t chunk)
{
    return chunk < dragon_heap_n_committed(heap) &&
           dragon_observe(&heap->chunks[chunk].kind) == DRAGON_HEAP_CHUNK_RUN;
}

static bool is_listed(struct dragon_heap *heap, uint32_t chunk, uint32_t size_class)
{
    return chunk < dragon_heap_n_committed(heap) && dragon_peek(&heap->chunks[chunk].is_listed) &&
           dragon_peek(&heap->chunks[chunk].kind) == dragon_heap_kind_small(size_class);
}

/* ---- memory ---- */

static int commit(struct dragon_heap *heap, const void *from, uint64_t size_bytes)
{
    uint64_t offset = (uint64_t)((const unsigned char *)from - heap->segment->base);

    return dragon_error_trace(dragon_segment_commit(heap->segment, offset, size_bytes));
}

/* Memory behind the lines of the first n chunks. */
static int commit_lines_locked(struct dragon_heap *heap, uint32_t n)
{
    uint32_t n_now = dragon_peek(&heap->header->n_committed);
    int r;

    if (n <= n_now)
        return 0;
    r = commit(heap, &heap->chunks[n_now], (n - n_now) * sizeof heap->chunks[0]);
    if (r < 0)
        return dragon_error_trace(r);
    dragon_publish(&heap->header->n_committed, n); /* pairs with dragon_heap_n_committed */
    return 0;
}

/* n chunks more have memory. Whoever gives memory back sleeps until there is
 * enough of it to be worth a look. */
static void note_growth(struct dragon_heap *heap, uint32_t n)
{
    uint64_t before = dragon_fetch_add(&heap->header->n_backed, n);
    uint64_t mark = DRAGON_POOL_HIGH_WATER_BYTES >> heap->chunk_shift;

    DRAGON_TEST_POINT("heap-grown");
    if (before <= mark && before + n > mark)
        dragon_eventcount_wake_all_after_change(&heap->header->grown);
}

/* Memory behind chunks that have lines. */
static int commit_chunks_locked(struct dragon_heap *heap, uint32_t first, uint32_t n)
{
    uint32_t i = first, end;
    int r;

    while (i < first + n) {
        for (end = i; end < first + n && !heap->chunks[end].has_memory; end++)
            ;
        if (end > i) {
            r = commit(heap, heap->data + ((uint64_t)i << heap->chunk_shift),
                       (uint64_t)(end - i) << heap->chunk_shift);
            if (r < 0)
                return dragon_error_trace(r);
            note_growth(heap, end - i);
        }
        for (; i < end; i++)
            heap->chunks[i].has_memory = 1;
        i += i < first + n;
    }
    return 0;
}

int dragon_heap_commit_locked(struct dragon_heap *heap, uint32_t n_chunks)
{
    int r = commit_lines_locked(heap, n_chunks);

    if (r == 0)
        r = commit_chunks_locked(heap, 0, n_chunks);
    return dragon_error_trace(r);
}

static int commit_words_locked(struct dragon_heap *heap, uint32_t chunk, uint32_t n)
{
    uint32_t n_now = dragon_peek(&heap->chunks[chunk].n_words);
    uint32_t n_most = (uint32_t)(heap->chunk_bytes / DRAGON_HEAP_SMALLEST_BLOCK);
    int r;

    if (n <= n_now)
        return 0;
    n = (n + WORDS_PER_PAGE - 1) / WORDS_PER_PAGE * WORDS_PER_PAGE; /* what it costs anyway */
    n = n < n_most ? n : n_most;
    r = commit(heap, (const void *)&dragon_heap_words(heap, chunk)[n_now],
               (n - n_now) * sizeof(uint64_t));
    if (r < 0)
        return dragon_error_trace(r);
    dragon_publish(&heap->chunks[chunk].n_words, n);
    return 0;
}

/* ---- from free to something and back ---- */

/* Words of a free chunk for its next kind; the caller publishes that. Blocks begin
 * with generations of their own, as do chunks: a handle with a wrong offset should
 * not lead to another block. */
static int open_words_locked(struct dragon_heap *heap, uint32_t chunk, uint32_t n)
{
    uint32_t last, i;
    int r;

    if (dragon_peek(&heap->chunks[chunk].n_words) == 0)
        heap->chunks[chunk].last_generation = chunk * CHUNK_GENERATIONS;
    last = heap->chunks[chunk].last_generation;
    r = commit_words_locked(heap, chunk, n);
    if (r < 0)
        return dragon_error_trace(r);
    for (i = 0; i < n; i++) {
        dragon_publish(&dragon_heap_words(heap, chunk)[i],
                       dragon_heap_word_of(DRAGON_HOLDER_NONE, 0, last + 1 + i));
        DRAGON_TEST_POINT("heap-opening");
    }
    heap->chunks[chunk].opened_generation = last;
    return 0;
}

static void publish_kind(struct dragon_heap *heap, uint32_t chunk, uint32_t kind)
{
    dragon_publish(&heap->chunks[chunk].kind, kind); /* pairs with dragon_heap_locate */
}

static void free_chunks_locked(struct dragon_heap *heap, uint32_t first, uint32_t n)
{
    struct dragon_heap_header *header = heap->header;
    uint32_t end;

    /* From the end: a run whose first chunk is still there is still whole. */
    for (uint32_t i = first + n; i-- > first;) {
        publish_kind(heap, i, DRAGON_HEAP_CHUNK_FREE);
        DRAGON_TEST_POINT("heap-freeing-chunks");
    }
    if (first < header->scan_from)
        header->scan_from = first;
    end = n_used(heap);
    while (end > 0 && dragon_peek(&heap->chunks[end - 1].kind) == DRAGON_HEAP_CHUNK_FREE)
        end--;
    header->n_used = end;
}

/* ---- chunks that nobody leases and that have free blocks, a list for each class ---- */

static uint32_t class_of_chunk(struct dragon_heap *heap, uint32_t chunk)
{
    return dragon_heap_kind_class(dragon_peek(&heap->chunks[chunk].kind));
}

static uint32_t first_listed(struct dragon_heap *heap, uint32_t size_class)
{
    uint32_t first = dragon_read_once(&heap->header->partial[size_class]);

    return is_listed(heap, first, size_class) ? first : DRAGON_HEAP_NO_CHUNK;
}

static void link_locked(struct dragon_heap *heap, uint32_t index)
{
    struct dragon_heap_chunk *chunk = &heap->chunks[index];
    uint32_t size_class = class_of_chunk(heap, index);
    uint32_t next = first_listed(heap, size_class);

    dragon_poke(&chunk->scan_from, 0);
    chunk->previous = DRAGON_HEAP_NO_CHUNK;
    chunk->next = next;
    if (next != DRAGON_HEAP_NO_CHUNK)
        heap->chunks[next].previous = index;
    heap->header->partial[size_class] = index;
    dragon_publish(&chunk->is_listed, 1);
}

static void unlink_locked(struct dragon_heap *heap, uint32_t index)
{
    struct dragon_heap_chunk *chunk = &heap->chunks[index];
    uint32_t size_class = class_of_chunk(heap, index);
    uint32_t previous = dragon_read_once(&chunk->previous), next = dragon_read_once(&chunk->next);

    if (!dragon_peek(&chunk->is_listed))
        return;
    if (is_listed(heap, previous, size_class))
        heap->chunks[previous].next = next;
    else
        heap->header->partial[size_class] = next;
    if (is_listed(heap, next, size_class))
        heap->chunks[next].previous = previous;
    dragon_publish(&chunk->is_listed, 0);
}

void dragon_heap_offer_chunk_locked(struct dragon_heap *heap, uint32_t index)
{
    struct dragon_heap_chunk *chunk = &heap->chunks[index];

    if (!dragon_heap_kind_is_small(dragon_peek(&chunk->kind)) || dragon_peek(&chunk->lease) ||
        dragon_peek(&chunk->is_listed))
        return;
    /* Pairs with the swap of who frees a block, then looks for a lease and the list: either
     * it sees that there is none now, or its block is seen here. */
    dragon_fence();
    if (has_free_block(heap, index))
        link_locked(heap, index);
}

void dragon_heap_freed_locked(struct dragon_heap *heap, uint32_t index, uint32_t block)
{
    struct dragon_heap_chunk *chunk = &heap->chunks[index];

    if (block < dragon_peek(&chunk->scan_from))
        dragon_poke(&chunk->scan_from, block); /* the warm one first */
    dragon_heap_offer_chunk_locked(heap, index);
}

/* All words of the chunk, or of the run that begins with it, are closed. */
static void give_back_locked(struct dragon_heap *heap, uint32_t index, uint32_t generation)
{
    struct dragon_heap_chunk *chunk = &heap->chunks[index];
    uint32_t n_chunks = dragon_heap_is_run(heap, index) ? dragon_heap_run_length(heap, index) : 1;

    chunk->last_generation = generation;
    DRAGON_TEST_POINT("heap-closed");
    dragon_poke(&chunk->lease, 0);
    free_chunks_locked(heap, index, n_chunks);
}

bool dragon_heap_close_chunk_locked(struct dragon_heap *heap, uint32_t index)
{
    struct dragon_heap_chunk *chunk = &heap->chunks[index];
    uint32_t n = dragon_heap_n_readable(heap, index, dragon_peek(&chunk->kind));
    uint32_t generation;

    if (n == 0 || !is_empty(heap, index))
        return false;
    if (!close_words_locked(heap, index, n, &generation)) {
        dragon_fetch_add(&chunk->n_remote, 1); /* guesses were lost: look again */
        return false;
    }
    if (!dragon_heap_is_run(heap, index))
        unlink_locked(heap, index);
    give_back_locked(heap, index, generation);
    return true;
}

/* ---- room ---- */

static void forget_lease_of_dead_locked(struct dragon_heap_chunk *chunk, uint32_t *alive_io)
{
    uint32_t pid = dragon_peek(&chunk->lease);

    if (pid == 0 || pid == *alive_io)
        return;
    if (dragon_os_is_alive((int32_t)pid))
        *alive_io = pid;
    else
        dragon_poke(&chunk->lease, 0);
}

void dragon_heap_reclaim_locked(struct dragon_heap *heap)
{
    uint32_t alive = dragon_heap_pid(heap); /* the last one found alive: many have the same */

    dragon_heap_forget_kept_runs(heap);
    for (uint32_t i = n_used(heap); i-- > 0;) {
        uint32_t kind = dragon_peek(&heap->chunks[i].kind);

        if (kind == DRAGON_HEAP_CHUNK_FREE || kind == DRAGON_HEAP_CHUNK_RUN_REST ||
            dragon_heap_close_chunk_locked(heap, i))
            continue;
        forget_lease_of_dead_locked(&heap->chunks[i], &alive);
        dragon_heap_offer_chunk_locked(heap, i);
    }
}

/* First fit among the chunks that have been used before. False: the heap would
 * have to be larger than it may be. */
static bool find_free_chunks(struct dragon_heap *heap, uint32_t n, uint32_t *first_out)
{
    struct dragon_heap_header *header = heap->header;
    uint32_t n_found = 0, end = n_used(heap);
    uint32_t i = dragon_read_once(&header->scan_from);

    if (i > end)
        i = end;
    for (; i < end; i++) {
        if (dragon_peek(&heap->chunks[i].kind) != DRAGON_HEAP_CHUNK_FREE) {
            /* Nothing before the first gap is free: start there next time. */
            if (n_found == 0 && i == header->scan_from)
                header->scan_from++;
            n_found = 0;
        } else if (++n_found == n) {
            *first_out = i + 1 - n;
            return true;
        }
    }
    *first_out = i - n_found;
    return (uint64_t)*first_out + n <= heap->n_chunks &&
           (uint64_t)*first_out + n <= dragon_observe(&header->n_allowed);
}

/* Growing is dear, and what was kept for speed may do instead. To look for it
 * costs a walk over all chunks, so only after the heap has grown by a quarter. */
static bool should_reclaim_first(struct dragon_heap *heap, uint32_t end)
{
    return end > dragon_peek(&heap->header->n_committed) && end > heap->header->reclaim_at;
}

static void set_reclaim_mark(struct dragon_heap *heap, uint32_t end)
{
    uint32_t least = (uint32_t)(RECLAIM_AT_LEAST_BYTES / heap->chunk_bytes);

    heap->header->reclaim_at = end + (end / 4 > least ? end / 4 : least);
}

void dragon_heap_note_taken(struct dragon_heap *heap, uint32_t end)
{
    uint32_t before = dragon_peek(&heap->header->taken_end);

    while (before < end && !dragon_replace(&heap->header->taken_end, &before, end))
        ;
}

/* n free chunks in a row, after a look for more where that is due. */
static bool find_room_locked(struct dragon_heap *heap, uint32_t n, uint32_t *first_out)
{
    bool found = find_free_chunks(heap, n, first_out);

    if (!found || should_reclaim_first(heap, *first_out + n)) {
        dragon_heap_reclaim_locked(heap);
        found = find_free_chunks(heap, n, first_out);
        set_reclaim_mark(heap, *first_out + n);
    }
    return found;
}

/* n chunks in a row with memory behind them, still marked free. */
static int take_chunks_locked(struct dragon_heap *heap, uint32_t n, uint32_t *first_out)
{
    uint32_t first;
    int r;

    if (!find_room_locked(heap, n, &first))
        return DRAGON_POOL_FULL;
    r = commit_lines_locked(heap, first + n);
    if (r == 0)
        r = commit_chunks_locked(heap, first, n);
    if (r < 0) {
        /* No more memory: what lies in kept chunks may still do. */
        dragon_heap_reclaim_locked(heap);
        if (!find_free_chunks(heap, n, &first) ||
            first + n > dragon_peek(&heap->header->n_committed) ||
            commit_chunks_locked(heap, first, n) < 0)
            return dragon_error_trace(r);
    }
    if (first + n > n_used(heap))
        heap->header->n_used = first + n;
    dragon_heap_note_taken(heap, first + n);
    *first_out = first;
    return 0;
}

static bool is_trimmable(const struct dragon_heap_chunk *chunk)
{
    return dragon_peek(&chunk->kind) == DRAGON_HEAP_CHUNK_FREE && chunk->has_memory;
}

uint64_t dragon_heap_trim_locked(struct dragon_heap *heap, uint32_t from, uint64_t keep_bytes)
{
    uint64_t n_keep = keep_bytes >> heap->chunk_shift, n_free = 0, n_given_back = 0;
    uint64_t n_most = DRAGON_HEAP_AT_ONCE_BYTES >> heap->chunk_shift;
    uint32_t n = dragon_heap_n_committed(heap);

    for (uint32_t i = 0; i < n; i++)
        n_free += is_trimmable(&heap->chunks[i]);
    /* From the end: low chunks are used first. */
    for (uint32_t i = n; i-- > from && n_free > n_keep && n_given_back < n_most;) {
        struct dragon_heap_chunk *chunk = &heap->chunks[i];

        if (!is_trimmable(chunk))
            continue;
        chunk->has_memory = 0;
        dragon_fetch_sub(&heap->header->n_backed, 1);
        DRAGON_TEST_POINT("heap-trimming");
        if (dragon_segment_decommit(heap->segment, dragon_heap_chunk_offset(heap, i),
                                    heap->chunk_bytes) < 0)
            break;
        n_free--;
        n_given_back++;
    }
    return n_given_back << heap->chunk_shift;
}

/* ---- small blocks ---- */

static int open_small_chunk_locked(struct dragon_heap *heap, uint32_t size_class,
                                   uint32_t *index_out)
{
    uint32_t index;
    int r = take_chunks_locked(heap, 1, &index);

    if (r == 0)
        r = open_words_locked(heap, index, heap->classes[size_class].n_blocks);
    if (r != 0)
        return dragon_error_trace(r);
    dragon_poke(&heap->chunks[index].lease, 0);
    dragon_poke(&heap->chunks[index].n_remote, 0);
    dragon_poke(&heap->chunks[index].is_listed, 0);
    DRAGON_TEST_POINT("heap-opened");
    publish_kind(heap, index, dragon_heap_kind_small(size_class));
    *index_out = index;
    return 0;
}

int dragon_heap_lease_chunk_locked(struct dragon_heap *heap, uint32_t size_class,
                                   uint32_t *index_out)
{
    uint32_t index = first_listed(heap, size_class);
    int r = 0;

    if (index == DRAGON_HEAP_NO_CHUNK)
        r = open_small_chunk_locked(heap, size_class, &index);
    if (r != 0)
        return dragon_error_trace(r);
    unlink_locked(heap, index);
    dragon_poke(&heap->chunks[index].lease, dragon_heap_pid(heap));
    DRAGON_TEST_POINT("heap-leased");
    *index_out = index;
    return 0;
}

void dragon_heap_unlease_chunk_locked(struct dragon_heap *heap, uint32_t index)
{
    if (dragon_peek(&heap->chunks[index].lease) != dragon_heap_pid(heap))
        return;
    dragon_poke(&heap->chunks[index].lease, 0);
    dragon_heap_offer_chunk_locked(heap, index);
}

static bool take_from_chunk(struct dragon_heap *heap, uint32_t index, uint32_t from, uint64_t slack,
                            uint32_t holder, uint64_t *offset_out, uint32_t *generation_out)
{
    uint32_t kind = dragon_observe(&heap->chunks[index].kind);
    uint32_t n = dragon_heap_n_readable(heap, index, kind);

    for (uint32_t i = from; i < n; i++) {
        if (!dragon_heap_take(heap, index, kind, i, slack, holder, generation_out))
            continue;
        *offset_out = dragon_heap_block_offset(heap, index, dragon_heap_kind_class(kind), i);
        dragon_poke(&heap->chunks[index].scan_from, i + 1);
        return true;
    }
    return false;
}

/* From any chunk of the class, whoever leases it: the heap is full otherwise. */
static bool take_from_others_locked(struct dragon_heap *heap, uint32_t size_class, uint64_t slack,
                                    uint32_t holder, uint64_t *offset_out, uint32_t *generation_out)
{
    for (uint32_t i = 0; i < n_used(heap); i++)
        if (dragon_peek(&heap->chunks[i].kind) == dragon_heap_kind_small(size_class) &&
            take_from_chunk(heap, i, 0, slack, holder, offset_out, generation_out))
            return true;
    return false;
}

int dragon_heap_alloc_shared_locked(struct dragon_heap *heap, uint32_t size_class, uint64_t slack,
                                    uint32_t holder, uint64_t *offset_out, uint32_t *generation_out)
{
    uint32_t index;
    int r;

    while ((index = first_listed(heap, size_class)) != DRAGON_HEAP_NO_CHUNK) {
        if (take_from_chunk(heap, index, dragon_peek(&heap->chunks[index].scan_from), slack, holder,
                            offset_out, generation_out))
            return 0;
        /* Whoever frees a block of it offers it again; and so do we, with another look from
         * its start, if it has one before that place. */
        unlink_locked(heap, index);
        dragon_heap_offer_chunk_locked(heap, index);
    }
    r = open_small_chunk_locked(heap, size_class, &index);
    if (r == 0) {
        link_locked(heap, index);
        return take_from_chunk(heap, index, 0, slack, holder, offset_out, generation_out)
                   ? 0
                   : dragon_error_origin(-EBADMSG);
    }
    if (take_from_others_locked(heap, size_class, slack, holder, offset_out, generation_out))
        return 0;
    return dragon_error_trace(r);
}

/* ---- runs ---- */

bool dragon_heap_prepare_chunks_locked(struct dragon_heap *heap, uint32_t n)
{
    uint32_t at_once = (uint32_t)(DRAGON_HEAP_AT_ONCE_BYTES >> heap->chunk_shift);
    uint32_t first, i;

    if (!find_room_locked(heap, n, &first) || commit_lines_locked(heap, first + n) < 0)
        return false;
    for (i = first; i < first + n && heap->chunks[i].has_memory; i++)
        ;
    if (first + n - i <= at_once)
        return false;                        /* the allocation brings the rest */
    dragon_heap_note_taken(heap, first + n); /* or it may be given back before it is a run */
    DRAGON_TEST_POINT("heap-preparing-run");
    return commit_chunks_locked(heap, i, at_once) == 0;
}

int dragon_heap_make_run_locked(struct dragon_heap *heap, uint32_t n, uint32_t *first_out)
{
    int r = take_chunks_locked(heap, n, first_out);

    if (r == 0)
        r = open_words_locked(heap, *first_out, 1);
    if (r != 0)
        return dragon_error_trace(r);
    for (uint32_t i = *first_out + 1; i < *first_out + n; i++)
        publish_kind(heap, i, DRAGON_HEAP_CHUNK_RUN_REST);
    dragon_poke(&heap->chunks[*first_out].n_chunks, n);
    dragon_poke(&heap->chunks[*first_out].lease, 0);
    DRAGON_TEST_POINT("heap-run-made");
    publish_kind(heap, *first_out, DRAGON_HEAP_CHUNK_RUN);
    return 0;
}

/* ---- repair ---- */

void dragon_heap_init_lists(struct dragon_heap *heap)
{
    for (int i = 0; i < DRAGON_HEAP_MAX_CLASSES; i++)
        heap->header->partial[i] = DRAGON_HEAP_NO_CHUNK;
    dragon_heap_forget_kept_runs(heap);
}

static uint32_t count_live(struct dragon_heap *heap, uint32_t chunk)
{
    uint32_t n = dragon_heap_n_readable(heap, chunk, dragon_peek(&heap->chunks[chunk].kind));
    uint32_t n_live = 0;

    for (uint32_t i = 0; i < n; i++)
        n_live += dragon_heap_word_is_live(dragon_peek(&dragon_heap_words(heap, chunk)[i]));
    return n_live;
}

uint64_t dragon_heap_count_locked(struct dragon_heap *heap)
{
    uint32_t n = dragon_heap_n_committed(heap);
    uint64_t n_live = 0;

    for (uint32_t i = 0; i < n; i++)
        n_live += count_live(heap, i);
    return n_live;
}

/* Returns the number of chunks that were dealt with. */
static uint32_t rebuild_run_locked(struct dragon_heap *heap, uint32_t index)
{
    uint32_t n = dragon_heap_run_length(heap, index);
    uint64_t word;

    dragon_poke(&heap->chunks[index].n_chunks, n);
    if (dragon_heap_n_readable(heap, index, DRAGON_HEAP_CHUNK_RUN) == 0) {
        free_chunks_locked(heap, index, n); /* no block without a word */
        return n;
    }
    word = dragon_observe(dragon_heap_words(heap, index));
    if (word_is_closed(word))
        /* It was being given back, and its end may be free already. Were the word opened
         * again, the run could be taken at once, without the mutex. */
        give_back_locked(heap, index, dragon_heap_word_generation(word));
    else
        dragon_heap_close_chunk_locked(heap, index);
    return n;
}

static void rebuild_small_locked(struct dragon_heap *heap, uint32_t index)
{
    struct dragon_heap_chunk *chunk = &heap->chunks[index];

    reopen_words_locked(heap, index,
                        dragon_heap_n_readable(heap, index, dragon_peek(&chunk->kind)));
    dragon_poke(&chunk->is_listed, 0);
    dragon_poke(&chunk->n_remote, 1); /* the leaseholder may have lost guesses */
    dragon_heap_offer_chunk_locked(heap, index);
}

/* All caches from the truth. n_used may be too low if the writer died before it
 * raised it, so look at all chunks that have a line. */
static void rebuild_locked(struct dragon_heap *heap)
{
    struct dragon_heap_header *header = heap->header;
    uint32_t n = dragon_heap_n_committed(heap);
    uint32_t n_backed = 0;

    dragon_heap_init_lists(heap);
    header->n_used = n;
    header->scan_from = 0;
    header->n_blocks = 0;
    for (uint32_t i = 0; i < n;) {
        uint32_t kind = dragon_peek(&heap->chunks[i].kind);
        uint32_t n_words = dragon_heap_n_readable(heap, i, kind);

        header->n_blocks += count_live(heap, i);
        if (kind == DRAGON_HEAP_CHUNK_RUN) {
            i += rebuild_run_locked(heap, i);
        } else if (dragon_heap_kind_is_small(kind) && n_words > 0) {
            rebuild_small_locked(heap, i++);
        } else {
            /* The rest of a run without its first chunk: half made. */
            publish_kind(heap, i++, DRAGON_HEAP_CHUNK_FREE);
        }
    }
    for (uint32_t i = 0; i < n; i++)
        n_backed += heap->chunks[i].has_memory != 0;
    dragon_poke(&header->n_backed, n_backed);
    dragon_eventcount_wake_all(&header->grown); /* the dead may have let it grow */
    if (header->n_blocks > dragon_peek(&header->most_blocks))
        dragon_poke(&header->most_blocks, header->n_blocks);
}

int dragon_heap_lock(struct dragon_heap *heap)
{
    int r = dragon_mutex_lock(&heap->header->mutex);

    if (r == DRAGON_MUTEX_OWNER_DIED) {
        rebuild_locked(heap);
        return 0;
    }
    return dragon_error_trace(r);
}

void dragon_heap_unlock(struct dragon_heap *heap)
{
    dragon_check_expensive(dragon_heap_check_locked(heap));
    dragon_mutex_unlock(&heap->header->mutex);
}
