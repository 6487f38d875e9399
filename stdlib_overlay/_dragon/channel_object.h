#pragma once

/*
 * Shared objects that are channels: queues, and the directions of Pipes.
 */

#include "object.h"

#include "channel/channel.h"

/* Which kind of channel. */
struct dragon_py_channel_kind {
    const char *name; /* for messages of errors ("Queue") */
    uint32_t kind;
    uint64_t state_bytes;
    int (*init)(struct dragon_object *object, const struct dragon_channel_options *options);
};

/* Make a new object, which is not open yet. -1 with an exception: PoolFull, OSError. */
int dragon_py_channel_object_create(struct dragon_py_object *self,
                                    const struct dragon_py_channel_kind *kind,
                                    const struct dragon_channel_options *options);

/* Be a view of the object that exported, from _export(), names. -1 with an exception. */
int dragon_py_channel_object_attach(struct dragon_py_object *self,
                                    const struct dragon_py_channel_kind *kind, PyObject *exported);
