#include "channel/fini.h"

#include "base/atomic.h"
#include "channel/channel.h"
#include "sync/condition.h"

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
