#include "channel_object.h"

#include "channel/fini.h"
#include "memory/pool.h"

int dragon_py_channel_object_create(struct dragon_py_object *self,
                                    const struct dragon_py_channel_kind *kind,
                                    const struct dragon_channel_options *options)
{
    struct dragon_py_state *state = dragon_py_state_of(Py_TYPE(self));
    int r;

    if (dragon_py_object_create(self, kind->kind, kind->state_bytes, dragon_fini, kind->name) < 0)
        return -1;
    r = kind->init(&self->object, options);
    if (r == 0)
        return 0;
    if (r == DRAGON_POOL_FULL)
        dragon_py_raise_pool_full(state, self->object.pool, 0, kind->name);
    else
        dragon_py_raise(state, r, kind->name);
    dragon_py_object_release(self);
    return -1;
}

int dragon_py_channel_object_attach(struct dragon_py_object *self,
                                    const struct dragon_py_channel_kind *kind, PyObject *exported)
{
    return dragon_py_object_attach(self, exported, kind->kind, kind->state_bytes, dragon_fini,
                                   kind->name);
}
