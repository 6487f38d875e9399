#pragma once

/*
 * How methods block: without the GIL, in pieces, with a look for signals after
 * each. A signal may come between Python's last look for one and the sleep, and
 * then interrupts nothing; so no piece is longer than dragon_py_look_ns, a second.
 */

#include "module.h"
#include "patience.h"

#include "base/deadline.h"
#include "channel/channel.h"

/* The deadline of the next piece of a wait until deadline_ns. */
static inline int64_t dragon_py_next_look(int64_t deadline_ns)
{
    return dragon_deadline_earlier(deadline_ns, dragon_deadline_after_ns(dragon_py_look_ns));
}

/* After a piece of a wait on a channel, with the GIL: true if there is to be
 * another. *r is what the piece returned, and -1 if a signal handler raised.
 * outcome: which result means that the piece's time was up. */
static inline bool dragon_py_goes_on(int *r, int outcome, int64_t deadline_ns)
{
    if (*r != DRAGON_CHANNEL_INTERRUPTED && *r != outcome)
        return false;
    if (PyErr_CheckSignals() < 0) {
        *r = -1;
        return false;
    }
    return *r == DRAGON_CHANNEL_INTERRUPTED || !dragon_deadline_passed(deadline_ns);
}
