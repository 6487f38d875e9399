#include "memory/pool.h"

#include "base/alloc.h"
#include "base/atomic.h"
#include "base/check.h"
#include "base/deadline.h"
#include "base/error.h"
#include "memory/heap.h"
#include "memory/segment.h"
#include "os/os.h"
#include "wait/eventcount.h"

#include <errno.h>
#include <string.h>

#define NAME_MAX_BYTES 255
#define COUNTED_SHORT_BELOW_BYTES (UINT64_C(64) << 20)
#define LARGEST_POOL_BYTES (UINT64_C(1) << 46) /* chunk numbers are 32 bits, addresses 47 */

struct dragon_pool {
    struct dragon_segment segment;
    struct dragon_heap heap;
    _Atomic int64_t n_uses;
};

/* ---- lifetime ---- */

static int check_size(uint64_t size_bytes)
{
    if (size_bytes == 0)
        return dragon_error_origin(-EINVAL);
    return size_bytes <= LARGEST_POOL_BYTES ? 0 : dragon_error_origin(-ENOMEM);
}

/* Short chunks waste less on the many sizes of blocks of a program, and cost
 * those nothing who take the lock anyway. */
static uint64_t chunk_bytes(const struct dragon_pool_options *options)
{
    bool is_counted = options->is_counted || options->max_blocks != 0;

    if (is_counted && options->size_bytes < COUNTED_SHORT_BELOW_BYTES)
        return DRAGON_HEAP_SHORT_CHUNK_BYTES;
    return dragon_heap_chunk_bytes(options->size_bytes);
}

static uint64_t segment_bytes(const struct dragon_pool_options *options)
{
    return dragon_heap_segment_bytes(options->size_bytes, chunk_bytes(options));
}

static int finish_make(struct dragon_pool *pool, const struct dragon_pool_options *options,
                       struct dragon_pool **pool_out)
{
    struct dragon_heap_options heap_options = {
        .chunk_bytes = chunk_bytes(options),
        .node = options->node,
        .number = options->number,
        .min_block_bytes = options->min_block_bytes,
        .max_blocks = options->max_blocks,
        .is_counted = options->is_counted,
    };
    int r = dragon_heap_init(&pool->heap, &pool->segment, &heap_options);

    if (r < 0) {
        dragon_segment_close(&pool->segment);
        dragon_alloc_free(pool);
        return dragon_error_trace(r);
    }
    *pool_out = pool;
    return 0;
}

int dragon_pool_make_managed(const struct dragon_pool_options *options,
                             struct dragon_pool **pool_out)
{
    struct dragon_pool *pool;
    int r = check_size(options->size_bytes);

    if (r < 0)
        return dragon_error_trace(r);
    pool = dragon_alloc_zeroed(sizeof *pool);
    if (!pool)
        return dragon_error_origin(-ENOMEM);
    r = dragon_segment_create_anonymous(&pool->segment, "dragon-pool", segment_bytes(options));
    if (r < 0) {
        dragon_alloc_free(pool);
        return dragon_error_trace(r);
    }
    return dragon_error_trace(finish_make(pool, options, pool_out));
}

int dragon_pool_create_managed(uint64_t size_bytes, uint64_t node, uint32_t number,
                               struct dragon_pool **pool_out)
{
    struct dragon_pool_options options = {.size_bytes = size_bytes, .node = node, .number = number};

    return dragon_error_trace(dragon_pool_make_managed(&options, pool_out));
}

static bool is_good_name(const char *name)
{
    return name[0] == '/' && name[1] != '\0' && strchr(name + 1, '/') == NULL;
}

int dragon_pool_make_named(const char *name, const struct dragon_pool_options *options,
                           struct dragon_pool **pool_out)
{
    struct dragon_pool *pool;
    int r = is_good_name(name) ? check_size(options->size_bytes) : dragon_error_origin(-EINVAL);

    if (r < 0)
        return dragon_error_trace(r);
    if (strlen(name) > NAME_MAX_BYTES)
        return dragon_error_origin(-ENAMETOOLONG);
    pool = dragon_alloc_zeroed(sizeof *pool);
    if (!pool)
        return dragon_error_origin(-ENOMEM);
    r = dragon_segment_create_named(&pool->segment, name, segment_bytes(options));
    if (r < 0) {
        dragon_alloc_free(pool);
        return dragon_error_trace(r);
    }
    r = finish_make(pool, options, pool_out);
    if (r < 0)
        dragon_os_shm_unlink(name);
    return dragon_error_trace(r);
}

