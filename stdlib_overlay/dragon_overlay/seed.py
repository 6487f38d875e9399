"""Starting processes through the seed: this process's side.

The seed (launcher/seed.h) makes a fork server (fork_server.py), the fork server makes the children.
Where a child made that way would differ from one that is executed, or cannot be made, there is
no fork server for it, `start` says why, and the caller executes it.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import errno
import marshal
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing import process

import _dragon_launch
from dragon_overlay import start_log, surroundings
from dragon_overlay.order import (
    MAX_FDS,
    ORDERS_FD,
    PROGRAM,
    RECORD,
    Order,
    Program,
    is_readable,
    pack,
)

_ORDER_HEADER = struct.Struct("@III")  # of launcher/seed.h
_PATH_HEADER = struct.Struct("@I")
_PACKET_BYTES = 65536
_MAX_PATH_BYTES = 1024  # these three likewise
#: A fork server that has not said that it is ready by then is given up; likewise a child.
_READY_S = 60.0
_ANSWER_S = 20
_BURIAL_S = 1.0
_END_S = 0.2
_TIME = struct.Struct("@ll")  # struct timeval
#: What a seed that was killed, or whose socket the program has closed, makes of a send.
_NO_SEED = (errno.EPIPE, errno.ECONNRESET, errno.EBADF, errno.ENOTSOCK)

#: Beginnings of the names of variables that Python and the C library read once, when they start. If
#: one of these changes, a new fork server is needed; all others are given to the child.
_READ_AT_START = (
    b"PYTHON",
    b"LANG",
    b"LC_",
    b"LD_",
    b"MALLOC_",
    b"GLIBC_TUNABLES",
    b"DRAGON_",
)


Buffer = bytes | bytearray | memoryview


class UnavailableError(Exception):
    """No child can be made this way; the text says why."""


class NotYetError(UnavailableError):
    """It does not pay yet: further children will be made this way."""


class _UnlikeError(UnavailableError):
    """This process is not any more as it was when its seed was planted."""


class Child:
    """A process that has just been made."""

    def __init__(self, pid: int, line: socket.socket, body: Buffer) -> None:
        self.pid = pid
        self._line = line
        self._body = body

    def finish(self) -> int:
        """Send the body; our end of the child's line, which it sees end when we end.

        Until then the child runs nothing of the program: it cannot have ended, and perhaps been
        reaped by a handler of SIGCHLD, before the starter knows it.

        Blocks until the child has read most of it.
        """
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # its exit code will tell
            self._line.sendall(self._body)
        return self._line.detach()


class _ForkServer:
    """A fork server of this process, and what it was started with."""

    def __init__(self, seed: socket.socket | None) -> None:
        self.variables = _dragon_launch.environment()
        self._named = _named_for_preloading()
        self._fixed: object = None
        self.orders, theirs = _socket_pair(socket.SOCK_SEQPACKET)
        self._file = os.fstat(self.orders.fileno())
        words = [os.fsencode(word) for word in _command_line()]
        try:
            with theirs:
                if seed is None:
                    text = b"".join(word + b"\0" for word in words)
                    _dragon_launch.execute_hidden(text, self.variables, theirs.fileno(), ORDERS_FD)
                else:
                    socket.send_fds(seed, [b"more"], [theirs.fileno()])
            if seed is not None:
                self._send_words(words)
            program = _program(self._named)
            socket.send_fds(self.orders, [marshal.dumps(tuple(program))], [*program.standard])
        except OSError:
            self.orders.close()
            raise

    def _send_words(self, words: list[bytes]) -> None:
        text = b"".join(word + b"\0" for word in words) + self.variables
        n_variables = self.variables.count(b"\0")
        self.orders.send(_ORDER_HEADER.pack(len(text), len(words), n_variables))
        for at in range(0, len(text), _PACKET_BYTES):
            self.orders.send(text[at : at + _PACKET_BYTES])

    def is_like(self, fixed: object, variables: bytes) -> bool:
        """Whether it can stand in for this process as it is now. Waits until it is ready.

        Raises:
            UnavailableError: no other of the seed can, either; or it does not become ready.
        """
        if not self._has_socket():
            raise UnavailableError("this process has closed what it did not open")
        if self._fixed is None:
            self._fixed = self._wait_until_ready()
        if self._fixed != fixed:
            raise _UnlikeError("this process has changed its user, session or the like")
        if self._named != _named_for_preloading():
            return False
        return variables == self.variables or _of_start(variables) == _of_start(self.variables)

    def _has_socket(self) -> bool:
        try:
            return os.path.samestat(self._file, os.fstat(self.orders.fileno()))
        except OSError:
            return False

    def _wait_until_ready(self) -> object:
        if not is_readable(self.orders, _READY_S):
            raise UnavailableError("the fork server did not become ready in time")
        try:
            try:
                message = self.orders.recv(65536)
            except ConnectionResetError:  # it did not read all, but may have said why before
                message = self.orders.recv(65536)
        except OSError as error:
            raise UnavailableError(f"the fork server ended: {error.strerror}") from None
        if not message:
            raise UnavailableError("the fork server ended while it started")
        if len(message) == 4:
            number = int.from_bytes(message, sys.byteorder)
            raise UnavailableError(f"the seed could not make a fork server: {os.strerror(number)}")
        return marshal.loads(message)

    def is_alive(self) -> bool:
        """Whether anybody may still take orders."""
        poll = select.poll()
        poll.register(self.orders, 0)
        return not poll.poll(0)

    def let_go(self) -> None:
        """Let it end. Other threads that use the socket find it shut down, not closed."""
        if self._has_socket():
            with contextlib.suppress(OSError):
                self.orders.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close this process's end; in a forked copy the other one goes on."""
        if self._has_socket():
            self.orders.close()
        else:
            self.orders.detach()

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self.close()

    def end(self) -> None:
        """Let it end, and wait a little for that.

        If this process ended before, its children's children would be left to others to reap.
        """
        if self._fixed is not None and self._has_socket():
            with contextlib.suppress(OSError):
                self.orders.shutdown(socket.SHUT_WR)
                if is_readable(self.orders, _END_S):
                    self.orders.recv(1)
        self.close()


