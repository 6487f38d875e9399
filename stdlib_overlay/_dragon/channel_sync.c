/*
 * _dragon.Channel as a semaphore, or as a barrier of as many parties as it holds
 * messages.
 *
 * A barrier's party arrives, waits with the place that it was given, and learns
 * its index; the last to arrive runs the action first and then finishes. Nothing
 * of this goes through the channel's messages: a message that a killed party did
 * not take could never be told from one that a slow party is about to take.
 */
#include "channel.h"
#include "wait.h"

#include "os/os.h"

/* How an operation on a barrier ended, for Python. */
enum outcome { PASSED, LAST, BROKEN, NOT_YET };

int dragon_py_channel_add_outcomes(PyObject *module)
{
    static const char *const names[] = {
        [PASSED] = "BARRIER_PASSED",
        [LAST] = "BARRIER_LAST",
        [BROKEN] = "BARRIER_BROKEN",
        [NOT_YET] = "BARRIER_NOT_YET",
    };

    for (int i = 0; i < (int)(sizeof names / sizeof *names); i++)
        if (PyModule_AddIntConstant(module, names[i], i) < 0)
            return -1;
    return PyModule_AddIntConstant(module, "BARRIER_MAX_PARTIES", DRAGON_BARRIER_MAX_PARTIES);
}

static int require_semaphore(struct dragon_py_channel *self)
{
    if (dragon_py_channel_require(self) < 0)
        return -1;
    if (dragon_py_channel_state(self)->is_semaphore)
        return 0;
    PyErr_SetString(PyExc_ValueError, "the channel is no semaphore");
    return -1;
}

static int require_barrier(struct dragon_py_channel *self)
{
    if (dragon_py_channel_require(self) < 0)
        return -1;
    if (dragon_py_channel_state(self)->barrier.parties != 0)
        return 0;
    PyErr_Format(PyExc_ValueError, "a barrier is a channel with a capacity of at most %u",
                 DRAGON_BARRIER_MAX_PARTIES);
    return -1;
}

/* ---- lifetime ---- */

int dragon_py_channel_init_sync(struct dragon_py_channel *self, uint32_t value, uint32_t maximum)
{
    struct dragon_py_channel_state *shared = dragon_py_channel_state(self);
    uint64_t capacity = shared->shared.max_messages;

    if (shared->is_semaphore)
        dragon_semaphore_init(&shared->semaphore.semaphore, value, maximum);
    else if (capacity <= DRAGON_BARRIER_MAX_PARTIES)
        return dragon_barrier_init(&shared->barrier, (uint32_t)capacity);
    return 0;
}

void dragon_py_channel_end_sync(struct dragon_py_channel *self)
{
    struct dragon_py_channel_state *shared = dragon_py_channel_state(self);

    if (shared->is_semaphore)
        dragon_channel_semaphore_wake_all(&shared->semaphore);
    else if (shared->barrier.parties != 0)
        dragon_barrier_abort(&shared->barrier);
}

static bool has_leader(const struct dragon_py_channel *self)
{
    return self->has_leader && self->leader_pid == dragon_os_pid();
}

static bool is_leader(const struct dragon_py_channel *self)
{
    return has_leader(self) && self->leader_thread == PyThread_get_thread_ident();
}

/* False: it is broken. */
static bool finish(struct dragon_py_channel *self, bool succeeded)
{
    self->has_leader = false;
    return dragon_barrier_finish(&dragon_py_channel_state(self)->barrier, &self->leader_place,
                                 succeeded) == 0;
}

void dragon_py_channel_leave_sync(struct dragon_py_channel *self)
{
    if (is_leader(self)) {
        finish(self, false);
    } else if (has_leader(self)) {
        /* For good: only that thread could unlock what is in there. */
        (void)dragon_object_keep(&self->base.object, self->base.object.holder);
        Py_INCREF(self->pool);
    }
}

/* ---- semaphore ---- */

/* True; False: not in time; NULL with an exception. */
static PyObject *wait_on_semaphore(struct dragon_py_channel *self, PyObject *timeout,
                                   int (*wait)(const struct dragon_channel *,
                                               struct dragon_channel_semaphore *, int64_t))
{
    struct dragon_channel_semaphore *semaphore;
    int64_t deadline_ns;
    int r;

    if (require_semaphore(self) < 0 || dragon_py_deadline(timeout, &deadline_ns) < 0)
        return NULL;
    semaphore = &dragon_py_channel_state(self)->semaphore;
    do {
        Py_BEGIN_ALLOW_THREADS
        r = wait(&self->channel, semaphore, dragon_py_next_look(deadline_ns));
        Py_END_ALLOW_THREADS
        if (r == 0)
            Py_RETURN_TRUE;
        if (r == DRAGON_CHANNEL_SEMAPHORE_DESTROYED)
            r = DRAGON_CHANNEL_DESTROYED;
        else if (r > 0 && PyErr_CheckSignals() == 0)
            continue;
        dragon_py_channel_fail(self, r, "semaphore");
        return NULL;
    } while (!dragon_deadline_passed(deadline_ns));
    Py_RETURN_FALSE;
}

