"""What programs are told of a worker that has ended in the middle of a call.

``dragon.WorkerDied`` and ``dragon.TaskTimeout`` for programs; here so that a program which never
imports ``dragon`` need not.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from dragon_overlay.ends import name_of_signal


class _InCallError(Exception):
    """An exception that is about one call, and travels with its attributes."""

    function: str
    arguments: str
    stack: str | None

    def _call(self) -> str:
        return f"{self.function} with {self.arguments}"

    def _stack(self, why_none: str) -> str:
        return f"\n\n{self.stack}" if self.stack else f"\n(No Python stack: {why_none}.)"


class WorkerDied(_InCallError, BrokenProcessPool):  # noqa: N818  # documented names
    """A worker has ended in the middle of a call: of a signal, ``os._exit``, lack of memory.

    Attributes:
        pid: of the worker's process.
        worker: its name.
        exitcode: negative: minus the signal; None: unknown, somebody else has waited for it.
        signal: its name, as "SIGKILL"; None: it was none.
        function: the repr of what it was calling.
        arguments: the repr of the arguments, shortened.
        stack: the Python stack, if there is one: of SIGSEGV, SIGBUS, SIGABRT, SIGFPE and SIGILL, as
            long as the program does not handle these itself. Nothing can tell that of SIGKILL.
        is_out_of_memory: it was killed by SIGKILL, and the kernel has killed a process of this
            control group for lack of memory since a worker of the pool died last.
    """

    def __init__(
        self,
        pid: int,
        worker: str,
        exitcode: int | None,
        function: str,
        arguments: str,
        stack: str | None = None,
        is_out_of_memory: bool = False,
    ) -> None:
        super().__init__(pid, worker, exitcode, function, arguments, stack, is_out_of_memory)
        self.pid = pid
        self.worker = worker
        self.exitcode = exitcode
        self.signal = name_of_signal(exitcode)
        self.function = function
        self.arguments = arguments
        self.stack = stack
        self.is_out_of_memory = is_out_of_memory

    def __str__(self) -> str:
        text = f"worker {self.worker} (pid {self.pid}) {self._how()} while it was calling "
        return text + self._call() + self._stack(f"{self.signal or 'such an end'} leaves none")

    def _how(self) -> str:
        if self.exitcode is None:
            return "ended in an unknown way"
        if self.is_out_of_memory:
            return "was killed, as memory had run out,"
        if self.signal is not None:
            return f"was ended by {self.signal}"
        return f"ended with exit code {self.exitcode}"


class TaskTimeout(_InCallError, TimeoutError, multiprocessing.TimeoutError):  # noqa: N818
    """A call took longer than its ``timeout``; its worker was killed.

    Attributes:
        pid: of the worker's process.
        worker: its name.
        timeout: seconds.
        function: the repr of what it was calling.
        arguments: the repr of the arguments, shortened.
        stack: the Python stack of its threads; None: it did not come within 50 ms.
    """

    def __init__(
        self,
        pid: int,
        worker: str,
        timeout: float,
        function: str,
        arguments: str,
        stack: str | None = None,
    ) -> None:
        super().__init__(pid, worker, timeout, function, arguments, stack)
        self.pid = pid
        self.worker = worker
        self.timeout = timeout
        self.function = function
        self.arguments = arguments
        self.stack = stack

    def __reduce__(self) -> Any:
        what = self.function, self.arguments, self.stack
        return type(self), (self.pid, self.worker, self.timeout, *what)

    def __str__(self) -> str:
        text = f"a call took longer than {self.timeout} s: {self._call()}; worker {self.worker} "
        return text + f"(pid {self.pid}) was killed" + self._stack("the worker did not write it")
