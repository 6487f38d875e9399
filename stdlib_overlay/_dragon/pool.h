#pragma once

/*
 * _dragon.Pool and _dragon.Allocation, as other types of the module use them.
 */

#include "module.h"

#include "memory/handle.h"

struct dragon_pool;

struct dragon_py_pool {
    PyObject_HEAD
    struct dragon_pool *pool;
    bool is_nodes; /* not to be closed */
    PyObject *weak_references;
};

/* What a block is to those who list blocks; the values are those of the public
 * package's AllocType. */
enum dragon_py_label {
    DRAGON_PY_LABEL_DATA = 0,
    DRAGON_PY_LABEL_OBJECT = 1,
    DRAGON_PY_LABEL_MESSAGE = 2,
    DRAGON_PY_LABEL_RUNTIME = 3,
};

/* The numbers of a pool as a dictionary; releases the GIL meanwhile. NULL with an
 * exception. */
PyObject *dragon_py_pool_statistics(struct dragon_pool *pool);

/* A live block of self as a _dragon.Allocation. NULL with an exception
 * (StaleHandle); the block stays as it is. */
PyObject *dragon_py_allocation_new(struct dragon_py_pool *self, const struct dragon_handle *handle);
