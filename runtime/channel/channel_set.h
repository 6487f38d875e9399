#pragma once

/*
 * Set of channels: one thread waits for an event of any of them.
 *
 * A waiter announces itself to the watchers of each member, looks at all of
 * them, and sleeps on all their eventcounts at once. So every kind of event can
 * be waited for, the members may be in different pools, and what a waiter leaves
 * behind when it is killed is a flag that the next change of a channel clears:
 * no entry, no memory of its own in the pool. (A doorbell, as the node's pollers
 * have it, rings for messages only, has 8 entries a channel, and must never be
 * freed while a dead waiter's entry may still name it.)
 *
 * The system can sleep on DRAGON_CHANNEL_SET_ASLEEP words at once. With more
 * members, or where it cannot do it at all (Linux before 5.16), the waiter looks
 * at all members every DRAGON_CHANNEL_SET_NAP_NS.
 *
 * Events are levels: a wait returns as long as the channel is as asked, however
 * it came to be so, before or during the wait. Nothing is counted, nothing is
 * lost, and no sender waits for a poller.
 */

#include "channel/channel.h"

#include <stddef.h>
#include <stdint.h>

struct dragon_channel_set;

#define DRAGON_CHANNEL_SET_ASLEEP 128
#define DRAGON_CHANNEL_SET_NAP_NS INT64_C(1000000)

enum dragon_channel_set_outcome {
    DRAGON_CHANNEL_SET_NOT_YET = 1, /* the deadline passed and no event holds */
    DRAGON_CHANNEL_SET_INTERRUPTED, /* a signal handler ran in this thread */
    DRAGON_CHANNEL_SET_DESTROYED,   /* a member has been destroyed */
};

/* ---- lifetime ---- */

/* A set of n open channels, which stay open until it is closed; the array is
 * copied. n may be 0, and a channel may be in any number of sets. events: what to
 * wait for, bits of enum dragon_channel_event. 0 or -ENOMEM. */
int dragon_channel_set_create(struct dragon_channel *const *channels, size_t n, unsigned events,
                              struct dragon_channel_set **set_out);

/* Frees the set; nobody waits on it. NULL is fine. */
void dragon_channel_set_close(struct dragon_channel_set *set);

/* ---- waiting ---- */

/* Wait until a member is as asked. index_out: which member; events_out: which of
 * the events hold. Members take turns: one that always has something does not
 * keep the others from being reported. 0; _NOT_YET (deadline); _INTERRUPTED;
 * _DESTROYED (index_out: which). Any threads; what they are told may be the same
 * member. */
int dragon_channel_set_wait(struct dragon_channel_set *set, int64_t deadline_ns, size_t *index_out,
                            unsigned *events_out);
