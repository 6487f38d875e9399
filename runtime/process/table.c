#include "process/table.h"

#include "base/deadline.h"
#include "base/error.h"
#include "channel/in_flight.h"
#include "memory/pool.h"
#include "os/os.h"
#include "wait/eventcount.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

/* Between two looks whether a copy is still there that has not said so. */
#define LOOK_FOR_COPY_NS (DRAGON_NS_PER_S / 100)

/* Segment n, from 0 on, has the slots 16 << n up to 32 << n. */
static uint32_t segment_first(uint32_t segment)
{
    return DRAGON_TABLE_FIRST_SLOTS << segment;
}

static uint32_t segment_of(uint32_t slot)
{
    uint32_t segment = 0;

    while (slot >= 2 * segment_first(segment))
        segment++;
    return segment;
}

static int add_segment_locked(struct dragon_table *table)
{
    uint32_t n = dragon_peek(&table->shared->n_segments);
    uint64_t size_bytes;
    struct dragon_handle handle;
    int r;

    if (n >= DRAGON_TABLE_SEGMENTS)
        return DRAGON_TABLE_FULL;
    if (dragon_table_n_slots(table) != segment_first(n))
        return dragon_error_origin(-EBADMSG);
    size_bytes = segment_first(n) * sizeof(struct dragon_table_slot);
    r = dragon_pool_alloc(table->pool, size_bytes, DRAGON_HOLDER_RUNTIME, &handle);
    if (r != 0)
        return r < 0 ? dragon_error_trace(r) : DRAGON_TABLE_FULL;
    memset(dragon_pool_at(table->pool, handle.offset), 0, size_bytes);
    dragon_poke(&table->shared->segments[n], handle.offset);
    dragon_publish(&table->shared->n_segments, n + 1); /* pairs with dragon_table_n_slots */
    return 0;
}

void dragon_table_open(struct dragon_table *table, struct dragon_pool *pool, uint64_t offset)
{
    *table = (struct dragon_table){
        .pool = pool, .offset = offset, .shared = dragon_pool_at(pool, offset)};
}

int dragon_table_init(struct dragon_table *table, struct dragon_pool *pool, uint64_t offset)
{
    dragon_table_open(table, pool, offset);
    return dragon_error_trace(dragon_mutex_init(&table->shared->mutex));
}

/* Where a segment begins, 0 if not in the pool. Segments never move, so what was
 * found once holds, whatever others write afterwards. */
static uint64_t segment_offset(struct dragon_table *table, uint32_t segment)
{
    uint64_t size_bytes = segment_first(segment) * sizeof(struct dragon_table_slot);
    uint64_t offset = dragon_peek(&table->segments[segment]);

    if (offset != 0)
        return offset;
    offset = dragon_peek(&table->shared->segments[segment]);
    if (offset % 64 != 0 || !dragon_pool_contains(table->pool, offset, size_bytes))
        return 0;
    dragon_poke(&table->segments[segment], offset);
    return offset;
}

uint32_t dragon_table_n_slots(struct dragon_table *table)
{
    /* pairs with the publish in add_segment_locked */
    uint32_t n = dragon_observe(&table->shared->n_segments);
    uint32_t n_sane = 0;

    n = n < DRAGON_TABLE_SEGMENTS ? n : DRAGON_TABLE_SEGMENTS;
    while (n_sane < n && segment_offset(table, n_sane) != 0)
        n_sane++;
    return segment_first(n_sane);
}

static uint64_t slot_offset(struct dragon_table *table, uint32_t slot)
{
    uint32_t segment;

    if (slot < DRAGON_TABLE_FIRST_SLOTS)
        return table->offset + offsetof(struct dragon_table_shared, first) +
               slot * sizeof(struct dragon_table_slot);
    segment = segment_of(slot);
    return segment_offset(table, segment) +
           (slot - segment_first(segment)) * sizeof(struct dragon_table_slot);
}

