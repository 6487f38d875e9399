#include "base/deadline.h"
#include "channel/channel.h"
#include "channel/ring.h"
#include "memory/pool.h"
#include "support/channel_fixture.h"
#include "support/seed.h"
#include "support/shared_page.h"
#include "wait/doorbell.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>

#define MIB (UINT64_C(1) << 20)
#define UNBOUNDED DRAGON_CHANNEL_UNBOUNDED
#define HOLDER DRAGON_HOLDER_FIRST_SLOT
#define FIRST_RING 64 /* slots */

TestSuite(channel, .timeout = 60);

static struct channel_fixture fixture;
static struct dragon_channel *channel = &fixture.channel;

static void open_channel(uint64_t max_messages, uint64_t max_bytes)
{
    channel_fixture_open(&fixture, 64 * MIB, max_messages, max_bytes);
}

static uint64_t n_blocks(void)
{
    struct dragon_pool_statistics statistics;

    dragon_pool_statistics(fixture.pool, &statistics);
    return statistics.n_blocks;
}

/* The channel is sane and, when it goes, takes all its blocks along. */
static void close_channel(void)
{
    cr_assert(dragon_channel_check(channel));
    cr_assert_eq(channel_fixture_blocks_left(&fixture), 0);
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

/* ---- destroying and watching ---- */

struct waiter {
    pthread_t thread;
    unsigned events; /* 0: receives, else watches */
    int result;
};

static void *wait_for_it(void *argument)
{
    struct waiter *waiter = argument;
    struct dragon_message message;

    do
        waiter->result =
            waiter->events
                ? dragon_channel_watch(channel, waiter->events, DRAGON_FOREVER)
                : dragon_channel_receive(channel, DRAGON_HOLDER_NONE, &message, DRAGON_FOREVER);
    while (waiter->result == DRAGON_CHANNEL_INTERRUPTED);
    return NULL;
}

static bool somebody_waits(struct dragon_eventcount *eventcount, uint32_t n)
{
    return dragon_peek(&eventcount->arrived) - dragon_peek(&eventcount->cleared) >= n;
}

static void start_waiters(struct waiter *waiters, int n, unsigned events)
{
    for (int i = 0; i < n; i++) {
        waiters[i].events = events;
        pthread_create(&waiters[i].thread, NULL, wait_for_it, &waiters[i]);
    }
    while (!somebody_waits(events ? &channel->shared->watchers : &channel->shared->may_receive,
                           (uint32_t)n))
        dragon_pause();
}

static void join_waiters(struct waiter *waiters, int n, int result)
{
    for (int i = 0; i < n; i++) {
        pthread_join(waiters[i].thread, NULL);
        cr_assert_eq(waiters[i].result, result);
    }
}

Test(channel, a_destroyed_one_lets_all_who_wait_go)
{
    struct waiter receivers[3], watchers[3];

    open_channel(4, UNBOUNDED);
    start_waiters(receivers, 3, 0);
    start_waiters(watchers, 3, DRAGON_CHANNEL_EVENT_FULL);
    cr_assert(dragon_channel_destroy(channel));
    cr_assert_not(dragon_channel_destroy(channel));
    cr_assert(dragon_channel_is_destroyed(channel));
    join_waiters(receivers, 3, DRAGON_CHANNEL_DESTROYED);
    join_waiters(watchers, 3, DRAGON_CHANNEL_DESTROYED);
    close_channel();
}

Test(channel, a_destroyed_one_frees_its_messages)
{
    struct dragon_message message = {.kind = 1};
    struct dragon_handle handle;

    open_channel(4, UNBOUNDED);
    cr_assert_eq(attach_block(fixture.pool, 1000, HOLDER, &message, &handle), 0);
    cr_assert_eq(dragon_channel_try_send(channel, &message), 0);
    send_numbers(0, 2);
    dragon_channel_destroy(channel);
    cr_assert_eq(n_blocks(), 2);
    close_channel();
}

Test(channel, room_that_destroying_made_is_for_nobody)
{
    struct dragon_message message = message_of(1);

    open_channel(1, UNBOUNDED);
    send_numbers(0, 1);
    cr_assert_eq(dragon_channel_try_send(channel, &message), DRAGON_CHANNEL_FULL);
    dragon_channel_destroy(channel);
    cr_assert_not(dragon_channel_is_full(channel));
    cr_assert_eq(dragon_channel_try_send(channel, &message), DRAGON_CHANNEL_DESTROYED);
    cr_assert_eq(dragon_channel_send(channel, &message, DRAGON_FOREVER), DRAGON_CHANNEL_DESTROYED);
    cr_assert_eq(dragon_channel_count(channel), 0);
    close_channel();
}

Test(channel, its_events_are_what_it_is)
{
    open_channel(2, UNBOUNDED);
    cr_assert_not(dragon_channel_has_event(channel, 0));
    cr_assert_not(dragon_channel_has_event(channel, DRAGON_CHANNEL_EVENT_MESSAGE));
    cr_assert(dragon_channel_has_event(channel, DRAGON_CHANNEL_EVENT_EMPTY));
    cr_assert(dragon_channel_has_event(channel, DRAGON_CHANNEL_EVENT_ROOM));
    cr_assert_eq(dragon_channel_watch(channel, DRAGON_CHANNEL_EVENT_FULL, DRAGON_AT_ONCE),
                 DRAGON_CHANNEL_NOT_YET);
    send_numbers(0, 2);
    cr_assert(dragon_channel_has_event(channel, DRAGON_CHANNEL_EVENT_MESSAGE));
    cr_assert(dragon_channel_has_event(channel, DRAGON_CHANNEL_EVENT_FULL));
    cr_assert_not(
        dragon_channel_has_event(channel, DRAGON_CHANNEL_EVENT_EMPTY | DRAGON_CHANNEL_EVENT_ROOM));
    receive_numbers(0, 2);
    close_channel();
}

Test(channel, a_change_lets_all_watchers_go)
{
    struct waiter waiters[3];
    int64_t begin_ns;

    open_channel(2, UNBOUNDED);
    start_waiters(waiters, 3, DRAGON_CHANNEL_EVENT_MESSAGE);
    begin_ns = dragon_now_ns();
    send_numbers(0, 1);
    join_waiters(waiters, 3, 0);
    start_waiters(waiters, 3, DRAGON_CHANNEL_EVENT_EMPTY);
    receive_numbers(0, 1);
    join_waiters(waiters, 3, 0);
    cr_assert_lt(dragon_now_ns() - begin_ns, 900 * (DRAGON_NS_PER_S / 1000));
    close_channel();
}

/* ---- one message ---- */

Test(channel, a_message_arrives_as_it_was_sent)
{
    struct dragon_message sent = {.kind = 77, .size_bytes = DRAGON_MESSAGE_INLINE_BYTES}, got;

    open_channel(UNBOUNDED, UNBOUNDED);
    for (int i = 0; i < DRAGON_MESSAGE_INLINE_BYTES; i++)
        sent.bytes[i] = (unsigned char)(i + 1);
    cr_assert_eq(dragon_channel_try_send(channel, &sent), 0);
    cr_assert_eq(dragon_channel_try_receive(channel, DRAGON_HOLDER_NONE, &got), 0);
    cr_assert_eq(memcmp(&sent, &got, sizeof sent), 0);
    close_channel();
}

Test(channel, a_message_of_no_bytes_is_a_message)
{
    struct dragon_message sent = {.kind = 5}, got = {.kind = 6};

    open_channel(UNBOUNDED, UNBOUNDED);
    cr_assert_eq(dragon_channel_try_send(channel, &sent), 0);
    cr_assert_eq(dragon_channel_count(channel), 1);
    cr_assert_eq(dragon_channel_try_receive(channel, DRAGON_HOLDER_NONE, &got), 0);
    cr_assert_eq(got.kind, 5);
    cr_assert_eq(got.size_bytes, 0);
    cr_assert_not(dragon_message_has_block(&got));
    close_channel();
}

Test(channel, an_empty_one_is_empty_at_once)
{
    struct dragon_message message;

    open_channel(UNBOUNDED, UNBOUNDED);
    cr_assert_eq(dragon_channel_try_receive(channel, DRAGON_HOLDER_NONE, &message),
                 DRAGON_CHANNEL_EMPTY);
    cr_assert_eq(dragon_channel_receive(channel, DRAGON_HOLDER_NONE, &message, DRAGON_AT_ONCE),
                 DRAGON_CHANNEL_EMPTY);
    cr_assert_eq(dragon_channel_wait(channel, DRAGON_AT_ONCE), DRAGON_CHANNEL_EMPTY);
    close_channel();
}

Test(channel, opening_what_is_no_channel_is_refused)
{
    struct dragon_channel other;
    struct dragon_object object;

    open_channel(UNBOUNDED, UNBOUNDED);
    cr_assert_eq(dragon_object_create(fixture.pool, DRAGON_CHANNEL_KIND,
                                      sizeof(struct dragon_channel_shared), DRAGON_HOLDER_SHARED,
                                      &object),
                 0);
    cr_assert_eq(dragon_channel_open(&other, &object), -EBADMSG);
    channel->shared->tail_ring += 64;
    cr_assert_eq(dragon_channel_open(&other, &fixture.object), -EBADMSG);
    channel->shared->tail_ring -= 64;
    cr_assert_eq(dragon_channel_open(&other, &fixture.object), 0);
    dragon_object_close(&object, dragon_fini);
    close_channel();
}

Test(channel, lives_as_long_as_it_has_a_user)
{
    struct dragon_channel_options options = {UNBOUNDED, UNBOUNDED};
    struct dragon_channel one, other;
    struct dragon_handle handle;
    uint64_t number, n_before;

    open_channel(UNBOUNDED, UNBOUNDED);
    n_before = n_blocks();
    cr_assert_eq(dragon_channel_create(fixture.pool, &options, &one), 0);
    handle = one.object.handle;
    cr_assert_eq(dragon_channel_attach(fixture.pool, &handle, &other), 0);
    cr_assert_eq(send_number(&one, 5), 0);
    dragon_channel_close(&one);
    cr_assert_eq(receive_number(&other, &number), 0);
    cr_assert_eq(number, 5);
    cr_assert_eq(send_number(&other, 6), 0); /* goes with it */
    dragon_channel_close(&other);
    cr_assert_eq(n_blocks(), n_before);
    cr_assert_eq(dragon_channel_attach(fixture.pool, &handle, &one), -EBADMSG);
    close_channel();
}

Test(channel, one_that_cannot_be_made_leaves_nothing)
{
    struct dragon_channel_options options = {UNBOUNDED, UNBOUNDED};
    struct dragon_channel other;
    struct dragon_handle rest;
    uint64_t n_before, size = 64 * MIB;

    open_channel(UNBOUNDED, UNBOUNDED);
    while (size >= 64)
        if (dragon_pool_alloc(fixture.pool, size, HOLDER, &rest) != 0)
            size -= size / 8; /* each class, to the last block */
    cr_assert_eq(dragon_pool_alloc(fixture.pool, 64, HOLDER, &rest), DRAGON_POOL_FULL);
    n_before = n_blocks();
    cr_assert_eq(dragon_channel_create(fixture.pool, &options, &other), DRAGON_POOL_FULL);
    cr_assert_eq(n_blocks(), n_before);
    dragon_pool_sweep(fixture.pool, HOLDER);
    close_channel();
}

/* ---- order and growth ---- */

Test(channel, messages_arrive_in_order_over_several_rings)
{
    /* Rings of 64, 128, 256, ... slots are linked as they fill. */
    uint64_t n = 64 + 128 + 256 + 512 + 10;

    open_channel(UNBOUNDED, UNBOUNDED);
    send_numbers(0, n);
    cr_assert_eq(dragon_channel_count(channel), n);
    cr_assert_eq(n_blocks(), 1 + 5);
    cr_assert(dragon_channel_check(channel));
    receive_numbers(0, n);
    close_channel();
}

Test(channel, emptied_rings_are_freed_on_the_way)
{
    open_channel(UNBOUNDED, UNBOUNDED);
    send_numbers(0, FIRST_RING + 128 + 1);
    cr_assert_eq(n_blocks(), 1 + 3);
    receive_numbers(0, FIRST_RING + 128 + 1);
    cr_assert_eq(n_blocks(), 1 + 1);
    cr_assert_eq(dragon_channel_count(channel), 0);
    close_channel();
}

Test(channel, a_steady_flow_needs_one_ring)
{
    open_channel(UNBOUNDED, UNBOUNDED);
    for (uint64_t i = 0; i < 10 * FIRST_RING; i++) {
        send_numbers(2 * i, 2 * i + 2);
        receive_numbers(2 * i, 2 * i + 2);
    }
    cr_assert_eq(n_blocks(), 1 + 1);
    close_channel();
}

Test(channel, order_survives_any_mix_of_sends_and_receives)
{
    struct seed seed = seed_new("channel");
    uint64_t n_sent = 0, n_received = 0;

    open_channel(UNBOUNDED, UNBOUNDED);
    for (int i = 0; i < 400; i++) {
        uint64_t n = seed_below(&seed, 300);

        if (seed_below(&seed, 2) == 0) {
            send_numbers(n_sent, n_sent + n);
            n_sent += n;
        } else {
            n = n < n_sent - n_received ? n : n_sent - n_received;
            receive_numbers(n_received, n_received + n);
            n_received += n;
        }
        cr_assert_eq(dragon_channel_count(channel), n_sent - n_received);
    }
    cr_assert(dragon_channel_check(channel));
    close_channel();
}

Test(channel, messages_that_nobody_took_go_with_it)
{
    struct dragon_handle handle;

    open_channel(UNBOUNDED, UNBOUNDED);
    for (uint64_t i = 0; i < 500; i++) {
        struct dragon_message message = message_of(i);

        cr_assert_eq(attach_block(fixture.pool, 200 * i + 1, HOLDER, &message, &handle), 0);
        cr_assert_eq(dragon_channel_try_send(channel, &message), 0);
    }
    close_channel();
}

/* ---- limits ---- */

Test(channel, takes_exactly_as_many_messages_as_its_limit)
{
    uint64_t limits[] = {1, 2, 3, 63, 64, 65, 100, 500};

    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct dragon_message message = message_of(0);

        open_channel(limits[i], UNBOUNDED);
        cr_assert_not(dragon_channel_is_full(channel));
        send_numbers(0, limits[i]);
        cr_assert(dragon_channel_is_full(channel));
        cr_assert_eq(dragon_channel_try_send(channel, &message), DRAGON_CHANNEL_FULL);
        cr_assert_eq(dragon_channel_send(channel, &message, DRAGON_AT_ONCE), DRAGON_CHANNEL_FULL);
        receive_numbers(0, 1);
        send_numbers(limits[i], limits[i] + 1);
        cr_assert_eq(dragon_channel_try_send(channel, &message), DRAGON_CHANNEL_FULL);
        receive_numbers(1, limits[i] + 1);
        close_channel();
    }
}

