/*
 * Every change of the barrier is one swap of the phase word, so a process that
 * dies before it has done nothing, and one that dies after it has only failed
 * to wake. What swaps may follow which:
 *
 *   filling, k < n-1  --arrive-->    filling, k+1
 *   filling, n-1      --arrive-->    full                (with an action)
 *   filling, n-1      --arrive-->    next generation, released
 *   full              --finish-->    next generation, released
 *   filling or full   --time-out, failed action, abort, death-->  broken
 *   any but empty     --reset-->     next generation, this one broken
 */
#include "sync/barrier.h"

#include "base/check.h"
#include "base/error.h"

#include <string.h>

/* Somebody else changed the phase first; internal to this file. */
#define TRY_AGAIN 100

enum state { FILLING = 0, FULL = 1, BROKEN = 2 };

#define STATE_MASK UINT64_C(3)
#define COUNT_SHIFT 2
#define ONE_PARTY (UINT64_C(1) << COUNT_SHIFT)
#define COUNT_MASK UINT64_C(0xfffff)
#define HISTORY_SHIFT 22
#define HISTORY_BITS 16
#define HISTORY_MASK UINT64_C(0xffff)
#define GENERATION_SHIFT 38
#define GENERATION_MASK UINT64_C(0x3ffffff)

static enum state state_of(uint64_t phase)
{
    return (enum state)(phase & STATE_MASK);
}

static uint32_t count_of(uint64_t phase)
{
    return (uint32_t)(phase >> COUNT_SHIFT & COUNT_MASK);
}

static uint32_t generation_of(uint64_t phase)
{
    return (uint32_t)(phase >> GENERATION_SHIFT & GENERATION_MASK);
}

static uint64_t with_state(uint64_t phase, enum state state)
{
    return (phase & ~STATE_MASK) | (uint64_t)state;
}

/* The generation after this one, which ended released or broken. */
static uint64_t next_generation(uint64_t phase, bool broken)
{
    uint64_t history = (phase >> HISTORY_SHIFT & HISTORY_MASK) << 1 | broken;
    uint64_t generation = ((uint64_t)generation_of(phase) + 1) & GENERATION_MASK;

    return generation << GENERATION_SHIFT | (history & HISTORY_MASK) << HISTORY_SHIFT | FILLING;
}

/* How a generation ended that is not phase's own. */
static bool ended_broken(uint64_t phase, uint32_t generation)
{
    uint32_t n_ago = (generation_of(phase) - generation) & (uint32_t)GENERATION_MASK;

    return n_ago <= HISTORY_BITS && (phase >> (HISTORY_SHIFT + n_ago - 1) & 1);
}

int dragon_barrier_init(struct dragon_barrier *barrier, uint32_t parties)
{
    dragon_check(parties >= 1 && parties <= DRAGON_BARRIER_MAX_PARTIES);
    memset(barrier, 0, sizeof *barrier);
    barrier->parties = parties;
    return dragon_error_trace(dragon_mutex_init(&barrier->leader));
}

/* Break the generation unless it has ended, or waits for nothing but its
 * action while keep_full. */
static void break_generation(struct dragon_barrier *barrier, uint32_t generation, bool keep_full)
{
    uint64_t phase = dragon_observe(&barrier->phase);

    do
        if (generation_of(phase) != generation || state_of(phase) == BROKEN ||
            (keep_full && state_of(phase) == FULL))
            return;
    while (!dragon_replace(&barrier->phase, &phase, with_state(phase, BROKEN)));
    DRAGON_TEST_POINT("barrier-broken");
    dragon_eventcount_wake_all(&barrier->waiters);
}

/* The generation is full, so its leader holds the mutex until it has ended,
 * unless it is dead (or its end has not been seen here yet). */
static void check_leader(struct dragon_barrier *barrier, uint32_t generation)
{
    int r = dragon_mutex_try_lock(&barrier->leader);

    if (r == DRAGON_MUTEX_BUSY || r < 0)
        return; /* r < 0: not a mutex of ours any more, nothing to learn from it */
    break_generation(barrier, generation, false);
    dragon_mutex_unlock(&barrier->leader);
}

