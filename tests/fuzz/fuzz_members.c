/* The table of members in a pool's root, after another process has scribbled over it,
 * before processes join or while there are members: joining, sweeping and leaving
 * end, no two members have one number, and no sweep takes a living one's block. */
#include "process/members.h"

#include "memory/pool.h"
#include "support/channel_fixture.h"
#include "support/scribble.h"

#include <stdint.h>
#include <stdlib.h>

#define N_DEAD 3 /* members of the pool as it was made */
#define N_ALIVE 3

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_data);

static struct scribble scribble;
static struct channel_fixture fixture;
static struct dragon_pool *pool;

#define require(condition)                                                                         \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

/* Each with a block of its own and one in flight. */
static void make_dead(struct dragon_members_shared *table)
{
    struct dragon_message message;
    struct dragon_handle handle;

    for (uint32_t i = 0; i < N_DEAD; i++) {
        message = message_of(i);
        table->is_taken[i] = 1;
        require(dragon_pool_alloc(pool, 300, DRAGON_HOLDER_FIRST_SLOT + i, &handle) == 0);
        require(attach_block(pool, 300, DRAGON_HOLDER_FIRST_SLOT + i, &message, &handle) == 0);
        require(dragon_channel_try_send(&fixture.channel, &message) == 0);
    }
}

static void make_pool(void)
{
    uint64_t root_offset;

    channel_fixture_open(&fixture, UINT64_C(1) << 17, DRAGON_CHANNEL_UNBOUNDED,
                         DRAGON_CHANNEL_UNBOUNDED);
    pool = fixture.pool;
    require(dragon_members_init(pool) == 0);
    make_dead(dragon_pool_root(pool));
    scribble_take_pool(&scribble, pool);
    root_offset = (uint64_t)((unsigned char *)dragon_pool_root(pool) -
                             (unsigned char *)dragon_pool_at(pool, 0));
    scribble_add_region(&scribble, root_offset, sizeof(struct dragon_members_shared));
}

/* A process may have several views of a pool, each with a number. */
struct one {
    struct dragon_member member;
    struct dragon_handle block;
    uint32_t holder; /* 0: it could not become a member */
};

static uint32_t holder_of_block(const struct one *one)
{
    uint64_t at = one->block.offset, size_bytes;
    struct dragon_handle found;
    uint32_t holder;

    if (!dragon_pool_next(pool, &at, &found, &size_bytes, &holder) ||
        found.offset != one->block.offset || found.generation != one->block.generation)
        return DRAGON_HOLDER_NONE;
    return holder;
}

static void join(struct one *all, int i)
{
    struct one *one = &all[i];

    dragon_member_init(&one->member, pool);
    one->holder = dragon_member_holder(&one->member);
    if (one->holder == 0)
        return;
    require(one->holder >= DRAGON_HOLDER_FIRST_SLOT &&
            one->holder < DRAGON_HOLDER_FIRST_SLOT + DRAGON_MEMBERS_MAX);
    for (int other = 0; other < i; other++)
        require(all[other].holder != one->holder);
    require(dragon_pool_alloc(pool, 300, one->holder, &one->block) == 0);
}

static void leave(struct one *one)
{
    dragon_member_leave(&one->member);
    if (one->holder != 0 && holder_of_block(one) == one->holder)
        require(dragon_pool_free(pool, &one->block) == 0); /* nobody knew that it had ended */
}

/* Input: how much of the rest to write before anybody joins, in 255ths; then twice as
 * scribble_write takes it. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_data)
{
    struct one all[N_ALIVE];
    size_t n_before;

    if (n_data == 0)
        return 0;
    if (!pool)
        make_pool();
    n_before = (n_data - 1) * data[0] / 255;
    scribble_restore(&scribble);
    scribble_write(&scribble, data + 1, n_before);
    for (int i = 0; i < N_ALIVE - 1; i++)
        join(all, i);
    scribble_write(&scribble, data + 1 + n_before, n_data - 1 - n_before);
    dragon_members_sweep(pool);
    join(all, N_ALIVE - 1);
    for (int i = 0; i < N_ALIVE; i++)
        require(all[i].holder == 0 || holder_of_block(&all[i]) == all[i].holder);
    for (int i = 0; i < N_ALIVE; i++)
        leave(&all[i]);
    require(dragon_pool_check(pool));
    return 0;
}
