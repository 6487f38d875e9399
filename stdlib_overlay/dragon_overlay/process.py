"""DragonProcess: a process that starts through the runtime.

Source: Lib/multiprocessing/context.py (SpawnProcess) of CPython 3.11.
"""

from __future__ import annotations

import os
from multiprocessing import process as _stock
from typing import Any

import _dragon


class DragonProcess(_stock.BaseProcess):
    """A Process of start method "dragon": starts as spawn does, and is part of the node."""

    _start_method = "dragon"

    @staticmethod
    def _Popen(process_obj: _stock.BaseProcess) -> Any:
        from dragon_overlay.popen import Popen

        return Popen(process_obj)

    @staticmethod
    def _after_fork() -> None:
        # A started process is a fresh interpreter: nothing to undo.
        pass

    def _bootstrap(self, parent_sentinel: int | None = None) -> int:
        if self.daemon:
            self._follow_parent()
        return super()._bootstrap(parent_sentinel)

    def _follow_parent(self) -> None:
        """A daemonic process ends with its parent, however that ends."""
        try:
            _dragon.follow(self._parent_pid)
        except ProcessLookupError:
            os._exit(1)
        if os.getppid() != self._parent_pid:  # it ended, and its pid is another's by now
            os._exit(1)
