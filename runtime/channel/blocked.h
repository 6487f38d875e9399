#pragma once

/*
 * Who is blocked on a channel now: one word for each waiting thread, which names
 * its process. A thread announces itself by one swap and leaves by one store; one
 * that is killed in between leaves its word, which the next count finds to be of
 * a process that has ended, and clears. (A process that has ended and that its
 * parent has not waited for yet still counts.)
 *
 * Who writes: a free word: anybody, by swap; a taken one: who took it, or, once
 * that process has ended, anybody.
 */

#include <stdatomic.h>
#include <stdint.h>

/* More threads than this at a time are not counted. */
#define DRAGON_BLOCKED_MAX 64

struct dragon_blocked {
    /* private: pid * 2^42 + start time of the process; 0: free */
    _Atomic uint64_t who[DRAGON_BLOCKED_MAX];
};

_Static_assert(sizeof(struct dragon_blocked) == 512, "shared layout");

/* The calling process, as its threads announce themselves; after a fork the child
 * asks anew. 0: the system does not tell; such a process is not counted. */
uint64_t dragon_blocked_self(void);

/* Announce a thread of the process self. Its place, for dragon_blocked_leave; -1:
 * all places are taken. */
int dragon_blocked_enter(struct dragon_blocked *blocked, uint64_t self);

/* place: what enter returned. */
void dragon_blocked_leave(struct dragon_blocked *blocked, int place);

/* Threads that are blocked at this moment. Reads /proc once for each. */
uint32_t dragon_blocked_count(struct dragon_blocked *blocked);
