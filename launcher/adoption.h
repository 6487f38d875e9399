#pragma once

/*
 * `_dragon_launch.adopting`, a context manager: inside, the kernel gives this process the orphans
 * among its descendants. Several threads may be inside; with the last one it is as it was before.
 *
 * It is C because what counts up and down must be paired whatever happens: an exception of a Python
 * signal handler can come before and after a call of it, but not in the middle, and not between the
 * entry and the beginning of the block.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* A new reference to the only one there is; NULL with an exception. */
PyObject *dragon_adoption_new(void);
