"""DragonProcess: a process that starts through the runtime.

Source: Lib/multiprocessing/context.py (SpawnProcess) of CPython 3.11.
"""

from __future__ import annotations

from multiprocessing import process as _stock
from typing import Any


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
