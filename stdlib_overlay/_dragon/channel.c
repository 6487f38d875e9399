/*
 * _dragon.Channel: a channel in a named pool, for dragon.channels. Works in any
 * Python, with or without a node. The channel exists until somebody destroys
 * it; that existence is one use of its object, each open _dragon.Channel one
 * more, so that the memory stays under the feet of those who still wait.
 *
 * A message is the sender's two words and its bytes: in the slot if they fit,
 * otherwise in a block of the channel's pool, which becomes the receiver's. A
 * third kind carries only the description of memory in another pool.
 *
 * A block that is copied into is held by its process, stays the sender's on the way,
 * and becomes the receiver's, as docs/channel.md says. One that the program has
 * allocated is nobody's until it is received.
 */
#include "channel.h"
#include "pool.h"
#include "wait.h"

#include "base/deadline.h"
#include "channel/fini.h"
#include "memory/pool.h"
#include "os/os.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#define KIND DRAGON_KIND('C', 'O', 'R', 'E')
#define IN_SLOT DRAGON_KIND('S', 'L', 'O', 'T')
#define IN_BLOCK DRAGON_KIND('B', 'L', 'C', 'K')
#define ELSEWHERE DRAGON_KIND('E', 'L', 'S', 'E')

/* At the start of a message's inline bytes. */
struct words {
    uint64_t hints;
    uint64_t client_id;
    uint64_t size_bytes; /* of the payload */
};

/* Uses the channel's object until somebody destroys it. */
#define EXISTENCE DRAGON_HOLDER_CHANNEL

#define SLOT_BYTES (DRAGON_MESSAGE_INLINE_BYTES - sizeof(struct words))

/* ---- state ---- */

static struct dragon_py_state *state_of(struct dragon_py_channel *self)
{
    return dragon_py_state_of(Py_TYPE(self));
}

static struct dragon_pool *pool_of(struct dragon_py_channel *self)
{
    return ((struct dragon_py_pool *)self->pool)->pool;
}

static PyObject *raise_destroyed(struct dragon_py_channel *self)
{
    PyErr_SetString(state_of(self)->destroyed, "the channel was destroyed");
    return NULL;
}

/* Before an operation: who is to hold the block of its message, or the role if this
 * process cannot. Rings that the operation makes or leaves are held likewise. */
static uint32_t take_part(struct dragon_py_channel *self, uint32_t role)
{
    uint32_t holder = dragon_py_pool_holder((struct dragon_py_pool *)self->pool, role);

    self->channel.holder = holder == role ? DRAGON_HOLDER_PART : holder;
    return holder;
}

/* Who uses the channel's object for this process: it, where it can be a member. */
static uint32_t user_of(struct dragon_py_channel *self)
{
    return dragon_py_pool_holder((struct dragon_py_pool *)self->pool, DRAGON_HOLDER_SHARED);
}

int dragon_py_channel_require(struct dragon_py_channel *self)
{
    if (dragon_py_object_require(&self->base, "Channel") < 0)
        return -1;
    if (!dragon_channel_is_destroyed(&self->channel))
        return 0;
    raise_destroyed(self);
    return -1;
}

static struct dragon_py_channel *allocate(PyTypeObject *type, PyObject *pool)
{
    struct dragon_py_channel *self = (struct dragon_py_channel *)type->tp_alloc(type, 0);

    if (self)
        self->pool = Py_NewRef(pool);
    return self;
}

/* ---- lifetime ---- */

PyDoc_STRVAR(
    create_doc,
    "create(pool, uid, capacity, block_size, lock_type, flow_control, semaphore, /)\n--\n\n"
    "A new channel of at most capacity messages. semaphore: None, or first value and\n"
    "maximum of the semaphore that it is instead. Raises PoolFull.");

/* What a new channel is made with. */
struct plan {
    unsigned long long uid, capacity, block_bytes;
    unsigned int lock_type, flow_control;
    unsigned int value, maximum;
    bool is_semaphore;
};

static int parse_plan(PyObject *args, PyTypeObject *pool_type, PyObject **pool_out,
                      struct plan *plan)
{
    PyObject *semaphore;

