"""A forked child's first and last steps: what an execution and a return from main would do."""

from __future__ import annotations

import atexit
import io
import os
import sys
import time
from multiprocessing import util
from typing import Any, NoReturn

import _dragon
import _dragon_launch
from dragon_overlay.order import Order, environment_of
from dragon_overlay.surroundings import Surroundings, adopt

#: The starter's number of an inherited descriptor -> the number here.
inherited_fds: dict[int, int] = {}


def settle(order: Order, fds: list[int], own: Surroundings) -> int:
    """Become what an executed child of the starter would be.

    Args:
        order: what is wanted.
        fds: the descriptors that came with it.
        own: how this process is now.

    Returns:
        The descriptor of the resource tracker.

    Raises:
        OSError: the kernel refuses something, or the node's head has ended.
    """
    fds = fds[::-1]
    for number in order.standard:
        fd = fds.pop()
        os.dup2(fd, number)
        os.close(fd)
    if order.joins:
        _join_node(fds.pop())
    tracker_fd = fds.pop()
    for number in order.inherited:
        inherited_fds[number] = fds.pop()
        os.set_inheritable(inherited_fds[number], True)
    if order.variables is not None:
        _set_environment(order.variables)
    for number in {0, 1, 2}.difference(order.standard):
        os.close(number)
    _open_standard_streams()
    adopt(Surroundings(*order.surroundings), own)
    return tracker_fd


def _join_node(fd: int) -> None:
    try:
        _dragon_launch.join_node(fd)
    except ProcessLookupError:
        os._exit(1)  # the program has ended meanwhile


def _set_environment(variables: bytes) -> None:
    wanted = environment_of(variables)
    for name in [name for name in os.environb if name not in wanted]:
        del os.environb[name]
    for name, value in wanted.items():
        if os.environb.get(name) != value:
            os.environb[name] = value
    time.tzset()


#: Streams that have the encoding, the error handler and the buffering that Python was started with.
_models = {name: getattr(sys, f"__{name}__") for name in ("stdin", "stdout", "stderr")}

#: What the standard descriptors led to when the streams over them were made.
_streams_of: list[tuple[int, int] | None] = [None, None, None]


def prepare_standard_streams(fds: list[int | None]) -> None:
    """In the fork server: make sys.stdin, stdout and stderr for children with these descriptors.

    How a stream behaves depends on what its descriptor leads to, and making them takes a child
    longer than a look whether that is still the same. The descriptors are closed.
    """
    nowhere = os.dup(0)
    for number, fd in enumerate(fds):
        if fd is not None:
            os.dup2(fd, number)
            os.close(fd)
    _open_standard_streams()
    for number in range(3):
        os.dup2(nowhere, number)
    os.close(nowhere)


def _open_standard_streams() -> None:
    """Make sys.stdin, stdout and stderr anew where their descriptors have changed."""
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        file = _file_of(fd)
        if file is None or file != _streams_of[fd]:
            stream = _open_standard_stream(fd, name)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
        _streams_of[fd] = file


def _file_of(fd: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _open_standard_stream(fd: int, name: str) -> io.TextIOWrapper | None:
    """Source: create_stdio in Python/pylifecycle.c of CPython 3.11."""
    like = _models[name]
    mode = "r" if fd == 0 else "w"
    is_unbuffered = fd != 0 and like.write_through
    try:
        binary: Any = open(fd, mode + "b", 0 if is_unbuffered else -1, closefd=False)  # noqa: SIM115
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


def end(status: int) -> NoReturn:
    """End a child without taking its interpreter down, which takes longer than all the rest.

    What the program has asked for is done: ``atexit`` and ``weakref.finalize``, flushing, leaving
    the node. Objects that are still alive are not finalised; of those that are views of shared
    objects, the use is given back, unless daemon threads may be in the middle of using them.
    """
    atexit._run_exitfuncs()
    util._flush_std_streams()  # type: ignore[attr-defined]
    has_threads = len(sys._current_frames()) > 1
    if not has_threads:
        _dragon.close_objects()
    _dragon_launch.leave(status, has_threads)
