/*
 * A spare is a child-to-be, forked before anybody asked for it. For the process that will have
 * asked to be its parent in every respect (getppid, wait, SIGCHLD), it is forked by a *middle*
 * process of the fork server's. When the middle ends, the kernel gives the spare to the nearest
 * ancestor that adopts orphans; that is who asked, which adopts them just then, and it makes
 * SIGCHLD the signal of the spare's end.
 *
 *     starter ... seed --- fork server --- middle --- spare
 *        ^------------------------------------------------'   once the middle has ended
 *
 * runtime/os/fork.h has the rest; this file is what Python sees of it.
 */

#include "spare.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/deadline.h"
#include "node/node.h"
#include "os/fork.h"
#include "os/os.h"

static PyObject *os_error(int r)
{
    errno = -r;
    return PyErr_SetFromErrno(PyExc_OSError);
}

/* ---- the server's side ---- */

PyDoc_STRVAR(fork_spare_doc,
             "fork_spare()\n--\n\n"
             "Fork a spare. In this process: (0, pid of the middle, its stack). In the spare,\n"
             "where all else is as after os.fork(): (1, pid of the middle, the descriptor for\n"
             "release).\n\n"
             "Raises OSError.");

static PyObject *fork_spare(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    struct dragon_os_middle middle;
    int release_fd = -1;
    PyOS_BeforeFork();
    int r = dragon_os_fork_spare(&middle, &release_fd);
    if (r == DRAGON_OS_SPARE) {
        PyOS_AfterFork_Child();
        return Py_BuildValue("(iii)", 1, middle.pid, release_fd);
    }
    PyOS_AfterFork_Parent();
    return r < 0 ? os_error(r)
                 : Py_BuildValue("(iiN)", 0, middle.pid, PyLong_FromVoidPtr(middle.stack));
}

PyDoc_STRVAR(forget_middle_doc, "forget_middle(stack, /)\n--\n\n"
                                "The middle with that stack has ended and was waited for.");

static PyObject *forget_middle(PyObject *Py_UNUSED(module), PyObject *stack)
{
    struct dragon_os_middle middle = {.stack = PyLong_AsVoidPtr(stack)};
    if (!middle.stack && PyErr_Occurred()) {
        return NULL;
    }
    dragon_os_forget_middle(&middle);
    Py_RETURN_NONE;
}

/* ---- what a spare does when it is asked for ---- */

PyDoc_STRVAR(release_doc, "release(fd, /)\n--\n\n"
                          "Let the middle end. That takes it some time, in which the spare can\n"
                          "do other work, with all signals blocked.");

