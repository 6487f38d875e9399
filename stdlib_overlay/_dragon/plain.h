#pragma once

/*
 * Plain values, encoded without a pickle: exact None, bool, int (64 bits), float, bytes, str, and
 * short flat tuples and dicts of them. Files of the codec only.
 */

#include "payload.h"

enum dragon_py_plain_outcome {
    DRAGON_PY_NOT_PLAIN = 1,
};

/* 0; DRAGON_PY_NOT_PLAIN, without an exception; -1 with one. */
int dragon_py_encode_plain(const struct dragon_py_transfer *t, PyObject *object,
                           struct dragon_message *message);

/* The object of a payload of one of these kinds. A new reference, or NULL with an exception. */
PyObject *dragon_py_decode_plain(const struct dragon_py_transfer *t, uint32_t kind,
                                 const struct dragon_py_payload *payload);
