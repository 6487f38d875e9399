#include "arguments.h"

#include "base/deadline.h"

static Py_ssize_t index_of_name(const char *const *names, PyObject *name)
{
    for (Py_ssize_t i = 0; names[i]; i++)
        if (PyUnicode_CompareWithASCIIString(name, names[i]) == 0)
            return i;
    return -1;
}

int dragon_py_arguments(const char *function, const char *const *names, PyObject *const *args,
                        Py_ssize_t n_args, PyObject *kwnames, PyObject **values)
{
    Py_ssize_t n_keywords = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
    Py_ssize_t n_names = 0;

    while (names[n_names])
        n_names++;
    if (n_args > n_names) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most %zd argument%s (%zd given)", function,
                     n_names, n_names == 1 ? "" : "s", n_args);
        return -1;
    }
    for (Py_ssize_t i = 0; i < n_args; i++)
        values[i] = args[i];
    for (Py_ssize_t i = 0; i < n_keywords; i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i);
        Py_ssize_t at = index_of_name(names, name);

        if (at < 0 || at < n_args) {
            PyErr_Format(PyExc_TypeError,
                         at < 0 ? "%s() got an unexpected keyword argument '%U'"
                                : "%s() got multiple values for argument '%U'",
                         function, name);
            return -1;
        }
        values[at] = args[n_args + i];
    }
    return 0;
}

int dragon_py_require_argument(const char *function, const char *name, const PyObject *value)
{
    if (value)
        return 0;
    PyErr_Format(PyExc_TypeError, "%s() missing 1 required positional argument: '%s'", function,
                 name);
    return -1;
}

int dragon_py_deadline_of_wait(PyObject *block, PyObject *timeout, int64_t *deadline_ns_out)
{
    int blocks = !block || block == Py_True ? 1 : PyObject_IsTrue(block);

    if (blocks < 0)
        return -1;
    if (!blocks) {
        *deadline_ns_out = DRAGON_AT_ONCE;
        return 0;
    }
    return dragon_py_deadline(timeout ? timeout : Py_None, deadline_ns_out);
}
