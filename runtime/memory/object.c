#include "memory/object.h"

#include "base/atomic.h"
#include "base/check.h"
#include "base/error.h"
#include "memory/pool.h"

#include <errno.h>
#include <string.h>

#define OBJECT_VERSION 1

static struct dragon_object_header *header_of(const struct dragon_object *object)
{
    return dragon_object_header_of(object->state);
}

int dragon_object_create(struct dragon_pool *pool, uint32_t kind, uint64_t size_bytes,
                         struct dragon_object *object_out)
{
    struct dragon_object_header *header;
    struct dragon_handle handle;
    int r;

    if (size_bytes > UINT64_MAX - sizeof *header)
        return DRAGON_POOL_FULL;
    r = dragon_pool_alloc(pool, sizeof *header + size_bytes, DRAGON_HOLDER_OBJECT, &handle);
    if (r != 0)
        return dragon_error_trace(r);
    header = dragon_pool_at(pool, handle.offset);
    memset(header, 0, sizeof *header + size_bytes);
    header->version = OBJECT_VERSION;
    dragon_poke(&header->n_users, 1);
    header->kind = kind;
    *object_out = (struct dragon_object){pool, handle, header + 1};
    return 0;
}

/* The block may be freed at any moment by its last user, so a use is taken
 * only from a count that is not zero. */
static int take_use(struct dragon_object_header *header)
{
    uint32_t n = dragon_observe(&header->n_users);

    while (n != 0)
        if (dragon_replace(&header->n_users, &n, n + 1))
            return 0;
    return dragon_error_origin(-EBADMSG);
}

static int find(struct dragon_pool *pool, const struct dragon_handle *handle, uint32_t kind,
                uint64_t size_bytes, struct dragon_object *object_out)
{
    struct dragon_object_header *header;
    uint64_t block_bytes;
    void *address;
    int r;

    r = dragon_pool_resolve(pool, handle, &address, &block_bytes);
    if (r < 0)
        return dragon_error_trace(r);
    header = address;
    if (block_bytes < sizeof *header + size_bytes || header->kind != kind ||
        header->version != OBJECT_VERSION)
        return dragon_error_origin(-EBADMSG);
    *object_out = (struct dragon_object){pool, *handle, header + 1};
    return 0;
}

int dragon_object_open(struct dragon_pool *pool, const struct dragon_handle *handle, uint32_t kind,
                       uint64_t size_bytes, struct dragon_object *object_out)
{
    struct dragon_object object;
    int r = find(pool, handle, kind, size_bytes, &object);

    DRAGON_TEST_POINT("object-before-use");
    if (r == 0)
        r = take_use(header_of(&object));
    DRAGON_TEST_POINT("object-after-use");
    if (r == 0)
        *object_out = object;
    return dragon_error_trace(r);
}

int dragon_object_adopt(struct dragon_pool *pool, const struct dragon_handle *handle, uint32_t kind,
                        uint64_t size_bytes, struct dragon_object *object_out)
{
    return dragon_error_trace(find(pool, handle, kind, size_bytes, object_out));
}

void dragon_object_begins_with(struct dragon_object *object, uint32_t state_kind)
{
    dragon_publish(&header_of(object)->state_kind, state_kind); /* pairs with _state_in */
}

void *dragon_object_state_in(struct dragon_pool *pool, const struct dragon_handle *handle,
                             uint64_t size_bytes, uint32_t state_kind, uint64_t state_bytes)
{
    struct dragon_object_header *header;

    if (size_bytes < sizeof *header + state_bytes)
        return NULL;
    header = dragon_pool_at(pool, handle->offset);
    if (dragon_observe(&header->state_kind) != state_kind || dragon_peek(&header->n_users) == 0 ||
        dragon_read_once(&header->version) != OBJECT_VERSION)
        return NULL;
    return header + 1;
}

void dragon_object_keep(struct dragon_object *object)
{
    dragon_fetch_add(&header_of(object)->n_users, 1);
}

void dragon_object_close(struct dragon_object *object, dragon_object_fini fini)
{
    struct dragon_object_header *header = header_of(object);

    if (dragon_fetch_sub(&header->n_users, 1) == 1) {
        if (fini)
            fini(object);
        header->kind = 0;
        dragon_poke(&header->state_kind, 0);
        dragon_pool_free(object->pool, &object->handle);
    }
    object->state = NULL;
}
