"""Process: start, end, attributes, arguments, errors, as the standard library's spawn."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import pytest
from children import (
    Refuses,
    Runs,
    die_of,
    exit_at_once,
    exit_with,
    get_from_inner,
    get_one,
    nest,
    put_all,
    put_keywords,
    raise_error,
    report_facts,
    return_nothing,
    sleep_after,
    start_sleeper,
    sum_of_squares,
    wait_on,
)
from overlay_support import Outcome, environment, is_alive, until

# ---- ends ----


def exit_code_of(process: Any) -> Any:
    process.start()
    process.join()
    return process.exitcode


def test_a_process_that_returns_has_exit_code_zero(ctx: BaseContext) -> None:
    assert exit_code_of(ctx.Process(target=return_nothing)) == 0


def test_a_process_without_target_ends(ctx: BaseContext) -> None:
    assert exit_code_of(ctx.Process()) == 0


@pytest.mark.parametrize(
    "code, expected",
    [
        (0, 0),
        (None, 0),
        (3, 3),
        (255, 255),
        (256, 0),
        (-1, 255),
        (True, 1),
        ("a text", 1),
        ([], 1),
    ],
)
def test_sys_exit_gives_the_exit_code(ctx: BaseContext, code: Any, expected: int) -> None:
    assert exit_code_of(ctx.Process(target=exit_with, args=(code,))) == expected


def test_os_exit_gives_the_exit_code(ctx: BaseContext) -> None:
    assert exit_code_of(ctx.Process(target=exit_at_once, args=(7,))) == 7


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGUSR1])
def test_death_by_a_signal_is_its_negative_number(ctx: BaseContext, number: int) -> None:
    assert exit_code_of(ctx.Process(target=die_of, args=(number,))) == -number


def test_an_exception_is_printed_with_its_traceback(run: Callable[..., Outcome]) -> None:
    text = """
import multiprocessing
from sys import argv
def inner():
    raise LookupError("the child's own error")
def child():
    inner()
if __name__ == "__main__":
    p = multiprocessing.get_context(argv[1]).Process(target=child, name="Worker")
    p.start()
    p.join()
    print(p.exitcode)
