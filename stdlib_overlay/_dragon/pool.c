/*
 * _dragon.Pool and _dragon.Allocation: named pools, the node's default pool, and
 * their blocks, for dragon.managed_memory. All but the default pool works in any
 * Python, with or without a node.
 */
#include "pool.h"

#include "base/deadline.h"
#include "memory/pool.h"

#include <errno.h>
#include <stddef.h>
#include <structmember.h>

struct allocation {
    PyObject_HEAD
    PyObject *pool; /* struct dragon_py_pool; keeps the mapping */
    struct dragon_handle handle;
    void *address; /* NULL once freed */
    uint64_t size_bytes;
    Py_ssize_t n_views;
    bool is_freed_with_last_view;
    bool is_held; /* by this process; then it is in the list */
    struct allocation *next;
    struct allocation *previous;
};

/* In the place of a label: held by this process. */
#define HELD DRAGON_HOLDER_N_LABELS

/* The blocks that this process holds. Guarded by the GIL. */
static struct allocation *first_held;

/* ---- Pool ---- */

/* pool: the new object's, also on failure; unless it is the node's. */
static PyObject *wrap_pool(PyTypeObject *type, struct dragon_pool *pool, bool is_nodes)
{
    struct dragon_py_pool *self = PyObject_New(struct dragon_py_pool, type);

    if (!self) {
        if (!is_nodes)
            dragon_pool_close(pool);
        return NULL;
    }
    self->pool = pool;
    self->is_nodes = is_nodes;
    self->slot = is_nodes ? dragon_node_slot(dragon_node_current()) : NULL;
    dragon_member_init(&self->member, pool);
    self->weak_references = NULL;
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
        .is_counted = true,
    };
    r = dragon_pool_make_named(name, &options, &pool);
    if (r < 0)
        return dragon_py_raise(dragon_py_state_of(type), r, name);
    r = dragon_members_init(pool);
    if (r < 0) {
        dragon_pool_unlink(name);
        dragon_pool_close(pool);
        return dragon_py_raise(dragon_py_state_of(type), r, name);
    }
    return wrap_pool(type, pool, false);
}

PyDoc_STRVAR(open_doc, "open(name, /)\n--\n\n"
                       "Use the existing pool of that name.\n\n"
                       "Raises:\n"
                       "    FileNotFoundError: there is none.\n"
                       "    StaleHandle: what is there is no pool.");

static PyObject *pool_open(PyTypeObject *type, PyObject *args)
{
    struct dragon_pool *pool;
    const char *name;
    int r;

    if (!PyArg_ParseTuple(args, "s:open", &name))
        return NULL;
    r = dragon_pool_open_named(name, &pool);
    if (r < 0)
        return dragon_py_raise(dragon_py_state_of(type), r, name);
    return wrap_pool(type, pool, false);
}

PyDoc_STRVAR(default_doc, "default()\n--\n\n"
                          "The default pool of this process's node.\n\n"
                          "Raises:\n"
                          "    RuntimeError: the process has no node.");

static PyObject *pool_default(PyTypeObject *type, PyObject *Py_UNUSED(unused))
{
    struct dragon_pool *pool = dragon_py_default_pool();

    return pool ? wrap_pool(type, pool, true) : NULL;
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

/* ---- who holds blocks ---- */

uint32_t dragon_py_node_holder(void)
{
    struct dragon_node *node = dragon_node_current();
    uint32_t holder;

    return node && dragon_node_holder(node, &holder) == 0 ? holder : 0;
}

bool dragon_py_pool_take_back(struct dragon_py_pool *self)
{
    uint64_t n_freed;

    if (self->is_nodes)
        return false;
    Py_BEGIN_ALLOW_THREADS
    n_freed = dragon_members_sweep(self->pool);
    Py_END_ALLOW_THREADS
    return n_freed != 0;
}

static bool is_process(uint32_t holder)
{
    return holder >= DRAGON_HOLDER_FIRST_SLOT;
}

static void enlist(struct allocation *self)
{
    self->is_held = true;
    self->previous = NULL;
    self->next = first_held;
    if (first_held)
        first_held->previous = self;
    first_held = self;
}

/* This object has nothing to do with the block's holder any more. */
static void delist(struct allocation *self)
{
    if (!self->is_held)
        return;
    self->is_held = false;
    if (self->previous)
        self->previous->next = self->next;
    else
        first_held = self->next;
    if (self->next)
        self->next->previous = self->previous;
}

/* -EBADMSG: another process has freed it. */
static int share(struct allocation *self)
{
    struct dragon_py_pool *pool = (struct dragon_py_pool *)self->pool;
    uint32_t before;

    delist(self);
    return dragon_pool_hold(pool->pool, &self->handle, DRAGON_HOLDER_SHARED, &before);
}

void dragon_py_allocation_before_fork(void)
{
    while (first_held)
        (void)share(first_held); /* one that is gone cannot be used by the copy either */
}

/* A block that others can name is shared, whoever holds it: what was found by its name
 * is to stay. The labels and the other roles stay. */
static int share_found(struct dragon_pool *pool, const struct dragon_handle *handle)
{
    uint64_t at = handle->offset, size_bytes;
    struct dragon_handle found;
    uint32_t holder;

    if (!dragon_pool_next(pool, &at, &found, &size_bytes, &holder) ||
        !dragon_handle_is_same(&found, handle))
        return -EBADMSG;
    return is_process(holder) ? dragon_pool_hold(pool, handle, DRAGON_HOLDER_SHARED, &holder) : 0;
}

PyObject *dragon_py_allocation_new(struct dragon_py_pool *self, const struct dragon_handle *handle,
                                   uint32_t holder)
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
    allocation->is_held = false;
    if (is_process(holder))
        enlist(allocation);
    return (PyObject *)allocation;
}

