/* A channel whose state, rings and messages another process has scribbled over,
 * before or after it was opened: every operation on it ends, with an error or a
 * message that lies in the pool. */
#include "channel/channel.h"
#include "memory/object.h"
#include "memory/pool.h"
#include "support/channel_fixture.h"
#include "support/scribble.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define N_MESSAGES 40 /* more than the first ring holds */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_data);

static struct scribble scribble;
static struct channel_fixture fixture;
static struct dragon_handle channel_handle;

static void make_channel(void)
{
    struct dragon_handle handle;
    struct dragon_message message;

    channel_fixture_open(&fixture, UINT64_C(1) << 17, 100, UINT64_C(1) << 20);
    for (uint64_t i = 0; i < N_MESSAGES; i++)
        if (send_number(&fixture.channel, i) != 0)
            abort();
    message = message_of(N_MESSAGES);
    if (attach_block(fixture.pool, 300, DRAGON_HOLDER_CHANNEL, &message, &handle) != 0 ||
        dragon_channel_send(&fixture.channel, &message, 0) != 0)
        abort();
    for (uint64_t i = 0, number; i < 3; i++)
        if (receive_number(&fixture.channel, &number) != 0)
            abort();
    channel_handle = fixture.object.handle;
    scribble_take_pool(&scribble, fixture.pool);
    scribble_add_blocks(&scribble, fixture.pool);
}

static volatile unsigned char sink;

static void take_message(struct dragon_pool *pool, const struct dragon_message *message)
{
    struct dragon_handle handle;
    uint64_t size_bytes;

    if (message->size_bytes > DRAGON_MESSAGE_INLINE_BYTES)
        abort();
    if (dragon_message_has_block(message) &&
        dragon_pool_find(pool, message->block_offset, &handle, &size_bytes) == 0)
        sink = *(unsigned char *)dragon_pool_at(pool, handle.offset + size_bytes - 1);
}

static void use(struct dragon_channel *channel)
{
    struct dragon_message message;

    sink = (unsigned char)dragon_channel_count(channel);
    sink = (unsigned char)dragon_channel_is_full(channel);
    sink = (unsigned char)dragon_channel_pending(channel);
    sink = (unsigned char)dragon_channel_check(channel);
    sink = (unsigned char)dragon_channel_has_event(channel, 15);
    dragon_channel_watch(channel, DRAGON_CHANNEL_EVENT_EMPTY, 0);
    dragon_channel_wait(channel, 0);
    for (int i = 0; i < N_MESSAGES + 4; i++) {
        if (dragon_channel_receive(channel, DRAGON_HOLDER_FIRST_SLOT, &message, 0) == 0)
            take_message(channel->object.pool, &message);
        if (i % 8 == 0)
            dragon_channel_done(channel);
        if (i % 16 == 5) {
            message = message_of(7);
            dragon_channel_send(channel, &message, 0);
            dragon_channel_try_send(channel, &message);
        }
    }
    dragon_channel_join(channel, 0);
    for (uint64_t i = 0; i < 20; i++)
        send_number(channel, i);
    sink = (unsigned char)dragon_channel_check(channel);
}

/* Input: how, then as scribble_write takes it. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_data)
{
    struct dragon_channel channel;
    struct dragon_object object;
    struct dragon_pool *pool;
    bool late;

    if (n_data == 0)
        return 0;
    if (!fixture.pool)
        make_channel();
    scribble_restore(&scribble);
    late = data[0] & 1;
    if (!late)
        scribble_write(&scribble, data + 1, n_data - 1);
    if (dragon_pool_open_fd(dup(dragon_pool_fd(fixture.pool)), &pool) != 0)
        abort();
    if (dragon_object_open(pool, &channel_handle, DRAGON_CHANNEL_KIND,
                           sizeof(struct dragon_channel_shared), DRAGON_HOLDER_SHARED,
                           &object) != 0)
        goto close_pool;
    if (dragon_channel_open(&channel, &object) == 0) {
        if (late) {
            sink = (unsigned char)dragon_channel_check(&channel);
            send_number(&channel, 1);
            scribble_write(&scribble, data + 1, n_data - 1);
        }
        use(&channel);
        if (data[0] & 2)
            dragon_channel_destroy(&channel);
    }
    /* The last user: fini runs. */
    dragon_object_close(&object, dragon_fini);
    if (dragon_object_open(pool, &channel_handle, DRAGON_CHANNEL_KIND,
                           sizeof(struct dragon_channel_shared), DRAGON_HOLDER_SHARED,
                           &object) == 0)
        dragon_object_close(&object, dragon_fini);
close_pool:
    dragon_pool_close(pool);
    return 0;
}
