#include "memory/pool.h"
#include "node/node.h"
#include "node/threads.h"
#include "os/os.h"
#include "support/shared_page.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

TestSuite(node, .timeout = 60);

static const struct dragon_node_options new_node = {.attach_fd = -1, .start_threads = true};
static const struct dragon_node_options quiet_node = {.attach_fd = -1, .start_threads = false};

static struct dragon_node *open_node(const struct dragon_node_options *options)
{
    struct dragon_node *node;

    cr_assert_eq(dragon_node_open(options, &node), 0);
    cr_assert_eq(dragon_node_current(), node);
    return node;
}

static uint64_t n_blocks(struct dragon_pool *pool)
{
    struct dragon_pool_statistics statistics;

    dragon_pool_statistics(pool, &statistics);
    return statistics.n_blocks;
}

/* What forked children report. */
struct report {
    _Atomic int fd;    /* of the head's pool; 0: not yet */
    _Atomic int state; /* how far the child is */
    _Atomic uint32_t holder;
};

static bool is_there(void *word)
{
    return atomic_load((_Atomic int *)word) != 0;
}

/* ---- memory ---- */

static bool is_back_at_the_mark(void *pool)
{
    /* The mark, and the chunk of the block that is kept. */
    return dragon_pool_committed_bytes(pool) <= DRAGON_POOL_HIGH_WATER_BYTES + 65536;
}

Test(node, memory_that_nobody_uses_any_more_is_given_back)
{
    struct dragon_node_options options = {
        .attach_fd = -1, .start_threads = true, .idle_ns = 20 * 1000 * 1000};
    struct dragon_pool *pool = dragon_node_pool(open_node(&options));
    struct dragon_handle large, kept;

    cr_assert_eq(dragon_pool_alloc(pool, 100, DRAGON_HOLDER_SHARED, &kept), 0);
    /* Twice, since the thread must notice that the pool grows again. */
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(
            dragon_pool_alloc(pool, 3 * DRAGON_POOL_HIGH_WATER_BYTES, DRAGON_HOLDER_SHARED, &large),
            0);
        cr_assert_gt(dragon_pool_committed_bytes(pool), DRAGON_POOL_HIGH_WATER_BYTES);
        cr_assert_eq(dragon_pool_free(pool, &large), 0);
        cr_assert(becomes_true(is_back_at_the_mark, pool));
    }
    cr_assert_eq(dragon_pool_free(pool, &kept), 0);
    cr_assert(dragon_pool_check(pool));
}

/* ---- opening ---- */

Test(node, the_first_process_is_the_head)
{
    struct dragon_node *node = open_node(&new_node);
    uint32_t holder, again;

    cr_assert(dragon_node_is_head(node));
    cr_assert_neq(dragon_node_id(node), 0);
    cr_assert_eq(dragon_pool_node(dragon_node_pool(node)), dragon_node_id(node));
    cr_assert_eq(dragon_node_holder(node, &holder), 0);
    cr_assert_geq(holder, DRAGON_HOLDER_FIRST_SLOT);
    cr_assert_eq(dragon_node_holder(node, &again), 0);
    cr_assert_eq(again, holder);
    cr_assert_eq(dragon_node_error(), 0);
}

Test(node, a_process_has_none_at_first)
{
    cr_assert_null(dragon_node_current());
    cr_assert_eq(dragon_node_error(), 0);
    dragon_node_leave();
}

Test(node, a_process_has_one_at_a_time)
{
    struct dragon_node_options options = {.attach_fd = dup(0)};
    struct dragon_node *other;

    open_node(&quiet_node);
    cr_assert_eq(dragon_node_open(&options, &other), -EBUSY);
    cr_assert_lt(fcntl(options.attach_fd, F_GETFD), 0, "it is closed all the same");
    dragon_node_leave();
    cr_assert_null(dragon_node_current());
    open_node(&quiet_node);
}

static int file_without_pool(void)
{
    int fd = memfd_create("test", 0);

    cr_assert_eq(ftruncate(fd, 1 << 20), 0);
    return fd;
}

