#include "pickler.h"

#include "exports.h"
#include "payload.h"

#include "base/alloc.h"

#include <string.h>

#define KEPT_SINK_BYTES (1 << 20)
/* Of a pickle: the memo has at most as many places. */
#define KEPT_MEMO_BYTES (16 << 10)

/* ---- where pickles are written ---- */

static PyObject *sink_write(struct dragon_py_sink *self, PyObject *data)
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
static PyObject *sink_take_buffer(struct dragon_py_sink *self, PyObject *pickle_buffer)
{
    PyObject *raw = PyObject_CallMethod(pickle_buffer, "raw", NULL);
    int r;

    if (!raw) {
        PyErr_Clear(); /* not contiguous: inside the pickle */
        Py_RETURN_TRUE;
    }
    if (PyMemoryView_GET_BUFFER(raw)->len < DRAGON_PY_LARGE_BYTES) {
        Py_DECREF(raw);
        Py_RETURN_TRUE;
    }
    r = PyList_Append(self->buffers, raw);
    Py_DECREF(raw);
    if (r < 0)
        return NULL;
    Py_RETURN_FALSE;
}

static void sink_reset(struct dragon_py_sink *self)
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

static void sink_dealloc(struct dragon_py_sink *self)
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
    .basicsize = sizeof(struct dragon_py_sink),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = sink_slots,
};

static PyObject *new_sink(struct dragon_py_state *state)
{
    struct dragon_py_sink *self = PyObject_New(struct dragon_py_sink, state->sink_type);

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

/* ---- reducers ---- */

PyObject *dragon_py_import_attribute(const char *module, const char *name)
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
    type = dragon_py_import_attribute("numpy", "ndarray");
    reducer = type ? dragon_py_import_attribute("dragon_overlay.reduction", "reduce_array") : NULL;
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
    state->copyreg_table = dragon_py_import_attribute("copyreg", "dispatch_table");
    if (!state->copyreg_table)
        return -1;
    forking_pickler = dragon_py_import_attribute("multiprocessing.reduction", "ForkingPickler");
    if (!forking_pickler)
        return -1;
    state->extra_reducers = PyObject_GetAttrString(forking_pickler, "_extra_reducers");
    Py_DECREF(forking_pickler);
    return state->extra_reducers ? 0 : -1;
}

/* ---- picklers ---- */

