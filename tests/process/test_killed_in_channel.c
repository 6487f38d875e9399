/* A process is killed in the middle of a send or a receive: no message is lost
 * or doubled beyond the one that it had in its hands, and the others go on. */
#include "support/channel_fixture.h"
#include "support/heap_walk.h"
#include "support/test_point.h"

#include <criterion/criterion.h>

#define MIB (UINT64_C(1) << 20)
#define UNBOUNDED DRAGON_CHANNEL_UNBOUNDED
#define HOLDER (DRAGON_HOLDER_FIRST_SLOT + 1)
#define VICTIMS_FIRST 1000000
#define LAST 9999999

TestSuite(killed_in_channel, .timeout = 60);

static struct channel_fixture fixture;
static struct dragon_channel *channel = &fixture.channel;

/* How far the victim came, in shared memory. */
static _Atomic uint64_t *n_done;

static void open_channel(void)
{
    channel_fixture_open(&fixture, 64 * MIB, UNBOUNDED, UNBOUNDED);
    n_done = shared_page(4096);
}

static void close_channel(uint64_t n_blocks_lost)
{
    cr_assert(dragon_channel_check(channel));
    cr_assert(dragon_pool_check(fixture.pool));
    cr_assert_leq(channel_fixture_blocks_left(&fixture), n_blocks_lost);
    cr_assert(dragon_pool_check(fixture.pool));
    dragon_pool_close(fixture.pool);
}

static void send_numbers(uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i < to; i++)
        cr_assert_eq(send_number(channel, i), 0);
}

static void receive_numbers(uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i < to; i++) {
        uint64_t number = UINT64_MAX;

        cr_assert_eq(receive_number(channel, &number), 0);
        cr_assert_eq(number, i);
    }
}

static int send_until_dead(void *argument)
{
    (void)argument;
    for (uint64_t i = 0; i < 10000; i++) {
        if (send_number(channel, VICTIMS_FIRST + i) != 0)
            return 1;
        atomic_store(n_done, i + 1);
    }
    return 2;
}

static int receive_until_dead(void *argument)
{
    uint64_t number;

    (void)argument;
    for (uint64_t i = 0; receive_number(channel, &number) == 0; i++) {
        if (number != i)
            return 1;
        atomic_store(n_done, i + 1);
    }
    return 2;
}

/* A sender dies with n messages in the channel; n_in_flight: whether the message
 * that it was sending has been sent. */
static void kill_sender(const char *point, uint64_t n, uint64_t n_in_flight, uint64_t n_lost)
{
    int64_t begin_ns;

    open_channel();
    send_numbers(0, n);
    cr_assert(child_dies_at(point, send_until_dead, NULL));
    begin_ns = dragon_now_ns();
    send_numbers(LAST, LAST + 1);
    receive_numbers(0, n);
    receive_numbers(VICTIMS_FIRST, VICTIMS_FIRST + atomic_load(n_done) + n_in_flight);
    receive_numbers(LAST, LAST + 1);
    cr_assert_eq(dragon_channel_count(channel), 0);
    cr_assert_lt(dragon_now_ns() - begin_ns, TEST_SECOND);
    close_channel(n_lost);
}

/* A receiver dies with n messages in the channel; n_in_flight: whether the
 * message that it was taking has been taken. */
static void kill_receiver(const char *point, uint64_t n, uint64_t n_in_flight, uint64_t n_lost)
{
    int64_t begin_ns;

    open_channel();
    send_numbers(0, n);
    cr_assert(child_dies_at(point, receive_until_dead, NULL));
    begin_ns = dragon_now_ns();
    send_numbers(n, n + 1);
    receive_numbers(atomic_load(n_done) + n_in_flight, n + 1);
    cr_assert_eq(dragon_channel_count(channel), 0);
    cr_assert_lt(dragon_now_ns() - begin_ns, TEST_SECOND);
    close_channel(n_lost);
}

/* 64 messages fill the first ring, 64 + 128 the second. */
static const uint64_t some[] = {0, 1, 63, 64, 65, 191, 192, 193};
#define N_SOME (sizeof some / sizeof *some)

Test(killed_in_channel, before_the_commit_of_a_send_nothing_was_sent)
{
    for (size_t i = 0; i < N_SOME; i++)
        kill_sender("channel-before-head-store", some[i], 0, 0);
}

Test(killed_in_channel, after_the_commit_of_a_send_the_message_is_there)
{
    for (size_t i = 0; i < N_SOME; i++)
        kill_sender("channel-after-head-store", some[i], 1, 0);
}

Test(killed_in_channel, a_ring_that_was_not_linked_is_lost_and_nothing_else)
{
    for (size_t i = 0; i < N_SOME; i++)
        kill_sender("channel-before-ring-end", some[i], 0, 1);
}

Test(killed_in_channel, a_ring_that_was_linked_is_used_by_the_next_sender)
{
    for (size_t i = 0; i < N_SOME; i++)
        kill_sender("channel-after-ring-end", some[i], 0, 0);
}

Test(killed_in_channel, before_the_commit_of_a_receive_nothing_was_taken)
{
    for (size_t i = 1; i < N_SOME; i++)
        kill_receiver("channel-before-tail-store", some[i], 0, 0);
}

Test(killed_in_channel, after_the_commit_of_a_receive_the_message_is_gone)
{
    for (size_t i = 1; i < N_SOME; i++)
        kill_receiver("channel-after-tail-store", some[i], 1, 0);
}

