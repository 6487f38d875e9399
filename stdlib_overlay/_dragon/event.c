/*
 * _dragon.Event: multiprocessing.Event in one word of shared memory. wait()
 * returns True also when the flag was raised and lowered again before the
 * waiter ran.
 */
#include "sync.h"

#include "sync/event.h"

#define KIND DRAGON_KIND('E', 'V', 'N', 'T')

static struct dragon_event *event_of(PyObject *self)
{
    return ((struct dragon_py_object *)self)->object.state;
}

static bool is_usable(PyObject *self)
{
    return event_of(self) ||
           dragon_py_object_require((struct dragon_py_object *)self, Py_TYPE(self)->tp_name) == 0;
}

static PyObject *event_is_set(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return is_usable(self) ? PyBool_FromLong(dragon_event_is_set(event_of(self))) : NULL;
}

static PyObject *event_set(PyObject *self, PyObject *Py_UNUSED(unused))
{
    if (!is_usable(self))
        return NULL;
    dragon_event_set(event_of(self));
    Py_RETURN_NONE;
}

static PyObject *event_clear(PyObject *self, PyObject *Py_UNUSED(unused))
{
    if (!is_usable(self))
        return NULL;
    dragon_event_clear(event_of(self));
    Py_RETURN_NONE;
}

/* 1 it has happened, 0 not by the deadline, -1 with an exception. */
static int wait(PyObject *self, int64_t deadline_ns)
{
    struct dragon_event *event = event_of(self);
    uint32_t begin = dragon_event_begin(event);
    struct dragon_py_patience patience;
    int r;

    for (int i = 0; i < DRAGON_PY_LOOKS; i++) {
        if (dragon_event_has_happened(event, begin))
            return 1;
        dragon_pause();
    }
    patience = dragon_py_patience_begin();
    do {
        Py_BEGIN_ALLOW_THREADS
        r = dragon_event_wait(event, begin, dragon_py_next_look(deadline_ns));
        Py_END_ALLOW_THREADS
        if (r == 0)
            return 1;
        if (r < 0) {
            dragon_py_raise(dragon_py_state_of(Py_TYPE(self)), r, "Event.wait");
            return -1;
        }
        if (PyErr_CheckSignals() < 0 ||
            dragon_py_tell_of_users(&patience, (struct dragon_py_object *)self) < 0)
            return -1;
    } while (!dragon_deadline_passed(deadline_ns));
    return 0;
}

static PyObject *event_wait(PyObject *self, PyObject *const *args, Py_ssize_t n_args,
                            PyObject *kwnames)
{
    static const char *const names[] = {"timeout", NULL};
    PyObject *timeout = Py_None;
    int64_t deadline_ns = DRAGON_FOREVER;
    int r;

    if (dragon_py_arguments("wait", names, args, n_args, kwnames, &timeout) < 0 || !is_usable(self))
        return NULL;
    if (timeout != Py_None && dragon_py_deadline(timeout, &deadline_ns) < 0)
        return NULL;
    if (dragon_event_is_set(event_of(self)))
        Py_RETURN_TRUE;
    r = wait(self, deadline_ns);
    return r < 0 ? NULL : PyBool_FromLong(r);
}

static int event_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {NULL};

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, ":Event", names))
        return -1;
    if (dragon_py_object_create((struct dragon_py_object *)self, KIND, sizeof(struct dragon_event),
                                NULL, Py_TYPE(self)->tp_name) < 0)
        return -1;
    dragon_event_init(event_of(self));
    return 0;
}

static PyObject *event_attach(PyObject *self, PyObject *state)
{
    if (dragon_py_object_attach((struct dragon_py_object *)self, state, KIND,
                                sizeof(struct dragon_event), NULL, Py_TYPE(self)->tp_name) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef event_methods[] = {
    {"is_set", event_is_set, METH_NOARGS,
     PyDoc_STR("is_set($self, /)\n--\n\nTrue if the flag is up.")},
    {"set", event_set, METH_NOARGS,
     PyDoc_STR("set($self, /)\n--\n\nRaise the flag and wake all that wait.")},
    {"clear", event_clear, METH_NOARGS, PyDoc_STR("clear($self, /)\n--\n\nLower the flag.")},
    {"wait", (PyCFunction)(void (*)(void))event_wait, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("wait($self, /, timeout=None)\n--\n\nBlock until the flag is up. False if timeout "
               "(seconds) passed first.")},
    {"_attach", event_attach, METH_O,
     PyDoc_STR("_attach($self, state, /)\n--\n\nBe the object that _export() named.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot event_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Event()\n--\n\nA flag in the pool that can be waited for.")},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, event_init},
    {Py_tp_methods, event_methods},
    {0, NULL},
};

static PyType_Spec event_spec = {
    .name = "_dragon.Event",
    .basicsize = sizeof(struct dragon_py_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, /* garbage collection: inherited */
    .slots = event_slots,
};

int dragon_py_event_add(PyObject *module)
{
    struct dragon_py_state *state = dragon_py_state_of_module(module);

    state->event_type = dragon_py_add_type(module, &event_spec, state->object_type);
    return state->event_type ? 0 : -1;
}
