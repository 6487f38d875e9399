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
};

/* A live block of self as a _dragon.Allocation. NULL with an exception
 * (StaleHandle); the block stays as it is. */
PyObject *dragon_py_allocation_new(struct dragon_py_pool *self, const struct dragon_handle *handle);
