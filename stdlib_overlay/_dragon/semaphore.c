/*
 * _dragon.SemLock: the semaphore, the lock and the recursive lock, with the
 * methods, exceptions and texts of the standard library's
 * _multiprocessing.SemLock (Modules/_multiprocessing/semaphore.c).
 *
 * Recursion and ownership live in the Python object, not in shared memory: the
 * owner of a recursive lock is a thread of this process, and another process
 * only sees that the semaphore is taken.
 *
 * Beyond the standard library: a lock notes which process took it last, for those who wait for
 * long (patience.h); and a robust lock, a dragon_process_lock in the place of the
 * semaphore, goes to the next one when its holder ends.
 */
#include "sync.h"

#include "node/node.h"
#include "sync/process_lock.h"

#include <string.h>
#include <structmember.h>

#define KIND DRAGON_KIND('S', 'E', 'M', 'A')

/* In the pool. */
struct shared {
    union {
        struct dragon_semaphore semaphore;
        struct dragon_process_lock lock; /* if it is robust */
    };
    /* Written before it is shared: */
    uint32_t kind; /* enum dragon_py_semaphore_kind */
    uint32_t is_robust;
    uint32_t names_holder;
    uint32_t reserved[5];
};

_Static_assert(sizeof(struct shared) == 64, "shared layout");

static struct dragon_semaphore *semaphore_of(struct dragon_py_semaphore *self)
{
    return &((struct shared *)self->base.object.state)->semaphore;
}

static struct dragon_process_lock *lock_of(struct dragon_py_semaphore *self)
{
    return &((struct shared *)self->base.object.state)->lock;
}

/* Nobody of this process has it, and this is the process. The threads of a forked child hold
 * none of the locks that the thread which forked may have held in the parent. */
static void begin_in_process(struct dragon_py_semaphore *self)
{
    struct dragon_node *node = dragon_node_current();

    self->fork_generation = dragon_py_fork_generation;
    self->count = 0;
    self->owner_died = false;
    if (!node || dragon_node_number(node, &self->process) < 0)
        self->process = 0;
}

/* The one test on the hot paths: true, or false with ValueError. */
static inline bool is_usable(struct dragon_py_semaphore *self)
{
    if (self->fork_generation != dragon_py_fork_generation)
        begin_in_process(self);
    if (self->is_robust && self->process == 0) {
        PyErr_SetString(PyExc_RuntimeError,
                        "a robust lock: this process has left its node, or the node has no room "
                        "for it");
        return false;
    }
    return self->base.object.state ||
           dragon_py_object_require(&self->base, Py_TYPE(self)->tp_name) == 0;
}

bool dragon_py_semaphore_is_mine(struct dragon_py_semaphore *self)
{
    return is_usable(self) && self->count > 0 && self->owner == PyThread_get_thread_ident();
}

/* ---- acquiring ---- */

static bool is_there(void *node, uint64_t process)
{
    return dragon_node_has(node, process);
}

/* Take what dragon_process_lock_try or _lock gave: 1, or 0 if that was nothing. */
static int take_robust(struct dragon_py_semaphore *self, int r)
{
    if (r != 0 && r != DRAGON_PROCESS_LOCK_OWNER_DIED)
        return 0;
    self->owner_died = r != 0;
    return 1;
}

/* Without a number, or outside of a node, nobody is seen to have ended. */
static bool always_there(void *Py_UNUSED(context), uint64_t Py_UNUSED(process))
{
    return true;
}

static struct dragon_process_lock_user user_of(struct dragon_py_semaphore *self)
{
    struct dragon_node *node = dragon_node_if_open();

    return (struct dragon_process_lock_user){
        .process = self->process,
        .is_there = node ? is_there : always_there,
        .context = node,
    };
}

/* Take a unit if there is one. Never blocks. */
static inline bool try_take(struct dragon_py_semaphore *self)
{
    if (self->is_robust) {
        struct dragon_process_lock_user user = user_of(self);

        return take_robust(self, dragon_process_lock_try(lock_of(self), &user)) == 1;
    }
    if (!dragon_semaphore_try_acquire(semaphore_of(self)))
        return false;
    if (self->names_holder)
        dragon_semaphore_note_holder(semaphore_of(self), self->process);
    return true;
}