int dragon_pool_create_named(const char *name, uint64_t size_bytes, uint64_t node, uint32_t number,
                             struct dragon_pool **pool_out)
{
    struct dragon_pool_options options = {.size_bytes = size_bytes, .node = node, .number = number};

    return dragon_error_trace(dragon_pool_make_named(name, &options, pool_out));
}

static int finish_open(struct dragon_pool *pool, int r, struct dragon_pool **pool_out)
{
    if (r < 0)
        goto free_pool;
    r = dragon_heap_open(&pool->heap, &pool->segment);
    if (r < 0)
        goto close_segment;
    *pool_out = pool;
    return 0;

close_segment:
    dragon_segment_close(&pool->segment);
free_pool:
    dragon_alloc_free(pool);
    return dragon_error_trace(r);
}

int dragon_pool_open_fd(int fd, struct dragon_pool **pool_out)
{
    struct dragon_pool *pool = dragon_alloc_zeroed(sizeof *pool);

    if (!pool) {
        dragon_os_close(fd);
        return dragon_error_origin(-ENOMEM);
    }
    return finish_open(pool, dragon_segment_open_fd(&pool->segment, fd), pool_out);
}

int dragon_pool_open_named(const char *name, struct dragon_pool **pool_out)
{
    struct dragon_pool *pool;

    if (!is_good_name(name))
        return dragon_error_origin(-EINVAL);
    pool = dragon_alloc_zeroed(sizeof *pool);
    if (!pool)
        return dragon_error_origin(-ENOMEM);
    return finish_open(pool, dragon_segment_open_named(&pool->segment, name), pool_out);
}

void dragon_pool_close(struct dragon_pool *pool)
{
    if (!pool)
        return;
    dragon_heap_close(&pool->heap);
    dragon_segment_close(&pool->segment);
    dragon_alloc_free(pool);
}

int dragon_pool_unlink(const char *name)
{
    if (!is_good_name(name))
        return dragon_error_origin(-EINVAL);
    return dragon_error_trace(dragon_os_shm_unlink(name));
}

bool dragon_pool_has_name(const struct dragon_pool *pool, const char *name)
{
    return is_good_name(name) && dragon_segment_has_name(&pool->segment, name);
}

/* ---- blocks ---- */

int dragon_pool_alloc(struct dragon_pool *pool, uint64_t size_bytes, uint32_t holder,
                      struct dragon_handle *handle_out)
{
    int r = dragon_heap_alloc(&pool->heap, size_bytes ? size_bytes : 1, holder, &handle_out->offset,
                              &handle_out->generation);

    if (r != 0)
        return dragon_error_trace(r);
    handle_out->node = pool->heap.node;
    handle_out->pool = pool->heap.number;
    return 0;
}

static int sleep_until_freed(struct dragon_pool *pool, uint32_t key, int64_t deadline_ns)
{
    int r = dragon_eventcount_park(&pool->heap.header->freed, key, deadline_ns);

    if (r == DRAGON_EVENTCOUNT_TIMEOUT)
        return DRAGON_POOL_TIMEOUT;
    if (r == DRAGON_EVENTCOUNT_INTERRUPTED)
        return DRAGON_POOL_INTERRUPTED;
    return dragon_error_trace(r);
}

int dragon_pool_alloc_wait(struct dragon_pool *pool, uint64_t size_bytes, uint32_t holder,
                           int64_t deadline_ns, struct dragon_handle *handle_out)
{
    int r = dragon_pool_alloc(pool, size_bytes, holder, handle_out), slept = 0;

    if (r == DRAGON_POOL_FULL && dragon_deadline_passed(deadline_ns))
        return dragon_heap_may_fit(&pool->heap, size_bytes) ? DRAGON_POOL_TIMEOUT : r;
    while (r == DRAGON_POOL_FULL && dragon_heap_may_fit(&pool->heap, size_bytes)) {
        uint32_t key = dragon_eventcount_prepare(&pool->heap.header->freed);

        /* Once each time: in a full pool it is a walk over all chunks. */
        r = dragon_pool_alloc(pool, size_bytes, holder, handle_out);
        if (r == DRAGON_POOL_FULL && slept != 0)
            return dragon_error_trace(slept);
        if (r == DRAGON_POOL_FULL)
            slept = sleep_until_freed(pool, key, deadline_ns);
    }
    return dragon_error_trace(r);
}

