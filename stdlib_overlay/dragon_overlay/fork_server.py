"""The fork server: forks children for the process that started it, which adopts them.

It is a sprout of the seed (launcher/seed.h): a Python of its own, with nothing of the program in
it, one thread, and all signals blocked. It keeps *spares*: children forked in advance
(launcher/spare.c) that wait for an order all on the same socket, so that an order wakes exactly one
of them. It serves orders itself only when it has to say that no spare can be forked.

An order is one byte with one descriptor, the child's end of a *line* to the starter, a stream
socket pair. On the line comes an `Order` (see `write_order`), and back goes the answer: the child's
pid, or 0, and an errno. The line stays open: the child sees its end when the starter has ended.

Run by dragon_overlay/seed.py, which is the other side.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import marshal
import math
import os
import select
import signal
import socket
import struct
import sys
import time
from multiprocessing import spawn, util
from typing import Any, NamedTuple, NoReturn

import _dragon
import _dragon_launch
from dragon_overlay import main_code, surroundings

#: Not needed here, but by most children: what is loaded here is loaded there.
_FOR_CHILDREN = (
    "dragon_overlay.popen",
    "dragon_overlay.queues",
    "dragon_overlay.synchronize",
    "multiprocessing.connection",
    "multiprocessing.resource_tracker",
    "pkgutil",
)

#: The descriptor of the socket for orders (DRAGON_SEED_SPROUT_FD of launcher/seed.h).
ORDERS_FD = 3
#: A message with descriptors carries at most so many (SCM_MAX_FD of the kernel is 253).
MAX_FDS = 250
ANSWER = struct.Struct("<ii")  #: pid, errno

_HEADER = struct.Struct("<II")  # number of descriptors, bytes of the order
_ADOPTION_S = 10.0

#: A spare more is wanted when an order finds none, at most so many at a time.
_MAX_SPARES = 4
#: A child that has just begun needs the cores more than the next spare does, unless an order
#: waits.
_LULL_S = 0.004
#: Without orders for so long, one spare is enough; without orders for longer, none.
_FEW_AFTER_S = 5.0
_NONE_AFTER_S = 60.0


class Order(NamedTuple):
    """What a child is to be."""

    surroundings: tuple[Any, ...]  #: a `surroundings.Surroundings`
    variables: bytes | None  #: the environment (`_dragon_launch.environment`); None: the server's
    standard: tuple[int, ...]  #: which of the descriptors 0, 1, 2 the starter has
    inherited: tuple[int, ...]  #: the starter's numbers of what else was sent


def pack(order: Order, n_fds: int) -> bytes:
    """The bytes of an order; up to MAX_FDS of its descriptors go with the first of them.

    Further ones follow, MAX_FDS at a time, each time with one byte. Descriptors, in this order: the
    standard ones, the pool of the node, the resource tracker's pipe, the inherited. After that
    comes what `multiprocessing.spawn` expects on its pipe.
    """
    head = marshal.dumps(tuple(order))
    return _HEADER.pack(n_fds, len(head)) + head


# ---- the server ---------------------------------------------------------------------------------


class _Server:
    """The spares, and how many of them there are to be."""

    def __init__(self, orders: socket.socket) -> None:
        self._orders = orders
        self._middles: dict[int, int] = {}  # pidfd -> pid
        self._n_wanted = 1
        self._last_order = time.monotonic()
        self._restock_at = 0.0
        self._poll = select.poll()

    def run(self) -> _Spare:
        """Serve; returns in spares, and in the server never."""
        self._poll.register(self._orders, 0)  # that the starter has ended is always told
        while True:
            if len(self._middles) < self._n_wanted and time.monotonic() >= self._restock_at:
                spare = self._restock()
                if spare is not None:
                    return spare
            self._poll.modify(self._orders, 0 if self._middles else select.POLLIN)
            events = self._poll.poll(self._patience_ms())
            for fd, event in events:
                if fd != self._orders.fileno():
                    self._reap(fd)
                elif event & (select.POLLHUP | select.POLLERR):
                    os._exit(0)
                else:
                    self._missed()
            if not events and len(self._middles) >= self._n_wanted:
                self._shrink()

    def _patience_ms(self) -> float | None:
        now = time.monotonic()
        if len(self._middles) < self._n_wanted:
            until = self._restock_at
        elif self._n_wanted == 0:
            return None
        else:
            until = self._last_order + (_FEW_AFTER_S if self._n_wanted > 1 else _NONE_AFTER_S)
        return math.ceil(max(0.0, until - now) * 1000)

    def _missed(self) -> None:
        """An order waits, and no spare does."""
        now = time.monotonic()
        if self._n_wanted == 0:
            self._n_wanted = 1
        elif now - self._last_order < 1.0:
            self._n_wanted = min(self._n_wanted + 1, _MAX_SPARES)
        self._restock_at = now

    def _restock(self) -> _Spare | None:
        """Fork a spare; returns it in the spare itself."""
        try:
            middle, release_fd = _dragon_launch.fork_spare()
            if middle == 0:
                for fd in self._middles:
                    os.close(fd)
                return _Spare(self._orders, os.getppid(), release_fd)
            pidfd = os.pidfd_open(middle)
        except OSError as error:
            self._refuse(error)
        else:
            self._middles[pidfd] = middle
            self._poll.register(pidfd, select.POLLIN)
        return None

    def _refuse(self, error: OSError) -> None:
        """No spare can be forked: say so in answer to the next order. None is tried before."""
        self._n_wanted = 0
        if self._middles:
            return
        line = receive_line(self._orders)
        if line is None:
            os._exit(0)
        with line, contextlib.suppress(OSError):  # the starter may have given up
            line.sendall(ANSWER.pack(0, error.errno or 0))

    def _reap(self, pidfd: int) -> None:
        """A middle has ended: its spare has an order now, or is dead."""
        self._poll.unregister(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(self._middles.pop(pidfd), 0)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status):
            self._refuse(OSError(os.WEXITSTATUS(status), ""))
            return
        self._last_order = time.monotonic()
        self._restock_at = self._last_order + _LULL_S

    def _shrink(self) -> None:
        """Dismiss spares that nobody needed for some time.

        A spare that has just got an order may die of it: its starter sees that and orders again.
        """
        idle_s = time.monotonic() - self._last_order
        self._n_wanted = 0 if idle_s >= _NONE_AFTER_S else 1
        for pidfd, middle in list(self._middles.items())[self._n_wanted :]:
            os.kill(middle, signal.SIGKILL)
            self._poll.unregister(pidfd)
            del self._middles[pidfd]
            os.close(pidfd)
            os.waitpid(middle, 0)


# ---- a spare, and the child it becomes ----------------------------------------------------------


def receive_line(orders: socket.socket) -> socket.socket | None:
    """Wait for an order; the line it came with. None: the starter has ended."""
    while True:
        byte, fds, _, _ = socket.recv_fds(orders, 1, 1, socket.MSG_CMSG_CLOEXEC)
        if not byte:
            return None
        if fds:
            return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fds[0])


class _Spare:
    """A process that waits to be somebody's child."""

    def __init__(self, orders: socket.socket, middle: int, release_fd: int) -> None:
        self._orders = orders
        self._middle = middle
        self._release_fd = release_fd

    def run(self) -> dict[str, int]:
        """Wait for an order and become the child; the arguments of its ``spawn_main``."""
        line = receive_line(self._orders)
        if line is None:
            os._exit(0)
        try:
            _dragon_launch.release(self._release_fd)
            self._orders.close()
            order, fds = _receive_order(line)
            parent = _dragon_launch.wait_for_adoption(self._middle, _ADOPTION_S)
            if parent != _peer_of(line):
                os._exit(1)  # the starter has ended meanwhile
            line.sendall(ANSWER.pack(os.getpid(), 0))
        except (EOFError, OSError):
            os._exit(1)  # the starter has given up
        tracker_fd = _settle(order, fds)
        return {"tracker_fd": tracker_fd, "pipe_handle": line.detach()}