    if (!PyArg_ParseTuple(args, "O!KKKIIO:create", pool_type, pool_out, &plan->uid, &plan->capacity,
                          &plan->block_bytes, &plan->lock_type, &plan->flow_control, &semaphore))
        return -1;
    plan->is_semaphore = semaphore != Py_None;
    if (plan->is_semaphore &&
        !PyArg_ParseTuple(semaphore, "II:create", &plan->value, &plan->maximum))
        return -1;
    if (plan->value <= DRAGON_SEMAPHORE_MAXIMUM && plan->maximum <= DRAGON_SEMAPHORE_MAXIMUM)
        return 0;
    PyErr_SetString(PyExc_ValueError, "the semaphore's value is too large");
    return -1;
}

/* In the pool; 0 or what went wrong. */
static int make_channel(struct dragon_py_channel *self, const struct plan *plan)
{
    struct dragon_channel_options options = {plan->capacity, DRAGON_CHANNEL_UNBOUNDED};
    struct dragon_py_channel_state *shared = dragon_py_channel_state(self);
    int r = dragon_channel_init(&self->base.object, &options);

    if (r != 0)
        return r;
    shared->uid = plan->uid;
    shared->block_bytes = plan->block_bytes;
    shared->lock_type = plan->lock_type;
    shared->flow_control = plan->flow_control;
    shared->is_semaphore = plan->is_semaphore;
    r = dragon_channel_open(&self->channel, &self->base.object);
    return r == 0 ? dragon_py_channel_init_sync(self, plan->value, plan->maximum) : r;
}

static PyObject *channel_create(PyTypeObject *type, PyObject *args)
{
    struct dragon_py_state *state = dragon_py_state_of(type);
    struct dragon_py_channel *self;
    struct plan plan = {0};
    PyObject *pool;
    int r;

    if (parse_plan(args, state->pool_type, &pool, &plan) < 0)
        return NULL;
    self = allocate(type, pool);
    if (!self)
        return NULL;
    if (dragon_py_object_create_in(&self->base, pool_of(self), user_of(self), KIND,
                                   sizeof(struct dragon_py_channel_state), dragon_fini,
                                   "Channel") < 0)
        goto drop;
    r = make_channel(self, &plan);
    if (r == DRAGON_POOL_FULL)
        dragon_py_raise_pool_full(state, pool_of(self), 0, "Channel");
    else if (r != 0)
        dragon_py_raise(state, r, "Channel");
    if (r != 0)
        goto drop;
    r = dragon_object_keep(&self->base.object, EXISTENCE); /* until it is destroyed */
    if (r == 0)
        return (PyObject *)self;
    dragon_py_raise(state, r, "Channel");

drop:
    Py_DECREF(self);
    return NULL;
}

PyDoc_STRVAR(open_doc, "open(pool, offset, generation, /)\n--\n\n"
                       "The channel that another process named by place().\n\n"
                       "Raises:\n"
                       "    StaleHandle: there is none (any more).\n"
                       "    Destroyed: it was destroyed.");

static PyObject *channel_open(PyTypeObject *type, PyObject *args)
{
    struct dragon_py_state *state = dragon_py_state_of(type);
    struct dragon_handle handle;
    unsigned long long offset;
    unsigned int generation;
    struct dragon_py_channel *self;
    PyObject *pool;
    int r;

    if (!PyArg_ParseTuple(args, "O!KI:open", state->pool_type, &pool, &offset, &generation))
        return NULL;
    self = allocate(type, pool);
    if (!self)
        return NULL;
    handle = dragon_pool_handle(pool_of(self), offset, generation);
    if (dragon_py_object_attach_in(&self->base, pool_of(self), user_of(self), &handle, KIND,
                                   sizeof(struct dragon_py_channel_state), dragon_fini,
                                   "Channel") < 0)
        goto drop;
    r = dragon_channel_open(&self->channel, &self->base.object);
    if (r < 0) {
        dragon_py_raise(state, r, "Channel");
        goto drop;
    }
    if (dragon_py_channel_require(self) < 0)
        goto drop;
    return (PyObject *)self;

drop:
    Py_DECREF(self);
    return NULL;
}

static void channel_dealloc(struct dragon_py_channel *self)
{
    PyObject_GC_UnTrack(self);
    dragon_py_poller_close(&self->poller);
    dragon_py_channel_leave_sync(self);
    dragon_py_object_release(&self->base);
    Py_CLEAR(self->pool); /* after the last access to its memory */
    dragon_py_object_dealloc((PyObject *)self);
}