static PyObject *new_pickler(struct dragon_py_sink *sink)
{
    PyObject *type = dragon_py_import_attribute("_pickle", "Pickler");
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

/* argument: NULL if there is none. */
static int call_method(PyObject *pickler, const char *name, PyObject *argument)
{
    PyObject *interned = PyUnicode_InternFromString(name), *result = NULL;

    if (interned)
        result = argument ? PyObject_CallMethodOneArg(pickler, interned, argument)
                          : PyObject_CallMethodNoArgs(pickler, interned);
    Py_XDECREF(interned);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

static int dump(const struct dragon_py_transfer *t, PyObject *pickler, PyObject *object)
{
    const struct dragon_py_transfer *outer;
    int r = update_reducers(t->state, pickler);

    if (r == 0) {
        outer = dragon_py_exports_begin(t);
        r = call_method(pickler, "dump", object);
        dragon_py_exports_stop(outer);
    }
    return r;
}

/* Forget what was pickled, so that nothing is kept alive. The memo of a pickler never shrinks, and
 * clearing it takes as long as it has room: after something large, or what failed somewhere, the
 * kept pickler is given up. */
static void forget_pickled(struct dragon_py_state *state, PyObject *pickler, bool has_failed,
                           struct dragon_py_sink *sink)
{
    bool is_given_up = has_failed || sink->n > KEPT_MEMO_BYTES;
    PyObject *type, *value, *traceback;

    PyErr_Fetch(&type, &value, &traceback);
    sink_reset(sink); /* first: what the memo lets go of may run anything, and have it replaced */
    if (pickler == state->pickler && is_given_up)
        Py_CLEAR(state->pickler);
    else
        call_method(pickler, "clear_memo", NULL);
    PyErr_Restore(type, value, traceback);
}

static int pickle_with(const struct dragon_py_transfer *t, PyObject *sink, PyObject *pickler,
                       PyObject *object, dragon_py_store_pickle store,
                       struct dragon_message *message, bool *pickling_failed_out)
{
    struct dragon_py_export *before = dragon_py_exports();
    int r = dump(t, pickler, object);

    *pickling_failed_out = r < 0;
    if (r == 0)
        r = store(t, (struct dragon_py_sink *)sink, before, message);
    dragon_py_exports_end(before);
    forget_pickled(t->state, pickler, *pickling_failed_out, (struct dragon_py_sink *)sink);
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

/* Making one may run anything, another thread that makes one, too: the first is kept, and with
 * it the sink that it writes to. */
static int make_kept_pickler(struct dragon_py_state *state)
{
    PyObject *sink, *pickler = NULL;

    if (state->pickler)
        return 0;
    if (load_reducers(state) < 0)
        return -1;
    sink = new_sink(state);
    if (sink)
        pickler = new_pickler((struct dragon_py_sink *)sink);
    if (pickler && !state->pickler) {
        Py_XSETREF(state->sink, Py_NewRef(sink));
        state->pickler = Py_NewRef(pickler);
        memset(state->reducers_versions, 0xff, sizeof state->reducers_versions);
    }
    Py_XDECREF(pickler);
    Py_XDECREF(sink);
    return pickler ? 0 : -1;
}

int dragon_py_pickle(const struct dragon_py_transfer *t, PyObject *object,
                     dragon_py_store_pickle store, struct dragon_message *message,
                     bool *pickling_failed_out)
{
    struct dragon_py_state *state = t->state;
    PyObject *sink, *pickler;
    int r;

    if (make_kept_pickler(state) < 0)
        return -1;
    if (state->pickler && !state->pickler_is_busy) {
        state->pickler_is_busy = has_kept_pickler = true;
        r = pickle_with(t, state->sink, state->pickler, object, store, message,
                        pickling_failed_out);
        state->pickler_is_busy = has_kept_pickler = false;
        return r;
    }
    /* Another thread pickles, or the object's reducer called put itself. */
    sink = new_sink(state);
    pickler = sink ? new_pickler((struct dragon_py_sink *)sink) : NULL;
    r = pickler ? pickle_with(t, sink, pickler, object, store, message, pickling_failed_out) : -1;
    Py_XDECREF(pickler);
    Py_XDECREF(sink);
    return r;
}

/* ---- pickles that travel inside of other messages ---- */

/* What a pickle was written to, if it is complete in itself and small; else NULL. */
static PyObject *small_pickle(const struct dragon_py_sink *sink, Py_ssize_t max_bytes)
{
    if (PyList_GET_SIZE(sink->buffers) > 0 || (Py_ssize_t)sink->n > max_bytes)
        return NULL;
    return PyBytes_FromStringAndSize(sink->bytes, (Py_ssize_t)sink->n);
}

static PyObject *pickle_small(PyObject *module, PyObject *args)
{
    struct dragon_py_state *state = dragon_py_state_of_module(module);
    PyObject *object, *result = NULL;
    Py_ssize_t max_bytes;
    bool is_dumped;

    if (!PyArg_ParseTuple(args, "On:pickle_small", &object, &max_bytes) ||
        make_kept_pickler(state) < 0)
        return NULL;
    if (state->pickler && !state->pickler_is_busy && !dragon_py_is_exporting()) {
        state->pickler_is_busy = has_kept_pickler = true;
        is_dumped = update_reducers(state, state->pickler) == 0 &&
                    call_method(state->pickler, "dump", object) == 0;
        if (is_dumped)
            result = small_pickle((struct dragon_py_sink *)state->sink, max_bytes);
        forget_pickled(state, state->pickler, !is_dumped, (struct dragon_py_sink *)state->sink);
        state->pickler_is_busy = has_kept_pickler = false;
    }
    if (result)
        return result;
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_Exception))
        return NULL;
    PyErr_Clear();
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"pickle_small", pickle_small, METH_VARARGS,
     PyDoc_STR("pickle_small(object, max_bytes, /)\n--\n\nA pickle of the object as messages "
               "have it. None: it is larger, cannot be\npickled, or only as a message.")},
    {NULL, NULL, 0, NULL},
};

int dragon_py_pickler_add(PyObject *module)
{
    struct dragon_py_state *state = dragon_py_state_of_module(module);

    state->sink_type = dragon_py_add_type(module, &sink_spec, NULL);
    return state->sink_type ? PyModule_AddFunctions(module, functions) : -1;
}
