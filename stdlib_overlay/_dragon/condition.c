/*
 * _dragon.Condition: a condition variable in the pool, over a lock that is, as a
 * rule, a _dragon.SemLock. Any other lock does that has the methods which the
 * standard library's Condition calls: acquire and release, and, for waiting and
 * notifying, _is_mine and _count of its `_semlock`.
 *
 * wait() returns or raises with the lock held again. The exception to that: a
 * second exception from signal handlers, while the lock cannot be had, goes out
 * without it. The first one (Ctrl-C) waits for the lock; but when the lock's
 * holder never releases it, a second Ctrl-C has to end the program.
 */
#include "sync.h"

#include "channel/fini.h"
#include "sync/condition.h"

#define KIND DRAGON_CONDITION_KIND

struct condition {
    struct dragon_py_object base;
    PyObject *lock; /* strong; NULL until initialised */
    bool is_ours;   /* lock is a struct dragon_py_semaphore */
};

static struct dragon_condition *condition_of(struct condition *self)
{
    return self->base.object.state;
}

static bool is_usable(struct condition *self)
{
    const char *what = Py_TYPE(self)->tp_name;

    if (self->lock && condition_of(self))
        return true;
    if (condition_of(self))
        PyErr_Format(PyExc_ValueError, "%s: has no lock (was __init__ called?)", what);
    else
        dragon_py_object_require(&self->base, what);
    return false;
}

/* ---- the lock ---- */

static struct dragon_py_semaphore *our_lock(struct condition *self)
{
    return (struct dragon_py_semaphore *)self->lock;
}

/* What _is_mine or _count of a foreign lock says; -1 with an exception. */
static int ask_lock(struct condition *self, const char *method)
{
    PyObject *semlock = PyObject_GetAttrString(self->lock, "_semlock");
    PyObject *answer = semlock ? PyObject_CallMethod(semlock, method, NULL) : NULL;
    long value = answer ? PyLong_AsLong(answer) : -1;

    Py_XDECREF(answer);
    Py_XDECREF(semlock);
    return (int)value;
}

/* -1 with AssertionError(text) if the calling thread does not hold the lock. */
static int require_lock(struct condition *self, const char *text)
{
    int is_mine =
        self->is_ours ? dragon_py_semaphore_is_mine(our_lock(self)) : ask_lock(self, "_is_mine");

    if (is_mine > 0)
        return 0;
    if (!PyErr_Occurred())
        PyErr_SetString(PyExc_AssertionError, text);
    return -1;
}

/* Call acquire or release of a foreign lock count times. */
static int call_lock(struct condition *self, const char *method, int count)
{
    for (int i = 0; i < count; i++) {
        PyObject *result = PyObject_CallMethod(self->lock, method, NULL);

        if (!result)
            return -1;
        Py_DECREF(result);
    }
    return 0;
}

/* Release the lock wholly. How often it was acquired, or -1 with an exception. */
static int release_lock(struct condition *self)
{
    int count;

    if (self->is_ours)
        return dragon_py_semaphore_release_wholly(our_lock(self));
    count = ask_lock(self, "_count");
    return count < 0 || call_lock(self, "release", count) < 0 ? -1 : count;
}

static int acquire_lock(struct condition *self, int count)
{
    return self->is_ours ? dragon_py_semaphore_restore(our_lock(self), count)
                         : call_lock(self, "acquire", count);
}

/* Acquire the lock again, with the exception that may be set. -1: an exception
 * is set, and after the second one the lock is not held. */
static int restore_lock(struct condition *self, int count)
{
    PyObject *type, *value, *traceback;

    if (!PyErr_Occurred() && acquire_lock(self, count) == 0)
        return 0;
    PyErr_Fetch(&type, &value, &traceback);
    if (!self->is_ours || !dragon_py_semaphore_is_mine(our_lock(self))) {
        if (acquire_lock(self, count) < 0) {
            Py_XDECREF(type);
            Py_XDECREF(value);
            Py_XDECREF(traceback);
            return -1;
        }
    }
    PyErr_Restore(type, value, traceback);
    return -1;
}

/* ---- waiting ---- */

/* Block until notified. 1 notified, 0 not by the deadline, -1 with an
 * exception. */
static int block(struct condition *self, struct dragon_condition_waiter *waiter,
                 int64_t deadline_ns)
{
    struct dragon_py_patience patience;
    int r;

    for (int i = 0; i < DRAGON_PY_LOOKS; i++) {
        if (dragon_condition_is_notified(waiter))
            return 1;
        dragon_pause();
    }
    patience = dragon_py_patience_begin();
    do {
        Py_BEGIN_ALLOW_THREADS
        r = dragon_condition_wait(waiter, dragon_py_next_look(deadline_ns));
        Py_END_ALLOW_THREADS
        if (r == 0)
            return 1;
        if (r < 0) {
            dragon_py_raise(dragon_py_state_of(Py_TYPE(self)), r, "Condition.wait");
            return -1;
        }
        if (PyErr_CheckSignals() < 0 || dragon_py_tell_of_users(&patience, &self->base) < 0)
            return -1;
    } while (!dragon_deadline_passed(deadline_ns));
    return 0;
}

