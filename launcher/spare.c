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
#include "os/pages.h"
#include "os/rights.h"

static PyObject *os_error(int r)
{
    errno = -r;
    return PyErr_SetFromErrno(PyExc_OSError);
}

/* The number that value is, into number_out. False, with an exception, if it is none. */
static bool is_number(PyObject *value, int32_t *number_out)
{
    long number = PyLong_AsLong(value);
    *number_out = (int32_t)number;
    return number != -1 || !PyErr_Occurred();
}

/* ---- the server's side ---- */

PyDoc_STRVAR(fork_spare_doc,
             "fork_spare()\n--\n\n"
             "Fork a spare. In this process: (False, pid of the middle, its stack).\n"
             "In the spare, where all else is as after os.fork(): (True, pid of the\n"
             "middle, 0).\n\n"
             "Raises OSError.");

static PyObject *fork_spare(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    struct dragon_os_middle middle;
    PyOS_BeforeFork();
    int r = dragon_os_fork_spare(&middle);
    if (r == DRAGON_OS_SPARE) {
        PyOS_AfterFork_Child();
        return Py_BuildValue("(Oii)", Py_True, middle.pid, 0);
    }
    PyOS_AfterFork_Parent();
    return r < 0 ? os_error(r)
                 : Py_BuildValue("(OiN)", Py_False, middle.pid, PyLong_FromVoidPtr(middle.stack));
}

PyDoc_STRVAR(dismiss_spare_doc,
             "dismiss_spare(middle_pid, /)\n--\n\n"
             "Have the spare of a middle killed that was not waited for yet, unless\n"
             "the spare has released it.");

