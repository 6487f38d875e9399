#pragma once

/*
 * Channel: an ordered queue of messages between any number of producers and
 * consumers in any processes.
 *
 * A send takes the send lock, writes a slot, and stores head + 1: that store is
 * the commit. A receive takes the receive lock, copies a slot, and stores
 * tail + 1. Producers meet only producers, consumers only consumers. A process
 * that is killed before its commit has done nothing; after it, everything:
 * there is nothing to repair when a lock's holder died.
 *
 * Who writes: head, head_ring, bytes_in, tail_seen, the slots from head on: the
 * holder of the send lock. tail, tail_ring, bytes_out, head_seen: the holder of
 * the receive lock. tail_seen and head_seen are what a side has last read of the
 * other's position: never ahead of it, so a survivor need not correct them; the
 * position itself is read only when what was seen does not do.
 * n_done: anybody, atomically. The eventcounts and pollers: as their headers say.
 * has_watchers: watchers set it, who changes the channel clears it and wakes
 * them all; whoever dies between the two is made up for by their parks, which
 * end after DRAGON_EVENTCOUNT_PARK_NS. is_destroyed: set once, never cleared.
 *
 * A block in a message keeps its sender as its holder on the way; the receiver
 * makes itself the holder before its commit. So what a dead process holds is
 * freed, unless a message still in a channel names it: channel/in_flight.h.
 *
 * What a death may leave behind: byte counts that are off by one message, which
 * only makes a channel seem fuller or emptier to its own limit.
 */

#include "base/atomic.h"
#include "channel/message.h"
#include "channel/ring.h"
#include "memory/object.h"
#include "wait/eventcount.h"
#include "wait/mutex.h"
#include "wait/spin.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dragon_doorbell;
struct dragon_pool;

#define DRAGON_CHANNEL_UNBOUNDED UINT64_MAX
#define DRAGON_CHANNEL_N_POLLERS 8

enum dragon_channel_outcome {
    DRAGON_CHANNEL_FULL = 1,
    DRAGON_CHANNEL_EMPTY,
    DRAGON_CHANNEL_BUSY,        /* try_ only: another thread holds the lock right now */
    DRAGON_CHANNEL_INTERRUPTED, /* a signal handler ran in this thread */
    DRAGON_CHANNEL_POOL_FULL,   /* it may hold more, but its pool cannot */
    DRAGON_CHANNEL_TOO_MANY_DONE,
    DRAGON_CHANNEL_PENDING,   /* join: the deadline passed with messages not done */
    DRAGON_CHANNEL_DESTROYED, /* somebody has ended the channel's use */
    DRAGON_CHANNEL_NOT_YET,   /* watch: the deadline passed and no event holds */
};

/* What dragon_channel_watch waits for; bits. */
enum dragon_channel_event {
    DRAGON_CHANNEL_EVENT_MESSAGE = 1, /* there is a message */
    DRAGON_CHANNEL_EVENT_ROOM = 2,    /* there is room for one */
    DRAGON_CHANNEL_EVENT_EMPTY = 4,
    DRAGON_CHANNEL_EVENT_FULL = 8,
};

struct dragon_channel_options {
    uint64_t max_messages; /* at least 1, or DRAGON_CHANNEL_UNBOUNDED */
    uint64_t max_bytes;    /* of payload on the way, above INT64_MAX: no limit; one message
                              may exceed it */
};

/* In the pool. The two lines of a side's lock are touched by that side only;
 * what the other side looks at, again and again while it spins, lies on a line of
 * its own that is written at the commit and never between. */
struct dragon_channel_shared {
    uint64_t max_messages;
    uint64_t max_bytes;
    uint64_t reserved0[6];

    struct dragon_mutex send_lock;
    _Atomic uint64_t head_ring;
    _Atomic uint64_t tail_seen;

    _Atomic uint64_t head;
    _Atomic uint64_t bytes_in;
    uint64_t reserved1[6];

    struct dragon_mutex receive_lock;
    _Atomic uint64_t tail_ring;
    _Atomic uint64_t head_seen;

    _Atomic uint64_t tail;
    _Atomic uint64_t bytes_out;
    uint64_t reserved2[6];

