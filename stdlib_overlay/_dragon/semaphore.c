/*
 * _dragon.SemLock: the semaphore, the lock and the recursive lock, with the
 * methods, exceptions and texts of the standard library's
 * _multiprocessing.SemLock (Modules/_multiprocessing/semaphore.c).
 *
 * Recursion and ownership live in the Python object, not in shared memory: the
 * owner of a recursive lock is a thread of this process, and another process
 * only sees that the semaphore is taken.
 */
#include "sync.h"

#include <string.h>
#include <structmember.h>

#define KIND DRAGON_KIND('S', 'E', 'M', 'A')

/* In the pool. */
struct shared {
    struct dragon_semaphore semaphore;
    uint32_t kind; /* enum dragon_py_semaphore_kind; written before it is shared */
    uint32_t reserved[7];
};

_Static_assert(sizeof(struct shared) == 64, "shared layout");

static struct dragon_semaphore *semaphore_of(struct dragon_py_semaphore *self)
{
    return &((struct shared *)self->base.object.state)->semaphore;
}

/* The one test on the hot paths: true, or false with ValueError. The threads of a forked
 * child hold none of the locks that the thread which forked may have held in the parent. */
static inline bool is_usable(struct dragon_py_semaphore *self)
{
    if (self->fork_generation != dragon_py_fork_generation) {
        self->fork_generation = dragon_py_fork_generation;
        self->count = 0;
    }
    return self->base.object.state ||
           dragon_py_object_require(&self->base, Py_TYPE(self)->tp_name) == 0;
}

bool dragon_py_semaphore_is_mine(struct dragon_py_semaphore *self)
{
    return is_usable(self) && self->count > 0 && self->owner == PyThread_get_thread_ident();
}

/* ---- acquiring ---- */

static PyObject *taken(struct dragon_py_semaphore *self)
{
    self->count++;
    self->owner = PyThread_get_thread_ident();
    Py_RETURN_TRUE;
}

/* Take a unit. 1 taken, 0 not by the deadline, -1 with an exception. */
static int take(struct dragon_py_semaphore *self, int64_t deadline_ns)
{
    struct dragon_semaphore *semaphore = semaphore_of(self);
    int r;

    for (int i = 0; i < DRAGON_PY_LOOKS; i++) {
        if (dragon_semaphore_try_acquire(semaphore))
            return 1;
        dragon_pause();
    }
    do {
        Py_BEGIN_ALLOW_THREADS
        r = dragon_semaphore_acquire(semaphore, dragon_py_next_look(deadline_ns));
        Py_END_ALLOW_THREADS
        if (r == 0)
            return 1;
        if (r < 0) {
            dragon_py_raise(dragon_py_state_of(Py_TYPE(self)), r, "acquire");
            return -1;
        }
        if (PyErr_CheckSignals() < 0)
            return -1;
    } while (!dragon_deadline_passed(deadline_ns));
    return 0;
}

static PyObject *acquire(struct dragon_py_semaphore *self, bool block, PyObject *timeout)
{
    int64_t deadline_ns = DRAGON_FOREVER;
    int r;

    if (!is_usable(self))
        return NULL;
    if (self->kind == DRAGON_PY_RECURSIVE_MUTEX && dragon_py_semaphore_is_mine(self)) {
        self->count++;
        Py_RETURN_TRUE;
    }
    if (timeout != Py_None && dragon_py_deadline(timeout, &deadline_ns) < 0)
        return NULL;
    if (dragon_semaphore_try_acquire(semaphore_of(self)))
        return taken(self);
    if (!block)
        Py_RETURN_FALSE;
    r = take(self, deadline_ns);
    if (r < 0)
        return NULL;
    if (r == 0)
        Py_RETURN_FALSE;
    return taken(self);
}

PyObject *dragon_py_semaphore_acquire(struct dragon_py_semaphore *self, PyObject *const *args,
                                      Py_ssize_t n_args, PyObject *kwnames)
{
    static const char *const names[] = {"block", "timeout", NULL};
    PyObject *values[] = {Py_True, Py_None};
    long block;

    if (n_args == 0 && !kwnames)
        return acquire(self, true, Py_None);
    if (dragon_py_arguments("acquire", names, args, n_args, kwnames, values) < 0)
        return NULL;
    block = PyLong_AsLong(values[0]);
    if (block == -1 && PyErr_Occurred())
        return NULL;
    return acquire(self, block != 0, values[1]);
}

