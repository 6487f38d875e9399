#include "module.h"
#include "object.h"
#include "patience.h"
#include "pool.h"

#include "base/error.h"
#include "memory/pool.h"
#include "node/node.h"
#include "os/cgroup.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>

/* ---- state ---- */

struct dragon_py_state *dragon_py_state_of_module(PyObject *module)
{
    return PyModule_GetState(module);
}

struct dragon_py_state *dragon_py_state_of(PyTypeObject *type)
{
    PyObject *module = PyType_GetModuleByDef(type, &dragon_py_module);

    return module ? dragon_py_state_of_module(module) : NULL;
}

PyTypeObject *dragon_py_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject *base)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, (PyObject *)base);

    if (type && PyModule_AddType(module, (PyTypeObject *)type) < 0)
        Py_CLEAR(type);
    return (PyTypeObject *)type;
}

static PyObject *of_queue_module(PyObject **kept, const char *name)
{
    PyObject *module;

    if (!*kept) {
        module = PyImport_ImportModule("queue");
        *kept = module ? PyObject_GetAttrString(module, name) : NULL;
        Py_XDECREF(module);
    }
    return *kept;
}

PyObject *dragon_py_queue_full(struct dragon_py_state *state)
{
    return of_queue_module(&state->queue_full, "Full");
}

PyObject *dragon_py_queue_empty(struct dragon_py_state *state)
{
    return of_queue_module(&state->queue_empty, "Empty");
}

/* ---- the node ---- */

static struct dragon_node *require_node(void)
{
    struct dragon_node *node = dragon_node_current();
    int error;

    if (node)
        return node;
    error = dragon_node_error();
    if (error < 0)
        PyErr_Format(PyExc_RuntimeError,
                     "the dragon runtime of this process could not be opened: %s",
                     error == -ESRCH ? "the program it belongs to has ended" : strerror(-error));
    else
        PyErr_SetString(PyExc_RuntimeError,
                        "this process has no dragon runtime: run the program with `dragon` "
                        "(and without --no-runtime)");
    return NULL;
}

struct dragon_pool *dragon_py_default_pool(void)
{
    struct dragon_node *node = require_node();

    return node ? dragon_node_pool(node) : NULL;
}

PyDoc_STRVAR(has_node_doc, "has_node()\n--\n\nTrue if this process is part of a dragon runtime.");

static PyObject *has_node(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    return PyBool_FromLong(dragon_node_current() != NULL);
}

PyDoc_STRVAR(node_id_doc, "node_id()\n--\n\n"
                          "The number of the node, which no other node has: 64 random bits.");

static PyObject *node_id(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    struct dragon_node *node = require_node();

    return node ? PyLong_FromUnsignedLongLong(dragon_pool_handle(dragon_node_pool(node), 0, 0).node)
                : NULL;
}

PyDoc_STRVAR(is_head_doc, "is_head()\n--\n\nTrue in the process whose end ends the node.");

static PyObject *is_head(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    struct dragon_node *node = require_node();

    return node ? PyBool_FromLong(dragon_node_is_head(node)) : NULL;
}

PyDoc_STRVAR(begin_doc, "begin()\n--\n\nThe node will be needed soon: begin to open it. Does not "
                        "wait.");

static PyObject *begin(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    dragon_node_begin();
    Py_RETURN_NONE;
}

PyDoc_STRVAR(node_fd_doc, "node_fd()\n--\n\n"
                          "The descriptor of the default pool: what a child needs to join.");

static PyObject *node_fd(PyObject *module, PyObject *Py_UNUSED(unused))
{
    struct dragon_node *node = require_node();
    int r;

    if (!node)
        return NULL;
    r = dragon_node_invite(node);
    if (r == 0)
        r = dragon_pool_fd(dragon_node_pool(node));
    if (r < 0)
        return dragon_py_raise(dragon_py_state_of_module(module), r, "node_fd");
    return PyLong_FromLong(r);
}

PyDoc_STRVAR(watch_child_doc, "watch_child(pid, /)\n--\n\n"
                              "Have the supervisor take back what a child held when it dies.");

static PyObject *watch_child(PyObject *module, PyObject *pid)
{
    struct dragon_node *node = require_node();
    long number = PyLong_AsLong(pid);
    int r;

    if (!node || (number == -1 && PyErr_Occurred()))
        return NULL;
    r = dragon_node_watch_child(node, (int32_t)number);
    if (r == -ESRCH) /* it has come and gone: nothing to watch */
        Py_RETURN_NONE;
    if (r < 0)
        return dragon_py_raise(dragon_py_state_of_module(module), r, "watch_child");
    Py_RETURN_NONE;
}

PyDoc_STRVAR(follow_doc, "follow(pid, /)\n--\n\n"
                         "End this process as soon as process pid has ended.");

