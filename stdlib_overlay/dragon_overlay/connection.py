"""Pipe and its Connections.

The work is done by the C types; the class here adds what programs and the standard library touch
besides. ``multiprocessing.connection.Pipe``, ``Listener`` and ``Client`` stay the standard
library's: their connections talk to any process, also of other programs.

Source: Lib/multiprocessing/connection.py of CPython 3.11.
"""

from __future__ import annotations

import io
import os
from multiprocessing import connection as _stock
from multiprocessing.context import get_spawning_popen
from typing import Any

import _dragon
from dragon_overlay import reduction

#: As that module sees it: also under --portable it passes descriptors.
_stock_reduction: Any = vars(_stock)["reduction"]

#: send() waits when this many messages, or bytes, are on their way: as many bytes as stay in caches
#: of processors, whose memory is used again and again. The standard library's socket takes at most
#: 7,280 small messages, and 64 KiB of large ones.
_MAX_MESSAGES = 8192
_MAX_BYTES = 2 << 20


class Connection(_dragon.Connection, _stock.Connection):
    """One end of a Pipe. Also an instance of the standard library's class."""

    def __init__(self, incoming: Any, outgoing: Any, fd: int) -> None:
        """Be an end of two pipes.

        Args:
            incoming: ``_dragon.Pipe`` of this connection alone; None: it cannot receive.
            outgoing: likewise; None: it cannot send.
            fd: the socket, which becomes the connection's.
        """
        self._begin(incoming, outgoing, fd)

    def __del__(self) -> None:
        """The C type closes what was left open."""

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"fd {self._socket}"
        return f"<{type(self).__module__}.{type(self).__name__} {state}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), *_travel(self))

    @property
    def _handle(self) -> int | None:
        """The descriptor, as ``fileno``; None once closed."""
        return None if self.closed else self.fileno()

    # What the standard library's methods are made of, for who calls these.

    def _check_closed(self) -> None:
        if self.closed:
            raise OSError("handle is closed")

    def _close(self) -> None:
        self.close()

    @property
    def _readable(self) -> bool:
        return self.readable

    @property
    def _writable(self) -> bool:
        return self.writable

    def _send_bytes(self, buf: Any) -> None:
        self.send_bytes(buf)

    def _recv_bytes(self, maxsize: int | None = None) -> io.BytesIO:
        buffer = io.BytesIO()
        buffer.write(self.recv_bytes(maxsize))
        return buffer

    def _poll(self, timeout: float | None) -> bool:
        return self.poll(timeout)


def Pipe(duplex: bool = True) -> tuple[Connection, Connection]:
    """Two connected Connections.

    Args:
        duplex: both can send and receive; otherwise the first receives and the second sends.

    Raises:
        OSError: the process has no descriptors left.
        dragon.PoolFull: the pool has no room for it.
    """
    ends = Connection.__new__(Connection), Connection.__new__(Connection)
    _dragon.connect(*ends, duplex, _MAX_MESSAGES, _MAX_BYTES)
    return ends


def new_pipe() -> _dragon.Pipe:
    """One direction between two Connections.

    Raises:
        dragon.PoolFull: the pool has no room for it.
    """
    pipe = _dragon.Pipe()
    pipe._create(_MAX_MESSAGES, _MAX_BYTES)
    return pipe


def attached(name: bytes) -> _dragon.Pipe:
    """Another view of the pipe of that name (``_export``), for the other Connection."""
    pipe = _dragon.Pipe()
    pipe._attach(name)
    return pipe


def on_socket(
    cls: Any, incoming: _dragon.Pipe | None, outgoing: _dragon.Pipe | None, fd: int
) -> Connection:
    """A Connection on the socket fd, which becomes the connection's, or is closed."""
    connection: Connection = cls.__new__(cls)
    try:
        connection.__init__(incoming, outgoing, fd)  # type: ignore[misc]
    except BaseException:
        if connection.closed:  # it is not the connection's
            os.close(fd)
        raise
    return connection


# ---- how connections travel ---------------------------------------------------------------------


class _Offer:
    """An end that whoever unpickles this may fetch from this process, once.

    The standard library's resource sharer hands the descriptor out; the pipes stay in use until
    then.
    """

    def __init__(self, connection: Connection) -> None:
        pipes = connection._pipes
        fds = [os.dup(connection._socket)]

        def send(to: Any, pid: int, kept: Any = pipes) -> None:
            _stock_reduction.send_handle(to, fds[0], pid)

        def close() -> None:
            if fds:
                os.close(fds.pop())

        try:
            self._id = _sharer().register(send, close)
        except BaseException:
            close()  # whether the sharer has it by now, to close it once more, or not
            raise

    def detach(self) -> int:
        with _sharer().get_connection(self._id) as holder:
            fd: int = _stock_reduction.recv_handle(holder)
        return fd


def _sharer() -> Any:
    from multiprocessing import resource_sharer

    return vars(resource_sharer)["_resource_sharer"]


def _travel(connection: Connection) -> tuple[list[bytes | None], Any]:
    """The names of the connection's pipes, and what gives its descriptor."""
    if get_spawning_popen() is not None:
        names = [None if pipe is None else reduction.export(pipe) for pipe in connection._pipes]
        return names, _stock_reduction.DupFd(connection._socket)
    names = [None if pipe is None else pipe._export(False) for pipe in connection._pipes]
    return names, _Offer(connection)


def _rebuild(cls: Any, names: list[bytes | None], fd: Any) -> Connection:
    # The pipes first: their uses are the sender's until the descriptor is fetched.
    incoming, outgoing = (None if name is None else attached(name) for name in names)
    return on_socket(cls, incoming, outgoing, fd.detach())
