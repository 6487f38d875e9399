/*
 * The bodies of the runtime threads. Each sleeps on one thing: an eventcount,
 * the process's doorbell, an epoll descriptor.
 */
#include "node/threads.h"

#include "base/deadline.h"
#include "base/error.h"
#include "memory/pool.h"
#include "os/os.h"

#include <errno.h>

#define PREFAULT_BYTES (UINT64_C(1) << 20)
#define IDLE_NS (5 * DRAGON_NS_PER_S)
#define WATCH_AGAIN_NS (DRAGON_NS_PER_S / 10) /* where there was no descriptor for it */
#define LONGEST_TRIM_PERIODS 16

/* ---- memory ---- */

/* What the first use of the pool needs soon, but need not wait for. */
static void prepare_pool(struct dragon_node *node)
{
    (void)dragon_pool_prefault(node->pool, PREFAULT_BYTES); /* only a head start */
}

static void serve(struct dragon_node *node, uint32_t requests)
{
    if (requests & DRAGON_NODE_PREFAULT)
        prepare_pool(node);
    if (requests & DRAGON_NODE_SWEEP)
        dragon_table_sweep_dead(&node->table);
}

/* ---- processes that no supervisor watches ---- */

bool dragon_node_bury(struct dragon_node *node, int32_t pid, uint32_t status)
{
    int r = dragon_table_bury(&node->table, pid, status);

    if (r > 0) {
        (void)dragon_node_start_memory_thread(node);
        dragon_node_request(node, DRAGON_NODE_SWEEP);
    }
    return r >= 0;
}

static bool is_there(const struct dragon_table_slot *slot)
{
    uint32_t state = dragon_observe(&slot->state);

    return state == DRAGON_TABLE_ALIVE || state == DRAGON_TABLE_ENDING;
}

/* Another process may have its pid by the time that it is watched. */
static bool is_same_process(const struct dragon_table_slot *slot, int32_t pid)
{
    uint64_t ticks;

    return dragon_os_start_time(pid, &ticks) == 0 &&
           (dragon_peek(&slot->start_ticks) == 0 || ticks == dragon_peek(&slot->start_ticks));
}

/* False: there is no descriptor for it now. The slot may become another process's at any
 * moment: if a copy's, that unsets is_watched again once it is there. */
static bool watch_slot(struct dragon_node *node, struct dragon_table_slot *slot)
{
    int32_t pid;
    int r;

    if (dragon_peek(&slot->pid) == dragon_os_pid() || dragon_exchange(&slot->is_watched, 1))
        return true;
    pid = dragon_peek(&slot->pid); /* whoever it is by now */
    if (!is_there(slot))
        return true;
    r = dragon_node_watch_child(node, pid);
    if (r == -ESRCH || (r == 0 && !is_same_process(slot, pid)))
        return dragon_node_bury(node, pid, DRAGON_STATUS_UNKNOWN);
    if (r < 0)
        dragon_poke(&slot->is_watched, 0);
    return r == 0 || r == -EBADF; /* what the program has closed does not come back */
}

/* False: not all; to be tried again. */
static bool watch_unwatched(struct dragon_node *node)
{
    uint32_t n = dragon_table_n_slots(&node->table);
    bool are_all = true;

    for (uint32_t i = 0; i < n; i++) {
        struct dragon_table_slot *slot = dragon_table_claimed(&node->table, i);

        if (is_there(slot) && !watch_slot(node, slot))
            are_all = false;
    }
    return are_all;
}

/* ---- giving memory back ---- */

/* How the head gives memory back: it sleeps while the pool is small; then it
 * looks each period, and ever less often while there is nothing to give. */
struct trimming {
    int64_t period_ns; /* 0: the pool is small */
    int64_t next_ns;
};

static int64_t idle_ns(const struct dragon_node *node)
{
    return node->options.idle_ns ? node->options.idle_ns : IDLE_NS;
}

static void trim(struct dragon_node *node, struct trimming *trimming)
{
    bool is_large =
        node->is_head && dragon_pool_committed_bytes(node->pool) > DRAGON_POOL_HIGH_WATER_BYTES;

    if (is_large && trimming->period_ns != 0 && !dragon_deadline_passed(trimming->next_ns))
        return;
    if (!is_large)
        trimming->period_ns = 0;
    else if (trimming->period_ns == 0 ||
             dragon_pool_trim_idle(node->pool, DRAGON_POOL_HIGH_WATER_BYTES) > 0)
        trimming->period_ns = idle_ns(node);
    else if (trimming->period_ns < LONGEST_TRIM_PERIODS * idle_ns(node))
        trimming->period_ns *= 2;
    trimming->next_ns =
        trimming->period_ns ? dragon_deadline_after_ns(trimming->period_ns) : DRAGON_FOREVER;
}

