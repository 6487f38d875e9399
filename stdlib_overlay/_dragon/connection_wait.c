/*
 * _dragon.wait: connections and any other descriptors, until some are ready.
 *
 * Who waits for many does it again and again with the same list, so what is done for each
 * object of it is what a wait costs: one pass finds out what they are.
 */
#include "connection.h"
#include "wait.h"

#include "base/deadline.h"

#include <errno.h>

/* What is waited for: a list of objects, and what they are. */
struct wait_list {
    PyObject *objects; /* strong */
    Py_ssize_t n;
    struct dragon_pipe_waited *waited;
    struct dragon_py_connection **connections; /* borrowed; NULL: another object */
    bool has_connections;
};

static void end_list(struct wait_list *list)
{
    PyMem_Free(list->waited);
    PyMem_Free(list->connections);
    Py_DECREF(list->objects);
}

/* Take the objects, and find the connections among them. -1 with an exception. */
static int begin_list(struct dragon_py_state *state, PyObject *objects, struct wait_list *list_out)
{
    struct wait_list list = {.objects = PySequence_List(objects)}; /* fileno() may run anything */

    if (!list.objects)
        return -1;
    list.n = PyList_GET_SIZE(list.objects);
    list.waited = PyMem_Calloc((size_t)list.n + 1, sizeof *list.waited);
    list.connections = PyMem_Calloc((size_t)list.n + 1, sizeof(void *));
    if (!list.waited || !list.connections) {
        end_list(&list);
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < list.n; i++) {
        PyObject *object = PyList_GET_ITEM(list.objects, i);

        if (PyObject_TypeCheck(object, state->connection_type)) {
            list.connections[i] = (struct dragon_py_connection *)object;
            list.has_connections = true;
        }
    }
    *list_out = list;
    return 0;
}

static int look_at_connection(struct dragon_py_connection *connection,
                              struct dragon_pipe_waited *waited_out)
{
    if (dragon_py_connection_require_open(connection) < 0)
        return -1;
    if (connection->incoming && connection->incoming->base.object.state)
        waited_out->pipe = &connection->incoming->pipe;
    waited_out->fd = connection->fd;
    return 0;
}

static int look_at_other(PyObject *object, struct dragon_pipe_waited *waited_out)
{
    waited_out->fd = PyObject_AsFileDescriptor(object);
    if (waited_out->fd < 0 && PyErr_ExceptionMatches(PyExc_TypeError))
        PyErr_Format(PyExc_ValueError, "Invalid file object: %R", object);
    return waited_out->fd < 0 ? -1 : 0;
}

/* Others first, whose fileno() may close a connection. */
static int look_at_all(struct wait_list *list)
{
    for (Py_ssize_t i = 0; i < list->n; i++)
        if (!list->connections[i] &&
            look_at_other(PyList_GET_ITEM(list->objects, i), &list->waited[i]) < 0)
            return -1;
    for (Py_ssize_t i = 0; i < list->n; i++)
        if (list->connections[i] && look_at_connection(list->connections[i], &list->waited[i]) < 0)
            return -1;
    return 0;
}

/* KeyError where a descriptor is there twice, as the standard library's selectors have it. */
static int require_different(const struct wait_list *list)
{
    uint8_t *seen;
    int highest = 0, r = 0;

    for (Py_ssize_t i = 0; i < list->n; i++)
        highest = Py_MAX(highest, list->waited[i].fd);
    seen = PyMem_Calloc((size_t)highest / 8 + 1, 1); /* a bit a descriptor */
    if (!seen) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; r == 0 && i < list->n; i++) {
        int fd = list->waited[i].fd, bit = 1 << fd % 8;

        if (seen[fd / 8] & bit) {
            PyErr_Format(PyExc_KeyError, "%R (FD %d) is already registered",
                         PyList_GET_ITEM(list->objects, i), fd);
            r = -1;
        }
        seen[fd / 8] = (uint8_t)(seen[fd / 8] | bit);
    }
    PyMem_Free(seen);
    return r;
}

/* Threads that wait are inside of the connections. */
static void for_connections(const struct wait_list *list,
                            void (*call)(struct dragon_py_connection *))
{
    for (Py_ssize_t i = 0; i < list->n; i++)
        if (list->connections[i])
            call(list->connections[i]);
}