static PyObject *follow(PyObject *module, PyObject *pid)
{
    struct dragon_node *node = require_node();
    long number = PyLong_AsLong(pid);
    int r;

    if (!node || (number == -1 && PyErr_Occurred()))
        return NULL;
    r = dragon_node_follow(node, (int32_t)number);
    if (r < 0)
        return dragon_py_raise(dragon_py_state_of_module(module), r, "follow");
    Py_RETURN_NONE;
}

PyDoc_STRVAR(set_name_doc, "set_name(name, /)\n--\n\n"
                           "Give this process its name for people, in the node's table.");

static PyObject *set_name(PyObject *module, PyObject *name)
{
    struct dragon_node *node = require_node();
    const char *text = node ? PyUnicode_AsUTF8(name) : NULL;
    int r;

    if (!text && node && PyErr_ExceptionMatches(PyExc_UnicodeError)) {
        PyErr_Clear(); /* surrogates: a process without a name */
        Py_RETURN_NONE;
    }
    if (!text)
        return NULL;
    r = dragon_node_set_name(node, text);
    if (r < 0)
        return dragon_py_raise(dragon_py_state_of_module(module), r, "set_name");
    Py_RETURN_NONE;
}

PyDoc_STRVAR(set_patience_doc,
             "set_patience(seconds, /)\n--\n\n"
             "For tests: waits are told of the dead after so long, in this process.");

