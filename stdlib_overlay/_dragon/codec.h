#pragma once

/*
 * Between Python objects and messages.
 *
 * Exact None, bool, int (64 bits), float, bytes, str and short flat tuples of
 * them are encoded directly. All else is pickled, protocol 5, with the
 * reducers of multiprocessing.reduction.ForkingPickler; buffers of at least
 * 64 KiB go out of band: copied once into the message's block, and received as
 * writable views of it.
 */

#include "module.h"

#include "channel/message.h"
#include "memory/object.h"

/* A use of an object that a message under way carries. */
struct dragon_py_export {
    struct dragon_object object;
    dragon_object_fini fini;
    struct dragon_py_export *next;
};

/* Take a use of the object for the message that this thread is making. -1 with
 * MemoryError. */
int dragon_py_note_export(struct dragon_object *object, dragon_object_fini fini);

/* Make a message of an object. A block in it is held by holder and becomes the
 * caller's. 0, or -1 with an exception: PoolFull, or whatever pickling raised
 * (then *pickling_failed_out is true). The GIL is held; it may be released. */
int dragon_py_encode(struct dragon_py_state *state, struct dragon_pool *pool, uint32_t holder,
                     PyObject *object, struct dragon_message *message_out,
                     bool *pickling_failed_out);

/* The object of a message. Consumes its block, which this process holds. A new
 * reference, or NULL with an exception. */
PyObject *dragon_py_decode(struct dragon_py_state *state, struct dragon_pool *pool,
                           const struct dragon_message *message);

/* Free what a message holds that is not in a channel. */
void dragon_py_discard(struct dragon_pool *pool, const struct dragon_message *message);