def _peer_of(line: socket.socket) -> int:
    credentials = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[:4], sys.byteorder)


def _receive_order(line: socket.socket) -> tuple[Order, list[int]]:
    """What `pack` made, and the descriptors. EOFError: the starter gave up in the middle of it."""
    header, fds = _receive(line, _HEADER.size)
    n_fds, head_bytes = _HEADER.unpack(header)
    head, more = _receive(line, head_bytes)
    while len(fds + more) < n_fds:
        more += _receive(line, 1)[1]
    return Order(*marshal.loads(head)), fds + more


def _receive(line: socket.socket, size_bytes: int) -> tuple[bytes, list[int]]:
    data, fds = b"", []
    while len(data) < size_bytes:
        part, part_fds, _, _ = socket.recv_fds(
            line, size_bytes - len(data), MAX_FDS, socket.MSG_CMSG_CLOEXEC
        )
        if not part:
            raise EOFError
        data += part
        fds += part_fds
    return data, fds


#: In a child: the starter's number of an inherited descriptor -> the number here.
inherited_fds: dict[int, int] = {}


def _settle(order: Order, fds: list[int]) -> int:
    """Become what an executed child of the starter would be. The resource tracker's descriptor."""
    fds.reverse()
    for number in range(3):
        if number in order.standard:
            fd = fds.pop()
            os.dup2(fd, number)
            os.close(fd)
        else:
            os.close(number)
    _dragon_launch.join_node(fds.pop())
    tracker_fd = fds.pop()
    for number in order.inherited:
        inherited_fds[number] = fds.pop()
        os.set_inheritable(inherited_fds[number], True)
    if order.variables is not None:
        _set_environment(order.variables)
    _open_standard_streams()
    surroundings.adopt(surroundings.Surroundings(*order.surroundings), _own_surroundings)
    return tracker_fd


