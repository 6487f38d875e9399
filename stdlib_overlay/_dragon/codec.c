#include "codec.h"

#include "block.h"

#include "base/alloc.h"
#include "channel/fini.h"
#include "memory/pool.h"
#include "memory/uses.h"

#include <string.h>

enum kind {
    KIND_NONE = 1,
    KIND_TRUE,
    KIND_FALSE,
    KIND_INT,
    KIND_FLOAT,
    KIND_BYTES,
    KIND_STR,
    KIND_TUPLE,
    KIND_PICKLE,
    KIND_PICKLE_WITH_BUFFERS,
    KIND_RAW,                /* what send_bytes was given */
    KIND_LISTS_USES = 0x100, /* a flag: the block lists objects that it keeps in use */
};

/* Buffers below this are cheaper inside the pickle, and copies above it are
 * made without the GIL. */
#define LARGE_BYTES 65536

#define MAX_TUPLE_ITEMS 12

/* In a block of KIND_PICKLE_WITH_BUFFERS, before the pickle and the buffers. */
struct buffer_entry {
    uint64_t offset; /* in the block */
    uint64_t size_bytes;
};

struct buffers_header {
    uint64_t pickle_offset;
    uint64_t pickle_bytes;
    uint64_t n_buffers;
    struct buffer_entry entries[];
};

/* ---- memory ---- */

void dragon_py_copy(void *to, const void *from, size_t n)
{
    if (n < LARGE_BYTES) {
        memcpy(to, from, n);
        return;
    }
    Py_BEGIN_ALLOW_THREADS
    memcpy(to, from, n);
    Py_END_ALLOW_THREADS
}

static struct dragon_handle block_handle(struct dragon_pool *pool,
                                         const struct dragon_message *message)
{
    return dragon_pool_handle(pool, message->block_offset, message->block_generation);
}

static void raise_failure(const struct dragon_py_transfer *t, int r)
{
    if (r == DRAGON_POOL_FULL)
        dragon_py_raise_pool_full(t->state, t->pool, 0, t->what);
    else
        dragon_py_raise(t->state, r, t->what);
}

/* A block for the message. Its memory, or NULL with PoolFull. */
static void *add_block(const struct dragon_py_transfer *t, size_t size_bytes,
                       struct dragon_message *message)
{
    struct dragon_handle handle;
    int r = dragon_pool_alloc(t->pool, size_bytes, t->holder, &handle);

    if (r == DRAGON_POOL_FULL)
        return dragon_py_raise_pool_full(t->state, t->pool, size_bytes, t->what);
    if (r < 0)
        return dragon_py_raise(t->state, r, t->what);
    message->block_offset = handle.offset;
    message->block_generation = handle.generation;
    message->block_lines = (uint32_t)(size_bytes / 64 + 1);
    return dragon_pool_at(t->pool, handle.offset);
}

void dragon_py_discard(struct dragon_pool *pool, uint32_t holder,
                       const struct dragon_message *message)
{
    struct dragon_garbage garbage = {.pool = pool, .freer = holder};
    struct dragon_handle handle = block_handle(pool, message);

    if (!dragon_message_has_block(message))
        return;
    dragon_uses_free_block(&handle, &garbage);
    dragon_garbage_free(&garbage, dragon_fini);
}

/* n bytes of payload: inline, or in a block with n inline. room_bytes: that the block is
 * to have, 0 for n: then there must be one. */
static int store(const struct dragon_py_transfer *t, const char *bytes, size_t n, size_t room_bytes,
                 struct dragon_message *message)
{
    uint64_t length = n;
    void *block;

    if (n <= DRAGON_MESSAGE_INLINE_BYTES && room_bytes == 0) {
        memcpy(message->bytes, bytes, n);
        message->size_bytes = (uint32_t)n;
        return 0;
    }
    block = add_block(t, room_bytes ? room_bytes : n, message);
    if (!block)
        return -1;
    dragon_py_copy(block, bytes, n);
    memcpy(message->bytes, &length, sizeof length);
    message->size_bytes = sizeof length;
    return 0;
}

/* Where the payload of a received message is. */
struct payload {
    const char *bytes;
    size_t n;
    struct dragon_handle handle; /* of the block, if there is one */
    bool has_block;
};

static int bad_message(const struct dragon_py_transfer *t)
{
    PyErr_Format(t->state->stale_handle,
                 "%s: the message makes no sense: another process wrote "
                 "over it",
                 t->what);
    return -1;
}

