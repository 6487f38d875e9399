/*
 * _dragon.Condition: a condition variable in the pool, over a lock that is a
 * _dragon.SemLock.
 *
 * wait() returns or raises with the lock held again. The exception to that: a
 * second exception from signal handlers, while the lock cannot be had, goes out
 * without it. The first one (Ctrl-C) waits for the lock; but when the lock's
 * holder never releases it, a second Ctrl-C has to end the program.
 */
#include "sync.h"

#include "sync/condition.h"

#define KIND DRAGON_KIND('C', 'O', 'N', 'D')

struct condition {
    struct dragon_py_object base;
    struct dragon_py_semaphore *lock; /* strong; NULL until initialised */
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

/* ---- waiting ---- */

/* Block until notified. 1 notified, 0 not by the deadline, -1 with an
 * exception. */
static int block(struct condition *self, struct dragon_condition_waiter *waiter,
                 int64_t deadline_ns)
{
    int r;

    for (int i = 0; i < DRAGON_PY_LOOKS; i++) {
        if (dragon_condition_is_notified(waiter))
            return 1;
        dragon_pause();
    }
    do {
        Py_BEGIN_ALLOW_THREADS r = dragon_condition_wait(waiter, dragon_py_next_look(deadline_ns));
        Py_END_ALLOW_THREADS if (r == 0) return 1;
        if (r < 0) {
            dragon_py_raise(dragon_py_state_of(Py_TYPE(self)), r, "Condition.wait");
            return -1;
        }
        if (PyErr_CheckSignals() < 0)
            return -1;
    } while (!dragon_deadline_passed(deadline_ns));
    return 0;
}

/* Acquire the lock again, with the exception that may be set. -1: without it,
 * and with an exception. */
static int restore_lock(struct condition *self, int count)
{
    PyObject *type, *value, *traceback;

    PyErr_Fetch(&type, &value, &traceback);
    if (!type && dragon_py_semaphore_restore(self->lock, count) < 0)
        PyErr_Fetch(&type, &value, &traceback);
    else if (!type)
        return 0;
    if (!dragon_py_semaphore_is_mine(self->lock) &&
        dragon_py_semaphore_restore(self->lock, count) < 0) {
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
        return -1;
    }
    PyErr_Restore(type, value, traceback);
    return -1;
}

static PyObject *wait(struct condition *self, int64_t deadline_ns)
{
    struct dragon_pool *pool = self->base.object.pool;
    struct dragon_condition_waiter *waiter;
    int count, r;

    r = dragon_condition_enter(condition_of(self), pool, &waiter);
    if (r < 0)
        return dragon_py_raise(dragon_py_state_of(Py_TYPE(self)), r, "Condition.wait");
    count = dragon_py_semaphore_release_wholly(self->lock);
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
    if (!dragon_py_semaphore_is_mine(self->lock)) {
        PyErr_SetString(PyExc_AssertionError, "must acquire() condition before using wait()");
        return NULL;
    }
    return wait(self, deadline_ns);
}

/* ---- notifying ---- */

static PyObject *notify(struct condition *self, uint64_t n)
{
    if (!is_usable(self))
        return NULL;
    if (!dragon_py_semaphore_is_mine(self->lock)) {
        PyErr_SetString(PyExc_AssertionError, "lock is not owned");
        return NULL;
    }
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

/* ---- the lock ---- */

static PyObject *condition_acquire(PyObject *op, PyObject *const *args, Py_ssize_t n_args,
                                   PyObject *kwnames)
{
    struct condition *self = (struct condition *)op;

    return is_usable(self) ? dragon_py_semaphore_acquire(self->lock, args, n_args, kwnames) : NULL;
}

static PyObject *condition_release(PyObject *op, PyObject *Py_UNUSED(unused))
{
    struct condition *self = (struct condition *)op;

    return is_usable(self) ? dragon_py_semaphore_release(self->lock) : NULL;
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
    PyObject *lock = (PyObject *)((struct condition *)self)->lock;

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
    if (!lock || !PyObject_TypeCheck(lock, state->semaphore_type)) {
        PyErr_Format(PyExc_TypeError,
                     "%s: the lock must be a Lock or RLock of start method 'dragon', not %s",
                     Py_TYPE(op)->tp_name, lock ? Py_TYPE(lock)->tp_name : "nothing");
        return -1;
    }
    Py_XSETREF(self->lock, (struct dragon_py_semaphore *)Py_NewRef(lock));
    return 0;
}

/* ---- lifetime ---- */

static void fini(struct dragon_object *object)
{
    dragon_condition_fini(object->state, object->pool);
}

static int condition_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"lock", NULL};
    struct condition *self = (struct condition *)op;
    PyObject *lock;
    int r;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:Condition", names, &lock))
        return -1;
    if (set_lock(op, lock, NULL) < 0 ||
        dragon_py_object_create(&self->base, KIND, sizeof(struct dragon_condition), fini,
                                Py_TYPE(op)->tp_name) < 0)
        return -1;
    r = dragon_condition_init(condition_of(self));
    if (r < 0) {
        dragon_py_raise(dragon_py_state_of(Py_TYPE(op)), r, "Condition");
        return -1;
    }
    return 0;
}

static PyObject *condition_attach(PyObject *self, PyObject *state)
{
    if (dragon_py_object_attach(&((struct condition *)self)->base, state, KIND,
                                sizeof(struct dragon_condition), fini, Py_TYPE(self)->tp_name) < 0)
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
    {"_lock", get_lock, set_lock, PyDoc_STR("The lock, a _dragon.SemLock."), NULL},
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
