/*
 * `_dragon_launch` has no state of its own: the table is constant and the options belong to main().
 * The pointer to them is the one mutable global here; it is written once, before Python starts,
 * because the initialiser of a built-in module cannot be given an argument.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "overlay.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "adoption.h"
#include "options.h"
#include "seed.h"
#include "spare.h"
#include "title.h"

static const struct dragon_options *launch_options;

PyMODINIT_FUNC PyInit__dragon(void);
PyMODINIT_FUNC PyInit__dragon_launch(void);

static int compare_name(const void *name, const void *module)
{
    return strcmp(name, ((const struct dragon_overlay_module *)module)->name);
}

static const struct dragon_overlay_module *find_module(const char *name)
{
    return bsearch(name, dragon_overlay_modules, dragon_overlay_n_modules,
                   sizeof dragon_overlay_modules[0], compare_name);
}

PyDoc_STRVAR(find_doc, "find(name, /)\n--\n\n"
                       "Return (path, is_package, source, code) of an embedded module, or None.");

static PyObject *launch_find(PyObject *Py_UNUSED(self), PyObject *name)
{
    const char *text = PyUnicode_AsUTF8(name);
    if (!text) {
        return NULL;
    }
    const struct dragon_overlay_module *module = find_module(text);
    if (!module) {
        Py_RETURN_NONE;
    }
    return Py_BuildValue("(sOy#y#)", module->path, module->is_package ? Py_True : Py_False,
                         (const char *)module->source, (Py_ssize_t)module->source_size_bytes,
                         (const char *)module->code, (Py_ssize_t)module->code_size_bytes);
}

/* Append item, which is consumed; *list becomes NULL if that, or what made item, failed. */
static void append(PyObject **list, PyObject *item)
{
    if (!item || PyList_Append(*list, item) < 0) {
        Py_CLEAR(*list);
    }
    Py_XDECREF(item);
}

PyDoc_STRVAR(child_options_doc,
             "child_options()\n--\n\n"
             "Return the dragon options that a child process needs besides --attach-node.");

static PyObject *launch_child_options(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(unused))
{
    PyObject *options = PyList_New(0);
    if (options && launch_options->start_method) {
        append(&options, PyUnicode_FromFormat("--start-method=%s", launch_options->start_method));
    }
    if (options && launch_options->is_portable) {
        append(&options, PyUnicode_FromString("--portable"));
    }
    return options;
}

PyDoc_STRVAR(seed_is_like_us_doc, "seed_is_like_us()\n--\n\n"
                                  "Whether this process may still do what the seed may, and so be\n"
                                  "served by it.");

static PyObject *launch_seed_is_like_us(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(unused))
{
    return PyBool_FromLong(dragon_seed_is_like_us());
}

PyDoc_STRVAR(seed_doc, "seed()\n--\n\n"
                       "(the seed's socket, 0), or (-1, errno) if there is no seed.");

static PyObject *launch_seed(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(unused))
{
    return Py_BuildValue("(ii)", dragon_seed_socket(), -dragon_seed_error());
}

PyDoc_STRVAR(set_title_doc,
             "set_title(text, /)\n--\n\n"
             "Show text as the command line and, cut to 15 bytes, as the name of this process.\n\n"
             "From the main thread. It is cut where there is no more room, and at a NUL.");

static PyObject *launch_set_title(PyObject *Py_UNUSED(self), PyObject *text)
{
    if (!PyUnicode_Check(text)) {
        return PyErr_Format(PyExc_TypeError, "set_title: str expected, not %.200s",
                            Py_TYPE(text)->tp_name);
    }
    PyObject *bytes = PyUnicode_AsEncodedString(text, "utf-8", "replace");
    if (!bytes) {
        return NULL;
    }
    dragon_title_set(PyBytes_AS_STRING(bytes));
    Py_DECREF(bytes);
    Py_RETURN_NONE;
}

static PyMethodDef launch_methods[] = {
    {"seed", launch_seed, METH_NOARGS, seed_doc},
    {"seed_is_like_us", launch_seed_is_like_us, METH_NOARGS, seed_is_like_us_doc},
    {"find", launch_find, METH_O, find_doc},
    {"child_options", launch_child_options, METH_NOARGS, child_options_doc},
    {"set_title", launch_set_title, METH_O, set_title_doc},
    {NULL, NULL, 0, NULL},
};

/* PyModule_AddObjectRef, which takes NULL for value as a failure before it. Consumes value. */
static int add_constant(PyObject *module, const char *name, PyObject *value)
{
    int r = PyModule_AddObjectRef(module, name, value);
    Py_XDECREF(value);
    return r;
}

/* The functions are added here and not through m_methods because faulthandler takes a module with
 * those for an extension, and would name it in each of its reports. */
static int launch_exec(PyObject *module)
{
    if (PyModule_AddFunctions(module, launch_methods) < 0 ||
        PyModule_AddFunctions(module, dragon_spare_methods) < 0) {
        return -1;
    }
    PyObject *start_method = launch_options->start_method
                                 ? PyUnicode_FromString(launch_options->start_method)
                                 : Py_NewRef(Py_None);
    if (add_constant(module, "start_method", start_method) < 0) {
        return -1;
    }
    bool is_child = launch_options->attach_fd >= 0 || launch_options->is_fork_server;
    if (add_constant(module, "is_child", PyBool_FromLong(is_child)) < 0) {
        return -1;
    }
    if (add_constant(module, "is_portable", PyBool_FromLong(launch_options->is_portable)) < 0) {
        return -1;
    }
    if (add_constant(module, "adopting", dragon_adoption_new()) < 0) {
        return -1;
    }
    return add_constant(module, "version", PyUnicode_FromString(DRAGON_VERSION));
}

static PyModuleDef_Slot launch_slots[] = {
    {Py_mod_exec, launch_exec},
    {0, NULL},
};

static struct PyModuleDef launch_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_dragon_launch",
    .m_doc = "What the dragon executable carries and how it was started.",
    .m_slots = launch_slots,
};

PyMODINIT_FUNC PyInit__dragon_launch(void)
{
    return PyModuleDef_Init(&launch_module);
}

int dragon_overlay_register(const struct dragon_options *options)
{
    launch_options = options;
    if (PyImport_AppendInittab("_dragon_launch", PyInit__dragon_launch) < 0 ||
        PyImport_AppendInittab("_dragon", PyInit__dragon) < 0) {
        return -ENOMEM;
    }
    return 0;
}
