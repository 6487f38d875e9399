/*
 * _dragon.Pool and _dragon.Allocation: named pools and their blocks, for
 * dragon.managed_memory. Work in any Python, with or without a node.
 */
#include "module.h"

#include "memory/pool.h"

#include <errno.h>
#include <string.h>

struct pool {
    PyObject_HEAD
    struct dragon_pool *pool;
};

struct allocation {
    PyObject_HEAD
    PyObject *pool; /* struct pool; keeps the mapping */
    struct dragon_handle handle;
    void *address; /* NULL once freed */
    uint64_t size_bytes;
    Py_ssize_t n_views;
};

/* ---- Pool ---- */

static PyObject *wrap_pool(PyTypeObject *type, struct dragon_pool *pool)
{
    struct pool *self = PyObject_New(struct pool, type);

    if (!self) {
        dragon_pool_close(pool);
        return NULL;
    }
    self->pool = pool;
    return (PyObject *)self;
}

PyDoc_STRVAR(create_doc,
             "create(name, size, uid, /)\n--\n\n"
             "A new pool of size bytes in the POSIX shared-memory file name (\"/x\"), mode 0600.\n\n"
             "Raises:\n"
             "    FileExistsError, OSError: the file cannot be made.\n"
             "    PoolFull: the system has no memory for it.");

static PyObject *pool_create(PyTypeObject *type, PyObject *args)
{
    unsigned long long size_bytes, uid;
    struct dragon_pool *pool;
    const char *name;
    int r;

    if (!PyArg_ParseTuple(args, "sKK:create", &name, &size_bytes, &uid))
        return NULL;
    r = dragon_pool_create_named(name, size_bytes, uid, 0, &pool);
    if (r < 0)
        return dragon_py_raise(dragon_py_state_of(type), r, name);
    return wrap_pool(type, pool);
}

PyDoc_STRVAR(open_doc, "open(name, uid, /)\n--\n\n"
                       "Use the existing pool of that name and uid.\n\n"
                       "Raises:\n"
                       "    FileNotFoundError: there is none.\n"
                       "    StaleHandle: what is there is no pool, or another one.");

static PyObject *pool_open(PyTypeObject *type, PyObject *args)
{
    struct dragon_pool *pool;
    unsigned long long uid;
    const char *name;
    int r;

    if (!PyArg_ParseTuple(args, "sK:open", &name, &uid))
        return NULL;
    r = dragon_pool_open_named(name, &pool);
    if (r == 0 && dragon_pool_node(pool) != uid) {
        dragon_pool_close(pool);
        r = -EBADMSG;
    }
    if (r < 0)
        return dragon_py_raise(dragon_py_state_of(type), r, name);
    return wrap_pool(type, pool);
}

PyDoc_STRVAR(unlink_doc, "unlink(name, /)\n--\n\nRemove the file of a pool; who has it open keeps "
                         "it.");

static PyObject *pool_unlink(PyTypeObject *type, PyObject *args)
{
    const char *name;
    int r;

    if (!PyArg_ParseTuple(args, "s:unlink", &name))
        return NULL;
    r = dragon_pool_unlink(name);
    if (r < 0)
        return dragon_py_raise(dragon_py_state_of(type), r, name);
    Py_RETURN_NONE;
}

static PyObject *wrap_allocation(struct pool *self, const struct dragon_handle *handle)
{
    struct dragon_py_state *state = dragon_py_state_of(Py_TYPE(self));
    struct allocation *allocation;
    uint64_t size_bytes;
    void *address;
    int r;

    r = dragon_pool_resolve(self->pool, handle, &address, &size_bytes);
    if (r < 0)
        return dragon_py_raise(state, r, "MemoryAlloc");
    allocation = PyObject_New(struct allocation, state->allocation_type);
    if (!allocation)
        return NULL;
    allocation->pool = Py_NewRef(self);
    allocation->handle = *handle;
    allocation->address = address;
    allocation->size_bytes = size_bytes;
    allocation->n_views = 0;
    return (PyObject *)allocation;
}

PyDoc_STRVAR(alloc_doc, "alloc(size, /)\n--\n\nA block of size bytes. Raises PoolFull.");

static PyObject *pool_alloc(struct pool *self, PyObject *size)
{
    unsigned long long size_bytes = PyLong_AsUnsignedLongLong(size);
    struct dragon_handle handle;
    PyObject *allocation;
    int r;

    if (size_bytes == (unsigned long long)-1 && PyErr_Occurred())
        return NULL;
    r = dragon_pool_alloc(self->pool, size_bytes, DRAGON_HOLDER_SHARED, &handle);
    if (r == DRAGON_POOL_FULL)
        return dragon_py_raise_pool_full(dragon_py_state_of(Py_TYPE(self)), self->pool, size_bytes,
                                         "alloc");
    if (r < 0)
        return dragon_py_raise(dragon_py_state_of(Py_TYPE(self)), r, "alloc");
    allocation = wrap_allocation(self, &handle);
    if (!allocation)
        dragon_pool_free(self->pool, &handle);
    return allocation;
}

PyDoc_STRVAR(find_doc, "find(offset, generation, /)\n--\n\n"
                       "The block that another process named. Raises StaleHandle.");

static PyObject *pool_find(struct pool *self, PyObject *args)
{
    struct dragon_handle handle = {.node = dragon_pool_node(self->pool)};
    unsigned long long offset;
    unsigned int generation;

    if (!PyArg_ParseTuple(args, "KI:find", &offset, &generation))
        return NULL;
    handle.offset = offset;
    handle.generation = generation;
    return wrap_allocation(self, &handle);
}

