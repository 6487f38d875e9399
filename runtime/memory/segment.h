#pragma once

/*
 * Segment: one memory file mapped once into this process. Knows nothing of
 * what is in it.
 */

#include <stdint.h>

struct dragon_segment {
    int fd;              /* close-on-exec, owned */
    uint64_t size_bytes; /* of the mapping; pages appear as they are committed */
    unsigned char *base;
};

/* A new anonymous segment of size_bytes (nothing is committed yet). */
int dragon_segment_create_anonymous(struct dragon_segment *segment, const char *name,
                                    uint64_t size_bytes);

/* A new POSIX shared-memory segment "/name", mode 0600. -EEXIST. */
int dragon_segment_create_named(struct dragon_segment *segment, const char *name,
                                uint64_t size_bytes);

/* Map an existing one. fd: consumed, also on failure. -EBADMSG: not a file of
 * this user, or shorter than a page. */
int dragon_segment_open_fd(struct dragon_segment *segment, int fd);
int dragon_segment_open_named(struct dragon_segment *segment, const char *name);

/* Unmap and close. Others keep it. */
void dragon_segment_close(struct dragon_segment *segment);
