#include "plain.h"

#include <string.h>

#define MAX_TUPLE_ITEMS 12

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
    message->kind = DRAGON_PY_KIND_TUPLE;
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
        dragon_py_bad_message(t);
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

int dragon_py_encode_plain(const struct dragon_py_transfer *t, PyObject *object,
                           struct dragon_message *message)
{
    struct scalar scalar;

    if (as_scalar(object, &scalar)) {
        message->kind = scalar.kind;
        return dragon_py_store(t, scalar.bytes, scalar.n, 0, message);
    }
    return PyTuple_CheckExact(object) && encode_tuple(object, message) ? 0 : DRAGON_PY_NOT_PLAIN;
}

PyObject *dragon_py_decode_plain(const struct dragon_py_transfer *t,
                                 const struct dragon_message *message,
                                 const struct dragon_py_payload *payload)
{
    uint32_t kind = message->kind & ~(uint32_t)DRAGON_PY_KIND_LISTS_USES;

    if (kind == DRAGON_PY_KIND_TUPLE && !payload->has_block)
        return decode_tuple(t, message);
    return decode_scalar(t, kind, payload->bytes, payload->n);
}
