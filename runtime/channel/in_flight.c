/*
 * First the holder is taken out of the users of all objects. Then a look whether it
 * holds any block, which the usual clean exit does not: a walk over the pool finds the
 * channels, and their slots are read; then comes the sweep, which asks for each block of
 * the holder whether a channel named it, and gives back the uses of those that are to be
 * freed. Last come the objects that nobody uses then, as their messages may hold what
 * was just read.
 *
 * Channels are read while others use them. What is read may be out of date, never
 * too little: positions from the tail on are not overwritten before the tail has
 * passed them, and a message that was taken meanwhile has a block with a new
 * holder, which the sweep does not touch. Only a ring may be freed under the
 * reader: then the channel's tail_ring is another one, and the channel is read
 * again.
 */
#include "channel/in_flight.h"

#include "base/alloc.h"
#include "base/check.h"
#include "base/error.h"
#include "channel/channel.h"
#include "channel/fini.h"
#include "channel/ring.h"
#include "memory/pool.h"
#include "memory/uses.h"

#include <errno.h>
#include <stdlib.h>

struct name {
    uint64_t offset;
    uint64_t generation;
};

/* A growing array. */
struct names {
    struct name *all;
    size_t n;
    size_t capacity;
};

static int add(struct names *names, uint64_t offset, uint32_t generation)
{
    if (names->n == names->capacity) {
        size_t capacity = 2 * names->capacity + 64;
        struct name *all = dragon_alloc_resize(names->all, capacity * sizeof *all);

        if (!all)
            return dragon_error_origin(-ENOMEM);
        names->all = all;
        names->capacity = capacity;
    }
    names->all[names->n++] = (struct name){offset, generation};
    return 0;
}

static int compare(const void *a, const void *b)
{
    const struct name *x = a, *y = b;

    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return (x->generation > y->generation) - (x->generation < y->generation);
}

/* What the sweep of blocks goes by. */
struct sweep {
    struct names names;
    struct dragon_garbage *garbage;
};

/* True: a channel names the block. Else it will be freed, and uses nothing from now on. */
static bool is_kept(void *context, uint64_t offset, uint32_t generation)
{
    struct sweep *sweep = context;
    struct name name = {offset, generation};
    struct dragon_handle handle;

    if (sweep->names.n > 0 &&
        bsearch(&name, sweep->names.all, sweep->names.n, sizeof name, compare))
        return true;
    handle = dragon_pool_handle(sweep->garbage->pool, offset, generation);
    dragon_uses_release(&handle, sweep->garbage);
    return false;
}

/* ---- reading a channel that others use ---- */

/* The part of a ring that holds messages. */
static int add_slots(struct names *names, const struct dragon_ring *ring, uint32_t n_slots,
                     uint64_t from, uint64_t to)
{
    uint64_t base = dragon_read_once(&ring->base);
    int r = 0;

    if (from < base)
        from = base;
    if (to > from && to - from > n_slots) /* it has moved meanwhile, or makes no sense */
        from = to - n_slots;
    for (uint64_t i = from; r == 0 && i < to; i++) {
        const struct dragon_message *slot = &ring->slots[(i - base) & (n_slots - 1)];
        uint32_t generation = dragon_read_once(&slot->block_generation);

        if (generation != 0)
            r = add(names, dragon_read_once(&slot->block_offset), generation);
    }
    return dragon_error_trace(r);
}

/* All rings from one on, and the blocks in their slots. They lie behind each other,
 * which ends the walk also where somebody wrote over them. */
static int add_rings(struct names *names, struct dragon_pool *pool, uint64_t offset, uint64_t tail,
                     uint64_t head)
{
    struct dragon_handle handle;
    struct dragon_ring *ring;
    uint64_t end = 0, next;
    uint32_t n_slots;
    int r;

    while (dragon_ring_find(pool, offset, &ring, &handle, &n_slots) == 0 &&
           (end == 0 || dragon_read_once(&ring->base) == end)) {
        next = dragon_observe(&ring->end); /* pairs with link_larger_ring_locked */
        if (next <= end)
            break;
        end = next;
        r = add(names, handle.offset, handle.generation);
        if (r == 0)
            r = add_slots(names, ring, n_slots, tail, head < end ? head : end);
        if (r < 0 || end == DRAGON_RING_OPEN)
            return dragon_error_trace(r);
        offset = dragon_peek(&ring->next_offset);
    }
    return 0;
}