struct dragon_table_slot *dragon_table_slot(struct dragon_table *table, uint32_t slot)
{
    if (slot >= dragon_table_n_slots(table))
        return NULL;
    return dragon_pool_at(table->pool, slot_offset(table, slot));
}

struct dragon_table_slot *dragon_table_claimed(struct dragon_table *table, uint32_t slot)
{
    return dragon_pool_at(table->pool, slot_offset(table, slot));
}

uint64_t dragon_table_doorbell_offset(struct dragon_table *table, uint32_t slot)
{
    _Static_assert(offsetof(struct dragon_table_slot, doorbell) % 64 == 0, "channels pack it");
    return slot_offset(table, slot) + offsetof(struct dragon_table_slot, doorbell);
}

/* Nobody took care of the death of this slot's process: it ended together with
 * those who would have. */
static bool is_abandoned(struct dragon_table_slot *slot)
{
    uint64_t ticks;

    if (dragon_observe(&slot->state) == DRAGON_TABLE_DEAD)
        return true; /* who wanted to sweep it may have died as well */
    if (dragon_observe(&slot->state) == DRAGON_TABLE_FORKING)
        return false; /* it goes with its parent's slot */
    if (dragon_os_start_time(dragon_peek(&slot->pid), &ticks) < 0)
        return true;
    return dragon_peek(&slot->start_ticks) != 0 && ticks != dragon_peek(&slot->start_ticks);
}

static bool sweep_slot_locked(struct dragon_table *table, uint32_t index)
{
    struct dragon_table_slot *slot = dragon_table_claimed(table, index);
    struct dragon_end end = {dragon_peek(&slot->number), dragon_peek(&slot->death)};

    return dragon_in_flight_bury(table->pool, DRAGON_HOLDER_FIRST_SLOT + index, &end) == 0;
}

/* ---- deaths ---- */

/* Copies of a process end by os._exit(0) as a rule, and nobody need have seen it. */
static bool is_clean(const struct dragon_table_slot *slot, uint32_t state, uint32_t status)
{
    if (state != DRAGON_TABLE_ALIVE)
        return true;
    return dragon_peek(&slot->is_copy) && (status == 0 || status == DRAGON_STATUS_UNKNOWN);
}

/* The slot's process has ended in this state: say how, before it is said that it has. */
static void note_end_locked(struct dragon_table *table, uint32_t index, uint32_t state,
                            uint32_t status)
{
    struct dragon_table_slot *slot = dragon_table_claimed(table, index);

    if (!is_clean(slot, state, status))
        dragon_publish(&slot->death, dragon_death(dragon_peek(&slot->pid), status, index));
}

void dragon_table_name_of_dead(struct dragon_table *table, uint64_t death,
                               char name_out[DRAGON_TABLE_NAME_BYTES])
{
    struct dragon_table_slot *slot = dragon_table_slot(table, dragon_death_slot(death));

    name_out[0] = '\0';
    if (!slot || dragon_observe(&slot->death) != death)
        return;
    memcpy(name_out, slot->name, sizeof slot->name);
    name_out[sizeof slot->name - 1] = '\0';
    dragon_fence();
    if (dragon_peek(&slot->death) != death) /* pairs with begin_life_locked */
        name_out[0] = '\0';
}

/* ---- numbers of processes ---- */

#define SLOT_BITS 16

_Static_assert((DRAGON_TABLE_FIRST_SLOTS << DRAGON_TABLE_SEGMENTS) == 1u << SLOT_BITS,
               "a slot's place fits its part of the number");

/* What a slot says of the process that it is claimed for, and not of the last one. */
static void begin_life_locked(struct dragon_table *table, uint32_t index)
{
    struct dragon_table_slot *slot = dragon_table_claimed(table, index);

    dragon_exchange(&slot->death, 0);
    dragon_poke(&slot->is_copy, 0);
    memset(slot->name, 0, sizeof slot->name);
    dragon_publish(&slot->number, (++table->shared->n_claims << SLOT_BITS | index) &
                                      ~DRAGON_DEATH_BIT); /* pairs with slot_of_number */
}

