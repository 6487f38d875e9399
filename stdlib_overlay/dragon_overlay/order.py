"""Orders: how a process tells a fork server what child it wants, and what it hears back.

An order is announced by one byte on the socket for orders, with the child's end of a *line*, a
stream socket pair. On the line come, from the starter, the order (`pack`) and after it what
`multiprocessing.spawn` expects on its pipe; from the child, an answer. The line stays open: the
child sees its end when the starter has ended.

An answer is two records. The first says who takes the order: a pid; or 0 and why nobody does, and
then nothing more comes. The second says that the process is the starter's child by now.
"""

from __future__ import annotations

import marshal
import select
import socket
import struct
from typing import Any, NamedTuple

#: A message carries at most so many descriptors (SCM_MAX_FD of the kernel is 253).
MAX_FDS = 250

#: A record of an answer: pid, errno. ESTALE: no child of this fork server could be as ordered.
#: EPERM: the starter may not do any more what the fork server may.
RECORD = struct.Struct("<ii")

_HEADER = struct.Struct("<II")  # number of descriptors, bytes of the order


#: The descriptor of the socket for orders (DRAGON_SEED_SPROUT_FD of launcher/seed.h).
ORDERS_FD = 3

#: What the fork server runs with -c. The tracebacks of its children begin with this line, so it is
#: written such that they look as those of executed children do.
PROGRAM = (
    "with __import__('dragon_overlay.fork_server', fromlist=['Serving']).Serving() as arguments: "
    "arguments.pop('spawn_main')(**arguments)"
)


class Program(NamedTuple):
    """What a fork server is told of the program, by `marshal`."""

    main_path: str | None  #: the file that children run as ``__mp_main__``, if it is one
    main_file: str | None  #: where main's source is, however it is run
    path: list[str]  #: sys.path
    named: list[str]  #: what is to be preloaded besides
    standard: tuple[int, ...]  #: which of the descriptors 0, 1, 2 it has; they are sent, too


class Order(NamedTuple):
    """What a child is to be."""

    surroundings: tuple[Any, ...]  #: a `surroundings.Surroundings`
    variables: bytes | None  #: the environment (`_dragon_launch.environment`); None: the server's
    standard: tuple[int, ...]  #: which of the descriptors 0, 1, 2 the starter has
    inherited: tuple[int, ...]  #: the starter's numbers of what else was sent
    joins: bool  #: it becomes a part of the node, whose pool is sent, too
    follows: bool  #: it is killed when the starter ends


def pack(order: Order, n_fds: int) -> bytes:
    """Return the bytes of an order; up to MAX_FDS of its descriptors go with the first of them.

    Further ones follow, MAX_FDS at a time, each time with one byte. Descriptors, in this order: the
    standard ones, the pool of the node if it joins that, the resource tracker's pipe, the
    inherited.
    """
    head = marshal.dumps(tuple(order))
    return _HEADER.pack(n_fds, len(head)) + head


def receive(line: socket.socket) -> tuple[Order, list[int]]:
    """Receive what `pack` made, and the descriptors. Blocks.

    Raises:
        EOFError: the starter gave up in the middle of it.
    """
    header, fds = _receive(line, _HEADER.size)
    n_fds, head_bytes = _HEADER.unpack(header)
    head, more = _receive(line, head_bytes)
    fds += more
    while len(fds) < n_fds:
        fds += _receive(line, 1)[1]
    return Order(*marshal.loads(head)), fds


def _receive(line: socket.socket, size_bytes: int) -> tuple[bytes, list[int]]:
    data = b""
    fds: list[int] = []
    while len(data) < size_bytes:
        part, part_fds, _, _ = socket.recv_fds(
            line, size_bytes - len(data), MAX_FDS, socket.MSG_CMSG_CLOEXEC
        )
        if not part:
            raise EOFError
        data += part
        fds += part_fds
    return data, fds


def receive_line(orders: socket.socket) -> socket.socket | None:
    """Wait for an order; the line it came with. None: the starter has ended."""
    while True:
        byte, fds, _, _ = socket.recv_fds(orders, 1, 1, socket.MSG_CMSG_CLOEXEC)
        if not byte:
            return None
        if fds:
            return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fds[0])


def environment_of(variables: bytes) -> dict[bytes, bytes]:
    """Return the variables of `_dragon_launch.environment` by name."""
    pairs = (text.partition(b"=") for text in variables.split(b"\0") if text)
    return {name: value for name, _, value in pairs}


def is_readable(sock: socket.socket, timeout_s: float) -> bool:
    """Wait until something can be read from sock, or it has ended; False: not in time."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))
