#pragma once

/* A pool with one pipe in it, and both its ends in this process, for tests. */

#include "channel/pipe.h"
#include "support/channel_fixture.h"

#include <unistd.h>

struct pipe_fixture {
    struct dragon_pool *pool;
    struct dragon_object object;
    struct dragon_pipe reader;
    struct dragon_pipe writer;
};

static inline void pipe_fixture_open_in(struct pipe_fixture *fixture, uint64_t pool_bytes,
                                        uint64_t max_messages)
{
    struct dragon_channel_options options = {max_messages, DRAGON_CHANNEL_UNBOUNDED};
    int fds[2];

    if (dragon_pool_create_managed(pool_bytes, 7, 1, &fixture->pool) != 0 ||
        dragon_object_create(fixture->pool, DRAGON_PIPE_KIND, sizeof(struct dragon_pipe_shared),
                             DRAGON_HOLDER_SHARED, &fixture->object) != 0 ||
        dragon_pipe_init(&fixture->object, &options) != 0 || dragon_os_socket_pair(fds) != 0 ||
        dragon_pipe_open(&fixture->reader, &fixture->object, fds[0]) != 0 ||
        dragon_pipe_open(&fixture->writer, &fixture->object, fds[1]) != 0)
        abort();
}

static inline void pipe_fixture_open(struct pipe_fixture *fixture, uint64_t max_messages)
{
    pipe_fixture_open_in(fixture, UINT64_C(64) << 20, max_messages);
}

static inline int pipe_send_number(struct dragon_pipe *pipe, uint64_t number, int64_t deadline_ns)
{
    struct dragon_message message = message_of(number);

    return dragon_pipe_send(pipe, &message, deadline_ns);
}

static inline int pipe_receive_number(struct dragon_pipe *pipe, uint64_t *number_out,
                                      int64_t deadline_ns)
{
    struct dragon_message message;
    int r = dragon_pipe_receive(pipe, DRAGON_HOLDER_NONE, &message, deadline_ns);

    if (r == 0)
        *number_out = number_in(&message);
    return r;
}
