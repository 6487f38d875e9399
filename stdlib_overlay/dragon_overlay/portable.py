"""``dragon --portable``: what cannot work across machines is refused.

A file descriptor means something on one machine only. So the functions of
``multiprocessing.reduction`` that pass descriptors raise NotImplementedError, and with them sockets
in process arguments and in messages. What the standard library itself does with them goes on: its
modules get a copy of ``reduction`` as it was, for ends of pipes, memory, and the stock start
methods, whose processes are on one machine.

Source: Lib/multiprocessing/reduction.py of CPython 3.11.
"""

from __future__ import annotations

from types import FunctionType, ModuleType
from typing import Any, NoReturn

import _dragon_boot

#: What is refused.
_NAMES = ("DupFd", "recv_handle", "recvfds", "send_handle", "sendfds")

#: Modules of the standard library that use these names of ``reduction``.
_USERS = ("connection", "forkserver", "heap", "resource_sharer")


def install(reduction: ModuleType) -> None:
    """Have the functions of ``multiprocessing.reduction`` that pass descriptors refuse to."""
    original = _copy(reduction)

    def keep_original(module: Any) -> None:
        module.reduction = original

    for name in _USERS:
        _dragon_boot.complete(f"multiprocessing.{name}", keep_original)
    for name in _NAMES:
        setattr(reduction, name, _refusing(name, getattr(reduction, name)))


def _copy(reduction: ModuleType) -> ModuleType:
    """The module as it is, with functions that find each other there."""
    copy = ModuleType(reduction.__name__, reduction.__doc__)
    vars(copy).update(vars(reduction))
    for name in _NAMES:
        function = getattr(reduction, name)
        setattr(copy, name, FunctionType(function.__code__, vars(copy), name))
    return copy


def _refusing(name: str, stock: Any) -> Any:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        if name == "DupFd" and _is_for_stock_process():
            return stock(*args, **kwargs)
        _refuse(name)

    refuse.__name__ = refuse.__qualname__ = name
    refuse.__doc__ = stock.__doc__
    return refuse


def _is_for_stock_process() -> bool:
    from multiprocessing.context import get_spawning_popen

    popen: Any = get_spawning_popen()
    return popen is not None and popen.method != "dragon"


def _refuse(name: str) -> NoReturn:
    raise NotImplementedError(
        f"multiprocessing.reduction.{name}: file descriptors and sockets cannot be passed to other "
        f"machines, and this program runs with --portable; send the data through a Queue or Pipe, "
        f"or let the other process open the file or connect by itself"
    )