Test(channel, a_byte_limit_counts_payload_and_blocks)
{
    struct dragon_message large = message_of(1), small = message_of(2);
    struct dragon_handle handle;

    open_channel(UNBOUNDED, 1000);
    /* 8 bytes inline and 16 lines of 64 bytes: 1032 on the way. */
    cr_assert_eq(attach_block(fixture.pool, 1000, HOLDER, &large, &handle), 0);
    cr_assert_eq(dragon_channel_try_send(channel, &large), 0, "one may exceed the limit");
    cr_assert_eq(dragon_channel_try_send(channel, &small), DRAGON_CHANNEL_FULL);
    cr_assert_eq(dragon_channel_try_receive(channel, DRAGON_HOLDER_NONE, &large), 0);
    cr_assert_eq(dragon_pool_free(fixture.pool, &handle), 0);
    /* 8 bytes each: the 125th makes 1000. */
    send_numbers(0, 125);
    cr_assert_eq(dragon_channel_try_send(channel, &small), DRAGON_CHANNEL_FULL);
    receive_numbers(0, 1);
    send_numbers(125, 126);
    close_channel();
}

Test(channel, a_pool_without_room_is_an_outcome_and_loses_nothing)
{
    uint64_t n = 0;
    int r;

    channel_fixture_open(&fixture, MIB / 4, UNBOUNDED, UNBOUNDED);
    while ((r = send_number(channel, n)) == 0)
        n++;
    cr_assert_eq(r, DRAGON_CHANNEL_POOL_FULL);
    cr_assert_eq(dragon_channel_count(channel), n);
    receive_numbers(0, n);
    send_numbers(n, n + 10);
    receive_numbers(n, n + 10);
    close_channel();
}

