#include "out_of_band.h"

#include "memory/uses.h"

#include <string.h>

/* In a block of DRAGON_PY_KIND_PICKLE_WITH_BUFFERS, before the pickle and the buffers. */
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

static size_t align_up(size_t n)
{
    return (n + 63) & ~(size_t)63;
}

int dragon_py_store_with_buffers(const struct dragon_py_transfer *t, struct dragon_py_sink *sink,
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
    header =
        dragon_py_add_block(t, n_uses ? dragon_uses_block_bytes(total, n_uses) : total, message);
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
    message->kind = DRAGON_PY_KIND_PICKLE_WITH_BUFFERS;
    memcpy(message->bytes, &length, sizeof length);
    message->size_bytes = sizeof length;
    return 0;
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
            dragon_py_bad_message(t);
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

PyObject *dragon_py_unpickle_with_buffers(const struct dragon_py_transfer *t, PyObject *block,
                                          PyObject *unpickle,
                                          const struct dragon_py_payload *payload)
{
    const struct buffers_header *shared = (const void *)payload->bytes;
    struct buffers_header header = {0};
    struct buffer_entry pickle;
    PyObject *views, *view, *arguments, *names, *result = NULL;

    if (payload->n >= sizeof header)
        memcpy(&header, shared, sizeof header); /* read once: others can write it */
    if (!header_is_sane(&header, payload->n)) {
        dragon_py_bad_message(t);
        return NULL;
    }
    pickle = (struct buffer_entry){header.pickle_offset, header.pickle_bytes};
    views = views_of(t, block, shared->entries, header.n_buffers, payload->n);
    view = views ? view_of(block, &pickle) : NULL;
    arguments = view ? PyTuple_Pack(1, view) : NULL;
    names = arguments ? Py_BuildValue("{sO}", "buffers", views) : NULL;
    if (names)
        result = PyObject_Call(unpickle, arguments, names);
    Py_XDECREF(names);
    Py_XDECREF(arguments);
    Py_XDECREF(view);
    Py_XDECREF(views);
    return result;
}
