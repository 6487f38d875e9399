#pragma once

/*
 * Points in time, for everything that blocks.
 *
 * A deadline is an absolute time on CLOCK_MONOTONIC in nanoseconds. It stays
 * the same through retries, so that a wait which is interrupted n times does
 * not last n times as long.
 */

#include <stdbool.h>
#include <stdint.h>

#define DRAGON_NS_PER_S INT64_C(1000000000)

/* Never expires. */
#define DRAGON_FOREVER INT64_MAX

/* Already expired: an operation with it tries once and does not block. */
#define DRAGON_AT_ONCE INT64_C(0)

/* Now, in ns. Any thread, async-signal-safe. */
int64_t dragon_now_ns(void);

/* The deadline that lies timeout_ns from now. Negative counts as 0; what does
 * not fit is DRAGON_FOREVER. */
int64_t dragon_deadline_after_ns(int64_t timeout_ns);

/* Nanoseconds from now until deadline_ns, 0 if it has passed,
 * DRAGON_FOREVER if it never comes. */
int64_t dragon_deadline_remaining_ns(int64_t deadline_ns);

/* True if deadline_ns is not in the future. Any thread, async-signal-safe. */
static inline bool dragon_deadline_passed(int64_t deadline_ns)
{
    return deadline_ns != DRAGON_FOREVER && dragon_deadline_remaining_ns(deadline_ns) == 0;
}

/* The earlier of two deadlines. */
static inline int64_t dragon_deadline_earlier(int64_t a_ns, int64_t b_ns)
{
    return a_ns < b_ns ? a_ns : b_ns;
}
