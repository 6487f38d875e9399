#pragma once

/*
 * Heap: blocks inside a segment. Private to memory/; others use memory/pool.h.
 *
 * The segment, from its start:
 *
 *   struct dragon_heap_header            one page, with the owner's root at its end
 *   struct dragon_heap_chunk [n_chunks]  the table of chunks, a line each
 *   words                                for each chunk an area of chunk_bytes / 8
 *   chunks of 64 KiB, or of 4 KiB in a small heap
 *
 * A chunk is free, or holds small blocks of one class, or belongs to a run of
 * chunks that is one large block. Each block has a word in the area of its
 * chunk: who holds it, its generation, and how much of its room is not used.
 *
 * The truth is: the kind of each chunk and the words. A word changes by compare
 * and swap only, by any thread of any process: allocation, release, transfer and
 * sweep are one swap each, so whoever is killed has done it or not. Kinds change
 * under `mutex`, and only while all words of the chunk are closed. All else in
 * the header and in the chunk lines is a cache or a hint; who gets the mutex from
 * a dead holder rebuilds it. docs/heap.md has the protocol, tests/model searches it.
 *
 * Which of the free blocks a thread takes is its own business. Mostly it leases
 * chunks and keeps private lists of what it believes to be free
 * (memory/heap_lease.h); its first few blocks of a class, and all in a counted heap
 * or one with short chunks, it takes under the mutex from chunks that nobody leases.
 */

#include "base/atomic.h"
#include "memory/pool.h"
#include "memory/segment.h"
#include "wait/eventcount.h"
#include "wait/mutex.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dragon_heap_lease;
struct dragon_heap_record;

#define DRAGON_HEAP_CHUNK_BYTES UINT64_C(65536)
#define DRAGON_HEAP_SHORT_CHUNK_BYTES UINT64_C(4096)
#define DRAGON_HEAP_SHORT_BELOW_BYTES (UINT64_C(1) << 20) /* smaller heaps have short chunks */
#define DRAGON_HEAP_HEADER_BYTES UINT64_C(4096)
#define DRAGON_HEAP_ROOT_OFFSET (DRAGON_HEAP_HEADER_BYTES - DRAGON_POOL_ROOT_BYTES)
#define DRAGON_HEAP_MAX_CLASSES 32
#define DRAGON_HEAP_N_KEPT_RUNS 16
#define DRAGON_HEAP_NO_CHUNK UINT32_MAX
#define DRAGON_HEAP_LARGEST_SMALL UINT64_C(32768)
#define DRAGON_HEAP_SMALLEST_BLOCK UINT64_C(64)

/* ---- shared layout ---- */

/* The low byte of a chunk's kind; SMALL has its class in the next one. */
enum dragon_heap_chunk_kind {
    DRAGON_HEAP_CHUNK_FREE = 0,
    DRAGON_HEAP_CHUNK_SMALL,
    DRAGON_HEAP_CHUNK_RUN,      /* first chunk of a run, which has one word */
    DRAGON_HEAP_CHUNK_RUN_REST, /* the others */
};

/* Who writes: n_remote: anybody, atomically; scan_from: anybody; all else: the holder of
 * the mutex. */
struct dragon_heap_chunk {
    _Atomic uint32_t kind;
    _Atomic uint32_t lease;     /* pid of the process that allocates from it, 0: none; a hint */
    _Atomic uint32_t n_remote;  /* blocks that others freed since the leaseholder looked; a hint */
    uint32_t last_generation;   /* FREE: no word of the chunk ever had a greater one */
    _Atomic uint32_t n_words;   /* words with memory behind them */
    _Atomic uint32_t is_listed; /* SMALL without a lease: in the list of its class */
    uint32_t next;
    uint32_t previous;
    _Atomic uint32_t n_chunks;  /* RUN */
    uint32_t has_memory;        /* the chunk itself */
    _Atomic uint32_t scan_from; /* SMALL: words before it were not free; a hint */
    uint32_t opened_generation; /* SMALL, RUN: last_generation when it was opened */
    uint32_t reserved[4];
};

_Static_assert(sizeof(struct dragon_heap_chunk) == 64, "shared layout");

/* A run that was free a while ago: a guess. By anybody, one swap of `run` after the
 * other; the rest are hints. */
