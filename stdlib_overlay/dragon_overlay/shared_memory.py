"""SharedMemory: who attaches to a block does not answer for its life.

In the standard library each process that attaches to a block by its name has its resource tracker
unlink it at its end, also one that is no relative of the block's maker: it then takes the memory
from all others. Here only who makes a block registers it.

Source: Lib/multiprocessing/shared_memory.py of CPython 3.11; `track=False` of 3.13.
"""

from __future__ import annotations

import functools
import threading
from types import ModuleType
from typing import Any


class _Thread(threading.local):
    is_attaching = False


_thread = _Thread()


def install(module: ModuleType) -> None:
    """Complete ``multiprocessing.shared_memory``, just executed."""
    tracker: Any = module.resource_tracker
    tracker.register = _unless_attaching(tracker.register)
    tracker.unregister = _of_anybody(tracker.unregister, tracker._resource_tracker.register)
    cls: Any = module.SharedMemory
    cls.__init__ = _init(cls.__init__)


def _init(stock_init: Any) -> Any:
    @functools.wraps(stock_init)
    def init(
        self: Any, name: str | None = None, create: bool = False, size: int = 0, **more: Any
    ) -> None:
        _thread.is_attaching = not create
        try:
            stock_init(self, name, create, size, **more)
        finally:
            _thread.is_attaching = False

    return init


def _unless_attaching(stock_register: Any) -> Any:
    @functools.wraps(stock_register)
    def register(name: str, rtype: str) -> None:
        if not _thread.is_attaching:
            stock_register(name, rtype)

    return register


def _of_anybody(stock_unregister: Any, stock_register: Any) -> Any:
    """Who unlinks a block, or says that it does not own it, need not have registered it.

    If it has the maker's tracker, that ends the maker's registration, as ever.
    """

    @functools.wraps(stock_unregister)
    def unregister(name: str, rtype: str) -> None:
        if rtype == "shared_memory":
            stock_register(name, rtype)
        stock_unregister(name, rtype)

    return unregister