/* The holder that a label stands for. -1 with an exception. */
static int holder_of(struct dragon_py_pool *self, unsigned int label, uint32_t *holder_out)
{
    if (label == HELD) {
        *holder_out = dragon_py_pool_holder(self, DRAGON_PY_MESSAGE_ROLE);
        return 0;
    }
    if (label >= DRAGON_HOLDER_N_LABELS) {
        PyErr_Format(PyExc_ValueError, "there is no label %u", label);
        return -1;
    }
    *holder_out = label == 0 ? DRAGON_HOLDER_SHARED : DRAGON_HOLDER_LABELLED + label;
    return 0;
}

static int parse_size(PyObject *size, uint64_t *size_bytes_out)
{
    *size_bytes_out = PyLong_AsUnsignedLongLong(size);
    return *size_bytes_out == UINT64_MAX && PyErr_Occurred() ? -1 : 0;
}

static bool has_all_blocks(struct dragon_pool *pool)
{
    struct dragon_pool_statistics s;

    dragon_pool_statistics(pool, &s);
    return s.max_blocks != 0 && s.n_blocks >= s.max_blocks;
}

static PyObject *allocated(struct dragon_py_pool *self, int r, uint64_t size_bytes,
                           const struct dragon_handle *handle, uint32_t holder)
{
    struct dragon_py_state *state = dragon_py_state_of(Py_TYPE(self));
    PyObject *allocation;

    if (r == DRAGON_POOL_FULL)
        return dragon_py_raise_pool_full(state, self->pool, size_bytes, "alloc");
    if (r == -ENOMEM || r == -ENOSPC)
        return dragon_py_raise_no_memory(state, self->pool, size_bytes, r, "alloc");
    if (r < 0)
        return dragon_py_raise(state, r, "alloc");
    allocation = dragon_py_allocation_new(self, handle, holder);
    if (!allocation)
        dragon_pool_free(self->pool, handle);
    return allocation;
}

/* As dragon_pool_alloc; the pool is not full before the dead have given back. */
static int alloc_now(struct dragon_py_pool *self, uint64_t size_bytes, uint32_t holder,
                     struct dragon_handle *handle_out)
{
    int r = dragon_pool_alloc(self->pool, size_bytes, holder, handle_out);

    if (r != 0 && dragon_py_pool_take_back(self))
        r = dragon_pool_alloc(self->pool, size_bytes, holder, handle_out);
    return r;
}

PyDoc_STRVAR(alloc_doc,
             "alloc(size, label=0, /)\n--\n\n"
             "A block of size bytes; label, 0 to 3, is for whoever walks over the blocks. With\n"
             "ALLOC_HELD instead it is freed if this process ends before it gives it away.\n\n"
             "Raises:\n"
             "    PoolFull: there is no room, or all blocks that the pool may have exist.");

static PyObject *pool_alloc(struct dragon_py_pool *self, PyObject *args)
{
    struct dragon_handle handle;
    unsigned int label = 0;
    uint64_t size_bytes;
    uint32_t holder;
    PyObject *size;
    int r;

    if (!PyArg_ParseTuple(args, "O|I:alloc", &size, &label) || parse_size(size, &size_bytes) < 0 ||
        holder_of(self, label, &holder) < 0)
        return NULL;
    r = alloc_now(self, size_bytes, holder, &handle);
    return allocated(self, r, size_bytes, &handle, holder);
}