/* NULL: its slot is another process's by now, or it never had one. */
static struct dragon_table_slot *slot_of_number(struct dragon_table *table, uint64_t number)
{
    uint32_t index = (uint32_t)number & ((1u << SLOT_BITS) - 1);
    struct dragon_table_slot *slot = dragon_table_slot(table, index);

    return slot && dragon_observe(&slot->number) == number ? slot : NULL;
}

bool dragon_table_has(struct dragon_table *table, uint64_t number)
{
    struct dragon_table_slot *slot = slot_of_number(table, number);
    uint32_t state = slot ? dragon_observe(&slot->state) : DRAGON_TABLE_FREE;

    return state != DRAGON_TABLE_FREE && state != DRAGON_TABLE_DEAD;
}

int32_t dragon_table_pid_of(struct dragon_table *table, uint64_t number)
{
    struct dragon_table_slot *slot = slot_of_number(table, number);

    return slot && dragon_table_has(table, number) ? dragon_peek(&slot->pid) : 0;
}

void dragon_table_set_name(struct dragon_table *table, uint32_t slot, const char *name)
{
    struct dragon_table_slot *s = dragon_table_claimed(table, slot);

    memset(s->name, 0, sizeof s->name);
    memcpy(s->name, name, strnlen(name, sizeof s->name - 1));
}

/* ---- copies that were never born ---- */

/* Where state and pid are swapped together. */
static uint64_t pair_of(uint32_t state, int32_t pid)
{
    union {
        struct {
            uint32_t state;
            int32_t pid;
        };
        uint64_t pair;
    } both = {.state = state, .pid = pid};

    return both.pair;
}

/* A copy that its parent did not come to fork, or that did not come to say so. */
static void sweep_unborn_locked(struct dragon_table *table, uint32_t index)
{
    struct dragon_table_slot *slot = dragon_table_claimed(table, index);
    uint64_t forking = pair_of(DRAGON_TABLE_FORKING, 0);

    if (dragon_replace(&slot->state_and_pid, &forking, pair_of(DRAGON_TABLE_DEAD, 0)) &&
        sweep_slot_locked(table, index))
        dragon_table_release(table, index);
}

static void disown_locked(struct dragon_table *table, uint32_t parent)
{
    int32_t pid = dragon_peek(&dragon_table_claimed(table, parent)->pid);
    uint32_t n = pid != 0 ? dragon_table_n_slots(table) : 0;

    for (uint32_t i = 0; i < n; i++) {
        struct dragon_table_slot *slot = dragon_table_claimed(table, i);

        if (i == parent || slot->parent_pid != pid)
            continue;
        if (dragon_observe(&slot->state) == DRAGON_TABLE_FORKING)
            sweep_unborn_locked(table, i);
        else if (dragon_observe(&slot->state) != DRAGON_TABLE_FREE)
            dragon_table_unwatch(table, i);
    }
}

void dragon_table_disown(struct dragon_table *table, uint32_t slot)
{
    if (dragon_mutex_lock(&table->shared->mutex) < 0)
        return;
    disown_locked(table, slot);
    dragon_mutex_unlock(&table->shared->mutex);
}

void dragon_table_unwatch(struct dragon_table *table, uint32_t slot)
{
    dragon_poke(&dragon_table_claimed(table, slot)->is_watched, 0);
    dragon_table_ask_to_watch(table);
}

void dragon_table_ask_to_watch(struct dragon_table *table)
{
    dragon_publish(&table->shared->has_unwatched, 1); /* pairs with _take_unwatched */
    dragon_fence();
    dragon_eventcount_wake_one(dragon_pool_grown(table->pool));
}