int dragon_py_semaphore_restore(struct dragon_py_semaphore *self, int count)
{
    if (!dragon_semaphore_try_acquire(semaphore_of(self)) && take(self, DRAGON_FOREVER) < 0)
        return -1;
    for (int i = 1; self->kind == DRAGON_PY_SEMAPHORE && i < count; i++)
        if (take(self, DRAGON_FOREVER) < 0)
            return -1;
    self->count += count;
    self->owner = PyThread_get_thread_ident();
    return 0;
}

/* ---- releasing ---- */

PyObject *dragon_py_semaphore_release(struct dragon_py_semaphore *self)
{
    if (!is_usable(self))
        return NULL;
    if (self->kind == DRAGON_PY_RECURSIVE_MUTEX) {
        if (!dragon_py_semaphore_is_mine(self)) {
            PyErr_SetString(PyExc_AssertionError,
                            "attempt to release recursive lock not owned by thread");
            return NULL;
        }
        if (self->count > 1) {
            self->count--;
            Py_RETURN_NONE;
        }
    }
    if (dragon_semaphore_release(semaphore_of(self)) != 0) {
        PyErr_SetString(PyExc_ValueError, "semaphore or lock released too many times");
        return NULL;
    }
    self->count--;
    Py_RETURN_NONE;
}

int dragon_py_semaphore_release_wholly(struct dragon_py_semaphore *self)
{
    int count = self->count;
    int n = self->kind == DRAGON_PY_RECURSIVE_MUTEX ? 1 : count;

    self->count = 0;
    for (int i = 0; i < n; i++)
        dragon_semaphore_release(semaphore_of(self));
    return count;
}

/* ---- the other methods ---- */

static PyObject *semaphore_acquire_method(PyObject *self, PyObject *const *args, Py_ssize_t n_args,
                                          PyObject *kwnames)
{
    return dragon_py_semaphore_acquire((struct dragon_py_semaphore *)self, args, n_args, kwnames);
}

static PyObject *semaphore_release_method(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return dragon_py_semaphore_release((struct dragon_py_semaphore *)self);
}

static PyObject *semaphore_enter(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return acquire((struct dragon_py_semaphore *)self, true, Py_None);
}

static PyObject *semaphore_exit(PyObject *self, PyObject *const *Py_UNUSED(args),
                                Py_ssize_t Py_UNUSED(n_args))
{
    return dragon_py_semaphore_release((struct dragon_py_semaphore *)self);
}

static PyObject *semaphore_count(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct dragon_py_semaphore *semaphore = (struct dragon_py_semaphore *)self;

    return is_usable(semaphore) ? PyLong_FromLong(semaphore->count) : NULL;
}

static PyObject *semaphore_is_mine(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct dragon_py_semaphore *semaphore = (struct dragon_py_semaphore *)self;

    if (!is_usable(semaphore))
        return NULL;
    return PyBool_FromLong(dragon_py_semaphore_is_mine(semaphore));
}

static PyObject *semaphore_get_value(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct dragon_py_semaphore *semaphore = (struct dragon_py_semaphore *)self;

    if (!is_usable(semaphore))
        return NULL;
    return PyLong_FromUnsignedLong(dragon_semaphore_value(semaphore_of(semaphore)));
}

static PyObject *semaphore_is_zero(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct dragon_py_semaphore *semaphore = (struct dragon_py_semaphore *)self;

    if (!is_usable(semaphore))
        return NULL;
    return PyBool_FromLong(dragon_semaphore_value(semaphore_of(semaphore)) == 0);
}

/* ---- lifetime ---- */

static int semaphore_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"kind", "value", "maximum", NULL};
    struct dragon_py_semaphore *self = (struct dragon_py_semaphore *)op;
    int kind, value, maximum;
    struct shared *shared;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "iii:SemLock", names, &kind, &value, &maximum))
        return -1;
    if (kind != DRAGON_PY_RECURSIVE_MUTEX && kind != DRAGON_PY_SEMAPHORE) {
        PyErr_SetString(PyExc_ValueError, "unrecognized kind");
        return -1;
    }
    if (value < 0 || maximum < 0) {
        errno = EINVAL; /* what sem_open says, and so the standard library */
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (dragon_py_object_create(&self->base, KIND, sizeof *shared, NULL, Py_TYPE(op)->tp_name) < 0)
        return -1;
    shared = self->base.object.state;
    dragon_semaphore_init(&shared->semaphore, (uint32_t)value, (uint32_t)maximum);
    shared->kind = (uint32_t)kind;
    self->kind = (enum dragon_py_semaphore_kind)kind;
    self->count = 0;
    return 0;
}

