/* Objects whose header another process has scribbled over: opening refuses them,
 * or they are used and closed like others. */
#include "memory/object.h"
#include "memory/pool.h"
#include "support/scribble.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KIND DRAGON_KIND('F', 'U', 'Z', 'Z')
#define STATE_BYTES 200

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_data);

static struct scribble scribble;
static struct dragon_pool *keeper;
static struct dragon_handle handle;

static void make_object(void)
{
    struct dragon_object object;

    if (dragon_pool_create_managed(UINT64_C(1) << 16, 7, 1, &keeper) != 0 ||
        dragon_object_create(keeper, KIND, STATE_BYTES, DRAGON_HOLDER_SHARED, &object) != 0)
        abort();
    handle = object.handle;
    scribble_take_pool(&scribble, keeper);
    scribble_add_blocks(&scribble, keeper);
}

static void clear_state(struct dragon_object *object, struct dragon_garbage *garbage)
{
    (void)garbage;
    memset(object->state, 0, STATE_BYTES);
}

/* Input: as scribble_write takes it. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_data)
{
    struct dragon_garbage garbage = {.pool = keeper, .freer = DRAGON_HOLDER_FIRST_SLOT};
    struct dragon_object object;

    if (!keeper)
        make_object();
    scribble_restore(&scribble);
    scribble_write(&scribble, data, n_data);
    if (dragon_object_open(keeper, &handle, KIND, STATE_BYTES, DRAGON_HOLDER_SHARED, &object) ==
        0) {
        clear_state(&object, NULL);
        (void)dragon_object_keep(&object, DRAGON_HOLDER_FIRST_SLOT);
        (void)dragon_object_add_block(keeper, &handle, &handle, DRAGON_HOLDER_SHARED);
        dragon_object_close(&object, clear_state);
    }
    garbage.pool = keeper;
    dragon_object_sweep(&garbage);
    dragon_object_take_out_block(&garbage, &handle, &handle);
    dragon_garbage_free(&garbage, clear_state);
    if (dragon_object_open(keeper, &handle, KIND, STATE_BYTES + 100000, DRAGON_HOLDER_SHARED,
                           &object) == 0)
        abort(); /* there is no such state */
    return 0;
}
