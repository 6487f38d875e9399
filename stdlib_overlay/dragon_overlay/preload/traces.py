"""What an import may leave in a process that a fork would not copy, or would copy wrongly."""

from __future__ import annotations

import os
import signal
import time
import warnings
from typing import NamedTuple

#: How long threads that have been told to end may take to be gone from /proc.
ENDING_THREADS_S = 0.2

#: Signals 32 and 33, of the threads of the C library, which handles them from the first thread on.
_OF_C_LIBRARY = 0b11 << 31


class Traces(NamedTuple):
    """The state of this process, in so far as a fork has trouble with it.

    Attributes:
        descriptors: number and target of each open one.
        signals: the sets of blocked, ignored and caught ones, but for the C library's own.
        handlers: what Python calls for each signal.
        shared_maps: writable memory that a forked process would share, not copy.
    """

    descriptors: frozenset[tuple[int, str]]
    signals: tuple[int, ...]
    handlers: tuple[object, ...]
    shared_maps: frozenset[str]


def look() -> Traces:
    """Take down the traces that this process shows now."""
    return Traces(_descriptors(), _signals(), _handlers(), _shared_maps())


def difference(before: Traces, after: Traces) -> str:
    """Say what has come about between two looks, in a few words; "" if nothing."""
    new = after.descriptors - before.descriptors
    if new:
        number, target = min(new)
        return f"it leaves descriptor {number} open ({target})"
    if after.descriptors != before.descriptors:
        return "it closes a descriptor"
    if (after.signals, after.handlers) != (before.signals, before.handlers):
        return "it changes how signals are handled"
    if after.shared_maps - before.shared_maps:
        return "it maps memory that forked processes would share"
    return ""


def n_threads() -> int:
    """The threads of this process, those that Python does not know included."""
    return len(os.listdir("/proc/self/task"))


def has_more_threads(than: int) -> bool:
    """Return whether there are more threads than before, after giving ending ones time to end."""
    deadline = time.monotonic() + ENDING_THREADS_S
    while n_threads() > than:
        if time.monotonic() > deadline:
            return True
        time.sleep(0.001)
    return False


def has_children() -> bool:
    """Return whether this process has children, those included that wait to be waited for."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def survives_fork() -> bool:
    """Fork once; the copy ends at once. False if a handler of forks kept it from that.

    Threads that are made to end by a handler of forks are gone afterwards.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer versions warn of threads, which we ask about
        pid = os.fork()
    if pid == 0:
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


def _descriptors() -> frozenset[tuple[int, str]]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add((int(name), os.readlink(f"/proc/self/fd/{name}")))
        except OSError:  # that of the listing itself
            continue
    return frozenset(found)


def _signals() -> tuple[int, ...]:
    with open("/proc/self/status") as status:
        lines = [line for line in status if line.startswith(("SigBlk", "SigIgn", "SigCgt"))]
    return tuple(int(line.split()[1], 16) & ~_OF_C_LIBRARY for line in lines)


def _handlers() -> tuple[object, ...]:
    return tuple(map(signal.getsignal, sorted(signal.valid_signals())))


def _shared_maps() -> frozenset[str]:
    found = set()
    with open("/proc/self/maps", errors="surrogateescape") as maps:
        for line in maps:
            addresses, permissions = line.split(maxsplit=2)[:2]
            if permissions[1] == "w" and permissions[3] == "s":
                found.add(addresses)
    return frozenset(found)
