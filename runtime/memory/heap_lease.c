/*
 * The path of an allocation: the last guess of the thread's current chunk of the
 * class, one look at the word, one swap. When the guesses run out: blocks that
 * others freed in this chunk; another leased chunk with guesses; a few leased
 * chunks in turn, whether others freed something there; a further chunk.
 *
 * Everything here but the two hints is private to the process. The lists of
 * leases are guarded by `registry`, since a thread that closes the heap ends the
 * leases of all; what a lease contains is its own thread's.
 *
 * The globals here are an exception to the rule that state hangs from the node:
 * a thread must find its lease without a lock, and its end has no argument.
 */
#include "memory/heap_lease.h"

#include "base/alloc.h"
#include "memory/heap_chunks.h"
#include "os/os.h"

#include <pthread.h>
#include <string.h>

/* Blocks of a class that a thread takes from common chunks before it leases one:
 * thousands of processes with a chunk of each class would fill a machine. */
#define BLOCKS_BEFORE_LEASE 8

/* Leased chunks that are looked at, in turn, for blocks that others freed. */
#define LOOKS_AT_OTHERS 8

static pthread_mutex_t registry = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t at_thread_end;
static bool has_key;
static _Atomic uint64_t last_serial;
_Atomic uint32_t dragon_heap_n_forks;

_Thread_local struct dragon_heap_here dragon_heap_here[DRAGON_HEAP_N_HERE];
static _Thread_local struct dragon_heap_lease *leases_of_thread
    __attribute__((tls_model("initial-exec")));

/* ---- records ---- */

static struct dragon_heap_chunk *line_of(struct dragon_heap *heap,
                                         const struct dragon_heap_record *record)
{
    return &heap->chunks[record->chunk];
}

static void add_available(struct dragon_heap_class_lease *c, struct dragon_heap_record *record)
{
    record->previous = NULL;
    record->next = c->available;
    if (record->next)
        record->next->previous = record;
    c->available = record;
    record->is_available = true;
}

static void remove_available(struct dragon_heap_class_lease *c, struct dragon_heap_record *record)
{
    if (!record->is_available)
        return;
    if (record->previous)
        record->previous->next = record->next;
    else
        c->available = record->next;
    if (record->next)
        record->next->previous = record->previous;
    record->is_available = false;
}

static bool make_room_for_one(struct dragon_heap_class_lease *c)
{
    uint32_t n = c->n_room ? 2 * c->n_room : 8;
    struct dragon_heap_record **all;

    if (c->n_all < c->n_room)
        return true;
    all = dragon_alloc_resize(c->all, n * sizeof(void *));
    if (!all)
        return false;
    c->all = all;
    c->n_room = n;
    return true;
}

static struct dragon_heap_record *add_record(struct dragon_heap_lease *lease, uint32_t size_class)
{
    struct dragon_heap_class_lease *c = &lease->classes[size_class];
    uint32_t n_blocks = lease->heap->classes[size_class].n_blocks;
    struct dragon_heap_record *record;

    if (!make_room_for_one(c))
        return NULL;
    record = dragon_alloc_zeroed(sizeof *record + n_blocks * sizeof record->free[0]);
    if (!record)
        return NULL;
    record->size_class = size_class;
    record->kind = dragon_heap_kind_small(size_class);
    record->n_blocks = n_blocks;
    record->index = c->n_all;
    c->all[c->n_all++] = record;
    return record;
}

static void own_chunk(struct dragon_heap_lease *lease, struct dragon_heap_record *record)
{
    struct dragon_heap_owner *owner = &lease->heap->owners[record->chunk];

    record->words = dragon_heap_words(lease->heap, record->chunk);
    dragon_exchange(&owner->lease, NULL);
    dragon_publish(&owner->record, record); /* pairs with dragon_heap_lease_record */
    dragon_publish(&owner->lease, lease);
}