static int find_payload(const struct dragon_py_transfer *t, const struct dragon_message *message,
                        struct payload *payload_out)
{
    struct payload payload = {
        .bytes = (const char *)message->bytes,
        .n = message->size_bytes,
        .has_block = dragon_message_has_block(message),
    };
    uint64_t length, size_bytes;
    void *address;

    if (payload.has_block) {
        payload.handle = block_handle(t->pool, message);
        if (dragon_pool_resolve(t->pool, &payload.handle, &address, &size_bytes) < 0 ||
            message->size_bytes != sizeof length)
            return bad_message(t);
        memcpy(&length, message->bytes, sizeof length);
        if (length > size_bytes)
            return bad_message(t);
        payload.bytes = address;
        payload.n = length;
    }
    *payload_out = payload;
    return 0;
}

/* ---- direct encoding ---- */

/* One scalar: its kind and where its bytes are. */
struct scalar {
    enum kind kind;
    const char *bytes;
    size_t n;
    union {
        int64_t integer;
        double real;
    } value;
};

/* Fill *scalar_out and return true if object has a direct encoding. Borrows the
 * object's bytes; no exception is left behind. */
static bool as_scalar(PyObject *object, struct scalar *scalar_out)
{
    PyTypeObject *type = Py_TYPE(object);
    struct scalar *s = scalar_out;
    Py_ssize_t n;
    int overflow;

    if (type == &PyLong_Type) {
        s->value.integer = PyLong_AsLongLongAndOverflow(object, &overflow);
        s->kind = KIND_INT;
        s->bytes = (const char *)&s->value;
        s->n = sizeof s->value;
        return overflow == 0;
    }
    if (type == &PyBytes_Type) {
        s->kind = KIND_BYTES;
        s->bytes = PyBytes_AS_STRING(object);
        s->n = (size_t)PyBytes_GET_SIZE(object);
        return true;
    }
    if (type == &PyUnicode_Type) {
        s->kind = KIND_STR;
        s->bytes = PyUnicode_AsUTF8AndSize(object, &n);
        if (!s->bytes) {
            PyErr_Clear(); /* lone surrogates: pickle knows what to do */
            return false;
        }
        s->n = (size_t)n;
        return true;
    }
    if (type == &PyFloat_Type) {
        s->value.real = PyFloat_AS_DOUBLE(object);
        s->kind = KIND_FLOAT;
        s->bytes = (const char *)&s->value;
        s->n = sizeof s->value;
        return true;
    }
    s->kind = object == Py_None ? KIND_NONE : object == Py_True ? KIND_TRUE : KIND_FALSE;
    s->bytes = "";
    s->n = 0;
    return object == Py_None || object == Py_True || object == Py_False;
}

/* Items of a tuple lie behind each other: kind (1 byte), length (1), bytes. */
static bool encode_tuple(PyObject *tuple, struct dragon_message *message)
{
    Py_ssize_t n_items = PyTuple_GET_SIZE(tuple);
    size_t used = 0;
    struct scalar item;

    if (n_items > MAX_TUPLE_ITEMS)
        return false;
    for (Py_ssize_t i = 0; i < n_items; i++) {
        if (!as_scalar(PyTuple_GET_ITEM(tuple, i), &item) ||
            used + 2 + item.n > DRAGON_MESSAGE_INLINE_BYTES)
            return false;
        message->bytes[used] = (unsigned char)item.kind;
        message->bytes[used + 1] = (unsigned char)item.n;
        memcpy(message->bytes + used + 2, item.bytes, item.n);
        used += 2 + item.n;
    }
    message->kind = KIND_TUPLE;
    message->size_bytes = (uint32_t)used;
    return true;
}

static PyObject *decode_bytes(const char *bytes, size_t n)
{
    PyObject *result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)n);

    if (result)
        dragon_py_copy(PyBytes_AS_STRING(result), bytes, n);
    return result;
}

static PyObject *decode_scalar(const struct dragon_py_transfer *t, uint32_t kind, const char *bytes,
                               size_t n)
{
    int64_t integer;
    double real;

    switch (kind) {
    case KIND_NONE:
        Py_RETURN_NONE;
    case KIND_TRUE:
        Py_RETURN_TRUE;
    case KIND_FALSE:
        Py_RETURN_FALSE;
    case KIND_INT:
        if (n != sizeof integer)
            break;
        memcpy(&integer, bytes, sizeof integer);
        return PyLong_FromLongLong(integer);
    case KIND_FLOAT:
        if (n != sizeof real)
            break;
        memcpy(&real, bytes, sizeof real);
        return PyFloat_FromDouble(real);
    case KIND_BYTES:
        return decode_bytes(bytes, n);
    case KIND_STR:
        return PyUnicode_DecodeUTF8(bytes, (Py_ssize_t)n, NULL);
    default:
        break;
    }
    bad_message(t);
    return NULL;
}

