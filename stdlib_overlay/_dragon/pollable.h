#pragma once

/*
 * The descriptor of a queue or channel, for select and its like. An object has a
 * poller (node/node.h), NULL until a descriptor is asked for. With the GIL.
 */

#include "module.h"

#include "node/node.h"

struct dragon_channel;

/* The descriptor, borrowed; the poller is opened if there is none, or only the one
 * of the process that this one was forked from. The process has a node, and the
 * channel is in its default pool. -1 with an exception (OSError). */
int dragon_py_poller_fd(struct dragon_py_state *state, struct dragon_poller **poller,
                        struct dragon_channel *channel);

/* Close the poller and its descriptor, if there is one. */
void dragon_py_poller_close(struct dragon_poller **poller);

/* Make the descriptor, if one was asked for, say what the channel says. Done
 * wherever the program looks at the channel, as another process may have taken
 * what made the descriptor readable. */
static inline void dragon_py_poller_update(struct dragon_poller *poller)
{
    if (poller)
        dragon_poller_update(poller);
}
