/* A process is killed while it waits on a set of channels, or between changing a
 * channel and telling the set: nothing stays behind that costs others anything,
 * and who waits sees the change within a park. */
#include "channel/channel_semaphore.h"
#include "channel/channel_set.h"
#include "support/channel_fixture.h"
#include "support/test_point.h"
#include "wait/doorbell.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/syscall.h>

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

#define MIB (UINT64_C(1) << 20)
#define N_MEMBERS 3

TestSuite(killed_in_channel_set, .timeout = 60);

static struct channel_fixture fixtures[N_MEMBERS];
static struct dragon_channel *members[N_MEMBERS];
static struct dragon_channel_set *set;

static void open_set(void)
{
    for (size_t i = 0; i < N_MEMBERS; i++) {
        channel_fixture_open(&fixtures[i], MIB, 2, DRAGON_CHANNEL_UNBOUNDED);
        members[i] = &fixtures[i].channel;
    }
    cr_assert_eq(dragon_channel_set_create(members, N_MEMBERS, DRAGON_CHANNEL_EVENT_MESSAGE, &set),
                 0);
}

static void close_set(void)
{
    dragon_channel_set_close(set);
    for (size_t i = 0; i < N_MEMBERS; i++) {
        cr_assert(dragon_channel_check(members[i]));
        dragon_object_close(&fixtures[i].object, dragon_fini);
        dragon_pool_close(fixtures[i].pool);
    }
}

static int wait_for_member(int64_t deadline_ns)
{
    unsigned events;
    size_t index;
    int r = dragon_channel_set_wait(set, deadline_ns, &index, &events);

    return r == 0 ? (int)index : -1;
}

static int wait_in_child(void *unused)
{
    (void)unused;
    return wait_for_member(test_soon());
}

static int send_to_second(void *unused)
{
    (void)unused;
    return send_number(members[1], 1);
}

static bool is_announced(void *unused)
{
    (void)unused;
    for (size_t i = 0; i < N_MEMBERS; i++)
        if (!dragon_eventcount_has_waiters(&members[i]->shared->watchers))
            return false;
    return true;
}

Test(killed_in_channel_set, a_sender_that_dies_before_it_wakes_delays_a_waiter_by_a_park_at_most)
{
    int64_t begin_ns;
    pid_t waiter;

    open_set();
    waiter = child_start(wait_in_child, NULL);
    cr_assert(becomes_true(is_announced, NULL));
    begin_ns = dragon_now_ns();
    cr_assert(child_dies_at("channel-after-head-store", send_to_second, NULL));
    cr_assert_eq(child_result(waiter), 1);
    cr_assert_lt(dragon_now_ns() - begin_ns, DRAGON_EVENTCOUNT_PARK_NS + TEST_SECOND / 2);
    close_set();
}

/* More of them than a channel has entries for doorbells. */
Test(killed_in_channel_set, dead_waiters_are_in_nobodys_way)
{
    struct dragon_pool_statistics before, after;
    pid_t waiter;

    open_set();
    dragon_pool_statistics(fixtures[0].pool, &before);
    for (int i = 0; i < 2 * DRAGON_CHANNEL_N_POLLERS; i++) {
        waiter = child_start(wait_in_child, NULL);
        cr_assert(becomes_true(is_announced, NULL));
        cr_assert_eq(child_kill(waiter), 256 + SIGKILL);
    }
    dragon_pool_statistics(fixtures[0].pool, &after);
    cr_assert_eq(after.n_blocks, before.n_blocks);
    for (unsigned bit = 0; bit < DRAGON_CHANNEL_N_POLLERS; bit++)
        cr_assert(dragon_channel_arm(members[0], 64, bit));
    for (unsigned bit = 0; bit < DRAGON_CHANNEL_N_POLLERS; bit++)
        dragon_channel_disarm(members[0], 64, bit);

    waiter = child_start(wait_in_child, NULL);
    cr_assert(becomes_true(is_announced, NULL));
    cr_assert_eq(send_number(members[2], 0), 0);
    cr_assert_eq(child_result(waiter), 2);
    /* A change clears what was left of the dead. Not necessarily that one: the waiter may have
     * announced itself after it, as what the dead have announced looks like his. */
    cr_assert_eq(send_number(members[2], 1), 0);
    cr_assert_eq(dragon_observe(&members[2]->shared->has_watchers), 0);
    close_set();
}

/* ---- a system that cannot sleep on many words ---- */

static int wait_without_the_system_call(void *unused)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_futex_waitv, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};

    (void)unused;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
        return -1;
    if (wait_for_member(dragon_deadline_after_ns(TEST_SECOND / 50)) != -1)
        return -1; /* the deadline must end it */
    return wait_for_member(test_soon());
}

Test(killed_in_channel_set, where_many_words_cannot_be_slept_on_members_are_looked_at)
{
    int64_t begin_ns;
    pid_t waiter;

    open_set();
    waiter = child_start(wait_without_the_system_call, NULL);
    cr_assert(becomes_true(is_announced, NULL));
    begin_ns = dragon_now_ns();
    usleep(50000); /* it sleeps and looks meanwhile, and may be in either */
    cr_assert_eq(send_number(members[1], 0), 0);
    cr_assert_eq(child_result(waiter), 1);
    cr_assert_lt(dragon_now_ns() - begin_ns, TEST_SECOND);
    close_set();
}

/* ---- a semaphore's zero ---- */

static struct dragon_channel_semaphore *semaphore;

static int take(void *unused)
{
    (void)unused;
    return dragon_channel_semaphore_take(members[0], semaphore, test_soon());
}

static int wait_zero(void *unused)
{
    (void)unused;
    return dragon_channel_semaphore_wait_zero(members[0], semaphore, test_soon());
}

static bool has_zero_waiter(void *unused)
{
    (void)unused;
    return dragon_eventcount_has_waiters(&semaphore->zero);
}

Test(killed_in_channel_set, who_takes_the_last_unit_and_dies_delays_those_who_wait_for_zero)
{
    int64_t begin_ns;
    pid_t waiter;

    open_set();
    semaphore = shared_page(sizeof *semaphore);
    dragon_semaphore_init(&semaphore->semaphore, 1, 1);
    waiter = child_start(wait_zero, NULL);
    cr_assert(becomes_true(has_zero_waiter, NULL));
    begin_ns = dragon_now_ns();
    cr_assert(child_dies_at("channel-semaphore-taken", take, NULL));
    cr_assert_eq(child_result(waiter), 0);
    cr_assert_lt(dragon_now_ns() - begin_ns, DRAGON_EVENTCOUNT_PARK_NS + TEST_SECOND / 2);
    cr_assert_eq(dragon_semaphore_value(&semaphore->semaphore), 0);
    close_set();
}
