"""Jobs of an executor, whose results are futures or iterated over (dragon.futures).

Source: Lib/concurrent/futures/_base.py of CPython 3.11.
"""

from __future__ import annotations

import types
from collections.abc import Sequence
from concurrent.futures._base import PENDING, RUNNING, CancelledError
from multiprocessing import pool as _stock
from typing import Any

from dragon_overlay.pool.jobs import IMapJob, Limits, SingleCall
from dragon_overlay.pool.protocol import APPLY, STARMAP


class MappedJob(IMapJob):
    """Calls of an executor whose results are iterated over; all items are known."""

    def __init__(
        self, dispatcher: Any, func: Any, items: Sequence[Any], chunksize: int, limits: Limits
    ) -> None:
        """Make one.

        Args:
            dispatcher: keeps it until all calls have ended.
            func: what is called.
            items: what with: tuples of arguments, at least one.
            chunksize: items of a task.
            limits: what the calls may take.
        """
        # The standard library's iterators ask a pool for its jobs.
        pool = types.SimpleNamespace(_cache=dispatcher.jobs)
        super().__init__(pool, func, STARMAP, chunksize, limits)
        self.items = dict(enumerate(items))
        self._length = len(items)
        self._is_cancelled = False

    def cancel(self) -> None:
        """Calls that have not begun fail with CancelledError, and are not made."""
        self._is_cancelled = True

    def begin(self, first: int, end: int) -> tuple[int, int]:
        if not self._is_cancelled:
            return first, end
        for index in range(first, end):
            self.answer(index, False, CancelledError())
        return end, end


class FutureJob(SingleCall):
    """The call of a future."""

    mode = APPLY
    chunksize = 1

    def __init__(self, dispatcher: Any, future: Any, func: Any, call: Any, limits: Limits) -> None:
        """Make one.

        Args:
            dispatcher: keeps it until the call has ended.
            future: of ``dragon.futures``.
            func: what is called.
            call: its arguments and keywords.
            limits: what the call may take.
        """
        self._desk = dispatcher.desk
        self._dispatcher = dispatcher
        self.func = func
        self.items = (call,)
        self.limits = limits
        self.pace = dispatcher.pace
        self._future = future
        self._cache = dispatcher.jobs
        self._job = next(_stock.job_counter)  # type: ignore[attr-defined]
        self._cache[self._job] = self
        future._job = self

    def cancel(self) -> None:
        """Cancel the call, if it has not begun."""
        if self._future is not None:
            self._future.cancel()

    def kill(self) -> None:
        """Kill its worker, if it has begun."""
        self._dispatcher.kill(self)

    def wait(self, timeout: float | None) -> None:
        """Wait until it has ended."""
        self._desk.wait(self, timeout)

    def wake(self) -> None:
        """Let those who wait go on: it was cancelled."""
        self._end_call()

    def runs_callbacks(self, index: int) -> bool:
        return self._future is not None and bool(self._future._has_callbacks)

    def begin(self, first: int, end: int) -> tuple[int, int]:
        return (first, end) if self._may_begin() else (end, end)

    def take_back(self, first: int, end: int) -> None:
        with self._future._condition:
            if self._future._state == RUNNING:
                self._future._state = PENDING

    def answer(self, index: int, success: bool, value: Any) -> None:
        if not self._may_begin():
            return
        future = self._future
        self._end()
        if success:
            future.set_result(value)
        else:
            future.set_exception(value)
        self._end_call()

    def abandon(self, error: Exception) -> None:
        self.answer(0, False, error)

    def _may_begin(self) -> bool:
        """Whether the call is wanted; then it cannot be cancelled any more."""
        future = self._future
        if future is None:
            return False
        if future._state == RUNNING:
            return True
        is_wanted: bool = future.set_running_or_notify_cancel()
        if not is_wanted:
            self._end()
            self._end_call()
        return is_wanted

    def _end(self) -> None:
        self._cache.pop(self._job, None)
        self.func = self.items = None
        del self._future
