"""Pools whose workers die: one call fails, every other one runs once."""

import os
import pickle
import random
import signal
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import pytest
from children import own_pid, square
from overlay_support import Outcome, all_gone, until
from pool_children import (
    DiesOnArrival,
    count,
    die,
    die_at_three,
    die_at_two_and_five,
    die_with,
    inner_pids,
    pass_gate,
    result_that_kills,
    share,
    share_and_die_at,
)

from dragon_overlay.errors import WorkerDied


def outcomes(results: Any) -> list[Any]:
    """The results of an imap; in place of an exception its type."""
    seen: list[Any] = []
    while True:
        try:
            seen.append(next(results))
        except StopIteration:
            return seen
        except Exception as error:  # noqa: BLE001
            seen.append(type(error))


@pytest.mark.parametrize("chunksize", [1, 3, 8])
@pytest.mark.parametrize("how", ["SIGKILL", "SIGSEGV", "0", "7"])
def test_only_the_call_that_a_worker_dies_in_fails(
    dragon: BaseContext, how: str, chunksize: int
) -> None:
    counts: Any = dragon.RawArray("i", 8)
    with dragon.Pool(2, share, (counts,)) as pool:
        results = pool.starmap_async(die_at_three, [(x, how) for x in range(8)], chunksize)
        with pytest.raises(WorkerDied):
            results.get(20)
        assert list(counts) == [1] * 8  # all have ended before
        assert pool.map(square, range(8), chunksize) == [x * x for x in range(8)]


@pytest.mark.parametrize("chunksize", [1, 4, 8])
def test_finished_items_of_a_chunk_are_delivered(dragon: BaseContext, chunksize: int) -> None:
    counts: Any = dragon.RawArray("i", 8)
    with dragon.Pool(1, share, (counts,)) as pool:
        results = outcomes(pool.imap(die_at_two_and_five, range(8), chunksize))
    assert results == [0, 1, WorkerDied, 3, 4, WorkerDied, 6, 7]
    assert list(counts) == [1] * 8


def test_the_error_says_who_died_of_what_in_which_call(dragon: BaseContext) -> None:
    with dragon.Pool(1) as pool:
        (worker,) = pool._pool
        with pytest.raises(BrokenProcessPool) as caught:
            pool.apply(die, ("SIGKILL",))
        error: Any = caught.value
        assert type(error) is WorkerDied
        assert (error.pid, error.worker) == (worker.pid, worker.name)
        assert (error.exitcode, error.signal) == (-signal.SIGKILL, "SIGKILL")
        assert "function die" in error.function
        assert error.arguments == "('SIGKILL',)"
        for part in (f"pid {worker.pid}", "SIGKILL", "function die", "('SIGKILL',)"):
            assert part in str(error)
        with pytest.raises(WorkerDied, match="exit code 5") as exited:
            pool.apply(die, ("5",))
        assert (exited.value.exitcode, exited.value.signal) == (5, None)


def test_the_error_is_bounded_and_can_be_pickled(dragon: BaseContext) -> None:
    with dragon.Pool(1) as pool, pytest.raises(WorkerDied) as caught:
        pool.apply(die_with, ("y" * 100_000,), {"key": list(range(1000))})
    error = caught.value
    assert "yyy" in error.arguments
    assert "'key'" in error.arguments
    assert len(str(error)) < 1000
    copy = pickle.loads(pickle.dumps(error))
    assert vars(copy) == vars(error)
    assert str(copy) == str(error)


@pytest.mark.parametrize(
    ("step", "died"),
    [
        ("begin", None),
        ("called", 0),
        ("keep", 0),
        ("kept", 0),
        ("send", 2),
        ("sent", None),
        ("clear", None),
    ],
)
def test_a_task_is_neither_lost_nor_done_twice_wherever_its_worker_dies(
    dragon: BaseContext, tmp_path: Path, step: str, died: int | None
) -> None:
    counts: Any = dragon.RawArray("i", 9)
    initargs = (counts, step, str(tmp_path / "mark"))
    with dragon.Pool(1, share_and_die_at, initargs) as pool:
        results = outcomes(pool.imap(count, range(9), 3))
    assert results == [WorkerDied if x == died else x for x in range(9)]
    assert list(counts) == [1] * 9
    assert (tmp_path / "mark").exists()


def test_a_worker_that_dies_while_it_sends_a_result_fails_that_call(dragon: BaseContext) -> None:
    counts: Any = dragon.RawArray("i", 3)
    with dragon.Pool(1, share, (counts,)) as pool:
        results = outcomes(pool.imap(result_that_kills, range(3), 3))
    assert results == [0, WorkerDied, 2]
    assert list(counts) == [1] * 3


