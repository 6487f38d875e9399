#pragma once

/*
 * How objects of all kinds end: what to close objects with that own something, or that
 * may be listed by a message. By what the state begins with
 * (dragon_object_begins_with), not by the object's kind; a new type whose state owns
 * blocks gets a line in fini.c; so does one that means something to those who wait for a
 * process which has ended.
 */

#include "memory/object.h"

/* A dragon_object_fini for objects of any kind. */
void dragon_fini(struct dragon_object *object, struct dragon_garbage *garbage);

/* A dragon_object_ended for objects of any kind. */
void dragon_user_ended(struct dragon_object_header *header, uint64_t state_bytes, uint32_t note,
                       const struct dragon_end *end);
