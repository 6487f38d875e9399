"""dragon.ProcessPoolExecutor: a dead worker fails one future, the others go on."""

import concurrent.futures
import multiprocessing
import threading
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pytest
from children import add, fail, initialise, is_initialised, kill_self, own_pid, square
from overlay_support import Outcome, all_gone, until
from pool_children import (
    count,
    die_at_first,
    die_at_three,
    hang_at_three,
    keywords,
    leave,
    pass_gate,
    share,
)

from dragon_overlay.errors import TaskTimeout, WorkerDied
from dragon_overlay.pool.executor import ProcessPoolExecutor


@pytest.fixture
def executor() -> Iterator[Any]:
    with ProcessPoolExecutor(2) as executor:
        yield executor


class Gated:
    """An executor of one worker, whose calls of pass_gate wait."""

    def __init__(self, dragon: Any) -> None:
        self.counts = dragon.RawArray("i", 9)
        self.entered, self.gate = dragon.Semaphore(0), dragon.Semaphore(0)
        gates = self.entered, self.gate
        self.executor = ProcessPoolExecutor(1, None, share, (self.counts, gates))

    def submit_running(self) -> Any:
        future = self.executor.submit(pass_gate, 0)
        assert self.entered.acquire(timeout=20)
        return future


@pytest.fixture
def gated(dragon: Any) -> Iterator[Gated]:
    gated = Gated(dragon)
    yield gated
    gated.executor.shutdown(kill_workers=True)


def test_calls_get_all_their_arguments(executor: Any) -> None:
    assert executor.submit(add, 1, y=2).result(20) == 3
    assert executor.submit(keywords, timeout=1, retries=2, fn=3).result(20) == {
        "timeout": 1,
        "retries": 2,
        "fn": 3,
    }
    assert isinstance(executor, concurrent.futures.Executor)
    assert isinstance(executor.submit(square, 1), concurrent.futures.Future)


def test_map_gives_results_in_order_and_errors_in_their_place(executor: Any) -> None:
    assert list(executor.map(square, range(30))) == [x * x for x in range(30)]
    assert list(executor.map(add, range(9), range(5), chunksize=2)) == [0, 2, 4, 6, 8]
    assert list(executor.map(add, [], [])) == []
    results = executor.map(fail, range(3))
    with pytest.raises(ValueError, match="task 0 fails"):
        next(results)
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(square, [1], chunksize=0)


def test_the_timeout_of_map_is_for_all_results(gated: Gated) -> None:
    results = gated.executor.map(pass_gate, range(2), timeout=0.05)
    with pytest.raises(TimeoutError) as caught:
        next(results)
    assert not isinstance(caught.value, TaskTimeout)


@pytest.mark.parametrize("chunksize", [1, 3])
def test_only_the_future_of_a_dead_worker_fails(dragon: Any, chunksize: int) -> None:
    counts = dragon.RawArray("i", 8)
    with ProcessPoolExecutor(2, None, share, (counts,)) as executor:
        calls = [executor.submit(die_at_three, x) for x in range(8)]
        assert [type(call.exception(20)) for call in calls] == [
            WorkerDied if x == 3 else type(None) for x in range(8)
        ]
        assert list(counts) == [1] * 8
        results = executor.map(die_at_three, range(8), chunksize=chunksize)
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(WorkerDied):
            next(results)
        assert executor.submit(square, 3).result(20) == 9


def test_the_librarys_executor_keeps_its_contract(dragon: Any) -> None:
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=dragon) as executor:
        calls = [executor.submit(kill_self), *[executor.submit(square, x) for x in range(3)]]
        for call in calls:
            with pytest.raises(BrokenProcessPool):
                call.result(20)


def test_options_come_by_another_way_than_arguments(dragon: Any) -> None:
    counts = dragon.RawArray("i", 6)
    with ProcessPoolExecutor(1, None, share, (counts,)) as executor:
        with pytest.raises(TaskTimeout, match="hang_at_three"):
            executor.with_options(timeout=0.3).submit(hang_at_three, 3).result(20)
        counts[3] = 0
        patient = executor.with_options(retries=2)
        assert list(patient.map(die_at_first, range(6), chunksize=3)) == list(range(6))
        with pytest.raises(ValueError, match="retries"):
            executor.with_options(retries=-1)


def test_a_call_under_way_cannot_be_cancelled_and_a_pending_one_can(gated: Gated) -> None:
    running = gated.submit_running()
    pending = gated.executor.submit(count, 1)
    assert running.running()
    assert not running.cancel()
    assert pending.cancel()
    gated.gate.release()
    assert running.result(20) == 0
    assert gated.executor.submit(count, 2).result(20) == 2
    assert list(gated.counts) == [1, 0, 1, 0, 0, 0, 0, 0, 0]


