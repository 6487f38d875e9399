#pragma once

/*
 * Private memory of the runtime: from mimalloc where it is built in (the
 * executable), so that it neither shares a heap with the program nor depends on
 * what the program does to malloc; else from the C library.
 */

#include <stddef.h>

#ifdef DRAGON_HAVE_MIMALLOC
#include <mimalloc.h>
#else
#include <stdlib.h>
#endif

/* size_bytes zero bytes, or NULL. Any thread. */
static inline void *dragon_alloc_zeroed(size_t size_bytes)
{
#ifdef DRAGON_HAVE_MIMALLOC
    return mi_zalloc(size_bytes);
#else
    return calloc(1, size_bytes);
#endif
}

/* As realloc: the block with a new size, perhaps elsewhere; NULL and the block
 * unchanged if there is no memory. block may be NULL. */
static inline void *dragon_alloc_resize(void *block, size_t size_bytes)
{
#ifdef DRAGON_HAVE_MIMALLOC
    return mi_realloc(block, size_bytes);
#else
    return realloc(block, size_bytes);
#endif
}

/* NULL is fine. */
static inline void dragon_alloc_free(void *block)
{
#ifdef DRAGON_HAVE_MIMALLOC
    mi_free(block);
#else
    free(block);
#endif
}
