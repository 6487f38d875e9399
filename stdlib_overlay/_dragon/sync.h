#pragma once

/*
 * What the Python types Lock, Event, Condition and Barrier are built from share:
 * the lock behind a condition.
 */

#include "arguments.h"
#include "object.h"
#include "wait.h"

#include "base/deadline.h"
#include "sync/semaphore.h"

/* How often a blocking method looks before it gives up the GIL: giving it up
 * and getting it back costs as much, if another thread takes it far more. */
#define DRAGON_PY_LOOKS 20

/* kind of a SemLock, as in the standard library. */
enum dragon_py_semaphore_kind { DRAGON_PY_RECURSIVE_MUTEX, DRAGON_PY_SEMAPHORE };

/* _dragon.SemLock. What is not in the shared object belongs to this process:
 * who of its threads holds the lock, and how often. */
struct dragon_py_semaphore {
    struct dragon_py_object base;
    enum dragon_py_semaphore_kind kind;
    int count;                /* acquired less released, by this process */
    unsigned long owner;      /* thread that acquired last */
    uint32_t fork_generation; /* what is said here is of the process in which this was current */
    uint64_t process;         /* the number of this process; 0: not known */
    bool is_robust;
    bool has_one_unit; /* at most one is ever taken */
    bool names_holder; /* who has a unit gives it back himself: it is a lock */
    bool owner_died;   /* robust: the holder before us ended while it held the lock */
};

/* True if the calling thread holds it. */
bool dragon_py_semaphore_is_mine(struct dragon_py_semaphore *self);

/* Release it wholly, for dragon_py_semaphore_restore. The caller holds it.
 * Returns how often it was acquired. */
int dragon_py_semaphore_release_wholly(struct dragon_py_semaphore *self);

/* Acquire it again, count times. No exception is set on entry. -1 with an
 * exception: not acquired. */
int dragon_py_semaphore_restore(struct dragon_py_semaphore *self, int count);

/* acquire(block=True, timeout=None) and release(): methods, also of Condition. */
PyObject *dragon_py_semaphore_acquire(struct dragon_py_semaphore *self, PyObject *const *args,
                                      Py_ssize_t n_args, PyObject *kwnames);
PyObject *dragon_py_semaphore_release(struct dragon_py_semaphore *self);