/* ---- blocks ---- */

Test(channel, a_block_arrives_whole_and_is_held_by_its_receiver)
{
    struct dragon_message sent = message_of(1), got;
    struct dragon_handle handle;
    uint32_t before;

    open_channel(UNBOUNDED, UNBOUNDED);
    cr_assert_eq(attach_block(fixture.pool, 5000, HOLDER, &sent, &handle), 0);
    memset(dragon_pool_at(fixture.pool, handle.offset), 0x11, 5000);
    cr_assert_eq(dragon_channel_try_send(channel, &sent), 0);
    cr_assert_eq(dragon_channel_try_receive(channel, HOLDER + 1, &got), 0);
    cr_assert_eq(got.block_offset, handle.offset);
    cr_assert_eq(got.block_generation, handle.generation);
    cr_assert_eq(*(unsigned char *)dragon_pool_at(fixture.pool, handle.offset + 4999), 0x11);
    cr_assert_eq(dragon_pool_hold(fixture.pool, &handle, HOLDER, &before), 0);
    cr_assert_eq(before, HOLDER + 1);
    cr_assert_eq(dragon_pool_free(fixture.pool, &handle), 0);
    close_channel();
}

Test(channel, a_block_received_for_nobody_keeps_its_holder)
{
    struct dragon_message message = message_of(1);
    struct dragon_handle handle;

    open_channel(UNBOUNDED, UNBOUNDED);
    cr_assert_eq(attach_block(fixture.pool, 5000, HOLDER, &message, &handle), 0);
    cr_assert_eq(dragon_channel_try_send(channel, &message), 0);
    cr_assert_eq(dragon_channel_try_receive(channel, DRAGON_HOLDER_NONE, &message), 0);
    cr_assert_eq(dragon_pool_sweep(fixture.pool, HOLDER), 1);
    close_channel();
}

