"""DragonPool: the standard library's Pool over the runtime's processes and queues."""

from __future__ import annotations

import functools
from multiprocessing import pool as _stock
from typing import Any

from dragon_overlay import by_value


class DragonPool(_stock.Pool):
    """``multiprocessing.Pool`` under start method "dragon"; tasks may travel by value."""

    _inqueue: Any  # typeshed lacks it

    def _setup_queues(self) -> None:
        super()._setup_queues()  # type: ignore[misc]  # typeshed lacks it
        self._quick_put = functools.partial(by_value.put, self._inqueue)

    @staticmethod
    def _help_stuff_finish(inqueue: Any, task_handler: Any, size: int) -> None:
        """Take the tasks that nobody will do, so that the task handler is not left waiting.

        Workers may take tasks at the same time, so each one is taken only if it is there.
        """
        while task_handler.is_alive() and inqueue._reader.poll():
            inqueue._discard()
