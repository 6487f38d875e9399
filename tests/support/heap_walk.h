#pragma once

/*
 * What dragon_heap_check leaves out: that the caches of a heap (lists of chunks
 * with free blocks, cached runs) say the same as its chunks. For a heap that
 * nobody changes meanwhile.
 */

#include "memory/heap.h"
#include "memory/pool.h"

#include <stdlib.h>
#include <unistd.h>

/* The heap inside an open pool, seen through a mapping of its own. */
struct heap_view {
    struct dragon_segment segment;
    struct dragon_heap heap;
};

static inline void heap_view_open(struct heap_view *view, struct dragon_pool *pool)
{
    if (dragon_segment_open_fd(&view->segment, dup(dragon_pool_fd(pool))) < 0 ||
        dragon_heap_open(&view->heap, &view->segment) < 0)
        abort();
}

static inline void heap_view_close(struct heap_view *view)
{
    dragon_segment_close(&view->segment);
}

/* Each list holds chunks of its class with free blocks, linked both ways. */
static inline bool heap_lists_are_sane(struct dragon_heap *heap, uint32_t *n_listed_out)
{
    uint32_t n_listed = 0;

    for (uint32_t c = 0; c < DRAGON_HEAP_MAX_CLASSES; c++) {
        uint32_t previous = DRAGON_HEAP_NO_CHUNK;

        for (uint32_t i = heap->header->partial[c]; i != DRAGON_HEAP_NO_CHUNK;) {
            struct dragon_heap_chunk *chunk;

            if (i >= heap->n_chunks || n_listed++ >= heap->n_chunks)
                return false;
            chunk = &heap->chunks[i];
            if (chunk->kind != DRAGON_HEAP_CHUNK_SMALL || chunk->size_class != c ||
                chunk->n_free == 0 || chunk->previous != previous)
                return false;
            previous = i;
            i = chunk->next;
        }
    }
    *n_listed_out = n_listed;
    return true;
}

/* Each cached run is a run that nobody holds. */
static inline bool heap_cached_runs_are_sane(struct dragon_heap *heap, uint32_t *n_cached_out)
{
    uint32_t n_cached = 0;

    for (int i = 0; i < DRAGON_HEAP_N_CACHED_RUNS; i++) {
        struct dragon_heap_cached_run run = heap->header->cached_runs[i];

        if (run.n_chunks == 0)
            continue;
        if (run.first >= heap->n_chunks || heap->chunks[run.first].n_chunks != run.n_chunks ||
            heap->chunks[run.first].kind != DRAGON_HEAP_CHUNK_RUN ||
            heap->chunks[run.first].holder != DRAGON_HOLDER_NONE)
            return false;
        n_cached++;
    }
    *n_cached_out = n_cached;
    return true;
}

/* True if the chunks from first + 1 on are the rest of the run at first. */
static inline bool heap_run_is_whole(struct dragon_heap *heap, uint32_t first)
{
    uint32_t n = heap->chunks[first].n_chunks;

    if (n == 0 || n > heap->n_chunks - first)
        return false;
    for (uint32_t i = first + 1; i < first + n; i++)
        if (heap->chunks[i].kind != DRAGON_HEAP_CHUNK_RUN_REST)
            return false;
    return true;
}

/* True if chunks and caches tell the same story: nothing is listed twice or
 * forgotten, and what lies beyond n_used is free. */
static inline bool heap_caches_are_sane(struct dragon_heap *heap)
{
    uint32_t n_listed, n_cached, n_partial = 0, n_unheld = 0;

    if (!heap_lists_are_sane(heap, &n_listed) || !heap_cached_runs_are_sane(heap, &n_cached))
        return false;
    for (uint32_t i = 0; i < heap->header->n_committed; i++) {
        uint32_t kind = heap->chunks[i].kind;

        if (kind != DRAGON_HEAP_CHUNK_FREE && i >= heap->header->n_used)
            return false;
        n_partial += kind == DRAGON_HEAP_CHUNK_SMALL && heap->chunks[i].n_free != 0;
        if (kind == DRAGON_HEAP_CHUNK_FREE && i < heap->header->scan_from)
            return false;
        if (kind == DRAGON_HEAP_CHUNK_RUN) {
            if (!heap_run_is_whole(heap, i))
                return false;
            n_unheld += heap->chunks[i].holder == DRAGON_HOLDER_NONE;
            i += heap->chunks[i].n_chunks - 1;
        } else if (kind == DRAGON_HEAP_CHUNK_RUN_REST) {
            return false;
        }
    }
    return n_partial == n_listed && n_unheld == n_cached;
}

/* All that can be said about a pool that nobody uses right now. */
static inline bool pool_is_sane(struct dragon_pool *pool)
{
    struct dragon_pool_statistics statistics;
    struct heap_view view;
    bool sane;

    /* Takes the lock once: whoever finds it left by a dead holder repairs. */
    dragon_pool_statistics(pool, &statistics);
    heap_view_open(&view, pool);
    sane = dragon_pool_check(pool) && heap_caches_are_sane(&view.heap);
    heap_view_close(&view);
    return sane;
}
