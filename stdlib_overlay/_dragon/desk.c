/*
 * _dragon.Desk: where a pool's messages from workers are received, by its dispatcher or by a
 * thread that waits for a call; and the quick way of single calls, from the thread that
 * submits one to an idle worker and back, past the dispatcher (docs/pool.md).
 *
 * All fields are changed with the GIL, and what is one change for others is made without
 * giving the GIL away and without running Python code: no signal handler and no other thread
 * finds anything half done. A copy of some fields is looked at without the GIL by the
 * dispatcher's thread, which sleeps.
 *
 * At most one thread is at the channel. What it takes there it answers itself, if that is
 * the small result of a single call and the dispatcher is not at work; everything else goes,
 * in its order, to the stash, from where the dispatcher takes it before it takes anything
 * from the channel. As long as something is in the stash everything goes there.
 */
#include "letter.h"
#include "place_words.h"
#include "queue.h"
#include "wait.h"

#include "base/alloc.h"
#include "wait/eventcount.h"

#include <structmember.h>

/* The kind of a worker's message with results, as in dragon_overlay/pool/protocol.py, and
 * how many parts it has. */
#define RESULTS 2
#define N_PARTS 8

/* When calls are under way and nobody is at the channel for so long, the dispatcher goes. */
#define TICK_NS INT64_C(200000)
/* After so many ticks without anything it sleeps until it is woken. */
#define N_IDLE_TICKS 50

struct stashed {
    struct dragon_message message;
    uint32_t holder;
};

struct desk {
    PyObject_HEAD
    PyObject *results; /* strong: a SimpleQueue */
    PyObject *places;  /* strong: list */
    PyObject *idle;    /* strong: list of those places that have a worker and no task */
    PyObject *waiting; /* strong: deque of what waits for a worker */
    PyObject *jobs;    /* strong: dict of jobs that have not ended */
    PyObject *running; /* strong: states of futures */
    PyObject *finished;
    struct stashed *stash;
    size_t n_stashed, stash_capacity, stash_first;
    unsigned long long number;     /* of the next task */
    struct call *received_for;     /* borrowed: what the thread at the channel waits for */
    bool is_dispatcher_there;      /* at the channel */
    bool is_nudged;                /* and None has been sent to have it come back */
    bool is_rung;                  /* the dispatcher has orders */
    bool is_at_work;               /* it is changing what it knows */
    bool is_needed;                /* it is to be at the channel, and sleeps only as others are */
    bool is_open;                  /* the quick way may be taken */
    struct dragon_eventcount bell; /* the dispatcher sleeps on it */
    struct dragon_eventcount changed; /* others sleep on it, for a call or for the channel */
    /* For who has no GIL. */
    _Atomic uint32_t is_attended; /* somebody is at the channel */
    _Atomic uint32_t is_asleep;   /* the dispatcher is, until it is woken */
    _Atomic uint64_t n_direct;    /* calls that went the quick way and have no answer */
    _Atomic uint64_t n_taken;     /* messages */
};

/* A single call: base of the jobs that may take the quick way. */
struct call {
    PyObject_HEAD
    PyObject *desk;   /* strong, or NULL */
    PyObject *value;  /* strong, or NULL: the result or the exception */
    PyObject *number; /* strong: of the job */
    PyObject *pool;   /* strong: kept until the job has ended */
    PyObject *func;
    PyObject *items;
    PyObject *future; /* NULL: there is none */
    bool success;
    bool is_done;
    bool is_direct; /* counted in n_direct */
};

static struct desk *desk_of(PyObject *self)
{
    return (struct desk *)self;
}

static struct call *call_of(PyObject *self)
{
    return (struct call *)self;
}

/* NULL with TypeError. */
static struct call *require_call(PyObject *object)
{
    struct dragon_py_state *state = dragon_py_state_of(Py_TYPE(object));

    if (state && PyObject_TypeCheck(object, state->call_type))
        return call_of(object);
    PyErr_Format(PyExc_TypeError, "a _dragon.Call, not %R", object);
    return NULL;
}

