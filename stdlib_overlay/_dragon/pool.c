/*
 * _dragon.Pool and _dragon.Allocation: named pools and their blocks, for
 * dragon.managed_memory. Work in any Python, with or without a node.
 */
#include "pool.h"

#include "base/deadline.h"
#include "memory/pool.h"

#include <errno.h>
#include <string.h>

struct allocation {
    PyObject_HEAD
    PyObject *pool; /* struct dragon_py_pool; keeps the mapping */
    struct dragon_handle handle;
    void *address; /* NULL once freed */
    uint64_t size_bytes;
    Py_ssize_t n_views;
    bool is_freed_with_last_view;
};

/* ---- Pool ---- */

/* What this module keeps in the pool's header: written by the creator alone,
 * before anybody else knows of the pool. */
struct root {
    uint64_t max_blocks; /* 0: no limit */
};

static PyObject *wrap_pool(PyTypeObject *type, struct dragon_pool *pool)
{
    struct dragon_py_pool *self = PyObject_New(struct dragon_py_pool, type);

    if (!self) {
        dragon_pool_close(pool);
        return NULL;
    }
    self->pool = pool;
    return (PyObject *)self;
}

PyDoc_STRVAR(create_doc,
             "create(name, size, uid, min_block_size, max_blocks, /)\n--\n\n"
             "A new pool of size bytes in the POSIX shared-memory file name (\"/x\"), mode 0600.\n"
             "0 for the others: no minimum, no limit.\n\n"
             "Raises:\n"
             "    FileExistsError, OSError: the file cannot be made.\n"
             "    PoolFull: the system has no memory for it.");

static PyObject *pool_create(PyTypeObject *type, PyObject *args)
{
    unsigned long long size_bytes, uid, min_block_bytes, max_blocks;
    struct dragon_pool_options options;
    struct dragon_pool *pool;
    const char *name;
    int r;

    if (!PyArg_ParseTuple(args, "sKKKK:create", &name, &size_bytes, &uid, &min_block_bytes,
                          &max_blocks))
        return NULL;
    options = (struct dragon_pool_options){
        .size_bytes = size_bytes,
        .node = uid,
        .min_block_bytes = min_block_bytes,
        .max_blocks = max_blocks,
    };
    r = dragon_pool_make_named(name, &options, &pool);
    if (r < 0)
        return dragon_py_raise(dragon_py_state_of(type), r, name);
    ((struct root *)dragon_pool_root(pool))->max_blocks = max_blocks;
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

PyObject *dragon_py_allocation_new(struct dragon_py_pool *self, const struct dragon_handle *handle)
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
    allocation->is_freed_with_last_view = false;
    return (PyObject *)allocation;
}

static PyObject *allocated(struct dragon_py_pool *self, int r, uint64_t size_bytes,
                           const struct dragon_handle *handle)
{
    struct dragon_py_state *state = dragon_py_state_of(Py_TYPE(self));
    PyObject *allocation;

    if (r == DRAGON_POOL_FULL)
        return dragon_py_raise_pool_full(state, self->pool, size_bytes, "alloc");
    if (r < 0)
        return dragon_py_raise(state, r, "alloc");
    allocation = dragon_py_allocation_new(self, handle);
    if (!allocation)
        dragon_pool_free(self->pool, handle);
    return allocation;
}

PyDoc_STRVAR(alloc_doc, "alloc(size, /)\n--\n\nA block of size bytes. Raises PoolFull.");

static PyObject *pool_alloc(struct dragon_py_pool *self, PyObject *size)
{
    unsigned long long size_bytes = PyLong_AsUnsignedLongLong(size);
    struct dragon_handle handle;
    int r;

    if (size_bytes == (unsigned long long)-1 && PyErr_Occurred())
        return NULL;
    r = dragon_pool_alloc(self->pool, size_bytes, DRAGON_HOLDER_SHARED, &handle);
    return allocated(self, r, size_bytes, &handle);
}

PyDoc_STRVAR(alloc_wait_doc,
             "alloc_wait(size, timeout, /)\n--\n\n"
             "A block of size bytes; waits for room. None: there was none in time.\n\n"
             "Raises:\n"
             "    PoolFull: not even an empty pool has room for it.");

static PyObject *pool_alloc_wait(struct dragon_py_pool *self, PyObject *args)
{
    struct dragon_handle handle;
    int64_t deadline_ns, look_ns;
    PyObject *size, *timeout;
    uint64_t size_bytes;
    int r;

    if (!PyArg_ParseTuple(args, "OO:alloc_wait", &size, &timeout) ||
        dragon_py_deadline(timeout, &deadline_ns) < 0)
        return NULL;
    size_bytes = PyLong_AsUnsignedLongLong(size);
    if (size_bytes == UINT64_MAX && PyErr_Occurred())
        return NULL;
    do {
        /* A signal that arrives just before a sleep interrupts nothing. */
        look_ns = dragon_deadline_earlier(deadline_ns, dragon_deadline_after_ns(DRAGON_NS_PER_S));
        Py_BEGIN_ALLOW_THREADS
        r = dragon_pool_alloc_wait(self->pool, size_bytes, DRAGON_HOLDER_SHARED, look_ns, &handle);
        Py_END_ALLOW_THREADS
        if ((r == DRAGON_POOL_TIMEOUT || r == DRAGON_POOL_INTERRUPTED) && PyErr_CheckSignals() < 0)
            return NULL;
    } while (r == DRAGON_POOL_INTERRUPTED ||
             (r == DRAGON_POOL_TIMEOUT && !dragon_deadline_passed(deadline_ns)));
    if (r == DRAGON_POOL_TIMEOUT)
        Py_RETURN_NONE;
    return allocated(self, r, size_bytes, &handle);
}