Test(channel, a_message_whose_block_is_gone_is_taken_with_an_error)
{
    struct dragon_message message = message_of(1);
    struct dragon_handle handle;

    open_channel(1, UNBOUNDED);
    cr_assert_eq(attach_block(fixture.pool, 5000, HOLDER, &message, &handle), 0);
    cr_assert_eq(dragon_channel_try_send(channel, &message), 0);
    cr_assert_eq(dragon_pool_free(fixture.pool, &handle), 0);
    cr_assert_eq(dragon_channel_receive(channel, HOLDER, &message, DRAGON_AT_ONCE), -EBADMSG);
    send_numbers(2, 3);
    receive_numbers(2, 3);
    close_channel();
}

Test(channel, a_message_of_an_impossible_size_is_taken_with_an_error)
{
    struct dragon_message message;
    struct dragon_ring *ring;

    open_channel(UNBOUNDED, UNBOUNDED);
    send_numbers(0, 3);
    ring = dragon_pool_at(fixture.pool, dragon_peek(&channel->shared->tail_ring));
    ring->slots[1].size_bytes = DRAGON_MESSAGE_INLINE_BYTES + 1;
    receive_numbers(0, 1);
    cr_assert_eq(dragon_channel_try_receive(channel, HOLDER, &message), -EBADMSG);
    receive_numbers(2, 3);
    close_channel();
}

/* ---- somebody wrote over it: an error, no wait, no place outside ---- */

static struct dragon_ring *first_ring(void)
{
    return dragon_pool_at(fixture.pool, dragon_peek(&channel->shared->tail_ring));
}

