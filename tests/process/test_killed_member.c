/* A member of a pool is killed while it joins, leaves, or sweeps what another one
 * held: nothing stays of either, no number is lost, and nobody's block is freed that
 * is alive. */
#include "process/members.h"

#include "memory/pool.h"
#include "support/channel_fixture.h"
#include "support/test_point.h"

#include <criterion/criterion.h>
#include <errno.h>

#define N_HELD 3

TestSuite(killed_member, .timeout = 60);

static struct channel_fixture fixture;
static struct dragon_pool *pool;
static struct dragon_member own;

static void open_pool(void)
{
    channel_fixture_open(&fixture, UINT64_C(1) << 20, DRAGON_CHANNEL_UNBOUNDED,
                         DRAGON_CHANNEL_UNBOUNDED);
    pool = fixture.pool;
    cr_assert_eq(dragon_members_init(pool), 0);
    dragon_member_init(&own, pool);
}

static int hold(struct dragon_member *member, int n)
{
    struct dragon_handle handle;
    uint32_t holder = dragon_member_holder(member);
    int r = holder ? 0 : -ESRCH;

    for (int i = 0; r == 0 && i < n; i++)
        r = dragon_pool_alloc(pool, 500, holder, &handle);
    return r;
}

/* And a message with a block, which is to stay. */
static int hold_and_send(struct dragon_member *member)
{
    struct dragon_message message = message_of(9);
    struct dragon_handle handle;
    int r = hold(member, N_HELD);

    if (r == 0)
        r = attach_block(pool, 500, dragon_member_holder(member), &message, &handle);
    return r == 0 ? dragon_channel_try_send(&fixture.channel, &message) : r;
}

/* But for the channel, its ring and the blocks of its messages. */
static uint64_t n_blocks(void)
{
    struct dragon_pool_statistics statistics;

    dragon_pool_statistics(pool, &statistics);
    return statistics.n_blocks - 2 - dragon_channel_count(&fixture.channel);
}

static uint32_t n_taken(void)
{
    const struct dragon_members_shared *table = dragon_pool_root(pool);
    uint32_t n = 0;

    for (uint32_t i = 0; i < DRAGON_MEMBERS_MAX; i++)
        n += table->is_taken[i] != 0;
    return n;
}

/* After somebody's death: all of the dead comes back, and only that. */
static void check_all_comes_back(uint64_t n_messages)
{
    struct dragon_message message;

    cr_assert_eq(hold(&own, 1), 0);
    (void)dragon_members_sweep(pool);
    cr_assert_eq(n_blocks(), 1);
    cr_assert_eq(n_taken(), 1);
    cr_assert_eq(dragon_channel_count(&fixture.channel), n_messages);
    for (uint64_t i = 0; i < n_messages; i++) {
        uint32_t holder = dragon_member_holder(&own);
        struct dragon_handle handle;

        cr_assert_eq(dragon_channel_try_receive(&fixture.channel, holder, &message), 0);
        handle = dragon_pool_handle(pool, message.block_offset, message.block_generation);
        cr_assert_eq(dragon_pool_free(pool, &handle), 0);
    }
    dragon_member_leave(&own);
    cr_assert_eq(n_blocks(), 0);
    cr_assert_eq(n_taken(), 0);
    cr_assert(dragon_pool_check(pool));
    cr_assert_eq(channel_fixture_blocks_left(&fixture), 0);
    dragon_pool_close(pool);
}

static int join(void *argument)
{
    (void)argument;
    return hold(&own, 0);
}

Test(killed_member, who_dies_joining_leaves_no_number_taken)
{
    const char *points[] = {"members-alive", "members-taken"};

    for (int i = 0; i < 2; i++) {
        open_pool();
        cr_assert(child_dies_at(points[i], join, NULL));
        check_all_comes_back(0);
    }
}

static int hold_and_leave(void *argument)
{
    (void)argument;
    if (hold_and_send(&own) == 0)
        dragon_member_leave(&own);
    return 1;
}

Test(killed_member, who_dies_leaving_leaves_the_rest_to_the_next)
{
    const char *points[] = {"in-flight-before-sweep", "heap-sweeping", "members-swept",
                            "members-set-free"};

    for (int i = 0; i < 4; i++) {
        open_pool();
        cr_assert(child_dies_at(points[i], hold_and_leave, NULL));
        check_all_comes_back(1);
    }
}

static int hold_and_die(void *argument)
{
    (void)argument;
    if (hold_and_send(&own) == 0)
        kill(getpid(), SIGKILL);
    return 1;
}

static int sweep(void *argument)
{
    (void)argument;
    (void)dragon_members_sweep(pool);
    return 1;
}

/* A sweeper that is no member, and one that is. */
static int join_and_sweep(void *argument)
{
    (void)argument;
    (void)hold(&own, 1); /* joining sweeps, too */
    return 1;
}

Test(killed_member, who_dies_sweeping_another_leaves_both_to_the_next)
{
    const char *points[] = {"in-flight-before-sweep", "heap-sweeping", "members-swept",
                            "members-set-free"};
    int (*const sweepers[])(void *) = {sweep, join_and_sweep};

    for (int s = 0; s < 2; s++) {
        for (int i = 0; i < 4; i++) {
            open_pool();
            cr_assert_eq(child_result(child_start(hold_and_die, NULL)), 256 + SIGKILL);
            cr_assert(child_dies_at(points[i], sweepers[s], NULL));
            check_all_comes_back(1);
        }
    }
}

Test(killed_member, a_sweep_beside_one_that_dies_frees_nothing_of_the_living)
{
    open_pool();
    cr_assert_eq(hold(&own, 2), 0);
    cr_assert_eq(child_result(child_start(hold_and_die, NULL)), 256 + SIGKILL);
    cr_assert(child_dies_at("heap-sweeping", sweep, NULL));
    cr_assert_eq(dragon_members_sweep(pool), N_HELD - 1, "the dead sweeper had freed one");
    cr_assert_eq(n_blocks(), 2);
    dragon_member_leave(&own);
    check_all_comes_back(1);
}
