/*
 * A release wakes one sleeper at most, and the woken one has to compete with
 * whoever comes by: a queue of owners would hand the lock to a sleeper that
 * takes tens of microseconds to run, while others stand ready (a lock convoy).
 */
#include "sync/semaphore.h"

void dragon_semaphore_init(struct dragon_semaphore *semaphore, uint32_t value, uint32_t maximum)
{
    dragon_check(value <= DRAGON_SEMAPHORE_MAXIMUM && maximum <= DRAGON_SEMAPHORE_MAXIMUM);
    dragon_eventcount_init(&semaphore->waiters);
    semaphore->maximum = maximum;
    dragon_poke(&semaphore->holder, 0);
    dragon_publish(&semaphore->value, value); /* pairs with the acquire in try_acquire */
}

static bool take(void *semaphore)
{
    return dragon_semaphore_try_acquire(semaphore);
}

int dragon_semaphore_acquire(struct dragon_semaphore *semaphore, int64_t deadline_ns)
{
    static _Thread_local struct dragon_spin spin;

    return dragon_wait_until(&semaphore->waiters, &spin, take, semaphore, deadline_ns);
}
