#pragma once

/*
 * Chunks of a heap: what is done to them under its mutex. For the files of the
 * heap only. Functions called _locked want the mutex held.
 */

#include "memory/heap.h"

/* Take the mutex; from a dead holder with all lists rebuilt. 0 or -errno. */
int dragon_heap_lock(struct dragon_heap *heap);
void dragon_heap_unlock(struct dragon_heap *heap);

/* Lists of a fresh header. */
void dragon_heap_init_lists(struct dragon_heap *heap);

/* Bring memory behind the first n_chunks. */
int dragon_heap_commit_locked(struct dragon_heap *heap, uint32_t n_chunks);

/* ---- small blocks ---- */

/* A block of the class, from a chunk that nobody leases; a new chunk if there is
 * none; from any chunk before the heap is called full. Outcomes of
 * dragon_heap_alloc. */
int dragon_heap_alloc_shared_locked(struct dragon_heap *heap, uint32_t size_class, uint64_t slack,
                                    uint32_t holder, uint64_t *offset_out,
                                    uint32_t *generation_out);

/* Lease a chunk of the class that has, or may have, free blocks. 0;
 * DRAGON_POOL_FULL; -ENOMEM, ... */
int dragon_heap_lease_chunk_locked(struct dragon_heap *heap, uint32_t size_class,
                                   uint32_t *index_out);

/* End the lease of a chunk that this process leases, if it still does. */
void dragon_heap_unlease_chunk_locked(struct dragon_heap *heap, uint32_t index);

/* Offer a chunk of small blocks, that nobody leases and that is not offered, to
 * those who need a block. Anything else is left as it is. */
void dragon_heap_offer_chunk_locked(struct dragon_heap *heap, uint32_t index);

/* A block of a chunk that nobody leases was freed: let it serve again. */
void dragon_heap_freed_locked(struct dragon_heap *heap, uint32_t index, uint32_t block);

/* Give a chunk of small blocks, or a run, back, if none of it is used. */
bool dragon_heap_close_chunk_locked(struct dragon_heap *heap, uint32_t index);

/* ---- runs, for memory/heap_runs.c ---- */

/* Whether the chunk is the first one of a run. Without the mutex it may be none a
 * moment later. */
bool dragon_heap_is_run(struct dragon_heap *heap, uint32_t chunk);

/* Chunks of a run, 1 if its line makes no sense. */
uint32_t dragon_heap_run_length(struct dragon_heap *heap, uint32_t first);

/* A run of n chunks that nobody holds. 0; DRAGON_POOL_FULL; -ENOMEM, ... */
int dragon_heap_make_run_locked(struct dragon_heap *heap, uint32_t n, uint32_t *first_out);

/* As dragon_heap_prepare_run_locked, for n chunks. */
bool dragon_heap_prepare_chunks_locked(struct dragon_heap *heap, uint32_t n);

/* Somebody has taken chunks before this one: the next look for idle memory leaves
 * them alone. */
void dragon_heap_note_taken(struct dragon_heap *heap, uint32_t end);

/* ---- room ---- */

/* Give back all that nobody uses: kept runs, empty chunks; end the leases of
 * the dead. */
void dragon_heap_reclaim_locked(struct dragon_heap *heap);

/* Give memory of free chunks from `from` on back, but for keep_bytes of it, and not
 * more than _AT_ONCE_BYTES: there may be more if it was that. Bytes. */
uint64_t dragon_heap_trim_locked(struct dragon_heap *heap, uint32_t from, uint64_t keep_bytes);
#define DRAGON_HEAP_AT_ONCE_BYTES (UINT64_C(64) << 20) /* some 20 ms */

/* ---- inspection ---- */

/* Blocks that are live. */
uint64_t dragon_heap_count_locked(struct dragon_heap *heap);

/* As dragon_heap_check, without the number of blocks. */
bool dragon_heap_check_locked(struct dragon_heap *heap);