static void expect_broken(void)
{
    struct dragon_message message = message_of(1);

    cr_assert_eq(dragon_channel_try_receive(channel, HOLDER, &message), -EBADMSG);
    cr_assert_eq(dragon_channel_receive(channel, HOLDER, &message, test_soon()), -EBADMSG);
    (void)dragon_channel_try_send(channel, &message);
    dragon_channel_destroy(channel);
    dragon_object_close(&fixture.object, dragon_fini);
    dragon_pool_close(fixture.pool);
}

Test(channel, a_head_far_ahead_is_no_message)
{
    open_channel(UNBOUNDED, UNBOUNDED);
    send_numbers(0, 3);
    dragon_poke(&channel->shared->head, UINT64_C(1) << 56);
    expect_broken();
}

Test(channel, rings_in_a_circle_are_not_followed)
{
    open_channel(UNBOUNDED, UNBOUNDED);
    send_numbers(0, 3);
    receive_numbers(0, 1);
    dragon_poke(&first_ring()->end, 1);
    dragon_poke(&first_ring()->next_offset, dragon_peek(&channel->shared->tail_ring));
    expect_broken();
}

Test(channel, a_ring_that_ends_where_it_begins_is_not_followed)
{
    open_channel(UNBOUNDED, UNBOUNDED);
    send_numbers(0, 3);
    dragon_poke(&first_ring()->end, 0);
    dragon_poke(&first_ring()->next_offset, dragon_peek(&channel->shared->tail_ring));
    expect_broken();
}

Test(channel, no_ring_at_all_is_an_error_for_both_sides)
{
    struct dragon_message message = message_of(1);

    open_channel(UNBOUNDED, UNBOUNDED);
    send_numbers(0, 3);
    dragon_poke(&channel->shared->head_ring, 0);
    cr_assert_eq(dragon_channel_try_send(channel, &message), -EBADMSG);
    dragon_poke(&channel->shared->tail_ring, 0);
    expect_broken();
}

Test(channel, a_ring_that_claims_more_slots_than_it_has_is_no_ring)
{
    open_channel(UNBOUNDED, UNBOUNDED);
    send_numbers(0, 3);
    receive_numbers(0, 1);
    first_ring()->n_slots *= 1024;
    expect_broken();
}

Test(channel, messages_of_each_size_arrive_whole)
{
    struct dragon_message sent = {.kind = MESSAGE_KIND}, got;

    open_channel(UNBOUNDED, UNBOUNDED);
    for (uint32_t n = 0; n <= DRAGON_MESSAGE_INLINE_BYTES; n++) {
        sent.size_bytes = n;
        memset(sent.bytes, (int)n + 1, sizeof sent.bytes);
        memset(&got, 0, sizeof got);
        cr_assert_eq(dragon_channel_try_send(channel, &sent), 0);
        cr_assert_eq(dragon_channel_try_receive(channel, HOLDER, &got), 0);
        cr_assert_eq(memcmp(&got, &sent, offsetof(struct dragon_message, bytes) + n), 0);
    }
    close_channel();
}

Test(channel, a_block_that_was_not_sent_stays_the_callers)
{
    struct dragon_message message = message_of(1);
    struct dragon_handle handle;

    open_channel(1, UNBOUNDED);
    send_numbers(0, 1);
    cr_assert_eq(attach_block(fixture.pool, 5000, HOLDER, &message, &handle), 0);
    cr_assert_eq(dragon_channel_try_send(channel, &message), DRAGON_CHANNEL_FULL);
    cr_assert_eq(dragon_channel_send(channel, &message, DRAGON_AT_ONCE), DRAGON_CHANNEL_FULL);
    cr_assert_eq(dragon_pool_sweep(fixture.pool, HOLDER), 1);
    receive_numbers(0, 1);
    close_channel();
}

/* ---- locks and time ---- */

static int hold_lock(void *lock)
{
    dragon_mutex_lock(lock);
    pause(); /* until it is killed */
    return 0;
}

static bool is_locked(void *lock)
{
    int r = dragon_mutex_try_lock(lock);

    if (r == 0)
        dragon_mutex_unlock(lock);
    return r == DRAGON_MUTEX_BUSY;
}

Test(channel, a_lock_in_use_is_busy_for_those_who_do_not_wait)
{
    struct dragon_message message = message_of(1);
    pid_t holder;

    open_channel(UNBOUNDED, UNBOUNDED);
    send_numbers(0, 1);
    holder = child_start(hold_lock, &channel->shared->send_lock);
    cr_assert(becomes_true(is_locked, &channel->shared->send_lock));
    cr_assert_eq(dragon_channel_try_send(channel, &message), DRAGON_CHANNEL_BUSY);
    child_kill(holder);
    holder = child_start(hold_lock, &channel->shared->receive_lock);
    cr_assert(becomes_true(is_locked, &channel->shared->receive_lock));
    cr_assert_eq(dragon_channel_try_receive(channel, DRAGON_HOLDER_NONE, &message),
                 DRAGON_CHANNEL_BUSY);
    child_kill(holder);
    cr_assert_eq(dragon_channel_try_send(channel, &message), 0, "the holder is dead");
    receive_numbers(0, 2);
    close_channel();
}

