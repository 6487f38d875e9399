#include "wait/mutex.h"

#include "base/check.h"
#include "base/error.h"

#include <errno.h>

int dragon_mutex_init(struct dragon_mutex *mutex)
{
    pthread_mutexattr_t attributes;
    int r;

    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    r = pthread_mutex_init(&mutex->mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
    return r == 0 ? 0 : dragon_error_origin(-r);
}

static int locked(struct dragon_mutex *mutex, int r)
{
    switch (r) {
    case 0:
        return 0;
    case EOWNERDEAD:
        pthread_mutex_consistent(&mutex->mutex);
        return DRAGON_MUTEX_OWNER_DIED;
    case EBUSY:
        return DRAGON_MUTEX_BUSY;
    default:
        return dragon_error_origin(-r);
    }
}

int dragon_mutex_lock(struct dragon_mutex *mutex)
{
    return locked(mutex, pthread_mutex_lock(&mutex->mutex));
}

int dragon_mutex_try_lock(struct dragon_mutex *mutex)
{
    return locked(mutex, pthread_mutex_trylock(&mutex->mutex));
}

void dragon_mutex_unlock(struct dragon_mutex *mutex)
{
    int r = pthread_mutex_unlock(&mutex->mutex);

    dragon_check(r == 0);
    (void)r;
}
