#include "object.h"

#include "block.h"
#include "codec.h"
#include "pool.h"

#include "memory/pool.h"

#include <errno.h>
#include <string.h>
#include <structmember.h>

/* What _export gives: a flag (does the message carry a use?) and a handle. */
#define EXPORT_BYTES (1 + sizeof(struct dragon_handle))

/* States from this size on are zeroed without the GIL. */
#define LARGE_BYTES 65536

/*
 * All open objects of this process. Guarded by the GIL. A process made by
 * os.fork() gets copies of the Python objects and needs a use for each; they
 * are taken before the fork, while the parent's own uses hold the objects.
 */
static struct dragon_py_object *first_open;

static void enlist(struct dragon_py_object *self)
{
    self->previous = NULL;
    self->next = first_open;
    if (first_open)
        first_open->previous = self;
    first_open = self;
}

static void delist(struct dragon_py_object *self)
{
    if (self->previous)
        self->previous->next = self->next;
    else
        first_open = self->next;
    if (self->next)
        self->next->previous = self->previous;
}

int dragon_py_object_create(struct dragon_py_object *self, uint32_t kind, uint64_t state_bytes,
                            dragon_object_fini fini, const char *what)
{
    struct dragon_pool *pool = dragon_py_default_pool();

    return pool ? dragon_py_object_create_in(self, pool, kind, state_bytes, fini, what) : -1;
}

static int raise_no_room(struct dragon_py_object *self, struct dragon_pool *pool,
                         uint64_t state_bytes, int r, const char *what)
{
    struct dragon_py_state *state = dragon_py_state_of(Py_TYPE(self));

    if (r == DRAGON_POOL_FULL)
        dragon_py_raise_pool_full(state, pool, state_bytes, what);
    else if (r == -ENOMEM || r == -ENOSPC)
        dragon_py_raise_no_memory(state, pool, state_bytes, r, what);
    else
        dragon_py_raise(state, r, what);
    return -1;
}

int dragon_py_object_create_in(struct dragon_py_object *self, struct dragon_pool *pool,
                               uint32_t kind, uint64_t state_bytes, dragon_object_fini fini,
                               const char *what)
{
    struct dragon_object object;
    int r;

    if (state_bytes < LARGE_BYTES) {
        r = dragon_object_create(pool, kind, state_bytes, &object);
    } else {
        Py_BEGIN_ALLOW_THREADS
        r = dragon_object_create(pool, kind, state_bytes, &object);
        Py_END_ALLOW_THREADS
    }
    dragon_py_object_release(self); /* __init__ may be called twice */
    if (r != 0)
        return raise_no_room(self, pool, state_bytes, r, what);
    self->object = object;
    self->fini = fini;
    enlist(self);
    return 0;
}

int dragon_py_object_attach(struct dragon_py_object *self, PyObject *state, uint32_t kind,
                            uint64_t state_bytes, dragon_object_fini fini, const char *what)
{
    struct dragon_pool *pool = dragon_py_default_pool();
    struct dragon_handle handle;
    const char *bytes;

    if (!pool)
        return -1;
    if (!PyBytes_Check(state) || PyBytes_GET_SIZE(state) != EXPORT_BYTES) {
        PyErr_Format(PyExc_ValueError, "%s: the state to attach to is not %zu bytes", what,
                     EXPORT_BYTES);
        return -1;
    }
    bytes = PyBytes_AS_STRING(state);
    memcpy(&handle, bytes + 1, sizeof handle);
    return dragon_py_object_attach_in(self, pool, &handle, bytes[0], kind, state_bytes, fini, what);
}

int dragon_py_object_attach_in(struct dragon_py_object *self, struct dragon_pool *pool,
                               const struct dragon_handle *handle, bool adopts, uint32_t kind,
                               uint64_t state_bytes, dragon_object_fini fini, const char *what)
{
    int r;

    dragon_py_object_release(self);
    r = adopts ? dragon_object_adopt(pool, handle, kind, state_bytes, &self->object)
               : dragon_object_open(pool, handle, kind, state_bytes, &self->object);
    if (r != 0) {
        self->object.state = NULL;
        dragon_py_raise(dragon_py_state_of(Py_TYPE(self)), r, what);
        return -1;
    }
    self->fini = fini;
    enlist(self);
    return 0;
}

int dragon_py_object_require(struct dragon_py_object *self, const char *what)
{
    if (self->object.state)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s: not initialised (was __init__ called?)", what);
    return -1;
}

