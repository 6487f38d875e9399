/*
 * Entries lie in the object and, when those are taken, in a chain of pool
 * blocks that is only ever appended to; the handles in it are validated at each
 * step, since any process can write them. An entry goes round like this:
 *
 *   free (ticket 0)  --enter: lock alive, word WAITING, ticket-->  queued
 *   queued, WAITING  --wait-->                                     PARKED
 *   queued, WAITING or PARKED  --notify-->                         NOTIFIED
 *   queued, WAITING or PARKED  --leave-->                          LEFT
 *   NOTIFIED or LEFT --leave: ticket 0, unlock alive-->            free
 *
 * Finding the oldest is a search through all entries. With as many waiters as a
 * machine has processes that takes under a microsecond for each one woken, less
 * than the wake.
 */
#include "sync/condition.h"

#include "base/check.h"
#include "base/error.h"
#include "memory/pool.h"
#include "os/os.h"

#include <errno.h>
#include <string.h>

enum word { WAITING = 1, PARKED, NOTIFIED, LEFT };

/* A pool block of further entries. */
struct more {
    struct dragon_condition_link next;
    uint32_t reserved[8];
    struct dragon_condition_waiter waiters[DRAGON_CONDITION_N_MORE];
};

_Static_assert(sizeof(struct more) == 4096, "shared layout");

/* A chain longer than this has been tampered with. */
#define MAX_BLOCKS 16384

/* ---- walking over the entries ---- */

struct walk {
    struct dragon_condition_waiter *waiters; /* of this block */
    uint32_t n;
    struct dragon_condition_link *next;
    int n_blocks;
};

static void walk_begin(struct walk *walk, struct dragon_condition *condition)
{
    walk->waiters = condition->waiters;
    walk->n = DRAGON_CONDITION_N_INLINE;
    walk->next = &condition->next;
    walk->n_blocks = 1;
}

static struct more *find_more(struct dragon_pool *pool, const struct dragon_handle *handle)
{
    uint64_t size_bytes;
    void *address;

    if (dragon_pool_resolve(pool, handle, &address, &size_bytes) != 0 ||
        size_bytes < sizeof(struct more))
        return NULL;
    return address;
}

/* Go on to the next block; false at the end of the chain, or where another
 * process has broken it. */
static bool walk_on(struct walk *walk, struct dragon_pool *pool)
{
    struct dragon_handle handle;
    struct more *more;

    if (!dragon_observe(&walk->next->is_set) || !pool) /* pairs with the publish in append */
        return false;
    handle = walk->next->block;
    more = find_more(pool, &handle);
    if (!more || walk->n_blocks >= MAX_BLOCKS)
        return false;
    walk->waiters = more->waiters;
    walk->n = DRAGON_CONDITION_N_MORE;
    walk->next = &more->next;
    walk->n_blocks++;
    return true;
}

/* ---- lifetime ---- */

static int init_waiters(struct dragon_condition_waiter *waiters, uint32_t n)
{
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < n; i++)
        r = dragon_mutex_init(&waiters[i].alive);
    return dragon_error_trace(r);
}

int dragon_condition_init(struct dragon_condition *condition)
{
    int r;

    memset(condition, 0, sizeof *condition);
    r = dragon_mutex_init(&condition->growing);
    if (r == 0)
        r = init_waiters(condition->waiters, DRAGON_CONDITION_N_INLINE);
    return dragon_error_trace(r);
}

/* The last one first, so that who is killed leaves a chain: it ends at a name that is
 * stale. */
static bool free_last(struct dragon_condition *condition, struct dragon_pool *pool)
{
    struct dragon_condition_link *last = NULL;
    struct walk walk;

    walk_begin(&walk, condition);
    do {
        struct dragon_handle handle = walk.next->block;

        if (dragon_observe(&walk.next->is_set) && find_more(pool, &handle))
            last = walk.next;
    } while (walk_on(&walk, pool));
    return last && dragon_pool_free(pool, &last->block) == 0;
}

void dragon_condition_fini(struct dragon_condition *condition, struct dragon_pool *pool)
{
    while (free_last(condition, pool))
        ;
}

/* ---- entering ---- */

/* Lock `alive` of an entry that no living thread has. */
static bool try_own(struct dragon_condition_waiter *waiter)
{
    int r = dragon_mutex_try_lock(&waiter->alive);

    return r == 0 || r == DRAGON_MUTEX_OWNER_DIED;
}