def test_an_argument_that_kills_whoever_unpickles_it_fails_its_call(dragon: BaseContext) -> None:
    with dragon.Pool(1) as pool:
        with pytest.raises(WorkerDied):
            pool.apply(square, (DiesOnArrival(),))
        assert pool.apply(square, (3,)) == 9


def test_a_storm_of_kills_loses_no_call_and_repeats_none(dragon: BaseContext) -> None:
    n, seed = 400, random.randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    counts: Any = dragon.RawArray("i", n)
    with dragon.Pool(3, share, (counts,)) as pool:
        results = pool.imap_unordered(count, range(n), 5)
        seen = []
        for _ in range(n):
            if chance.random() < 0.05:
                # Three in a row that are killed before they are ready would break the pool.
                ready = [place for place in pool._dispatcher.places if place.is_ready]
                if ready:
                    chance.choice(ready).process.kill()
            try:
                seen.append(next(results))
            except WorkerDied:
                seen.append(None)
        with pytest.raises(StopIteration):
            next(results)
        assert pool.map(square, range(9)) == [x * x for x in range(9)]
    there = [x for x in seen if x is not None]
    assert len(there) == len(set(there))
    assert all(counts[x] == 1 for x in there)
    assert max(counts) == 1


def test_idle_workers_that_die_fail_nothing(dragon: BaseContext) -> None:
    with dragon.Pool(2) as pool:
        for _ in range(3):
            pids = [worker.pid for worker in pool._pool]
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            assert all_gone(pids)
            assert pool.apply_async(own_pid).get(20) not in pids


def test_a_closed_pool_replaces_workers_until_all_calls_have_ended(dragon: BaseContext) -> None:
    counts: Any = dragon.RawArray("i", 8)
    pool = dragon.Pool(1, share, (counts,))
    results = pool.imap(die_at_two_and_five, range(8), 8)
    pool.close()
    pool.join()
    assert outcomes(results) == [0, 1, WorkerDied, 3, 4, WorkerDied, 6, 7]
    assert not any(worker.is_alive() for worker in pool._pool)


def test_a_worker_that_dies_in_a_call_takes_its_own_pool_along(dragon: BaseContext) -> None:
    with dragon.Pool(1) as pool:
        pids = pool.apply(inner_pids, (0,))
        with pytest.raises(WorkerDied):
            pool.apply(die, ("SIGKILL",))
        assert all_gone(pids)


def test_a_killed_worker_fails_a_call_that_others_wait_beside(dragon: BaseContext) -> None:
    counts: Any = dragon.RawArray("i", 2)
    entered, gate = dragon.Semaphore(0), dragon.Semaphore(0)
    with dragon.Pool(2, share, (counts, (entered, gate))) as pool:
        calls = [pool.apply_async(pass_gate, (x,)) for x in range(2)]
        assert entered.acquire(timeout=20)
        assert entered.acquire(timeout=20)
        os.kill(pool._pool[0].pid, signal.SIGKILL)
        assert until(lambda: any(call.ready() for call in calls))
        (dead,) = [call for call in calls if call.ready()]
        (alive,) = [call for call in calls if call is not dead]
        with pytest.raises(WorkerDied):
            dead.get()
        gate.release()
        assert alive.get(20) in (0, 1)


def test_ctrl_c_ends_the_program_with_one_traceback(run: Callable[..., Outcome]) -> None:
    done = run(
        """
import multiprocessing, os, signal, time
def work(ready):
    ready.release()
    time.sleep(60)
def tell(ready):
    for _ in range(2):
        ready.acquire()
    os.killpg(0, signal.SIGINT)
if __name__ == "__main__":
    context = multiprocessing.get_context("dragon")
    manager = context.Manager()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ready = manager.Semaphore(0)
    with context.Pool(3) as pool:
        pool.apply_async(tell, (ready,))
        pool.map(work, [ready] * 2, 1)
""",
        start_new_session=True,
    )
    assert done.stderr.count("Traceback (most recent call last)") == 1
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
    assert done.status == -signal.SIGINT


def test_a_pool_that_breaks_while_the_interpreter_is_shut_down_is_quiet(
    run: Callable[..., Outcome],
) -> None:
    # The pool's thread needs BrokenProcessPool then, whose module refuses to be imported.
    done = run(
        """
import sys, threading
from dragon_overlay.pool import dispatcher
assert "concurrent.futures.process" not in sys.modules
threading._SHUTTING_DOWN = True
error = dispatcher._broken(1, "it was interrupted")
threading._SHUTTING_DOWN = False
print(type(error).__name__, "it was interrupted" in str(error))
"""
    )
    assert (done.stdout, done.stderr, done.status) == ("RuntimeError True\n", "", 0)