static void disown_chunk(struct dragon_heap_lease *lease, const struct dragon_heap_record *record)
{
    struct dragon_heap_owner *owner = &lease->heap->owners[record->chunk];
    struct dragon_heap_lease *mine = lease;

    /* The chunk may have been closed, and be leased by another thread now. */
    if (record->words && dragon_heap_lease_record(lease->heap, lease, record->chunk) == record)
        dragon_replace(&owner->lease, &mine, NULL);
}

/* Forget it; the chunk's line is the caller's affair. */
static void drop_record(struct dragon_heap_lease *lease, struct dragon_heap_record *record)
{
    struct dragon_heap_class_lease *c = &lease->classes[record->size_class];

    disown_chunk(lease, record);
    remove_available(c, record);
    if (c->current == record)
        c->current = NULL;
    if (c->spare == record)
        c->spare = NULL;
    c->all[record->index] = c->all[--c->n_all];
    c->all[record->index]->index = record->index;
    dragon_alloc_free(record);
}

/* Make the list of guesses anew from the words. */
static void look_again(struct dragon_heap *heap, struct dragon_heap_record *record)
{
    dragon_exchange(&line_of(heap, record)->n_remote, 0);
    record->n_free = 0;
    /* From the end: the first block is used first. */
    for (uint32_t i = record->n_blocks; i-- > 0;)
        if (dragon_heap_word_holder(dragon_peek(&record->words[i])) == DRAGON_HOLDER_NONE)
            record->free[record->n_free++] = (uint16_t)i;
}

/* False: the chunk was closed, or is leased by somebody else now. */
static bool is_still_leased(const struct dragon_heap_lease *lease,
                            const struct dragon_heap_record *record)
{
    struct dragon_heap_chunk *line = line_of(lease->heap, record);

    return dragon_observe(&line->kind) == record->kind && dragon_peek(&line->lease) == lease->pid;
}

/* ---- leases ---- */

static void end_lease(struct dragon_heap_lease *lease)
{
    struct dragon_heap *heap = lease->heap;
    bool is_locked = dragon_heap_lock(heap) == 0;

    for (uint32_t i = 0; i < heap->n_classes; i++) {
        struct dragon_heap_class_lease *c = &lease->classes[i];

        while (c->n_all > 0) {
            uint32_t chunk = c->all[0]->chunk;

            drop_record(lease, c->all[0]);
            if (is_locked)
                dragon_heap_unlease_chunk_locked(heap, chunk);
        }
        dragon_alloc_free(c->all);
    }
    if (is_locked)
        dragon_heap_unlock(heap);
    dragon_alloc_free(lease);
}

static void remove_from(struct dragon_heap_lease **list, struct dragon_heap_lease *lease)
{
    while (*list && *list != lease)
        list = &(*list)->next_in_heap;
    if (*list)
        *list = lease->next_in_heap;
}

static void remove_from_thread(struct dragon_heap_lease *lease)
{
    struct dragon_heap_lease **link = lease->thread;

    while (*link && *link != lease)
        link = &(*link)->next_in_thread;
    if (*link)
        *link = lease->next_in_thread;
}

static void end_thread(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&registry);
    while (leases_of_thread) {
        struct dragon_heap_lease *lease = leases_of_thread;

        leases_of_thread = lease->next_in_thread;
        remove_from(&lease->heap->leases, lease);
        end_lease(lease);
    }
    memset(dragon_heap_here, 0, sizeof dragon_heap_here);
    pthread_mutex_unlock(&registry);
}

/* The copy has no lease: its parent allocates from those chunks. What the lists
 * say is left alone; another thread may have been changing them. */
static void after_fork_in_child(void)
{
    pthread_mutex_init(&registry, NULL);
    dragon_fetch_add(&dragon_heap_n_forks, 1);
    leases_of_thread = NULL;
    memset(dragon_heap_here, 0, sizeof dragon_heap_here);
}

