#include "memory/segment.h"

#include "base/error.h"
#include "os/os.h"

#include <errno.h>

#define SMALLEST_BYTES 4096

static int map_segment(struct dragon_segment *segment, int fd, uint64_t size_bytes)
{
    void *base;
    int r = dragon_os_map(fd, size_bytes, &base);

    if (r < 0) {
        dragon_os_close(fd);
        return dragon_error_trace(r);
    }
    *segment = (struct dragon_segment){.fd = fd, .size_bytes = size_bytes, .base = base};
    return 0;
}

int dragon_segment_create_anonymous(struct dragon_segment *segment, const char *name,
                                    uint64_t size_bytes)
{
    int fd;
    int r = dragon_os_memfd(name, size_bytes, &fd);

    if (r < 0)
        return dragon_error_trace(r);
    return dragon_error_trace(map_segment(segment, fd, size_bytes));
}

int dragon_segment_create_named(struct dragon_segment *segment, const char *name,
                                uint64_t size_bytes)
{
    int fd;
    int r = dragon_os_shm_open(name, true, size_bytes, &fd);

    if (r < 0)
        return dragon_error_trace(r);
    r = map_segment(segment, fd, size_bytes);
    if (r < 0)
        dragon_os_shm_unlink(name);
    return dragon_error_trace(r);
}

int dragon_segment_open_fd(struct dragon_segment *segment, int fd)
{
    uint64_t size_bytes;
    int r;

    dragon_os_close_on_exec(fd);
    r = dragon_os_file_size(fd, &size_bytes);

    if (r == 0 && size_bytes < SMALLEST_BYTES)
        r = dragon_error_origin(-EBADMSG);
    if (r < 0) {
        dragon_os_close(fd);
        return dragon_error_trace(r);
    }
    return dragon_error_trace(map_segment(segment, fd, size_bytes));
}

int dragon_segment_open_named(struct dragon_segment *segment, const char *name)
{
    int fd;
    int r = dragon_os_shm_open(name, false, 0, &fd);

    if (r < 0)
        return dragon_error_trace(r);
    return dragon_error_trace(dragon_segment_open_fd(segment, fd));
}

void dragon_segment_close(struct dragon_segment *segment)
{
    dragon_os_unmap(segment->base, segment->size_bytes);
    dragon_os_close(segment->fd);
    segment->base = NULL;
    segment->fd = -1;
}
