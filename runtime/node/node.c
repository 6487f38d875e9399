#include "node/node.h"

#include "base/alloc.h"
#include "base/deadline.h"
#include "base/error.h"
#include "channel/in_flight.h"
#include "memory/pool.h"
#include "node/threads.h"
#include "os/cgroup.h"
#include "os/os.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#define ROOT_MAGIC UINT64_C(0x31304e4f47415244) /* "DRAGON01" */
#define DEFAULT_POOL_NUMBER 1
/* A copy says that it is there as soon as it runs. One that is held up for longer than this
 * may have no objects, if this process ends meanwhile. */
#define AWAIT_COPY_NS (2 * DRAGON_NS_PER_S)
#define SMALLEST_POOL_BYTES (UINT64_C(1) << 20)

/* At the root of a node's default pool. Written by the head before anybody
 * else can see the pool. */
struct root {
    uint64_t magic;
    uint64_t head_start_ticks;
    int32_t head_pid;
    uint32_t reserved[11];
    struct dragon_table_shared table;
};

_Static_assert(sizeof(struct root) <= DRAGON_POOL_ROOT_BYTES, "fits the root");
_Static_assert(offsetof(struct root, table) % 64 == 0, "the table's alignment");

/* The globals of the runtime: the node that this process belongs to, and how to
 * open it. The mutex guards the step from one to the other. */
static struct dragon_node *_Atomic current;
static struct dragon_node_options planned;
static bool is_planned;
static int begin_error;
static pthread_mutex_t begin_mutex = PTHREAD_MUTEX_INITIALIZER;

static void wait_until_opened(struct dragon_node *node)
{
    while (dragon_observe(&node->state) == DRAGON_NODE_OPENING) {
        uint32_t key = dragon_eventcount_prepare(&node->opened);

        if (dragon_observe(&node->state) == DRAGON_NODE_OPENING)
            (void)dragon_eventcount_park_until(&node->opened, key, DRAGON_FOREVER);
    }
}

void dragon_node_plan(const struct dragon_node_options *options)
{
    planned = *options;
    is_planned = true;
}

void dragon_node_begin(void)
{
    struct dragon_node *node;

    if (dragon_observe(&current))
        return;
    pthread_mutex_lock(&begin_mutex);
    if (is_planned && !dragon_observe(&current))
        begin_error = dragon_node_open(&planned, &node);
    is_planned = false;
    pthread_mutex_unlock(&begin_mutex);
}

struct dragon_node *dragon_node_current(void)
{
    struct dragon_node *node;

    dragon_node_begin();
    node = dragon_observe(&current);
    if (!node)
        return NULL;
    wait_until_opened(node);
    return dragon_observe(&node->state) == DRAGON_NODE_OPEN ? node : NULL;
}

struct dragon_node *dragon_node_if_open(void)
{
    struct dragon_node *node = dragon_observe(&current);

    return node && dragon_observe(&node->state) == DRAGON_NODE_OPEN ? node : NULL;
}

int dragon_node_error(void)
{
    struct dragon_node *node = dragon_observe(&current);

    if (!node)
        return begin_error;
    wait_until_opened(node);
    return node->error;
}

/* ---- fork ---- */

/* The slot that this thread has claimed for the copy that it is about to fork. Of the
 * thread, as several may be between the two halves at once, and each has a copy of its own. */
static _Thread_local uint32_t copy_slot = DRAGON_NODE_NO_SLOT;

/* A fork in the middle of the opening would copy half a node. */
static void before_fork(void)
{
    struct dragon_node *node = dragon_observe(&current);

    if (node)
        wait_until_opened(node);
}

/* Take the slot that was claimed for this copy. */
static void become_copy(struct dragon_node *node)
{
    uint32_t slot = copy_slot;

    copy_slot = DRAGON_NODE_NO_SLOT;
    dragon_publish(&node->slot, DRAGON_NODE_NO_SLOT);
    node->start_ticks = 0;
    if (slot == DRAGON_NODE_NO_SLOT)
        return;
    (void)dragon_os_start_time(dragon_os_pid(), &node->start_ticks); /* else: not said */
    if (dragon_table_become(&node->table, slot, dragon_os_pid(), node->start_ticks))
        dragon_publish(&node->slot, slot);
}

/* The copy has the memory but not the threads; what is its parent's is not its
 * own. A lock that another thread held at the fork stays held for ever in the
 * copy, so the locks are made anew. */