static Py_ssize_t count_items(const unsigned char *bytes, size_t n)
{
    Py_ssize_t n_items = 0;
    size_t at = 0;

    while (at + 2 <= n) {
        at += 2 + (size_t)bytes[at + 1];
        n_items++;
    }
    return at == n ? n_items : -1;
}

static PyObject *decode_tuple(const struct dragon_py_transfer *t,
                              const struct dragon_message *message)
{
    const unsigned char *at = message->bytes;
    Py_ssize_t n_items = count_items(at, message->size_bytes);
    PyObject *tuple;

    if (n_items < 0) {
        bad_message(t);
        return NULL;
    }
    tuple = PyTuple_New(n_items);
    for (Py_ssize_t i = 0; tuple && i < n_items; i++) {
        PyObject *item = decode_scalar(t, at[0], (const char *)at + 2, at[1]);

        at += 2 + at[1];
        if (item)
            PyTuple_SET_ITEM(tuple, i, item);
        else
            Py_CLEAR(tuple);
    }
    return tuple;
}

/* ---- pickling ---- */

/* Where a pickler writes to: a growing buffer, and the large buffers that are
 * to travel out of band. Kept for the next pickle, unless it grew very large. */
struct sink {
    PyObject_HEAD
    char *bytes;
    size_t n;
    size_t capacity;
    PyObject *buffers; /* list of contiguous memoryviews */
};

#define KEPT_SINK_BYTES (1 << 20)

static PyObject *sink_write(struct sink *self, PyObject *data)
{
    Py_buffer view;

    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    if (self->n + (size_t)view.len > self->capacity) {
        size_t capacity = 2 * self->capacity + (size_t)view.len;
        char *bytes = dragon_alloc_resize(self->bytes, capacity);

        if (!bytes) {
            PyBuffer_Release(&view);
            return PyErr_NoMemory();
        }
        self->bytes = bytes;
        self->capacity = capacity;
    }
    memcpy(self->bytes + self->n, view.buf, (size_t)view.len);
    self->n += (size_t)view.len;
    PyBuffer_Release(&view);
    Py_RETURN_NONE;
}

/* The pickler's buffer_callback: a false result means out of band. */
static PyObject *sink_take_buffer(struct sink *self, PyObject *pickle_buffer)
{
    PyObject *raw = PyObject_CallMethod(pickle_buffer, "raw", NULL);
    int r;

    if (!raw) {
        PyErr_Clear(); /* not contiguous: inside the pickle */
        Py_RETURN_TRUE;
    }
    if (PyMemoryView_GET_BUFFER(raw)->len < LARGE_BYTES) {
        Py_DECREF(raw);
        Py_RETURN_TRUE;
    }
    r = PyList_Append(self->buffers, raw);
    Py_DECREF(raw);
    if (r < 0)
        return NULL;
    Py_RETURN_FALSE;
}

static void sink_reset(struct sink *self)
{
    self->n = 0;
    if (PyList_GET_SIZE(self->buffers) > 0)
        PyList_SetSlice(self->buffers, 0, PyList_GET_SIZE(self->buffers), NULL);
    if (self->capacity > KEPT_SINK_BYTES) {
        dragon_alloc_free(self->bytes);
        self->bytes = NULL;
        self->capacity = 0;
    }
}

