/* Arbitrary handles on a live pool: each is refused or names a live block, and
 * the pool stays sane. */
#include "memory/object.h"
#include "support/heap_walk.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define N_LIVE 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

static struct dragon_pool *pool;
static struct dragon_handle live[N_LIVE];

static void open_pool(void)
{
    static const uint64_t sizes[N_LIVE] = {1, 64, 65, 1000, 16384, 16385, 200000, 64};

    if (dragon_pool_create_managed(1 << 20, 7, 1, &pool) != 0)
        abort();
    for (int i = 0; i < N_LIVE; i++)
        if (dragon_pool_alloc(pool, sizes[i], DRAGON_HOLDER_SHARED, &live[i]) != 0)
            abort();
    dragon_pool_free(pool, &live[N_LIVE - 1]); /* one that is stale */
}

static bool is_live(const struct dragon_handle *handle)
{
    for (int i = 0; i < N_LIVE - 1; i++)
        if (dragon_handle_is_same(&live[i], handle))
            return true;
    return false;
}

static void use_handle(const struct dragon_handle *handle)
{
    struct dragon_object object;
    struct dragon_handle found;
    uint64_t size_bytes;
    uint32_t before;
    void *address;
    int r = dragon_pool_resolve(pool, handle, &address, &size_bytes);

    if ((r == 0) != is_live(handle))
        abort();
    if (dragon_pool_hold(pool, handle, DRAGON_HOLDER_SHARED, &before) != r)
        abort();
    if (r != 0 && dragon_pool_free(pool, handle) != r)
        abort();
    if (dragon_pool_find(pool, handle->offset, &found, &size_bytes) == 0 && !is_live(&found))
        abort();
    if (dragon_object_open(pool, handle, DRAGON_KIND('F', 'U', 'Z', 'Z'), 64, DRAGON_HOLDER_SHARED,
                           &object) == 0)
        abort();
}

/* Input: handles, their first byte says which fields a live one lends. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    if (!pool)
        open_pool();
    while (size_bytes >= 1 + sizeof(struct dragon_handle)) {
        const struct dragon_handle *lender = &live[data[0] >> 4 & (N_LIVE - 1)];
        struct dragon_handle handle;

        memcpy(&handle, data + 1, sizeof handle);
        if (data[0] & 1)
            handle.node = lender->node;
        if (data[0] & 2)
            handle.pool = lender->pool;
        if (data[0] & 4)
            handle.generation = lender->generation;
        if (data[0] & 8)
            handle.offset = lender->offset;
        use_handle(&handle);
        data += 1 + sizeof handle;
        size_bytes -= 1 + sizeof handle;
    }
    if (!dragon_pool_check(pool))
        abort();
    return 0;
}
