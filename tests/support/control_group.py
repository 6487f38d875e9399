"""A control group with little memory, for tests of what happens at its limit."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


def own_memory_group() -> tuple[Path, str]:
    """The folder of the control group that limits this process's memory, and its file for that."""
    paths = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "memory" in controllers.split(","):
            paths["cgroup" if controllers else "cgroup2"] = path
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        root, point = before.split()[3:5]
        file = "memory.max" if kind == "cgroup2" else "memory.limit_in_bytes"
        if kind == "cgroup" and "memory" not in options.split(","):
            continue
        if kind in paths and root == "/" and Path(point + paths[kind], "cgroup.procs").exists():
            group = Path(point + paths[kind])
            offered = group / "cgroup.controllers"
            if kind == "cgroup" or "memory" in offered.read_text().split():
                return group, file
    raise FileNotFoundError("no control group for memory is mounted where this process can see it")


def in_group(group: Path) -> tuple[str, ...]:
    """The command before a command that is to run in the group."""
    return "sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"


def limit_memory(group: Path, file: str, size: int) -> None:
    """Set the limit of a new group. OSError: it has none to set, or no process may enter it."""
    if not (group / file).exists():
        # Ours would have to be empty for it (no processes in inner groups).
        raise FileNotFoundError(f"{group.parent} hands no control of memory on to groups below it")
    (group / file).write_text(str(size))
    entered = subprocess.run(
        [*in_group(group), "true"], capture_output=True, text=True, check=False
    )
    if entered.returncode != 0:
        raise PermissionError(entered.stderr.strip())


def remove(group: Path) -> None:
    """Remove it as soon as the last process is gone: helpers end a little after their program."""
    deadline = time.monotonic() + 5
    while (group / "cgroup.procs").read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    group.rmdir()


@contextlib.contextmanager
def group_of(size: int) -> Iterator[Path]:
    """A control group below our own with so much memory; skips, with the reason, without one."""
    try:
        parent, file = own_memory_group()
        group = parent / f"dragon-test-{os.getpid()}"
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made: {error}")
    try:
        try:
            limit_memory(group, file, size)
        except OSError as error:
            pytest.skip(f"no control group can be used: {error}")
        yield group
    finally:
        remove(group)


def n_killed_in(group: Path) -> int:
    """How many processes the kernel has killed because the group's memory was used up."""
    events = group / "memory.events"
    text = (events if events.exists() else group / "memory.oom_control").read_text()
    return int(dict(line.split() for line in text.splitlines())["oom_kill"])
