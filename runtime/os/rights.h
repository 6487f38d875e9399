#pragma once

/*
 * What a process is allowed to do, to be compared with another's. Processes that work at the word
 * of another one (the seed, spares) were made when that one had the rights that they have. A
 * program may give up rights later: become another user, drop capabilities, shut itself in. From
 * then on it must not get done by them what it cannot do itself.
 */

#include <stdint.h>

#define DRAGON_OS_RIGHTS_N_LINES 11

enum dragon_os_rights_outcome {
    DRAGON_OS_OTHER_RIGHTS = 1,
};

/* Plain data without padding, for dragon_os_check_rights. */
struct dragon_os_rights {
    uint64_t places[10];                      /* root folder and name spaces: device, inode */
    uint64_t lines[DRAGON_OS_RIGHTS_N_LINES]; /* users, groups, capabilities, filters: hashes */
};

/* The rights of the calling process. -ENOENT: there is no /proc; -ENOMEM. */
int dragon_os_rights(struct dragon_os_rights *rights_out);

/* Whether process pid has these rights now. 0; DRAGON_OS_OTHER_RIGHTS; -errno: that cannot be told,
 * as it has ended, say. Root folder and name spaces count only where the kernel shows them: those
 * of a process that does not let itself be looked into, as after setuid(), only root sees. */
int dragon_os_check_rights(int32_t pid, const struct dragon_os_rights *rights);