    /* Looked at after each send and receive, written only by who waits. */
    struct dragon_eventcount may_receive;
    _Atomic uint32_t has_pollers;
    _Atomic uint32_t has_watchers;
    _Atomic uint32_t is_destroyed;
    uint32_t reserved3;
    uint64_t reserved4[4];

    struct dragon_eventcount may_send;
    uint64_t reserved5[6];

    _Atomic uint64_t n_done;
    struct dragon_eventcount all_done;
    struct dragon_eventcount watchers;
    uint64_t reserved6[3];

    /* Armed pollers: offset of a doorbell in the pool, divided by 64, times
     * 256, plus the bit to ring; 0 is a free entry. */
    _Atomic uint64_t pollers[DRAGON_CHANNEL_N_POLLERS];
};

_Static_assert(sizeof(struct dragon_channel_shared) == 9 * 64, "shared layout");
_Static_assert(offsetof(struct dragon_channel_shared, send_lock) == 64, "a line of its own");
_Static_assert(offsetof(struct dragon_channel_shared, head) == 2 * 64, "a line of its own");
_Static_assert(offsetof(struct dragon_channel_shared, receive_lock) == 3 * 64, "a line of its own");
_Static_assert(offsetof(struct dragon_channel_shared, tail) == 4 * 64, "a line of its own");
_Static_assert(offsetof(struct dragon_channel_shared, may_receive) == 5 * 64, "a line of its own");

/* An open channel. One per process is enough; any thread may use it, but what
 * it has learnt about waiting is a hint that threads overwrite. */
struct dragon_channel {
    struct dragon_object object;
    /* Who holds a ring while it is linked or freed, so that it comes back if that
     * process dies meanwhile: dragon_node_holder where there is a node. After
     * dragon_channel_open: the object's user, or if that is a role DRAGON_HOLDER_PART, which
     * nobody sweeps. */
    uint32_t holder;
    /* private */
    struct dragon_channel_shared *shared;
    /* Run under the send lock when a message is about to be committed; what is below 0
     * keeps it from that, and is the send's result. NULL: nothing is run. */
    int (*before_commit)(struct dragon_channel *channel);
    struct dragon_ring_view send_ring;    /* under the send lock */
    struct dragon_ring_view receive_ring; /* under the receive lock */
    struct dragon_spin send_spin;
    struct dragon_spin receive_spin;
};

#define DRAGON_CHANNEL_KIND DRAGON_KIND('C', 'H', 'A', 'N')

/* ---- lifetime ---- */

/* A new channel with one use, by DRAGON_HOLDER_SHARED: nobody gives it back but
 * dragon_channel_close. Its handle is channel_out->object.handle. Outcomes and errors of
 * dragon_pool_alloc. */
int dragon_channel_create(struct dragon_pool *pool, const struct dragon_channel_options *options,
                          struct dragon_channel *channel_out);

/* Use the channel that a handle names: one such use more. -EBADMSG: there is none.
 * Outcomes of dragon_pool_alloc. */
int dragon_channel_attach(struct dragon_pool *pool, const struct dragon_handle *handle,
                          struct dragon_channel *channel_out);

/* One use less; with the last one the channel is freed, and what is in it. No thread uses
 * this view any more. Never blocks. */
void dragon_channel_close(struct dragon_channel *channel);

/* ---- lifetime in parts: for objects whose state begins with a channel; the use of
 * the object is the caller's (memory/object.h) ---- */

/* Make the state of a fresh object begin with a channel. Outcomes of
 * dragon_pool_alloc. */
int dragon_channel_init(struct dragon_object *object, const struct dragon_channel_options *options);

/* Free what the channel owns: messages that nobody took, and the rings. A part of
 * dragon_fini (channel/fini.h), which objects are closed with. */
void dragon_channel_fini(struct dragon_object *object, struct dragon_garbage *garbage);

/* Use an open object as a channel. -EBADMSG: its state makes no sense. */
int dragon_channel_open(struct dragon_channel *channel, const struct dragon_object *object);

/* ---- operations ---- */

/* Send without blocking. A block in the message is not the caller's any more on 0,
 * though it stays its holder until somebody receives it; otherwise nothing has
 * changed. 0; _FULL; _BUSY; _POOL_FULL; _DESTROYED; -ENOMEM ... */
int dragon_channel_try_send(struct dragon_channel *channel, const struct dragon_message *message);

