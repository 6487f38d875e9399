"""Children that the seed's fork server made are children in every respect, and clean."""

import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import pytest
from children import wait_on
from overlay_support import Outcome, until
from seed_children import put_descriptors, put_draws, sum_of_files
from seed_tools import is_subreaper, way_of_next

Run = Callable[..., Outcome]

#: A program's beginning. Nothing but the program's children is waited for: it has no resource
#: tracker, which is a child that the standard library starts on its own.
PROGRAM = """
import multiprocessing, os, signal, sys, threading, time
from multiprocessing import resource_tracker
from seed_tools import *
context = multiprocessing.get_context(sys.argv[1] if len(sys.argv) > 1 else "dragon")
def end(code):
    os.kill(os.getpid(), -code) if code < 0 else os._exit(code)
def started(target, *args):
    process = context.Process(target=target, args=args)
    process.start()
    return process
def status_of(result):
    return result[0], os.waitstatus_to_exitcode(result[1])
if __name__ == "__main__":
    resource_tracker.ensure_running()
    tracker = resource_tracker._resource_tracker._pid
"""


def output(tools: Run, text: str, *words: str, **options: Any) -> str:
    """What the program prints, which must end well."""
    done = tools(PROGRAM + text, *words, **options)
    assert (done.stderr, done.status) == ("", 0), done
    return done.stdout


# ---- wait() -------------------------------------------------------------------------------------


def test_wait_knows_neither_seed_nor_fork_server_nor_spares(tools: Run) -> None:
    text = """
    assert family().seed
    os.kill(tracker, signal.SIGKILL)
    os.waitpid(tracker, 0)
    print(has_no_children())
    resource_tracker._resource_tracker._fd = os.open("/dev/null", os.O_WRONLY)
    resource_tracker._resource_tracker._check_alive = lambda: True
    resource_tracker._resource_tracker._pid = os.getpid()
    process = started(end, 4)
    print(status_of(os.wait()) == (process.pid, 4))
    settled()
    print(has_no_children())
    for wait in (lambda: os.waitpid(-1, 0), lambda: os.waitpid(0, 0), os.wait,
                 lambda: os.waitid(os.P_ALL, 0, os.WEXITED)):
        try:
            wait()
        except ChildProcessError:
            print("none")
    os._exit(0)
"""
    expected = "True\nTrue\nTrue\n" + "none\n" * 4
    assert output(tools, "    sys.stdout.reconfigure(line_buffering=True)" + text) == expected


@pytest.mark.parametrize("code", [0, 5, 255, -signal.SIGKILL, -signal.SIGUSR1, -signal.SIGSEGV])
def test_wait_returns_the_status_of_a_child(tools: Run, code: int) -> None:
    text = f"""
    for _ in range(3):
        process = started(end, {code})
        print(status_of(os.waitpid(process.pid, 0)) == (process.pid, {code}), process.exitcode)
"""
    assert output(tools, text, "dragon") == output(tools, text, "spawn") == "True None\n" * 3


def test_waitid_tells_what_kind_of_end_it_was(tools: Run) -> None:
    text = """
    for code in (3, -9, -11):
        process = started(end, code)
        end_of = os.waitid(os.P_PID, process.pid, os.WEXITED)
        print(end_of.si_pid == process.pid, end_of.si_signo, end_of.si_code, end_of.si_status)
        process = started(time.sleep, 60)
        os.kill(process.pid, signal.SIGSTOP)
        print(os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1]))
        os.kill(process.pid, signal.SIGCONT)
        print(os.WIFCONTINUED(os.waitpid(process.pid, os.WCONTINUED)[1]))
        process.kill()
        process.join()
"""
    assert output(tools, text, "dragon") == output(tools, text, "spawn")


def test_sigchld_comes_once_for_each_child_and_never_for_the_seed(tools: Run) -> None:
    # One child at a time: the kernel merges signals that are pending.
    text = """
    seen = []
    signal.signal(signal.SIGCHLD, lambda number, frame: seen.append(number))
    for n in range(1, 21):
        process = started(end, n)
        process.join()
        assert process.exitcode == n
        assert wait_until(lambda: len(seen) >= n)
        assert len(seen) == n, (n, seen)
    settled()
    for pid in (*family().spares, family().server, family().seed):
        kill(pid)
    time.sleep(0.2)
    print(len(seen))
"""
    assert output(tools, text) == "20\n"


