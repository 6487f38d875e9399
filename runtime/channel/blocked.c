#include "channel/blocked.h"

#include "base/atomic.h"
#include "os/os.h"

#include <stdbool.h>

#define TICKS_BITS 42 /* pids are below 2^22 on Linux */
#define TICKS_MASK ((UINT64_C(1) << TICKS_BITS) - 1)

static uint64_t word_of(int32_t pid)
{
    uint64_t ticks;

    if (dragon_os_start_time(pid, &ticks) < 0)
        return 0;
    return (uint64_t)pid << TICKS_BITS | (ticks & TICKS_MASK);
}

uint64_t dragon_blocked_self(void)
{
    return word_of(dragon_os_pid());
}

static int take_free_place(struct dragon_blocked *blocked, uint64_t self)
{
    for (int i = 0; i < DRAGON_BLOCKED_MAX; i++) {
        uint64_t none = 0;

        if (dragon_peek(&blocked->who[i]) == 0 && dragon_replace(&blocked->who[i], &none, self))
            return i;
    }
    return -1;
}

int dragon_blocked_enter(struct dragon_blocked *blocked, uint64_t self)
{
    int place;

    if (self == 0)
        return -1;
    place = take_free_place(blocked, self);
    if (place < 0 && dragon_blocked_count(blocked) < DRAGON_BLOCKED_MAX)
        place = take_free_place(blocked, self);
    return place;
}

void dragon_blocked_leave(struct dragon_blocked *blocked, int place)
{
    if (place >= 0)
        dragon_publish(&blocked->who[place], 0);
}

uint32_t dragon_blocked_count(struct dragon_blocked *blocked)
{
    uint32_t n = 0;

    for (int i = 0; i < DRAGON_BLOCKED_MAX; i++) {
        uint64_t who = dragon_observe(&blocked->who[i]);

        if (who == 0)
            continue;
        if (word_of((int32_t)(who >> TICKS_BITS)) == who)
            n++;
        else
            dragon_replace(&blocked->who[i], &who, 0);
    }
    return n;
}
