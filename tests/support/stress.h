#pragma once

/*
 * What stress programs share: they run rounds until the time is up, as
 * PROGRAM [SEED [SECONDS]], and abort where something is not true.
 */

#include "base/deadline.h"
#include "support/seed.h"

#include <stdio.h>
#include <stdlib.h>

#define require(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);              \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* Run rounds, at least one; how many. argc, argv: main's. */
static inline int stress_run(int argc, char **argv, void (*run_round)(struct seed *seed))
{
    struct seed seed = seed_from(argc > 1 ? strtoull(argv[1], NULL, 10) : 1);
    int64_t seconds = argc > 2 ? strtoll(argv[2], NULL, 10) : 5;
    int64_t deadline_ns = dragon_deadline_after_ns(seconds * DRAGON_NS_PER_S);
    int n = 0;

    do {
        run_round(&seed);
        n++;
    } while (!dragon_deadline_passed(deadline_ns));
    return n;
}
