#pragma once

/*
 * _dragon.Pipe: one direction between the two ends of a multiprocessing.Pipe, as one
 * Connection sees it. It says which shared object that is; the Connection
 * (connection.c) gives it a socket and uses it.
 */

#include "object.h"

#include "channel/pipe.h"

struct dragon_py_pipe {
    struct dragon_py_object base;
    struct dragon_pipe pipe; /* open once a connection has it */
};

/* A new pipe, or another view of one in this process, each for one connection. A strong
 * reference, or NULL with an exception: PoolFull, OSError. */
struct dragon_py_pipe *dragon_py_pipe_new(struct dragon_py_state *state,
                                          const struct dragon_channel_options *options);
struct dragon_py_pipe *dragon_py_pipe_view(const struct dragon_py_pipe *other);

/* Let a connection use it, on its socket. -1 with an exception. */
int dragon_py_pipe_open(struct dragon_py_pipe *self, int fd);

/* Have this process hold what it receives or makes for the pipe: its slot into
 * holder_out. Asked each time: a forked copy of a process has a slot of its own.
 * -1 with an exception. what: for messages ("send"). */
int dragon_py_pipe_holder(struct dragon_py_pipe *self, const char *what, uint32_t *holder_out);
