#pragma once

/*
 * Checks of `dragon doctor` that try, in small, how children are made (launcher/seed.h,
 * launcher/spare.c). For a process with one thread. 0 if it works here, or -errno.
 */

/* A child that wait() does not know of, as the seed is one. */
int dragon_check_hidden_child(void);

/* A descriptor that is sent through a socket. */
int dragon_check_descriptor_passing(void);

/* All that the seed, its fork server and a spare do: a process that this one forks through others
 * becomes its child. */
int dragon_check_adoption(void);

/* Closing all descriptors at once. */
int dragon_check_close_range(void);
