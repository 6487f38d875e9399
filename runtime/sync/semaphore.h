#pragma once

/*
 * Semaphore in shared memory; with a maximum of 1, the lock that users see.
 *
 * `value` alone is the truth: whoever lowers it has a unit, whoever raises it
 * gave one back. Nobody's name is on a unit: as in the standard library, a
 * process that is killed while it has one keeps it for ever, and any process
 * may release.
 *
 * `holder` is a hint for those who have waited for long: who has a unit, where the users
 * give their units back themselves, as they do with a lock. The number of the process that
 * took a unit last, or, once that process was killed, its death (memory/death.h).
 *
 * Who writes: value: everyone, by compare and swap; maximum: only init. holder: who took a
 * unit, afterwards, by a store; the sweep of a dead process, by a swap. (Killed in
 * between, it has a unit that another one's name is on.)
 * A process killed here leaves nothing to repair. One killed between raising
 * the value and waking, or between being woken and taking, delays the next
 * waiter until its park ends (DRAGON_EVENTCOUNT_PARK_NS).
 *
 * All functions but init: any thread of any process that maps the memory.
 * acquire and release make no system call while nobody waits.
 */

#include "base/check.h"
#include "memory/object.h"
#include "wait/wait_until.h"

#define DRAGON_SEMAPHORE_MAXIMUM UINT32_C(0x7fffffff)

enum dragon_semaphore_outcome {
    DRAGON_SEMAPHORE_TIMEOUT = DRAGON_WAIT_TIMEOUT,
    DRAGON_SEMAPHORE_INTERRUPTED = DRAGON_WAIT_INTERRUPTED, /* a signal handler ran */
    DRAGON_SEMAPHORE_OVERFLOW,                              /* the value is the maximum */
};

struct dragon_semaphore {
    /* private */
    _Atomic uint32_t value;
    uint32_t maximum;
    struct dragon_eventcount waiters;
    _Atomic uint64_t holder; /* 0: not known */
};

_Static_assert(sizeof(struct dragon_semaphore) == 32, "shared layout");

/* What the state of an object begins with that is a semaphore with holders. */
#define DRAGON_SEMAPHORE_KIND DRAGON_KIND('S', 'E', 'M', 'H')

/* value may be above maximum: then release fails until it has come down.
 * Both at most DRAGON_SEMAPHORE_MAXIMUM. */
void dragon_semaphore_init(struct dragon_semaphore *semaphore, uint32_t value, uint32_t maximum);

/* Take a unit, waiting for it until deadline_ns. 0; DRAGON_SEMAPHORE_TIMEOUT;
 * DRAGON_SEMAPHORE_INTERRUPTED: nothing was taken, call again with the same
 * deadline; -errno. */
int dragon_semaphore_acquire(struct dragon_semaphore *semaphore, int64_t deadline_ns);

/* Take a unit if there is one. Never blocks. */
static inline bool dragon_semaphore_try_acquire(struct dragon_semaphore *semaphore)
{
    uint32_t value = dragon_peek(&semaphore->value);

    while (value > 0)
        if (dragon_replace(&semaphore->value, &value, value - 1))
            return true;
    return false;
}

/* Give a unit back and wake a waiter. Never blocks, async-signal-safe.
 * 0, or DRAGON_SEMAPHORE_OVERFLOW: nothing was done. */
static inline int dragon_semaphore_release(struct dragon_semaphore *semaphore)
{
    uint32_t value = dragon_peek(&semaphore->value);

    do
        if (value >= semaphore->maximum)
            return DRAGON_SEMAPHORE_OVERFLOW;
    while (!dragon_replace(&semaphore->value, &value, value + 1));
    DRAGON_TEST_POINT("semaphore-raised");
    dragon_eventcount_wake_one(&semaphore->waiters);
    return 0;
}

/* Process has taken a unit. */
static inline void dragon_semaphore_note_holder(struct dragon_semaphore *semaphore,
                                                uint64_t process)
{
    dragon_poke(&semaphore->holder, process);
}

/* A process has died. */
static inline void dragon_semaphore_holder_died(struct dragon_semaphore *semaphore,
                                                uint64_t process, uint64_t death)
{
    (void)dragon_replace(&semaphore->holder, &process, death);
}

/* The number of the process that took a unit last, or its death; 0: not known. A hint. */
static inline uint64_t dragon_semaphore_holder(struct dragon_semaphore *semaphore)
{
    return dragon_observe(&semaphore->holder);
}

/* Units there are now: a hint, it may have changed on return. */
static inline uint32_t dragon_semaphore_value(struct dragon_semaphore *semaphore)
{
    return dragon_observe(&semaphore->value);
}
