#pragma once

/*
 * Object: a block with a kind and a set of users, which is freed when the last of
 * them is gone. Channels, semaphores, events, ... are objects whose state follows
 * the header.
 *
 * A user is a process, by its number as a holder of blocks, with a count of its uses;
 * or a block that lists the object (memory/uses.h), as that of a message does. Roles
 * are users, too: a use by DRAGON_HOLDER_SHARED ends only when somebody gives it
 * back.
 *
 * Who writes: `users` and `freer`: under a mutex that lies in the pool's header
 * (dragon_pool_object_lock), by one store at a time; so a process that is killed has
 * changed the set or not. Who takes the last user out says so in `freer` before, and
 * then frees the object without the mutex: nobody can open it any more. If it is
 * killed meanwhile, the sweep of that process does it (dragon_object_sweep, in
 * channel/in_flight.h with all that it takes). `next_garbage`: by the freer. `last_death`, under
 * the mutex as well: how the process ended that was taken out last; a hint, which a killed sweeper
 * may leave out. state_kind: once. docs/objects.md has the protocol, tests/model/lifetimes.py
 * searches it.
 *
 * Objects that use each other in a circle, as a queue in a message of its own does, keep
 * each other.
 */

#include "memory/death.h"
#include "memory/handle.h"
#include "memory/users.h"

#include <stdint.h>

struct dragon_pool;

#define DRAGON_KIND(a, b, c, d)                                                                    \
    ((uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(c) << 16 | (uint32_t)(d) << 24)

/* At the start of the block; the state follows. */
struct dragon_object_header {
    uint32_t kind;
    _Atomic uint32_t state_kind; /* 0, or what the state begins with, whatever the kind */
    _Atomic uint32_t freer;      /* in whose name it is freed, once there are no users */
    uint32_t version;
    struct dragon_users users;
};

_Static_assert(sizeof(struct dragon_object_header) == 128, "shared layout");

/* The header of the object whose state that is. */
static inline struct dragon_object_header *dragon_object_header_of(void *state)
{
    return (struct dragon_object_header *)state - 1;
}

/* An open object. */
struct dragon_object {
    struct dragon_pool *pool; /* borrowed */
    struct dragon_handle handle;
    void *state;     /* valid until the object is closed */
    uint32_t holder; /* who uses it: this process, or a role */
};

/* Told of each object that a process used which has ended, under the object's mutex and before
 * the process is taken out: what its end means for those who wait there. It may be told
 * twice, if who sweeps is killed. note: as dragon_object_note left it. Does not block. */
typedef void (*dragon_object_ended)(struct dragon_object_header *header, uint64_t state_bytes,
                                    uint32_t note, const struct dragon_end *end);

/* Objects that have lost their last user, and that the caller is to free. */
struct dragon_garbage {
    struct dragon_pool *pool;     /* borrowed */
    uint32_t freer;               /* in whose name: this process, or a dead one that is swept */
    uint64_t first;               /* private: offset of the first one; 0: none */
    const struct dragon_end *end; /* for dragon_object_sweep; NULL: nobody is told */
    dragon_object_ended ended;
};

/* Frees what the state owns (its other blocks), before the block itself goes. What
 * loses its last user by that is added to the garbage. It may have been begun before,
 * by a process that was killed. NULL: nothing. */
typedef void (*dragon_object_fini)(struct dragon_object *object, struct dragon_garbage *garbage);

/* A new object that holder uses once, with a zeroed state of size_bytes. Outcomes and
 * errors of dragon_pool_alloc. */
int dragon_object_create(struct dragon_pool *pool, uint32_t kind, uint64_t size_bytes,
                         uint32_t holder, struct dragon_object *object_out);

/* Use an existing one: one use more for holder. -EBADMSG: not a live object of this
 * kind with at least size_bytes of state. Outcomes of dragon_pool_alloc: no room to note
 * the user. */
int dragon_object_open(struct dragon_pool *pool, const struct dragon_handle *handle, uint32_t kind,
                       uint64_t size_bytes, uint32_t holder, struct dragon_object *object_out);

/* One use more of an open object, for holder, whoever that is. As dragon_object_open. */
int dragon_object_keep(struct dragon_object *object, uint32_t holder);

/* One use less. With the last one the object is freed, and what that leaves without
 * users: fini is called for all of these, so it must know every kind that messages of
 * this one may list (channel/fini.h does). */
void dragon_object_close(struct dragon_object *object, dragon_object_fini fini);

/* ---- what the end of a user means ---- */

/* Leave a note in the entry of this process: note_of(state), asked under the mutex. Of
 * several uses the last note counts. -EBADMSG: it is no user. */
int dragon_object_note(struct dragon_object *object, uint32_t (*note_of)(void *state));

/* The death of the process that stopped to use the object last, if this process is the only
 * user that is left; 0: others use it, or that one ended cleanly or gave its use back. */
uint64_t dragon_object_left_by_death(struct dragon_object *object);

/* ---- for who looks at all objects of a pool ---- */

/* Say, once the state is complete, that it begins with a known struct, although
 * the object's kind is its users' own. */
void dragon_object_begins_with(struct dragon_object *object, uint32_t state_kind);

/* The state of an object's block if it begins so; NULL: it does not. The object may be
 * freed at any time: what is read there may be anything. size_bytes: the block's;
 * state_bytes: that the state has at least. */
void *dragon_object_state_in(struct dragon_pool *pool, const struct dragon_handle *handle,
                             uint64_t size_bytes, uint32_t state_kind, uint64_t state_bytes);

/* ---- garbage ---- */

/* Take a holder that is dead, garbage->freer, out of all objects of its pool. What has no
 * user then, or was being freed by it, is garbage. One at a time for a holder. */
void dragon_object_sweep(struct dragon_garbage *garbage);

/* Free all garbage. */
void dragon_garbage_free(struct dragon_garbage *garbage, dragon_object_fini fini);

/* ---- for memory/uses.c: a block as a user ---- */

/* Make a block a user of the object that a handle names; holder: this process. Nothing
 * happens if it is one. As dragon_object_keep. */
int dragon_object_add_block(struct dragon_pool *pool, const struct dragon_handle *object,
                            const struct dragon_handle *block, uint32_t holder);

/* Take a block out of the users of an object. Nothing happens if it is none, or there is
 * no such object. */
void dragon_object_take_out_block(struct dragon_garbage *garbage,
                                  const struct dragon_handle *object,
                                  const struct dragon_handle *block);
