"""The resource tracker, made by the fork server: a twentieth of the work of executing it.

The process is what it is in the standard library, a child of the one that first needs it, which
unlinks what others leave behind, and the program it runs is the same.

Source: Lib/multiprocessing/resource_tracker.py of CPython 3.11.
"""

from __future__ import annotations

import os
import pickle
import signal
from multiprocessing import resource_tracker
from typing import Any

import _dragon_launch
from dragon_overlay import seed

_tracker: Any = resource_tracker._resource_tracker


def descriptor() -> int:
    """Return the descriptor that children write to; the tracker runs then."""
    if _tracker._fd is None:
        _launch()
    fd: int = resource_tracker.getfd()  # type: ignore[assignment]
    return fd


class _Tracker:
    """Stands for the process object in what a child is sent."""

    def _bootstrap(self, parent_sentinel: int) -> int:
        os.close(parent_sentinel)
        os.setpgid(0, 0)  # if the whole group is killed, it is needed most
        _dragon_launch.set_title("dragon: resource tracker")
        resource_tracker.main(_tracker._fd)
        return 0


def _launch() -> None:
    """Start the tracker; if it must be executed, the standard library does that later."""
    with _tracker._lock:
        if _tracker._fd is not None:
            return
        read_end, write_end = os.pipe()
        ours = write_end
        # It is to ignore these two, and must not meet one before it does.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            body = pickle.dumps({}) + pickle.dumps(_Tracker())
            child = seed.start(body, [], None, read_end, follows=False)
            os.close(child.finish())
            _tracker._pid, _tracker._fd, ours = child.pid, write_end, -1
        except seed.UnavailableError:
            pass
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(read_end)
            if ours >= 0:
                os.close(ours)
