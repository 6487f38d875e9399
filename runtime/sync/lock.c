/*
 * A thread that comes and finds nobody in line tries `holder` at once. Otherwise
 * it takes a place: it locks the place's `alive`, writes its ticket, and sets the
 * place's bit in `queued`. While its ticket is the lowest of those in line whose
 * `alive` has a living holder, it tries `holder`; else it sleeps. Who unlocks
 * wakes the first in line, and so does who leaves the line without the lock.
 *
 * Why no wake-up is lost: a waiter sets its bit and its word, then looks at the
 * line and at `holder`, then sleeps while its word is 1. A waker changes
 * `holder` or the line, and then reads `queued` and the words. One of the two
 * sees the other (there is a full fence between write and read on both sides).
 * What a waker reads may be stale: the place that it wakes has changed hands.
 * Then its thread left in between, and has woken the next itself.
 *
 * Threads give up the place only once they have `holder`: in between nobody
 * could tell a new arrival not to overtake.
 */
#include "sync/lock.h"

#include "base/check.h"
#include "base/error.h"
#include "os/os.h"

#include <errno.h>
#include <string.h>

#define MAGIC UINT32_C(0x4b434c44)
#define MAGIC_DESTROYED UINT32_C(0x6b636c64)
#define VERSION 1

#define FIFO_LITE_PLACES 16
#define NOBODY UINT32_MAX

/* Of take, beside what the header says: the calling thread holds it. */
#define MINE 100

enum word { AWAKE, PARKED };

_Static_assert(DRAGON_LOCK_TIMEOUT == (int)DRAGON_OS_FUTEX_TIMEOUT &&
                   DRAGON_LOCK_INTERRUPTED == (int)DRAGON_OS_FUTEX_INTERRUPTED,
               "one meaning of what ends a sleep");

/* ---- lifetime ---- */

static bool is_kind(uint32_t kind)
{
    return kind >= DRAGON_LOCK_FIFO && kind <= DRAGON_LOCK_GREEDY;
}

static uint32_t n_places_of(uint32_t kind)
{
    switch (kind) {
    case DRAGON_LOCK_FIFO:
        return DRAGON_LOCK_MAX_PLACES;
    case DRAGON_LOCK_FIFO_LITE:
        return FIFO_LITE_PLACES;
    default:
        return 0;
    }
}

size_t dragon_lock_size_bytes(enum dragon_lock_kind kind)
{
    if (!is_kind(kind))
        return 0;
    return sizeof(struct dragon_lock_shared) + n_places_of(kind) * sizeof(struct dragon_lock_place);
}

static bool is_aligned(const void *memory)
{
    return (uintptr_t)memory % DRAGON_LOCK_ALIGNMENT == 0;
}

static void view(struct dragon_lock *lock, struct dragon_lock_shared *shared, uint32_t kind)
{
    memset(lock, 0, sizeof *lock);
    lock->shared = shared;
    lock->n_places = n_places_of(kind);
}

int dragon_lock_init(enum dragon_lock_kind kind, void *memory, size_t size_bytes,
                     struct dragon_lock *lock_out)
{
    struct dragon_lock_shared *shared = memory;
    int r;

    if (!is_kind(kind) || size_bytes < dragon_lock_size_bytes(kind) || !is_aligned(memory))
        return dragon_error_origin(-EINVAL);
    memset(memory, 0, dragon_lock_size_bytes(kind));
    shared->version = VERSION;
    shared->kind = kind;
    r = dragon_mutex_init_checked(&shared->holder);
    for (uint32_t i = 0; r == 0 && i < n_places_of(kind); i++)
        r = dragon_mutex_init(&shared->places[i].alive);
    if (r < 0)
        return dragon_error_trace(r);
    DRAGON_TEST_POINT("lock-made");
    dragon_publish(&shared->magic, MAGIC); /* pairs with the observe in dragon_lock_open */
    view(lock_out, shared, kind);
    return 0;
}

