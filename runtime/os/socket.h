#pragma once

/*
 * Sockets, as the runtime uses them: pairs of connected stream sockets in which
 * single bytes tell the peer to look elsewhere, and whose end is the kernel's word
 * that nobody has the other end open any more. Nothing here blocks but
 * dragon_os_poll. Any thread.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum dragon_os_socket_outcome {
    DRAGON_OS_SOCKET_GONE = 1,    /* nobody has the peer open */
    DRAGON_OS_SOCKET_INTERRUPTED, /* poll: a signal handler ran in this thread */
};

/* What comes next in a socket. */
enum dragon_os_socket_front {
    DRAGON_OS_SOCKET_NOTHING,
    DRAGON_OS_SOCKET_FOREIGN, /* other bytes */
    DRAGON_OS_SOCKET_FD,      /* bytes that carry descriptors (SCM_RIGHTS) */
    DRAGON_OS_SOCKET_END,     /* nothing, and nobody has the peer open */
};

/* Two connected sockets (AF_UNIX, SOCK_STREAM), blocking, close-on-exec. 0; -EMFILE, ... */
int dragon_os_socket_pair(int fds_out[2]);

/* Send one byte to the peer. If there is no room for it, others lie there, which do as
 * well. 0; _GONE; -errno. */
int dragon_os_socket_put(int fd, unsigned char byte);

/* Look at what came from the peer. n_out: how many bytes of that value and without a
 * descriptor come first; front_out: what comes after them. A look reaches no further than
 * DRAGON_OS_SOCKET_LOOK bytes: if all of them are such, _NOTHING says nothing, until some
 * have been skipped. (Of bytes that others send together with a descriptor, only the last
 * is known to carry it; and every byte seems to, if somebody has set SO_PASSCRED.) 0;
 * -errno. */
int dragon_os_socket_peek(int fd, unsigned char byte, size_t *n_out,
                          enum dragon_os_socket_front *front_out);

#define DRAGON_OS_SOCKET_LOOK 64

/* Take n bytes away that were looked at. 0; -errno. */
int dragon_os_socket_skip(int fd, size_t n);

/* True if nobody has the peer open. */
bool dragon_os_socket_is_gone(int fd);

/* ---- any descriptors ---- */

struct dragon_os_poll_item {
    int fd;
    bool is_ready; /* readable, at its end, or no descriptor at all */
};

/* Wait until one is ready or deadline_ns (CLOCK_MONOTONIC, ns; DRAGON_AT_ONCE;
 * DRAGON_FOREVER). n may be 0. 0: is_ready of all was set; _INTERRUPTED; -ENOMEM, ... */
int dragon_os_poll(struct dragon_os_poll_item *items, size_t n, int64_t deadline_ns);
