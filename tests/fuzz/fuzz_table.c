/* The root of a node's pool, with its table of processes, after another process
 * has scribbled over it: the table's operations end, and joining such a node is
 * refused or works. */
#include "memory/pool.h"
#include "node/node.h"
#include "os/os.h"
#include "process/table.h"
#include "support/scribble.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define HANG_S 5

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_data);

static struct scribble scribble;
static struct dragon_pool
    *pool; /* small, with the root of a node that this process is the head of */
static uint64_t root_offset;
static uint64_t table_offset; /* where a table of ours begins */

static void copy_root_of_a_node(void)
{
    struct dragon_node_options options = {.attach_fd = -1, .start_threads = false};
    struct dragon_node *node;

    if (dragon_node_open(&options, &node) != 0 || dragon_node_invite(node) != 0)
        abort();
    memcpy(dragon_pool_root(pool), dragon_pool_root(dragon_node_pool(node)),
           DRAGON_POOL_ROOT_BYTES);
    dragon_node_leave();
}

static void make_pool(void)
{
    struct dragon_handle handle;
    struct dragon_table table;
    uint32_t slot;

    if (dragon_pool_create_managed(UINT64_C(1) << 17, 7, 1, &pool) != 0)
        abort();
    copy_root_of_a_node();
    root_offset = (uint64_t)((unsigned char *)dragon_pool_root(pool) -
                             (unsigned char *)dragon_pool_at(pool, 0));
    if (dragon_pool_alloc(pool, sizeof(struct dragon_table_shared), DRAGON_HOLDER_SHARED,
                          &handle) != 0)
        abort();
    table_offset = handle.offset;
    memset(dragon_pool_at(pool, table_offset), 0, sizeof(struct dragon_table_shared));
    if (dragon_table_init(&table, pool, table_offset) != 0)
        abort();
    /* So many that it has a second segment. */
    for (int i = 0; i < 20; i++)
        if (dragon_table_claim(&table, 100000 + i, 0, 1, &slot) != 0)
            abort();
    scribble_take_pool(&scribble, pool);
    scribble_add_region(&scribble, root_offset, DRAGON_POOL_ROOT_BYTES);
    scribble_add_region(&scribble, table_offset, sizeof(struct dragon_table_shared));
}

static volatile uint64_t sink;

static void use_table(void)
{
    struct dragon_table table;
    uint32_t slot;

    dragon_table_open(&table, pool, table_offset);
    sink = dragon_table_n_slots(&table);
    for (uint32_t i = 0; i < 64; i += 7) {
        struct dragon_table_slot *found = dragon_table_slot(&table, i);

        if (found)
            sink = dragon_peek(&found->state);
    }
    sink = (uint64_t)dragon_table_slot(&table, UINT32_MAX);
    if (dragon_table_find(&table, 100003, &slot))
        dragon_table_release(&table, slot);
    for (int i = 0; i < 4; i++)
        if (dragon_table_claim(&table, dragon_os_pid(), 5, 1, &slot) == 0)
            sink = dragon_table_doorbell_offset(&table, slot);
    dragon_table_sweep_dead(&table);
}

static void join_and_leave(void)
{
    struct dragon_node_options options = {.attach_fd = dup(dragon_pool_fd(pool)),
                                          .start_threads = false};
    struct dragon_node *node;
    uint32_t holder;

    if (dragon_node_open(&options, &node) != 0)
        return;
    dragon_node_holder(node, &holder);
    dragon_node_leave();
}

/* In a process of its own, which keeps what a node keeps until its process ends. */
static void join_elsewhere(void)
{
    pid_t pid = fork();
    int status;

    if (pid < 0)
        abort();
    if (pid == 0) {
        signal(SIGALRM, SIG_DFL);
        alarm(HANG_S);
        join_and_leave();
        _exit(0);
    }
    while (waitpid(pid, &status, 0) < 0) /* the fuzzer's timer interrupts it */
        if (errno != EINTR)
            abort();
    if (status != 0) {
        fprintf(stderr, "joining ended with status %x\n", (unsigned)status);
        abort();
    }
}

/* What a pool's node keeps until the process ends. */
const char *__lsan_default_suppressions(void);

const char *__lsan_default_suppressions(void)
{
    return "leak:new_node\nleak:create_node\n";
}

/* Input: whether to join, then as scribble_write takes it. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_data)
{
    if (n_data == 0)
        return 0;
    if (!pool)
        make_pool();
    scribble_restore(&scribble);
    scribble_write(&scribble, data + 1, n_data - 1);
    if (data[0] % 32 == 0)
        join_elsewhere();
    else
        use_table();
    return 0;
}
