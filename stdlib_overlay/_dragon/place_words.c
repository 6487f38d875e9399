#include "place_words.h"

#include <string.h>

static struct dragon_py_place_words *words_of(PyObject *self)
{
    return (struct dragon_py_place_words *)self;
}

/* ---- lifetime ---- */

static PyObject *place_words_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(names))
{
    struct dragon_py_place_words *self;
    PyObject *memory;
    Py_ssize_t place, n_places;

    if (!PyArg_ParseTuple(args, "Onn:PlaceWords", &memory, &place, &n_places))
        return NULL;
    self = (struct dragon_py_place_words *)type->tp_alloc(type, 0);
    if (!self || PyObject_GetBuffer(memory, &self->memory, PyBUF_WRITABLE) < 0) {
        Py_XDECREF(self);
        return NULL;
    }
    if (place < 0 || place >= n_places ||
        self->memory.len / (Py_ssize_t)(sizeof *self->shared + DRAGON_PY_JOURNAL_BYTES) <
            n_places) {
        PyErr_Format(PyExc_ValueError, "PlaceWords: place %zd of %zd in %zd bytes", place, n_places,
                     self->memory.len);
        Py_DECREF(self);
        return NULL;
    }
    self->shared = (struct dragon_py_place_shared *)self->memory.buf + place;
    self->journal = (unsigned char *)self->memory.buf + (size_t)n_places * sizeof *self->shared +
                    (size_t)place * DRAGON_PY_JOURNAL_BYTES;
    return (PyObject *)self;
}

static void place_words_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyBuffer_Release(&words_of(self)->memory);
    type->tp_free(self);
    Py_DECREF(type);
}

/* ---- the journal: results behind each other ---- */

/* The kind of a result, one byte before it. Numbers are 8 bytes, texts and bytes have their
 * length before them, 4 bytes. */
enum kind { NONE = 1, TRUE, FALSE, INT, FLOAT, STR, BYTES };

/* Where results are read from. */
struct source {
    const unsigned char *bytes;
    size_t n;
    size_t at;
};

static bool keep_piece(struct dragon_py_place_words *words, enum kind kind, const void *bytes,
                       size_t n)
{
    unsigned char *at = words->journal + words->n_bytes;
    bool has_length = kind >= STR;
    uint32_t length = (uint32_t)n;
    size_t n_head = 1 + (has_length ? sizeof length : 0);

    if (n > DRAGON_PY_JOURNAL_BYTES || n_head + n > DRAGON_PY_JOURNAL_BYTES - words->n_bytes)
        return false;
    *at = (unsigned char)kind;
    if (has_length)
        memcpy(at + 1, &length, sizeof length);
    memcpy(at + n_head, bytes, n);
    words->n_bytes += n_head + n;
    return true;
}

static bool keep_text(struct dragon_py_place_words *words, PyObject *text)
{
    Py_ssize_t n;
    const char *bytes = PyUnicode_AsUTF8AndSize(text, &n);

    if (bytes)
        return keep_piece(words, STR, bytes, (size_t)n);
    PyErr_Clear(); /* lone surrogates */
    return false;
}

bool dragon_py_place_keep(struct dragon_py_place_words *words, PyObject *result)
{
    PyTypeObject *type = Py_TYPE(result);
    int64_t integer;
    double real;
    int overflow;

    if (type == &PyLong_Type) {
        integer = PyLong_AsLongLongAndOverflow(result, &overflow);
        return overflow == 0 && keep_piece(words, INT, &integer, sizeof integer);
    }
    if (type == &PyFloat_Type) {
        real = PyFloat_AS_DOUBLE(result);
        return keep_piece(words, FLOAT, &real, sizeof real);
    }
    if (result == Py_None)
        return keep_piece(words, NONE, "", 0);
    if (type == &PyBool_Type)
        return keep_piece(words, result == Py_True ? TRUE : FALSE, "", 0);
    if (type == &PyUnicode_Type)
        return keep_text(words, result);
    if (type == &PyBytes_Type)
        return keep_piece(words, BYTES, PyBytes_AS_STRING(result),
                          (size_t)PyBytes_GET_SIZE(result));
    return false;
}

