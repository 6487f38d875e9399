#include "channel/in_flight.h"
#include "channel/ring.h"
#include "support/channel_fixture.h"

#include <criterion/criterion.h>

#define MIB (UINT64_C(1) << 20)
#define UNBOUNDED DRAGON_CHANNEL_UNBOUNDED
#define DEAD DRAGON_HOLDER_FIRST_SLOT
#define ALIVE (DRAGON_HOLDER_FIRST_SLOT + 1)

static struct channel_fixture fixture;
static struct dragon_channel *channel = &fixture.channel;

static void open_channel(void)
{
    channel_fixture_open(&fixture, 64 * MIB, UNBOUNDED, UNBOUNDED);
}

static void close_channel(void)
{
    cr_assert(dragon_channel_check(channel));
    cr_assert_eq(channel_fixture_blocks_left(&fixture), 0);
    dragon_pool_close(fixture.pool);
}

TestSuite(in_flight, .timeout = 60, .init = open_channel, .fini = close_channel);

static struct dragon_handle alloc(uint32_t holder)
{
    struct dragon_handle handle;

    cr_assert_eq(dragon_pool_alloc(fixture.pool, 500, holder, &handle), 0);
    return handle;
}

static void send_blocks(struct dragon_channel *to, int n, uint32_t holder)
{
    for (int i = 0; i < n; i++) {
        struct dragon_message message = message_of((uint64_t)i);
        struct dragon_handle handle;

        cr_assert_eq(attach_block(fixture.pool, 500, holder, &message, &handle), 0);
        cr_assert_eq(dragon_channel_try_send(to, &message), 0);
    }
}

/* Take n messages with blocks that hold, and free these. */
static void receive_blocks(struct dragon_channel *from, int n)
{
    for (int i = 0; i < n; i++) {
        struct dragon_message message;
        struct dragon_handle handle;
        uint64_t size_bytes;

        cr_assert_eq(dragon_channel_try_receive(from, ALIVE, &message), 0);
        cr_assert_eq(dragon_pool_find(fixture.pool, message.block_offset, &handle, &size_bytes), 0);
        cr_assert_eq(handle.generation, message.block_generation);
        cr_assert_eq(dragon_pool_free(fixture.pool, &handle), 0);
    }
}

static uint64_t sweep(uint32_t holder)
{
    uint64_t n_freed = UINT64_MAX;

    cr_assert_eq(dragon_in_flight_sweep(fixture.pool, holder, &n_freed), 0);
    return n_freed;
}

static uint32_t holder_of(const struct dragon_handle *handle)
{
    uint64_t at = handle->offset, size_bytes;
    struct dragon_handle found;
    uint32_t holder;

    cr_assert(dragon_pool_next(fixture.pool, &at, &found, &size_bytes, &holder));
    cr_assert_eq(found.offset, handle->offset);
    return holder;
}

Test(in_flight, who_holds_nothing_leaves_nothing)
{
    struct dragon_handle other = alloc(ALIVE);

    cr_assert_eq(sweep(DEAD), 0);
    cr_assert_eq(holder_of(&other), ALIVE);
    cr_assert_eq(dragon_pool_free(fixture.pool, &other), 0);
}

Test(in_flight, what_the_dead_held_is_freed_and_what_it_had_sent_arrives)
{
    struct dragon_handle other = alloc(ALIVE);

    for (int i = 0; i < 7; i++)
        alloc(DEAD);
    send_blocks(channel, 300, DEAD); /* three rings */
    cr_assert_eq(sweep(DEAD), 7);
    cr_assert_eq(holder_of(&other), ALIVE);
    receive_blocks(channel, 300);
    cr_assert_eq(dragon_pool_free(fixture.pool, &other), 0);
}

Test(in_flight, a_second_sweep_finds_nothing)
{
    send_blocks(channel, 10, DEAD);
    alloc(DEAD);
    cr_assert_eq(sweep(DEAD), 1);
    cr_assert_eq(sweep(DEAD), 0);
    receive_blocks(channel, 10);
}

Test(in_flight, a_block_in_flight_becomes_the_channels)
{
    struct dragon_message message = message_of(1);
    struct dragon_handle handle;

    cr_assert_eq(attach_block(fixture.pool, 100000, DEAD, &message, &handle), 0);
    cr_assert_eq(dragon_channel_try_send(channel, &message), 0);
    cr_assert_eq(sweep(DEAD), 0);
    cr_assert_eq(holder_of(&handle), DRAGON_HOLDER_CHANNEL);
    cr_assert_eq(dragon_channel_try_receive(channel, ALIVE, &message), 0);
    cr_assert_eq(holder_of(&handle), ALIVE);
    cr_assert_eq(dragon_pool_free(fixture.pool, &handle), 0);
}