def test_sigchld_says_who_ended_and_how(tools: Run) -> None:
    text = """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    for code in (0, 3, -9):
        process = started(end, code)
        info = signal.sigwaitinfo({signal.SIGCHLD})
        print(info.si_pid == process.pid, info.si_code, info.si_status)
        process.join()
    print(signal.sigtimedwait({signal.SIGCHLD}, 0.1))
"""
    assert output(tools, text, "dragon") == output(tools, text, "spawn")


@pytest.mark.parametrize("wait", ["os.wait()", "os.waitpid(-1, 0)"])
def test_a_handler_of_sigchld_may_wait(tools: Run, wait: str) -> None:
    text = f"""
    ended = {{}}
    def reap(number, frame):
        ended.update([status_of({wait})])
    settled() if started(end, 0).join() is None and sys.argv[1] == "dragon" else None
    signal.signal(signal.SIGCHLD, reap)
    for code in (3, -9, 0):
        process = started(end, code)
        assert wait_until(lambda: process.pid in ended)
        process.join()
        print(ended.pop(process.pid), process.exitcode, process.is_alive(), ended)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
"""
    ours, stock = (output(tools, text, method) for method in ("dragon", "spawn"))
    assert ours == stock


def test_a_handler_that_reaps_all_that_ended_may_run_while_processes_start(tools: Run) -> None:
    # A start looks for ended children, too, and may be the one to find one.
    text = """
    ended = {}
    def reap(number, frame):
        try:
            while (result := os.waitpid(-1, os.WNOHANG))[0]:
                ended[result[0]] = os.waitstatus_to_exitcode(result[1])
        except ChildProcessError:
            pass
    signal.signal(signal.SIGCHLD, reap)
    codes = [7, 0, 1] * 10
    processes = [started(end, code) for code in codes]
    def code_of(process):
        return ended.get(process.pid, process._popen.returncode)
    assert wait_until(lambda: None not in map(code_of, processes))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    print(list(map(code_of, processes)) == codes, len(ended) > 15)
    os._exit(0 if not sys.stdout.flush() else 1)
"""
    assert output(tools, text) == "True True\n"


def test_ignored_sigchld_makes_children_vanish_as_under_spawn(tools: Run) -> None:
    text = """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for code in (0, 4):
        process = started(end, code)
        process.join()
        print(process.exitcode, is_gone(process.pid))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    process = started(end, 4)
    process.join()
    print(process.exitcode)
"""
    assert output(tools, text, "dragon") == output(tools, text, "spawn")


# ---- threads ------------------------------------------------------------------------------------


def test_a_child_started_by_a_thread_outlives_the_thread(dragon: BaseContext) -> None:
    gate, started = dragon.Event(), []

    def start() -> None:
        started.append(dragon.Process(target=wait_on, args=(gate,)))
        started[0].start()

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert not until(lambda: not started[0].is_alive(), 0.1)
    gate.set()
    started[0].join()
    assert started[0].exitcode == 0


def test_twenty_threads_start_five_processes_each(tools: Run) -> None:
    text = """
    made, parents = context.SimpleQueue(), []
    def start():
        for code in range(5):
            process = started(tell_way, made)
            process.join()
            parents.append(process.exitcode)
    threads = [threading.Thread(target=start) for _ in range(20)]
    for thread in threads:
        thread.start()
    told = [made.get() for _ in range(100)]
    for thread in threads:
        thread.join()
    print(parents == [0] * 100, {parent for _, parent in told} == {os.getpid()}, is_subreaper())
    print([made for made, _ in told].count("forked"))
"""
    assert output(tools, text) == "True True False\n100\n"


def test_who_joins_learns_the_exit_code_of_a_child_that_another_thread_is_reaping(
    tools: Run,
) -> None:
    text = """
    process = started(end, 5)
    is_reaped, reap, learnt = threading.Event(), os.waitpid, []
    def reap_slowly(pid, options):
        result = reap(pid, options)
        if result[0]:
            is_reaped.set()
            time.sleep(0.2)
        return result
    def join():
        is_reaped.wait()
        process.join()
        learnt.append(process.exitcode)
    threads = [threading.Thread(target=join) for _ in range(3)]
    for thread in threads:
        thread.start()
    os.waitpid = reap_slowly
    while multiprocessing.active_children():
        pass
    for thread in threads:
        thread.join()
    print(learnt)
"""
    assert output(tools, text) == "[5, 5, 5]\n"


