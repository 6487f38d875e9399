#include "exports.h"

#include "payload.h"

#include "memory/pool.h"
#include "memory/uses.h"

/* Not NULL in a thread that is making a message of an object: shared objects that
 * it meets travel with a use of their own. Those of a message that fails are
 * closed again; they are kept in this list until then. */
static _Thread_local const struct dragon_py_transfer *exporting;
static _Thread_local struct dragon_py_export *exports;

const struct dragon_py_transfer *dragon_py_exports_begin(const struct dragon_py_transfer *t)
{
    const struct dragon_py_transfer *outer = exporting;

    exporting = t;
    return outer;
}

void dragon_py_exports_stop(const struct dragon_py_transfer *outer)
{
    exporting = outer;
}

bool dragon_py_is_exporting(void)
{
    return exporting != NULL;
}

struct dragon_py_export *dragon_py_exports(void)
{
    return exports;
}

int dragon_py_note_export(struct dragon_py_state *state, struct dragon_object *object,
                          dragon_object_fini fini)
{
    struct dragon_py_export *export = PyMem_Malloc(sizeof *export);
    int r;

    if (!export) {
        PyErr_NoMemory();
        return -1;
    }
    r = dragon_object_keep(object, object->holder);
    if (r != 0) {
        struct dragon_py_transfer t = {state, object->pool, object->holder,
                                       exporting ? exporting->what : "put"};

        PyMem_Free(export);
        dragon_py_raise_failure(&t, r);
        return -1;
    }
    *export = (struct dragon_py_export){*object, fini, true, false, exports};
    exports = export;
    return 0;
}

void dragon_py_exports_end(struct dragon_py_export *before)
{
    while (exports != before) {
        struct dragon_py_export *export = exports;

        exports = export->next;
        if (export->is_ours)
            dragon_object_close(&export->object, export->fini);
        PyMem_Free(export);
    }
}

void dragon_py_exports_before_fork(uint32_t holder)
{
    for (struct dragon_py_export *export = exports; export; export = export->next)
        export->is_copied = holder != 0 && dragon_object_keep(&export->object, holder) == 0;
}

void dragon_py_exports_after_fork(uint32_t holder)
{
    for (struct dragon_py_export *export = exports; export; export = export->next) {
        export->object.holder = holder;
        export->is_ours = holder != 0 && export->is_copied;
    }
}

uint64_t dragon_py_exports_count(const struct dragon_py_export *before)
{
    uint64_t n = 0;

    for (const struct dragon_py_export *export = exports; export != before; export = export->next)
        n++;
    return n;
}

int dragon_py_exports_list(const struct dragon_py_transfer *t,
                           const struct dragon_py_export *before, struct dragon_message *message)
{
    struct dragon_handle block = dragon_py_block_handle(t->pool, message);
    struct dragon_handle *objects;
    uint64_t n = dragon_py_exports_count(before), i = 0;
    int r;

    if (n == 0)
        return 0;
    objects = PyMem_Malloc(n * sizeof *objects);
    if (!objects) {
        PyErr_NoMemory();
        return -1;
    }
    for (const struct dragon_py_export *export = exports; export != before; export = export->next)
        objects[i++] = export->object.handle;
    r = dragon_uses_add(t->pool, &block, objects, n, t->holder);
    PyMem_Free(objects);
    if (r == 0)
        message->kind |= DRAGON_PY_KIND_LISTS_USES;
    else
        dragon_py_raise_failure(t, r);
    return r == 0 ? 0 : -1;
}
