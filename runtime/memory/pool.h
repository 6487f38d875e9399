#pragma once

/*
 * Pool: memory that processes share, with blocks in it. A managed pool is an
 * anonymous memory file that a node hands to its processes (no name, gone with
 * the last of them); an unmanaged one is a POSIX shared-memory file.
 *
 * Memory is committed chunk by chunk before it is used, so a pool that cannot
 * grow answers -ENOMEM or -ENOSPC and nobody meets SIGBUS.
 *
 * Each block has a holder (memory/handle.h), and changes hands by one compare and
 * swap. A process may be killed at any instruction of any function here: blocks
 * stay whole, and what it held stays allocated until dragon_pool_sweep.
 *
 * All functions: any thread, any process that has the pool open, none in a
 * signal handler.
 */

#include "memory/handle.h"

#include <stdbool.h>
#include <stdint.h>

struct dragon_eventcount;
struct dragon_mutex;
struct dragon_pool;

/* Exact if nobody allocates or frees meanwhile. Costs a look at each block. */
struct dragon_pool_statistics {
    uint64_t size_bytes;      /* that the pool may grow to, its limit */
    uint64_t committed_bytes; /* that have memory behind them */
    uint64_t free_bytes;      /* size less what blocks occupy, their rounding included */
    uint64_t n_blocks;        /* allocated now */
    uint64_t most_blocks;     /* at one time since the pool was made; 0 if it is not counted */
    uint64_t max_blocks;      /* that may be allocated at one time; 0: any number */
    uint64_t n_smallest;      /* blocks of the smallest size that size_bytes has room for */
};

enum dragon_pool_outcome {
    DRAGON_POOL_FULL = 1,    /* no room within size_bytes, or max_blocks are allocated */
    DRAGON_POOL_TIMEOUT,     /* dragon_pool_alloc_wait: deadline_ns has passed */
    DRAGON_POOL_INTERRUPTED, /* likewise: a signal handler ran, call again */
};

/* What a pool is made with; zeroes are defaults. */
struct dragon_pool_options {
    uint64_t size_bytes;      /* at the most; needed */
    uint64_t node;            /* goes into the handles of its blocks, */
    uint32_t number;          /* and so does this */
    uint64_t min_block_bytes; /* no block occupies less; at least 64 */
    uint64_t max_blocks;      /* allocated at one time; 0: as many as fit */
    bool is_counted;          /* keep most_blocks: each allocation and release takes a lock; so with
                                 max_blocks */
};

/* ---- lifetime ---- */

/* A pool without a name that may grow to options->size_bytes, which is rounded
 * up to 64 KiB, or to 4 KiB if it is below 1 MiB, or counted and below 64 MiB. -EINVAL: a size of
 * 0, or smallest blocks larger than that. -ENOMEM: no such size fits. */
int dragon_pool_make_managed(const struct dragon_pool_options *options,
                             struct dragon_pool **pool_out);

/* A pool in the POSIX shared-memory file "/name", mode 0600. -EEXIST,
 * -EINVAL (bad name or size), -ENAMETOOLONG. */
int dragon_pool_make_named(const char *name, const struct dragon_pool_options *options,
                           struct dragon_pool **pool_out);

/* The same without options. */
int dragon_pool_create_managed(uint64_t size_bytes, uint64_t node, uint32_t number,
                               struct dragon_pool **pool_out);
int dragon_pool_create_named(const char *name, uint64_t size_bytes, uint64_t node, uint32_t number,
                             struct dragon_pool **pool_out);

/* Open an existing pool. fd: consumed, also on failure. -EBADMSG: what is
 * there is no pool, or of another version. */
int dragon_pool_open_fd(int fd, struct dragon_pool **pool_out);
int dragon_pool_open_named(const char *name, struct dragon_pool **pool_out);

/* Unmap. Blocks stay, others keep the pool. NULL is fine. */
void dragon_pool_close(struct dragon_pool *pool);

