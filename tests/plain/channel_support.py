"""Helpers of the tests of dragon.channels."""

import multiprocessing
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dragon.channels import ChannelError

MIB = 1 << 20
SHM = Path("/dev/shm")

#: Stock processes: they have nothing of the runtime but what the channels bring.
spawn = multiprocessing.get_context("spawn")


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Start work in a thread; the list gets its result or exception."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(work())
        except (ChannelError, EOFError) as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, results


def ends_with_interrupt(wait: Callable[[], Any]) -> None:
    """Check that Ctrl-C ends a wait: its handler raises KeyboardInterrupt out of it."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(KeyboardInterrupt):
            wait()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def lets_others_run(wait: Callable[[], Any], end_it: Callable[[], Any]) -> Any:
    """Check that another thread runs, and can end the wait, while this one waits; its result."""
    is_waiting = threading.Event()

    def other() -> None:
        is_waiting.wait()
        end_it()

    thread = threading.Thread(target=other)
    thread.start()
    is_waiting.set()
    result = wait()
    thread.join()
    return result
