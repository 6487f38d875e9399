"""What the starter has changed since its fork server was made: its children are as under spawn."""

import multiprocessing
import os
import re
import resource
import signal
import sys
from collections.abc import Callable
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import pytest
from overlay_support import Outcome
from seed_children import put_facts
from seed_tools import way_of_next

Run = Callable[..., Outcome]
Undo = Callable[[], Any]
Change = Callable[[], Undo]


def facts_under(method: str) -> tuple[str, dict[str, Any]]:
    context = multiprocessing.get_context(method)
    results = context.SimpleQueue()
    process = context.Process(target=put_facts, args=(results,))
    process.start()
    made, facts = results.get()
    process.join()
    assert process.exitcode == 0
    return made, facts


def differences(ours: dict[str, Any], stock: dict[str, Any]) -> dict[str, Any]:
    return {name: (ours[name], stock[name]) for name in ours if ours[name] != stock[name]}


def limit(name: str, value: int) -> Undo:
    before = resource.getrlimit(getattr(resource, name))
    resource.setrlimit(getattr(resource, name), (value, before[1]))
    return lambda: resource.setrlimit(getattr(resource, name), before)


def umask(value: int) -> Undo:
    before = os.umask(value)
    return lambda: os.umask(before)


def blocked(*numbers: int) -> Undo:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    return lambda: signal.pthread_sigmask(signal.SIG_SETMASK, before)


def disposition(number: int, action: Any) -> Undo:
    before = signal.signal(number, action)
    return lambda: signal.signal(number, before)


def one_core() -> Undo:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    return lambda: os.sched_setaffinity(0, before)


def nicer(by: int) -> Undo:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, before + by)
    return lambda: os.setpriority(os.PRIO_PROCESS, 0, before)


def another_group() -> Undo:
    before = os.getpgrp()
    os.setpgid(0, 0)
    return lambda: os.setpgid(0, before)


def variable(name: str, value: str | None, by_putenv: bool = False) -> Undo:
    before = os.environ.get(name)
    if by_putenv:
        os.putenv(name, value or "")
    elif value is None:
        del os.environ[name]
    else:
        os.environ[name] = value

    def undo() -> None:
        if before is None:
            os.environ.pop(name, None)
            os.unsetenv(name)
        else:
            os.environ[name] = before

    return undo


def folder(path: str) -> Undo:
    before = os.getcwd()
    os.chdir(path)
    return lambda: os.chdir(before)


def path_entry(entry: str) -> Undo:
    sys.path.insert(1, entry)
    return lambda: sys.path.remove(entry)


def words(*argv: str) -> Undo:
    before = sys.argv
    sys.argv = [*argv]
    return lambda: setattr(sys, "argv", before)


def redirected(fd: int, make: Callable[[], int]) -> Undo:
    kept, other = os.dup(fd), make()
    os.dup2(other, fd)

    def undo() -> None:
        os.dup2(kept, fd)
        os.close(kept)
        os.close(other)

    return undo


def end_of_pipe(number: int) -> int:
    ends = os.pipe()
    os.close(ends[1 - number])
    return ends[number]


def without(fd: int) -> Undo:
    kept = os.dup(fd)
    os.close(fd)

    def undo() -> None:
        os.dup2(kept, fd)
        os.close(kept)

    return undo


CHANGES: dict[str, Change] = {
    "nothing": lambda: variable("OVERLAY_TEST", "the same"),
    "umask": lambda: umask(0o027),
    "a lower soft limit": lambda: limit("RLIMIT_CORE", 0),
    "a limit of processor time": lambda: limit("RLIMIT_CPU", 3600),
    "a limit of descriptors": lambda: limit("RLIMIT_NOFILE", 200),
    "a stack limit": lambda: limit("RLIMIT_STACK", 4 << 20),
    "blocked signals": lambda: blocked(signal.SIGUSR1, signal.SIGCHLD, signal.SIGTERM),
    "blocked real-time signals": lambda: blocked(signal.SIGRTMIN, signal.SIGRTMAX),
    "an ignored signal": lambda: disposition(signal.SIGUSR2, signal.SIG_IGN),
    "an ignored SIGINT": lambda: disposition(signal.SIGINT, signal.SIG_IGN),
    "an ignored SIGCHLD": lambda: disposition(signal.SIGHUP, signal.SIG_IGN),
    "a default SIGPIPE": lambda: disposition(signal.SIGPIPE, signal.SIG_DFL),
    "a handler": lambda: disposition(signal.SIGUSR1, lambda number, frame: None),
    "affinity": one_core,
    "nice": lambda: nicer(3),
    "process group": another_group,
    "folder": lambda: folder("/proc"),
    "an added variable": lambda: variable("OVERLAY_TEST", "added ✓"),
    "an empty variable": lambda: variable("OVERLAY_TEST", ""),
    "a changed variable": lambda: variable("HOME", "/nowhere"),
    "a removed variable": lambda: variable("PATH", None),
    "a variable by putenv": lambda: variable("OVERLAY_PUT", "put", by_putenv=True),
    "a variable read at start": lambda: variable("PYTHONHASHSEED", "7"),
    "a locale": lambda: variable("LC_ALL", "POSIX"),
    "a time zone": lambda: variable("TZ", "UTC+7"),
    "a temporary folder": lambda: variable("TMPDIR", "/var/tmp"),
    "sys.path": lambda: path_entry("/added/by/the/test"),
    "sys.argv": lambda: words("other", "words"),
    "standard input": lambda: redirected(0, lambda: os.open("/dev/zero", os.O_RDONLY)),
    "standard output to a pipe": lambda: redirected(1, lambda: end_of_pipe(1)),
    "standard error to a file": lambda: redirected(2, lambda: os.open("/dev/null", os.O_RDWR)),
    "badness": lambda: badness(500),
}


