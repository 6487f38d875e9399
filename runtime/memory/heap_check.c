/*
 * The definition of a sane heap. Entries of kept runs may say anything.
 */
#include "memory/heap_chunks.h"
#include "memory/heap_place.h"

static bool words_are_sane(struct dragon_heap *heap, uint32_t index, uint64_t room_bytes)
{
    uint32_t n = dragon_heap_n_words(heap, dragon_peek(&heap->chunks[index].kind));

    if (n > dragon_peek(&heap->chunks[index].n_words))
        return false;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t word = dragon_observe(&dragon_heap_words(heap, index)[i]);

        if (dragon_heap_word_holder(word) == DRAGON_HEAP_HOLDER_CLOSED ||
            dragon_heap_word_slack(word) >= room_bytes ||
            (!dragon_heap_word_is_live(word) && dragon_heap_word_slack(word) != 0))
            return false;
    }
    return true;
}

static bool small_is_sane(struct dragon_heap *heap, uint32_t index)
{
    uint32_t size_class = dragon_heap_kind_class(dragon_peek(&heap->chunks[index].kind));

    return size_class < heap->n_classes &&
           words_are_sane(heap, index, dragon_heap_class_bytes(heap, size_class));
}

/* The chunks from first + 1 on are the rest of the run at first. */
static bool run_is_sane(struct dragon_heap *heap, uint32_t first)
{
    uint32_t n = dragon_peek(&heap->chunks[first].n_chunks);

    if (n == 0 || n > dragon_heap_n_committed(heap) - first || first + n > heap->header->n_used ||
        !words_are_sane(heap, first, 1))
        return false;
    for (uint32_t i = first + 1; i < first + n; i++)
        if (dragon_peek(&heap->chunks[i].kind) != DRAGON_HEAP_CHUNK_RUN_REST)
            return false;
    return true;
}

/* Each list holds chunks of its class that nobody leases, linked both ways, and
 * all that are marked as listed are in one. */
static bool lists_are_sane(struct dragon_heap *heap, uint32_t n_marked)
{
    uint32_t n_listed = 0;

    for (uint32_t c = 0; c < heap->n_classes; c++) {
        uint32_t previous = DRAGON_HEAP_NO_CHUNK;

        for (uint32_t i = heap->header->partial[c]; i != DRAGON_HEAP_NO_CHUNK;) {
            struct dragon_heap_chunk *chunk = &heap->chunks[i];

            if (i >= dragon_heap_n_committed(heap) || n_listed++ >= n_marked ||
                dragon_peek(&chunk->kind) != dragon_heap_kind_small(c) ||
                !dragon_peek(&chunk->is_listed) || dragon_peek(&chunk->lease) ||
                chunk->previous != previous)
                return false;
            previous = i;
            i = chunk->next;
        }
    }
    return n_listed == n_marked;
}

bool dragon_heap_check_locked(struct dragon_heap *heap)
{
    struct dragon_heap_header *header = heap->header;
    uint32_t n = dragon_heap_n_committed(heap);
    uint32_t n_backed = 0, n_marked = 0;

    for (uint32_t i = 0; i < n; i++)
        n_backed += heap->chunks[i].has_memory != 0;
    for (uint32_t i = 0; i < n; i++) {
        struct dragon_heap_chunk *chunk = &heap->chunks[i];
        uint32_t kind = dragon_peek(&chunk->kind);

        if (kind == DRAGON_HEAP_CHUNK_FREE && i >= header->scan_from)
            continue;
        if (kind == DRAGON_HEAP_CHUNK_FREE || i >= header->n_used || !chunk->has_memory)
            return false;
        if (kind == DRAGON_HEAP_CHUNK_RUN && run_is_sane(heap, i)) {
            i += dragon_peek(&chunk->n_chunks) - 1;
        } else if (dragon_heap_kind_is_small(kind) && small_is_sane(heap, i)) {
            n_marked += dragon_peek(&chunk->is_listed);
        } else {
            return false;
        }
    }
    return n_backed == dragon_peek(&header->n_backed) && lists_are_sane(heap, n_marked);
}

bool dragon_heap_check(struct dragon_heap *heap)
{
    bool sane;

    if (dragon_heap_lock(heap) < 0)
        return false;
    sane = dragon_heap_check_locked(heap) &&
           (!heap->is_counted || heap->header->n_blocks == dragon_heap_count_locked(heap));
    dragon_heap_unlock(heap);
    return sane;
}
