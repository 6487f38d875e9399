/* A process that uses shared objects is killed at any point, and so is who sweeps it:
 * nothing is freed under others, and nothing is left when they have closed theirs. */
#include "channel/in_flight.h"
#include "memory/uses.h"
#include "support/channel_fixture.h"
#include "support/test_point.h"

#include <criterion/criterion.h>

#define MIB (UINT64_C(1) << 20)
#define MAX_MESSAGES 1000
#define PARENT DRAGON_HOLDER_FIRST_SLOT
#define VICTIM (DRAGON_HOLDER_FIRST_SLOT + 1)
#define CROWD (DRAGON_HOLDER_FIRST_SLOT + 2)
#define LOCK_KIND DRAGON_KIND('L', 'O', 'C', 'K')
#define STATE_BYTES 64
#define N_MESSAGES 100 /* more than the first ring has slots */

TestSuite(killed_user, .timeout = 120);

/* Where the victim and its sweeper are killed. */
static const char *const points[] = {
    "object-made",
    "object-created",
    "object-before-use",
    "object-after-use",
    "object-before-take-out",
    "object-after-take-out",
    "object-before-fini",
    "object-before-free",
    "users-before-add",
    "users-after-add",
    "users-before-table",
    "users-after-table",
    "uses-listed",
    "uses-added",
    "uses-taken-out",
    "uses-before-free",
    "channel-before-kind",
    "channel-after-kind",
    "channel-before-discard",
    "channel-before-ring-end",
    "channel-after-ring-end",
    "channel-before-head-store",
    "channel-after-head-store",
    "channel-before-tail-store",
    "channel-after-tail-store",
    "channel-before-ring-leave",
    "channel-before-ring-free",
    "channel-before-ring-forgotten",
    "channel-after-ring-forgotten",
};
/* In the order in which a sweep comes to them. */
static const char *const sweep_points[] = {
    "object-before-take-out",       "object-after-take-out",    "object-sweeping",
    "in-flight-before-sweep",       "uses-taken-out",           "heap-sweeping",
    "in-flight-before-objects",     "object-before-fini",       "channel-before-discard",
    "channel-before-tail-store",    "channel-after-tail-store", "channel-before-ring-forgotten",
    "channel-after-ring-forgotten", "object-before-free",
};

#define N_POINTS ((int)(sizeof points / sizeof *points))
#define N_SWEEP_POINTS ((int)(sizeof sweep_points / sizeof *sweep_points))

/* The parent's: a channel, an object with as many users as need no table, and one
 * that a message in the channel lists. */
static struct dragon_pool *pool;
static struct dragon_object inbox_object, crowded, listed;
static struct dragon_channel inbox;

/* ---- objects and messages, by anybody ---- */

static int make_lock(uint32_t holder, struct dragon_object *object_out)
{
    return dragon_object_create(pool, LOCK_KIND, STATE_BYTES, holder, object_out);
}

static int make_channel(uint32_t holder, struct dragon_object *object_out,
                        struct dragon_channel *channel_out)
{
    struct dragon_channel_options options = {MAX_MESSAGES, DRAGON_CHANNEL_UNBOUNDED};
    int r = dragon_object_create(pool, DRAGON_CHANNEL_KIND, sizeof(struct dragon_channel_shared),
                                 holder, object_out);

    if (r == 0)
        r = dragon_channel_init(object_out, &options);
    if (r == 0)
        r = dragon_channel_open(channel_out, object_out);
    channel_out->holder = holder;
    return r;
}

/* A message whose block lists n objects. */
static int make_message(uint32_t holder, const struct dragon_handle *objects, uint64_t n,
                        struct dragon_message *message_out)
{
    struct dragon_handle block;
    int r;

    *message_out = message_of(n);
    r = attach_block(pool, dragon_uses_block_bytes(100, n), holder, message_out, &block);
    return r == 0 ? dragon_uses_add(pool, &block, objects, n, holder) : r;
}

static int send_list(uint32_t holder, struct dragon_channel *to,
                     const struct dragon_handle *objects, uint64_t n)
{
    struct dragon_message message;
    int r = make_message(holder, objects, n, &message);

    return r == 0 ? dragon_channel_send(to, &message, DRAGON_FOREVER) : r;
}

static int drop_message(uint32_t holder, const struct dragon_message *message)
{
    struct dragon_garbage garbage = {.pool = pool, .freer = holder};
    struct dragon_handle block =
        dragon_pool_handle(pool, message->block_offset, message->block_generation);
    int r = dragon_uses_free_block(&block, &garbage);

    dragon_garbage_free(&garbage, dragon_fini);
    return r;
}

/* ---- the victim's life, step by step ---- */

struct life {
    const char *point;
    int from; /* the step from which on it dies at the point */
    int step;
};

static void next_step(struct life *life)
{
    if (life->step++ == life->from)
        dragon_test_point = life->point;
}