static bool is_sane(const struct dragon_lock_shared *shared, size_t size_bytes)
{
    uint32_t kind = shared->kind;

    if (shared->version != VERSION || !is_kind(kind) || size_bytes < dragon_lock_size_bytes(kind) ||
        !dragon_mutex_is_sane(&shared->holder, true))
        return false;
    for (uint32_t i = 0; i < n_places_of(kind); i++)
        if (!dragon_mutex_is_sane(&shared->places[i].alive, false))
            return false;
    return true;
}

int dragon_lock_open(void *memory, size_t size_bytes, struct dragon_lock *lock_out)
{
    struct dragon_lock_shared *shared = memory;
    uint32_t magic;

    if (!is_aligned(memory))
        return dragon_error_origin(-EINVAL);
    if (size_bytes < sizeof *shared)
        return dragon_error_origin(-EBADMSG);
    magic = dragon_observe(&shared->magic);
    if (magic == MAGIC_DESTROYED)
        return DRAGON_LOCK_DESTROYED;
    if (magic != MAGIC || !is_sane(shared, size_bytes))
        return dragon_error_origin(-EBADMSG);
    view(lock_out, shared, shared->kind);
    return 0;
}

enum dragon_lock_kind dragon_lock_kind(const struct dragon_lock *lock)
{
    switch (lock->n_places) {
    case DRAGON_LOCK_MAX_PLACES:
        return DRAGON_LOCK_FIFO;
    case FIFO_LITE_PLACES:
        return DRAGON_LOCK_FIFO_LITE;
    default:
        return DRAGON_LOCK_GREEDY;
    }
}

bool dragon_lock_is_held_here(struct dragon_lock *lock)
{
    int32_t holder = dragon_peek(&lock->holder);

    /* In the forked child of a holder, and after a holder that just ended, it
     * is a thread of no such process. */
    return holder != 0 && dragon_os_thread_exists(holder);
}

/* ---- the line ---- */

static struct dragon_lock_place *place_at(struct dragon_lock *lock, uint32_t i)
{
    return &lock->shared->places[i];
}

static uint64_t bit_of(uint32_t i)
{
    return UINT64_C(1) << i;
}

/* Places in use, in the eyes of a survivor: only those which exist. */
static uint64_t queued(struct dragon_lock *lock)
{
    uint64_t bits = dragon_observe(&lock->shared->queued); /* pairs with the or in enter */

    return lock->n_places == DRAGON_LOCK_MAX_PLACES ? bits : bits & (bit_of(lock->n_places) - 1);
}

/* The place in line with the lowest ticket, its thread dead or alive. */
static uint32_t lowest(struct dragon_lock *lock)
{
    uint64_t first = UINT64_MAX;
    uint32_t found = NOBODY;

    for (uint64_t bits = queued(lock); bits != 0; bits &= bits - 1) {
        uint32_t i = (uint32_t)__builtin_ctzll(bits);
        uint64_t ticket = dragon_observe(&place_at(lock, i)->ticket);

        if (ticket < first || found == NOBODY) {
            first = ticket;
            found = i;
        }
    }
    return found;
}

/* Lock `alive` of a place that no living thread has. */
static bool try_own(struct dragon_lock_place *place)
{
    int r = dragon_mutex_try_lock(&place->alive);

    return r == 0 || r == DRAGON_MUTEX_OWNER_DIED;
}

/* Take the place out of the line if its thread is dead. */
static bool bury(struct dragon_lock *lock, uint32_t i)
{
    if (!try_own(place_at(lock, i)))
        return false;
    dragon_fetch_and(&lock->shared->queued, ~bit_of(i));
    DRAGON_TEST_POINT("lock-buried");
    dragon_mutex_unlock(&place_at(lock, i)->alive);
    dragon_eventcount_wake_one(&lock->shared->door); /* who could not get in meanwhile */
    return true;
}

static void wake(struct dragon_lock *lock, uint32_t i)
{
    struct dragon_lock_place *place = place_at(lock, i);

    if (dragon_exchange(&place->word, AWAKE) == PARKED)
        dragon_os_futex_wake(&place->word, 1);
}

/* The first in line that is alive, or NOBODY. mine: the caller's place (which
 * needs no proof of life), or NOBODY. */
