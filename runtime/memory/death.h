#pragma once

/*
 * Which process something is about, and how it has ended, each in one word, so that
 * shared memory learns it by one store.
 *
 * The *number* of a process is its own in its node for ever, while slots, holders and pids are
 * used again. 0 is nobody's.
 *
 * A *death* is the end of a process that had not left its node: of a signal, os._exit, or in a
 * way that nobody saw. Its top bit is set, so a word may be either. 0: no death. A process
 * that leaves first, however badly it feels (an exception, sys.exit(1)), ends cleanly.
 *
 *   bit  63       1
 *   bits 38..53   the slot that the process had in the node's table, which knows its name
 *   bits 22..37   the status, as wait() gives it; DRAGON_STATUS_UNKNOWN
 *   bits 0..21    the pid
 */

#include <stdbool.h>
#include <stdint.h>

#define DRAGON_DEATH_BIT (UINT64_C(1) << 63)
#define DRAGON_STATUS_UNKNOWN 0xffffu /* no process ends so: it is what wait() says of SIGCONT */

#define DRAGON_DEATH_PID_BITS 22
#define DRAGON_DEATH_STATUS_BITS 16

/* The word for it. */
static inline uint64_t dragon_death(int32_t pid, uint32_t status, uint32_t slot)
{
    uint64_t low = (uint64_t)(uint32_t)pid & ((UINT64_C(1) << DRAGON_DEATH_PID_BITS) - 1);

    return DRAGON_DEATH_BIT |
           (uint64_t)(slot & 0xffff) << (DRAGON_DEATH_PID_BITS + DRAGON_DEATH_STATUS_BITS) |
           (uint64_t)(status & 0xffff) << DRAGON_DEATH_PID_BITS | low;
}

/* True: a death; false: the number of a process, or 0. */
static inline bool dragon_is_death(uint64_t word)
{
    return word & DRAGON_DEATH_BIT;
}

/* The pid that the process had. */
static inline int32_t dragon_death_pid(uint64_t death)
{
    return (int32_t)(death & ((UINT64_C(1) << DRAGON_DEATH_PID_BITS) - 1));
}

/* As wait() gives it, or DRAGON_STATUS_UNKNOWN. */
static inline uint32_t dragon_death_status(uint64_t death)
{
    return (uint32_t)(death >> DRAGON_DEATH_PID_BITS & 0xffff);
}

/* Where the process was in the table. */
static inline uint32_t dragon_death_slot(uint64_t death)
{
    return (uint32_t)(death >> (DRAGON_DEATH_PID_BITS + DRAGON_DEATH_STATUS_BITS)) & 0xffff;
}

/* The end of a process, for those who clear up after it. */
struct dragon_end {
    uint64_t process; /* its number */
    uint64_t death;   /* 0: a clean one, or nobody can tell that it was not */
};
