#pragma once

/*
 * Arguments of methods that are called so often that PyArg_ParseTupleAndKeywords would
 * show.
 */

#include "module.h"

/* Read the arguments of a METH_FASTCALL | METH_KEYWORDS method into values
 * (borrowed; untouched where no argument is given), which may all be given by
 * position or by name. names ends with NULL. -1 with TypeError. */
int dragon_py_arguments(const char *function, const char *const *names, PyObject *const *args,
                        Py_ssize_t n_args, PyObject *kwnames, PyObject **values);

/* That a required argument was given. -1 with TypeError. */
int dragon_py_require_argument(const char *function, const char *name, const PyObject *value);

/* The deadline that `block` and `timeout` of a queue's method mean; NULL: not given. -1 with an
 * exception (TypeError, ValueError). */
int dragon_py_deadline_of_wait(PyObject *block, PyObject *timeout, int64_t *deadline_ns_out);
