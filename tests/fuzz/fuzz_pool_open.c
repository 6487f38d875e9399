/* A pool that another process has scribbled over: opening refuses it, or every
 * operation on it ends, with an error or with what lies inside it. */
#include "channel/channel.h"
#include "memory/object.h"
#include "memory/pool.h"
#include "support/scribble.h"

#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define N_BLOCKS 6
#define HEAD_BYTES 8192 /* header and table of chunks, and some more */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_data);

static struct scribble scribble;
static struct dragon_pool *keeper; /* of the file */
static struct dragon_handle blocks[N_BLOCKS];

static void make_pool(void)
{
    struct dragon_channel_options options = {100, 1000};
    struct dragon_object object;

    if (dragon_pool_create_managed(UINT64_C(1) << 17, 7, 1, &keeper) != 0 ||
        dragon_object_create(keeper, DRAGON_CHANNEL_KIND, sizeof(struct dragon_channel_shared),
                             DRAGON_HOLDER_SHARED, &object) != 0 ||
        dragon_channel_init(&object, &options) != 0)
        abort();
    blocks[0] = object.handle;
    for (int i = 1; i < N_BLOCKS; i++)
        if (dragon_pool_alloc(keeper, (uint64_t)(i * i) * 300, DRAGON_HOLDER_FIRST_SLOT,
                              &blocks[i]) != 0)
            abort();
    if (dragon_pool_free(keeper, &blocks[2]) != 0)
        abort();
    scribble_take_pool(&scribble, keeper);
    scribble_add_region(&scribble, 0, HEAD_BYTES);
    scribble_add_region(&scribble, 0, scribble.size_bytes);
}

static volatile unsigned char sink;

static void touch(const struct dragon_handle *handle, void *address, uint64_t size_bytes)
{
    unsigned char *bytes = address;

    if (handle->offset > scribble.size_bytes || size_bytes > scribble.size_bytes - handle->offset)
        abort();
    if (size_bytes > 0) {
        sink = bytes[0];
        sink = bytes[size_bytes - 1];
    }
}

static void read_block(struct dragon_pool *pool, const struct dragon_handle *handle)
{
    uint64_t size_bytes;
    void *address;

    if (dragon_pool_resolve(pool, handle, &address, &size_bytes) == 0)
        touch(handle, address, size_bytes);
}

static void read_pool(struct dragon_pool *pool)
{
    struct dragon_pool_statistics statistics;
    struct dragon_channel channel;
    struct dragon_object object;
    struct dragon_handle found;
    uint64_t size_bytes;

    for (int i = 0; i < N_BLOCKS; i++)
        read_block(pool, &blocks[i]);
    for (uint64_t at = 0; at < scribble.size_bytes; at += 512)
        if (dragon_pool_find(pool, at, &found, &size_bytes) == 0)
            read_block(pool, &found);
    if (dragon_object_open(pool, &blocks[0], DRAGON_CHANNEL_KIND,
                           sizeof(struct dragon_channel_shared), DRAGON_HOLDER_SHARED,
                           &object) == 0 &&
        dragon_channel_open(&channel, &object) == 0)
        sink = (unsigned char)dragon_channel_count(&channel);
    dragon_pool_statistics(pool, &statistics);
    sink = (unsigned char)dragon_pool_check(pool);
}

static void write_pool(struct dragon_pool *pool)
{
    static const uint64_t sizes[] = {1, 64, 100, 1000, 3000, 5000, 20000, UINT64_C(1) << 40};
    struct dragon_handle handle;
    uint32_t before;

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        if (dragon_pool_alloc(pool, sizes[i], DRAGON_HOLDER_SHARED, &handle) != 0)
            continue;
        read_block(pool, &handle);
        if (i % 2)
            dragon_pool_free(pool, &handle);
    }
    dragon_pool_hold(pool, &blocks[1], DRAGON_HOLDER_SHARED, &before);
    for (int i = 3; i < N_BLOCKS; i++)
        dragon_pool_free(pool, &blocks[i]);
    dragon_pool_sweep(pool, DRAGON_HOLDER_FIRST_SLOT);
    dragon_pool_alloc_wait(pool, 100, DRAGON_HOLDER_SHARED, 0, &handle);
}

/* Input: as scribble_write takes it. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_data)
{
    struct dragon_pool *pool;

    if (!keeper)
        make_pool();
    scribble_restore(&scribble);
    scribble_write(&scribble, data, n_data);
    if (dragon_pool_open_fd(dup(dragon_pool_fd(keeper)), &pool) != 0)
        return 0;
    read_pool(pool);
    write_pool(pool);
    read_pool(pool);
    dragon_pool_close(pool);
    return 0;
}
