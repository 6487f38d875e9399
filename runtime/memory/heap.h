#pragma once

/*
 * Heap: blocks inside a segment. Private to memory/; others use memory/pool.h.
 *
 * The segment, from its start:
 *
 *   struct dragon_heap_header            one page, with the owner's root at its end
 *   struct dragon_heap_chunk [n_chunks]  the table of chunks, a line each
 *   chunks of 64 KiB, or of 4 KiB in a heap of less than 1 MiB
 *
 * A chunk is free, or holds small blocks of one size (its first bytes are then
 * a struct dragon_heap_tag for each of them), or belongs to a run of chunks
 * that is one large block.
 *
 * The truth is: the kind of each chunk and the holder of each tag or run, all
 * written by single stores. Everything else in the header and in the chunk
 * lines (lists, counters) is a cache of it. All writes happen under `mutex`.
 * Who gets the mutex from a dead holder rebuilds the caches before anything
 * else; a block that was half allocated or half freed is then one or the other.
 * Readers without the mutex (resolve) read single words.
 */

#include "memory/pool.h"
#include "memory/segment.h"
#include "wait/eventcount.h"
#include "wait/mutex.h"

#include <stdbool.h>
#include <stdint.h>

#define DRAGON_HEAP_CHUNK_BYTES UINT64_C(65536)
#define DRAGON_HEAP_SHORT_CHUNK_BYTES UINT64_C(4096)
#define DRAGON_HEAP_SHORT_BELOW_BYTES (UINT64_C(1) << 20) /* smaller heaps have short chunks */
#define DRAGON_HEAP_HEADER_BYTES UINT64_C(4096)
#define DRAGON_HEAP_ROOT_OFFSET (DRAGON_HEAP_HEADER_BYTES - DRAGON_POOL_ROOT_BYTES)
#define DRAGON_HEAP_MAX_CLASSES 40
#define DRAGON_HEAP_N_CACHED_RUNS 16
#define DRAGON_HEAP_NO_CHUNK UINT32_MAX

enum dragon_heap_chunk_kind {
    DRAGON_HEAP_CHUNK_FREE = 0,
    DRAGON_HEAP_CHUNK_SMALL,
    DRAGON_HEAP_CHUNK_RUN,      /* first chunk of a run */
    DRAGON_HEAP_CHUNK_RUN_REST, /* the others */
};

struct dragon_heap_tag {
    _Atomic uint32_t holder;
    _Atomic uint32_t generation;
    uint32_t next; /* in the chunk's list of free blocks: index + 1, 0 ends it */
    uint32_t size_bytes;
};

_Static_assert(sizeof(struct dragon_heap_tag) == 16, "shared layout");

struct dragon_heap_chunk {
    _Atomic uint32_t kind;
    uint32_t size_class; /* SMALL */
    uint32_t n_free;     /* SMALL */
    uint32_t free_head;  /* SMALL: index + 1 */
    uint32_t next;       /* SMALL with free blocks: others of the class */
    uint32_t previous;
    uint32_t n_chunks;           /* RUN */
    _Atomic uint32_t holder;     /* RUN; 0: kept for reuse, in the run cache */
    _Atomic uint32_t generation; /* RUN */
    uint32_t reserved0;
    uint64_t size_bytes; /* RUN: as asked */
    uint64_t reserved1[2];
};

_Static_assert(sizeof(struct dragon_heap_chunk) == 64, "shared layout");

struct dragon_heap_cached_run {
    uint32_t first;
    uint32_t n_chunks; /* 0: no entry */
};