def badness(value: int) -> Undo:
    file = Path("/proc/self/oom_score_adj")
    before = file.read_text()
    file.write_text(str(value))
    return lambda: file.write_text(before)


@pytest.mark.parametrize("change", CHANGES)
def test_a_child_is_as_spawn_makes_it_after_a_change_of(dragon: BaseContext, change: str) -> None:
    way_of_next(dragon)
    undo = CHANGES[change]()
    try:
        made, ours = facts_under("dragon")
        _, stock = facts_under("spawn")
    finally:
        undo()
    assert differences(ours, stock) == {}
    assert made == "forked"


def test_after_a_change_is_taken_back_children_are_as_before(dragon: BaseContext) -> None:
    _, before = facts_under("dragon")
    for change in ("umask", "blocked signals", "an ignored SIGINT", "standard input", "folder"):
        undo = CHANGES[change]()
        facts_under("dragon")
        undo()
    _, after = facts_under("dragon")
    assert differences(after, before) == {}


@pytest.mark.parametrize("fd", [0, 2])
def test_a_standard_descriptor_closed_after_the_first_start_is_closed_in_children(
    dragon: BaseContext, fd: int
) -> None:
    # Its number may be another descriptor's there, as under spawn.
    way_of_next(dragon)
    undo = without(fd)
    try:
        _, facts = facts_under("dragon")
    finally:
        undo()
    assert [number for number in range(3) if facts["streams"][number] is None] == [fd]


FIXED = """
import multiprocessing, os, sys
from seed_children import facts
from seed_tools import way_of_next
def put_facts(results):
    found = facts()
    results.put({{name: found[name] for name in ("status", "scheduler", "session", "group")}}
        | {{"spaces": [os.readlink("/proc/self/ns/" + name) for name in ("uts", "net", "mnt")]}})
if __name__ == "__main__":
    found = []
    way_of_next(multiprocessing.get_context("dragon"))
    {change}
    for method in ("dragon", "dragon", "dragon", "spawn"):
        context = multiprocessing.get_context(method)
        results = context.SimpleQueue()
        process = context.Process(target=put_facts, args=(results,))
        process.start()
        found.append(results.get())
        process.join()
    print(found[:3] == [found[3]] * 3, found if found[:3] != [found[3]] * 3 else "")
"""


@pytest.mark.parametrize(
    "change",
    [
        "os.setsid()",
        "os.setgroups([12345])",
        "os.setresgid(65534, 65534, 0)",
        "os.setresgid(-1, 65534, -1)",
        "os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))",
        "import ctypes; ctypes.CDLL(None).unshare(0x4000000)",  # CLONE_NEWUTS
        "import ctypes; ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)",  # PR_SET_NO_NEW_PRIVS
    ],
)
def test_what_nobody_can_give_to_a_child_it_inherits_nevertheless(tools: Run, change: str) -> None:
    done = tools(FIXED.format(change=change))
    assert (done.stdout, done.status) == ("True \n", 0)
    # That children are executed, if they must be, is said once.
    assert re.fullmatch(r"(dragon: .*\n)?", done.stderr), done


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make name spaces everywhere")
def test_children_in_another_name_space_of_pids_are_refused(tools: Run) -> None:
    text = """
import ctypes, multiprocessing
if __name__ == "__main__":
    context = multiprocessing.get_context("dragon")
    if ctypes.CDLL(None).unshare(0x20000000):  # CLONE_NEWPID
        print("refused here")
    else:
        context.Process(target=print).start()
"""
    done = tools(text)
    if done.stdout == "refused here\n":
        pytest.skip("this machine refuses new name spaces of pids")
    assert done.status == 1
    assert "RuntimeError: this process has called unshare(CLONE_NEWPID)" in done.stderr


def test_a_standard_stream_closed_in_python_only_is_open_in_children(tools: Run) -> None:
    text = """
import multiprocessing, os, sys
from seed_children import kind_of
def put_kind(results):
    results.put((kind_of(1), sys.stdout is None))
if __name__ == "__main__":
    for method in ("dragon", "spawn"):
        context = multiprocessing.get_context(method)
        results = context.SimpleQueue()
        process = context.Process(target=put_kind, args=(results,))
        stdout, sys.stdout = sys.stdout, None
        process.start()
        sys.stdout = stdout
        print(results.get() == (kind_of(1), False))
        process.join()
"""
    assert tools(text) == ("True\nTrue\n", "", 0)
