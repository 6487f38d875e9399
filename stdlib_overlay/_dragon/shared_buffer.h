#pragma once

/*
 * SharedBuffer: memory in the pool that any number of processes use, as a Python
 * object with the buffer protocol. A view keeps the object, the object keeps its
 * use of the memory, and the last user in any process frees it (object.h).
 */

#include "module.h"

/* True if memory is a SharedBuffer in which the size bytes at `at` lie. */
bool dragon_py_shared_buffer_has(struct dragon_py_state *state, PyObject *memory, const void *at,
                                 Py_ssize_t size);
