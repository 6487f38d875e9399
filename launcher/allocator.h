#pragma once

/*
 * The C library's malloc of this executable: mimalloc, if it was built in (-Dmimalloc=).
 */

/* Set the allocator up; before any thread and before Python starts. Never fails. */
void dragon_allocator_prepare(void);

/* "mimalloc 2.0.9", or NULL when the executable was built without it. */
const char *dragon_allocator_version(void);

/* One line for dragon doctor: which malloc the program uses. */
const char *dragon_allocator_description(void);