bool dragon_table_take_unwatched(struct dragon_table *table)
{
    return dragon_peek(&table->shared->has_unwatched) &&
           dragon_exchange(&table->shared->has_unwatched, 0);
}

/* False: there was no memory for it; the slot stays as it is. */
static bool take_over_locked(struct dragon_table *table, uint32_t index)
{
    struct dragon_table_slot *slot = dragon_table_claimed(table, index);

    if (dragon_peek(&slot->death) == 0) /* else somebody has tried before */
        note_end_locked(table, index, dragon_observe(&slot->state), DRAGON_STATUS_UNKNOWN);
    dragon_publish(&slot->state, DRAGON_TABLE_DEAD);
    if (!sweep_slot_locked(table, index))
        return false;
    disown_locked(table, index);
    dragon_table_release(table, index);
    return true;
}

/* The first one that tells of no death; if there is none, that of the longest ago. */
static bool find_released(struct dragon_table *table, uint32_t n, uint32_t *slot_out)
{
    uint64_t oldest = UINT64_MAX;

    for (uint32_t i = 0; i < n; i++) {
        struct dragon_table_slot *slot = dragon_table_claimed(table, i);

        if (dragon_peek(&slot->state) != DRAGON_TABLE_FREE)
            continue;
        if (dragon_peek(&slot->death) == 0) {
            *slot_out = i;
            return true;
        }
        if (dragon_peek(&slot->number) < oldest) {
            *slot_out = i;
            oldest = dragon_peek(&slot->number);
        }
    }
    return oldest != UINT64_MAX;
}

static bool find_free_locked(struct dragon_table *table, uint32_t *slot_out)
{
    uint32_t n = dragon_table_n_slots(table);

    if (find_released(table, n, slot_out))
        return true;
    for (uint32_t i = 0; i < n; i++) {
        if (!is_abandoned(dragon_table_claimed(table, i)) || !take_over_locked(table, i))
            continue;
        *slot_out = i;
        return true;
    }
    return false;
}

/* A process with this pid is alive, so a slot of an earlier one is a dead one's. */
static void release_namesakes_locked(struct dragon_table *table, int32_t pid, uint64_t start_ticks)
{
    uint32_t n = dragon_table_n_slots(table);

    for (uint32_t i = 0; i < n; i++) {
        struct dragon_table_slot *slot = dragon_table_claimed(table, i);

        if (dragon_peek(&slot->pid) == pid && dragon_peek(&slot->start_ticks) != start_ticks &&
            dragon_peek(&slot->start_ticks) != 0 && start_ticks != 0 &&
            dragon_observe(&slot->state) != DRAGON_TABLE_FREE)
            (void)take_over_locked(table, i);
    }
}

/* A free slot, or one that is added. */
static int make_free_locked(struct dragon_table *table, uint32_t *slot_out)
{
    int r = 0;

    while (r == 0 && !find_free_locked(table, slot_out))
        r = add_segment_locked(table);
    return dragon_error_trace(r);
}

static bool is_alive_in_table(struct dragon_table *table, int32_t pid)
{
    uint32_t index;

    return dragon_table_find(table, pid, &index) &&
           dragon_observe(&dragon_table_claimed(table, index)->state) == DRAGON_TABLE_ALIVE;
}

static int claim_locked(struct dragon_table *table, int32_t pid, uint64_t start_ticks,
                        int32_t parent_pid, uint32_t *slot_out)
{
    struct dragon_table_slot *slot;
    uint32_t index;
    int r;

    release_namesakes_locked(table, pid, start_ticks);
    r = make_free_locked(table, &index);
    if (r != 0)
        return dragon_error_trace(r);
    slot = dragon_table_claimed(table, index);
    begin_life_locked(table, index);
    dragon_poke(&slot->is_watched, 1);
    dragon_poke(&slot->pid, pid);
    dragon_poke(&slot->start_ticks, start_ticks);
    slot->parent_pid = parent_pid;
    dragon_doorbell_init(&slot->doorbell);
    dragon_publish(&slot->state, DRAGON_TABLE_ALIVE);
    if (!is_alive_in_table(table, parent_pid))
        dragon_table_unwatch(table, index);
    *slot_out = index;
    return 0;
}