/* Remove the name of a named pool: nobody new can open it, its memory goes
 * with the last process that has it open. */
int dragon_pool_unlink(const char *name);

/* True if the file "/name" is this pool's: not, if it was unlinked, even if
 * another pool has the name now. */
bool dragon_pool_has_name(const struct dragon_pool *pool, const char *name);

/* ---- blocks ---- */

/* A block of at least size_bytes (0 counts as 1), aligned to 64 bytes, contents
 * undefined. holder: see memory/handle.h, not DRAGON_HOLDER_NONE. 0;
 * DRAGON_POOL_FULL; -ENOMEM or -ENOSPC: the system has no memory for it. */
int dragon_pool_alloc(struct dragon_pool *pool, uint64_t size_bytes, uint32_t holder,
                      struct dragon_handle *handle_out);

/* The same; while the pool is full, waits until a block is freed or deadline_ns
 * (CLOCK_MONOTONIC, ns) has passed. 0; DRAGON_POOL_TIMEOUT;
 * DRAGON_POOL_INTERRUPTED; DRAGON_POOL_FULL, at once: not even an empty pool has
 * room for it; -ENOMEM or -ENOSPC. Who waits is not served in turn: a large
 * block may wait as long as small ones come and go. */
int dragon_pool_alloc_wait(struct dragon_pool *pool, uint64_t size_bytes, uint32_t holder,
                           int64_t deadline_ns, struct dragon_handle *handle_out);

/* Give a block back. -EBADMSG: not (any more) a block of this pool. */
int dragon_pool_free(struct dragon_pool *pool, const struct dragon_handle *handle);

/* Make holder the holder of a live block. before_out: who held it. -EBADMSG: not
 * (any more) a block of this pool. */
int dragon_pool_hold(struct dragon_pool *pool, const struct dragon_handle *handle, uint32_t holder,
                     uint32_t *before_out);

/* Address and size of a live block. Validates every field: handles come from
 * other processes. -EBADMSG: not a live block of this pool. The address holds
 * until dragon_pool_close; the block until it is freed. */
int dragon_pool_resolve(struct dragon_pool *pool, const struct dragon_handle *handle,
                        void **address_out, uint64_t *size_bytes_out);

/* The live block that begins at an offset, with its present generation: for
 * offsets that shared structures of the runtime hold. -EBADMSG: there is none. */
int dragon_pool_find(struct dragon_pool *pool, uint64_t offset, struct dragon_handle *handle_out,
                     uint64_t *size_bytes_out);

/* Free all blocks of a holder that is dead. Returns their number. */
uint64_t dragon_pool_sweep(struct dragon_pool *pool, uint32_t holder);

/* True: the sweep is not to free this block. */
typedef bool dragon_pool_is_kept(void *context, uint64_t offset, uint32_t generation);

/* As dragon_pool_sweep, but a block for which is_kept says true gets the holder
 * DRAGON_HOLDER_CHANNEL instead of being freed. is_kept may be NULL. */
uint64_t dragon_pool_sweep_except(struct dragon_pool *pool, uint32_t holder,
                                  dragon_pool_is_kept *is_kept, void *context);

/* True if the holder holds a block. Costs a look at each block, a nanosecond. */
bool dragon_pool_has_blocks_of(struct dragon_pool *pool, uint32_t holder);

/* The next live block at or after *offset_io (0: the first): its handle, size as
 * asked, holder. *offset_io is moved behind its first byte. True: found. A walk
 * sees every block that is live from before it until after it. */
bool dragon_pool_next(struct dragon_pool *pool, uint64_t *offset_io,
                      struct dragon_handle *handle_out, uint64_t *size_bytes_out,
                      uint32_t *holder_out);

/* The same for the blocks of one holder; a nanosecond for each other block. */
bool dragon_pool_next_of(struct dragon_pool *pool, uint32_t holder, uint64_t *offset_io,
                         struct dragon_handle *handle_out, uint64_t *size_bytes_out);

