"""Whether the kernel has killed a process of this control group because memory ran out.

References: Documentation/admin-guide/cgroup-v2.rst (memory.events) and cgroup-v1/memory.rst
(memory.oom_control) of Linux.
"""

from __future__ import annotations

import os

_ROOT = "/sys/fs/cgroup"


def n_kills() -> int | None:
    """How often it has done so since the group was made; None: the system does not tell."""
    for group in _lines_of("/proc/self/cgroup"):
        _, controllers, path = group.split(":", 2)
        if controllers == "":
            file = os.path.join(_ROOT, path.lstrip("/"), "memory.events")
        elif "memory" in controllers.split(","):
            file = os.path.join(_ROOT, "memory", path.lstrip("/"), "memory.oom_control")
        else:
            continue
        count = _count_in(file)
        if count is not None:
            return count
    return None


def _count_in(file: str) -> int | None:
    lines = _lines_of(file)
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)


def _lines_of(file: str) -> list[str]:
    """Its lines; none where it cannot be read."""
    try:
        with open(file) as lines:  # `pathlib` would double the traceback of a Ctrl-C here
            return lines.read().splitlines()
    except OSError:
        return []
