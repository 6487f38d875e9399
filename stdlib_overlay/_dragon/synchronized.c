/*
 * _dragon.SynchronizedBase, SynchronizedValue and SynchronizedArray: a ctypes
 * object in shared memory, and a lock that is held around each access to it.
 *
 * A number, or an item of an array of numbers, is read and written in place, with
 * no call of Python's in between, if its memory is a SharedBuffer's, which never
 * moves. Whatever else there is (structures, characters, slices, a value that has
 * to be converted or refused) is the ctypes object's to do, under the same lock.
 *
 * A lock of the runtime is called in C; any other one by its methods.
 */
#include "shared_buffer.h"
#include "sync.h"

#include <structmember.h>

/* All, or, before __init__ and after garbage collection, none. Strong references. */
struct parts {
    PyObject *object; /* of ctypes */
    PyObject *lock;
    PyObject *acquire; /* the lock's methods; NULL: it is a struct dragon_py_semaphore */
    PyObject *release;
    PyObject *memory; /* where the items are; NULL: they are reached through object */
    char *items;
    Py_ssize_t n_items;
    char code; /* of their type, as in the module struct; 0: no memory */
};

struct synchronized {
    PyObject_HEAD
    struct parts parts;
};

static struct synchronized *usable(PyObject *op)
{
    struct synchronized *self = (struct synchronized *)op;

    if (self->parts.object)
        return self;
    PyErr_Format(PyExc_ValueError, "%s: not initialised (was __init__ called?)",
                 Py_TYPE(op)->tp_name);
    return NULL;
}

/* ---- the lock ---- */

static struct dragon_py_semaphore *our_lock(struct synchronized *self)
{
    return (struct dragon_py_semaphore *)self->parts.lock;
}

/* 0, or -1 with an exception: not locked. */
static int lock(struct synchronized *self)
{
    PyObject *result = self->parts.acquire
                           ? PyObject_CallNoArgs(self->parts.acquire)
                           : dragon_py_semaphore_acquire(our_lock(self), NULL, 0, NULL);

    Py_XDECREF(result);
    return result ? 0 : -1;
}

/* r: of what was done under the lock, negative with an exception. Returns it, or
 * -1 if unlocking raised, which takes the place of an exception before. */
static int unlock(struct synchronized *self, int r)
{
    PyObject *type = NULL, *value = NULL, *traceback = NULL, *result;

    if (r < 0)
        PyErr_Fetch(&type, &value, &traceback);
    result = self->parts.release ? PyObject_CallNoArgs(self->parts.release)
                                 : dragon_py_semaphore_release(our_lock(self));
    if (result && r < 0) {
        PyErr_Restore(type, value, traceback);
    } else {
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
    }
    Py_XDECREF(result);
    return result ? r : -1;
}

/* The same; consumes what was read. */
static PyObject *unlocked(struct synchronized *self, PyObject *read)
{
    if (unlock(self, read ? 0 : -1) < 0)
        Py_CLEAR(read);
    return read;
}

/* ---- numbers in memory ---- */

/* Bytes of a number; 0: none that is known here. */
static size_t code_size(char code)
{
    switch (code) {
    case '?':
        return sizeof(_Bool);
    case 'b':
    case 'B':
        return sizeof(char);
    case 'h':
    case 'H':
        return sizeof(short);
    case 'i':
    case 'I':
        return sizeof(int);
    case 'l':
    case 'L':
        return sizeof(long);
    case 'q':
    case 'Q':
        return sizeof(long long);
    case 'f':
        return sizeof(float);
    case 'd':
        return sizeof(double);
    default:
        return 0;
    }
}

static PyObject *read_number(char code, const void *at)
{
    switch (code) {
    case '?':
        return PyBool_FromLong(*(const unsigned char *)at != 0);
    case 'b':
        return PyLong_FromLong(*(const signed char *)at);
    case 'B':
        return PyLong_FromLong(*(const unsigned char *)at);
    case 'h':
        return PyLong_FromLong(*(const short *)at);
    case 'H':
        return PyLong_FromLong(*(const unsigned short *)at);
    case 'i':
        return PyLong_FromLong(*(const int *)at);
    case 'I':
        return PyLong_FromUnsignedLong(*(const unsigned int *)at);
    case 'l':
        return PyLong_FromLong(*(const long *)at);
    case 'L':
        return PyLong_FromUnsignedLong(*(const unsigned long *)at);
    case 'q':
        return PyLong_FromLongLong(*(const long long *)at);
    case 'Q':
        return PyLong_FromUnsignedLongLong(*(const unsigned long long *)at);
    case 'f':
        return PyFloat_FromDouble((double)*(const float *)at);
    default:
        return PyFloat_FromDouble(*(const double *)at);
    }
}

