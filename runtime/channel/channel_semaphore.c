#include "channel/channel_semaphore.h"

#include "base/error.h"

struct wait {
    const struct dragon_channel *channel;
    struct dragon_semaphore *semaphore;
    bool is_destroyed;
};

static bool take(void *context)
{
    struct wait *wait = context;

    wait->is_destroyed = dragon_channel_is_destroyed(wait->channel);
    return wait->is_destroyed || dragon_semaphore_try_acquire(wait->semaphore);
}

static bool is_zero(void *context)
{
    struct wait *wait = context;

    wait->is_destroyed = dragon_channel_is_destroyed(wait->channel);
    return wait->is_destroyed || dragon_semaphore_value(wait->semaphore) == 0;
}

static int outcome_of(const struct wait *wait, int r)
{
    if (r == 0 && wait->is_destroyed)
        return DRAGON_CHANNEL_SEMAPHORE_DESTROYED;
    return dragon_error_trace(r);
}

int dragon_channel_semaphore_take(const struct dragon_channel *channel,
                                  struct dragon_channel_semaphore *semaphore, int64_t deadline_ns)
{
    static _Thread_local struct dragon_spin spin;
    struct wait wait = {channel, &semaphore->semaphore, false};
    int r = dragon_wait_until(&semaphore->semaphore.waiters, &spin, take, &wait, deadline_ns);

    r = outcome_of(&wait, r);
    if (r == 0) {
        DRAGON_TEST_POINT("channel-semaphore-taken");
        dragon_eventcount_wake_all(&semaphore->zero);
    }
    return r;
}

int dragon_channel_semaphore_wait_zero(const struct dragon_channel *channel,
                                       struct dragon_channel_semaphore *semaphore,
                                       int64_t deadline_ns)
{
    static _Thread_local struct dragon_spin spin;
    struct wait wait = {channel, &semaphore->semaphore, false};

    return outcome_of(&wait,
                      dragon_wait_until(&semaphore->zero, &spin, is_zero, &wait, deadline_ns));
}

void dragon_channel_semaphore_wake_all(struct dragon_channel_semaphore *semaphore)
{
    dragon_eventcount_wake_all(&semaphore->semaphore.waiters);
    dragon_eventcount_wake_all(&semaphore->zero);
}
