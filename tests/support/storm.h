#pragma once

/*
 * What the storms share: when one has killed enough, and the line that says what
 * came of it, from which ./dev soak makes a row of tests/stress/soak.md.
 */

#include "base/deadline.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* When a storm is over: DRAGON_TEST_SECONDS after its begin; without that variable
 * after DRAGON_TEST_KILLS kills; without either after so many as the test says. */
struct storm_end {
    uint64_t n_kills;
    int64_t deadline_ns;
};

static inline struct storm_end storm_end(uint64_t n_kills)
{
    const char *seconds = getenv("DRAGON_TEST_SECONDS"), *kills = getenv("DRAGON_TEST_KILLS");

    if (seconds)
        return (struct storm_end){UINT64_MAX,
                                  dragon_deadline_after_ns(atoll(seconds) * DRAGON_NS_PER_S)};
    return (struct storm_end){kills ? strtoull(kills, NULL, 10) : n_kills, DRAGON_FOREVER};
}

static inline bool storm_is_over(const struct storm_end *end, uint64_t n_kills)
{
    return n_kills >= end->n_kills || dragon_deadline_passed(end->deadline_ns);
}

#define STORM_NOT_COUNTED UINT64_MAX

/* What came of a storm. A number that it does not count is STORM_NOT_COUNTED. */
struct storm_result {
    const char *name;
    uint64_t n_kills, n_messages /* or times locked */, n_lost, n_duplicated, n_blocks_left;
    int64_t longest_wait_ns;
};

static inline void storm_print_number(uint64_t number)
{
    if (number == STORM_NOT_COUNTED)
        fputs(" - |", stderr);
    else
        fprintf(stderr, " %" PRIu64 " |", number);
}

static inline void storm_print(const struct storm_result *result)
{
    fprintf(stderr, "# storm result: %s |", result->name);
    storm_print_number(result->n_kills);
    storm_print_number(result->n_messages);
    storm_print_number(result->n_lost);
    storm_print_number(result->n_duplicated);
    storm_print_number(result->n_blocks_left);
    fprintf(stderr, " %.1f ms |\n", 1e-6 * (double)result->longest_wait_ns);
}

/* For all workers, in shared memory: keep the longest of their waits. */
static inline void storm_note_wait(_Atomic int64_t *longest_ns, int64_t begin_ns)
{
    int64_t waited_ns = dragon_now_ns() - begin_ns, seen_ns = atomic_load(longest_ns);

    while (waited_ns > seen_ns && !atomic_compare_exchange_weak(longest_ns, &seen_ns, waited_ns))
        ;
}
