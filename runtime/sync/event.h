#pragma once

/*
 * Event in shared memory: a flag that is waited for.
 *
 * One word holds the flag (bit 0) and how often it has been raised (the other
 * 31 bits). A waiter notes that number when its wait begins and is released
 * when the flag is up or the number has moved: set() followed at once by
 * clear() releases all who waited before, however late they come to look.
 * (The number wraps: a waiter that does not run for exactly 2^31 raises would
 * wait for the next.)
 *
 * Who writes: `word`: everyone, by compare and swap. A process killed here
 * leaves nothing to repair; one killed between raising the flag and waking
 * delays the sleepers until their parks end (DRAGON_EVENTCOUNT_PARK_NS).
 *
 * All functions but init: any thread of any process that maps the memory.
 */

#include "wait/wait_until.h"

enum dragon_event_outcome {
    DRAGON_EVENT_TIMEOUT = DRAGON_WAIT_TIMEOUT,
    DRAGON_EVENT_INTERRUPTED = DRAGON_WAIT_INTERRUPTED, /* a signal handler ran */
};

struct dragon_event {
    /* private */
    _Atomic uint32_t word;
    uint32_t reserved[3];
    struct dragon_eventcount waiters;
};

_Static_assert(sizeof(struct dragon_event) == 32, "shared layout");

/* The flag is down. */
void dragon_event_init(struct dragon_event *event);

/* Raise the flag and wake all. Never blocks, async-signal-safe. */
void dragon_event_set(struct dragon_event *event);

/* Lower the flag. Never blocks, async-signal-safe. */
void dragon_event_clear(struct dragon_event *event);

/* True if the flag is up: a hint. Never blocks. */
static inline bool dragon_event_is_set(struct dragon_event *event)
{
    return dragon_observe(&event->word) & 1; /* pairs with the swap in dragon_event_set */
}

/* The point from which a wait counts: pass it to dragon_event_wait. */
static inline uint32_t dragon_event_begin(struct dragon_event *event)
{
    return dragon_observe(&event->word) >> 1;
}

/* True if the flag is up or has been since `begin`. Never blocks. */
static inline bool dragon_event_has_happened(struct dragon_event *event, uint32_t begin)
{
    uint32_t word = dragon_observe(&event->word);

    return (word & 1) || word >> 1 != begin;
}

/* Wait until dragon_event_has_happened(event, begin). 0; DRAGON_EVENT_TIMEOUT;
 * DRAGON_EVENT_INTERRUPTED: call again with the same begin and deadline;
 * -errno. */
int dragon_event_wait(struct dragon_event *event, uint32_t begin, int64_t deadline_ns);