Test(channel, waits_end_at_their_deadline_and_not_before)
{
    int64_t begin_ns, wait_ns = DRAGON_NS_PER_S / 20;
    struct dragon_message message = message_of(1);

    open_channel(1, UNBOUNDED);
    begin_ns = dragon_now_ns();
    cr_assert_eq(dragon_channel_receive(channel, DRAGON_HOLDER_NONE, &message, begin_ns + wait_ns),
                 DRAGON_CHANNEL_EMPTY);
    cr_assert_geq(dragon_now_ns() - begin_ns, wait_ns);
    begin_ns = dragon_now_ns();
    cr_assert_eq(dragon_channel_wait(channel, begin_ns + wait_ns), DRAGON_CHANNEL_EMPTY);
    cr_assert_geq(dragon_now_ns() - begin_ns, wait_ns);
    send_numbers(0, 1);
    begin_ns = dragon_now_ns();
    cr_assert_eq(dragon_channel_send(channel, &message, begin_ns + wait_ns), DRAGON_CHANNEL_FULL);
    cr_assert_geq(dragon_now_ns() - begin_ns, wait_ns);
    begin_ns = dragon_now_ns();
    cr_assert_eq(dragon_channel_join(channel, begin_ns + wait_ns), DRAGON_CHANNEL_PENDING);
    cr_assert_geq(dragon_now_ns() - begin_ns, wait_ns);
    close_channel();
}

Test(channel, wait_leaves_the_message)
{
    open_channel(UNBOUNDED, UNBOUNDED);
    send_numbers(0, 1);
    cr_assert_eq(dragon_channel_wait(channel, DRAGON_FOREVER), 0);
    cr_assert_eq(dragon_channel_wait(channel, DRAGON_FOREVER), 0);
    receive_numbers(0, 1);
    close_channel();
}

static int send_one(void *argument)
{
    (void)argument;
    return send_number(channel, 42);
}

static int receive_one(void *argument)
{
    uint64_t number;

    (void)argument;
    return receive_number(channel, &number) == 0 ? (int)number : 100;
}

static bool has_waiter(void *eventcount)
{
    return dragon_eventcount_has_waiters(eventcount);
}

static int receive_waiting(void *argument)
{
    struct dragon_message message;

    (void)argument;
    if (dragon_channel_receive(channel, DRAGON_HOLDER_NONE, &message, test_soon()) != 0)
        return 100;
    return (int)number_in(&message);
}

Test(channel, a_sleeping_receiver_is_woken_by_a_send)
{
    int64_t begin_ns;
    pid_t child;

    open_channel(UNBOUNDED, UNBOUNDED);
    child = child_start(receive_waiting, NULL);
    cr_assert(becomes_true(has_waiter, &channel->shared->may_receive));
    begin_ns = dragon_now_ns();
    send_numbers(42, 43);
    cr_assert_eq(child_result(child), 42);
    cr_assert_lt(dragon_now_ns() - begin_ns, DRAGON_EVENTCOUNT_PARK_NS / 2);
    close_channel();
}

static int send_waiting(void *argument)
{
    struct dragon_message message = message_of(42);

    (void)argument;
    return dragon_channel_send(channel, &message, test_soon());
}

Test(channel, a_sleeping_sender_is_woken_by_a_receive)
{
    pid_t child;

    open_channel(1, UNBOUNDED);
    send_numbers(0, 1);
    child = child_start(send_waiting, NULL);
    cr_assert(becomes_true(has_waiter, &channel->shared->may_send));
    receive_numbers(0, 1);
    cr_assert_eq(child_result(child), 0);
    receive_numbers(42, 43);
    close_channel();
}

Test(channel, other_processes_send_and_receive)
{
    open_channel(UNBOUNDED, UNBOUNDED);
    cr_assert_eq(child_result(child_start(send_one, NULL)), 0);
    receive_numbers(42, 43);
    send_numbers(33, 34);
    cr_assert_eq(child_result(child_start(receive_one, NULL)), 33);
    close_channel();
}

/* ---- signals ---- */

static _Atomic bool stop_signals;

static void nothing(int signal_number)
{
    (void)signal_number;
}

/* Until told to stop: the first may come before the wait has begun. */
static void *send_signals(void *thread)
{
    while (!atomic_load(&stop_signals)) {
        pthread_kill(*(pthread_t *)thread, SIGUSR1);
        usleep(1000);
    }
    return NULL;
}

static int while_signalled(int (*run)(void))
{
    struct sigaction action = {.sa_handler = nothing};
    pthread_t self = pthread_self(), thread;
    int r;

    sigaction(SIGUSR1, &action, NULL);
    atomic_store(&stop_signals, false);
    pthread_create(&thread, NULL, send_signals, &self);
    r = run();
    atomic_store(&stop_signals, true);
    pthread_join(thread, NULL);
    return r;
}