static PyObject *release(PyObject *Py_UNUSED(module), PyObject *fd)
{
    long number = PyLong_AsLong(fd);
    if (number == -1 && PyErr_Occurred()) {
        return NULL;
    }
    dragon_os_expect_adoption();
    (void)!write((int)number, "r", 1);
    dragon_os_close((int)number);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(die_with_parent_doc, "die_with_parent(parent_pid, /)\n--\n\n"
                                  "End when the parent ends, whose pid that is.\n\n"
                                  "Raises ProcessLookupError if it has ended.");

static PyObject *die_with_parent(PyObject *Py_UNUSED(module), PyObject *parent_pid)
{
    long number = PyLong_AsLong(parent_pid);
    if (number == -1 && PyErr_Occurred()) {
        return NULL;
    }
    int r = dragon_os_die_with_parent((int32_t)number);
    return r < 0 ? os_error(r) : Py_NewRef(Py_None);
}

PyDoc_STRVAR(wait_for_adoption_doc,
             "wait_for_adoption(middle_pid, timeout, /)\n--\n\n"
             "Wait until the middle has ended; the pid of the parent from then on.\n\n"
             "Raises TimeoutError after timeout seconds.");

static PyObject *wait_for_adoption(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    int middle_pid;
    double timeout_s;
    if (!PyArg_ParseTuple(arguments, "id", &middle_pid, &timeout_s)) {
        return NULL;
    }
    int64_t deadline_ns = dragon_deadline_after_ns((int64_t)(timeout_s * 1e9));
    int r = dragon_os_wait_for_adoption(middle_pid, deadline_ns);
    return r < 0 ? os_error(r) : PyLong_FromLong(getppid());
}

PyDoc_STRVAR(join_node_doc, "join_node(fd, /)\n--\n\n"
                            "Join the node whose default pool is behind fd, which is consumed.\n\n"
                            "Raises OSError; ProcessLookupError if the node's head has ended.");

static PyObject *join_node(PyObject *Py_UNUSED(module), PyObject *fd)
{
    long number = PyLong_AsLong(fd);
    if (number == -1 && PyErr_Occurred()) {
        return NULL;
    }
    const struct dragon_node_options options = {.attach_fd = (int)number, .start_threads = true};
    dragon_node_plan(&options);
    return dragon_node_current() ? Py_NewRef(Py_None) : os_error(dragon_node_error());
}

PyDoc_STRVAR(set_blocked_signals_doc,
             "set_blocked_signals(mask, /)\n--\n\n"
             "Block the signals whose bits are set, SIGHUP being bit 0, and\n"
             "no others.");

static PyObject *set_blocked_signals(PyObject *Py_UNUSED(module), PyObject *mask)
{
    uint64_t bits = PyLong_AsUnsignedLongLong(mask);
    if (PyErr_Occurred()) {
        return NULL;
    }
    dragon_os_set_blocked_signals(bits);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(leave_doc, "leave(status, /)\n--\n\n"
                        "Leave the node and exit, without taking the interpreter down.");

static PyObject *leave(PyObject *Py_UNUSED(module), PyObject *status)
{
    long number = PyLong_AsLong(status);
    if (number == -1 && PyErr_Occurred()) {
        return NULL;
    }
    dragon_node_leave();
    exit((int)number & 0xff);
}

/* ---- what the starter does ---- */

PyDoc_STRVAR(adopt_orphans_doc,
             "adopt_orphans(adopts, /)\n--\n\n"
             "Become, or cease to be, the process that the kernel gives orphaned descendants\n"
             "to. Returns whether it was.");

static PyObject *adopt_orphans(PyObject *Py_UNUSED(module), PyObject *adopts)
{
    bool was = false;
    int truth = PyObject_IsTrue(adopts);
    if (truth < 0) {
        return NULL;
    }
    int r = dragon_os_adopt_orphans(truth != 0, &was);
    return r < 0 ? os_error(r) : PyBool_FromLong(was);
}

PyDoc_STRVAR(environment_doc,
             "environment()\n--\n\n"
             "The C library's variables, NAME=value, each with its NUL. os.environ shows\n"
             "nothing that C code has set.");

static PyObject *environment(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    size_t size_bytes = 0;
    for (char **variable = environ; variable && *variable; variable++) {
        size_bytes += strlen(*variable) + 1;
    }
    PyObject *text = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size_bytes);
    char *at = text ? PyBytes_AS_STRING(text) : NULL;
    for (char **variable = environ; at && variable && *variable; variable++) {
        at = stpcpy(at, *variable) + 1;
    }
    return text;
}

PyMethodDef dragon_spare_methods[] = {
    {"fork_spare", fork_spare, METH_NOARGS, fork_spare_doc},
    {"forget_middle", forget_middle, METH_O, forget_middle_doc},
    {"die_with_parent", die_with_parent, METH_O, die_with_parent_doc},
    {"release", release, METH_O, release_doc},
    {"wait_for_adoption", wait_for_adoption, METH_VARARGS, wait_for_adoption_doc},
    {"join_node", join_node, METH_O, join_node_doc},
    {"set_blocked_signals", set_blocked_signals, METH_O, set_blocked_signals_doc},
    {"leave", leave, METH_O, leave_doc},
    {"adopt_orphans", adopt_orphans, METH_O, adopt_orphans_doc},
    {"environment", environment, METH_NOARGS, environment_doc},
    {NULL, NULL, 0, NULL},
};