static PyObject *semaphore_attach(PyObject *op, PyObject *state)
{
    struct dragon_py_semaphore *self = (struct dragon_py_semaphore *)op;
    struct shared *shared;

    if (dragon_py_object_attach(&self->base, state, KIND, sizeof *shared, NULL,
                                Py_TYPE(op)->tp_name) < 0)
        return NULL;
    shared = self->base.object.state;
    self->kind =
        shared->kind == DRAGON_PY_RECURSIVE_MUTEX ? DRAGON_PY_RECURSIVE_MUTEX : DRAGON_PY_SEMAPHORE;
    self->count = 0;
    Py_RETURN_NONE;
}

static PyObject *get_kind(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(((struct dragon_py_semaphore *)self)->kind);
}

static PyObject *get_maxvalue(PyObject *op, void *Py_UNUSED(closure))
{
    struct dragon_py_semaphore *self = (struct dragon_py_semaphore *)op;

    return is_usable(self) ? PyLong_FromUnsignedLong(semaphore_of(self)->maximum) : NULL;
}

static PyObject *get_handle(PyObject *op, void *Py_UNUSED(closure))
{
    struct dragon_py_semaphore *self = (struct dragon_py_semaphore *)op;

    return is_usable(self) ? PyLong_FromUnsignedLongLong(self->base.object.handle.offset) : NULL;
}

static PyObject *get_name(PyObject *Py_UNUSED(self), void *Py_UNUSED(closure))
{
    Py_RETURN_NONE;
}

static PyGetSetDef semaphore_attributes[] = {
    {"kind", get_kind, NULL, PyDoc_STR("0: recursive lock, 1: semaphore."), NULL},
    {"maxvalue", get_maxvalue, NULL, PyDoc_STR("The value above which release fails."), NULL},
    {"handle", get_handle, NULL, PyDoc_STR("Where it lies in its pool."), NULL},
    {"name", get_name, NULL, PyDoc_STR("None: it has no name in the file system."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef semaphore_methods[] = {
    {"acquire", (PyCFunction)(void (*)(void))semaphore_acquire_method,
     METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("acquire($self, /, block=True, timeout=None)\n--\n\nAcquire the semaphore/lock.")},
    {"release", semaphore_release_method, METH_NOARGS,
     PyDoc_STR("release($self, /)\n--\n\nRelease the semaphore/lock.")},
    {"__enter__", semaphore_enter, METH_NOARGS,
     PyDoc_STR("__enter__($self, /)\n--\n\nEnter the semaphore/lock.")},
    {"__exit__", (PyCFunction)(void (*)(void))semaphore_exit, METH_FASTCALL,
     PyDoc_STR("__exit__($self, exc_type=None, exc_value=None, exc_tb=None, /)\n--\n\nExit the "
               "semaphore/lock.")},
    {"_count", semaphore_count, METH_NOARGS,
     PyDoc_STR("_count($self, /)\n--\n\nNum of `acquire()`s minus num of `release()`s for this "
               "process.")},
    {"_is_mine", semaphore_is_mine, METH_NOARGS,
     PyDoc_STR("_is_mine($self, /)\n--\n\nWhether the lock is owned by this thread.")},
    {"_get_value", semaphore_get_value, METH_NOARGS,
     PyDoc_STR("_get_value($self, /)\n--\n\nGet the value of the semaphore.")},
    {"_is_zero", semaphore_is_zero, METH_NOARGS,
     PyDoc_STR("_is_zero($self, /)\n--\n\nReturn whether semaphore has value zero.")},
    {"_attach", semaphore_attach, METH_O,
     PyDoc_STR("_attach($self, state, /)\n--\n\nBe the object that _export() named.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot semaphore_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("SemLock(kind, value, maximum)\n--\n\nSemaphore/lock in the "
                                  "pool.")},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, semaphore_init},
    {Py_tp_methods, semaphore_methods},
    {Py_tp_getset, semaphore_attributes},
    {0, NULL},
};

static PyType_Spec semaphore_spec = {
    .name = "_dragon.SemLock",
    .basicsize = sizeof(struct dragon_py_semaphore),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, /* garbage collection: inherited */
    .slots = semaphore_slots,
};

int dragon_py_semaphore_add(PyObject *module)
{
    struct dragon_py_state *state = dragon_py_state_of_module(module);
    PyObject *maximum;
    int r;

    state->semaphore_type = dragon_py_add_type(module, &semaphore_spec, state->object_type);
    maximum = PyLong_FromUnsignedLong(DRAGON_SEMAPHORE_MAXIMUM);
    if (!state->semaphore_type || !maximum) {
        Py_XDECREF(maximum);
        return -1;
    }
    r = PyObject_SetAttrString((PyObject *)state->semaphore_type, "SEM_VALUE_MAX", maximum);
    Py_DECREF(maximum);
    return r;
}