static void after_fork_in_child(void)
{
    struct dragon_node *node = dragon_observe(&current);

    pthread_mutex_init(&begin_mutex, NULL);
    if (!node || dragon_observe(&node->state) != DRAGON_NODE_OPEN)
        return;
    pthread_mutex_init(&node->mutex, NULL);
    pthread_mutex_init(&node->pollers_mutex, NULL);
    memset(node->pollers, 0, sizeof node->pollers);
    dragon_poke(&node->n_pollers, 0);
    node->n_forks++;
    dragon_eventcount_init(&node->own_memory_work);
    node->memory_work = &node->own_memory_work;
    dragon_poke(&node->memory_requests, 0);
    node->has_memory_thread = false;
    node->has_channels_thread = false;
    node->has_watch_thread = false;
    node->is_head = false;
    dragon_poke(&node->has_children, 0);
    become_copy(node);
    dragon_os_close(node->epoll_fd);
    node->epoll_fd = -1;
}

static void register_fork_handler(void)
{
    static bool is_registered;

    if (!is_registered && pthread_atfork(before_fork, NULL, after_fork_in_child) == 0)
        is_registered = true;
}

/* ---- opening ---- */

/* The pool reserves address space for all it may grow to; memory is taken as
 * it is used. Where address space itself is short, take less. The limit of the
 * control group is known before the first block: beyond it the kernel kills. */
static int create_pool(uint64_t id, struct dragon_pool **pool_out)
{
    uint64_t machine_bytes = dragon_os_memory_limit();
    uint64_t group_bytes = dragon_cgroup_memory_limit("");
    uint64_t size_bytes = (machine_bytes < group_bytes ? machine_bytes : group_bytes) / 8 * 7;
    int r;

    do {
        r = dragon_pool_create_managed(size_bytes, id, DEFAULT_POOL_NUMBER, pool_out);
        size_bytes /= 2;
    } while (r < 0 && size_bytes >= SMALLEST_POOL_BYTES);
    return dragon_error_trace(r);
}

static uint64_t table_offset(struct dragon_pool *pool)
{
    struct root *root = dragon_pool_root(pool);

    return (uint64_t)((char *)&root->table - (char *)dragon_pool_at(pool, 0));
}

static int create_node(struct dragon_node *node)
{
    struct root *root;
    int r;

    r = dragon_os_random(&node->id, sizeof node->id);
    if (r == 0)
        r = create_pool(node->id, &node->pool);
    if (r < 0)
        return dragon_error_trace(r);
    r = dragon_table_init(&node->table, node->pool, table_offset(node->pool));
    if (r < 0) {
        dragon_pool_close(node->pool);
        return dragon_error_trace(r);
    }
    root = dragon_pool_root(node->pool);
    root->magic = ROOT_MAGIC;
    root->head_pid = dragon_os_pid();
    node->is_head = true;
    node->memory_work = dragon_pool_grown(node->pool);
    node->head_pid = root->head_pid;
    return 0;
}

static int say_when_head_started(struct dragon_node *node)
{
    struct root *root = dragon_pool_root(node->pool);
    uint64_t ticks;
    int r;

    if (root->head_start_ticks != 0)
        return 0;
    r = dragon_os_start_time(node->head_pid, &ticks);
    if (r == 0)
        root->head_start_ticks = ticks;
    return dragon_error_trace(r);
}

/* Processes say when they started before anybody joins, and not earlier: most
 * programs never start a process, and the answer costs a read of /proc. */
int dragon_node_invite(struct dragon_node *node)
{
    struct dragon_table_slot *slot;
    uint32_t holder;
    int r = say_when_head_started(node);

    if (r == 0)
        r = dragon_node_holder(node, &holder);
    if (r != 0)
        return dragon_error_trace(r);
    slot = dragon_table_claimed(&node->table, holder - DRAGON_HOLDER_FIRST_SLOT);
    if (dragon_peek(&slot->start_ticks) == 0) {
        r = dragon_os_start_time(dragon_os_pid(), &node->start_ticks);
        if (r < 0)
            return dragon_error_trace(r);
        dragon_poke(&slot->start_ticks, node->start_ticks);
    }
    return 0;
}

/* Reading the head's start time tells it from a later process with its pid. */
static int check_head(const struct root *root)
{
    uint64_t ticks;
    int r = dragon_os_start_time(root->head_pid, &ticks);

    if (r == 0 && ticks != root->head_start_ticks)
        r = dragon_error_origin(-ESRCH);
    return dragon_error_trace(r);
}

