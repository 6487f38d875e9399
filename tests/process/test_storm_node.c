/* Children of a node claim slots, hold blocks, wait and leave, and are killed at
 * random moments meanwhile: the node takes back all they had. */
#include "channel/in_flight.h"
#include "memory/pool.h"
#include "node/node.h"
#include "node/threads.h"
#include "support/heap_walk.h"
#include "support/seed.h"
#include "support/shared_page.h"
#include "support/storm.h"

#include <criterion/criterion.h>

#define N_KILLS 150
#define N_AT_ONCE 6
#define LONGEST_LIFE_US 6000

/* How long it may take is for meson and ./dev soak to say. */
TestSuite(storm_node);

static struct dragon_node *node;
static uint64_t n_blocks_before;

/* Join, hold some blocks, leave, and join again, until killed. */
static int come_and_go(void *seed_number)
{
    struct seed seed = seed_from(*(uint64_t *)seed_number);
    struct dragon_node *mine = dragon_node_current();
    struct dragon_handle handle;
    uint32_t holder;

    for (;;) {
        if (!mine || dragon_node_holder(mine, &holder) != 0)
            return 1;
        for (uint64_t i = seed_below(&seed, 20); i > 0; i--)
            if (dragon_pool_alloc(mine->pool, seed_below(&seed, 70000), holder, &handle) != 0)
                return 2;
        /* As dragon_node_leave, but to come back. */
        dragon_publish(&dragon_table_slot(&mine->table, holder - DRAGON_HOLDER_FIRST_SLOT)->state,
                       DRAGON_TABLE_ENDING);
        if (dragon_in_flight_sweep(mine->pool, holder, NULL) != 0)
            return 3;
        dragon_table_release(&mine->table, holder - DRAGON_HOLDER_FIRST_SLOT);
        dragon_publish(&mine->slot, DRAGON_NODE_NO_SLOT);
    }
}

static pid_t start(struct seed *seed)
{
    static uint64_t number; /* the child has a copy */
    pid_t pid;

    number = seed_next(seed);
    pid = child_start(come_and_go, &number);
    cr_assert_eq(dragon_node_watch_child(node, pid), 0);
    return pid;
}

static bool has_own_slot_only(void *argument)
{
    struct dragon_pool_statistics statistics;
    uint32_t n = 0;

    (void)argument;
    for (uint32_t i = 0; i < dragon_table_n_slots(&node->table); i++)
        n += dragon_table_slot(&node->table, i)->state != DRAGON_TABLE_FREE;
    dragon_pool_statistics(node->pool, &statistics);
    return n == 1 && statistics.n_blocks == n_blocks_before;
}

Test(storm_node, all_that_killed_children_had_is_taken_back)
{
    struct dragon_node_options options = {.attach_fd = -1, .start_threads = true};
    struct dragon_pool_statistics statistics;
    struct seed seed = seed_new("storm_node");
    struct storm_end end = storm_end(N_KILLS);
    struct storm_result result = {.name = "children of a node",
                                  .n_messages = STORM_NOT_COUNTED,
                                  .n_lost = STORM_NOT_COUNTED,
                                  .n_duplicated = STORM_NOT_COUNTED};
    pid_t children[N_AT_ONCE];
    int64_t begin_ns;
    bool all_is_back;

    cr_assert_eq(dragon_node_open(&options, &node), 0);
    cr_assert_not_null(dragon_node_current());
    dragon_pool_statistics(dragon_node_pool(node), &statistics);
    n_blocks_before = statistics.n_blocks;
    for (int i = 0; i < N_AT_ONCE; i++)
        children[i] = start(&seed);
    for (; !storm_is_over(&end, result.n_kills); result.n_kills++) {
        pid_t *child = &children[seed_below(&seed, N_AT_ONCE)];

        usleep((useconds_t)seed_below(&seed, LONGEST_LIFE_US));
        cr_assert_eq(child_kill(*child), 256 + SIGKILL);
        *child = start(&seed);
    }
    for (int i = 0; i < N_AT_ONCE; i++)
        cr_assert_eq(child_kill(children[i]), 256 + SIGKILL);
    begin_ns = dragon_now_ns();
    all_is_back = becomes_true(has_own_slot_only, NULL);
    result.longest_wait_ns = dragon_now_ns() - begin_ns;
    dragon_pool_statistics(node->pool, &statistics);
    result.n_blocks_left = statistics.n_blocks - n_blocks_before;
    storm_print(&result);
    cr_assert(all_is_back);
    cr_assert(dragon_pool_check(node->pool));
    cr_assert_eq(dragon_table_n_slots(&node->table), DRAGON_TABLE_FIRST_SLOTS);
}