PyDoc_STRVAR(destroy_doc, "destroy()\n--\n\n"
                          "End the channel for all processes: who waits on it gets Destroyed,\n"
                          "messages in it are freed.\n\n"
                          "Raises:\n"
                          "    Destroyed: it was destroyed before.");

static PyObject *channel_destroy(struct dragon_py_channel *self, PyObject *Py_UNUSED(unused))
{
    struct dragon_object existence;

    if (dragon_py_channel_require(self) < 0)
        return NULL;
    take_part(self, DRAGON_HOLDER_SHARED);
    if (!dragon_channel_destroy(&self->channel))
        return raise_destroyed(self);
    dragon_py_channel_end_sync(self);
    existence = self->base.object;
    existence.holder = EXISTENCE;
    dragon_object_close(&existence, self->base.fini);
    Py_RETURN_NONE;
}

/* ---- waiting ---- */

int dragon_py_channel_fail(struct dragon_py_channel *self, int r, const char *what)
{
    if (PyErr_Occurred())
        return -1;
    if (r == DRAGON_CHANNEL_DESTROYED)
        raise_destroyed(self);
    else if (r == DRAGON_CHANNEL_POOL_FULL || r == DRAGON_POOL_FULL)
        dragon_py_raise_pool_full(state_of(self), pool_of(self), 0, what);
    else
        dragon_py_raise(state_of(self), r, what);
    return -1;
}

/* ---- sending ---- */

static void write_words(struct dragon_message *message, const struct words *words)
{
    memcpy(message->bytes, words, sizeof *words);
    message->size_bytes = sizeof *words;
}

/* Try again and again until deadline_ns; what the last piece of the wait returned. */
static int wait_and_send(struct dragon_py_channel *self, const struct dragon_message *message,
                         int64_t deadline_ns)
{
    int r;

    do {
        Py_BEGIN_ALLOW_THREADS
        r = dragon_channel_send(&self->channel, message, dragon_py_next_look(deadline_ns));
        Py_END_ALLOW_THREADS
    } while (dragon_py_goes_on(&r, DRAGON_CHANNEL_FULL, deadline_ns));
    return r;
}

static bool takes_back(struct dragon_py_channel *self)
{
    return dragon_py_pool_take_back((struct dragon_py_pool *)self->pool);
}

/* 0; DRAGON_CHANNEL_FULL; -1 with an exception. */
static int send_message(struct dragon_py_channel *self, const struct dragon_message *message,
                        int64_t deadline_ns)
{
    int r = dragon_channel_try_send(&self->channel, message);

    while (r == DRAGON_CHANNEL_BUSY ||
           (r == DRAGON_CHANNEL_FULL && deadline_ns != DRAGON_AT_ONCE) ||
           (r == DRAGON_CHANNEL_POOL_FULL && takes_back(self))) {
        r = wait_and_send(self, message, deadline_ns);
        if (r == DRAGON_CHANNEL_FULL)
            break;
    }
    dragon_py_poller_update(self->poller);
    return r == 0 || r == DRAGON_CHANNEL_FULL ? r : dragon_py_channel_fail(self, r, "send");
}

static int send_in_slot(struct dragon_py_channel *self, uint32_t kind, const struct words *words,
                        const void *payload, int64_t deadline_ns)
{
    struct dragon_message message = {.kind = kind};

    take_part(self, DRAGON_HOLDER_SHARED);
    write_words(&message, words);
    memcpy(message.bytes + sizeof *words, payload, words->size_bytes);
    message.size_bytes += (uint32_t)words->size_bytes;
    return send_message(self, &message, deadline_ns);
}

static int send_block(struct dragon_py_channel *self, const struct words *words,
                      const struct dragon_handle *handle, int64_t deadline_ns)
{
    struct dragon_message message = {
        .kind = IN_BLOCK,
        .block_offset = handle->offset,
        .block_generation = handle->generation,
        .block_lines = (uint32_t)(words->size_bytes / 64 + 1),
    };

    write_words(&message, words);
    return send_message(self, &message, deadline_ns);
}

