#pragma once

/*
 * Runs: blocks of whole chunks, and how a free one comes to who wants one without
 * the heap's mutex. For the files of the heap only. Functions called _locked want
 * the mutex held, the others do without.
 *
 * Who frees a run notes it in an entry of the header; who wants one looks there
 * first. An entry is a guess, as are the lists of leases: it may be stale, or there
 * may be two of a run. The run's word decides who has it.
 */

#include "memory/heap.h"

/* A run from those that are noted: true if there was one. */
bool dragon_heap_take_kept_run(struct dragon_heap *heap, uint64_t size_bytes, uint32_t holder,
                               uint64_t *offset_out, uint32_t *generation_out);

/* The same, and a new run if there was none. Outcomes of dragon_heap_alloc. */
int dragon_heap_alloc_run_locked(struct dragon_heap *heap, uint64_t size_bytes, uint32_t holder,
                                 uint64_t *offset_out, uint32_t *generation_out);

/* Bring memory behind a part of the free chunks that a run of size_bytes would
 * take. True: there may be more to bring, after others have had the mutex. Whoever is
 * killed in between leaves free chunks with memory. */
bool dragon_heap_prepare_run_locked(struct dragon_heap *heap, uint64_t size_bytes);

/* Note a run that was just freed for the next who wants one. If that cannot be, or
 * another has to make room for it, it is given back, which takes the mutex. */
void dragon_heap_keep_run(struct dragon_heap *heap, uint32_t first);
void dragon_heap_keep_run_locked(struct dragon_heap *heap, uint32_t first);

/* Clear all entries. Whoever gives free runs back does so first: a run that is freed
 * before is free by then, and one that is freed later has an entry. */
void dragon_heap_forget_kept_runs(struct dragon_heap *heap);
