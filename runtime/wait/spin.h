#pragma once

/*
 * How long a waiter looks before it sleeps.
 *
 * Waking an idle core costs tens of microseconds, a hand-over to a thread that
 * still looks costs under one. So a waiter first looks for a while. Pauses
 * alone are wrong when the peer needs this core: a yield then *is* the
 * hand-over. A yield that took long means that somebody else needs the core:
 * leave at once. The budget follows success, per waiting thread and site:
 * it grows when looking was enough, and shrinks to nothing when it was not, at once when a
 * yield cost a slice of somebody else's: a sleeper is woken before its turn, who yields is not.
 * (Measurements: docs/waiting.md.)
 *
 * Use:
 *   struct dragon_spin_round round = dragon_spin_begin(spin);
 *   while (!(ready = condition) && dragon_spin_again(&round))
 *       ;
 *   dragon_spin_end(spin, &round, ready);
 */

#include "base/atomic.h"
#include "base/deadline.h"
#include "os/os.h"

#include <stdbool.h>
#include <stdint.h>

#define DRAGON_SPIN_MIN_NS 20000
#define DRAGON_SPIN_MAX_NS 100000
#define DRAGON_SPIN_SKIPS 64
#define DRAGON_SPIN_LONG_YIELD_NS INT64_C(2000)
#define DRAGON_SPIN_PAUSES 12

/* What a process has learnt about one kind of wait. A hint: threads that wait
 * side by side overwrite it. All zero bytes are a fresh one. */
struct dragon_spin {
    _Atomic int32_t budget_ns; /* 0: not known yet, -1: do not spin */
    _Atomic int32_t n_skipped;
};

struct dragon_spin_round {
    int64_t end_ns;
    int n_pauses; /* since the last yield */
    int n_long_yields;
    bool lost_a_slice; /* a yield took longer than any budget */
};

/* Begin to look: the round ends at once where looking did not pay before. */
static inline struct dragon_spin_round dragon_spin_begin(struct dragon_spin *spin)
{
    int32_t budget_ns = dragon_peek(&spin->budget_ns);
    int32_t n_skipped = dragon_peek(&spin->n_skipped);

    /* Now and then try again where looking did not pay: programs change, and two that wake each
     * other every time are slow only as neither looks for as long as the other takes to wake. */
    if (budget_ns < 0) {
        dragon_poke(&spin->n_skipped, n_skipped + 1);
        if (n_skipped < DRAGON_SPIN_SKIPS)
            return (struct dragon_spin_round){.end_ns = 0};
        dragon_poke(&spin->n_skipped, 0);
        budget_ns = DRAGON_SPIN_MAX_NS;
    }
    if (budget_ns == 0) {
        budget_ns = DRAGON_SPIN_MIN_NS;
        dragon_poke(&spin->budget_ns, budget_ns);
    }
    return (struct dragon_spin_round){.end_ns = dragon_now_ns() + budget_ns};
}

/* Pass a little time: a pause, or after so many a yield. The caller looks after each,
 * as what it waits for takes less than a yield if the peer has a core of its own.
 * False when it is time to sleep. */
static inline bool dragon_spin_again(struct dragon_spin_round *round)
{
    int64_t before_ns, after_ns;

    if (round->end_ns == 0)
        return false;
    if (round->n_pauses++ < DRAGON_SPIN_PAUSES) {
        dragon_pause();
        return true;
    }
    round->n_pauses = 0;
    before_ns = dragon_now_ns();
    dragon_os_yield();
    after_ns = dragon_now_ns();
    round->lost_a_slice = after_ns - before_ns > DRAGON_SPIN_MAX_NS;
    if (after_ns - before_ns > DRAGON_SPIN_LONG_YIELD_NS && ++round->n_long_yields == 2)
        return false;
    return after_ns < round->end_ns; /* not after a lost slice */
}

/* Learn from the round: whether what was waited for came while looking. After a slice that was
 * lost it would have come to a sleeper earlier. */
static inline void dragon_spin_end(struct dragon_spin *spin, const struct dragon_spin_round *round,
                                   bool succeeded)
{
    int32_t budget_ns = dragon_peek(&spin->budget_ns);

    if (round->end_ns == 0)
        return;
    if (round->lost_a_slice)
        budget_ns = -1;
    else if (succeeded)
        budget_ns = budget_ns >= 0 && budget_ns < DRAGON_SPIN_MAX_NS / 2 ? 2 * budget_ns
                                                                         : DRAGON_SPIN_MAX_NS;
    else
        budget_ns = budget_ns > DRAGON_SPIN_MIN_NS / 4 ? budget_ns / 2 : -1;
    dragon_poke(&spin->budget_ns, budget_ns);
}