static int send_copy(struct dragon_py_channel *self, const struct words *words, const void *payload,
                     int64_t deadline_ns)
{
    struct dragon_pool *pool = pool_of(self);
    struct dragon_handle handle;
    uint32_t holder = take_part(self, DRAGON_PY_MESSAGE_ROLE);
    int r;

    r = dragon_pool_alloc(pool, words->size_bytes, holder, &handle);
    if (r != 0 && dragon_py_pool_take_back((struct dragon_py_pool *)self->pool))
        r = dragon_pool_alloc(pool, words->size_bytes, holder, &handle);
    if (r == DRAGON_POOL_FULL) {
        dragon_py_raise_pool_full(state_of(self), pool, words->size_bytes, "send");
        return -1;
    }
    if (r < 0)
        return dragon_py_channel_fail(self, r, "send");
    memcpy(dragon_pool_at(pool, handle.offset), payload, words->size_bytes);
    r = send_block(self, words, &handle, deadline_ns);
    if (r != 0)
        dragon_pool_free(pool, &handle);
    return r;
}

static PyObject *sent(int r)
{
    return r < 0 ? NULL : PyBool_FromLong(r == 0);
}

/* A word of the sender's. -1 with an exception. */
static int read_word(PyObject *number, uint64_t *word_out)
{
    *word_out = PyLong_AsUnsignedLongLongMask(number);
    return *word_out == UINT64_MAX && PyErr_Occurred() ? -1 : 0;
}

PyDoc_STRVAR(send_doc,
             "send(payload, hints, client_id, timeout, /)\n--\n\n"
             "Send a copy of a buffer's bytes; waits for room. False: no room in time.\n\n"
             "Raises:\n"
             "    Destroyed: the channel was destroyed.\n"
             "    PoolFull: there is no block for the bytes.");

static PyObject *channel_send(struct dragon_py_channel *self, PyObject *const *args,
                              Py_ssize_t n_args)
{
    struct words words;
    int64_t deadline_ns;
    Py_buffer payload;
    int r = -1;

    if (n_args != 4)
        return PyErr_Format(PyExc_TypeError, "send takes 4 arguments (%zd given)", n_args);
    if (read_word(args[1], &words.hints) < 0 || read_word(args[2], &words.client_id) < 0 ||
        dragon_py_deadline(args[3], &deadline_ns) < 0 ||
        PyObject_GetBuffer(args[0], &payload, PyBUF_SIMPLE) < 0)
        return NULL;
    words.size_bytes = (uint64_t)payload.len;
    if (dragon_py_channel_require(self) == 0)
        r = words.size_bytes <= SLOT_BYTES
                ? send_in_slot(self, IN_SLOT, &words, payload.buf, deadline_ns)
                : send_copy(self, &words, payload.buf, deadline_ns);
    PyBuffer_Release(&payload);
    return sent(r);
}

PyDoc_STRVAR(
    send_block_doc,
    "send_block(offset, generation, size, hints, client_id, timeout, /)\n--\n\n"
    "Send the first size bytes of a block of the channel's pool without copying them; the\n"
    "block becomes the receiver's. False: no room in time, it is still the caller's.\n\n"
    "Raises:\n"
    "    Destroyed: the channel was destroyed.\n"
    "    StaleHandle: it is no block, or smaller.");

static PyObject *channel_send_block(struct dragon_py_channel *self, PyObject *args)
{
    unsigned long long offset, hints, client_id, size_bytes;
    struct dragon_handle handle;
    unsigned int generation;
    uint64_t block_bytes;
    struct words words;
    int64_t deadline_ns;
    PyObject *timeout;
    void *address;
    int r;

    if (!PyArg_ParseTuple(args, "KIKKKO:send_block", &offset, &generation, &size_bytes, &hints,
                          &client_id, &timeout))
        return NULL;
    if (dragon_py_channel_require(self) < 0 || dragon_py_deadline(timeout, &deadline_ns) < 0)
        return NULL;
    handle = dragon_pool_handle(pool_of(self), offset, generation);
    r = dragon_pool_resolve(pool_of(self), &handle, &address, &block_bytes);
    if (r == 0 && block_bytes < size_bytes)
        r = -EBADMSG;
    if (r < 0)
        return dragon_py_raise(state_of(self), r, "send");
    take_part(self, DRAGON_HOLDER_SHARED);
    words = (struct words){hints, client_id, size_bytes};
    return sent(send_block(self, &words, &handle, deadline_ns));
}