int dragon_table_claim(struct dragon_table *table, int32_t pid, uint64_t start_ticks,
                       int32_t parent_pid, uint32_t *slot_out)
{
    int r = dragon_mutex_lock(&table->shared->mutex);

    if (r < 0)
        return dragon_error_trace(r);
    r = claim_locked(table, pid, start_ticks, parent_pid, slot_out);
    dragon_mutex_unlock(&table->shared->mutex);
    return dragon_error_trace(r);
}

static int claim_for_copy_locked(struct dragon_table *table, uint32_t parent, uint32_t *slot_out)
{
    struct dragon_table_slot *slot;
    int r = make_free_locked(table, slot_out);

    if (r != 0)
        return dragon_error_trace(r);
    slot = dragon_table_claimed(table, *slot_out);
    begin_life_locked(table, *slot_out);
    dragon_poke(&slot->is_copy, 1);
    dragon_poke(&slot->pid, 0);
    dragon_poke(&slot->start_ticks, 0);
    dragon_poke(&slot->is_watched, 0);
    slot->parent_pid = dragon_peek(&dragon_table_claimed(table, parent)->pid);
    dragon_doorbell_init(&slot->doorbell);
    dragon_publish(&slot->state, DRAGON_TABLE_FORKING);
    return 0;
}

int dragon_table_claim_for_copy(struct dragon_table *table, uint32_t parent, uint32_t *slot_out)
{
    int r = dragon_mutex_lock(&table->shared->mutex);

    if (r < 0)
        return dragon_error_trace(r);
    r = claim_for_copy_locked(table, parent, slot_out);
    dragon_mutex_unlock(&table->shared->mutex);
    return dragon_error_trace(r);
}

bool dragon_table_become(struct dragon_table *table, uint32_t slot, int32_t pid,
                         uint64_t start_ticks)
{
    struct dragon_table_slot *s = dragon_table_claimed(table, slot);
    uint64_t forking = pair_of(DRAGON_TABLE_FORKING, 0);

    if (!dragon_replace(&s->state_and_pid, &forking, pair_of(DRAGON_TABLE_ALIVE, pid)))
        return false;
    (void)dragon_os_futex_wake(&s->state, 1); /* the parent, in dragon_table_await_copy */
    dragon_poke(&s->start_ticks, start_ticks);
    dragon_table_unwatch(table, slot);
    return true;
}

bool dragon_table_await_copy(struct dragon_table *table, uint32_t slot, int64_t deadline_ns)
{
    struct dragon_table_slot *s = dragon_table_claimed(table, slot);

    while (dragon_observe(&s->state) == DRAGON_TABLE_FORKING) {
        int64_t look_ns = dragon_deadline_after_ns(LOOK_FOR_COPY_NS);

        if (!dragon_os_has_children() || dragon_deadline_passed(deadline_ns))
            return dragon_observe(&s->state) != DRAGON_TABLE_FORKING;
        (void)dragon_os_futex_wait(&s->state, DRAGON_TABLE_FORKING,
                                   dragon_deadline_earlier(look_ns, deadline_ns));
    }
    return true;
}

/* 1: the slot's process has ended, though it may be a zombie. 0: it lives. -errno: nobody
 * can tell now. status: how, if it is not known yet. */