static bool claim(struct dragon_condition *condition, struct dragon_pool *pool, bool from_the_dead,
                  struct dragon_condition_waiter **waiter_out)
{
    struct walk walk;

    walk_begin(&walk, condition);
    do
        for (uint32_t i = 0; i < walk.n; i++) {
            struct dragon_condition_waiter *waiter = &walk.waiters[i];

            if ((from_the_dead || dragon_observe(&waiter->ticket) == 0) && try_own(waiter)) {
                *waiter_out = waiter;
                return true;
            }
        }
    while (walk_on(&walk, pool));
    return false;
}

static int append(struct walk *last, struct dragon_pool *pool)
{
    struct dragon_handle handle;
    struct more *more;
    int r;

    r = dragon_pool_alloc(pool, sizeof *more, DRAGON_HOLDER_PART, &handle);
    if (r != 0)
        return r < 0 ? dragon_error_trace(r) : dragon_error_origin(-ENOMEM);
    more = dragon_pool_at(pool, handle.offset);
    memset(more, 0, sizeof *more);
    r = init_waiters(more->waiters, DRAGON_CONDITION_N_MORE);
    if (r < 0) {
        dragon_pool_free(pool, &handle);
        return dragon_error_trace(r);
    }
    last->next->block = handle;
    DRAGON_TEST_POINT("condition-growing");
    dragon_publish(&last->next->is_set, 1); /* pairs with the observe in walk_on */
    return 0;
}

static int grow(struct dragon_condition *condition, struct dragon_pool *pool)
{
    struct walk walk;
    int r;

    if (!pool)
        return dragon_error_origin(-ENOMEM);
    r = dragon_mutex_lock(&condition->growing);
    if (r < 0)
        return dragon_error_trace(r);
    walk_begin(&walk, condition);
    while (walk_on(&walk, pool))
        ;
    /* Still followed by something: a link that leads nowhere. */
    r = dragon_observe(&walk.next->is_set) ? dragon_error_origin(-EBADMSG) : append(&walk, pool);
    dragon_mutex_unlock(&condition->growing);
    return dragon_error_trace(r);
}

int dragon_condition_enter(struct dragon_condition *condition, struct dragon_pool *pool,
                           struct dragon_condition_waiter **waiter_out)
{
    struct dragon_condition_waiter *waiter;

    while (!claim(condition, pool, false, &waiter) && !claim(condition, pool, true, &waiter)) {
        int r = grow(condition, pool);

        if (r < 0)
            return dragon_error_trace(r);
    }
    dragon_poke(&waiter->word, WAITING);
    /* pairs with the observe in is_waiting */
    dragon_publish(&waiter->ticket, dragon_fetch_add(&condition->next_ticket, 1) + 1);
    DRAGON_TEST_POINT("condition-entered");
    *waiter_out = waiter;
    return 0;
}

/* ---- waiting ---- */

bool dragon_condition_is_notified(struct dragon_condition_waiter *waiter)
{
    return dragon_observe(&waiter->word) == NOTIFIED; /* pairs with the swap in try_notify */
}

static bool look_for_a_while(struct dragon_condition_waiter *waiter)
{
    static _Thread_local struct dragon_spin spin;
    struct dragon_spin_round round = dragon_spin_begin(&spin);
    bool notified;

    while (!(notified = dragon_condition_is_notified(waiter)) && dragon_spin_again(&round))
        ;
    dragon_spin_end(&spin, &round, notified);
    return notified;
}

/* Sleep once. 0 to look again. */
static int park(struct dragon_condition_waiter *waiter, int64_t deadline_ns)
{
    int64_t look_again_ns = dragon_deadline_after_ns(DRAGON_EVENTCOUNT_PARK_NS);
    uint32_t word = WAITING;
    int r;

    if (!dragon_replace(&waiter->word, &word, PARKED) && word != PARKED)
        return 0;
    r = dragon_os_futex_wait(&waiter->word, PARKED,
                             dragon_deadline_earlier(deadline_ns, look_again_ns));
    switch (r) {
    case DRAGON_OS_FUTEX_INTERRUPTED:
        return DRAGON_CONDITION_INTERRUPTED;
    case DRAGON_OS_FUTEX_TIMEOUT:
        return dragon_deadline_passed(deadline_ns) ? DRAGON_CONDITION_TIMEOUT : 0;
    default:
        return dragon_error_trace(r);
    }
}