PyDoc_STRVAR(send_name_doc,
             "send_name(description, hints, client_id, timeout, /)\n--\n\n"
             "Send the description of memory in another pool, at most name_bytes long.");

static PyObject *channel_send_name(struct dragon_py_channel *self, PyObject *args)
{
    unsigned long long hints, client_id;
    struct words words;
    int64_t deadline_ns;
    const char *bytes;
    Py_ssize_t n_bytes;
    PyObject *timeout;

    if (!PyArg_ParseTuple(args, "y#KKO:send_name", &bytes, &n_bytes, &hints, &client_id, &timeout))
        return NULL;
    if (dragon_py_channel_require(self) < 0 || dragon_py_deadline(timeout, &deadline_ns) < 0)
        return NULL;
    if ((size_t)n_bytes > SLOT_BYTES) {
        PyErr_SetString(PyExc_ValueError, "the description is too long");
        return NULL;
    }
    words = (struct words){hints, client_id, (uint64_t)n_bytes};
    return sent(send_in_slot(self, ELSEWHERE, &words, bytes, deadline_ns));
}

/* ---- receiving ---- */

/* The block of a message, which holder holds, as the caller's. Drops it if it cannot be
 * had. */
static PyObject *take_block(struct dragon_py_channel *self, const struct dragon_message *message,
                            const struct words *words, uint32_t holder)
{
    struct dragon_pool *pool = pool_of(self);
    struct dragon_handle handle =
        dragon_pool_handle(pool, message->block_offset, message->block_generation);
    PyObject *block =
        dragon_py_allocation_new((struct dragon_py_pool *)self->pool, &handle, holder);

    if (block && (uint64_t)PyObject_Size(block) < words->size_bytes) {
        Py_CLEAR(block);
        dragon_py_raise(state_of(self), -EBADMSG, "receive");
    }
    if (!block)
        dragon_pool_free(pool, &handle);
    return block;
}

/* (payload, size, hints, client_id, is_name); consumes payload. By hand: Py_BuildValue
 * costs as much as the receive itself. */
static PyObject *tuple_of(PyObject *payload, const struct words *words, bool is_name)
{
    PyObject *tuple = PyTuple_New(5);

    if (!tuple) {
        Py_DECREF(payload);
        return NULL;
    }
    PyTuple_SET_ITEM(tuple, 0, payload);
    PyTuple_SET_ITEM(tuple, 1, PyLong_FromUnsignedLongLong(words->size_bytes));
    PyTuple_SET_ITEM(tuple, 2, PyLong_FromUnsignedLongLong(words->hints));
    PyTuple_SET_ITEM(tuple, 3, PyLong_FromUnsignedLongLong(words->client_id));
    PyTuple_SET_ITEM(tuple, 4, PyBool_FromLong(is_name));
    if (PyErr_Occurred())
        Py_CLEAR(tuple);
    return tuple;
}

static PyObject *unpack(struct dragon_py_channel *self, const struct dragon_message *message,
                        uint32_t holder)
{
    struct words words;
    PyObject *payload;

    if (message->size_bytes < sizeof words)
        return dragon_py_raise(state_of(self), -EBADMSG, "receive");
    memcpy(&words, message->bytes, sizeof words);
    if (dragon_message_has_block(message))
        payload = take_block(self, message, &words, holder);
    else if (words.size_bytes == message->size_bytes - sizeof words)
        payload = PyBytes_FromStringAndSize((const char *)message->bytes + sizeof words,
                                            (Py_ssize_t)words.size_bytes);
    else
        payload = dragon_py_raise(state_of(self), -EBADMSG, "receive");
    if (!payload)
        return NULL;
    return tuple_of(payload, &words, message->kind == ELSEWHERE);
}

int dragon_py_channel_enter_blocked(struct dragon_py_channel *self)
{
    static uint64_t word; /* of this process */
    static int32_t pid;   /* whose it is */
    struct dragon_py_channel_state *shared = dragon_py_channel_state(self);

    if (pid != dragon_os_pid()) {
        word = dragon_blocked_self();
        pid = dragon_os_pid();
    }
    return dragon_blocked_enter(&shared->blocked, word);
}

/* Outcomes of dragon_channel_receive; -1 with an exception. */
static int wait_and_receive(struct dragon_py_channel *self, uint32_t holder,
                            struct dragon_message *message_out, int64_t deadline_ns)
{
    int place = dragon_py_channel_enter_blocked(self);
    int r;

