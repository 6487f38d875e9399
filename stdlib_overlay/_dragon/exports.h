#pragma once

/*
 * Shared objects that are met while a message is made of an object: the message keeps them in use
 * (memory/uses.h), and until it does, the thread that makes it. Files of the codec only; what
 * others call is in codec.h.
 */

#include "codec.h"

/* From now on this thread makes a message, so shared objects may be exported; what it made
 * before, or NULL, goes to _stop. */
const struct dragon_py_transfer *dragon_py_exports_begin(const struct dragon_py_transfer *t);
void dragon_py_exports_stop(const struct dragon_py_transfer *outer);

bool dragon_py_is_exporting(void);

/* The newest export of this thread: the `before` of the functions below, taken before a message
 * is begun. */
struct dragon_py_export *dragon_py_exports(void);

uint64_t dragon_py_exports_count(const struct dragon_py_export *before);

/* Let the message's block use what was exported since `before`. 0, or -1 with an exception. */
int dragon_py_exports_list(const struct dragon_py_transfer *t,
                           const struct dragon_py_export *before, struct dragon_message *message);

/* Forget the exports since `before`: the message keeps them by now, or was not made. */
void dragon_py_exports_end(struct dragon_py_export *before);