PyDoc_STRVAR(statistics_doc, "statistics()\n--\n\n"
                             "(size, committed, free) in bytes, and the number of blocks.");

static PyObject *pool_statistics(struct pool *self, PyObject *Py_UNUSED(unused))
{
    struct dragon_pool_statistics s;

    dragon_pool_statistics(self->pool, &s);
    return Py_BuildValue("(KKKK)", (unsigned long long)s.size_bytes,
                         (unsigned long long)s.committed_bytes, (unsigned long long)s.free_bytes,
                         (unsigned long long)s.n_blocks);
}

static void pool_dealloc(struct pool *self)
{
    PyTypeObject *type = Py_TYPE(self);

    dragon_pool_close(self->pool);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyMethodDef pool_methods[] = {
    {"create", (PyCFunction)pool_create, METH_VARARGS | METH_CLASS, create_doc},
    {"open", (PyCFunction)pool_open, METH_VARARGS | METH_CLASS, open_doc},
    {"unlink", (PyCFunction)pool_unlink, METH_VARARGS | METH_CLASS, unlink_doc},
    {"alloc", (PyCFunction)pool_alloc, METH_O, alloc_doc},
    {"find", (PyCFunction)pool_find, METH_VARARGS, find_doc},
    {"statistics", (PyCFunction)pool_statistics, METH_NOARGS, statistics_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot pool_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("A pool that this process has open.")},
    {Py_tp_dealloc, pool_dealloc},
    {Py_tp_methods, pool_methods},
    {0, NULL},
};

static PyType_Spec pool_spec = {
    .name = "_dragon.Pool",
    .basicsize = sizeof(struct pool),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = pool_slots,
};

/* ---- Allocation ---- */

static int require_block(struct allocation *self)
{
    if (self->address)
        return 0;
    PyErr_SetString(dragon_py_state_of(Py_TYPE(self))->stale_handle,
                    "MemoryAlloc: the block was freed or detached");
    return -1;
}

static int allocation_get_buffer(struct allocation *self, Py_buffer *view, int flags)
{
    if (require_block(self) < 0 ||
        PyBuffer_FillInfo(view, (PyObject *)self, self->address, (Py_ssize_t)self->size_bytes, 0,
                          flags) < 0)
        return -1;
    self->n_views++;
    return 0;
}

static void allocation_release_buffer(struct allocation *self, Py_buffer *Py_UNUSED(view))
{
    self->n_views--;
}

PyDoc_STRVAR(free_doc, "free()\n--\n\n"
                       "Give the block back.\n\n"
                       "Raises:\n"
                       "    BufferError: views of it exist in this process.\n"
                       "    StaleHandle: it was freed before.");

static PyObject *allocation_free(struct allocation *self, PyObject *Py_UNUSED(unused))
{
    struct pool *pool = (struct pool *)self->pool;
    int r;

    if (require_block(self) < 0)
        return NULL;
    if (self->n_views > 0)
        return PyErr_Format(PyExc_BufferError, "MemoryAlloc: %zd views of the block exist; release "
                                               "them before free()",
                            self->n_views);
    r = dragon_pool_free(pool->pool, &self->handle);
    if (r < 0)
        return dragon_py_raise(dragon_py_state_of(Py_TYPE(self)), r, "free");
    self->address = NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(detach_doc, "detach()\n--\n\nForget the block without freeing it.");

static PyObject *allocation_detach(struct allocation *self, PyObject *Py_UNUSED(unused))
{
    if (require_block(self) < 0)
        return NULL;
    self->address = NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(place_doc, "place()\n--\n\n(offset, generation) of the block in its pool.");

static PyObject *allocation_place(struct allocation *self, PyObject *Py_UNUSED(unused))
{
    return Py_BuildValue("(KI)", (unsigned long long)self->handle.offset,
                         (unsigned int)self->handle.generation);
}

static Py_ssize_t allocation_length(struct allocation *self)
{
    return (Py_ssize_t)self->size_bytes;
}

static void allocation_dealloc(struct allocation *self)
{
    PyTypeObject *type = Py_TYPE(self);

    Py_DECREF(self->pool);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyMethodDef allocation_methods[] = {
    {"free", (PyCFunction)allocation_free, METH_NOARGS, free_doc},
    {"detach", (PyCFunction)allocation_detach, METH_NOARGS, detach_doc},
    {"place", (PyCFunction)allocation_place, METH_NOARGS, place_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot allocation_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("A block of a pool; its memory through the buffer protocol.")},
    {Py_tp_dealloc, allocation_dealloc},
    {Py_tp_methods, allocation_methods},
    {Py_sq_length, allocation_length},
    {Py_bf_getbuffer, allocation_get_buffer},
    {Py_bf_releasebuffer, allocation_release_buffer},
    {0, NULL},
};

static PyType_Spec allocation_spec = {
    .name = "_dragon.Allocation",
    .basicsize = sizeof(struct allocation),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = allocation_slots,
};

int dragon_py_pool_add(PyObject *module)
{
    struct dragon_py_state *state = dragon_py_state_of_module(module);

    state->pool_type = dragon_py_add_type(module, &pool_spec, NULL);
    state->allocation_type = dragon_py_add_type(module, &allocation_spec, NULL);
    return state->pool_type && state->allocation_type ? 0 : -1;
}