def test_threads_that_run_and_hold_locks_before_the_start_do_no_harm(tools: Run) -> None:
    text = """
    import logging
    stop, lock = threading.Event(), threading.Lock()
    def busy():
        while not stop.is_set():
            logging.getLogger().isEnabledFor(10)
            os.stat("/")
    def hold():
        with logging._lock, lock:
            stop.wait()
    threads = [threading.Thread(target=target) for target in (busy, busy, hold)]
    for thread in threads:
        thread.start()
    print([way_of_next(context) for _ in range(10)] == ["forked"] * 10)
    stop.set()
"""
    assert output(tools, text) == "True\n"


def test_a_spare_has_copied_what_children_write_before_it_is_one(tools: Run) -> None:
    text = """
    def own_kib(pid):
        with open(f"/proc/{pid}/smaps_rollup") as file:
            return sum(int(line.split()[1]) for line in file if line.startswith("Private_Dirty"))
    before = own_kib(settled().spares[0])
    def after():
        way_of_next(context)  # the first child says what it wrote, perhaps after the next fork
        return own_kib(settled().spares[0])
    print(wait_until(lambda: before + 500 < after() < before + 4096 + 500))
"""
    assert output(tools, text) == "True\n"


# ---- the starter's state ------------------------------------------------------------------------


@pytest.mark.parametrize("was", [0, 1])
def test_the_subreaper_flag_is_as_it_was_after_a_start(tools: Run, was: int) -> None:
    text = f"""
    import ctypes
    ctypes.CDLL(None).prctl(36, {was}, 0, 0, 0)
    flags = [is_subreaper()]
    way_of_next(context)
    flags.append(is_subreaper())
    kill(*settled().spares)
    way_of_next(context)
    kill(settled().server)
    way_of_next(context)
    print(flags + [is_subreaper()])
"""
    assert output(tools, text) == f"{[bool(was)] * 3}\n"


def test_a_start_costs_no_descriptor_and_no_memory_map(dragon: BaseContext) -> None:
    way_of_next(dragon)
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(10):
        way_of_next(dragon)
    assert until(lambda: len(os.listdir("/proc/self/fd")) <= len(before))
    assert not is_subreaper()


# ---- randomness ---------------------------------------------------------------------------------


def draws_of(context: Any, n: int) -> list[dict[str, Any]]:
    results = context.SimpleQueue()
    processes = [context.Process(target=put_draws, args=(results,)) for _ in range(n)]
    for process in processes:
        process.start()
    draws = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return draws


def test_no_two_children_draw_the_same_numbers(dragon: BaseContext) -> None:
    settled_draws = [draws_of(dragon, 1)[0] for _ in range(10)]  # by spares that have waited
    draws = settled_draws + draws_of(dragon, 30)  # a burst
    for name in draws[0]:
        assert len({draw[name] for draw in draws}) == 40, name


def test_no_two_children_draw_the_same_numbers_from_a_preloaded_numpy(tools: Run) -> None:
    text = """
    way_of_next(context)
    settled(with_successor=True)
    results = context.SimpleQueue()
    processes = [started(draw, results) for _ in range(20)]
    draws = [results.get() for _ in processes]
    print(all(len(set(column)) == 20 for column in zip(*draws)), len(draws[0]))
"""
    text = (
        "import numpy\n"
        + PROGRAM.replace(
            "def started",
            """def draw(results):
    import random, secrets, uuid
    results.put((os.getpid(), random.random(), secrets.token_hex(8), uuid.uuid4().hex,
        numpy.random.random(), numpy.random.default_rng().random()))
def started""",
        )
        + text
    )
    done = tools(text)
    assert done == ("True 6\n", "", 0)


# ---- descriptors --------------------------------------------------------------------------------


def test_nothing_that_the_parent_has_open_arrives(dragon: BaseContext, tmp_path: Path) -> None:
    way_of_next(dragon)
    held = [os.open(tmp_path / str(i), os.O_CREAT | os.O_RDWR) for i in range(5)]
    ends = os.pipe()
    try:
        for fd in (*held, *ends):
            os.set_inheritable(fd, True)
        results = dragon.SimpleQueue()
        process = dragon.Process(target=put_descriptors, args=(results,))
        process.start()
        found = results.get()
        process.join()
        pipe = os.readlink(f"/proc/self/fd/{ends[0]}")
    finally:
        for fd in (*held, *ends):
            os.close(fd)
    leads_to = [target for target, _ in found.values()]
    assert pipe not in leads_to
    assert not [target for target in leads_to if target.startswith(str(tmp_path))]