static uint32_t first_alive(struct dragon_lock *lock, uint32_t mine)
{
    uint32_t i;
    bool has_buried = false;

    while ((i = lowest(lock)) != NOBODY && i != mine && bury(lock, i))
        has_buried = true;
    /* The dead one may have been woken in its place, and would have woken it. */
    if (has_buried && i != NOBODY && i != mine)
        wake(lock, i);
    return i;
}

/* Somebody else is to lock it now, or to look whether he may. */
static void pass_on(struct dragon_lock *lock)
{
    uint32_t i;

    if (lock->n_places == 0) {
        dragon_eventcount_wake_one(&lock->shared->door);
        return;
    }
    dragon_fence(); /* pairs with the fence in announce */
    if (queued(lock) != 0 && (i = first_alive(lock, NOBODY)) != NOBODY)
        wake(lock, i);
}

/* Get into a place that nobody has; from_the_dead: whose thread is dead. */
static bool claim(struct dragon_lock *lock, bool from_the_dead, struct dragon_lock_turn *turn)
{
    uint64_t bits = queued(lock);

    for (uint32_t i = 0; i < lock->n_places; i++) {
        struct dragon_lock_place *place = place_at(lock, i);

        if ((!from_the_dead && (bits & bit_of(i))) || !try_own(place))
            continue;
        DRAGON_TEST_POINT("lock-claimed");
        dragon_fetch_and(&lock->shared->queued, ~bit_of(i)); /* a dead one's */
        dragon_poke(&place->word, AWAKE);
        dragon_publish(&place->ticket, dragon_fetch_add(&lock->shared->next_ticket, 1));
        dragon_fetch_or(&lock->shared->queued, bit_of(i));
        DRAGON_TEST_POINT("lock-queued");
        turn->place = i + 1;
        turn->thread = dragon_os_thread_id();
        if (from_the_dead)
            pass_on(lock); /* a wake for the dead one was for somebody else */
        return true;
    }
    return false;
}

static bool claim_any(struct dragon_lock *lock, struct dragon_lock_turn *turn)
{
    return claim(lock, false, turn) || claim(lock, true, turn);
}

static int64_t next_look(int64_t deadline_ns)
{
    return dragon_deadline_earlier(deadline_ns, dragon_deadline_after_ns(DRAGON_LOCK_LOOK_NS));
}

static bool is_destroyed(struct dragon_lock *lock)
{
    return dragon_observe(&lock->shared->magic) != MAGIC; /* pairs with the publish in fini */
}

/* Get into line. 0; DRAGON_LOCK_TIMEOUT, _INTERRUPTED, _DESTROYED; -errno. */
static int enter(struct dragon_lock *lock, struct dragon_lock_turn *turn, int64_t deadline_ns)
{
    while (!claim_any(lock, turn)) {
        uint32_t key = dragon_eventcount_prepare(&lock->shared->door);
        int r;

        if (claim_any(lock, turn))
            return 0;
        if (is_destroyed(lock))
            return DRAGON_LOCK_DESTROYED;
        r = dragon_eventcount_park_until(&lock->shared->door, key, next_look(deadline_ns));
        if (claim_any(lock, turn))
            return 0;
        if (r == DRAGON_EVENTCOUNT_INTERRUPTED || r < 0)
            return dragon_error_trace(r);
        if (dragon_deadline_passed(deadline_ns))
            return DRAGON_LOCK_TIMEOUT;
    }
    return 0;
}

static void step_out(struct dragon_lock *lock, struct dragon_lock_turn *turn)
{
    uint32_t i = turn->place - 1;

    dragon_fetch_and(&lock->shared->queued, ~bit_of(i));
    DRAGON_TEST_POINT("lock-left");
    turn->place = 0;
    dragon_mutex_unlock(&place_at(lock, i)->alive);
    dragon_eventcount_wake_one(&lock->shared->door);
}

/* A child that was forked between two pieces of a wait has no place. */
static void forget_others(struct dragon_lock_turn *turn)
{
    if (turn->place != 0 && turn->thread != dragon_os_thread_id())
        turn->place = 0;
}

