#include "process/members.h"

#include "channel/channel.h"
#include "memory/pool.h"
#include "support/channel_fixture.h"
#include "support/shared_page.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FIRST DRAGON_HOLDER_FIRST_SLOT

static struct channel_fixture fixture;
static struct dragon_pool *pool;
static struct dragon_member own;
static _Atomic int *said; /* by a child */

static void open_pool(void)
{
    channel_fixture_open(&fixture, UINT64_C(1) << 20, DRAGON_CHANNEL_UNBOUNDED,
                         DRAGON_CHANNEL_UNBOUNDED);
    pool = fixture.pool;
    cr_assert_eq(dragon_members_init(pool), 0);
    dragon_member_init(&own, pool);
    said = shared_page(4096);
}

static void close_pool(void)
{
    dragon_member_leave(&own);
    cr_assert(dragon_pool_check(pool));
    cr_assert_eq(channel_fixture_blocks_left(&fixture), 0);
    dragon_pool_close(pool);
}

TestSuite(members, .timeout = 60, .init = open_pool, .fini = close_pool);

static uint32_t holder_of(struct dragon_member *member)
{
    uint32_t holder = dragon_member_holder(member);

    cr_assert_neq(holder, 0);
    return holder;
}

static int alloc_for(struct dragon_member *member, struct dragon_handle *handle_out)
{
    uint32_t holder = dragon_member_holder(member);

    return holder ? dragon_pool_alloc(pool, 500, holder, handle_out) : -ESRCH;
}

static struct dragon_members_shared *table(void)
{
    return dragon_pool_root(pool);
}

/* But for the channel and its ring. */
static uint64_t n_blocks(void)
{
    struct dragon_pool_statistics statistics;

    dragon_pool_statistics(pool, &statistics);
    return statistics.n_blocks - 2;
}

static bool has_said(void *argument)
{
    (void)argument;
    return atomic_load(said) != 0;
}

/* ---- numbers ---- */

Test(members, the_first_use_makes_a_member_and_its_number_stays)
{
    cr_assert_eq(holder_of(&own), FIRST);
    cr_assert_eq(holder_of(&own), FIRST);
    cr_assert_eq(dragon_members_sweep(pool), 0);
    cr_assert_eq(holder_of(&own), FIRST);
}

Test(members, each_view_of_a_process_has_its_number_and_a_free_one_serves_again)
{
    struct dragon_member second, third;

    dragon_member_init(&second, pool);
    dragon_member_init(&third, pool);
    cr_assert_eq(holder_of(&own), FIRST);
    cr_assert_eq(holder_of(&second), FIRST + 1);
    dragon_member_leave(&own);
    cr_assert_eq(holder_of(&third), FIRST);
    dragon_member_leave(&second);
    dragon_member_leave(&third);
}

Test(members, a_pool_without_a_table_has_none)
{
    struct dragon_member member;
    struct dragon_pool *other;

    cr_assert_eq(dragon_pool_create_managed(1 << 20, 7, 2, &other), 0);
    dragon_member_init(&member, other);
    cr_assert_eq(dragon_member_holder(&member), 0);
    cr_assert_eq(dragon_members_sweep(other), 0);
    dragon_member_leave(&member);
    dragon_pool_close(other);
}

Test(members, the_table_takes_no_room_from_the_smallest_pool)
{
    struct dragon_pool_options options = {.size_bytes = 32768, .is_counted = true};
    struct dragon_pool_statistics s;
    struct dragon_handle handle;
    struct dragon_member member;
    struct dragon_pool *small;

    cr_assert_eq(dragon_pool_make_managed(&options, &small), 0);
    cr_assert_eq(dragon_members_init(small), 0);
    dragon_member_init(&member, small);
    cr_assert_eq(holder_of(&member), FIRST);
    dragon_pool_statistics(small, &s);
    cr_assert_eq(s.n_blocks, 0);
    cr_assert_eq(dragon_pool_alloc(small, 32768, FIRST, &handle), 0);
    dragon_member_leave(&member);
    dragon_pool_statistics(small, &s);
    cr_assert_eq(s.free_bytes, 32768);
    dragon_pool_close(small);
}

/* A lock on all bytes of the file, as if each number had a living member. */
static int lock_all_numbers(int type)
{
    struct flock lock = {.l_type = (short)type, .l_whence = SEEK_SET, .l_len = DRAGON_MEMBERS_MAX};

    return fcntl(dragon_pool_fd(pool), F_OFD_SETLK, &lock);
}

Test(members, without_a_number_left_a_process_is_none_and_stays_so)
{
    cr_assert_eq(lock_all_numbers(F_WRLCK), 0);
    cr_assert_eq(dragon_member_holder(&own), 0);
    cr_assert_eq(lock_all_numbers(F_UNLCK), 0);
    cr_assert_eq(dragon_member_holder(&own), 0);
}

/* ---- leaving ---- */

