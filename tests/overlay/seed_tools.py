"""For programs of the tests: what stands behind the processes that they start.

        program --- seed --- fork server --- [successor ---] middle --- spare

The seed is a child of the program that wait() does not know; in its place may be the keeper of a
fork server that was executed. Imports little: children import it.
"""

import os
import signal
import sys
import time
from typing import Any, NamedTuple


class Family(NamedTuple):
    """The processes behind a program that serve it, by their pids; 0 and () for none."""

    seed: int
    server: int
    successor: int
    middles: tuple[int, ...]
    spares: tuple[int, ...]


def parents() -> dict[int, int]:
    """Of all processes but those that only wait to be waited for: pid -> pid of the parent."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] not in "ZX":
                found[int(name)] = int(fields[1])
    return found


def is_hidden(pid: int) -> bool:
    """Whether a child of this process is none that wait() knows."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


def below(pid: int, parent_of: dict[int, int]) -> list[int]:
    """Children of a process, the oldest first."""
    return sorted(child for child, parent in parent_of.items() if parent == pid)


def family() -> Family:
    """The processes behind this one as they are just now."""
    parent_of = parents()
    seeds = [pid for pid in below(os.getpid(), parent_of) if is_hidden(pid)]
    servers = [(server, seed) for seed in seeds for server in below(seed, parent_of)]
    if not servers:
        return Family(seeds[-1] if seeds else 0, 0, 0, (), ())
    (server, seed), successor = max(servers), 0
    for child in below(server, parent_of):
        if any(below(grandchild, parent_of) for grandchild in below(child, parent_of)):
            successor = child
    middles = below(successor or server, parent_of)
    spares = [spare for middle in middles for spare in below(middle, parent_of)]
    return Family(seed, server, successor, tuple(middles), tuple(spares))


def all_below(pid: int) -> set[int]:
    """All descendants of a process."""
    parent_of = parents()
    found: set[int] = set()
    new = [pid]
    while new:
        new = [child for parent in new for child in below(parent, parent_of)]
        found.update(new)
    return found


def settled(with_successor: bool = False, timeout_s: float = 15) -> Family:
    """The family once a spare waits, of the successor if there is to be one."""
    deadline = time.monotonic() + timeout_s
    while True:
        now = family()
        if now.spares and (now.successor or not with_successor):
            return now
        if time.monotonic() > deadline:
            raise TimeoutError(f"no spare: {now}")
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    return pid not in parents()


def wait_until(condition: Any, timeout_s: float = 10) -> bool:
    """Ask for the condition until it holds; False if it did not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def kill(*pids: int) -> None:
    """SIGKILL, and wait until they are dead."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: all(map(is_gone, pids)))


def has_no_children() -> bool:
    """Whether wait() knows of no child, dead or alive."""
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return True
    return False


def way() -> str:
    """How this process was made, as a child of start method "dragon"."""
    return "forked" if "fork_server" in " ".join(sys.orig_argv) else "executed"


def is_subreaper() -> bool:
    import ctypes

    answer = ctypes.c_int()
    ctypes.CDLL(None).prctl(37, ctypes.byref(answer), 0, 0, 0)  # PR_GET_CHILD_SUBREAPER
    return bool(answer.value)


# ---- what children run ----


def nothing() -> None:
    pass


def tell_way(results: Any) -> None:
    results.put((way(), os.getppid()))


def way_of_next(context: Any) -> str:
    """Start a process, see that it is a child in every respect; how it was made."""
    results = context.SimpleQueue()
    process = context.Process(target=tell_way, args=(results,))
    process.start()
    process.join(20)
    assert process.exitcode == 0, process.exitcode
    made, parent = results.get()
    assert parent == os.getpid()
    return str(made)
