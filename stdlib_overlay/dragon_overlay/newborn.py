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
    if len(sys._current_frames()) == 1:
        _dragon.close_objects()
    _dragon_launch.leave(status)
