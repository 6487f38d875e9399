"""Starting a process: `dragon` is executed anew and joins the node.

The child inherits the file of the node's default pool, the pipe with its preparation data, and
what its arguments need; it runs the standard library's ``spawn_main``. Objects of the runtime
that travel in the arguments are kept in use until the child has ended, so that the starter may
forget them at once.

Source: Lib/multiprocessing/popen_spawn_posix.py of CPython 3.11.
"""

from __future__ import annotations

import io
import os
import signal
from multiprocessing import popen_fork, popen_spawn_posix, resource_tracker, spawn, util
from multiprocessing.context import reduction, set_spawning_popen  # type: ignore[attr-defined]
from typing import Any

import _dragon
import _dragon_launch


def command_line(**kwargs: Any) -> list[str]:
    """The command of a child that joins this process's node. kwargs: for ``spawn_main``."""
    executable, *rest = spawn.get_command_line(**kwargs)
    if not os.path.samefile(executable, "/proc/self/exe"):
        raise RuntimeError(
            f"start method 'dragon' can only start dragon itself, but "
            f"multiprocessing.set_executable() or sys.executable names {executable!r}"
        )
    own = [f"--attach-node={_dragon.node_fd()}", *_dragon_launch.child_options()]
    return [os.fsdecode(executable), *own, *rest]


class _Arrival:
    """What the child finds in the place of its process object: unpickled, it is that object.

    On the way a daemonic process begins to follow its parent.
    """

    def __init__(self, process_obj: Any) -> None:
        self._process_obj = process_obj

    def __reduce__(self) -> tuple[Any, ...]:
        parent_pid = os.getpid() if self._process_obj.daemon else None
        return _arrive, (self._process_obj, parent_pid)


def _arrive(process_obj: Any, parent_pid: int | None) -> Any:
    if parent_pid is not None:
        _follow(parent_pid)
    return process_obj


def _follow(parent_pid: int) -> None:
    """End this process as soon as its parent has ended, however that ends."""
    try:
        _dragon.follow(parent_pid)
    except ProcessLookupError:
        os._exit(1)
    if os.getppid() != parent_pid:  # it ended, and its pid is another's by now
        os._exit(1)


class Popen(popen_fork.Popen):
    """The handle of a child that was started by this process."""

    method = "dragon"
    DupFd = popen_spawn_posix._DupFd

    def __init__(self, process_obj: Any) -> None:
        self._fds: list[int] = []
        self._kept: list[Any] = []
        super().__init__(process_obj)

    def duplicate_for_child(self, fd: int) -> int:
        """Have the child inherit fd; its number there."""
        self._fds.append(fd)
        return fd

    def keep(self, shared_object: Any) -> None:
        """Keep an object of the runtime in use until the child has ended."""
        self._kept.append(shared_object)

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        returncode = super().poll(flag)
        if returncode is not None:
            self._kept.clear()
        return returncode

    def _launch(self, process_obj: Any) -> None:
        data = self._pickle(process_obj)
        child_end, parent_end = os.pipe()
        try:
            self._start(child_end)
        except BaseException:
            os.close(parent_end)
            raise
        finally:
            os.close(child_end)
        # The pipe stays open: the child sees its end when we have ended.
        close_fds = util.close_fds  # type: ignore[attr-defined]  # typeshed lacks it
        self.finalizer = util.Finalize(self, close_fds, (self.sentinel, parent_end))
        with open(parent_end, "wb", closefd=False) as pipe:
            pipe.write(data)

    def _pickle(self, process_obj: Any) -> memoryview:
        buffer = io.BytesIO()
        preparation = spawn.get_preparation_data(process_obj._name)
        set_spawning_popen(self)  # type: ignore[arg-type]  # typeshed knows two kinds of Popen
        try:
            reduction.dump(preparation, buffer)
            reduction.dump(_Arrival(process_obj), buffer)
        finally:
            set_spawning_popen(None)
        return buffer.getbuffer()

    def _start(self, child_end: int) -> None:
        tracker_fd = resource_tracker.getfd()
        command = command_line(tracker_fd=tracker_fd, pipe_handle=child_end)
        fds = [*self._fds, tracker_fd, child_end, _dragon.node_fd()]
        # typeshed: the executable is str (it is bytes), the tracker may have no fd (it has).
        executable: Any = spawn.get_executable()
        self.pid = util.spawnv_passfds(executable, command, fds)  # type: ignore[arg-type]
        try:
            self.sentinel = os.pidfd_open(self.pid)
            _dragon.watch_child(self.pid)
        except BaseException:
            # A child that nobody can know of must not be.
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            raise
