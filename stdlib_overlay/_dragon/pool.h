#pragma once

/*
 * _dragon.Pool and _dragon.Allocation, as other types of the module use them.
 */

#include "module.h"

#include "base/atomic.h"
#include "memory/handle.h"
#include "node/node.h"
#include "process/members.h"

struct dragon_pool;

struct dragon_py_pool {
    PyObject_HEAD
    struct dragon_pool *pool;
    bool is_nodes;                /* not to be closed, and its processes are the node's */
    const _Atomic uint32_t *slot; /* if so: dragon_node_slot */
    struct dragon_member member;  /* if not */
    PyObject *weak_references;
};

/* What a block is to those who list blocks; the values are those of the public
 * package's AllocType. */
enum dragon_py_label {
    DRAGON_PY_LABEL_DATA = 0,
    DRAGON_PY_LABEL_OBJECT = 1,
    DRAGON_PY_LABEL_MESSAGE = 2,
    DRAGON_PY_LABEL_RUNTIME = 3,
};

/* The numbers of a pool as a dictionary; releases the GIL meanwhile. NULL with an
 * exception. */
PyObject *dragon_py_pool_statistics(struct dragon_pool *pool);

/* Who holds the block of a message that its process cannot hold: nobody frees it if
 * that process is killed. */
#define DRAGON_PY_MESSAGE_ROLE (DRAGON_HOLDER_LABELLED + DRAGON_PY_LABEL_MESSAGE)

/* Who holds this process's blocks in its node's pool; 0: it has left the node, or the
 * node has no slot left. */
uint32_t dragon_py_node_holder(void);

/* Who is to hold a block while it is in this process's hands, so that it comes back
 * if the process is killed; role: where that cannot be had. Asked each time: a forked
 * copy of a process is somebody else. With the GIL. */
static inline uint32_t dragon_py_pool_holder(struct dragon_py_pool *self, uint32_t role)
{
    uint32_t holder, slot;

    if (self->is_nodes) {
        slot = dragon_peek(self->slot);
        holder =
            slot != DRAGON_NODE_NO_SLOT ? DRAGON_HOLDER_FIRST_SLOT + slot : dragon_py_node_holder();
    } else {
        holder = dragon_member_holder(&self->member);
    }
    return holder ? holder : role;
}

/* Take back what processes held that were killed; true if that freed anything. Releases
 * the GIL meanwhile. Costs little if there is nothing: before an answer that depends on
 * it. The node's pool: false, its supervisor does it. */
bool dragon_py_pool_take_back(struct dragon_py_pool *self);

/* A live block of self as a _dragon.Allocation. holder: who holds it; if that is this
 * process, the block is shared (given the role SHARED, so that it stays when the
 * process ends) before others can learn of it. NULL with an exception (StaleHandle);
 * the block stays as it is. */
PyObject *dragon_py_allocation_new(struct dragon_py_pool *self, const struct dragon_handle *handle,
                                   uint32_t holder);

/* Before a fork: the copy will see the memory of the blocks that this process holds,
 * so they are shared. */
void dragon_py_allocation_before_fork(void);
