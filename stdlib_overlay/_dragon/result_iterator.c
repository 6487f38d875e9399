/*
 * _dragon.ResultIterator: what imap gives to programs. Results come many at a time; each is
 * handed out here, without Python code of ours, and the derived class in
 * dragon_overlay/pool/jobs.py is asked for more when there is none left.
 */
#include "module.h"

struct result_iterator {
    PyObject_HEAD
    PyObject *results; /* strong or NULL: a list, of which the first n_taken were handed out */
    Py_ssize_t n_taken;
};

static struct result_iterator *iterator_of(PyObject *self)
{
    return (struct result_iterator *)self;
}

static Py_ssize_t n_left(const struct result_iterator *self)
{
    return self->results ? PyList_GET_SIZE(self->results) - self->n_taken : 0;
}

/* Wait for more results. */
static int fetch(PyObject *self, PyObject *timeout)
{
    struct result_iterator *iterator = iterator_of(self);
    PyObject *more = PyObject_CallMethod(self, "_next_results", "(O)", timeout);
    int r = 0;

    if (!more)
        return -1;
    if (!PyList_CheckExact(more)) {
        PyErr_SetString(PyExc_TypeError, "_next_results must return a list");
        Py_DECREF(more);
        return -1;
    }
    if (n_left(iterator) > 0) { /* another thread has fetched meanwhile */
        Py_ssize_t end = PyList_GET_SIZE(iterator->results);

        r = PyList_SetSlice(iterator->results, end, end, more);
        Py_DECREF(more);
        return r;
    }
    Py_XSETREF(iterator->results, more);
    iterator->n_taken = 0;
    return r;
}

static PyObject *take(PyObject *self, PyObject *timeout)
{
    struct result_iterator *iterator = iterator_of(self);
    PyObject *result;

    while (n_left(iterator) == 0)
        if (fetch(self, timeout) < 0)
            return NULL;
    result = PyList_GET_ITEM(iterator->results, iterator->n_taken);
    Py_INCREF(Py_None);
    PyList_SET_ITEM(iterator->results, iterator->n_taken++, Py_None);
    return result;
}

static PyObject *iterator_iternext(PyObject *self)
{
    return take(self, Py_None);
}

static PyObject *iterator_next(PyObject *self, PyObject *args, PyObject *names)
{
    static char *keywords[] = {"timeout", NULL};
    PyObject *timeout = Py_None;

    if (!PyArg_ParseTupleAndKeywords(args, names, "|O:next", keywords, &timeout))
        return NULL;
    return take(self, timeout);
}

static int iterator_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(iterator_of(self)->results);
    return 0;
}

static int iterator_clear(PyObject *self)
{
    Py_CLEAR(iterator_of(self)->results);
    return 0;
}

static void iterator_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    iterator_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef iterator_methods[] = {
    {"next", (PyCFunction)(void (*)(void))iterator_next, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("next($self, /, timeout=None)\n--\n\nThe next result, or the exception of its call. "
               "TimeoutError: it is not yet there.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot iterator_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Base of the iterators over results; they have "
                                  "_next_results(timeout).")},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_traverse, iterator_traverse},
    {Py_tp_clear, iterator_clear},
    {Py_tp_dealloc, iterator_dealloc},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, iterator_iternext},
    {Py_tp_methods, iterator_methods},
    {0, NULL},
};

static PyType_Spec iterator_spec = {
    .name = "_dragon.ResultIterator",
    .basicsize = sizeof(struct result_iterator),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = iterator_slots,
};

int dragon_py_result_iterator_add(PyObject *module)
{
    struct dragon_py_state *state = dragon_py_state_of_module(module);

    state->result_iterator_type = dragon_py_add_type(module, &iterator_spec, NULL);
    return state->result_iterator_type ? 0 : -1;
}