int dragon_condition_wait(struct dragon_condition_waiter *waiter, int64_t deadline_ns)
{
    int r = 0;

    if (dragon_condition_is_notified(waiter))
        return 0;
    if (dragon_deadline_passed(deadline_ns))
        return DRAGON_CONDITION_TIMEOUT;
    if (look_for_a_while(waiter))
        return 0;
    while (r == 0 && !dragon_condition_is_notified(waiter))
        r = park(waiter, deadline_ns);
    return dragon_condition_is_notified(waiter) ? 0 : r;
}

/* ---- leaving ---- */

static bool is_waiting_word(uint32_t word)
{
    return word == WAITING || word == PARKED;
}

int dragon_condition_leave(struct dragon_condition_waiter *waiter)
{
    uint32_t word = dragon_observe(&waiter->word);

    /* From here a notifier passes this entry by, or has been first. */
    while (is_waiting_word(word) && !dragon_replace(&waiter->word, &word, LEFT))
        ;
    dragon_publish(&waiter->ticket, 0); /* pairs with the observe in claim */
    dragon_mutex_unlock(&waiter->alive);
    return word == NOTIFIED ? 0 : DRAGON_CONDITION_NOT_NOTIFIED;
}

void dragon_condition_cancel(struct dragon_condition *condition, struct dragon_pool *pool,
                             struct dragon_condition_waiter *waiter)
{
    if (dragon_condition_leave(waiter) == 0)
        dragon_condition_notify(condition, pool, 1);
}

/* ---- notifying ---- */

static bool is_waiting(struct dragon_condition_waiter *waiter)
{
    return dragon_observe(&waiter->ticket) != 0 && is_waiting_word(dragon_observe(&waiter->word));
}

/* Take the entry back if its waiter is dead. */
static bool bury(struct dragon_condition_waiter *waiter)
{
    if (!try_own(waiter))
        return false;
    dragon_publish(&waiter->ticket, 0);
    dragon_mutex_unlock(&waiter->alive);
    return true;
}

/* True if the waiter is alive and is notified by this. */
static bool try_notify(struct dragon_condition_waiter *waiter)
{
    uint32_t word = dragon_observe(&waiter->word);

    if (bury(waiter))
        return false;
    while (is_waiting_word(word)) {
        if (!dragon_replace(&waiter->word, &word, NOTIFIED))
            continue;
        DRAGON_TEST_POINT("condition-notified");
        if (word == PARKED)
            dragon_os_futex_wake(&waiter->word, 1);
        return true;
    }
    return false;
}

static struct dragon_condition_waiter *oldest(struct dragon_condition *condition,
                                              struct dragon_pool *pool)
{
    struct dragon_condition_waiter *found = NULL;
    struct walk walk;
    uint64_t first = UINT64_MAX;

    walk_begin(&walk, condition);
    do
        for (uint32_t i = 0; i < walk.n; i++) {
            uint64_t ticket = dragon_observe(&walk.waiters[i].ticket);

            if (ticket != 0 && ticket < first && is_waiting(&walk.waiters[i])) {
                found = &walk.waiters[i];
                first = ticket;
            }
        }
    while (walk_on(&walk, pool));
    return found;
}

static uint64_t notify_all(struct dragon_condition *condition, struct dragon_pool *pool)
{
    struct walk walk;
    uint64_t n_woken = 0;

    walk_begin(&walk, condition);
    do
        for (uint32_t i = 0; i < walk.n; i++)
            if (is_waiting(&walk.waiters[i]) && try_notify(&walk.waiters[i]))
                n_woken++;
    while (walk_on(&walk, pool));
    return n_woken;
}

uint64_t dragon_condition_notify(struct dragon_condition *condition, struct dragon_pool *pool,
                                 uint64_t n)
{
    struct dragon_condition_waiter *waiter;
    uint64_t n_woken = 0;

    if (n > 1 && n >= dragon_condition_n_waiting(condition, pool))
        return notify_all(condition, pool);
    while (n_woken < n && (waiter = oldest(condition, pool)))
        if (try_notify(waiter))
            n_woken++;
    return n_woken;
}

uint64_t dragon_condition_n_waiting(struct dragon_condition *condition, struct dragon_pool *pool)
{
    struct walk walk;
    uint64_t n = 0;

    walk_begin(&walk, condition);
    do
        for (uint32_t i = 0; i < walk.n; i++)
            n += is_waiting(&walk.waiters[i]);
    while (walk_on(&walk, pool));
    return n;
}
