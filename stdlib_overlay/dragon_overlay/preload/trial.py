"""The trial: whether modules may be imported in a server of forks, found out in a child of it.

The child, which is thrown away, imports one module after the other and reports on each what it left
in the process. It ends with the first module that is not safe, since the rest of its observations
would be about two modules. A guard in its import system ends it too, before any code has run, when
an import comes to a module that is excluded or is the program's own.

The child is in a process group of its own, which is killed in the end with whatever an import
started. Should this process be killed meanwhile, an alarm ends the child.
"""

from __future__ import annotations

import importlib
import io
import os
import pickle
import select
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from importlib.machinery import ModuleSpec
from typing import Any, BinaryIO, NamedTuple

from dragon_overlay.preload import state, traces
from dragon_overlay.preload.places import place_of
from dragon_overlay.preload.rules import SURVIVE_FORK, why_excluded


class Verdict(NamedTuple):
    """What the trial says of one module.

    Attributes:
        name: the module.
        reason: why it is left to the children; "" if it is safe.
        marks: see `state.marks`, of the modules that came with it.
    """

    name: str
    reason: str
    marks: dict[str, int]


def try_out(
    names: Sequence[str], excluded: Callable[[str], str] = why_excluded, limit_s: float = 30.0
) -> list[Verdict]:
    """Try to import modules in a child. Blocks until that has ended, or been killed.

    Args:
        names: at least one; not yet imported here.
        excluded: says why a module must not be imported, also not by another; "" if it may.
        limit_s: how long one import may take.

    Returns:
        Verdicts of the first of the names, in their order: safe ones, and then the first that is
        not, if there is one.
    """
    read_end, write_end = os.pipe()
    with open(read_end, "rb", buffering=0) as reports:
        with open(write_end, "wb", buffering=0):
            pid = os.fork()
            if pid == 0:
                _child(names, excluded, write_end, limit_s)
        data, end = _collect(pid, reports, limit_s)
    verdicts = _unpack(data)
    if len(verdicts) < len(names) and not (verdicts and verdicts[-1].reason):
        verdicts.append(Verdict(names[len(verdicts)], end, {}))
    return verdicts


def import_as_main_does(name: str) -> None:
    """Import a module, unless its package has something else of that name.

    ``from package import name`` means that other thing, and importing the module would replace it.
    """
    package, _, last = name.rpartition(".")
    if package and hasattr(importlib.import_module(package), last):
        return
    importlib.import_module(name)


# ---- in this process ---------------------------------------------------------------------------


def _collect(pid: int, reports: BinaryIO, limit_s: float) -> tuple[bytes, str]:
    """Read until the child has ended, or was silent for too long. All it wrote; how it ended."""
    data, is_late = b"", True
    os.set_blocking(reports.fileno(), False)
    try:
        data, is_late = _read_while_alive(pid, reports, limit_s)
    finally:
        status = _end(pid)
    if is_late:
        return data, f"importing it takes more than {limit_s:g} s"
    return data, f"importing it ends the process (status {status})"


def _read_while_alive(pid: int, reports: BinaryIO, limit_s: float) -> tuple[bytes, bool]:
    data = b""
    with open(os.pidfd_open(pid), "rb", buffering=0) as life:
        poll = select.poll()
        poll.register(reports, select.POLLIN)
        poll.register(life, select.POLLIN)
        while True:
            ready = dict(poll.poll(limit_s * 1000))
            data += reports.read() or b""
            if life.fileno() in ready or not ready:
                return data, not ready
            if ready[reports.fileno()] & select.POLLHUP:  # an import closed the other end
                poll.unregister(reports)


def _end(pid: int) -> int:
    """Kill what is left of the child's group, and reap the child."""
    for kill in (os.killpg, os.kill):  # there is no group yet if it was very slow
        with suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _unpack(data: bytes) -> list[Verdict]:
    stream, verdicts = io.BytesIO(data), []
    while True:
        try:
            verdicts.append(Verdict(*pickle.load(stream)))
        except (EOFError, pickle.UnpicklingError):  # the end, or cut off by a sudden one
            return verdicts


# ---- in the child ------------------------------------------------------------------------------


def _child(
    names: Sequence[str], excluded: Callable[[str], str], write_end: int, limit_s: float
) -> None:
    """Report on the names until one is not safe. Never returns."""
    status = 1
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
        _Trial(excluded, write_end, limit_s).run(names)
        status = 0
    finally:
        os._exit(status)