static int join_node(struct dragon_node *node, int fd)
{
    const struct root *root;
    int r;

    r = dragon_pool_open_fd(fd, &node->pool);
    if (r < 0)
        return dragon_error_trace(r);
    root = dragon_pool_root(node->pool);
    r = root->magic == ROOT_MAGIC ? check_head(root) : dragon_error_origin(-EBADMSG);
    if (r == 0)
        r = dragon_os_start_time(dragon_os_pid(), &node->start_ticks);
    if (r < 0) {
        dragon_pool_close(node->pool);
        return dragon_error_trace(r);
    }
    dragon_table_open(&node->table, node->pool, table_offset(node->pool));
    node->id = dragon_pool_node(node->pool);
    node->head_pid = root->head_pid;
    return 0;
}

static void end_members(struct dragon_table *table)
{
    uint32_t n = dragon_table_n_slots(table);

    for (uint32_t i = 0; i < n; i++) {
        const struct dragon_table_slot *slot = dragon_table_claimed(table, i);
        uint32_t state = dragon_observe(&slot->state);

        if ((state == DRAGON_TABLE_ALIVE || state == DRAGON_TABLE_ENDING) &&
            dragon_observe(&slot->is_copy) == 0)
            dragon_os_kill_process_of_session(dragon_peek(&slot->pid),
                                              dragon_peek(&slot->start_ticks));
    }
}

void dragon_node_end_members(int fd)
{
    struct dragon_pool *pool;
    const struct root *root;
    struct dragon_table table;

    if (dragon_pool_open_fd(fd, &pool) < 0)
        return;
    root = dragon_pool_root(pool);
    if (root->magic == ROOT_MAGIC) {
        dragon_table_open(&table, pool, table_offset(pool));
        end_members(&table);
    }
    dragon_pool_close(pool);
}

static int start_threads(struct dragon_node *node)
{
    int r = dragon_node_start_watch_thread(node);

    if (r == 0 && node->is_head)
        r = dragon_node_start_memory_thread(node);
    if (r == 0 && node->is_head)
        r = dragon_node_start_channels_thread(node);
    if (r == 0 && !node->is_head)
        r = dragon_node_follow(node, node->head_pid);
    return dragon_error_trace(r);
}

static int fill(struct dragon_node *node)
{
    int attach_fd = node->options.attach_fd;
    uint32_t holder;
    int r;

    r = dragon_os_epoll_create(&node->epoll_fd);
    node->epoll_fd = r == 0 ? dragon_os_move_high(node->epoll_fd) : -1;
    if (r < 0) {
        dragon_os_close(attach_fd);
        return dragon_error_trace(r);
    }
    r = attach_fd < 0 ? create_node(node) : join_node(node, attach_fd);
    if (r < 0)
        goto close_epoll;
    r = dragon_node_holder(node, &holder);
    if (r < 0)
        goto close_pool;
    /* From the first thread on, what it uses stays, whatever happens. */
    return node->options.start_threads ? dragon_error_trace(start_threads(node)) : 0;

close_pool:
    dragon_pool_close(node->pool);
close_epoll:
    dragon_os_close(node->epoll_fd);
    node->epoll_fd = -1;
    return dragon_error_trace(r);
}

int dragon_node_finish_open(struct dragon_node *node)
{
    int r = fill(node);

    node->error = r;
    dragon_publish(&node->state, r < 0 ? DRAGON_NODE_FAILED : DRAGON_NODE_OPEN);
    dragon_eventcount_wake_all(&node->opened);
    return dragon_error_trace(r);
}

static struct dragon_node *new_node(const struct dragon_node_options *options)
{
    struct dragon_node *node = dragon_alloc_zeroed(sizeof *node);

    if (!node)
        return NULL;
    pthread_mutex_init(&node->mutex, NULL);
    pthread_mutex_init(&node->pollers_mutex, NULL);
    dragon_poke(&node->slot, DRAGON_NODE_NO_SLOT);
    node->epoll_fd = -1;
    node->options = *options;
    node->memory_work = &node->own_memory_work;
    return node;
}

/* Opening a new node takes some 0.2 ms of system calls; the caller, who starts an
 * interpreter, need not wait for them. Who joins one waits for it. */
static int begin_open(struct dragon_node *node)
{
    int r;

    if (!node->options.start_threads)
        return dragon_error_trace(dragon_node_finish_open(node));
    if (node->options.attach_fd >= 0) {
        (void)dragon_node_finish_open(node); /* its threads may run: it stays, opened or not */
        return 0;
    }
    node->has_memory_thread = true;
    r = dragon_os_thread_start(dragon_node_opening_thread, node);
    if (r < 0)
        dragon_os_close(node->options.attach_fd);
    return dragon_error_trace(r);
}