#define N_STEPS 12

static int live(void *argument)
{
    struct life *life = argument;
    struct dragon_object lock, queue, nested, crowd, arrived;
    struct dragon_channel channel, nested_channel;
    struct dragon_message message;
    int r;

    dragon_test_point = NULL;
    inbox.holder = VICTIM;
    next_step(life);
    r = make_channel(VICTIM, &queue, &channel);
    next_step(life);
    r |= make_lock(VICTIM, &lock);
    next_step(life); /* the table of a crowd's users is made */
    r |= dragon_object_open(pool, &crowded.handle, LOCK_KIND, STATE_BYTES, VICTIM, &crowd);
    next_step(life);
    r |= send_list(VICTIM, &inbox, (struct dragon_handle[]){lock.handle, queue.handle}, 2);
    next_step(life); /* into itself, through another that only the message uses */
    r |= make_channel(VICTIM, &nested, &nested_channel);
    r |= send_list(VICTIM, &nested_channel, &lock.handle, 1);
    r |= send_list(VICTIM, &channel, &nested.handle, 1);
    dragon_object_close(&nested, dragon_fini);
    next_step(life);
    r |= dragon_channel_try_receive(&inbox, VICTIM, &message);
    r |= dragon_object_open(pool, &listed.handle, LOCK_KIND, STATE_BYTES, VICTIM, &arrived);
    r |= drop_message(VICTIM, &message);
    next_step(life); /* the table grows */
    for (int i = 0; i < 30; i++)
        r |= make_message(VICTIM, &crowded.handle, 1, &message);
    next_step(life);
    r |= make_message(VICTIM, (struct dragon_handle[]){lock.handle, crowded.handle}, 2, &message);
    r |= drop_message(VICTIM, &message);
    next_step(life); /* rings are linked and left */
    for (int i = 0; i < N_MESSAGES; i++)
        r |= send_list(VICTIM, &channel, &crowded.handle, 1);
    for (int i = 0; i < N_MESSAGES / 2; i++) {
        r |= dragon_channel_try_receive(&channel, VICTIM, &message);
        r |= drop_message(VICTIM, &message);
    }
    next_step(life);
    dragon_object_close(&lock, dragon_fini);
    dragon_object_close(&crowd, dragon_fini);
    dragon_object_close(&arrived, dragon_fini);
    next_step(life); /* only the message in the inbox uses it now */
    dragon_object_close(&queue, dragon_fini);
    next_step(life);
    r |= make_channel(VICTIM, &queue, &channel);
    r |= make_lock(VICTIM, &lock);
    for (int i = 0; i < N_MESSAGES; i++)
        r |= send_list(VICTIM, &channel, &lock.handle, 1);
    dragon_object_close(&lock, dragon_fini);
    dragon_object_close(&queue, dragon_fini); /* frees both */
    return r ? 1 : 0;
}

/* ---- around it ---- */

static void open_all(void)
{
    cr_assert_eq(dragon_pool_create_managed(16 * MIB, 7, 1, &pool), 0);
    cr_assert_eq(make_channel(PARENT, &inbox_object, &inbox), 0);
    cr_assert_eq(make_lock(PARENT, &crowded), 0);
    for (uint32_t i = 0; i < DRAGON_USERS_N_FIRST - 1; i++)
        cr_assert_eq(dragon_object_keep(&crowded, CROWD + i), 0);
    cr_assert_eq(make_lock(PARENT, &listed), 0);
    cr_assert_eq(send_list(PARENT, &inbox, &listed.handle, 1), 0);
}

/* What the messages in the inbox list can be opened. */
static void receive_all(void)
{
    struct dragon_message message;
    struct dragon_handle block, *list;
    uint64_t size_bytes, n;
    void *address;

    while (dragon_channel_try_receive(&inbox, PARENT, &message) == 0) {
        n = number_in(&message);
        block = dragon_pool_handle(pool, message.block_offset, message.block_generation);
        cr_assert_eq(dragon_pool_resolve(pool, &block, &address, &size_bytes), 0);
        list = (struct dragon_handle *)((char *)address + dragon_uses_block_bytes(100, 0) - 16);
        for (uint64_t i = 0; i < n; i++) {
            uint32_t kind = i == 0 ? LOCK_KIND : DRAGON_CHANNEL_KIND;
            struct dragon_object object;

            cr_assert_eq(dragon_object_open(pool, &list[i], kind, STATE_BYTES, PARENT, &object), 0);
            dragon_object_close(&object, dragon_fini);
        }
        cr_assert_eq(drop_message(PARENT, &message), 0);
    }
}

