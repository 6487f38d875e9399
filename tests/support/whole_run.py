"""Running a program to its end, and looking at what it leaves behind."""

import contextlib
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

END_LIMIT_S = 3  # the last process may end this long after the program


def shared_memory_names() -> set[str]:
    """Return the names now in /dev/shm."""
    return set(os.listdir("/dev/shm"))


def processes_of(tag: str) -> list[int]:
    """Return the living processes that inherited TEST_RUN=tag in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"TEST_RUN={tag}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:  # ended meanwhile, or another user's
            continue
    return found


def kill_all(tag: str) -> None:
    """Kill what is left of a run, also what that starts meanwhile."""
    while pids := processes_of(tag):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def wait_until_empty(remaining: Callable[[], object]) -> object:
    """Ask remaining() until it returns something empty or END_LIMIT_S passes; return it."""
    deadline = time.monotonic() + END_LIMIT_S
    while (left := remaining()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def run_whole(
    command: Sequence[str | Path], environ: Mapping[str, str], limit_s: float
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; fail if it leaves a process. Nothing of it lives on.

    Args:
        command: the program and its arguments.
        environ: its whole environment.
        limit_s: how long it may take.
    """
    tag = uuid.uuid4().hex
    try:
        done = subprocess.run(
            command,
            env={"TEST_RUN": tag, **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit_s,
        )
        assert not wait_until_empty(lambda: processes_of(tag)), "processes are left"
    finally:
        kill_all(tag)
    return done
