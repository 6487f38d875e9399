#include "plain.h"

#include <string.h>

/* More than this is left to pickle. */
#define MAX_ITEMS_BYTES 1024

/* One scalar: its kind and where its bytes are. */
struct scalar {
    enum dragon_py_kind kind;
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
        s->kind = DRAGON_PY_KIND_INT;
        s->bytes = (const char *)&s->value;
        s->n = sizeof s->value;
        return overflow == 0;
    }
    if (type == &PyBytes_Type) {
        s->kind = DRAGON_PY_KIND_BYTES;
        s->bytes = PyBytes_AS_STRING(object);
        s->n = (size_t)PyBytes_GET_SIZE(object);
        return true;
    }
    if (type == &PyUnicode_Type) {
        s->kind = DRAGON_PY_KIND_STR;
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
        s->kind = DRAGON_PY_KIND_FLOAT;
        s->bytes = (const char *)&s->value;
        s->n = sizeof s->value;
        return true;
    }
    s->kind = object == Py_None   ? DRAGON_PY_KIND_NONE
              : object == Py_True ? DRAGON_PY_KIND_TRUE
                                  : DRAGON_PY_KIND_FALSE;
    s->bytes = "";
    s->n = 0;
    return object == Py_None || object == Py_True || object == Py_False;
}

/* Items of a tuple, or keys and values of a dict in turns, lie behind each other: kind (1 byte),
 * length (1), bytes. */
struct items {
    size_t n_bytes;
    unsigned char bytes[MAX_ITEMS_BYTES];
};

static bool add_item(struct items *items, PyObject *object)
{
    unsigned char *at = items->bytes + items->n_bytes;
    struct scalar item;

    if (!as_scalar(object, &item) || item.n > UINT8_MAX ||
        items->n_bytes + 2 + item.n > sizeof items->bytes)
        return false;
    at[0] = (unsigned char)item.kind;
    at[1] = (unsigned char)item.n;
    memcpy(at + 2, item.bytes, item.n);
    items->n_bytes += 2 + item.n;
    return true;
}

static bool add_items_of_tuple(struct items *items, PyObject *tuple)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); i++)
        if (!add_item(items, PyTuple_GET_ITEM(tuple, i)))
            return false;
    return true;
}

/* Nothing here runs code of the program, which could change the dict. */
static bool add_items_of_dict(struct items *items, PyObject *dict)
{
    PyObject *key, *value;
    Py_ssize_t at = 0;

    while (PyDict_Next(dict, &at, &key, &value))
        if (!add_item(items, key) || !add_item(items, value))
            return false;
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
    case DRAGON_PY_KIND_NONE:
        Py_RETURN_NONE;
    case DRAGON_PY_KIND_TRUE:
        Py_RETURN_TRUE;
    case DRAGON_PY_KIND_FALSE:
        Py_RETURN_FALSE;
    case DRAGON_PY_KIND_INT:
        if (n != sizeof integer)
            break;
        memcpy(&integer, bytes, sizeof integer);
        return PyLong_FromLongLong(integer);
    case DRAGON_PY_KIND_FLOAT:
        if (n != sizeof real)
            break;
        memcpy(&real, bytes, sizeof real);
        return PyFloat_FromDouble(real);
    case DRAGON_PY_KIND_BYTES:
        return decode_bytes(bytes, n);
    case DRAGON_PY_KIND_STR:
        return PyUnicode_DecodeUTF8(bytes, (Py_ssize_t)n, NULL);
    default:
        break;
    }
    dragon_py_bad_message(t);
    return NULL;
}

/* What is left of the items of a message. Others can write to them. */
struct rest {
    const unsigned char *at;
    size_t n;
};

/* The next item. A new reference, or NULL with an exception. */
static PyObject *next_item(const struct dragon_py_transfer *t, struct rest *rest)
{
    const unsigned char *at = rest->at;
    size_t n = rest->n >= 2 ? (size_t)at[1] + 2 : 2;

    if (n > rest->n) {
        dragon_py_bad_message(t);
        return NULL;
    }
    rest->at += n;
    rest->n -= n;
    return decode_scalar(t, at[0], (const char *)at + 2, n - 2);
}

static Py_ssize_t count_items(struct rest rest)
{
    Py_ssize_t n_items = 0;

    for (size_t n; rest.n >= 2; n_items++) {
        n = (size_t)rest.at[1] + 2;
        if (n > rest.n)
            break;
        rest.at += n;
        rest.n -= n;
    }
    return n_items;
}

static PyObject *decode_tuple(const struct dragon_py_transfer *t, struct rest rest)
{
    Py_ssize_t n_items = count_items(rest);
    PyObject *tuple = PyTuple_New(n_items);

    for (Py_ssize_t i = 0; tuple && i < n_items; i++) {
        PyObject *item = next_item(t, &rest);

        if (item)
            PyTuple_SET_ITEM(tuple, i, item);
        else
            Py_CLEAR(tuple);
    }
    return tuple;
}

static PyObject *decode_dict(const struct dragon_py_transfer *t, struct rest rest)
{
    PyObject *dict = PyDict_New();

    while (dict && rest.n > 0) {
        PyObject *key = next_item(t, &rest);
        PyObject *value = key ? next_item(t, &rest) : NULL;

        if (!value || PyDict_SetItem(dict, key, value) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(key);
        Py_XDECREF(value);
    }
    return dict;
}

static int store_items(const struct dragon_py_transfer *t, const struct items *items,
                       enum dragon_py_kind kind, struct dragon_message *message)
{
    message->kind = kind;
    return dragon_py_store(t, (const char *)items->bytes, items->n_bytes, 0, message);
}

int dragon_py_encode_plain(const struct dragon_py_transfer *t, PyObject *object,
                           struct dragon_message *message)
{
    struct scalar scalar;
    struct items items;

    items.n_bytes = 0;
    if (PyTuple_CheckExact(object))
        return add_items_of_tuple(&items, object)
                   ? store_items(t, &items, DRAGON_PY_KIND_TUPLE, message)
                   : DRAGON_PY_NOT_PLAIN;
    if (PyDict_CheckExact(object))
        return add_items_of_dict(&items, object)
                   ? store_items(t, &items, DRAGON_PY_KIND_DICT, message)
                   : DRAGON_PY_NOT_PLAIN;
    if (!as_scalar(object, &scalar))
        return DRAGON_PY_NOT_PLAIN;
    message->kind = scalar.kind;
    return dragon_py_store(t, scalar.bytes, scalar.n, 0, message);
}

PyObject *dragon_py_decode_plain(const struct dragon_py_transfer *t, uint32_t kind,
                                 const struct dragon_py_payload *payload)
{
    struct rest rest = {(const unsigned char *)payload->bytes, payload->n};

    if (kind == DRAGON_PY_KIND_TUPLE)
        return decode_tuple(t, rest);
    if (kind == DRAGON_PY_KIND_DICT)
        return decode_dict(t, rest);
    return decode_scalar(t, kind, payload->bytes, payload->n);
}