static void set_up(void)
{
    has_key = pthread_key_create(&at_thread_end, end_thread) == 0 &&
              pthread_atfork(NULL, NULL, after_fork_in_child) == 0;
}

int dragon_heap_lease_init(struct dragon_heap *heap)
{
    void *owners;
    int r;

    pthread_once(&once, set_up);
    r = dragon_os_reserve(heap->n_chunks * sizeof *heap->owners, &owners);
    if (r < 0)
        return dragon_error_trace(r);
    heap->owners = owners;
    heap->leases = NULL;
    heap->n_forks = dragon_peek(&dragon_heap_n_forks);
    heap->serial = dragon_fetch_add(&last_serial, 1) + 1;
    return 0;
}

static void forget_leases_of_parent(struct dragon_heap *heap)
{
    if (heap->n_forks == dragon_peek(&dragon_heap_n_forks))
        return;
    heap->n_forks = dragon_peek(&dragon_heap_n_forks);
    heap->leases = NULL;
}

void dragon_heap_lease_fini(struct dragon_heap *heap)
{
    pthread_mutex_lock(&registry);
    forget_leases_of_parent(heap);
    while (heap->leases) {
        struct dragon_heap_lease *lease = heap->leases;

        heap->leases = lease->next_in_heap;
        remove_from_thread(lease);
        end_lease(lease);
    }
    pthread_mutex_unlock(&registry);
    dragon_os_unmap(heap->owners, heap->n_chunks * sizeof *heap->owners);
    heap->owners = NULL;
}

static struct dragon_heap_lease *find_in_thread(const struct dragon_heap *heap)
{
    struct dragon_heap_lease *lease = leases_of_thread;

    while (lease && lease->heap != heap)
        lease = lease->next_in_thread;
    return lease;
}

static struct dragon_heap_lease *new_lease(struct dragon_heap *heap)
{
    struct dragon_heap_lease *lease = NULL;

    /* Without a call at the thread's end its leases would never end. */
    if (has_key && pthread_setspecific(at_thread_end, &registry) == 0)
        lease = dragon_alloc_zeroed(sizeof *lease);
    if (!lease)
        return NULL;
    forget_leases_of_parent(heap);
    lease->heap = heap;
    lease->pid = dragon_heap_pid(heap);
    lease->next_in_heap = heap->leases;
    heap->leases = lease;
    lease->thread = &leases_of_thread;
    lease->next_in_thread = leases_of_thread;
    leases_of_thread = lease;
    return lease;
}

static struct dragon_heap_lease *find_lease(struct dragon_heap *heap)
{
    struct dragon_heap_lease *lease;

    pthread_mutex_lock(&registry);
    lease = find_in_thread(heap);
    if (!lease)
        lease = new_lease(heap);
    pthread_mutex_unlock(&registry);
    if (lease)
        dragon_heap_here[heap->serial % DRAGON_HEAP_N_HERE] =
            (struct dragon_heap_here){heap->serial, lease};
    return lease;
}

/* ---- allocation ---- */

static bool use_record(struct dragon_heap_class_lease *c, struct dragon_heap_record *record)
{
    if (record->n_free == 0)
        return false;
    remove_available(c, record);
    c->current = record;
    return true;
}

/* Whether others freed blocks there. */
static bool use_if_freed(struct dragon_heap_lease *lease, struct dragon_heap_record *record)
{
    if (!is_still_leased(lease, record)) {
        drop_record(lease, record);
        return false;
    }
    if (dragon_peek(&line_of(lease->heap, record)->n_remote) == 0)
        return false;
    look_again(lease->heap, record);
    return use_record(&lease->classes[record->size_class], record);
}

static bool use_one_in_turn(struct dragon_heap_lease *lease, struct dragon_heap_class_lease *c)
{
    for (int i = 0; i < LOOKS_AT_OTHERS && c->n_all > 0; i++) {
        if (++c->cursor >= c->n_all)
            c->cursor = 0;
        if (use_if_freed(lease, c->all[c->cursor]))
            return true;
    }
    return false;
}

