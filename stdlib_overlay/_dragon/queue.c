/*
 * _dragon.Queue and _dragon.SimpleQueue: multiprocessing's queues over a
 * channel. A put encodes the object in the caller and returns when the message
 * is in shared memory; there is no feeder thread. The Python classes in
 * dragon_overlay/queues.py add what is not hot.
 *
 * Blocking: some looks while the GIL is held, then the runtime's wait without
 * it. Signal handlers run during a wait, and the wait goes on to its deadline.
 */
#include "queue.h"
#include "arguments.h"
#include "channel_object.h"
#include "codec.h"
#include "letter.h"
#include "pollable.h"
#include "wait.h"

#include "base/deadline.h"
#include "channel/channel.h"
#include "memory/pool.h"
#include "node/node.h"

#include <frameobject.h> /* PyTraceBack_Here */

#define LOOKS_WITH_GIL 20

/* The most that a method here has. */
#define N_PARAMETERS 3

struct queue {
    struct dragon_py_object base;
    struct dragon_py_state *state; /* once it is open: looking it up shows in a put */
    struct dragon_channel channel;
    struct dragon_poller *poller; /* NULL until a descriptor is asked for */
    bool is_closed;
};

/* ---- state ---- */

static struct dragon_py_state *state_of(struct queue *self)
{
    return dragon_py_state_of(Py_TYPE(self));
}

/* Who holds the blocks and the rings that this process has in its hands. Asked each
 * time: a forked copy of a process has a slot of its own. */
static int require_holder(struct queue *self, uint32_t *holder_out)
{
    struct dragon_node *node = dragon_node_current();
    int r;

    if (!node) {
        PyErr_SetString(PyExc_RuntimeError, "Queue: this process has left its node");
        return -1;
    }
    r = dragon_node_holder(node, holder_out);
    if (r < 0)
        dragon_py_raise(state_of(self), r, "Queue");
    else
        self->channel.holder = *holder_out;
    return r;
}

static int require_open(struct queue *self, bool is_simple)
{
    if (dragon_py_object_require(&self->base, "Queue") < 0)
        return -1;
    if (!self->is_closed)
        return 0;
    if (is_simple)
        PyErr_SetString(PyExc_OSError, "handle is closed");
    else
        PyErr_Format(PyExc_ValueError, "Queue %R is closed", self);
    return -1;
}

static int open_channel(struct queue *self)
{
    int r = dragon_channel_open(&self->channel, &self->base.object);

    self->state = state_of(self);
    if (r < 0)
        dragon_py_raise(self->state, r, "Queue");
    return r;
}

static const struct dragon_py_channel_kind queue_kind = {
    .name = "Queue",
    .kind = DRAGON_CHANNEL_KIND,
    .state_bytes = sizeof(struct dragon_channel_shared),
    .init = dragon_channel_init,
};

PyDoc_STRVAR(create_doc, "_create(max_messages, max_bytes, /)\n--\n\n"
                         "Make a new queue. 0: no limit.");