/* ---- the end of a call ---- */

static void wake_dispatcher(struct desk *self)
{
    dragon_eventcount_wake_all(&self->bell);
}

/* A call has an answer: nobody waits for it any longer. */
static void end_call(struct call *call)
{
    struct desk *desk = (struct desk *)call->desk;

    call->is_done = true;
    if (!desk)
        return;
    if (call->is_direct)
        dragon_fetch_sub(&desk->n_direct, 1);
    call->is_direct = false;
    dragon_eventcount_wake_all(&desk->changed);
    if (desk->received_for == call)
        (void)dragon_py_queue_try_put_none(desk->results);
}

/* ---- the stash ---- */

static int stash(struct desk *self, const struct dragon_message *message, uint32_t holder)
{
    if (self->n_stashed == self->stash_capacity) {
        size_t capacity = self->stash_capacity ? 2 * self->stash_capacity : 16;
        struct stashed *more = dragon_alloc_resize(self->stash, capacity * sizeof *more);

        if (!more) {
            PyErr_NoMemory();
            return -1;
        }
        self->stash = more;
        self->stash_capacity = capacity;
    }
    self->stash[self->n_stashed++] = (struct stashed){*message, holder};
    wake_dispatcher(self);
    return 0;
}

static bool has_stash(const struct desk *self)
{
    return self->stash_first < self->n_stashed;
}

static struct stashed take_stashed(struct desk *self)
{
    struct stashed oldest = self->stash[self->stash_first++];

    if (!has_stash(self))
        self->stash_first = self->n_stashed = 0;
    return oldest;
}

/* Calls are under way, or nobody is at the channel any more: the dispatcher, if it sleeps
 * without looking, is to look. */
static void wake_if_missed(struct desk *self)
{
    dragon_fence(); /* pairs with sleep_until_needed() */
    if (dragon_peek(&self->is_asleep) && (self->is_needed || dragon_peek(&self->n_direct) > 0))
        wake_dispatcher(self);
}

static void ring(struct desk *self)
{
    if (self->is_rung)
        return;
    self->is_rung = true;
    wake_dispatcher(self);
    if (self->is_dispatcher_there && !self->is_nudged)
        self->is_nudged = dragon_py_queue_try_put_none(self->results);
}

/* ---- the quick way ---- */

/* An attribute that an object just has, so that no Python code runs. Borrowed from it; NULL
 * without an exception. */
static PyObject *attribute(PyObject *object, const char *name)
{
    PyObject *value = PyObject_GetAttrString(object, name);

    if (!value)
        PyErr_Clear();
    Py_XDECREF(value);
    return value;
}

static bool is_quick_way_open(const struct desk *self)
{
    return self->is_open && !self->is_at_work && !self->is_rung && !has_stash(self);
}

PyDoc_STRVAR(give_doc, "give(call, task, pickle, /)\n--\n\n"
                       "Give a call to an idle worker. False: none is, or others are first.");

static PyObject *desk_give(PyObject *self, PyObject *const *args, Py_ssize_t n_args)
{
    struct desk *desk = desk_of(self);
    struct call *call;
    PyObject *place, *inbox, *tasks, *number;
    Py_ssize_t last = PyList_GET_SIZE(desk->idle) - 1;

    if (n_args != 3 || !PyBytes_Check(args[2]))
        return PyErr_Format(PyExc_TypeError, "give takes a call, a task and bytes");
    call = require_call(args[0]);
    if (!call)
        return NULL;
    if (!is_quick_way_open(desk) || last < 0 || PyObject_Size(desk->waiting) != 0)
        Py_RETURN_FALSE;
    place = PyList_GET_ITEM(desk->idle, last);
    inbox = attribute(place, "inbox");
    tasks = attribute(place, "tasks");
    number = PyLong_FromUnsignedLongLong(desk->number);
    if (!inbox || !tasks || !number || PyDict_SetItem(tasks, number, args[1]) < 0) {
        Py_XDECREF(number);
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_False);
    }
    if (!dragon_py_queue_try_put_pickle(inbox, desk->number, 0, args[2])) {
        (void)PyDict_DelItem(tasks, number);
        Py_DECREF(number);
        Py_RETURN_FALSE;
    }
    Py_DECREF(number);
    desk->number++;
    call->is_direct = true;
    if (call->future && PyObject_SetAttrString(call->future, "_state", desk->running) < 0)
        PyErr_Clear(); /* then the dispatcher says that it is running, when it answers */
    dragon_fetch_add(&desk->n_direct, 1);
    wake_if_missed(desk);
    (void)PyList_SetSlice(desk->idle, last, last + 1, NULL);
    Py_RETURN_TRUE;
}

