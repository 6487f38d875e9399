"""Locks, semaphores, events, conditions and barriers in pool memory.

Each class is the C type that does the work (in `_dragon`) and, so that
isinstance and code which reads private attributes go on working, a subclass of
the standard library's class of the same name. What the standard library does
well in Python (`repr`, `Condition.wait_for`) is inherited from it.

Differences that can be seen: nothing here has a name in the file system or needs
the resource tracker; `Event.wait` returns True also when the flag was lowered
again before the waiter ran; `Condition.notify` wakes those that have waited
longest; a barrier breaks when a process is killed that is awaited there (docs/faults.md).

Source: Lib/multiprocessing/synchronize.py and Lib/threading.py of CPython 3.11.
"""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import synchronize as stock
from multiprocessing.context import BaseContext
from typing import Any

import _dragon
from dragon_overlay.reduction import Shared

__all__ = [
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "Lock",
    "RLock",
    "Semaphore",
]

# typeshed lacks these three.
RECURSIVE_MUTEX: int = stock.RECURSIVE_MUTEX  # type: ignore[attr-defined]
SEMAPHORE: int = stock.SEMAPHORE  # type: ignore[attr-defined]
SEM_VALUE_MAX: int = stock.SEM_VALUE_MAX  # type: ignore[attr-defined]


class _SemLock(Shared, _dragon.SemLock):
    """Base of the locks and semaphores."""

    @property
    def _semlock(self) -> _dragon.SemLock:
        """What the standard library's own code asks for values: here, the object itself."""
        return self


class Semaphore(_SemLock, stock.Semaphore):
    """A counter that `acquire` lowers and `release` raises; `acquire` waits while it is 0."""

    def __init__(self, value: int = 1, *, ctx: BaseContext | None = None) -> None:
        _dragon.SemLock.__init__(self, SEMAPHORE, value, SEM_VALUE_MAX)

    def get_value(self) -> int:
        """The value now; it may have changed on return."""
        return self._get_value()


class BoundedSemaphore(Semaphore, stock.BoundedSemaphore):
    """A semaphore that `release` does not raise above its first value (ValueError)."""

    def __init__(self, value: int = 1, *, ctx: BaseContext | None = None) -> None:
        _dragon.SemLock.__init__(self, SEMAPHORE, value, value)


class Lock(_SemLock, stock.Lock):
    """A lock that any process or thread may release.

    When the process that holds it ends without having released it, it stays locked. One made with
    robust=True goes to the next one that acquires it, whose `owner_died` is True until it releases
    the lock: what the lock protects may be half changed.
    """

    def __init__(self, *, robust: bool = False, ctx: BaseContext | None = None) -> None:
        _dragon.SemLock.__init__(self, SEMAPHORE, 1, 1, robust)


class RLock(_SemLock, stock.RLock):
    """A lock that its holder may acquire again, and only its holder releases.

    robust: as that of `Lock`.
    """

    def __init__(self, *, robust: bool = False, ctx: BaseContext | None = None) -> None:
        _dragon.SemLock.__init__(self, RECURSIVE_MUTEX, 1, 1, robust)


class Event(Shared, _dragon.Event, stock.Event):
    """A flag that can be waited for."""

    def __init__(self, *, ctx: BaseContext | None = None) -> None:
        _dragon.Event.__init__(self)


class _Counter:
    """Stands for one of the semaphores of which the standard library makes a Condition."""

    def __init__(self, value: Callable[[], int]) -> None:
        self._get_value = value

    @property
    def _semlock(self) -> _Counter:
        return self

    def get_value(self) -> int:
        """The number now; it may have changed on return."""
        return self._get_value()


def _none() -> int:
    return 0


class Condition(Shared, _dragon.Condition, stock.Condition):
    """Lets holders of a lock wait until another holder notifies them."""

    def __init__(self, lock: Any = None, *, ctx: BaseContext | None = None) -> None:
        """Make a condition.

        Args:
            lock: a Lock or RLock, of start method "dragon" for speed; by default a new RLock.
            ctx: for the signature's sake.
        """
        _dragon.Condition.__init__(self, lock or RLock(ctx=ctx))

    def __getstate__(self) -> Any:
        return super().__getstate__(), self._lock

    def __setstate__(self, state: Any) -> None:
        shared, self._lock = state
        super().__setstate__(shared)

    @property
    def _sleeping_count(self) -> _Counter:
        """How many wait. Those who have been notified are not counted even while they wake."""
        return _Counter(self._n_waiting)

    @property
    def _woken_count(self) -> _Counter:
        return _Counter(_none)

    @property
    def _wait_semaphore(self) -> _Counter:
        return _Counter(_none)


class Barrier(Shared, _dragon.Barrier, stock.Barrier):
    """A point at which a number of threads or processes wait until all have come."""

    def __init__(
        self,
        parties: int,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
        *,
        ctx: BaseContext | None = None,
    ) -> None:
        """Make a barrier.

        Args:
            parties: how many it takes to pass, at least 1.
            action: called by the last to come, before all are released.
            timeout: seconds, the default of `wait`.
            ctx: for the signature's sake.

        Raises:
            ValueError: if parties is below 1. (The standard library's would wait for ever.)
        """
        _dragon.Barrier.__init__(self, parties, action, timeout)

    def __getstate__(self) -> Any:
        return super().__getstate__(), self._action, self._timeout

    def __setstate__(self, state: Any) -> None:
        shared, self._action, self._timeout = state
        super().__setstate__(shared)
