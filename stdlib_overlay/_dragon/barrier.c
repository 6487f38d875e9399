/*
 * _dragon.Barrier: threading.Barrier between processes. The action and the
 * default time-out belong to this process's object; the counting is shared.
 */
#include "sync.h"

#include "node/node.h"
#include "sync/barrier.h"

#include <structmember.h>

#define KIND DRAGON_BARRIER_KIND

struct barrier {
    struct dragon_py_object base;
    PyObject *action;  /* strong, or NULL for none */
    PyObject *timeout; /* strong, or NULL for none; seconds */
};

static struct dragon_barrier *barrier_of(PyObject *self)
{
    return ((struct dragon_py_object *)self)->object.state;
}

static bool is_usable(PyObject *self)
{
    return barrier_of(self) ||
           dragon_py_object_require((struct dragon_py_object *)self, Py_TYPE(self)->tp_name) == 0;
}

static PyObject *raise_broken(void)
{
    PyObject *threading = PyImport_ImportModule("threading");
    PyObject *error = threading ? PyObject_GetAttrString(threading, "BrokenBarrierError") : NULL;

    if (error)
        PyErr_SetNone(error);
    Py_XDECREF(error);
    Py_XDECREF(threading);
    return NULL;
}

/* ---- waiting ---- */

/* One wait() call. */
struct attempt {
    struct dragon_py_object *object;
    struct dragon_py_patience patience;
    struct dragon_barrier *barrier;
    struct dragon_barrier_place place;
    int64_t deadline_ns;
    bool has_action;
    bool has_arrived;
};

/* Without the GIL. Outcomes of dragon_barrier_arrive and dragon_barrier_wait. */
static int go_on(struct attempt *attempt)
{
    int64_t until_ns = dragon_py_next_look(attempt->deadline_ns);

    if (!attempt->has_arrived) {
        int r =
            dragon_barrier_arrive(attempt->barrier, &attempt->object->object, attempt->has_action,
                                  dragon_py_next_look(DRAGON_FOREVER), &attempt->place);

        if (r != 0)
            return r;
        attempt->has_arrived = true;
    }
    return dragon_barrier_wait(attempt->barrier, &attempt->place, until_ns);
}

/* Interrupted, or time for a look. -1 with an exception. */
static int look_up(struct attempt *attempt)
{
    if (PyErr_CheckSignals() < 0 ||
        dragon_py_tell_of_users(&attempt->patience, attempt->object) < 0) {
        if (attempt->has_arrived)
            dragon_barrier_withdraw(attempt->barrier, &attempt->place);
        return -1;
    }
    if (attempt->has_arrived && dragon_deadline_passed(attempt->deadline_ns)) {
        dragon_barrier_expire(attempt->barrier, &attempt->place);
        attempt->deadline_ns = DRAGON_FOREVER;
    }
    return 0;
}

/* Outcomes of dragon_barrier_wait and DRAGON_BARRIER_LAST; -1 with an
 * exception. */
static int take_part(struct dragon_py_state *state, struct attempt *attempt)
{
    int r;

    do {
        Py_BEGIN_ALLOW_THREADS
        r = go_on(attempt);
        Py_END_ALLOW_THREADS
        if (r < 0) {
            dragon_py_raise(state, r, "Barrier.wait");
            return -1;
        }
        if (r != DRAGON_BARRIER_TIMEOUT && r != DRAGON_BARRIER_INTERRUPTED)
            return r;
    } while (look_up(attempt) == 0);
    return -1;
}

/* The action may be any code: the type's own attributes may change under it. */
static int run_action(PyObject *action, struct attempt *attempt)
{
    PyObject *result = PyObject_CallNoArgs(action);
    int r = dragon_barrier_finish(attempt->barrier, &attempt->place, result != NULL);

    if (!result)
        return -1;
    Py_DECREF(result);
    return r;
}

static PyObject *wait(struct barrier *self, PyObject *action, int64_t deadline_ns)
{
    struct attempt attempt = {
        .object = &self->base,
        .patience = dragon_py_patience_begin(),
        .barrier = barrier_of((PyObject *)self),
        .deadline_ns = deadline_ns,
        .has_action = action != NULL,
    };
    int r = take_part(dragon_py_state_of(Py_TYPE(self)), &attempt);

    if (r == DRAGON_BARRIER_LAST)
        r = action ? run_action(action, &attempt) : 0;
    if (r < 0)
        return NULL;
    return r == 0 ? PyLong_FromUnsignedLong(attempt.place.index) : raise_broken();
}

static PyObject *barrier_wait(PyObject *op, PyObject *const *args, Py_ssize_t n_args,
                              PyObject *kwnames)
{
    static const char *const names[] = {"timeout", NULL};
    struct barrier *self = (struct barrier *)op;
    PyObject *timeout = Py_None, *action = self->action, *result;
    int64_t deadline_ns = DRAGON_FOREVER;
    int has_action = action ? PyObject_IsTrue(action) : 0;

    if (has_action < 0 || dragon_py_arguments("wait", names, args, n_args, kwnames, &timeout) < 0 ||
        !is_usable(op))
        return NULL;
    if (timeout == Py_None && self->timeout)
        timeout = self->timeout;
    if (timeout != Py_None && dragon_py_deadline(timeout, &deadline_ns) < 0)
        return NULL;
    if (!has_action)
        return wait(self, NULL, deadline_ns);
    Py_INCREF(action);
    result = wait(self, action, deadline_ns);
    Py_DECREF(action);
    return result;
}

/* ---- the other methods ---- */

