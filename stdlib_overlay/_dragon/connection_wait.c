/*
 * _dragon.wait: connections and any other descriptors, until some are ready.
 */
#include "connection.h"
#include "wait.h"

#include "base/deadline.h"

#include <errno.h>

/* What is waited for: a list of objects, and what they are. */
struct wait_list {
    PyObject *objects;
    struct dragon_pipe_waited *waited;
    Py_ssize_t n;
};

static int waited_of(struct dragon_py_state *state, PyObject *object,
                     struct dragon_pipe_waited *waited_out)
{
    struct dragon_py_connection *connection = (struct dragon_py_connection *)object;

    if (!PyObject_TypeCheck(object, state->connection_type)) {
        waited_out->fd = PyObject_AsFileDescriptor(object);
        if (waited_out->fd < 0 && PyErr_ExceptionMatches(PyExc_TypeError))
            PyErr_Format(PyExc_ValueError, "Invalid file object: %R", object);
        return waited_out->fd < 0 ? -1 : 0;
    }
    if (dragon_py_connection_require_open(connection) < 0)
        return -1;
    if (connection->incoming && connection->incoming->base.object.state)
        waited_out->pipe = &connection->incoming->pipe;
    waited_out->fd = connection->fd;
    return 0;
}

/* Threads that wait are inside of the connections. */
static void for_connections(struct dragon_py_state *state, const struct wait_list *list,
                            void (*call)(struct dragon_py_connection *))
{
    for (Py_ssize_t i = 0; i < list->n; i++) {
        PyObject *object = PyList_GET_ITEM(list->objects, i);

        if (PyObject_TypeCheck(object, state->connection_type))
            call((struct dragon_py_connection *)object);
    }
}

static bool any_is_closed(struct dragon_py_state *state, const struct wait_list *list)
{
    for (Py_ssize_t i = 0; i < list->n; i++) {
        PyObject *object = PyList_GET_ITEM(list->objects, i);

        if (PyObject_TypeCheck(object, state->connection_type) &&
            ((struct dragon_py_connection *)object)->is_closed)
            return true;
    }
    return false;
}

static int wait_until(struct dragon_py_state *state, const struct wait_list *list,
                      int64_t deadline_ns)
{
    int r;

    do {
        if (any_is_closed(state, list))
            return dragon_py_raise_closed();
        Py_BEGIN_ALLOW_THREADS
        r = dragon_pipe_wait_any(list->waited, (size_t)list->n, dragon_py_next_look(deadline_ns));
        Py_END_ALLOW_THREADS
    } while (dragon_py_goes_on(&r, DRAGON_CHANNEL_EMPTY, deadline_ns));
    if (r < 0 && !PyErr_Occurred())
        r == -EBADF ? dragon_py_raise_errno(EBADF) : (void)dragon_py_raise(state, r, "wait");
    return r < 0 ? -1 : 0;
}

static PyObject *ready_ones(const struct wait_list *list)
{
    PyObject *ready = PyList_New(0);

    for (Py_ssize_t i = 0; ready && i < list->n; i++)
        if (list->waited[i].is_ready && PyList_Append(ready, PyList_GET_ITEM(list->objects, i)) < 0)
            Py_CLEAR(ready);
    return ready;
}

PyDoc_STRVAR(
    wait_doc,
    "wait(object_list, timeout=None, /)\n--\n\n"
    "Wait at most timeout seconds until some of the objects are ready, and return those.\n\n"
    "object_list: Connections, descriptors, and objects with fileno().\n\n"
    "Source: multiprocessing.connection.wait.");

static PyObject *wait_for_any(PyObject *module, PyObject *args)
{
    struct dragon_py_state *state = dragon_py_state_of_module(module);
    PyObject *objects, *timeout = Py_None, *ready = NULL;
    struct wait_list list;
    int64_t deadline_ns;

    if (!PyArg_ParseTuple(args, "O|O:wait", &objects, &timeout) ||
        dragon_py_deadline(timeout, &deadline_ns) < 0)
        return NULL;
    list.objects = PySequence_List(objects); /* a copy: fileno() may run anything */
    if (!list.objects)
        return NULL;
    list.n = PyList_GET_SIZE(list.objects);
    list.waited = PyMem_Calloc((size_t)list.n + 1, sizeof *list.waited);
    if (!list.waited) {
        PyErr_NoMemory();
        goto drop_objects;
    }
    for (Py_ssize_t i = 0; i < list.n; i++)
        if (waited_of(state, PyList_GET_ITEM(list.objects, i), &list.waited[i]) < 0)
            goto free_waited;
    if (any_is_closed(state, &list)) { /* by a fileno() */
        dragon_py_raise_closed();
        goto free_waited;
    }
    for_connections(state, &list, dragon_py_connection_enter);
    if (wait_until(state, &list, deadline_ns) == 0)
        ready = ready_ones(&list);
    for_connections(state, &list, dragon_py_connection_leave);

free_waited:
    PyMem_Free(list.waited);
drop_objects:
    Py_DECREF(list.objects);
    return ready;
}

static PyMethodDef wait_functions[] = {
    {"wait", wait_for_any, METH_VARARGS, wait_doc},
    {NULL, NULL, 0, NULL},
};

int dragon_py_connection_wait_add(PyObject *module)
{
    return PyModule_AddFunctions(module, wait_functions);
}
