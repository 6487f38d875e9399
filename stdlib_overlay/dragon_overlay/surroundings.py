"""What a process inherits from the one that starts it, beside memory and descriptors.

A process that is executed gets these from the kernel. One that a fork server makes on another's
behalf is given them: `read` says how the starter is now, `adopt` makes the caller so. What nobody
can give to another process (another user, a name space, a session) is in `fixed`: where it differs
from the fork server's, the fork server cannot stand in for the starter.
"""

from __future__ import annotations

import os
import resource
import signal
from typing import NamedTuple

import _dragon_launch

_LIMITS = tuple(sorted({getattr(resource, n) for n in dir(resource) if n.startswith("RLIMIT_")}))
_BADNESS = "/proc/self/oom_score_adj"
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid_for_children", "user", "uts")
_FIXED_STATUS = (
    b"Groups",
    b"CapInh",
    b"CapPrm",
    b"CapEff",
    b"CapBnd",
    b"CapAmb",
    b"NoNewPrivs",
    b"Seccomp",
    b"Seccomp_filters",
    b"Mems_allowed",
)
#: Signals that an executed Python sets up itself, whatever it inherits.
_SET_BY_PYTHON = frozenset((signal.SIGPIPE, signal.SIGXFSZ))
_UNCHANGEABLE = frozenset((signal.SIGKILL, signal.SIGSTOP, 32, 33))  # the last two: the C library's


class Surroundings(NamedTuple):
    """How a process is. A plain tuple of ints, bytes and tuples, so that `marshal` takes it."""

    umask: int
    blocked: int  #: signals blocked in the calling thread, one bit each, SIGHUP is bit 0
    ignored: int
    cores: bytes  #: affinity of the calling thread, as /proc shows it
    group: int
    nice: int
    limits: tuple[tuple[int, int], ...]
    badness: bytes  #: to the killer of processes when memory is short


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 65536)
    finally:
        os.close(fd)


def _status() -> dict[bytes, bytes]:
    text = _read("/proc/thread-self/status")
    return dict(line.split(b":\t", 1) for line in text.split(b"\n") if b":\t" in line)


def namespace(name: str) -> str:
    """Which name space of that kind the calling process has; "": a new one, without processes."""
    try:
        return os.readlink(f"/proc/self/ns/{name}")
    except FileNotFoundError:
        return ""


def read() -> tuple[Surroundings, tuple[object, ...]]:
    """How the calling process is: what can be given to another, and what is fixed."""
    status = _status()
    surroundings = Surroundings(
        umask=int(status[b"Umask"], 8),
        blocked=int(status[b"SigBlk"], 16),
        ignored=int(status[b"SigIgn"], 16),
        cores=status[b"Cpus_allowed"],
        group=os.getpgrp(),
        nice=os.getpriority(os.PRIO_PROCESS, 0),
        limits=tuple([resource.getrlimit(limit) for limit in _LIMITS]),
        badness=_read(_BADNESS),
    )
    root = os.stat("/")
    fixed = (
        [status.get(name) for name in _FIXED_STATUS],
        os.getresuid()[:2],  # an exec sets the third, the saved one, to the second
        os.getresgid()[:2],
        [namespace(name) for name in _NAMESPACES],
        (root.st_dev, root.st_ino),
        os.getsid(0),
        os.sched_getscheduler(0),
        resource.getrlimit(resource.RLIMIT_NPROC),  # of who forks, not of the child
    )
    return surroundings, fixed


def adopt(theirs: Surroundings, ours: Surroundings) -> None:
    """Make the calling process, which has one thread and is as `ours` says, like `theirs`.

    Signals come last: from then on they may interrupt.

    Raises:
        OSError: the kernel refuses something.
    """
    if theirs.umask != ours.umask:
        os.umask(theirs.umask)
    if theirs.group != ours.group:
        os.setpgid(0, theirs.group)
    if theirs.cores != ours.cores:
        os.sched_setaffinity(0, _cores_of(theirs.cores))
    if theirs.nice != ours.nice:
        os.setpriority(os.PRIO_PROCESS, 0, theirs.nice)
    if theirs.limits != ours.limits:
        for limit, value, old in zip(_LIMITS, theirs.limits, ours.limits, strict=True):
            if value != old:
                resource.setrlimit(limit, value)
    if theirs.badness != ours.badness:
        with open(_BADNESS, "wb") as file:
            file.write(theirs.badness)
    _adopt_ignored(theirs.ignored, ours.ignored)
    _dragon_launch.set_blocked_signals(theirs.blocked)


def _adopt_ignored(theirs: int, ours: int) -> None:
    for number in _signals_of(theirs ^ ours):
        if number in _SET_BY_PYTHON or number in _UNCHANGEABLE:
            continue
        if theirs >> (number - 1) & 1:
            signal.signal(number, signal.SIG_IGN)
        elif number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
        else:
            signal.signal(number, signal.SIG_DFL)


def _signals_of(mask: int) -> list[int]:
    return [number for number in range(1, 65) if mask >> (number - 1) & 1]


def _cores_of(mask: bytes) -> list[int]:
    bits = int(mask.replace(b",", b""), 16)
    return [core for core in range(bits.bit_length()) if bits >> core & 1]
