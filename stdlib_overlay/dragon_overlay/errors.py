"""What programs are told of a worker that has ended in the middle of a call.

``dragon.WorkerDied`` for programs; here so that a program which never imports ``dragon`` need not.
"""

from __future__ import annotations

import reprlib
import signal
from concurrent.futures.process import BrokenProcessPool
from typing import Any

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 100
_short.maxlevel = 3


class WorkerDied(BrokenProcessPool):
    """A worker has ended in the middle of a call: of a signal, ``os._exit``, lack of memory.

    Attributes:
        pid: of the worker's process.
        worker: its name.
        exitcode: negative: minus the signal; None: unknown, somebody else has waited for it.
        signal: its name, as "SIGKILL"; None: it was none.
        function: the repr of what it was calling.
        arguments: the repr of the arguments, shortened.
    """

    def __init__(
        self, pid: int, worker: str, exitcode: int | None, function: str, arguments: str
    ) -> None:
        super().__init__(pid, worker, exitcode, function, arguments)
        self.pid = pid
        self.worker = worker
        self.exitcode = exitcode
        self.signal = _name_of_signal(exitcode)
        self.function = function
        self.arguments = arguments

    def __str__(self) -> str:
        return (
            f"worker {self.worker} (pid {self.pid}) {self._how()} while it was calling "
            f"{self.function} with {self.arguments}"
        )

    def _how(self) -> str:
        if self.exitcode is None:
            return "ended in an unknown way"
        if self.signal is not None:
            return f"was ended by {self.signal}"
        return f"ended with exit code {self.exitcode}"


def short_repr(obj: Any) -> str:
    """A repr of bounded length, which does not fail."""
    try:
        return _short.repr(obj)
    except Exception as error:  # noqa: BLE001  # the program's own __repr__
        return f"<{type(obj).__name__}, whose repr fails with {type(error).__name__}>"


def _name_of_signal(exitcode: int | None) -> str | None:
    if exitcode is None or exitcode >= 0:
        return None
    try:
        return signal.Signals(-exitcode).name
    except ValueError:
        return f"signal {-exitcode}"