struct dragon_heap_header {
    /* written once, before others can see the segment */
    uint64_t magic;
    uint32_t version;
    uint32_t n_chunks;
    uint64_t node;
    uint32_t number;
    uint32_t chunk_bytes;
    uint64_t data_offset;
    uint64_t min_block_bytes;
    uint64_t max_blocks; /* 0: any number */
    /* without a lock */
    struct dragon_eventcount freed; /* wakes who waits for room */
    /* under mutex */
    struct dragon_mutex mutex;
    _Atomic uint32_t n_committed; /* chunks with memory behind them */
    _Atomic uint32_t n_allowed;   /* chunks that may have; written by anybody, any time */
    uint32_t n_used;              /* chunks from here on are free */
    uint32_t scan_from;
    uint32_t last_generation;
    uint32_t reserved1;
    uint64_t used_bytes;
    uint64_t n_blocks;
    uint32_t partial[DRAGON_HEAP_MAX_CLASSES]; /* chunks with free blocks */
    struct dragon_heap_cached_run cached_runs[DRAGON_HEAP_N_CACHED_RUNS];
};

_Static_assert(sizeof(struct dragon_heap_header) <= DRAGON_HEAP_ROOT_OFFSET, "before the root");

struct dragon_heap {
    struct dragon_segment *segment; /* borrowed */
    struct dragon_heap_header *header;
    struct dragon_heap_chunk *chunks;
    unsigned char *data;
    /* private copies: the header's may be scribbled on */
    uint32_t n_chunks;
    uint32_t n_classes;
    uint64_t chunk_bytes;
    uint64_t largest_small; /* blocks above it are runs */
    uint64_t min_block_bytes;
    uint64_t max_blocks;
    uint32_t blocks_per_chunk[DRAGON_HEAP_MAX_CLASSES];
};

struct dragon_heap_options {
    uint64_t chunk_bytes; /* DRAGON_HEAP_CHUNK_BYTES or the short one */
    uint64_t node;
    uint32_t number;
    uint64_t min_block_bytes; /* no block occupies less; 0: as small as there is */
    uint64_t max_blocks;      /* 0: any number */
};

/* The chunks that suit a heap of size_bytes. */
uint64_t dragon_heap_chunk_bytes(uint64_t size_bytes);

/* Segment size for a heap of at least size_bytes of blocks. */
uint64_t dragon_heap_segment_bytes(uint64_t size_bytes, uint64_t chunk_bytes);

/* Lay a heap into a fresh, zeroed segment. -ENOMEM, -ENOSPC; -EINVAL: smallest
 * blocks that are larger than the heap. */
int dragon_heap_init(struct dragon_heap *heap, struct dragon_segment *segment,
                     const struct dragon_heap_options *options);

/* Take up the heap that is in a segment. -EBADMSG: there is none. */
int dragon_heap_open(struct dragon_heap *heap, struct dragon_segment *segment);

/* As dragon_pool_alloc; the block's offset in the segment and generation. */
int dragon_heap_alloc(struct dragon_heap *heap, uint64_t size_bytes, uint32_t holder,
                      uint64_t *offset_out, uint32_t *generation_out);

int dragon_heap_free(struct dragon_heap *heap, uint64_t offset, uint32_t generation);
int dragon_heap_resolve(struct dragon_heap *heap, uint64_t offset, uint32_t generation,
                        uint64_t *size_bytes_out);
int dragon_heap_find(struct dragon_heap *heap, uint64_t offset, uint32_t *generation_out,
                     uint64_t *size_bytes_out);
int dragon_heap_hold(struct dragon_heap *heap, uint64_t offset, uint32_t generation,
                     uint32_t holder, uint32_t *before_out);
/* False: the heap would have to be larger than it may grow. */
bool dragon_heap_may_fit(struct dragon_heap *heap, uint64_t size_bytes);
/* Wake who waits for room: it may have come. */
void dragon_heap_wake(struct dragon_heap *heap);
uint64_t dragon_heap_sweep(struct dragon_heap *heap, uint32_t holder);
int dragon_heap_commit(struct dragon_heap *heap, uint32_t n_chunks);
/* Where the committed chunks end, as an offset in the segment. */
uint64_t dragon_heap_committed_end(struct dragon_heap *heap);
void dragon_heap_usage(struct dragon_heap *heap, uint64_t *used_bytes_out, uint64_t *n_blocks_out);
bool dragon_heap_check(struct dragon_heap *heap);