/* The next n bytes; the source may be written to meanwhile. */
static int take(struct source *source, void *bytes, size_t n)
{
    if (n > source->n - source->at) {
        PyErr_SetString(PyExc_ValueError, "there are not so many results");
        return -1;
    }
    memcpy(bytes, source->bytes + source->at, n);
    source->at += n;
    return 0;
}

static PyObject *read_number(struct source *source, enum kind kind)
{
    int64_t integer;
    double real;

    if (kind == INT)
        return take(source, &integer, sizeof integer) < 0 ? NULL : PyLong_FromLongLong(integer);
    return take(source, &real, sizeof real) < 0 ? NULL : PyFloat_FromDouble(real);
}

static PyObject *read_text(struct source *source, enum kind kind)
{
    const char *bytes;
    uint32_t n;

    if (take(source, &n, sizeof n) < 0)
        return NULL;
    bytes = (const char *)source->bytes + source->at;
    if (n > source->n - source->at)
        return PyErr_Format(PyExc_ValueError, "results that make no sense");
    source->at += n;
    return kind == STR ? PyUnicode_DecodeUTF8(bytes, n, "replace")
                       : PyBytes_FromStringAndSize(bytes, n);
}

static PyObject *read_result(struct source *source)
{
    unsigned char kind;

    if (take(source, &kind, 1) < 0)
        return NULL;
    switch (kind) {
    case NONE:
        Py_RETURN_NONE;
    case TRUE:
        Py_RETURN_TRUE;
    case FALSE:
        Py_RETURN_FALSE;
    case INT:
    case FLOAT:
        return read_number(source, kind);
    case STR:
    case BYTES:
        return read_text(source, kind);
    default:
        return PyErr_Format(PyExc_ValueError, "results that make no sense");
    }
}

/* A list of the results behind the first n_skipped ones of n. */
static PyObject *read_results(struct source *source, Py_ssize_t n_skipped, Py_ssize_t n)
{
    PyObject *results = PyList_New(0);

    for (Py_ssize_t i = 0; results && i < n; i++) {
        PyObject *result = read_result(source);

        if (!result || (i >= n_skipped && PyList_Append(results, result) < 0))
            Py_CLEAR(results);
        Py_XDECREF(result);
    }
    return results;
}

static PyObject *kept(PyObject *self, PyObject *args)
{
    struct source source = {words_of(self)->journal, DRAGON_PY_JOURNAL_BYTES, 0};
    Py_ssize_t n_skipped, n;

    if (!PyArg_ParseTuple(args, "nn:kept", &n_skipped, &n))
        return NULL;
    return read_results(&source, n_skipped, n);
}

PyObject *dragon_py_results_of(const char *bytes, Py_ssize_t n_bytes, Py_ssize_t n_skipped,
                               Py_ssize_t n)
{
    struct source source = {(const unsigned char *)bytes, (size_t)n_bytes, 0};

    return read_results(&source, n_skipped, n);
}

static PyObject *results_of(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_ssize_t n_skipped, n, n_bytes;
    const char *bytes;

    if (!PyArg_ParseTuple(args, "y#nn:results_of", &bytes, &n_bytes, &n_skipped, &n))
        return NULL;
    return dragon_py_results_of(bytes, n_bytes, n_skipped, n);
}

/* ---- what the pool asks ---- */

static PyObject *item_of(PyObject *self, PyObject *number)
{
    uint64_t n = PyLong_AsUnsignedLongLongMask(number);
    uint64_t doing = dragon_observe(&words_of(self)->shared->doing);

    if (n == UINT64_MAX && PyErr_Occurred())
        return NULL;
    if (doing == 0 || doing >> 32 != (n & UINT32_MAX))
        Py_RETURN_NONE;
    return PyLong_FromUnsignedLongLong((doing & UINT32_MAX) - 1);
}

static PyObject *doing(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return PyLong_FromUnsignedLongLong(dragon_observe(&words_of(self)->shared->doing));
}

