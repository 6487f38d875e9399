"""Processes that cannot be started for want of something: the error of spawn, and nothing leaks."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from overlay_support import Outcome, environment

Run = Callable[..., Outcome]

PROGRAM = """
import ctypes, errno, multiprocessing, multiprocessing.connection, os, resource, sys, time
from seed_tools import *
context = multiprocessing.get_context(sys.argv[1] if len(sys.argv) > 1 else "dragon")
def fds():
    return len(os.listdir("/proc/self/fd"))
def attempt():
    "Start a process: how it ended, or the number of the error."
    process = context.Process(target=nothing)
    try:
        process.start()
    except OSError as error:
        assert process not in multiprocessing.active_children()
        return errno.errorcode[error.errno]
    process.join(20)
    code = process.exitcode
    process.close()
    return code
def limit(kind, value):
    resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))
if __name__ == "__main__":
"""


def output(tools: Run, text: str, *words: str, **options: Any) -> str:
    done = tools(PROGRAM + text, *words, **options)
    assert (done.stderr, done.status) == ("", 0), done
    return done.stdout


EMFILE = """
    attempt()
    attempt()
    wait_until(lambda: fds() == fds())
    before = fds()
    highest = max(map(int, os.listdir("/proc/self/fd")))
    stock = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    limit(resource.RLIMIT_NOFILE, 256)
    held = []
    try:
        while True:
            held.append(os.dup(1))
    except OSError:
        pass
    results = []
    for n_free in range(30):
        results.append(attempt())
        assert not is_subreaper()
        os.close(held.pop())
    while held:
        os.close(held.pop())
    limit(resource.RLIMIT_NOFILE, stock)
    n = results.index(0)
    print(set(results[:n]), set(results[n:]), attempt())
    assert wait_until(lambda: fds() <= before + 1), (fds(), before)
    print(multiprocessing.active_children())
"""


def test_no_descriptor_at_each_step_is_emfile_and_leaks_none(tools: Run) -> None:
    ours = output(tools, EMFILE)
    assert ours == output(tools, EMFILE, "spawn")
    assert ours == "{'EMFILE'} {0} 0\n[]\n"


def test_no_descriptor_at_each_step_of_the_first_start(tools: Run) -> None:
    text = """
    limit(resource.RLIMIT_NOFILE, 256)
    held = []
    try:
        while True:
            held.append(os.dup(1))
    except OSError:
        pass
    results = []
    for n_free in range(30):
        pid = os.fork()
        if pid == 0:  # each starts its first process
            sys.stdout.flush()
            answer = attempt()
            os._exit({"EMFILE": 10, 0: 0}.get(answer, 20))
        results.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        os.close(held.pop())
    n = results.index(0)
    print(set(results[:n]), set(results[n:]))
    results = []
    for fd in held[len(held) - n - 3:]:
        os.close(fd)
    print(attempt())
"""
    assert output(tools, text) == "{10} {0}\n0\n"


# Limits of processes do not count for root. The node is made when multiprocessing is imported.
NOBODY = """
import os
os.setgroups([])
os.setresgid(60123, 60123, 60123)
os.setresuid(60123, 60123, 60123)
os.chdir("/")
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user without processes")
def test_no_process_left_is_eagain_and_leaks_nothing() -> None:
    text = (
        NOBODY
        + PROGRAM
        + """
    print(attempt(), attempt())
    before = fds()
    limit(resource.RLIMIT_NPROC, 1)
    print({attempt() for _ in range(5)}, is_subreaper(), multiprocessing.active_children())
    limit(resource.RLIMIT_NPROC, resource.getrlimit(resource.RLIMIT_NPROC)[1])
    print(attempt(), attempt())
    assert wait_until(lambda: fds() <= before + 1), (fds(), before)
"""
    )
    done = subprocess.run(
        [sys.executable, "-c", text],
        env=environment(PYTHONPATH=str(Path(__file__).parent)),
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("0 0\n{'EAGAIN'} False []\n0 0\n", "")


def test_no_memory_in_the_starter_is_an_error_and_leaks_nothing(tools: Run) -> None:
    text = """
    attempt(), attempt()
    before = fds()
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    stock = resource.getrlimit(resource.RLIMIT_AS)[0]
    found = set()
    for spare_bytes in range(0, 40 << 20, 4 << 20):
        limit(resource.RLIMIT_AS, size + spare_bytes)
        try:
            found.add(attempt())
        except MemoryError:
            found.add("MemoryError")
        limit(resource.RLIMIT_AS, stock)
    print(found - {0, 1, -6, -7, -11, "ENOMEM", "EAGAIN", "MemoryError"}, is_subreaper(), attempt())
    assert wait_until(lambda: fds() <= before + 1), (fds(), before)
"""
    done = tools(PROGRAM + text)  # a child that has no memory may say so
    assert (done.stdout, done.status) == ("set() False 0\n", 0), done


@pytest.mark.parametrize("size", [0, 4096])
def test_a_limit_of_file_size_does_not_prevent_a_start(tools: Run, size: int) -> None:
    text = f"""
    print(attempt())
    limit(resource.RLIMIT_FSIZE, {size})
    print(attempt(), attempt())
"""
    assert output(tools, text).splitlines()[0] == "0"


def test_a_deleted_working_folder_is_the_childrens_too(tools: Run) -> None:
    text = """
    folder = os.path.join(os.getcwd(), "folder")
    os.mkdir(folder)
    os.chdir(folder)
    print(attempt())
    os.rmdir(folder)
    print(attempt(), attempt())
"""
    ours, stock = (tools(PROGRAM + text, method) for method in ("dragon", "spawn"))
    assert (ours.stdout, ours.status) == (stock.stdout, stock.status)


@pytest.mark.parametrize("exists", [True, False])
def test_a_working_folder_that_cannot_be_entered_again(tools: Run, exists: bool) -> None:
    text = f"""
    os.mkdir("moved")
    os.chdir("moved")
    print(attempt())
    os.rename("../moved", "../elsewhere")
    if not {exists}:
        os.rmdir("../elsewhere")
    print(attempt())
"""
    ours, stock = (tools(PROGRAM + text, method) for method in ("dragon", "spawn"))
    assert (ours.stdout, ours.status) == (stock.stdout, stock.status)