def test_a_child_has_only_the_descriptors_that_it_needs(tools: Run) -> None:
    text = """
    results = context.SimpleQueue()
    for _ in range(3):
        started(put_descriptors, results).join()
        print(results.get())
"""
    kinds = """
def put_descriptors(results):
    kinds = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            kind = os.readlink(f"/proc/self/fd/{name}").split(":")[0]
        except OSError:
            continue
        if int(name) > 2:
            kinds[kind] = kinds.get(kind, 0) + 1
    results.put(sorted(kinds.items()))
if __name__ == "__main__":
"""
    first, second, third = output(tools, kinds + text).splitlines()
    assert first == second == third
    found = dict(eval(first))
    # The pool; the resource tracker's pipe; the line to the starter, which tells of its end.
    assert found.pop("/memfd", 0) + found.pop("/dev/shm/dragon", 0) >= 1, found
    assert found.pop("pipe") == 1, found
    assert found.pop("socket") == 1, found


def test_the_number_of_descriptors_does_not_grow_from_child_to_child(dragon: BaseContext) -> None:
    results = dragon.SimpleQueue()
    counts = []
    for _ in range(12):
        process = dragon.Process(target=put_descriptors, args=(results,))
        process.start()
        counts.append(len(results.get()))
        process.join()
    assert len(set(counts)) == 1, counts


@pytest.mark.parametrize("n", [1, 245, 246, 247, 250, 300, 700])
def test_many_descriptors_are_passed(dragon: BaseContext, tmp_path: Path, n: int) -> None:
    files = []
    for i in range(n):
        (tmp_path / str(i)).write_text(str(i))
        files.append(os.open(tmp_path / str(i), os.O_RDONLY))
    results = dragon.SimpleQueue()
    try:
        process = dragon.Process(target=sum_of_files, args=(results, Handles(files)))
        process.start()
        process.join(20)
        assert process.exitcode == 0
        assert results.get() == n * (n - 1) // 2
    finally:
        for fd in files:
            os.close(fd)


class Handles:
    """Descriptors that are passed when this is pickled for a child; there, a list."""

    def __init__(self, fds: list[int]) -> None:
        self.fds = fds

    def __reduce__(self) -> Any:
        from multiprocessing.reduction import DupFd

        return list, ([DupFd(fd) for fd in self.fds],)


# ---- what a child may do ------------------------------------------------------------------------


def test_a_child_may_fork_and_wait(tools: Run) -> None:
    text = """
    for _ in range(3):
        process = started(fork)
        process.join()
        print(process.exitcode)
"""
    fork = """
def fork():
    assert has_no_children()
    pid = os.fork()
    if pid == 0:
        os._exit(6)
    assert status_of(os.wait()) == (pid, 6)
    assert has_no_children()
    os._exit(3)
if __name__ == "__main__":
"""
    assert output(tools, fork + text) == "3\n" * 3


def test_a_child_may_execute_another_program(tools: Run) -> None:
    execute = """
def execute():
    os.execv("/bin/sh", ["sh", "-c", "ls /proc/self/fd | wc -l; exit 3"])
if __name__ == "__main__":
    for _ in range(2):
        process = started(execute)
        process.join()
        print(process.exitcode, flush=True)
"""
    ours, stock = (output(tools, execute, method).splitlines() for method in ("dragon", "spawn"))
    assert ours[1::2] == stock[1::2] == ["3", "3"]
    assert list(map(int, ours[::2])) <= list(map(int, stock[::2]))


def test_a_child_may_lead_a_session(tools: Run) -> None:
    lead = """
def lead():
    os.setsid()
    assert os.getsid(0) == os.getpgrp() == os.getpid()
    os.killpg(0, signal.SIGTERM)
    time.sleep(60)
if __name__ == "__main__":
    for _ in range(2):
        process = started(lead)
        process.join()
        print(process.exitcode, flush=True)
"""
    assert output(tools, lead) == "-15\n-15\n"


def test_processes_start_processes_to_depth_four_in_every_way(tools: Run) -> None:
    nest = """
def nest(depth, told):
    told.put((depth, os.getpid(), os.getppid()))
    if depth:
        process = started(nest, depth - 1, told)
        process.join()
        sys.exit(process.exitcode + 1)
if __name__ == "__main__":
    told = context.SimpleQueue()
    process = started(nest, 4, told)
    process.join()
    chain = [told.get() for _ in range(5)]
    parents = [os.getpid()] + [pid for _, pid, _ in chain[:-1]]
    print(process.exitcode, [parent for _, _, parent in chain] == parents)
"""
    assert output(tools, nest) == "4 True\n"


# ---- what cannot be pickled, or imported --------------------------------------------------------


