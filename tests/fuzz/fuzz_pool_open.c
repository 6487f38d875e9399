/* A pool that another process has scribbled over: opening refuses it, or what
 * readers get from it lies inside it. (Writers take the mutex in the header,
 * which no check can vouch for.) */
#include "channel/channel.h"
#include "memory/heap.h"
#include "memory/object.h"
#include "memory/pool.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define N_CHUNKS UINT64_C(16) /* fewer would be short ones */
#define TABLE_END (DRAGON_HEAP_HEADER_BYTES + N_CHUNKS * sizeof(struct dragon_heap_chunk))
#define N_BLOCKS 6

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

/* A pool with a channel and some blocks, and a copy of it to start over from. */
static struct dragon_segment segment;
static unsigned char *original;
static struct dragon_handle blocks[N_BLOCKS];

static void make_pool(void)
{
    struct dragon_channel_options options = {100, 1000};
    struct dragon_object object;
    struct dragon_pool *pool;

    if (dragon_pool_create_managed(N_CHUNKS * DRAGON_HEAP_CHUNK_BYTES, 7, 1, &pool) != 0 ||
        dragon_object_create(pool, DRAGON_CHANNEL_KIND, sizeof(struct dragon_channel_shared),
                             &object) != 0 ||
        dragon_channel_init(&object, &options) != 0)
        abort();
    blocks[0] = object.handle;
    for (int i = 1; i < N_BLOCKS; i++)
        if (dragon_pool_alloc(pool, (uint64_t)i * 9000, DRAGON_HOLDER_SHARED, &blocks[i]) != 0)
            abort();
    if (dragon_segment_open_fd(&segment, dup(dragon_pool_fd(pool))) != 0)
        abort();
    original = malloc(segment.size_bytes);
    memcpy(original, segment.base, segment.size_bytes);
    dragon_pool_close(pool);
}

/* Input: three bytes place, one length, then so many bytes; repeated. One place
 * in two lies in the header or the table of chunks. */
static void scribble(const uint8_t *data, size_t size_bytes)
{
    while (size_bytes > 4) {
        uint64_t range = data[2] & 0x80 ? segment.size_bytes : TABLE_END;
        uint64_t at = (uint64_t)(data[0] | data[1] << 8 | (data[2] & 0x7f) << 16) % range;
        size_t n = data[3];

        data += 4;
        size_bytes -= 4;
        n = n < size_bytes ? n : size_bytes;
        n = n < segment.size_bytes - at ? n : segment.size_bytes - at;
        memcpy(segment.base + at, data, n);
        data += n;
        size_bytes -= n;
    }
}

static volatile unsigned char sink;

static void read_block(struct dragon_pool *pool, const struct dragon_handle *handle)
{
    uint64_t size_bytes;
    void *address;

    if (dragon_pool_resolve(pool, handle, &address, &size_bytes) != 0)
        return;
    if (handle->offset > segment.size_bytes || size_bytes > segment.size_bytes - handle->offset)
        abort();
    if (size_bytes > 0)
        sink = ((unsigned char *)address)[size_bytes - 1];
}

static void read_pool(struct dragon_pool *pool)
{
    struct dragon_channel channel;
    struct dragon_object object;
    struct dragon_handle found;
    uint64_t size_bytes;

    for (int i = 0; i < N_BLOCKS; i++)
        read_block(pool, &blocks[i]);
    for (uint64_t at = 0; at < segment.size_bytes; at += DRAGON_HEAP_CHUNK_BYTES / 16)
        if (dragon_pool_find(pool, at, &found, &size_bytes) == 0)
            read_block(pool, &found);
    if (dragon_object_adopt(pool, &blocks[0], DRAGON_CHANNEL_KIND,
                            sizeof(struct dragon_channel_shared), &object) == 0 &&
        dragon_channel_open(&channel, &object) == 0)
        sink = (unsigned char)dragon_channel_count(&channel);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    struct dragon_pool *pool;

    if (!original)
        make_pool();
    memcpy(segment.base, original, segment.size_bytes);
    scribble(data, size_bytes);
    if (dragon_pool_open_fd(dup(segment.fd), &pool) != 0)
        return 0;
    read_pool(pool);
    dragon_pool_close(pool);
    return 0;
}
