#pragma once

/*
 * Condition variable in shared memory: a queue of waiters, woken in the order
 * of their arrival, exactly as many as notify asks for.
 *
 * Each waiter has an entry with a word of its own that only it sleeps on, so a
 * notification wakes one thread and no herd. What becomes of an entry is
 * decided by one compare and swap of that word: notified, or left (timed out,
 * interrupted). A notification is never spent on a waiter that has left.
 *
 * Nor on a dead one: a waiter holds the robust mutex `alive` of its entry as
 * long as it waits. Who finds it without a living holder takes the entry back.
 * (A waiter that is killed after it was notified dies with the notification,
 * as if it had run for a moment.)
 *
 * The caller's lock gives the usual guarantee that no notification is lost
 * between looking and waiting: enter while holding it, then release it, wait,
 * leave, and take it again. The structure stays sane without that lock.
 *
 * Who writes:
 *   entry.alive   its waiter, and who takes the entry of a dead one back
 *   entry.ticket  the holder of `alive`; not 0 publishes the entry
 *   entry.word    the waiter, and notifiers by compare and swap
 *   next_ticket   waiters, by addition
 *   next          under `growing`, once; is_set publishes it
 * A process killed while it waits leaves an entry whose `alive` says so; one
 * killed while it adds a block leaks that block until the pool ends; a notifier
 * killed between the swap and the wake delays its waiter until the park ends
 * (DRAGON_EVENTCOUNT_PARK_NS).
 *
 * All functions but init and fini: any thread of any process that has the
 * memory mapped, not in signal handlers.
 */

#include "base/atomic.h"
#include "memory/object.h"
#include "wait/mutex.h"
#include "wait/wait_until.h"

struct dragon_pool;

enum dragon_condition_outcome {
    DRAGON_CONDITION_TIMEOUT = DRAGON_WAIT_TIMEOUT,
    DRAGON_CONDITION_INTERRUPTED = DRAGON_WAIT_INTERRUPTED, /* a signal handler ran */
    DRAGON_CONDITION_NOT_NOTIFIED,                          /* dragon_condition_leave */
};

/* One waiter's entry. */
struct dragon_condition_waiter {
    /* private */
    struct dragon_mutex alive;
    _Atomic uint64_t ticket; /* place in the queue; 0: the entry is free */
    _Atomic uint32_t word;
    uint32_t reserved;
};

_Static_assert(sizeof(struct dragon_condition_waiter) == 64, "shared layout");

/* To the next block of entries. */
struct dragon_condition_link {
    /* private */
    struct dragon_handle block;
    _Atomic uint32_t is_set;
    uint32_t reserved;
};

#define DRAGON_CONDITION_N_INLINE 8
#define DRAGON_CONDITION_N_MORE 63

struct dragon_condition {
    /* private */
    struct dragon_mutex growing;
    _Atomic uint64_t next_ticket;
    struct dragon_condition_link next;
    uint32_t reserved[10];
    struct dragon_condition_waiter waiters[DRAGON_CONDITION_N_INLINE];
};

_Static_assert(sizeof(struct dragon_condition) == 128 + 64 * DRAGON_CONDITION_N_INLINE,
               "shared layout");

/* 0 or -errno. */
int dragon_condition_init(struct dragon_condition *condition);

/* What the state of an object begins with that is a condition. */
#define DRAGON_CONDITION_KIND DRAGON_KIND('C', 'O', 'N', 'D')

/* Free the blocks of further entries. Nobody waits any more. May be called again
 * where a process was killed in the middle of it. */
void dragon_condition_fini(struct dragon_condition *condition, struct dragon_pool *pool);

/* Queue up. The caller holds its lock; after this it releases it and calls
 * dragon_condition_wait, and in the end, in the same thread, leave or cancel,
 * once. pool: where the condition lives, for more entries when many wait; NULL:
 * no more than DRAGON_CONDITION_N_INLINE. -ENOMEM: no room for another waiter;
 * other -errno. Never blocks for long. */
int dragon_condition_enter(struct dragon_condition *condition, struct dragon_pool *pool,
                           struct dragon_condition_waiter **waiter_out);

/* True if the waiter has been notified. Never blocks. */
bool dragon_condition_is_notified(struct dragon_condition_waiter *waiter);

/* Sleep until notified. 0; DRAGON_CONDITION_TIMEOUT; DRAGON_CONDITION_INTERRUPTED:
 * call again with the same deadline, or cancel; -errno. */
int dragon_condition_wait(struct dragon_condition_waiter *waiter, int64_t deadline_ns);

/* Leave the queue. 0: the waiter has been notified (it may have been so after
 * wait gave up); DRAGON_CONDITION_NOT_NOTIFIED. waiter is invalid after it. */
int dragon_condition_leave(struct dragon_condition_waiter *waiter);

/* Leave the queue with an error: a notification that came goes to the next. */
void dragon_condition_cancel(struct dragon_condition *condition, struct dragon_pool *pool,
                             struct dragon_condition_waiter *waiter);

/* Wake the n that have waited longest, or all if there are less. The number
 * woken. Never blocks. */
uint64_t dragon_condition_notify(struct dragon_condition *condition, struct dragon_pool *pool,
                                 uint64_t n);

/* How many wait and have not been notified: a hint. */
uint64_t dragon_condition_n_waiting(struct dragon_condition *condition, struct dragon_pool *pool);
