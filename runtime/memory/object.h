#pragma once

/*
 * Object: a block with a kind and a count of its users, which is freed when
 * the last user closes it. Channels, semaphores, events, ... are objects whose
 * state follows the header.
 *
 * A user is an open struct dragon_object in some process, or a message in
 * flight that names the object (dragon_object_keep). A process that is killed
 * does not close its objects: they stay until the node ends.
 *
 * n_users is changed by atomic addition only; the process that takes it to 0
 * frees the block.
 */

#include "memory/handle.h"

#include <stdint.h>

struct dragon_pool;

#define DRAGON_KIND(a, b, c, d)                                                                    \
    ((uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(c) << 16 | (uint32_t)(d) << 24)

/* At the start of the block; the state begins 64 bytes after it. */
struct dragon_object_header {
    uint32_t kind;
    uint32_t version;
    _Atomic uint32_t n_users;
    _Atomic uint32_t state_kind; /* 0, or what the state begins with, whatever the kind */
    uint32_t reserved[12];
};

_Static_assert(sizeof(struct dragon_object_header) == 64, "shared layout");

/* The header of the object whose state that is. */
static inline struct dragon_object_header *dragon_object_header_of(void *state)
{
    return (struct dragon_object_header *)state - 1;
}

/* An open object. */
struct dragon_object {
    struct dragon_pool *pool; /* borrowed */
    struct dragon_handle handle;
    void *state; /* valid until the object is closed */
};

/* Frees what the state owns (its other blocks), before the block itself goes.
 * NULL: nothing. */
typedef void (*dragon_object_fini)(struct dragon_object *object);

/* A new object with one user and a zeroed state of size_bytes. Outcomes and
 * errors of dragon_pool_alloc. */
int dragon_object_create(struct dragon_pool *pool, uint32_t kind, uint64_t size_bytes,
                         struct dragon_object *object_out);

/* Open an existing one: one more user. -EBADMSG: not a live object of this
 * kind with at least size_bytes of state. */
int dragon_object_open(struct dragon_pool *pool, const struct dragon_handle *handle, uint32_t kind,
                       uint64_t size_bytes, struct dragon_object *object_out);

/* Open one that a message named: the message's use becomes the caller's. */
int dragon_object_adopt(struct dragon_pool *pool, const struct dragon_handle *handle, uint32_t kind,
                        uint64_t size_bytes, struct dragon_object *object_out);

/* Say, once the state is complete, that it begins with a known struct, although
 * the object's kind is its users' own: for who looks at all objects of a pool. */
void dragon_object_begins_with(struct dragon_object *object, uint32_t state_kind);

/* The state in a block if it is an object in use that begins so; NULL: it is not. It
 * may end its life at any time: what is read there may be anything. size_bytes:
 * the block's; state_bytes: that the state has at least. */
void *dragon_object_state_in(struct dragon_pool *pool, const struct dragon_handle *handle,
                             uint64_t size_bytes, uint32_t state_kind, uint64_t state_bytes);

/* One more user, for a message that will be adopted. */
void dragon_object_keep(struct dragon_object *object);

/* One user less. */
void dragon_object_close(struct dragon_object *object, dragon_object_fini fini);