PyDoc_STRVAR(alloc_wait_doc,
             "alloc_wait(size, timeout, label=0, /)\n--\n\n"
             "A block of size bytes; waits for room. None: there was none in time.\n\n"
             "Raises:\n"
             "    PoolFull: not even an empty pool has room for it, or all blocks that the pool\n"
             "        may have exist.");

static PyObject *pool_alloc_wait(struct dragon_py_pool *self, PyObject *args)
{
    int64_t deadline_ns, look_ns;
    struct dragon_handle handle;
    PyObject *size, *timeout;
    unsigned int label = 0;
    uint64_t size_bytes;
    uint32_t holder;
    int r;

    if (!PyArg_ParseTuple(args, "OO|I:alloc_wait", &size, &timeout, &label) ||
        dragon_py_deadline(timeout, &deadline_ns) < 0 || parse_size(size, &size_bytes) < 0 ||
        holder_of(self, label, &holder) < 0)
        return NULL;
    r = alloc_now(self, size_bytes, holder, &handle);
    while (r == DRAGON_POOL_FULL && !has_all_blocks(self->pool)) {
        /* A signal that arrives just before a sleep interrupts nothing. */
        look_ns = dragon_deadline_earlier(deadline_ns, dragon_deadline_after_ns(DRAGON_NS_PER_S));
        Py_BEGIN_ALLOW_THREADS
        r = dragon_pool_alloc_wait(self->pool, size_bytes, holder, look_ns, &handle);
        Py_END_ALLOW_THREADS
        if (r != DRAGON_POOL_TIMEOUT && r != DRAGON_POOL_INTERRUPTED)
            break;
        if (PyErr_CheckSignals() < 0)
            return NULL;
        if (!dragon_py_pool_take_back(self) && r == DRAGON_POOL_TIMEOUT &&
            dragon_deadline_passed(deadline_ns))
            Py_RETURN_NONE;
        r = DRAGON_POOL_FULL;
    }
    return allocated(self, r, size_bytes, &handle, holder);
}

PyDoc_STRVAR(find_doc, "find(offset, generation, /)\n--\n\n"
                       "The block that another process named, which from now on stays until\n"
                       "somebody frees it. Raises StaleHandle.");

static PyObject *pool_find(struct dragon_py_pool *self, PyObject *args)
{
    struct dragon_handle handle;
    unsigned long long offset;
    unsigned int generation;
    int r;

    if (!PyArg_ParseTuple(args, "KI:find", &offset, &generation))
        return NULL;
    handle = dragon_pool_handle(self->pool, offset, generation);
    r = share_found(self->pool, &handle);
    if (r < 0)
        return dragon_py_raise(dragon_py_state_of(Py_TYPE(self)), r, "MemoryAlloc");
    return dragon_py_allocation_new(self, &handle, DRAGON_HOLDER_SHARED);
}

PyDoc_STRVAR(has_doc, "has(offset, generation, /)\n--\n\nTrue if there is such a block.");

static PyObject *pool_has(struct dragon_py_pool *self, PyObject *args)
{
    struct dragon_handle handle;
    unsigned long long offset;
    unsigned int generation;
    uint64_t size_bytes;
    void *address;

    if (!PyArg_ParseTuple(args, "KI:has", &offset, &generation))
        return NULL;
    handle = dragon_pool_handle(self->pool, offset, generation);
    return PyBool_FromLong(dragon_pool_resolve(self->pool, &handle, &address, &size_bytes) == 0);
}

PyObject *dragon_py_pool_statistics(struct dragon_pool *pool)
{
    struct dragon_pool_statistics s;

    Py_BEGIN_ALLOW_THREADS /* it looks at each block */
    dragon_pool_statistics(pool, &s);
    Py_END_ALLOW_THREADS
    return Py_BuildValue(
        "{sK sK sK sK sK sK sK}", "size_bytes", (unsigned long long)s.size_bytes, "committed_bytes",
        (unsigned long long)s.committed_bytes, "free_bytes", (unsigned long long)s.free_bytes,
        "n_blocks", (unsigned long long)s.n_blocks, "most_blocks",
        (unsigned long long)s.most_blocks, "max_blocks", (unsigned long long)s.max_blocks,
        "n_smallest", (unsigned long long)s.n_smallest);
}

PyDoc_STRVAR(statistics_doc,
             "statistics()\n--\n\n"
             "{'size_bytes', 'committed_bytes', 'free_bytes', 'n_blocks', 'most_blocks',\n"
             "'max_blocks', 'n_smallest'}; 0 for most and max: not counted, any number.");

static PyObject *pool_statistics(struct dragon_py_pool *self, PyObject *Py_UNUSED(unused))
{
    dragon_py_pool_take_back(self);
    return dragon_py_pool_statistics(self->pool);
}