static PyObject *set_patience(PyObject *Py_UNUSED(module), PyObject *seconds)
{
    double number = PyFloat_AsDouble(seconds);

    if (number == -1.0 && PyErr_Occurred())
        return NULL;
    dragon_py_patience_ns = (int64_t)(number * DRAGON_NS_PER_S);
    dragon_py_look_ns =
        dragon_py_patience_ns < DRAGON_NS_PER_S ? dragon_py_patience_ns : DRAGON_NS_PER_S;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(close_objects_doc,
             "close_objects()\n--\n\n"
             "Give back all uses of shared objects, when this process ends: none\n"
             "of them may be used any more, by any thread.");

static PyObject *close_objects(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    dragon_py_object_release_all();
    Py_RETURN_NONE;
}

PyDoc_STRVAR(pool_statistics_doc, "pool_statistics()\n--\n\n"
                                  "The default pool's numbers, as Pool.statistics().");

static PyObject *pool_statistics(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    struct dragon_pool *pool = dragon_py_default_pool();

    return pool ? dragon_py_pool_statistics(pool) : NULL;
}

PyDoc_STRVAR(last_error_doc, "last_error()\n--\n\n"
                             "Where this thread's last error in the runtime came from, as\n"
                             "\"a.c:12 < b.c:40\"; empty if there was none.");

static PyObject *last_error(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    char path[1024];

    dragon_error_path(path, sizeof path);
    return PyUnicode_FromString(path);
}

PyDoc_STRVAR(cpu_limit_doc,
             "cpu_limit()\n--\n\n"
             "Return how many processors the quotas of this process's control groups are worth,\n"
             "rounded up, at least 1; None if there is no quota.");

static PyObject *cpu_limit(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    uint64_t limit = dragon_cgroup_cpu_limit("");

    if (limit == UINT64_MAX)
        Py_RETURN_NONE;
    return PyLong_FromUnsignedLongLong(limit);
}

static PyMethodDef module_functions[] = {
    {"begin", begin, METH_NOARGS, begin_doc},
    {"is_head", is_head, METH_NOARGS, is_head_doc},
    {"has_node", has_node, METH_NOARGS, has_node_doc},
    {"node_id", node_id, METH_NOARGS, node_id_doc},
    {"node_fd", node_fd, METH_NOARGS, node_fd_doc},
    {"watch_child", watch_child, METH_O, watch_child_doc},
    {"follow", follow, METH_O, follow_doc},
    {"set_name", set_name, METH_O, set_name_doc},
    {"set_patience", set_patience, METH_O, set_patience_doc},
    {"close_objects", close_objects, METH_NOARGS, close_objects_doc},
    {"last_error", last_error, METH_NOARGS, last_error_doc},
    {"pool_statistics", pool_statistics, METH_NOARGS, pool_statistics_doc},
    {"cpu_limit", cpu_limit, METH_NOARGS, cpu_limit_doc},
    {NULL, NULL, 0, NULL},
};

/* ---- forks ---- */

uint32_t dragon_py_fork_generation;

static void note_fork(void)
{
    dragon_py_fork_generation++;
}

static int note_forks(PyObject *Py_UNUSED(module))
{
    static bool are_noted;

    if (!are_noted && pthread_atfork(NULL, NULL, note_fork) != 0) {
        PyErr_NoMemory();
        return -1;
    }
    are_noted = true;
    return 0;
}

/* ---- the module ---- */

static int add_exceptions(PyObject *module)
{
    struct dragon_py_state *state = dragon_py_state_of_module(module);

    state->pool_full = PyErr_NewExceptionWithDoc(
        "_dragon.PoolFull",
        "A pool cannot give a block: its limit or the system's memory is reached. Nothing was "
        "lost; the operation can be tried again.",
        PyExc_MemoryError, NULL);
    state->stale_handle = PyErr_NewExceptionWithDoc(
        "_dragon.StaleHandle",
        "The name of a shared object leads nowhere: it was closed by its last user, or belongs "
        "to another program.",
        PyExc_OSError, NULL);
    if (!state->pool_full || !state->stale_handle)
        return -1;
    state->destroyed = PyErr_NewExceptionWithDoc(
        "_dragon.Destroyed",
        "Somebody has destroyed the channel or lock; it may be while we waited.",
        state->stale_handle, NULL);
    if (!state->destroyed || PyModule_AddObjectRef(module, "Destroyed", state->destroyed) < 0 ||
        PyModule_AddObjectRef(module, "PoolFull", state->pool_full) < 0 ||
        PyModule_AddObjectRef(module, "StaleHandle", state->stale_handle) < 0)
        return -1;
    return 0;
}

static int module_exec(PyObject *module)
{
    static int (*const adders[])(PyObject *) = {
        add_exceptions,
        dragon_py_object_add,
        dragon_py_block_add,
        dragon_py_codec_add,
        dragon_py_queue_add,
        dragon_py_semaphore_add,
        dragon_py_event_add,
        dragon_py_condition_add,
        dragon_py_barrier_add,
        dragon_py_pool_add,
        dragon_py_channel_add,
        dragon_py_channel_set_add,
        dragon_py_lock_add,
        dragon_py_shared_buffer_add,
        dragon_py_synchronized_add,
        dragon_py_pipe_add,
        dragon_py_connection_add,
        dragon_py_connection_wait_add,
        dragon_py_place_words_add,
        dragon_py_worker_loop_add,
        dragon_py_result_iterator_add,
        dragon_py_connection_pair_add,
        dragon_py_desk_add,
        note_forks,
    };

    for (size_t i = 0; i < sizeof adders / sizeof adders[0]; i++)
        if (adders[i](module) < 0)
            return -1;
    return 0;
}

#define VISIT_ALL(DO)                                                                              \
    DO(object_type);                                                                               \
    DO(queue_type);                                                                                \
    DO(simple_queue_type);                                                                         \
    DO(semaphore_type);                                                                            \
    DO(event_type);                                                                                \
    DO(condition_type);                                                                            \
    DO(barrier_type);                                                                              \
    DO(block_type);                                                                                \
    DO(pool_type);                                                                                 \
    DO(allocation_type);                                                                           \
    DO(channel_type);                                                                              \
    DO(lock_type);                                                                                 \
    DO(shared_buffer_type);                                                                        \
    DO(synchronized_type);                                                                         \
    DO(pipe_type);                                                                                 \
    DO(connection_type);                                                                           \
    DO(place_words_type);                                                                          \
    DO(worker_loop_type);                                                                          \
    DO(result_iterator_type);                                                                      \
    DO(desk_type);                                                                                 \
    DO(call_type);                                                                                 \
    DO(queue_full);                                                                                \
    DO(queue_empty);                                                                               \
    DO(pool_full);                                                                                 \
    DO(stale_handle);                                                                              \
    DO(destroyed);                                                                                 \
    DO(sink_type);                                                                                 \
    DO(letter_type);                                                                               \
    DO(sink);                                                                                      \
    DO(pickler);                                                                                   \
    DO(extra_reducers);                                                                            \
    DO(copyreg_table);                                                                             \
    DO(unpickle)

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct dragon_py_state *state = dragon_py_state_of_module(module);

#define VISIT(field) Py_VISIT(state->field)
    VISIT_ALL(VISIT);
#undef VISIT
    return 0;
}

static int module_clear(PyObject *module)
{
    struct dragon_py_state *state = dragon_py_state_of_module(module);

#define CLEAR(field) Py_CLEAR(state->field)
    VISIT_ALL(CLEAR);
#undef CLEAR
    return 0;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {0, NULL},
};

struct PyModuleDef dragon_py_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_dragon",
    .m_doc = PyDoc_STR("The dragon runtime. Private: use the packages dragon and multiprocessing."),
    .m_size = sizeof(struct dragon_py_state),
    .m_methods = module_functions,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
};

PyMODINIT_FUNC PyInit__dragon(void);

PyMODINIT_FUNC PyInit__dragon(void)
{
    return PyModuleDef_Init(&dragon_py_module);
}
