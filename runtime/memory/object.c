#include "memory/object.h"

#include "base/atomic.h"
#include "base/check.h"
#include "base/error.h"
#include "memory/pool.h"
#include "wait/mutex.h"

#include <errno.h>
#include <string.h>

#define OBJECT_VERSION 2

/* ---- the lock ---- */

static int lock(struct dragon_pool *pool, uint64_t offset)
{
    int r = dragon_mutex_lock(dragon_pool_object_lock(pool, offset));

    return r < 0 ? dragon_error_trace(r) : 0; /* a dead holder left nothing half done */
}

static void unlock(struct dragon_pool *pool, uint64_t offset)
{
    dragon_mutex_unlock(dragon_pool_object_lock(pool, offset));
}

/* What a handle names, if that is an object. Under the lock it stays one if it has
 * users. */
static int find(struct dragon_pool *pool, const struct dragon_handle *handle,
                struct dragon_object_header **header_out, uint64_t *size_bytes_out)
{
    struct dragon_object_header *header;
    void *address;
    int r = dragon_pool_resolve(pool, handle, &address, size_bytes_out);

    if (r < 0)
        return dragon_error_trace(r);
    header = address;
    if (*size_bytes_out < sizeof *header || header->version != OBJECT_VERSION)
        return dragon_error_origin(-EBADMSG);
    *header_out = header;
    return 0;
}

/* ---- users ---- */

static int add_use_locked(struct dragon_pool *pool, struct dragon_object_header *header,
                          uint32_t holder)
{
    struct dragon_user *user = dragon_users_find(pool, &header->users, holder);

    if (user) {
        dragon_poke(&user->n, dragon_peek(&user->n) + 1);
        return 0;
    }
    if (!dragon_users_has_other(pool, &header->users, NULL))
        return dragon_error_origin(-EBADMSG); /* it is being freed */
    return dragon_error_trace(dragon_users_add(pool, &header->users, holder, holder, 1));
}

/* True: it was the last one, and the caller, in the name of freer, is to free the object. */
static bool take_out_locked(struct dragon_pool *pool, struct dragon_object_header *header,
                            struct dragon_user *user, uint32_t freer)
{
    bool is_last = !dragon_users_has_other(pool, &header->users, user);

    if (is_last)
        dragon_publish(&header->freer, freer);
    DRAGON_TEST_POINT("object-before-take-out");
    dragon_publish(&user->who, 0);
    DRAGON_TEST_POINT("object-after-take-out");
    return is_last;
}

static void add_garbage(struct dragon_garbage *garbage, struct dragon_object_header *header,
                        uint64_t offset)
{
    header->users.next_garbage = garbage->first;
    garbage->first = offset;
}

/* ---- lifetime ---- */

int dragon_object_create(struct dragon_pool *pool, uint32_t kind, uint64_t size_bytes,
                         uint32_t holder, struct dragon_object *object_out)
{
    struct dragon_object_header *header;
    struct dragon_handle handle;
    uint32_t before;
    int r;

    if (size_bytes > UINT64_MAX - sizeof *header)
        return DRAGON_POOL_FULL;
    r = dragon_pool_alloc(pool, sizeof *header + size_bytes, holder, &handle);
    if (r != 0)
        return dragon_error_trace(r);
    header = dragon_pool_at(pool, handle.offset);
    memset(header, 0, sizeof *header + size_bytes);
    header->version = OBJECT_VERSION;
    header->kind = kind;
    dragon_poke(&header->users.first[0].n, 1);
    dragon_poke(&header->users.first[0].who, holder);
    DRAGON_TEST_POINT("object-made");
    r = dragon_pool_hold(pool, &handle, DRAGON_HOLDER_OBJECT, &before);
    if (r < 0)
        return dragon_error_trace(r);
    DRAGON_TEST_POINT("object-created");
    dragon_fetch_add(dragon_pool_n_uses(pool), 1);
    *object_out = (struct dragon_object){pool, handle, header + 1, holder};
    return 0;
}

int dragon_object_open(struct dragon_pool *pool, const struct dragon_handle *handle, uint32_t kind,
                       uint64_t size_bytes, uint32_t holder, struct dragon_object *object_out)
{
    struct dragon_object_header *header;
    uint64_t block_bytes;
    int r = lock(pool, handle->offset);

    if (r < 0)
        return dragon_error_trace(r);
    r = find(pool, handle, &header, &block_bytes);
    if (r == 0 && (header->kind != kind || block_bytes - sizeof *header < size_bytes))
        r = dragon_error_origin(-EBADMSG);
    DRAGON_TEST_POINT("object-before-use");
    if (r == 0)
        r = add_use_locked(pool, header, holder);
    DRAGON_TEST_POINT("object-after-use");
    unlock(pool, handle->offset);
    if (r == 0) {
        dragon_fetch_add(dragon_pool_n_uses(pool), 1);
        *object_out = (struct dragon_object){pool, *handle, header + 1, holder};
    }
    return dragon_error_trace(r);
}

