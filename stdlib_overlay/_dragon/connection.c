/*
 * _dragon.Connection: one end of a multiprocessing.Pipe. A socket of its own, and a pipe
 * (runtime/channel/pipe.h) for each direction it has. The Python class in
 * dragon_overlay/connection.py adds what is not hot.
 *
 * Blocking: some looks while the GIL is held, then the runtime's wait without it, in
 * pieces, with a look for signals and for a close() by another thread after each.
 *
 * A descriptor that is closed while a thread uses it may be another file's by the time
 * the thread gets to it. So close() leaves it to the last thread that is inside.
 */
#include "connection.h"
#include "arguments.h"
#include "codec.h"
#include "wait.h"

#include "base/deadline.h"
#include "memory/pool.h"
#include "os/os.h"

#include <errno.h>

#define LOOKS_WITH_GIL 20

/* The most that a method here has. */
#define N_PARAMETERS 3

static struct dragon_py_state *state_of(struct dragon_py_connection *self)
{
    return dragon_py_state_of(Py_TYPE(self));
}

/* ---- closing ---- */

/* The closed connections that the last thread inside is to finish with. Guarded by the GIL. */
static struct dragon_py_connection *first_closing;

/* How often this thread is inside of connections. */
static _Thread_local unsigned depth;

/* It has come out of a fork inside of one, and will finish what others left. */
static _Thread_local bool finishes_for_others;

static void enlist(struct dragon_py_connection *self)
{
    if (self->is_closing)
        return;
    self->is_closing = true;
    self->next_closing = first_closing;
    first_closing = self;
}

static void delist(struct dragon_py_connection *self)
{
    struct dragon_py_connection **place = &first_closing;

    if (!self->is_closing)
        return;
    while (*place != self)
        place = &(*place)->next_closing;
    *place = self->next_closing;
    self->is_closing = false;
}

static void finish_close(struct dragon_py_connection *self)
{
    delist(self);
    dragon_os_close(self->fd);
    self->fd = -1;
    if (self->incoming && self->incoming->base.object.state)
        dragon_pipe_hang_up(&self->incoming->pipe);
    Py_CLEAR(self->incoming);
    Py_CLEAR(self->outgoing);
}

void dragon_py_connection_enter(struct dragon_py_connection *self)
{
    if (self->fork_generation != dragon_py_fork_generation)
        self->n_inside = 0;
    self->fork_generation = dragon_py_fork_generation;
    self->n_inside++;
    depth++;
}

/* After a fork: the threads that were inside are not in the copy. */
static void finish_for_others(void)
{
    finishes_for_others = false;
    while (first_closing) {
        first_closing->n_inside = 0;
        finish_close(first_closing);
    }
}

void dragon_py_connection_leave(struct dragon_py_connection *self)
{
    if (self->n_inside > 0) /* it was counted anew if a pickler forked */
        self->n_inside--;
    if (self->is_closed && self->n_inside == 0)
        finish_close(self);
    else if (self->is_closed)
        enlist(self);
    if (--depth == 0 && finishes_for_others)
        finish_for_others();
}

void dragon_py_connections_after_fork(void)
{
    finishes_for_others = first_closing != NULL;
    if (depth == 0)
        finish_for_others();
}

int dragon_py_raise_closed(void)
{
    PyErr_SetString(PyExc_OSError, "handle is closed");
    return -1;
}

int dragon_py_connection_require_open(const struct dragon_py_connection *self)
{
    return self->fd >= 0 && !self->is_closed ? 0 : dragon_py_raise_closed();
}

/* The pipe's object lives as long as the connection is open, but for the end of the process. */
static int require_readable(const struct dragon_py_connection *self)
{
    if (dragon_py_connection_require_open(self) < 0)
        return -1;
    if (self->is_readable && self->incoming)
        return 0;
    PyErr_SetString(PyExc_OSError, "connection is write-only");
    return -1;
}

static int require_writable(const struct dragon_py_connection *self)
{
    if (dragon_py_connection_require_open(self) < 0)
        return -1;
    if (self->is_writable && self->outgoing)
        return 0;
    PyErr_SetString(PyExc_OSError, "connection is read-only");
    return -1;
}

