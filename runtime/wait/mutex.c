#include "wait/mutex.h"

#include "base/check.h"
#include "base/error.h"

#include <errno.h>

static int init(struct dragon_mutex *mutex, int type)
{
    pthread_mutexattr_t attributes;
    int r;

    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, type);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    r = pthread_mutex_init(&mutex->mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
    return r == 0 ? 0 : dragon_error_origin(-r);
}

int dragon_mutex_init(struct dragon_mutex *mutex)
{
    return dragon_error_trace(init(mutex, PTHREAD_MUTEX_NORMAL));
}

int dragon_mutex_init_checked(struct dragon_mutex *mutex)
{
    return dragon_error_trace(init(mutex, PTHREAD_MUTEX_ERRORCHECK));
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
    case EDEADLK:
        return DRAGON_MUTEX_MINE;
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

int dragon_mutex_unlock_checked(struct dragon_mutex *mutex)
{
    int r = pthread_mutex_unlock(&mutex->mutex);

    return r == 0 ? 0 : dragon_error_origin(-r);
}

/* The two below read fields of glibc's mutex, whose places are part of its
 * binary interface: mutexes are shared between programs built against different
 * versions of it. */

int32_t dragon_mutex_holder(const struct dragon_mutex *mutex)
{
    return __atomic_load_n(&mutex->mutex.__data.__owner, __ATOMIC_RELAXED);
}

bool dragon_mutex_is_sane(const struct dragon_mutex *mutex, bool is_checked)
{
    struct dragon_mutex model;

    if (init(&model, is_checked ? PTHREAD_MUTEX_ERRORCHECK : PTHREAD_MUTEX_NORMAL) < 0)
        return false;
    return mutex->mutex.__data.__kind == model.mutex.__data.__kind;
}