struct wait {
    struct dragon_barrier *barrier;
    uint32_t generation;
};

/* True when the generation has ended, one way or another. */
static bool has_ended(void *context)
{
    struct wait *wait = context;
    uint64_t phase = dragon_observe(&wait->barrier->phase);

    if (generation_of(phase) != wait->generation || state_of(phase) == BROKEN)
        return true;
    if (state_of(phase) == FULL)
        check_leader(wait->barrier, wait->generation);
    return false;
}

static int wait_for_end(struct dragon_barrier *barrier, uint32_t generation, int64_t deadline_ns)
{
    static _Thread_local struct dragon_spin spin;
    struct wait wait = {barrier, generation};

    return dragon_wait_until(&barrier->waiters, &spin, has_ended, &wait, deadline_ns);
}

static bool become_leader(void *barrier)
{
    return dragon_mutex_try_lock(&((struct dragon_barrier *)barrier)->leader) != DRAGON_MUTEX_BUSY;
}

static int arrive_as_last(struct dragon_barrier *barrier, bool has_action, uint64_t phase,
                          int64_t deadline_ns)
{
    static _Thread_local struct dragon_spin spin;
    int r;

    if (!has_action) {
        if (!dragon_replace(&barrier->phase, &phase, next_generation(phase, false)))
            return TRY_AGAIN;
        DRAGON_TEST_POINT("barrier-released");
        dragon_eventcount_wake_all(&barrier->waiters);
        return DRAGON_BARRIER_LAST;
    }
    /* Locked before the phase says full: full with a free mutex is a death.
     * After an abort and a reset an earlier action may still be running. */
    r = dragon_wait_until(&barrier->waiters, &spin, become_leader, barrier, deadline_ns);
    if (r != 0)
        return r;
    if (dragon_replace(&barrier->phase, &phase, with_state(phase + ONE_PARTY, FULL))) {
        DRAGON_TEST_POINT("barrier-full");
        return DRAGON_BARRIER_LAST;
    }
    dragon_mutex_unlock(&barrier->leader);
    return TRY_AGAIN;
}

static int arrive_in(struct dragon_barrier *barrier, bool has_action, uint64_t phase,
                     int64_t deadline_ns)
{
    if (state_of(phase) == BROKEN)
        return DRAGON_BARRIER_BROKEN;
    if (state_of(phase) == FULL) {
        int r = wait_for_end(barrier, generation_of(phase), deadline_ns);

        return r == 0 ? TRY_AGAIN : r;
    }
    if (count_of(phase) + 1 >= barrier->parties)
        return arrive_as_last(barrier, has_action, phase, deadline_ns);
    if (!dragon_replace(&barrier->phase, &phase, phase + ONE_PARTY))
        return TRY_AGAIN;
    return 0;
}

/* ---- the roll ---- */

/* What a party notes that is about to arrive now. Never 0. */
static uint32_t note_of(uint64_t phase)
{
    return generation_of(phase) + 1;
}

static uint32_t note_now(void *barrier)
{
    return note_of(dragon_observe(&((struct dragon_barrier *)barrier)->phase));
}

/* Of this generation, or of the last one before it that was not ended by a reset. */
static bool is_awaited(uint32_t note, uint64_t phase)
{
    uint32_t n_ago = (note_of(phase) - note) & (uint32_t)GENERATION_MASK;
    uint64_t resets;

    if (note == 0 || n_ago > HISTORY_BITS)
        return false;
    resets = n_ago > 1 ? (UINT64_C(1) << (n_ago - 1)) - 1 : 0;
    return (phase >> HISTORY_SHIFT & resets) == resets;
}

void dragon_barrier_party_died(struct dragon_barrier *barrier, uint32_t note)
{
    uint64_t phase = dragon_observe(&barrier->phase);

    do
        if (!is_awaited(note, phase))
            return;
    while (state_of(phase) != BROKEN &&
           !dragon_replace(&barrier->phase, &phase, with_state(phase, BROKEN)));
    DRAGON_TEST_POINT("barrier-broken-by-death");
    dragon_eventcount_wake_all(&barrier->waiters); /* also if a sweeper died before that */
}

