#pragma once

/*
 * A channel that is a semaphore instead of a queue: beside the usual two
 * operations it can be waited for until nobody has anything left to take, and
 * its waits end when the channel is destroyed.
 *
 * Who writes: semaphore: as sync/semaphore.h says. zero: who waits for zero
 * announces itself, who takes wakes. A process killed in between delays the
 * others until their parks end (DRAGON_EVENTCOUNT_PARK_NS), and keeps what it
 * took.
 */

#include "channel/channel.h"
#include "sync/semaphore.h"

struct dragon_channel_semaphore {
    /* private */
    struct dragon_semaphore semaphore;
    struct dragon_eventcount zero;
    uint64_t reserved[2];
};

_Static_assert(sizeof(struct dragon_channel_semaphore) == 64, "shared layout");

enum dragon_channel_semaphore_outcome {
    DRAGON_CHANNEL_SEMAPHORE_TIMEOUT = DRAGON_WAIT_TIMEOUT,
    DRAGON_CHANNEL_SEMAPHORE_INTERRUPTED = DRAGON_WAIT_INTERRUPTED, /* a signal handler ran */
    DRAGON_CHANNEL_SEMAPHORE_DESTROYED,                             /* the channel was */
};

/* Take a unit, waiting for it until deadline_ns. 0; an outcome: nothing was
 * taken; -errno. channel: whose semaphore it is. */
int dragon_channel_semaphore_take(const struct dragon_channel *channel,
                                  struct dragon_channel_semaphore *semaphore, int64_t deadline_ns);

/* Wait until there is no unit. Returns for a value that was 0 at a moment of the
 * call; one that is 0 for a shorter time than a waiter needs to look may be
 * missed. 0; an outcome; -errno. */
int dragon_channel_semaphore_wait_zero(const struct dragon_channel *channel,
                                       struct dragon_channel_semaphore *semaphore,
                                       int64_t deadline_ns);

/* The channel has been destroyed: let those who wait see it. Never blocks. */
void dragon_channel_semaphore_wake_all(struct dragon_channel_semaphore *semaphore);
