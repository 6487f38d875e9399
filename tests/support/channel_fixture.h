#pragma once

/* A pool with one channel in it, for tests; and messages that carry a number. */

#include "channel/channel.h"
#include "channel/fini.h"
#include "memory/pool.h"

#include <stdlib.h>
#include <string.h>

#define MESSAGE_KIND 0x4e554d42u

struct channel_fixture {
    struct dragon_pool *pool;
    struct dragon_object object;
    struct dragon_channel channel;
};

static inline void channel_fixture_open(struct channel_fixture *fixture, uint64_t pool_bytes,
                                        uint64_t max_messages, uint64_t max_bytes)
{
    struct dragon_channel_options options = {max_messages, max_bytes};

    if (dragon_pool_create_managed(pool_bytes, 7, 1, &fixture->pool) != 0 ||
        dragon_object_create(fixture->pool, DRAGON_CHANNEL_KIND,
                             sizeof(struct dragon_channel_shared), DRAGON_HOLDER_SHARED,
                             &fixture->object) != 0 ||
        dragon_channel_init(&fixture->object, &options) != 0 ||
        dragon_channel_open(&fixture->channel, &fixture->object) != 0)
        abort();
}

/* Frees the channel; the number of blocks that its pool still has. */
static inline uint64_t channel_fixture_blocks_left(struct channel_fixture *fixture)
{
    struct dragon_pool_statistics statistics;

    dragon_object_close(&fixture->object, dragon_fini);
    dragon_pool_statistics(fixture->pool, &statistics);
    return statistics.n_blocks;
}

static inline struct dragon_message message_of(uint64_t number)
{
    struct dragon_message message = {.kind = MESSAGE_KIND, .size_bytes = sizeof number};

    memcpy(message.bytes, &number, sizeof number);
    return message;
}

static inline uint64_t number_in(const struct dragon_message *message)
{
    uint64_t number;

    memcpy(&number, message->bytes, sizeof number);
    return number;
}

/* Send or receive a number without waiting. */
static inline int send_number(struct dragon_channel *channel, uint64_t number)
{
    struct dragon_message message = message_of(number);

    return dragon_channel_send(channel, &message, 0);
}

static inline int receive_number(struct dragon_channel *channel, uint64_t *number_out)
{
    struct dragon_message message;
    int r = dragon_channel_receive(channel, DRAGON_HOLDER_NONE, &message, 0);

    if (r == 0)
        *number_out = number_in(&message);
    return r;
}

/* Put a block of size_bytes of the holder into a message. */
static inline int attach_block(struct dragon_pool *pool, uint64_t size_bytes, uint32_t holder,
                               struct dragon_message *message, struct dragon_handle *handle_out)
{
    int r = dragon_pool_alloc(pool, size_bytes, holder, handle_out);

    if (r != 0)
        return r;
    message->block_offset = handle_out->offset;
    message->block_generation = handle_out->generation;
    message->block_lines = (uint32_t)((size_bytes + 63) / 64);
    return 0;
}