PyDoc_STRVAR(semaphore_take_doc, "semaphore_take(timeout, /)\n--\n\n"
                                 "Take a unit; waits for it. False: there was none in time.");

static PyObject *semaphore_take(struct dragon_py_channel *self, PyObject *timeout)
{
    return wait_on_semaphore(self, timeout, dragon_channel_semaphore_take);
}

PyDoc_STRVAR(semaphore_wait_zero_doc,
             "semaphore_wait_zero(timeout, /)\n--\n\n"
             "Wait until there is no unit. False: there was one all the time.");

static PyObject *semaphore_wait_zero(struct dragon_py_channel *self, PyObject *timeout)
{
    return wait_on_semaphore(self, timeout, dragon_channel_semaphore_wait_zero);
}

PyDoc_STRVAR(semaphore_give_doc, "semaphore_give()\n--\n\n"
                                 "Give a unit. False: its value is the maximum.");

static PyObject *semaphore_give(struct dragon_py_channel *self, PyObject *Py_UNUSED(unused))
{
    if (require_semaphore(self) < 0)
        return NULL;
    return PyBool_FromLong(
        dragon_semaphore_release(&dragon_py_channel_state(self)->semaphore.semaphore) == 0);
}

PyDoc_STRVAR(semaphore_value_doc, "semaphore_value()\n--\n\nUnits there are at this moment.");

static PyObject *semaphore_value(struct dragon_py_channel *self, PyObject *Py_UNUSED(unused))
{
    if (require_semaphore(self) < 0)
        return NULL;
    return PyLong_FromUnsignedLong(
        dragon_semaphore_value(&dragon_py_channel_state(self)->semaphore.semaphore));
}

/* ---- barrier ---- */

/* After a piece of a wait: true if there is to be another; an exception may be
 * set otherwise. */
static bool goes_on(struct dragon_py_channel *self, int r, int64_t deadline_ns)
{
    if (r != DRAGON_BARRIER_TIMEOUT && r != DRAGON_BARRIER_INTERRUPTED)
        return false;
    return PyErr_CheckSignals() == 0 && dragon_py_channel_require(self) == 0 &&
           !dragon_deadline_passed(deadline_ns);
}

/* The outcome for Python; -1 with an exception. */
static int outcome_of(struct dragon_py_channel *self, int r)
{
    if (PyErr_Occurred() || dragon_py_channel_require(self) < 0)
        return -1;
    switch (r) {
    case 0:
        return PASSED;
    case DRAGON_BARRIER_LAST:
        return LAST;
    case DRAGON_BARRIER_BROKEN:
        return BROKEN;
    case DRAGON_BARRIER_TIMEOUT:
    case DRAGON_BARRIER_INTERRUPTED:
        return NOT_YET;
    default:
        return dragon_py_channel_fail(self, r, "barrier");
    }
}

static void become_leader(struct dragon_py_channel *self, const struct dragon_barrier_place *place)
{
    self->leader_place = *place;
    self->leader_thread = PyThread_get_thread_ident();
    self->leader_pid = dragon_os_pid();
    self->has_leader = true;
}

PyDoc_STRVAR(barrier_arrive_doc,
             "barrier_arrive(timeout, /)\n--\n\n"
             "Arrive; waits while an action is run. (outcome, generation, index), outcome being\n"
             "BARRIER_PASSED: wait now; _LAST: run the action and call barrier_finish in this\n"
             "thread; _BROKEN; _NOT_YET: not in time.");

static PyObject *barrier_arrive(struct dragon_py_channel *self, PyObject *timeout)
{
    struct dragon_barrier_place place = {0};
    struct dragon_barrier *barrier;
    int64_t deadline_ns;
    int outcome, r;

    if (require_barrier(self) < 0 || dragon_py_deadline(timeout, &deadline_ns) < 0)
        return NULL;
    barrier = &dragon_py_channel_state(self)->barrier;
    do {
        Py_BEGIN_ALLOW_THREADS
        r = dragon_barrier_arrive(barrier, NULL, true, dragon_py_next_look(deadline_ns), &place);
        Py_END_ALLOW_THREADS
    } while (goes_on(self, r, deadline_ns));
    if (r == DRAGON_BARRIER_LAST)
        become_leader(self, &place);
    outcome = outcome_of(self, r);
    if (outcome < 0)
        return NULL;
    return Py_BuildValue("(iII)", outcome, (unsigned int)place.generation,
                         (unsigned int)place.index);
}

PyDoc_STRVAR(barrier_wait_doc,
             "barrier_wait(generation, index, timeout, /)\n--\n\n"
             "Wait for the others at the place that barrier_arrive gave. BARRIER_PASSED; _BROKEN;\n"
             "_NOT_YET: not in time, may be called again.");