/* Tells a ring from a later one at the same place. */
static uint64_t base_of(struct dragon_pool *pool, uint64_t offset)
{
    struct dragon_handle handle;
    struct dragon_ring *ring;
    uint32_t n_slots;

    if (dragon_ring_find(pool, offset, &ring, &handle, &n_slots) < 0)
        return DRAGON_RING_OPEN;
    return dragon_read_once(&ring->base);
}

static int add_channel(struct names *names, struct dragon_pool *pool,
                       const struct dragon_channel_shared *shared)
{
    size_t n_before = names->n;
    uint64_t first, base, tail, head;
    int r;

    do {
        names->n = n_before;
        first = dragon_observe(&shared->tail_ring);
        base = base_of(pool, first);
        tail = dragon_observe(&shared->tail);
        head = dragon_observe(&shared->head);
        r = add_rings(names, pool, first, tail, head);
        dragon_fence(); /* what was read was read before this look */
    } while (r == 0 && (dragon_peek(&shared->tail_ring) != first || base_of(pool, first) != base));
    return dragon_error_trace(r);
}

/* ---- the walk and the sweep ---- */

static int find_channels(struct dragon_pool *pool, struct names *channels)
{
    struct dragon_handle handle;
    uint64_t at = 0, size_bytes;
    int r = 0;

    while (r == 0 && dragon_pool_next_of(pool, DRAGON_HOLDER_OBJECT, &at, &handle, &size_bytes))
        if (dragon_object_state_in(pool, &handle, size_bytes, DRAGON_CHANNEL_KIND,
                                   sizeof(struct dragon_channel_shared)))
            r = add(channels, handle.offset, handle.generation);
    return dragon_error_trace(r);
}

static int add_channels(struct names *names, struct dragon_pool *pool, const struct names *channels)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < channels->n; i++) {
        const struct dragon_object_header *header = dragon_pool_at(pool, channels->all[i].offset);

        r = add_channel(names, pool, (const struct dragon_channel_shared *)(header + 1));
    }
    return dragon_error_trace(r);
}

static int sweep_blocks(struct dragon_garbage *garbage, uint64_t *n_freed_out)
{
    struct sweep sweep = {.garbage = garbage};
    struct names channels = {0};
    int r = 0;

    if (!dragon_pool_has_blocks_of(garbage->pool, garbage->freer))
        return 0;
    r = find_channels(garbage->pool, &channels);
    if (r == 0)
        r = add_channels(&sweep.names, garbage->pool, &channels);
    if (r == 0) {
        if (sweep.names.n > 0)
            qsort(sweep.names.all, sweep.names.n, sizeof *sweep.names.all, compare);
        DRAGON_TEST_POINT("in-flight-before-sweep");
        *n_freed_out = dragon_pool_sweep_except(garbage->pool, garbage->freer, is_kept, &sweep);
    }
    dragon_alloc_free(sweep.names.all);
    dragon_alloc_free(channels.all);
    return dragon_error_trace(r);
}

static int sweep(struct dragon_pool *pool, uint32_t holder, const struct dragon_end *end,
                 bool has_uses, uint64_t *n_freed_out)
{
    struct dragon_garbage garbage = {
        .pool = pool, .freer = holder, .end = end, .ended = dragon_user_ended};
    uint64_t n_freed = 0;
    int r;

    dragon_check(holder >= DRAGON_HOLDER_FIRST_SLOT);
    if (has_uses)
        dragon_object_sweep(&garbage);
    r = sweep_blocks(&garbage, &n_freed);
    if (r < 0)
        return dragon_error_trace(r); /* the next sweep finds the garbage again */
    DRAGON_TEST_POINT("in-flight-before-objects");
    dragon_garbage_free(&garbage, dragon_fini);
    if (n_freed_out)
        *n_freed_out = n_freed;
    return 0;
}

int dragon_in_flight_leave(struct dragon_pool *pool, uint32_t holder)
{
    return dragon_error_trace(
        sweep(pool, holder, NULL, dragon_peek(dragon_pool_n_uses(pool)) != 0, NULL));
}

int dragon_in_flight_sweep(struct dragon_pool *pool, uint32_t holder, uint64_t *n_freed_out)
{
    return dragon_error_trace(sweep(pool, holder, NULL, true, n_freed_out));
}

int dragon_in_flight_bury(struct dragon_pool *pool, uint32_t holder, const struct dragon_end *end)
{
    return dragon_error_trace(sweep(pool, holder, end, true, NULL));
}