void dragon_lock_leave(struct dragon_lock *lock, struct dragon_lock_turn *turn)
{
    forget_others(turn);
    if (turn->place == 0)
        return;
    step_out(lock, turn);
    pass_on(lock);
}

/* ---- locking ---- */

/* Lock `holder`, if it is free. */
static int take(struct dragon_lock *lock)
{
    struct dragon_lock_shared *shared = lock->shared;
    int r;

    if (is_destroyed(lock))
        return DRAGON_LOCK_DESTROYED;
    r = dragon_mutex_try_lock(&shared->holder);
    if (r == DRAGON_MUTEX_BUSY)
        return DRAGON_LOCK_BUSY;
    if (r == DRAGON_MUTEX_MINE)
        return MINE;
    if (r < 0)
        return dragon_error_trace(r);
    if (is_destroyed(lock)) {
        dragon_mutex_unlock(&shared->holder);
        pass_on(lock);
        return DRAGON_LOCK_DESTROYED;
    }
    DRAGON_TEST_POINT("lock-taken");
    dragon_poke(&lock->holder, dragon_mutex_holder(&shared->holder));
    return r == DRAGON_MUTEX_OWNER_DIED ? DRAGON_LOCK_OWNER_DIED : 0;
}

/* Lock it without a place in line, if nobody stands there. */
static int take_outside(struct dragon_lock *lock)
{
    if (queued(lock) != 0 && first_alive(lock, NOBODY) != NOBODY)
        return is_destroyed(lock) ? DRAGON_LOCK_DESTROYED : DRAGON_LOCK_BUSY;
    return take(lock);
}

static int take_in_turn(struct dragon_lock *lock, const struct dragon_lock_turn *turn)
{
    uint32_t first, mine = turn->place - 1;

    if (lock->n_places == 0)
        return take(lock);
    first = first_alive(lock, mine);
    if (first != mine && first != NOBODY)
        return is_destroyed(lock) ? DRAGON_LOCK_DESTROYED : DRAGON_LOCK_BUSY;
    return take(lock);
}

int dragon_lock_try_lock(struct dragon_lock *lock)
{
    int r = take_outside(lock);

    return r == MINE ? DRAGON_LOCK_BUSY : dragon_error_trace(r);
}

static int look_for_a_while(struct dragon_lock *lock, const struct dragon_lock_turn *turn)
{
    struct dragon_spin_round round = dragon_spin_begin(&lock->spin);
    int r;

    while ((r = take_in_turn(lock, turn)) == DRAGON_LOCK_BUSY && dragon_spin_again(&round))
        ;
    dragon_spin_end(&lock->spin, &round, r != DRAGON_LOCK_BUSY);
    return r;
}

/* Say that this thread is about to sleep; the key for doze. */
static uint32_t announce(struct dragon_lock *lock, const struct dragon_lock_turn *turn)
{
    if (lock->n_places == 0)
        return dragon_eventcount_prepare(&lock->shared->door);
    dragon_exchange(&place_at(lock, turn->place - 1)->word, PARKED);
    dragon_fence(); /* pairs with the fence in pass_on */
    return PARKED;
}

static int doze(struct dragon_lock *lock, const struct dragon_lock_turn *turn, uint32_t key,
                int64_t deadline_ns)
{
    if (lock->n_places == 0)
        return dragon_eventcount_park_until(&lock->shared->door, key, next_look(deadline_ns));
    return dragon_os_futex_wait(&place_at(lock, turn->place - 1)->word, key,
                                next_look(deadline_ns));
}

static int wait_in_turn(struct dragon_lock *lock, const struct dragon_lock_turn *turn,
                        int64_t deadline_ns)
{
    int r = look_for_a_while(lock, turn);

    while (r == DRAGON_LOCK_BUSY) {
        uint32_t key = announce(lock, turn);
        int slept;

        r = take_in_turn(lock, turn);
        if (r != DRAGON_LOCK_BUSY)
            break;
        slept = doze(lock, turn, key, deadline_ns);
        /* Whatever ended the sleep: a wake must not go unused. */
        r = take_in_turn(lock, turn);
        if (r != DRAGON_LOCK_BUSY)
            break;
        if (slept == DRAGON_LOCK_INTERRUPTED || slept < 0)
            return dragon_error_trace(slept);
        if (dragon_deadline_passed(deadline_ns))
            return DRAGON_LOCK_TIMEOUT;
    }
    return dragon_error_trace(r);
}

