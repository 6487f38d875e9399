#pragma once

/*
 * Private memory of the runtime: from mimalloc where it is built in (the
 * executable), so that it neither shares a heap with the program nor depends on
 * what the program does to malloc; else from the C library. Blocks are aligned as
 * malloc's. Any thread.
 */

#include <stddef.h>

/* size_bytes zero bytes, or NULL. */
void *dragon_alloc_zeroed(size_t size_bytes);

/* As realloc: the block with a new size, perhaps elsewhere; NULL and the block
 * unchanged if there is no memory. block may be NULL. */
void *dragon_alloc_resize(void *block, size_t size_bytes);

/* NULL is fine. */
void dragon_alloc_free(void *block);
