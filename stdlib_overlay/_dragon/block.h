#pragma once

/*
 * Block: a piece of pool memory that this process holds, as a Python object
 * with the buffer protocol. The memory is freed when the last reference and
 * the last view are gone.
 */

#include "module.h"

#include "memory/handle.h"

/* A block that becomes the new object's. address, size_bytes: the block's memory. NULL with
 * an exception: it stays the caller's. */
PyObject *dragon_py_block_new(struct dragon_py_state *state, struct dragon_pool *pool,
                              const struct dragon_handle *handle, void *address,
                              uint64_t size_bytes);

/* Before a fork: the child will see the memory of all blocks without holding
 * them, so from now on they stay until the node ends. */
void dragon_py_block_before_fork(void);