Test(members, who_leaves_frees_what_it_held_but_for_blocks_in_flight)
{
    struct dragon_message message = message_of(5);
    struct dragon_handle handle;

    cr_assert_eq(alloc_for(&own, &handle), 0);
    cr_assert_eq(alloc_for(&own, &handle), 0);
    cr_assert_eq(attach_block(pool, 500, holder_of(&own), &message, &handle), 0);
    cr_assert_eq(dragon_channel_try_send(&fixture.channel, &message), 0);
    dragon_member_leave(&own);
    cr_assert_eq(n_blocks(), 1);
    cr_assert_eq(dragon_channel_try_receive(&fixture.channel, holder_of(&own), &message), 0);
    dragon_member_leave(&own);
    cr_assert_eq(n_blocks(), 0, "it was the receiver's");
}

Test(members, who_leaves_without_having_been_one_leaves_nothing)
{
    dragon_member_leave(&own);
    dragon_member_leave(&own);
}

/* ---- the end of a process ---- */

static int hold_some(void *argument)
{
    struct dragon_handle handle;

    (void)argument;
    for (int i = 0; i < 3; i++)
        if (alloc_for(&own, &handle) != 0)
            return 1;
    atomic_store(said, 1);
    pause();
    return 0;
}

static pid_t start_holding(int (*run)(void *))
{
    pid_t pid;

    atomic_store(said, 0);
    pid = child_start(run, NULL);
    cr_assert(becomes_true(has_said, NULL));
    return pid;
}

Test(members, what_a_killed_process_held_comes_back_and_what_others_hold_stays)
{
    struct dragon_handle handle;
    pid_t child;

    cr_assert_eq(alloc_for(&own, &handle), 0);
    child = start_holding(hold_some);
    cr_assert_eq(dragon_members_sweep(pool), 0, "all are alive");
    cr_assert_eq(n_blocks(), 4);
    child_kill(child);
    cr_assert_eq(dragon_members_sweep(pool), 3);
    cr_assert_eq(dragon_members_sweep(pool), 0);
    cr_assert_eq(n_blocks(), 1);
}

Test(members, who_joins_takes_back_what_the_dead_held)
{
    child_kill(start_holding(hold_some));
    cr_assert_eq(n_blocks(), 3);
    cr_assert_eq(holder_of(&own), FIRST);
    cr_assert_eq(n_blocks(), 0);
}

Test(members, a_stopped_process_is_alive)
{
    pid_t child = start_holding(hold_some);

    kill(child, SIGSTOP);
    cr_assert_eq(dragon_members_sweep(pool), 0);
    child_kill(child);
    cr_assert_eq(dragon_members_sweep(pool), 3);
}

Test(members, the_block_of_a_message_outlives_its_sender)
{
    struct dragon_message message = message_of(5);
    struct dragon_handle handle;
    uint64_t size_bytes;
    void *address;
    pid_t child = fork();

    if (child == 0) {
        uint32_t holder = dragon_member_holder(&own);

        if (holder != 0 && attach_block(pool, 500, holder, &message, &handle) == 0) {
            memset(dragon_pool_at(pool, handle.offset), 7, 500);
            (void)dragon_channel_try_send(&fixture.channel, &message);
        }
        kill(getpid(), SIGKILL);
    }
    child_result(child);
    cr_assert_eq(dragon_members_sweep(pool), 0);
    cr_assert_eq(dragon_channel_try_receive(&fixture.channel, holder_of(&own), &message), 0);
    handle = dragon_pool_handle(pool, message.block_offset, message.block_generation);
    cr_assert_eq(dragon_pool_resolve(pool, &handle, &address, &size_bytes), 0);
    cr_assert_eq(((char *)address)[499], 7);
    dragon_member_leave(&own);
    cr_assert_eq(n_blocks(), 0);
}

static int close_all_and_hold(void *argument)
{
    struct dragon_handle handle;

    (void)argument;
    if (alloc_for(&own, &handle) != 0)
        return 1;
    for (int fd = 3; fd < 256; fd++)
        close(fd);
    if (dragon_members_sweep(pool) != 0)
        return 2;
    atomic_store(said, 1);
    pause();
    return 0;
}

Test(members, a_program_that_closes_all_descriptors_stays_one)
{
    pid_t child = start_holding(close_all_and_hold);

    cr_assert_eq(dragon_members_sweep(pool), 0);
    cr_assert_eq(n_blocks(), 1);
    child_kill(child);
    cr_assert_eq(dragon_members_sweep(pool), 1);
}

struct joiner {
    _Atomic int id; /* of the thread */
    uint32_t holder;
};

static void *join_as_thread(void *argument)
{
    struct joiner *joiner = argument;

    atomic_store(&joiner->id, gettid());
    joiner->holder = dragon_member_holder(&own);
    return NULL;
}