class _Starter:
    """All that this module knows; one a process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.server: _ForkServer | None = None
        self.n_starts = 0
        fd, _ = _dragon_launch.seed()
        self._seed = socket.socket(fileno=fd) if fd >= 0 else None
        if self._seed is not None:
            self._seed.settimeout(None)

    def make_server(self) -> _ForkServer:
        """Make a fork server, from the seed or, where there is none (any more), by executing it.

        Raises:
            UnavailableError: neither is possible.
        """
        if self._seed is not None and not _dragon_launch.seed_is_like_us():
            self.close_seed()  # it would refuse
        if self._seed is not None:
            try:
                self.server = _ForkServer(self._seed)
            except OSError as error:
                if error.errno not in _NO_SEED:  # want of descriptors, say
                    raise UnavailableError(
                        f"no fork server can be made: {error.strerror}"
                    ) from None
                self.lose_seed(f"it does not answer: {error.strerror}")
            else:
                return self.server
        try:
            self.server = _ForkServer(None)
        except OSError as error:
            raise UnavailableError(f"no fork server can be made: {error.strerror}") from None
        return self.server

    def drop(self, server: _ForkServer) -> None:
        """Let a fork server end that is of no use any more."""
        if self.server is server:
            server.let_go()
            self.server = None

    def lose_seed(self, why: str) -> None:
        """Do without the seed from now on, which is a loss."""
        if self._seed is not None:
            start_log.seed_lost(why)
        self.close_seed()

    def tell_seed(self, message: bytes, fds: Sequence[int] = ()) -> None:
        """Send the seed something. If it is lost, the next start finds that out."""
        if self._seed is not None:
            with contextlib.suppress(OSError):
                socket.send_fds(self._seed, [message], [*fds])

    def close_seed(self) -> None:
        """Do without the seed from now on."""
        seed, self._seed = self._seed, None
        if seed is not None:
            if _dragon_launch.seed()[0] >= 0:
                seed.close()
            else:  # the program has closed it, and the number may be another's
                seed.detach()

    def has_seed(self) -> bool:
        """Whether a fork server would be had without executing anything."""
        return self._seed is not None

    def forget(self) -> None:
        """Close what this process has of seed and fork server."""
        if self._seed is not None:
            self._seed.detach()  # launcher/seed.c closes it
        if self.server is not None:
            self.server.close()


_starter: _Starter | None = None


def _the_starter() -> _Starter:
    global _starter
    if _starter is None:
        _starter = _Starter()
    return _starter


def _forget() -> None:
    """In a forked copy: seed and fork server are its parent's."""
    global _starter
    starter, _starter = _starter, None
    if starter is not None:
        starter.forget()