/* The parts of a message with the result of one call. Borrowed from the message. */
struct small_result {
    PyObject *place, *number, *value; /* value: strong */
    long generation;
};

/* Whether a message is that, as far as it says itself. */
static bool parse_small_result(struct desk *self, PyObject *message, struct small_result *result)
{
    PyObject *part[N_PARTS];
    PyObject *values;
    long index;

    if (!PyTuple_CheckExact(message) || PyTuple_GET_SIZE(message) != N_PARTS)
        return false;
    for (int i = 0; i < N_PARTS; i++)
        part[i] = PyTuple_GET_ITEM(message, i);
    if (!PyLong_Check(part[0]) || !PyLong_Check(part[1]) || !PyLong_Check(part[2]) ||
        !PyLong_Check(part[3]) || !PyLong_Check(part[4]) || !PyLong_Check(part[5]) ||
        !PyBytes_Check(part[6]) || PyLong_AsLong(part[4]) != RESULTS ||
        PyLong_AsLong(part[3]) != 0 || PyLong_AsLong(part[5]) != 1)
        return false;
    index = PyLong_AsLong(part[0]);
    if (index < 0 || index >= PyList_GET_SIZE(self->places))
        return false;
    values = dragon_py_results_of(PyBytes_AS_STRING(part[6]), PyBytes_GET_SIZE(part[6]), 0, 1);
    if (!values)
        return false;
    result->place = PyList_GET_ITEM(self->places, index);
    result->generation = PyLong_AsLong(part[1]);
    result->number = part[2];
    result->value = Py_NewRef(PyList_GET_ITEM(values, 0));
    Py_DECREF(values);
    return true;
}

/* The single call whose result it is. Borrowed, or NULL. */
static struct call *call_of_result(struct desk *self, const struct small_result *result)
{
    struct dragon_py_state *state = dragon_py_state_of(Py_TYPE(self));
    PyObject *generation = attribute(result->place, "generation");
    PyObject *tasks = attribute(result->place, "tasks");
    PyObject *task = tasks ? PyDict_GetItemWithError(tasks, result->number) : NULL;
    PyObject *job = task ? attribute(task, "job") : NULL;

    if (!job || !generation || PyLong_AsLong(generation) != result->generation ||
        !PyObject_TypeCheck(job, state->call_type))
        return NULL;
    return call_of(job)->is_direct ? call_of(job) : NULL;
}

/* ---- futures: they have no callbacks and nobody but Desk.wait waits, or the dispatcher
 * sets them ---- */

static PyObject *lock_of(PyObject *future)
{
    PyObject *condition = attribute(future, "_condition");

    return condition ? attribute(condition, "_lock") : NULL;
}

/* Whether the future's lock is ours now: of no other thread, nor of code that this one was
 * interrupted in. */
static bool lock_future(PyObject *future)
{
    PyObject *lock = lock_of(future);
    PyObject *is_locked = lock ? PyObject_CallMethod(lock, "acquire", "O", Py_False) : NULL;

    Py_XDECREF(is_locked);
    return is_locked == Py_True;
}

static void unlock_future(PyObject *future)
{
    Py_XDECREF(PyObject_CallMethod(lock_of(future), "release", NULL));
}

static bool is_empty_list(PyObject *list)
{
    return list && PyList_CheckExact(list) && PyList_GET_SIZE(list) == 0;
}