int dragon_node_open(const struct dragon_node_options *options, struct dragon_node **node_out)
{
    bool is_busy = dragon_observe(&current) != NULL;
    struct dragon_node *node = is_busy ? NULL : new_node(options);
    int r;

    if (!node) {
        dragon_os_close(options->attach_fd);
        return dragon_error_origin(is_busy ? -EBUSY : -ENOMEM);
    }
    register_fork_handler();
    dragon_publish(&current, node);
    r = begin_open(node);
    if (r < 0) {
        dragon_publish(&current, NULL);
        dragon_alloc_free(node);
        return dragon_error_trace(r);
    }
    *node_out = node;
    return 0;
}

/* Say that this process ends. The slot's index, or DRAGON_NODE_NO_SLOT. */
static uint32_t say_end(struct dragon_node *node)
{
    uint32_t index;

    wait_until_opened(node);
    index = dragon_observe(&node->slot);
    if (index == DRAGON_NODE_NO_SLOT)
        return index;
    dragon_publish(&dragon_table_claimed(&node->table, index)->state, DRAGON_TABLE_ENDING);
    if (dragon_peek(&node->has_children) && !node->is_head) /* with the head, all end */
        dragon_table_disown(&node->table, index);
    return index;
}

void dragon_node_leave_threads_behind(void)
{
    struct dragon_node *node = dragon_observe(&current);

    if (node)
        (void)say_end(node);
}

void dragon_node_leave(void)
{
    struct dragon_node *node = dragon_observe(&current);
    uint32_t index;

    if (!node)
        return;
    /* The node's own threads may be in the middle of anything: memory stays mapped and
     * `node` stays allocated until the process is gone. */
    index = say_end(node);
    if (index != DRAGON_NODE_NO_SLOT) {
        /* Without memory for that, somebody will find this process gone. */
        if (dragon_in_flight_leave(node->pool, DRAGON_HOLDER_FIRST_SLOT + index) == 0)
            dragon_table_release(&node->table, index);
        dragon_publish(&node->slot, DRAGON_NODE_NO_SLOT);
    }
    dragon_publish(&current, NULL);
}

/* ---- use ---- */

struct dragon_pool *dragon_node_pool(struct dragon_node *node)
{
    if (dragon_peek(&node->is_prefaulted) == 0 && dragon_exchange(&node->is_prefaulted, 1) == 0 &&
        node->is_head)
        dragon_node_request(node, DRAGON_NODE_PREFAULT);
    return node->pool;
}

uint64_t dragon_node_id(const struct dragon_node *node)
{
    return node->id;
}

bool dragon_node_is_head(const struct dragon_node *node)
{
    return node->is_head;
}

static int claim_slot_locked(struct dragon_node *node)
{
    bool is_copy = node->start_ticks == 0 && !node->is_head;
    uint32_t slot;
    int r;

    if (dragon_peek(&node->slot) != DRAGON_NODE_NO_SLOT)
        return 0;
    if (is_copy) {
        r = dragon_os_start_time(dragon_os_pid(), &node->start_ticks);
        if (r < 0)
            return dragon_error_trace(r);
    }
    r = dragon_table_claim(&node->table, dragon_os_pid(), node->start_ticks, getppid(), &slot);
    if (r == DRAGON_TABLE_FULL)
        return dragon_error_origin(-EAGAIN);
    if (r == 0 && is_copy) {
        dragon_poke(&dragon_table_claimed(&node->table, slot)->is_copy, 1);
        dragon_table_unwatch(&node->table, slot);
    }
    if (r == 0 && node->is_head)
        dragon_table_set_name(&node->table, slot, "MainProcess"); /* as multiprocessing has it */
    if (r == 0)
        dragon_publish(&node->slot, slot);
    return dragon_error_trace(r);
}

int dragon_node_before_fork(struct dragon_node *node, struct dragon_node_fork *fork)
{
    uint32_t holder, slot;
    int r = dragon_node_holder(node, &holder);

    if (r == 0)
        r = dragon_table_claim_for_copy(&node->table, holder - DRAGON_HOLDER_FIRST_SLOT, &slot);
    if (r == DRAGON_TABLE_FULL)
        return dragon_error_origin(-EAGAIN);
    if (r != 0)
        return dragon_error_trace(r);
    dragon_poke(&node->has_children, 1);
    *fork = (struct dragon_node_fork){DRAGON_HOLDER_FIRST_SLOT + slot, copy_slot};
    copy_slot = slot;
    return 0;
}