static bool lease_chunk(struct dragon_heap_lease *lease, uint32_t size_class)
{
    struct dragon_heap *heap = lease->heap;
    struct dragon_heap_record *record = add_record(lease, size_class);
    int r = record ? dragon_heap_lock(heap) : -1;

    if (r == 0) {
        r = dragon_heap_lease_chunk_locked(heap, size_class, &record->chunk);
        dragon_heap_unlock(heap);
    }
    if (r != 0) {
        if (record)
            drop_record(lease, record);
        return false;
    }
    own_chunk(lease, record);
    look_again(heap, record);
    lease->classes[size_class].current = record;
    return true;
}

/* Give the thread a current chunk with guesses. */
static bool refill(struct dragon_heap_lease *lease, uint32_t size_class)
{
    struct dragon_heap_class_lease *c = &lease->classes[size_class];

    if (c->current && use_if_freed(lease, c->current))
        return true;
    c->current = NULL;
    if (c->available)
        return use_record(c, c->available);
    if (c->n_all == 0 && c->n_before < BLOCKS_BEFORE_LEASE) {
        c->n_before++;
        return false;
    }
    return use_one_in_turn(lease, c) || lease_chunk(lease, size_class);
}

int dragon_heap_lease_alloc(struct dragon_heap *heap, uint32_t size_class, uint64_t slack,
                            uint32_t holder, uint64_t *offset_out, uint32_t *generation_out)
{
    struct dragon_heap_lease *lease = dragon_heap_lease_at_hand(heap);

    if (!lease)
        lease = find_lease(heap);
    if (!lease)
        return DRAGON_HEAP_NOT_LEASED;
    do {
        if (dragon_heap_lease_try_alloc(heap, lease, size_class, slack, holder, offset_out,
                                        generation_out))
            return 0;
    } while (refill(lease, size_class));
    return DRAGON_HEAP_NOT_LEASED;
}

/* ---- release ---- */

/* All blocks of a chunk are free: keep one such chunk of the class for the next
 * block, give others back. */
static void is_empty_now(struct dragon_heap_lease *lease, struct dragon_heap_record *record)
{
    struct dragon_heap *heap = lease->heap;
    struct dragon_heap_class_lease *c = &lease->classes[record->size_class];
    uint32_t chunk = record->chunk;

    if (!c->spare || c->spare == record || c->spare == c->current ||
        c->spare->n_free < c->spare->n_blocks) {
        c->spare = record;
        return;
    }
    if (dragon_heap_lock(heap) < 0)
        return;
    if (is_still_leased(lease, record) && !dragon_heap_close_chunk_locked(heap, chunk))
        dragon_heap_unlease_chunk_locked(heap, chunk);
    dragon_heap_unlock(heap);
    drop_record(lease, record);
}

void dragon_heap_lease_freed_elsewhere(struct dragon_heap_lease *lease,
                                       struct dragon_heap_record *record)
{
    if (!record->is_available)
        add_available(&lease->classes[record->size_class], record);
    if (record->n_free == record->n_blocks)
        is_empty_now(lease, record);
}

void dragon_heap_lease_freed_by_other(struct dragon_heap *heap,
                                      const struct dragon_heap_place *place)
{
    struct dragon_heap_chunk *line = &heap->chunks[place->chunk];

    if (dragon_peek(&line->lease)) {
        dragon_fetch_add(&line->n_remote, 1);
        return;
    }
    if (place->block < dragon_peek(&line->scan_from))
        dragon_poke(&line->scan_from, place->block); /* it is warm */
    if (dragon_peek(&line->is_listed) || dragon_heap_lock(heap) < 0)
        return;
    dragon_heap_offer_chunk_locked(heap, place->chunk);
    dragon_heap_unlock(heap);
}