static bool may_set(PyObject *future)
{
    PyObject *state = attribute(future, "_state");

    return attribute(future, "_has_callbacks") == Py_False &&
           is_empty_list(attribute(future, "_waiters")) &&
           is_empty_list(attribute(future, "_done_callbacks")) && state && PyUnicode_Check(state) &&
           PyUnicode_CompareWithASCIIString(state, "RUNNING") == 0;
}

static bool set_future(struct desk *self, PyObject *future, PyObject *value)
{
    return PyObject_SetAttrString(future, "_result", value) == 0 &&
           PyObject_SetAttrString(future, "_state", self->finished) == 0;
}

/* ---- the answer ---- */

/* The result has come: what is told to whom waits and to the dispatcher. Nothing is made
 * here that might have garbage collected, which runs Python code. False: nothing is done. */
static bool note_answer(struct desk *self, const struct small_result *result, struct call *call)
{
    PyObject *tasks = attribute(result->place, "tasks");

    if (has_stash(self) || self->is_at_work || call != call_of_result(self, result) || !tasks ||
        (call->future && !may_set(call->future)) || PyList_Append(self->idle, result->place) < 0)
        return false;
    if (call->future && !set_future(self, call->future, result->value)) {
        Py_ssize_t n = PyList_GET_SIZE(self->idle);

        (void)PyList_SetSlice(self->idle, n - 1, n, NULL);
        return false;
    }
    (void)PyDict_DelItem(tasks, result->number);
    (void)PyDict_DelItem(self->jobs, call->number);
    Py_XSETREF(call->value, Py_NewRef(result->value)); /* it had none */
    call->success = true;
    end_call(call);
    if (PyObject_Size(self->waiting) > 0)
        ring(self);
    return true;
}

/* Answer a call with its result, if the message is one. */
static bool answer(struct desk *self, PyObject *message)
{
    struct small_result result;
    struct call *call;
    bool is_answered = false;

    if (!parse_small_result(self, message, &result))
        return false;
    call = call_of_result(self, &result);
    if (call) {
        PyObject *future = call->future;

        Py_INCREF(call);
        Py_XINCREF(future);
        if (!future || lock_future(future)) {
            is_answered = note_answer(self, &result, call);
            if (future)
                unlock_future(future);
        }
        if (is_answered) { /* when these go, Python code may run */
            Py_CLEAR(call->pool);
            Py_CLEAR(call->func);
            Py_CLEAR(call->items);
            Py_CLEAR(call->future);
        }
        Py_XDECREF(future);
        Py_DECREF(call);
    }
    Py_DECREF(result.value);
    return is_answered;
}

/* What becomes of a message that a waiting thread has taken. */
static int handle(struct desk *self, const struct dragon_message *message, uint32_t holder)
{
    PyObject *object;
    bool is_handled = false;

    if (dragon_py_message_is_plain(message)) {
        object = dragon_py_queue_decode(self->results, message, holder);
        is_handled = object && (object == Py_None || answer(self, object));
        Py_XDECREF(object);
        PyErr_Clear(); /* what makes no sense, the dispatcher says so */
    }
    return is_handled ? 0 : stash(self, message, holder);
}

/* ---- waiting for a call ---- */

/* Be at the channel until a message has come. own: what for; NULL: the dispatcher. As
 * dragon_py_queue_take. */
static int attend(struct desk *self, struct call *own, struct stashed *taken, int64_t deadline_ns)
{
    int r;

    self->received_for = own;
    self->is_dispatcher_there = own == NULL;
    dragon_poke(&self->is_attended, 1);
    r = dragon_py_queue_take(self->results, &taken->message, &taken->holder, deadline_ns);
    dragon_poke(&self->is_attended, 0);
    self->received_for = NULL;
    self->is_dispatcher_there = self->is_nudged = false;
    if (r == 0)
        dragon_fetch_add(&self->n_taken, 1);
    return r;
}

/* Sleep until something has changed. */
static void park(struct dragon_eventcount *what, uint32_t key, int64_t deadline_ns)
{
    Py_BEGIN_ALLOW_THREADS(void)
    dragon_eventcount_park_until(what, key, deadline_ns);
    Py_END_ALLOW_THREADS
}