static PyObject *dismiss_spare(PyObject *Py_UNUSED(module), PyObject *middle_pid)
{
    int32_t number;
    if (!is_number(middle_pid, &number)) {
        return NULL;
    }
    const struct dragon_os_middle middle = {.pid = number};
    dragon_os_dismiss_spare(&middle);
    Py_RETURN_NONE;
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

/* ---- pages that children write ---- */

/* Begun in a fork server; its children inherit it. */
static struct dragon_os_written_pages written_pages;

PyDoc_STRVAR(begin_pages_doc, "begin_pages()\n--\n\n"
                              "In a fork server: know of no pages that children write.");

static PyObject *begin_pages(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    dragon_os_pages_begin(&written_pages);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(note_pages_doc,
             "note_pages()\n--\n\n"
             "In a child: what this one has written so far, the next ones will write.\n"
             "Does nothing in all but the first, or in one that was executed.");

static PyObject *note_pages(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    dragon_os_pages_note(&written_pages);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(populate_pages_doc, "populate_pages()\n--\n\n"
                                 "In a spare: copy the pages that it will write.");

static PyObject *populate_pages(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    dragon_os_pages_populate(&written_pages);
    Py_RETURN_NONE;
}

/* ---- what a spare does when it is asked for ---- */

PyDoc_STRVAR(rights_doc, "rights()\n--\n\n"
                         "What this process is allowed to do, for has_rights.\n\n"
                         "Raises OSError.");

static PyObject *rights(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    struct dragon_os_rights found;
    int r = dragon_os_rights(&found);
    return r < 0 ? os_error(r) : PyBytes_FromStringAndSize((const char *)&found, sizeof found);
}

PyDoc_STRVAR(has_rights_doc, "has_rights(pid, rights, /)\n--\n\n"
                             "Whether the process is allowed to do now what rights() said.");

static PyObject *has_rights(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    struct dragon_os_rights wanted;
    const char *bytes;
    Py_ssize_t size_bytes;
    int pid;
    if (!PyArg_ParseTuple(arguments, "iy#", &pid, &bytes, &size_bytes)) {
        return NULL;
    }
    if (size_bytes != sizeof wanted) {
        PyErr_SetString(PyExc_ValueError, "these are no rights");
        return NULL;
    }
    memcpy(&wanted, bytes, sizeof wanted);
    return PyBool_FromLong(dragon_os_check_rights(pid, &wanted) == 0);
}

PyDoc_STRVAR(release_doc, "release(middle_pid, /)\n--\n\n"
                          "Let the middle end. That takes it some time, in which the spare can\n"
                          "do other work, with all signals blocked.");

static PyObject *release(PyObject *Py_UNUSED(module), PyObject *middle_pid)
{
    int32_t number;
    if (!is_number(middle_pid, &number)) {
        return NULL;
    }
    dragon_os_expect_adoption();
    dragon_os_release_middle(number);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(die_with_parent_doc, "die_with_parent(parent_pid, /)\n--\n\n"
                                  "End when the parent ends, whose pid that is.\n\n"
                                  "Raises ProcessLookupError if it has ended.");

static PyObject *die_with_parent(PyObject *Py_UNUSED(module), PyObject *parent_pid)
{
    int32_t number;
    if (!is_number(parent_pid, &number)) {
        return NULL;
    }
    int r = dragon_os_die_with_parent(number);
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
    int32_t number;
    if (!is_number(fd, &number)) {
        return NULL;
    }
    const struct dragon_node_options options = {.attach_fd = number, .start_threads = true};
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

PyDoc_STRVAR(leave_doc, "leave(status, has_threads, /)\n--\n\n"
                        "Leave the node and exit, without taking the interpreter down.\n\n"
                        "With other threads, what this process has in shared memory is given back\n"
                        "by others when it is gone.");

static PyObject *leave(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *status;
    int has_threads;
    int32_t number;
    if (!PyArg_ParseTuple(args, "Op:leave", &status, &has_threads) || !is_number(status, &number)) {
        return NULL;
    }
    if (has_threads) {
        dragon_node_leave_threads_behind();
    } else {
        dragon_node_leave();
    }
    exit(number & 0xff);
}

/* ---- what the starter does ---- */

/* A NULL-terminated vector of the strings that lie one after another in text, each with its NUL. */
static char **strings_in(char *text, Py_ssize_t size_bytes)
{
    size_t n = 0;
    for (Py_ssize_t i = 0; i < size_bytes; i++) {
        n += text[i] == '\0';
    }
    char **strings = calloc(n + 1, sizeof *strings);
    for (size_t i = 0; strings && i < n; i++) {
        strings[i] = text;
        text += strlen(text) + 1;
    }
    if (!strings) {
        PyErr_NoMemory();
    }
    return strings;
}

PyDoc_STRVAR(
    execute_hidden_doc,
    "execute_hidden(words, variables, fd, at_fd, /)\n--\n\n"
    "Execute this executable, hidden from wait(), with fd as its descriptor at_fd. words,\n"
    "variables: bytes, each word and NAME=value with its NUL.\n\n"
    "Raises OSError.");

static PyObject *execute_hidden(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    char *words, *variables;
    Py_ssize_t words_bytes, variables_bytes;
    int fd, at_fd, r = 0;
    if (!PyArg_ParseTuple(arguments, "y#y#ii", &words, &words_bytes, &variables, &variables_bytes,
                          &fd, &at_fd)) {
        return NULL;
    }
    char **word_list = strings_in(words, words_bytes);
    char **variable_list = word_list ? strings_in(variables, variables_bytes) : NULL;
    if (variable_list) {
        Py_BEGIN_ALLOW_THREADS
        r = dragon_os_execute_hidden(word_list, variable_list, fd, at_fd);
        Py_END_ALLOW_THREADS
    }
    bool has_memory = variable_list != NULL;
    free(word_list);
    free(variable_list);
    if (!has_memory) {
        return NULL;
    }
    return r < 0 ? os_error(r) : Py_NewRef(Py_None);
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
    {"dismiss_spare", dismiss_spare, METH_O, dismiss_spare_doc},
    {"forget_middle", forget_middle, METH_O, forget_middle_doc},
    {"begin_pages", begin_pages, METH_NOARGS, begin_pages_doc},
    {"note_pages", note_pages, METH_NOARGS, note_pages_doc},
    {"populate_pages", populate_pages, METH_NOARGS, populate_pages_doc},
    {"die_with_parent", die_with_parent, METH_O, die_with_parent_doc},
    {"release", release, METH_O, release_doc},
    {"rights", rights, METH_NOARGS, rights_doc},
    {"has_rights", has_rights, METH_VARARGS, has_rights_doc},
    {"wait_for_adoption", wait_for_adoption, METH_VARARGS, wait_for_adoption_doc},
    {"join_node", join_node, METH_O, join_node_doc},
    {"set_blocked_signals", set_blocked_signals, METH_O, set_blocked_signals_doc},
    {"leave", leave, METH_VARARGS, leave_doc},
    {"execute_hidden", execute_hidden, METH_VARARGS, execute_hidden_doc},
    {"environment", environment, METH_NOARGS, environment_doc},
    {NULL, NULL, 0, NULL},
};
