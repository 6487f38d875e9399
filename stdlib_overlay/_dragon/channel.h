#pragma once

/*
 * _dragon.Channel, as channel.c (messages), channel_sync.c (semaphores and
 * barriers) and channel_set.c use it.
 */

#include "object.h"
#include "pollable.h"

#include "channel/blocked.h"
#include "channel/channel.h"
#include "channel/channel_semaphore.h"
#include "sync/barrier.h"

/* In the pool. Up to is_semaphore: written once, by the creator, before anybody
 * else knows of the channel. The others: as their headers say. */
struct dragon_py_channel_state {
    struct dragon_channel_shared shared;
    uint64_t uid;
    uint64_t block_bytes;
    uint32_t lock_type; /* as it was made with, for programs that ask */
    uint32_t flow_control;
    uint32_t is_semaphore;
    uint32_t reserved0;
    uint64_t reserved1[4];
    struct dragon_channel_semaphore semaphore; /* if is_semaphore */
    struct dragon_barrier barrier;             /* of capacity parties; if it is not */
    struct dragon_blocked blocked;             /* in a receive */
};

_Static_assert(sizeof(struct dragon_py_channel_state) == 21 * 64, "shared layout");

struct dragon_py_channel {
    struct dragon_py_object base;
    struct dragon_channel channel;
    PyObject *pool;               /* struct dragon_py_pool; keeps the mapping */
    struct dragon_poller *poller; /* pollable.h */
    /* A thread of this process is to release the barrier: it has locked
     * something in the pool, which must stay mapped until it has. */
    struct dragon_barrier_place leader_place;
    unsigned long leader_thread;
    int32_t leader_pid; /* a forked copy of the process has not locked it */
    bool has_leader;
};

static inline struct dragon_py_channel_state *
dragon_py_channel_state(struct dragon_py_channel *self)
{
    return self->base.object.state;
}

/* -1 with an exception (Destroyed) if the channel cannot be used any more. */
int dragon_py_channel_require(struct dragon_py_channel *self);

/* What r < 0, or an outcome that is a failure, is as an exception. -1. */
int dragon_py_channel_fail(struct dragon_py_channel *self, int r, const char *what);

/* Announce that the calling thread blocks in a receive; its place, for
 * dragon_blocked_leave. With the GIL. */
int dragon_py_channel_enter_blocked(struct dragon_py_channel *self);

/* ---- channel_sync.c ---- */

/* Methods of _dragon.Channel; ends with a NULL. */
extern PyMethodDef dragon_py_channel_sync_methods[];

/* The constants BARRIER_* of the module. 0, or -1 with an exception. */
int dragon_py_channel_add_outcomes(PyObject *module);

/* Ready the semaphore or the barrier of a new channel. 0 or -errno. */
int dragon_py_channel_init_sync(struct dragon_py_channel *self, uint32_t value, uint32_t maximum);

/* The channel has been destroyed: end waits on its semaphore or barrier. */
void dragon_py_channel_end_sync(struct dragon_py_channel *self);

/* The object goes: fail the barrier's action if it did not end here. */
void dragon_py_channel_leave_sync(struct dragon_py_channel *self);