/* A piece of a wait. -1 with an exception. */
static int wait_a_little(struct desk *self, struct call *own, int64_t deadline_ns)
{
    struct stashed taken;
    int r;

    if (dragon_peek(&self->is_attended)) {
        park(&self->changed, dragon_eventcount_prepare(&self->changed),
             dragon_py_next_look(deadline_ns));
        return PyErr_CheckSignals();
    }
    r = attend(self, own, &taken, deadline_ns);
    if (r == 0)
        r = handle(self, &taken.message, taken.holder);
    else if (r > 0)
        r = PyErr_CheckSignals();
    if (r == 0)
        r = PyErr_CheckSignals();
    /* Others that wait may go to the channel now. */
    dragon_eventcount_wake_all(&self->changed);
    wake_if_missed(self);
    return r;
}

PyDoc_STRVAR(wait_doc, "wait(call, timeout, /)\n--\n\n"
                       "Wait for the end of a call, at most timeout seconds (None: for ever); "
                       "whether it\nhas come. Any thread.");

static PyObject *desk_wait(PyObject *self, PyObject *const *args, Py_ssize_t n_args)
{
    struct desk *desk = desk_of(self);
    struct call *call;
    int64_t deadline_ns;
    int r = 0;

    if (n_args != 2)
        return PyErr_Format(PyExc_TypeError, "wait takes a call and a timeout");
    call = require_call(args[0]);
    if (!call || dragon_py_deadline(args[1], &deadline_ns) < 0)
        return NULL;
    while (!call->is_done && r == 0) {
        r = wait_a_little(desk, call, deadline_ns);
        if (r == 0 && dragon_deadline_passed(deadline_ns))
            break;
    }
    return r < 0 ? NULL : PyBool_FromLong(call->is_done);
}

/* ---- the dispatcher ---- */

static PyObject *desk_ring(PyObject *self, PyObject *Py_UNUSED(unused))
{
    ring(desk_of(self));
    Py_RETURN_NONE;
}

/* Whether somebody ought to be at the channel, and nobody is. */
static bool is_missed(struct desk *self, bool is_needed)
{
    return (is_needed || dragon_peek(&self->n_direct) > 0) && !dragon_peek(&self->is_attended);
}

/* Without the GIL: sleep until woken, or deadline_ns, or calls are under way and nobody
 * has been at the channel for a tick. True in the last case. */
static bool sleep_until_needed(struct desk *self, bool is_needed, uint32_t key, int64_t deadline_ns)
{
    for (int n_idle = 0; n_idle < N_IDLE_TICKS; n_idle++) {
        uint64_t before = dragon_peek(&self->n_taken);
        int64_t tick_ns = dragon_deadline_after_ns(TICK_NS);
        int r = dragon_eventcount_park_until(&self->bell, key,
                                             dragon_deadline_earlier(tick_ns, deadline_ns));

        if (r != DRAGON_EVENTCOUNT_TIMEOUT || dragon_deadline_passed(deadline_ns))
            return false;
        if (dragon_peek(&self->n_taken) != before)
            n_idle = 0;
        else if (is_missed(self, is_needed))
            return true;
    }
    (void)dragon_exchange(&self->is_asleep, 1);
    dragon_fence_after_change(); /* pairs with wake_if_missed() */
    if (!is_missed(self, is_needed))
        (void)dragon_eventcount_park_until(&self->bell, key, deadline_ns);
    dragon_poke(&self->is_asleep, 0);
    return false;
}

