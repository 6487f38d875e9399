#pragma once

/* What other types need of a _dragon.SimpleQueue. All with the GIL. */

#include "module.h"

#include "channel/message.h"

#include <stdint.h>

/* Take the oldest message, looking a while with the GIL and then waiting without it until
 * deadline_ns. Its block is held by *holder_out: this process. 0; 1: there was none, or a
 * signal has come in; -1 with an exception. */
int dragon_py_queue_take(PyObject *queue, struct dragon_message *message_out, uint32_t *holder_out,
                         int64_t deadline_ns);

/* The object of a message that was taken; and a message that nobody wants. */
PyObject *dragon_py_queue_decode(PyObject *queue, const struct dragon_message *message,
                                 uint32_t holder);
void dragon_py_queue_discard(PyObject *queue, const struct dragon_message *message,
                             uint32_t holder);

/* Send a letter with an object that is already pickled, without waiting and without running
 * Python code. True: it was sent. No exception. */
bool dragon_py_queue_try_put_pickle(PyObject *queue, uint64_t first, uint64_t second,
                                    PyObject *pickle);

/* Send None, likewise. */
bool dragon_py_queue_try_put_none(PyObject *queue);