Test(killed_in_channel, an_emptied_ring_that_was_not_freed_is_lost_and_nothing_else)
{
    kill_receiver("channel-before-ring-free", 65, 0, 1);
    kill_receiver("channel-before-ring-free", 300, 0, 1);
}

Test(killed_in_channel, a_linked_ring_that_nobody_used_goes_with_the_channel)
{
    open_channel();
    send_numbers(0, 64);
    cr_assert(child_dies_at("channel-after-ring-end", send_until_dead, NULL));
    receive_numbers(0, 64);
    close_channel(0);
}

/* ---- those who wait ---- */

static int receive_waiting(void *argument)
{
    struct dragon_message message;

    (void)argument;
    return dragon_channel_receive(channel, &message, test_soon());
}

static int send_waiting(void *argument)
{
    struct dragon_message message = message_of(5);

    (void)argument;
    return dragon_channel_send(channel, &message, test_soon());
}

static bool has_waiter(void *eventcount)
{
    return dragon_eventcount_has_waiters(eventcount);
}

/* The dead one was to wake it: it looks again by itself. */
static void check_goes_on_alone(pid_t waiter, int64_t begin_ns)
{
    cr_assert_eq(child_result(waiter), 0);
    cr_assert_lt(dragon_now_ns() - begin_ns, DRAGON_EVENTCOUNT_PARK_NS + TEST_SECOND / 2);
}

Test(killed_in_channel, a_receiver_whose_waker_died_goes_on)
{
    int64_t begin_ns;
    pid_t receiver;

    open_channel();
    receiver = child_start(receive_waiting, NULL);
    cr_assert(becomes_true(has_waiter, &channel->shared->may_receive));
    begin_ns = dragon_now_ns();
    cr_assert(child_dies_at("channel-after-head-store", send_until_dead, NULL));
    check_goes_on_alone(receiver, begin_ns);
    close_channel(0);
}

Test(killed_in_channel, a_sender_whose_waker_died_goes_on)
{
    int64_t begin_ns;
    pid_t sender;

    n_done = shared_page(4096);
    channel_fixture_open(&fixture, MIB, 1, UNBOUNDED);
    send_numbers(0, 1);
    sender = child_start(send_waiting, NULL);
    cr_assert(becomes_true(has_waiter, &channel->shared->may_send));
    begin_ns = dragon_now_ns();
    cr_assert(child_dies_at("channel-after-tail-store", receive_until_dead, NULL));
    check_goes_on_alone(sender, begin_ns);
    receive_numbers(5, 6);
    close_channel(0);
}

Test(killed_in_channel, sleepers_that_were_killed_cost_the_others_nothing)
{
    pid_t victims[3], receiver;
    int64_t begin_ns;

    open_channel();
    for (int i = 0; i < 3; i++)
        victims[i] = child_start(receive_waiting, NULL);
    cr_assert(becomes_true(has_waiter, &channel->shared->may_receive));
    for (int i = 0; i < 3; i++)
        child_kill(victims[i]);
    receiver = child_start(receive_waiting, NULL);
    begin_ns = dragon_now_ns();
    send_numbers(0, 1);
    check_goes_on_alone(receiver, begin_ns);
    close_channel(0);
}

/* ---- limits and blocks ---- */

Test(killed_in_channel, a_byte_limit_stays_of_use_after_a_receiver_died)
{
    struct dragon_message large = {.size_bytes = 104};
    uint64_t n = 0;

    n_done = shared_page(4096);
    channel_fixture_open(&fixture, MIB, UNBOUNDED, 1000);
    cr_assert_eq(dragon_channel_try_send(channel, &large), 0);
    cr_assert(child_dies_at("channel-before-tail-store", receive_until_dead, NULL));
    cr_assert_eq(dragon_channel_try_receive(channel, &large), 0);
    while (n < 1000 && send_number(channel, n) == 0)
        n++;
    /* 8 bytes each and 1000 in all are 125; the count may be off by the 104
     * bytes of the message that was taken twice: 13 more. */
    cr_assert_geq(n, 125);
    cr_assert_leq(n, 125 + 13);
    receive_numbers(0, n);
    close_channel(0);
}

static int send_block(void *argument)
{
    struct dragon_message message = message_of(1);
    struct dragon_handle handle;

    (void)argument;
    if (attach_block(fixture.pool, 5000, HOLDER, &message, &handle) != 0)
        return 1;
    return dragon_channel_try_send(channel, &message);
}

Test(killed_in_channel, a_block_whose_sender_died_after_the_commit_arrives)
{
    struct dragon_message message;
    struct dragon_handle handle;
    uint64_t size_bytes;

    open_channel();
    cr_assert(child_dies_at("channel-after-head-store", send_block, NULL));
    cr_assert_eq(dragon_pool_sweep(fixture.pool, HOLDER), 0);
    cr_assert_eq(dragon_channel_try_receive(channel, &message), 0);
    cr_assert_eq(dragon_pool_find(fixture.pool, message.block_offset, &handle, &size_bytes), 0);
    cr_assert_eq(size_bytes, 5000);
    cr_assert_eq(handle.generation, message.block_generation);
    cr_assert_eq(dragon_pool_free(fixture.pool, &handle), 0);
    close_channel(0);
}

Test(killed_in_channel, a_block_whose_sender_died_before_the_commit_is_all_that_is_lost)
{
    open_channel();
    cr_assert(child_dies_at("channel-before-head-store", send_block, NULL));
    cr_assert_eq(dragon_channel_count(channel), 0);
    dragon_pool_sweep(fixture.pool, HOLDER);
    close_channel(1);
}