/* 1: *taken is there; 0: it has been rung, or the time is over; -1 with an exception. */
static int next(struct desk *self, bool is_needed, int64_t deadline_ns, struct stashed *taken)
{
    int r;

    for (;;) {
        if (has_stash(self)) {
            *taken = take_stashed(self);
            return 1;
        }
        if (self->is_rung || dragon_deadline_passed(deadline_ns))
            return 0;
        if (!dragon_peek(&self->is_attended)) {
            r = attend(self, NULL, taken, is_needed ? deadline_ns : DRAGON_AT_ONCE);
            if (r <= 0)
                return r < 0 ? -1 : 1;
            if (is_needed)
                continue;
        }
        {
            uint32_t key = dragon_eventcount_prepare(&self->bell);

            self->is_needed = is_needed;
            dragon_eventcount_wake_all(&self->changed); /* who waits may go to the channel */
            Py_BEGIN_ALLOW_THREADS
            is_needed |= sleep_until_needed(self, is_needed, key, deadline_ns);
            Py_END_ALLOW_THREADS
            self->is_needed = false;
        }
    }
}

PyDoc_STRVAR(next_doc, "next(is_needed, timeout, /)\n--\n\n"
                       "The next message for the dispatcher; None: it was rung for, or the time "
                       "is over.\n\nis_needed: be at the channel unless others are. Not needed, "
                       "it sleeps until it is.\nOnly for the dispatcher's thread, which is at "
                       "work until it calls this again.");

static PyObject *desk_next(PyObject *self, PyObject *const *args, Py_ssize_t n_args)
{
    struct desk *desk = desk_of(self);
    struct stashed taken;
    int64_t deadline_ns;
    int r;

    if (n_args != 2 || dragon_py_deadline(args[1], &deadline_ns) < 0)
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_TypeError, "next takes 2 arguments");
    desk->is_at_work = false;
    r = next(desk, args[0] == Py_True, deadline_ns, &taken);
    desk->is_at_work = true;
    desk->is_rung = desk->is_rung && r > 0;
    if (r < 0)
        return NULL;
    if (r == 0)
        Py_RETURN_NONE;
    return dragon_py_queue_decode(desk->results, &taken.message, taken.holder);
}

/* ---- the types ---- */

static PyObject *desk_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(names))
{
    struct dragon_py_state *state = dragon_py_state_of(type);
    PyObject *results, *places, *idle, *waiting, *jobs;
    struct desk *self;

    if (!state ||
        !PyArg_ParseTuple(args, "O!O!O!OO!:Desk", state->simple_queue_type, &results, &PyList_Type,
                          &places, &PyList_Type, &idle, &waiting, &PyDict_Type, &jobs))
        return NULL;
    self = (struct desk *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->results = Py_NewRef(results);
    self->places = Py_NewRef(places);
    self->idle = Py_NewRef(idle);
    self->waiting = Py_NewRef(waiting);
    self->jobs = Py_NewRef(jobs);
    self->running = PyUnicode_InternFromString("RUNNING");
    self->finished = PyUnicode_InternFromString("FINISHED");
    self->number = 1;
    self->is_at_work = true;
    dragon_eventcount_init(&self->bell);
    dragon_eventcount_init(&self->changed);
    return (PyObject *)self;
}

static int desk_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(desk_of(self)->results);
    Py_VISIT(desk_of(self)->places);
    Py_VISIT(desk_of(self)->idle);
    Py_VISIT(desk_of(self)->waiting);
    Py_VISIT(desk_of(self)->jobs);
    return 0;
}

static void desk_dealloc(PyObject *self)
{
    struct desk *desk = desk_of(self);
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    while (has_stash(desk)) {
        struct stashed left = take_stashed(desk);

        dragon_py_queue_discard(desk->results, &left.message, left.holder);
    }
    dragon_alloc_free(desk->stash);
    Py_CLEAR(desk->results);
    Py_CLEAR(desk->places);
    Py_CLEAR(desk->idle);
    Py_CLEAR(desk->waiting);
    Py_CLEAR(desk->jobs);
    Py_CLEAR(desk->running);
    Py_CLEAR(desk->finished);
    type->tp_free(self);
    Py_DECREF(type);
}

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef desk_methods[] = {
    {"give", FAST(desk_give), METH_FASTCALL, give_doc},
    {"wait", FAST(desk_wait), METH_FASTCALL, wait_doc},
    {"ring", desk_ring, METH_NOARGS,
     PyDoc_STR("ring()\n--\n\nHave the dispatcher look for orders. Any thread.")},
    {"next", FAST(desk_next), METH_FASTCALL, next_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef desk_members[] = {
    {"number", T_ULONGLONG, offsetof(struct desk, number), 0,
     PyDoc_STR("Of the next task. Changed by the dispatcher only.")},
    {"is_open", T_BOOL, offsetof(struct desk, is_open), 0,
     PyDoc_STR("Calls may go past the dispatcher.")},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot desk_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Desk(results, places, idle, waiting, jobs, /)\n--\n\nWhere a "
                                  "pool receives what its workers send.")},
    {Py_tp_new, desk_new},
    {Py_tp_traverse, desk_traverse},
    {Py_tp_dealloc, desk_dealloc},
    {Py_tp_methods, desk_methods},
    {Py_tp_members, desk_members},
    {0, NULL},
};

