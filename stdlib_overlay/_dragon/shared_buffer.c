#include "shared_buffer.h"

#include "object.h"

#include <structmember.h>

#define KIND DRAGON_KIND('B', 'U', 'F', 'F')

struct shared_buffer {
    struct dragon_py_object base;
    Py_ssize_t size;
    bool is_made; /* once and for all: views know the memory by its address */
};

bool dragon_py_shared_buffer_has(struct dragon_py_state *state, PyObject *memory, const void *at,
                                 Py_ssize_t size)
{
    struct shared_buffer *self = (struct shared_buffer *)memory;
    uintptr_t start, place = (uintptr_t)at;

    if (!PyObject_TypeCheck(memory, state->shared_buffer_type) || !self->base.object.state)
        return false;
    start = (uintptr_t)self->base.object.state;
    return place >= start && size <= self->size &&
           place - start <= (uintptr_t)self->size - (uintptr_t)size;
}

/* ---- lifetime ---- */

static int begin(struct shared_buffer *self, Py_ssize_t size)
{
    const char *what = Py_TYPE(self)->tp_name;

    if (size < 0) {
        PyErr_Format(PyExc_ValueError, "%s: a size of %zd bytes", what, size);
        return -1;
    }
    if (self->is_made) {
        PyErr_Format(PyExc_ValueError, "%s: has its memory already", what);
        return -1;
    }
    self->is_made = true;
    return 0;
}

static PyObject *end(struct shared_buffer *self, Py_ssize_t size, int r)
{
    if (r < 0) {
        self->is_made = false;
        return NULL;
    }
    self->size = size;
    Py_RETURN_NONE;
}

static PyObject *shared_buffer_create(struct shared_buffer *self, PyObject *number)
{
    Py_ssize_t size = PyNumber_AsSsize_t(number, PyExc_OverflowError);

    if ((size == -1 && PyErr_Occurred()) || begin(self, size) < 0)
        return NULL;
    return end(
        self, size,
        dragon_py_object_create(&self->base, KIND, (uint64_t)size, NULL, Py_TYPE(self)->tp_name));
}

static PyObject *shared_buffer_attach(struct shared_buffer *self, PyObject *args)
{
    PyObject *name;
    Py_ssize_t size;

    if (!PyArg_ParseTuple(args, "On:_attach", &name, &size) || begin(self, size) < 0)
        return NULL;
    return end(self, size,
               dragon_py_object_attach(&self->base, name, KIND, (uint64_t)size, NULL,
                                       Py_TYPE(self)->tp_name));
}

static int shared_buffer_get_buffer(struct shared_buffer *self, Py_buffer *view, int flags)
{
    view->obj = NULL;
    if (dragon_py_object_require(&self->base, Py_TYPE(self)->tp_name) < 0)
        return -1;
    return PyBuffer_FillInfo(view, (PyObject *)self, self->base.object.state, self->size, 0, flags);
}

/* ---- the type ---- */

static PyMethodDef shared_buffer_methods[] = {
    {"_create", (PyCFunction)shared_buffer_create, METH_O,
     PyDoc_STR("_create(size, /)\n--\n\nTake size bytes of the pool, zeroed. PoolFull.")},
    {"_attach", (PyCFunction)shared_buffer_attach, METH_VARARGS,
     PyDoc_STR("_attach(state, size, /)\n--\n\nBe the object that _export() named, of which size "
               "bytes are used.")},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef shared_buffer_members[] = {
    {"_size", T_PYSSIZET, offsetof(struct shared_buffer, size), READONLY, PyDoc_STR("In bytes.")},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot shared_buffer_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Memory in the pool, until its last user has ended.")},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_methods, shared_buffer_methods},
    {Py_tp_members, shared_buffer_members},
    {Py_bf_getbuffer, shared_buffer_get_buffer},
    {0, NULL},
};

static PyType_Spec shared_buffer_spec = {
    .name = "_dragon.SharedBuffer",
    .basicsize = sizeof(struct shared_buffer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, /* garbage collection: inherited */
    .slots = shared_buffer_slots,
};

int dragon_py_shared_buffer_add(PyObject *module)
{
    struct dragon_py_state *state = dragon_py_state_of_module(module);

    state->shared_buffer_type = dragon_py_add_type(module, &shared_buffer_spec, state->object_type);
    return state->shared_buffer_type ? 0 : -1;
}
