/*
 * _dragon.ChannelSet: wait for any of several channels, which it keeps open.
 */
#include "channel.h"
#include "wait.h"

#include "channel/channel_set.h"

struct channel_set {
    PyObject_HEAD
    struct dragon_channel_set *set;
    PyObject *members; /* a tuple of struct dragon_py_channel */
};

PyDoc_STRVAR(create_doc, "create(channels, events, /)\n--\n\n"
                         "A set of a tuple of Channels, for events as Channel.watch has them.");

static struct dragon_channel_set *create_set(PyObject *members, PyTypeObject *channel_type,
                                             unsigned int events)
{
    Py_ssize_t n = PyTuple_GET_SIZE(members);
    struct dragon_channel **channels = PyMem_New(struct dragon_channel *, (size_t)n);
    struct dragon_channel_set *set = NULL;

    if (!channels) {
        PyErr_NoMemory();
        return NULL;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *member = PyTuple_GET_ITEM(members, i);

        if (!PyObject_TypeCheck(member, channel_type)) {
            PyErr_SetString(PyExc_TypeError, "not a Channel");
            goto free_channels;
        }
        if (dragon_py_channel_require((struct dragon_py_channel *)member) < 0)
            goto free_channels;
        channels[i] = &((struct dragon_py_channel *)member)->channel;
    }
    if (dragon_channel_set_create(channels, (size_t)n, events, &set) < 0)
        PyErr_NoMemory();

free_channels:
    PyMem_Free(channels);
    return set;
}

static PyObject *channel_set_create(PyTypeObject *type, PyObject *args)
{
    struct dragon_py_state *state = dragon_py_state_of(type);
    struct dragon_channel_set *set;
    struct channel_set *self;
    unsigned int events;
    PyObject *members;

    if (!PyArg_ParseTuple(args, "O!I:create", &PyTuple_Type, &members, &events))
        return NULL;
    set = create_set(members, state->channel_type, events);
    if (!set)
        return NULL;
    self = PyObject_New(struct channel_set, type);
    if (!self) {
        dragon_channel_set_close(set);
        return NULL;
    }
    self->set = set;
    self->members = Py_NewRef(members);
    return (PyObject *)self;
}

PyDoc_STRVAR(wait_doc, "wait(timeout, /)\n--\n\n"
                       "Wait until a member is as asked: (its index, the events that hold); None:\n"
                       "none was in time.\n\n"
                       "Raises:\n"
                       "    Destroyed: a member was destroyed.");

static PyObject *channel_set_wait(struct channel_set *self, PyObject *timeout)
{
    struct dragon_py_state *state = dragon_py_state_of(Py_TYPE(self));
    int64_t deadline_ns;
    unsigned int events;
    size_t index;
    int r;

    if (dragon_py_deadline(timeout, &deadline_ns) < 0)
        return NULL;
    do {
        Py_BEGIN_ALLOW_THREADS
        r = dragon_channel_set_wait(self->set, dragon_py_next_look(deadline_ns), &index, &events);
        Py_END_ALLOW_THREADS
        if (r == 0)
            return Py_BuildValue("(nI)", (Py_ssize_t)index, events);
        if (r == DRAGON_CHANNEL_SET_DESTROYED) {
            PyErr_SetString(state->destroyed, "a channel of the set was destroyed");
            return NULL;
        }
        if (r < 0)
            return dragon_py_raise(state, r, "ChannelSet");
        if (PyErr_CheckSignals() < 0)
            return NULL;
    } while (r == DRAGON_CHANNEL_SET_INTERRUPTED || !dragon_deadline_passed(deadline_ns));
    Py_RETURN_NONE;
}

static void channel_set_dealloc(struct channel_set *self)
{
    PyTypeObject *type = Py_TYPE(self);

    dragon_channel_set_close(self->set);
    Py_DECREF(self->members);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyMethodDef channel_set_methods[] = {
    {"create", (PyCFunction)channel_set_create, METH_VARARGS | METH_CLASS, create_doc},
    {"wait", (PyCFunction)channel_set_wait, METH_O, wait_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot channel_set_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Channels that are waited for together.")},
    {Py_tp_dealloc, channel_set_dealloc},
    {Py_tp_methods, channel_set_methods},
    {0, NULL},
};

static PyType_Spec channel_set_spec = {
    .name = "_dragon.ChannelSet",
    .basicsize = sizeof(struct channel_set),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = channel_set_slots,
};

int dragon_py_channel_set_add(PyObject *module)
{
    PyTypeObject *type = dragon_py_add_type(module, &channel_set_spec, NULL);

    Py_XDECREF(type); /* the module has it */
    return type ? 0 : -1;
}
