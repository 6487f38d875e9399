/*
 * _dragon.connect: the two Connections of a multiprocessing.Pipe, in one piece. Between two calls
 * a signal handler may raise, and descriptors that nobody has yet would stay open.
 */
#include "connection.h"

#include "os/os.h"
#include "os/socket.h"

/* What messages take in one direction: the pipe as each end sees it. Strong references. */
struct direction {
    struct dragon_py_pipe *sender;
    struct dragon_py_pipe *receiver;
};

static void end_direction(struct direction *direction)
{
    Py_CLEAR(direction->sender);
    Py_CLEAR(direction->receiver);
}

static int begin_direction(struct dragon_py_state *state,
                           const struct dragon_channel_options *options,
                           struct direction *direction_out)
{
    struct direction direction = {dragon_py_pipe_new(state, options), NULL};

    if (direction.sender)
        direction.receiver = dragon_py_pipe_view(direction.sender);
    if (!direction.receiver) {
        end_direction(&direction);
        return -1;
    }
    *direction_out = direction;
    return 0;
}

/* there: from the second to the first; back, without pipes: there is none. */
static int connect_by(struct dragon_py_connection *first, struct dragon_py_connection *second,
                      const struct direction *there, const struct direction *back)
{
    int fds[2], r = dragon_os_socket_pair(fds);

    if (r < 0)
        return dragon_py_raise_errno(-r);
    if (dragon_py_connection_begin(first, there->receiver, back->sender, fds[0]) < 0) {
        dragon_os_close(fds[0]);
        dragon_os_close(fds[1]);
        return -1;
    }
    if (dragon_py_connection_begin(second, back->receiver, there->sender, fds[1]) < 0) {
        dragon_py_connection_finish(first);
        dragon_os_close(fds[1]);
        return -1;
    }
    return 0;
}

PyDoc_STRVAR(connect_doc,
             "connect(first, second, duplex, max_messages, max_bytes, /)\n--\n\n"
             "Begin two new Connections as the ends of a Pipe: both, or none.\n\n"
             "duplex: both can send and receive; otherwise the first receives and the second\n"
             "sends. In each direction so much may be on its way.");

static PyObject *connect_two(PyObject *module, PyObject *args)
{
    struct dragon_py_state *state = dragon_py_state_of_module(module);
    struct dragon_py_connection *first, *second;
    struct dragon_channel_options options;
    struct direction there = {NULL, NULL}, back = {NULL, NULL};
    unsigned long long max_messages, max_bytes;
    int is_duplex, r;

    if (!PyArg_ParseTuple(args, "O!O!pKK:connect", state->connection_type, &first,
                          state->connection_type, &second, &is_duplex, &max_messages, &max_bytes))
        return NULL;
    options = (struct dragon_channel_options){max_messages, max_bytes};
    r = begin_direction(state, &options, &there);
    if (r == 0 && is_duplex)
        r = begin_direction(state, &options, &back);
    if (r == 0)
        r = connect_by(first, second, &there, &back);
    end_direction(&there);
    end_direction(&back);
    if (r < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef pair_functions[] = {
    {"connect", connect_two, METH_VARARGS, connect_doc},
    {NULL, NULL, 0, NULL},
};

int dragon_py_connection_pair_add(PyObject *module)
{
    return PyModule_AddFunctions(module, pair_functions);
}
