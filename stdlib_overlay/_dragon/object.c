#include "object.h"

#include "block.h"
#include "codec.h"
#include "connection.h"
#include "pool.h"

#include "memory/pool.h"
#include "node/node.h"

#include <errno.h>
#include <string.h>
#include <structmember.h>

/* What _export gives: a handle. */
#define EXPORT_BYTES sizeof(struct dragon_handle)

/* States from this size on are zeroed without the GIL. */
#define LARGE_BYTES 65536

/*
 * All open objects of this process. Guarded by the GIL. A process made by
 * os.fork() gets copies of the Python objects and needs a use for each; they
 * are taken before the fork in its name, while the parent's own uses hold the
 * objects: docs/objects.md.
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

static int raise_failure(struct dragon_py_object *self, struct dragon_pool *pool,
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

/* This process as a user of objects of the default pool; 0 with an exception. */
static uint32_t require_holder(const char *what)
{
    uint32_t holder = dragon_py_node_holder();

    if (!holder)
        PyErr_Format(PyExc_RuntimeError,
                     "%s: this process has left its node, or the node has no room for it", what);
    return holder;
}

int dragon_py_object_create(struct dragon_py_object *self, uint32_t kind, uint64_t state_bytes,
                            dragon_object_fini fini, const char *what)
{
    struct dragon_pool *pool = dragon_py_default_pool();
    uint32_t holder = pool ? require_holder(what) : 0;

    if (!holder)
        return -1;
    return dragon_py_object_create_in(self, pool, holder, kind, state_bytes, fini, what);
}

int dragon_py_object_create_in(struct dragon_py_object *self, struct dragon_pool *pool,
                               uint32_t holder, uint32_t kind, uint64_t state_bytes,
                               dragon_object_fini fini, const char *what)
{
    struct dragon_object object;
    int r;

    if (state_bytes < LARGE_BYTES) {
        r = dragon_object_create(pool, kind, state_bytes, holder, &object);
    } else {
        Py_BEGIN_ALLOW_THREADS
        r = dragon_object_create(pool, kind, state_bytes, holder, &object);
        Py_END_ALLOW_THREADS
    }
    dragon_py_object_release(self); /* __init__ may be called twice */
    if (r != 0)
        return raise_failure(self, pool, state_bytes, r, what);
    self->object = object;
    self->fini = fini;
    self->copied_by = 0;
    self->told_death = 0;
    enlist(self);
    return 0;
}

int dragon_py_object_attach(struct dragon_py_object *self, PyObject *state, uint32_t kind,
                            uint64_t state_bytes, dragon_object_fini fini, const char *what)
{
    struct dragon_pool *pool = dragon_py_default_pool();
    uint32_t holder = pool ? require_holder(what) : 0;
    struct dragon_handle handle;

    if (!holder)
        return -1;
    if (!PyBytes_Check(state) || PyBytes_GET_SIZE(state) != EXPORT_BYTES) {
        PyErr_Format(PyExc_ValueError, "%s: the state to attach to is not %zu bytes", what,
                     EXPORT_BYTES);
        return -1;
    }
    memcpy(&handle, PyBytes_AS_STRING(state), sizeof handle);
    return dragon_py_object_attach_in(self, pool, holder, &handle, kind, state_bytes, fini, what);
}

int dragon_py_object_attach_in(struct dragon_py_object *self, struct dragon_pool *pool,
                               uint32_t holder, const struct dragon_handle *handle, uint32_t kind,
                               uint64_t state_bytes, dragon_object_fini fini, const char *what)
{
    int r;

    dragon_py_object_release(self);
    r = dragon_object_open(pool, handle, kind, state_bytes, holder, &self->object);
    if (r != 0) {
        self->object.state = NULL;
        return raise_failure(self, pool, state_bytes, r, what);
    }
    self->fini = fini;
    self->copied_by = 0;
    self->told_death = 0;
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
    int keeps_it = PyObject_IsTrue(in_message);

    if (keeps_it < 0 || dragon_py_object_require(self, Py_TYPE(self)->tp_name) < 0)
        return NULL;
    if (keeps_it &&
        dragon_py_note_export(dragon_py_state_of(Py_TYPE(self)), &self->object, self->fini) < 0)
        return NULL;
    return PyBytes_FromStringAndSize((const char *)&self->object.handle,
                                     sizeof self->object.handle);
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
               "_attach in another process.\nin_message: they become part of the message that "
               "this thread makes, which keeps the object in use.")},
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

/* ---- forking ---- */

/* Who uses this object in the copy. Members of named pools have numbers that nobody else
 * can take for them: there, the copies' uses are nobody's. */
static uint32_t copys_holder(const struct dragon_object *object, struct dragon_pool *nodes,
                             uint32_t holder)
{
    return object->pool == nodes ? holder : DRAGON_HOLDER_SHARED;
}

/*
 * A fork, from the handler before it to the one after it. Handlers of others run in
 * between, so other threads may begin a fork as well, and a signal handler of this thread.
 * A lock is no way out: those handlers may wait for a thread that wants to fork. So each
 * fork has a bit of its own in the objects. Guarded by the GIL.
 */
struct copying {
    struct dragon_node_fork fork; /* holder: 0: the copy has no slot */
    uint64_t bit;                 /* 0: more than 64 at once */
    struct copying *outer;        /* of this thread, that this one came in the middle of */
};

static uint64_t bits_in_use;
static _Thread_local struct copying *innermost;

static uint64_t take_bit(void)
{
    uint64_t bit = ~bits_in_use & (bits_in_use + 1);

    bits_in_use |= bit;
    return bit;
}

