#pragma once

/* The runtime threads' work and the node's private state. For node/ only. */

#include "node/node.h"

#include "base/atomic.h"
#include "process/table.h"
#include "wait/eventcount.h"

#include <pthread.h>

enum dragon_node_request {
    DRAGON_NODE_PREFAULT = 1,
    DRAGON_NODE_SWEEP = 2, /* some slots are DRAGON_TABLE_DEAD */
};

/* What a tag in the supervisor's epoll stands for. */
enum dragon_node_watched {
    DRAGON_NODE_WATCHED_CHILD = 0, /* tag: pid << 8 */
    DRAGON_NODE_WATCHED_LEADER,    /* this process ends with it */
};

enum dragon_node_state {
    DRAGON_NODE_OPENING = 0,
    DRAGON_NODE_OPEN,
    DRAGON_NODE_FAILED,
};

struct dragon_node {
    /* state and error are written by the opening thread, error first. */
    _Atomic uint32_t state;
    int error;
    struct dragon_eventcount opened;
    struct dragon_node_options options;

    struct dragon_pool *pool;
    struct dragon_table table;
    uint64_t id;
    bool is_head;
    int32_t head_pid;
    uint64_t start_ticks; /* of this process; 0: not known yet */
    _Atomic uint32_t slot;

    /* Guards starting threads and claiming a slot. */
    pthread_mutex_t mutex;
    bool has_memory_thread;
    bool has_channels_thread;
    bool has_watch_thread;

    /* Memory thread: requests are set, then it is woken. The head's sleeps on the
     * pool's own eventcount, so that the pool's growth wakes it, too. */
    struct dragon_eventcount own_memory_work;
    struct dragon_eventcount *memory_work;
    _Atomic uint32_t memory_requests;
    _Atomic uint32_t is_prefaulted;

    /* Supervisor. The epoll descriptor is close-on-exec. */
    int epoll_fd;

    _Atomic uint32_t has_children; /* that it watches or has forked */

    /* Pollers, by doorbell bit. Guarded by pollers_mutex. */
    pthread_mutex_t pollers_mutex;
    struct dragon_poller *pollers[DRAGON_DOORBELL_BITS];
    unsigned next_bit;
    unsigned n_forks; /* pollers with another number are a parent's */
    _Atomic unsigned n_pollers;
};

/* Fill in the node according to its options, and tell those who wait for it. */
int dragon_node_finish_open(struct dragon_node *node);

/* Body of the memory thread of a node that is still to be opened. argument: the node. */
void *dragon_node_opening_thread(void *argument);

/* Start each thread unless it runs. 0 or -EAGAIN. */
int dragon_node_start_memory_thread(struct dragon_node *node);
int dragon_node_start_channels_thread(struct dragon_node *node);
int dragon_node_start_watch_thread(struct dragon_node *node);

/* Ask the memory thread for something. */
void dragon_node_request(struct dragon_node *node, uint32_t request);

/* Somebody thinks that a process has ended; status: as wait() gives it, or
 * DRAGON_STATUS_UNKNOWN. False: that cannot be found out now. */
bool dragon_node_bury(struct dragon_node *node, int32_t pid, uint32_t status);

/* Make the descriptors of the pollers with these bits say what is. */
void dragon_node_update_pollers(struct dragon_node *node,
                                const uint64_t ready[DRAGON_DOORBELL_WORDS]);
