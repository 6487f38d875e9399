#pragma once

/*
 * Who waits for long learns on stderr if that is because somebody died: the last holder of a
 * lock, or the last other process that used a queue. One line a process, object and death;
 * nothing if everybody has ended cleanly. Only waits that have slept for a while look at all.
 */

#include "object.h"

#include "base/deadline.h"

/* How long a wait lasts before it may be told, and how long it sleeps without a look at signals
 * and deaths; ns. Tests make both shorter (_dragon.set_patience). Guarded by the GIL. */
extern int64_t dragon_py_patience_ns;
extern int64_t dragon_py_look_ns;

/* Of one wait. */
struct dragon_py_patience {
    int64_t since_ns;
};

/* A wait begins. */
static inline struct dragon_py_patience dragon_py_patience_begin(void)
{
    return (struct dragon_py_patience){dragon_now_ns()};
}

/* Between two pieces of a wait, with the GIL. 0, or -1 with an exception that a signal
 * handler raised meanwhile. holder: a process's number or death (memory/death.h). */
int dragon_py_tell_of_holder(const struct dragon_py_patience *patience,
                             struct dragon_py_object *object, uint64_t holder);

/* The same for an object that may have lost its last other user. */
int dragon_py_tell_of_users(const struct dragon_py_patience *patience,
                            struct dragon_py_object *object);
