"""Time limits, retries, stacks, and workers that are recycled."""

import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pytest
from children import own_pid, square
from overlay_support import Outcome
from pool_children import (
    count,
    die_at_first,
    die_inside,
    fail_always,
    grow_at_three,
    hang_at_first,
    hang_at_three,
    hang_without_signals,
    nap_briefly,
    pass_gate,
    share,
)
from test_pool_death import outcomes

from dragon_overlay.errors import TaskTimeout, WorkerDied
from dragon_overlay.pool.clock import Clock

#: Long enough for a call that does nothing, on a busy machine.
SHORT_S = 0.5


@pytest.mark.parametrize("chunksize", [1, 4, 8])
def test_only_the_call_whose_time_is_over_fails(dragon: Any, chunksize: int) -> None:
    counts: Any = dragon.RawArray("i", 8)
    with dragon.Pool(1, share, (counts,)) as pool:
        (worker,) = pool._pool
        results = outcomes(pool.imap(hang_at_three, range(8), chunksize, timeout=SHORT_S))
        assert pool.apply(own_pid) != worker.pid
    assert results == [0, 1, 2, TaskTimeout, 4, 5, 6, 7]
    assert list(counts) == [1] * 8


def test_a_timeout_is_of_both_kinds_and_shows_where_the_call_hung(dragon: Any) -> None:
    counts: Any = dragon.RawArray("i", 8)
    with dragon.Pool(1, share, (counts,)) as pool:
        (worker,) = pool._pool
        with pytest.raises(TimeoutError) as caught:
            pool.apply(hang_at_three, (3,), timeout=SHORT_S)
    error: Any = caught.value
    assert type(error) is TaskTimeout
    assert isinstance(error, multiprocessing.TimeoutError)
    assert (error.pid, error.worker, error.timeout) == (worker.pid, worker.name, SHORT_S)
    assert "in hang_at_three" in str(error.stack)
    for part in ("hang_at_three", "(3,)", f"{SHORT_S} s", str(error.stack)):
        assert part in str(error)
    copy = pickle.loads(pickle.dumps(error))
    assert vars(copy) == vars(error)
    assert str(copy) == str(error)


def test_a_worker_that_takes_no_signal_is_killed_all_the_same(dragon: Any) -> None:
    with dragon.Pool(1) as pool:
        with pytest.raises(TaskTimeout, match="No Python stack") as caught:
            pool.apply(hang_without_signals, (1,), timeout=SHORT_S)
        assert caught.value.stack is None
        assert pool.apply(square, (3,)) == 9


def test_the_time_of_a_call_begins_with_the_call(dragon: Any) -> None:
    counts: Any = dragon.RawArray("i", 3)
    entered, gate = dragon.Semaphore(0), dragon.Semaphore(0)
    with dragon.Pool(1, share, (counts, (entered, gate))) as pool:
        first = pool.apply_async(pass_gate, (0,))
        assert entered.acquire(timeout=20)
        second = pool.apply_async(count, (1,), timeout=SHORT_S)
        second.wait(2 * SHORT_S)  # behind the first one
        assert not second.ready()
        gate.release()
        assert first.get(20) == 0
        assert second.get(20) == 1


def test_many_short_calls_do_not_add_up(dragon: Any) -> None:
    with dragon.Pool(1) as pool:
        pids = pool.map(nap_briefly, range(30), 30, timeout=SHORT_S)
        assert len(set(pids)) == 1