/* ---- arriving ---- */

int dragon_barrier_arrive(struct dragon_barrier *barrier, struct dragon_object *roll,
                          bool has_action, int64_t deadline_ns,
                          struct dragon_barrier_place *place_out)
{
    uint32_t noted = 0;
    uint64_t phase;
    int r;

    do {
        phase = dragon_observe(&barrier->phase);
        while (roll && noted != note_of(phase)) {
            r = dragon_object_note(roll, note_now);
            if (r < 0)
                return dragon_error_trace(r);
            DRAGON_TEST_POINT("barrier-noted");
            noted = note_of(phase);
            phase = dragon_observe(&barrier->phase);
        }
        r = arrive_in(barrier, has_action, phase, deadline_ns);
    } while (r == TRY_AGAIN);
    if (r == 0 || r == DRAGON_BARRIER_LAST)
        *place_out = (struct dragon_barrier_place){generation_of(phase), count_of(phase)};
    return r;
}

static int result_of(struct dragon_barrier *barrier, uint32_t generation)
{
    uint64_t phase = dragon_observe(&barrier->phase);

    if (generation_of(phase) == generation) /* it has ended, and not by going on */
        return DRAGON_BARRIER_BROKEN;
    return ended_broken(phase, generation) ? DRAGON_BARRIER_BROKEN : 0;
}

int dragon_barrier_wait(struct dragon_barrier *barrier, const struct dragon_barrier_place *place,
                        int64_t deadline_ns)
{
    int r = wait_for_end(barrier, place->generation, deadline_ns);

    return r == 0 ? result_of(barrier, place->generation) : r;
}

void dragon_barrier_expire(struct dragon_barrier *barrier, const struct dragon_barrier_place *place)
{
    break_generation(barrier, place->generation, true);
}

void dragon_barrier_withdraw(struct dragon_barrier *barrier,
                             const struct dragon_barrier_place *place)
{
    uint64_t phase = dragon_observe(&barrier->phase);

    do
        if (generation_of(phase) != place->generation || state_of(phase) == FULL ||
            count_of(phase) == 0)
            return;
    while (!dragon_replace(&barrier->phase, &phase, phase - ONE_PARTY));
}

int dragon_barrier_finish(struct dragon_barrier *barrier, const struct dragon_barrier_place *place,
                          bool succeeded)
{
    uint64_t phase = dragon_observe(&barrier->phase);
    bool released = false;

    if (!succeeded)
        break_generation(barrier, place->generation, false);
    while (succeeded && !released && generation_of(phase) == place->generation &&
           state_of(phase) == FULL)
        released = dragon_replace(&barrier->phase, &phase, next_generation(phase, false));
    DRAGON_TEST_POINT("barrier-finished");
    dragon_mutex_unlock(&barrier->leader);
    dragon_eventcount_wake_all(&barrier->waiters); /* the parties, and the next leader */
    return released ? 0 : DRAGON_BARRIER_BROKEN;
}

void dragon_barrier_abort(struct dragon_barrier *barrier)
{
    uint64_t phase = dragon_observe(&barrier->phase);

    while (state_of(phase) != BROKEN &&
           !dragon_replace(&barrier->phase, &phase, with_state(phase, BROKEN)))
        ;
    dragon_eventcount_wake_all(&barrier->waiters);
}

void dragon_barrier_reset(struct dragon_barrier *barrier)
{
    uint64_t phase = dragon_observe(&barrier->phase);

    while (!(state_of(phase) == FILLING && count_of(phase) == 0) &&
           !dragon_replace(&barrier->phase, &phase, next_generation(phase, true)))
        ;
    DRAGON_TEST_POINT("barrier-reset");
    dragon_eventcount_wake_all(&barrier->waiters);
}

uint32_t dragon_barrier_n_waiting(struct dragon_barrier *barrier)
{
    uint64_t phase = dragon_observe(&barrier->phase);

    return state_of(phase) == BROKEN ? 0 : count_of(phase);
}

bool dragon_barrier_is_broken(struct dragon_barrier *barrier)
{
    return state_of(dragon_observe(&barrier->phase)) == BROKEN;
}