struct dragon_heap_kept_run {
    _Atomic uint64_t run;      /* first chunk << 32 | chunks; 0: no entry */
    _Atomic uint32_t freed_by; /* pid; of long ones */
    _Atomic uint32_t order;    /* of long ones: by one more than of those freed before */
};

#define DRAGON_HEAP_N_OBJECT_LOCKS 16u

/* On a line of its own. */
struct dragon_heap_object_lock {
    struct dragon_mutex mutex;
    char reserved[64 - sizeof(struct dragon_mutex)];
};

/* What is read with each block, what changes with each run, and the rest have lines
 * of their own. */
#define DRAGON_HEAP_PADDING (64 - 2 * sizeof(struct dragon_eventcount) - 2 * sizeof(uint32_t))

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
    uint32_t is_counted; /* all under mutex, n_blocks and most_blocks are kept */
    uint32_t reserved0;
    /* without a lock */
    struct dragon_eventcount freed; /* wakes who waits for room */
    struct dragon_eventcount grown; /* wakes who gives memory back */
    _Atomic uint32_t taken_end;     /* no chunk from here on was taken since the last trim of
                                       idle ones */
    _Atomic uint32_t n_displaced;   /* runs that had to make room for others */
    unsigned char reserved1[DRAGON_HEAP_PADDING];
    struct dragon_heap_kept_run kept_runs[DRAGON_HEAP_N_KEPT_RUNS];
    /* under mutex, but for the first two, which anybody may read */
    struct dragon_mutex mutex;
    _Atomic uint32_t n_committed; /* chunks that have been used: their lines have memory */
    _Atomic uint32_t n_allowed;   /* chunks that may be; written by anybody, any time */
    _Atomic uint32_t n_backed;    /* chunks with memory behind them now */
    uint32_t n_used;              /* chunks from here on are free */
    uint32_t scan_from;           /* chunks before it are not free */
    uint32_t reclaim_at;          /* before more are committed: look for empty ones */
    uint32_t partial[DRAGON_HEAP_MAX_CLASSES]; /* chunks with free blocks that nobody leases */
    uint64_t n_blocks;                         /* counted heaps */
    _Atomic uint64_t most_blocks;              /* counted heaps: that there have been at one time */
    /* guard the users of objects, see memory/object.h; an object has one by its offset */
    struct dragon_heap_object_lock object_locks[DRAGON_HEAP_N_OBJECT_LOCKS];
};

_Static_assert(sizeof(struct dragon_heap_header) <= DRAGON_HEAP_ROOT_OFFSET, "before the root");
_Static_assert(offsetof(struct dragon_heap_header, kept_runs) == 128, "on lines of their own");

/* ---- this process's view ---- */

/* A class of small blocks. Runs are served by one more, of one block. */
struct dragon_heap_class {
    uint32_t n_blocks;    /* in a chunk */
    uint32_t block_lines; /* the room of a block, in units of 64 bytes */
    uint64_t inverse;     /* 2^32 / block_lines, rounded up */
};

/* Which thread here leases a chunk, and its record: written by that thread, to no
 * lease first, then the record, then the lease. Others compare the lease with their own,
 * before and after they read the record. */
struct dragon_heap_owner {
    _Atomic(struct dragon_heap_lease *) lease;
    _Atomic(struct dragon_heap_record *) record;
};

struct dragon_heap {
    struct dragon_segment *segment; /* borrowed */
    struct dragon_heap_header *header;
    struct dragon_heap_chunk *chunks;
    unsigned char *words;
    unsigned char *data;
    /* private copies: the header's may be scribbled on */
    uint64_t node;
    uint32_t number;
    uint32_t n_chunks;
    uint32_t n_classes;
    uint32_t chunk_shift;
    uint64_t data_offset;
    uint64_t chunk_bytes;
    uint64_t largest_small; /* blocks above it are runs */
    uint64_t min_block_bytes;
    uint64_t max_blocks;
    bool is_counted;
    bool is_leased; /* threads lease chunks */
    struct dragon_heap_class classes[DRAGON_HEAP_MAX_CLASSES];
    unsigned char class_of_lines[DRAGON_HEAP_LARGEST_SMALL / DRAGON_HEAP_SMALLEST_BLOCK + 1];
    /* leases, see memory/heap_lease.h */
    _Atomic uint64_t known_pid; /* how many forks led here << 32 | pid; 0: not known */
    uint64_t serial;            /* no other heap of this process has or had it */
    uint32_t n_forks;           /* that led to the process that made `leases` */
    struct dragon_heap_owner *owners;
    struct dragon_heap_lease *leases;
};

