#include "memory/uses.h"

#include "base/atomic.h"
#include "base/check.h"
#include "base/error.h"
#include "memory/object.h"
#include "memory/pool.h"

#include <errno.h>
#include <string.h>

#define MAGIC UINT64_C(0x53455355524f4644)

/* The last bytes of a block with a list, which lies before it. */
struct end {
    uint64_t n;
    uint64_t magic;
};

uint64_t dragon_uses_block_bytes(uint64_t size_bytes, uint64_t n)
{
    uint64_t rounded = (size_bytes + 7) & ~UINT64_C(7);

    return rounded + n * sizeof(struct dragon_handle) + sizeof(struct end);
}

/* The list of a block; NULL: it has none. n_out: how many are in it. */
static const struct dragon_handle *list_of(struct dragon_pool *pool,
                                           const struct dragon_handle *block, uint64_t *n_out)
{
    uint64_t size_bytes;
    struct end end;
    void *address;

    if (dragon_pool_resolve(pool, block, &address, &size_bytes) < 0 || size_bytes % 8 != 0 ||
        size_bytes < sizeof end)
        return NULL;
    size_bytes -= sizeof end;
    memcpy(&end, (char *)address + size_bytes, sizeof end); /* read once: others can write it */
    if (end.magic != MAGIC || end.n > size_bytes / sizeof(struct dragon_handle))
        return NULL;
    *n_out = end.n;
    return (struct dragon_handle *)((char *)address + size_bytes) - end.n;
}

static int write_list(struct dragon_pool *pool, const struct dragon_handle *block,
                      const struct dragon_handle *objects, uint64_t n)
{
    struct end end = {n, MAGIC};
    uint64_t size_bytes;
    void *address;
    char *at;
    int r = dragon_pool_resolve(pool, block, &address, &size_bytes);

    if (r < 0)
        return dragon_error_trace(r);
    at = (char *)address + size_bytes - sizeof end;
    memcpy(at - n * sizeof *objects, objects, n * sizeof *objects);
    memcpy(at, &end, sizeof end);
    return 0;
}

int dragon_uses_add(struct dragon_pool *pool, const struct dragon_handle *block,
                    const struct dragon_handle *objects, uint64_t n, uint32_t holder)
{
    struct dragon_garbage garbage = {.pool = pool, .freer = holder};
    int r = write_list(pool, block, objects, n);

    DRAGON_TEST_POINT("uses-listed");
    for (uint64_t i = 0; r == 0 && i < n; i++) {
        r = dragon_object_add_block(pool, &objects[i], block, holder);
        DRAGON_TEST_POINT("uses-added");
    }
    if (r != 0)
        dragon_uses_release(block, &garbage); /* no garbage: the caller uses them all */
    return dragon_error_trace(r);
}

void dragon_uses_release(const struct dragon_handle *block, struct dragon_garbage *garbage)
{
    uint64_t n = 0;
    const struct dragon_handle *list = list_of(garbage->pool, block, &n);

    for (uint64_t i = 0; list && i < n; i++) {
        struct dragon_handle object;

        memcpy(&object, &list[i], sizeof object);
        dragon_object_take_out_block(garbage, &object, block);
        DRAGON_TEST_POINT("uses-taken-out");
    }
}

int dragon_uses_free_block(const struct dragon_handle *block, struct dragon_garbage *garbage)
{
    dragon_uses_release(block, garbage);
    DRAGON_TEST_POINT("uses-before-free");
    return dragon_error_trace(dragon_pool_free(garbage->pool, block));
}
