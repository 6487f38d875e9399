#include "channel/channel_set.h"

#include "base/alloc.h"
#include "base/deadline.h"
#include "base/error.h"
#include "channel/watchers.h"
#include "os/os.h"
#include "wait/spin.h"

#include <errno.h>

_Static_assert(DRAGON_CHANNEL_SET_ASLEEP == DRAGON_OS_FUTEX_MANY, "as the system has it");

struct member {
    struct dragon_channel *channel;
};

struct dragon_channel_set {
    size_t n;
    unsigned events;
    _Atomic uint64_t first; /* where the next look begins; a hint that threads overwrite */
    struct dragon_spin spin;
    _Atomic uint32_t never; /* to nap on: nobody wakes it */
    struct member members[];
};

int dragon_channel_set_create(struct dragon_channel *const *channels, size_t n, unsigned events,
                              struct dragon_channel_set **set_out)
{
    struct dragon_channel_set *set;

    if (n > (SIZE_MAX - sizeof *set) / sizeof(struct member))
        return dragon_error_origin(-ENOMEM);
    set = dragon_alloc_zeroed(sizeof *set + n * sizeof(struct member));
    if (!set)
        return dragon_error_origin(-ENOMEM);
    set->n = n;
    set->events = events;
    for (size_t i = 0; i < n; i++)
        set->members[i].channel = channels[i];
    *set_out = set;
    return 0;
}

void dragon_channel_set_close(struct dragon_channel_set *set)
{
    dragon_alloc_free(set);
}

/* ---- looking ---- */

static unsigned events_of(const struct dragon_channel *channel, unsigned asked)
{
    unsigned found = 0;

    for (unsigned bit = 1; bit <= asked; bit *= 2)
        if ((asked & bit) && dragon_channel_has_event(channel, bit))
            found |= bit;
    return found;
}

/* 0; _DESTROYED; _NOT_YET. */
static int look(struct dragon_channel_set *set, size_t *index_out, unsigned *events_out)
{
    size_t first = dragon_peek(&set->first);

    for (size_t i = 0; i < set->n; i++) {
        size_t at = (first + i) % set->n;
        const struct dragon_channel *channel = set->members[at].channel;
        bool is_destroyed = dragon_channel_is_destroyed(channel);
        unsigned events = is_destroyed ? 0 : events_of(channel, set->events);

        if (!is_destroyed && events == 0)
            continue;
        dragon_poke(&set->first, at + 1);
        *index_out = at;
        *events_out = events;
        return is_destroyed ? DRAGON_CHANNEL_SET_DESTROYED : 0;
    }
    return DRAGON_CHANNEL_SET_NOT_YET;
}

static int look_for_a_while(struct dragon_channel_set *set, size_t *index_out, unsigned *events_out)
{
    struct dragon_spin_round round = dragon_spin_begin(&set->spin);
    int r;

    do
        r = look(set, index_out, events_out);
    while (r == DRAGON_CHANNEL_SET_NOT_YET && dragon_spin_again(&round));
    dragon_spin_end(&set->spin, &round, r != DRAGON_CHANNEL_SET_NOT_YET);
    return r;
}

/* ---- sleeping ---- */

/* To all members. The keys of those that one sleep can have go to futexes_out;
 * their number. */
static unsigned announce(struct dragon_channel_set *set, struct dragon_os_futex *futexes_out)
{
    unsigned n = set->n < DRAGON_OS_FUTEX_MANY ? (unsigned)set->n : DRAGON_OS_FUTEX_MANY;

    for (unsigned i = 0; i < n; i++) {
        struct dragon_channel_shared *shared = set->members[i].channel->shared;

        futexes_out[i].value = dragon_watchers_prepare(shared);
        futexes_out[i].word = &shared->watchers.sequence;
    }
    return n;
}

static int nap(struct dragon_channel_set *set, int64_t until_ns)
{
    return dragon_os_futex_wait(&set->never, 0, until_ns);
}

/* 0: look again; _INTERRUPTED; -errno. */
static int sleep_until(struct dragon_channel_set *set, const struct dragon_os_futex *futexes,
                       unsigned n, int64_t deadline_ns)
{
    bool hears_all = n == set->n;
    int64_t longest_ns = hears_all ? DRAGON_EVENTCOUNT_PARK_NS : DRAGON_CHANNEL_SET_NAP_NS;
    int64_t until_ns = dragon_deadline_earlier(deadline_ns, dragon_deadline_after_ns(longest_ns));
    int r = n == 0 ? nap(set, until_ns) : dragon_os_futex_wait_many(futexes, n, until_ns);

    if (r == -ENOSYS) {
        until_ns = dragon_deadline_after_ns(DRAGON_CHANNEL_SET_NAP_NS);
        r = nap(set, dragon_deadline_earlier(deadline_ns, until_ns));
    }
    if (r == DRAGON_OS_FUTEX_INTERRUPTED)
        return DRAGON_CHANNEL_SET_INTERRUPTED;
    return r < 0 ? dragon_error_trace(r) : 0;
}

int dragon_channel_set_wait(struct dragon_channel_set *set, int64_t deadline_ns, size_t *index_out,
                            unsigned *events_out)
{
    struct dragon_os_futex futexes[DRAGON_OS_FUTEX_MANY];
    unsigned n;
    int r = look(set, index_out, events_out);

    if (r != DRAGON_CHANNEL_SET_NOT_YET || dragon_deadline_passed(deadline_ns))
        return r;
    r = look_for_a_while(set, index_out, events_out);
    while (r == DRAGON_CHANNEL_SET_NOT_YET) {
        n = announce(set, futexes);
        r = look(set, index_out, events_out);
        if (r != DRAGON_CHANNEL_SET_NOT_YET || dragon_deadline_passed(deadline_ns))
            return r;
        r = sleep_until(set, futexes, n, deadline_ns);
        if (r != 0)
            return dragon_error_trace(r);
        r = look(set, index_out, events_out);
    }
    return r;
}
