#include "process/members.h"

#include "base/check.h"
#include "base/error.h"
#include "channel/in_flight.h"
#include "memory/pool.h"
#include "os/os.h"

#include <errno.h>

#define MAGIC UINT64_C(0x31424d454d475244) /* "DRGMEMB1" */

_Static_assert(sizeof(struct dragon_members_shared) <= DRAGON_POOL_ROOT_BYTES, "fits the root");

#define CANNOT UINT32_MAX
#define FULL 1 /* an outcome: no number is left */

/* ---- the table ---- */

int dragon_members_init(struct dragon_pool *pool)
{
    struct dragon_members_shared *shared = dragon_pool_root(pool);
    int r = dragon_mutex_init(&shared->mutex);

    if (r == 0)
        dragon_publish(&shared->magic, MAGIC); /* pairs with table_of */
    return dragon_error_trace(r);
}

/* NULL: the pool has none. */
static struct dragon_members_shared *table_of(struct dragon_pool *pool)
{
    struct dragon_members_shared *shared = dragon_pool_root(pool);

    return dragon_observe(&shared->magic) == MAGIC ? shared : NULL;
}

/* False: it stays taken, for somebody who has the memory to sweep it. */
static bool set_free_locked(struct dragon_pool *pool, struct dragon_members_shared *shared,
                            uint32_t number, uint64_t *n_freed_out)
{
    if (dragon_in_flight_sweep(pool, DRAGON_HOLDER_FIRST_SLOT + number, n_freed_out) < 0)
        return false;
    DRAGON_TEST_POINT("members-swept");
    dragon_poke(&shared->is_taken[number], 0);
    DRAGON_TEST_POINT("members-set-free");
    return true;
}

/* The descriptor is looked at again: it would be somebody else's file that has no lock,
 * if the program closed ours meanwhile. */
static bool has_ended(struct dragon_pool *pool, int fd, uint32_t number)
{
    return !dragon_os_life_goes_on(fd, number) && dragon_pool_fd(pool) == fd;
}

static uint64_t sweep_locked(struct dragon_pool *pool, struct dragon_members_shared *shared, int fd)
{
    uint64_t n_freed = 0, n;

    for (uint32_t i = 0; i < DRAGON_MEMBERS_MAX; i++)
        if (dragon_peek(&shared->is_taken[i]) && has_ended(pool, fd, i) &&
            set_free_locked(pool, shared, i, &n))
            n_freed += n;
    return n_freed;
}

uint64_t dragon_members_sweep(struct dragon_pool *pool)
{
    struct dragon_members_shared *shared = table_of(pool);
    int fd = dragon_pool_fd(pool);
    uint64_t n_freed;

    if (!shared || fd < 0 || dragon_mutex_lock(&shared->mutex) < 0)
        return 0;
    n_freed = sweep_locked(pool, shared, fd);
    dragon_mutex_unlock(&shared->mutex);
    return n_freed;
}

/* ---- this process ---- */

void dragon_member_init(struct dragon_member *member, struct dragon_pool *pool)
{
    *member = (struct dragon_member){.pool = pool};
}

/* A sign of life on another file would be none: the descriptor is looked at again here, too. */
static int begin_life(struct dragon_pool *pool, int fd, uint32_t number, void **life_out)
{
    void *life;
    int r = dragon_os_life_begin(fd, number, &life);

    if (r < 0)
        return dragon_error_trace(r);
    if (dragon_pool_fd(pool) != fd) {
        dragon_os_life_end(life);
        return dragon_error_origin(-EBADF);
    }
    *life_out = life;
    return 0;
}

static int join_locked(struct dragon_pool *pool, struct dragon_member_self *self,
                       struct dragon_members_shared *shared, int fd)
{
    for (uint32_t i = 0; i < DRAGON_MEMBERS_MAX; i++) {
        int r = dragon_peek(&shared->is_taken[i]) ? -EAGAIN : begin_life(pool, fd, i, &self->life);

        if (r == -EAGAIN) /* also where the table is wrong: the kernel is not */
            continue;
        if (r < 0)
            return dragon_error_trace(r);
        DRAGON_TEST_POINT("members-alive");
        dragon_poke(&shared->is_taken[i], 1);
        DRAGON_TEST_POINT("members-taken");
        dragon_poke(&self->holder, DRAGON_HOLDER_FIRST_SLOT + i);
        return 0;
    }
    return FULL;
}

static int join(struct dragon_pool *pool, struct dragon_member_self *self)
{
    struct dragon_members_shared *shared = table_of(pool);
    int fd = dragon_pool_fd(pool), r;

    if (!shared || fd < 0)
        return dragon_error_origin(-EBADF);
    r = dragon_mutex_lock(&shared->mutex);
    if (r < 0)
        return dragon_error_trace(r);
    (void)sweep_locked(pool, shared, fd); /* a good moment: it happens once */
    r = join_locked(pool, self, shared, fd);
    dragon_mutex_unlock(&shared->mutex);
    return dragon_error_trace(r);
}

static int make_self(struct dragon_member *member)
{
    void *page;
    int r;

    if (member->self)
        return 0;
    r = dragon_os_reserve_unforked(sizeof *member->self, &page);
    if (r == 0)
        member->self = page;
    return dragon_error_trace(r);
}

uint32_t dragon_member_join(struct dragon_member *member)
{
    if (make_self(member) < 0)
        return 0;
    if (join(member->pool, member->self) == 0)
        return dragon_peek(&member->self->holder);
    dragon_poke(&member->self->holder, CANNOT);
    return 0;
}

static void leave(struct dragon_pool *pool, struct dragon_member_self *self)
{
    struct dragon_members_shared *shared = table_of(pool);
    uint32_t number = dragon_peek(&self->holder) - DRAGON_HOLDER_FIRST_SLOT;
    uint64_t n_freed;

    /* Without the mutex, or memory for the sweep, somebody will find this one gone. */
    if (shared && dragon_mutex_lock(&shared->mutex) >= 0) {
        (void)set_free_locked(pool, shared, number, &n_freed);
        dragon_mutex_unlock(&shared->mutex);
    }
    dragon_os_life_end(self->life);
}

void dragon_member_leave(struct dragon_member *member)
{
    struct dragon_member_self *self = member->self;

    if (!self)
        return;
    if (dragon_peek(&self->holder) != 0 && dragon_peek(&self->holder) != CANNOT)
        leave(member->pool, self);
    dragon_os_unmap(self, sizeof *self);
    member->self = NULL;
}