/* A handle of another pool is stale here, whatever else it says. */
static int is_of_pool(struct dragon_pool *pool, const struct dragon_handle *handle)
{
    if (handle->node != pool->heap.node || handle->pool != pool->heap.number)
        return dragon_error_origin(-EBADMSG);
    return 0;
}

int dragon_pool_free(struct dragon_pool *pool, const struct dragon_handle *handle)
{
    int r = is_of_pool(pool, handle);

    if (r < 0)
        return dragon_error_trace(r);
    return dragon_error_trace(dragon_heap_free(&pool->heap, handle->offset, handle->generation));
}

int dragon_pool_hold(struct dragon_pool *pool, const struct dragon_handle *handle, uint32_t holder,
                     uint32_t *before_out)
{
    int r = is_of_pool(pool, handle);

    if (r < 0)
        return dragon_error_trace(r);
    return dragon_error_trace(
        dragon_heap_hold(&pool->heap, handle->offset, handle->generation, holder, before_out));
}

int dragon_pool_resolve(struct dragon_pool *pool, const struct dragon_handle *handle,
                        void **address_out, uint64_t *size_bytes_out)
{
    uint64_t size_bytes;
    int r = is_of_pool(pool, handle);

    if (r == 0)
        r = dragon_heap_resolve(&pool->heap, handle->offset, handle->generation, &size_bytes);
    if (r < 0)
        return dragon_error_trace(r);
    *address_out = pool->segment.base + handle->offset;
    *size_bytes_out = size_bytes;
    return 0;
}

int dragon_pool_find(struct dragon_pool *pool, uint64_t offset, struct dragon_handle *handle_out,
                     uint64_t *size_bytes_out)
{
    struct dragon_handle handle = {
        .node = pool->heap.node,
        .pool = pool->heap.number,
        .offset = offset,
    };
    int r = dragon_heap_find(&pool->heap, offset, &handle.generation, size_bytes_out);

    if (r == 0)
        *handle_out = handle;
    return dragon_error_trace(r);
}

uint64_t dragon_pool_sweep(struct dragon_pool *pool, uint32_t holder)
{
    return dragon_heap_sweep(&pool->heap, holder, NULL, NULL);
}

uint64_t dragon_pool_sweep_except(struct dragon_pool *pool, uint32_t holder,
                                  dragon_pool_is_kept *is_kept, void *context)
{
    return dragon_heap_sweep(&pool->heap, holder, is_kept, context);
}

bool dragon_pool_has_blocks_of(struct dragon_pool *pool, uint32_t holder)
{
    return dragon_heap_has_blocks_of(&pool->heap, holder);
}

bool dragon_pool_next(struct dragon_pool *pool, uint64_t *offset_io,
                      struct dragon_handle *handle_out, uint64_t *size_bytes_out,
                      uint32_t *holder_out)
{
    struct dragon_handle handle = {
        .node = pool->heap.node,
        .pool = pool->heap.number,
        .offset = *offset_io,
    };

    if (!dragon_heap_next(&pool->heap, DRAGON_HOLDER_NONE, &handle.offset, &handle.generation,
                          size_bytes_out, holder_out))
        return false;
    *offset_io = handle.offset + 1;
    *handle_out = handle;
    return true;
}

bool dragon_pool_next_of(struct dragon_pool *pool, uint32_t holder, uint64_t *offset_io,
                         struct dragon_handle *handle_out, uint64_t *size_bytes_out)
{
    struct dragon_handle handle;
    uint32_t found;

    do {
        handle = dragon_pool_handle(pool, *offset_io, 0);
        if (!dragon_heap_next(&pool->heap, holder, &handle.offset, &handle.generation,
                              size_bytes_out, &found))
            return false;
        *offset_io = handle.offset + 1;
    } while (found != holder); /* it has just changed hands */
    *handle_out = handle;
    return true;
}

struct dragon_mutex *dragon_pool_object_lock(struct dragon_pool *pool, uint64_t offset)
{
    uint64_t line = offset / DRAGON_HEAP_SMALLEST_BLOCK;

    /* Blocks of one class begin at multiples of their size. */
    return &pool->heap.header->object_locks[(line ^ line / 7) % DRAGON_HEAP_N_OBJECT_LOCKS].mutex;
}

