#pragma once

/*
 * The watchers of a channel: who waits for any change of it (its eventcount
 * `watchers`, behind the flag `has_watchers`, see channel.h).
 */

#include "channel/channel.h"

/* Announce a watcher. The caller looks at the channel after this, and parks with
 * the key if it still has to wait. */
static inline uint32_t dragon_watchers_prepare(struct dragon_channel_shared *shared)
{
    uint32_t key = dragon_eventcount_prepare(&shared->watchers);

    dragon_exchange(&shared->has_watchers, 1);
    dragon_fence(); /* pairs with who changes the channel: our look comes after the flag */
    return key;
}
