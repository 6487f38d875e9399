#pragma once

/*
 * Ring: a circle of message slots, part of a channel. A channel starts with a
 * small ring; when that is full and the channel may hold more, the producers
 * link a larger one behind it, and the consumers move on when they have
 * emptied the old one.
 *
 * Positions count messages since the channel was made and never wrap. A ring
 * holds positions base <= p < end; end is DRAGON_RING_OPEN until a next ring is
 * linked.
 *
 * Who writes: producers, under the channel's send lock: next, then end (the
 * commit: a consumer goes on only when it sees it). A producer that dies
 * between the two has linked nothing: the ring is a block that it held, and is
 * swept. A consumer makes itself the holder of an emptied ring before it leaves
 * it, so that a death before it is freed leaves it to the sweep, too; while the
 * channel still names it, the sweep keeps it (channel/in_flight.h).
 */

#include "base/atomic.h"
#include "channel/message.h"
#include "memory/handle.h"

#include <stdbool.h>
#include <stdint.h>

struct dragon_pool;

#define DRAGON_RING_OPEN UINT64_MAX

struct dragon_ring {
    uint64_t base;
    uint32_t n_slots;    /* a power of two */
    uint32_t generation; /* of this ring's own block */
    _Atomic uint64_t end;
    _Atomic uint64_t next_offset;
    _Atomic uint32_t next_generation;
    uint32_t reserved[7];
    struct dragon_message slots[];
};

_Static_assert(sizeof(struct dragon_ring) == 64, "shared layout");

/* Bytes of a ring of so many slots. */
static inline uint64_t dragon_ring_bytes(uint32_t n_slots)
{
    return sizeof(struct dragon_ring) + n_slots * sizeof(struct dragon_message);
}

/* A ring as a process has found it: what decides where a slot is was checked, and
 * stays what it was whatever others write into the ring. */
struct dragon_ring_view {
    struct dragon_ring *ring; /* NULL: none was found yet */
    uint64_t offset;          /* in the pool */
    uint64_t base;
    uint32_t n_slots;
};

/* The slot of a position that the ring holds. */
static inline struct dragon_message *dragon_ring_slot(const struct dragon_ring_view *view,
                                                      uint64_t position)
{
    return &view->ring->slots[(position - view->base) & (view->n_slots - 1)];
}

/* False: the view is of another ring, perhaps of an earlier one at the same place. */
static inline bool dragon_ring_view_is_of(const struct dragon_ring_view *view, uint64_t offset)
{
    return view->ring && view->offset == offset &&
           dragon_read_once(&view->ring->base) == view->base &&
           dragon_read_once(&view->ring->n_slots) == view->n_slots;
}

/* A new ring whose first position is base, held by holder. Outcomes of
 * dragon_pool_alloc. */
int dragon_ring_create(struct dragon_pool *pool, uint32_t n_slots, uint64_t base, uint32_t holder,
                       struct dragon_handle *handle_out);

/* The ring at an offset that was read from shared memory; its block; its number
 * of slots, which its block has room for. -EBADMSG: there is no ring. */
int dragon_ring_find(struct dragon_pool *pool, uint64_t offset, struct dragon_ring **ring_out,
                     struct dragon_handle *handle_out, uint32_t *n_slots_out);

/* The same, as a view. Written only on 0. */
int dragon_ring_view(struct dragon_pool *pool, uint64_t offset, struct dragon_ring_view *view_out);
