#pragma once

/*
 * Base of all Python types that are a view of an object in a pool. Holds one
 * use of the object (memory/object.h) until it is deallocated.
 *
 * A derived type lays out its instance as
 *     struct lock { struct dragon_py_object base; ...own fields... };
 * and calls dragon_py_object_create from tp_init (or tp_new).
 */

#include "module.h"

#include "memory/object.h"

struct dragon_py_object {
    PyObject_HEAD
    struct dragon_object object; /* object.state is NULL while there is none */
    dragon_object_fini fini;
    struct dragon_py_object *next; /* all open ones of this process, for fork */
    struct dragon_py_object *previous;
    uint64_t copied_by;  /* bits of forks under way, whose copy has a use */
    uint64_t told_death; /* the last one that who waits here was told of (patience.h) */
    PyObject *weak_references;
};

/* Create the shared object behind self, in the default pool. -1 with an
 * exception. what: for messages ("Lock"). fini: dragon_fini (channel/fini.h) where the
 * state owns blocks, else NULL; that function must know the state then, as others free
 * the object of a process that was killed. */
int dragon_py_object_create(struct dragon_py_object *self, uint32_t kind, uint64_t state_bytes,
                            dragon_object_fini fini, const char *what);

/* Attach self to the object that state names: the bytes that
 * Object._export() gave. -1 with an exception (StaleHandle). */
int dragon_py_object_attach(struct dragon_py_object *self, PyObject *state, uint32_t kind,
                            uint64_t state_bytes, dragon_object_fini fini, const char *what);

/* The same in a pool that the caller keeps open until after the release. holder: this
 * process there, or a role that is never given back in its place. handle may name anything. */
int dragon_py_object_create_in(struct dragon_py_object *self, struct dragon_pool *pool,
                               uint32_t holder, uint32_t kind, uint64_t state_bytes,
                               dragon_object_fini fini, const char *what);
int dragon_py_object_attach_in(struct dragon_py_object *self, struct dragon_pool *pool,
                               uint32_t holder, const struct dragon_handle *handle, uint32_t kind,
                               uint64_t state_bytes, dragon_object_fini fini, const char *what);

/* -1 with ValueError if self has no object (its __init__ was not called). */
int dragon_py_object_require(struct dragon_py_object *self, const char *what);

/* Methods that every type gets from the base:
 *   _export(in_message: bool) -> bytes   name of the object; in_message: the message
 *                                        that this thread makes keeps it in use
 *   _is_same(other) -> bool
 * Each derived type itself defines _attach(state: bytes) -> None. */

/* Close the object, if there is one. */
void dragon_py_object_release(struct dragon_py_object *self);

/* Close the objects of all views that this process has, for its end: no view may
 * be used any more, by any thread. */
void dragon_py_object_release_all(void);

/* tp_dealloc of the base. A derived type with more to undo does that and then
 * calls it. */
void dragon_py_object_dealloc(PyObject *self);

/* tp_traverse of the base. */
int dragon_py_object_traverse(PyObject *self, visitproc visit, void *arg);
