"""Starting a process.

The fork server of the seed makes the child (seed.py). Where it cannot, `dragon` is executed anew.
In either case the child gets the file of the node's default pool, preparation data, and what its
arguments need, and runs the standard library's ``spawn_main``. Objects of the runtime that travel
in the arguments are kept in use until the child has ended, so that the starter may forget them at
once.

A process object with an attribute ``_dragon_blocked``, signals, has its child begin with these
blocked: they are blocked here when all has been pickled, and who starts it restores its thread's
mask. Not earlier: while a thread has SIGINT blocked, another one may take it, and then the
interpreter looks for it only now and then. One place is the repr in the text of an exception, as
that of ``sys.path.index('')`` in the preparation data, which swallows the KeyboardInterrupt.

Source: Lib/multiprocessing/popen_spawn_posix.py of CPython 3.11.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import popen_fork, spawn, util
from multiprocessing.context import reduction, set_spawning_popen  # type: ignore[attr-defined]
from typing import Any

import _dragon
import _dragon_launch
from dragon_overlay import by_value, seed, start_log, startup, surroundings, temporary, tracker
from dragon_overlay.newborn import inherited_fds
from dragon_overlay.process import is_daemonic


class _Arrival:
    """What the child finds in the place of its process object: unpickled, it is that object.

    On the way a daemonic process, or a child of one, begins to follow its parent.
    """

    def __init__(self, process_obj: Any) -> None:
        self._process_obj = process_obj

    def __reduce__(self) -> tuple[Any, ...]:
        parent_pid = os.getpid() if _is_to_follow(self._process_obj) else None
        return _arrive, (self._process_obj, parent_pid)


def _is_to_follow(process_obj: Any) -> bool:
    """Whether the process is to end with this one."""
    return process_obj.daemon or is_daemonic()


def _arrive(process_obj: Any, parent_pid: int | None) -> Any:
    if parent_pid is not None:
        _follow(parent_pid)
    startup.arrive(process_obj)
    return process_obj


def _follow(parent_pid: int) -> None:
    """End this process as soon as its parent has ended, however that ends."""
    try:
        _dragon.follow(parent_pid)
    except ProcessLookupError:
        os._exit(1)
    if os.getppid() != parent_pid:  # it ended, and its pid is another's by now
        os._exit(1)


class DupFd:
    """What a descriptor is in the arguments: the starter's number of it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def detach(self) -> int:
        """The descriptor in the child. The same number where the child was executed."""
        return inherited_fds.get(self._fd, self._fd)


class Popen(popen_fork.Popen):
    """The handle of a child that was started by this process."""

    method = "dragon"
    DupFd = DupFd

    def __init__(self, process_obj: Any) -> None:
        self._fds: list[int] = []
        self._kept: list[Any] = []
        self._reaping = threading.RLock()  # a signal handler may look, too
        super().__init__(process_obj)

    def duplicate_for_child(self, fd: int) -> int:
        """Have the child inherit fd; its number here, for `DupFd`."""
        self._fds.append(fd)
        return fd

    def keep(self, shared_object: Any) -> None:
        """Keep an object of the runtime in use until the child has ended."""
        self._kept.append(shared_object)

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """The exit code; None: it has not ended, or somebody else has reaped it.

        Any thread that looks for ended children reaps them, so one that waits for this one looks
        at its end first, and at the code under a lock: in the standard library the code can be None
        for a moment then.
        """
        if flag == 0 and self.returncode is None:
            with contextlib.suppress(OSError):  # the next call meets it, too
                os.waitid(os.P_PIDFD, self.sentinel, os.WEXITED | os.WNOWAIT)
        with self._reaping:
            returncode = super().poll(flag or os.WNOHANG)
        if returncode is not None:
            self._kept.clear()
        return returncode

    def _launch(self, process_obj: Any) -> None:
        temporary.share(process_obj)
        data = self._pickle(process_obj)
        signal.pthread_sigmask(signal.SIG_BLOCK, getattr(process_obj, "_dragon_blocked", ()))
        _check_executable()
        pool_fd = _dragon.node_fd()
        _guard(pool_fd)
        tracker_fd = tracker.descriptor()
        child: seed.Child | Executed
        why_executed: seed.UnavailableError | None = None
        with _room_for_descriptors(2):
            try:
                follows = _is_to_follow(process_obj) or _dragon.is_head()
                child = seed.start(data, self._fds, pool_fd, tracker_fd, follows=follows)
            except seed.UnavailableError as error:
                why_executed = error
                child = Executed(data, self._fds, tracker_fd)
        self.pid = child.pid
        self.sentinel = _attend(child)
        close_fds = util.close_fds  # type: ignore[attr-defined]  # typeshed lacks it
        self.finalizer = util.Finalize(self, close_fds, (self.sentinel, child.finish()))
        self._log(process_obj, why_executed)

    def _log(self, process_obj: Any, why_executed: seed.UnavailableError | None) -> None:
        reason = None if why_executed is None else str(why_executed)
        is_expected = isinstance(why_executed, seed.NotYetError)
        start_log.started(process_obj._name, self.pid, reason, is_expected=is_expected)

    def _pickle(self, process_obj: Any) -> memoryview:
        buffer = io.BytesIO()
        preparation = by_value.preparation_data(process_obj._name)
        startup.add_reporter(preparation, process_obj)
        set_spawning_popen(self)  # type: ignore[arg-type]  # typeshed knows two kinds of Popen
        try:
            reduction.dump(preparation, buffer)
            by_value.dump(_Arrival(process_obj), buffer, self._fds.clear)
        finally:
            set_spawning_popen(None)
        return buffer.getbuffer()