/* The mutex that guards the users of the object at an offset, whatever is there: it is
 * shared by many objects. For memory/object.c. */
struct dragon_mutex *dragon_pool_object_lock(struct dragon_pool *pool, uint64_t offset);

/* Uses of objects that this process has taken (for whomever) and not given back: 0 where
 * it surely has none. For memory/object.c, and for who leaves the pool. */
_Atomic int64_t *dragon_pool_n_uses(struct dragon_pool *pool);

/* ---- inspection ---- */

/* Address of an offset that the caller knows to lie inside a block. */
void *dragon_pool_at(struct dragon_pool *pool, uint64_t offset);

/* True if size_bytes from offset on lie in the pool and have memory behind
 * them: for offsets that other processes wrote. */
bool dragon_pool_contains(struct dragon_pool *pool, uint64_t offset, uint64_t size_bytes);

/* Count blocks and bytes. Costs a look at each block, a nanosecond; never blocks for long. */
void dragon_pool_statistics(struct dragon_pool *pool, struct dragon_pool_statistics *out);

/* n blocks of size_bytes that could be allocated now. */
typedef void dragon_pool_free_blocks_of(void *context, uint64_t size_bytes, uint64_t n);

/* What could be allocated now, all of it together, in as large pieces as there
 * are: calls report for free blocks beside live ones in their chunk, and for each
 * stretch of memory without a live block. Exact if nobody allocates or frees
 * meanwhile. Less than free_bytes by the ends of chunks that no block fits into.
 * Costs a look at each block. */
void dragon_pool_free_blocks(struct dragon_pool *pool, dragon_pool_free_blocks_of *report,
                             void *context);

/* How many sizes blocks can have, rounding included. */
uint64_t dragon_pool_n_block_sizes(const struct dragon_pool *pool);

/* The handle of a block of this pool, live or not. */
struct dragon_handle dragon_pool_handle(const struct dragon_pool *pool, uint64_t offset,
                                        uint32_t generation);

/* What it was made with, in the handles of its blocks. */
uint64_t dragon_pool_node(const struct dragon_pool *pool);
uint32_t dragon_pool_number(const struct dragon_pool *pool);

/* The pool's file, for handing it to a child. Borrowed. -EBADF: the program has
 * closed it. */
int dragon_pool_fd(const struct dragon_pool *pool);

/* Memory in the pool's header for what its owner puts there, zero at first,
 * aligned to 64 bytes: the node keeps its table of processes in it, a pool without
 * a node its members. The same offset in every process. */
void *dragon_pool_root(struct dragon_pool *pool);
#define DRAGON_POOL_ROOT_BYTES 2304

/* Let the pool grow to size_bytes at the most (rounded down to chunks), where
 * that is less than the size it was made with. What is committed stays. */
void dragon_pool_limit(struct dragon_pool *pool, uint64_t size_bytes);

/* Ask the system for the memory of the first size_bytes now. */
int dragon_pool_prefault(struct dragon_pool *pool, uint64_t size_bytes);

/* Give memory that no block uses back to the system, but for keep_bytes of it,
 * which serve sooner. Returns bytes. It comes back when it is needed. */
uint64_t dragon_pool_trim(struct dragon_pool *pool, uint64_t keep_bytes);

/* The same for memory that no block has used since the last call. */
uint64_t dragon_pool_trim_idle(struct dragon_pool *pool, uint64_t keep_bytes);

/* What a pool may keep without being trimmed. */
#define DRAGON_POOL_HIGH_WATER_BYTES (UINT64_C(64) << 20)

/* Woken when the memory of the pool grows past that mark, by whoever lets it
 * grow: for the one thread, in any process, that trims. */
struct dragon_eventcount *dragon_pool_grown(struct dragon_pool *pool);

/* Bytes of the pool that have memory behind them. */
uint64_t dragon_pool_committed_bytes(struct dragon_pool *pool);

/* True if chunk table, words, lists and counters agree. For tests. */
bool dragon_pool_check(struct dragon_pool *pool);