struct dragon_heap_options {
    uint64_t chunk_bytes; /* DRAGON_HEAP_CHUNK_BYTES or the short one */
    uint64_t node;
    uint32_t number;
    uint64_t min_block_bytes; /* no block occupies less; 0: as small as there is */
    uint64_t max_blocks;      /* 0: any number */
    bool is_counted;          /* keep the numbers of blocks at hand; implied by max_blocks */
};

struct dragon_heap_usage {
    uint64_t used_bytes; /* that blocks occupy, their rounding included */
    uint64_t n_blocks;
    uint64_t most_blocks; /* counted heaps, else 0 */
};

/* ---- shape ---- */

/* The chunks that suit a heap of size_bytes. */
uint64_t dragon_heap_chunk_bytes(uint64_t size_bytes);

/* Segment size for a heap of at least size_bytes of blocks. */
uint64_t dragon_heap_segment_bytes(uint64_t size_bytes, uint64_t chunk_bytes);

/* ---- lifetime ---- */

/* Lay a heap into a fresh, zeroed segment and use it. -ENOMEM, -ENOSPC; -EINVAL:
 * smallest blocks that are larger than the heap. */
int dragon_heap_init(struct dragon_heap *heap, struct dragon_segment *segment,
                     const struct dragon_heap_options *options);

/* Use the heap that is in a segment. -EBADMSG: there is none. -ENOMEM. */
int dragon_heap_open(struct dragon_heap *heap, struct dragon_segment *segment);

/* End the use of it by this process, by all its threads. */
void dragon_heap_close(struct dragon_heap *heap);

/* ---- blocks ---- */

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

/* As dragon_pool_sweep_except, dragon_pool_has_blocks_of and dragon_pool_next; only: the
 * holder whose blocks are looked for, DRAGON_HOLDER_NONE: all. */
uint64_t dragon_heap_sweep(struct dragon_heap *heap, uint32_t holder, dragon_pool_is_kept *is_kept,
                           void *context);
bool dragon_heap_has_blocks_of(struct dragon_heap *heap, uint32_t holder);
bool dragon_heap_next(struct dragon_heap *heap, uint32_t only, uint64_t *offset_io,
                      uint32_t *generation_out, uint64_t *size_bytes_out, uint32_t *holder_out);

/* False: the heap would have to be larger than it may grow. */
bool dragon_heap_may_fit(struct dragon_heap *heap, uint64_t size_bytes);

/* Wake who waits for room: it may have come. */
void dragon_heap_wake(struct dragon_heap *heap);

/* ---- memory ---- */

/* Bring memory behind the first n_chunks. */
int dragon_heap_commit(struct dragon_heap *heap, uint32_t n_chunks);

/* As dragon_pool_trim and dragon_pool_trim_idle. */
uint64_t dragon_heap_trim(struct dragon_heap *heap, uint64_t keep_bytes);
uint64_t dragon_heap_trim_idle(struct dragon_heap *heap, uint64_t keep_bytes);

/* Where the chunks that have been used end, as an offset in the segment. */
uint64_t dragon_heap_committed_end(struct dragon_heap *heap);

/* ---- inspection ---- */

/* Counts the words: exact if nobody changes them meanwhile. */
void dragon_heap_usage(struct dragon_heap *heap, struct dragon_heap_usage *usage_out);

/* As dragon_pool_free_blocks and dragon_pool_n_block_sizes. */
void dragon_heap_free_blocks(struct dragon_heap *heap, dragon_pool_free_blocks_of *report,
                             void *context);
uint64_t dragon_heap_n_block_sizes(const struct dragon_heap *heap);

/* Blocks of the smallest size that size_bytes of chunks have room for. */
uint64_t dragon_heap_n_smallest(const struct dragon_heap *heap, uint64_t size_bytes);

/* True if chunk table, words, lists and counters agree. Takes the locks. */
bool dragon_heap_check(struct dragon_heap *heap);