static PyObject *barrier_wait(struct dragon_py_channel *self, PyObject *args)
{
    struct dragon_barrier_place place;
    struct dragon_barrier *barrier;
    unsigned int generation, index;
    int64_t deadline_ns;
    PyObject *timeout;
    int blocked_at, outcome, r;

    if (!PyArg_ParseTuple(args, "IIO:barrier_wait", &generation, &index, &timeout) ||
        require_barrier(self) < 0 || dragon_py_deadline(timeout, &deadline_ns) < 0)
        return NULL;
    barrier = &dragon_py_channel_state(self)->barrier;
    place = (struct dragon_barrier_place){generation, index};
    blocked_at = dragon_py_channel_enter_blocked(self);
    do {
        Py_BEGIN_ALLOW_THREADS
        r = dragon_barrier_wait(barrier, &place, dragon_py_next_look(deadline_ns));
        Py_END_ALLOW_THREADS
    } while (goes_on(self, r, deadline_ns));
    dragon_blocked_leave(&dragon_py_channel_state(self)->blocked, blocked_at);
    outcome = outcome_of(self, r);
    return outcome < 0 ? NULL : PyLong_FromLong(outcome);
}

PyDoc_STRVAR(barrier_finish_doc,
             "barrier_finish()\n--\n\n"
             "Release all, after the action, in the thread that was the last to arrive.\n"
             "BARRIER_PASSED; _BROKEN; None: this thread is not the one.");

static PyObject *barrier_finish(struct dragon_py_channel *self, PyObject *Py_UNUSED(unused))
{
    if (require_barrier(self) < 0)
        return NULL;
    if (!is_leader(self))
        Py_RETURN_NONE;
    return PyLong_FromLong(finish(self, true) ? PASSED : BROKEN);
}

PyDoc_STRVAR(barrier_abort_doc, "barrier_abort()\n--\n\n"
                                "Break the barrier, until it is reset; who waits is told.");

static PyObject *barrier_abort(struct dragon_py_channel *self, PyObject *Py_UNUSED(unused))
{
    if (require_barrier(self) < 0)
        return NULL;
    if (is_leader(self))
        finish(self, false);
    dragon_barrier_abort(&dragon_py_channel_state(self)->barrier);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(barrier_reset_doc, "barrier_reset()\n--\n\n"
                                "Make the barrier whole and empty; who waits is told it broke.");

static PyObject *barrier_reset(struct dragon_py_channel *self, PyObject *Py_UNUSED(unused))
{
    if (require_barrier(self) < 0)
        return NULL;
    if (is_leader(self))
        finish(self, false);
    dragon_barrier_reset(&dragon_py_channel_state(self)->barrier);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(barrier_status_doc, "barrier_status()\n--\n\n"
                                 "(parties that wait, is it broken?), at this moment.");

static PyObject *barrier_status(struct dragon_py_channel *self, PyObject *Py_UNUSED(unused))
{
    struct dragon_barrier *barrier;

    if (require_barrier(self) < 0)
        return NULL;
    barrier = &dragon_py_channel_state(self)->barrier;
    return Py_BuildValue("(IO)", (unsigned int)dragon_barrier_n_waiting(barrier),
                         dragon_barrier_is_broken(barrier) ? Py_True : Py_False);
}

PyDoc_STRVAR(blocked_receivers_doc,
             "blocked_receivers()\n--\n\n"
             "Threads of any process that wait in a receive at this moment.");

static PyObject *blocked_receivers(struct dragon_py_channel *self, PyObject *Py_UNUSED(unused))
{
    if (dragon_py_channel_require(self) < 0)
        return NULL;
    return PyLong_FromUnsignedLong(dragon_blocked_count(&dragon_py_channel_state(self)->blocked));
}

PyMethodDef dragon_py_channel_sync_methods[] = {
    {"semaphore_take", (PyCFunction)semaphore_take, METH_O, semaphore_take_doc},
    {"semaphore_give", (PyCFunction)semaphore_give, METH_NOARGS, semaphore_give_doc},
    {"semaphore_wait_zero", (PyCFunction)semaphore_wait_zero, METH_O, semaphore_wait_zero_doc},
    {"semaphore_value", (PyCFunction)semaphore_value, METH_NOARGS, semaphore_value_doc},
    {"barrier_arrive", (PyCFunction)barrier_arrive, METH_O, barrier_arrive_doc},
    {"barrier_wait", (PyCFunction)barrier_wait, METH_VARARGS, barrier_wait_doc},
    {"barrier_finish", (PyCFunction)barrier_finish, METH_NOARGS, barrier_finish_doc},
    {"barrier_abort", (PyCFunction)barrier_abort, METH_NOARGS, barrier_abort_doc},
    {"barrier_reset", (PyCFunction)barrier_reset, METH_NOARGS, barrier_reset_doc},
    {"barrier_status", (PyCFunction)barrier_status, METH_NOARGS, barrier_status_doc},
    {"blocked_receivers", (PyCFunction)blocked_receivers, METH_NOARGS, blocked_receivers_doc},
    {NULL, NULL, 0, NULL},
};
