#include "sync/event.h"

#include "base/check.h"

#include <string.h>

void dragon_event_init(struct dragon_event *event)
{
    dragon_eventcount_init(&event->waiters);
    memset(event->reserved, 0, sizeof event->reserved);
    dragon_publish(&event->word, 0);
}

void dragon_event_set(struct dragon_event *event)
{
    uint32_t word = dragon_peek(&event->word);

    /* + 3: the number grows by one (bit 1 up), and the flag goes up (bit 0). */
    while (!(word & 1) && !dragon_replace(&event->word, &word, word + 3))
        ;
    DRAGON_TEST_POINT("event-raised");
    /* Also when it was up already: who raised it may have died before this. */
    dragon_eventcount_wake_all(&event->waiters);
}

void dragon_event_clear(struct dragon_event *event)
{
    dragon_fetch_and(&event->word, ~UINT32_C(1));
}

struct wait {
    struct dragon_event *event;
    uint32_t begin;
};

static bool has_happened(void *context)
{
    struct wait *wait = context;

    return dragon_event_has_happened(wait->event, wait->begin);
}

int dragon_event_wait(struct dragon_event *event, uint32_t begin, int64_t deadline_ns)
{
    static _Thread_local struct dragon_spin spin;
    struct wait wait = {event, begin};

    return dragon_wait_until(&event->waiters, &spin, has_happened, &wait, deadline_ns);
}
