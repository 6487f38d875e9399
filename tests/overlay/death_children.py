"""What the other process does in the tests of deaths. Each function is a process's target."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any


def end(how: str) -> None:
    """End this process: "exit", "exit 3", "raise", "_exit", "_exit 3", or a signal's number."""
    if how.startswith("exit"):
        sys.exit(int(how[4:] or 0))
    if how.startswith("_exit"):
        os._exit(int(how[5:] or 0))
    if how == "raise":
        sys.stderr = None  # nobody wants to read that
        raise ValueError
    os.kill(os.getpid(), int(how))


def pass_barrier_and_end(barrier: Any, n: int, how: str) -> None:
    for _ in range(n):
        barrier.wait(20)
    end(how)


def pass_barrier_and_stay(barrier: Any, n: int, passed: Any) -> None:
    """Exit status 4: the barrier broke."""
    try:
        for _ in range(n):
            barrier.wait(20)
            passed.put(os.getpid())
    except threading.BrokenBarrierError:
        sys.exit(4)
    time.sleep(60)


def fork_and_pass_barrier(barrier: Any, how: str) -> None:
    """A forked copy takes part once and ends; who is killed is not waited for."""
    pid = os.fork()
    if pid == 0:
        barrier.wait(20)
        end(how)
    if how.isdigit():
        time.sleep(60)
    os.waitpid(pid, 0)


def acquire_and_stay(lock: Any, told: Any) -> None:
    """Hold the lock; puts whether the one before died."""
    lock.acquire()
    told.put(lock.owner_died)
    time.sleep(60)


def acquire_and_end(lock: Any, how: str) -> None:
    lock.acquire()
    end(how)


def say_and_stay(ready: Any, *objects: Any) -> None:
    ready.put(os.getpid())
    time.sleep(60)


def fork_and_try(lock: Any, results: Any) -> None:
    """Put what a forked copy of a holder gets of the lock, and after its holder's death."""
    lock.acquire()
    if os.fork():
        os.kill(os.getpid(), 9)
    results.put(lock.acquire(timeout=20) and lock.owner_died)
    os._exit(0)
