"""Time limits of calls: whose is over is killed, and only in that call.

The supervisor's thread owns a Clock. It looks at a worker's words when a limit may have been
reached, and not before, so a limit costs one look in its length.

A call whose time is over is ended in steps. First the worker writes its stack, and has STACK_S for
it. Then it is stopped: what a stopped process is doing is known for sure. If it is still in that
call it is killed; if the call has just ended, the worker goes on.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dragon_overlay.pool.stacks import STACK_SIGNAL

if TYPE_CHECKING:
    from dragon_overlay.pool.dispatcher import Place

#: A worker has so long to write its stack, and the kernel to stop it.
STACK_S = 0.05
_LOOK_S = 0.002


class _Limit:
    """That of the calls of one task."""

    def __init__(self, place: Place, number: int, timeout: float) -> None:
        self.place = place
        self.generation = place.generation
        self.number = number
        self.timeout = timeout

    def is_over(self) -> bool:
        """Whether there is nothing left to be limited."""
        place = self.place
        return self.generation != place.generation or self.number not in place.tasks

    def item(self) -> int | None:
        """The item whose call is under way; None: it is not this task's."""
        return self.place.words.item_of(self.number)


class Clock:
    """What is to be done when. Only the supervisor's thread uses it."""

    def __init__(self) -> None:
        self._turns: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()  # of what is due at the same time

    def limit(self, place: Place, number: int, timeout: float) -> None:
        """From now on no call of a task may take longer.

        Args:
            place: where the task is.
            number: the task's.
            timeout: seconds, from the beginning of a call.
        """
        self._look_in(timeout, _Limit(place, number, timeout))

    def kill_in_call(self, place: Place, number: int, item: int) -> None:
        """Kill a worker in a call that it has begun or is about to begin; not in another one.

        Args:
            place: the worker's.
            number: the call's task.
            item: the next of it that has no result.
        """
        self._kill(_Limit(place, number, 0.0), item)

    def call_in(self, seconds: float, what: Callable[[], object]) -> None:
        """Have something called."""
        self._at(time.monotonic() + seconds, what)

    def due_s(self) -> float | None:
        """Seconds until something is to be done; None: nothing is."""
        return max(0.0, self._turns[0][0] - time.monotonic()) if self._turns else None

    def turn(self) -> None:
        """Do what is due."""
        while self._turns and self._turns[0][0] <= time.monotonic():
            heapq.heappop(self._turns)[2]()

    def _at(self, when: float, what: Callable[[], object]) -> None:
        heapq.heappush(self._turns, (when, next(self._order), what))

    def _look_in(self, seconds: float, limit: _Limit) -> None:
        self.call_in(seconds, lambda: self._look(limit))

    def _look(self, limit: _Limit) -> None:
        if limit.is_over():
            return
        item, since = limit.item(), limit.place.words.since()
        left = limit.timeout
        if item is not None:
            left += since - time.monotonic()
        if left > 0:
            self._look_in(left, limit)
        elif item == limit.item():
            self._ask_for_stack(limit, item)
        else:
            self._look_in(limit.timeout, limit)

    def _ask_for_stack(self, limit: _Limit, item: int | None) -> None:
        _send(limit.place.process, STACK_SIGNAL)
        latest = time.monotonic() + STACK_S
        self._at(time.monotonic() + _LOOK_S, lambda: self._wait_for_stack(limit, item, 0, latest))

    def _wait_for_stack(self, limit: _Limit, item: int | None, n_bytes: int, latest: float) -> None:
        """Until the stack grows no more, or has had its time."""
        now, n_now = time.monotonic(), limit.place.stack.n_bytes()
        if now < latest and (n_now == 0 or n_now != n_bytes):
            self._at(now + _LOOK_S, lambda: self._wait_for_stack(limit, item, n_now, latest))
        else:
            self._end(limit, item)

    def _end(self, limit: _Limit, item: int | None) -> None:
        place = limit.place
        if limit.is_over():
            return
        _stop(place.process)
        if limit.item() == item:
            place.timed_out = limit.timeout
            _send(place.process, signal.SIGKILL)
        else:
            place.stack.clear()
            _send(place.process, signal.SIGCONT)
            self._look_in(limit.timeout, limit)

    def _kill(self, limit: _Limit, item: int) -> None:
        if limit.is_over():
            return
        process = limit.place.process
        _stop(process)
        now = limit.item()
        _send(process, signal.SIGKILL if now == item else signal.SIGCONT)
        if now is None or now < item:
            self.call_in(_LOOK_S, lambda: self._kill(limit, item))


def _send(process: Any, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended, which is a message by itself
        signal.pidfd_send_signal(process.sentinel, number)


def _stop(process: Any) -> None:
    """Stop a process; return when it is, has ended, or the kernel takes its time."""
    _send(process, signal.SIGSTOP)
    latest = time.monotonic() + STACK_S
    kinds = os.WSTOPPED | os.WEXITED | os.WNOWAIT | os.WNOHANG
    with contextlib.suppress(ChildProcessError):
        while os.waitid(os.P_PIDFD, process.sentinel, kinds) is None:
            if time.monotonic() > latest:
                break
            time.sleep(0.0002)