def test_a_call_that_ends_while_it_is_being_stopped_is_not_killed(
    dragon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: Any = dragon.RawArray("i", 3)
    entered, gate = dragon.Semaphore(0), dragon.Semaphore(0)
    asked: list[Any] = []
    end = Clock._end

    def end_late(self: Any, limit: Any, item: Any) -> None:
        """The call ends, and another one begins, before the worker is stopped."""
        if not asked:
            gate.release()
            assert entered.acquire(timeout=20)
        asked.append(item)
        end(self, limit, item)

    monkeypatch.setattr(Clock, "_end", end_late)
    with dragon.Pool(1, share, (counts, (entered, gate))) as pool:
        (worker,) = pool._pool
        results = pool.map_async(pass_gate, range(2), 2, timeout=SHORT_S)
        assert entered.acquire(timeout=20)
        with pytest.raises(TaskTimeout) as caught:
            results.get(20)
        assert caught.value.pid == worker.pid
        assert caught.value.arguments == "(1,)"
    assert asked == [0, 1]
    assert list(counts) == [1, 0, 0]


def test_retries_repeat_calls_whose_worker_died(dragon: Any) -> None:
    counts: Any = dragon.RawArray("i", 6)
    with dragon.Pool(1, share, (counts,)) as pool:
        assert pool.map(die_at_first, range(6), 3, retries=2) == list(range(6))
    assert list(counts) == [1, 1, 1, 3, 1, 1]


def test_retries_come_to_an_end(dragon: Any) -> None:
    counts: Any = dragon.RawArray("i", 6)
    with dragon.Pool(2, share, (counts,)) as pool:
        results = outcomes(pool.imap(die_at_first, range(6), 2, retries=1))
    assert results == [0, 1, 2, WorkerDied, 4, 5]
    assert list(counts) == [1, 1, 1, 2, 1, 1]


def test_retries_repeat_calls_whose_time_was_over(dragon: Any) -> None:
    counts: Any = dragon.RawArray("i", 6)
    with dragon.Pool(1, share, (counts,)) as pool:
        call = pool.starmap_async(
            hang_at_first, [(x,) for x in range(6)], timeout=SHORT_S, retries=1
        )
        assert call.get(20) == list(range(6))
    assert list(counts) == [1, 1, 1, 2, 1, 1]


def test_retries_do_not_repeat_calls_that_raise(dragon: Any) -> None:
    counts: Any = dragon.RawArray("i", 1)
    with dragon.Pool(1, share, (counts,)) as pool, pytest.raises(ValueError, match="fails"):
        pool.apply(fail_always, (0,), retries=5)
    assert list(counts) == [1]


@pytest.mark.parametrize("how", ["SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE"])
def test_the_stack_of_a_crash_is_in_the_error(dragon: Any, how: str) -> None:
    with dragon.Pool(1) as pool, pytest.raises(WorkerDied) as caught:
        pool.apply(die_inside, (how,))
    assert caught.value.signal == how
    assert "in die_inside" in str(caught.value.stack)
    assert "in die_inside" in str(caught.value)


def test_an_end_without_a_stack_says_so(dragon: Any) -> None:
    with dragon.Pool(1) as pool:
        with pytest.raises(WorkerDied, match="in die_inside"):
            pool.apply(die_inside, ("SIGABRT",))
        with pytest.raises(WorkerDied, match="No Python stack: SIGKILL leaves none") as caught:
            pool.apply(die_inside, ("SIGKILL",))
        assert caught.value.stack is None
        assert not caught.value.is_out_of_memory


def test_a_crash_of_a_program_that_wants_stacks_on_stderr_has_them_there(
    run: Callable[..., Outcome],
) -> None:
    text = """
import multiprocessing, os
if __name__ == "__main__":
    with multiprocessing.get_context("dragon").Pool(1) as pool:
        try:
            pool.apply(os.abort)
        except Exception as error:
            print(type(error).__name__, error.stack)
"""
    done = run(text, options=["-X", "faulthandler"])
    assert (done.stdout, done.status) == ("WorkerDied None\n", 0)
    assert "Fatal Python error: Aborted" in done.stderr


def test_a_worker_with_too_much_memory_is_recycled_after_its_task(dragon: Any) -> None:
    with dragon.Pool(1, max_worker_rss=60 << 20) as pool:
        pids = pool.map(grow_at_three, range(6), 1)
    assert len(set(pids)) == 2
    assert len(set(pids[:4])) == 1
    assert len(set(pids[4:])) == 1


def test_limits_that_make_no_sense_are_refused(dragon: Any) -> None:
    with dragon.Pool(1) as pool:
        with pytest.raises(ValueError, match="timeout must be"):
            pool.apply(square, (1,), timeout=0)
        with pytest.raises(ValueError, match="retries must be"):
            pool.map(square, [1], retries=-1)
        with pytest.raises(ValueError, match="lookahead must be"):
            pool.imap(square, [1], lookahead=0)
    with pytest.raises(ValueError, match="max_worker_rss must be"):
        dragon.Pool(1, max_worker_rss=0)


@pytest.mark.parametrize("chunksize", [1, 2])
def test_imap_reads_no_further_ahead_of_the_program_than_it_is_told(
    dragon: Any, chunksize: int
) -> None:
    n_read = 0
    n_most = 0

    def items() -> Any:
        nonlocal n_read
        for x in range(20):
            n_read += 1
            yield x

    with dragon.Pool(2) as pool:
        results = pool.imap(square, items(), chunksize, lookahead=4)
        for n_taken in range(20):
            assert next(results) == n_taken**2
            n_most = max(n_most, n_read - n_taken)
    # The one that is being read, and the one that was just taken.
    assert n_most <= 4 + chunksize + 1


def test_dragon_offers_the_errors_and_programs_need_not_import_it(
    run: Callable[..., Outcome],
) -> None:
    text = """
import multiprocessing, os, sys
if __name__ == "__main__":
    with multiprocessing.Pool(1) as pool:
        try:
            pool.apply(os._exit, (3,))
        except Exception as error:
            print("dragon" in sys.modules)
            import dragon
            print(type(error) is dragon.WorkerDied, issubclass(dragon.TaskTimeout, TimeoutError))
"""
    done = run(text, options=["--start-method", "dragon"])
    assert done == ("False\nTrue True\n", "", 0)
    assert issubclass(WorkerDied, BrokenProcessPool)
