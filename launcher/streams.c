#include "streams.h"

#include <fcntl.h>
#include <unistd.h>

void dragon_streams_hold(struct dragon_streams *streams)
{
    streams->n_held = 0;
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR | O_CLOEXEC) == fd) {
            streams->held[streams->n_held++] = fd;
        }
    }
}

void dragon_streams_release(struct dragon_streams *streams)
{
    while (streams->n_held > 0) {
        close(streams->held[--streams->n_held]);
    }
}