class _Trial:
    """The child's work."""

    def __init__(self, excluded: Callable[[str], str], write_end: int, limit_s: float) -> None:
        self._write_end = write_end
        self._pipe = os.fstat(write_end)
        self._limit_s = limit_s
        self._output = Output()
        self._guard = Guard(excluded, self._refuse)
        self._name = ""
        sys.meta_path.insert(0, self._guard)

    def run(self, names: Sequence[str]) -> None:
        """Try the names, one after the other, and report, until one is not safe."""
        for name in names:
            self._name = name
            signal.setitimer(signal.ITIMER_REAL, self._limit_s + 1)
            known = set(sys.modules)
            reason = self._try(name, known)
            self._report(reason, {} if reason else state.marks(set(sys.modules) - known))
            if reason:
                return

    def _try(self, name: str, known: Collection[str]) -> str:
        self._guard.begin(name)
        before, threads, n_written = traces.look(), traces.n_threads(), self._output.n_bytes()
        try:
            import_as_main_does(name)
        except BaseException as error:  # noqa: BLE001  # also SystemExit: the child will see it
            return f"importing it raises {type(error).__name__}"
        new = set(sys.modules).difference(known)
        if not new:
            return ""
        reason = reason_of_threads(threads, new) or traces.difference(before, traces.look())
        if reason:
            return reason
        if traces.has_children():
            return "it starts a process"
        return "it writes to standard output or error" if self._output.n_bytes() > n_written else ""

    def _refuse(self, reason: str) -> None:
        self._report(reason, {})
        os._exit(0)

    def _report(self, reason: str, marks: dict[str, int]) -> None:
        if not os.path.samestat(self._pipe, os.fstat(self._write_end)):
            os._exit(1)  # the import has closed the pipe, and something else has its number
        data = pickle.dumps((self._name, reason, marks))
        while data:
            data = data[os.write(self._write_end, data) :]


def reason_of_threads(before: int, new_modules: Collection[str]) -> str:
    """Say what the import's threads, or its handlers of forks, have against a fork."""
    may_start = any(name.partition(".")[0] in SURVIVE_FORK for name in new_modules)
    if not may_start and traces.has_more_threads(before):
        return "it starts a thread"
    if not traces.survives_fork():
        return "it keeps the process from being forked"
    return "it starts a thread" if traces.has_more_threads(before) else ""


class Output:
    """Standard output and error, caught where their size can be asked for; input is empty."""

    def __init__(self) -> None:
        self._file = os.memfd_create("dragon trial")
        self._before = [os.dup(number) for number in (0, 1, 2)]
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        os.dup2(self._file, 1)
        os.dup2(self._file, 2)

    def n_bytes(self) -> int:
        """How much has been written."""
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
        return os.fstat(self._file).st_size

    def stop(self) -> None:
        """Have all three lead where they led before."""
        for number, fd in enumerate(self._before):
            os.dup2(fd, number)
            os.close(fd)
        os.close(self._file)


class Guard:
    """First entry of ``sys.meta_path``: finds as those after it do; some modules do not load."""

    def __init__(self, excluded: Callable[[str], str], refuse: Callable[[str], None]) -> None:
        self._excluded = excluded
        self._refuse = refuse
        self._may_be_own = False

    def begin(self, name: str) -> None:
        """Before a module is tried: one that is named may be the program's own, with all others."""
        spec = self._ask(name.partition(".")[0], None, None)
        self._may_be_own = spec is not None and not place_of(spec).is_library

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        spec = self._ask(name, path, target)
        if spec is not None:
            reason = self._excluded(name) or ("" if self._may_be_own else _own(spec))
            if reason:
                spec.loader = _Refusal(lambda: self._refuse(f"it imports {name}: {reason}"))  # type: ignore[assignment]
        return spec

    def _ask(self, name: str, path: Any, target: Any) -> ModuleSpec | None:
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            find_spec = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find_spec(name, path, target) if find_spec else None
            if spec is not None:
                return spec
        return None


def _own(spec: ModuleSpec) -> str:
    place = place_of(spec)
    # A namespace without a file, perhaps of the library and the program together, runs no code.
    return "" if place.is_library or not place.file else "it is the program's own"


class _Refusal:
    """Loader that ends the trial instead of loading."""

    def __init__(self, refuse: Callable[[], None]) -> None:
        self._refuse = refuse

    def create_module(self, spec: ModuleSpec) -> None:
        self._refuse()

    def exec_module(self, module: object) -> None:
        self._refuse()