/* The same, waiting until deadline_ns, without the GIL. 1 taken; 0 not; -errno. */
static int wait_for_unit(struct dragon_py_semaphore *self, int64_t deadline_ns)
{
    struct dragon_process_lock_user user = user_of(self);
    int r;

    Py_BEGIN_ALLOW_THREADS
    if (self->is_robust)
        r = dragon_process_lock_lock(lock_of(self), &user, deadline_ns);
    else
        r = dragon_semaphore_acquire(semaphore_of(self), deadline_ns);
    Py_END_ALLOW_THREADS
    if (r < 0 || self->is_robust)
        return r < 0 ? r : take_robust(self, r);
    if (r == 0 && self->names_holder)
        dragon_semaphore_note_holder(semaphore_of(self), self->process);
    return r == 0;
}

/* Between two pieces of a wait: is there anybody who could release it? -1 with an
 * exception. */
static int look_for_holder(struct dragon_py_semaphore *self,
                           const struct dragon_py_patience *patience)
{
    struct dragon_node *node = dragon_node_if_open();

    if (!self->is_robust)
        return dragon_py_tell_of_holder(patience, &self->base,
                                        dragon_semaphore_holder(semaphore_of(self)));
    if (node)
        dragon_node_look_for(node, dragon_process_lock_holder(lock_of(self)));
    return 0;
}

/* Who takes the only unit has it once: if this process had it before, as its count may say,
 * another one has released it since. */
static PyObject *taken(struct dragon_py_semaphore *self)
{
    self->count = self->has_one_unit ? 1 : self->count + 1;
    self->owner = PyThread_get_thread_ident();
    Py_RETURN_TRUE;
}

/* Take a unit. 1 taken, 0 not by the deadline, -1 with an exception. */
static int take(struct dragon_py_semaphore *self, int64_t deadline_ns)
{
    struct dragon_py_patience patience;
    int r;

    for (int i = 0; i < DRAGON_PY_LOOKS; i++) {
        if (try_take(self))
            return 1;
        dragon_pause();
    }
    patience = dragon_py_patience_begin();
    do {
        r = wait_for_unit(self, dragon_py_next_look(deadline_ns));
        if (r == 1)
            return 1;
        if (r < 0) {
            dragon_py_raise(dragon_py_state_of(Py_TYPE(self)), r, "acquire");
            return -1;
        }
        if (PyErr_CheckSignals() < 0 || look_for_holder(self, &patience) < 0)
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
    if (try_take(self))
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
    if (!try_take(self) && take(self, DRAGON_FOREVER) < 0)
        return -1;
    for (int i = 1; self->kind == DRAGON_PY_SEMAPHORE && i < count; i++)
        if (take(self, DRAGON_FOREVER) < 0)
            return -1;
    self->count = self->has_one_unit ? count : self->count + count;
    self->owner = PyThread_get_thread_ident();
    return 0;
}

/* ---- releasing ---- */

/* 0; else it was not taken. */
static int give_back(struct dragon_py_semaphore *self)
{
    if (!self->is_robust)
        return dragon_semaphore_release(semaphore_of(self));
    self->owner_died = false;
    return dragon_process_lock_unlock(lock_of(self));
}

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
    if (give_back(self) != 0) {
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
        give_back(self);
    return count;
}

/* ---- the other methods ---- */

static uint32_t value_of(struct dragon_py_semaphore *self)
{
    if (self->is_robust)
        return dragon_process_lock_holder(lock_of(self)) == 0;
    return dragon_semaphore_value(semaphore_of(self));
}

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
    return PyLong_FromUnsignedLong(value_of(semaphore));
}

static PyObject *semaphore_is_zero(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct dragon_py_semaphore *semaphore = (struct dragon_py_semaphore *)self;

    if (!is_usable(semaphore))
        return NULL;
    return PyBool_FromLong(value_of(semaphore) == 0);
}