static PyObject *wait(struct condition *self, int64_t deadline_ns)
{
    struct dragon_pool *pool = self->base.object.pool;
    struct dragon_condition_waiter *waiter;
    int count, r;

    r = dragon_condition_enter(condition_of(self), pool, &waiter);
    if (r < 0)
        return dragon_py_raise(dragon_py_state_of(Py_TYPE(self)), r, "Condition.wait");
    count = release_lock(self);
    if (count < 0) {
        dragon_condition_cancel(condition_of(self), pool, waiter);
        return NULL;
    }
    r = block(self, waiter, deadline_ns);
    if (r < 0)
        dragon_condition_cancel(condition_of(self), pool, waiter);
    else
        r = dragon_condition_leave(waiter) == 0;
    if (restore_lock(self, count) < 0)
        return NULL;
    return PyBool_FromLong(r);
}

static PyObject *condition_wait(PyObject *op, PyObject *const *args, Py_ssize_t n_args,
                                PyObject *kwnames)
{
    static const char *const names[] = {"timeout", NULL};
    struct condition *self = (struct condition *)op;
    PyObject *timeout = Py_None;
    int64_t deadline_ns = DRAGON_FOREVER;

    if (dragon_py_arguments("wait", names, args, n_args, kwnames, &timeout) < 0 || !is_usable(self))
        return NULL;
    if (timeout != Py_None && dragon_py_deadline(timeout, &deadline_ns) < 0)
        return NULL;
    if (require_lock(self, "must acquire() condition before using wait()") < 0)
        return NULL;
    return wait(self, deadline_ns);
}

/* ---- notifying ---- */

static PyObject *notify(struct condition *self, uint64_t n)
{
    if (!is_usable(self) || require_lock(self, "lock is not owned") < 0)
        return NULL;
    dragon_condition_notify(condition_of(self), self->base.object.pool, n);
    Py_RETURN_NONE;
}

static PyObject *condition_notify(PyObject *self, PyObject *const *args, Py_ssize_t n_args,
                                  PyObject *kwnames)
{
    static const char *const names[] = {"n", NULL};
    PyObject *number = NULL;
    Py_ssize_t n = 1;

    if (dragon_py_arguments("notify", names, args, n_args, kwnames, &number) < 0)
        return NULL;
    if (number)
        n = PyNumber_AsSsize_t(number, NULL); /* what is too large means all */
    if (n == -1 && PyErr_Occurred())
        return NULL;
    return notify((struct condition *)self, n > 0 ? (uint64_t)n : 0);
}

static PyObject *condition_notify_all(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return notify((struct condition *)self, UINT64_MAX);
}

static PyObject *condition_n_waiting(PyObject *op, PyObject *Py_UNUSED(unused))
{
    struct condition *self = (struct condition *)op;

    if (!is_usable(self))
        return NULL;
    return PyLong_FromUnsignedLongLong(
        dragon_condition_n_waiting(condition_of(self), self->base.object.pool));
}

/* ---- the methods of the lock ---- */

static PyObject *call_method(PyObject *object, const char *name, PyObject *const *args,
                             Py_ssize_t n_args, PyObject *kwnames)
{
    PyObject *method = PyObject_GetAttrString(object, name);
    PyObject *result = NULL;

    if (method)
        result = PyObject_Vectorcall(method, args, (size_t)n_args, kwnames);
    Py_XDECREF(method);
    return result;
}

static PyObject *condition_acquire(PyObject *op, PyObject *const *args, Py_ssize_t n_args,
                                   PyObject *kwnames)
{
    struct condition *self = (struct condition *)op;

    if (!is_usable(self))
        return NULL;
    if (self->is_ours)
        return dragon_py_semaphore_acquire(our_lock(self), args, n_args, kwnames);
    return call_method(self->lock, "acquire", args, n_args, kwnames);
}

static PyObject *condition_release(PyObject *op, PyObject *Py_UNUSED(unused))
{
    struct condition *self = (struct condition *)op;

    if (!is_usable(self))
        return NULL;
    if (self->is_ours)
        return dragon_py_semaphore_release(our_lock(self));
    return PyObject_CallMethod(self->lock, "release", NULL);
}

static PyObject *condition_enter(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return condition_acquire(self, NULL, 0, NULL);
}

static PyObject *condition_exit(PyObject *self, PyObject *const *Py_UNUSED(args),
                                Py_ssize_t Py_UNUSED(n_args))
{
    return condition_release(self, NULL);
}