static PyObject *since(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return PyFloat_FromDouble((double)dragon_peek(&words_of(self)->shared->since_ns) / 1e9);
}

static PyObject *clear(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct dragon_py_place_shared *shared = words_of(self)->shared;

    dragon_publish(&shared->withdrawn_first, 0);
    dragon_publish(&shared->doing, 0);
    Py_RETURN_NONE;
}

static PyObject *withdraw(PyObject *self, PyObject *const *args, Py_ssize_t n_args)
{
    struct dragon_py_place_shared *shared = words_of(self)->shared;
    uint64_t number, item, end;

    if (n_args != 3) {
        PyErr_SetString(PyExc_TypeError, "withdraw takes 3 arguments");
        return NULL;
    }
    number = PyLong_AsUnsignedLongLongMask(args[0]);
    item = PyLong_AsUnsignedLongLongMask(args[1]);
    end = PyLong_AsUnsignedLongLongMask(args[2]);
    if (PyErr_Occurred())
        return NULL;
    dragon_publish(&shared->withdrawn_end, dragon_py_call_word(end, 0));
    (void)dragon_exchange(&shared->withdrawn_first, dragon_py_call_word(number, item));
    dragon_fence_after_change();
    Py_RETURN_NONE;
}

/* ---- the type ---- */

static PyMethodDef place_words_methods[] = {
    {"item_of", item_of, METH_O,
     PyDoc_STR("item_of(number, /)\n--\n\nThe item of the task of this number whose call has "
               "begun; None: it is\nnot that task's.")},
    {"doing", doing, METH_NOARGS,
     PyDoc_STR("doing()\n--\n\nThe word of the call that has begun last; 0: none.")},
    {"since", since, METH_NOARGS,
     PyDoc_STR("since()\n--\n\nWhen the latest call began, by the monotonic clock.")},
    {"kept", kept, METH_VARARGS,
     PyDoc_STR("kept(n_skipped, n, /)\n--\n\nThe first n results in the journal but for "
               "n_skipped: of a worker that is dead, or\nwhose word named the same call before "
               "and does so afterwards. ValueError:\nthere are not so many.")},
    {"clear", clear, METH_NOARGS,
     PyDoc_STR("clear()\n--\n\nNo call has begun, none is withdrawn: a new worker comes.")},
    {"withdraw", (PyCFunction)(void (*)(void))withdraw, METH_FASTCALL,
     PyDoc_STR("withdraw(number, item, end, /)\n--\n\nTake calls back: from an item of a task on, "
               "and those of later tasks below\nthe number end. Unless the word named a call "
               "before these afterwards, the\nworker may have begun some, and says where it has "
               "stopped.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot place_words_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("PlaceWords(memory, place, n_places, /)\n--\n\nThe words and the "
                                  "journal of one place of a pool.")},
    {Py_tp_new, place_words_new},
    {Py_tp_dealloc, place_words_dealloc},
    {Py_tp_methods, place_words_methods},
    {0, NULL},
};

static PyType_Spec place_words_spec = {
    .name = "_dragon.PlaceWords",
    .basicsize = sizeof(struct dragon_py_place_words),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = place_words_slots,
};

static PyMethodDef functions[] = {
    {"results_of", results_of, METH_VARARGS,
     PyDoc_STR(
         "results_of(journal, n_skipped, n, /)\n--\n\nThe n results in what a worker has sent "
         "of its journal, but for the first\nn_skipped. ValueError: it makes no sense.")},
    {NULL, NULL, 0, NULL},
};

int dragon_py_place_words_add(PyObject *module)
{
    struct dragon_py_state *state = dragon_py_state_of_module(module);
    PyObject *type;

    state->place_words_type = dragon_py_add_type(module, &place_words_spec, NULL);
    type = (PyObject *)state->place_words_type;
    if (!type || PyModule_AddFunctions(module, functions) < 0)
        return -1;
    return PyModule_AddIntConstant(module, "PLACE_BYTES",
                                   sizeof(struct dragon_py_place_shared) + DRAGON_PY_JOURNAL_BYTES);
}