static PyObject *barrier_reset(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct dragon_node *node;

    if (!is_usable(self))
        return NULL;
    node = dragon_node_current();
    if (node) { /* whoever has been seen dead does not break it afterwards */
        Py_BEGIN_ALLOW_THREADS
        dragon_node_settle(node);
        Py_END_ALLOW_THREADS
    }
    dragon_barrier_reset(barrier_of(self));
    Py_RETURN_NONE;
}

static PyObject *barrier_abort(PyObject *self, PyObject *Py_UNUSED(unused))
{
    if (!is_usable(self))
        return NULL;
    dragon_barrier_abort(barrier_of(self));
    Py_RETURN_NONE;
}

static PyObject *get_parties(PyObject *self, void *Py_UNUSED(closure))
{
    return is_usable(self) ? PyLong_FromUnsignedLong(barrier_of(self)->parties) : NULL;
}

static PyObject *get_n_waiting(PyObject *self, void *Py_UNUSED(closure))
{
    if (!is_usable(self))
        return NULL;
    return PyLong_FromUnsignedLong(dragon_barrier_n_waiting(barrier_of(self)));
}

static PyObject *get_broken(PyObject *self, void *Py_UNUSED(closure))
{
    return is_usable(self) ? PyBool_FromLong(dragon_barrier_is_broken(barrier_of(self))) : NULL;
}

/* ---- lifetime ---- */

static int barrier_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"parties", "action", "timeout", NULL};
    struct barrier *self = (struct barrier *)op;
    PyObject *action = Py_None, *timeout = Py_None;
    Py_ssize_t parties;
    int r;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "n|OO:Barrier", names, &parties, &action,
                                     &timeout))
        return -1;
    if (parties < 1 || parties > (Py_ssize_t)DRAGON_BARRIER_MAX_PARTIES) {
        PyErr_Format(PyExc_ValueError, "Barrier: parties must be from 1 to %u, not %zd",
                     DRAGON_BARRIER_MAX_PARTIES, parties);
        return -1;
    }
    if (dragon_py_object_create(&self->base, KIND, sizeof(struct dragon_barrier), NULL,
                                Py_TYPE(op)->tp_name) < 0)
        return -1;
    r = dragon_barrier_init(barrier_of(op), (uint32_t)parties);
    if (r < 0) {
        dragon_py_raise(dragon_py_state_of(Py_TYPE(op)), r, "Barrier");
        return -1;
    }
    dragon_object_begins_with(&self->base.object, DRAGON_BARRIER_KIND);
    Py_XSETREF(self->action, Py_NewRef(action));
    Py_XSETREF(self->timeout, Py_NewRef(timeout));
    return 0;
}

static PyObject *barrier_attach(PyObject *self, PyObject *state)
{
    if (dragon_py_object_attach((struct dragon_py_object *)self, state, KIND,
                                sizeof(struct dragon_barrier), NULL, Py_TYPE(self)->tp_name) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static int barrier_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((struct barrier *)self)->action);
    Py_VISIT(((struct barrier *)self)->timeout);
    return 0;
}

static int barrier_clear(PyObject *self)
{
    Py_CLEAR(((struct barrier *)self)->action);
    Py_CLEAR(((struct barrier *)self)->timeout);
    return 0;
}

static void barrier_dealloc(PyObject *self)
{
    struct barrier *barrier = (struct barrier *)self;
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    if (barrier->base.weak_references)
        PyObject_ClearWeakRefs(self);
    dragon_py_object_release(&barrier->base);
    barrier_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMemberDef barrier_members[] = {
    {"_action", T_OBJECT, offsetof(struct barrier, action), 0, NULL},
    {"_timeout", T_OBJECT, offsetof(struct barrier, timeout), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef barrier_attributes[] = {
    {"parties", get_parties, NULL, PyDoc_STR("How many it takes to pass."), NULL},
    {"n_waiting", get_n_waiting, NULL, PyDoc_STR("How many wait now."), NULL},
    {"broken", get_broken, NULL, PyDoc_STR("True until it is reset."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef barrier_methods[] = {
    {"wait", (PyCFunction)(void (*)(void))barrier_wait, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("wait($self, /, timeout=None)\n--\n\nBlock until all parties have called it. "
               "Returns the place in which the caller came, from 0. Raises BrokenBarrierError "
               "when timeout (seconds) passed, the barrier is broken, or was reset.")},
    {"reset", barrier_reset, METH_NOARGS,
     PyDoc_STR("reset($self, /)\n--\n\nMake it whole and empty; who waits gets "
               "BrokenBarrierError.")},
    {"abort", barrier_abort, METH_NOARGS,
     PyDoc_STR("abort($self, /)\n--\n\nBreak it: who waits, now or later, gets "
               "BrokenBarrierError.")},
    {"_attach", barrier_attach, METH_O,
     PyDoc_STR("_attach($self, state, /)\n--\n\nBe the object that _export() named.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot barrier_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Barrier(parties, action=None, timeout=None)\n--\n\nA meeting "
                                  "point in the pool.")},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, barrier_init},
    {Py_tp_dealloc, barrier_dealloc},
    {Py_tp_traverse, barrier_traverse},
    {Py_tp_clear, barrier_clear},
    {Py_tp_members, barrier_members},
    {Py_tp_methods, barrier_methods},
    {Py_tp_getset, barrier_attributes},
    {0, NULL},
};

static PyType_Spec barrier_spec = {
    .name = "_dragon.Barrier",
    .basicsize = sizeof(struct barrier),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = barrier_slots,
};

int dragon_py_barrier_add(PyObject *module)
{
    struct dragon_py_state *state = dragon_py_state_of_module(module);

    state->barrier_type = dragon_py_add_type(module, &barrier_spec, state->object_type);
    return state->barrier_type ? 0 : -1;
}
