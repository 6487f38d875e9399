#pragma once

/*
 * Lock for users that are told of its holder's death, in memory of the
 * caller's: a block of a pool, or any other memory that processes share, each
 * at an address of its own. Whoever gets the lock after a holder died in it
 * gets DRAGON_LOCK_OWNER_DIED: the lock works on, what it protects may be half
 * changed. A thread that ends while it holds the lock counts as dead. (The locks
 * of multiprocessing are dragon_semaphore, whose holder keeps it in death.)
 *
 * Kinds:
 *   GREEDY             whoever comes first when it is free gets it.
 *   FIFO, FIFO_LITE    in the order of arrival: nobody gets it before a thread
 *                      that stood in line when he called. FIFO has places for
 *                      64 in its line, FIFO_LITE for 16 in less memory; who
 *                      finds no place waits for one, and among those there is
 *                      no order. Calls that overlap have no order either.
 *
 * `holder`, a robust mutex, alone excludes; the line only says who tries to lock
 * it. A thread in line holds the robust mutex `alive` of its place, so that the
 * kernel tells the dead from the living and nobody waits behind a dead one.
 *
 * Who writes:
 *   magic            init, and fini while it holds `holder`
 *   version, kind    init only
 *   queued           bit i publishes place i: set and cleared by who holds its
 *                    `alive`
 *   place.ticket     who holds its `alive`
 *   place.word       the waiter (1: it sleeps, or is about to), wakers (0)
 *   next_ticket      waiters, by addition
 * When a process dies: in the critical section, the next one is told. In line,
 * its place is taken back by whoever finds it first in line, or needs a place.
 * Between unlocking and waking, or having been woken, the others go on with
 * their next look, every DRAGON_LOCK_LOOK_NS. (The proof is a search of all
 * interleavings with deaths before any step: tests/model/lock.py.)
 *
 * The memory must stay mapped in a process while one of its threads holds the
 * lock or waits for it, and may be used for something else only when nobody does
 * and no call on the lock is under way. Thread ids name the holders: processes
 * that share a lock share a pid namespace.
 *
 * All functions: any thread, not in signal handlers.
 */

#include "wait/eventcount.h"
#include "wait/mutex.h"
#include "wait/wait_until.h"

#include <stddef.h>

enum dragon_lock_kind {
    DRAGON_LOCK_FIFO = 1,
    DRAGON_LOCK_FIFO_LITE,
    DRAGON_LOCK_GREEDY,
};

enum dragon_lock_outcome {
    DRAGON_LOCK_TIMEOUT = DRAGON_WAIT_TIMEOUT,
    DRAGON_LOCK_INTERRUPTED = DRAGON_WAIT_INTERRUPTED, /* a signal handler ran */
    DRAGON_LOCK_OWNER_DIED,                            /* locked; the last holder died in it */
    DRAGON_LOCK_BUSY,                                  /* somebody else has it, or is to have it */
    DRAGON_LOCK_DESTROYED,                             /* it is a lock no more */
};

/* The longest sleep of a waiter without looking again, in ns. */
#define DRAGON_LOCK_LOOK_NS INT64_C(100000000)

#define DRAGON_LOCK_ALIGNMENT 8
#define DRAGON_LOCK_MAX_PLACES 64

/* A place in line, in shared memory. */
struct dragon_lock_place {
    /* private */
    struct dragon_mutex alive;
    _Atomic uint64_t ticket;
    _Atomic uint32_t word;
    uint32_t reserved;
};

_Static_assert(sizeof(struct dragon_lock_place) == 64, "shared layout");

/* The lock, in shared memory. */
struct dragon_lock_shared {
    /* private */
    _Atomic uint32_t magic;
    uint32_t version;
    uint32_t kind; /* enum dragon_lock_kind */
    uint32_t reserved[13];
    struct dragon_mutex holder;
    struct dragon_eventcount door; /* GREEDY: all who wait; else who wait for a place */
    _Atomic uint64_t queued;
    _Atomic uint64_t next_ticket;
    uint64_t reserved_too[6];
    struct dragon_lock_place places[]; /* none for GREEDY */
};

_Static_assert(sizeof(struct dragon_lock_shared) == 192, "shared layout");

/* A process's view of a lock. Several threads may use one. */
struct dragon_lock {
    /* private */
    struct dragon_lock_shared *shared;
    uint32_t n_places;
    _Atomic int32_t holder; /* the thread of this process that locked it here, 0: none */
    struct dragon_spin spin;
};

/* ---- lifetime ---- */

/* Bytes that a lock takes up; 0 for what is no kind. */
size_t dragon_lock_size_bytes(enum dragon_lock_kind kind);

/* Make a lock of the memory, whatever is in it; nobody else uses that yet.
 * 0; -EINVAL: no kind, less than dragon_lock_size_bytes(kind), or not aligned to
 * DRAGON_LOCK_ALIGNMENT; other -errno. */
int dragon_lock_init(enum dragon_lock_kind kind, void *memory, size_t size_bytes,
                     struct dragon_lock *lock_out);

/* Use the lock that any process made of the memory. 0; DRAGON_LOCK_DESTROYED;
 * -EBADMSG: the bytes are no lock; -EINVAL: not aligned. */
int dragon_lock_open(void *memory, size_t size_bytes, struct dragon_lock *lock_out);

/* End the lock for all processes. The caller holds it, or nobody does. Those who
 * wait get DRAGON_LOCK_DESTROYED. 0; DRAGON_LOCK_DESTROYED: it was already;
 * DRAGON_LOCK_BUSY: somebody holds it, nothing was done; -errno. Never blocks. */
int dragon_lock_fini(struct dragon_lock *lock);

/* As it was made. Never blocks. */
enum dragon_lock_kind dragon_lock_kind(const struct dragon_lock *lock);

/* True while a living thread of this process holds what it locked through this
 * view: the memory must stay mapped. */
bool dragon_lock_is_held_here(struct dragon_lock *lock);

/* ---- locking ---- */

/* A thread's place in line across several waits, {0} to begin with. */
struct dragon_lock_turn {
    /* private */
    uint32_t place; /* index + 1; 0: none */
    int32_t thread; /* whose place it is; not the forked child's */
};

/* Lock, waiting until deadline_ns. 0 or DRAGON_LOCK_OWNER_DIED: locked;
 * DRAGON_LOCK_TIMEOUT, _INTERRUPTED (the place in line is lost); _DESTROYED;
 * -EDEADLK: the calling thread holds it; other -errno. */
int dragon_lock_lock(struct dragon_lock *lock, int64_t deadline_ns);

/* The same in pieces: after DRAGON_LOCK_TIMEOUT and DRAGON_LOCK_INTERRUPTED the
 * thread may have a place in line, which it keeps. It calls again or
 * dragon_lock_leave, and nothing else on this lock in between. */
int dragon_lock_wait(struct dragon_lock *lock, struct dragon_lock_turn *turn, int64_t deadline_ns);

/* Give up the place in line, if there is one. Never blocks. */
void dragon_lock_leave(struct dragon_lock *lock, struct dragon_lock_turn *turn);

/* Lock if it is free and nobody stands in line. 0 or DRAGON_LOCK_OWNER_DIED:
 * locked; DRAGON_LOCK_BUSY, also if the caller holds it; DRAGON_LOCK_DESTROYED;
 * -errno. Never blocks. */
int dragon_lock_try_lock(struct dragon_lock *lock);

/* Unlock, through the view that locked it. 0; -EPERM: the calling thread does
 * not hold it, nothing was done. Never blocks. */
int dragon_lock_unlock(struct dragon_lock *lock);
