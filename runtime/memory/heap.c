/*
 * What memory/pool.c uses: one swap of one word each, and what follows it. Chunks
 * are in heap_chunks.c, the ways to a free block without a lock in heap_lease.c and
 * heap_runs.c.
 */
#include "memory/heap.h"

#include "base/atomic.h"
#include "base/check.h"
#include "base/deadline.h"
#include "base/error.h"
#include "memory/heap_chunks.h"
#include "memory/heap_lease.h"
#include "memory/heap_place.h"
#include "memory/heap_runs.h"
#include "memory/pool.h"
#include "os/os.h"

#include <errno.h>
#include <string.h>

#define HEAP_MAGIC UINT64_C(0x314c4f4f50475244) /* "DRGPOOL1" */
#define HEAP_VERSION 7
#define PAGE_BYTES UINT64_C(4096)
#define SMALL_BLOCKS_PER_CHUNK 2 /* at least */
#define PAUSE_NS INT64_C(1000000)

/* ---- shape ---- */

static uint64_t round_up(uint64_t n, uint64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

/* Four classes a doubling where the alignment allows it: 64, 128, 192, 256,
 * 320, 384, 448, 512, 640, 768, ... 32768. In units of 64 bytes. */
static uint32_t lines_of_class(uint32_t size_class)
{
    unsigned bits;

    if (size_class < 4)
        return size_class + 1;
    bits = 2 + (size_class - 4) / 4;
    return (UINT32_C(1) << bits) + ((size_class - 4) % 4 + 1) * (UINT32_C(1) << (bits - 2));
}

static uint64_t words_offset(uint64_t n_chunks)
{
    return DRAGON_HEAP_HEADER_BYTES +
           round_up(n_chunks * sizeof(struct dragon_heap_chunk), PAGE_BYTES);
}

static uint64_t data_offset(uint64_t n_chunks, uint64_t chunk_bytes)
{
    return round_up(words_offset(n_chunks) + n_chunks * dragon_heap_words_bytes(chunk_bytes),
                    chunk_bytes);
}

uint64_t dragon_heap_chunk_bytes(uint64_t size_bytes)
{
    return size_bytes < DRAGON_HEAP_SHORT_BELOW_BYTES ? DRAGON_HEAP_SHORT_CHUNK_BYTES
                                                      : DRAGON_HEAP_CHUNK_BYTES;
}

uint64_t dragon_heap_segment_bytes(uint64_t size_bytes, uint64_t chunk_bytes)
{
    uint64_t n_chunks = round_up(size_bytes ? size_bytes : 1, chunk_bytes) / chunk_bytes;

    return data_offset(n_chunks, chunk_bytes) + n_chunks * chunk_bytes;
}

static uint32_t largest_n_chunks(uint64_t segment_bytes, uint64_t chunk_bytes)
{
    uint64_t each =
        chunk_bytes + dragon_heap_words_bytes(chunk_bytes) + sizeof(struct dragon_heap_chunk);
    uint64_t n = segment_bytes / each;

    while (n > 0 && dragon_heap_segment_bytes(n * chunk_bytes, chunk_bytes) > segment_bytes)
        n--;
    return n < UINT32_MAX ? (uint32_t)n : 0;
}

static void make_classes(struct dragon_heap *heap)
{
    uint32_t n_lines = (uint32_t)(heap->chunk_bytes / DRAGON_HEAP_SMALLEST_BLOCK);
    uint32_t largest_lines = (uint32_t)(heap->largest_small / DRAGON_HEAP_SMALLEST_BLOCK);
    uint32_t size_class = 0;

    for (uint32_t lines = 0; lines <= largest_lines; lines++) {
        if (lines > lines_of_class(size_class))
            size_class++;
        heap->class_of_lines[lines] = (unsigned char)size_class;
    }
    heap->n_classes = size_class + 1;
    for (uint32_t i = 0; i < heap->n_classes; i++) {
        uint32_t lines = lines_of_class(i);

        heap->classes[i] = (struct dragon_heap_class){
            .n_blocks = n_lines / lines,
            .block_lines = lines,
            .inverse = ((UINT64_C(1) << 32) + lines - 1) / lines,
        };
    }
}

/* ---- lifetime ---- */

static int attach(struct dragon_heap *heap, struct dragon_segment *segment, uint32_t n_chunks,
                  const struct dragon_heap_options *options)
{
    *heap = (struct dragon_heap){
        .segment = segment,
        .header = (struct dragon_heap_header *)segment->base,
        .chunks = (struct dragon_heap_chunk *)(segment->base + DRAGON_HEAP_HEADER_BYTES),
        .words = segment->base + words_offset(n_chunks),
        .data_offset = data_offset(n_chunks, options->chunk_bytes),
        .data = segment->base + data_offset(n_chunks, options->chunk_bytes),
        .node = options->node,
        .number = options->number,
        .n_chunks = n_chunks,
        .chunk_bytes = options->chunk_bytes,
        .chunk_shift = (uint32_t)__builtin_ctzll(options->chunk_bytes),
        .largest_small = options->chunk_bytes / SMALL_BLOCKS_PER_CHUNK,
        .min_block_bytes = options->min_block_bytes,
        .max_blocks = options->max_blocks,
        .is_counted = options->is_counted || options->max_blocks != 0,
    };
    heap->is_leased = !heap->is_counted && heap->chunk_bytes == DRAGON_HEAP_CHUNK_BYTES;
    make_classes(heap);
    return dragon_error_trace(dragon_heap_lease_init(heap));
}

static void init_header(struct dragon_heap *heap)
{
    struct dragon_heap_header *header = heap->header;

    dragon_heap_init_lists(heap);
    header->version = HEAP_VERSION;
    header->n_chunks = heap->n_chunks;
    header->chunk_bytes = (uint32_t)heap->chunk_bytes;
    header->min_block_bytes = heap->min_block_bytes;
    header->max_blocks = heap->max_blocks;
    header->is_counted = heap->is_counted;
    dragon_poke(&header->n_allowed, heap->n_chunks);
    dragon_eventcount_init(&header->freed);
    dragon_eventcount_init(&header->grown);
    header->node = heap->node;
    header->number = heap->number;
    header->data_offset = heap->data_offset;
    header->magic = HEAP_MAGIC;
}

static int init_locks(struct dragon_heap_header *header)
{
    int r = dragon_mutex_init(&header->mutex);

    for (uint32_t i = 0; r == 0 && i < DRAGON_HEAP_N_OBJECT_LOCKS; i++)
        r = dragon_mutex_init(&header->object_locks[i].mutex);
    return dragon_error_trace(r);
}

int dragon_heap_init(struct dragon_heap *heap, struct dragon_segment *segment,
                     const struct dragon_heap_options *options)
{
    uint32_t n_chunks = largest_n_chunks(segment->size_bytes, options->chunk_bytes);
    int r;

    if (options->min_block_bytes > n_chunks * options->chunk_bytes)
        return dragon_error_origin(-EINVAL);
    r = dragon_segment_commit(segment, 0, DRAGON_HEAP_HEADER_BYTES);
    if (r < 0)
        return dragon_error_trace(r);
    r = init_locks((struct dragon_heap_header *)segment->base);
    if (r < 0)
        return dragon_error_trace(r);
    r = attach(heap, segment, n_chunks, options);
    if (r < 0)
        return dragon_error_trace(r);
    init_header(heap);
    return 0;
}

int dragon_heap_open(struct dragon_heap *heap, struct dragon_segment *segment)
{
    struct dragon_heap_header *header = (struct dragon_heap_header *)segment->base;
    struct dragon_heap_options options = {
        .chunk_bytes = header->chunk_bytes,
        .node = header->node,
        .number = header->number,
        .min_block_bytes = header->min_block_bytes,
        .max_blocks = header->max_blocks,
        .is_counted = header->is_counted != 0,
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
    return dragon_error_trace(attach(heap, segment, n_chunks, &options));
}

void dragon_heap_close(struct dragon_heap *heap)
{
    dragon_heap_lease_fini(heap);
}

/* ---- allocation ---- */

/* Cold: most blocks come from the current chunk of their class. */
static __attribute__((noinline)) int alloc_small(struct dragon_heap *heap, uint32_t size_class,
                                                 uint64_t slack, uint32_t holder,
                                                 uint64_t *offset_out, uint32_t *generation_out)
{
    int r;

    if (heap->is_leased &&
        dragon_heap_lease_alloc(heap, size_class, slack, holder, offset_out, generation_out) == 0)
        return 0;
    r = dragon_heap_lock(heap);
    if (r < 0)
        return dragon_error_trace(r);
    r = dragon_heap_alloc_shared_locked(heap, size_class, slack, holder, offset_out,
                                        generation_out);
    dragon_heap_unlock(heap);
    return dragon_error_trace(r);
}

/* Who waits for the mutex would hardly get it from a loop that wants it again at
 * once. */
static void let_others_in(void)
{
    _Atomic uint32_t nobody_wakes = 0;

    (void)dragon_os_futex_wait(&nobody_wakes, 0, dragon_deadline_after_ns(PAUSE_NS));
}

/* The system takes 0.3 s for a GiB of memory: too long to keep the others out. */
static void prepare_run(struct dragon_heap *heap, uint64_t size_bytes)
{
    /* Not more pieces than it has: others may need, or give back, what was brought. */
    uint64_t n_pieces = dragon_heap_room(heap, size_bytes) / DRAGON_HEAP_AT_ONCE_BYTES;
    bool has_more = true;

    while (has_more && n_pieces-- > 0 && dragon_heap_lock(heap) == 0) {
        has_more = dragon_heap_prepare_run_locked(heap, size_bytes);
        dragon_heap_unlock(heap);
        if (has_more)
            let_others_in();
    }
}

static int alloc_run(struct dragon_heap *heap, uint64_t size_bytes, uint32_t holder,
                     uint64_t *offset_out, uint32_t *generation_out)
{
    int r;

    if (dragon_heap_take_kept_run(heap, size_bytes, holder, offset_out, generation_out))
        return 0;
    prepare_run(heap, size_bytes);
    r = dragon_heap_lock(heap);
    if (r < 0)
        return dragon_error_trace(r);
    r = dragon_heap_alloc_run_locked(heap, size_bytes, holder, offset_out, generation_out);
    dragon_heap_unlock(heap);
    return dragon_error_trace(r);
}

static int alloc_counted_locked(struct dragon_heap *heap, uint64_t size_bytes, uint32_t holder,
                                uint64_t *offset_out, uint32_t *generation_out)
{
    struct dragon_heap_header *header = heap->header;
    uint64_t room = dragon_heap_room(heap, size_bytes);
    uint32_t size_class;
    int r;

    if (heap->max_blocks != 0 && header->n_blocks >= heap->max_blocks)
        return DRAGON_POOL_FULL;
    if (room > heap->largest_small) {
        r = dragon_heap_alloc_run_locked(heap, size_bytes, holder, offset_out, generation_out);
    } else {
        size_class = dragon_heap_class_of(heap, room);
        r = dragon_heap_alloc_shared_locked(heap, size_class,
                                            dragon_heap_class_bytes(heap, size_class) - size_bytes,
                                            holder, offset_out, generation_out);
    }
    if (r == 0 && ++header->n_blocks > dragon_peek(&header->most_blocks))
        dragon_poke(&header->most_blocks, header->n_blocks);
    return dragon_error_trace(r);
}

static int alloc_counted(struct dragon_heap *heap, uint64_t size_bytes, uint32_t holder,
                         uint64_t *offset_out, uint32_t *generation_out)
{
    int r;

    prepare_run(heap, size_bytes);
    r = dragon_heap_lock(heap);
    if (r < 0)
        return dragon_error_trace(r);
    r = alloc_counted_locked(heap, size_bytes, holder, offset_out, generation_out);
    dragon_heap_unlock(heap);
    return dragon_error_trace(r);
}

static __attribute__((noinline)) int alloc_other(struct dragon_heap *heap, uint64_t size_bytes,
                                                 uint32_t holder, uint64_t *offset_out,
                                                 uint32_t *generation_out)
{
    if (size_bytes > heap->n_chunks * heap->chunk_bytes)
        return DRAGON_POOL_FULL;
    if (heap->is_counted)
        return alloc_counted(heap, size_bytes, holder, offset_out, generation_out);
    return alloc_run(heap, size_bytes, holder, offset_out, generation_out);
}

int dragon_heap_alloc(struct dragon_heap *heap, uint64_t size_bytes, uint32_t holder,
                      uint64_t *offset_out, uint32_t *generation_out)
{
    struct dragon_heap_lease *lease = dragon_heap_lease_at_hand(heap);
    uint64_t room = dragon_heap_room(heap, size_bytes), slack;
    uint32_t size_class;

    dragon_check(holder != DRAGON_HOLDER_NONE && holder != DRAGON_HEAP_HOLDER_CLOSED &&
                 holder <= DRAGON_HEAP_MAX_HOLDER);
    if (room > heap->largest_small || heap->is_counted)
        return alloc_other(heap, size_bytes, holder, offset_out, generation_out);
    size_class = dragon_heap_class_of(heap, room);
    slack = dragon_heap_class_bytes(heap, size_class) - size_bytes;
    if (lease && dragon_heap_lease_try_alloc(heap, lease, size_class, slack, holder, offset_out,
                                             generation_out))
        return 0;
    return alloc_small(heap, size_class, slack, holder, offset_out, generation_out);
}

bool dragon_heap_may_fit(struct dragon_heap *heap, uint64_t size_bytes)
{
    uint64_t n_allowed = dragon_observe(&heap->header->n_allowed);

    if (n_allowed > heap->n_chunks)
        n_allowed = heap->n_chunks;
    return dragon_heap_room(heap, size_bytes) <= n_allowed * heap->chunk_bytes;
}

/* ---- release ---- */

void dragon_heap_wake(struct dragon_heap *heap)
{
    /* All: one that is woken may want more than there is, another less. */
    dragon_eventcount_wake_all(&heap->header->freed);
}

/* The swap. False: it is not this block any more. */
static inline bool release(_Atomic uint64_t *at, uint32_t generation)
{
    uint64_t word = dragon_observe(at);

    do {
        if (dragon_heap_word_generation(word) != generation || !dragon_heap_word_is_live(word))
            return false;
    } while (!dragon_replace(at, &word, dragon_heap_word_of(DRAGON_HOLDER_NONE, 0, generation)));
    DRAGON_TEST_POINT("heap-after-release");
    return true;
}

static int free_counted(struct dragon_heap *heap, const struct dragon_heap_place *place,
                        uint32_t generation)
{
    int r = dragon_heap_lock(heap);

    if (r < 0)
        return dragon_error_trace(r);
    if (!release(place->word, generation)) {
        r = dragon_error_origin(-EBADMSG);
    } else {
        heap->header->n_blocks--;
        if (place->kind == DRAGON_HEAP_CHUNK_RUN)
            dragon_heap_keep_run_locked(heap, place->chunk);
        else
            dragon_heap_freed_locked(heap, place->chunk, place->block);
    }
    dragon_heap_unlock(heap);
    return r;
}

/* Any block: a run, one of another thread's chunk or of a chunk nobody leases. */
static __attribute__((noinline)) int free_other(struct dragon_heap *heap, uint64_t offset,
                                                uint32_t generation)
{
    struct dragon_heap_place place;
    int r = dragon_heap_locate(heap, offset, &place);

    if (r < 0)
        return dragon_error_trace(r);
    if (heap->is_counted)
        return dragon_error_trace(free_counted(heap, &place, generation));
    if (!release(place.word, generation))
        return dragon_error_origin(-EBADMSG);
    if (place.kind == DRAGON_HEAP_CHUNK_RUN)
        dragon_heap_keep_run(heap, place.chunk);
    else
        dragon_heap_lease_freed_by_other(heap, &place);
    return 0;
}

/* A block of a chunk that this thread leases, with its record. False: it is not a
 * block of that class: the chunk may have become another. */
static inline bool free_own(struct dragon_heap *heap, struct dragon_heap_lease *lease,
                            struct dragon_heap_record *record, uint64_t inside, uint32_t generation)
{
    const struct dragon_heap_class *c = &heap->classes[record->size_class];
    uint64_t block = (inside / DRAGON_HEAP_SMALLEST_BLOCK) * c->inverse >> 32;

    if (block * c->block_lines * DRAGON_HEAP_SMALLEST_BLOCK != inside ||
        block >= record->n_blocks ||
        dragon_observe(&heap->chunks[record->chunk].kind) != record->kind ||
        !release(&record->words[block], generation))
        return false;
    dragon_heap_lease_freed(lease, record, (uint32_t)block);
    return true;
}

int dragon_heap_free(struct dragon_heap *heap, uint64_t offset, uint32_t generation)
{
    uint64_t inside = offset - heap->data_offset; /* wraps below the data: too large then */
    uint64_t chunk = inside >> heap->chunk_shift;
    struct dragon_heap_record *record = NULL;
    struct dragon_heap_lease *lease = dragon_heap_lease_at_hand(heap);
    int r = 0;

    if (chunk < heap->n_chunks)
        record = dragon_heap_lease_record(heap, lease, chunk);
    if (!record || !free_own(heap, lease, record, inside & (heap->chunk_bytes - 1), generation))
        r = free_other(heap, offset, generation);
    if (r < 0)
        return dragon_error_trace(r);
    DRAGON_TEST_POINT("heap-before-wake");
    dragon_eventcount_wake_all_after_change(&heap->header->freed);
    return 0;
}

/* ---- names of blocks ---- */

/* The size of the block that `word` says is live, as it was asked for. Its word
 * is read again by the caller: another block may have come. */
static int size_of(struct dragon_heap *heap, const struct dragon_heap_place *place, uint64_t word,
                   uint64_t *size_bytes_out)
{
    uint64_t room, slack;

    if (place->kind == DRAGON_HEAP_CHUNK_RUN)
        return dragon_error_trace(dragon_heap_read_run_size(
            heap, place->chunk, dragon_heap_word_generation(word), size_bytes_out));
    room = dragon_heap_class_bytes(heap, dragon_heap_kind_class(place->kind));
    slack = dragon_heap_word_slack(word);
    if (slack > room)
        return dragon_error_origin(-EBADMSG);
    *size_bytes_out = room - slack;
    return 0;
}

/* What the word of a live block says, and its size; both of one moment. */
static int read_block(struct dragon_heap *heap, const struct dragon_heap_place *place,
                      uint64_t *word_out, uint64_t *size_bytes_out)
{
    uint64_t word, size_bytes;
    int r;

    do {
        word = dragon_observe(place->word);
        /* The kind after the word, as in dragon_heap_take: in a chunk that has become
         * another this may be the word of a block with another place. */
        if (!dragon_heap_word_is_live(word) ||
            dragon_observe(&heap->chunks[place->chunk].kind) != place->kind)
            return dragon_error_origin(-EBADMSG);
        r = size_of(heap, place, word, &size_bytes);
        if (r < 0)
            return dragon_error_trace(r);
    } while (dragon_observe(place->word) != word);
    *word_out = word;
    *size_bytes_out = size_bytes;
    return 0;
}

int dragon_heap_find(struct dragon_heap *heap, uint64_t offset, uint32_t *generation_out,
                     uint64_t *size_bytes_out)
{
    struct dragon_heap_place place;
    uint64_t word;
    int r = dragon_heap_locate(heap, offset, &place);

    if (r == 0)
        r = read_block(heap, &place, &word, size_bytes_out);
    if (r == 0)
        *generation_out = dragon_heap_word_generation(word);
    return dragon_error_trace(r);
}

int dragon_heap_resolve(struct dragon_heap *heap, uint64_t offset, uint32_t generation,
                        uint64_t *size_bytes_out)
{
    uint64_t size_bytes = 0;
    uint32_t found = 0;
    int r = dragon_heap_find(heap, offset, &found, &size_bytes);

    if (r < 0)
        return dragon_error_trace(r);
    if (found != generation)
        return dragon_error_origin(-EBADMSG);
    *size_bytes_out = size_bytes;
    return 0;
}

static uint64_t with_holder(uint64_t word, uint32_t holder)
{
    return dragon_heap_word_of(holder, dragon_heap_word_slack(word),
                               dragon_heap_word_generation(word));
}

int dragon_heap_hold(struct dragon_heap *heap, uint64_t offset, uint32_t generation,
                     uint32_t holder, uint32_t *before_out)
{
    struct dragon_heap_place place;
    uint64_t word;
    int r;

    dragon_check(holder != DRAGON_HOLDER_NONE && holder != DRAGON_HEAP_HOLDER_CLOSED &&
                 holder <= DRAGON_HEAP_MAX_HOLDER);
    r = dragon_heap_locate(heap, offset, &place);
    if (r < 0)
        return dragon_error_trace(r);
    word = dragon_observe(place.word);
    do {
        if (dragon_heap_word_generation(word) != generation || !dragon_heap_word_is_live(word))
            return dragon_error_origin(-EBADMSG);
    } while (!dragon_replace(place.word, &word, with_holder(word, holder)));
    *before_out = dragon_heap_word_holder(word);
    return 0;
}

/* ---- all blocks ---- */

bool dragon_heap_next(struct dragon_heap *heap, uint32_t only, uint64_t *offset_io,
                      uint32_t *generation_out, uint64_t *size_bytes_out, uint32_t *holder_out)
{
    uint64_t from = *offset_io > heap->data_offset ? *offset_io - heap->data_offset : 0;
    uint64_t inside = from & (heap->chunk_bytes - 1);
    uint32_t n = dragon_heap_n_committed(heap);

    for (uint64_t chunk = from >> heap->chunk_shift; chunk < n; chunk++, inside = 0) {
        struct dragon_heap_place place = {.chunk = (uint32_t)chunk};
        uint64_t block_bytes = heap->chunk_bytes, word;
        uint32_t n_words;

        place.kind = dragon_observe(&heap->chunks[chunk].kind);
        n_words = dragon_heap_n_readable(heap, place.chunk, place.kind);
        if (n_words > 0 && place.kind != DRAGON_HEAP_CHUNK_RUN)
            block_bytes = dragon_heap_class_bytes(heap, dragon_heap_kind_class(place.kind));
        for (place.block = (uint32_t)((inside + block_bytes - 1) / block_bytes);
             place.block < n_words; place.block++) {
            place.word = &dragon_heap_words(heap, place.chunk)[place.block];
            if (only != DRAGON_HOLDER_NONE &&
                dragon_heap_word_holder(dragon_peek(place.word)) != only)
                continue;
            if (read_block(heap, &place, &word, size_bytes_out) < 0)
                continue;
            *offset_io = dragon_heap_chunk_offset(heap, place.chunk) + place.block * block_bytes;
            *generation_out = dragon_heap_word_generation(word);
            *holder_out = dragon_heap_word_holder(word);
            return true;
        }
    }
    return false;
}

bool dragon_heap_has_blocks_of(struct dragon_heap *heap, uint32_t holder)
{
    uint32_t n = dragon_heap_n_committed(heap);

    for (uint32_t i = 0; i < n; i++) {
        uint32_t n_words = dragon_heap_n_readable(heap, i, dragon_observe(&heap->chunks[i].kind));

        for (uint32_t b = 0; b < n_words; b++)
            if (dragon_heap_word_holder(dragon_peek(&dragon_heap_words(heap, i)[b])) == holder)
                return true;
    }
    return false;
}

/* ---- sweeping ---- */

struct sweep {
    uint32_t holder;
    dragon_pool_is_kept *is_kept; /* or NULL */
    void *context;
};

/* The swap; with the count, if blocks are counted. */
static bool replace_swept(struct dragon_heap *heap, _Atomic uint64_t *at, uint64_t word,
                          uint64_t after)
{
    bool is_done;

    if (!heap->is_counted || dragon_heap_lock(heap) < 0)
        return dragon_replace(at, &word, after);
    is_done = dragon_replace(at, &word, after);
    heap->header->n_blocks -= is_done && !dragon_heap_word_is_live(after);
    dragon_heap_unlock(heap);
    return is_done;
}

/* True: the block was freed. */
static bool sweep_word(struct dragon_heap *heap, _Atomic uint64_t *at, const struct sweep *sweep,
                       uint64_t offset)
{
    uint64_t word, after;

    do {
        word = dragon_peek(at);
        if (dragon_heap_word_holder(word) != sweep->holder)
            return false;
        after = dragon_heap_word_of(DRAGON_HOLDER_NONE, 0, dragon_heap_word_generation(word));
        if (sweep->is_kept &&
            sweep->is_kept(sweep->context, offset, dragon_heap_word_generation(word)))
            after = with_holder(word, DRAGON_HOLDER_CHANNEL);
    } while (!replace_swept(heap, at, word, after));
    DRAGON_TEST_POINT("heap-sweeping");
    return !dragon_heap_word_is_live(after);
}

static uint32_t sweep_chunk(struct dragon_heap *heap, uint32_t chunk, uint32_t kind,
                            const struct sweep *sweep)
{
    uint32_t n = dragon_heap_n_readable(heap, chunk, kind), n_freed = 0;
    uint64_t offset = dragon_heap_chunk_offset(heap, chunk);
    uint64_t block_bytes = kind == DRAGON_HEAP_CHUNK_RUN
                               ? 0
                               : dragon_heap_class_bytes(heap, dragon_heap_kind_class(kind));
    _Atomic uint64_t *words = dragon_heap_words(heap, chunk);

    for (uint32_t i = 0; i < n; i++)
        if (dragon_heap_word_holder(dragon_peek(&words[i])) == sweep->holder)
            n_freed += sweep_word(heap, &words[i], sweep, offset + i * block_bytes);
    return n_freed;
}

/* The blocks of the chunk that were freed may serve again. */
static void offer_swept(struct dragon_heap *heap, uint32_t chunk, uint32_t kind, uint32_t n_freed)
{
    dragon_fetch_add(&heap->chunks[chunk].n_remote, n_freed);
    if (kind == DRAGON_HEAP_CHUNK_RUN) {
        dragon_heap_keep_run(heap, chunk);
    } else if (!dragon_peek(&heap->chunks[chunk].lease) &&
               !dragon_peek(&heap->chunks[chunk].is_listed) && dragon_heap_lock(heap) == 0) {
        dragon_heap_offer_chunk_locked(heap, chunk);
        dragon_heap_unlock(heap);
    }
}

static uint64_t sweep_all(struct dragon_heap *heap, const struct sweep *sweep)
{
    uint32_t n = dragon_heap_n_committed(heap);
    uint64_t n_freed = 0;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t kind = dragon_observe(&heap->chunks[i].kind);
        uint32_t n_here = 0;

        if (dragon_heap_n_words(heap, kind) > 0)
            n_here = sweep_chunk(heap, i, kind, sweep);
        if (n_here > 0)
            offer_swept(heap, i, kind, n_here);
        n_freed += n_here;
    }
    return n_freed;
}

uint64_t dragon_heap_sweep(struct dragon_heap *heap, uint32_t holder, dragon_pool_is_kept *is_kept,
                           void *context)
{
    struct sweep sweep = {holder, is_kept, context};
    uint64_t n_freed;

    dragon_check(holder != DRAGON_HOLDER_NONE && holder != DRAGON_HEAP_HOLDER_CLOSED);
    n_freed = sweep_all(heap, &sweep);
    if (n_freed > 0)
        dragon_heap_wake(heap);
    return n_freed;
}

/* ---- memory ---- */

int dragon_heap_commit(struct dragon_heap *heap, uint32_t n_chunks)
{
    int r = dragon_heap_lock(heap);

    if (r < 0)
        return dragon_error_trace(r);
    r = dragon_heap_commit_locked(heap, n_chunks < heap->n_chunks ? n_chunks : heap->n_chunks);
    dragon_heap_unlock(heap);
    return dragon_error_trace(r);
}

/* Piece by piece: many GiB take seconds, and others need the mutex. */
static uint64_t trim_from(struct dragon_heap *heap, uint32_t from, uint64_t keep_bytes)
{
    uint64_t n_bytes = 0, n_now;

    for (;;) {
        if (dragon_heap_lock(heap) < 0)
            return n_bytes;
        n_now = dragon_heap_trim_locked(heap, from, keep_bytes);
        dragon_heap_unlock(heap);
        n_bytes += n_now;
        if (n_now < DRAGON_HEAP_AT_ONCE_BYTES)
            return n_bytes;
        let_others_in();
    }
}

uint64_t dragon_heap_trim(struct dragon_heap *heap, uint64_t keep_bytes)
{
    if (dragon_heap_lock(heap) < 0)
        return 0;
    dragon_heap_reclaim_locked(heap);
    dragon_heap_unlock(heap);
    return trim_from(heap, 0, keep_bytes);
}

uint64_t dragon_heap_trim_idle(struct dragon_heap *heap, uint64_t keep_bytes)
{
    uint32_t from;

    if (dragon_heap_lock(heap) < 0)
        return 0;
    dragon_heap_reclaim_locked(heap);
    from = dragon_exchange(&heap->header->taken_end, 0);
    dragon_heap_unlock(heap);
    return trim_from(heap, from, keep_bytes);
}

uint64_t dragon_heap_committed_end(struct dragon_heap *heap)
{
    return dragon_heap_chunk_offset(heap, dragon_heap_n_committed(heap));
}

/* ---- inspection ---- */

static uint32_t count_live(struct dragon_heap *heap, uint32_t chunk, uint32_t kind)
{
    uint32_t n_words = dragon_heap_n_readable(heap, chunk, kind), n_live = 0;

    for (uint32_t b = 0; b < n_words; b++)
        n_live += dragon_heap_word_is_live(dragon_peek(&dragon_heap_words(heap, chunk)[b]));
    return n_live;
}

void dragon_heap_usage(struct dragon_heap *heap, struct dragon_heap_usage *usage_out)
{
    uint32_t n = dragon_heap_n_committed(heap);

    *usage_out = (struct dragon_heap_usage){0};
    for (uint32_t i = 0; i < n; i++) {
        uint32_t kind = dragon_observe(&heap->chunks[i].kind);
        uint32_t n_live = count_live(heap, i, kind);
        uint64_t each;

        if (n_live == 0)
            continue;
        each = kind == DRAGON_HEAP_CHUNK_RUN
                   ? (uint64_t)dragon_peek(&heap->chunks[i].n_chunks) << heap->chunk_shift
                   : dragon_heap_class_bytes(heap, dragon_heap_kind_class(kind));
        usage_out->n_blocks += n_live;
        usage_out->used_bytes += n_live * each;
    }
    if (heap->is_counted)
        usage_out->most_blocks = dragon_peek(&heap->header->most_blocks);
}

/* Reports the stretch of n_empty chunks that ends here, and begins a new one. */
static void report_stretch(struct dragon_heap *heap, uint64_t *n_empty_io,
                           dragon_pool_free_blocks_of *report, void *context)
{
    if (*n_empty_io > 0)
        report(context, *n_empty_io << heap->chunk_shift, 1);
    *n_empty_io = 0;
}

void dragon_heap_free_blocks(struct dragon_heap *heap, dragon_pool_free_blocks_of *report,
                             void *context)
{
    uint32_t n_allowed = dragon_observe(&heap->header->n_allowed);
    uint32_t n_committed = dragon_heap_n_committed(heap);
    bool is_run_live = false; /* the run that the present chunk may be the rest of */
    uint64_t n_empty = 0;

    for (uint32_t i = 0; i < n_committed; i++) {
        uint32_t kind = dragon_observe(&heap->chunks[i].kind);
        uint32_t n_live = count_live(heap, i, kind);

        if (kind == DRAGON_HEAP_CHUNK_RUN)
            is_run_live = n_live > 0;
        if (n_live == 0 && !(kind == DRAGON_HEAP_CHUNK_RUN_REST && is_run_live)) {
            n_empty += i < n_allowed;
            continue;
        }
        report_stretch(heap, &n_empty, report, context);
        if (dragon_heap_kind_is_small(kind) && n_live < dragon_heap_n_words(heap, kind))
            report(context, dragon_heap_class_bytes(heap, dragon_heap_kind_class(kind)),
                   dragon_heap_n_words(heap, kind) - n_live);
    }
    if (n_allowed > n_committed)
        n_empty += n_allowed - n_committed;
    report_stretch(heap, &n_empty, report, context);
}

uint64_t dragon_heap_n_smallest(const struct dragon_heap *heap, uint64_t size_bytes)
{
    uint64_t least = dragon_heap_room(heap, 1);

    if (least > heap->largest_small)
        return size_bytes / round_up(least, heap->chunk_bytes);
    return (size_bytes >> heap->chunk_shift) *
           heap->classes[dragon_heap_class_of(heap, least)].n_blocks;
}

uint64_t dragon_heap_n_block_sizes(const struct dragon_heap *heap)
{
    uint64_t least = dragon_heap_room(heap, 1);
    uint64_t n_chunks_at_least = (least + heap->chunk_bytes - 1) >> heap->chunk_shift;
    uint64_t n_runs = heap->n_chunks - n_chunks_at_least + 1;

    if (least > heap->largest_small)
        return n_runs;
    return heap->n_classes - dragon_heap_class_of(heap, least) + n_runs;
}