static int run_receive(void)
{
    struct dragon_message message;

    return dragon_channel_receive(channel, DRAGON_HOLDER_NONE, &message, test_soon());
}

static int run_wait(void)
{
    return dragon_channel_wait(channel, test_soon());
}

static int run_send(void)
{
    struct dragon_message message = message_of(1);

    return dragon_channel_send(channel, &message, test_soon());
}

static int run_join(void)
{
    return dragon_channel_join(channel, test_soon());
}

Test(channel, a_signal_interrupts_each_wait)
{
    open_channel(1, UNBOUNDED);
    cr_assert_eq(while_signalled(run_receive), DRAGON_CHANNEL_INTERRUPTED);
    cr_assert_eq(while_signalled(run_wait), DRAGON_CHANNEL_INTERRUPTED);
    send_numbers(0, 1);
    cr_assert_eq(while_signalled(run_send), DRAGON_CHANNEL_INTERRUPTED);
    cr_assert_eq(while_signalled(run_join), DRAGON_CHANNEL_INTERRUPTED);
    receive_numbers(0, 1);
    close_channel();
}

/* ---- done and join ---- */

Test(channel, pending_counts_what_was_sent_and_is_not_done)
{
    open_channel(UNBOUNDED, UNBOUNDED);
    cr_assert_eq(dragon_channel_join(channel, DRAGON_AT_ONCE), 0);
    send_numbers(0, 3);
    receive_numbers(0, 3);
    cr_assert_eq(dragon_channel_pending(channel), 3);
    cr_assert_eq(dragon_channel_join(channel, DRAGON_AT_ONCE), DRAGON_CHANNEL_PENDING);
    for (uint64_t i = 3; i > 0; i--) {
        cr_assert_eq(dragon_channel_pending(channel), i);
        cr_assert_eq(dragon_channel_done(channel), 0);
    }
    cr_assert_eq(dragon_channel_join(channel, DRAGON_AT_ONCE), 0);
    close_channel();
}

Test(channel, more_done_than_sent_is_an_outcome)
{
    open_channel(UNBOUNDED, UNBOUNDED);
    cr_assert_eq(dragon_channel_done(channel), DRAGON_CHANNEL_TOO_MANY_DONE);
    send_numbers(0, 1);
    cr_assert_eq(dragon_channel_done(channel), 0);
    cr_assert_eq(dragon_channel_done(channel), DRAGON_CHANNEL_TOO_MANY_DONE);
    close_channel();
}

static int join_waiting(void *argument)
{
    (void)argument;
    return dragon_channel_join(channel, test_soon());
}

Test(channel, the_last_done_wakes_all_who_join)
{
    pid_t children[3];
    int64_t begin_ns;

    open_channel(UNBOUNDED, UNBOUNDED);
    send_numbers(0, 2);
    receive_numbers(0, 2);
    for (int i = 0; i < 3; i++)
        children[i] = child_start(join_waiting, NULL);
    cr_assert(becomes_true(has_waiter, &channel->shared->all_done));
    begin_ns = dragon_now_ns();
    cr_assert_eq(dragon_channel_done(channel), 0);
    cr_assert_eq(dragon_channel_done(channel), 0);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(child_result(children[i]), 0);
    cr_assert_lt(dragon_now_ns() - begin_ns, DRAGON_EVENTCOUNT_PARK_NS / 2);
    close_channel();
}

/* ---- pollers ---- */

static uint64_t new_doorbell(void)
{
    struct dragon_handle handle;

    cr_assert_eq(dragon_pool_alloc(fixture.pool, sizeof(struct dragon_doorbell), HOLDER, &handle),
                 0);
    dragon_doorbell_init(dragon_pool_at(fixture.pool, handle.offset));
    return handle.offset;
}

static bool has_rung(uint64_t doorbell_offset, unsigned bit)
{
    struct dragon_doorbell *doorbell = dragon_pool_at(fixture.pool, doorbell_offset);

    return dragon_fetch_and(&doorbell->ready[bit / 64], ~(UINT64_C(1) << bit % 64)) >> bit % 64 & 1;
}

Test(channel, an_armed_doorbell_rings_once_at_the_next_message)
{
    uint64_t doorbell;

    open_channel(UNBOUNDED, UNBOUNDED);
    doorbell = new_doorbell();
    cr_assert(dragon_channel_arm(channel, doorbell, 255));
    cr_assert_not(has_rung(doorbell, 255));
    send_numbers(0, 1);
    cr_assert(has_rung(doorbell, 255));
    send_numbers(1, 2);
    cr_assert_not(has_rung(doorbell, 255));
    cr_assert_eq(dragon_pool_sweep(fixture.pool, HOLDER), 1);
    close_channel();
}

Test(channel, what_is_no_doorbell_is_not_rung)
{
    static const unsigned char zeros[256];
    struct dragon_handle handle;

    open_channel(UNBOUNDED, UNBOUNDED);
    cr_assert_eq(dragon_pool_alloc(fixture.pool, sizeof zeros, HOLDER, &handle), 0);
    memset(dragon_pool_at(fixture.pool, handle.offset), 0, sizeof zeros);
    dragon_poke(&channel->shared->pollers[0], handle.offset / 64 * 256 + 7);
    dragon_poke(&channel->shared->has_pollers, 1);
    send_numbers(0, 1);
    cr_assert_eq(memcmp(dragon_pool_at(fixture.pool, handle.offset), zeros, sizeof zeros), 0);
    cr_assert_eq(dragon_pool_free(fixture.pool, &handle), 0);
    close_channel();
}

