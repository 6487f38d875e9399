"""Whether the kernel has killed a process of this control group because memory ran out.

References: Documentation/admin-guide/cgroup-v2.rst (memory.events) and cgroup-v1/memory.rst
(memory.oom_control) of Linux.
"""

from __future__ import annotations

from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


def n_kills() -> int | None:
    """How often it has done so since the group was made; None: the system does not tell."""
    try:
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for group in groups:
        _, controllers, path = group.split(":", 2)
        if controllers == "":
            file = _ROOT / path.lstrip("/") / "memory.events"
        elif "memory" in controllers.split(","):
            file = _ROOT / "memory" / path.lstrip("/") / "memory.oom_control"
        else:
            continue
        count = _count_in(file)
        if count is not None:
            return count
    return None


def _count_in(file: Path) -> int | None:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)