static void sink_dealloc(struct sink *self)
{
    PyTypeObject *type = Py_TYPE(self);

    dragon_alloc_free(self->bytes);
    Py_XDECREF(self->buffers);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyMethodDef sink_methods[] = {
    {"write", (PyCFunction)sink_write, METH_O, NULL},
    {"take_buffer", (PyCFunction)sink_take_buffer, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot sink_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Where pickles are written.")},
    {Py_tp_dealloc, sink_dealloc},
    {Py_tp_methods, sink_methods},
    {0, NULL},
};

static PyType_Spec sink_spec = {
    .name = "_dragon._Sink",
    .basicsize = sizeof(struct sink),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = sink_slots,
};

static PyObject *new_sink(struct dragon_py_state *state)
{
    struct sink *self = PyObject_New(struct sink, state->sink_type);

    if (!self)
        return NULL;
    self->bytes = NULL;
    self->n = 0;
    self->capacity = 0;
    self->buffers = PyList_New(0);
    if (!self->buffers)
        Py_CLEAR(self);
    return (PyObject *)self;
}

/* A strong reference to module.name, or NULL. */
static PyObject *import_attribute(const char *module, const char *name)
{
    PyObject *m = PyImport_ImportModule(module);
    PyObject *attribute = m ? PyObject_GetAttrString(m, name) : NULL;

    Py_XDECREF(m);
    return attribute;
}

/* A number that changes with every change of a dictionary. */
static uint64_t version_of(PyObject *dict)
{
#if PY_VERSION_HEX < 0x030c0000
    return ((PyDictObject *)dict)->ma_version_tag;
#else
    /* No version in the public interface any more: the sum of the entries' addresses. */
    PyObject *key, *value;
    Py_ssize_t at = 0;
    uint64_t sum = 0;

    while (PyDict_Next(dict, &at, &key, &value))
        sum = sum * 31 + (uintptr_t)key + (uintptr_t)value;
    return sum;
#endif
}

static bool numpy_is_loaded(void)
{
    PyObject *modules = PyImport_GetModuleDict();

    return modules && PyDict_GetItemString(modules, "numpy") != NULL;
}

/* Arrays need a word in how they travel: dragon_overlay.reduction.reduce_array
 * says why. A program's own reducer goes before ours. */
static int add_array_reducer(struct dragon_py_state *state, PyObject *table)
{
    PyObject *type, *reducer;
    int r = -1;

    state->knows_arrays = numpy_is_loaded();
    if (!state->knows_arrays)
        return 0;
    type = import_attribute("numpy", "ndarray");
    reducer = type ? import_attribute("dragon_overlay.reduction", "reduce_array") : NULL;
    if (reducer)
        r = PyDict_SetItem(table, type, reducer);
    else if (PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear(); /* numpy is being imported */
        state->knows_arrays = false;
        r = 0;
    }
    Py_XDECREF(reducer);
    Py_XDECREF(type);
    return r;
}

/* The reducers of copyreg and those registered with ForkingPickler, in one
 * dictionary: a look-up in a chain of two maps, in Python, for every object
 * costs more than the pickle. Made anew when either has changed. */
static int update_reducers(struct dragon_py_state *state, PyObject *pickler)
{
    uint64_t versions[2] = {version_of(state->copyreg_table), version_of(state->extra_reducers)};
    PyObject *table;
    int r;

    if (pickler == state->pickler &&
        memcmp(versions, state->reducers_versions, sizeof versions) == 0 &&
        (state->knows_arrays || !numpy_is_loaded()))
        return 0;
    table = PyDict_New();
    if (!table)
        return -1;
    r = add_array_reducer(state, table);
    if (r == 0)
        r = PyDict_Update(table, state->copyreg_table);
    if (r == 0)
        r = PyDict_Update(table, state->extra_reducers);
    if (r == 0)
        r = PyObject_SetAttrString(pickler, "dispatch_table", table);
    Py_DECREF(table);
    if (r == 0 && pickler == state->pickler)
        memcpy(state->reducers_versions, versions, sizeof versions);
    return r;
}

static int load_reducers(struct dragon_py_state *state)
{
    PyObject *forking_pickler;

    if (state->extra_reducers)
        return 0;
    state->copyreg_table = import_attribute("copyreg", "dispatch_table");
    if (!state->copyreg_table)
        return -1;
    forking_pickler = import_attribute("multiprocessing.reduction", "ForkingPickler");
    if (!forking_pickler)
        return -1;
    state->extra_reducers = PyObject_GetAttrString(forking_pickler, "_extra_reducers");
    Py_DECREF(forking_pickler);
    return state->extra_reducers ? 0 : -1;
}

static PyObject *new_pickler(struct sink *sink)
{
    PyObject *type = import_attribute("_pickle", "Pickler");
    PyObject *callback = PyObject_GetAttrString((PyObject *)sink, "take_buffer");
    PyObject *arguments = Py_BuildValue("(Oi)", sink, 5);
    PyObject *names = callback ? Py_BuildValue("{sO}", "buffer_callback", callback) : NULL;
    PyObject *pickler = NULL;

    if (type && arguments && names)
        pickler = PyObject_Call(type, arguments, names);
    Py_XDECREF(names);
    Py_XDECREF(arguments);
    Py_XDECREF(callback);
    Py_XDECREF(type);
    return pickler;
}

/* Not NULL in a thread that is making a message of an object: shared objects that
 * it meets travel with a use of their own. Those of a message that fails are
 * closed again; they are kept in this list until then. */
static _Thread_local const struct dragon_py_transfer *exporting;
static _Thread_local struct dragon_py_export *exports;

int dragon_py_note_export(struct dragon_py_state *state, struct dragon_object *object,
                          dragon_object_fini fini)
{
    struct dragon_py_export *export = PyMem_Malloc(sizeof *export);
    int r;

    if (!export) {
        PyErr_NoMemory();
        return -1;
    }
    r = dragon_object_keep(object, object->holder);
    if (r != 0) {
        struct dragon_py_transfer t = {state, object->pool, object->holder,
                                       exporting ? exporting->what : "put"};

        PyMem_Free(export);
        raise_failure(&t, r);
        return -1;
    }
    *export = (struct dragon_py_export){*object, fini, true, false, exports};
    exports = export;
    return 0;
}

/* Forget the exports since `before`: the message keeps them by now, or was not made. */
static void end_exports(struct dragon_py_export *before)
{
    while (exports != before) {
        struct dragon_py_export *export = exports;

        exports = export->next;
        if (export->is_ours)
            dragon_object_close(&export->object, export->fini);
        PyMem_Free(export);
    }
}

void dragon_py_exports_before_fork(uint32_t holder)
{
    for (struct dragon_py_export *export = exports; export; export = export->next)
        export->is_copied = holder != 0 && dragon_object_keep(&export->object, holder) == 0;
}

void dragon_py_exports_after_fork(uint32_t holder)
{
    for (struct dragon_py_export *export = exports; export; export = export->next) {
        export->object.holder = holder;
        export->is_ours = holder != 0 && export->is_copied;
    }
}

static uint64_t n_exports(const struct dragon_py_export *before)
{
    uint64_t n = 0;

    for (const struct dragon_py_export *export = exports; export != before; export = export->next)
        n++;
    return n;
}

/* Let the message's block use what was exported since `before`. */
static int list_exports(const struct dragon_py_transfer *t, const struct dragon_py_export *before,
                        struct dragon_message *message)
{
    struct dragon_handle block = block_handle(t->pool, message);
    struct dragon_handle *objects;
    uint64_t n = n_exports(before), i = 0;
    int r;

    if (n == 0)
        return 0;
    objects = PyMem_Malloc(n * sizeof *objects);
    if (!objects) {
        PyErr_NoMemory();
        return -1;
    }
    for (const struct dragon_py_export *export = exports; export != before; export = export->next)
        objects[i++] = export->object.handle;
    r = dragon_uses_add(t->pool, &block, objects, n, t->holder);
    PyMem_Free(objects);
    if (r == 0)
        message->kind |= KIND_LISTS_USES;
    else
        raise_failure(t, r);
    return r == 0 ? 0 : -1;
}

static int dump(const struct dragon_py_transfer *t, PyObject *pickler, PyObject *object)
{
    const struct dragon_py_transfer *outer = exporting;
    PyObject *name = PyUnicode_InternFromString("dump");
    PyObject *result = NULL;

    if (name && update_reducers(t->state, pickler) == 0) {
        exporting = t;
        result = PyObject_CallMethodOneArg(pickler, name, object);
        exporting = outer;
    }
    Py_XDECREF(name);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

/* Forget what was pickled, so that nothing is kept alive. */
static int clear_memo(PyObject *pickler)
{
    PyObject *type, *value, *traceback, *result;

    PyErr_Fetch(&type, &value, &traceback);
    result = PyObject_CallMethod(pickler, "clear_memo", NULL);
    Py_XDECREF(result);
    PyErr_Restore(type, value, traceback);
    return result ? 0 : -1;
}

static size_t align_up(size_t n)
{
    return (n + 63) & ~(size_t)63;
}

/* Bytes of a block for size_bytes and n exports. */
static size_t room_of(size_t size_bytes, uint64_t n)
{
    return n ? (size_t)dragon_uses_block_bytes(size_bytes, n) : size_bytes;
}

static int store_with_buffers(const struct dragon_py_transfer *t, struct sink *sink,
                              uint64_t n_uses, struct dragon_message *message)
{
    Py_ssize_t n_buffers = PyList_GET_SIZE(sink->buffers);
    size_t pickle_offset =
        sizeof(struct buffers_header) + (size_t)n_buffers * sizeof(struct buffer_entry);
    size_t total = align_up(pickle_offset + sink->n);
    struct buffers_header *header;
    uint64_t length;

    for (Py_ssize_t i = 0; i < n_buffers; i++)
        total += align_up((size_t)PyMemoryView_GET_BUFFER(PyList_GET_ITEM(sink->buffers, i))->len);
    header = add_block(t, room_of(total, n_uses), message);
    if (!header)
        return -1;
    header->pickle_offset = pickle_offset;
    header->pickle_bytes = sink->n;
    header->n_buffers = (uint64_t)n_buffers;
    memcpy((char *)header + pickle_offset, sink->bytes, sink->n);
    length = align_up(pickle_offset + sink->n);
    for (Py_ssize_t i = 0; i < n_buffers; i++) {
        Py_buffer *view = PyMemoryView_GET_BUFFER(PyList_GET_ITEM(sink->buffers, i));

        header->entries[i] = (struct buffer_entry){
            .offset = length,
            .size_bytes = (uint64_t)view->len,
        };
        dragon_py_copy((char *)header + length, view->buf, (size_t)view->len);
        length += align_up((size_t)view->len);
    }
    message->kind = KIND_PICKLE_WITH_BUFFERS;
    memcpy(message->bytes, &length, sizeof length);
    message->size_bytes = sizeof length;
    return 0;
}

static int store_pickle(const struct dragon_py_transfer *t, struct sink *sink,
                        const struct dragon_py_export *before, struct dragon_message *message)
{
    uint64_t n_uses = n_exports(before);
    size_t room_bytes = n_uses ? room_of(sink->n, n_uses) : 0;
    int r;

    message->kind = KIND_PICKLE;
    r = PyList_GET_SIZE(sink->buffers) > 0 ? store_with_buffers(t, sink, n_uses, message)
                                           : store(t, sink->bytes, sink->n, room_bytes, message);
    if (r == 0 && list_exports(t, before, message) < 0) {
        dragon_py_discard(t->pool, t->holder, message);
        r = -1;
    }
    return r;
}

static int pickle_with(const struct dragon_py_transfer *t, PyObject *sink, PyObject *pickler,
                       PyObject *object, struct dragon_message *message, bool *pickling_failed_out)
{
    struct dragon_py_export *before = exports;
    int r = dump(t, pickler, object);

    *pickling_failed_out = r < 0;
    if (r == 0)
        r = store_pickle(t, (struct sink *)sink, before, message);
    end_exports(before);
    clear_memo(pickler);
    sink_reset((struct sink *)sink);
    return r;
}

/* This thread is using the kept pickler. */
static _Thread_local bool has_kept_pickler;

void dragon_py_pickler_after_fork(struct dragon_py_state *state)
{
    if (!state->pickler_is_busy || has_kept_pickler)
        return;
    /* The thread that was using it is not in the copy, but what it was pickling is in the
     * pickler's memo. */
    Py_CLEAR(state->pickler);
    state->pickler_is_busy = false;
}

static int make_kept_pickler(struct dragon_py_state *state)
{
    if (state->pickler)
        return 0;
    if (load_reducers(state) < 0)
        return -1;
    Py_XSETREF(state->sink, new_sink(state));
    if (!state->sink)
        return -1;
    state->pickler = new_pickler((struct sink *)state->sink);
    memset(state->reducers_versions, 0xff, sizeof state->reducers_versions);
    return state->pickler ? 0 : -1;
}

static int encode_pickle(const struct dragon_py_transfer *t, PyObject *object,
                         struct dragon_message *message, bool *pickling_failed_out)
{
    struct dragon_py_state *state = t->state;
    PyObject *sink, *pickler;
    int r;

    if (make_kept_pickler(state) < 0)
        return -1;
    if (!state->pickler_is_busy) {
        state->pickler_is_busy = has_kept_pickler = true;
        r = pickle_with(t, state->sink, state->pickler, object, message, pickling_failed_out);
        state->pickler_is_busy = has_kept_pickler = false;
        return r;
    }
    /* Another thread pickles, or the object's reducer called put itself. */
    sink = new_sink(state);
    pickler = sink ? new_pickler((struct sink *)sink) : NULL;
    r = pickler ? pickle_with(t, sink, pickler, object, message, pickling_failed_out) : -1;
    Py_XDECREF(pickler);
    Py_XDECREF(sink);
    return r;
}

/* ---- unpickling ---- */

static PyObject *load_unpickle(struct dragon_py_state *state)
{
    if (!state->unpickle)
        state->unpickle = import_attribute("_pickle", "loads");
    return state->unpickle;
}

static PyObject *unpickle(struct dragon_py_state *state, const char *bytes, size_t n)
{
    PyObject *view, *result = NULL;

    if (!load_unpickle(state))
        return NULL;
    view = PyMemoryView_FromMemory((char *)(uintptr_t)bytes, (Py_ssize_t)n, PyBUF_READ);
    if (view)
        result = PyObject_CallOneArg(state->unpickle, view);
    Py_XDECREF(view);
    return result;
}

static bool entry_is_sane(const struct buffer_entry *entry, size_t n)
{
    return entry->offset <= n && entry->size_bytes <= n - entry->offset;
}

/* A view of a part of the block that keeps the block alive. */
static PyObject *view_of(PyObject *block, const struct buffer_entry *entry)
{
    PyObject *whole = PyMemoryView_FromObject(block);
    PyObject *part = NULL;

    if (whole)
        part = PySequence_GetSlice(whole, (Py_ssize_t)entry->offset,
                                   (Py_ssize_t)(entry->offset + entry->size_bytes));
    Py_XDECREF(whole);
    return part;
}

static PyObject *views_of(const struct dragon_py_transfer *t, PyObject *block,
                          const struct buffer_entry *entries, uint64_t n_buffers, size_t n)
{
    PyObject *views = PyList_New(0);

    for (uint64_t i = 0; views && i < n_buffers; i++) {
        struct buffer_entry entry = entries[i];
        PyObject *view = NULL;

        if (entry_is_sane(&entry, n))
            view = view_of(block, &entry);
        else
            bad_message(t);
        if (!view || PyList_Append(views, view) < 0)
            Py_CLEAR(views);
        Py_XDECREF(view);
    }
    return views;
}

static bool header_is_sane(const struct buffers_header *header, size_t n)
{
    return n >= sizeof *header && header->n_buffers <= n / sizeof(struct buffer_entry) &&
           sizeof *header + header->n_buffers * sizeof(struct buffer_entry) <=
               header->pickle_offset &&
           header->pickle_offset <= n && header->pickle_bytes <= n - header->pickle_offset;
}

static PyObject *unpickle_with_buffers(const struct dragon_py_transfer *t, PyObject *block,
                                       const struct payload *payload)
{
    const struct buffers_header *shared = (const void *)payload->bytes;
    struct buffers_header header = {0};
    struct buffer_entry pickle;
    PyObject *views, *view, *arguments, *names, *result = NULL;

    if (payload->n >= sizeof header)
        memcpy(&header, shared, sizeof header); /* read once: others can write it */
    if (!header_is_sane(&header, payload->n)) {
        bad_message(t);
        return NULL;
    }
    if (!load_unpickle(t->state))
        return NULL;
    pickle = (struct buffer_entry){header.pickle_offset, header.pickle_bytes};
    views = views_of(t, block, shared->entries, header.n_buffers, payload->n);
    view = views ? view_of(block, &pickle) : NULL;
    arguments = view ? PyTuple_Pack(1, view) : NULL;
    names = arguments ? Py_BuildValue("{sO}", "buffers", views) : NULL;
    if (names)
        result = PyObject_Call(t->state->unpickle, arguments, names);
    Py_XDECREF(names);
    Py_XDECREF(arguments);
    Py_XDECREF(view);
    Py_XDECREF(views);
    return result;
}

/*
 * The blocks that this thread unpickles from. What it runs may fork; then both processes
 * go on to read the block, and neither knows when the other is done. So it stays, with
 * what it lists, until the node ends, as blocks do that are views (block.h).
 */
struct decoding {
    struct dragon_pool *pool;
    struct dragon_handle block;
    PyObject *owner; /* the Block that frees it, strong; NULL: there is none */
    bool is_pinned;
    struct decoding *next;
};

static _Thread_local struct decoding *decodings;

void dragon_py_decodings_before_fork(void)
{
    uint32_t before;

    for (struct decoding *d = decodings; d; d = d->next) {
        d->is_pinned = true;
        (void)dragon_pool_hold(d->pool, &d->block, DRAGON_HOLDER_RUNTIME, &before);
    }
}

static void begin_decoding(struct decoding *decoding)
{
    decoding->next = decodings;
    decodings = decoding;
}

/* The views keep the block, but not what travelled beside them. */
static void end_decoding(struct decoding *decoding, uint32_t holder, bool lists_uses)
{
    struct dragon_garbage garbage = {.pool = decoding->pool, .freer = holder};

    decodings = decoding->next;
    if (lists_uses && !decoding->is_pinned)
        dragon_uses_release(&decoding->block, &garbage);
    if (!decoding->owner && !decoding->is_pinned)
        (void)dragon_pool_free(decoding->pool, &decoding->block);
    Py_XDECREF(decoding->owner);
    dragon_garbage_free(&garbage, dragon_fini);
}

static PyObject *decode_payload(const struct dragon_py_transfer *t,
                                const struct dragon_message *message, const struct payload *payload,
                                struct decoding *decoding)
{
    uint32_t kind = message->kind & ~(uint32_t)KIND_LISTS_USES;

    if (kind == KIND_PICKLE_WITH_BUFFERS && payload->has_block) {
        decoding->owner = dragon_py_block_new(t->state, t->pool, &payload->handle,
                                              (void *)(uintptr_t)payload->bytes, payload->n);
        return decoding->owner ? unpickle_with_buffers(t, decoding->owner, payload) : NULL;
    }
    if (kind == KIND_PICKLE || kind == KIND_RAW)
        return unpickle(t->state, payload->bytes, payload->n);
    if (kind == KIND_TUPLE && !payload->has_block)
        return decode_tuple(t, message);
    return decode_scalar(t, kind, payload->bytes, payload->n);
}

/* ---- the two ways ---- */

int dragon_py_encode(const struct dragon_py_transfer *t, PyObject *object,
                     struct dragon_message *message_out, bool *pickling_failed_out)
{
    struct dragon_message *message = message_out;
    struct scalar scalar;

    *pickling_failed_out = false;
    message->block_offset = 0;
    message->block_generation = 0;
    message->block_lines = 0;
    if (as_scalar(object, &scalar)) {
        message->kind = scalar.kind;
        return store(t, scalar.bytes, scalar.n, 0, message);
    }
    if (PyTuple_CheckExact(object) && encode_tuple(object, message))
        return 0;
    return encode_pickle(t, object, message, pickling_failed_out);
}

int dragon_py_encode_bytes(const struct dragon_py_transfer *t, const char *bytes, size_t n,
                           struct dragon_message *message_out)
{
    *message_out = (struct dragon_message){.kind = KIND_RAW};
    return store(t, bytes, n, 0, message_out);
}

PyObject *dragon_py_decode(const struct dragon_py_transfer *t, const struct dragon_message *message)
{
    struct decoding decoding = {.pool = t->pool};
    struct payload payload;
    PyObject *result;

    if (find_payload(t, message, &payload) < 0) {
        dragon_py_discard(t->pool, t->holder, message);
        return NULL;
    }
    if (!payload.has_block)
        return decode_payload(t, message, &payload, &decoding);
    decoding.block = payload.handle;
    begin_decoding(&decoding);
    result = decode_payload(t, message, &payload, &decoding);
    end_decoding(&decoding, t->holder, (message->kind & KIND_LISTS_USES) != 0);
    return result;
}

/* A bytes object with the pickle, as multiprocessing makes it. */
static PyObject *pickle_of(PyObject *object)
{
    PyObject *pickler = import_attribute("multiprocessing.reduction", "ForkingPickler");
    PyObject *view = pickler ? PyObject_CallMethod(pickler, "dumps", "(O)", object) : NULL;
    PyObject *bytes = view ? PyBytes_FromObject(view) : NULL;

    Py_XDECREF(view);
    Py_XDECREF(pickler);
    return bytes;
}

int dragon_py_bytes_of(const struct dragon_py_transfer *t, struct dragon_message *message,
                       struct dragon_py_bytes *bytes_out)
{
    uint32_t kind = message->kind & ~(uint32_t)KIND_LISTS_USES;
    struct payload payload;
    PyObject *object, *pickle;

    if (kind == KIND_RAW || kind == KIND_PICKLE) {
        if (find_payload(t, message, &payload) < 0) {
            dragon_py_discard(t->pool, t->holder, message);
            return -1;
        }
        *bytes_out = (struct dragon_py_bytes){payload.bytes, payload.n, NULL};
        return 0;
    }
    object = dragon_py_decode(t, message);
    message->block_generation = 0;
    pickle = object ? pickle_of(object) : NULL;
    Py_XDECREF(object);
    if (!pickle)
        return -1;
    *bytes_out = (struct dragon_py_bytes){
        .bytes = PyBytes_AS_STRING(pickle),
        .n = (size_t)PyBytes_GET_SIZE(pickle),
        .owner = pickle,
    };
    return 0;
}

static PyObject *is_exporting(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    return PyBool_FromLong(exporting != NULL);
}

static PyMethodDef codec_functions[] = {
    {"is_exporting", is_exporting, METH_NOARGS,
     PyDoc_STR("is_exporting()\n--\n\nTrue while this thread makes a message of an object.")},
    {NULL, NULL, 0, NULL},
};

int dragon_py_codec_add(PyObject *module)
{
    struct dragon_py_state *state = dragon_py_state_of_module(module);

    state->sink_type = dragon_py_add_type(module, &sink_spec, NULL);
    if (!state->sink_type)
        return -1;
    return PyModule_AddFunctions(module, codec_functions);
}
