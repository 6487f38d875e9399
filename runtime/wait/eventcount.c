/*
 * Why waking loses nobody. A waiter reads `sequence`, adds to `arrived`, looks
 * at its condition, and sleeps only while `sequence` is what it read. A waker
 * changes the condition, reads `arrived`, moves `sequence` on, wakes.
 *
 * - If the waker does not see the announcement, the waiter's look comes after
 *   the change (both have a full fence in between): it does not sleep.
 * - If it sees the announcement, the waiter read `sequence` before the move:
 *   the kernel refuses the sleep, or the wake finds the sleeper.
 * - `cleared` is set only to a value of `arrived` that was read before a move
 *   after which nobody slept: all those announced had a stale key. Whoever
 *   announces later makes arrived != cleared again. An older waker may write
 *   an older value over it, which costs one useless wake.
 *
 * The counters wrap after 2^32 announcements; a wrong equality would need a
 * waker that slept through exactly that many, and costs one park period.
 */
#include "wait/eventcount.h"

#include "base/deadline.h"
#include "os/os.h"

int dragon_eventcount_park_until(struct dragon_eventcount *e, uint32_t key, int64_t deadline_ns)
{
    int r = dragon_os_futex_wait(&e->sequence, key, deadline_ns);

    if (r == DRAGON_OS_FUTEX_INTERRUPTED)
        return DRAGON_EVENTCOUNT_INTERRUPTED;
    if (r == DRAGON_OS_FUTEX_TIMEOUT)
        return DRAGON_EVENTCOUNT_TIMEOUT;
    return r;
}

int dragon_eventcount_park(struct dragon_eventcount *e, uint32_t key, int64_t deadline_ns)
{
    int64_t look_again_ns = dragon_deadline_after_ns(DRAGON_EVENTCOUNT_PARK_NS);
    int64_t until_ns = dragon_deadline_earlier(deadline_ns, look_again_ns);
    int r = dragon_eventcount_park_until(e, key, until_ns);

    return r == DRAGON_EVENTCOUNT_TIMEOUT && until_ns != deadline_ns ? 0 : r;
}

void dragon_eventcount_wake_some(struct dragon_eventcount *e, int n)
{
    uint32_t arrived = dragon_observe(&e->arrived);

    dragon_fetch_add(&e->sequence, 1);
    if (dragon_os_futex_wake(&e->sequence, n) == 0)
        dragon_publish(&e->cleared, arrived);
}
