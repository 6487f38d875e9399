"""How the overlay's tests run programs and look at processes and memory."""

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import _dragon

TIMEOUT_S = 25
#: How long processes may take to be gone after the head was killed.
GONE_S = 5


class Outcome(NamedTuple):
    """What a run left behind; status negative: the signal it died of."""

    stdout: str
    stderr: str
    status: int


def environment(**changes: str) -> dict[str, str]:
    """The environment without what changes a Python's behaviour, plus changes."""
    names = ("PYTHON", "DRAGON_", "PYTEST_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    return kept | {"PYTHONDONTWRITEBYTECODE": "1"} | changes


def write_script(folder: Path, text: str) -> Path:
    """A file with the program in it."""
    path = folder / "program.py"
    path.write_text(text)
    return path


def run_script(
    text: str,
    *words: str,
    folder: Path,
    options: Iterable[str] = (),
    env: dict[str, str] | None = None,
    **more: object,
) -> Outcome:
    """Run a program to its end. options: dragon's and Python's; words: the program's."""
    done = subprocess.run(
        [sys.executable, *options, str(write_script(folder, text)), *words],
        cwd=folder,
        env=environment(**(env or {})),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        **more,  # type: ignore[call-overload]
    )
    return Outcome(done.stdout, done.stderr, done.returncode)


def state_of(pid: int) -> str:
    """The letter of /proc/PID/stat: "R", "S", "T" (stopped), "Z"; "X" if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return "X"
    return stat.rpartition(")")[2].split()[0]


def is_alive(pid: int) -> bool:
    """True if the process runs; one that only waits to be waited for does not."""
    return state_of(pid) not in "ZX"


def until(condition: Callable[[], bool], timeout_s: float = GONE_S) -> bool:
    """Ask for the condition until it holds; False if it did not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def all_gone(pids: Iterable[int]) -> bool:
    """Wait until none of the processes runs; kills what is left, and is False then."""
    pids = list(pids)
    gone = until(lambda: not any(map(is_alive, pids)))
    for pid in filter(is_alive, pids):
        os.kill(pid, 9)
    return gone


def n_blocks() -> int:
    """Blocks of the default pool that are in use, after what is garbage is gone."""
    gc.collect()
    return int(_dragon.pool_statistics()["n_blocks"])


def is_asleep(thread: threading.Thread) -> bool:
    """True if the thread is in a system call that blocks."""
    with open(f"/proc/self/task/{thread.native_id}/syscall") as file:
        return not file.read().startswith("running")
