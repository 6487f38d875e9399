#include "channel/fini.h"

#include "base/atomic.h"
#include "channel/channel.h"
#include "sync/barrier.h"
#include "sync/condition.h"
#include "sync/process_lock.h"
#include "sync/semaphore.h"

void dragon_fini(struct dragon_object *object, struct dragon_garbage *garbage)
{
    switch (dragon_observe(&dragon_object_header_of(object->state)->state_kind)) {
    case DRAGON_CHANNEL_KIND:
        dragon_channel_fini(object, garbage);
        break;
    case DRAGON_CONDITION_KIND:
        dragon_condition_fini(object->state, object->pool);
        break;
    default:
        break; /* it owns nothing */
    }
}

void dragon_user_ended(struct dragon_object_header *header, uint64_t state_bytes, uint32_t note,
                       const struct dragon_end *end)
{
    uint32_t kind = dragon_observe(&header->state_kind);
    void *state = header + 1;

    if (kind == DRAGON_BARRIER_KIND && state_bytes >= sizeof(struct dragon_barrier) &&
        end->death != 0)
        dragon_barrier_party_died(state, note);
    else if (kind == DRAGON_SEMAPHORE_KIND && state_bytes >= sizeof(struct dragon_semaphore) &&
             end->death != 0)
        dragon_semaphore_holder_died(state, end->process, end->death);
    else if (kind == DRAGON_PROCESS_LOCK_KIND && state_bytes >= sizeof(struct dragon_process_lock))
        dragon_process_lock_wake(state, end->process);
}
