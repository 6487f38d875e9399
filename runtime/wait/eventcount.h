#pragma once

/*
 * Eventcount: sleep until a condition in shared memory may hold, and wake the
 * sleepers. It holds no condition of its own: the waiter checks its condition
 * between announcing itself and sleeping, the waker changes the condition and
 * then wakes.
 *
 * Waiter:                                     Waker:
 *   key = dragon_eventcount_prepare(e)          make the condition true
 *   if the condition holds: stop                dragon_eventcount_wake_one(e)
 *   dragon_eventcount_park(e, key, deadline)
 *   check again
 *
 * Three words: `sequence` is what sleepers sleep on; `arrived` counts
 * announcements and `cleared` is the value of `arrived` up to which all are
 * known to have left. arrived == cleared means: nobody to wake, and waking
 * costs a fence and two loads. There is no count of sleepers to keep right, so
 * a process that is killed here leaves nothing to repair: a dead waiter costs
 * one useless wake, and a waker that dies between the change and the wake is
 * made up for by the waiters, whose parks are never longer than
 * DRAGON_EVENTCOUNT_PARK_NS. (The proof is a search of all interleavings:
 * tests/model/eventcount.py.)
 *
 * Who writes: sequence and cleared: wakers; arrived: waiters. No lock.
 */

#include "base/atomic.h"

#include <stdbool.h>
#include <stdint.h>

struct dragon_eventcount {
    /* private */
    _Atomic uint32_t sequence;
    _Atomic uint32_t arrived;
    _Atomic uint32_t cleared;
    uint32_t reserved;
};

_Static_assert(sizeof(struct dragon_eventcount) == 16, "shared layout");

/* The longest sleep without looking again, in ns. */
#define DRAGON_EVENTCOUNT_PARK_NS INT64_C(1000000000)

enum dragon_eventcount_outcome {
    DRAGON_EVENTCOUNT_TIMEOUT = 1, /* deadline_ns has passed */
    DRAGON_EVENTCOUNT_INTERRUPTED, /* a signal handler ran in this thread */
};

/* All zero bytes are an initialised eventcount, too. */
static inline void dragon_eventcount_init(struct dragon_eventcount *e)
{
    dragon_poke(&e->sequence, 0);
    dragon_poke(&e->arrived, 0);
    dragon_poke(&e->cleared, 0);
    e->reserved = 0;
}

/* Announce a waiter. The caller checks its condition after this and before
 * dragon_eventcount_park. Going away without parking is allowed. */
static inline uint32_t dragon_eventcount_prepare(struct dragon_eventcount *e)
{
    /* The sequence is read before the announcement: whoever sees the
     * announcement moves the sequence on, and then this key is stale. */
    uint32_t key = dragon_observe(&e->sequence);

    dragon_fetch_add(&e->arrived, 1);
    dragon_fence(); /* pairs with the fence of the waker */
    return key;
}

/* Sleep until woken, at most until deadline_ns (CLOCK_MONOTONIC, ns). Returns
 * 0 to look again (woken, stale key, or the time for another look), or an
 * outcome, or -errno. */
int dragon_eventcount_park(struct dragon_eventcount *e, uint32_t key, int64_t deadline_ns);

/* The same without a time to look again: for what only this process wakes. */
int dragon_eventcount_park_until(struct dragon_eventcount *e, uint32_t key, int64_t deadline_ns);

/* The slow half of the wakes below: wake at most n. Async-signal-safe, never blocks. */
void dragon_eventcount_wake_some(struct dragon_eventcount *e, int n);

/* True if somebody may sleep: to be woken. For where a full fence lies between the
 * change and this. */
static inline bool dragon_eventcount_has_waiters_fenced(struct dragon_eventcount *e)
{
    return dragon_peek(&e->arrived) != dragon_peek(&e->cleared);
}

/* The same with the fence. */
static inline bool dragon_eventcount_has_waiters(struct dragon_eventcount *e)
{
    dragon_fence(); /* pairs with the fence of dragon_eventcount_prepare */
    return dragon_eventcount_has_waiters_fenced(e);
}

/* Wake one sleeper, if there is any. Async-signal-safe, never blocks. */
static inline void dragon_eventcount_wake_one(struct dragon_eventcount *e)
{
    if (dragon_eventcount_has_waiters(e))
        dragon_eventcount_wake_some(e, 1);
}

/* The same where the condition was changed under a dragon_mutex that has been
 * unlocked since, or a full fence lies between otherwise. */
static inline void dragon_eventcount_wake_one_fenced(struct dragon_eventcount *e)
{
    if (dragon_eventcount_has_waiters_fenced(e))
        dragon_eventcount_wake_some(e, 1);
}

/* The same for all, where the condition was made true by a read-modify-write of
 * base/atomic.h. */
static inline void dragon_eventcount_wake_all_after_change(struct dragon_eventcount *e)
{
    dragon_fence_after_change(); /* pairs with the fence of dragon_eventcount_prepare */
    if (dragon_eventcount_has_waiters_fenced(e))
        dragon_eventcount_wake_some(e, INT32_MAX);
}

/* Wake all sleepers. Async-signal-safe, never blocks. */
static inline void dragon_eventcount_wake_all(struct dragon_eventcount *e)
{
    if (dragon_eventcount_has_waiters(e))
        dragon_eventcount_wake_some(e, INT32_MAX);
}
