#pragma once

/*
 * A mutex in shared memory that survives the death of its holder: for the
 * short critical sections inside the runtime, never for users' locks (those
 * are dragon_semaphore, whose holder keeps it in death as in the stdlib).
 *
 * What it protects must be sane after every single store, or the caller
 * repairs it when told DRAGON_MUTEX_OWNER_DIED. The mutex itself is usable
 * again at once (pthread_mutex_consistent is called here).
 *
 * The memory must stay mapped at one address while the mutex is held.
 */

#include <pthread.h>

struct dragon_mutex {
    /* private */
    pthread_mutex_t mutex;
    char reserved[48 - sizeof(pthread_mutex_t)];
};

_Static_assert(sizeof(struct dragon_mutex) == 48, "shared layout");

enum dragon_mutex_outcome {
    DRAGON_MUTEX_OWNER_DIED = 1, /* locked; the last holder died inside */
    DRAGON_MUTEX_BUSY,           /* try_lock only: not locked */
};

int dragon_mutex_init(struct dragon_mutex *mutex);

/* Blocks. 0 or DRAGON_MUTEX_OWNER_DIED: locked. -errno: the memory holds no
 * mutex of ours (another process wrote over it). */
int dragon_mutex_lock(struct dragon_mutex *mutex);

/* Never blocks; DRAGON_MUTEX_BUSY when another thread holds it. */
int dragon_mutex_try_lock(struct dragon_mutex *mutex);

/* The caller holds it. */
void dragon_mutex_unlock(struct dragon_mutex *mutex);
