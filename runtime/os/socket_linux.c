#include "os/socket.h"

#include "base/alloc.h"
#include "base/deadline.h"
#include "base/error.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>

/* So many descriptors are polled without an allocation. */
#define N_ON_STACK 64

int dragon_os_socket_pair(int fds_out[2])
{
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds_out) < 0)
        return dragon_error_origin(-errno);
    return 0;
}

int dragon_os_socket_put(int fd, unsigned char byte)
{
    ssize_t n;

    do {
        n = send(fd, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n >= 0 || errno == EAGAIN)
        return 0;
    if (errno == EPIPE || errno == ECONNRESET)
        return DRAGON_OS_SOCKET_GONE;
    return dragon_error_origin(-errno);
}

int dragon_os_socket_peek(int fd, unsigned char byte, size_t *n_out,
                          enum dragon_os_socket_front *front_out)
{
    unsigned char bytes[DRAGON_OS_SOCKET_LOOK];
    struct iovec part = {bytes, sizeof bytes};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
    ssize_t n;
    size_t n_plain, n_ours = 0;

    do {
        n = recvmsg(fd, &header, MSG_PEEK | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    *n_out = 0;
    *front_out = n == 0 ? DRAGON_OS_SOCKET_END : DRAGON_OS_SOCKET_NOTHING;
    if (n == 0 || (n < 0 && errno == EAGAIN))
        return 0;
    if (n < 0 && errno == ECONNRESET) { /* the peer went with bytes of ours unread */
        *front_out = DRAGON_OS_SOCKET_END;
        return 0;
    }
    if (n < 0)
        return dragon_error_origin(-errno);
    /* A look passes over what was sent without descriptors, and ends within or behind the
     * first send that carries some: of that the last byte is one, wherever it began. There is
     * no room for them here, which the kernel calls truncated. */
    n_plain = (size_t)n - (header.msg_flags & MSG_CTRUNC ? 1 : 0);
    while (n_ours < n_plain && bytes[n_ours] == byte)
        n_ours++;
    *n_out = n_ours;
    if (n_ours < n_plain)
        *front_out = DRAGON_OS_SOCKET_FOREIGN;
    else if (n_plain < (size_t)n)
        *front_out = DRAGON_OS_SOCKET_FD;
    return 0;
}

int dragon_os_socket_skip(int fd, size_t n)
{
    unsigned char bytes[DRAGON_OS_SOCKET_LOOK];
    ssize_t taken;

    while (n > 0) {
        taken = recv(fd, bytes, n < sizeof bytes ? n : sizeof bytes, MSG_DONTWAIT);
        if (taken < 0 && errno == EINTR)
            continue;
        if (taken <= 0)
            return taken < 0 && errno != EAGAIN ? dragon_error_origin(-errno) : 0;
        n -= (size_t)taken;
    }
    return 0;
}

bool dragon_os_socket_is_gone(int fd)
{
    struct pollfd item = {.fd = fd};

    return poll(&item, 1, 0) == 1 && (item.revents & (POLLHUP | POLLERR));
}

static int poll_until(struct pollfd *polled, size_t n, int64_t deadline_ns)
{
    int64_t remaining_ns = dragon_deadline_remaining_ns(deadline_ns);
    struct timespec limit = {remaining_ns / DRAGON_NS_PER_S, remaining_ns % DRAGON_NS_PER_S};

    if (ppoll(polled, (nfds_t)n, deadline_ns == DRAGON_FOREVER ? NULL : &limit, NULL) >= 0)
        return 0;
    return errno == EINTR ? DRAGON_OS_SOCKET_INTERRUPTED : dragon_error_origin(-errno);
}

int dragon_os_poll(struct dragon_os_poll_item *items, size_t n, int64_t deadline_ns)
{
    struct pollfd on_stack[N_ON_STACK];
    struct pollfd *polled = on_stack;
    int r;

    if (n > N_ON_STACK)
        polled = dragon_alloc_zeroed(n * sizeof *polled);
    if (!polled)
        return dragon_error_origin(-ENOMEM);
    for (size_t i = 0; i < n; i++)
        polled[i] = (struct pollfd){.fd = items[i].fd, .events = POLLIN};
    r = poll_until(polled, n, deadline_ns);
    for (size_t i = 0; r == 0 && i < n; i++)
        items[i].is_ready = polled[i].revents != 0;
    if (polled != on_stack)
        dragon_alloc_free(polled);
    return r;
}
