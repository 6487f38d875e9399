#pragma once

/*
 * The users of an object: a set of processes and blocks. For memory/object.c, which
 * has the lock that guards a set and decides what it means.
 *
 * The first users lie in the object, further ones in a table, a block that only the object
 * names. Each change is one store, so that who gets the lock from a dead holder finds a
 * set with the change or without it:
 *   a user is added       n, then `who` of a free entry
 *   it is used once more  n
 *   it leaves a note      n
 *   it is taken out       `who`, which becomes 0
 *   the table grows       a larger one is filled; then `more_offset`
 * A new table is its maker's until it is named, and an old one before it is not named any
 * more, so a table without an object is swept with the process that died there.
 *
 * A place in the table follows from `who`, up to DRAGON_USERS_N_PROBES further on, so a set
 * of 100,000 messages costs each of them no more than one of ten. It never shrinks.
 */

#include <stdbool.h>
#include <stdint.h>

struct dragon_handle;
struct dragon_pool;

#define DRAGON_USERS_N_FIRST 6
#define DRAGON_USERS_N_PROBES 16u

/* One user. */
struct dragon_user {
    _Atomic uint64_t who; /* a holder (memory/handle.h), or DRAGON_USER_BLOCK; 0: no user */
    /* Of a holder: how often it uses the object, and above bit 32 its note; of a block: its
     * generation. */
    _Atomic uint64_t n;
};

#define DRAGON_USER_NOTE_SHIFT 32

/* In the object's header. All zero bytes: nobody. */
struct dragon_users {
    _Atomic uint64_t more_offset;    /* of the table in the pool; 0: none */
    union {                          /* for memory/object.c */
        _Atomic uint64_t last_death; /* while there are users: see there */
        uint64_t next_garbage;       /* afterwards */
    };
    struct dragon_user first[DRAGON_USERS_N_FIRST];
};

_Static_assert(sizeof(struct dragon_users) == 112, "shared layout");

/* What a block at an offset is called as a user. */
#define DRAGON_USER_BLOCK(offset) (UINT64_C(1) << 63 | (offset))

/* All functions, but for the last one: under the lock. */

/* NULL: it is no user. */
struct dragon_user *dragon_users_find(struct dragon_pool *pool, struct dragon_users *users,
                                      uint64_t who);

/* Add one that is no user yet. holder: of the process that does it, for a table that is made.
 * Outcomes of dragon_pool_alloc. */
int dragon_users_add(struct dragon_pool *pool, struct dragon_users *users, uint32_t holder,
                     uint64_t who, uint64_t n);

/* True if there is a user beside this one (which may be NULL). */
bool dragon_users_has_other(struct dragon_pool *pool, struct dragon_users *users,
                            const struct dragon_user *user);

/* Say that the table is the object's: a holder that is dead may have been about to. */
void dragon_users_keep_table(struct dragon_pool *pool, struct dragon_users *users);

/* Free the table: nobody uses the object any more. holder: of who frees it. */
void dragon_users_fini(struct dragon_pool *pool, struct dragon_users *users, uint32_t holder);

/* False: surely no user, if the process `who` is dead or asks for itself. No lock. */
bool dragon_users_may_have(const struct dragon_users *users, uint64_t who);