void dragon_node_after_fork(struct dragon_node *node, const struct dragon_node_fork *fork)
{
    copy_slot = fork->outer_slot;
    (void)dragon_table_await_copy(&node->table, fork->holder - DRAGON_HOLDER_FIRST_SLOT,
                                  dragon_deadline_after_ns(AWAIT_COPY_NS));
    dragon_table_ask_to_watch(&node->table); /* a copy that was killed first did not */
}

int dragon_node_holder(struct dragon_node *node, uint32_t *holder_out)
{
    int r = 0;

    if (dragon_observe(&node->slot) == DRAGON_NODE_NO_SLOT) {
        pthread_mutex_lock(&node->mutex);
        r = claim_slot_locked(node);
        pthread_mutex_unlock(&node->mutex);
    }
    if (r == 0)
        *holder_out = DRAGON_HOLDER_FIRST_SLOT + dragon_peek(&node->slot);
    return dragon_error_trace(r);
}

/* ---- who is there ---- */

_Static_assert(DRAGON_NODE_NAME_BYTES == DRAGON_TABLE_NAME_BYTES, "handed through");

int dragon_node_number(struct dragon_node *node, uint64_t *number_out)
{
    uint32_t holder;
    int r = dragon_node_holder(node, &holder);

    if (r == 0)
        *number_out = dragon_peek(
            &dragon_table_claimed(&node->table, holder - DRAGON_HOLDER_FIRST_SLOT)->number);
    return dragon_error_trace(r);
}

int dragon_node_set_name(struct dragon_node *node, const char *name)
{
    uint32_t holder;
    int r = dragon_node_holder(node, &holder);

    if (r == 0)
        dragon_table_set_name(&node->table, holder - DRAGON_HOLDER_FIRST_SLOT, name);
    return dragon_error_trace(r);
}

bool dragon_node_has(struct dragon_node *node, uint64_t number)
{
    return dragon_table_has(&node->table, number);
}

void dragon_node_look_for(struct dragon_node *node, uint64_t number)
{
    int32_t pid = dragon_table_pid_of(&node->table, number);

    if (pid != 0 && pid != dragon_os_pid())
        (void)dragon_node_bury(node, pid, DRAGON_STATUS_UNKNOWN);
}

void dragon_node_settle(struct dragon_node *node)
{
    dragon_table_bury_all(&node->table);
    dragon_table_sweep_dead(&node->table);
}

void dragon_node_name_of_dead(struct dragon_node *node, uint64_t death,
                              char name_out[DRAGON_NODE_NAME_BYTES])
{
    dragon_table_name_of_dead(&node->table, death, name_out);
}

const _Atomic uint32_t *dragon_node_slot(const struct dragon_node *node)
{
    return &node->slot;
}

/* A pidfd in the supervisor's epoll, with a tag that says what it stands for. */
static int watch(struct dragon_node *node, int32_t pid, enum dragon_node_watched what)
{
    int fd, r;

    if (!node->options.start_threads)
        return 0;
    if (node->epoll_fd < 0) {
        r = dragon_os_epoll_create(&node->epoll_fd);
        if (r < 0)
            return dragon_error_trace(r);
        node->epoll_fd = dragon_os_move_high(node->epoll_fd);
    }
    r = dragon_node_start_watch_thread(node);
    if (r == 0)
        r = dragon_os_pidfd_open(pid, &fd);
    if (r != 0)
        return dragon_error_trace(r);
    fd = dragon_os_move_high(fd);
    r = dragon_os_epoll_add(node->epoll_fd, fd,
                            (uint64_t)fd << 32 | (uint64_t)pid << 1 | (uint64_t)what);
    if (r < 0)
        dragon_os_close(fd);
    if (r == -EINVAL) /* the number is another descriptor's by now */
        return dragon_error_origin(-EBADF);
    return dragon_error_trace(r);
}

int dragon_node_watch_child(struct dragon_node *node, int32_t pid)
{
    dragon_poke(&node->has_children, 1);
    return dragon_error_trace(watch(node, pid, DRAGON_NODE_WATCHED_CHILD));
}

int dragon_node_follow(struct dragon_node *node, int32_t pid)
{
    return dragon_error_trace(watch(node, pid, DRAGON_NODE_WATCHED_LEADER));
}
