#pragma once

/*
 * Assertions at three prices. A failed one is a bug of this program: it never
 * guards against bytes that another process wrote (those are validated and
 * answered with -EBADMSG).
 *
 *   dragon_check            a condition next to the code that relies on it
 *   dragon_check_internal   walks one structure
 *   dragon_check_expensive  walks all structures of a kind
 *
 * DRAGON_CHECK_LEVEL: 0 none (release), 1, 2, 3 (unit tests and sanitizers).
 */

#include <assert.h>

#ifndef DRAGON_CHECK_LEVEL
#define DRAGON_CHECK_LEVEL 0
#endif

#if DRAGON_CHECK_LEVEL >= 1
#define dragon_check(condition) assert(condition)
#else
#define dragon_check(condition) ((void)sizeof(condition))
#endif

#if DRAGON_CHECK_LEVEL >= 2
#define dragon_check_internal(condition) assert(condition)
#else
#define dragon_check_internal(condition) ((void)sizeof(condition))
#endif

#if DRAGON_CHECK_LEVEL >= 3
#define dragon_check_expensive(condition) assert(condition)
#else
#define dragon_check_expensive(condition) ((void)sizeof(condition))
#endif

/*
 * A place where a test may kill the process, to see what a survivor makes of
 * it. Compiled to nothing unless DRAGON_TEST_POINTS is defined; then the
 * process dies of SIGKILL at the point whose name is in dragon_test_point.
 */
#ifdef DRAGON_TEST_POINTS
/* The point to die at; NULL: none. Tests set it before they run what they kill. */
extern const char *dragon_test_point;
/* Dies of SIGKILL if that is the point; otherwise nothing. Any thread. */
void dragon_test_point_reached(const char *name);
#define DRAGON_TEST_POINT(name) dragon_test_point_reached(name)
#else
#define DRAGON_TEST_POINT(name) ((void)0)
#endif