static void *memory_thread(void *argument)
{
    struct dragon_node *node = argument;
    struct trimming trimming = {.next_ns = DRAGON_FOREVER};
    int64_t watch_again_ns = DRAGON_FOREVER;

    dragon_os_thread_name("dragon/memory");
    for (;;) {
        uint32_t key = dragon_eventcount_prepare(node->memory_work);
        uint32_t requests = dragon_exchange(&node->memory_requests, 0);

        if (node->is_head &&
            (dragon_table_take_unwatched(&node->table) || dragon_deadline_passed(watch_again_ns)))
            watch_again_ns =
                watch_unwatched(node) ? DRAGON_FOREVER : dragon_deadline_after_ns(WATCH_AGAIN_NS);
        trim(node, &trimming);
        if (requests)
            serve(node, requests);
        else
            (void)dragon_eventcount_park_until(
                node->memory_work, key, dragon_deadline_earlier(trimming.next_ns, watch_again_ns));
    }
    return NULL;
}

void *dragon_node_opening_thread(void *argument)
{
    struct dragon_node *node = argument;

    if (dragon_node_finish_open(node) < 0)
        return NULL;
    return memory_thread(node);
}

void dragon_node_request(struct dragon_node *node, uint32_t request)
{
    dragon_fetch_or(&node->memory_requests, request);
    dragon_eventcount_wake_one(node->memory_work);
}

/* ---- channels ---- */

static bool has_bits(const uint64_t ready[DRAGON_DOORBELL_WORDS])
{
    uint64_t any = 0;

    for (int i = 0; i < DRAGON_DOORBELL_WORDS; i++)
        any |= ready[i];
    return any != 0;
}

static void *channels_thread(void *argument)
{
    static const uint64_t all[DRAGON_DOORBELL_WORDS] = {
        UINT64_MAX,
        UINT64_MAX,
        UINT64_MAX,
        UINT64_MAX,
    };
    struct dragon_node *node = argument;
    uint32_t index = dragon_observe(&node->slot);
    struct dragon_table_slot *slot = dragon_table_claimed(&node->table, index);

    dragon_os_thread_name("dragon/channels");
    for (;;) {
        uint64_t ready[DRAGON_DOORBELL_WORDS];

        dragon_doorbell_wait(&slot->doorbell, dragon_peek(&node->n_pollers) != 0, ready);
        /* Woken for no bit: time to look at all, for whoever set none. */
        dragon_node_update_pollers(node, has_bits(ready) ? ready : all);
    }
    return NULL;
}

/* ---- supervisor ---- */

/* A watched process has ended. */
static void note_end(struct dragon_node *node, int fd, int32_t pid)
{
    uint32_t status = DRAGON_STATUS_UNKNOWN;

    (void)dragon_os_wait_status(fd, pid, &status);
    dragon_os_epoll_remove(node->epoll_fd, fd);
    dragon_os_close(fd);
    if (!dragon_node_bury(node, pid, status))
        dragon_table_ask_to_watch(&node->table);
}

static void *watch_thread(void *argument)
{
    struct dragon_node *node = argument;

    dragon_os_thread_name("dragon/watch");
    for (;;) {
        uint64_t tags[16];
        int n = dragon_os_epoll_wait(node->epoll_fd, tags, 16, DRAGON_FOREVER);

        for (int i = 0; i < n; i++) {
            int fd = (int)(tags[i] >> 32);
            int32_t pid = (int32_t)(tags[i] >> 1 & INT32_MAX);

            if ((tags[i] & 1) == DRAGON_NODE_WATCHED_LEADER)
                dragon_os_kill_self();
            note_end(node, fd, pid);
        }
        if (n < 0)
            return NULL; /* the descriptor was closed under us */
    }
}

/* ---- starting them ---- */

static int start_once(struct dragon_node *node, bool *has, void *(*run)(void *))
{
    int r = 0;

    pthread_mutex_lock(&node->mutex);
    if (!*has) {
        r = dragon_os_thread_start(run, node);
        *has = r == 0;
    }
    pthread_mutex_unlock(&node->mutex);
    return dragon_error_trace(r);
}

int dragon_node_start_memory_thread(struct dragon_node *node)
{
    return start_once(node, &node->has_memory_thread, memory_thread);
}

int dragon_node_start_channels_thread(struct dragon_node *node)
{
    uint32_t holder;
    int r = dragon_node_holder(node, &holder);

    if (r < 0)
        return dragon_error_trace(r);
    return start_once(node, &node->has_channels_thread, channels_thread);
}

int dragon_node_start_watch_thread(struct dragon_node *node)
{
    return start_once(node, &node->has_watch_thread, watch_thread);
}
