"""DragonPool: the standard library's Pool over the runtime's processes and queues."""

from __future__ import annotations

from multiprocessing import pool as _stock
from typing import Any


class DragonPool(_stock.Pool):
    """``multiprocessing.Pool`` under start method "dragon"."""

    @staticmethod
    def _help_stuff_finish(inqueue: Any, task_handler: Any, size: int) -> None:
        """Take the tasks that nobody will do, so that the task handler is not left waiting.

        Workers may take tasks at the same time, so each one is taken only if it is there.
        """
        while task_handler.is_alive() and inqueue._reader.poll():
            inqueue._discard()