"""
    ours, stock = run(text, "dragon"), run(text, "spawn")
    assert ours.stdout == "1\n"
    assert ours == stock
    assert "raise LookupError" in ours.stderr


def test_start_leaves_its_traces_in_the_attributes(ctx: BaseContext) -> None:
    gate = ctx.Event()
    process = ctx.Process(target=wait_on, args=(gate,), name="Named", daemon=True)
    assert (process.pid, process.exitcode, process.is_alive()) == (None, None, False)
    assert "initial" in repr(process)
    with pytest.raises(ValueError, match="process not started"):
        _ = process.sentinel
    process.start()
    assert process in multiprocessing.active_children()
    assert (process.exitcode, process.is_alive(), process.name) == (None, True, "Named")
    assert process.pid == process.ident != os.getpid()
    assert "started daemon" in repr(process)
    assert not multiprocessing.connection.wait([process.sentinel], 0)
    gate.set()
    assert multiprocessing.connection.wait([process.sentinel], 20) == [process.sentinel]
    process.join()
    assert (process.exitcode, process.is_alive()) == (0, False)
    assert process not in multiprocessing.active_children()
    process.close()
    with pytest.raises(ValueError, match="closed"):
        process.is_alive()


def test_join_with_a_timeout_returns_while_the_process_runs(ctx: BaseContext) -> None:
    gate = ctx.Event()
    process = ctx.Process(target=wait_on, args=(gate,))
    process.start()
    process.join(0)
    process.join(0.01)
    process.join(-1)
    assert process.is_alive()
    gate.set()
    process.join(20)
    assert process.exitcode == 0
    process.join()


@pytest.mark.parametrize("way, expected", [("kill", -9), ("terminate", -15)])
def test_kill_and_terminate_end_a_process(ctx: BaseContext, way: str, expected: int) -> None:
    ready = ctx.SimpleQueue()
    process = ctx.Process(target=sleep_after, args=(ready,))
    process.start()
    assert ready.get() == process.pid
    getattr(process, way)()
    process.join(10)
    assert process.exitcode == expected
    getattr(process, way)()


def test_a_process_can_be_killed_before_it_reaches_its_first_line(ctx: BaseContext) -> None:
    processes = [ctx.Process(target=time.sleep, args=(60,)) for _ in range(4)]
    for process in processes:
        process.start()
        process.kill()
    for process in processes:
        process.join(10)
        assert process.exitcode == -9


def test_start_twice_is_an_assertion(ctx: BaseContext) -> None:
    process = ctx.Process(target=return_nothing)
    process.start()
    with pytest.raises(AssertionError, match="cannot start a process twice"):
        process.start()
    process.join()
    with pytest.raises(AssertionError, match="cannot start a process twice"):
        process.start()


def test_waitpid_and_sigchld_see_a_direct_child(dragon: BaseContext) -> None:
    signals: list[int] = []
    previous = signal.signal(signal.SIGCHLD, lambda number, _: signals.append(number))
    try:
        process = dragon.Process(target=exit_with, args=(5,))
        process.start()
        assert os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1]) == 5
        assert until(lambda: len(signals) > 0)
    finally:
        signal.signal(signal.SIGCHLD, previous)
    process.join()


# ---- what a child finds ----


def facts_of(ctx: BaseContext, **options: Any) -> dict[str, Any]:
    results = ctx.Queue()
    process = ctx.Process(target=report_facts, args=(results,), **options)
    process.start()
    facts: dict[str, Any] = results.get(timeout=20)
    process.join()
    return facts | {"own": process.pid}


def test_a_child_knows_itself_and_its_parent(ctx: BaseContext) -> None:
    facts = facts_of(ctx, name="The child", daemon=True)
    assert facts["pid"] == facts["own"]
    assert facts["ppid"] == facts["parent"] == os.getpid()
    assert (facts["name"], facts["daemon"]) == ("The child", True)
    assert facts["stdin"]
    assert facts["method"] == ctx.get_start_method()
    assert facts["argv"] == sys.argv


def test_changes_of_environment_and_folder_reach_a_child(
    ctx: BaseContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OVERLAY_TEST", "changed späť")
    facts = facts_of(ctx)
    assert facts["cwd"] == str(tmp_path)
    assert facts["variable"] == "changed späť"


def test_runtime_threads_are_unknown_to_threading(dragon: BaseContext) -> None:
    # A stock queue's feeder thread, if any, would be started after the count.
    assert facts_of(dragon)["threads"] == 1


def test_arguments_and_keywords_arrive(ctx: BaseContext) -> None:
    results = ctx.Queue()
    process = ctx.Process(
        target=put_keywords, args=(results, 1, [2]), kwargs={"three": (3,), "four": None}
    )
    process.start()
    assert results.get(timeout=20) == ((1, [2]), {"three": (3,), "four": None})
    process.join()


def test_large_arguments_arrive(ctx: BaseContext) -> None:
    results = ctx.Queue()
    items = [b"x" * 5_000_000, "y" * 3_000_000]
    process = ctx.Process(target=put_all, args=(results, items))
    process.start()
    assert [results.get(timeout=20) for _ in items] == items
    process.join()


def test_a_subclass_with_run_has_its_attributes(dragon: BaseContext) -> None:
    results = dragon.Queue()
    process = Runs(results, "attribute")
    process.start()
    assert results.get() == ["attribute", process.name]
    process.join()
    assert process.exitcode == 0


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue", "Event", "Lock"])
def test_arguments_dropped_by_the_parent_at_once_live_on(dragon: BaseContext, kind: str) -> None:
    target: Any = {"Queue": put_all, "SimpleQueue": put_all}.get(kind, print)
    words: Any = ([1, 2],) if target is put_all else ()
    processes = []
    for _ in range(3):
        processes.append(dragon.Process(target=target, args=(getattr(dragon, kind)(), *words)))
        processes[-1].start()
        processes[-1]._args = None
    for process in processes:
        process.join()
        assert process.exitcode == 0


def test_objects_put_and_dropped_before_the_child_takes_them(dragon: BaseContext) -> None:
    inbox, results = dragon.Queue(), dragon.Queue()
    inner = dragon.Queue()
    inner.put("still there")
    child = dragon.Process(target=get_from_inner, args=(inbox, results))
    inbox.put(inner)
    del inner
    child.start()
    assert results.get(timeout=20) == "still there"
    child.join()


# ---- many and nested ----


def test_thirty_short_processes_one_after_the_other_and_at_once(dragon: BaseContext) -> None:
    q = dragon.Queue()
    for batch in [1] * 5 + [10, 15]:
        processes = [dragon.Process(target=put_all, args=(q, [i])) for i in range(batch)]
        for process in processes:
            process.start()
        assert sorted(q.get() for _ in processes) == list(range(batch))
        for process in processes:
            process.join()
            assert process.exitcode == 0


def test_processes_leave_no_descriptors_behind(dragon: BaseContext) -> None:
    exit_code_of(dragon.Process(target=return_nothing))
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(5):
        exit_code_of(dragon.Process(target=return_nothing))
    # The supervisor closes its own when it has seen the death.
    assert until(lambda: len(os.listdir("/proc/self/fd")) <= len(before))


def test_threads_may_start_processes_at_once(dragon: BaseContext) -> None:
    import threading

    codes: list[Any] = []
    threads = [
        threading.Thread(
            target=lambda: codes.append(exit_code_of(dragon.Process(target=return_nothing)))
        )
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0] * 6


def test_processes_start_processes(ctx: BaseContext) -> None:
    results = ctx.Queue()
    process = ctx.Process(target=nest, args=(ctx.get_start_method(), 3, results))
    process.start()
    assert [results.get(timeout=20) for _ in range(4)] == [3, 2, 1, 0]
    process.join()
    assert process.exitcode == 0


def test_a_daemon_may_have_children_which_end_with_it(dragon: BaseContext) -> None:
    pids = dragon.Queue()
    daemon = dragon.Process(target=start_sleeper, args=(pids,), daemon=True)
    daemon.start()
    pid = pids.get(timeout=20)
    assert is_alive(pid)
    daemon.kill()
    daemon.join()
    assert until(lambda: not is_alive(pid))


def test_the_workers_of_a_pool_may_have_pools(dragon: BaseContext) -> None:
    with dragon.Pool(2) as pool:
        assert pool.map(sum_of_squares, range(5)) == [0, 0, 1, 5, 14]


# ---- what cannot be started ----


@pytest.mark.parametrize(
    "target, words",
    [
        (threading.Lock(), ()),
        (return_nothing, (threading.Lock(),)),
        (return_nothing, (Refuses(),)),
    ],
)
def test_what_cannot_be_pickled_raises_in_the_parent(
    ctx: BaseContext, target: Any, words: Any
) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    process = ctx.Process(target=target, args=words)
    with pytest.raises((TypeError, ArithmeticError), match="pickle"):
        process.start()
    assert process not in multiprocessing.active_children()
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1  # the resource tracker's
    with pytest.raises(RuntimeError):
        __import__("pickle").dumps(ctx.Lock())  # nothing is "being spawned" any more


def test_a_main_module_that_fails_in_the_child_is_shown(run: Callable[..., Outcome]) -> None:
    text = """
