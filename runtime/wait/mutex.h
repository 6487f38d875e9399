#pragma once

/*
 * A mutex in shared memory that survives the death of its holder: for the
 * short critical sections inside the runtime, and, made by
 * dragon_mutex_init_checked, what dragon_lock is built from. (The locks of
 * multiprocessing are dragon_semaphore, whose holder keeps it in death as in
 * the standard library.)
 *
 * What it protects must be sane after every single store, or the caller
 * repairs it when told DRAGON_MUTEX_OWNER_DIED. The mutex itself is usable
 * again at once (pthread_mutex_consistent is called here).
 *
 * The memory must stay mapped at one address while the mutex is held.
 */

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct dragon_mutex {
    /* private */
    pthread_mutex_t mutex;
    char reserved[48 - sizeof(pthread_mutex_t)];
};

_Static_assert(sizeof(struct dragon_mutex) == 48, "shared layout");

enum dragon_mutex_outcome {
    DRAGON_MUTEX_OWNER_DIED = 1, /* locked; the last holder died inside */
    DRAGON_MUTEX_BUSY,           /* try_lock only: not locked */
    DRAGON_MUTEX_MINE,           /* checked ones only: the caller holds it already */
};

/* Make one of the memory; nobody uses that yet. 0 or -errno. */
int dragon_mutex_init(struct dragon_mutex *mutex);

/* Blocks; who waits while others are killed is passed over for half a second at the
 * most. 0 or DRAGON_MUTEX_OWNER_DIED: locked. -EBADMSG or other -errno: the
 * memory holds no mutex of ours (another process wrote over it). */
int dragon_mutex_lock(struct dragon_mutex *mutex);

/* Never blocks; DRAGON_MUTEX_BUSY when another thread holds it. */
int dragon_mutex_try_lock(struct dragon_mutex *mutex);

/* The caller holds it. Also a full fence: what was stored before it is visible to
 * all before anything is loaded after it. */
void dragon_mutex_unlock(struct dragon_mutex *mutex);

/* ---- for holders that may err ---- */

/* Locking it twice gives DRAGON_MUTEX_MINE. 0 or -errno. */
int dragon_mutex_init_checked(struct dragon_mutex *mutex);

/* 0; -EPERM: the calling thread does not hold it (also in the forked child of a
 * holder). Only for a mutex made by dragon_mutex_init_checked. */
int dragon_mutex_unlock_checked(struct dragon_mutex *mutex);

/* The thread id of who holds it, 0 for nobody: a hint, except that it is the
 * calling thread's own exactly while that thread holds it. */
int32_t dragon_mutex_holder(const struct dragon_mutex *mutex);

/* True if dragon_mutex_init, or with is_checked dragon_mutex_init_checked, may
 * have made these bytes: they lead the C library to no other kind of mutex. */
bool dragon_mutex_is_sane(const struct dragon_mutex *mutex, bool is_checked);
