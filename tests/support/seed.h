#pragma once

/*
 * Numbers that look random and can be had again: a test prints its seed, and
 * DRAGON_TEST_SEED=N repeats it.
 */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

struct seed {
    uint64_t state;
};

static inline struct seed seed_from(uint64_t number)
{
    return (struct seed){number * UINT64_C(0x9e3779b97f4a7c15) + 1};
}

/* A new seed, or the one that the environment gives; printed. */
static inline struct seed seed_new(const char *test)
{
    const char *given = getenv("DRAGON_TEST_SEED");
    uint64_t number = given ? strtoull(given, NULL, 10)
                            : ((uint64_t)time(NULL) * 1000003 + (uint64_t)getpid()) % 1000000000;

    fprintf(stderr, "# %s: DRAGON_TEST_SEED=%llu\n", test, (unsigned long long)number);
    return seed_from(number);
}

/* 0 .. 2^64 - 1; splitmix64 (Steele, Lea, Flood 2014). */
static inline uint64_t seed_next(struct seed *seed)
{
    uint64_t z = (seed->state += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* 0 .. n - 1 */
static inline uint64_t seed_below(struct seed *seed, uint64_t n)
{
    return seed_next(seed) % n;
}
