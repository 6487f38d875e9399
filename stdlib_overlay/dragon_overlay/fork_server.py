"""The fork server: forks children for the process that started it, which adopts them.

It is a sprout of the seed (launcher/seed.h): a Python of its own, with nothing of the program in
it, one thread, and all signals blocked. It keeps *spares*: children forked in advance
(launcher/spare.c) that wait for an order all on the same socket, so that an order wakes exactly one
of them. It takes orders itself only when it has to say that no spare can be forked.

If the program's main imports anything of the library that the server has not, it forks a
*successor* that imports it (preload/) and takes over the orders. The server itself stays, as its
children's ancestor; should the successor end, it takes orders again.

Started by dragon_overlay/seed.py.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import marshal
import math
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing import spawn
from typing import Any, NoReturn

import _dragon_launch
from dragon_overlay import main_code, newborn, surroundings
from dragon_overlay.order import (
    ORDERS_FD,
    RECORD,
    Order,
    Program,
    environment_of,
    is_readable,
    receive,
    receive_line,
)

#: Not needed here, but by most children: what is loaded here is loaded there.
_FOR_CHILDREN = (
    "dragon_overlay.pool.worker",
    "dragon_overlay.popen",
    "dragon_overlay.queues",
    "dragon_overlay.synchronize",
    "multiprocessing.connection",
    "multiprocessing.resource_tracker",
    "pkgutil",
)

#: Loaded in a successor only.
_PRELOAD = "dragon_overlay.preload"

_ADOPTION_S = 10.0
#: A spare more is wanted when an order finds none, at most so many at a time.
_MAX_SPARES = 4
#: A child that has just begun needs the cores more than the next spare does, unless an order
#: waits.
_LULL_S = 0.001
#: Without orders for so long, one spare is enough; without orders for longer, none.
_FEW_AFTER_S = 5.0
_NONE_AFTER_S = 60.0
#: Orders wait so long for a successor, which imports what the child would have to import: sooner
#: than the child could, and once for all. That takes seconds for torch, more on a busy machine.
_HOLD_S = 12.0


class _Stock:
    """The spares, and how many of them there are to be."""

    def __init__(self, orders: socket.socket, poll: select.poll) -> None:
        self._orders = orders
        self._poll = poll
        self._middles: dict[int, tuple[int, int]] = {}  # pidfd -> pid, stack
        self._n_wanted = 1
        self._last_order = time.monotonic()
        self._restock_at = 0.0

    def __len__(self) -> int:
        return len(self._middles)

    def is_due(self) -> bool:
        """Whether a spare should be forked now."""
        return len(self) < self._n_wanted and time.monotonic() >= self._restock_at

    def patience_ms(self) -> int | None:
        """How long nothing is to be done, if nothing happens."""
        now = time.monotonic()
        if len(self) < self._n_wanted:
            until = self._restock_at
        elif self._n_wanted == 0:
            return None
        else:
            until = self._last_order + (_FEW_AFTER_S if self._n_wanted > 1 else _NONE_AFTER_S)
        return math.ceil(max(0.0, until - now) * 1000)

    def missed(self) -> None:
        """Note that an order waits, and no spare does."""
        now = time.monotonic()
        if self._n_wanted == 0:
            self._n_wanted = 1
        elif now - self._last_order < 1.0:
            self._n_wanted = min(self._n_wanted + 1, _MAX_SPARES)
        self._restock_at = now

    def restock(self) -> _Spare | None:
        """Fork a spare; return it in the spare itself."""
        try:
            is_spare, middle, stack = _dragon_launch.fork_spare()
            if is_spare:
                for fd in self._middles:
                    os.close(fd)
                return _Spare(self._orders, middle)
            self._keep(middle, stack)
        except OSError as error:
            self._refuse(error)
        return None

    def _keep(self, middle: int, stack: int) -> None:
        try:
            pidfd = os.pidfd_open(middle)
        except OSError:
            _dragon_launch.dismiss_spare(middle)
            os.waitpid(middle, 0)
            _dragon_launch.forget_middle(stack)
            raise
        self._middles[pidfd] = (middle, stack)
        self._poll.register(pidfd, select.POLLIN)

    def _refuse(self, error: OSError) -> None:
        """No spare can be forked: say so to an order that waits. The next one tries again."""
        self._n_wanted = 0
        if self._middles or not is_readable(self._orders, 0):
            return
        line = receive_line(self._orders)
        if line is None:
            os._exit(0)
        with line, contextlib.suppress(OSError):  # the starter may have given up
            line.sendall(RECORD.pack(0, error.errno or 0))

    def reap(self, pidfd: int) -> None:
        """A middle has ended: its spare has an order now, or is dead."""
        self._forget(pidfd)
        self._last_order = time.monotonic()
        self._restock_at = self._last_order + _LULL_S

    def shrink(self) -> None:
        """Dismiss spares that nobody needed for some time."""
        idle_s = time.monotonic() - self._last_order
        self.dismiss(0 if idle_s >= _NONE_AFTER_S else 1)

    def dismiss(self, n_kept: int) -> None:
        """Keep so many spares.

        A spare that has just got an order may die of it: its starter sees that and orders again.
        """
        self._n_wanted = n_kept
        for pidfd, (middle, _) in list(self._middles.items())[n_kept:]:
            _dragon_launch.dismiss_spare(middle)
            self._forget(pidfd)

    def _forget(self, pidfd: int) -> None:
        self._poll.unregister(pidfd)
        os.close(pidfd)
        middle, stack = self._middles.pop(pidfd)
        os.waitpid(middle, 0)
        _dragon_launch.forget_middle(stack)

    def want(self) -> None:
        """Keep spares from now on."""
        self._n_wanted = max(self._n_wanted, 1)


class _Server:
    """The loop that waits for orders to be missed, spares to go, and the starter to end."""

    def __init__(self, orders: socket.socket, program: Program) -> None:
        self._orders = orders
        self._program = program
        self._poll = select.poll()
        self._poll.register(orders, select.POLLRDHUP)
        self._stock = _Stock(orders, self._poll)
        self._successor: _Successor | None = None
        self._is_retired = False
        self._holds_until = 0.0

    def run(self) -> _Spare:
        """Serve; returns in spares, and in the server never."""
        while True:
            is_holding = time.monotonic() < self._holds_until
            if self._stock.is_due() and not is_holding and not self._is_retired:
                spare = self._stock.restock()
                if spare is not None:
                    if self._successor is not None:
                        self._successor.forget()
                    return spare
            awaits_orders = not (self._stock or self._is_retired or is_holding)
            awaited = select.POLLRDHUP | (select.POLLIN if awaits_orders else 0)
            self._poll.modify(self._orders, awaited)
            events = self._poll.poll(self._patience_ms(is_holding))
            for fd, event in events[:1]:  # it may close what the others are of
                successor = self._handle(fd, event)
                if successor is not None:
                    return successor.run()
            if not events and not is_holding and not self._stock.is_due():
                self._stock.shrink()

    def _patience_ms(self, is_holding: bool) -> int | None:
        if self._is_retired:
            return None
        if is_holding:
            return math.ceil(max(0.0, self._holds_until - time.monotonic()) * 1000)
        return self._stock.patience_ms()

    def _handle(self, fd: int, event: int) -> _Server | None:
        if self._successor is not None and fd == self._successor.is_ready:
            self._retire(self._successor)
        elif self._successor is not None and fd == self._successor.pidfd:
            return self._come_back(self._successor)
        elif fd != self._orders.fileno():
            self._stock.reap(fd)
        elif event & (select.POLLRDHUP | select.POLLHUP | select.POLLERR):
            self._end()
        else:
            self._stock.missed()
        return None

    def _end(self) -> NoReturn:
        """The starter has ended, or let go of this server: leave nothing for others to reap."""
        self._stock.dismiss(0)
        if self._successor is not None:
            if not self._is_retired:  # it may be in the middle of an import
                os.kill(self._successor.pid, signal.SIGKILL)
            os.waitpid(self._successor.pid, 0)
        os._exit(0)

    # ---- the successor

    def begin(self) -> _Server:
        """Fork a successor, if the program may import something that this process has not.

        A child that has to import takes as long as the successor, so orders wait for that.

        Returns:
            The server that is to run here: this one, or in the successor itself, that.
        """
        if not _may_import(self._program):
            return self
        self._holds_until = time.monotonic() + _HOLD_S
        return self._fork_successor(_preload_at_once) or self

    def _fork_successor(self, preload: Callable[[Program], int]) -> _Server | None:
        server_pid = os.getpid()
        is_ready, tell = os.pipe()
        try:
            pid = os.fork()
        except OSError:  # without one, then
            os.close(is_ready)
            os.close(tell)
            self._holds_until = 0.0
            return None
        if pid == 0:
            os.close(is_ready)
            _dragon_launch.die_with_parent(server_pid)
            status = preload(self._program)
            if status != 0:
                os._exit(status)
            os.write(tell, b"r")
            os.close(tell)
            return _Server(self._orders, self._program)
        os.close(tell)
        self._successor = _Successor(pid, os.pidfd_open(pid), is_ready)
        for fd in (self._successor.pidfd, self._successor.is_ready):
            self._poll.register(fd, select.POLLIN)
        return None

    def _retire(self, successor: _Successor) -> None:
        """The successor is ready; or it has ended, of which its pidfd tells, too."""
        self._poll.unregister(successor.is_ready)
        self._is_retired = os.read(successor.is_ready, 1) != b""
        os.close(successor.is_ready)
        successor.is_ready = -1
        if self._is_retired:
            self._stock.dismiss(0)

    def _come_back(self, successor: _Successor) -> _Server | None:
        """The successor has ended; returns a server if this process has become the next one."""
        for fd in (successor.pidfd, successor.is_ready):
            if fd >= 0:
                self._poll.unregister(fd)
        successor.forget()
        self._successor = None
        _, status = os.waitpid(successor.pid, 0)
        self._is_retired = False
        self._holds_until = 0.0
        self._stock.want()
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == _UNSAFE_AT_ONCE:
            return self._fork_successor(_preload_with_care)
        return None


class _Successor:
    """A server that this one has forked."""

    def __init__(self, pid: int, pidfd: int, is_ready: int) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.is_ready = is_ready  #: a pipe that tells when it takes over; -1: it has told

    def forget(self) -> None:
        """Close what this process has of it."""
        for fd in (self.pidfd, self.is_ready):
            if fd >= 0:
                os.close(fd)


# Exit status of a successor that does not take over; 0 is that of one that did.
_NOTHING_TO_DO = 2
_UNSAFE_AT_ONCE = 3


def _may_import(program: Program) -> bool:
    """Whether reading the program may find anything that is worth a successor. Cheap."""
    if program.named or os.environ.get("DRAGON_PRELOAD"):
        return True
    if program.main_path is None:
        return program.main_file is not None
    imported = main_code.imported_by_main()
    return imported is None or not imported <= sys.modules.keys()


def _be_ready_to_fork() -> None:
    """See to it that children have little to copy."""
    gc.collect()
    gc.freeze()
    _dragon_launch.begin_pages()


def _preload_at_once(program: Program) -> int:
    """Import what children would; 0, or with which exit status the successor is to end."""
    from dragon_overlay import preload

    names = preload.plan(program.main_file, program.path, program.named)
    if all(name in sys.modules for name in names):
        return _NOTHING_TO_DO
    try:
        preload.load_at_once(names)
    except preload.SpoiledError:
        return _UNSAFE_AT_ONCE
    _be_ready_to_fork()
    return 0


def _preload_with_care(program: Program) -> int:
    """As _preload_at_once, with a trial, for programs that import what cannot be preloaded."""
    from dragon_overlay import preload

    names = preload.plan(program.main_file, program.path, program.named)
    try:
        reports = preload.load(names)
    except (preload.SpoiledError, OSError):
        return _NOTHING_TO_DO
    _be_ready_to_fork()
    return 0 if any(report.loaded for report in reports) else _NOTHING_TO_DO


class _Spare:
    """A process that waits to be somebody's child."""

    def __init__(self, orders: socket.socket, middle: int) -> None:
        self._orders = orders
        self._middle = middle

    def run(self, own: surroundings.Surroundings, rights: bytes) -> dict[str, int]:
        """Wait for an order and become the child; the arguments of its ``spawn_main``.

        Args:
            own: how it is now.
            rights: what it may do, and whoever orders must be allowed to do.
        """
        if _PRELOAD in sys.modules:
            sys.modules[_PRELOAD].after_fork()
        if not is_readable(self._orders, 0):
            _dragon_launch.populate_pages()
        line = receive_line(self._orders)
        if line is None:
            os._exit(0)
        try:
            # A program that has become another user, or has shut itself in, must not get out by the
            # help of processes made before: not by mistake, nor if it has been taken over since.
            if not _dragon_launch.has_rights(_peer_of(self._orders), rights):
                line.sendall(RECORD.pack(0, errno.EPERM))
                os._exit(0)
            order, fds = receive(line)
            if not _can_be(order):
                line.sendall(RECORD.pack(0, errno.ESTALE))
                os._exit(0)
            line.sendall(RECORD.pack(os.getpid(), 0))
            _dragon_launch.release(self._middle)
            self._orders.close()
            parent = _dragon_launch.wait_for_adoption(self._middle, _ADOPTION_S)
            if parent != _peer_of(line):
                os._exit(1)  # the starter has ended meanwhile
            if order.follows:
                _dragon_launch.die_with_parent(parent)
            line.sendall(RECORD.pack(os.getpid(), 0))
        except (EOFError, OSError):
            os._exit(1)  # the starter has given up
        tracker_fd = newborn.settle(order, fds, own)
        if not _is_told(line):
            os._exit(1)
        return {"tracker_fd": tracker_fd, "pipe_handle": line.detach()}


