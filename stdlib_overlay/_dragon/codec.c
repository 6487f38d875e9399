#include "codec.h"

#include "block.h"
#include "exports.h"
#include "letter.h"
#include "out_of_band.h"
#include "payload.h"
#include "pickler.h"
#include "plain.h"

#include "channel/fini.h"
#include "memory/pool.h"
#include "memory/uses.h"

/* ---- making messages ---- */

static int store_pickle(const struct dragon_py_transfer *t, struct dragon_py_sink *sink,
                        const struct dragon_py_export *before, struct dragon_message *message)
{
    uint64_t n_uses = dragon_py_exports_count(before);
    size_t room_bytes = n_uses ? (size_t)dragon_uses_block_bytes(sink->n, n_uses) : 0;
    int r;

    message->kind = DRAGON_PY_KIND_PICKLE;
    r = PyList_GET_SIZE(sink->buffers) > 0
            ? dragon_py_store_with_buffers(t, sink, n_uses, message)
            : dragon_py_store(t, sink->bytes, sink->n, room_bytes, message);
    if (r == 0 && dragon_py_exports_list(t, before, message) < 0) {
        dragon_py_discard(t->pool, t->holder, message);
        r = -1;
    }
    return r;
}

int dragon_py_encode(const struct dragon_py_transfer *t, PyObject *object,
                     struct dragon_message *message_out, bool *pickling_failed_out)
{
    struct dragon_message *message = message_out;
    int r;

    *pickling_failed_out = false;
    message->block_offset = 0;
    message->block_generation = 0;
    message->block_lines = 0;
    r = dragon_py_encode_plain(t, object, message);
    return r == DRAGON_PY_NOT_PLAIN
               ? dragon_py_pickle(t, object, store_pickle, message, pickling_failed_out)
               : r;
}

int dragon_py_encode_bytes(const struct dragon_py_transfer *t, const char *bytes, size_t n,
                           struct dragon_message *message_out)
{
    *message_out = (struct dragon_message){.kind = DRAGON_PY_KIND_RAW};
    return dragon_py_store(t, bytes, n, 0, message_out);
}

/* ---- taking them apart ---- */

static PyObject *load_unpickle(struct dragon_py_state *state)
{
    if (!state->unpickle)
        state->unpickle = dragon_py_import_attribute("_pickle", "loads");
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

PyObject *dragon_py_unpickle(struct dragon_py_state *state, PyObject *bytes)
{
    return load_unpickle(state) ? PyObject_CallOneArg(state->unpickle, bytes) : NULL;
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
                                const struct dragon_message *message,
                                const struct dragon_py_payload *payload, struct decoding *decoding)
{
    uint32_t kind = message->kind & ~(uint32_t)DRAGON_PY_KIND_LISTS_USES;

    if (kind == DRAGON_PY_KIND_PICKLE_WITH_BUFFERS && payload->has_block) {
        if (!load_unpickle(t->state))
            return NULL;
        decoding->owner = dragon_py_block_new(t->state, t->pool, &payload->handle,
                                              (void *)(uintptr_t)payload->bytes, payload->n);
        return decoding->owner ? dragon_py_unpickle_with_buffers(t, decoding->owner,
                                                                 t->state->unpickle, payload)
                               : NULL;
    }
    if (kind == DRAGON_PY_KIND_PICKLE || kind == DRAGON_PY_KIND_RAW)
        return unpickle(t->state, payload->bytes, payload->n);
    return dragon_py_decode_plain(t, kind, payload);
}

PyObject *dragon_py_decode(const struct dragon_py_transfer *t, const struct dragon_message *message)
{
    struct decoding decoding = {.pool = t->pool};
    struct dragon_py_payload payload;
    PyObject *result;

    if (message->kind & DRAGON_PY_KIND_LETTER)
        return dragon_py_decode_letter(t, message);
    if (dragon_py_find_payload(t, message, &payload) < 0) {
        dragon_py_discard(t->pool, t->holder, message);
        return NULL;
    }
    if (!payload.has_block)
        return decode_payload(t, message, &payload, &decoding);
    decoding.block = payload.handle;
    begin_decoding(&decoding);
    result = decode_payload(t, message, &payload, &decoding);
    end_decoding(&decoding, t->holder, (message->kind & DRAGON_PY_KIND_LISTS_USES) != 0);
    return result;
}

/* A bytes object with the pickle, as multiprocessing makes it. */
static PyObject *pickle_of(PyObject *object)
{
    PyObject *pickler = dragon_py_import_attribute("multiprocessing.reduction", "ForkingPickler");
    PyObject *view = pickler ? PyObject_CallMethod(pickler, "dumps", "(O)", object) : NULL;
    PyObject *bytes = view ? PyBytes_FromObject(view) : NULL;

    Py_XDECREF(view);
    Py_XDECREF(pickler);
    return bytes;
}

int dragon_py_bytes_of(const struct dragon_py_transfer *t, struct dragon_message *message,
                       struct dragon_py_bytes *bytes_out)
{
    uint32_t kind = message->kind & ~(uint32_t)DRAGON_PY_KIND_LISTS_USES;
    struct dragon_py_payload payload;
    PyObject *object, *pickle;

    if (kind == DRAGON_PY_KIND_RAW || kind == DRAGON_PY_KIND_PICKLE) {
        if (dragon_py_find_payload(t, message, &payload) < 0) {
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
    return PyBool_FromLong(dragon_py_is_exporting());
}

static PyMethodDef codec_functions[] = {
    {"is_exporting", is_exporting, METH_NOARGS,
     PyDoc_STR("is_exporting()\n--\n\nTrue while this thread makes a message of an object.")},
    {NULL, NULL, 0, NULL},
};

int dragon_py_codec_add(PyObject *module)
{
    if (dragon_py_pickler_add(module) < 0 || dragon_py_letter_add(module) < 0)
        return -1;
    return PyModule_AddFunctions(module, codec_functions);
}