    do {
        Py_BEGIN_ALLOW_THREADS
        r = dragon_channel_receive(&self->channel, holder, message_out,
                                   dragon_py_next_look(deadline_ns));
        Py_END_ALLOW_THREADS
    } while (dragon_py_goes_on(&r, DRAGON_CHANNEL_EMPTY, deadline_ns));
    dragon_blocked_leave(&dragon_py_channel_state(self)->blocked, place);
    return r;
}

PyDoc_STRVAR(receive_doc,
             "receive(timeout, /)\n--\n\n"
             "Take the oldest message: (bytes or Allocation, size, hints, client_id, is_name).\n"
             "None: there was none in time.\n\n"
             "Raises:\n"
             "    Destroyed: the channel was destroyed.");

static PyObject *channel_receive(struct dragon_py_channel *self, PyObject *timeout)
{
    struct dragon_message message;
    int64_t deadline_ns;
    uint32_t holder;
    int r;

    if (dragon_py_channel_require(self) < 0 || dragon_py_deadline(timeout, &deadline_ns) < 0)
        return NULL;
    holder = take_part(self, DRAGON_HOLDER_SHARED);
    r = dragon_channel_try_receive(&self->channel, holder, &message);
    if (r == DRAGON_CHANNEL_BUSY || (r == DRAGON_CHANNEL_EMPTY && deadline_ns != DRAGON_AT_ONCE))
        r = wait_and_receive(self, holder, &message, deadline_ns);
    dragon_py_poller_update(self->poller);
    if (r == DRAGON_CHANNEL_EMPTY)
        Py_RETURN_NONE;
    if (r != 0) {
        dragon_py_channel_fail(self, r, "receive");
        return NULL;
    }
    return unpack(self, &message, holder);
}

/* ---- looking ---- */

PyDoc_STRVAR(watch_doc, "watch(events, timeout, /)\n--\n\n"
                        "Wait until one of the events holds (bits: 1 a message, 2 room, 4 empty,\n"
                        "8 full). False: none did in time.\n\n"
                        "Raises:\n"
                        "    Destroyed: the channel was destroyed.");

static PyObject *channel_watch(struct dragon_py_channel *self, PyObject *args)
{
    int64_t deadline_ns;
    unsigned int events;
    PyObject *timeout;
    int r;

    if (!PyArg_ParseTuple(args, "IO:watch", &events, &timeout) ||
        dragon_py_channel_require(self) < 0 || dragon_py_deadline(timeout, &deadline_ns) < 0)
        return NULL;
    dragon_py_poller_update(self->poller);
    if (dragon_channel_has_event(&self->channel, events))
        Py_RETURN_TRUE;
    do {
        Py_BEGIN_ALLOW_THREADS
        r = dragon_channel_watch(&self->channel, events, dragon_py_next_look(deadline_ns));
        Py_END_ALLOW_THREADS
    } while (dragon_py_goes_on(&r, DRAGON_CHANNEL_NOT_YET, deadline_ns));
    if (r == DRAGON_CHANNEL_NOT_YET)
        Py_RETURN_FALSE;
    if (r != 0) {
        dragon_py_channel_fail(self, r, "poll");
        return NULL;
    }
    Py_RETURN_TRUE;
}

PyDoc_STRVAR(count_doc, "count()\n--\n\nMessages in the channel at this moment.");

static PyObject *channel_count(struct dragon_py_channel *self, PyObject *Py_UNUSED(unused))
{
    if (dragon_py_channel_require(self) < 0)
        return NULL;
    dragon_py_poller_update(self->poller);
    return PyLong_FromUnsignedLongLong(dragon_channel_count(&self->channel));
}

PyDoc_STRVAR(fileno_doc,
             "fileno()\n--\n\n"
             "A descriptor for select, poll and epoll that is readable while there is a message,\n"
             "or the channel was destroyed. Not to be read. It goes with the object.\n\n"
             "Raises:\n"
             "    ValueError: the channel is not in the default pool of this process's node.\n"
             "    OSError: the process has no descriptor left.\n"
             "    Destroyed: the channel was destroyed.");