static PyType_Spec desk_spec = {
    .name = "_dragon.Desk",
    .basicsize = sizeof(struct desk),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = desk_slots,
};

PyDoc_STRVAR(end_doc, "_end_call()\n--\n\nThe call has its answer: who waits goes on.");

static PyObject *call_end(PyObject *self, PyObject *Py_UNUSED(unused))
{
    if (!call_of(self)->is_done)
        end_call(call_of(self));
    Py_RETURN_NONE;
}

static int call_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(call_of(self)->desk);
    Py_VISIT(call_of(self)->value);
    Py_VISIT(call_of(self)->number);
    Py_VISIT(call_of(self)->pool);
    Py_VISIT(call_of(self)->func);
    Py_VISIT(call_of(self)->items);
    Py_VISIT(call_of(self)->future);
    return 0;
}

static int call_clear(PyObject *self)
{
    Py_CLEAR(call_of(self)->desk);
    Py_CLEAR(call_of(self)->value);
    Py_CLEAR(call_of(self)->number);
    Py_CLEAR(call_of(self)->pool);
    Py_CLEAR(call_of(self)->func);
    Py_CLEAR(call_of(self)->items);
    Py_CLEAR(call_of(self)->future);
    return 0;
}

static void call_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    call_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef call_methods[] = {
    {"_end_call", call_end, METH_NOARGS, end_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef call_members[] = {
    {"_desk", T_OBJECT, offsetof(struct call, desk), 0, PyDoc_STR("A Desk.")},
    {"_value", T_OBJECT, offsetof(struct call, value), 0, PyDoc_STR("Result or exception.")},
    {"_job", T_OBJECT, offsetof(struct call, number), 0, PyDoc_STR("The job's number.")},
    {"_pool", T_OBJECT, offsetof(struct call, pool), 0, PyDoc_STR("Kept until the end.")},
    {"func", T_OBJECT, offsetof(struct call, func), 0, PyDoc_STR("Until the end.")},
    {"items", T_OBJECT, offsetof(struct call, items), 0, PyDoc_STR("Until the end.")},
    {"_success", T_BOOL, offsetof(struct call, success), 0, PyDoc_STR("_value is a result.")},
    {"_is_done", T_BOOL, offsetof(struct call, is_done), READONLY, PyDoc_STR("It has ended.")},
    {"_future", T_OBJECT, offsetof(struct call, future), 0,
     PyDoc_STR("None, or what else tells of its end; until then.")},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot call_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Base of the jobs of one call.")},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_traverse, call_traverse},
    {Py_tp_clear, call_clear},
    {Py_tp_dealloc, call_dealloc},
    {Py_tp_methods, call_methods},
    {Py_tp_members, call_members},
    {0, NULL},
};

static PyType_Spec call_spec = {
    .name = "_dragon.Call",
    .basicsize = sizeof(struct call),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = call_slots,
};

int dragon_py_desk_add(PyObject *module)
{
    struct dragon_py_state *state = dragon_py_state_of_module(module);

    state->desk_type = dragon_py_add_type(module, &desk_spec, NULL);
    state->call_type = dragon_py_add_type(module, &call_spec, NULL);
    return state->desk_type && state->call_type ? 0 : -1;
}
