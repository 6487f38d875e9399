/* A pipe whose state, rings and messages another process has scribbled over, and in whose socket
 * lies what others have written: every operation on it ends, with an error or a message that lies
 * in the pool, and takes nothing from the socket but the pipe's own bytes. */
#include "memory/object.h"
#include "memory/pool.h"
#include "support/pipe_fixture.h"
#include "support/scribble.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define N_MESSAGES 40 /* more than the first ring holds */
#define MAX_FOREIGN_BYTES 100

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_data);

static struct scribble scribble;
static struct pipe_fixture fixture;
static struct dragon_handle pipe_handle;

static void make_pipe(void)
{
    struct dragon_handle handle;
    struct dragon_message message;

    pipe_fixture_open_in(&fixture, UINT64_C(1) << 17, 100);
    for (uint64_t i = 0; i < N_MESSAGES; i++)
        if (pipe_send_number(&fixture.writer, i, DRAGON_AT_ONCE) != 0)
            abort();
    message = message_of(N_MESSAGES);
    if (attach_block(fixture.pool, 300, DRAGON_HOLDER_CHANNEL, &message, &handle) != 0 ||
        dragon_pipe_send(&fixture.writer, &message, DRAGON_AT_ONCE) != 0)
        abort();
    for (uint64_t i = 0, number; i < 3; i++)
        if (pipe_receive_number(&fixture.reader, &number, DRAGON_AT_ONCE) != 0)
            abort();
    pipe_handle = fixture.object.handle;
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

/* Whatever a pipe says must be documented. */
static void expect_documented(int r)
{
    switch (r) {
    case 0:
    case DRAGON_CHANNEL_FULL:
    case DRAGON_CHANNEL_EMPTY:
    case DRAGON_CHANNEL_BUSY:
    case DRAGON_CHANNEL_POOL_FULL:
    case DRAGON_PIPE_BROKEN:
    case DRAGON_PIPE_ENDED:
    case DRAGON_PIPE_FOREIGN:
    case -EBADMSG:
    case -ENOMEM:
    case -ENOSPC:
        return;
    default:
        abort();
    }
}

static void use(struct dragon_pipe *reader, struct dragon_pipe *writer, bool is_exposed)
{
    struct dragon_pipe_waited waited[2] = {{.pipe = reader}, {.fd = writer->fd}};
    struct dragon_message message;
    int r;

    if (is_exposed)
        expect_documented(dragon_pipe_expose(reader));
    expect_documented(dragon_pipe_wait(reader, DRAGON_AT_ONCE));
    expect_documented(dragon_pipe_wait_any(waited, 2, DRAGON_AT_ONCE));
    for (int i = 0; i < N_MESSAGES + 4; i++) {
        r = i % 2 ? dragon_pipe_receive(reader, DRAGON_HOLDER_FIRST_SLOT, &message, DRAGON_AT_ONCE)
                  : dragon_pipe_try_receive(reader, DRAGON_HOLDER_FIRST_SLOT, &message);
        expect_documented(r);
        if (r == 0)
            take_message(fixture.pool, &message);
        if (i % 16 == 5) {
            message = message_of(7);
            expect_documented(dragon_pipe_try_send(writer, &message));
            expect_documented(dragon_pipe_expect_foreign(writer));
            expect_documented(dragon_pipe_send(writer, &message, DRAGON_AT_ONCE));
        }
    }
    dragon_pipe_hang_up(reader);
    expect_documented(dragon_pipe_wait(reader, DRAGON_AT_ONCE));
}

/* Bytes of the input into the socket; how many. */
static size_t write_foreign(int fd, const uint8_t *data, size_t n_data)
{
    size_t n = n_data < MAX_FOREIGN_BYTES ? n_data : MAX_FOREIGN_BYTES;

    if (n > 0 && send(fd, data, n, MSG_DONTWAIT) != (ssize_t)n)
        abort();
    return n;
}

/* Input: how; how many bytes go into the socket, and those; then as scribble_write takes it. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_data)
{
    struct dragon_pipe reader, writer;
    struct dragon_object object;
    bool is_late, is_exposed;
    size_t n;
    int fds[2];

    if (n_data < 2)
        return 0;
    if (!fixture.pool)
        make_pipe();
    scribble_restore(&scribble);
    is_late = data[0] & 1;
    is_exposed = data[0] & 2;
    n = data[1] < n_data - 2 ? data[1] : n_data - 2;
    if (dragon_os_socket_pair(fds) != 0)
        abort();
    data += 2;
    n_data -= 2;
    n = write_foreign(fds[1], data, n);
    data += n;
    n_data -= n;
    if (!is_late)
        scribble_write(&scribble, data, n_data);
    if (dragon_object_open(fixture.pool, &pipe_handle, DRAGON_PIPE_KIND,
                           sizeof(struct dragon_pipe_shared), DRAGON_HOLDER_SHARED, &object) != 0)
        goto close_sockets;
    if (dragon_pipe_open(&reader, &object, fds[0]) == 0 &&
        dragon_pipe_open(&writer, &object, fds[1]) == 0) {
        if (is_late)
            scribble_write(&scribble, data, n_data);
        use(&reader, &writer, is_exposed);
    }
    dragon_object_close(&object, dragon_fini);

close_sockets:
    close(fds[0]);
    close(fds[1]);
    return 0;
}