static PyObject *get_lock(PyObject *self, void *Py_UNUSED(closure))
{
    PyObject *lock = ((struct condition *)self)->lock;

    if (!lock) {
        PyErr_SetString(PyExc_AttributeError, "_lock");
        return NULL;
    }
    return Py_NewRef(lock);
}

static int set_lock(PyObject *op, PyObject *lock, void *Py_UNUSED(closure))
{
    struct condition *self = (struct condition *)op;
    struct dragon_py_state *state = dragon_py_state_of(Py_TYPE(op));

    if (!state)
        return -1;
    if (!lock) {
        PyErr_SetString(PyExc_AttributeError, "_lock cannot be deleted");
        return -1;
    }
    self->is_ours = PyObject_TypeCheck(lock, state->semaphore_type);
    Py_XSETREF(self->lock, Py_NewRef(lock));
    return 0;
}

/* ---- lifetime ---- */

static int condition_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"lock", NULL};
    struct condition *self = (struct condition *)op;
    PyObject *lock;
    int r;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:Condition", names, &lock))
        return -1;
    if (set_lock(op, lock, NULL) < 0 ||
        dragon_py_object_create(&self->base, KIND, sizeof(struct dragon_condition), dragon_fini,
                                Py_TYPE(op)->tp_name) < 0)
        return -1;
    r = dragon_condition_init(condition_of(self));
    if (r < 0) {
        dragon_py_raise(dragon_py_state_of(Py_TYPE(op)), r, "Condition");
        return -1;
    }
    dragon_object_begins_with(&self->base.object, DRAGON_CONDITION_KIND);
    return 0;
}

static PyObject *condition_attach(PyObject *self, PyObject *state)
{
    if (dragon_py_object_attach(&((struct condition *)self)->base, state, KIND,
                                sizeof(struct dragon_condition), dragon_fini,
                                Py_TYPE(self)->tp_name) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static int condition_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((struct condition *)self)->lock);
    return 0;
}

static int condition_clear(PyObject *self)
{
    Py_CLEAR(((struct condition *)self)->lock);
    return 0;
}

static void condition_dealloc(PyObject *self)
{
    struct condition *condition = (struct condition *)self;
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    if (condition->base.weak_references)
        PyObject_ClearWeakRefs(self);
    dragon_py_object_release(&condition->base);
    condition_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyGetSetDef condition_attributes[] = {
    {"_lock", get_lock, set_lock, PyDoc_STR("The lock."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef condition_methods[] = {
    {"acquire", (PyCFunction)(void (*)(void))condition_acquire, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("acquire($self, /, block=True, timeout=None)\n--\n\nAcquire the lock.")},
    {"release", condition_release, METH_NOARGS,
     PyDoc_STR("release($self, /)\n--\n\nRelease the lock.")},
    {"__enter__", condition_enter, METH_NOARGS,
     PyDoc_STR("__enter__($self, /)\n--\n\nAcquire the lock.")},
    {"__exit__", (PyCFunction)(void (*)(void))condition_exit, METH_FASTCALL,
     PyDoc_STR("__exit__($self, exc_type=None, exc_value=None, exc_tb=None, /)\n--\n\nRelease the "
               "lock.")},
    {"wait", (PyCFunction)(void (*)(void))condition_wait, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("wait($self, /, timeout=None)\n--\n\nRelease the lock, block until notified, take "
               "the lock again. False if timeout (seconds) passed first.")},
    {"notify", (PyCFunction)(void (*)(void))condition_notify, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("notify($self, /, n=1)\n--\n\nWake the n that have waited longest.")},
    {"notify_all", condition_notify_all, METH_NOARGS,
     PyDoc_STR("notify_all($self, /)\n--\n\nWake all that wait.")},
    {"_n_waiting", condition_n_waiting, METH_NOARGS,
     PyDoc_STR("_n_waiting($self, /)\n--\n\nHow many wait and have not been notified.")},
    {"_attach", condition_attach, METH_O,
     PyDoc_STR("_attach($self, state, /)\n--\n\nBe the object that _export() named; _lock is set "
               "by itself.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot condition_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Condition(lock)\n--\n\nCondition variable in the pool.")},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, condition_init},
    {Py_tp_dealloc, condition_dealloc},
    {Py_tp_traverse, condition_traverse},
    {Py_tp_clear, condition_clear},
    {Py_tp_methods, condition_methods},
    {Py_tp_getset, condition_attributes},
    {0, NULL},
};

static PyType_Spec condition_spec = {
    .name = "_dragon.Condition",
    .basicsize = sizeof(struct condition),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = condition_slots,
};

int dragon_py_condition_add(PyObject *module)
{
    struct dragon_py_state *state = dragon_py_state_of_module(module);

    state->condition_type = dragon_py_add_type(module, &condition_spec, state->object_type);
    return state->condition_type ? 0 : -1;
}
