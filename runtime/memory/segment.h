#pragma once

/*
 * Segment: one memory file mapped once into this process. Knows nothing of
 * what is in it.
 */

#include <stdbool.h>
#include <stdint.h>

struct dragon_segment {
    int fd;              /* close-on-exec, owned, at a high number */
    uint64_t size_bytes; /* of the mapping; pages appear as they are committed */
    unsigned char *base;
    uint64_t device; /* of the file: the program may close our fd and */
    uint64_t inode;  /* get its number for a file of its own */
};

/* A new anonymous segment of size_bytes (nothing is committed yet). */
int dragon_segment_create_anonymous(struct dragon_segment *segment, const char *name,
                                    uint64_t size_bytes);

/* A new POSIX shared-memory segment "/name", mode 0600. -EEXIST. */
int dragon_segment_create_named(struct dragon_segment *segment, const char *name,
                                uint64_t size_bytes);

/* Map an existing one. fd: consumed, also on failure; whoever gave it is trusted, and may have
 * been another user when the file was made. -EBADMSG: no file, or shorter than a page. */
int dragon_segment_open_fd(struct dragon_segment *segment, int fd);

/* The same by name. -EBADMSG also if the file is another user's: names can be taken by anybody. */
int dragon_segment_open_named(struct dragon_segment *segment, const char *name);

/* True if the shared-memory file "/name" is the segment's. */
bool dragon_segment_has_name(const struct dragon_segment *segment, const char *name);

/* The segment's file. Borrowed. -EBADF: the program has closed it. */
int dragon_segment_fd(const struct dragon_segment *segment);

/* Make sure that a range has memory behind it. As dragon_os_commit; -EBADF if
 * the program has closed the file. */
int dragon_segment_commit(struct dragon_segment *segment, uint64_t offset, uint64_t size_bytes);

/* Give the memory behind a range back. As dragon_os_decommit; -EBADF. */
int dragon_segment_decommit(struct dragon_segment *segment, uint64_t offset, uint64_t size_bytes);

/* Unmap and close. Others keep it. */
void dragon_segment_close(struct dragon_segment *segment);