def test_a_target_that_cannot_be_pickled_starts_nothing(tools: Run) -> None:
    text = """
    way_of_next(context)
    before = settled().server
    for target in (threading.Lock().acquire, (i for i in ()).send, sys.stdin.read):
        try:
            context.Process(target=target).start()
        except Exception as error:
            print(type(error).__name__)
    print(family().server == before, multiprocessing.active_children(), way_of_next(context))
"""
    ours = output(tools, text).splitlines()
    assert ours == ["TypeError"] * 3 + ["True [] forked"]


def test_a_main_that_fails_in_the_child_does_not_spoil_the_fork_server(tools: Run) -> None:
    text = """
import os
if os.path.exists("fail"):
    raise LookupError("only in the child")
"""
    program = """
    made = [way_of_next(context)]
    server = settled().server
    open("fail", "w").close()
    process = started(end, 3)
    process.join()
    os.unlink("fail")
    print(process.exitcode, way_of_next(context), family().server == server)
"""
    done = tools(text + PROGRAM + program)
    assert (done.stdout, done.status) == ("1 forked True\n", 0), done
    assert done.stderr.count("LookupError: only in the child") == 1


def test_a_main_that_is_changed_meanwhile_is_run_as_it_is_then(tools: Run) -> None:
    text = """
    answers = context.SimpleQueue()
    started(tell, answers).join()
    settled()
    source = open(__file__).read()
    open(__file__, "w").write(source.replace("WORD = 'old'", "WORD = 'new!'"))
    started(tell, answers).join()
    print(answers.get(), answers.get())
"""
    before = """
WORD = 'old'
def tell(answers):
    answers.put(WORD)
if __name__ == "__main__":
"""
    assert output(tools, before + text) == "old new!\n"


# ---- copies, and programs without processes -----------------------------------------------------


def test_a_forked_copy_starts_processes_and_takes_none_of_its_parent(tools: Run) -> None:
    text = """
    for forked_before in (False, True):
        if forked_before:
            assert way_of_next(context) == "forked"
        pid = os.fork()
        if pid == 0:
            print([way_of_next(context) for _ in range(2)][0], flush=True)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), way_of_next(context), flush=True)
"""
    assert output(tools, text) == "executed\n0 forked\n" * 2


def test_a_copy_that_lives_on_keeps_no_seed_alive(tools: Run) -> None:
    text = """
    way_of_next(context)
    settled()
    before = family()
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
    kill(before.server)
    kill(before.seed)
    print(family()[:3])
    os.kill(pid, 9)
    os.waitpid(pid, 0)
"""
    assert output(tools, text) == "(0, 0, 0)\n"


def test_a_program_without_processes_has_one_descriptor_more_than_under_python(run: Run) -> None:
    text = (
        "import os, subprocess\nprint(sorted(map(int, os.listdir('/proc/self/fd'))), flush=True)\n"
    )
    text += "subprocess.run(['ls', '/proc/self/fd'])\n"
    done = run(text)
    own, *executed = done.stdout.splitlines()
    stock = os.popen("/usr/bin/python3.11 -c 'import os; print(os.listdir(\"/proc/self/fd\"))'")
    with stock:
        expected = sorted(map(int, eval(stock.read())))
    assert eval(own)[: len(expected)] == expected
    assert executed == ["0", "1", "2", "3"]


@pytest.mark.parametrize("uses_it", [False, True])
def test_the_seed_is_gone_after_an_exec_and_the_program_has_no_child(
    tools: Run, uses_it: bool
) -> None:
    text = """
    if sys.argv[2] == "True":
        way_of_next(context)
        settled()
    behind = family()
    left = [pid for pid in all_below(os.getpid()) if pid != tracker]
    os.execv("/usr/bin/python3.11", ["python3.11", "-c",
        "import sys; from seed_tools import *; gone = wait_until(lambda: not any("
        "pid in parents() for pid in map(int, sys.argv[1:]))); print(len(sys.argv) > 1, gone)",
        *map(str, left)])
"""
    assert output(tools, text, "dragon", str(uses_it)) == "True True\n"


@pytest.mark.parametrize("end", ["pass", "os._exit(0)", "os.kill(os.getpid(), 9)", "os.abort()"])
def test_nothing_is_left_after_the_end_of_a_program(tools: Run, end: str) -> None:
    text = f"""
    way_of_next(context)
    settled()
    print(*[pid for pid in all_below(os.getpid()) if pid != tracker], flush=True)
    {end}
"""
    done = tools(PROGRAM + text)
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) >= 4
    assert until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))
