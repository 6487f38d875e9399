#pragma once

/*
 * _dragon.Connection: one end of a multiprocessing.Pipe. A socket of its own, and a pipe
 * (runtime/channel/pipe.h) for each direction it has. With the GIL.
 */

#include "pipe.h"

struct dragon_py_connection {
    PyObject_HEAD
    struct dragon_py_pipe *incoming; /* NULL: not readable, or closed */
    struct dragon_py_pipe *outgoing; /* NULL: not writable, or closed */
    int fd;                          /* -1: closed */
    bool is_readable;
    bool is_writable;
    bool is_closed;           /* close() was called */
    unsigned n_inside;        /* threads that are in a method */
    uint32_t fork_generation; /* n_inside is of the process in which this was current */
    bool is_closing;          /* closed, and in the list of those that still have threads inside */
    struct dragon_py_connection *next_closing;
};

/* Be an end of these pipes (NULL: there is none in that direction) on the socket fd, which becomes
 * the connection's. -1 with an exception: fd stays the caller's. */
int dragon_py_connection_begin(struct dragon_py_connection *self, struct dragon_py_pipe *incoming,
                               struct dragon_py_pipe *outgoing, int fd);

/* Undo that, before anybody has the connection. */
void dragon_py_connection_finish(struct dragon_py_connection *self);

/* A thread is in a method, or has left it: until then the descriptor stays open, and the
 * pipes stay in use. */
void dragon_py_connection_enter(struct dragon_py_connection *self);
void dragon_py_connection_leave(struct dragon_py_connection *self);

/* In a forked copy: threads that are not in it leave nothing. */
void dragon_py_connections_after_fork(void);

/* -1 with OSError if the connection is closed. */
int dragon_py_connection_require_open(const struct dragon_py_connection *self);

/* -1, with OSError. */
int dragon_py_raise_closed(void);
int dragon_py_raise_errno(int number);