_Atomic int64_t *dragon_pool_n_uses(struct dragon_pool *pool)
{
    return &pool->n_uses;
}

/* ---- inspection ---- */

void *dragon_pool_at(struct dragon_pool *pool, uint64_t offset)
{
    dragon_check(offset < pool->segment.size_bytes);
    return pool->segment.base + offset;
}

bool dragon_pool_contains(struct dragon_pool *pool, uint64_t offset, uint64_t size_bytes)
{
    uint64_t end = dragon_heap_committed_end(&pool->heap);

    if (offset < DRAGON_HEAP_HEADER_BYTES) /* the root */
        end = DRAGON_HEAP_HEADER_BYTES;
    return size_bytes <= end && offset <= end - size_bytes;
}

void dragon_pool_statistics(struct dragon_pool *pool, struct dragon_pool_statistics *out)
{
    struct dragon_heap *heap = &pool->heap;
    struct dragon_heap_usage usage;

    dragon_heap_usage(heap, &usage);
    out->size_bytes = dragon_observe(&heap->header->n_allowed) * heap->chunk_bytes;
    out->committed_bytes = dragon_pool_committed_bytes(pool);
    out->free_bytes = out->size_bytes > usage.used_bytes ? out->size_bytes - usage.used_bytes : 0;
    out->n_blocks = usage.n_blocks;
    out->most_blocks = usage.most_blocks;
    out->max_blocks = heap->max_blocks;
    out->n_smallest = dragon_heap_n_smallest(heap, out->size_bytes);
}

void dragon_pool_free_blocks(struct dragon_pool *pool, dragon_pool_free_blocks_of *report,
                             void *context)
{
    dragon_heap_free_blocks(&pool->heap, report, context);
}

uint64_t dragon_pool_n_block_sizes(const struct dragon_pool *pool)
{
    return dragon_heap_n_block_sizes(&pool->heap);
}

struct dragon_handle dragon_pool_handle(const struct dragon_pool *pool, uint64_t offset,
                                        uint32_t generation)
{
    return (struct dragon_handle){
        .node = pool->heap.node,
        .pool = pool->heap.number,
        .generation = generation,
        .offset = offset,
    };
}

uint64_t dragon_pool_node(const struct dragon_pool *pool)
{
    return pool->heap.node;
}

uint32_t dragon_pool_number(const struct dragon_pool *pool)
{
    return pool->heap.number;
}

int dragon_pool_fd(const struct dragon_pool *pool)
{
    return dragon_segment_fd(&pool->segment);
}

void *dragon_pool_root(struct dragon_pool *pool)
{
    return pool->segment.base + DRAGON_HEAP_ROOT_OFFSET;
}

void dragon_pool_limit(struct dragon_pool *pool, uint64_t size_bytes)
{
    uint64_t n_chunks = size_bytes / pool->heap.chunk_bytes;

    if (n_chunks > pool->heap.n_chunks)
        n_chunks = pool->heap.n_chunks;
    dragon_publish(&pool->heap.header->n_allowed, (uint32_t)n_chunks);
    dragon_heap_wake(&pool->heap); /* it may have been less */
}

int dragon_pool_prefault(struct dragon_pool *pool, uint64_t size_bytes)
{
    uint64_t n_chunks =
        size_bytes / pool->heap.chunk_bytes + (size_bytes % pool->heap.chunk_bytes != 0);

    if (n_chunks > pool->heap.n_chunks)
        n_chunks = pool->heap.n_chunks;
    return dragon_error_trace(dragon_heap_commit(&pool->heap, (uint32_t)n_chunks));
}

uint64_t dragon_pool_trim(struct dragon_pool *pool, uint64_t keep_bytes)
{
    return dragon_heap_trim(&pool->heap, keep_bytes);
}

uint64_t dragon_pool_trim_idle(struct dragon_pool *pool, uint64_t keep_bytes)
{
    return dragon_heap_trim_idle(&pool->heap, keep_bytes);
}

struct dragon_eventcount *dragon_pool_grown(struct dragon_pool *pool)
{
    return &pool->heap.header->grown;
}

uint64_t dragon_pool_committed_bytes(struct dragon_pool *pool)
{
    return dragon_observe(&pool->heap.header->n_backed) * pool->heap.chunk_bytes;
}

bool dragon_pool_check(struct dragon_pool *pool)
{
    return dragon_heap_check(&pool->heap);
}
