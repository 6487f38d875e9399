"""Running a program of the torture suite: what it ends with, and what it leaves."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import termios
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))

from pains import CTRL_C, KILL_GROUP, Pain  # noqa: E402
from whole_run import (  # noqa: E402
    kill_all,
    processes_of,
    shared_memory_names,
    wait_until_empty,
)

#: An exception's line at the end of a traceback.
_RAISED = re.compile(r"^(?:[A-Za-z_][\w.]*\.)?([A-Z]\w*)(?::|$)", re.MULTILINE)


class Ending(NamedTuple):
    """How a program ended."""

    #: "hangs", "raises X", "dies of SIGX", "exit status N", or what it has printed.
    end: str
    #: What was there some time after its end: "3 processes", "2 files", ...
    left: tuple[str, ...]
    stderr: str
    seconds: float

    def __str__(self) -> str:
        return ", ".join([self.end, *(f"leaves {what}" for what in self.left)])


class Runner(NamedTuple):
    """An interpreter and its start method."""

    command: tuple[str, ...]
    limit_s: float
    variables: dict[str, str]


def dragon(executable: str, limit_s: float = 30) -> Runner:
    """Programs under start method "dragon"."""
    return Runner((executable, "--start-method", "dragon"), limit_s, {})


def stock(executable: str, limit_s: float = 15) -> Runner:
    """Programs under the library's start method "spawn"."""
    folder = str(HERE / "programs" / "spawn_by_default")
    return Runner((executable,), limit_s, {"PYTHONPATH": folder})


def run(
    pain: Pain, runner: Runner, while_it_runs: Callable[[str, int], object] | None = None
) -> Ending:
    """Run a program to its end, or until its time is over. Nothing of it lives on.

    Args:
        pain: the program, and what is done to it.
        runner: what it runs under.
        while_it_runs: called with the program's tag (`processes_of`) and its pid, again and again,
            once it has printed "ready".
    """
    with tempfile.TemporaryDirectory(prefix="torture-", ignore_cleanup_errors=True) as folder:
        return _Run(pain, runner, Path(folder)).to_its_end(while_it_runs)