/* Lock it, or get into line. 0: locked; DRAGON_LOCK_BUSY: wait now; others as
 * dragon_lock_wait. */
static int begin(struct dragon_lock *lock, struct dragon_lock_turn *turn, int64_t deadline_ns)
{
    int r = take_outside(lock);

    if (r != DRAGON_LOCK_BUSY && r != MINE)
        return dragon_error_trace(r);
    /* take_outside does not see it when others stand in line. */
    if (r == MINE || dragon_mutex_holder(&lock->shared->holder) == dragon_os_thread_id())
        return dragon_error_origin(-EDEADLK);
    if (dragon_deadline_passed(deadline_ns))
        return DRAGON_LOCK_TIMEOUT;
    r = lock->n_places == 0 ? 0 : enter(lock, turn, deadline_ns);
    return r == 0 ? DRAGON_LOCK_BUSY : dragon_error_trace(r);
}

int dragon_lock_wait(struct dragon_lock *lock, struct dragon_lock_turn *turn, int64_t deadline_ns)
{
    int r;

    forget_others(turn);
    if (turn->place == 0) {
        r = begin(lock, turn, deadline_ns);
        if (r != DRAGON_LOCK_BUSY)
            return dragon_error_trace(r);
    }
    r = wait_in_turn(lock, turn, deadline_ns);
    if (r == MINE) /* it was not a moment ago: others have written over it */
        r = dragon_error_origin(-EBADMSG);
    if (r == 0 || r == DRAGON_LOCK_OWNER_DIED) {
        if (turn->place != 0)
            step_out(lock, turn);
    } else if (r != DRAGON_LOCK_TIMEOUT && r != DRAGON_LOCK_INTERRUPTED) {
        dragon_lock_leave(lock, turn);
    }
    return dragon_error_trace(r);
}

int dragon_lock_lock(struct dragon_lock *lock, int64_t deadline_ns)
{
    struct dragon_lock_turn turn = {0};
    int r = dragon_lock_wait(lock, &turn, deadline_ns);

    dragon_lock_leave(lock, &turn);
    return dragon_error_trace(r);
}

int dragon_lock_unlock(struct dragon_lock *lock)
{
    int32_t holder = dragon_peek(&lock->holder);
    int r;

    /* Bytes of others could make the C library believe that this thread holds
     * it, and would lead it astray. */
    if (holder == 0)
        return dragon_error_origin(-EPERM);
    r = dragon_mutex_unlock_checked(&lock->shared->holder);
    if (r < 0)
        return dragon_error_trace(r);
    DRAGON_TEST_POINT("lock-released");
    /* Unless another thread has locked it through this view by now. */
    dragon_replace(&lock->holder, &holder, 0);
    pass_on(lock);
    return 0;
}

/* ---- the end ---- */

static void wake_all(struct dragon_lock *lock)
{
    dragon_fence(); /* pairs with the fence in announce */
    for (uint64_t bits = queued(lock); bits != 0; bits &= bits - 1)
        wake(lock, (uint32_t)__builtin_ctzll(bits));
    dragon_eventcount_wake_all(&lock->shared->door);
}

int dragon_lock_fini(struct dragon_lock *lock)
{
    int r = take(lock);

    if (r != 0 && r != DRAGON_LOCK_OWNER_DIED && r != MINE)
        return dragon_error_trace(r);
    dragon_publish(&lock->shared->magic, MAGIC_DESTROYED); /* pairs with is_destroyed */
    DRAGON_TEST_POINT("lock-destroyed");
    dragon_poke(&lock->holder, 0);
    dragon_mutex_unlock(&lock->shared->holder);
    wake_all(lock);
    return 0;
}