static int pool_without_node(void)
{
    struct dragon_pool *pool;
    int fd;

    cr_assert_eq(dragon_pool_create_managed(1 << 20, 7, 1, &pool), 0);
    fd = dup(dragon_pool_fd(pool));
    dragon_pool_close(pool);
    return fd;
}

Test(node, what_is_no_pool_of_a_node_is_refused)
{
    struct dragon_node *node;

    for (int i = 0; i < 2; i++) {
        struct dragon_node_options options = {.attach_fd =
                                                  i ? file_without_pool() : pool_without_node()};

        cr_assert_eq(dragon_node_open(&options, &node), -EBADMSG);
        cr_assert_null(dragon_node_current());
        cr_assert_lt(fcntl(options.attach_fd, F_GETFD), 0);
    }
}

Test(node, an_opening_that_fails_behind_the_scenes_is_told)
{
    struct dragon_node_options options = {.attach_fd = file_without_pool(), .start_threads = true};
    struct dragon_node *node;

    cr_assert_eq(dragon_node_open(&options, &node), 0);
    cr_assert_null(dragon_node_current());
    cr_assert_eq(dragon_node_error(), -EBADMSG);
    cr_assert_lt(fcntl(options.attach_fd, F_GETFD), 0);
}

Test(node, a_planned_one_is_opened_when_it_is_first_asked_for)
{
    int first_fd = dup(0), next_fd;

    close(first_fd);
    dragon_node_plan(&new_node);
    next_fd = dup(0);
    cr_assert_eq(next_fd, first_fd, "nothing is open yet");
    cr_assert_not_null(dragon_node_current());
    cr_assert(dragon_node_is_head(dragon_node_current()));
}

Test(node, beginning_twice_opens_one)
{
    struct dragon_node *node;

    dragon_node_begin();
    cr_assert_null(dragon_node_current());
    dragon_node_plan(&new_node);
    dragon_node_begin();
    dragon_node_begin();
    node = dragon_node_current();
    cr_assert_not_null(node);
    cr_assert_eq(dragon_node_current(), node);
}

Test(node, a_planned_one_that_cannot_be_opened_says_why)
{
    struct dragon_node_options options = {.attach_fd = file_without_pool()};

    dragon_node_plan(&options);
    cr_assert_null(dragon_node_current());
    cr_assert_eq(dragon_node_error(), -EBADMSG);
}

/* ---- runtime threads ---- */

static int count_threads(const char *name)
{
    DIR *folder = opendir("/proc/self/task");
    struct dirent *entry;
    int n = 0;

    while ((entry = readdir(folder)) != NULL) {
        char path[300], comm[32] = "";
        FILE *file;

        snprintf(path, sizeof path, "/proc/self/task/%s/comm", entry->d_name);
        file = fopen(path, "r");
        if (!file)
            continue;
        if (fgets(comm, sizeof comm, file))
            comm[strcspn(comm, "\n")] = '\0';
        fclose(file);
        n += strcmp(comm, name) == 0;
    }
    closedir(folder);
    return n;
}

static bool has_thread(void *name)
{
    return count_threads(name) == 1;
}

Test(node, the_head_has_three_threads_with_names)
{
    open_node(&new_node);
    cr_assert(becomes_true(has_thread, "dragon/memory"));
    cr_assert(becomes_true(has_thread, "dragon/channels"));
    cr_assert(becomes_true(has_thread, "dragon/watch"));
}

Test(node, without_threads_there_are_none)
{
    struct dragon_node *node = open_node(&quiet_node);

    dragon_node_pool(node);
    cr_assert_eq(dragon_node_watch_child(node, getppid()), 0);
    cr_assert_eq(count_threads("dragon/memory"), 0);
    cr_assert_eq(count_threads("dragon/channels"), 0);
    cr_assert_eq(count_threads("dragon/watch"), 0);
}

static bool has_committed(void *pool)
{
    struct dragon_pool_statistics statistics;

    dragon_pool_statistics(pool, &statistics);
    return statistics.committed_bytes >= 1 << 20;
}

Test(node, the_first_use_of_the_pool_brings_memory)
{
    cr_assert(becomes_true(has_committed, dragon_node_pool(open_node(&new_node))));
}

/* ---- closing and forking ---- */

