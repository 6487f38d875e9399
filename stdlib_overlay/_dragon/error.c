#include "module.h"

#include "base/deadline.h"
#include "memory/pool.h"

#include <errno.h>
#include <math.h>
#include <string.h>

/* Where a pool that could not grow stands, for the message. */
PyObject *dragon_py_raise_pool_full(struct dragon_py_state *state, struct dragon_pool *pool,
                                    uint64_t asked_bytes, const char *what)
{
    struct dragon_pool_statistics statistics;
    char asked[48] = "";

    dragon_pool_statistics(pool, &statistics);
    if (asked_bytes > 0)
        PyOS_snprintf(asked, sizeof asked, "asked for %llu bytes; ",
                      (unsigned long long)asked_bytes);
    return PyErr_Format(state->pool_full, "%s: %s (%sits limit is %llu, free are %llu in pieces)",
                        what,
                        asked_bytes > statistics.size_bytes ? "so much does not fit into the pool"
                                                            : "the pool is full",
                        asked, (unsigned long long)statistics.size_bytes,
                        (unsigned long long)statistics.free_bytes);
}

PyObject *dragon_py_raise_no_memory(struct dragon_py_state *state, struct dragon_pool *pool,
                                    uint64_t asked_bytes, int r, const char *what)
{
    struct dragon_pool_statistics statistics;

    dragon_pool_statistics(pool, &statistics);
    return PyErr_Format(state->pool_full,
                        "%s: the system has no memory for the pool (%s; asked for %llu bytes; the "
                        "pool's limit is %llu, free are %llu, %llu have memory)",
                        what, strerror(-r), (unsigned long long)asked_bytes,
                        (unsigned long long)statistics.size_bytes,
                        (unsigned long long)statistics.free_bytes,
                        (unsigned long long)statistics.committed_bytes);
}

PyObject *dragon_py_raise(struct dragon_py_state *state, int r, const char *what)
{
    switch (-r) {
    case EBADMSG:
        return PyErr_Format(state->stale_handle,
                            "%s: the object does not exist (any more) in this program: its last "
                            "user closed it, or the handle comes from another program",
                            what);
    case EBADF:
        return PyErr_Format(PyExc_RuntimeError,
                            "%s: the program has closed a file descriptor of the dragon runtime "
                            "(os.closerange?)",
                            what);
    case ENOMEM:
    case ENOSPC:
        return PyErr_Format(state->pool_full, "%s: the system has no memory for it (%s)", what,
                            strerror(-r));
    default:
        break;
    }
    if (r >= 0)
        return PyErr_Format(PyExc_SystemError, "%s: outcome %d was not handled", what, r);
    errno = -r;
    return PyErr_SetFromErrnoWithFilename(PyExc_OSError, what);
}

int dragon_py_deadline(PyObject *timeout, int64_t *deadline_ns_out)
{
    double seconds;

    if (timeout == Py_None) {
        *deadline_ns_out = DRAGON_FOREVER;
        return 0;
    }
    seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred())
        return -1;
    if (isnan(seconds)) {
        PyErr_SetString(PyExc_ValueError, "Invalid value NaN (not a number)");
        return -1;
    }
    if (seconds > (double)(INT64_MAX / DRAGON_NS_PER_S))
        *deadline_ns_out = DRAGON_FOREVER;
    else
        *deadline_ns_out = dragon_deadline_after_ns((int64_t)(seconds * DRAGON_NS_PER_S));
    return 0;
}