static int has_ended(struct dragon_table_slot *slot, int32_t pid, uint32_t *status)
{
    uint64_t own_ticks = dragon_peek(&slot->start_ticks), ticks;
    int fd, r;

    r = dragon_os_pidfd_open(pid, &fd);
    if (r < 0)
        return r == -ESRCH ? 1 : dragon_error_trace(r);
    r = dragon_os_pidfd_ended(fd) ? 1 : 0;
    if (r == 1 && *status == DRAGON_STATUS_UNKNOWN)
        (void)dragon_os_wait_status(fd, pid, status);
    dragon_os_close(fd);
    if (r == 1 || own_ticks == 0)
        return r;
    r = dragon_os_start_time(pid, &ticks);
    if (r < 0)
        return r == -ESRCH ? 1 : dragon_error_trace(r);
    return ticks != own_ticks ? 1 : 0;
}

static bool is_there(uint32_t state)
{
    return state == DRAGON_TABLE_ALIVE || state == DRAGON_TABLE_ENDING;
}

static int bury_locked(struct dragon_table *table, uint32_t index, int32_t pid, uint32_t status)
{
    struct dragon_table_slot *slot = dragon_table_claimed(table, index);
    uint64_t pair;
    uint32_t state;
    int r;

    if (dragon_peek(&slot->pid) != pid || !is_there(dragon_observe(&slot->state)))
        return 0;
    r = has_ended(slot, pid, &status);
    if (r < 0)
        dragon_poke(&slot->is_watched, 0);
    if (r <= 0)
        return dragon_error_trace(r);
    /* Only now it cannot change any more but to DEAD: its process is gone. */
    state = dragon_observe(&slot->state);
    pair = pair_of(state, pid);
    if (is_there(state))
        note_end_locked(table, index, state, status);
    return is_there(state) &&
                   dragon_replace(&slot->state_and_pid, &pair, pair_of(DRAGON_TABLE_DEAD, pid))
               ? 1
               : 0;
}

int dragon_table_bury(struct dragon_table *table, int32_t pid, uint32_t status)
{
    int r = dragon_mutex_lock(&table->shared->mutex), n_dead = 0;
    uint32_t n;

    if (r < 0)
        return dragon_error_trace(r);
    n = dragon_table_n_slots(table);
    r = 0;
    for (uint32_t i = 0; i < n; i++) {
        int outcome = bury_locked(table, i, pid, status);

        n_dead += outcome > 0;
        r = outcome < 0 ? outcome : r;
    }
    dragon_mutex_unlock(&table->shared->mutex);
    return r < 0 ? dragon_error_trace(r) : n_dead;
}

void dragon_table_bury_all(struct dragon_table *table)
{
    uint32_t n;

    if (dragon_mutex_lock(&table->shared->mutex) < 0)
        return;
    n = dragon_table_n_slots(table);
    for (uint32_t i = 0; i < n; i++)
        (void)bury_locked(table, i, dragon_peek(&dragon_table_claimed(table, i)->pid),
                          DRAGON_STATUS_UNKNOWN);
    dragon_mutex_unlock(&table->shared->mutex);
}

void dragon_table_sweep_dead(struct dragon_table *table)
{
    uint32_t n;

    if (dragon_mutex_lock(&table->shared->mutex) < 0)
        return;
    n = dragon_table_n_slots(table);
    for (uint32_t i = 0; i < n; i++)
        if (dragon_observe(&dragon_table_claimed(table, i)->state) == DRAGON_TABLE_DEAD)
            (void)take_over_locked(table, i);
    dragon_mutex_unlock(&table->shared->mutex);
}

void dragon_table_release(struct dragon_table *table, uint32_t slot)
{
    struct dragon_table_slot *s = dragon_table_slot(table, slot);

    if (s)
        dragon_publish(&s->state, DRAGON_TABLE_FREE);
}

bool dragon_table_find(struct dragon_table *table, int32_t pid, uint32_t *slot_out)
{
    uint32_t n = dragon_table_n_slots(table);

    for (uint32_t i = 0; i < n; i++) {
        struct dragon_table_slot *slot = dragon_table_claimed(table, i);

        if (dragon_peek(&slot->pid) == pid && dragon_observe(&slot->state) != DRAGON_TABLE_FREE) {
            *slot_out = i;
            return true;
        }
    }
    return false;
}
