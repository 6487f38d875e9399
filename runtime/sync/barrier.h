#pragma once

/*
 * Barrier in shared memory: n parties wait for each other, again and again.
 *
 * One 64-bit word, `phase`, is the truth and is changed by compare and swap:
 *
 *   bits  0..1   state: filling, full (the last party runs the action), broken
 *   bits  2..21  parties that have arrived in this generation
 *   bits 22..37  how the last 16 generations ended, the latest in bit 22:
 *                0 released, 1 broken
 *   bits 38..63  number of the generation
 *
 * The next generation begins to fill as soon as this one ends: nobody has to
 * wait until all have left, because who comes late finds in the word how its
 * generation ended. (One that comes more than 16 generations late is taken for
 * released: with more threads than parties that can happen, and only a reset
 * in just that generation would have said otherwise.)
 *
 * `leader` is held by the party that runs the action, while it runs it: when
 * that process is killed, a waiter finds out within DRAGON_EVENTCOUNT_PARK_NS
 * and breaks the barrier. One killed between changing the phase and waking delays the
 * sleepers until their parks end.
 *
 * A barrier that is an object of its own has a *roll*: before a party arrives in a
 * generation, its process notes that in its entry among the object's users
 * (dragon_object_note). Who sweeps a killed process reads the note and
 * breaks the barrier if it names this generation or the one before (but for such as a
 * reset has ended): that party is
 * awaited, or had arrived and would be awaited next time. The note comes first, so
 * a party that is counted is on the roll; it is taken under the object's mutex together
 * with the number of the generation, so it never goes back, whichever threads of the process
 * come in what order. tests/model/barrier.py searches it.
 * Without a roll a party that is killed while it waits counts as arrived.
 *
 * A party: dragon_barrier_arrive; then, if it was not the last,
 * dragon_barrier_wait until that gives 0 or DRAGON_BARRIER_BROKEN (when its
 * time is over: dragon_barrier_expire once, and wait on), or
 * dragon_barrier_withdraw; if it was the last of a barrier with an action, the
 * action and dragon_barrier_finish, in the same thread.
 */

#include "memory/object.h"
#include "wait/mutex.h"
#include "wait/wait_until.h"

#define DRAGON_BARRIER_MAX_PARTIES ((UINT32_C(1) << 20) - 1)

enum dragon_barrier_outcome {
    DRAGON_BARRIER_TIMEOUT = DRAGON_WAIT_TIMEOUT,
    DRAGON_BARRIER_INTERRUPTED = DRAGON_WAIT_INTERRUPTED, /* a signal handler ran */
    DRAGON_BARRIER_LAST,                                  /* arrive: the caller was awaited */
    DRAGON_BARRIER_BROKEN, /* aborted, reset, a time-out, a death, or the action failed */
};

struct dragon_barrier {
    /* private */
    _Atomic uint64_t phase;
    uint32_t parties; /* written by init only */
    uint32_t reserved[9];
    struct dragon_eventcount waiters;
    struct dragon_mutex leader;
    uint64_t reserved_too[2];
};

_Static_assert(sizeof(struct dragon_barrier) == 128, "shared layout");

/* A party's place. Private to it. */
struct dragon_barrier_place {
    uint32_t generation;
    uint32_t index; /* 0 for the first that arrived, parties - 1 for the last */
};

/* What the state of an object begins with that is a barrier with a roll. */
#define DRAGON_BARRIER_KIND DRAGON_KIND('B', 'A', 'R', 'R')

/* parties: 1 to DRAGON_BARRIER_MAX_PARTIES. 0 or -errno. */
int dragon_barrier_init(struct dragon_barrier *barrier, uint32_t parties);

/* Arrive. Blocks only while an action is run. roll: the object whose state the
 * barrier is; NULL: it has no roll. 0: wait now.
 * DRAGON_BARRIER_LAST: without has_action all are released already; with it the
 * caller runs the action and calls dragon_barrier_finish.
 * DRAGON_BARRIER_BROKEN; DRAGON_BARRIER_TIMEOUT, _INTERRUPTED: not arrived, call
 * again; -errno. place_out is written on 0 and DRAGON_BARRIER_LAST. */
int dragon_barrier_arrive(struct dragon_barrier *barrier, struct dragon_object *roll,
                          bool has_action, int64_t deadline_ns,
                          struct dragon_barrier_place *place_out);

/* Wait for the others. 0; DRAGON_BARRIER_BROKEN; DRAGON_BARRIER_TIMEOUT,
 * _INTERRUPTED: call again, expire or withdraw; -errno. */
int dragon_barrier_wait(struct dragon_barrier *barrier, const struct dragon_barrier_place *place,
                        int64_t deadline_ns);

/* A party's time is over: break the barrier, unless all have arrived and only
 * the action is awaited. Never blocks. */
void dragon_barrier_expire(struct dragon_barrier *barrier,
                           const struct dragon_barrier_place *place);

/* Give up waiting, as if not arrived. Too late if all have: then nothing
 * happens. Never blocks. */
void dragon_barrier_withdraw(struct dragon_barrier *barrier,
                             const struct dragon_barrier_place *place);

/* After the action: release all, or break the barrier if it failed. 0 released;
 * DRAGON_BARRIER_BROKEN: it failed, or somebody aborted or reset meanwhile. */
int dragon_barrier_finish(struct dragon_barrier *barrier, const struct dragon_barrier_place *place,
                          bool succeeded);

/* Break the barrier, until it is reset. Never blocks. */
void dragon_barrier_abort(struct dragon_barrier *barrier);

/* Make it whole and empty. Those that wait get DRAGON_BARRIER_BROKEN. A party whose death
 * is told of later may break it again, so who resets it has the dead swept first
 * (dragon_node_settle). Never blocks. */
void dragon_barrier_reset(struct dragon_barrier *barrier);

/* A process of the roll was killed; note: its own. For its sweep. */
void dragon_barrier_party_died(struct dragon_barrier *barrier, uint32_t note);

/* Parties that wait now; 0 if it is broken. */
uint32_t dragon_barrier_n_waiting(struct dragon_barrier *barrier);

/* True until it is reset. A hint. Never blocks. */
bool dragon_barrier_is_broken(struct dragon_barrier *barrier);