Test(node, closing_frees_the_blocks_of_this_process_only)
{
    struct dragon_node *node = open_node(&quiet_node);
    struct dragon_pool *pool = dragon_node_pool(node);
    struct dragon_handle handle;
    uint64_t n_before = n_blocks(pool);
    uint32_t holder;

    cr_assert_eq(dragon_node_holder(node, &holder), 0);
    cr_assert_eq(dragon_pool_alloc(pool, 100, holder, &handle), 0);
    cr_assert_eq(dragon_pool_alloc(pool, 100000, holder, &handle), 0);
    cr_assert_eq(dragon_pool_alloc(pool, 100, DRAGON_HOLDER_SHARED, &handle), 0);
    dragon_node_leave();
    cr_assert_eq(n_blocks(pool), n_before + 1);
}

static int peek_as_a_copy(void *node)
{
    uint32_t holder;

    if (dragon_peek(dragon_node_slot(node)) != DRAGON_NODE_NO_SLOT)
        return 1;
    if (dragon_node_holder(node, &holder) != 0)
        return 2;
    return dragon_peek(dragon_node_slot(node)) + DRAGON_HOLDER_FIRST_SLOT == holder ? 0 : 3;
}

Test(node, the_slot_that_may_be_peeked_at_is_the_holders_and_no_copys)
{
    struct dragon_node *node = open_node(&quiet_node);
    const _Atomic uint32_t *slot = dragon_node_slot(node);
    uint32_t holder;

    cr_assert_eq(dragon_node_holder(node, &holder), 0);
    cr_assert_eq(dragon_peek(slot) + DRAGON_HOLDER_FIRST_SLOT, holder);
    cr_assert_eq(child_result(child_start(peek_as_a_copy, node)), 0);
    dragon_node_leave();
    cr_assert_eq(dragon_peek(slot), DRAGON_NODE_NO_SLOT);
}

static int hold_blocks(struct dragon_node *node, int n, uint32_t *holder_out)
{
    struct dragon_handle handle;

    if (dragon_node_holder(node, holder_out) < 0)
        return 1;
    for (int i = 0; i < n; i++)
        if (dragon_pool_alloc(dragon_node_pool(node), 100, *holder_out, &handle) != 0)
            return 2;
    return 0;
}

static int fork_and_use(void *report)
{
    struct dragon_node *node = dragon_node_current();
    uint32_t holder;

    if (!node || dragon_node_is_head(node) || hold_blocks(node, 5, &holder) != 0)
        return 1;
    atomic_store(&((struct report *)report)->holder, holder);
    dragon_node_leave();
    return 0;
}

Test(node, a_forked_copy_has_a_slot_of_its_own_and_gives_it_back)
{
    struct report *report = shared_page(sizeof *report);
    struct dragon_node *node = open_node(&new_node);
    uint64_t n_before = n_blocks(dragon_node_pool(node));
    uint32_t holder, slot;
    pid_t child;

    cr_assert_eq(dragon_node_holder(node, &holder), 0);
    child = child_start(fork_and_use, report);
    cr_assert_eq(child_result(child), 0);
    cr_assert_neq(atomic_load(&report->holder), holder);
    cr_assert_eq(n_blocks(dragon_node_pool(node)), n_before);
    cr_assert_not(dragon_table_find(&node->table, child, &slot));
    cr_assert(dragon_node_is_head(node));
}

/* ---- uses of copies ---- */

static struct dragon_node_fork promise; /* who the copy will be */

static int die_as_promised(void *node)
{
    if (dragon_peek(dragon_node_slot(node)) + DRAGON_HOLDER_FIRST_SLOT != promise.holder)
        return 1;
    kill(getpid(), SIGKILL);
    return 2;
}

static bool has_blocks_of_the_promised(void *pool)
{
    return dragon_pool_has_blocks_of(pool, promise.holder);
}

static bool has_none(void *pool)
{
    return !has_blocks_of_the_promised(pool);
}

