#include "wait/doorbell.h"

#include "base/check.h"
#include "base/deadline.h"

#define MAGIC UINT64_C(0x31304c4c45424452) /* "RDBELL01" */

void dragon_doorbell_init(struct dragon_doorbell *doorbell)
{
    dragon_eventcount_init(&doorbell->rung);
    for (int i = 0; i < DRAGON_DOORBELL_WORDS; i++)
        dragon_poke(&doorbell->ready[i], 0);
    doorbell->magic = MAGIC;
}

bool dragon_doorbell_is_one(const struct dragon_doorbell *doorbell)
{
    return dragon_read_once(&doorbell->magic) == MAGIC;
}

void dragon_doorbell_ring(struct dragon_doorbell *doorbell, unsigned bit)
{
    dragon_check(bit < DRAGON_DOORBELL_BITS);
    dragon_fetch_or(&doorbell->ready[bit / 64], UINT64_C(1) << bit % 64);
    dragon_eventcount_wake_one(&doorbell->rung);
}

static bool take(struct dragon_doorbell *doorbell, uint64_t ready_out[DRAGON_DOORBELL_WORDS])
{
    uint64_t any = 0;

    for (int i = 0; i < DRAGON_DOORBELL_WORDS; i++) {
        ready_out[i] = dragon_peek(&doorbell->ready[i]);
        if (ready_out[i])
            ready_out[i] = dragon_exchange(&doorbell->ready[i], 0);
        any |= ready_out[i];
    }
    return any != 0;
}

void dragon_doorbell_wait(struct dragon_doorbell *doorbell, bool look_again,
                          uint64_t ready_out[DRAGON_DOORBELL_WORDS])
{
    uint32_t key;

    if (take(doorbell, ready_out))
        return;
    key = dragon_eventcount_prepare(&doorbell->rung);
    if (take(doorbell, ready_out))
        return;
    if (look_again)
        (void)dragon_eventcount_park(&doorbell->rung, key, DRAGON_FOREVER);
    else
        (void)dragon_eventcount_park_until(&doorbell->rung, key, DRAGON_FOREVER);
    take(doorbell, ready_out);
}
