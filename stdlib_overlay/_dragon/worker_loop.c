/*
 * _dragon.WorkerLoop: how a worker of a pool makes the calls of a task (docs/pool.md).
 *
 * Before each call its word is committed, and after it the result is sent, or kept in the
 * journal until several are sent. Between two calls none of our Python code runs: what is
 * not quick (results that are not small, exceptions) is left to the class derived in
 * dragon_overlay/pool/worker.py.
 */
#include "codec.h"
#include "place_words.h"

#include "base/deadline.h"

#include <structmember.h>

/* As in dragon_overlay/pool/protocol.py. */
enum mode { APPLY = 0, MAP = 1, CALL = 3 };
enum message_kind { RESULTS = 2, STOPPED = 5 };

/* Texts and bytes up to this size are small, and integers below SMALL_INT. */
#define SMALL_BYTES 1000
#define SMALL_INT (INT64_C(1) << 62)

struct worker_loop {
    PyObject_HEAD
    struct dragon_py_state *state;       /* of the module, which lives as long as the type */
    struct dragon_py_place_words *words; /* strong */
    PyObject *put;                       /* strong: of the channel for results */
    PyObject *probe;                     /* strong or NULL: told of each step, by tests */
    long long place;
    long long generation;
    long long keep_ns; /* results are kept for a common message so long */
    bool is_calling;
};

/* The calls of one task. */
struct task {
    struct worker_loop *loop;
    PyObject *number; /* borrowed */
    uint64_t number_word;
    Py_ssize_t n_kept; /* results in the journal, which were not sent */
    int64_t sent_ns;   /* when results were sent last, or the task's first call began */
    int64_t now_ns;
};

static struct worker_loop *loop_of(PyObject *self)
{
    return (struct worker_loop *)self;
}

/* ---- steps ---- */