/* An integer too large for its place loses its upper bits, as in ctypes. */
static void write_integer(size_t size, void *at, unsigned long long number)
{
    switch (size) {
    case 1:
        *(uint8_t *)at = (uint8_t)number;
        break;
    case 2:
        *(uint16_t *)at = (uint16_t)number;
        break;
    case 4:
        *(uint32_t *)at = (uint32_t)number;
        break;
    default:
        *(uint64_t *)at = (uint64_t)number;
    }
}

/* False: ctypes has to convert the value, or to refuse it. Nothing was written. */
static bool write_number(char code, void *at, PyObject *value)
{
    switch (code) {
    case '?':
        if (!PyBool_Check(value))
            return false;
        *(unsigned char *)at = value == Py_True;
        return true;
    case 'f':
        if (!PyFloat_CheckExact(value))
            return false;
        *(float *)at = (float)PyFloat_AS_DOUBLE(value);
        return true;
    case 'd':
        if (!PyFloat_CheckExact(value))
            return false;
        *(double *)at = PyFloat_AS_DOUBLE(value);
        return true;
    default:
        if (!PyLong_Check(value))
            return false;
        write_integer(code_size(code), at, PyLong_AsUnsignedLongLongMask(value));
        return true;
    }
}

/* Find the numbers that object consists of, if they are in its SharedBuffer, and
 * enter them in parts. -1 with an exception. */
static int find_numbers(struct dragon_py_state *state, PyObject *object, char code,
                        struct parts *parts)
{
    size_t size = code_size(code);
    PyObject *memory;
    Py_buffer view;

    if (size == 0)
        return 0;
    memory = PyObject_GetAttrString(object, "_wrapper");
    if (!memory) { /* its memory is not shared */
        PyErr_Clear();
        return 0;
    }
    if (PyObject_GetBuffer(object, &view, PyBUF_WRITABLE) < 0) {
        Py_DECREF(memory);
        return -1;
    }
    if (view.len >= (Py_ssize_t)size && (uintptr_t)view.buf % size == 0 &&
        dragon_py_shared_buffer_has(state, memory, view.buf, view.len)) {
        parts->memory = Py_NewRef(memory);
        parts->items = view.buf;
        parts->n_items = view.len / (Py_ssize_t)size;
        parts->code = code;
    }
    PyBuffer_Release(&view);
    Py_DECREF(memory);
    return 0;
}

/* ---- the base ---- */

static void forget(struct parts *parts)
{
    struct parts all = *parts;

    *parts = (struct parts){0};
    Py_XDECREF(all.object);
    Py_XDECREF(all.lock);
    Py_XDECREF(all.acquire);
    Py_XDECREF(all.release);
    Py_XDECREF(all.memory);
}

static int find_lock(struct dragon_py_state *state, PyObject *lock, bool is_plain,
                     struct parts *parts)
{
    if (is_plain && PyObject_TypeCheck(lock, state->semaphore_type))
        return 0;
    parts->acquire = PyObject_GetAttrString(lock, "acquire");
    parts->release = parts->acquire ? PyObject_GetAttrString(lock, "release") : NULL;
    return parts->release ? 0 : -1;
}

static int synchronized_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"", "", "", "", NULL};
    struct synchronized *self = (struct synchronized *)op;
    struct dragon_py_state *state = dragon_py_state_of(Py_TYPE(op));
    struct parts parts = {0};
    PyObject *object, *lock;
    int code, is_plain;

    if (!state || !PyArg_ParseTupleAndKeywords(args, kwargs, "OOCp:SynchronizedBase", names,
                                               &object, &lock, &code, &is_plain))
        return -1;
    parts.object = Py_NewRef(object);
    parts.lock = Py_NewRef(lock);
    if (find_lock(state, lock, is_plain, &parts) < 0 ||
        find_numbers(state, object, (char)(code < 128 ? code : 0), &parts) < 0) {
        forget(&parts);
        return -1;
    }
    if (self->parts.object) { /* threads may be using it */
        PyErr_Format(PyExc_RuntimeError, "%s: initialised twice", Py_TYPE(op)->tp_name);
        forget(&parts);
        return -1;
    }
    self->parts = parts;
    return 0;
}