/* Its slot in the ring still names it. */
Test(in_flight, a_block_that_came_back_to_its_sender_is_freed)
{
    struct dragon_message message = message_of(1);
    struct dragon_handle handle;

    cr_assert_eq(attach_block(fixture.pool, 500, DEAD, &message, &handle), 0);
    cr_assert_eq(dragon_channel_try_send(channel, &message), 0);
    cr_assert_eq(dragon_channel_try_receive(channel, DEAD, &message), 0);
    send_blocks(channel, 3, DEAD);
    cr_assert_eq(sweep(DEAD), 1);
    receive_blocks(channel, 3);
}

Test(in_flight, blocks_of_messages_that_wrapped_around_the_ring_arrive)
{
    send_blocks(channel, 40, ALIVE);
    receive_blocks(channel, 40);
    send_blocks(channel, 60, DEAD);
    cr_assert_eq(sweep(DEAD), 0);
    receive_blocks(channel, 60);
}

Test(in_flight, all_channels_of_the_pool_are_read_whatever_their_objects_kind)
{
    static const uint32_t kinds[] = {DRAGON_CHANNEL_KIND, DRAGON_KIND('O', 'W', 'N', ' ')};
    struct dragon_channel_options options = {UNBOUNDED, UNBOUNDED};
    struct dragon_object objects[2];
    struct dragon_channel others[2];

    for (int i = 0; i < 2; i++) {
        cr_assert_eq(dragon_object_create(fixture.pool, kinds[i],
                                          sizeof(struct dragon_channel_shared) + 200,
                                          DRAGON_HOLDER_SHARED, &objects[i]),
                     0);
        cr_assert_eq(dragon_channel_init(&objects[i], &options), 0);
        cr_assert_eq(dragon_channel_open(&others[i], &objects[i]), 0);
        send_blocks(&others[i], 5, DEAD);
    }
    alloc(DEAD);
    cr_assert_eq(sweep(DEAD), 1);
    for (int i = 0; i < 2; i++) {
        receive_blocks(&others[i], 5);
        dragon_object_close(&objects[i], dragon_fini);
    }
}

Test(in_flight, a_channel_that_is_gone_keeps_nothing)
{
    struct dragon_channel_options options = {UNBOUNDED, UNBOUNDED};
    struct dragon_object object;
    struct dragon_channel other;

    cr_assert_eq(dragon_object_create(fixture.pool, DRAGON_CHANNEL_KIND,
                                      sizeof(struct dragon_channel_shared), DRAGON_HOLDER_SHARED,
                                      &object),
                 0);
    cr_assert_eq(dragon_channel_init(&object, &options), 0);
    cr_assert_eq(dragon_channel_open(&other, &object), 0);
    send_blocks(&other, 5, DEAD);
    dragon_object_close(&object, dragon_fini);
    alloc(DEAD);
    cr_assert_eq(sweep(DEAD), 1);
}

/* ---- bytes of other processes ---- */

Test(in_flight, a_channel_that_was_written_over_harms_nobody_else)
{
    struct dragon_channel_shared before = *channel->shared;
    struct dragon_ring *ring =
        dragon_pool_at(fixture.pool, dragon_peek(&channel->shared->tail_ring));
    uint64_t wrong[] = {0, 1, 64, UINT64_C(1) << 40, UINT64_MAX, UINT64_MAX - 63};

    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        dragon_poke(&channel->shared->tail_ring, wrong[i]);
        alloc(DEAD);
        cr_assert_eq(sweep(DEAD), 1);
        dragon_poke(&channel->shared->tail_ring, dragon_peek(&before.tail_ring));
        dragon_poke(&channel->shared->tail, wrong[i]);
        dragon_poke(&channel->shared->head, wrong[sizeof wrong / sizeof *wrong - 1 - i]);
        dragon_poke(&ring->end, wrong[i]);
        dragon_poke(&ring->next_offset, dragon_peek(&before.tail_ring)); /* itself */
        alloc(DEAD);
        cr_assert_eq(sweep(DEAD), 1);
        memcpy(channel->shared, &before, sizeof before);
        dragon_poke(&ring->end, DRAGON_RING_OPEN);
    }
}