Test(node, a_copy_is_who_was_promised_and_the_head_notices_its_death)
{
    struct dragon_node *node = open_node(&new_node);
    struct dragon_pool *pool = dragon_node_pool(node);
    struct dragon_handle handle;
    pid_t child;

    cr_assert_eq(dragon_node_before_fork(node, &promise), 0);
    cr_assert_eq(dragon_pool_alloc(pool, 100, promise.holder, &handle), 0);
    child = child_start(die_as_promised, node);
    dragon_node_after_fork(node, &promise);
    cr_assert_eq(child_result(child), 256 + SIGKILL);
    cr_assert(becomes_true(has_none, pool));
}

static void allow_descriptors(rlim_t n)
{
    struct rlimit limit;

    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = n;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static bool was_looked_for(void *shared)
{
    return dragon_peek(&((struct dragon_table_shared *)shared)->has_unwatched) == 0;
}

static int live_on(void *unused)
{
    (void)unused;
    pause();
    return 0;
}

Test(node, a_copy_for_which_there_was_no_descriptor_is_watched_later)
{
    struct dragon_node *node = open_node(&new_node);
    struct dragon_pool *pool = dragon_node_pool(node);
    struct dragon_handle handle;
    pid_t child;

    cr_assert_eq(dragon_node_before_fork(node, &promise), 0);
    cr_assert_eq(dragon_pool_alloc(pool, 100, promise.holder, &handle), 0);
    allow_descriptors(1);
    child = child_start(live_on, NULL);
    dragon_node_after_fork(node, &promise);
    cr_assert(becomes_true(was_looked_for, node->table.shared));
    cr_assert_eq(child_kill(child), 256 + SIGKILL);
    allow_descriptors(256);
    cr_assert(becomes_true(has_none, pool));
}

static void hold_up_the_copy(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 100 * 1000 * 1000}, NULL);
}

Test(node, a_fork_is_over_when_the_copy_stands_for_itself_and_its_parent_may_end)
{
    struct dragon_table_slot *slot;
    struct dragon_node *node;
    pid_t child;

    cr_assert_eq(pthread_atfork(NULL, NULL, hold_up_the_copy), 0); /* it runs before the node's */
    node = open_node(&quiet_node);
    cr_assert_eq(dragon_node_before_fork(node, &promise), 0);
    child = child_start(die_as_promised, node);
    dragon_node_after_fork(node, &promise);
    slot = dragon_table_claimed(&node->table, promise.holder - DRAGON_HOLDER_FIRST_SLOT);
    cr_assert_eq(slot->state, DRAGON_TABLE_ALIVE);
    cr_assert_eq(slot->pid, child);
    cr_assert_eq(child_result(child), 256 + SIGKILL);
}

static int be_somebody_else(void *node)
{
    return dragon_peek(dragon_node_slot(node)) == DRAGON_NODE_NO_SLOT ? 0 : 1;
}

static void *fork_in_a_thread(void *node)
{
    return (void *)(intptr_t)child_result(child_start(be_somebody_else, node));
}

Test(node, what_another_thread_forks_is_not_the_copy_that_was_promised)
{
    struct dragon_node *node = open_node(&quiet_node);
    pthread_t thread;
    void *result;

    cr_assert_eq(dragon_node_before_fork(node, &promise), 0);
    pthread_create(&thread, NULL, fork_in_a_thread, node);
    pthread_join(thread, &result);
    dragon_node_after_fork(node, &promise);
    cr_assert_null(result);
}

Test(node, the_parent_of_a_copy_that_cannot_ask_to_be_watched_asks_for_it)
{
    struct dragon_node *node = open_node(&quiet_node);

    cr_assert_eq(dragon_node_before_fork(node, &promise), 0);
    cr_assert_eq(child_result(child_start(die_as_promised, node)), 256 + SIGKILL);
    (void)dragon_table_take_unwatched(&node->table); /* what the copy has asked for */
    dragon_node_after_fork(node, &promise);
    cr_assert(dragon_table_take_unwatched(&node->table));
}

struct fork_of_a_thread {
    struct dragon_node *node;
    pthread_barrier_t *between;
    int result;
};

static int be_the_one_of(void *fork)
{
    struct dragon_node *node = dragon_node_current();

    return dragon_peek(dragon_node_slot(node)) + DRAGON_HOLDER_FIRST_SLOT ==
                   ((struct dragon_node_fork *)fork)->holder
               ? 0
               : 1;
}