def test_cancelled_calls_are_left_out_of_those_that_go_together(gated: Gated) -> None:
    running = gated.submit_running()
    calls = [gated.executor.submit(count, x) for x in range(1, 9)]
    for x in (1, 3, 4, 8):
        assert calls[x - 1].cancel()
    gated.gate.release()
    assert running.result(20) == 0
    assert [call.result(20) for call in calls if not call.cancelled()] == [2, 5, 6, 7]
    assert list(gated.counts) == [1, 0, 1, 0, 0, 1, 1, 1, 0]


def test_kill_ends_a_call_under_way_and_its_worker(gated: Gated) -> None:
    pid = gated.executor.submit(own_pid).result(20)
    running = gated.submit_running()
    pending = gated.executor.submit(own_pid)
    running.kill()
    with pytest.raises(WorkerDied, match="SIGKILL"):
        running.result(20)
    assert pending.result(20) != pid
    running.kill()  # it has ended


def test_a_killed_call_is_not_retried_and_a_pending_one_is_cancelled(gated: Gated) -> None:
    running = gated.executor.with_options(retries=3).submit(pass_gate, 0)
    assert gated.entered.acquire(timeout=20)
    pending = gated.executor.submit(count, 1)
    pending.kill()
    assert pending.cancelled()
    running.kill()
    with pytest.raises(WorkerDied):
        running.result(20)


def test_shutdown_waits_for_what_is_pending(gated: Gated) -> None:
    running = gated.submit_running()
    pending = gated.executor.submit(count, 1)
    gated.executor.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="after shutdown"):
        gated.executor.submit(count, 2)
    gated.gate.release()
    gated.executor.shutdown()
    assert (running.result(0), pending.result(0)) == (0, 1)


def test_shutdown_cancels_or_kills_when_told(gated: Gated) -> None:
    pid = gated.executor.submit(own_pid).result(20)
    running, pending = gated.submit_running(), gated.executor.submit(count, 1)
    gated.executor.shutdown(wait=False, cancel_futures=True)
    assert pending.cancelled()
    assert running.running()
    gated.executor.shutdown(kill_workers=True)
    with pytest.raises(WorkerDied):
        running.result(0)
    assert all_gone([pid])


def test_an_executor_that_nobody_has_any_more_ends() -> None:
    executor = ProcessPoolExecutor(1)
    pid = executor.submit(own_pid).result(20)
    future = executor.submit(square, 3)
    del executor
    assert future.result(20) == 9
    assert until(lambda: all_gone([pid]))


def test_workers_that_cannot_start_break_the_executor(capfd: pytest.CaptureFixture[str]) -> None:
    with ProcessPoolExecutor(1, initializer=fail, initargs=(4,)) as executor:
        with pytest.raises(BrokenProcessPool, match="task 4 fails"):
            executor.submit(square, 2).result(20)
        with pytest.raises(BrokenProcessPool, match="task 4 fails"):
            executor.submit(square, 2)
    assert capfd.readouterr().err.count("ValueError: task 4 fails") == 3


def test_initializers_and_the_end_after_some_tasks() -> None:
    with ProcessPoolExecutor(
        1, initializer=initialise, initargs=(5,), max_tasks_per_child=2
    ) as executor:
        assert executor.submit(is_initialised, 1).result(20) == (5, 1)
        pids = [executor.submit(own_pid).result(20) for _ in range(3)]
        assert len(set(pids)) == 2


def test_callbacks_may_wait_for_other_calls(executor: Any) -> None:
    called = threading.Event()
    results: list[Any] = []

    def then(future: Any) -> None:
        results.append(executor.submit(square, future.result()).result(20))
        called.set()

    executor.submit(square, 3).add_done_callback(then)
    assert called.wait(20)
    assert results == [81]


def test_an_exit_in_a_call_is_named(executor: Any) -> None:
    with pytest.raises(RuntimeError, match=r"SystemExit\(3\)"):
        executor.submit(leave, 3).result(20)


def test_bad_arguments_are_refused() -> None:
    for arguments, error in [
        ({"max_workers": 0}, ValueError),
        ({"initializer": 5}, TypeError),
        ({"max_tasks_per_child": 0}, ValueError),
        ({"mp_context": multiprocessing.get_context("spawn")}, ValueError),
    ]:
        with pytest.raises(error):
            ProcessPoolExecutor(**arguments)


def test_a_program_ends_when_its_calls_have(run: Callable[..., Outcome]) -> None:
    done = run("""
import dragon, time
from dragon.futures import ProcessPoolExecutor
def late():
    time.sleep(0.2)
    print("late", flush=True)
if __name__ == "__main__":
    executor = ProcessPoolExecutor(1)
    executor.submit(late)
    print("end of main", flush=True)
""")
    assert done == ("end of main\nlate\n", "", 0)