int dragon_object_keep(struct dragon_object *object, uint32_t holder)
{
    int r = lock(object->pool, object->handle.offset);

    if (r < 0)
        return dragon_error_trace(r);
    r = add_use_locked(object->pool, dragon_object_header_of(object->state), holder);
    unlock(object->pool, object->handle.offset);
    if (r == 0)
        dragon_fetch_add(dragon_pool_n_uses(object->pool), 1);
    return dragon_error_trace(r);
}

static bool close_locked(struct dragon_object *object)
{
    struct dragon_object_header *header = dragon_object_header_of(object->state);
    struct dragon_user *user = dragon_users_find(object->pool, &header->users, object->holder);
    uint64_t n = user ? dragon_peek(&user->n) : 0;

    if (!user)
        return false; /* another process wrote over it */
    if ((uint32_t)n > 1) {
        dragon_poke(&user->n, n - 1);
        return false;
    }
    dragon_poke(&header->users.last_death, 0);
    return take_out_locked(object->pool, header, user, object->holder);
}

/* Nobody uses the object any more, and it is the caller's to free. */
static void finish(struct dragon_object *object, struct dragon_garbage *garbage,
                   dragon_object_fini fini)
{
    DRAGON_TEST_POINT("object-before-fini");
    if (fini)
        fini(object, garbage);
    dragon_users_fini(object->pool, &dragon_object_header_of(object->state)->users, object->holder);
    DRAGON_TEST_POINT("object-before-free");
    dragon_pool_free(object->pool, &object->handle);
}

void dragon_object_close(struct dragon_object *object, dragon_object_fini fini)
{
    struct dragon_garbage garbage = {.pool = object->pool, .freer = object->holder};
    bool is_last;

    if (lock(object->pool, object->handle.offset) == 0) {
        is_last = close_locked(object);
        unlock(object->pool, object->handle.offset);
        if (is_last)
            finish(object, &garbage, fini);
        dragon_garbage_free(&garbage, fini);
        dragon_fetch_sub(dragon_pool_n_uses(object->pool), 1);
    }
    object->state = NULL;
}

/* ---- the end of a user ---- */

static int note_locked(struct dragon_object *object, uint32_t (*note_of)(void *state))
{
    struct dragon_object_header *header = dragon_object_header_of(object->state);
    struct dragon_user *user = dragon_users_find(object->pool, &header->users, object->holder);

    if (!user)
        return dragon_error_origin(-EBADMSG);
    dragon_poke(&user->n, (uint32_t)dragon_peek(&user->n) | (uint64_t)note_of(object->state)
                                                                << DRAGON_USER_NOTE_SHIFT);
    return 0;
}

int dragon_object_note(struct dragon_object *object, uint32_t (*note_of)(void *state))
{
    int r = lock(object->pool, object->handle.offset);

    if (r < 0)
        return dragon_error_trace(r);
    r = note_locked(object, note_of);
    unlock(object->pool, object->handle.offset);
    return dragon_error_trace(r);
}

uint64_t dragon_object_left_by_death(struct dragon_object *object)
{
    struct dragon_users *users = &dragon_object_header_of(object->state)->users;
    uint64_t death;

    if (dragon_peek(&users->last_death) == 0 || lock(object->pool, object->handle.offset) < 0)
        return 0;
    death = dragon_peek(&users->last_death);
    if (dragon_users_has_other(object->pool, users,
                               dragon_users_find(object->pool, users, object->holder)))
        death = 0;
    unlock(object->pool, object->handle.offset);
    return death;
}

/* ---- who looks at all objects of a pool ---- */

void dragon_object_begins_with(struct dragon_object *object, uint32_t state_kind)
{
    dragon_publish(&dragon_object_header_of(object->state)->state_kind,
                   state_kind); /* pairs with _state_in */
}

void *dragon_object_state_in(struct dragon_pool *pool, const struct dragon_handle *handle,
                             uint64_t size_bytes, uint32_t state_kind, uint64_t state_bytes)
{
    struct dragon_object_header *header;

    if (size_bytes < sizeof *header + state_bytes)
        return NULL;
    header = dragon_pool_at(pool, handle->offset);
    if (dragon_observe(&header->state_kind) != state_kind ||
        dragon_read_once(&header->version) != OBJECT_VERSION)
        return NULL;
    return header + 1;
}

/* ---- garbage ---- */

static void tell_of_end(struct dragon_garbage *garbage, struct dragon_object_header *header,
                        uint64_t size_bytes, const struct dragon_user *user)
{
    uint32_t note = (uint32_t)(dragon_peek(&user->n) >> DRAGON_USER_NOTE_SHIFT);

    if (garbage->ended && garbage->end)
        garbage->ended(header, size_bytes - sizeof *header, note, garbage->end);
    DRAGON_TEST_POINT("object-told-of-end");
    dragon_poke(&header->users.last_death, garbage->end ? garbage->end->death : 0);
}