/* Send, waiting for room until deadline_ns (CLOCK_MONOTONIC, ns; DRAGON_FOREVER;
 * DRAGON_AT_ONCE). 0; _FULL (deadline); _INTERRUPTED; _POOL_FULL; _DESTROYED. */
int dragon_channel_send(struct dragon_channel *channel, const struct dragon_message *message,
                        int64_t deadline_ns);

/* Take the oldest message without blocking. A block in it is the caller's then,
 * held by holder: this process, as a rule. DRAGON_HOLDER_NONE: the holder stays who
 * it was, which is safe only while that one lives or where nobody is swept. 0;
 * _EMPTY; _BUSY; -EBADMSG: the message was taken and is lost, as it makes no sense
 * or names a block that is none (any more), which the next call does not meet
 * again; or the channel itself makes no sense. */
int dragon_channel_try_receive(struct dragon_channel *channel, uint32_t holder,
                               struct dragon_message *message_out);

/* The same, waiting until deadline_ns. 0; _EMPTY (deadline); _INTERRUPTED;
 * _DESTROYED; -EBADMSG as above. */
int dragon_channel_receive(struct dragon_channel *channel, uint32_t holder,
                           struct dragon_message *message_out, int64_t deadline_ns);

/* Wait until there is a message; it is not taken. 0; _EMPTY (deadline); _INTERRUPTED. */
int dragon_channel_wait(struct dragon_channel *channel, int64_t deadline_ns);

/* Count one received message as done. 0; _TOO_MANY_DONE: more than were sent, nothing
 * was counted. Never blocks. */
int dragon_channel_done(struct dragon_channel *channel);

/* Wait until all messages sent so far are done. 0; _PENDING (deadline_ns); _INTERRUPTED. */
int dragon_channel_join(struct dragon_channel *channel, int64_t deadline_ns);

/* ---- destroying: for channels that have an end of their own ---- */

/* End the use of the channel by all processes: who waits on it now or later gets
 * _DESTROYED, and messages that are in it are freed. Its memory stays until the
 * object's last user closes it. True: this call did it; false: it had been done. Waits
 * for a receive that is under way, not for those that wait for messages. */
bool dragon_channel_destroy(struct dragon_channel *channel);

/* True once somebody has destroyed it; never false again. Any thread, never blocks. */
static inline bool dragon_channel_is_destroyed(const struct dragon_channel *channel)
{
    return dragon_observe(&channel->shared->is_destroyed) != 0;
}

/* ---- watching ---- */

/* True if one of the events (enum dragon_channel_event) holds now. */
bool dragon_channel_has_event(const struct dragon_channel *channel, unsigned events);

/* Wait until one of the events holds; any number of threads and processes may.
 * 0; _NOT_YET (deadline); _INTERRUPTED; _DESTROYED. Without any limit the
 * channel's receivers order nothing, so that _EMPTY may be told 1 s late. */
int dragon_channel_watch(struct dragon_channel *channel, unsigned events, int64_t deadline_ns);

/* ---- pollers ---- */

/* Ring doorbell's bit at the next message. The doorbell is 64-byte aligned in
 * the same pool. The caller looks at the channel after this: a message may have
 * come before. False: no entry is free, look again later. */
bool dragon_channel_arm(struct dragon_channel *channel, uint64_t doorbell_offset, unsigned bit);
/* Undo that: the bit may be rung once more, by who was about to. Not armed: nothing.
 * Any thread, never blocks. */
void dragon_channel_disarm(struct dragon_channel *channel, uint64_t doorbell_offset, unsigned bit);

/* ---- inspection ---- */

/* Messages in the channel: sent, not received. A snapshot. */
static inline uint64_t dragon_channel_count(const struct dragon_channel *channel)
{
    /* Tail first: head is never behind it, so the difference is not negative. */
    uint64_t tail = dragon_observe(&channel->shared->tail);

    return dragon_observe(&channel->shared->head) - tail;
}

/* True if a send would have to wait for a message to be taken. A snapshot; never blocks. */
bool dragon_channel_is_full(const struct dragon_channel *channel);

/* Messages sent and not yet done (dragon_channel_done). A snapshot; never blocks. */
uint64_t dragon_channel_pending(const struct dragon_channel *channel);

/* True if positions, rings and limits fit together. Takes both locks: blocks while
 * others send and receive. For tests. */
bool dragon_channel_check(struct dragon_channel *channel);
