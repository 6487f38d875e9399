#pragma once

/*
 * Letters: messages with a header that is read at once, and an object that is unpickled when
 * the receiver says so (docs/pool.md).
 */

#include "codec.h"

#define DRAGON_PY_LETTER_WORDS 2

/* Make a message of an object and a header. It is decoded to (header[0], header[1],
 * _dragon.Letter): the object is unpickled when the letter is opened. As dragon_py_encode. */
int dragon_py_encode_letter(const struct dragon_py_transfer *t,
                            const uint64_t header[DRAGON_PY_LETTER_WORDS], PyObject *object,
                            struct dragon_message *message_out);

/* The same with an object that pickle_small() has pickled. Runs no Python code. */
int dragon_py_encode_pickled_letter(const struct dragon_py_transfer *t,
                                    const uint64_t header[DRAGON_PY_LETTER_WORDS], PyObject *pickle,
                                    struct dragon_message *message_out);

/* The tuple of a message that is a letter; a part of dragon_py_decode, and as that. */
PyObject *dragon_py_decode_letter(const struct dragon_py_transfer *t,
                                  const struct dragon_message *message);

/* Whether a message is None or a short tuple of numbers, texts and bytes: decoding it runs no
 * Python code, and it can be decoded again. */
bool dragon_py_message_is_plain(const struct dragon_message *message);

int dragon_py_letter_add(PyObject *module);
