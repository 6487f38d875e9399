/*
 * mimalloc takes address space in pieces of 32 MiB, one at least for each thread. Where that is
 * limited (RLIMIT_AS) there may be none left although the C library still has kilobytes to give, so
 * each block notes in front of it who gave it.
 */

#include "base/alloc.h"

#include <stdlib.h>

#ifdef DRAGON_HAVE_MIMALLOC

#include <mimalloc.h>
#include <stdalign.h>
#include <stdbool.h>
#include <string.h>

struct head {
    alignas(max_align_t) size_t size_bytes; /* of the block, without this */
    bool is_of_c_library;
};

static void *block_of(struct head *head, size_t size_bytes, bool is_of_c_library)
{
    if (!head)
        return NULL;
    head->size_bytes = size_bytes;
    head->is_of_c_library = is_of_c_library;
    return head + 1;
}

static bool is_too_large(size_t size_bytes)
{
    return size_bytes > PTRDIFF_MAX - sizeof(struct head);
}

void *dragon_alloc_zeroed(size_t size_bytes)
{
    void *block;

    if (is_too_large(size_bytes))
        return NULL;
    block = block_of(mi_zalloc(sizeof(struct head) + size_bytes), size_bytes, false);
    return block ? block : block_of(calloc(1, sizeof(struct head) + size_bytes), size_bytes, true);
}

/* A block elsewhere with what is in this one. */
static void *move(void *block, size_t n_kept, size_t size_bytes)
{
    void *moved = dragon_alloc_zeroed(size_bytes);

    if (!moved)
        return NULL;
    memcpy(moved, block, n_kept);
    dragon_alloc_free(block);
    return moved;
}

void *dragon_alloc_resize(void *block, size_t size_bytes)
{
    struct head *head = (struct head *)block - 1;
    void *resized;

    if (!block)
        return dragon_alloc_zeroed(size_bytes);
    if (is_too_large(size_bytes))
        return NULL;
    if (head->is_of_c_library)
        return block_of(realloc(head, sizeof *head + size_bytes), size_bytes, true);
    resized = block_of(mi_realloc(head, sizeof *head + size_bytes), size_bytes, false);
    if (resized)
        return resized;
    return move(block, head->size_bytes < size_bytes ? head->size_bytes : size_bytes, size_bytes);
}

void dragon_alloc_free(void *block)
{
    struct head *head = (struct head *)block - 1;

    if (!block)
        return;
    if (head->is_of_c_library)
        free(head);
    else
        mi_free(head);
}

#else

void *dragon_alloc_zeroed(size_t size_bytes)
{
    return calloc(1, size_bytes);
}

void *dragon_alloc_resize(void *block, size_t size_bytes)
{
    return realloc(block, size_bytes);
}

void dragon_alloc_free(void *block)
{
    free(block);
}

#endif
