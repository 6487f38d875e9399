#include "memory/users.h"

#include "base/atomic.h"
#include "base/check.h"
#include "base/error.h"
#include "memory/pool.h"

#include <string.h>

#define SMALLEST_TABLE DRAGON_USERS_N_PROBES

/* The table, as it was found in shared memory. */
struct table {
    struct dragon_user *entries; /* NULL: there is none */
    uint64_t n;                  /* a power of two */
    struct dragon_handle handle;
};

static struct table table_of(struct dragon_pool *pool, const struct dragon_users *users)
{
    uint64_t offset = dragon_observe(&users->more_offset), size_bytes;
    struct table table = {0};

    if (offset == 0 || dragon_pool_find(pool, offset, &table.handle, &size_bytes) < 0 ||
        size_bytes < SMALLEST_TABLE * sizeof *table.entries)
        return table;
    table.entries = dragon_pool_at(pool, offset);
    table.n = SMALLEST_TABLE;
    while (2 * table.n * sizeof *table.entries <= size_bytes)
        table.n *= 2;
    return table;
}

static struct dragon_user *place_in(const struct table *table, uint64_t who, uint32_t probe)
{
    uint64_t hash = who * UINT64_C(0x9e3779b97f4a7c15) >> 32;

    return &table->entries[(hash + probe) & (table->n - 1)];
}

/* The entry of `who`, in the table; with 0 in `wanted`: a free entry for it. */
static struct dragon_user *look_up(const struct table *table, uint64_t who, uint64_t wanted)
{
    for (uint32_t i = 0; table->entries && i < DRAGON_USERS_N_PROBES; i++) {
        struct dragon_user *user = place_in(table, who, i);

        if (dragon_peek(&user->who) == wanted)
            return user;
    }
    return NULL;
}

struct dragon_user *dragon_users_find(struct dragon_pool *pool, struct dragon_users *users,
                                      uint64_t who)
{
    struct table table;

    for (int i = 0; i < DRAGON_USERS_N_FIRST; i++)
        if (dragon_peek(&users->first[i].who) == who)
            return &users->first[i];
    if (dragon_peek(&users->more_offset) == 0)
        return NULL;
    table = table_of(pool, users);
    return look_up(&table, who, who);
}

/* ---- growing ---- */

static bool copy_into(const struct table *to, const struct table *from)
{
    for (uint64_t i = 0; i < from->n; i++) {
        uint64_t who = dragon_peek(&from->entries[i].who);
        struct dragon_user *user = who ? look_up(to, who, 0) : NULL;

        if (who && !user)
            return false;
        if (user) {
            dragon_poke(&user->n, dragon_peek(&from->entries[i].n));
            dragon_poke(&user->who, who);
        }
    }
    return true;
}

static int make_table(struct dragon_pool *pool, uint32_t holder, uint64_t n,
                      struct table *table_out)
{
    uint64_t size_bytes = n * sizeof *table_out->entries;
    int r = dragon_pool_alloc(pool, size_bytes, holder, &table_out->handle);

    if (r != 0)
        return dragon_error_trace(r);
    table_out->entries = dragon_pool_at(pool, table_out->handle.offset);
    table_out->n = n;
    memset(table_out->entries, 0, size_bytes);
    return 0;
}

static void set_holder(struct dragon_pool *pool, const struct table *table, uint32_t holder)
{
    uint32_t before;

    if (table->entries)
        (void)dragon_pool_hold(pool, &table->handle, holder, &before);
}

/* Make `to` the object's table in the place of `from`. */
static void replace_table(struct dragon_pool *pool, struct dragon_users *users, uint32_t holder,
                          const struct table *from, const struct table *to)
{
    set_holder(pool, from, holder);
    DRAGON_TEST_POINT("users-before-table");
    dragon_publish(&users->more_offset, to->handle.offset); /* pairs with table_of */
    DRAGON_TEST_POINT("users-after-table");
    set_holder(pool, to, DRAGON_HOLDER_PART);
    if (from->entries)
        dragon_pool_free(pool, &from->handle);
}

static int grow(struct dragon_pool *pool, struct dragon_users *users, uint32_t holder)
{
    struct table from = table_of(pool, users), to = {0};
    uint64_t n = from.n ? 2 * from.n : SMALLEST_TABLE;
    int r = make_table(pool, holder, n, &to);

    while (r == 0 && !copy_into(&to, &from)) { /* too many have their places close together */
        dragon_pool_free(pool, &to.handle);
        n *= 2;
        r = make_table(pool, holder, n, &to);
    }
    if (r == 0)
        replace_table(pool, users, holder, &from, &to);
    return dragon_error_trace(r);
}

static struct dragon_user *find_room(struct dragon_pool *pool, struct dragon_users *users,
                                     uint64_t who)
{
    struct table table;

    for (int i = 0; i < DRAGON_USERS_N_FIRST; i++)
        if (dragon_peek(&users->first[i].who) == 0)
            return &users->first[i];
    table = table_of(pool, users);
    return look_up(&table, who, 0);
}

int dragon_users_add(struct dragon_pool *pool, struct dragon_users *users, uint32_t holder,
                     uint64_t who, uint64_t n)
{
    struct dragon_user *user;
    int r = 0;

    while (r == 0 && !(user = find_room(pool, users, who)))
        r = grow(pool, users, holder);
    if (r != 0)
        return dragon_error_trace(r);
    dragon_poke(&user->n, n);
    DRAGON_TEST_POINT("users-before-add");
    dragon_publish(&user->who, who);
    DRAGON_TEST_POINT("users-after-add");
    return 0;
}

/* ---- looking ---- */

bool dragon_users_has_other(struct dragon_pool *pool, struct dragon_users *users,
                            const struct dragon_user *user)
{
    struct table table;

    for (int i = 0; i < DRAGON_USERS_N_FIRST; i++)
        if (&users->first[i] != user && dragon_peek(&users->first[i].who) != 0)
            return true;
    if (dragon_peek(&users->more_offset) == 0)
        return false;
    table = table_of(pool, users);
    for (uint64_t i = 0; i < table.n; i++)
        if (&table.entries[i] != user && dragon_peek(&table.entries[i].who) != 0)
            return true;
    return false;
}

bool dragon_users_may_have(const struct dragon_users *users, uint64_t who)
{
    for (int i = 0; i < DRAGON_USERS_N_FIRST; i++)
        if (dragon_observe(&users->first[i].who) == who)
            return true;
    return dragon_observe(&users->more_offset) != 0; /* it may move: under the lock only */
}

/* ---- the table's end ---- */

void dragon_users_keep_table(struct dragon_pool *pool, struct dragon_users *users)
{
    struct table table = table_of(pool, users);

    set_holder(pool, &table, DRAGON_HOLDER_PART);
}

void dragon_users_fini(struct dragon_pool *pool, struct dragon_users *users, uint32_t holder)
{
    struct table table = table_of(pool, users);

    if (!table.entries)
        return;
    set_holder(pool, &table, holder);
    dragon_publish(&users->more_offset, 0);
    dragon_pool_free(pool, &table.handle);
}
