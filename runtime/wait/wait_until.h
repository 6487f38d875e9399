#pragma once

/*
 * The blocking half of all waits here: look, look for a while, announce, look
 * once more, sleep; and look again after each sleep, so that a waiter which
 * was woken never leaves without a look (a wake is for one waiter, and one that
 * left with it would keep it from the others).
 */

#include "base/deadline.h"
#include "wait/eventcount.h"
#include "wait/spin.h"

enum dragon_wait_outcome {
    DRAGON_WAIT_TIMEOUT = DRAGON_EVENTCOUNT_TIMEOUT,
    DRAGON_WAIT_INTERRUPTED = DRAGON_EVENTCOUNT_INTERRUPTED,
};

/* Wait until ready(context) is true. It may take what it found (a semaphore's
 * unit), so it is not called again once it has said true. spin: this thread's.
 * 0; DRAGON_WAIT_TIMEOUT; DRAGON_WAIT_INTERRUPTED (a signal handler ran, call
 * again with the same deadline); -errno. */
static inline int dragon_wait_until(struct dragon_eventcount *eventcount, struct dragon_spin *spin,
                                    bool (*ready)(void *context), void *context,
                                    int64_t deadline_ns)
{
    struct dragon_spin_round round;
    bool is_ready;
    int r;

    if (ready(context))
        return 0;
    if (dragon_deadline_passed(deadline_ns))
        return DRAGON_WAIT_TIMEOUT;
    round = dragon_spin_begin(spin);
    while (!(is_ready = ready(context)) && dragon_spin_again(&round))
        ;
    dragon_spin_end(spin, &round, is_ready);
    while (!is_ready) {
        uint32_t key = dragon_eventcount_prepare(eventcount);

        if (ready(context))
            return 0;
        r = dragon_eventcount_park(eventcount, key, deadline_ns);
        is_ready = ready(context);
        if (!is_ready && r != 0)
            return r;
        if (!is_ready && dragon_deadline_passed(deadline_ns))
            return DRAGON_WAIT_TIMEOUT;
    }
    return 0;
}
