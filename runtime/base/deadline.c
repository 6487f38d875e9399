#include "base/deadline.h"

#include <time.h>

int64_t dragon_now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * DRAGON_NS_PER_S + t.tv_nsec;
}

int64_t dragon_deadline_after_ns(int64_t timeout_ns)
{
    int64_t deadline_ns;

    if (timeout_ns <= 0)
        return DRAGON_AT_ONCE;
    if (__builtin_add_overflow(dragon_now_ns(), timeout_ns, &deadline_ns))
        return DRAGON_FOREVER;
    return deadline_ns;
}

int64_t dragon_deadline_remaining_ns(int64_t deadline_ns)
{
    int64_t remaining_ns;

    if (deadline_ns == DRAGON_FOREVER)
        return DRAGON_FOREVER;
    if (deadline_ns <= 0)
        return 0;
    remaining_ns = deadline_ns - dragon_now_ns();
    return remaining_ns > 0 ? remaining_ns : 0;
}
