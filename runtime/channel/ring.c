#include "channel/ring.h"

#include "base/error.h"
#include "memory/pool.h"

#include <errno.h>
#include <string.h>

int dragon_ring_create(struct dragon_pool *pool, uint32_t n_slots, uint64_t base, uint32_t holder,
                       struct dragon_handle *handle_out)
{
    struct dragon_ring *ring;
    int r;

    r = dragon_pool_alloc(pool, dragon_ring_bytes(n_slots), holder, handle_out);
    if (r != 0)
        return dragon_error_trace(r);
    ring = dragon_pool_at(pool, handle_out->offset);
    memset(ring, 0, sizeof *ring);
    ring->base = base;
    ring->n_slots = n_slots;
    ring->generation = handle_out->generation;
    dragon_poke(&ring->end, DRAGON_RING_OPEN);
    return 0;
}

int dragon_ring_find(struct dragon_pool *pool, uint64_t offset, struct dragon_ring **ring_out,
                     struct dragon_handle *handle_out, uint32_t *n_slots_out)
{
    struct dragon_handle handle;
    struct dragon_ring *ring;
    uint64_t size_bytes;
    uint32_t n_slots;
    int r;

    r = dragon_pool_find(pool, offset, &handle, &size_bytes);
    if (r < 0)
        return dragon_error_trace(r);
    if (size_bytes < sizeof *ring)
        return dragon_error_origin(-EBADMSG);
    ring = dragon_pool_at(pool, offset);
    n_slots = dragon_read_once(&ring->n_slots);
    if (n_slots == 0 || (n_slots & (n_slots - 1)) != 0 || dragon_ring_bytes(n_slots) > size_bytes)
        return dragon_error_origin(-EBADMSG);
    *ring_out = ring;
    *handle_out = handle;
    *n_slots_out = n_slots;
    return 0;
}

int dragon_ring_view(struct dragon_pool *pool, uint64_t offset, struct dragon_ring_view *view_out)
{
    struct dragon_handle handle;
    struct dragon_ring *ring;
    uint32_t n_slots;
    int r = dragon_ring_find(pool, offset, &ring, &handle, &n_slots);

    if (r == 0)
        *view_out = (struct dragon_ring_view){ring, offset, dragon_read_once(&ring->base), n_slots};
    return dragon_error_trace(r);
}