import multiprocessing, sys
if __name__ != "__main__":
    raise LookupError("only in the child")
if __name__ == "__main__":
    p = multiprocessing.get_context(sys.argv[1]).Process(target=print)
    p.start()
    p.join()
    print(p.exitcode)
"""
    ours, stock = run(text, "dragon"), run(text, "spawn")
    assert ours == stock
    assert ours.stdout == "1\n"
    assert "LookupError: only in the child" in ours.stderr


def test_a_missing_main_guard_is_one_error_and_no_storm(run: Callable[..., Outcome]) -> None:
    text = """
import multiprocessing, sys
p = multiprocessing.get_context(sys.argv[1]).Process(target=print)
p.start()
p.join()
print("exit code", p.exitcode)
sys.exit(p.exitcode)
"""
    ours, stock = run(text, "dragon"), run(text, "spawn")
    assert ours.status == stock.status == 1
    assert ours.stdout == stock.stdout == "exit code 1\n"
    assert "before the\n        current process has finished its bootstrapping phase" in ours.stderr
    assert ours.stderr.count("Traceback (most recent call last)") == 1


def test_another_executable_is_refused_with_its_name(dragon: BaseContext) -> None:
    from multiprocessing import spawn

    ours = spawn.get_executable()
    multiprocessing.set_executable("/usr/bin/python3.11")
    try:
        with pytest.raises(RuntimeError, match=r"only start dragon itself.*python3\.11"):
            dragon.Process(target=return_nothing).start()
    finally:
        multiprocessing.set_executable(ours)


@pytest.mark.parametrize("options, name", [(["-c"], "no main"), (["-m"], "__mp_main__")])
def test_children_find_main_however_the_program_was_started(
    tmp_path: Path, options: list[str], name: str
) -> None:
    text = """
