"""A barrier breaks when a process is killed that is awaited there, and for no other end."""

import signal
import threading
from multiprocessing.context import BaseContext
from typing import Any

import pytest
from death_children import fork_and_pass_barrier, pass_barrier_and_end, pass_barrier_and_stay
from overlay_support import until

#: No wait of these tests is to last that long.
LONG_S = 20
UNCLEAN = [str(int(signal.SIGKILL)), str(int(signal.SIGSEGV)), "_exit", "_exit 3"]
CLEAN = ["exit", "exit 3", "raise"]


def start(dragon: BaseContext, target: Any, *args: Any) -> Any:
    process = dragon.Process(target=target, args=args)
    process.start()
    return process


def breaks(barrier: Any) -> bool:
    try:
        barrier.wait(LONG_S)
    except threading.BrokenBarrierError:
        return True
    return False


def test_a_process_killed_inside_wait_breaks_the_barrier_for_all(dragon: BaseContext) -> None:
    barrier, passed = dragon.Barrier(4), dragon.Queue()
    victim = start(dragon, pass_barrier_and_stay, barrier, 1, passed)
    assert until(lambda: barrier.n_waiting == 1)
    other = start(dragon, pass_barrier_and_stay, barrier, 1, passed)
    assert until(lambda: barrier.n_waiting == 2)
    victim.kill()
    assert breaks(barrier)
    other.join()
    assert other.exitcode == 4
    assert barrier.broken


@pytest.mark.parametrize("how", UNCLEAN)
def test_a_process_that_dies_after_it_took_part_breaks_the_next_round(
    dragon: BaseContext, how: str
) -> None:
    barrier = dragon.Barrier(2)
    start(dragon, pass_barrier_and_end, barrier, 3, how)
    for _ in range(3):
        assert not breaks(barrier)
    assert breaks(barrier)


@pytest.mark.parametrize("how", CLEAN)
def test_a_clean_end_never_breaks_the_barrier(dragon: BaseContext, how: str) -> None:
    barrier = dragon.Barrier(2)
    first = start(dragon, pass_barrier_and_end, barrier, 1, how)
    assert not breaks(barrier)
    first.join()
    start(dragon, pass_barrier_and_end, barrier, 1, how)
    assert not breaks(barrier)
    assert not barrier.broken


def test_a_process_killed_two_rounds_later_breaks_nothing(dragon: BaseContext) -> None:
    barrier, passed = dragon.Barrier(2), dragon.Queue()
    victim = start(dragon, pass_barrier_and_stay, barrier, 1, passed)
    assert not breaks(barrier)
    assert passed.get() == victim.pid
    other = start(dragon, pass_barrier_and_end, barrier, 2, "exit")
    assert not breaks(barrier)
    victim.kill()
    victim.join()
    assert not breaks(barrier)
    other.join()
    assert other.exitcode == 0


def test_a_reset_after_the_victim_was_joined_stays_whole(dragon: BaseContext) -> None:
    barrier, passed = dragon.Barrier(2), dragon.Queue()
    for _ in range(10):
        victim = start(dragon, pass_barrier_and_stay, barrier, 2, passed)
        assert not breaks(barrier)
        victim.kill()
        victim.join()
        barrier.reset()
    assert not barrier.broken


@pytest.mark.parametrize("how", ["_exit", "exit"])
def test_the_usual_end_of_a_forked_copy_breaks_nothing(dragon: BaseContext, how: str) -> None:
    barrier = dragon.Barrier(2)
    process = start(dragon, fork_and_pass_barrier, barrier, how)
    assert not breaks(barrier)
    process.join()
    assert not barrier.broken


def test_a_killed_forked_copy_breaks_the_barrier(dragon: BaseContext) -> None:
    barrier = dragon.Barrier(2)
    start(dragon, fork_and_pass_barrier, barrier, str(int(signal.SIGKILL)))
    assert not breaks(barrier)
    assert breaks(barrier)


def test_a_process_killed_in_the_action_breaks_the_barrier(dragon: BaseContext) -> None:
    barrier = dragon.Barrier(2, action=kill_itself_unless_main)
    done = threading.Event()
    threading.Thread(target=lambda: breaks(barrier) and done.set()).start()
    assert until(lambda: barrier.n_waiting == 1)
    start(dragon, pass_barrier_and_end, barrier, 1, "exit").join()
    assert done.wait(LONG_S)


def kill_itself_unless_main() -> None:
    import multiprocessing
    import os

    if multiprocessing.parent_process() is not None:
        os.kill(os.getpid(), 9)
