"""Killed workers stop nobody; a killed head takes everything with it."""

import os
import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import numpy
import pytest
from children import (
    get_for_ever,
    get_one,
    hold_array,
    put_all,
    put_for_ever,
    send_and_hold_arrays,
    sleep_after,
)
from overlay_support import all_gone, environment, is_alive, n_blocks, state_of, until, write_script

# ---- a killed worker ----


def test_a_worker_killed_while_it_waits_in_get_stops_no_other(dragon: BaseContext) -> None:
    q, results, ready = dragon.Queue(), dragon.Queue(), dragon.Event()
    waiting = dragon.Process(target=get_for_ever, args=(q, ready))
    waiting.start()
    assert ready.wait(20)
    other = dragon.Process(target=get_one, args=(q, results))
    waiting.kill()
    waiting.join()
    other.start()
    q.put("for the other")
    assert results.get(timeout=20) == "for the other"
    other.join()
    q.put("for us")
    assert q.get(timeout=5) == "for us"


def test_a_worker_killed_while_it_waits_in_put_stops_no_other(dragon: BaseContext) -> None:
    q, ready = dragon.Queue(1), dragon.Event()
    producer = dragon.Process(target=put_for_ever, args=(q, ready))
    producer.start()
    assert ready.wait(20)
    assert until(q.full)
    producer.kill()
    producer.join()
    taken = 0
    while True:
        try:
            q.get(timeout=0.2)
            taken += 1
        except queue.Empty:
            break
    assert taken >= 1
    q.put("works on", timeout=5)
    assert q.get(timeout=5) == "works on"


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue"])
def test_producers_killed_in_the_middle_of_puts_spoil_nothing(
    dragon: BaseContext, kind: str
) -> None:
    q = getattr(dragon, kind)()
    for _ in range(6):
        ready = dragon.Event()
        producer = dragon.Process(target=put_for_ever, args=(q, ready))
        producer.start()
        assert ready.wait(20)
        for _ in range(50):
            check_item(q.get())
        producer.kill()
        producer.join()
        while not q.empty():
            check_item(q.get())
    q.put("still fine")
    assert q.get() == "still fine"


def check_item(item: Any) -> None:
    assert item == 1 if isinstance(item, int) else item.sum() == 20_000


def test_consumers_killed_in_the_middle_of_gets_lose_at_most_what_they_took(
    dragon: BaseContext,
) -> None:
    q = dragon.Queue()
    for _ in range(5):
        ready = dragon.Event()
        for i in range(3000):
            q.put([i] * 20)
        consumer = dragon.Process(target=get_for_ever, args=(q, ready))
        consumer.start()
        assert ready.wait(20)
        consumer.kill()
        consumer.join()
        rest = []
        while not q.empty():
            rest.append(q.get(timeout=5)[0])
        assert rest == list(range(3000 - len(rest), 3000))


def test_a_stopped_consumer_holds_up_no_other(dragon: BaseContext) -> None:
    q, results, ready = dragon.Queue(), dragon.Queue(), dragon.Queue()
    stopped = dragon.Process(target=sleep_after, args=(ready,))
    stopped.start()
    os.kill(ready.get(), signal.SIGSTOP)
    other = dragon.Process(target=get_one, args=(q, results))
    other.start()
    q.put(1)
    assert results.get(timeout=20) == 1
    other.join()
    stopped.kill()
    stopped.join(10)
    assert stopped.exitcode == -9


def test_blocks_held_by_a_killed_child_come_back(dragon: BaseContext) -> None:
    inbox, outbox = dragon.Queue(), dragon.Queue()
    start = n_blocks()
    for _ in range(3):
        child = dragon.Process(target=hold_array, args=(inbox, outbox))
        child.start()
        inbox.put(numpy.zeros(100_000))
        assert outbox.get(timeout=20) == 800_000
        child.kill()
        child.join()
    assert until(lambda: n_blocks() <= start)


@pytest.mark.parametrize("ends_well", [True, False])
def test_arrays_that_a_child_sent_arrive_after_its_end_and_leave_nothing(
    dragon: BaseContext, ends_well: bool
) -> None:
    inbox, outbox, ready = dragon.Queue(), dragon.Queue(), dragon.Event()
    start = n_blocks()
    child = dragon.Process(target=send_and_hold_arrays, args=(inbox, outbox, ready))
    child.start()
    assert ready.wait(20)
    if ends_well:
        outbox.put("end")
    else:
        child.kill()
    child.join()
    assert until(lambda: n_blocks() <= start + 3)
    for i in range(3):
        assert (inbox.get(timeout=5) == i).all()
    assert until(lambda: n_blocks() <= start)