PyDoc_STRVAR(find_doc, "find(offset, generation, /)\n--\n\n"
                       "The block that another process named. Raises StaleHandle.");

static PyObject *pool_find(struct dragon_py_pool *self, PyObject *args)
{
    struct dragon_handle handle = {.node = dragon_pool_node(self->pool)};
    unsigned long long offset;
    unsigned int generation;

    if (!PyArg_ParseTuple(args, "KI:find", &offset, &generation))
        return NULL;
    handle.offset = offset;
    handle.generation = generation;
    return dragon_py_allocation_new(self, &handle);
}

PyDoc_STRVAR(statistics_doc, "statistics()\n--\n\n"
                             "(size, committed, free) in bytes, and the number of blocks.");

static PyObject *pool_statistics(struct dragon_py_pool *self, PyObject *Py_UNUSED(unused))
{
    struct dragon_pool_statistics s;

    dragon_pool_statistics(self->pool, &s);
    return Py_BuildValue("(KKKK)", (unsigned long long)s.size_bytes,
                         (unsigned long long)s.committed_bytes, (unsigned long long)s.free_bytes,
                         (unsigned long long)s.n_blocks);
}

PyDoc_STRVAR(max_blocks_doc, "max_blocks()\n--\n\n"
                             "How many blocks the pool's creator allows; 0: any number.");

static PyObject *pool_max_blocks(struct dragon_py_pool *self, PyObject *Py_UNUSED(unused))
{
    const struct root *root = dragon_pool_root(self->pool);

    return PyLong_FromUnsignedLongLong(root->max_blocks);
}

static void pool_dealloc(struct dragon_py_pool *self)
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
    {"alloc_wait", (PyCFunction)pool_alloc_wait, METH_VARARGS, alloc_wait_doc},
    {"find", (PyCFunction)pool_find, METH_VARARGS, find_doc},
    {"statistics", (PyCFunction)pool_statistics, METH_NOARGS, statistics_doc},
    {"max_blocks", (PyCFunction)pool_max_blocks, METH_NOARGS, max_blocks_doc},
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
    .basicsize = sizeof(struct dragon_py_pool),
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
    if (require_block(self) < 0 || PyBuffer_FillInfo(view, (PyObject *)self, self->address,
                                                     (Py_ssize_t)self->size_bytes, 0, flags) < 0)
        return -1;
    self->n_views++;
    return 0;
}

static void allocation_release_buffer(struct allocation *self, Py_buffer *Py_UNUSED(view))
{
    struct dragon_py_pool *pool = (struct dragon_py_pool *)self->pool;

    self->n_views--;
    if (self->n_views == 0 && self->is_freed_with_last_view) {
        self->is_freed_with_last_view = false;
        (void)dragon_pool_free(pool->pool, &self->handle); /* stale: another process was faster */
    }
}

PyDoc_STRVAR(free_doc, "free()\n--\n\n"
                       "Give the block back; while views of it exist in this process, with the\n"
                       "last of them.\n\n"
                       "Raises:\n"
                       "    StaleHandle: it was freed before.");

static PyObject *allocation_free(struct allocation *self, PyObject *Py_UNUSED(unused))
{
    struct dragon_py_pool *pool = (struct dragon_py_pool *)self->pool;
    uint64_t size_bytes;
    void *address;
    int r;

    if (require_block(self) < 0)
        return NULL;
    if (self->n_views > 0)
        r = dragon_pool_resolve(pool->pool, &self->handle, &address, &size_bytes);
    else
        r = dragon_pool_free(pool->pool, &self->handle);
    if (r < 0)
        return dragon_py_raise(dragon_py_state_of(Py_TYPE(self)), r, "free");
    self->is_freed_with_last_view = self->n_views > 0;
    self->address = NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(is_gone_doc, "is_gone()\n--\n\nTrue once it was freed or detached here.");

static PyObject *allocation_is_gone(struct allocation *self, PyObject *Py_UNUSED(unused))
{
    return PyBool_FromLong(!self->address);
}

PyDoc_STRVAR(n_views_doc, "n_views()\n--\n\nHow many views of it exist in this process.");

static PyObject *allocation_n_views(struct allocation *self, PyObject *Py_UNUSED(unused))
{
    return PyLong_FromSsize_t(self->n_views);
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
    {"is_gone", (PyCFunction)allocation_is_gone, METH_NOARGS, is_gone_doc},
    {"n_views", (PyCFunction)allocation_n_views, METH_NOARGS, n_views_doc},
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
