#pragma once

/*
 * The C module `_dragon`: what the Python side sees of the runtime. One Python
 * type per file; each file adds its type in dragon_py_<type>_add, called by
 * module.c. Heap types and module state only: no static PyObject.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stdint.h>

struct dragon_pool;

struct dragon_py_state {
    PyTypeObject *object_type; /* object.c: base of all types below */
    PyTypeObject *queue_type;
    PyTypeObject *simple_queue_type;
    PyTypeObject *semaphore_type;
    PyTypeObject *event_type;
    PyTypeObject *condition_type;
    PyTypeObject *barrier_type;
    PyTypeObject *block_type;
    PyTypeObject *pool_type;
    PyTypeObject *allocation_type;
    PyTypeObject *channel_type;
    PyTypeObject *lock_type;
    PyTypeObject *shared_buffer_type;
    PyTypeObject *synchronized_type; /* base of the others in synchronized.c */
    PyTypeObject *pipe_type;
    PyTypeObject *connection_type;
    PyTypeObject *place_words_type;
    PyTypeObject *worker_loop_type;
    PyTypeObject *result_iterator_type;
    PyTypeObject *desk_type;
    PyTypeObject *call_type;
    PyObject *queue_full; /* queue.Full, queue.Empty; NULL until first used */
    PyObject *queue_empty;
    PyObject *pool_full;    /* _dragon.PoolFull, a MemoryError */
    PyObject *stale_handle; /* _dragon.StaleHandle, an OSError */
    PyObject *destroyed;    /* _dragon.Destroyed, a StaleHandle */
    /* codec.c and pickler.c; NULL until first used */
    PyTypeObject *sink_type;
    PyTypeObject *letter_type;
    PyObject *sink;
    PyObject *pickler;
    PyObject *extra_reducers; /* of multiprocessing.reduction.ForkingPickler */
    PyObject *copyreg_table;
    uint64_t reducers_versions[2];
    bool knows_arrays; /* the reducers have one for numpy.ndarray */
    bool pickler_is_busy;
    PyObject *unpickle;
};

extern struct PyModuleDef dragon_py_module;

/* State of the module. Borrowed; valid while the module lives. */
struct dragon_py_state *dragon_py_state_of_module(PyObject *module);

/* The same for a type defined by the module or derived from such a type;
 * NULL with an exception if it is neither. */
struct dragon_py_state *dragon_py_state_of(PyTypeObject *type);

/* Grows in each forked copy of a process: what belonged to threads of the other, the copy
 * has not. */
extern uint32_t dragon_py_fork_generation;

/* Create a heap type and add it to the module under its name. Returns a strong
 * reference, or NULL with an exception. base: NULL for object. */
PyTypeObject *dragon_py_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject *base);

/* Each 0, or -1 with an exception. */
int dragon_py_object_add(PyObject *module);
int dragon_py_queue_add(PyObject *module);
int dragon_py_semaphore_add(PyObject *module);
int dragon_py_event_add(PyObject *module);
int dragon_py_condition_add(PyObject *module);
int dragon_py_barrier_add(PyObject *module);
int dragon_py_block_add(PyObject *module);
int dragon_py_codec_add(PyObject *module);
int dragon_py_pool_add(PyObject *module);
int dragon_py_channel_add(PyObject *module);
int dragon_py_lock_add(PyObject *module);
int dragon_py_channel_set_add(PyObject *module);
int dragon_py_shared_buffer_add(PyObject *module);
int dragon_py_synchronized_add(PyObject *module);
int dragon_py_pipe_add(PyObject *module);
int dragon_py_connection_add(PyObject *module);
int dragon_py_connection_wait_add(PyObject *module);
int dragon_py_place_words_add(PyObject *module);
int dragon_py_worker_loop_add(PyObject *module);
int dragon_py_result_iterator_add(PyObject *module);
int dragon_py_connection_pair_add(PyObject *module);
int dragon_py_desk_add(PyObject *module);

/* queue.Full and queue.Empty. Borrowed, or NULL with an exception. */
PyObject *dragon_py_queue_full(struct dragon_py_state *state);
PyObject *dragon_py_queue_empty(struct dragon_py_state *state);

/* The default pool of this process's node. Borrowed, or NULL with an exception
 * (RuntimeError: this process has no node, and how to get one). */
struct dragon_pool *dragon_py_default_pool(void);

/* error.c: the one place where results of the runtime become exceptions.
 * r < 0: the matching OSError subclass, or PoolFull, StaleHandle, ...; what
 * names object and operation ("Queue.put"). Always returns NULL. */
PyObject *dragon_py_raise(struct dragon_py_state *state, int r, const char *what);

/* PoolFull with the pool's limit, what was asked and what is free. NULL. */
PyObject *dragon_py_raise_pool_full(struct dragon_py_state *state, struct dragon_pool *pool,
                                    uint64_t asked_bytes, const char *what);

/* PoolFull with the same numbers: the system gave no memory, r is -ENOMEM or
 * -ENOSPC. NULL. */
PyObject *dragon_py_raise_no_memory(struct dragon_py_state *state, struct dragon_pool *pool,
                                    uint64_t asked_bytes, int r, const char *what);

/* An absolute deadline from a Python timeout in seconds: None is forever,
 * a negative number counts as 0. -1 with an exception (TypeError, ValueError
 * for nan). */
int dragon_py_deadline(PyObject *timeout, int64_t *deadline_ns_out);