int dragon_py_raise_errno(int number)
{
    errno = number;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

/* An error or outcome of the runtime, which is not the end of a wait. */
static int raise_result(struct dragon_py_connection *self, struct dragon_py_pipe *pipe, int r,
                        const char *what)
{
    if (PyErr_Occurred())
        return -1;
    switch (r) {
    case DRAGON_PIPE_BROKEN:
        return dragon_py_raise_errno(EPIPE);
    case DRAGON_PIPE_ENDED:
        PyErr_SetNone(PyExc_EOFError);
        return -1;
    case DRAGON_PIPE_FOREIGN:
        PyErr_Format(PyExc_OSError,
                     "%s: what comes next was not sent by send() or send_bytes(): a descriptor, "
                     "for multiprocessing.reduction.recv_handle(), or bytes that were written to "
                     "the connection's file descriptor",
                     what);
        return -1;
    case DRAGON_CHANNEL_POOL_FULL:
        dragon_py_raise_pool_full(state_of(self), pipe->base.object.pool, 0, what);
        return -1;
    case -EBADF:
        return dragon_py_raise_errno(EBADF); /* the program closed it, as it may */
    default:
        dragon_py_raise(state_of(self), r, what);
        return -1;
    }
}

static struct dragon_py_transfer transfer_of(struct dragon_py_connection *self,
                                             const struct dragon_py_pipe *pipe, uint32_t holder,
                                             const char *what)
{
    return (struct dragon_py_transfer){state_of(self), pipe->base.object.pool, holder, what};
}

/* ---- sending ---- */

/* Consumes the message's block. */
static int send_message(struct dragon_py_connection *self, uint32_t holder,
                        struct dragon_message *message, const char *what)
{
    struct dragon_py_pipe *pipe = self->outgoing;
    int r = dragon_pipe_try_send(&pipe->pipe, message);

    if (r == DRAGON_CHANNEL_BUSY || r == DRAGON_CHANNEL_FULL) {
        do {
            if (self->is_closed) {
                dragon_py_raise_closed();
                r = -1;
                break;
            }
            Py_BEGIN_ALLOW_THREADS
            r = dragon_pipe_send(&pipe->pipe, message, dragon_py_next_look(DRAGON_FOREVER));
            Py_END_ALLOW_THREADS
        } while (dragon_py_goes_on(&r, DRAGON_CHANNEL_FULL, DRAGON_FOREVER));
    }
    if (r == 0)
        return 0;
    dragon_py_discard(pipe->base.object.pool, holder, message);
    return raise_result(self, pipe, r, what);
}

static int send_object(struct dragon_py_connection *self, PyObject *object)
{
    struct dragon_py_transfer transfer;
    struct dragon_message message;
    bool pickling_failed;
    uint32_t holder;

    if (dragon_py_pipe_holder(self->outgoing, "send", &holder) < 0)
        return -1;
    transfer = transfer_of(self, self->outgoing, holder, "send");
    if (dragon_py_encode(&transfer, object, &message, &pickling_failed) < 0)
        return -1;
    return send_message(self, holder, &message, "send");
}

PyDoc_STRVAR(send_doc, "send($self, /, obj)\n--\n\n"
                       "Send obj to the other end; it is in shared memory when send returns.\n\n"
                       "Waits while the pipe is full. Any thread.\n\n"
                       "Raises:\n"
                       "    OSError: the connection is closed, or cannot be written to.\n"
                       "    BrokenPipeError: nobody has the other end open.\n"
                       "    dragon.PoolFull: the pool has no room for obj.\n"
                       "    whatever pickling obj raises.\n\n"
                       "Source: multiprocessing.connection.Connection.send.");

static PyObject *connection_send(struct dragon_py_connection *self, PyObject *const *args,
                                 Py_ssize_t n_args, PyObject *names)
{
    static const char *const parameters[] = {"obj", NULL};
    PyObject *values[N_PARAMETERS] = {NULL};
    int r;

    if (dragon_py_arguments("send", parameters, args, n_args, names, values) < 0 ||
        dragon_py_require_argument("send", "obj", values[0]) < 0 || require_writable(self) < 0)
        return NULL;
    dragon_py_connection_enter(self);
    r = send_object(self, values[0]);
    dragon_py_connection_leave(self);
    if (r < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* An integer argument, or what it is if it was not given. */
static int integer_of(PyObject *value, Py_ssize_t otherwise, Py_ssize_t *n_out)
{
    *n_out = otherwise;
    if (value)
        *n_out = PyNumber_AsSsize_t(value, PyExc_OverflowError);
    return *n_out == -1 && PyErr_Occurred() ? -1 : 0;
}

static PyObject *or_none(PyObject *value)
{
    return value == Py_None ? NULL : value;
}

/* Which part of a buffer of n bytes is meant. */
static int part_of(Py_ssize_t n, PyObject *offset_given, PyObject *size_given,
                   Py_ssize_t *offset_out, Py_ssize_t *size_out)
{
    const char *wrong = NULL;
    Py_ssize_t offset, size;

    if (integer_of(offset_given, 0, &offset) < 0 || integer_of(size_given, 0, &size) < 0)
        return -1;
    if (offset < 0)
        wrong = "offset is negative";
    else if (n < offset)
        wrong = "buffer length < offset";
    else if (!size_given)
        size = n - offset;
    else if (size < 0)
        wrong = "size is negative";
    else if (size > n - offset)
        wrong = "buffer length < offset + size";
    if (wrong) {
        PyErr_SetString(PyExc_ValueError, wrong);
        return -1;
    }
    *offset_out = offset;
    *size_out = size;
    return 0;
}

static int send_view(struct dragon_py_connection *self, const Py_buffer *view,
                     PyObject *offset_given, PyObject *size_given)
{
    struct dragon_py_transfer transfer;
    struct dragon_message message;
    Py_ssize_t offset, size;
    uint32_t holder;

    if (part_of(view->len, offset_given, size_given, &offset, &size) < 0 ||
        dragon_py_pipe_holder(self->outgoing, "send_bytes", &holder) < 0)
        return -1;
    transfer = transfer_of(self, self->outgoing, holder, "send_bytes");
    if (dragon_py_encode_bytes(&transfer, (const char *)view->buf + offset, (size_t)size,
                               &message) < 0)
        return -1;
    return send_message(self, holder, &message, "send_bytes");
}

PyDoc_STRVAR(
    send_bytes_doc,
    "send_bytes($self, /, buf, offset=0, size=None)\n--\n\n"
    "Send size bytes of a contiguous bytes-like object, from offset on, as one message.\n\n"
    "Raises:\n"
    "    ValueError: the part does not lie in the buffer.\n"
    "    OSError, BrokenPipeError, dragon.PoolFull: as send().\n\n"
    "Source: multiprocessing.connection.Connection.send_bytes.");

/* The bytes of a buffer in a row. TypeError where they are not, as the standard library has
 * it, or where flags ask for more than the object gives. */
static int contiguous_view(PyObject *buf, int flags, Py_buffer *view_out, const char *needed)
{
    if (PyObject_GetBuffer(buf, view_out, flags | PyBUF_STRIDES) < 0) {
        if (PyErr_ExceptionMatches(PyExc_BufferError))
            PyErr_Format(PyExc_TypeError, "%s, not %.200s", needed, Py_TYPE(buf)->tp_name);
        return -1;
    }
    if (PyBuffer_IsContiguous(view_out, 'C'))
        return 0;
    PyErr_Format(PyExc_TypeError, "%s: the bytes of this %.200s do not lie in a row", needed,
                 Py_TYPE(buf)->tp_name);
    PyBuffer_Release(view_out);
    return -1;
}

static PyObject *connection_send_bytes(struct dragon_py_connection *self, PyObject *const *args,
                                       Py_ssize_t n_args, PyObject *names)
{
    static const char *const parameters[] = {"buf", "offset", "size", NULL};
    PyObject *values[N_PARAMETERS] = {NULL};
    Py_buffer view;
    int r;

    if (dragon_py_arguments("send_bytes", parameters, args, n_args, names, values) < 0 ||
        dragon_py_require_argument("send_bytes", "buf", values[0]) < 0 ||
        require_writable(self) < 0 ||
        contiguous_view(values[0], 0, &view, "send_bytes() needs a C-contiguous buffer") < 0)
        return NULL;
    dragon_py_connection_enter(self);
    r = send_view(self, &view, values[1], or_none(values[2]));
    dragon_py_connection_leave(self);
    PyBuffer_Release(&view);
    if (r < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* ---- receiving ---- */

static int receive_message(struct dragon_py_connection *self, struct dragon_message *message_out,
                           uint32_t *holder_out, const char *what)
{
    struct dragon_py_pipe *pipe = self->incoming;
    int r = DRAGON_CHANNEL_EMPTY;
    uint32_t holder;

    if (dragon_py_pipe_holder(pipe, what, &holder) < 0)
        return -1;
    *holder_out = holder;
    for (int i = 0; i < LOOKS_WITH_GIL && r == DRAGON_CHANNEL_EMPTY; i++) {
        r = dragon_pipe_try_receive(&pipe->pipe, holder, message_out);
        if (r == DRAGON_CHANNEL_EMPTY)
            dragon_pause();
    }
    if (r == DRAGON_CHANNEL_BUSY || r == DRAGON_CHANNEL_EMPTY) {
        do {
            if (self->is_closed)
                return dragon_py_raise_closed();
            Py_BEGIN_ALLOW_THREADS
            r = dragon_pipe_receive(&pipe->pipe, holder, message_out,
                                    dragon_py_next_look(DRAGON_FOREVER));
            Py_END_ALLOW_THREADS
        } while (dragon_py_goes_on(&r, DRAGON_CHANNEL_EMPTY, DRAGON_FOREVER));
    }
    return r == 0 ? 0 : raise_result(self, pipe, r, what);
}

PyDoc_STRVAR(recv_doc,
             "recv($self, /)\n--\n\n"
             "Take the object that the other end sent first, waiting for one. Any thread.\n\n"
             "Buffers of at least 64 KiB (arrays) are views of shared memory, writable, owned by\n"
             "the receiver.\n\n"
             "Raises:\n"
             "    EOFError: nothing is left, and nobody has the other end open.\n"
             "    OSError: the connection is closed, or cannot be read from.\n\n"
             "Source: multiprocessing.connection.Connection.recv.");

static PyObject *receive_object(struct dragon_py_connection *self)
{
    struct dragon_py_transfer transfer;
    struct dragon_message message;
    uint32_t holder;

    if (receive_message(self, &message, &holder, "recv") < 0)
        return NULL;
    transfer = transfer_of(self, self->incoming, holder, "recv");
    return dragon_py_decode(&transfer, &message);
}

static PyObject *connection_recv(struct dragon_py_connection *self, PyObject *Py_UNUSED(unused))
{
    PyObject *object;

    if (require_readable(self) < 0)
        return NULL;
    dragon_py_connection_enter(self);
    object = receive_object(self);
    dragon_py_connection_leave(self);
    return object;
}

/* The next message, as bytes; it is the caller's to discard. -1 with an exception. */
static int receive_as_bytes(struct dragon_py_connection *self, struct dragon_message *message_out,
                            uint32_t *holder_out, struct dragon_py_bytes *bytes_out,
                            const char *what)
{
    struct dragon_py_transfer transfer;

    if (receive_message(self, message_out, holder_out, what) < 0)
        return -1;
    transfer = transfer_of(self, self->incoming, *holder_out, what);
    return dragon_py_bytes_of(&transfer, message_out, bytes_out);
}

/* Too long a message was taken: the standard library cannot go on after that, either. */
static PyObject *raise_bad_length(struct dragon_py_connection *self)
{
    if (self->is_writable)
        self->is_readable = false;
    else
        self->is_closed = true; /* dragon_py_connection_leave() does the rest */
    PyErr_SetString(PyExc_OSError, "bad message length");
    return NULL;
}

static PyObject *receive_bytes(struct dragon_py_connection *self, Py_ssize_t max_length)
{
    struct dragon_pool *pool = self->incoming->base.object.pool;
    struct dragon_message message;
    struct dragon_py_bytes bytes;
    PyObject *result;
    uint32_t holder;

    if (receive_as_bytes(self, &message, &holder, &bytes, "recv_bytes") < 0)
        return NULL;
    if (max_length >= 0 && bytes.n > (size_t)max_length) {
        result = raise_bad_length(self);
    } else {
        result = bytes.owner ? Py_NewRef(bytes.owner)
                             : PyBytes_FromStringAndSize(NULL, (Py_ssize_t)bytes.n);
        if (result && !bytes.owner)
            dragon_py_copy(PyBytes_AS_STRING(result), bytes.bytes, bytes.n);
    }
    Py_XDECREF(bytes.owner);
    dragon_py_discard(pool, holder, &message);
    return result;
}

PyDoc_STRVAR(recv_bytes_doc,
             "recv_bytes($self, /, maxlength=None)\n--\n\n"
             "Take the message that the other end sent first, as bytes, waiting for one.\n\n"
             "Raises:\n"
             "    OSError: the message is longer than maxlength, and nothing can be received any\n"
             "        more; or as recv().\n"
             "    EOFError: as recv().\n\n"
             "Source: multiprocessing.connection.Connection.recv_bytes.");

static PyObject *connection_recv_bytes(struct dragon_py_connection *self, PyObject *const *args,
                                       Py_ssize_t n_args, PyObject *names)
{
    static const char *const parameters[] = {"maxlength", NULL};
    PyObject *values[N_PARAMETERS] = {NULL};
    PyObject *result, *given;
    Py_ssize_t max_length;

    if (dragon_py_arguments("recv_bytes", parameters, args, n_args, names, values) < 0 ||
        require_readable(self) < 0)
        return NULL;
    given = or_none(values[0]);
    if (integer_of(given, -1, &max_length) < 0)
        return NULL;
    if (given && max_length < 0) {
        PyErr_SetString(PyExc_ValueError, "negative maxlength");
        return NULL;
    }
    dragon_py_connection_enter(self);
    result = receive_bytes(self, max_length);
    dragon_py_connection_leave(self);
    return result;
}

/* BufferTooShort, with the message, of which nothing is lost. */
static void raise_too_short(const struct dragon_py_bytes *bytes)
{
    PyObject *module = PyImport_ImportModule("multiprocessing");
    PyObject *type = module ? PyObject_GetAttrString(module, "BufferTooShort") : NULL;
    PyObject *value = type ? PyBytes_FromStringAndSize(bytes->bytes, (Py_ssize_t)bytes->n) : NULL;

    if (value)
        PyErr_SetObject(type, value);
    Py_XDECREF(value);
    Py_XDECREF(type);
    Py_XDECREF(module);
}

/* The number of bytes, or -1 with an exception. */
static Py_ssize_t receive_into(struct dragon_py_connection *self, const Py_buffer *view,
                               Py_ssize_t offset)
{
    struct dragon_pool *pool = self->incoming->base.object.pool;
    struct dragon_message message;
    struct dragon_py_bytes bytes;
    Py_ssize_t n = -1;
    uint32_t holder;

    if (receive_as_bytes(self, &message, &holder, &bytes, "recv_bytes_into") < 0)
        return -1;
    if (bytes.n > (size_t)(view->len - offset)) {
        raise_too_short(&bytes);
    } else {
        dragon_py_copy((char *)view->buf + offset, bytes.bytes, bytes.n);
        n = (Py_ssize_t)bytes.n;
    }
    Py_XDECREF(bytes.owner);
    dragon_py_discard(pool, holder, &message);
    return n;
}

PyDoc_STRVAR(
    recv_bytes_into_doc,
    "recv_bytes_into($self, /, buf, offset=0)\n--\n\n"
    "Take the message that the other end sent first into a writable, contiguous\n"
    "bytes-like object, from its byte offset on, waiting for one. The message's length.\n\n"
    "Raises:\n"
    "    BufferTooShort: it does not fit; the exception has it.\n"
    "    ValueError: offset does not lie in the buffer.\n"
    "    EOFError, OSError: as recv().\n\n"
    "Source: multiprocessing.connection.Connection.recv_bytes_into.");

static PyObject *connection_recv_bytes_into(struct dragon_py_connection *self,
                                            PyObject *const *args, Py_ssize_t n_args,
                                            PyObject *names)
{
    static const char *const parameters[] = {"buf", "offset", NULL};
    PyObject *values[N_PARAMETERS] = {NULL};
    Py_ssize_t offset, n = -1;
    Py_buffer view;

    if (dragon_py_arguments("recv_bytes_into", parameters, args, n_args, names, values) < 0 ||
        dragon_py_require_argument("recv_bytes_into", "buf", values[0]) < 0 ||
        require_readable(self) < 0 || integer_of(values[1], 0, &offset) < 0 ||
        contiguous_view(values[0], PyBUF_WRITABLE, &view,
                        "recv_bytes_into() needs a writable, C-contiguous buffer") < 0)
        return NULL;
    if (offset < 0 || offset > view.len) {
        PyErr_SetString(PyExc_ValueError, offset < 0 ? "negative offset" : "offset too large");
    } else {
        dragon_py_connection_enter(self);
        n = receive_into(self, &view, offset);
        dragon_py_connection_leave(self);
    }
    PyBuffer_Release(&view);
    return n < 0 ? NULL : PyLong_FromSsize_t(n);
}

/* ---- waiting ---- */

/* 1: there is something to receive, or an end to be told; 0; -1. */
static int poll_until(struct dragon_py_connection *self, int64_t deadline_ns)
{
    struct dragon_pipe *pipe = &self->incoming->pipe;
    int r;

    if (dragon_channel_count(&pipe->channel) != 0)
        return 1;
    do {
        if (self->is_closed)
            return dragon_py_raise_closed();
        Py_BEGIN_ALLOW_THREADS
        r = dragon_pipe_wait(pipe, dragon_py_next_look(deadline_ns));
        Py_END_ALLOW_THREADS
    } while (dragon_py_goes_on(&r, DRAGON_CHANNEL_EMPTY, deadline_ns));
    if (r < 0)
        return raise_result(self, self->incoming, r, "poll");
    return r != DRAGON_CHANNEL_EMPTY;
}

PyDoc_STRVAR(
    poll_doc,
    "poll($self, /, timeout=0.0)\n--\n\n"
    "Wait at most timeout seconds (None: for ever) for something to receive; True if there\n"
    "is, also at the end, which recv() tells by EOFError.\n\n"
    "Raises:\n"
    "    OSError: the connection is closed, or cannot be read from.\n\n"
    "Source: multiprocessing.connection.Connection.poll.");

static PyObject *connection_poll(struct dragon_py_connection *self, PyObject *const *args,
                                 Py_ssize_t n_args, PyObject *names)
{
    static const char *const parameters[] = {"timeout", NULL};
    PyObject *values[N_PARAMETERS] = {NULL};
    int64_t deadline_ns = DRAGON_AT_ONCE;
    int r;

    if (dragon_py_arguments("poll", parameters, args, n_args, names, values) < 0 ||
        require_readable(self) < 0 ||
        (values[0] && dragon_py_deadline(values[0], &deadline_ns) < 0))
        return NULL;
    if (!self->incoming->base.object.state) {
        dragon_py_raise_closed();
        return NULL;
    }
    dragon_py_connection_enter(self);
    r = poll_until(self, deadline_ns);
    dragon_py_connection_leave(self);
    return r < 0 ? NULL : PyBool_FromLong(r);
}

/* ---- the descriptor ---- */

PyDoc_STRVAR(
    fileno_doc,
    "fileno($self, /)\n--\n\n"
    "The connection's socket, for select and its like, and for passing descriptors. It is\n"
    "readable while there is something to receive, and at the end. Messages do not go\n"
    "through it.\n\n"
    "Source: multiprocessing.connection.Connection.fileno.");

/* Without the GIL: a sender that is stopped between two stores is waited for. */
static int expose(struct dragon_py_connection *self)
{
    struct dragon_py_pipe *incoming = self->incoming, *outgoing = self->outgoing;
    int r = 0;

    Py_BEGIN_ALLOW_THREADS
    if (incoming && incoming->base.object.state)
        r = dragon_pipe_expose(&incoming->pipe);
    if (r == 0 && outgoing && outgoing->base.object.state)
        r = dragon_pipe_expect_foreign(&outgoing->pipe);
    Py_END_ALLOW_THREADS
    return r;
}

static PyObject *connection_fileno(struct dragon_py_connection *self, PyObject *Py_UNUSED(unused))
{
    int r, fd;

    if (dragon_py_connection_require_open(self) < 0)
        return NULL;
    dragon_py_connection_enter(self);
    r = expose(self);
    fd = self->fd;
    if (r < 0)
        raise_result(self, self->incoming, r, "fileno");
    else if (self->is_closed) /* meanwhile */
        r = dragon_py_raise_closed();
    dragon_py_connection_leave(self);
    return r < 0 ? NULL : PyLong_FromLong(fd);
}

/* ---- life ---- */

PyDoc_STRVAR(begin_doc, "_begin($self, incoming, outgoing, fd, /)\n--\n\n"
                        "Be an end of these Pipes (None: there is none in that direction), on the\n"
                        "socket fd, which becomes the connection's.");

static int open_pipe(struct dragon_py_pipe *pipe, int fd, struct dragon_py_pipe **place)
{
    if (!pipe)
        return 0;
    *place = (struct dragon_py_pipe *)Py_NewRef(pipe);
    return dragon_py_pipe_open(pipe, fd);
}

int dragon_py_connection_begin(struct dragon_py_connection *self, struct dragon_py_pipe *incoming,
                               struct dragon_py_pipe *outgoing, int fd)
{
    if (self->fd >= 0 || self->n_inside > 0 || fd < 0) {
        PyErr_SetString(PyExc_ValueError, "invalid handle");
        return -1;
    }
    if (open_pipe(incoming, fd, &self->incoming) < 0 ||
        open_pipe(outgoing, fd, &self->outgoing) < 0) {
        Py_CLEAR(self->incoming);
        Py_CLEAR(self->outgoing);
        return -1;
    }
    self->is_readable = self->incoming != NULL;
    self->is_writable = self->outgoing != NULL;
    self->is_closed = false;
    self->fd = fd;
    return 0;
}

void dragon_py_connection_finish(struct dragon_py_connection *self)
{
    finish_close(self);
}

/* A Pipe, or NULL for None. */
static int pipe_of(struct dragon_py_state *state, PyObject *given, struct dragon_py_pipe **pipe_out)
{
    if (given != Py_None && !PyObject_TypeCheck(given, state->pipe_type)) {
        PyErr_SetString(PyExc_TypeError, "not a Pipe");
        return -1;
    }
    *pipe_out = given == Py_None ? NULL : (struct dragon_py_pipe *)given;
    return 0;
}

static PyObject *connection_begin(struct dragon_py_connection *self, PyObject *args)
{
    struct dragon_py_state *state = state_of(self);
    PyObject *given_incoming, *given_outgoing;
    struct dragon_py_pipe *incoming, *outgoing;
    int fd;

    if (!state || !PyArg_ParseTuple(args, "OOi:_begin", &given_incoming, &given_outgoing, &fd) ||
        pipe_of(state, given_incoming, &incoming) < 0 ||
        pipe_of(state, given_outgoing, &outgoing) < 0 ||
        dragon_py_connection_begin(self, incoming, outgoing, fd) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(close_doc,
             "close($self, /)\n--\n\nClose the connection in this process. A second time: "
             "nothing.");

static PyObject *connection_close(struct dragon_py_connection *self, PyObject *Py_UNUSED(unused))
{
    self->is_closed = true;
    dragon_py_connection_enter(self);
    dragon_py_connection_leave(self);
    Py_RETURN_NONE;
}

static PyObject *connection_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
                                PyObject *Py_UNUSED(names))
{
    struct dragon_py_connection *self = (struct dragon_py_connection *)type->tp_alloc(type, 0);

    if (self)
        self->fd = -1;
    return (PyObject *)self;
}

static int connection_traverse(struct dragon_py_connection *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->incoming);
    Py_VISIT(self->outgoing);
    return 0;
}

static void connection_dealloc(struct dragon_py_connection *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    finish_close(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *get_closed(struct dragon_py_connection *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->fd < 0 || self->is_closed);
}

static PyObject *get_has_message(struct dragon_py_connection *self, void *Py_UNUSED(closure))
{
    struct dragon_py_pipe *incoming = self->incoming;

    return PyBool_FromLong(incoming && incoming->base.object.state &&
                           dragon_channel_count(&incoming->pipe.channel) != 0);
}

static PyObject *get_readable(struct dragon_py_connection *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->is_readable);
}

static PyObject *get_writable(struct dragon_py_connection *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->is_writable);
}

static PyObject *get_socket(struct dragon_py_connection *self, void *Py_UNUSED(closure))
{
    return dragon_py_connection_require_open(self) < 0 ? NULL : PyLong_FromLong(self->fd);
}

static PyObject *get_pipes(struct dragon_py_connection *self, void *Py_UNUSED(closure))
{
    return dragon_py_connection_require_open(self) < 0
               ? NULL
               : PyTuple_Pack(2, self->incoming ? (PyObject *)self->incoming : Py_None,
                              self->outgoing ? (PyObject *)self->outgoing : Py_None);
}

/* ---- the type ---- */

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef connection_methods[] = {
    {"_begin", (PyCFunction)connection_begin, METH_VARARGS, begin_doc},
    {"close", (PyCFunction)connection_close, METH_NOARGS, close_doc},
    {"fileno", (PyCFunction)connection_fileno, METH_NOARGS, fileno_doc},
    {"poll", FAST(connection_poll), METH_FASTCALL | METH_KEYWORDS, poll_doc},
    {"recv", (PyCFunction)connection_recv, METH_NOARGS, recv_doc},
    {"recv_bytes", FAST(connection_recv_bytes), METH_FASTCALL | METH_KEYWORDS, recv_bytes_doc},
    {"recv_bytes_into", FAST(connection_recv_bytes_into), METH_FASTCALL | METH_KEYWORDS,
     recv_bytes_into_doc},
    {"send", FAST(connection_send), METH_FASTCALL | METH_KEYWORDS, send_doc},
    {"send_bytes", FAST(connection_send_bytes), METH_FASTCALL | METH_KEYWORDS, send_bytes_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef connection_getset[] = {
    {"closed", (getter)get_closed, NULL, PyDoc_STR("True if the connection is closed"), NULL},
    {"readable", (getter)get_readable, NULL, PyDoc_STR("True if the connection is readable"), NULL},
    {"writable", (getter)get_writable, NULL, PyDoc_STR("True if the connection is writable"), NULL},
    {"_has_message", (getter)get_has_message, NULL,
     PyDoc_STR("True if a message is there; False also at the end, and once closed"), NULL},
    {"_socket", (getter)get_socket, NULL,
     PyDoc_STR("The descriptor, for who neither reads nor writes it"), NULL},
    {"_pipes", (getter)get_pipes, NULL, PyDoc_STR("(incoming, outgoing); None: there is none"),
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot connection_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Base of dragon_overlay.connection.Connection.")},
    {Py_tp_new, connection_new},
    {Py_tp_dealloc, connection_dealloc},
    {Py_tp_traverse, connection_traverse},
    {Py_tp_methods, connection_methods},
    {Py_tp_getset, connection_getset},
    {0, NULL},
};

static PyType_Spec connection_spec = {
    .name = "_dragon.Connection",
    .basicsize = sizeof(struct dragon_py_connection),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = connection_slots,
};

int dragon_py_connection_add(PyObject *module)
{
    struct dragon_py_state *state = dragon_py_state_of_module(module);

    state->connection_type = dragon_py_add_type(module, &connection_spec, NULL);
    return state->connection_type ? 0 : -1;
}
