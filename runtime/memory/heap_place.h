#pragma once

/*
 * Where things are in a heap: from sizes to classes, from offsets to chunks and
 * words, and what a word says. Inline, for the files of the heap only.
 */

#include "base/atomic.h"
#include "base/check.h"
#include "base/error.h"
#include "memory/heap.h"

#include <errno.h>

/* ---- words ----
 *
 *   63          47 46         32 31                 0
 *   |   holder    |    slack    |    generation     |
 *
 * slack: the room of the block less its size as asked (small blocks; 0 in runs).
 *
 * A run has one word, its chunk room for many: the second says its size, the third
 * the generation that this belongs to. Both look like closed words, with a number
 * below: no late swap of a small block, whose words these may have been, fits them.
 */

#define DRAGON_HEAP_HOLDER_SHIFT 47
#define DRAGON_HEAP_SLACK_SHIFT 32
#define DRAGON_HEAP_SLACK_MASK UINT64_C(0x7fff)
#define DRAGON_HEAP_MAX_HOLDER ((UINT32_C(1) << (64 - DRAGON_HEAP_HOLDER_SHIFT)) - 1)

/* Holds a free block while its chunk is given back. No user's holder. */
#define DRAGON_HEAP_HOLDER_CLOSED UINT32_C(15)

static inline uint64_t dragon_heap_word_of(uint32_t holder, uint64_t slack, uint32_t generation)
{
    return (uint64_t)holder << DRAGON_HEAP_HOLDER_SHIFT | slack << DRAGON_HEAP_SLACK_SHIFT |
           generation;
}

static inline uint32_t dragon_heap_word_holder(uint64_t word)
{
    return (uint32_t)(word >> DRAGON_HEAP_HOLDER_SHIFT);
}

static inline uint64_t dragon_heap_word_slack(uint64_t word)
{
    return word >> DRAGON_HEAP_SLACK_SHIFT & DRAGON_HEAP_SLACK_MASK;
}

static inline uint32_t dragon_heap_word_generation(uint64_t word)
{
    return (uint32_t)word;
}

static inline bool dragon_heap_word_is_live(uint64_t word)
{
    uint32_t holder = dragon_heap_word_holder(word);

    return holder != DRAGON_HOLDER_NONE && holder != DRAGON_HEAP_HOLDER_CLOSED;
}

/* The generation after one. Never 0, which stands for no block where blocks are
 * optional. */
static inline uint32_t dragon_heap_next_generation(uint32_t generation)
{
    return generation + 1 ? generation + 1 : 1;
}

/* ---- classes ---- */

static inline uint32_t dragon_heap_kind_small(uint32_t size_class)
{
    return DRAGON_HEAP_CHUNK_SMALL | size_class << 8;
}

static inline bool dragon_heap_kind_is_small(uint32_t kind)
{
    return (kind & 0xff) == DRAGON_HEAP_CHUNK_SMALL;
}

static inline uint32_t dragon_heap_kind_class(uint32_t kind)
{
    return kind >> 8;
}

/* What a block of size_bytes takes at the least. */
static inline uint64_t dragon_heap_room(const struct dragon_heap *heap, uint64_t size_bytes)
{
    return size_bytes > heap->min_block_bytes ? size_bytes : heap->min_block_bytes;
}

static inline uint32_t dragon_heap_class_of(const struct dragon_heap *heap, uint64_t room_bytes)
{
    return heap->class_of_lines[(room_bytes + DRAGON_HEAP_SMALLEST_BLOCK - 1) /
                                DRAGON_HEAP_SMALLEST_BLOCK];
}

static inline uint64_t dragon_heap_class_bytes(const struct dragon_heap *heap, uint32_t size_class)
{
    return heap->classes[size_class].block_lines * DRAGON_HEAP_SMALLEST_BLOCK;
}

/* Words that a chunk of this kind uses: 0 for what has no blocks, or is no kind
 * because somebody wrote over it. */
static inline uint32_t dragon_heap_n_words(const struct dragon_heap *heap, uint32_t kind)
{
    if (kind == DRAGON_HEAP_CHUNK_RUN)
        return 1;
    if (!dragon_heap_kind_is_small(kind) || dragon_heap_kind_class(kind) >= heap->n_classes)
        return 0;
    return heap->classes[dragon_heap_kind_class(kind)].n_blocks;
}

/* ---- places ---- */

static inline uint64_t dragon_heap_words_bytes(uint64_t chunk_bytes)
{
    return chunk_bytes / DRAGON_HEAP_SMALLEST_BLOCK * sizeof(uint64_t);
}

static inline _Atomic uint64_t *dragon_heap_words(const struct dragon_heap *heap, uint32_t chunk)
{
    /* An eighth of a chunk: see dragon_heap_words_bytes. */
    return (_Atomic uint64_t *)(heap->words + ((uint64_t)chunk << (heap->chunk_shift - 3)));
}

static inline uint64_t dragon_heap_chunk_offset(const struct dragon_heap *heap, uint32_t chunk)
{
    return heap->data_offset + ((uint64_t)chunk << heap->chunk_shift);
}

static inline uint64_t dragon_heap_block_offset(const struct dragon_heap *heap, uint32_t chunk,
                                                uint32_t size_class, uint32_t block)
{
    return dragon_heap_chunk_offset(heap, chunk) +
           block * dragon_heap_class_bytes(heap, size_class);
}

/* Chunks that have been used; what lies beyond has no memory. */
static inline uint32_t dragon_heap_n_committed(const struct dragon_heap *heap)
{
    uint32_t n = dragon_observe(&heap->header->n_committed); /* pairs with commit_locked */

    return n < heap->n_chunks ? n : heap->n_chunks;
}