static int probe(struct worker_loop *self, const char *step)
{
    PyObject *result;

    if (!self->probe || self->probe == Py_None)
        return 0;
    result = PyObject_CallFunction(self->probe, "s", step);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

/* 1; 0: the call was withdrawn; -1 with an exception. */
static int begin_call(struct worker_loop *self, uint64_t number, Py_ssize_t item, int64_t now_ns)
{
    if (probe(self, "begin") < 0)
        return -1;
    return dragon_py_place_begin(self->words, dragon_py_call_word(number, (uint64_t)item), now_ns);
}

static int put(struct worker_loop *self, PyObject *message)
{
    PyObject *result = message ? PyObject_CallOneArg(self->put, message) : NULL;

    Py_XDECREF(result);
    Py_XDECREF(message);
    return result ? 0 : -1;
}

/* Send the results of the items before end: what the journal has. */
static int send_kept(struct task *task, Py_ssize_t end)
{
    struct worker_loop *self = task->loop;

    if (task->n_kept == 0)
        return 0;
    if (probe(self, "send") < 0 ||
        put(self, Py_BuildValue("LLOniny#L", self->place, self->generation, task->number,
                                end - task->n_kept, RESULTS, task->n_kept, self->words->journal,
                                (Py_ssize_t)self->words->n_bytes,
                                (long long)(task->now_ns - task->sent_ns))) < 0)
        return -1;
    task->n_kept = 0;
    self->words->n_bytes = 0;
    task->sent_ns = task->now_ns;
    return probe(self, "sent");
}

/* 1: kept; 0: there is no room; -1 with an exception. */
static int keep(struct task *task, PyObject *value)
{
    bool is_kept;

    if (probe(task->loop, "keep") < 0)
        return -1;
    is_kept = dragon_py_place_keep(task->loop->words, value);
    task->n_kept += is_kept;
    return probe(task->loop, "kept") < 0 ? -1 : is_kept;
}

/* ---- calls ---- */

/* A call that was pickled alone: (func, args, keywords). */
static PyObject *call_pickled(struct worker_loop *self, PyObject *pickle)
{
    PyObject *parts = dragon_py_unpickle(self->state, pickle), *func, *args, *names;
    PyObject *value = NULL;

    if (parts &&
        PyArg_ParseTuple(parts, "OO!O!", &func, &PyTuple_Type, &args, &PyDict_Type, &names))
        value = PyObject_Call(func, args, names);
    Py_XDECREF(parts);
    return value;
}

static PyObject *call(struct worker_loop *self, enum mode mode, PyObject *func, PyObject *item)
{
    if (mode == MAP)
        return PyObject_CallOneArg(func, item);
    if (mode == CALL)
        return call_pickled(self, item);
    if (mode != APPLY && PyTuple_CheckExact(item))
        return PyObject_CallObject(func, item);
    if (mode == APPLY && PyTuple_CheckExact(item) && PyTuple_GET_SIZE(item) == 2) {
        PyObject *args = PyTuple_GET_ITEM(item, 0), *names = PyTuple_GET_ITEM(item, 1);

        if (PyTuple_CheckExact(args) && PyDict_CheckExact(names))
            return PyObject_Call(func, args, names);
    }
    return PyObject_CallMethod((PyObject *)self, "_call", "iOO", (int)mode, func, item);
}

/* A call, which an interrupt of the terminal may end. */
static PyObject *call_interruptible(struct task *task, enum mode mode, PyObject *func,
                                    PyObject *item)
{
    struct worker_loop *self = task->loop;
    PyObject *value;

    self->is_calling = true;
    value = call(self, mode, func, item);
    if (value && PyErr_CheckSignals() < 0)
        Py_CLEAR(value);
    self->is_calling = false;
    task->now_ns = dragon_now_ns();
    return value;
}

static bool is_small(PyObject *value)
{
    PyTypeObject *type = Py_TYPE(value);
    long long number;
    int overflow;

    if (value == Py_None || type == &PyBool_Type || type == &PyFloat_Type)
        return true;
    if (type == &PyLong_Type) {
        number = PyLong_AsLongLongAndOverflow(value, &overflow);
        return overflow == 0 && number > -SMALL_INT && number < SMALL_INT;
    }
    if (type == &PyUnicode_Type)
        return PyUnicode_GET_LENGTH(value) <= SMALL_BYTES;
    return type == &PyBytes_Type && PyBytes_GET_SIZE(value) <= SMALL_BYTES;
}

static int send_alone(struct task *task, Py_ssize_t i, PyObject *value)
{
    PyObject *result;

    if (send_kept(task, i) < 0)
        return -1;
    result = PyObject_CallMethod((PyObject *)task->loop, "_send", "OnO", task->number, i, value);
    task->now_ns = task->sent_ns = dragon_now_ns();
    Py_XDECREF(result);
    return result ? 0 : -1;
}

/* What follows a call that has returned. */
static int take_result(struct task *task, Py_ssize_t i, bool is_last, PyObject *value)
{
    int r;

    if (probe(task->loop, "called") < 0)
        return -1;
    if (!is_small(value))
        return send_alone(task, i, value);
    r = keep(task, value);
    if (r < 0)
        return -1;
    /* Without room for it what is in the journal is sent, but stays there until the next call is
     * committed: until then the pool may be reading it. */
    if (r == 0)
        return send_alone(task, i, value);
    if (is_last || task->now_ns - task->sent_ns >= task->loop->keep_ns)
        return send_kept(task, i + 1);
    return 0;
}

/* What follows a call that has raised. */
static int take_error(struct task *task, Py_ssize_t i)
{
    PyObject *type, *error, *traceback, *result = NULL;

    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    if (traceback)
        PyException_SetTraceback(error, traceback);
    if (send_kept(task, i) == 0)
        result = PyObject_CallMethod((PyObject *)task->loop, "_send_error", "OnO", task->number, i,
                                     error);
    task->now_ns = task->sent_ns = dragon_now_ns();
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(traceback);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

/* No call is under way, and all results were sent. */
static int finish(struct worker_loop *self)
{
    if (probe(self, "clear") < 0)
        return -1;
    dragon_publish(&self->words->shared->doing, 0);
    return 0;
}

/* Item i was withdrawn: say that nothing from it on was begun. */
static int stop_at(struct task *task, Py_ssize_t i)
{
    struct worker_loop *self = task->loop;

    if (send_kept(task, i) < 0 || finish(self) < 0 || probe(self, "stop") < 0)
        return -1;
    return put(self,
               Py_BuildValue("LLOni", self->place, self->generation, task->number, i, STOPPED));
}

/* 1: go on; 0: it was withdrawn, or the last; -1 with an exception. */
static int do_item(struct task *task, Py_ssize_t i, bool is_last, enum mode mode, PyObject *func,
                   PyObject *items)
{
    int r = begin_call(task->loop, task->number_word, i, task->now_ns);
    PyObject *item, *value;

    if (r <= 0)
        return r < 0 || stop_at(task, i) < 0 ? -1 : 0;
    item = PySequence_GetItem(items, i);
    if (!item)
        return -1;
    value = call_interruptible(task, mode, func, item);
    Py_DECREF(item);
    r = value ? take_result(task, i, is_last, value) : take_error(task, i);
    Py_XDECREF(value);
    if (r == 0 && is_last)
        return finish(task->loop);
    return r < 0 ? -1 : 1;
}

/* ---- methods ---- */

static int parse_task(struct task *task, PyObject *self, PyObject *number)
{
    *task = (struct task){.loop = loop_of(self), .number = number};
    task->number_word = PyLong_AsUnsignedLongLongMask(number);
    if (task->number_word == UINT64_MAX && PyErr_Occurred())
        return -1;
    if (!task->loop->words) {
        PyErr_SetString(PyExc_ValueError, "WorkerLoop: its __init__ was not called");
        return -1;
    }
    task->sent_ns = task->now_ns = dragon_now_ns();
    return 0;
}

static PyObject *loop_begin(PyObject *self, PyObject *const *args, Py_ssize_t n_args)
{
    struct task task;
    Py_ssize_t item;
    int r;

    if (n_args != 2) {
        PyErr_SetString(PyExc_TypeError, "begin takes 2 arguments");
        return NULL;
    }
    item = PyNumber_AsSsize_t(args[1], PyExc_OverflowError);
    if ((item == -1 && PyErr_Occurred()) || parse_task(&task, self, args[0]) < 0)
        return NULL;
    r = begin_call(task.loop, task.number_word, item, task.now_ns);
    if (r == 0)
        r = stop_at(&task, item) < 0 ? -1 : 0;
    return r < 0 ? NULL : PyBool_FromLong(r);
}

static PyObject *loop_call_all(PyObject *self, PyObject *const *args, Py_ssize_t n_args)
{
    struct task task;
    Py_ssize_t n;
    int mode, r = 1;

    if (n_args != 4) {
        PyErr_SetString(PyExc_TypeError, "call_all takes 4 arguments");
        return NULL;
    }
    mode = (int)PyLong_AsLong(args[1]);
    n = PySequence_Size(args[3]);
    if ((mode == -1 && PyErr_Occurred()) || n < 0 || parse_task(&task, self, args[0]) < 0)
        return NULL;
    for (Py_ssize_t i = 0; i < n && r > 0; i++)
        r = do_item(&task, i, i + 1 == n, (enum mode)mode, args[2], args[3]);
    if (r < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *loop_finish(PyObject *self, PyObject *Py_UNUSED(unused))
{
    if (finish(loop_of(self)) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* ---- the type ---- */

static int loop_init(PyObject *self, PyObject *args, PyObject *Py_UNUSED(names))
{
    struct worker_loop *loop = loop_of(self);
    struct dragon_py_state *state = dragon_py_state_of(Py_TYPE(self));
    PyObject *words, *put;

    if (!state || !PyArg_ParseTuple(args, "O!OLL:WorkerLoop", state->place_words_type, &words, &put,
                                    &loop->place, &loop->generation))
        return -1;
    loop->state = state;
    Py_INCREF(words);
    Py_XSETREF(loop->words, (struct dragon_py_place_words *)words);
    Py_INCREF(put);
    Py_XSETREF(loop->put, put);
    return 0;
}

static int loop_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(loop_of(self)->words);
    Py_VISIT(loop_of(self)->put);
    Py_VISIT(loop_of(self)->probe);
    return 0;
}

static int loop_clear(PyObject *self)
{
    Py_CLEAR(loop_of(self)->words);
    Py_CLEAR(loop_of(self)->put);
    Py_CLEAR(loop_of(self)->probe);
    return 0;
}

static void loop_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    loop_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef loop_methods[] = {
    {"begin", FAST(loop_begin), METH_FASTCALL,
     PyDoc_STR("begin(number, item, /)\n--\n\nThe call of an item begins. False: it was "
               "withdrawn, and the pool was told.")},
    {"call_all", FAST(loop_call_all), METH_FASTCALL,
     PyDoc_STR("call_all(number, mode, func, items, /)\n--\n\nCall func with each item and send "
               "the results, until a call was withdrawn.")},
    {"finish", loop_finish, METH_NOARGS,
     PyDoc_STR("finish()\n--\n\nNo call is under way, and all results were sent.")},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef loop_members[] = {
    {"is_calling", T_BOOL, offsetof(struct worker_loop, is_calling), READONLY,
     PyDoc_STR("The program's function is being called.")},
    {"keep_ns", T_LONGLONG, offsetof(struct worker_loop, keep_ns), 0,
     PyDoc_STR("So long results are kept for a common message.")},
    {"probe", T_OBJECT, offsetof(struct worker_loop, probe), 0,
     PyDoc_STR("None, or called with the name of each step before it is made; for tests.")},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot loop_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("WorkerLoop(words, put, place, generation, /)\n--\n\n"
                                  "Base of the worker's class.")},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, loop_init},
    {Py_tp_traverse, loop_traverse},
    {Py_tp_clear, loop_clear},
    {Py_tp_dealloc, loop_dealloc},
    {Py_tp_methods, loop_methods},
    {Py_tp_members, loop_members},
    {0, NULL},
};

static PyType_Spec loop_spec = {
    .name = "_dragon.WorkerLoop",
    .basicsize = sizeof(struct worker_loop),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = loop_slots,
};

int dragon_py_worker_loop_add(PyObject *module)
{
    struct dragon_py_state *state = dragon_py_state_of_module(module);

    state->worker_loop_type = dragon_py_add_type(module, &loop_spec, NULL);
    return state->worker_loop_type ? 0 : -1;
}
