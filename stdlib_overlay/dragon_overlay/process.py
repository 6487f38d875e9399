"""DragonProcess: a process that starts through the runtime.

Source: Lib/multiprocessing/context.py (SpawnProcess) and process.py of CPython 3.11.
"""

from __future__ import annotations

import os
from multiprocessing import process as _stock
from typing import Any

#: What typeshed does not tell.
_process: Any = _stock


def is_daemonic() -> bool:
    """Whether the calling process ends with its parent."""
    return bool(_process.current_process()._config.get("daemon"))


def _start_in_daemon(self: Any) -> None:
    self._check_closed()
    if self._popen is not None:
        raise AssertionError("cannot start a process twice")
    if self._parent_pid != os.getpid():
        raise AssertionError("can only start a process object created by current process")
    _process._cleanup()
    self._popen = self._Popen(self)
    self._sentinel = self._popen.sentinel
    del self._target, self._args, self._kwargs
    _process._children.add(self)


class DragonProcess(_stock.BaseProcess):
    """A Process of start method "dragon": starts as spawn does, and is part of the node."""

    _start_method = "dragon"

    def start(self) -> None:
        """Start the process; also in a daemonic one, and then it ends with that.

        The standard library forbids it to daemonic processes, which may be killed at any time and
        would leave their children behind.
        """
        if is_daemonic():
            _start_in_daemon(self)
        else:
            super().start()

    @staticmethod
    def _Popen(process_obj: _stock.BaseProcess) -> Any:
        from dragon_overlay.popen import Popen

        return Popen(process_obj)

    @staticmethod
    def _after_fork() -> None:
        # A started process is a fresh interpreter: nothing to undo.
        pass
