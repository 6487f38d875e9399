/*
 * _dragon.Lock: a lock in a buffer that the program supplies, for dragon.locks.
 * The object holds the buffer's export as long as it is attached, and longer if
 * it is dropped while a thread has locked it: the kernel would look for the lock
 * where no memory is any more when that thread dies, and would tell nobody.
 */
#include "wait.h"

#include "sync/lock.h"

#include <errno.h>
#include <string.h>

struct lock {
    PyObject_HEAD
    Py_buffer buffer;
    struct dragon_lock lock;
    bool is_attached;
    bool is_destroyed;   /* by this object; threads may still be on their way out */
    Py_ssize_t n_inside; /* threads in lock() */
};

static PyObject *raise_result(struct lock *self, int r, const char *what)
{
    struct dragon_py_state *state = dragon_py_state_of(Py_TYPE(self));

    if (r == DRAGON_LOCK_DESTROYED)
        return PyErr_Format(state->destroyed, "%s: the lock was destroyed", what);
    return dragon_py_raise(state, r, what);
}

static bool is_usable(struct lock *self)
{
    if (!self->is_attached || self->is_destroyed)
        PyErr_SetString(PyExc_ValueError, "the lock was detached");
    return self->is_attached && !self->is_destroyed;
}

/* ---- lifetime ---- */

static PyObject *lock_size(PyObject *Py_UNUSED(type), PyObject *kind)
{
    long number = PyLong_AsLong(kind);

    if (number == -1 && PyErr_Occurred())
        return NULL;
    if (number < 0 || number > INT_MAX)
        number = 0;
    return PyLong_FromSize_t(dragon_lock_size_bytes((enum dragon_lock_kind)number));
}

static struct lock *export(PyTypeObject *type, PyObject *memory)
{
    struct lock *self = PyObject_New(struct lock, type);