static bool any_is_closed(const struct wait_list *list)
{
    for (Py_ssize_t i = 0; i < list->n; i++)
        if (list->connections[i] && list->connections[i]->is_closed)
            return true;
    return false;
}

static int wait_until(struct dragon_py_state *state, const struct wait_list *list,
                      int64_t deadline_ns)
{
    int r;

    do {
        if (any_is_closed(list))
            return dragon_py_raise_closed();
        Py_BEGIN_ALLOW_THREADS
        r = dragon_pipe_wait_any(list->waited, (size_t)list->n, dragon_py_next_look(deadline_ns));
        Py_END_ALLOW_THREADS
    } while (dragon_py_goes_on(&r, DRAGON_CHANNEL_EMPTY, deadline_ns));
    if (r < 0 && !PyErr_Occurred())
        r == -EBADF ? dragon_py_raise_errno(EBADF) : (void)dragon_py_raise(state, r, "wait");
    return r < 0 ? -1 : 0;
}

/* True if the object, which is no connection, says that it has something although its
 * descriptor does not say so yet. -1 with an exception. */
static int has_something(PyObject *object)
{
    PyObject *answer;
    int has;

    if (PyLong_CheckExact(object) || !PyObject_HasAttrString(object, "_dragon_has_something"))
        return 0;
    answer = PyObject_CallMethod(object, "_dragon_has_something", NULL);
    has = answer ? PyObject_IsTrue(answer) : -1;
    Py_XDECREF(answer);
    return has;
}

static int is_ready(const struct wait_list *list, Py_ssize_t i)
{
    if (list->waited[i].is_ready || list->connections[i])
        return list->waited[i].is_ready;
    return has_something(PyList_GET_ITEM(list->objects, i));
}

static PyObject *ready_ones(const struct wait_list *list)
{
    PyObject *ready = PyList_New(0);

    for (Py_ssize_t i = 0; ready && i < list->n; i++) {
        int r = is_ready(list, i);

        if (r < 0 || (r > 0 && PyList_Append(ready, PyList_GET_ITEM(list->objects, i)) < 0))
            Py_CLEAR(ready);
    }
    return ready;
}

static PyObject *wait_with_list(struct dragon_py_state *state, struct wait_list *list,
                                int64_t deadline_ns)
{
    PyObject *ready = NULL;

    if (look_at_all(list) < 0 || require_different(list) < 0)
        return NULL;
    for_connections(list, dragon_py_connection_enter);
    if (wait_until(state, list, deadline_ns) == 0)
        ready = ready_ones(list);
    for_connections(list, dragon_py_connection_leave);
    return ready;
}

PyDoc_STRVAR(
    wait_doc,
    "wait(object_list, timeout=None, /)\n--\n\n"
    "Wait at most timeout seconds until some of the objects are ready, and return those.\n\n"
    "object_list: Connections, descriptors, and objects with fileno(), each once. None, at once,\n"
    "if no Connection is among them.\n\n"
    "Raises:\n"
    "    KeyError: a descriptor is there twice.\n"
    "    ValueError: an object is none of these.\n"
    "    OSError: a connection is closed.\n\n"
    "Source: multiprocessing.connection.wait.");

static PyObject *wait_for_any(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    struct dragon_py_state *state = dragon_py_state_of_module(module);
    PyObject *ready;
    struct wait_list list;
    int64_t deadline_ns;

    if (n_args < 1 || n_args > 2) {
        PyErr_Format(PyExc_TypeError, "wait() takes 1 or 2 arguments (%zd given)", n_args);
        return NULL;
    }
    if (dragon_py_deadline(n_args > 1 ? args[1] : Py_None, &deadline_ns) < 0 ||
        begin_list(state, args[0], &list) < 0)
        return NULL;
    ready = list.has_connections ? wait_with_list(state, &list, deadline_ns) : Py_NewRef(Py_None);
    end_list(&list);
    return ready;
}

static PyMethodDef wait_functions[] = {
    {"wait", (PyCFunction)(void (*)(void))wait_for_any, METH_FASTCALL, wait_doc},
    {NULL, NULL, 0, NULL},
};

int dragon_py_connection_wait_add(PyObject *module)
{
    return PyModule_AddFunctions(module, wait_functions);
}