/* Words of a chunk that may be read, whatever its line says. */
static inline uint32_t dragon_heap_n_readable(const struct dragon_heap *heap, uint32_t chunk,
                                              uint32_t kind)
{
    uint32_t n = dragon_heap_n_words(heap, kind);
    uint32_t n_backed = dragon_observe(&heap->chunks[chunk].n_words);

    return n < n_backed ? n : n_backed;
}

/* Where an offset points. */
struct dragon_heap_place {
    _Atomic uint64_t *word;
    uint32_t chunk;
    uint32_t block; /* in its chunk; 0 for a run */
    uint32_t kind;  /* of the chunk, when the offset was looked up */
};

/* -EBADMSG unless offset is the first byte of a block, live or not. */
static inline int dragon_heap_locate(const struct dragon_heap *heap, uint64_t offset,
                                     struct dragon_heap_place *place_out)
{
    uint64_t inside = offset - heap->data_offset; /* wraps below the data: too large then */
    uint64_t chunk = inside >> heap->chunk_shift;
    uint64_t line, block = 0;
    uint32_t kind;

    if (chunk >= dragon_heap_n_committed(heap))
        return dragon_error_origin(-EBADMSG);
    inside &= heap->chunk_bytes - 1;
    kind = dragon_observe(&heap->chunks[chunk].kind);
    if (dragon_heap_kind_is_small(kind) && dragon_heap_kind_class(kind) < heap->n_classes) {
        const struct dragon_heap_class *c = &heap->classes[dragon_heap_kind_class(kind)];

        line = inside / DRAGON_HEAP_SMALLEST_BLOCK;
        block = line * c->inverse >> 32;
        inside -= block * c->block_lines * DRAGON_HEAP_SMALLEST_BLOCK;
    }
    if (inside != 0 || block >= dragon_heap_n_readable(heap, (uint32_t)chunk, kind))
        return dragon_error_origin(-EBADMSG);
    *place_out = (struct dragon_heap_place){
        .word = &dragon_heap_words(heap, (uint32_t)chunk)[block],
        .chunk = (uint32_t)chunk,
        .block = (uint32_t)block,
        .kind = kind,
    };
    return 0;
}

/* ---- the size of a run ---- */

#define DRAGON_HEAP_RUN_SIZE 1u  /* index of a word */
#define DRAGON_HEAP_RUN_SIZED 2u /* whose size that is */

static inline uint64_t dragon_heap_closed_number(uint64_t number)
{
    return (uint64_t)DRAGON_HEAP_HOLDER_CLOSED << DRAGON_HEAP_HOLDER_SHIFT | number;
}

/* By who has just taken the run. */
static inline void dragon_heap_write_run_size(struct dragon_heap *heap, uint32_t first,
                                              uint32_t generation, uint64_t size_bytes)
{
    _Atomic uint64_t *words = dragon_heap_words(heap, first);

    /* Who reads this size sees the swap that went before, and reads the word again. */
    dragon_publish(&words[DRAGON_HEAP_RUN_SIZE], dragon_heap_closed_number(size_bytes));
    dragon_publish(&words[DRAGON_HEAP_RUN_SIZED], dragon_heap_closed_number(generation));
}

/* The caller reads the run's word once more. -EBADMSG: not written yet, or written
 * over. */
static inline int dragon_heap_read_run_size(const struct dragon_heap *heap, uint32_t first,
                                            uint32_t generation, uint64_t *size_bytes_out)
{
    _Atomic uint64_t *words = dragon_heap_words(heap, first);
    uint64_t room_bytes = (uint64_t)(heap->n_chunks - first) << heap->chunk_shift;
    uint64_t size_bytes;

    if (dragon_observe(&words[DRAGON_HEAP_RUN_SIZED]) != dragon_heap_closed_number(generation))
        return dragon_error_origin(-EBADMSG);
    size_bytes = dragon_observe(&words[DRAGON_HEAP_RUN_SIZE]) ^ dragon_heap_closed_number(0);
    if (size_bytes > room_bytes)
        return dragon_error_origin(-EBADMSG);
    *size_bytes_out = size_bytes;
    return 0;
}

/* ---- taking a block ---- */

/* False: it is not free. */
static inline bool dragon_heap_read_free(_Atomic uint64_t *at, uint64_t *word_out)
{
    *word_out = dragon_observe(at);
    return dragon_heap_word_holder(*word_out) == DRAGON_HOLDER_NONE;
}

/* The swap; before it the word was read, then the chunk's kind. False: somebody was
 * faster. */
static inline bool dragon_heap_take_word(_Atomic uint64_t *at, uint64_t word, uint64_t slack,
                                         uint32_t holder, uint32_t *generation_out)
{
    uint32_t generation = dragon_heap_next_generation(dragon_heap_word_generation(word));

    DRAGON_TEST_POINT("heap-before-take");
    if (!dragon_replace(at, &word, dragon_heap_word_of(holder, slack, generation)))
        return false;
    DRAGON_TEST_POINT("heap-after-take");
    *generation_out = generation;
    return true;
}

/* Make a free block the holder's: block number `block` of a chunk of small blocks that
 * had this kind when it was looked up. False: somebody was faster, or the chunk has
 * become another. No lock. */
static inline bool dragon_heap_take(struct dragon_heap *heap, uint32_t chunk, uint32_t kind,
                                    uint32_t block, uint64_t slack, uint32_t holder,
                                    uint32_t *generation_out)
{
    _Atomic uint64_t *at = &dragon_heap_words(heap, chunk)[block];
    uint64_t word;

    if (!dragon_heap_read_free(at, &word))
        return false;
    /* After the word: a chunk that becomes another changes its words first. */
    if (dragon_observe(&heap->chunks[chunk].kind) != kind)
        return false;
    return dragon_heap_take_word(at, word, slack, holder, generation_out);
}
