#include "pipe.h"

#include "channel_object.h"

#include "channel/fini.h"
#include "memory/pool.h"
#include "node/node.h"

static struct dragon_py_state *state_of(struct dragon_py_pipe *self)
{
    return dragon_py_state_of(Py_TYPE(self));
}

int dragon_py_pipe_open(struct dragon_py_pipe *self, int fd)
{
    int r;

    if (dragon_py_object_require(&self->base, "Pipe") < 0)
        return -1;
    r = dragon_pipe_open(&self->pipe, &self->base.object, fd);
    if (r < 0)
        dragon_py_raise(state_of(self), r, "Pipe");
    return r;
}

int dragon_py_pipe_holder(struct dragon_py_pipe *self, const char *what, uint32_t *holder_out)
{
    struct dragon_node *node = dragon_node_current();
    int r;

    if (!node || !self->base.object.state) {
        PyErr_Format(PyExc_RuntimeError, "%s: this process has left its node", what);
        return -1;
    }
    r = dragon_node_holder(node, holder_out);
    if (r < 0)
        dragon_py_raise(state_of(self), r, what);
    else
        self->pipe.channel.holder = *holder_out;
    return r;
}

static const struct dragon_py_channel_kind pipe_kind = {
    .name = "Pipe",
    .kind = DRAGON_PIPE_KIND,
    .state_bytes = sizeof(struct dragon_pipe_shared),
    .init = dragon_pipe_init,
};

static struct dragon_py_pipe *allocate(struct dragon_py_state *state)
{
    return (struct dragon_py_pipe *)state->pipe_type->tp_alloc(state->pipe_type, 0);
}

struct dragon_py_pipe *dragon_py_pipe_new(struct dragon_py_state *state,
                                          const struct dragon_channel_options *options)
{
    struct dragon_py_pipe *self = allocate(state);

    if (self && dragon_py_channel_object_create(&self->base, &pipe_kind, options) < 0)
        Py_CLEAR(self);
    return self;
}

struct dragon_py_pipe *dragon_py_pipe_view(const struct dragon_py_pipe *other)
{
    const struct dragon_object *object = &other->base.object;
    struct dragon_py_pipe *self = allocate(dragon_py_state_of(Py_TYPE(other)));

    if (self && dragon_py_object_attach_in(&self->base, object->pool, object->holder,
                                           &object->handle, pipe_kind.kind, pipe_kind.state_bytes,
                                           dragon_fini, pipe_kind.name) < 0)
        Py_CLEAR(self);
    return self;
}

PyDoc_STRVAR(create_doc, "_create($self, max_messages, max_bytes, /)\n--\n\n"
                         "Make a new pipe, in which so much may be on its way.");

static PyObject *pipe_create(struct dragon_py_pipe *self, PyObject *args)
{
    struct dragon_channel_options options;
    unsigned long long max_messages, max_bytes;

    if (!PyArg_ParseTuple(args, "KK:_create", &max_messages, &max_bytes))
        return NULL;
    options = (struct dragon_channel_options){max_messages, max_bytes};
    if (dragon_py_channel_object_create(&self->base, &pipe_kind, &options) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(attach_doc,
             "_attach($self, state, /)\n--\n\nBe a view of the pipe that _export() named.");

static PyObject *pipe_attach(struct dragon_py_pipe *self, PyObject *exported)
{
    if (dragon_py_channel_object_attach(&self->base, &pipe_kind, exported) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef pipe_methods[] = {
    {"_create", (PyCFunction)pipe_create, METH_VARARGS, create_doc},
    {"_attach", (PyCFunction)pipe_attach, METH_O, attach_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot pipe_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("One direction between two Connections.")},
    {Py_tp_dealloc, dragon_py_object_dealloc},
    {Py_tp_traverse, dragon_py_object_traverse},
    {Py_tp_methods, pipe_methods},
    {0, NULL},
};

static PyType_Spec pipe_spec = {
    .name = "_dragon.Pipe",
    .basicsize = sizeof(struct dragon_py_pipe),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = pipe_slots,
};

int dragon_py_pipe_add(PyObject *module)
{
    struct dragon_py_state *state = dragon_py_state_of_module(module);

    state->pipe_type = dragon_py_add_type(module, &pipe_spec, state->object_type);
    return state->pipe_type ? 0 : -1;
}
