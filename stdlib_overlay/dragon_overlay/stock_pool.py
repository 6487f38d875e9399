"""The standard library's own Pool over queues of ours: a subclass's that has parts of its own.

``install`` runs when ``multiprocessing.pool`` has been loaded.

Source: Lib/multiprocessing/pool.py of CPython 3.11.
"""

from __future__ import annotations

import functools
import time
from multiprocessing import util
from types import ModuleType
from typing import Any

import _dragon


def install(module: ModuleType) -> None:
    """Have ``Pool.terminate`` empty queues of ours."""
    module.Pool._help_stuff_finish = staticmethod(_helping(module.Pool._help_stuff_finish))


def _helping(stock: Any) -> Any:
    """What takes tasks away while the pool's thread may wait for room to put more.

    The library looks whether there is one and then takes it, under a lock that keeps all workers
    away. Those do not take that lock here: one may be quicker, and the library would wait for ever.
    """

    @functools.wraps(stock)
    def help_stuff_finish(inqueue: Any, task_handler: Any, size: int) -> None:
        if not isinstance(inqueue, _dragon.SimpleQueue):
            stock(inqueue, task_handler, size)
            return
        util.debug("removing tasks from inqueue until task handler finished")
        while task_handler.is_alive() and inqueue._poll(0):
            inqueue._discard()
            time.sleep(0)

    return help_stuff_finish
