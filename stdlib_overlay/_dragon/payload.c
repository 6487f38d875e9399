#include "payload.h"

#include "channel/fini.h"
#include "memory/pool.h"
#include "memory/uses.h"

#include <string.h>

void dragon_py_copy(void *to, const void *from, size_t n)
{
    if (n < DRAGON_PY_LARGE_BYTES) {
        memcpy(to, from, n);
        return;
    }
    Py_BEGIN_ALLOW_THREADS
    memcpy(to, from, n);
    Py_END_ALLOW_THREADS
}

struct dragon_handle dragon_py_block_handle(struct dragon_pool *pool,
                                            const struct dragon_message *message)
{
    return dragon_pool_handle(pool, message->block_offset, message->block_generation);
}

void dragon_py_raise_failure(const struct dragon_py_transfer *t, int r)
{
    if (r == DRAGON_POOL_FULL)
        dragon_py_raise_pool_full(t->state, t->pool, 0, t->what);
    else
        dragon_py_raise(t->state, r, t->what);
}

void *dragon_py_add_block(const struct dragon_py_transfer *t, size_t size_bytes,
                          struct dragon_message *message)
{
    struct dragon_handle handle;
    int r = dragon_pool_alloc(t->pool, size_bytes, t->holder, &handle);

    if (r == DRAGON_POOL_FULL)
        return dragon_py_raise_pool_full(t->state, t->pool, size_bytes, t->what);
    if (r < 0)
        return dragon_py_raise(t->state, r, t->what);
    message->block_offset = handle.offset;
    message->block_generation = handle.generation;
    message->block_lines = (uint32_t)(size_bytes / 64 + 1);
    return dragon_pool_at(t->pool, handle.offset);
}

void dragon_py_discard(struct dragon_pool *pool, uint32_t holder,
                       const struct dragon_message *message)
{
    struct dragon_garbage garbage = {.pool = pool, .freer = holder};
    struct dragon_handle handle = dragon_py_block_handle(pool, message);

    if (!dragon_message_has_block(message))
        return;
    dragon_uses_free_block(&handle, &garbage);
    dragon_garbage_free(&garbage, dragon_fini);
}

int dragon_py_store(const struct dragon_py_transfer *t, const char *bytes, size_t n,
                    size_t room_bytes, struct dragon_message *message)
{
    uint64_t length = n;
    void *block;

    if (n <= DRAGON_MESSAGE_INLINE_BYTES && room_bytes == 0) {
        memcpy(message->bytes, bytes, n);
        message->size_bytes = (uint32_t)n;
        return 0;
    }
    block = dragon_py_add_block(t, room_bytes ? room_bytes : n, message);
    if (!block)
        return -1;
    dragon_py_copy(block, bytes, n);
    memcpy(message->bytes, &length, sizeof length);
    message->size_bytes = sizeof length;
    return 0;
}

int dragon_py_bad_message(const struct dragon_py_transfer *t)
{
    PyErr_Format(t->state->stale_handle,
                 "%s: the message makes no sense: another process wrote "
                 "over it",
                 t->what);
    return -1;
}

int dragon_py_find_payload(const struct dragon_py_transfer *t, const struct dragon_message *message,
                           struct dragon_py_payload *payload_out)
{
    struct dragon_py_payload payload = {
        .bytes = (const char *)message->bytes,
        .n = message->size_bytes,
        .has_block = dragon_message_has_block(message),
    };
    uint64_t length, size_bytes;
    void *address;

    if (payload.has_block) {
        payload.handle = dragon_py_block_handle(t->pool, message);
        if (dragon_pool_resolve(t->pool, &payload.handle, &address, &size_bytes) < 0 ||
            message->size_bytes != sizeof length)
            return dragon_py_bad_message(t);
        memcpy(&length, message->bytes, sizeof length);
        if (length > size_bytes)
            return dragon_py_bad_message(t);
        payload.bytes = address;
        payload.n = length;
    }
    *payload_out = payload;
    return 0;
}
