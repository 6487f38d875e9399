#pragma once

/*
 * Pipe: a channel whose ends are those of a socket, for messages one way.
 *
 * The messages are in the channel; a byte lies in the reading end's socket as long
 * as there are any. So a reader sleeps on its descriptor, alone or together with
 * any others, and the kernel says, by the end of the stream, when nobody is left
 * who could send: whoever closed it, and however the others ended. Senders learn
 * in the same way that no reader is left. Nothing here counts processes.
 *
 * The byte is written before the message is committed, and only if none lies
 * there, as the word `is_signalled` notes. Readers leave it where it is: only who
 * is about to sleep on an empty channel takes it back. Between two processes that
 * keep each other busy no byte moves. A descriptor that is read by others than us
 * (select, asyncio) must be exact; after dragon_pipe_expose, who takes the last
 * message takes the byte back as well.
 *
 * Who writes: is_signalled and the bytes in the socket: the holder of the channel's
 * send lock. A sender writes the byte, then the word; a reader that found the
 * channel empty, under that lock, clears the word, then takes all bytes. Who dies
 * between the two leaves a byte that the word does not know of: the next sender
 * writes one more, the next reader takes both. is_exposed: set once. n_hang_ups:
 * counted up by who closed a reading end, a hint to look; who dies before that is
 * found by time. All interleavings: tests/model/pipe.py. Why: docs/pipe.md.
 */

#include "channel/channel.h"
#include "os/socket.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* In the pool. */
struct dragon_pipe_shared {
    struct dragon_channel_shared channel; /* first: in_flight.h finds its messages */
    _Atomic uint32_t is_signalled;
    _Atomic uint32_t is_exposed;
    _Atomic uint32_t n_hang_ups;
    uint32_t reserved[13];
};

_Static_assert(sizeof(struct dragon_pipe_shared) == 10 * 64, "shared layout");

#define DRAGON_PIPE_KIND DRAGON_KIND('P', 'I', 'P', 'E')

/* Of these and of enum dragon_channel_outcome: FULL, EMPTY, BUSY, INTERRUPTED,
 * POOL_FULL. */
enum dragon_pipe_outcome {
    DRAGON_PIPE_BROKEN = 64, /* nobody has the reading end open */
    DRAGON_PIPE_ENDED,       /* no message, and nobody has the writing end open */
    DRAGON_PIPE_FOREIGN,     /* no message, but the socket holds what others wrote into it:
                                a descriptor on its way, as a rule */
};

/* An open pipe: one of its ends, or both in turn. Any thread may use it. */
struct dragon_pipe {
    struct dragon_channel channel; /* its holder: see channel.h */
    int fd;                        /* borrowed: the socket of this end */
    /* private */
    struct dragon_pipe_shared *shared;
    _Atomic uint32_t n_hang_ups_seen;
    _Atomic int64_t looked_ns; /* when the kernel last said that there are readers */
};

/* ---- lifetime; the object's use and the socket are the caller's ---- */

/* Make the state of a fresh object a pipe. Outcomes of dragon_pool_alloc. It is
 * closed with dragon_fini. */
int dragon_pipe_init(struct dragon_object *object, const struct dragon_channel_options *options);

/* Use an open object as a pipe. fd: this end of its pair of sockets, which carries no
 * other pipe in the same direction. -EBADMSG: its state makes no sense. */
int dragon_pipe_open(struct dragon_pipe *pipe, const struct dragon_object *object, int fd);

/* After a reading end was closed in this process: senders look whether it was the
 * last. The object is still in use. */
void dragon_pipe_hang_up(struct dragon_pipe *pipe);

/* ---- sending ---- */

/* As dragon_channel_try_send; also _BROKEN: the message stays the caller's. A reader that
 * was killed less than DRAGON_PIPE_LOOK_NS ago may count as one. */
int dragon_pipe_try_send(struct dragon_pipe *pipe, const struct dragon_message *message);
#define DRAGON_PIPE_LOOK_NS INT64_C(100000)

/* As dragon_channel_send; also _BROKEN, within DRAGON_PIPE_BROKEN_NS if the last reader
 * goes meanwhile. */
int dragon_pipe_send(struct dragon_pipe *pipe, const struct dragon_message *message,
                     int64_t deadline_ns);
#define DRAGON_PIPE_BROKEN_NS INT64_C(50000000)

/* ---- receiving ---- */

/* As dragon_channel_try_receive: it says _EMPTY also at the end. Of an exposed pipe nothing is
 * taken, _BUSY: who takes the last message has to wait for senders. */
int dragon_pipe_try_receive(struct dragon_pipe *pipe, uint32_t holder,
                            struct dragon_message *message_out);

/* As dragon_channel_receive; also _ENDED; _FOREIGN. */
int dragon_pipe_receive(struct dragon_pipe *pipe, uint32_t holder,
                        struct dragon_message *message_out, int64_t deadline_ns);

/* Wait until there is a message; it is not taken. 0; _EMPTY (deadline); _INTERRUPTED;
 * _ENDED; _FOREIGN; -errno. */
int dragon_pipe_wait(struct dragon_pipe *pipe, int64_t deadline_ns);

/* ---- waiting for many ---- */

struct dragon_pipe_waited {
    struct dragon_pipe *pipe; /* for a message, or what else ends a wait for one */
    int fd;                   /* if there is no pipe: any descriptor, until it is readable */
    bool is_ready;            /* result */
};

/* Wait until one or more are ready. 0: is_ready of all was set; _EMPTY (deadline; none
 * is); _INTERRUPTED; -errno. */
int dragon_pipe_wait_any(struct dragon_pipe_waited *waited, size_t n, int64_t deadline_ns);

/* ---- the descriptor ---- */

/* Others will look at the descriptor of this reading end, or read from it: from now on
 * it is readable exactly while there is something to receive. A byte before a
 * descriptor on its way is taken away. Blocks for a sender that is between two stores.
 * 0; -errno. */
int dragon_pipe_expose(struct dragon_pipe *pipe);

/* Others will write to the descriptor of this writing end: the next message has a byte
 * of its own, behind theirs. */
int dragon_pipe_expect_foreign(struct dragon_pipe *pipe);
