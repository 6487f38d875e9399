#include "memory/heap.h"

#include "base/atomic.h"
#include "base/check.h"
#include "base/error.h"
#include "memory/pool.h"

#include <errno.h>
#include <string.h>

#define HEAP_MAGIC UINT64_C(0x314c4f4f50475244) /* "DRGPOOL1" */
#define HEAP_VERSION 2
#define PAGE_BYTES UINT64_C(4096)
#define BLOCK_ALIGNMENT UINT64_C(64)
#define SMALLEST_BLOCK UINT64_C(64)
#define SMALL_BLOCKS_PER_CHUNK 4 /* at least, but for the tags */

/* ---- sizes ---- */

static uint64_t round_up(uint64_t n, uint64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

/* Four classes a doubling where the alignment allows it: 64, 128, 192, 256,
 * 320, 384, 448, 512, 640, 768, ... 16384. */
static uint32_t class_of(uint64_t size_bytes)
{
    unsigned bits;
    uint64_t step;

    if (size_bytes <= 256)
        return size_bytes == 0 ? 0 : (uint32_t)((size_bytes - 1) / 64);
    bits = 63 - (unsigned)__builtin_clzll(size_bytes - 1); /* 2^bits < size <= 2^(bits+1) */
    step = UINT64_C(1) << (bits - 2);
    return 4 + (bits - 8) * 4 + (uint32_t)((size_bytes - 1 - (UINT64_C(1) << bits)) / step);
}

static uint64_t class_bytes(uint32_t size_class)
{
    unsigned bits;

    if (size_class < 4)
        return 64 * ((uint64_t)size_class + 1);
    bits = 8 + (size_class - 4) / 4;
    return (UINT64_C(1) << bits) + ((size_class - 4) % 4 + 1) * (UINT64_C(1) << (bits - 2));
}

static uint64_t tags_bytes(uint64_t n_blocks)
{
    return round_up(n_blocks * sizeof(struct dragon_heap_tag), BLOCK_ALIGNMENT);
}

static uint32_t blocks_that_fit(uint64_t chunk_bytes, uint32_t size_class)
{
    uint64_t each = class_bytes(size_class) + sizeof(struct dragon_heap_tag);
    uint64_t n = chunk_bytes / each;

    while (tags_bytes(n) + n * class_bytes(size_class) > chunk_bytes)
        n--;
    return (uint32_t)n;
}

/* 0 for what is no class: somebody wrote over the chunk's line. */
static uint32_t blocks_per_chunk(const struct dragon_heap *heap, uint32_t size_class)
{
    return size_class < heap->n_classes ? heap->blocks_per_chunk[size_class] : 0;
}

static uint64_t table_bytes(uint32_t n_chunks)
{
    return round_up(n_chunks * sizeof(struct dragon_heap_chunk), PAGE_BYTES);
}

static uint64_t data_offset(uint32_t n_chunks, uint64_t chunk_bytes)
{
    return round_up(DRAGON_HEAP_HEADER_BYTES + table_bytes(n_chunks), chunk_bytes);
}

static uint64_t chunks_for(uint64_t size_bytes, uint64_t chunk_bytes)
{
    return round_up(size_bytes, chunk_bytes) / chunk_bytes;
}

uint64_t dragon_heap_chunk_bytes(uint64_t size_bytes)
{
    return size_bytes < DRAGON_HEAP_SHORT_BELOW_BYTES ? DRAGON_HEAP_SHORT_CHUNK_BYTES
                                                      : DRAGON_HEAP_CHUNK_BYTES;
}

uint64_t dragon_heap_segment_bytes(uint64_t size_bytes, uint64_t chunk_bytes)
{
    uint64_t n_chunks = chunks_for(size_bytes ? size_bytes : 1, chunk_bytes);

    return data_offset((uint32_t)n_chunks, chunk_bytes) + n_chunks * chunk_bytes;
}

/* ---- places ---- */

static unsigned char *chunk_data(struct dragon_heap *heap, uint32_t index)
{
    return heap->data + index * heap->chunk_bytes;
}

static struct dragon_heap_tag *chunk_tags(struct dragon_heap *heap, uint32_t index)
{
    return (struct dragon_heap_tag *)chunk_data(heap, index);
}

static uint64_t offset_of(struct dragon_heap *heap, const void *address)
{
    return (uint64_t)((const unsigned char *)address - heap->segment->base);
}

/* Where an offset claims to point. */
struct place {
    uint32_t chunk;
    uint32_t block; /* in a chunk of small blocks */
    bool is_small;
};

/* -EBADMSG unless offset is the first byte of a block, live or not. */
static int locate(struct dragon_heap *heap, uint64_t offset, struct place *place_out)
{
    uint64_t start = offset_of(heap, heap->data);
    uint64_t inside, size_class;
    struct dragon_heap_chunk *chunk;
    uint32_t index, n_blocks;

    if (offset < start ||
        (offset - start) / heap->chunk_bytes >= dragon_observe(&heap->header->n_committed))
        return dragon_error_origin(-EBADMSG);
    index = (uint32_t)((offset - start) / heap->chunk_bytes);
    if (index >= heap->n_chunks)
        return dragon_error_origin(-EBADMSG);
    inside = (offset - start) % heap->chunk_bytes;
    chunk = &heap->chunks[index];
    switch (dragon_observe(&chunk->kind)) {
    case DRAGON_HEAP_CHUNK_RUN:
        *place_out = (struct place){.chunk = index};
        return inside == 0 ? 0 : dragon_error_origin(-EBADMSG);
    case DRAGON_HEAP_CHUNK_SMALL:
        size_class = chunk->size_class;
        if (size_class >= heap->n_classes)
            return dragon_error_origin(-EBADMSG);
        n_blocks = blocks_per_chunk(heap, (uint32_t)size_class);
        if (inside < tags_bytes(n_blocks))
            return dragon_error_origin(-EBADMSG);
        inside -= tags_bytes(n_blocks);
        if (inside % class_bytes((uint32_t)size_class) != 0 ||
            inside / class_bytes((uint32_t)size_class) >= n_blocks)
            return dragon_error_origin(-EBADMSG);
        *place_out = (struct place){
            .chunk = index,
            .block = (uint32_t)(inside / class_bytes((uint32_t)size_class)),
            .is_small = true,
        };
        return 0;
    default:
        return dragon_error_origin(-EBADMSG);
    }
}

static _Atomic uint32_t *holder_at(struct dragon_heap *heap, const struct place *place)
{
    if (place->is_small)
        return &chunk_tags(heap, place->chunk)[place->block].holder;
    return &heap->chunks[place->chunk].holder;
}

static uint32_t generation_at(struct dragon_heap *heap, const struct place *place)
{
    if (place->is_small)
        return dragon_observe(&chunk_tags(heap, place->chunk)[place->block].generation);
    return dragon_observe(&heap->chunks[place->chunk].generation);
}

static int locate_live(struct dragon_heap *heap, uint64_t offset, uint32_t generation,
                       struct place *place_out)
{
    int r = locate(heap, offset, place_out);

    if (r < 0)
        return dragon_error_trace(r);
    if (dragon_observe(holder_at(heap, place_out)) == DRAGON_HOLDER_NONE ||
        generation_at(heap, place_out) != generation)
        return dragon_error_origin(-EBADMSG);
    return 0;
}

/* ---- memory behind chunks ---- */

static int commit_locked(struct dragon_heap *heap, uint32_t n_wanted)
{
    struct dragon_heap_header *header = heap->header;
    uint32_t n_now = dragon_peek(&header->n_committed);
    uint64_t from;
    int r;

    if (n_wanted <= n_now)
        return 0;
    from = DRAGON_HEAP_HEADER_BYTES + n_now * sizeof(struct dragon_heap_chunk);
    r = dragon_segment_commit(heap->segment, from,
                              (n_wanted - n_now) * sizeof(struct dragon_heap_chunk));
    if (r < 0)
        return dragon_error_trace(r);
    r = dragon_segment_commit(heap->segment, offset_of(heap, chunk_data(heap, n_now)),
                              (n_wanted - n_now) * heap->chunk_bytes);
    if (r < 0)
        return dragon_error_trace(r);
    dragon_publish(&header->n_committed, n_wanted); /* pairs with locate */
    return 0;
}

/* Never 0, which stands for no block where blocks are optional. */
static uint32_t next_generation_locked(struct dragon_heap *heap)
{
    if (++heap->header->last_generation == 0)
        heap->header->last_generation = 1;
    return heap->header->last_generation;
}

/* What a block of size_bytes takes at the least. */
static uint64_t room_for(const struct dragon_heap *heap, uint64_t size_bytes)
{
    return size_bytes > heap->min_block_bytes ? size_bytes : heap->min_block_bytes;
}

/* ---- chunks with free blocks, a list for each class ---- */

static void link_partial_locked(struct dragon_heap *heap, uint32_t index)
{
    struct dragon_heap_chunk *chunk = &heap->chunks[index];
    uint32_t *list = &heap->header->partial[chunk->size_class];

    chunk->previous = DRAGON_HEAP_NO_CHUNK;
    chunk->next = *list;
    if (*list != DRAGON_HEAP_NO_CHUNK)
        heap->chunks[*list].previous = index;
    *list = index;
}

static void unlink_partial_locked(struct dragon_heap *heap, uint32_t index)
{
    struct dragon_heap_chunk *chunk = &heap->chunks[index];

    if (chunk->previous == DRAGON_HEAP_NO_CHUNK)
        heap->header->partial[chunk->size_class] = chunk->next;
    else
        heap->chunks[chunk->previous].next = chunk->next;
    if (chunk->next != DRAGON_HEAP_NO_CHUNK)
        heap->chunks[chunk->next].previous = chunk->previous;
}

/* ---- runs of chunks ---- */

static void free_chunks_locked(struct dragon_heap *heap, uint32_t first, uint32_t n)
{
    /* From the end: a run whose first chunk is still there is still whole. */
    for (uint32_t i = first + n; i-- > first;)
        dragon_publish(&heap->chunks[i].kind, DRAGON_HEAP_CHUNK_FREE);
    if (first < heap->header->scan_from)
        heap->header->scan_from = first;
    while (heap->header->n_used > 0 &&
           dragon_peek(&heap->chunks[heap->header->n_used - 1].kind) == DRAGON_HEAP_CHUNK_FREE)
        heap->header->n_used--;
}

/* First fit among the chunks that have been used before. */
static bool find_free_chunks(struct dragon_heap *heap, uint32_t n, uint32_t *first_out)
{
    uint32_t n_found = 0;
    uint32_t i = heap->header->scan_from;

    for (; i < heap->header->n_used; i++) {
        if (dragon_peek(&heap->chunks[i].kind) != DRAGON_HEAP_CHUNK_FREE) {
            /* Nothing before the first gap is free: start there next time. */
            if (n_found == 0 && i == heap->header->scan_from)
                heap->header->scan_from++;
            n_found = 0;
        } else if (++n_found == n) {
            *first_out = i + 1 - n;
            return true;
        }
    }
    *first_out = i - n_found;
    return *first_out + n <= heap->n_chunks &&
           *first_out + n <= dragon_observe(&heap->header->n_allowed);
}

static void flush_cached_runs_locked(struct dragon_heap *heap)
{
    for (int i = 0; i < DRAGON_HEAP_N_CACHED_RUNS; i++) {
        struct dragon_heap_cached_run *run = &heap->header->cached_runs[i];

        if (run->n_chunks)
            free_chunks_locked(heap, run->first, run->n_chunks);
        run->n_chunks = 0;
    }
}

/* Each class may keep one chunk without blocks. */
static void flush_empty_chunks_locked(struct dragon_heap *heap)
{
    for (uint32_t c = 0; c < heap->n_classes; c++) {
        uint32_t n_blocks = blocks_per_chunk(heap, c);
        uint32_t next;

        for (uint32_t i = heap->header->partial[c]; i != DRAGON_HEAP_NO_CHUNK; i = next) {
            next = heap->chunks[i].next;
            if (heap->chunks[i].n_free != n_blocks)
                continue;
            unlink_partial_locked(heap, i);
            free_chunks_locked(heap, i, 1);
        }
    }
}

/* What is kept for speed, when it is needed for room. */
static void flush_kept_chunks_locked(struct dragon_heap *heap)
{
    flush_cached_runs_locked(heap);
    flush_empty_chunks_locked(heap);
}

/* n chunks in a row with memory behind them, still marked free. */
static int take_chunks_locked(struct dragon_heap *heap, uint32_t n, uint32_t *first_out)
{
    uint32_t first;
    int r;

    if (!find_free_chunks(heap, n, &first)) {
        flush_kept_chunks_locked(heap);
        if (!find_free_chunks(heap, n, &first))
            return DRAGON_POOL_FULL;
    }
    r = commit_locked(heap, first + n);
    if (r < 0) {
        /* No more memory: what lies in kept chunks may still do. */
        flush_kept_chunks_locked(heap);
        if (!find_free_chunks(heap, n, &first) ||
            first + n > dragon_peek(&heap->header->n_committed))
            return dragon_error_trace(r);
    }
    if (first + n > heap->header->n_used)
        heap->header->n_used = first + n;
    *first_out = first;
    return 0;
}

/* A run that was freed a moment ago is warm; one that is a little too long
 * serves as well. Most recent first. */
static bool take_cached_run_locked(struct dragon_heap *heap, uint32_t n, uint32_t *first_out)
{
    struct dragon_heap_cached_run *runs = heap->header->cached_runs;

    for (int i = 0; i < DRAGON_HEAP_N_CACHED_RUNS; i++) {
        if (runs[i].n_chunks < n || runs[i].n_chunks > n + n / 8)
            continue;
        *first_out = runs[i].first;
        memmove(&runs[i], &runs[i + 1], (DRAGON_HEAP_N_CACHED_RUNS - 1 - i) * sizeof runs[0]);
        runs[DRAGON_HEAP_N_CACHED_RUNS - 1].n_chunks = 0;
        return true;
    }
    return false;
}

static void cache_run_locked(struct dragon_heap *heap, uint32_t first)
{
    struct dragon_heap_cached_run *runs = heap->header->cached_runs;
    struct dragon_heap_cached_run oldest = runs[DRAGON_HEAP_N_CACHED_RUNS - 1];

    memmove(&runs[1], &runs[0], (DRAGON_HEAP_N_CACHED_RUNS - 1) * sizeof runs[0]);
    runs[0] = (struct dragon_heap_cached_run){first, heap->chunks[first].n_chunks};
    if (oldest.n_chunks)
        free_chunks_locked(heap, oldest.first, oldest.n_chunks);
}

static int alloc_run_locked(struct dragon_heap *heap, uint64_t size_bytes, uint32_t holder,
                            uint64_t *offset_out, uint32_t *generation_out)
{
    uint64_t n = chunks_for(room_for(heap, size_bytes), heap->chunk_bytes);
    struct dragon_heap_chunk *chunk;
    uint32_t first;
    int r;

    if (n > heap->n_chunks)
        return DRAGON_POOL_FULL;
    if (!take_cached_run_locked(heap, (uint32_t)n, &first)) {
        r = take_chunks_locked(heap, (uint32_t)n, &first);
        if (r != 0)
            return dragon_error_trace(r);
        for (uint32_t i = first + 1; i < first + n; i++)
            dragon_publish(&heap->chunks[i].kind, DRAGON_HEAP_CHUNK_RUN_REST);
        heap->chunks[first].n_chunks = (uint32_t)n;
        dragon_publish(&heap->chunks[first].holder, DRAGON_HOLDER_NONE);
        dragon_publish(&heap->chunks[first].kind, DRAGON_HEAP_CHUNK_RUN);
    }
    chunk = &heap->chunks[first];
    chunk->size_bytes = size_bytes;
    dragon_publish(&chunk->generation, next_generation_locked(heap));
    dragon_publish(&chunk->holder, holder);
    heap->header->used_bytes += chunk->n_chunks * heap->chunk_bytes;
    heap->header->n_blocks++;
    *offset_out = offset_of(heap, chunk_data(heap, first));
    *generation_out = heap->header->last_generation;
    return 0;
}

static void free_run_locked(struct dragon_heap *heap, uint32_t first)
{
    struct dragon_heap_chunk *chunk = &heap->chunks[first];

    dragon_publish(&chunk->holder, DRAGON_HOLDER_NONE);
    heap->header->used_bytes -= chunk->n_chunks * heap->chunk_bytes;
    heap->header->n_blocks--;
    cache_run_locked(heap, first);
}

/* ---- small blocks ---- */

/* The list of free blocks of a chunk, from its tags. */
static void relist_blocks_locked(struct dragon_heap *heap, uint32_t index)
{
    struct dragon_heap_chunk *chunk = &heap->chunks[index];
    struct dragon_heap_tag *tags = chunk_tags(heap, index);

    chunk->n_free = 0;
    chunk->free_head = 0;
    for (uint32_t i = blocks_per_chunk(heap, chunk->size_class); i-- > 0;) {
        if (dragon_peek(&tags[i].holder) != DRAGON_HOLDER_NONE)
            continue;
        tags[i].next = chunk->free_head;
        chunk->free_head = i + 1;
        chunk->n_free++;
    }
}

static int add_small_chunk_locked(struct dragon_heap *heap, uint32_t size_class)
{
    uint32_t index;
    int r = take_chunks_locked(heap, 1, &index);

    if (r != 0)
        return dragon_error_trace(r);
    memset(chunk_data(heap, index), 0, tags_bytes(blocks_per_chunk(heap, size_class)));
    heap->chunks[index].size_class = size_class;
    dragon_publish(&heap->chunks[index].kind, DRAGON_HEAP_CHUNK_SMALL);
    relist_blocks_locked(heap, index);
    link_partial_locked(heap, index);
    return 0;
}

static int alloc_small_locked(struct dragon_heap *heap, uint64_t size_bytes, uint32_t holder,
                              uint64_t *offset_out, uint32_t *generation_out)
{
    uint32_t size_class = class_of(room_for(heap, size_bytes));
    uint32_t n_blocks = blocks_per_chunk(heap, size_class);
    struct dragon_heap_chunk *chunk;
    struct dragon_heap_tag *tag;
    uint32_t index, block;
    int r;

    if (heap->header->partial[size_class] == DRAGON_HEAP_NO_CHUNK) {
        r = add_small_chunk_locked(heap, size_class);
        if (r != 0)
            return dragon_error_trace(r);
    }
    index = heap->header->partial[size_class];
    chunk = &heap->chunks[index];
    block = chunk->free_head - 1;
    tag = &chunk_tags(heap, index)[block];
    tag->size_bytes = (uint32_t)size_bytes;
    dragon_publish(&tag->generation, next_generation_locked(heap));
    DRAGON_TEST_POINT("heap-before-holder-store");
    dragon_publish(&tag->holder, holder);
    DRAGON_TEST_POINT("heap-after-holder-store");
    chunk->free_head = tag->next;
    if (--chunk->n_free == 0)
        unlink_partial_locked(heap, index);
    heap->header->used_bytes += class_bytes(size_class);
    heap->header->n_blocks++;
    *offset_out = offset_of(heap, chunk_data(heap, index)) + tags_bytes(n_blocks) +
                  block * class_bytes(size_class);
    *generation_out = heap->header->last_generation;
    return 0;
}

static void free_small_locked(struct dragon_heap *heap, const struct place *place)
{
    struct dragon_heap_chunk *chunk = &heap->chunks[place->chunk];
    struct dragon_heap_tag *tag = &chunk_tags(heap, place->chunk)[place->block];

    dragon_publish(&tag->holder, DRAGON_HOLDER_NONE);
    DRAGON_TEST_POINT("heap-after-holder-clear");
    tag->next = chunk->free_head;
    chunk->free_head = place->block + 1;
    if (chunk->n_free++ == 0)
        link_partial_locked(heap, place->chunk);
    heap->header->used_bytes -= class_bytes(chunk->size_class);
    heap->header->n_blocks--;
    /* Keep one empty chunk of a class: the next block may come at once. */
    if (chunk->n_free == blocks_per_chunk(heap, chunk->size_class) &&
        (chunk->next != DRAGON_HEAP_NO_CHUNK || chunk->previous != DRAGON_HEAP_NO_CHUNK)) {
        unlink_partial_locked(heap, place->chunk);
        free_chunks_locked(heap, place->chunk, 1);
    }
}

/* ---- repair ---- */

static void rebuild_small_locked(struct dragon_heap *heap, uint32_t index)
{
    struct dragon_heap_chunk *chunk = &heap->chunks[index];
    uint32_t n_blocks = blocks_per_chunk(heap, chunk->size_class);

    relist_blocks_locked(heap, index);
    heap->header->n_blocks += n_blocks - chunk->n_free;
    heap->header->used_bytes += (n_blocks - chunk->n_free) * class_bytes(chunk->size_class);
    if (chunk->n_free == n_blocks)
        free_chunks_locked(heap, index, 1);
    else if (chunk->n_free > 0)
        link_partial_locked(heap, index);
}

/* Returns the number of chunks that were dealt with. */
static uint32_t rebuild_run_locked(struct dragon_heap *heap, uint32_t index)
{
    struct dragon_heap_chunk *chunk = &heap->chunks[index];
    uint32_t n = chunk->n_chunks;

    if (n == 0 || n > dragon_peek(&heap->header->n_committed) - index)
        chunk->n_chunks = n = 1; /* somebody wrote over it */
    if (dragon_peek(&chunk->holder) == DRAGON_HOLDER_NONE) {
        free_chunks_locked(heap, index, n);
        return n;
    }
    heap->header->n_blocks++;
    heap->header->used_bytes += n * heap->chunk_bytes;
    return n;
}

/* All caches from the truth. n_used may be too low if the writer died before it
 * raised it, so look at all committed chunks. */
static void rebuild_locked(struct dragon_heap *heap)
{
    struct dragon_heap_header *header = heap->header;
    uint32_t n = dragon_peek(&header->n_committed);

    header->n_used = n;
    header->scan_from = 0;
    header->used_bytes = 0;
    header->n_blocks = 0;
    memset(header->cached_runs, 0, sizeof header->cached_runs);
    for (int i = 0; i < DRAGON_HEAP_MAX_CLASSES; i++)
        header->partial[i] = DRAGON_HEAP_NO_CHUNK;
    for (uint32_t i = 0; i < n;) {
        switch (dragon_peek(&heap->chunks[i].kind)) {
        case DRAGON_HEAP_CHUNK_SMALL:
            rebuild_small_locked(heap, i++);
            break;
        case DRAGON_HEAP_CHUNK_RUN:
            i += rebuild_run_locked(heap, i);
            break;
        default:
            /* The rest of a run without its first chunk: half made. */
            dragon_publish(&heap->chunks[i++].kind, DRAGON_HEAP_CHUNK_FREE);
        }
    }
}

static int lock(struct dragon_heap *heap)
{
    int r = dragon_mutex_lock(&heap->header->mutex);

    if (r == DRAGON_MUTEX_OWNER_DIED) {
        rebuild_locked(heap);
        return 0;
    }
    return dragon_error_trace(r);
}

static void unlock(struct dragon_heap *heap)
{
    dragon_check_expensive(dragon_heap_check(heap));
    dragon_mutex_unlock(&heap->header->mutex);
}

/* ---- what memory/pool.c uses ---- */

static void attach(struct dragon_heap *heap, struct dragon_segment *segment, uint32_t n_chunks,
                   const struct dragon_heap_options *options)
{
    heap->segment = segment;
    heap->header = (struct dragon_heap_header *)segment->base;
    heap->chunks = (struct dragon_heap_chunk *)(segment->base + DRAGON_HEAP_HEADER_BYTES);
    heap->data = segment->base + data_offset(n_chunks, options->chunk_bytes);
    heap->n_chunks = n_chunks;
    heap->chunk_bytes = options->chunk_bytes;
    heap->largest_small = options->chunk_bytes / SMALL_BLOCKS_PER_CHUNK;
    heap->n_classes = class_of(heap->largest_small) + 1;
    heap->min_block_bytes = options->min_block_bytes;
    heap->max_blocks = options->max_blocks;
    for (uint32_t i = 0; i < heap->n_classes; i++)
        heap->blocks_per_chunk[i] = blocks_that_fit(heap->chunk_bytes, i);
}

static uint32_t largest_n_chunks(uint64_t segment_bytes, uint64_t chunk_bytes)
{
    uint64_t n = segment_bytes / chunk_bytes;

    while (n > 0 && dragon_heap_segment_bytes(n * chunk_bytes, chunk_bytes) > segment_bytes)
        n--;
    return (uint32_t)n;
}

static void init_header(struct dragon_heap *heap, const struct dragon_heap_options *options)
{
    struct dragon_heap_header *header = heap->header;

    for (int i = 0; i < DRAGON_HEAP_MAX_CLASSES; i++)
        header->partial[i] = DRAGON_HEAP_NO_CHUNK;
    header->version = HEAP_VERSION;
    header->n_chunks = heap->n_chunks;
    header->chunk_bytes = (uint32_t)heap->chunk_bytes;
    header->min_block_bytes = heap->min_block_bytes;
    header->max_blocks = heap->max_blocks;
    dragon_poke(&header->n_allowed, heap->n_chunks);
    dragon_eventcount_init(&header->freed);
    header->node = options->node;
    header->number = options->number;
    header->data_offset = data_offset(heap->n_chunks, heap->chunk_bytes);
    header->magic = HEAP_MAGIC;
}

int dragon_heap_init(struct dragon_heap *heap, struct dragon_segment *segment,
                     const struct dragon_heap_options *options)
{
    uint32_t n_chunks = largest_n_chunks(segment->size_bytes, options->chunk_bytes);
    int r;

    _Static_assert(DRAGON_HEAP_MAX_CLASSES > 4 + (13 - 8 + 1) * 4 - 1, "a class for 16384");
    if (options->min_block_bytes > n_chunks * options->chunk_bytes)
        return dragon_error_origin(-EINVAL);
    r = dragon_segment_commit(segment, 0, DRAGON_HEAP_HEADER_BYTES);
    if (r < 0)
        return dragon_error_trace(r);
    attach(heap, segment, n_chunks, options);
    r = dragon_mutex_init(&heap->header->mutex);
    if (r < 0)
        return dragon_error_trace(r);
    init_header(heap, options);
    return 0;
}

int dragon_heap_open(struct dragon_heap *heap, struct dragon_segment *segment)
{
    struct dragon_heap_header *header = (struct dragon_heap_header *)segment->base;
    struct dragon_heap_options options = {
        .chunk_bytes = header->chunk_bytes,
        .min_block_bytes = header->min_block_bytes,
        .max_blocks = header->max_blocks,
    };
    uint32_t n_chunks;

    if (header->magic != HEAP_MAGIC || header->version != HEAP_VERSION ||
        (options.chunk_bytes != DRAGON_HEAP_CHUNK_BYTES &&
         options.chunk_bytes != DRAGON_HEAP_SHORT_CHUNK_BYTES))
        return dragon_error_origin(-EBADMSG);
    n_chunks = largest_n_chunks(segment->size_bytes, options.chunk_bytes);
    if (n_chunks == 0 || header->n_chunks != n_chunks ||
        header->data_offset != data_offset(n_chunks, options.chunk_bytes) ||
        options.min_block_bytes > n_chunks * options.chunk_bytes)
        return dragon_error_origin(-EBADMSG);
    attach(heap, segment, n_chunks, &options);
    return 0;
}

int dragon_heap_alloc(struct dragon_heap *heap, uint64_t size_bytes, uint32_t holder,
                      uint64_t *offset_out, uint32_t *generation_out)
{
    int r;

    dragon_check(holder != DRAGON_HOLDER_NONE);
    if (size_bytes > heap->n_chunks * heap->chunk_bytes)
        return DRAGON_POOL_FULL;
    r = lock(heap);
    if (r < 0)
        return dragon_error_trace(r);
    if (heap->max_blocks != 0 && heap->header->n_blocks >= heap->max_blocks)
        r = DRAGON_POOL_FULL;
    else if (room_for(heap, size_bytes) <= heap->largest_small)
        r = alloc_small_locked(heap, size_bytes, holder, offset_out, generation_out);
    else
        r = alloc_run_locked(heap, size_bytes, holder, offset_out, generation_out);
    unlock(heap);
    return dragon_error_trace(r);
}

int dragon_heap_free(struct dragon_heap *heap, uint64_t offset, uint32_t generation)
{
    struct place place = {0};
    int r = lock(heap);

    if (r < 0)
        return dragon_error_trace(r);
    r = locate_live(heap, offset, generation, &place);
    if (r == 0 && place.is_small)
        free_small_locked(heap, &place);
    else if (r == 0)
        free_run_locked(heap, place.chunk);
    unlock(heap);
    DRAGON_TEST_POINT("heap-before-wake");
    if (r == 0)
        dragon_heap_wake(heap);
    return dragon_error_trace(r);
}

bool dragon_heap_may_fit(struct dragon_heap *heap, uint64_t size_bytes)
{
    uint64_t n_allowed = dragon_observe(&heap->header->n_allowed);

    if (n_allowed > heap->n_chunks)
        n_allowed = heap->n_chunks;
    return room_for(heap, size_bytes) <= n_allowed * heap->chunk_bytes;
}

void dragon_heap_wake(struct dragon_heap *heap)
{
    /* All: one that is woken may want more than there is, another less. */
    dragon_eventcount_wake_all(&heap->header->freed);
}

/* The size of a block as it was asked for, if that fits where it lies. */
static int size_at(struct dragon_heap *heap, const struct place *place, uint64_t *size_bytes_out)
{
    struct dragon_heap_chunk *chunk = &heap->chunks[place->chunk];
    uint64_t size_bytes, room;

    if (place->is_small) {
        size_bytes = chunk_tags(heap, place->chunk)[place->block].size_bytes;
        room = class_bytes(chunk->size_class);
    } else {
        size_bytes = chunk->size_bytes;
        room = (heap->n_chunks - place->chunk) * heap->chunk_bytes;
    }
    if (size_bytes > room)
        return dragon_error_origin(-EBADMSG);
    *size_bytes_out = size_bytes;
    return 0;
}

int dragon_heap_resolve(struct dragon_heap *heap, uint64_t offset, uint32_t generation,
                        uint64_t *size_bytes_out)
{
    struct place place = {0};
    int r = locate_live(heap, offset, generation, &place);

    if (r == 0)
        r = size_at(heap, &place, size_bytes_out);
    return dragon_error_trace(r);
}

int dragon_heap_find(struct dragon_heap *heap, uint64_t offset, uint32_t *generation_out,
                     uint64_t *size_bytes_out)
{
    struct place place = {0};
    int r = locate(heap, offset, &place);

    if (r < 0)
        return dragon_error_trace(r);
    if (dragon_observe(holder_at(heap, &place)) == DRAGON_HOLDER_NONE)
        return dragon_error_origin(-EBADMSG);
    *generation_out = generation_at(heap, &place);
    return dragon_error_trace(size_at(heap, &place, size_bytes_out));
}

int dragon_heap_hold(struct dragon_heap *heap, uint64_t offset, uint32_t generation,
                     uint32_t holder, uint32_t *before_out)
{
    struct place place = {0};
    _Atomic uint32_t *tag;
    uint32_t before;
    int r;

    dragon_check(holder != DRAGON_HOLDER_NONE);
    r = locate_live(heap, offset, generation, &place);
    if (r < 0)
        return dragon_error_trace(r);
    tag = holder_at(heap, &place);
    before = dragon_observe(tag);
    do {
        if (before == DRAGON_HOLDER_NONE) /* freed since we looked */
            return dragon_error_origin(-EBADMSG);
    } while (!dragon_replace(tag, &before, holder));
    *before_out = before;
    return 0;
}

uint64_t dragon_heap_sweep(struct dragon_heap *heap, uint32_t holder)
{
    uint64_t n_freed = 0;

    dragon_check(holder != DRAGON_HOLDER_NONE);
    if (lock(heap) < 0)
        return 0;
    for (uint32_t i = 0; i < dragon_peek(&heap->header->n_committed); i++) {
        struct dragon_heap_chunk *chunk = &heap->chunks[i];
        uint32_t kind = dragon_peek(&chunk->kind);

        if (kind == DRAGON_HEAP_CHUNK_RUN && dragon_peek(&chunk->holder) == holder) {
            free_run_locked(heap, i);
            n_freed++;
        }
        for (uint32_t b = 0; kind == DRAGON_HEAP_CHUNK_SMALL &&
                             dragon_peek(&chunk->kind) == DRAGON_HEAP_CHUNK_SMALL &&
                             b < blocks_per_chunk(heap, chunk->size_class);
             b++) {
            if (dragon_peek(&chunk_tags(heap, i)[b].holder) != holder)
                continue;
            free_small_locked(heap, &(struct place){.chunk = i, .block = b, .is_small = true});
            n_freed++;
        }
    }
    unlock(heap);
    if (n_freed > 0)
        dragon_heap_wake(heap);
    return n_freed;
}

int dragon_heap_commit(struct dragon_heap *heap, uint32_t n_chunks)
{
    int r = lock(heap);

    if (r < 0)
        return dragon_error_trace(r);
    r = commit_locked(heap, n_chunks < heap->n_chunks ? n_chunks : heap->n_chunks);
    unlock(heap);
    return dragon_error_trace(r);
}

uint64_t dragon_heap_committed_end(struct dragon_heap *heap)
{
    uint32_t n = dragon_observe(&heap->header->n_committed);

    return offset_of(heap, chunk_data(heap, n < heap->n_chunks ? n : heap->n_chunks));
}

void dragon_heap_usage(struct dragon_heap *heap, uint64_t *used_bytes_out, uint64_t *n_blocks_out)
{
    *used_bytes_out = 0;
    *n_blocks_out = 0;
    if (lock(heap) < 0)
        return;
    *used_bytes_out = heap->header->used_bytes;
    *n_blocks_out = heap->header->n_blocks;
    unlock(heap);
}

/* ---- the definition of a sane heap; the caller holds the mutex or is alone ---- */

static bool check_small(struct dragon_heap *heap, uint32_t index, uint64_t *n_live)
{
    struct dragon_heap_chunk *chunk = &heap->chunks[index];
    struct dragon_heap_tag *tags = chunk_tags(heap, index);
    uint32_t n_blocks = blocks_per_chunk(heap, chunk->size_class);
    uint32_t n_listed = 0, n_free = 0;

    for (uint32_t i = 0; i < n_blocks; i++)
        n_free += dragon_peek(&tags[i].holder) == DRAGON_HOLDER_NONE;
    for (uint32_t i = chunk->free_head; i != 0 && n_listed <= n_blocks; i = tags[i - 1].next) {
        if (i > n_blocks || dragon_peek(&tags[i - 1].holder) != DRAGON_HOLDER_NONE)
            return false;
        n_listed++;
    }
    *n_live += n_blocks - n_free;
    return n_listed == n_free && n_free == chunk->n_free;
}

bool dragon_heap_check(struct dragon_heap *heap)
{
    uint64_t n_live = 0, used_bytes = 0;

    for (uint32_t i = 0; i < dragon_peek(&heap->header->n_committed); i++) {
        struct dragon_heap_chunk *chunk = &heap->chunks[i];
        uint64_t n_before = n_live;

        switch (dragon_peek(&chunk->kind)) {
        case DRAGON_HEAP_CHUNK_SMALL:
            if (i >= heap->header->n_used || !check_small(heap, i, &n_live))
                return false;
            used_bytes += (n_live - n_before) * class_bytes(chunk->size_class);
            break;
        case DRAGON_HEAP_CHUNK_RUN:
            if (i + chunk->n_chunks > heap->header->n_used)
                return false;
            if (dragon_peek(&chunk->holder) != DRAGON_HOLDER_NONE) {
                n_live++;
                used_bytes += chunk->n_chunks * heap->chunk_bytes;
            }
            break;
        default:
            break;
        }
    }
    return n_live == heap->header->n_blocks && used_bytes == heap->header->used_bytes;
}
