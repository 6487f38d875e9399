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
void dragon_heap_init_lists(struct dragon_heap_header *header);

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

/* ---- runs ---- */

int dragon_heap_alloc_run_locked(struct dragon_heap *heap, uint64_t size_bytes, uint32_t holder,
                                 uint64_t *offset_out, uint32_t *generation_out);

/* Bring memory behind a part of the free chunks that a run of size_bytes would
 * take. True: there may be more to bring, after others have had the mutex. Whoever is
 * killed in between leaves free chunks with memory. */
bool dragon_heap_prepare_run_locked(struct dragon_heap *heap, uint64_t size_bytes);

/* Keep a run that was just freed for the next who wants one. */
void dragon_heap_keep_run_locked(struct dragon_heap *heap, uint32_t first);

/* ---- room ---- */

/* Give back all that nobody uses: cached runs, empty chunks; end the leases of
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
