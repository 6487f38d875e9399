#pragma once

/*
 * Table of the processes of a node, in its default pool. A process has a slot
 * from the moment it opens the node until it closes it or its death has been
 * dealt with; blocks that it holds carry the slot's number
 * (DRAGON_HOLDER_FIRST_SLOT + slot).
 *
 * The first slots lie in the table itself. It grows by segments that never
 * move, each with as many slots as there were before it.
 *
 * Who writes: a free slot: who claims it, under the table's mutex. A claimed
 * slot: its own process; `state` also whoever has seen that process dead.
 * A process that dies while it claims leaves a slot whose pid is not set or
 * not alive: the next claim takes it.
 *
 * Before a process forks it claims a slot for its copy, which makes that its own by one
 * swap, of state and pid; the parent waits for that before it goes on, so that whatever it
 * does next (it may end) finds a copy that stands for itself. Who sweeps the parent before that
 * swaps it to DEAD: then the copy has no slot, and nothing that was opened in its name. A copy that
 * dies before the swap leaves the slot to the sweep of its parent.
 *
 * A process that dies without having left is said to have died (memory/death.h) when its slot
 * becomes DEAD: `death` is written before, under the mutex. It and the name stay in the slot until
 * that is claimed again, which happens to other free slots first. Who writes name: its
 * process.
 *
 * The supervisor of a process watches those that it has started. Forked copies, and
 * processes whose parent has left, are nobody's: has_unwatched tells the head to watch
 * them. Who writes is_watched: as `state`, and the head.
 *
 * A process ends with the head if it was started as part of the node; its own watch thread sees to
 * that, and dragon_node_end_members. Forked copies do not: they may be daemons by now.
 */

#include "base/atomic.h"
#include "memory/death.h"
#include "memory/handle.h"
#include "wait/doorbell.h"
#include "wait/mutex.h"

#include <stdbool.h>
#include <stdint.h>

struct dragon_pool;

#define DRAGON_TABLE_FIRST_SLOTS 16u
#define DRAGON_TABLE_NAME_BYTES 28
#define DRAGON_TABLE_SEGMENTS 12 /* 65536 slots */

enum dragon_table_state {
    DRAGON_TABLE_FREE = 0,
    DRAGON_TABLE_ALIVE,
    DRAGON_TABLE_ENDING,  /* clean exit under way: its end is no event */
    DRAGON_TABLE_DEAD,    /* its blocks and uses are being taken back */
    DRAGON_TABLE_FORKING, /* claimed by the process parent_pid for a copy of itself */
};

struct dragon_table_slot {
    union {
        struct {
            _Atomic uint32_t state;
            _Atomic int32_t pid;
        };
        _Atomic uint64_t state_and_pid;
    };
    _Atomic uint64_t start_ticks; /* tells the process from a later one with its pid; 0: not said */
    int32_t parent_pid;
    _Atomic uint32_t is_watched; /* some supervisor has a pidfd of it */
    char name[DRAGON_TABLE_NAME_BYTES];
    _Atomic uint32_t is_copy; /* os.fork() made it: an end with status 0 is a clean one */
    _Atomic uint64_t death;   /* of the process, or of the last one in a free slot; 0: clean */
    struct dragon_doorbell doorbell;
    _Atomic uint64_t number; /* of the process (memory/death.h) */
};

_Static_assert(sizeof(struct dragon_table_slot) == 128, "shared layout");

/* In the pool, aligned to 64 bytes. All zero bytes but for the mutex. */
struct dragon_table_shared {
    struct dragon_mutex mutex;
    _Atomic uint32_t n_segments;
    _Atomic uint32_t has_unwatched; /* look for slots with a process that nobody watches */
    _Atomic uint64_t segments[DRAGON_TABLE_SEGMENTS]; /* offsets in the pool */
    uint64_t n_claims;                                /* under the mutex */
    uint64_t reserved1[4];
    struct dragon_table_slot first[DRAGON_TABLE_FIRST_SLOTS];
};

_Static_assert(sizeof(struct dragon_table_shared) == 192 + 16 * 128, "shared layout");

/* The table as this process sees it. */
struct dragon_table {
    struct dragon_pool *pool; /* borrowed */
    uint64_t offset;          /* of `shared` in the pool */
    struct dragon_table_shared *shared;
    /* private: offsets of segments that were found to lie in the pool; 0: not yet */
    _Atomic uint64_t segments[DRAGON_TABLE_SEGMENTS];
};

enum dragon_table_outcome {
    DRAGON_TABLE_FULL = 1,
};

