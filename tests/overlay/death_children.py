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
        sys.stderr = None  # type: ignore[assignment]  # nobody wants to read that
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