Test(channel, a_disarmed_doorbell_does_not_ring)
{
    uint64_t doorbell;

    open_channel(UNBOUNDED, UNBOUNDED);
    doorbell = new_doorbell();
    cr_assert(dragon_channel_arm(channel, doorbell, 3));
    cr_assert(dragon_channel_arm(channel, doorbell, 4));
    dragon_channel_disarm(channel, doorbell, 3);
    send_numbers(0, 1);
    cr_assert_not(has_rung(doorbell, 3));
    cr_assert(has_rung(doorbell, 4));
    cr_assert_eq(dragon_pool_sweep(fixture.pool, HOLDER), 1);
    close_channel();
}

Test(channel, there_is_room_for_as_many_doorbells_as_documented)
{
    uint64_t doorbell;

    open_channel(UNBOUNDED, UNBOUNDED);
    doorbell = new_doorbell();
    for (unsigned i = 0; i < DRAGON_CHANNEL_N_POLLERS; i++) {
        cr_assert(dragon_channel_arm(channel, doorbell, i));
        cr_assert(dragon_channel_arm(channel, doorbell, i), "armed twice takes one entry");
    }
    cr_assert_not(dragon_channel_arm(channel, doorbell, 100));
    send_numbers(0, 1);
    for (unsigned i = 0; i < DRAGON_CHANNEL_N_POLLERS; i++)
        cr_assert(has_rung(doorbell, i));
    cr_assert(dragon_channel_arm(channel, doorbell, 100));
    cr_assert_eq(dragon_pool_sweep(fixture.pool, HOLDER), 1);
    close_channel();
}

/* A doorbell's place comes from a shared page: another process may write any. */
Test(channel, a_doorbell_outside_the_pool_is_not_rung)
{
    open_channel(UNBOUNDED, UNBOUNDED);
    dragon_poke(&channel->shared->pollers[0], UINT64_MAX);
    dragon_poke(&channel->shared->pollers[1], (UINT64_C(1) << 50) / 64 * 256);
    dragon_poke(&channel->shared->has_pollers, 1);
    send_numbers(0, 1);
    receive_numbers(0, 1);
    close_channel();
}

/* ---- threads ---- */

#define N_THREADS 3
#define N_EACH 4000

struct worker {
    uint64_t number;
    uint64_t next[N_THREADS]; /* per producer: no smaller number may come any more */
    uint64_t n_received;
    bool failed;
};

static void *produce(void *argument)
{
    struct worker *worker = argument;

    for (uint64_t i = 0; i < N_EACH && !worker->failed; i++) {
        struct dragon_message message = message_of(worker->number << 32 | i);

        worker->failed = dragon_channel_send(channel, &message, test_soon()) != 0;
    }
    return NULL;
}

static void *consume(void *argument)
{
    struct worker *worker = argument;
    struct dragon_message message;

    while (dragon_channel_receive(channel, DRAGON_HOLDER_NONE, &message, test_soon()) == 0) {
        uint64_t number = number_in(&message), producer = number >> 32;

        if (producer == N_THREADS)
            return NULL;
        if ((uint32_t)number < worker->next[producer])
            break;
        worker->next[producer] = (uint32_t)number + 1;
        worker->n_received++;
    }
    worker->failed = true;
    return NULL;
}

static void run_threads(uint64_t max_messages)
{
    struct worker producers[N_THREADS] = {0}, consumers[N_THREADS] = {0};
    pthread_t threads[2 * N_THREADS];
    uint64_t n_received = 0;

    open_channel(max_messages, UNBOUNDED);
    for (uint64_t i = 0; i < N_THREADS; i++) {
        producers[i].number = i;
        pthread_create(&threads[i], NULL, produce, &producers[i]);
        pthread_create(&threads[N_THREADS + i], NULL, consume, &consumers[i]);
    }
    for (int i = 0; i < N_THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < N_THREADS; i++) {
        struct dragon_message stop = message_of((uint64_t)N_THREADS << 32);

        cr_assert_eq(dragon_channel_send(channel, &stop, test_soon()), 0);
    }
    for (int i = 0; i < N_THREADS; i++) {
        pthread_join(threads[N_THREADS + i], NULL);
        cr_assert_not(producers[i].failed);
        cr_assert_not(consumers[i].failed);
        n_received += consumers[i].n_received;
    }
    cr_assert_eq(n_received, N_THREADS * N_EACH);
    close_channel();
}

Test(channel, threads_lose_and_double_nothing_and_keep_each_senders_order)
{
    run_threads(UNBOUNDED);
}

Test(channel, threads_that_wait_for_room_lose_nothing)
{
    run_threads(1);
    run_threads(7);
}