void dragon_py_object_release(struct dragon_py_object *self)
{
    if (!self->object.state)
        return;
    delist(self);
    dragon_object_close(&self->object, self->fini);
}

static PyObject *object_export(struct dragon_py_object *self, PyObject *in_message)
{
    char bytes[EXPORT_BYTES];
    int carries_use = PyObject_IsTrue(in_message);

    if (carries_use < 0 || dragon_py_object_require(self, Py_TYPE(self)->tp_name) < 0)
        return NULL;
    if (carries_use && dragon_py_note_export(&self->object, self->fini) < 0)
        return NULL;
    bytes[0] = (char)carries_use;
    memcpy(bytes + 1, &self->object.handle, sizeof self->object.handle);
    return PyBytes_FromStringAndSize(bytes, sizeof bytes);
}

static PyObject *object_is_same(struct dragon_py_object *self, PyObject *other)
{
    struct dragon_py_state *state = dragon_py_state_of(Py_TYPE(self));
    struct dragon_py_object *that = (struct dragon_py_object *)other;

    if (!state)
        return NULL;
    if (!PyObject_TypeCheck(other, state->object_type) || !self->object.state ||
        !that->object.state)
        Py_RETURN_FALSE;
    return PyBool_FromLong(dragon_handle_is_same(&self->object.handle, &that->object.handle));
}

/* Derived types that are Python classes are deallocated by subtype_dealloc,
 * which clears weak references and the dictionary and then comes here. */
void dragon_py_object_dealloc(PyObject *self)
{
    struct dragon_py_object *object = (struct dragon_py_object *)self;
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    if (object->weak_references)
        PyObject_ClearWeakRefs(self);
    dragon_py_object_release(object);
    type->tp_free(self);
    Py_DECREF(type);
}

int dragon_py_object_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static PyMethodDef object_methods[] = {
    {"_export", (PyCFunction)object_export, METH_O,
     PyDoc_STR("_export(in_message, /)\n--\n\nThe name of the shared object, as bytes for "
               "_attach in another process.\nin_message: the bytes carry a use of the object, "
               "which their receiver adopts.")},
    {"_is_same", (PyCFunction)object_is_same, METH_O,
     PyDoc_STR("_is_same(other, /)\n--\n\nTrue if both name the same shared object.")},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef object_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(struct dragon_py_object, weak_references), READONLY,
     NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot object_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Base of the types that are views of an object in a pool.")},
    {Py_tp_dealloc, dragon_py_object_dealloc},
    {Py_tp_traverse, dragon_py_object_traverse},
    {Py_tp_methods, object_methods},
    {Py_tp_members, object_members},
    {0, NULL},
};

static PyType_Spec object_spec = {
    .name = "_dragon.Object",
    .basicsize = sizeof(struct dragon_py_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = object_slots,
};

/* Before a fork: the uses that the copies in the child will hold. */
static PyObject *before_fork(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    for (struct dragon_py_object *o = first_open; o; o = o->next)
        dragon_object_keep(&o->object);
    dragon_py_block_before_fork();
    dragon_py_allocation_before_fork();
    Py_RETURN_NONE;
}

static PyMethodDef before_fork_def = {
    "_before_fork",
    before_fork,
    METH_NOARGS,
    PyDoc_STR("_before_fork()\n--\n\nRun by os.fork(): the child is a user of all open objects."),
};

void dragon_py_object_release_all(void)
{
    while (first_open)
        dragon_py_object_release(first_open);
}

static int register_before_fork(PyObject *module)
{
    PyObject *os = PyImport_ImportModule("posix");
    PyObject *function = PyCFunction_NewEx(&before_fork_def, module, NULL);
    PyObject *registrar = os ? PyObject_GetAttrString(os, "register_at_fork") : NULL;
    PyObject *arguments = PyTuple_New(0);
    PyObject *names = function ? Py_BuildValue("{sO}", "before", function) : NULL;
    PyObject *result = NULL;

    if (registrar && arguments && names)
        result = PyObject_Call(registrar, arguments, names);
    Py_XDECREF(names);
    Py_XDECREF(arguments);
    Py_XDECREF(registrar);
    Py_XDECREF(function);
    Py_XDECREF(os);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

int dragon_py_object_add(PyObject *module)
{
    struct dragon_py_state *state = dragon_py_state_of_module(module);

    state->object_type = dragon_py_add_type(module, &object_spec, NULL);
    if (!state->object_type)
        return -1;
    return register_before_fork(module);
}
