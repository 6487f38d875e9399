#include "adoption.h"

#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

#include "os/fork.h"

/* Changed with the GIL held. A forked copy is not inside, and the kernel made it adopt nobody. */
static struct {
    int32_t pid;
    unsigned n_inside;
    bool adopted_before;
} adoption;

PyDoc_STRVAR(enter_doc, "__enter__()\n--\n\n"
                        "Adopt orphans from now on. Whether that is possible.");

static PyObject *enter(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(unused))
{
    int32_t pid = getpid();
    if (adoption.pid != pid) {
        adoption.pid = pid;
        adoption.n_inside = 0;
    }
    bool is_possible =
        adoption.n_inside > 0 || dragon_os_adopt_orphans(true, &adoption.adopted_before) == 0;
    if (!is_possible) {
        adoption.adopted_before = true; /* there is nothing to undo */
    }
    adoption.n_inside++;
    return PyBool_FromLong(is_possible);
}

PyDoc_STRVAR(leave_doc, "__exit__(*exception)\n--\n\n"
                        "With the last one inside: adopt nobody, unless it did before.");

static PyObject *leave(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(exception))
{
    bool adopts;
    if (adoption.pid == getpid() && adoption.n_inside > 0 && --adoption.n_inside == 0 &&
        !adoption.adopted_before) {
        (void)dragon_os_adopt_orphans(false, &adopts);
    }
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"__enter__", enter, METH_NOARGS, enter_doc},
    {"__exit__", leave, METH_VARARGS, leave_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "_dragon_launch.Adoption",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

PyObject *dragon_adoption_new(void)
{
    PyObject *type = PyType_FromSpec(&spec);
    if (!type) {
        return NULL;
    }
    PyObject *only = PyType_GenericAlloc((PyTypeObject *)type, 0);
    Py_DECREF(type);
    return only;
}