def _can_be(order: Order) -> bool:
    """Whether what was preloaded would be the same in the environment that is ordered."""
    if order.variables is None or _PRELOAD not in sys.modules:
        return True
    variables = environment_of(order.variables).items()
    environ = {os.fsdecode(name): os.fsdecode(value) for name, value in variables}
    return not sys.modules[_PRELOAD].changed(environ)


def _is_told(line: socket.socket) -> bool:
    """Wait for what the child is told. False: nothing, as the starter was interrupted."""
    try:
        return line.recv(1, socket.MSG_PEEK) != b""
    except OSError:
        return False


def _peer_of(line: socket.socket) -> int:
    """The process that made the pair of sockets."""
    credentials = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[:4], sys.byteorder)


# ---- the program ---------------------------------------------------------------------------------


class Serving:
    """A context that is entered once in each child, with what it must call ``spawn_main`` with.

    In the fork server itself it never comes to that.
    """

    def __enter__(self) -> dict[str, Any]:
        orders = socket.socket(fileno=ORDERS_FD)
        message, fds, _, _ = socket.recv_fds(orders, 1 << 20, 3, socket.MSG_CMSG_CLOEXEC)
        if not message:
            os._exit(0)
        program = Program(*marshal.loads(message))
        newborn.prepare_standard_streams(
            [fds.pop(0) if number in program.standard else None for number in range(3)]
        )
        for name in _FOR_CHILDREN:
            importlib.import_module(name)
        sys.path[:] = program.path
        if program.main_path is not None:
            main_code.prepare(program.main_path)
        own, fixed = surroundings.read()
        rights = _dragon_launch.rights()
        _be_ready_to_fork()
        orders.send(marshal.dumps(fixed))  # type: ignore[arg-type]
        server = _Server(orders, program).begin()
        return {"spawn_main": spawn.spawn_main, **server.run().run(own, rights)}

    def __exit__(self, kind: object, value: BaseException | None, traceback: object) -> None:
        if isinstance(value, SystemExit) and isinstance(value.code, int | None):
            newborn.end(value.code or 0)