static void *fork_with_a_promise(void *argument)
{
    struct fork_of_a_thread *this = argument;
    struct dragon_node_fork fork;
    pid_t child;

    if (dragon_node_before_fork(this->node, &fork) != 0)
        return NULL;
    pthread_barrier_wait(this->between);
    child = child_start(be_the_one_of, &fork);
    dragon_node_after_fork(this->node, &fork);
    this->result = child_result(child);
    return NULL;
}

Test(node, threads_that_fork_at_once_have_a_copy_of_their_own_each)
{
    struct dragon_node *node = open_node(&quiet_node);
    struct fork_of_a_thread forks[3];
    pthread_t threads[3];
    pthread_barrier_t between;

    pthread_barrier_init(&between, NULL, 3);
    for (int i = 0; i < 3; i++) {
        forks[i] = (struct fork_of_a_thread){node, &between, -1};
        pthread_create(&threads[i], NULL, fork_with_a_promise, &forks[i]);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        cr_expect_eq(forks[i].result, 0);
    }
}

Test(node, a_fork_in_the_middle_of_a_fork_has_a_copy_of_its_own)
{
    struct dragon_node *node = open_node(&quiet_node);
    struct dragon_node_fork outer, inner;
    pid_t child;

    cr_assert_eq(dragon_node_before_fork(node, &outer), 0);
    cr_assert_eq(dragon_node_before_fork(node, &inner), 0);
    child = child_start(be_the_one_of, &inner);
    dragon_node_after_fork(node, &inner);
    cr_assert_eq(child_result(child), 0);
    child = child_start(be_the_one_of, &outer);
    dragon_node_after_fork(node, &outer);
    cr_assert_eq(child_result(child), 0);
}

/* ---- several processes ---- */

/* A process that opens a node and tells where its pool is. */
static int be_head(void *argument)
{
    struct report *report = argument;
    struct dragon_node *node;

    if (dragon_node_open(&new_node, &node) != 0 || !dragon_node_current() ||
        dragon_node_invite(node) != 0)
        return 1;
    atomic_store(&report->fd, dragon_pool_fd(dragon_node_pool(node)));
    pause();
    return 0;
}

/* The pool of a head, as a child inherits it. */
static int open_pool_of(pid_t head, struct report *report)
{
    char path[64];

    if (!becomes_true(is_there, &report->fd))
        return -1;
    snprintf(path, sizeof path, "/proc/%d/fd/%d", head, atomic_load(&report->fd));
    return open(path, O_RDWR);
}

struct join {
    pid_t head;
    struct report *report;
};

static int join_and_wait(void *argument)
{
    struct join *join = argument;
    struct dragon_node_options options = {
        .attach_fd = open_pool_of(join->head, join->report),
        .start_threads = true,
    };
    struct dragon_node *node;
    uint32_t holder;

    if (dragon_node_open(&options, &node) != 0 || !dragon_node_current() ||
        dragon_node_is_head(node) || dragon_node_holder(node, &holder) != 0)
        return 1;
    atomic_store(&join->report->holder, holder);
    atomic_store(&join->report->state, 1);
    pause();
    return 2;
}

Test(node, everybody_ends_with_the_head)
{
    struct report *report = shared_page(sizeof *report);
    struct join join = {child_start(be_head, report), report};
    pid_t member = child_start(join_and_wait, &join);
    int64_t begin_ns;

    cr_assert(becomes_true(is_there, &report->state));
    begin_ns = dragon_now_ns();
    cr_assert_eq(child_kill(join.head), 256 + SIGKILL);
    cr_assert_eq(child_result(member), 256 + SIGKILL);
    cr_assert_lt(dragon_now_ns() - begin_ns, TEST_SECOND);
}

Test(node, a_process_that_joins_shares_the_pool)
{
    struct report *report = shared_page(sizeof *report);
    pid_t head = child_start(be_head, report);
    struct dragon_node_options options = {.attach_fd = open_pool_of(head, report)};
    struct dragon_node *node = open_node(&options);
    uint32_t holder, slot;

    cr_assert_not(dragon_node_is_head(node));
    cr_assert(dragon_table_find(&node->table, head, &slot));
    cr_assert_eq(dragon_node_holder(node, &holder), 0);
    cr_assert_neq(holder, DRAGON_HOLDER_FIRST_SLOT + slot);
    child_kill(head);
}