_is_guarded = False


def _guard(pool_fd: int) -> None:
    """In a head that starts its first process: have the seed know of the node."""
    global _is_guarded
    if not _is_guarded and _dragon.is_head():
        _is_guarded = True
        seed.guard(pool_fd)


@contextlib.contextmanager
def _room_for_descriptors(n: int) -> Iterator[None]:
    """Have n descriptors free afterwards, or fail with EMFILE before anything has been done."""
    held: list[int] = []
    try:
        try:
            for _ in range(n):
                held.append(os.open("/", os.O_PATH | os.O_CLOEXEC))
        except OSError as error:
            text = f"{error.strerror}: starting a process takes {n} and some for a moment"
            raise OSError(error.errno, text) from None
        yield
    finally:
        for fd in held:
            os.close(fd)


def _attend(child: seed.Child | Executed) -> int:
    """Have its end noticed; the descriptor that tells of it."""
    sentinel = -1
    try:
        sentinel = os.pidfd_open(child.pid)
        _dragon.watch_child(child.pid)
    except BaseException:
        # A child that nobody can know of must not be.
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)
        os.close(child.finish())
        if sentinel >= 0:
            os.close(sentinel)
        raise
    return sentinel


class Executed:
    """A child that was started by executing `dragon`."""

    def __init__(self, data: memoryview, fds: list[int], tracker_fd: int) -> None:
        _check_pid_namespace()
        self._data = data
        child_end, self._parent_end = os.pipe()
        try:
            command = _command_line(tracker_fd=tracker_fd, pipe_handle=child_end)
            passed = [*fds, tracker_fd, child_end, _dragon.node_fd()]
            executable: Any = spawn.get_executable()  # typeshed: str; it is bytes
            self.pid = util.spawnv_passfds(executable, command, passed)
        except BaseException:
            os.close(self._parent_end)
            raise
        finally:
            os.close(child_end)

    def finish(self) -> int:
        """As `seed.Child.finish`."""
        with (
            contextlib.suppress(BrokenPipeError),
            open(self._parent_end, "wb", closefd=False) as pipe,
        ):
            pipe.write(self._data)
        return self._parent_end


def _command_line(**kwargs: Any) -> list[str]:
    """The command of a child that joins this process's node. kwargs: for ``spawn_main``."""
    executable, *rest = spawn.get_command_line(**kwargs)
    own = [f"--attach-node={_dragon.node_fd()}", *_dragon_launch.child_options()]
    return [os.fsdecode(executable), *own, *rest]


def _check_pid_namespace() -> None:
    """Processes of a node know each other by their pids."""
    if surroundings.namespace("pid_for_children") != surroundings.namespace("pid"):
        raise RuntimeError(
            "this process has called unshare(CLONE_NEWPID), and its children live in a name space "
            "of pids of their own, where start method 'dragon' cannot work; 'spawn' can"
        )


def _check_executable() -> None:
    executable = spawn.get_executable()
    if not os.path.samefile(executable, "/proc/self/exe"):
        raise RuntimeError(
            f"start method 'dragon' can only start dragon itself, but "
            f"multiprocessing.set_executable() or sys.executable names {executable!r}"
        )
