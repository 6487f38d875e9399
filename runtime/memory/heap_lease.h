#pragma once

/*
 * Leases: how a thread allocates small blocks without a lock. A thread leases
 * chunks of a class and keeps a private list of those of their blocks that it
 * believes to be free. The lists are guesses in the thread's own memory: the swap
 * of a block's word decides, so nothing is lost with a thread, and others may
 * free, sweep or even allocate blocks of a leased chunk. In the chunk's line are
 * two hints: the process that leases it, so that others look elsewhere first, and
 * how many blocks others have freed, so that the leaseholder looks again.
 *
 * A lease belongs to one thread and one heap. It ends with the thread, and with
 * dragon_heap_close; a forked copy of the process begins without any.
 */

#include "memory/heap.h"
#include "memory/heap_place.h"
#include "os/os.h"

enum dragon_heap_lease_outcome {
    DRAGON_HEAP_NOT_LEASED = 1, /* take the block from a chunk that nobody leases */
};

/* A chunk that a thread leases. */
struct dragon_heap_record {
    _Atomic uint64_t *words;
    uint32_t chunk;
    uint32_t kind; /* that the chunk had when it was leased */
    uint32_t size_class;
    uint32_t n_blocks;
    uint32_t n_free;
    uint32_t index;                  /* in all[] of its class */
    struct dragon_heap_record *next; /* in the list of its class */
    struct dragon_heap_record *previous;
    bool is_available; /* in the list */
    uint16_t free[];   /* guesses; the last is the next to be used */
};

/* What a lease has of one class. */
struct dragon_heap_class_lease {
    struct dragon_heap_record *current;   /* not in the list */
    struct dragon_heap_record *available; /* others with guesses; most recent first */
    struct dragon_heap_record *spare;     /* one that may be empty without being given back */
    struct dragon_heap_record **all;
    uint32_t n_all;
    uint32_t n_room; /* of all[] */
    uint32_t cursor; /* in all[] */
    uint32_t n_before;
};

struct dragon_heap_lease {
    struct dragon_heap_class_lease classes[DRAGON_HEAP_MAX_CLASSES];
    struct dragon_heap *heap;
    uint32_t pid; /* of this process */
    struct dragon_heap_lease *next_in_heap;
    struct dragon_heap_lease *next_in_thread;
    struct dragon_heap_lease **thread; /* head of the thread's list */
};

/* The leases that this thread used last. Few bytes, so that they fit into the room
 * that is left for libraries which are loaded late, and cost no call to find. */
struct dragon_heap_here {
    uint64_t serial;
    struct dragon_heap_lease *lease;
};

#define DRAGON_HEAP_N_HERE 4
extern _Thread_local struct dragon_heap_here dragon_heap_here[DRAGON_HEAP_N_HERE]
    __attribute__((tls_model("initial-exec")));

/* How many forks led to this process. */
extern _Atomic uint32_t dragon_heap_n_forks;

/* This process, without a system call. */
static inline uint32_t dragon_heap_pid(struct dragon_heap *heap)
{
    uint64_t n_forks = dragon_peek(&dragon_heap_n_forks);
    uint64_t known = dragon_peek(&heap->known_pid);

    if ((uint32_t)known == 0 || known >> 32 != n_forks) {
        known = n_forks << 32 | (uint32_t)dragon_os_pid();
        dragon_poke(&heap->known_pid, known);
    }
    return (uint32_t)known;
}

/* ---- lifetime ---- */

/* Prepare a heap for leases. -ENOMEM. */
int dragon_heap_lease_init(struct dragon_heap *heap);

/* End all leases of the heap, of all threads of this process. */
void dragon_heap_lease_fini(struct dragon_heap *heap);

/* ---- blocks ---- */

/* A block of the class from this thread's chunks, or from one that it now leases.
 * 0; _NOT_LEASED: this thread has not had enough blocks of the class to be worth
 * a chunk, or there is no chunk, or no memory. */
int dragon_heap_lease_alloc(struct dragon_heap *heap, uint32_t size_class, uint64_t slack,
                            uint32_t holder, uint64_t *offset_out, uint32_t *generation_out);

/* A small block was freed in a chunk that this thread does not lease. */
void dragon_heap_lease_freed_by_other(struct dragon_heap *heap,
                                      const struct dragon_heap_place *place);

/* The slower half of dragon_heap_lease_freed: the chunk is not the current one of
 * its class, or all of it may be free now. */
void dragon_heap_lease_freed_elsewhere(struct dragon_heap_lease *lease,
                                       struct dragon_heap_record *record);

/* ---- the fast paths ---- */

/* This thread's lease if it is at hand, else NULL. */
static inline struct dragon_heap_lease *dragon_heap_lease_at_hand(const struct dragon_heap *heap)
{
    const struct dragon_heap_here *here = &dragon_heap_here[heap->serial % DRAGON_HEAP_N_HERE];

    return here->serial == heap->serial ? here->lease : NULL;
}

/* The record of a chunk that this thread leases, else NULL. */
static inline struct dragon_heap_record *dragon_heap_lease_record(const struct dragon_heap *heap,
                                                                  struct dragon_heap_lease *lease,
                                                                  uint64_t chunk)
{
    const struct dragon_heap_owner *owner = &heap->owners[chunk];
    struct dragon_heap_record *record;

    if (!lease || dragon_peek(&owner->lease) != lease)
        return NULL;
    record = dragon_observe(&owner->record); /* pairs with own_chunk */
    return dragon_peek(&owner->lease) == lease ? record : NULL;
}

/* A block from the current chunk of the class. False: it takes more than that. */
static inline bool dragon_heap_lease_try_alloc(struct dragon_heap *heap,
                                               struct dragon_heap_lease *lease, uint32_t size_class,
                                               uint64_t slack, uint32_t holder,
                                               uint64_t *offset_out, uint32_t *generation_out)
{
    struct dragon_heap_record *record = lease->classes[size_class].current;

    while (record && record->n_free > 0) {
        uint32_t block = record->free[--record->n_free];

        if (!dragon_heap_take(heap, record->chunk, record->kind, block, slack, holder,
                              generation_out))
            continue;
        *offset_out = dragon_heap_block_offset(heap, record->chunk, size_class, block);
        return true;
    }
    return false;
}

/* A block of this thread's chunk was freed: note it for the next allocation. */
static inline void dragon_heap_lease_freed(struct dragon_heap_lease *lease,
                                           struct dragon_heap_record *record, uint32_t block)
{
    if (record->n_free == record->n_blocks)
        return; /* it was listed already: others had taken it */
    record->free[record->n_free++] = (uint16_t)block;
    if (record != lease->classes[record->size_class].current)
        dragon_heap_lease_freed_elsewhere(lease, record);
}
