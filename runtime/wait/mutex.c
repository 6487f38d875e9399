#include "wait/mutex.h"

#include "base/atomic.h"
#include "base/check.h"
#include "base/deadline.h"
#include "base/error.h"

#include <errno.h>
#include <time.h>

#define LOOK_AGAIN_NS (DRAGON_NS_PER_S / 2)

/* Kinds of mutex as glibc writes them: robust and shared between processes, and
 * with a check of its holder. This field and the holder's are read here by their
 * places, which are part of glibc's binary interface: mutexes are shared between
 * programs that were built against different versions of it. */
#define KIND_PLAIN (16 | 128)
#define KIND_CHECKED (16 | 128 | 2)

static int init(struct dragon_mutex *mutex, bool is_checked)
{
    pthread_mutexattr_t attributes;
    int r;

    pthread_mutexattr_init(&attributes);
    if (is_checked)
        pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    r = pthread_mutex_init(&mutex->mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
    return r == 0 ? 0 : dragon_error_origin(-r);
}

int dragon_mutex_init(struct dragon_mutex *mutex)
{
    return dragon_error_trace(init(mutex, false));
}

int dragon_mutex_init_checked(struct dragon_mutex *mutex)
{
    return dragon_error_trace(init(mutex, true));
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

/* Any other kind of mutex would lead the C library to assertions, or to pointers
 * that another process has written. */
static bool is_ours(const struct dragon_mutex *mutex)
{
    int kind = __atomic_load_n(&mutex->mutex.__data.__kind, __ATOMIC_RELAXED);

    return kind == KIND_PLAIN || kind == KIND_CHECKED;
}

/* ETIMEDOUT: look again. Unlocking wakes one waiter. If that one is killed before it
 * has the mutex, the kernel wakes the next one, unless somebody else has taken the
 * mutex meanwhile; and he does not know of waiters, and wakes none either. The same if
 * who unlocks is killed before it wakes. */
static int lock_for_a_while(struct dragon_mutex *mutex)
{
#ifdef __SANITIZE_THREAD__ /* which does not know the other function */
    return pthread_mutex_lock(&mutex->mutex);
#else
    int64_t until_ns = dragon_deadline_after_ns(LOOK_AGAIN_NS);
    struct timespec until = {
        .tv_sec = until_ns / DRAGON_NS_PER_S,
        .tv_nsec = until_ns % DRAGON_NS_PER_S,
    };

    return pthread_mutex_clocklock(&mutex->mutex, CLOCK_MONOTONIC, &until);
#endif
}

int dragon_mutex_lock(struct dragon_mutex *mutex)
{
    int r;

    if (!is_ours(mutex))
        return dragon_error_origin(-EBADMSG);
    r = pthread_mutex_trylock(&mutex->mutex);
    while (r == EBUSY || r == ETIMEDOUT)
        r = lock_for_a_while(mutex);
    return locked(mutex, r);
}

int dragon_mutex_try_lock(struct dragon_mutex *mutex)
{
    if (!is_ours(mutex))
        return dragon_error_origin(-EBADMSG);
    return locked(mutex, pthread_mutex_trylock(&mutex->mutex));
}

/* POSIX promises no more than a release. On x86 the word of a shared mutex is
 * given back by a locked instruction, which is a full fence already. */
static void fence_after_unlock(void)
{
#if !defined(__x86_64__)
    dragon_fence();
#endif
}

void dragon_mutex_unlock(struct dragon_mutex *mutex)
{
    int r = pthread_mutex_unlock(&mutex->mutex);

    dragon_check(r == 0);
    (void)r;
    fence_after_unlock();
}

int dragon_mutex_unlock_checked(struct dragon_mutex *mutex)
{
    int r = pthread_mutex_unlock(&mutex->mutex);

    return r == 0 ? 0 : dragon_error_origin(-r);
}

int32_t dragon_mutex_holder(const struct dragon_mutex *mutex)
{
    return __atomic_load_n(&mutex->mutex.__data.__owner, __ATOMIC_RELAXED);
}

bool dragon_mutex_is_sane(const struct dragon_mutex *mutex, bool is_checked)
{
    return mutex->mutex.__data.__kind == (is_checked ? KIND_CHECKED : KIND_PLAIN);
}