/* What a block is to those who list blocks: the label that it was allocated with,
 * or what its holder says. A process holds what it sends or has received. */
static uint32_t label_of(uint32_t holder)
{
    if (is_process(holder))
        return DRAGON_PY_LABEL_MESSAGE;
    if (holder >= DRAGON_HOLDER_LABELLED &&
        holder < DRAGON_HOLDER_LABELLED + DRAGON_HOLDER_N_LABELS)
        return holder - DRAGON_HOLDER_LABELLED;
    switch (holder) {
    case DRAGON_HOLDER_OBJECT:
    case DRAGON_HOLDER_PART:
        return DRAGON_PY_LABEL_OBJECT;
    case DRAGON_HOLDER_CHANNEL:
        return DRAGON_PY_LABEL_MESSAGE;
    case DRAGON_HOLDER_RUNTIME:
        return DRAGON_PY_LABEL_RUNTIME;
    default:
        return DRAGON_PY_LABEL_DATA;
    }
}

PyDoc_STRVAR(blocks_doc, "blocks()\n--\n\n"
                         "All blocks, as they are met: a list of (offset, generation, label).");

static PyObject *pool_blocks(struct dragon_py_pool *self, PyObject *Py_UNUSED(unused))
{
    PyObject *list = PyList_New(0), *block;
    struct dragon_handle handle;
    uint64_t offset = 0, size_bytes;
    uint32_t holder;
    int r;

    if (!list)
        return NULL;
    dragon_py_pool_take_back(self);
    while (dragon_pool_next(self->pool, &offset, &handle, &size_bytes, &holder)) {
        block = Py_BuildValue("(KII)", (unsigned long long)handle.offset,
                              (unsigned int)handle.generation, (unsigned int)label_of(holder));
        r = block ? PyList_Append(list, block) : -1;
        Py_XDECREF(block);
        if (r < 0) {
            Py_DECREF(list);
            return NULL;
        }
    }
    return list;
}

/* A callback of dragon_pool_free_blocks; context: a dictionary. An exception that
 * is set stays set. */
static void add_free_blocks(void *context, uint64_t size_bytes, uint64_t n)
{
    PyObject *size, *count, *before;

    if (PyErr_Occurred())
        return;
    size = PyLong_FromUnsignedLongLong(size_bytes);
    before = size ? PyDict_GetItemWithError(context, size) : NULL;
    if (before)
        n += PyLong_AsUnsignedLongLong(before);
    count = PyErr_Occurred() ? NULL : PyLong_FromUnsignedLongLong(n);
    if (count)
        PyDict_SetItem(context, size, count);
    Py_XDECREF(count);
    Py_XDECREF(size);
}

PyDoc_STRVAR(free_blocks_doc, "free_blocks()\n--\n\n"
                              "What could be allocated now, all of it together, in as large\n"
                              "pieces as there are: {size: number}.");

static PyObject *pool_free_blocks(struct dragon_py_pool *self, PyObject *Py_UNUSED(unused))
{
    PyObject *sizes = PyDict_New();

    dragon_py_pool_take_back(self);
    if (sizes)
        dragon_pool_free_blocks(self->pool, add_free_blocks, sizes);
    if (PyErr_Occurred())
        Py_CLEAR(sizes);
    return sizes;
}

PyDoc_STRVAR(n_block_sizes_doc, "n_block_sizes()\n--\n\nHow many sizes blocks can have.");

static PyObject *pool_n_block_sizes(struct dragon_py_pool *self, PyObject *Py_UNUSED(unused))
{
    return PyLong_FromUnsignedLongLong(dragon_pool_n_block_sizes(self->pool));
}

PyDoc_STRVAR(uid_doc, "uid()\n--\n\nThe number that the pool was made with.");

static PyObject *pool_uid(struct dragon_py_pool *self, PyObject *Py_UNUSED(unused))
{
    return PyLong_FromUnsignedLongLong(dragon_pool_node(self->pool));
}

PyDoc_STRVAR(has_name_doc, "has_name(name, /)\n--\n\nTrue if the file of that name is this "
                           "pool's.");

static PyObject *pool_has_name(struct dragon_py_pool *self, PyObject *args)
{
    const char *name;

    if (!PyArg_ParseTuple(args, "s:has_name", &name))
        return NULL;
    return PyBool_FromLong(dragon_pool_has_name(self->pool, name));
}

