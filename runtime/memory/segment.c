#include "memory/segment.h"

#include "base/error.h"
#include "os/os.h"

#include <errno.h>

#define SMALLEST_BYTES 4096

/* 0; -EBADMSG: the file behind fd is another user's, who could change it at will. */
static int require_own(int fd)
{
    struct dragon_os_file file;
    int r = dragon_os_file_of(fd, &file);

    if (r == 0 && !file.is_own)
        r = dragon_error_origin(-EBADMSG);
    return dragon_error_trace(r);
}

/* fd: consumed, also on failure. */
static int map_segment(struct dragon_segment *segment, int fd)
{
    struct dragon_os_file file;
    void *base;
    int r;

    fd = dragon_os_move_high(fd);
    r = dragon_os_file_of(fd, &file);
    if (r == 0 && file.size_bytes < SMALLEST_BYTES)
        r = dragon_error_origin(-EBADMSG);
    if (r == 0)
        r = dragon_os_map(fd, file.size_bytes, &base);
    if (r < 0) {
        dragon_os_close(fd);
        return dragon_error_trace(r);
    }
    *segment = (struct dragon_segment){fd, file.size_bytes, base, file.device, file.inode};
    return 0;
}

int dragon_segment_create_anonymous(struct dragon_segment *segment, const char *name,
                                    uint64_t size_bytes)
{
    int fd;
    int r = dragon_os_memfd(name, size_bytes, &fd);

    if (r < 0)
        return dragon_error_trace(r);
    return dragon_error_trace(map_segment(segment, fd));
}

int dragon_segment_create_named(struct dragon_segment *segment, const char *name,
                                uint64_t size_bytes)
{
    int fd;
    int r = dragon_os_shm_open(name, true, size_bytes, &fd);

    if (r < 0)
        return dragon_error_trace(r);
    r = map_segment(segment, fd);
    if (r < 0)
        dragon_os_shm_unlink(name);
    return dragon_error_trace(r);
}

int dragon_segment_open_fd(struct dragon_segment *segment, int fd)
{
    return dragon_error_trace(map_segment(segment, fd));
}

int dragon_segment_open_named(struct dragon_segment *segment, const char *name)
{
    int fd;
    int r = dragon_os_shm_open(name, false, 0, &fd);

    if (r < 0)
        return dragon_error_trace(r);
    r = require_own(fd);
    if (r < 0) {
        dragon_os_close(fd);
        return dragon_error_trace(r);
    }
    return dragon_error_trace(map_segment(segment, fd));
}

bool dragon_segment_has_name(const struct dragon_segment *segment, const char *name)
{
    struct dragon_os_file file;
    int fd, r;

    if (dragon_os_shm_open(name, false, 0, &fd) < 0)
        return false;
    r = dragon_os_file_of(fd, &file);
    dragon_os_close(fd);
    return r == 0 && file.device == segment->device && file.inode == segment->inode;
}

int dragon_segment_fd(const struct dragon_segment *segment)
{
    struct dragon_os_file file;
    int r = dragon_os_file_of(segment->fd, &file);

    if (r < 0 || file.device != segment->device || file.inode != segment->inode)
        return dragon_error_origin(-EBADF);
    return segment->fd;
}

int dragon_segment_commit(struct dragon_segment *segment, uint64_t offset, uint64_t size_bytes)
{
    int fd = dragon_segment_fd(segment);

    if (fd < 0)
        return dragon_error_trace(fd);
    return dragon_error_trace(dragon_os_commit(fd, offset, size_bytes));
}

int dragon_segment_decommit(struct dragon_segment *segment, uint64_t offset, uint64_t size_bytes)
{
    int fd = dragon_segment_fd(segment);

    if (fd < 0)
        return dragon_error_trace(fd);
    return dragon_error_trace(dragon_os_decommit(fd, offset, size_bytes));
}

void dragon_segment_close(struct dragon_segment *segment)
{
    dragon_os_unmap(segment->base, segment->size_bytes);
    dragon_os_close(segment->fd);
    segment->base = NULL;
    segment->fd = -1;
}