import multiprocessing
def child(q):
    q.put(__name__)
if __name__ == "__main__":
    multiprocessing.set_start_method("dragon")
    q = multiprocessing.Queue()
    work = (child, (q,)) if "__file__" in globals() else (q.put, ("no main",))
    p = multiprocessing.Process(target=work[0], args=work[1])
    p.start()
    p.join()
    print(q.get(timeout=1))
"""
    (tmp_path / "module.py").write_text(text)
    done = subprocess.run(
        [sys.executable, *options, text if options == ["-c"] else "module"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == (f"{name}\n", "", 0)


def test_the_exit_code_is_known_though_another_thread_joins(dragon: BaseContext) -> None:
    import threading

    gate = dragon.Event()
    process = dragon.Process(target=wait_on, args=(gate,))
    process.start()
    threads = [threading.Thread(target=process.join) for _ in range(3)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join(20)
    assert process.exitcode == 0


def test_at_exit_the_parent_waits_for_its_children(run: Callable[..., Outcome]) -> None:
    text = """
import multiprocessing, time
def child(gate):
    gate.wait()
    print("child", flush=True)
if __name__ == "__main__":
    context = multiprocessing.get_context("dragon")
    gate = context.Event()
    context.Process(target=child, args=(gate,)).start()
    print("parent", flush=True)
    gate.set()
"""
    assert run(text) == ("parent\nchild\n", "", 0)


def test_at_exit_daemons_are_ended(run: Callable[..., Outcome]) -> None:
    text = """
import multiprocessing, time
if __name__ == "__main__":
    context = multiprocessing.get_context("dragon")
    p = context.Process(target=time.sleep, args=(60,), daemon=True)
    p.start()
    print(p.pid)
"""
    done = run(text)
    assert (done.status, done.stderr) == (0, "")
    assert until(lambda: not Path(f"/proc/{done.stdout.strip()}").exists())


def test_an_unused_name_of_a_child_function_is_an_error_in_the_child(
    run: Callable[..., Outcome],
) -> None:
    text = """
import multiprocessing, sys
if __name__ == "__main__":
    def child():
        pass
    p = multiprocessing.get_context(sys.argv[1]).Process(target=child)
    p.start()
    p.join()
    print(p.exitcode)
"""
    ours, stock = run(text, "dragon"), run(text, "spawn")
    assert ours.stdout == stock.stdout == "1\n"
    assert "Can't get attribute 'child'" in ours.stderr


def test_standard_streams_of_a_child_are_the_parents(run: Callable[..., Outcome]) -> None:
    text = """
import multiprocessing, sys
def child():
    print("out")
    print("err", file=sys.stderr)
    print(repr(sys.stdin.read()))
if __name__ == "__main__":
    p = multiprocessing.get_context("dragon").Process(target=child)
    p.start()
    p.join()
"""
    assert run(text, input="not for the child") == ("out\n''\n", "err\n", 0)


def test_get_one_of_an_inherited_queue(dragon: BaseContext) -> None:
    q, results = dragon.Queue(), dragon.Queue()
    q.put("before the start")
    process = dragon.Process(target=get_one, args=(q, results))
    process.start()
    assert results.get() == "before the start"
    process.join()


def test_raise_error_is_exit_code_one(ctx: BaseContext, capfd: Any) -> None:
    assert exit_code_of(ctx.Process(target=raise_error)) == 1
    assert "the child's own error" in capfd.readouterr().err
