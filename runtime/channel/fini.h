#pragma once

/*
 * How objects of all kinds end: what to close objects with that own something, or that
 * may be listed by a message. By what the state begins with
 * (dragon_object_begins_with), not by the object's kind; a new type whose state owns
 * blocks gets a line in fini.c.
 */

#include "memory/object.h"

/* A dragon_object_fini for objects of any kind. */
void dragon_fini(struct dragon_object *object, struct dragon_garbage *garbage);
