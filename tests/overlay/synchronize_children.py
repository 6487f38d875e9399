"""What the other process does in test_synchronize.py. Each function is a process's target."""

from __future__ import annotations

import sys
from typing import Any

try:
    from dragon_overlay.synchronize import Lock
except ImportError:  # plain python3
    from multiprocessing.synchronize import Lock  # type: ignore[assignment]


class NumberedLock(Lock):
    """A user's subclass with an attribute and arguments of its own."""

    def __init__(self, number: int, *, ctx: Any) -> None:
        super().__init__(ctx=ctx)
        self.number = number


def try_to_acquire(lock: Any) -> None:
    """Exit status 0 if the lock was free, 3 if not."""
    sys.exit(0 if lock.acquire(False) else 3)


def acquire_and_stay(lock: Any, has_it: Any, forever: Any) -> None:
    lock.acquire()
    has_it.set()
    forever.wait(60)


def add_units(lock: Any, here: Any, total: Any, n: int) -> None:
    """Move a unit through a place that only one may use at a time, n times."""
    for _ in range(n):
        with lock:
            here.release()  # overflows (ValueError) if somebody else is inside
            here.acquire()
            total.release()


def wait_for_event(event: Any, n_ready: Any) -> None:
    n_ready.release()
    sys.exit(0 if event.wait(30) else 3)


def answer_events(ping: Any, pong: Any, n: int) -> None:
    for _ in range(n):
        if not ping.wait(30):
            sys.exit(3)
        ping.clear()
        pong.set()


def wait_for_notification(condition: Any, n_notified: Any) -> None:
    with condition:
        notified = condition.wait(30)
    n_notified.release()
    sys.exit(0 if notified else 3)


def pass_barrier(barrier: Any, n: int) -> None:
    for _ in range(n):
        barrier.wait(30)


def end_at_broken_barrier(barrier: Any) -> None:
    import threading

    try:
        barrier.wait(30)
    except threading.BrokenBarrierError:
        sys.exit(4)


def release(lock: Any) -> None:
    lock.release()


def report_attribute(lock: Any) -> None:
    """Exit status: the attribute of a user's subclass, if the lock itself works, too."""
    with lock:
        sys.exit(lock.number)


def receive_locks(queue: Any, answers: Any) -> None:
    """Acquire what comes through a queue."""
    while (lock := queue.get()) is not None:
        answers.put(lock.acquire(False))
