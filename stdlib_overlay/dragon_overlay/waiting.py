"""``multiprocessing.connection.wait`` over connections and queues of ours, too.

``install`` runs when ``multiprocessing.connection`` has been loaded.

Source: Lib/multiprocessing/connection.py of CPython 3.11.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

import _dragon


def install(module: ModuleType) -> None:
    """Have ``wait`` know our connections, and look into the queues beside their descriptors.

    Through their descriptors the standard library's could wait for connections, too, but each
    message would then cost system calls.

    A queue's descriptor is raised by a thread of this process, a sentinel by the kernel. So of a
    process that puts something and ends, the end may be seen first, which it never is with a pipe:
    an executor takes that for the end of a worker in the middle of its work.
    """
    stock_wait: Any = module.wait

    @functools.wraps(stock_wait)
    def wait(object_list: Any, timeout: float | None = None) -> list[Any]:
        objects = object_list if type(object_list) is list else list(object_list)
        ready = _dragon.wait(objects, timeout)
        if ready is not None:
            return ready
        others: list[Any] = stock_wait(objects, timeout)
        seen = {id(one) for one in others}
        return others + [one for one in objects if id(one) not in seen and _has_something(one)]

    module.wait = wait  # type: ignore[attr-defined]


def _has_something(one: Any) -> bool:
    look = getattr(one, "_dragon_has_something", None)
    return look is not None and look()
