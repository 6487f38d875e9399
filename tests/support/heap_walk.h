#pragma once

/*
 * A look into the heap of an open pool, through a mapping of its own.
 */

#include "memory/heap.h"
#include "memory/heap_chunks.h"
#include "memory/heap_place.h"
#include "memory/pool.h"

#include <stdlib.h>
#include <unistd.h>

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
    dragon_heap_close(&view->heap);
    dragon_segment_close(&view->segment);
}
