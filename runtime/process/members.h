#pragma once

/*
 * Members of a pool: the processes that hold blocks in a pool that no node watches
 * over. A member has a number, and its blocks have the holder
 * DRAGON_HOLDER_FIRST_SLOT + number; what a member held that has ended, any other
 * process takes back.
 *
 * There is no supervisor, and perhaps no common view of pids: processes of several
 * containers may share a pool. So the sign of life of member n is a lock on byte n of
 * the pool's file (dragon_os_life_begin), which the kernel gives back with the
 * process's memory, however it ends. Nobody's pid is looked at.
 *
 * A number goes from free to taken after its byte was locked, and back after the
 * sweep of its blocks; both under the mutex, so no number is given to another before
 * its sweep has ended. A process that is killed anywhere in between leaves a number
 * that is free, or one that is taken without a sign of life, which the next sweep
 * meets. A byte that somebody has locked is given to nobody, whatever others have
 * written into the table.
 *
 * Who writes `is_taken`: the holder of the mutex. The table lies in the root of the
 * pool (dragon_pool_root), so it takes no room from blocks; the default pool of a node
 * has the node's table there (process/table.h).
 */

#include "base/atomic.h"
#include "wait/mutex.h"

#include <stdint.h>

struct dragon_pool;

/* At one time. Further processes are no members. */
#define DRAGON_MEMBERS_MAX 2048u

struct dragon_members_shared {
    _Atomic uint64_t magic;
    struct dragon_mutex mutex;
    uint64_t reserved;
    _Atomic uint8_t is_taken[DRAGON_MEMBERS_MAX];
};

_Static_assert(sizeof(struct dragon_members_shared) == 64 + DRAGON_MEMBERS_MAX, "shared layout");

/* private: in memory that a forked copy of the process finds zero, as it has no sign of
 * life. Written by its process. */
struct dragon_member_self {
    _Atomic uint32_t holder; /* 0: not a member yet; UINT32_MAX: it cannot be one */
    void *life;
};

/* This process as a member of a pool that it has open; or not, yet. */
struct dragon_member {
    struct dragon_pool *pool; /* borrowed */
    /* private: forgotten by forks; NULL until the first use */
    struct dragon_member_self *self;
};

/* Let a new pool have members; before others know of it. 0 or -errno. */
int dragon_members_init(struct dragon_pool *pool);

/* Be a possible member of an open pool, until dragon_member_leave. Costs nothing. */
void dragon_member_init(struct dragon_member *member, struct dragon_pool *pool);

/* private: the slow part of dragon_member_holder */
uint32_t dragon_member_join(struct dragon_member *member);

/* Who holds this process's blocks; 0: it cannot be a member, as the pool has no table
 * or no number left, or the system has no such locks; that is so from then on. The
 * first call makes the process a member, the first one in a forked copy makes that one.
 * Calls for one member exclude each other. The first may wait for a sweep. */
static inline uint32_t dragon_member_holder(struct dragon_member *member)
{
    uint32_t holder = member->self ? dragon_peek(&member->self->holder) : 0;

    if (holder - 1 < UINT32_MAX - 1)
        return holder;
    return holder == 0 ? dragon_member_join(member) : 0;
}

/* Be no member any more: its blocks are freed, but for those in flight
 * (channel/in_flight.h). No thread of this process has one in its hands. */
void dragon_member_leave(struct dragon_member *member);

/* Free what members held that have ended, but for blocks in flight; the number of
 * blocks. Costs a third of a microsecond for each member, and for each that has ended
 * a walk over the pool. Waits for another sweep. Nothing happens in a pool without
 * members, or if the program has closed the pool's file. */
uint64_t dragon_members_sweep(struct dragon_pool *pool);
