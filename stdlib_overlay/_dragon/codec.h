#pragma once

/*
 * Between Python objects and messages.
 *
 * Exact None, bool, int (64 bits), float, bytes, str and short flat tuples and
 * dicts of them are encoded directly. All else is pickled, protocol 5, with the
 * reducers of multiprocessing.reduction.ForkingPickler; buffers of at least
 * 64 KiB go out of band: copied once into the message's block, and received as
 * writable views of it.
 */

#include "module.h"

#include "channel/message.h"
#include "memory/object.h"

/* An object that a message under way lists, and a use of it until that is made. */
struct dragon_py_export {
    struct dragon_object object;
    dragon_object_fini fini;
    bool is_ours;   /* the use is this process's, not its parent's */
    bool is_copied; /* a copy that is being forked has one, too */
    struct dragon_py_export *next;
};

/* Let the message that this thread is making keep the object in use (memory/uses.h). -1
 * with an exception. */
int dragon_py_note_export(struct dragon_py_state *state, struct dragon_object *object,
                          dragon_object_fini fini);

/* Before a fork in the middle of that: what the copy, which will be holder, needs to go on.
 * 0: it cannot. And in the copy. */
void dragon_py_exports_before_fork(uint32_t holder);
void dragon_py_exports_after_fork(uint32_t holder);

/* In a copy: the pickler that a thread of the parent was using is replaced. */
void dragon_py_pickler_after_fork(struct dragon_py_state *state);

/* Before a fork in the middle of taking messages apart: both processes go on with them. */
void dragon_py_decodings_before_fork(void);

/* For whom messages are made and taken apart. */
struct dragon_py_transfer {
    struct dragon_py_state *state;
    struct dragon_pool *pool; /* where the messages' blocks are */
    uint32_t holder;          /* this process there */
    const char *what;         /* the operation, for messages of errors ("put") */
};

/* Make a message of an object. A block in it is held by t->holder and becomes the
 * caller's. 0, or -1 with an exception: PoolFull, or whatever pickling raised
 * (then *pickling_failed_out is true). The GIL is held; it may be released. */
int dragon_py_encode(const struct dragon_py_transfer *t, PyObject *object,
                     struct dragon_message *message_out, bool *pickling_failed_out);

/* The object of a message. Consumes its block, which this process holds as t->holder. A new
 * reference, or NULL with an exception. */
PyObject *dragon_py_decode(const struct dragon_py_transfer *t,
                           const struct dragon_message *message);

/* The object of a bytes object that pickle_small() made. A new reference, or NULL with an
 * exception. */
PyObject *dragon_py_unpickle(struct dragon_py_state *state, PyObject *bytes);

/* Make a message of n bytes that are taken as they are. As dragon_py_encode; decoded as
 * an object, they are taken for a pickle. */
int dragon_py_encode_bytes(const struct dragon_py_transfer *t, const char *bytes, size_t n,
                           struct dragon_message *message_out);

/* What a message is as bytes: those it was made of, or a pickle of the object. */
struct dragon_py_bytes {
    const char *bytes; /* good as long as the message and its block are, and owner */
    size_t n;
    PyObject *owner; /* strong, or NULL */
};

/* The bytes of a message. Its block is still the caller's then, unless the message says that
 * it has none any more. -1 with an exception: the block is freed. */
int dragon_py_bytes_of(const struct dragon_py_transfer *t, struct dragon_message *message,
                       struct dragon_py_bytes *bytes_out);

/* memcpy, for large pieces without the GIL. */
void dragon_py_copy(void *to, const void *from, size_t n);

/* Free what a message holds that is not in a channel. holder: this process. */
void dragon_py_discard(struct dragon_pool *pool, uint32_t holder,
                       const struct dragon_message *message);
