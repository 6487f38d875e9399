#include "block.h"

#include "memory/pool.h"

struct block {
    PyObject_HEAD
    struct dragon_pool *pool;
    struct dragon_handle handle;
    void *address;
    uint64_t size_bytes;
    bool is_pinned; /* a forked copy of this process may use the memory */
    struct block *next;
    struct block *previous;
};

/* All blocks of this process. Guarded by the GIL. */
static struct block *first_block;

PyObject *dragon_py_block_new(struct dragon_py_state *state, struct dragon_pool *pool,
                              const struct dragon_handle *handle, void *address,
                              uint64_t size_bytes)
{
    struct block *self = PyObject_New(struct block, state->block_type);

    if (!self)
        return NULL;
    self->pool = pool;
    self->handle = *handle;
    self->address = address;
    self->size_bytes = size_bytes;
    self->is_pinned = false;
    self->previous = NULL;
    self->next = first_block;
    if (first_block)
        first_block->previous = self;
    first_block = self;
    return (PyObject *)self;
}

void dragon_py_block_before_fork(void)
{
    uint32_t before;

    for (struct block *b = first_block; b; b = b->next)
        b->is_pinned = dragon_pool_hold(b->pool, &b->handle, DRAGON_HOLDER_RUNTIME, &before) == 0;
}

static void block_dealloc(struct block *self)
{
    PyTypeObject *type = Py_TYPE(self);

    if (self->previous)
        self->previous->next = self->next;
    else
        first_block = self->next;
    if (self->next)
        self->next->previous = self->previous;
    if (!self->is_pinned)
        dragon_pool_free(self->pool, &self->handle);
    PyObject_Free(self);
    Py_DECREF(type);
}

static int block_get_buffer(struct block *self, Py_buffer *view, int flags)
{
    return PyBuffer_FillInfo(view, (PyObject *)self, self->address, (Py_ssize_t)self->size_bytes, 0,
                             flags);
}

static PyType_Slot block_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Pool memory that is freed with its last reference.")},
    {Py_tp_dealloc, block_dealloc},
    {Py_bf_getbuffer, block_get_buffer},
    {0, NULL},
};

static PyType_Spec block_spec = {
    .name = "_dragon.Block",
    .basicsize = sizeof(struct block),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = block_slots,
};

int dragon_py_block_add(PyObject *module)
{
    struct dragon_py_state *state = dragon_py_state_of_module(module);

    state->block_type = dragon_py_add_type(module, &block_spec, NULL);
    return state->block_type ? 0 : -1;
}
