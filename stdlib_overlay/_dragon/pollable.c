#include "pollable.h"

#include <errno.h>

int dragon_py_poller_fd(struct dragon_py_state *state, struct dragon_poller **poller,
                        struct dragon_channel *channel)
{
    struct dragon_node *node = dragon_node_current();
    int r = node ? 0 : -EIO;

    if (*poller && dragon_poller_is_inherited(*poller))
        dragon_py_poller_close(poller);
    if (*poller)
        dragon_poller_update(*poller);
    else if (node)
        r = dragon_poller_open(node, channel, poller);
    if (r < 0) {
        dragon_py_raise(state, r, "fileno");
        return -1;
    }
    return dragon_poller_fd(*poller);
}

void dragon_py_poller_close(struct dragon_poller **poller)
{
    if (*poller)
        dragon_poller_close(*poller);
    *poller = NULL;
}