/* True: it is the freer's to free. */
static bool sweep_locked(struct dragon_garbage *garbage, const struct dragon_handle *handle)
{
    struct dragon_pool *pool = garbage->pool;
    uint32_t holder = garbage->freer;
    struct dragon_object_header *header;
    struct dragon_user *user;
    uint64_t size_bytes;

    if (find(pool, handle, &header, &size_bytes) < 0)
        return false;
    dragon_users_keep_table(pool, &header->users);
    user = dragon_users_find(pool, &header->users, holder);
    if (user) {
        tell_of_end(garbage, header, size_bytes, user);
        return take_out_locked(pool, header, user, holder);
    }
    return dragon_observe(&header->freer) == holder &&
           !dragon_users_has_other(pool, &header->users, NULL);
}

/* A look without the lock: most objects have nothing to do with the holder. */
static bool may_concern(struct dragon_object_header *header, uint32_t holder)
{
    return dragon_users_may_have(&header->users, holder) ||
           dragon_observe(&header->freer) == holder;
}

void dragon_object_sweep(struct dragon_garbage *garbage)
{
    struct dragon_pool *pool = garbage->pool;
    struct dragon_object_header *header;
    struct dragon_handle handle;
    uint64_t at = 0, size_bytes;
    bool is_mine;

    while (dragon_pool_next_of(pool, DRAGON_HOLDER_OBJECT, &at, &handle, &size_bytes)) {
        header = dragon_pool_at(pool, handle.offset);
        if (size_bytes < sizeof *header || !may_concern(header, garbage->freer) ||
            lock(pool, handle.offset) < 0)
            continue;
        is_mine = sweep_locked(garbage, &handle);
        unlock(pool, handle.offset);
        if (is_mine)
            add_garbage(garbage, header, handle.offset);
        DRAGON_TEST_POINT("object-sweeping");
    }
}

/* False: it is none of ours, as somebody wrote over the links. */
static bool take_garbage(struct dragon_garbage *garbage, struct dragon_object *object_out)
{
    struct dragon_handle handle;
    struct dragon_object_header *header;
    uint64_t size_bytes;

    if (dragon_pool_find(garbage->pool, garbage->first, &handle, &size_bytes) < 0 ||
        size_bytes < sizeof *header)
        return false;
    header = dragon_pool_at(garbage->pool, handle.offset);
    if (header->version != OBJECT_VERSION || dragon_observe(&header->freer) != garbage->freer ||
        dragon_users_has_other(garbage->pool, &header->users, NULL))
        return false;
    garbage->first = header->users.next_garbage;
    *object_out = (struct dragon_object){garbage->pool, handle, header + 1, garbage->freer};
    return true;
}

void dragon_garbage_free(struct dragon_garbage *garbage, dragon_object_fini fini)
{
    struct dragon_object object;

    while (garbage->first != 0 && take_garbage(garbage, &object))
        finish(&object, garbage, fini);
    garbage->first = 0;
}

/* ---- blocks as users ---- */

static int add_block_locked(struct dragon_pool *pool, const struct dragon_handle *object,
                            const struct dragon_handle *block, uint32_t holder)
{
    uint64_t who = DRAGON_USER_BLOCK(block->offset), size_bytes;
    struct dragon_object_header *header;
    struct dragon_user *user;
    int r = find(pool, object, &header, &size_bytes);

    user = r == 0 ? dragon_users_find(pool, &header->users, who) : NULL;
    if (user) {
        dragon_poke(&user->n, block->generation);
        return 0;
    }
    if (r == 0 && !dragon_users_has_other(pool, &header->users, NULL))
        r = dragon_error_origin(-EBADMSG);
    if (r == 0)
        r = dragon_users_add(pool, &header->users, holder, who, block->generation);
    return dragon_error_trace(r);
}

int dragon_object_add_block(struct dragon_pool *pool, const struct dragon_handle *object,
                            const struct dragon_handle *block, uint32_t holder)
{
    int r = lock(pool, object->offset);

    if (r < 0)
        return dragon_error_trace(r);
    r = add_block_locked(pool, object, block, holder);
    unlock(pool, object->offset);
    return dragon_error_trace(r);
}

/* The header, if the object is garbage by that; else NULL. */
static struct dragon_object_header *take_out_block_locked(struct dragon_garbage *garbage,
                                                          const struct dragon_handle *object,
                                                          const struct dragon_handle *block)
{
    struct dragon_pool *pool = garbage->pool;
    struct dragon_object_header *header;
    struct dragon_user *user;
    uint64_t size_bytes;

    if (find(pool, object, &header, &size_bytes) < 0)
        return NULL;
    user = dragon_users_find(pool, &header->users, DRAGON_USER_BLOCK(block->offset));
    if (!user || dragon_peek(&user->n) != block->generation ||
        !take_out_locked(pool, header, user, garbage->freer))
        return NULL;
    return header;
}

void dragon_object_take_out_block(struct dragon_garbage *garbage,
                                  const struct dragon_handle *object,
                                  const struct dragon_handle *block)
{
    struct dragon_object_header *header;

    if (lock(garbage->pool, object->offset) < 0)
        return;
    header = take_out_block_locked(garbage, object, block);
    unlock(garbage->pool, object->offset);
    if (header)
        add_garbage(garbage, header, object->offset);
}