static PyObject *channel_fileno(struct dragon_py_channel *self, PyObject *Py_UNUSED(unused))
{
    struct dragon_node *node = dragon_node_current();
    int fd;

    if (dragon_py_channel_require(self) < 0)
        return NULL;
    if (!node || pool_of(self) != dragon_node_pool(node)) {
        PyErr_SetString(PyExc_ValueError, "the channel is not in the node's default pool");
        return NULL;
    }
    fd = dragon_py_poller_fd(state_of(self), &self->poller, &self->channel);
    return fd < 0 ? NULL : PyLong_FromLong(fd);
}

PyDoc_STRVAR(facts_doc,
             "facts()\n--\n\n"
             "(uid, capacity, block_size, lock_type, flow_control, is_semaphore), as it\n"
             "was made.");

static PyObject *channel_facts(struct dragon_py_channel *self, PyObject *Py_UNUSED(unused))
{
    const struct dragon_py_channel_state *shared = dragon_py_channel_state(self);

    if (dragon_py_object_require(&self->base, "Channel") < 0)
        return NULL;
    return Py_BuildValue("(KKKIIO)", (unsigned long long)shared->uid,
                         (unsigned long long)shared->shared.max_messages,
                         (unsigned long long)shared->block_bytes, shared->lock_type,
                         shared->flow_control, shared->is_semaphore ? Py_True : Py_False);
}

PyDoc_STRVAR(place_doc, "place()\n--\n\n(offset, generation) of the channel in its pool.");

static PyObject *channel_place(struct dragon_py_channel *self, PyObject *Py_UNUSED(unused))
{
    if (dragon_py_object_require(&self->base, "Channel") < 0)
        return NULL;
    return Py_BuildValue("(KI)", (unsigned long long)self->base.object.handle.offset,
                         (unsigned int)self->base.object.handle.generation);
}

static PyMethodDef channel_methods[] = {
    {"create", (PyCFunction)channel_create, METH_VARARGS | METH_CLASS, create_doc},
    {"open", (PyCFunction)channel_open, METH_VARARGS | METH_CLASS, open_doc},
    {"destroy", (PyCFunction)channel_destroy, METH_NOARGS, destroy_doc},
    {"send", (PyCFunction)(void (*)(void))channel_send, METH_FASTCALL, send_doc},
    {"send_block", (PyCFunction)channel_send_block, METH_VARARGS, send_block_doc},
    {"send_name", (PyCFunction)channel_send_name, METH_VARARGS, send_name_doc},
    {"receive", (PyCFunction)channel_receive, METH_O, receive_doc},
    {"watch", (PyCFunction)channel_watch, METH_VARARGS, watch_doc},
    {"count", (PyCFunction)channel_count, METH_NOARGS, count_doc},
    {"fileno", (PyCFunction)channel_fileno, METH_NOARGS, fileno_doc},
    {"facts", (PyCFunction)channel_facts, METH_NOARGS, facts_doc},
    {"place", (PyCFunction)channel_place, METH_NOARGS, place_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot channel_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("A channel that this process has open.")},
    {Py_tp_dealloc, channel_dealloc},
    {Py_tp_traverse, dragon_py_object_traverse},
    {Py_tp_methods, channel_methods},
    {0, NULL},
};

static PyType_Spec channel_spec = {
    .name = "_dragon.Channel",
    .basicsize = sizeof(struct dragon_py_channel),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = channel_slots,
};

/* To those that the specification names: a type has one table of them. */
static int add_methods(PyTypeObject *type, PyMethodDef *methods)
{
    for (PyMethodDef *method = methods; method->ml_name; method++) {
        PyObject *descriptor = PyDescr_NewMethod(type, method);
        int r =
            descriptor ? PyObject_SetAttrString((PyObject *)type, method->ml_name, descriptor) : -1;

        Py_XDECREF(descriptor);
        if (r < 0)
            return -1;
    }
    return 0;
}

int dragon_py_channel_add(PyObject *module)
{
    struct dragon_py_state *state = dragon_py_state_of_module(module);

    state->channel_type = dragon_py_add_type(module, &channel_spec, state->object_type);
    if (!state->channel_type)
        return -1;
    if (add_methods(state->channel_type, dragon_py_channel_sync_methods) < 0)
        return -1;
    if (PyModule_AddIntConstant(module, "CHANNEL_NAME_BYTES", SLOT_BYTES) < 0)
        return -1;
    return dragon_py_channel_add_outcomes(module);
}