static PyObject *synchronized_acquire(PyObject *op, PyObject *const *args, Py_ssize_t n_args,
                                      PyObject *kwnames)
{
    struct synchronized *self = usable(op);

    if (!self)
        return NULL;
    return self->parts.acquire
               ? PyObject_Vectorcall(self->parts.acquire, args, (size_t)n_args, kwnames)
               : dragon_py_semaphore_acquire(our_lock(self), args, n_args, kwnames);
}

static PyObject *synchronized_release(PyObject *op, PyObject *Py_UNUSED(unused))
{
    struct synchronized *self = usable(op);

    if (!self)
        return NULL;
    return self->parts.release ? PyObject_CallNoArgs(self->parts.release)
                               : dragon_py_semaphore_release(our_lock(self));
}

static PyObject *synchronized_enter(PyObject *op, PyObject *Py_UNUSED(unused))
{
    struct synchronized *self = usable(op);

    if (!self)
        return NULL;
    return self->parts.acquire ? PyObject_CallMethod(self->parts.lock, "__enter__", NULL)
                               : dragon_py_semaphore_acquire(our_lock(self), NULL, 0, NULL);
}

static PyObject *synchronized_exit(PyObject *op, PyObject *const *args, Py_ssize_t n_args)
{
    struct synchronized *self = usable(op);
    PyObject *method, *result;

    if (!self)
        return NULL;
    if (!self->parts.release)
        return dragon_py_semaphore_release(our_lock(self));
    method = PyObject_GetAttrString(self->parts.lock, "__exit__");
    result = method ? PyObject_Vectorcall(method, args, (size_t)n_args, NULL) : NULL;
    Py_XDECREF(method);
    return result;
}

static PyObject *synchronized_get_obj(PyObject *op, PyObject *Py_UNUSED(unused))
{
    struct synchronized *self = usable(op);

    return self ? Py_NewRef(self->parts.object) : NULL;
}

static PyObject *synchronized_get_lock(PyObject *op, PyObject *Py_UNUSED(unused))
{
    struct synchronized *self = usable(op);

    return self ? Py_NewRef(self->parts.lock) : NULL;
}

static int synchronized_traverse(PyObject *op, visitproc visit, void *arg)
{
    struct synchronized *self = (struct synchronized *)op;

    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->parts.object);
    Py_VISIT(self->parts.lock);
    Py_VISIT(self->parts.acquire);
    Py_VISIT(self->parts.release);
    Py_VISIT(self->parts.memory);
    return 0;
}

static int synchronized_clear(PyObject *op)
{
    forget(&((struct synchronized *)op)->parts);
    return 0;
}

static void synchronized_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);

    PyObject_GC_UnTrack(op);
    synchronized_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef synchronized_methods[] = {
    {"acquire", (PyCFunction)(void (*)(void))synchronized_acquire, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("acquire($self, /, block=True, timeout=None)\n--\n\nAcquire the lock.")},
    {"release", synchronized_release, METH_NOARGS,
     PyDoc_STR("release($self, /)\n--\n\nRelease the lock.")},
    {"__enter__", synchronized_enter, METH_NOARGS,
     PyDoc_STR("__enter__($self, /)\n--\n\nAcquire the lock.")},
    {"__exit__", (PyCFunction)(void (*)(void))synchronized_exit, METH_FASTCALL,
     PyDoc_STR("__exit__($self, exc_type=None, exc_value=None, exc_tb=None, /)\n--\n\nRelease the "
               "lock.")},
    {"get_obj", synchronized_get_obj, METH_NOARGS,
     PyDoc_STR("get_obj($self, /)\n--\n\nThe ctypes object.")},
    {"get_lock", synchronized_get_lock, METH_NOARGS,
     PyDoc_STR("get_lock($self, /)\n--\n\nThe lock.")},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef synchronized_members[] = {
    {"_obj", T_OBJECT_EX, offsetof(struct synchronized, parts.object), READONLY,
     PyDoc_STR("The ctypes object.")},
    {"_lock", T_OBJECT_EX, offsetof(struct synchronized, parts.lock), READONLY,
     PyDoc_STR("The lock.")},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot synchronized_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("SynchronizedBase(obj, lock, code, is_plain, /)\n--\n\n"
                                  "A ctypes object with a lock around it. code: of the numbers\n"
                                  "that obj consists of, or \" \"; is_plain: the lock's methods\n"
                                  "are those of SemLock.")},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, synchronized_init},
    {Py_tp_dealloc, synchronized_dealloc},
    {Py_tp_traverse, synchronized_traverse},
    {Py_tp_clear, synchronized_clear},
    {Py_tp_methods, synchronized_methods},
    {Py_tp_members, synchronized_members},
    {0, NULL},
};