/* The thread that joins waits for the mutex: there is nothing else that it could wait for. */
static bool sleeps(void *argument)
{
    struct joiner *joiner = argument;
    char path[64], state = '?';
    FILE *file;

    if (atomic_load(&joiner->id) == 0)
        return false;
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", atomic_load(&joiner->id));
    file = fopen(path, "re");
    if (!file || fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
        abort();
    fclose(file);
    return state == 'S';
}

Test(members, a_program_that_replaces_the_pools_file_meanwhile_is_none)
{
    int fd = dragon_pool_fd(pool), pools = dup(fd), programs = memfd_create("program's", 0);
    struct joiner joiner = {0};
    pthread_t thread;

    cr_assert_eq(dragon_mutex_lock(&table()->mutex), 0);
    cr_assert_eq(pthread_create(&thread, NULL, join_as_thread, &joiner), 0);
    cr_assert(becomes_true(sleeps, &joiner));
    cr_assert_eq(dup2(programs, fd), fd);
    dragon_mutex_unlock(&table()->mutex);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_assert_eq(joiner.holder, 0);
    cr_assert_eq(table()->is_taken[0], 0);
    cr_assert_eq(dup2(pools, fd), fd);
    close(pools);
    close(programs);
}

static int hold_and_become_another_program(void *argument)
{
    struct dragon_handle handle;

    (void)argument;
    if (alloc_for(&own, &handle) != 0)
        return 1;
    atomic_store(said, 1);
    execl("/bin/sleep", "sleep", "60", NULL);
    return 2;
}

static bool sweep_frees(void *argument)
{
    (void)argument;
    return dragon_members_sweep(pool) == 1;
}

Test(members, a_process_that_becomes_another_program_is_none_any_more)
{
    pid_t child = start_holding(hold_and_become_another_program);

    cr_assert(becomes_true(sweep_frees, NULL));
    child_kill(child);
}

/* ---- forks ---- */

static int join_as_a_copy(void *argument)
{
    (void)argument;
    if (dragon_member_holder(&own) != FIRST + 1)
        return 1;
    dragon_member_leave(&own);
    return 0;
}

Test(members, a_forked_copy_is_another_one)
{
    struct dragon_handle handle;

    cr_assert_eq(alloc_for(&own, &handle), 0);
    cr_assert_eq(child_result(child_start(join_as_a_copy, NULL)), 0);
    cr_assert_eq(holder_of(&own), FIRST);
    cr_assert_eq(n_blocks(), 1, "the copy had no part in it");
}

static int leave_as_a_copy(void *argument)
{
    (void)argument;
    dragon_member_leave(&own);
    return 0;
}

Test(members, a_copy_that_leaves_without_having_been_one_does_not_end_its_parents_part)
{
    struct dragon_handle handle;

    cr_assert_eq(alloc_for(&own, &handle), 0);
    cr_assert_eq(child_result(child_start(leave_as_a_copy, NULL)), 0);
    cr_assert_eq(dragon_members_sweep(pool), 0);
    cr_assert_eq(n_blocks(), 1);
}

/* The copy says who it is. It ends with nobody but by the test's hand. */
static int hold_and_fork(void *argument)
{
    struct dragon_handle handle;

    (void)argument;
    if (alloc_for(&own, &handle) != 0)
        return 1;
    if (fork() == 0) {
        if (alloc_for(&own, &handle) == 0)
            atomic_store(said, getpid());
        pause();
    }
    pause();
    return 0;
}

Test(members, a_copy_does_not_keep_its_dead_parent_alive)
{
    pid_t child = start_holding(hold_and_fork), copy = atomic_load(said);

    child_kill(child);
    cr_assert_eq(dragon_members_sweep(pool), 1);
    cr_assert_eq(n_blocks(), 1, "the copy's");
    kill(copy, SIGKILL);
    cr_assert(becomes_true(sweep_frees, NULL));
}

/* ---- tables that somebody has written over ---- */

Test(members, the_number_of_a_living_process_is_given_to_nobody_else)
{
    struct dragon_member second;

    cr_assert_eq(holder_of(&own), FIRST);
    table()->is_taken[0] = 0;
    dragon_member_init(&second, pool);
    cr_assert_eq(holder_of(&second), FIRST + 1);
    dragon_member_leave(&second);
}

Test(members, numbers_that_nobody_took_become_free_again)
{
    cr_assert_eq(holder_of(&own), FIRST);
    memset((void *)table()->is_taken, 0xff, sizeof table()->is_taken);
    cr_assert_eq(dragon_members_sweep(pool), 0);
    cr_assert_neq(table()->is_taken[0], 0);
    cr_assert_eq(table()->is_taken[1], 0);
    cr_assert_eq(table()->is_taken[DRAGON_MEMBERS_MAX - 1], 0);
}

Test(members, without_its_mutex_a_table_serves_nobody)
{
    memset(&table()->mutex, 0x5a, sizeof table()->mutex);
    cr_assert_eq(dragon_members_sweep(pool), 0);
    cr_assert_eq(dragon_member_holder(&own), 0);
}