static void close_all(const char *point, int from)
{
    struct dragon_pool_statistics statistics;
    struct dragon_object others = crowded;

    receive_all();
    for (uint32_t i = 0; i < DRAGON_USERS_N_FIRST - 1; i++) {
        others = crowded;
        others.holder = CROWD + i;
        dragon_object_close(&others, dragon_fini);
    }
    cr_assert_eq(dragon_object_keep(&crowded, PARENT), 0, "it is still there");
    cr_assert_eq(dragon_object_keep(&listed, PARENT), 0);
    for (int i = 0; i < 2; i++) {
        others = crowded;
        dragon_object_close(&others, dragon_fini);
        others = listed;
        dragon_object_close(&others, dragon_fini);
    }
    dragon_object_close(&inbox_object, dragon_fini);
    dragon_pool_statistics(pool, &statistics);
    cr_assert_eq(statistics.n_blocks, 0, "%lu blocks are left: %s, from step %d on",
                 statistics.n_blocks, point, from);
    cr_assert(dragon_pool_check(pool));
    dragon_pool_close(pool);
}

static int sweep(void *unused)
{
    (void)unused;
    return dragon_in_flight_sweep(pool, VICTIM, NULL) == 0 ? 0 : 1;
}

static bool dies(const char *point, int from)
{
    struct life life = {point, from, 0};
    int result = child_result(child_start(live, &life));

    cr_assert(result == 0 || result == 256 + SIGKILL, "%s, %d: ended with %d", point, from, result);
    return result != 0;
}

Test(killed_user, a_life_without_a_death_leaves_nothing)
{
    open_all();
    cr_assert_not(dies(NULL, 0));
    cr_assert_eq(sweep(NULL), 0);
    close_all("none", 0);
}

Test(killed_user, whoever_dies_wherever_in_its_life_leaves_nothing)
{
    for (int i = 0; i < N_POINTS; i++) {
        int n_deaths = 0;

        for (int from = 0; from < N_STEPS; from++) {
            open_all();
            n_deaths += dies(points[i], from);
            cr_assert_eq(sweep(NULL), 0);
            close_all(points[i], from);
        }
        cr_assert_gt(n_deaths, 0, "nobody comes to %s", points[i]);
    }
}

Test(killed_user, a_sweep_that_is_cut_short_again_and_again_is_finished_by_the_last)
{
    int n_cut[N_SWEEP_POINTS] = {0};

    for (int from = 0; from < N_STEPS; from++) {
        open_all();
        (void)dies("channel-after-head-store", from);
        for (int i = 0; i < N_SWEEP_POINTS; i++)
            n_cut[i] += child_dies_at(sweep_points[i], sweep, NULL);
        cr_assert_eq(sweep(NULL), 0);
        close_all("sweep", from);
    }
    for (int i = 0; i < N_SWEEP_POINTS; i++)
        cr_assert_gt(n_cut[i], 0, "no sweep comes to %s", sweep_points[i]);
}

Test(killed_user, a_sweep_may_be_killed_after_each_object)
{
    int n_sweeps = 0;

    open_all();
    (void)dies("object-before-fini", N_STEPS - 1);
    while (child_dies_at("object-sweeping", sweep, NULL) && n_sweeps < 5)
        n_sweeps++;
    while (child_dies_at("object-after-take-out", sweep, NULL))
        n_sweeps++;
    cr_assert_gt(n_sweeps, N_MESSAGES / 2);
    cr_assert_eq(sweep(NULL), 0);
    close_all("each", N_STEPS - 1);
}

/* ---- others go on meanwhile ---- */

static int use_and_die(void *argument)
{
    struct dragon_object object;
    uint32_t holder = *(uint32_t *)argument;

    inbox.holder = holder;
    for (;;) {
        if (dragon_object_open(pool, &crowded.handle, LOCK_KIND, STATE_BYTES, holder, &object) != 0)
            return 1;
        if (send_list(holder, &inbox, &crowded.handle, 1) != 0)
            return 2;
        dragon_object_close(&object, dragon_fini);
    }
}

Test(killed_user, processes_that_are_killed_in_the_middle_of_it_leave_nothing)
{
    enum { N_USERS = 4, N_KILLS = 60 };
    uint32_t holders[N_USERS];
    pid_t pids[N_USERS];
    struct dragon_message message;

    open_all();
    for (uint32_t i = 0; i < N_USERS; i++) {
        holders[i] = VICTIM + 100 + i;
        pids[i] = child_start(use_and_die, &holders[i]);
    }
    for (int n = 0; n < N_KILLS + N_USERS; n++) {
        int i = n % N_USERS;

        for (int k = 0; k < 50 + n; k++) { /* how long it lives is not told by the clock */
            cr_assert_eq(dragon_channel_receive(&inbox, PARENT, &message, test_soon()), 0);
            cr_assert_eq(drop_message(PARENT, &message), 0);
        }
        cr_assert_eq(child_kill(pids[i]), 256 + SIGKILL);
        cr_assert_eq(dragon_in_flight_sweep(pool, holders[i], NULL), 0);
        if (n < N_KILLS)
            pids[i] = child_start(use_and_die, &holders[i]);
    }
    close_all("storm", 0);
}