static PyType_Spec synchronized_spec = {
    .name = "_dragon.SynchronizedBase",
    .basicsize = sizeof(struct synchronized),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = synchronized_slots,
};

/* ---- a value ---- */

static PyObject *value_get(PyObject *op, void *Py_UNUSED(closure))
{
    struct synchronized *self = usable(op);

    if (!self || lock(self) < 0)
        return NULL;
    return unlocked(self, self->parts.code ? read_number(self->parts.code, self->parts.items)
                                           : PyObject_GetAttrString(self->parts.object, "value"));
}

static int value_set(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    struct synchronized *self = usable(op);

    if (!self)
        return -1;
    if (!value) {
        PyErr_Format(PyExc_AttributeError, "property 'value' of '%s' object has no deleter",
                     Py_TYPE(op)->tp_name);
        return -1;
    }
    if (lock(self) < 0)
        return -1;
    if (self->parts.code && write_number(self->parts.code, self->parts.items, value))
        return unlock(self, 0);
    return unlock(self, PyObject_SetAttrString(self->parts.object, "value", value));
}

static PyGetSetDef value_attributes[] = {
    {"value", value_get, value_set, PyDoc_STR("The value, read and written under the lock."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot value_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("A simple ctypes object with a lock around it.")},
    {Py_tp_getset, value_attributes},
    {0, NULL},
};

static PyType_Spec value_spec = {
    .name = "_dragon.SynchronizedValue",
    .basicsize = sizeof(struct synchronized),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, /* garbage collection: inherited */
    .slots = value_slots,
};

/* ---- an array ---- */

/* Its Python subclass is a sequence, and iterated, through these methods. */

static Py_ssize_t array_length(PyObject *op)
{
    struct synchronized *self = usable(op);

    return self ? PyObject_Size(self->parts.object) : -1;
}

/* Where the item of that index is, counted from the end if it is negative. NULL:
 * not a number in memory, or no such item; then ctypes knows what to do. */
static void *item_of(struct parts *parts, PyObject *key)
{
    Py_ssize_t index;

    if (!parts->code || !PyLong_CheckExact(key))
        return NULL;
    index = PyLong_AsSsize_t(key);
    if (index == -1 && PyErr_Occurred()) {
        PyErr_Clear();
        return NULL;
    }
    if (index < 0)
        index += parts->n_items;
    if (index < 0 || index >= parts->n_items)
        return NULL;
    return parts->items + (size_t)index * code_size(parts->code);
}

/* The numbers of a slice as a list, as ctypes has it. */
static PyObject *read_slice(struct parts *parts, PyObject *slice)
{
    Py_ssize_t start, stop, step, n;
    size_t size = code_size(parts->code);
    PyObject *list;

    if (PySlice_Unpack(slice, &start, &stop, &step) < 0)
        return NULL;
    n = PySlice_AdjustIndices(parts->n_items, &start, &stop, step);
    list = PyList_New(n);
    for (Py_ssize_t i = 0; list && i < n; i++) {
        PyObject *number =
            read_number(parts->code, parts->items + (size_t)(start + i * step) * size);

        if (number)
            PyList_SET_ITEM(list, i, number);
        else
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *read_items(struct parts *parts, PyObject *key)
{
    void *at = item_of(parts, key);

    if (at)
        return read_number(parts->code, at);
    if (parts->code && PySlice_Check(key))
        return read_slice(parts, key);
    return PyObject_GetItem(parts->object, key);
}

static PyObject *array_subscript(PyObject *op, PyObject *key)
{
    struct synchronized *self = usable(op);

    if (!self || lock(self) < 0)
        return NULL;
    return unlocked(self, read_items(&self->parts, key));
}

static int array_assign(PyObject *op, PyObject *key, PyObject *value)
{
    struct synchronized *self = usable(op);
    void *at;

    if (!self)
        return -1;
    if (!value) {
        PyErr_SetString(PyExc_AttributeError, "__delitem__");
        return -1;
    }
    if (lock(self) < 0)
        return -1;
    at = item_of(&self->parts, key);
    if (at && write_number(self->parts.code, at, value))
        return unlock(self, 0);
    return unlock(self, PyObject_SetItem(self->parts.object, key, value));
}

static PyType_Slot array_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("A ctypes array with a lock around it.")},
    {Py_mp_length, array_length},
    {Py_mp_subscript, array_subscript},
    {Py_mp_ass_subscript, array_assign},
    {0, NULL},
};

static PyType_Spec array_spec = {
    .name = "_dragon.SynchronizedArray",
    .basicsize = sizeof(struct synchronized),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, /* garbage collection: inherited */
    .slots = array_slots,
};

/* ---- properties of other objects ---- */

/* self, if it is synchronized; NULL with an exception. */
static struct synchronized *owner_of(PyObject *self)
{
    struct dragon_py_state *state = dragon_py_state_of(Py_TYPE(self));

    if (!state)
        return NULL;
    if (!PyObject_TypeCheck(self, state->synchronized_type)) {
        PyErr_Format(PyExc_TypeError, "a '%s' object is not synchronized", Py_TYPE(self)->tp_name);
        return NULL;
    }
    return usable(self);
}

static PyObject *get_attribute(PyObject *name, PyObject *op)
{
    struct synchronized *self = owner_of(op);

    if (!self || lock(self) < 0)
        return NULL;
    return unlocked(self, PyObject_GetAttr(self->parts.object, name));
}

static PyObject *set_attribute(PyObject *name, PyObject *const *args, Py_ssize_t n_args)
{
    struct synchronized *self;

    if (n_args != 2) {
        PyErr_Format(PyExc_TypeError, "set expected 2 arguments, got %zd", n_args);
        return NULL;
    }
    self = owner_of(args[0]);
    if (!self || lock(self) < 0)
        return NULL;
    if (unlock(self, PyObject_SetAttr(self->parts.object, name, args[1])) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef get_attribute_def = {"get", get_attribute, METH_O, NULL};
static PyMethodDef set_attribute_def = {"set", (PyCFunction)(void (*)(void))set_attribute,
                                        METH_FASTCALL, NULL};

static PyObject *synchronized_property(PyObject *Py_UNUSED(module), PyObject *name)
{
    PyObject *get = PyCFunction_New(&get_attribute_def, name);
    PyObject *set = PyCFunction_New(&set_attribute_def, name);
    PyObject *property = NULL;

    if (get && set)
        property = PyObject_CallFunctionObjArgs((PyObject *)&PyProperty_Type, get, set, NULL);
    Py_XDECREF(set);
    Py_XDECREF(get);
    return property;
}

static PyMethodDef functions[] = {
    {"synchronized_property", synchronized_property, METH_O,
     PyDoc_STR("synchronized_property(name, /)\n--\n\nA property of a SynchronizedBase: its "
               "object's attribute of that name, under the lock.")},
    {NULL, NULL, 0, NULL},
};

int dragon_py_synchronized_add(PyObject *module)
{
    struct dragon_py_state *state = dragon_py_state_of_module(module);
    PyTypeObject *value, *array;

    state->synchronized_type = dragon_py_add_type(module, &synchronized_spec, NULL);
    if (!state->synchronized_type)
        return -1;
    value = dragon_py_add_type(module, &value_spec, state->synchronized_type);
    array = dragon_py_add_type(module, &array_spec, state->synchronized_type);
    Py_XDECREF(value); /* the module has them */
    Py_XDECREF(array);
    return value && array ? PyModule_AddFunctions(module, functions) : -1;
}