/* Make a new table at an offset in a pool, where sizeof(struct
 * dragon_table_shared) bytes are zero. */
int dragon_table_init(struct dragon_table *table, struct dragon_pool *pool, uint64_t offset);

/* Use the table that is at an offset. */
void dragon_table_open(struct dragon_table *table, struct dragon_pool *pool, uint64_t offset);

/* Enter a living process. start_ticks: dragon_os_start_time, or 0 while
 * no other process looks. 0; DRAGON_TABLE_FULL; -EBADMSG: the table makes no
 * sense. */
int dragon_table_claim(struct dragon_table *table, int32_t pid, uint64_t start_ticks,
                       int32_t parent_pid, uint32_t *slot_out);

/* Claim a slot for a copy that the process in slot `parent` is about to fork. As
 * dragon_table_claim. */
int dragon_table_claim_for_copy(struct dragon_table *table, uint32_t parent, uint32_t *slot_out);

/* In the copy: make that slot this process's. False: it is no more, as the parent has
 * ended. */
bool dragon_table_become(struct dragon_table *table, uint32_t slot, int32_t pid,
                         uint64_t start_ticks);

/* In the parent, after the fork: wait until the copy has made that slot its own. False: it
 * has not by deadline_ns, or this process has no child at all, so the fork failed or the
 * copy is dead. */
bool dragon_table_await_copy(struct dragon_table *table, uint32_t slot, int64_t deadline_ns);

/* A process is about to leave: others watch the processes that it has started, and what it
 * claimed for copies is given back. */
void dragon_table_disown(struct dragon_table *table, uint32_t slot);

/* Let the head watch the process in a slot. */
void dragon_table_unwatch(struct dragon_table *table, uint32_t slot);

/* Let the head look for slots whose process nobody watches. */
void dragon_table_ask_to_watch(struct dragon_table *table);

/* True if that was asked for since the last call. */
bool dragon_table_take_unwatched(struct dragon_table *table);

/* Somebody thinks that a process has ended, with a status as wait() gives it or
 * DRAGON_STATUS_UNKNOWN. If it has, its slot becomes DRAGON_TABLE_DEAD; a later process with its
 * pid keeps its own. Under the mutex, so that no slot is claimed between the look and the change.
 * Number of slots (0, 1); -EMFILE, -ENFILE, ...: nobody can tell now, and the slot has become one
 * that nobody watches. */
int dragon_table_bury(struct dragon_table *table, int32_t pid, uint32_t status);

/* Bury all processes that have ended, nobody knows how. */
void dragon_table_bury_all(struct dragon_table *table);

/* Free what the processes in DRAGON_TABLE_DEAD slots held and used (but for blocks in
 * flight, channel/in_flight.h), and the slots. Under the mutex: a slot that were
 * claimed anew meanwhile would lose its blocks. */
void dragon_table_sweep_dead(struct dragon_table *table);

/* ---- who is there, and who has died ---- */

/* Give the process in a slot its name for people, UTF-8; cut at DRAGON_TABLE_NAME_BYTES. */
void dragon_table_set_name(struct dragon_table *table, uint32_t slot, const char *name);

/* False: the process of that number has ended, or there never was one. */
bool dragon_table_has(struct dragon_table *table, uint64_t number);

/* The pid of the process of that number while it has its slot; 0: it has none. */
int32_t dragon_table_pid_of(struct dragon_table *table, uint64_t number);

/* The name of a process that has died, "" if it had none or its slot is another's by now. */
void dragon_table_name_of_dead(struct dragon_table *table, uint64_t death,
                               char name_out[DRAGON_TABLE_NAME_BYTES]);

/* Make a slot free for the next one. */
void dragon_table_release(struct dragon_table *table, uint32_t slot);

/* The slot's memory; NULL if the table has no such slot. Never moves. */
struct dragon_table_slot *dragon_table_slot(struct dragon_table *table, uint32_t slot);

/* The same for a slot that was claimed and not released. Never NULL. */
struct dragon_table_slot *dragon_table_claimed(struct dragon_table *table, uint32_t slot);

/* The slot of a process that has one. False: none. */
bool dragon_table_find(struct dragon_table *table, int32_t pid, uint32_t *slot_out);

/* Offset of a slot's doorbell in the pool. */
uint64_t dragon_table_doorbell_offset(struct dragon_table *table, uint32_t slot);

/* Number of slots, claimed or free; those of segments that lie in the pool. */
uint32_t dragon_table_n_slots(struct dragon_table *table);