Test(node, one_whose_head_has_ended_cannot_be_joined)
{
    struct report *report = shared_page(sizeof *report);
    pid_t head = child_start(be_head, report);
    struct dragon_node_options options = {.attach_fd = open_pool_of(head, report)};
    struct dragon_node *node;

    child_kill(head);
    cr_assert_eq(dragon_node_open(&options, &node), -ESRCH);
    cr_assert_null(dragon_node_current());
}

Test(node, a_process_that_is_gone_can_be_neither_followed_nor_watched)
{
    struct dragon_node *node = open_node(&new_node);
    pid_t child = child_start(fork_and_use, shared_page(sizeof(struct report)));

    cr_assert_eq(child_result(child), 0);
    cr_assert_eq(dragon_node_follow(node, child), -ESRCH);
    cr_assert_eq(dragon_node_watch_child(node, child), -ESRCH);
}

Test(node, it_is_told_that_the_program_has_closed_the_supervisors_descriptor)
{
    struct dragon_node *node = open_node(&new_node);
    int pipe_fds[2];

    cr_assert_eq(dragon_node_watch_child(node, getpid()), 0);
    cr_assert_eq(close(node->epoll_fd), 0);
    cr_assert_eq(dragon_node_watch_child(node, getpid()), -EBADF);
    cr_assert_eq(pipe(pipe_fds), 0);
    cr_assert_eq(dup2(pipe_fds[0], node->epoll_fd), node->epoll_fd);
    cr_assert_eq(dragon_node_watch_child(node, getpid()), -EBADF, "its number was used again");
}

Test(node, want_of_a_descriptor_is_not_taken_for_a_closed_one)
{
    struct dragon_node *node = open_node(&new_node);

    allow_descriptors(1);
    cr_assert_eq(dragon_node_watch_child(node, getpid()), -EMFILE);
    allow_descriptors(256);
}

static int pause_forever(void *argument)
{
    (void)argument;
    pause();
    return 0;
}

static int follow_other(void *argument)
{
    struct join *join = argument;
    struct dragon_node *node = dragon_node_current();

    if (!node || dragon_node_follow(node, join->head) != 0)
        return 1;
    atomic_store(&join->report->state, 1);
    pause();
    return 2;
}

Test(node, a_follower_ends_with_whom_it_follows)
{
    struct report *report = shared_page(sizeof *report);
    struct join join = {.report = report};
    pid_t follower;

    open_node(&new_node);
    join.head = child_start(pause_forever, NULL);
    follower = child_start(follow_other, &join);
    cr_assert(becomes_true(is_there, &report->state));
    child_kill(join.head);
    cr_assert_eq(child_result(follower), 256 + SIGKILL);
}

static int hold_and_wait(void *argument)
{
    struct report *report = argument;
    uint32_t holder;

    if (hold_blocks(dragon_node_current(), 50, &holder) != 0)
        return 1;
    atomic_store(&report->holder, holder);
    atomic_store(&report->state, 1);
    pause();
    return 0;
}

struct expected {
    struct dragon_node *node;
    uint64_t n_blocks;
    pid_t child;
};

static bool is_swept(void *argument)
{
    struct expected *expected = argument;
    uint32_t slot;

    return n_blocks(dragon_node_pool(expected->node)) == expected->n_blocks &&
           !dragon_table_find(&expected->node->table, expected->child, &slot);
}

/* A watched child with 50 blocks in the given state of its slot is killed. */
static bool is_swept_when_killed(uint32_t state)
{
    struct report *report = shared_page(sizeof *report);
    struct expected expected = {.node = open_node(&new_node)};

    expected.n_blocks = n_blocks(dragon_node_pool(expected.node));
    expected.child = child_start(hold_and_wait, report);
    cr_assert_eq(dragon_node_watch_child(expected.node, expected.child), 0);
    cr_assert(becomes_true(is_there, &report->state));
    dragon_table_slot(&expected.node->table, report->holder - DRAGON_HOLDER_FIRST_SLOT)->state =
        state;
    child_kill(expected.child);
    return becomes_true(is_swept, &expected);
}

