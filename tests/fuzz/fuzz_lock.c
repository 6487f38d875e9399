/* A lock in memory that another process has scribbled over, its robust mutexes
 * included: opening refuses it, or every operation ends by its deadline. */
#include "base/deadline.h"
#include "sync/lock.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LOCK_BYTES 4288

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_data);

static _Alignas(64) unsigned char memory[LOCK_BYTES];

/* Bytes over the lock: where in two bytes, how many; so many bytes. */
static void scribble(const uint8_t *data, size_t n_data)
{
    while (n_data > 3) {
        size_t at = (size_t)(data[0] | data[1] << 8) % LOCK_BYTES;
        size_t n = data[2];

        data += 3;
        n_data -= 3;
        n = n < n_data ? n : n_data;
        n = n < LOCK_BYTES - at ? n : LOCK_BYTES - at;
        memcpy(memory + at, data, n);
        data += n;
        n_data -= n;
    }
}

static void use(struct dragon_lock *lock)
{
    struct dragon_lock_turn turn = {0};
    int64_t deadline_ns = dragon_deadline_after_ns(100000);
    int r = dragon_lock_try_lock(lock);

    if (r == 0 || r == DRAGON_LOCK_OWNER_DIED)
        dragon_lock_unlock(lock);
    if (dragon_lock_unlock(lock) == 0)
        abort(); /* not locked by this process */
    r = dragon_lock_wait(lock, &turn, deadline_ns);
    if (r == DRAGON_LOCK_TIMEOUT)
        r = dragon_lock_wait(lock, &turn, deadline_ns);
    dragon_lock_leave(lock, &turn);
    if (r == 0 || r == DRAGON_LOCK_OWNER_DIED)
        dragon_lock_unlock(lock);
    dragon_lock_fini(lock);
}

/* Input: the kind, whether bytes are taken as they are, then those bytes, or
 * what is written over a lock. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_data)
{
    static const enum dragon_lock_kind kinds[] = {DRAGON_LOCK_FIFO, DRAGON_LOCK_FIFO_LITE,
                                                  DRAGON_LOCK_GREEDY};
    struct dragon_lock made, opened;
    int r;

    if (n_data < 1)
        return 0;
    if (dragon_lock_init(kinds[data[0] % 3], memory, LOCK_BYTES, &made) != 0)
        abort();
    if (data[0] & 0x80)
        memcpy(memory, data, n_data < LOCK_BYTES ? n_data : LOCK_BYTES);
    else
        scribble(data + 1, n_data - 1);
    r = dragon_lock_open(memory, LOCK_BYTES, &opened);
    if (r == 0)
        use(&opened);
    else
        use(&made); /* opened before it was scribbled over */
    return 0;
}
