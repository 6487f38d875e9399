#pragma once

/*
 * A pickle with large buffers beside it: both in one block, the buffers copied once, and received
 * as writable views of the block, which lives as long as they do. Files of the codec only.
 */

#include "payload.h"
#include "pickler.h"

/* Make a message of the pickle and its buffers, with room for n_uses in the block. 0, or -1 with
 * an exception. */
int dragon_py_store_with_buffers(const struct dragon_py_transfer *t, struct dragon_py_sink *sink,
                                 uint64_t n_uses, struct dragon_message *message);

/* The object. block: the Block that frees the payload's block. unpickle: _pickle.loads. A new
 * reference, or NULL with an exception. */
PyObject *dragon_py_unpickle_with_buffers(const struct dragon_py_transfer *t, PyObject *block,
                                          PyObject *unpickle,
                                          const struct dragon_py_payload *payload);
