#pragma once

/*
 * Pickling for messages: one pickler (protocol 5, the reducers of ForkingPickler) that is used
 * again and again, writing into a buffer that stays. Files of the codec only; what others call is
 * in codec.h.
 */

#include "codec.h"

/* Where a pickler writes to: a growing buffer, and the large buffers that are
 * to travel out of band. Kept for the next pickle, unless it grew very large. */
struct dragon_py_sink {
    PyObject_HEAD
    char *bytes;
    size_t n;
    size_t capacity;
    PyObject *buffers; /* list of contiguous memoryviews */
};

/* What makes a message of a pickle. before: the exports that are not of it (exports.h). */
typedef int (*dragon_py_store_pickle)(const struct dragon_py_transfer *t,
                                      struct dragon_py_sink *sink,
                                      const struct dragon_py_export *before,
                                      struct dragon_message *message);

/* Pickle object and store it in the message. As dragon_py_encode. */
int dragon_py_pickle(const struct dragon_py_transfer *t, PyObject *object,
                     dragon_py_store_pickle store, struct dragon_message *message,
                     bool *pickling_failed_out);

/* A strong reference to module.name, or NULL with an exception. */
PyObject *dragon_py_import_attribute(const char *module, const char *name);

/* Add the type of sinks to the module. */
int dragon_py_pickler_add(PyObject *module);