class _Run:
    """One run."""

    def __init__(self, pain: Pain, runner: Runner, folder: Path) -> None:
        self.pain = pain
        self.runner = runner
        self.tag = uuid.uuid4().hex
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.stderr = folder / "stderr"
        self.lines: list[str] = []
        self.memory = shared_memory_names()

    def to_its_end(self, while_it_runs: Callable[[str, int], object] | None) -> Ending:
        begin = time.monotonic()
        with contextlib.ExitStack() as stack:
            stack.callback(kill_all, self.tag)
            terminal = stack.enter_context(_terminal()) if self.pain.has_terminal else None
            program = self._start(terminal)
            stack.callback(program.wait)
            stack.callback(program.kill)
            assert program.stdout is not None
            stack.enter_context(program.stdout)
            has_ended = self._watch(program, terminal, while_it_runs)
            seconds = time.monotonic() - begin
            errors = self.stderr.read_text(errors="replace")
            end = self._end(program.returncode, errors) if has_ended else "hangs"
            left = tuple(self._left()) if has_ended else ()
        return Ending(end, left, errors, seconds)

    def _start(self, terminal: _Terminal | None) -> subprocess.Popen[bytes]:
        environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "DRAGON_", "PYTEST_"))
        }
        environ |= {
            "TEST_RUN": self.tag,
            "TMPDIR": str(self.temporary),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        program = HERE / "programs" / f"{self.pain.program}.py"
        with self.stderr.open("wb") as stderr:
            return subprocess.Popen(
                [*self.runner.command, str(program), *self.pain.words],
                cwd=self.temporary.parent,
                env=environ | self.runner.variables,
                stdin=terminal.slave if terminal else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                bufsize=0,
                start_new_session=True,
                preexec_fn=functools.partial(_begin, terminal),
            )

    def _watch(
        self,
        program: subprocess.Popen[bytes],
        terminal: _Terminal | None,
        while_it_runs: Callable[[str, int], object] | None,
    ) -> bool:
        """Read what the program prints and do what is to be done then. False: it has no end."""
        deadline = time.monotonic() + self.runner.limit_s
        events = list(self.pain.events)
        assert program.stdout is not None
        for line in _lines(program.stdout, program, deadline):
            self.lines.extend(line)
            if events and events[0][0] in self.lines:
                line_of_event, action = events.pop(0)
                del self.lines[: self.lines.index(line_of_event) + 1]
                _do(action, program.pid, terminal)
            if while_it_runs and "ready" in self.lines:
                while_it_runs(self.tag, program.pid)
        return program.poll() is not None

    def _end(self, status: int, errors: str) -> str:
        if status < 0:
            n = errors.count("Traceback (most recent call last)")
            is_noisy = self.pain.n_tracebacks not in (None, n)
            name = signal.Signals(-status).name
            return f"dies of {name}" + (f" with {_count(n, 'traceback', 'tracebacks')}" * is_noisy)
        if status == 0:
            return " ".join(line for line in self.lines if line != "ready")
        raised = [f"raises {name}" for name in _RAISED.findall(errors)]
        if status != 1 or not raised:
            return f"exit status {status}"
        # Exceptions of other processes may be told of in the text of this one's.
        return self.pain.end if self.pain.end in raised else raised[-1]

    def _left(self) -> Iterator[str]:
        if wait_until_empty(lambda: processes_of(self.tag)):
            yield _count(len(processes_of(self.tag)), "process", "processes")
        if wait_until_empty(self._files):
            yield _count(len(self._files()), "temporary file", "temporary files")
        if wait_until_empty(lambda: shared_memory_names() - self.memory):
            names = shared_memory_names() - self.memory
            yield _count(len(names), "name in /dev/shm", "names in /dev/shm")

    def _files(self) -> list[Path]:
        return list(self.temporary.rglob("*"))


def _begin(terminal: _Terminal | None) -> None:
    """In the program to be: what a shell does. This one may have been told to ignore these."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    if terminal is not None:
        terminal.become_controlling()


def _do(action: str, pid: int, terminal: _Terminal | None) -> None:
    """What is to be done to the program."""
    if action == CTRL_C:
        assert terminal is not None
        terminal.type(b"\x03")
    elif action == KILL_GROUP:
        os.killpg(pid, signal.SIGKILL)
    else:
        os.kill(pid, signal.Signals[action])


def _count(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"


def _lines(
    stdout: IO[bytes], program: subprocess.Popen[bytes], deadline: float
) -> Iterator[list[str]]:
    """What the program prints, as it comes, and [] now and then, until it ends.

    Not until the end of the pipe, which what it leaves behind may have.
    """
    rest = b""
    os.set_blocking(stdout.fileno(), False)
    has_ended = False
    while not has_ended and time.monotonic() < deadline:
        has_ended = program.poll() is not None  # what it has printed is in the pipe by now
        if not has_ended:
            select.select([stdout], [], [], 0.01)
        while part := stdout.read(65536):
            rest += part
        *lines, rest = rest.split(b"\n")
        yield [line.decode(errors="replace").strip() for line in lines]
        if part == b"" and not has_ended:
            time.sleep(0.01)  # it has closed its standard output


class _Terminal(NamedTuple):
    """A pseudo-terminal."""

    master: int
    slave: int

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self.master, keys)

    def become_controlling(self) -> None:
        """In a new session: the terminal is that session's."""
        fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)


@contextlib.contextmanager
def _terminal() -> Iterator[_Terminal]:
    terminal = _Terminal(*os.openpty())
    try:
        yield terminal
    finally:
        os.close(terminal.master)
        os.close(terminal.slave)