#: The server's, which a child has until it settles.
_own_surroundings: surroundings.Surroundings


def _set_environment(variables: bytes) -> None:
    wanted = dict(text.partition(b"=")[::2] for text in variables.split(b"\0") if text)
    for name in [name for name in os.environb if name not in wanted]:
        del os.environb[name]
    for name, value in wanted.items():
        if os.environb.get(name) != value:
            os.environb[name] = value
    time.tzset()


def _open_standard_streams() -> None:
    """Make sys.stdin, stdout and stderr anew: how they behave depends on what they lead to."""
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        stream = _open_standard_stream(fd, name)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _open_standard_stream(fd: int, name: str) -> io.TextIOWrapper | None:
    """Source: create_stdio in Python/pylifecycle.c of CPython 3.11."""
    like = getattr(sys, f"__{name}__")
    mode = "r" if fd == 0 else "w"
    is_unbuffered = fd != 0 and like.write_through
    try:
        binary: Any = io.open(fd, mode + "b", 0 if is_unbuffered else -1, closefd=False)  # noqa: SIM115, UP020
    except OSError:
        return None
    raw = binary if is_unbuffered else binary.raw
    raw.name = f"<{name}>"
    stream = io.TextIOWrapper(
        binary,
        like.encoding,
        like.errors,
        newline="\n",
        line_buffering=not is_unbuffered and (fd == 2 or raw.isatty()),
        write_through=is_unbuffered,
    )
    stream.mode = mode  # type: ignore[misc]
    return stream


# ---- the program --------------------------------------------------------------------------------

#: What the fork server runs with -c. The tracebacks of its children begin with this line, so it is
#: written such that they look as those of executed children do.
PROGRAM = (
    "with __import__('dragon_overlay.fork_server', fromlist=['Serving']).Serving() as arguments: "
    "arguments.pop('spawn_main')(**arguments)"
)


class Serving:
    """A context that is entered once in each child, with what it must call ``spawn_main`` with.

    In the fork server itself it never comes to that. The command line is, after ``-c``:
    ``--multiprocessing-fork [MAIN]``, the path of the program's main.
    """

    def __enter__(self) -> dict[str, Any]:
        global _own_surroundings
        orders = socket.socket(fileno=ORDERS_FD)
        for name in _FOR_CHILDREN:
            importlib.import_module(name)
        if len(sys.argv) > 2:
            main_code.prepare(sys.argv.pop())
        _own_surroundings, fixed = surroundings.read()
        gc.collect()
        gc.freeze()
        orders.send(marshal.dumps(fixed))  # type: ignore[arg-type]
        return {"spawn_main": spawn.spawn_main, **_Server(orders).run().run()}

    def __exit__(self, kind: object, value: BaseException | None, traceback: object) -> None:
        if isinstance(value, SystemExit) and isinstance(value.code, int | None):
            _end(value.code or 0)


def _end(status: int) -> NoReturn:
    """End a child without taking its interpreter down, which would take longer than all the rest.

    What the program has asked for is done: ``atexit`` and ``weakref.finalize``, flushing, leaving
    the node. Objects that are still alive are not finalised; of those that are views of shared
    objects, the use of it is given back, unless daemon threads may be in the middle of using them.
    """
    atexit._run_exitfuncs()
    util._flush_std_streams()  # type: ignore[attr-defined]
    if len(sys._current_frames()) == 1:
        _dragon.close_objects()
    _dragon_launch.leave(status)