def _end() -> None:
    if _starter is not None and _starter.server is not None:
        _starter.server.end()
    _forget()


os.register_at_fork(after_in_child=_forget)
atexit.register(_end)


def _command_line() -> list[str]:
    """Source: get_command_line in Lib/multiprocessing/spawn.py of CPython 3.11."""
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    own = [*_dragon_launch.child_options(), "--fork-server"]
    return [sys.executable, *own, *flags, "-c", PROGRAM, "--multiprocessing-fork"]


def _program(named: list[str]) -> Program:
    """Source of the path of main: get_preparation_data in Lib/multiprocessing/spawn.py."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    folder = process.ORIGINAL_DIR or ""  # type: ignore[attr-defined]
    if file is not None:
        file = os.path.normpath(os.path.join(folder, file))
    is_script = getattr(main, "__spec__", None) is None
    path = [entry or folder for entry in sys.path if isinstance(entry, str)]
    return Program(file if is_script else None, file, path, named, _standard_fds())


def _named_for_preloading() -> list[str]:
    """What `multiprocessing.set_forkserver_preload` was given."""
    forkserver = sys.modules.get("multiprocessing.forkserver")
    return list(forkserver._forkserver._preload_modules) if forkserver is not None else []


def _of_start(variables: bytes) -> set[bytes]:
    return {text for text in variables.split(b"\0") if text.startswith(_READ_AT_START)}


def _socket_pair(kind: int) -> tuple[socket.socket, socket.socket]:
    """Make a pair whose calls block, whatever `socket.setdefaulttimeout` says."""
    pair = socket.socketpair(socket.AF_UNIX, kind)
    for one in pair:
        one.settimeout(None)
    return pair


# ---- what others call ---------------------------------------------------------------------------


def prepare() -> None:
    """Have a fork server get ready, if that has not been done: it will be needed soon."""
    starter = _the_starter()
    with starter.lock, contextlib.suppress(UnavailableError):
        if starter.server is None and starter.has_seed():
            starter.make_server()


def keep(path: str) -> None:
    """Have the seed, if there is one, remove a folder at the end of this process.

    A path that is too long for it is not kept.
    """
    encoded = os.fsencode(path)
    if len(encoded) > _MAX_PATH_BYTES:
        return
    starter = _the_starter()
    with starter.lock:
        starter.tell_seed(b"keep" + _PATH_HEADER.pack(len(encoded)) + encoded)


def guard(pool_fd: int) -> None:
    """Have the seed, if there is one, end the processes of the node when this process is killed.

    Args:
        pool_fd: of the default pool of the node, whose head this process is.
    """
    starter = _the_starter()
    with starter.lock:
        starter.tell_seed(b"node", [pool_fd])


def start(
    body: Buffer, inherited: list[int], pool_fd: int | None, tracker_fd: int, *, follows: bool
) -> Child:
    """Make a child that runs the process object in body.

    Args:
        body: what `multiprocessing.spawn` sends to a child: preparation data, process object.
            `Child.finish` sends it.
        inherited: descriptors that it gets besides the standard ones.
        pool_fd: of the default pool of the node that it is to join, if any.
        tracker_fd: of the resource tracker.
        follows: it is killed when this process ends, however that ends.

    Raises:
        UnavailableError: it must be executed instead. Nothing has been started.
        OSError: no process can be made, for want of memory or of processes.

    Blocks until the child exists, normally a millisecond.
    """
    starter = _the_starter()
    mine, fixed = surroundings.read()
    variables = _dragon_launch.environment()
    standard = _standard_fds()
    pool = [] if pool_fd is None else [pool_fd]
    fds = [*standard, *pool, tracker_fd, *inherited]
    for is_last in (False, True) * 2:
        server = _server_for(starter, fixed, variables)
        order = Order(
            tuple(mine),
            None if variables == server.variables else variables,
            standard,
            tuple(inherited),
            pool_fd is not None,
            follows,
        )
        try:
            return _order(server, order, fds, body)
        except _SpareLostError:
            # A fork server that dismisses spares may end one that has just taken the order.
            if is_last or not server.is_alive():
                _drop(starter, server)
        except _LostError:
            _drop(starter, server)
    raise UnavailableError("two fork servers could not make the child")


class _LostError(Exception):
    """The fork server does not get on, or cannot make this child."""


class _SpareLostError(_LostError):
    """The spare that took the order ended before it was a child; or the fork server did."""


def _server_for(starter: _Starter, fixed: object, variables: bytes) -> _ForkServer:
    with starter.lock:
        starter.n_starts += 1
        if starter.n_starts == 1 and not starter.has_seed() and starter.server is None:
            # A fork server that is executed pays from the second child on.
            raise NotYetError("it is the first process that this one starts")
        for _ in range(3):
            server = starter.server or starter.make_server()
            try:
                if server.is_like(fixed, variables):
                    return server
            except _UnlikeError:
                starter.close_seed()
            except UnavailableError as error:
                if _dragon_launch.seed_is_like_us():
                    starter.lose_seed(str(error))
                else:  # it has refused
                    starter.close_seed()
            starter.drop(server)
    raise UnavailableError("no fork server is like this process")


def _drop(starter: _Starter, server: _ForkServer) -> None:
    with starter.lock:
        starter.drop(server)


def _order(server: _ForkServer, order: Order, fds: list[int], body: Buffer) -> Child:
    head = pack(order, len(fds))
    line, theirs = _socket_pair(socket.SOCK_STREAM)
    parts = _Parts(line, head, fds)
    with _dragon_launch.adopting as number:
        if number != 0:
            raise UnavailableError(f"orphans cannot be adopted: {os.strerror(number)}")
        try:
            with theirs:
                parts.send_without_waiting()
                socket.send_fds(server.orders, [b"o"], [theirs.fileno()])
            parts.send_rest()
            pid = _receive_answer(line)
        except (BrokenPipeError, ConnectionResetError):
            line.close()
            raise _SpareLostError from None
        except BaseException:
            line.close()
            raise
    return Child(pid, line, body)


class _Parts:
    """The order that goes to a child, perhaps in several messages."""

    def __init__(self, line: socket.socket, head: bytes, fds: list[int]) -> None:
        self._line = line
        step = MAX_FDS
        self._parts = [(memoryview(head), fds[:step])]
        for at in range(step, len(fds), step):
            self._parts.append((memoryview(b"f"), fds[at : at + step]))

    def send_without_waiting(self) -> None:
        """Send what the socket takes, in most cases all, before anybody reads."""
        with contextlib.suppress(BlockingIOError):
            while self._parts:
                self._send_some(socket.MSG_DONTWAIT)

    def send_rest(self) -> None:
        """Send what is left."""
        while self._parts:
            self._send_some(0)

    def _send_some(self, flags: int) -> None:
        data, fds = self._parts[0]
        # socket.send_fds of CPython 3.11 forgets its flags.
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        n = self._line.sendmsg([data], rights, flags)
        if n < len(data):
            self._parts[0] = (data[n:], [])
        else:
            del self._parts[0]


def _standard_fds() -> tuple[int, ...]:
    """Which of the descriptors 0, 1 and 2 a child has."""
    return tuple([fd for fd in range(3) if _survives_exec(fd)])


def _survives_exec(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False


def _receive_answer(line: socket.socket) -> int:
    """Wait for both records of the answer; the child's pid.

    Raises:
        _LostError: it will not be made.
        OSError: it cannot be made.
    """
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIME.pack(_ANSWER_S, 0))
    answer = b""
    lost: type[_LostError] = _SpareLostError
    try:  # not by MSG_WAITALL, which a signal would end early
        while part := line.recv(2 * RECORD.size - len(answer)):
            answer += part
            if len(answer) == 2 * RECORD.size:
                break
    except BlockingIOError:  # it takes too long; the line's end will end it
        lost = _LostError
    except ConnectionResetError:
        pass
    except BaseException:  # a signal handler's: nobody will know of the child
        line.close()
        if len(answer) >= RECORD.size:
            _bury(RECORD.unpack_from(answer)[0])
        raise
    if len(answer) < RECORD.size:
        raise lost
    pid, number = RECORD.unpack_from(answer)
    if number in (errno.ESTALE, errno.EPERM):
        raise _LostError
    if pid == 0:
        raise OSError(number, os.strerror(number))
    if len(answer) < 2 * RECORD.size:
        line.close()
        _bury(pid)
        raise lost
    return int(pid)


def _bury(pid: int) -> None:
    """A child died, or got stuck, while it was being adopted: end it as soon as it is ours."""
    deadline = time.monotonic() + _BURIAL_S
    while time.monotonic() < deadline:
        try:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return
            os.kill(pid, signal.SIGKILL)
        except OSError:  # it is not ours yet, or no longer
            if not os.path.exists(f"/proc/{pid}"):
                return
        time.sleep(0.001)