def test_objects_used_by_a_killed_child_come_back(dragon: BaseContext) -> None:
    start = n_blocks()
    ready = dragon.Queue()
    child = dragon.Process(target=sleep_after, args=(ready,))
    child.start()
    ready.get(timeout=20)
    child.kill()
    child.join()
    child.close()
    del child, ready
    assert until(lambda: n_blocks() <= start)


def test_a_child_that_ends_well_leaves_nothing(dragon: BaseContext) -> None:
    start = n_blocks()
    q = dragon.Queue()
    for _ in range(3):
        child = dragon.Process(target=put_all, args=(q, [1, b"x" * 100_000, [2]]))
        child.start()
        child.join()
        for _ in range(3):
            q.get()
        child.close()
    del q, child
    assert until(lambda: n_blocks() <= start, 2)


# ---- a killed parent that is not the head ----

MIDDLE = """
import multiprocessing, os, sys, time
def leaf(pids):
    pids.put(os.getpid())
    time.sleep(60)
def middle(pids, make, is_daemonic):
    source = multiprocessing if make == "function" else multiprocessing.get_context("dragon")
    source.Process(target=leaf, args=(pids,), daemon=is_daemonic).start()
    time.sleep(60)
if __name__ == "__main__":
    multiprocessing.set_start_method("dragon")
    pids = multiprocessing.Queue()
    p = multiprocessing.Process(target=middle, args=(pids, sys.argv[1], sys.argv[2] == "daemonic"))
    p.start()
    pid = pids.get()
    p.kill()
    p.join()
    print(pid, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def start_program(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a program whose output and input are pipes."""
    started: list[subprocess.Popen[str]] = []

    def start(text: str, *words: str) -> subprocess.Popen[str]:
        # Children read the program again: it must not be written anew meanwhile.
        folder = tmp_path / str(len(started))
        folder.mkdir()
        started.append(
            subprocess.Popen(
                [sys.executable, str(write_script(folder, text)), *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment(),
            )
        )
        return started[-1]

    yield start
    for program in started:
        program.kill()
        program.wait()
        for pipe in (program.stdin, program.stdout):
            assert pipe is not None
            pipe.close()


@pytest.mark.parametrize("make", ["context", "function"])
def test_a_daemonic_child_ends_with_its_killed_parent(start_program: Any, make: str) -> None:
    program = start_program(MIDDLE, make, "daemonic")
    pid = int(program.stdout.readline())
    gone = until(lambda: not is_alive(pid), 2)
    program.kill()
    assert gone
    assert all_gone([pid])


def test_a_child_that_is_no_daemon_outlives_its_killed_parent_until_the_head_ends(
    start_program: Any,
) -> None:
    program = start_program(MIDDLE, "context", "not daemonic")
    pid = int(program.stdout.readline())
    assert not until(lambda: not is_alive(pid), 0.3)
    program.kill()
    assert all_gone([pid])


# ---- a killed head ----

HEAD = """
import multiprocessing, os, signal, sys, time, atexit
def leaf(pids):
    pids.put(os.getpid())
    time.sleep(60)
def in_get(pids):
    pids.put(os.getpid())
    multiprocessing.get_context("dragon").Queue().get()
def deaf(pids):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pids.put(os.getpid())
    while True:
        pass
def nested(pids, depth):
    pids.put(os.getpid())
    if depth:
        multiprocessing.Process(target=nested, args=(pids, depth - 1)).start()
    time.sleep(60)
def with_pool(pids):
    pool = multiprocessing.Pool(2)
    for pid in pool.map(own_pid, range(2), chunksize=1):
        pids.put(pid)
    pids.put(os.getpid())
    time.sleep(60)
def own_pid(x):
    time.sleep(0.1)
    return os.getpid()
def run(how):
    end = {{
        "wait": lambda: time.sleep(60),
        "_exit": lambda: os._exit(3),
        "abort": os.abort,
        "exit": lambda: sys.exit(3),
    }}[how]
    end()
if __name__ == "__main__":
    multiprocessing.set_start_method("dragon")
    pids = multiprocessing.Queue()
    is_daemonic = sys.argv[2] == "daemonic"
    n = 0
    for target, words, count in {targets}:
        multiprocessing.Process(target=target, args=(pids, *words), daemon=is_daemonic).start()
        n += count
    print(*[pids.get() for _ in range(n)], flush=True)
    run(sys.argv[1])
"""
SIMPLE = "[(leaf, (), 1), (in_get, (), 1), (deaf, (), 1)]"
NESTED = "[(nested, (2,), 3), (with_pool, (), 3)]"
ENDS = ["SIGKILL", "SIGTERM", "SIGSEGV", "SIGHUP", "_exit", "abort"]


def pids_after(program: subprocess.Popen[str], end: str) -> list[int]:
    """The processes of the program, once it has been ended that way."""
    assert program.stdout is not None
    pids = [int(word) for word in program.stdout.readline().split()]
    if end.startswith("SIG"):
        program.send_signal(getattr(signal, end))
    program.wait(10)
    return pids


@pytest.mark.parametrize("kind", ["daemonic", "not daemonic"])
@pytest.mark.parametrize("end", ENDS)
def test_children_are_gone_after_the_head_was_ended(
    start_program: Any, new_in_shm: Any, end: str, kind: str
) -> None:
    how = "wait" if end.startswith("SIG") else end
    program = start_program(HEAD.format(targets=SIMPLE), how, kind)
    pids = pids_after(program, end)
    assert len(pids) == 3
    assert all_gone(pids)
    assert new_in_shm() == set()


@pytest.mark.parametrize("end", ["SIGKILL", "SIGTERM", "_exit"])
def test_nested_children_and_pools_are_gone_after_the_head_was_ended(
    start_program: Any, new_in_shm: Any, end: str
) -> None:
    how = "wait" if end.startswith("SIG") else end
    program = start_program(HEAD.format(targets=NESTED), how, "not daemonic")
    pids = pids_after(program, end)
    assert len(pids) == 6
    assert all_gone(pids)
    assert new_in_shm() == set()


def test_sys_exit_of_the_head_ends_its_daemons(start_program: Any, new_in_shm: Any) -> None:
    # One that ignores SIGTERM would be waited for, as in the standard library.
    program = start_program(
        HEAD.format(targets="[(leaf, (), 1), (in_get, (), 1)]"), "exit", "daemonic"
    )
    pids = pids_after(program, "exit")
    assert program.returncode == 3
    assert all_gone(pids)
    assert new_in_shm() == set()


def test_children_are_gone_when_the_head_is_killed_while_they_start(
    start_program: Any, new_in_shm: Any
) -> None:
    text = """
import multiprocessing, os, sys, time
if __name__ == "__main__":
    context = multiprocessing.get_context("dragon")
    processes = [context.Process(target=time.sleep, args=(60,)) for _ in range(4)]
    for p in processes:
        p.start()
    print(*[p.pid for p in processes], flush=True)
    os.kill(os.getpid(), 9)
"""
    # Several at once, since the moment at which a child may be missed is short.
    programs = [start_program(text) for _ in range(10)]
    pids = [pid for program in programs for pid in pids_after(program, "")]
    assert len(pids) == 40
    assert all_gone(pids)
    assert new_in_shm() == set()


def test_a_stopped_child_is_gone_after_the_head_was_killed(start_program: Any) -> None:
    program = start_program(HEAD.format(targets="[(leaf, (), 1)]"), "wait", "not daemonic")
    pid = int(program.stdout.readline())
    os.kill(pid, signal.SIGSTOP)
    assert until(lambda: state_of(pid) == "T")
    program.kill()
    program.wait()
    gone = until(lambda: not is_alive(pid), 2)
    os.kill(pid, signal.SIGKILL)
    assert gone


def test_ctrl_c_for_the_whole_group_ends_all(tmp_path: Path) -> None:
    program = subprocess.Popen(
        [
            sys.executable,
            str(write_script(tmp_path, HEAD.format(targets="[(leaf, (), 1), (in_get, (), 1)]"))),
            "wait",
            "not daemonic",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    assert program.stdout is not None
    pids = [int(word) for word in program.stdout.readline().split()]
    os.killpg(program.pid, signal.SIGINT)
    _, errors = program.communicate(timeout=20)
    assert program.returncode == -signal.SIGINT
    assert errors.count("KeyboardInterrupt") >= 3
    assert all_gone(pids)


def test_a_program_leaves_nothing_in_shared_memory_and_no_process(
    start_program: Any, new_in_shm: Any
) -> None:
    text = """
import multiprocessing
def child(q):
    q.put(b"x" * 1_000_000)
if __name__ == "__main__":
    multiprocessing.set_start_method("dragon")
    q = multiprocessing.Queue()
    p = multiprocessing.Process(target=child, args=(q,))
    p.start()
    with multiprocessing.Pool(2) as pool:
        pids = [w.pid for w in pool._pool]
    print(p.pid, *pids, len(q.get()) and "", flush=True)
    p.join()
"""
    program = start_program(text)
    pids = [int(word) for word in program.stdout.read().split()]
    assert program.wait(20) == 0
    assert not any(map(is_alive, pids))
    assert new_in_shm() == set()