    if (!self)
        return NULL;
    memset(&self->lock, 0, sizeof self->lock);
    self->is_attached = self->is_destroyed = false;
    self->n_inside = 0;
    if (PyObject_GetBuffer(memory, &self->buffer, PyBUF_WRITABLE) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    self->is_attached = true;
    return self;
}

static PyObject *opened(struct lock *self, int r, const char *what)
{
    if (r == 0)
        return (PyObject *)self;
    raise_result(self, r, what);
    Py_DECREF(self);
    return NULL;
}

static PyObject *lock_init(PyTypeObject *type, PyObject *args)
{
    struct lock *self;
    PyObject *memory;
    int kind;

    if (!PyArg_ParseTuple(args, "iO:init", &kind, &memory))
        return NULL;
    self = export(type, memory);
    if (!self)
        return NULL;
    return opened(self,
                  dragon_lock_init((enum dragon_lock_kind)kind, self->buffer.buf,
                                   (size_t)self->buffer.len, &self->lock),
                  "init");
}

static PyObject *lock_open(PyTypeObject *type, PyObject *memory)
{
    struct lock *self = export(type, memory);

    if (!self)
        return NULL;
    return opened(self, dragon_lock_open(self->buffer.buf, (size_t)self->buffer.len, &self->lock),
                  "attach");
}

static void let_go(struct lock *self)
{
    self->is_attached = false;
    PyBuffer_Release(&self->buffer);
}

static PyObject *lock_detach(struct lock *self, PyObject *Py_UNUSED(unused))
{
    if (!is_usable(self))
        return NULL;
    if (self->n_inside > 0 || dragon_lock_is_held_here(&self->lock))
        return raise_result(self, -EBUSY, "detach");
    let_go(self);
    Py_RETURN_NONE;
}

static PyObject *lock_destroy(struct lock *self, PyObject *Py_UNUSED(unused))
{
    int r;

    if (!is_usable(self))
        return NULL;
    r = dragon_lock_fini(&self->lock);
    if (r != 0)
        return raise_result(self, r == DRAGON_LOCK_BUSY ? -EBUSY : r, "destroy");
    self->is_destroyed = true;
    if (self->n_inside == 0)
        let_go(self);
    Py_RETURN_NONE;
}

static void warn_of_lost_lock(void)
{
    PyObject *type, *value, *traceback;

    PyErr_Fetch(&type, &value, &traceback);
    if (PyErr_WarnEx(PyExc_ResourceWarning,
                     "a lock was dropped while it is locked: nobody can unlock it", 1) < 0)
        PyErr_WriteUnraisable(NULL);
    PyErr_Restore(type, value, traceback);
}

static void lock_dealloc(struct lock *self)
{
    PyTypeObject *type = Py_TYPE(self);

    if (self->is_attached && dragon_lock_is_held_here(&self->lock))
        warn_of_lost_lock(); /* and keep the memory, see above */
    else if (self->is_attached)
        let_go(self);
    PyObject_Free(self);
    Py_DECREF(type);
}

/* ---- locking ---- */

/* As dragon_lock_lock, without the GIL; -1 with an exception: a signal handler
 * raised one. */
static int wait_for_lock(struct lock *self, int64_t deadline_ns)
{
    struct dragon_lock_turn turn = {0};
    int r;

    do {
        Py_BEGIN_ALLOW_THREADS
        r = dragon_lock_wait(&self->lock, &turn, dragon_py_next_look(deadline_ns));
        Py_END_ALLOW_THREADS
        if (r != DRAGON_LOCK_TIMEOUT && r != DRAGON_LOCK_INTERRUPTED)
            return r;
        r = DRAGON_LOCK_TIMEOUT;
        if (PyErr_CheckSignals() < 0)
            r = -1;
    } while (r != -1 && !dragon_deadline_passed(deadline_ns));
    dragon_lock_leave(&self->lock, &turn);
    return r;
}

/* True: locked, the last holder died; False: locked; None: not locked. */
static PyObject *outcome(struct lock *self, int r, const char *what)
{
    switch (r) {
    case 0:
        Py_RETURN_FALSE;
    case DRAGON_LOCK_OWNER_DIED:
        Py_RETURN_TRUE;
    case DRAGON_LOCK_BUSY:
    case DRAGON_LOCK_TIMEOUT:
        Py_RETURN_NONE;
    default:
        return PyErr_Occurred() ? NULL : raise_result(self, r, what);
    }
}

static PyObject *lock_lock(struct lock *self, PyObject *timeout)
{
    int64_t deadline_ns;
    int r;

    if (dragon_py_deadline(timeout, &deadline_ns) < 0 || !is_usable(self))
        return NULL;
    r = dragon_lock_try_lock(&self->lock);
    if (r == DRAGON_LOCK_BUSY) {
        self->n_inside++;
        r = wait_for_lock(self, deadline_ns);
        self->n_inside--;
    }
    if (self->is_destroyed && self->n_inside == 0 && self->is_attached)
        let_go(self);
    return outcome(self, r, "lock");
}

static PyObject *lock_try_lock(struct lock *self, PyObject *Py_UNUSED(unused))
{
    return is_usable(self) ? outcome(self, dragon_lock_try_lock(&self->lock), "try_lock") : NULL;
}

static PyObject *lock_unlock(struct lock *self, PyObject *Py_UNUSED(unused))
{
    int r;

    if (!is_usable(self))
        return NULL;
    r = dragon_lock_unlock(&self->lock);
    if (r < 0)
        return raise_result(self, r, "unlock");
    Py_RETURN_NONE;
}

static PyObject *lock_kind(struct lock *self, PyObject *Py_UNUSED(unused))
{
    return PyLong_FromLong(dragon_lock_kind(&self->lock));
}

/* ---- the type ---- */

static PyMethodDef lock_methods[] = {
    {"size", lock_size, METH_O | METH_STATIC,
     PyDoc_STR("size(kind, /)\n--\n\nBytes that a lock takes up; 0: no such kind.")},
    {"init", (PyCFunction)lock_init, METH_VARARGS | METH_CLASS,
     PyDoc_STR("init(kind, memory, /)\n--\n\nMake a lock in the writable buffer.")},
    {"open", (PyCFunction)lock_open, METH_O | METH_CLASS,
     PyDoc_STR("open(memory, /)\n--\n\nUse the lock in the writable buffer. Raises StaleHandle, "
               "Destroyed.")},
    {"lock", (PyCFunction)lock_lock, METH_O,
     PyDoc_STR("lock(timeout, /)\n--\n\nLock it. True: the last holder died in it; None: not in "
               "time. Raises Destroyed.")},
    {"try_lock", (PyCFunction)lock_try_lock, METH_NOARGS,
     PyDoc_STR("try_lock()\n--\n\nLock it if it is free. As lock; None: it is not.")},
    {"unlock", (PyCFunction)lock_unlock, METH_NOARGS,
     PyDoc_STR("unlock()\n--\n\nUnlock it. PermissionError: this thread has not locked it here.")},
    {"detach", (PyCFunction)lock_detach, METH_NOARGS,
     PyDoc_STR("detach()\n--\n\nForget the lock. OSError: a thread of this process holds it or "
               "waits.")},
    {"destroy", (PyCFunction)lock_destroy, METH_NOARGS,
     PyDoc_STR("destroy()\n--\n\nEnd it for all processes. OSError: somebody else holds it.")},
    {"kind", (PyCFunction)lock_kind, METH_NOARGS,
     PyDoc_STR("kind()\n--\n\nIts kind, as init takes it.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot lock_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("A lock in memory of the program's.")},
    {Py_tp_dealloc, lock_dealloc},
    {Py_tp_methods, lock_methods},
    {0, NULL},
};

static PyType_Spec lock_spec = {
    .name = "_dragon.Lock",
    .basicsize = sizeof(struct lock),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = lock_slots,
};

int dragon_py_lock_add(PyObject *module)
{
    struct dragon_py_state *state = dragon_py_state_of_module(module);

    state->lock_type = dragon_py_add_type(module, &lock_spec, NULL);
    return state->lock_type ? 0 : -1;
}
