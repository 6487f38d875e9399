#include "patience.h"

#include "memory/death.h"
#include "node/node.h"

#define DEFAULT_PATIENCE_NS (5 * DRAGON_NS_PER_S)

int64_t dragon_py_patience_ns = DEFAULT_PATIENCE_NS;
int64_t dragon_py_look_ns = DRAGON_NS_PER_S;

static bool is_over(const struct dragon_py_patience *patience)
{
    return dragon_now_ns() - patience->since_ns >= dragon_py_patience_ns;
}

/* dragon_overlay.notices.tell(...), which plain python3 may lack. */
static int call_tell(const struct dragon_py_patience *patience, struct dragon_py_object *object,
                     bool was_holder, uint64_t death, const char *name)
{
    double seconds = (double)(dragon_now_ns() - patience->since_ns) / DRAGON_NS_PER_S;
    PyObject *module = PyImport_ImportModule("dragon_overlay.notices");
    PyObject *text =
        module ? PyUnicode_DecodeUTF8(name, (Py_ssize_t)strlen(name), "replace") : NULL;
    PyObject *result = NULL;

    if (text)
        result = PyObject_CallMethod(module, "tell", "OidiOi", object, was_holder, seconds,
                                     (int)dragon_death_pid(death), text,
                                     (int)dragon_death_status(death));
    Py_XDECREF(text);
    Py_XDECREF(module);
    Py_XDECREF(result);
    if (!result && PyErr_ExceptionMatches(PyExc_Exception))
        PyErr_Clear(); /* a notice is no reason to fail; Ctrl-C is one */
    return PyErr_Occurred() ? -1 : 0;
}

static int tell(const struct dragon_py_patience *patience, struct dragon_py_object *object,
                bool was_holder, uint64_t death)
{
    struct dragon_node *node = dragon_node_if_open();
    char name[DRAGON_NODE_NAME_BYTES];

    if (!node || object->told_death == death)
        return 0;
    object->told_death = death;
    dragon_node_name_of_dead(node, death, name);
    return call_tell(patience, object, was_holder, death, name);
}

int dragon_py_tell_of_holder(const struct dragon_py_patience *patience,
                             struct dragon_py_object *object, uint64_t holder)
{
    return dragon_is_death(holder) && is_over(patience) ? tell(patience, object, true, holder) : 0;
}

int dragon_py_tell_of_users(const struct dragon_py_patience *patience,
                            struct dragon_py_object *object)
{
    uint64_t death = is_over(patience) ? dragon_object_left_by_death(&object->object) : 0;

    return death != 0 ? tell(patience, object, false, death) : 0;
}
