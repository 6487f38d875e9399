#include "adoption.h"

#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

#include "os/fork.h"

/* Changed with the GIL held. A forked copy is not inside, and the kernel made it adopt nobody. */
static struct {
    int32_t pid;
    unsigned n_inside;
    int error; /* of those who are inside */
    bool adopted_before;
} adoption;

PyDoc_STRVAR(enter_doc,
             "__enter__()\n--\n\n"
             "Adopt orphans from now on. 0, or the errno that says why that is impossible.");

static PyObject *enter(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(unused))
{
    int32_t pid = getpid();
    if (adoption.pid != pid) {
        adoption.pid = pid;
        adoption.n_inside = 0;
    }
    if (adoption.n_inside == 0) {
        adoption.adopted_before = true; /* should it be impossible, there is nothing to undo */
        adoption.error = dragon_os_adopt_orphans(true, &adoption.adopted_before);
    }
    adoption.n_inside++;
    return PyLong_FromLong(-adoption.error);
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