/* Take the uses that the copy will hold. Without a slot for it, it will have no object of
 * the node's pool. */
static void keep_for_copy(struct copying *copying)
{
    struct dragon_node *node = first_open ? dragon_node_if_open() : NULL;
    struct dragon_pool *nodes = node ? dragon_node_pool(node) : NULL;

    if (node && dragon_node_before_fork(node, &copying->fork) < 0)
        copying->fork.holder = 0;
    for (struct dragon_py_object *o = first_open; o; o = o->next) {
        uint32_t copys = copys_holder(&o->object, nodes, copying->fork.holder);

        if (copys != 0 && dragon_object_keep(&o->object, copys) == 0)
            o->copied_by |= copying->bit;
        else
            o->copied_by &= ~copying->bit;
    }
}

static void prepare(struct copying *copying)
{
    copying->fork.holder = 0;
    if (copying->bit != 0)
        keep_for_copy(copying);
    dragon_py_exports_before_fork(copying->fork.holder);
}

static PyObject *before_fork(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    struct copying *copying = PyMem_RawCalloc(1, sizeof *copying);

    if (!copying)
        return PyErr_NoMemory(); /* reported; the copy has no objects */
    copying->bit = take_bit();
    copying->outer = innermost;
    innermost = copying;
    prepare(copying);
    dragon_py_decodings_before_fork();
    dragon_py_block_before_fork();
    dragon_py_allocation_before_fork();
    Py_RETURN_NONE;
}

/* The innermost fork of this thread is over. */
static void end_copying(void)
{
    struct copying *copying = innermost;

    innermost = copying->outer;
    bits_in_use &= ~copying->bit;
    PyMem_RawFree(copying);
}

static PyObject *after_fork_in_parent(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    struct dragon_node *node = dragon_node_if_open();
    struct copying *copying = innermost;

    if (copying && copying->fork.holder != 0 && node) {
        Py_BEGIN_ALLOW_THREADS
        dragon_node_after_fork(node, &copying->fork);
        Py_END_ALLOW_THREADS
    }
    if (copying)
        end_copying();
    Py_RETURN_NONE;
}

/* What could not be taken for this copy is not initialised here. */
static void keep_copied(uint64_t bit)
{
    struct dragon_node *node = first_open ? dragon_node_if_open() : NULL;
    struct dragon_pool *nodes = node ? dragon_node_pool(node) : NULL;
    uint32_t slot = node ? dragon_peek(dragon_node_slot(node)) : DRAGON_NODE_NO_SLOT;
    uint32_t holder = slot != DRAGON_NODE_NO_SLOT ? DRAGON_HOLDER_FIRST_SLOT + slot : 0;
    struct dragon_py_object *next;

    for (struct dragon_py_object *o = first_open; o; o = next) {
        next = o->next;
        o->object.holder = copys_holder(&o->object, nodes, holder);
        if (o->object.holder != 0 && o->copied_by & bit)
            continue;
        delist(o);
        o->object.state = NULL;
    }
    dragon_py_exports_after_fork(holder);
}

/* Forks of other threads are not this process's. The one that this came in the middle of
 * goes on here, too, as a fork of this process. */
static PyObject *after_fork_in_child(PyObject *module, PyObject *Py_UNUSED(unused))
{
    keep_copied(innermost ? innermost->bit : 0);
    dragon_py_pickler_after_fork(dragon_py_state_of_module(module));
    dragon_py_connections_after_fork();
    if (innermost)
        end_copying();
    bits_in_use = 0;
    for (struct copying *c = innermost; c; c = c->outer) {
        bits_in_use |= c->bit;
        c->fork.holder = 0;
    }
    if (innermost)
        prepare(innermost);
    Py_RETURN_NONE;
}

static PyMethodDef fork_handlers[] = {
    {"_before_fork", before_fork, METH_NOARGS,
     PyDoc_STR("_before_fork()\n--\n\nRun by os.fork(): the child is a user of all open objects.")},
    {"_after_fork_in_parent", after_fork_in_parent, METH_NOARGS,
     PyDoc_STR("_after_fork_in_parent()\n--\n\nRun by os.fork().")},
    {"_after_fork_in_child", after_fork_in_child, METH_NOARGS,
     PyDoc_STR("_after_fork_in_child()\n--\n\nRun by os.fork().")},
};

void dragon_py_object_release_all(void)
{
    while (first_open)
        dragon_py_object_release(first_open);
}

/* {"before": ..., "after_in_parent": ..., "after_in_child": ...} */
static PyObject *fork_handlers_of(PyObject *module)
{
    static const char *const names[] = {"before", "after_in_parent", "after_in_child"};
    PyObject *handlers = PyDict_New();

    for (int i = 0; handlers && i < 3; i++) {
        PyObject *handler = PyCFunction_NewEx(&fork_handlers[i], module, NULL);

        if (!handler || PyDict_SetItemString(handlers, names[i], handler) < 0)
            Py_CLEAR(handlers);
        Py_XDECREF(handler);
    }
    return handlers;
}

static int register_fork_handlers(PyObject *module)
{
    PyObject *os = PyImport_ImportModule("posix");
    PyObject *registrar = os ? PyObject_GetAttrString(os, "register_at_fork") : NULL;
    PyObject *arguments = PyTuple_New(0);
    PyObject *handlers = fork_handlers_of(module);
    PyObject *result = NULL;

    if (registrar && arguments && handlers)
        result = PyObject_Call(registrar, arguments, handlers);
    Py_XDECREF(handlers);
    Py_XDECREF(arguments);
    Py_XDECREF(registrar);
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
    return register_fork_handlers(module);
}
