#pragma once

/*
 * Children that are killed at a marked point of the runtime (base/check.h). For
 * programs that are linked with the runtime's DRAGON_TEST_POINTS variant.
 */

#include "base/check.h"
#include "support/shared_page.h"

/* Fork a child that runs run(argument) and dies at the point. */
static inline pid_t child_start_to_die_at(const char *point, int (*run)(void *argument),
                                          void *argument)
{
    pid_t pid;

    /* The child inherits it; the parent must pass. */
    dragon_test_point = point;
    pid = child_start(run, argument);
    dragon_test_point = NULL;
    return pid;
}

/* The same, and wait for its end: true if it came to the point. */
static inline bool child_dies_at(const char *point, int (*run)(void *argument), void *argument)
{
    return child_result(child_start_to_die_at(point, run, argument)) == 256 + SIGKILL;
}
