#include "letter.h"

#include "payload.h"

#include <string.h>

#define HEADER_BYTES (DRAGON_PY_LETTER_WORDS * sizeof(uint64_t))

/* ---- making them ---- */

/* Move what is in the message itself into a block. */
static int move_to_block(const struct dragon_py_transfer *t, struct dragon_message *message)
{
    char bytes[DRAGON_MESSAGE_INLINE_BYTES];
    size_t n = message->size_bytes;

    memcpy(bytes, message->bytes, n);
    return dragon_py_store(t, bytes, n, n, message);
}

static int put_header(const struct dragon_py_transfer *t,
                      const uint64_t header[DRAGON_PY_LETTER_WORDS], struct dragon_message *message)
{
    if (message->size_bytes > DRAGON_MESSAGE_INLINE_BYTES - HEADER_BYTES &&
        move_to_block(t, message) < 0)
        return -1;
    memmove(message->bytes + HEADER_BYTES, message->bytes, message->size_bytes);
    memcpy(message->bytes, header, HEADER_BYTES);
    message->size_bytes += (uint32_t)HEADER_BYTES;
    message->kind |= DRAGON_PY_KIND_LETTER;
    return 0;
}

int dragon_py_encode_letter(const struct dragon_py_transfer *t,
                            const uint64_t header[DRAGON_PY_LETTER_WORDS], PyObject *object,
                            struct dragon_message *message_out)
{
    bool pickling_failed;

    if (dragon_py_encode(t, object, message_out, &pickling_failed) < 0)
        return -1;
    return put_header(t, header, message_out);
}

int dragon_py_encode_pickled_letter(const struct dragon_py_transfer *t,
                                    const uint64_t header[DRAGON_PY_LETTER_WORDS], PyObject *pickle,
                                    struct dragon_message *message_out)
{
    *message_out = (struct dragon_message){.kind = DRAGON_PY_KIND_PICKLE};
    if (dragon_py_store(t, PyBytes_AS_STRING(pickle), (size_t)PyBytes_GET_SIZE(pickle), 0,
                        message_out) < 0)
        return -1;
    return put_header(t, header, message_out);
}

bool dragon_py_message_is_plain(const struct dragon_message *message)
{
    return message->kind == DRAGON_PY_KIND_NONE ||
           (message->kind == DRAGON_PY_KIND_TUPLE && !dragon_message_has_block(message));
}

/* ---- taking them apart ---- */

struct letter {
    PyObject_HEAD
    struct dragon_py_state *state; /* of the module, which lives as long as the type */
    struct dragon_pool *pool;
    struct dragon_message message; /* of the object */
    uint32_t holder;
    uint32_t fork_generation; /* in a copy of the process, the message is not the copy's */
    bool is_sealed;
};

PyObject *dragon_py_decode_letter(const struct dragon_py_transfer *t,
                                  const struct dragon_message *message)
{
    size_t n = HEADER_BYTES;
    uint64_t header[DRAGON_PY_LETTER_WORDS];
    struct letter *letter;

    if (message->size_bytes < n || message->size_bytes > sizeof message->bytes) {
        dragon_py_bad_message(t);
        dragon_py_discard(t->pool, t->holder, message);
        return NULL;
    }
    letter = PyObject_New(struct letter, t->state->letter_type);
    if (!letter) {
        dragon_py_discard(t->pool, t->holder, message);
        return NULL;
    }
    letter->state = t->state;
    letter->pool = t->pool;
    letter->holder = t->holder;
    letter->fork_generation = dragon_py_fork_generation;
    letter->is_sealed = true;
    letter->message = *message;
    letter->message.kind &= ~(uint32_t)DRAGON_PY_KIND_LETTER;
    letter->message.size_bytes -= (uint32_t)n;
    memcpy(header, message->bytes, n);
    memmove(letter->message.bytes, message->bytes + n, letter->message.size_bytes);
    return Py_BuildValue("KKN", (unsigned long long)header[0], (unsigned long long)header[1],
                         letter);
}

static PyObject *letter_open(struct letter *self, PyObject *Py_UNUSED(unused))
{
    struct dragon_py_transfer t = {self->state, self->pool, self->holder, "open"};

    if (!self->is_sealed || self->fork_generation != dragon_py_fork_generation) {
        PyErr_SetString(PyExc_ValueError, "a letter is opened once, by who has received it");
        return NULL;
    }
    self->is_sealed = false;
    return dragon_py_decode(&t, &self->message);
}

static void letter_dealloc(struct letter *self)
{
    PyTypeObject *type = Py_TYPE(self);

    if (self->is_sealed && self->fork_generation == dragon_py_fork_generation)
        dragon_py_discard(self->pool, self->holder, &self->message);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyMethodDef letter_methods[] = {
    {"open", (PyCFunction)letter_open, METH_NOARGS,
     PyDoc_STR("open()\n--\n\nThe object; once. Raises what unpickling it does.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot letter_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("An object that has arrived and was not yet unpickled.")},
    {Py_tp_dealloc, letter_dealloc},
    {Py_tp_methods, letter_methods},
    {0, NULL},
};

static PyType_Spec letter_spec = {
    .name = "_dragon.Letter",
    .basicsize = sizeof(struct letter),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = letter_slots,
};

int dragon_py_letter_add(PyObject *module)
{
    struct dragon_py_state *state = dragon_py_state_of_module(module);

    state->letter_type = dragon_py_add_type(module, &letter_spec, NULL);
    return state->letter_type ? 0 : -1;
}