static PyObject *queue_create(struct queue *self, PyObject *args)
{
    struct dragon_channel_options options;
    unsigned long long max_messages, max_bytes;

    if (!PyArg_ParseTuple(args, "KK:_create", &max_messages, &max_bytes))
        return NULL;
    options.max_messages = max_messages ? max_messages : DRAGON_CHANNEL_UNBOUNDED;
    options.max_bytes = max_bytes ? max_bytes : DRAGON_CHANNEL_UNBOUNDED;
    dragon_py_poller_close(&self->poller);
    if (dragon_py_channel_object_create(&self->base, &queue_kind, &options) < 0 ||
        open_channel(self) < 0)
        return NULL;
    self->is_closed = false;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(attach_doc, "_attach(state, /)\n--\n\nUse the queue that _export() named.");

static PyObject *queue_attach(struct queue *self, PyObject *exported)
{
    dragon_py_poller_close(&self->poller);
    if (dragon_py_channel_object_attach(&self->base, &queue_kind, exported) < 0 ||
        open_channel(self) < 0)
        return NULL;
    self->is_closed = false;
    Py_RETURN_NONE;
}

static void queue_dealloc(struct queue *self)
{
    PyObject_GC_UnTrack(self);
    dragon_py_poller_close(&self->poller);
    dragon_py_object_dealloc((PyObject *)self);
}

/* ---- waiting ---- */

/* After a piece of a wait: as dragon_py_goes_on; also who waits for the dead is told. */
static bool goes_on(struct queue *self, const struct dragon_py_patience *patience, int *r,
                    int outcome, int64_t deadline_ns)
{
    if (!dragon_py_goes_on(r, outcome, deadline_ns))
        return false;
    if (dragon_py_tell_of_users(patience, &self->base) < 0)
        *r = -1;
    return *r != -1;
}

/* ---- put ---- */

/* 0, DRAGON_CHANNEL_FULL, or -1 with an exception. */
static int send_message(struct queue *self, const struct dragon_message *message,
                        int64_t deadline_ns)
{
    int r = dragon_channel_try_send(&self->channel, message);

    if (r == DRAGON_CHANNEL_BUSY || (r == DRAGON_CHANNEL_FULL && deadline_ns != DRAGON_AT_ONCE)) {
        struct dragon_py_patience patience = dragon_py_patience_begin();

        do {
            Py_BEGIN_ALLOW_THREADS
            r = dragon_channel_send(&self->channel, message, dragon_py_next_look(deadline_ns));
            Py_END_ALLOW_THREADS
        } while (goes_on(self, &patience, &r, DRAGON_CHANNEL_FULL, deadline_ns));
    }
    dragon_py_poller_update(self->poller);
    if (r == DRAGON_CHANNEL_POOL_FULL)
        dragon_py_raise_pool_full(self->state, self->base.object.pool, 0, "put");
    else if (r < 0 && !PyErr_Occurred())
        dragon_py_raise(self->state, r, "put");
    return r == 0 || r == DRAGON_CHANNEL_FULL ? r : -1;
}

/* As CPython's feeder thread does: the hook learns of it, put does not raise. */
static PyObject *report_pickling_failure(struct queue *self, PyObject *object)
{
    PyObject *type, *error, *traceback, *handled, *result = NULL;
    PyFrameObject *caller = PyEval_GetFrame();

    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return NULL;
    /* The pickler is C code: without this no line of the program would show. */
    if (caller)
        PyTraceBack_Here(caller);
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    if (traceback)
        PyException_SetTraceback(error, traceback);
    /* The hook prints what is being handled. */
    handled = PyErr_GetHandledException();
    PyErr_SetHandledException(error);
    result = PyObject_CallMethod((PyObject *)self, "_on_queue_feeder_error", "OO", error, object);
    PyErr_SetHandledException(handled);
    Py_XDECREF(handled);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(traceback);
    return result;
}

/* 0, DRAGON_CHANNEL_FULL, or -1 with an exception. */
static int put_object(struct queue *self, PyObject *object, int64_t deadline_ns,
                      bool *pickling_failed_out)
{
    struct dragon_py_transfer t = {self->state, self->base.object.pool, 0, "put"};
    struct dragon_message message;
    int r;

    if (require_holder(self, &t.holder) < 0 ||
        dragon_py_encode(&t, object, &message, pickling_failed_out) < 0)
        return -1;
    r = send_message(self, &message, deadline_ns);
    if (r != 0)
        dragon_py_discard(t.pool, t.holder, &message);
    return r;
}

static PyObject *put_until(struct queue *self, PyObject *object, int64_t deadline_ns)
{
    bool pickling_failed = false;
    int r = put_object(self, object, deadline_ns, &pickling_failed);

    if (pickling_failed)
        return report_pickling_failure(self, object);
    if (r == DRAGON_CHANNEL_FULL && dragon_py_queue_full(self->state))
        PyErr_SetNone(self->state->queue_full);
    if (r != 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(put_doc,
             "put($self, /, obj, block=True, timeout=None)\n--\n\n"
             "Put obj into the queue; it is in shared memory when put returns.\n\n"
             "Waits for a free slot if the queue is full and block is true, at most timeout\n"
             "seconds. Any thread, any process.\n\n"
             "Raises:\n"
             "    queue.Full: no slot became free.\n"
             "    ValueError: the queue is closed in this process.\n"
             "    dragon.PoolFull: the pool has no room for obj.\n\n"
             "An object that cannot be pickled is reported to _on_queue_feeder_error and not\n"
             "raised.\n\n"
             "Source: multiprocessing.Queue.put.");

static PyObject *queue_put(struct queue *self, PyObject *const *args, Py_ssize_t n_args,
                           PyObject *names)
{
    static const char *const parameters[] = {"obj", "block", "timeout", NULL};
    PyObject *values[N_PARAMETERS] = {NULL};
    int64_t deadline_ns;

    if (require_open(self, false) < 0 ||
        dragon_py_arguments("put", parameters, args, n_args, names, values) < 0 ||
        dragon_py_require_argument("put", "obj", values[0]) < 0 ||
        dragon_py_deadline_of_wait(values[1], values[2], &deadline_ns) < 0)
        return NULL;
    return put_until(self, values[0], deadline_ns);
}

PyDoc_STRVAR(put_nowait_doc, "put_nowait($self, /, obj)\n--\n\nput(obj, block=False).");

static PyObject *queue_put_nowait(struct queue *self, PyObject *const *args, Py_ssize_t n_args,
                                  PyObject *names)
{
    static const char *const parameters[] = {"obj", NULL};
    PyObject *values[N_PARAMETERS] = {NULL};

    if (require_open(self, false) < 0 ||
        dragon_py_arguments("put_nowait", parameters, args, n_args, names, values) < 0 ||
        dragon_py_require_argument("put_nowait", "obj", values[0]) < 0)
        return NULL;
    return put_until(self, values[0], DRAGON_AT_ONCE);
}

/* ---- get ---- */

/* 0, DRAGON_CHANNEL_EMPTY, or -1 with an exception. */
static int receive_message(struct queue *self, struct dragon_message *message_out,
                           uint32_t *holder_out, int64_t deadline_ns)
{
    int n_looks = deadline_ns == DRAGON_AT_ONCE ? 1 : LOOKS_WITH_GIL;
    int r = DRAGON_CHANNEL_EMPTY;
    uint32_t holder;

    if (require_holder(self, &holder) < 0)
        return -1;
    *holder_out = holder;
    for (int i = 0; i < n_looks && r == DRAGON_CHANNEL_EMPTY; i++) {
        r = dragon_channel_try_receive(&self->channel, holder, message_out);
        if (r == DRAGON_CHANNEL_EMPTY)
            dragon_pause();
    }
    if (r == DRAGON_CHANNEL_BUSY || (r == DRAGON_CHANNEL_EMPTY && deadline_ns != DRAGON_AT_ONCE)) {
        struct dragon_py_patience patience = dragon_py_patience_begin();

        do {
            Py_BEGIN_ALLOW_THREADS
            r = dragon_channel_receive(&self->channel, holder, message_out,
                                       dragon_py_next_look(deadline_ns));
            Py_END_ALLOW_THREADS
        } while (goes_on(self, &patience, &r, DRAGON_CHANNEL_EMPTY, deadline_ns));
    }
    dragon_py_poller_update(self->poller);
    if (r < 0 && !PyErr_Occurred())
        dragon_py_raise(self->state, r, "get");
    return r == 0 || r == DRAGON_CHANNEL_EMPTY ? r : -1;
}

static PyObject *get_until(struct queue *self, int64_t deadline_ns)
{
    struct dragon_py_transfer t = {self->state, self->base.object.pool, 0, "get"};
    struct dragon_message message;
    int r = receive_message(self, &message, &t.holder, deadline_ns);

    if (r == 0)
        return dragon_py_decode(&t, &message);
    if (r == DRAGON_CHANNEL_EMPTY && dragon_py_queue_empty(t.state))
        PyErr_SetNone(t.state->queue_empty);
    return NULL;
}

PyDoc_STRVAR(get_doc,
             "get($self, /, block=True, timeout=None)\n--\n\n"
             "Take the oldest object out of the queue.\n\n"
             "Waits for one if block is true, at most timeout seconds. Any thread, any process.\n"
             "Buffers of at least 64 KiB (arrays) are views of shared memory, writable, owned by\n"
             "the receiver.\n\n"
             "Raises:\n"
             "    queue.Empty: there was none.\n"
             "    ValueError: the queue is closed in this process.\n\n"
             "Source: multiprocessing.Queue.get.");

static PyObject *queue_get(struct queue *self, PyObject *const *args, Py_ssize_t n_args,
                           PyObject *names)
{
    static const char *const parameters[] = {"block", "timeout", NULL};
    PyObject *values[N_PARAMETERS] = {NULL};
    int64_t deadline_ns;

    if (require_open(self, false) < 0 ||
        dragon_py_arguments("get", parameters, args, n_args, names, values) < 0 ||
        dragon_py_deadline_of_wait(values[0], values[1], &deadline_ns) < 0)
        return NULL;
    return get_until(self, deadline_ns);
}

PyDoc_STRVAR(get_nowait_doc, "get_nowait($self, /)\n--\n\nget(block=False).");

static PyObject *queue_get_nowait(struct queue *self, PyObject *Py_UNUSED(unused))
{
    if (require_open(self, false) < 0)
        return NULL;
    return get_until(self, DRAGON_AT_ONCE);
}

/* ---- many at once ---- */

/* How many of the objects were put, or reported: fewer than all if no more had room. -1 with an
 * exception. */
static Py_ssize_t put_all(struct queue *self, PyObject *objects, int64_t deadline_ns, bool reports)
{
    Py_ssize_t n = PyList_GET_SIZE(objects), i;

    for (i = 0; i < n; i++) {
        PyObject *object = PyList_GET_ITEM(objects, i), *reported;
        bool pickling_failed = false;
        int r = put_object(self, object, deadline_ns, &pickling_failed);

        if (r == DRAGON_CHANNEL_FULL)
            break;
        if (r < 0 && !(pickling_failed && reports))
            return -1;
        if (r < 0) {
            reported = report_pickling_failure(self, object);
            if (!reported)
                return -1;
            Py_DECREF(reported);
        }
    }
    return i;
}

static PyObject *put_many(struct queue *self, PyObject *iterable, int64_t deadline_ns, bool reports)
{
    PyObject *objects = PySequence_List(iterable); /* pickling may change the program's */
    Py_ssize_t n = objects ? put_all(self, objects, deadline_ns, reports) : -1;

    Py_XDECREF(objects);
    return n < 0 ? NULL : PyLong_FromSsize_t(n);
}

PyDoc_STRVAR(put_many_doc,
             "put_many($self, /, objs, block=True, timeout=None)\n--\n\n"
             "Put each object of an iterable, in its order; return how many were put.\n\n"
             "As so many calls of put, but where that raises queue.Full this returns: the objects\n"
             "from that number on are not in the queue. Objects of other processes may come in\n"
             "between. timeout: seconds for all of them. Any thread, any process.\n\n"
             "Raises:\n"
             "    ValueError, dragon.PoolFull: as put; the objects before are in the queue.\n\n"
             "An object that cannot be pickled is reported as by put, and counts.");

static PyObject *queue_put_many(struct queue *self, PyObject *const *args, Py_ssize_t n_args,
                                PyObject *names)
{
    static const char *const parameters[] = {"objs", "block", "timeout", NULL};
    PyObject *values[N_PARAMETERS] = {NULL};
    int64_t deadline_ns;

    if (require_open(self, false) < 0 ||
        dragon_py_arguments("put_many", parameters, args, n_args, names, values) < 0 ||
        dragon_py_require_argument("put_many", "objs", values[0]) < 0 ||
        dragon_py_deadline_of_wait(values[1], values[2], &deadline_ns) < 0)
        return NULL;
    return put_many(self, values[0], deadline_ns, true);
}

/* An exception is set, by an object that could not be unpickled after others: hand these on. */
static void keep_taken(PyObject *taken)
{
    PyObject *type, *error, *traceback;

    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    if (error && PyObject_SetAttrString(error, "taken", taken) < 0)
        PyErr_Clear(); /* it takes no attributes */
    PyErr_Restore(type, error, traceback);
}

/* Objects into the list: of the first, wait for a message; of others, take what is there. -1
 * with an exception. */
static int take_some(struct queue *self, Py_ssize_t n, int64_t deadline_ns, PyObject *taken)
{
    struct dragon_py_transfer t = {self->state, self->base.object.pool, 0, "get_many"};
    struct dragon_message message;

    for (Py_ssize_t i = 0; i < n; i++) {
        int r = receive_message(self, &message, &t.holder, i == 0 ? deadline_ns : DRAGON_AT_ONCE);
        PyObject *object = r == 0 ? dragon_py_decode(&t, &message) : NULL;

        if (r == DRAGON_CHANNEL_EMPTY)
            return 0;
        if (!object)
            return -1;
        r = PyList_Append(taken, object);
        Py_DECREF(object);
        if (r < 0)
            return -1;
    }
    return 0;
}

static PyObject *get_many(struct queue *self, PyObject *number, int64_t deadline_ns)
{
    Py_ssize_t n = PyNumber_AsSsize_t(number, PyExc_OverflowError);
    PyObject *taken;

    if (n == -1 && PyErr_Occurred())
        return NULL;
    if (n < 1)
        return PyErr_Format(PyExc_ValueError, "get_many() of %zd objects: must be at least 1", n);
    taken = PyList_New(0);
    if (taken && take_some(self, n, deadline_ns, taken) < 0) {
        if (PyList_GET_SIZE(taken) > 0)
            keep_taken(taken);
        Py_CLEAR(taken);
    }
    return taken;
}

PyDoc_STRVAR(
    get_many_doc,
    "get_many($self, /, n, block=True, timeout=None)\n--\n\n"
    "Take the oldest objects, at most n: a list, empty where get would raise queue.Empty.\n\n"
    "Waits for one object, as get does, and takes as many more as are there. Any thread,\n"
    "any process.\n\n"
    "Raises:\n"
    "    ValueError: n is less than 1, or the queue is closed in this process.\n"
    "    what unpickling an object raises: the exception's attribute `taken` lists the\n"
    "        objects that were taken before it, if there were any.");

static PyObject *queue_get_many(struct queue *self, PyObject *const *args, Py_ssize_t n_args,
                                PyObject *names)
{
    static const char *const parameters[] = {"n", "block", "timeout", NULL};
    PyObject *values[N_PARAMETERS] = {NULL};
    int64_t deadline_ns;

    if (require_open(self, false) < 0 ||
        dragon_py_arguments("get_many", parameters, args, n_args, names, values) < 0 ||
        dragon_py_require_argument("get_many", "n", values[0]) < 0 ||
        dragon_py_deadline_of_wait(values[1], values[2], &deadline_ns) < 0)
        return NULL;
    return get_many(self, values[0], deadline_ns);
}

/* ---- looking ---- */

PyDoc_STRVAR(qsize_doc, "qsize($self, /)\n--\n\nNumber of objects in the queue, at this moment.");

static PyObject *queue_qsize(struct queue *self, PyObject *Py_UNUSED(unused))
{
    if (dragon_py_object_require(&self->base, "Queue") < 0)
        return NULL;
    dragon_py_poller_update(self->poller);
    return PyLong_FromUnsignedLongLong(dragon_channel_count(&self->channel));
}

PyDoc_STRVAR(empty_doc, "empty($self, /)\n--\n\nTrue if nothing is in the queue, at this moment.");

static PyObject *queue_empty(struct queue *self, PyObject *Py_UNUSED(unused))
{
    if (dragon_py_object_require(&self->base, "Queue") < 0)
        return NULL;
    dragon_py_poller_update(self->poller);
    return PyBool_FromLong(dragon_channel_count(&self->channel) == 0);
}

PyDoc_STRVAR(full_doc, "full($self, /)\n--\n\nTrue if a put would have to wait, at this moment.");

static PyObject *queue_full(struct queue *self, PyObject *Py_UNUSED(unused))
{
    if (dragon_py_object_require(&self->base, "Queue") < 0)
        return NULL;
    return PyBool_FromLong(dragon_channel_is_full(&self->channel));
}

PyDoc_STRVAR(poll_doc, "_poll(timeout, /)\n--\n\n"
                       "Wait at most timeout seconds (None: for ever) for an object to be there;\n"
                       "True if one is.");

static PyObject *queue_poll(struct queue *self, PyObject *timeout)
{
    struct dragon_py_patience patience = dragon_py_patience_begin();
    int64_t deadline_ns;
    int r;

    if (require_open(self, true) < 0 || dragon_py_deadline(timeout, &deadline_ns) < 0)
        return NULL;
    do {
        Py_BEGIN_ALLOW_THREADS
        r = dragon_channel_wait(&self->channel, dragon_py_next_look(deadline_ns));
        Py_END_ALLOW_THREADS
    } while (goes_on(self, &patience, &r, DRAGON_CHANNEL_EMPTY, deadline_ns));
    dragon_py_poller_update(self->poller);
    if (r < 0 && PyErr_Occurred())
        return NULL;
    if (r < 0)
        return dragon_py_raise(self->state, r, "poll");
    return PyBool_FromLong(r == 0);
}

PyDoc_STRVAR(fileno_doc,
             "_fileno($self, /)\n--\n\n"
             "A descriptor for select, poll and epoll that is readable while something is in the\n"
             "queue. Not to be read.\n\n"
             "Raises:\n"
             "    OSError: the process has no descriptor left.");

static PyObject *queue_fileno(struct queue *self, PyObject *Py_UNUSED(unused))
{
    int fd = require_open(self, true) < 0
                 ? -1
                 : dragon_py_poller_fd(self->state, &self->poller, &self->channel);

    return fd < 0 ? NULL : PyLong_FromLong(fd);
}

/* ---- tasks that are done ---- */

PyDoc_STRVAR(task_done_doc, "_task_done($self, /)\n--\n\n"
                            "Say that an object taken from the queue has been dealt with.\n\n"
                            "Raises:\n"
                            "    ValueError: more often than objects were put.");

static PyObject *queue_task_done(struct queue *self, PyObject *Py_UNUSED(unused))
{
    if (dragon_py_object_require(&self->base, "Queue") < 0)
        return NULL;
    if (dragon_channel_done(&self->channel) == DRAGON_CHANNEL_TOO_MANY_DONE) {
        PyErr_SetString(PyExc_ValueError, "task_done() called too many times");
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(join_doc, "_join($self, /)\n--\n\nWait until all objects put have been dealt with.");

static PyObject *queue_join(struct queue *self, PyObject *Py_UNUSED(unused))
{
    struct dragon_py_patience patience = dragon_py_patience_begin();
    int r;

    if (dragon_py_object_require(&self->base, "Queue") < 0)
        return NULL;
    do {
        Py_BEGIN_ALLOW_THREADS
        r = dragon_channel_join(&self->channel, dragon_py_next_look(DRAGON_FOREVER));
        Py_END_ALLOW_THREADS
    } while (goes_on(self, &patience, &r, DRAGON_CHANNEL_PENDING, DRAGON_FOREVER));
    if (r < 0 && PyErr_Occurred())
        return NULL;
    if (r < 0)
        return dragon_py_raise(self->state, r, "join");
    Py_RETURN_NONE;
}

/* ---- closing ---- */

PyDoc_STRVAR(close_doc, "close($self, /)\n--\n\n"
                        "This process will not use the queue again. What it has put stays there\n"
                        "for others.");

static PyObject *queue_close(struct queue *self, PyObject *Py_UNUSED(unused))
{
    dragon_py_poller_close(&self->poller);
    self->is_closed = true;
    Py_RETURN_NONE;
}

static PyObject *queue_get_closed(struct queue *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->is_closed);
}

/* ---- SimpleQueue: what cannot be pickled is raised, nothing times out ---- */

PyDoc_STRVAR(simple_put_doc, "put($self, /, obj)\n--\n\n"
                             "Put obj into the queue; waits while the queue is full.\n\n"
                             "Raises what pickling obj raises, and OSError after close().\n\n"
                             "Source: multiprocessing.SimpleQueue.put.");

static PyObject *simple_put(struct queue *self, PyObject *const *args, Py_ssize_t n_args,
                            PyObject *names)
{
    static const char *const parameters[] = {"obj", NULL};
    PyObject *values[N_PARAMETERS] = {NULL};
    bool pickling_failed;

    if (require_open(self, true) < 0 ||
        dragon_py_arguments("put", parameters, args, n_args, names, values) < 0 ||
        dragon_py_require_argument("put", "obj", values[0]) < 0 ||
        put_object(self, values[0], DRAGON_FOREVER, &pickling_failed) != 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(put_letter_doc,
             "_put_letter($self, first, second, obj, /)\n--\n\n"
             "Put obj, which arrives as (first, second, Letter) and is unpickled when that is\n"
             "opened. As put.");

static PyObject *simple_put_letter(struct queue *self, PyObject *const *args, Py_ssize_t n_args)
{
    struct dragon_py_transfer t = {self->state, self->base.object.pool, 0, "put"};
    uint64_t header[DRAGON_PY_LETTER_WORDS];
    struct dragon_message message;
    int r;

    if (n_args != DRAGON_PY_LETTER_WORDS + 1)
        return PyErr_Format(PyExc_TypeError, "_put_letter takes 3 arguments (%zd given)", n_args);
    for (int i = 0; i < DRAGON_PY_LETTER_WORDS; i++)
        header[i] = PyLong_AsUnsignedLongLongMask(args[i]);
    if (PyErr_Occurred() || require_open(self, true) < 0 || require_holder(self, &t.holder) < 0 ||
        dragon_py_encode_letter(&t, header, args[DRAGON_PY_LETTER_WORDS], &message) < 0)
        return NULL;
    r = send_message(self, &message, DRAGON_FOREVER);
    if (r != 0) {
        dragon_py_discard(t.pool, t.holder, &message);
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(simple_get_doc, "get($self, /)\n--\n\nTake the oldest object, waiting for one.\n\n"
                             "Source: multiprocessing.SimpleQueue.get.");

static PyObject *simple_get(struct queue *self, PyObject *Py_UNUSED(unused))
{
    if (require_open(self, true) < 0)
        return NULL;
    return get_until(self, DRAGON_FOREVER);
}

PyDoc_STRVAR(simple_put_many_doc,
             "put_many($self, objs, /)\n--\n\n"
             "Put each object of an iterable, in its order; return how many: all.\n\n"
             "As so many calls of put. Raises as put: the objects before are in the queue.");

static PyObject *simple_put_many(struct queue *self, PyObject *objects)
{
    return require_open(self, true) < 0 ? NULL : put_many(self, objects, DRAGON_FOREVER, false);
}

PyDoc_STRVAR(simple_get_many_doc,
             "get_many($self, n, /)\n--\n\n"
             "Take the oldest objects, waiting for one: a list of at most n, at least 1.\n\n"
             "Raises as Queue.get_many.");

static PyObject *simple_get_many(struct queue *self, PyObject *n)
{
    return require_open(self, true) < 0 ? NULL : get_many(self, n, DRAGON_FOREVER);
}

PyDoc_STRVAR(simple_empty_doc,
             "empty($self, /)\n--\n\nTrue if nothing is in the queue, at this moment.");

static PyObject *simple_empty(struct queue *self, PyObject *unused)
{
    return require_open(self, true) < 0 ? NULL : queue_empty(self, unused);
}

PyDoc_STRVAR(discard_doc,
             "_discard($self, /)\n--\n\nTake the oldest object, if there is one, and drop it.");

static PyObject *queue_discard(struct queue *self, PyObject *Py_UNUSED(unused))
{
    struct dragon_message message;
    uint32_t holder;
    int r;

    if (require_open(self, true) < 0)
        return NULL;
    r = receive_message(self, &message, &holder, DRAGON_AT_ONCE);
    if (r < 0)
        return NULL;
    if (r == 0)
        dragon_py_discard(self->base.object.pool, holder, &message);
    Py_RETURN_NONE;
}

/* ---- for other types ---- */

int dragon_py_queue_take(PyObject *queue, struct dragon_message *message_out, uint32_t *holder_out,
                         int64_t deadline_ns)
{
    struct queue *self = (struct queue *)queue;
    int r = DRAGON_CHANNEL_EMPTY;

    if (require_open(self, true) < 0 || require_holder(self, holder_out) < 0)
        return -1;
    for (int i = 0; i < LOOKS_WITH_GIL && r == DRAGON_CHANNEL_EMPTY; i++) {
        r = dragon_channel_try_receive(&self->channel, *holder_out, message_out);
        if (deadline_ns == DRAGON_AT_ONCE)
            break;
        if (r == DRAGON_CHANNEL_EMPTY)
            dragon_pause();
    }
    if ((r == DRAGON_CHANNEL_EMPTY || r == DRAGON_CHANNEL_BUSY) && deadline_ns != DRAGON_AT_ONCE) {
        Py_BEGIN_ALLOW_THREADS
        r = dragon_channel_receive(&self->channel, *holder_out, message_out,
                                   dragon_py_next_look(deadline_ns));
        Py_END_ALLOW_THREADS
    }
    if (r < 0) {
        dragon_py_raise(self->state, r, "get");
        return -1;
    }
    return r != 0;
}

PyObject *dragon_py_queue_decode(PyObject *queue, const struct dragon_message *message,
                                 uint32_t holder)
{
    struct queue *self = (struct queue *)queue;
    struct dragon_py_transfer t = {self->state, self->base.object.pool, holder, "get"};

    return dragon_py_decode(&t, message);
}

void dragon_py_queue_discard(PyObject *queue, const struct dragon_message *message, uint32_t holder)
{
    dragon_py_discard(((struct queue *)queue)->base.object.pool, holder, message);
}

/* Consumes the message. */
static bool try_send(struct queue *self, const struct dragon_py_transfer *t,
                     const struct dragon_message *message)
{
    if (dragon_channel_try_send(&self->channel, message) == 0)
        return true;
    dragon_py_discard(t->pool, t->holder, message);
    return false;
}

/* 0, or -1 without an exception. */
static int begin_try(struct queue *self, struct dragon_py_transfer *t)
{
    *t = (struct dragon_py_transfer){self->state, self->base.object.pool, 0, "put"};
    if (require_open(self, true) == 0 && require_holder(self, &t->holder) == 0)
        return 0;
    PyErr_Clear();
    return -1;
}

bool dragon_py_queue_try_put_pickle(PyObject *queue, uint64_t first, uint64_t second,
                                    PyObject *pickle)
{
    struct queue *self = (struct queue *)queue;
    uint64_t header[DRAGON_PY_LETTER_WORDS] = {first, second};
    struct dragon_py_transfer t;
    struct dragon_message message;

    if (begin_try(self, &t) < 0)
        return false;
    if (dragon_py_encode_pickled_letter(&t, header, pickle, &message) < 0) {
        PyErr_Clear(); /* the pool is full: who can wait does it better */
        return false;
    }
    return try_send(self, &t, &message);
}

bool dragon_py_queue_try_put_none(PyObject *queue)
{
    struct queue *self = (struct queue *)queue;
    struct dragon_py_transfer t;
    struct dragon_message message;
    bool pickling_failed;

    return begin_try(self, &t) == 0 &&
           dragon_py_encode(&t, Py_None, &message, &pickling_failed) == 0 &&
           try_send(self, &t, &message);
}

/* ---- types ---- */

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

/* clang-format off */
#define SHARED_METHODS                                                                             \
    {"_create", (PyCFunction)queue_create, METH_VARARGS, create_doc},                              \
    {"_attach", (PyCFunction)queue_attach, METH_O, attach_doc},                                    \
    {"_poll", (PyCFunction)queue_poll, METH_O, poll_doc},                                          \
    {"_fileno", (PyCFunction)queue_fileno, METH_NOARGS, fileno_doc},                               \
    {"_discard", (PyCFunction)queue_discard, METH_NOARGS, discard_doc},                            \
    {"close", (PyCFunction)queue_close, METH_NOARGS, close_doc}
/* clang-format on */

static PyMethodDef queue_methods[] = {
    SHARED_METHODS,
    {"put", FAST(queue_put), METH_FASTCALL | METH_KEYWORDS, put_doc},
    {"put_nowait", FAST(queue_put_nowait), METH_FASTCALL | METH_KEYWORDS, put_nowait_doc},
    {"get", FAST(queue_get), METH_FASTCALL | METH_KEYWORDS, get_doc},
    {"get_nowait", (PyCFunction)queue_get_nowait, METH_NOARGS, get_nowait_doc},
    {"put_many", FAST(queue_put_many), METH_FASTCALL | METH_KEYWORDS, put_many_doc},
    {"get_many", FAST(queue_get_many), METH_FASTCALL | METH_KEYWORDS, get_many_doc},
    {"qsize", (PyCFunction)queue_qsize, METH_NOARGS, qsize_doc},
    {"empty", (PyCFunction)queue_empty, METH_NOARGS, empty_doc},
    {"full", (PyCFunction)queue_full, METH_NOARGS, full_doc},
    {"_task_done", (PyCFunction)queue_task_done, METH_NOARGS, task_done_doc},
    {"_join", (PyCFunction)queue_join, METH_NOARGS, join_doc},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef simple_queue_methods[] = {
    SHARED_METHODS,
    {"put", FAST(simple_put), METH_FASTCALL | METH_KEYWORDS, simple_put_doc},
    {"get", (PyCFunction)simple_get, METH_NOARGS, simple_get_doc},
    {"put_many", (PyCFunction)simple_put_many, METH_O, simple_put_many_doc},
    {"get_many", (PyCFunction)simple_get_many, METH_O, simple_get_many_doc},
    {"_put_letter", FAST(simple_put_letter), METH_FASTCALL, put_letter_doc},
    {"empty", (PyCFunction)simple_empty, METH_NOARGS, simple_empty_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef queue_getset[] = {
    {"_is_closed", (getter)queue_get_closed, NULL, PyDoc_STR("close() was called."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot queue_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Base of dragon_overlay.queues.Queue and JoinableQueue.")},
    {Py_tp_dealloc, queue_dealloc},
    {Py_tp_traverse, dragon_py_object_traverse},
    {Py_tp_methods, queue_methods},
    {Py_tp_getset, queue_getset},
    {0, NULL},
};

static PyType_Slot simple_queue_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Base of dragon_overlay.queues.SimpleQueue.")},
    {Py_tp_dealloc, queue_dealloc},
    {Py_tp_traverse, dragon_py_object_traverse},
    {Py_tp_methods, simple_queue_methods},
    {Py_tp_getset, queue_getset},
    {0, NULL},
};

static PyType_Spec queue_spec = {
    .name = "_dragon.Queue",
    .basicsize = sizeof(struct queue),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = queue_slots,
};

static PyType_Spec simple_queue_spec = {
    .name = "_dragon.SimpleQueue",
    .basicsize = sizeof(struct queue),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = simple_queue_slots,
};

int dragon_py_queue_add(PyObject *module)
{
    struct dragon_py_state *state = dragon_py_state_of_module(module);

    state->queue_type = dragon_py_add_type(module, &queue_spec, state->object_type);
    state->simple_queue_type = dragon_py_add_type(module, &simple_queue_spec, state->object_type);
    return state->queue_type && state->simple_queue_type ? 0 : -1;
}
