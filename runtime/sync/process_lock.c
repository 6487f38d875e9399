#include "sync/process_lock.h"

#include "base/error.h"

#include <string.h>

void dragon_process_lock_init(struct dragon_process_lock *lock)
{
    memset(lock, 0, sizeof *lock);
}

struct attempt {
    struct dragon_process_lock *lock;
    const struct dragon_process_lock_user *user;
    int outcome;
};

static bool is_locked_by_us(void *context)
{
    struct attempt *attempt = context;

    attempt->outcome = dragon_process_lock_try(attempt->lock, attempt->user);
    return attempt->outcome != DRAGON_PROCESS_LOCK_BUSY;
}

int dragon_process_lock_lock(struct dragon_process_lock *lock,
                             const struct dragon_process_lock_user *user, int64_t deadline_ns)
{
    static _Thread_local struct dragon_spin spin;
    struct attempt attempt = {.lock = lock, .user = user};
    int r = dragon_wait_until(&lock->waiters, &spin, is_locked_by_us, &attempt, deadline_ns);

    return r == 0 ? attempt.outcome : dragon_error_trace(r);
}

void dragon_process_lock_wake(struct dragon_process_lock *lock, uint64_t process)
{
    if (dragon_observe(&lock->holder) == process)
        dragon_eventcount_wake_one(&lock->waiters);
}