/* ---- lifetime ---- */

/* Be a view of the object that was created or opened. */
static void view(struct dragon_py_semaphore *self)
{
    const struct shared *shared = self->base.object.state;

    self->kind =
        shared->kind == DRAGON_PY_RECURSIVE_MUTEX ? DRAGON_PY_RECURSIVE_MUTEX : DRAGON_PY_SEMAPHORE;
    self->is_robust = shared->is_robust != 0;
    self->has_one_unit = self->is_robust || shared->semaphore.maximum == 1;
    self->names_holder = shared->names_holder != 0;
    begin_in_process(self);
}

static void make_shared(struct dragon_object *object, int value, int maximum, int is_robust)
{
    struct shared *shared = object->state;

    shared->is_robust = is_robust != 0;
    shared->names_holder = value == maximum;
    if (is_robust)
        dragon_process_lock_init(&shared->lock);
    else
        dragon_semaphore_init(&shared->semaphore, (uint32_t)value, (uint32_t)maximum);
    dragon_object_begins_with(object, is_robust ? DRAGON_PROCESS_LOCK_KIND : DRAGON_SEMAPHORE_KIND);
}

static int semaphore_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"kind", "value", "maximum", "is_robust", NULL};
    struct dragon_py_semaphore *self = (struct dragon_py_semaphore *)op;
    int kind, value, maximum, is_robust = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "iii|p:SemLock", names, &kind, &value, &maximum,
                                     &is_robust))
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
    if (dragon_py_object_create(&self->base, KIND, sizeof(struct shared), NULL,
                                Py_TYPE(op)->tp_name) < 0)
        return -1;
    ((struct shared *)self->base.object.state)->kind = (uint32_t)kind;
    make_shared(&self->base.object, value, maximum, is_robust);
    view(self);
    return 0;
}

static PyObject *semaphore_attach(PyObject *op, PyObject *state)
{
    struct dragon_py_semaphore *self = (struct dragon_py_semaphore *)op;

    if (dragon_py_object_attach(&self->base, state, KIND, sizeof(struct shared), NULL,
                                Py_TYPE(op)->tp_name) < 0)
        return NULL;
    view(self);
    Py_RETURN_NONE;
}

static PyObject *get_kind(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(((struct dragon_py_semaphore *)self)->kind);
}

static PyObject *get_maxvalue(PyObject *op, void *Py_UNUSED(closure))
{
    struct dragon_py_semaphore *self = (struct dragon_py_semaphore *)op;

    if (!is_usable(self))
        return NULL;
    return PyLong_FromUnsignedLong(self->has_one_unit ? 1 : semaphore_of(self)->maximum);
}

static PyObject *get_handle(PyObject *op, void *Py_UNUSED(closure))
{
    struct dragon_py_semaphore *self = (struct dragon_py_semaphore *)op;

    return is_usable(self) ? PyLong_FromUnsignedLongLong(self->base.object.handle.offset) : NULL;
}

static PyObject *get_owner_died(PyObject *op, void *Py_UNUSED(closure))
{
    struct dragon_py_semaphore *self = (struct dragon_py_semaphore *)op;

    return is_usable(self) ? PyBool_FromLong(self->owner_died && self->count > 0) : NULL;
}

static PyObject *get_name(PyObject *Py_UNUSED(self), void *Py_UNUSED(closure))
{
    Py_RETURN_NONE;
}

static PyGetSetDef semaphore_attributes[] = {
    {"kind", get_kind, NULL, PyDoc_STR("0: recursive lock, 1: semaphore."), NULL},
    {"maxvalue", get_maxvalue, NULL, PyDoc_STR("The value above which release fails."), NULL},
    {"handle", get_handle, NULL, PyDoc_STR("Where it lies in its pool."), NULL},
    {"owner_died", get_owner_died, NULL,
     PyDoc_STR("True for the holder of a robust lock if the one before it ended while it held "
               "the lock."),
     NULL},
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
