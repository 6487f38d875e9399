#include "arguments.h"

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
    if (n_args + n_keywords > n_names) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most %zd argument%s (%zd given)", function,
                     n_names, n_names == 1 ? "" : "s", n_args + n_keywords);
        return -1;
    }
    for (Py_ssize_t i = 0; i < n_args; i++)
        values[i] = args[i];
    for (Py_ssize_t i = 0; i < n_keywords; i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i);
        Py_ssize_t at = index_of_name(names, name);

        if (at < 0 || at < n_args) {
            PyErr_Format(PyExc_TypeError,
                         at < 0 ? "'%U' is an invalid keyword argument for %s()"
                                : "argument '%U' of %s() given by name and position",
                         name, function);
            return -1;
        }
        values[at] = args[n_args + i];
    }
    return 0;
}