static void pool_dealloc(struct dragon_py_pool *self)
{
    PyTypeObject *type = Py_TYPE(self);

    if (self->weak_references)
        PyObject_ClearWeakRefs((PyObject *)self);
    dragon_member_leave(&self->member);
    if (!self->is_nodes)
        dragon_pool_close(self->pool);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyMemberDef pool_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(struct dragon_py_pool, weak_references), READONLY,
     NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef pool_methods[] = {
    {"create", (PyCFunction)pool_create, METH_VARARGS | METH_CLASS, create_doc},
    {"open", (PyCFunction)pool_open, METH_VARARGS | METH_CLASS, open_doc},
    {"default", (PyCFunction)pool_default, METH_NOARGS | METH_CLASS, default_doc},
    {"unlink", (PyCFunction)pool_unlink, METH_VARARGS | METH_CLASS, unlink_doc},
    {"alloc", (PyCFunction)pool_alloc, METH_VARARGS, alloc_doc},
    {"alloc_wait", (PyCFunction)pool_alloc_wait, METH_VARARGS, alloc_wait_doc},
    {"find", (PyCFunction)pool_find, METH_VARARGS, find_doc},
    {"has", (PyCFunction)pool_has, METH_VARARGS, has_doc},
    {"statistics", (PyCFunction)pool_statistics, METH_NOARGS, statistics_doc},
    {"blocks", (PyCFunction)pool_blocks, METH_NOARGS, blocks_doc},
    {"free_blocks", (PyCFunction)pool_free_blocks, METH_NOARGS, free_blocks_doc},
    {"n_block_sizes", (PyCFunction)pool_n_block_sizes, METH_NOARGS, n_block_sizes_doc},
    {"uid", (PyCFunction)pool_uid, METH_NOARGS, uid_doc},
    {"has_name", (PyCFunction)pool_has_name, METH_VARARGS, has_name_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot pool_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("A pool that this process has open.")},
    {Py_tp_dealloc, pool_dealloc},
    {Py_tp_methods, pool_methods},
    {Py_tp_members, pool_members},
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
        delist(self);
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
    if (!self->is_freed_with_last_view)
        delist(self);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(share_doc, "share()\n--\n\n"
                        "Let the block stay when this process ends: others are to learn of it.");

static PyObject *allocation_share(struct allocation *self, PyObject *Py_UNUSED(unused))
{
    if (self->is_held)
        (void)share(self); /* stale: who looks for it will be told */
    Py_RETURN_NONE;
}

PyDoc_STRVAR(hold_doc, "hold()\n--\n\n"
                       "Let the block be freed if this process ends before it gives it away:\n"
                       "nobody else is to know of it.");

static PyObject *allocation_hold(struct allocation *self, PyObject *Py_UNUSED(unused))
{
    struct dragon_py_pool *pool = (struct dragon_py_pool *)self->pool;
    uint32_t holder = dragon_py_pool_holder(pool, DRAGON_HOLDER_SHARED), before;

    if (require_block(self) < 0)
        return NULL;
    if (!self->is_held && is_process(holder) &&
        dragon_pool_hold(pool->pool, &self->handle, holder, &before) == 0)
        enlist(self);
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
    delist(self);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(place_doc, "place()\n--\n\n(offset, generation) of the block in its pool.");

static PyObject *allocation_place(struct allocation *self, PyObject *Py_UNUSED(unused))
{
    return Py_BuildValue("(KI)", (unsigned long long)self->handle.offset,
                         (unsigned int)self->handle.generation);
}

PyDoc_STRVAR(address_doc, "address()\n--\n\nWhere the block is in this process.");

static PyObject *allocation_address(struct allocation *self, PyObject *Py_UNUSED(unused))
{
    return require_block(self) < 0 ? NULL : PyLong_FromVoidPtr(self->address);
}

static Py_ssize_t allocation_length(struct allocation *self)
{
    return (Py_ssize_t)self->size_bytes;
}

static void allocation_dealloc(struct allocation *self)
{
    PyTypeObject *type = Py_TYPE(self);

    delist(self);
    Py_DECREF(self->pool);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyMethodDef allocation_methods[] = {
    {"free", (PyCFunction)allocation_free, METH_NOARGS, free_doc},
    {"share", (PyCFunction)allocation_share, METH_NOARGS, share_doc},
    {"hold", (PyCFunction)allocation_hold, METH_NOARGS, hold_doc},
    {"detach", (PyCFunction)allocation_detach, METH_NOARGS, detach_doc},
    {"place", (PyCFunction)allocation_place, METH_NOARGS, place_doc},
    {"address", (PyCFunction)allocation_address, METH_NOARGS, address_doc},
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
    if (!state->pool_type || !state->allocation_type)
        return -1;
    return PyModule_AddIntConstant(module, "ALLOC_HELD", HELD);
}
