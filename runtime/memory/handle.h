#pragma once

/*
 * The name of a block of pool memory that means the same in every process, and
 * later on every machine: which node, which pool there, where in it, and which
 * of the blocks that have lived at that place. Position independent; 24 bytes
 * on the wire, in the byte order of the machine.
 *
 * A handle is a name, not a right: bytes that claim to be one are resolved by
 * dragon_pool_resolve, which answers -EBADMSG to anything but a live block.
 */

#include <stdbool.h>
#include <stdint.h>

struct dragon_handle {
    uint64_t node;       /* random, drawn when the node was opened; 0: no node */
    uint32_t pool;       /* number of the pool in its node */
    uint32_t generation; /* of the block: a freed block's handles are stale */
    uint64_t offset;     /* of the block's first byte in the pool */
};

_Static_assert(sizeof(struct dragon_handle) == 24, "wire format");

/* Who has a block: 0 nobody, a role, or the slot of a process. */
#define DRAGON_HOLDER_NONE UINT32_C(0)
#define DRAGON_HOLDER_SHARED UINT32_C(1)  /* nobody: freed by whoever has the handle */
#define DRAGON_HOLDER_CHANNEL UINT32_C(2) /* in flight in a channel */
#define DRAGON_HOLDER_RUNTIME UINT32_C(3) /* lives as long as the pool */
#define DRAGON_HOLDER_OBJECT UINT32_C(4)  /* an object, freed with its last user: dragon_object */
#define DRAGON_HOLDER_PART UINT32_C(5)    /* what an object owns, freed with it */
/* Plus a label below DRAGON_HOLDER_N_LABELS: as SHARED, and tells who walks over
 * the blocks what its owner calls it. A label is lost when the block changes hands. */
#define DRAGON_HOLDER_LABELLED UINT32_C(8)
#define DRAGON_HOLDER_N_LABELS UINT32_C(4)
#define DRAGON_HOLDER_FIRST_SLOT UINT32_C(16)

/* True if both name the same block at the same time of its life. */
static inline bool dragon_handle_is_same(const struct dragon_handle *a,
                                         const struct dragon_handle *b)
{
    return a->node == b->node && a->pool == b->pool && a->generation == b->generation &&
           a->offset == b->offset;
}
