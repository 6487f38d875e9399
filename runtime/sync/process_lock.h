#pragma once

/*
 * Lock in shared memory that a process holds, and that does not stay locked when it ends: the
 * next one gets it and is told. For multiprocessing's Lock and RLock made with robust=True.
 * (dragon_lock is held by a thread, which alone may unlock it; here any thread of any
 * process may, as the standard library's Lock allows.)
 *
 * One word, `holder`, is all there is: 0, or the number of the process that holds the lock
 * (memory/death.h). Who waits asks of that number whether such a process is still there; if
 * not, one swap from the old number to its own makes it the holder, and it is
 * told. So at each moment the lock is somebody's or nobody's, and there is nothing that a
 * death could leave half done: who dies after he got it, told or not, is the next one's
 * dead holder.
 *
 * A number is never used again, so the swap fails if anything has happened in between. That
 * a process is gone never changes, and it is not said of a living one.
 *
 * Who writes: holder: everybody, by compare and swap.
 * A process killed between unlocking and waking, or a holder's death that nobody has
 * noticed, delays the next one until its park ends (DRAGON_EVENTCOUNT_PARK_NS); the
 * sweep of a dead process wakes those who wait (dragon_process_lock_wake).
 * tests/model/process_lock.py searches it.
 *
 * All functions but init: any thread of any process that maps the memory. Without
 * contention there is no system call.
 */

#include "base/check.h"
#include "memory/object.h"
#include "wait/wait_until.h"

enum dragon_process_lock_outcome {
    DRAGON_PROCESS_LOCK_TIMEOUT = DRAGON_WAIT_TIMEOUT,
    DRAGON_PROCESS_LOCK_INTERRUPTED = DRAGON_WAIT_INTERRUPTED, /* a signal handler ran */
    DRAGON_PROCESS_LOCK_OWNER_DIED, /* locked; the last holder ended in it */
    DRAGON_PROCESS_LOCK_BUSY,
    DRAGON_PROCESS_LOCK_NOT_LOCKED,
};

struct dragon_process_lock {
    /* private */
    _Atomic uint64_t holder;
    struct dragon_eventcount waiters;
    uint64_t reserved;
};

_Static_assert(sizeof(struct dragon_process_lock) == 32, "shared layout");

/* What the state of an object begins with that is such a lock. */
#define DRAGON_PROCESS_LOCK_KIND DRAGON_KIND('P', 'L', 'O', 'C')

/* A process that locks, and how it learns who is there. */
struct dragon_process_lock_user {
    uint64_t process; /* its number */
    /* False: the process of that number has ended. May be true for a while afterwards.
     * Never blocks. */
    bool (*is_there)(void *context, uint64_t process);
    void *context;
};

/* Make a lock of the memory, unlocked. Nobody uses that yet. */
void dragon_process_lock_init(struct dragon_process_lock *lock);

/* Lock it if it is free, or its holder gone. 0; DRAGON_PROCESS_LOCK_OWNER_DIED: locked;
 * DRAGON_PROCESS_LOCK_BUSY, also if this process holds it. Never blocks. */
static inline int dragon_process_lock_try(struct dragon_process_lock *lock,
                                          const struct dragon_process_lock_user *user)
{
    uint64_t holder = 0;

    if (dragon_replace(&lock->holder, &holder, user->process))
        return 0;
    if (holder == user->process || (holder != 0 && user->is_there(user->context, holder)))
        return DRAGON_PROCESS_LOCK_BUSY;
    DRAGON_TEST_POINT("process-lock-before-taking-over");
    if (!dragon_replace(&lock->holder, &holder, user->process))
        return DRAGON_PROCESS_LOCK_BUSY; /* somebody else was faster */
    DRAGON_TEST_POINT("process-lock-taken-over");
    return DRAGON_PROCESS_LOCK_OWNER_DIED;
}

/* Lock it, waiting until deadline_ns. 0 or DRAGON_PROCESS_LOCK_OWNER_DIED: locked;
 * DRAGON_PROCESS_LOCK_TIMEOUT; DRAGON_PROCESS_LOCK_INTERRUPTED: call again; -errno. */
int dragon_process_lock_lock(struct dragon_process_lock *lock,
                             const struct dragon_process_lock_user *user, int64_t deadline_ns);

/* Unlock it, whoever holds it. 0; DRAGON_PROCESS_LOCK_NOT_LOCKED. Never blocks. */
static inline int dragon_process_lock_unlock(struct dragon_process_lock *lock)
{
    uint64_t holder = dragon_peek(&lock->holder);

    do
        if (holder == 0)
            return DRAGON_PROCESS_LOCK_NOT_LOCKED;
    while (!dragon_replace(&lock->holder, &holder, 0));
    DRAGON_TEST_POINT("process-lock-unlocked");
    dragon_eventcount_wake_one(&lock->waiters);
    return 0;
}

/* Somebody who used it has ended: have one of those who wait look, if it was the holder. */
void dragon_process_lock_wake(struct dragon_process_lock *lock, uint64_t process);

/* The number of the holder, 0: it is free. A hint. */
static inline uint64_t dragon_process_lock_holder(struct dragon_process_lock *lock)
{
    return dragon_observe(&lock->holder);
}