Test(node, what_a_killed_child_held_is_taken_back)
{
    cr_assert(is_swept_when_killed(DRAGON_TABLE_ALIVE));
}

/* Inside dragon_node_leave, after it has said so and before the sweep. */
Test(node, what_a_child_held_that_was_killed_while_it_closed_is_taken_back)
{
    cr_assert(is_swept_when_killed(DRAGON_TABLE_ENDING));
}

static int leave_threads_behind(void *n_held)
{
    struct dragon_pool *pool = dragon_node_pool(dragon_node_current());
    uint64_t n_before = n_blocks(pool);
    uint32_t holder;

    if (hold_blocks(dragon_node_current(), 5, &holder) != 0)
        return 1;
    dragon_node_leave_threads_behind();
    atomic_store((_Atomic int *)n_held, (int)(n_blocks(pool) - n_before));
    return 0;
}

Test(node, what_threads_may_use_is_freed_after_their_process_and_not_before)
{
    _Atomic int *n_held = shared_page(sizeof *n_held);
    struct expected expected = {.node = open_node(&new_node)};

    expected.n_blocks = n_blocks(dragon_node_pool(expected.node));
    expected.child = child_start(leave_threads_behind, n_held);
    cr_assert_eq(dragon_node_watch_child(expected.node, expected.child), 0);
    cr_assert_eq(child_result(expected.child), 0);
    cr_assert_eq(atomic_load(n_held), 5);
    cr_assert(becomes_true(is_swept, &expected));
}

static int leave_cleanly(void *argument)
{
    uint32_t holder;

    (void)argument;
    if (hold_blocks(dragon_node_current(), 5, &holder) != 0)
        return 1;
    dragon_node_leave();
    return 0;
}

Test(node, many_children_leave_no_slot_and_no_block)
{
    struct dragon_node *node = open_node(&new_node);
    uint64_t n_before = n_blocks(dragon_node_pool(node));
    uint32_t n_slots = dragon_table_n_slots(&node->table);

    for (int i = 0; i < 60; i++)
        cr_assert_eq(child_result(child_start(leave_cleanly, NULL)), 0);
    cr_assert_eq(n_blocks(dragon_node_pool(node)), n_before);
    cr_assert_eq(dragon_table_n_slots(&node->table), n_slots);
}

static int wait_in_own_session(void *is_ready)
{
    setsid();
    atomic_store((_Atomic int *)is_ready, 1);
    while (pause() < 0)
        continue;
    return 0;
}

static int wait_in_our_session(void *is_ready)
{
    atomic_store((_Atomic int *)is_ready, 1);
    while (pause() < 0)
        continue;
    return 0;
}

/* What kills a process that a member writes into the table, when the head has ended. */
static int killer_of(int (*run)(void *is_ready))
{
    struct dragon_node *node = open_node(&new_node);
    _Atomic int *is_ready = shared_page(sizeof *is_ready);
    pid_t process = child_start(run, is_ready);
    uint32_t holder, index;
    uint64_t ticks;

    cr_assert(becomes_true(is_there, is_ready));
    cr_assert_eq(dragon_os_start_time(process, &ticks), 0);
    cr_assert_eq(dragon_table_claim(&node->table, process, ticks, getpid(), &index), 0);
    cr_assert_eq(dragon_node_holder(node, &holder), 0); /* not this one, a member as well */
    dragon_publish(&dragon_table_claimed(&node->table, holder - DRAGON_HOLDER_FIRST_SLOT)->state,
                   DRAGON_TABLE_DEAD);
    dragon_node_end_members(dup(dragon_pool_fd(dragon_node_pool(node))));
    cr_assert_eq(kill(process, SIGTERM), 0); /* too late, if the other signal has come */
    return child_result(process) - 256;
}

Test(node, members_are_ended_in_place_of_a_head_that_was_killed)
{
    cr_assert_eq(killer_of(wait_in_our_session), SIGKILL);
}

Test(node, nobody_of_another_session_is_ended_for_the_table_says_so)
{
    cr_assert_eq(killer_of(wait_in_own_session), SIGTERM);
}
