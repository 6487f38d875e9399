"""Errors and results that are awkward to carry, and pools that are used in unusual ways."""

import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import pool as stock
from multiprocessing.context import BaseContext
from typing import Any

import pytest
from children import Refuses, RefusesToArrive, add, own_pid, square
from overlay_support import n_blocks, until
from pool_children import (
    Unusual,
    bad_repr,
    count,
    interrupt,
    leave,
    pass_gate,
    pools_in_pools,
    queue_with,
    raise_one_that_does_not_arrive,
    raise_one_that_does_not_leave,
    raise_unusual,
    share,
)


@pytest.fixture(scope="module")
def shared_pool() -> Iterator[Any]:
    """A pool that tests use which leave it as it was."""
    with multiprocessing.get_context("dragon").Pool(2) as pool:
        yield pool


# ---- what comes back ----


def test_an_exit_in_a_task_is_named_and_ends_nothing(shared_pool: Any) -> None:
    before = [worker.pid for worker in shared_pool._pool]
    with pytest.raises(RuntimeError, match=r"SystemExit\('enough'\)") as caught:
        shared_pool.apply(leave, ("enough",))
    assert "in leave" in str(caught.value.__cause__)
    with pytest.raises(RuntimeError, match="KeyboardInterrupt"):
        shared_pool.apply(interrupt, (1,))
    assert [worker.pid for worker in shared_pool._pool] == before


def test_an_exception_that_is_no_exception_comes_back(shared_pool: Any) -> None:
    with pytest.raises(Unusual, match="a text") as caught:
        shared_pool.apply(raise_unusual, ("a text",))
    assert "in raise_unusual" in str(caught.value.__cause__)


def test_an_exception_that_cannot_be_pickled_arrives_as_its_text(shared_pool: Any) -> None:
    with pytest.raises(stock.MaybeEncodingError, match="lock") as caught:
        shared_pool.apply(raise_one_that_does_not_leave, (1,))
    assert "in raise_one_that_does_not_leave" in str(caught.value.__cause__)


def test_an_exception_that_cannot_be_unpickled_arrives_as_its_text(shared_pool: Any) -> None:
    with pytest.raises(stock.MaybeEncodingError, match="5 and 5") as caught:
        shared_pool.apply(raise_one_that_does_not_arrive, (5,))
    assert "in raise_one_that_does_not_arrive" in str(caught.value.__cause__)
    with pytest.raises(stock.MaybeEncodingError):
        shared_pool.map(raise_one_that_does_not_arrive, range(3))


def test_a_result_that_cannot_be_unpickled_is_an_error_of_its_call(shared_pool: Any) -> None:
    with pytest.raises(stock.MaybeEncodingError, match="refuses to arrive") as caught:
        shared_pool.apply(RefusesToArrive)
    assert "in _refuse" in str(caught.value.__cause__)
    assert shared_pool.apply(square, (3,)) == 9


def test_a_result_that_can_be_neither_pickled_nor_shown_is_an_error(shared_pool: Any) -> None:
    with pytest.raises(stock.MaybeEncodingError, match="refuses to be pickled"):
        shared_pool.apply(bad_repr, (1,))
    with pytest.raises(stock.MaybeEncodingError, match="refuses to be pickled"):
        shared_pool.apply(Refuses)


def test_a_result_that_is_an_object_of_the_runtime_arrives_and_lives(shared_pool: Any) -> None:
    start = n_blocks()
    for x in range(20):
        assert shared_pool.apply(queue_with, (x,)).get(timeout=20) == x
    call = shared_pool.map_async(queue_with, range(10), 5, callback=lambda queues: None)
    assert [queue.get(timeout=20) for queue in call.get(20)] == list(range(10))
    del call
    assert until(lambda: n_blocks() <= start + 10)


def test_an_argument_that_cannot_be_unpickled_is_an_error_of_its_calls(shared_pool: Any) -> None:
    with pytest.raises(ArithmeticError, match="refuses to arrive") as caught:
        shared_pool.apply(square, (RefusesToArrive(),))
    assert "in _refuse" in str(caught.value.__cause__)
    results = shared_pool.imap(square, [RefusesToArrive(), 1, 2, 3], 2)
    for _ in range(2):
        with pytest.raises(ArithmeticError):
            next(results)
    assert list(results) == [4, 9]


def test_an_interrupt_of_the_terminal_leaves_idle_workers_alone(shared_pool: Any) -> None:
    before = sorted(worker.pid for worker in shared_pool._pool)
    for pid in before:
        os.kill(pid, signal.SIGINT)
    assert shared_pool.map(square, range(8), 1) == [x * x for x in range(8)]
    assert sorted(worker.pid for worker in shared_pool._pool) == before
    assert shared_pool.apply(own_pid) in before


def test_a_callback_that_fails_holds_nobody_up(
    shared_pool: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(value: Any) -> None:
        raise ValueError("the callback fails")

    call = shared_pool.apply_async(square, (3,), callback=fails)
    assert call.get(20) == 9
    assert shared_pool.map_async(square, [4], callback=fails).get(20) == [16]
    assert capsys.readouterr().err.count("the callback fails\n") == 2


def test_a_callback_that_takes_its_time_holds_no_other_call_up(shared_pool: Any) -> None:
    called, go_on = threading.Event(), threading.Event()

    def waits(value: Any) -> None:
        called.set()
        go_on.wait(20)

    first = shared_pool.apply_async(square, (3,), callback=waits)
    assert called.wait(20)
    assert shared_pool.map(square, range(20), 1) == [x * x for x in range(20)]
    assert not first.ready()
    go_on.set()
    assert first.get(20) == 9


# ---- how pools are used ----


def test_calls_without_a_result_are_told_that_the_pool_was_terminated(dragon: BaseContext) -> None:
    counts = dragon.RawArray("i", 9)
    entered, gate = dragon.Semaphore(0), dragon.Semaphore(0)
    pool = dragon.Pool(1, share, (counts, (entered, gate)))
    calls = [pool.apply_async(pass_gate, (0,)), pool.map_async(pass_gate, range(4))]
    results = pool.imap(pass_gate, range(4))
    assert entered.acquire(timeout=20)
    pool.terminate()
    for get in (calls[0].get, calls[1].get, lambda: next(results)):
        with pytest.raises(multiprocessing.ProcessError, match="terminated"):
            get()
    assert list(results) == []
    pool.join()


def test_an_iterable_without_an_end_is_not_read_far_ahead(dragon: BaseContext) -> None:
    n_read = itertools.count()
    pool = dragon.Pool(1)
    results = pool.imap(square, (next(n_read) for _ in itertools.repeat(None)))
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    pool.terminate()
    pool.join()
    first = next(n_read)
    threads = [t for t in threading.enumerate() if t.name == "dragon-pool-reader"]
    assert until(lambda: not any(t.is_alive() for t in threads))
    assert next(n_read) <= first + 2


def test_an_iterable_that_fails_gives_its_error_after_the_results_before_it(
    shared_pool: Any,
) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("the iterable fails")

    results = shared_pool.imap(square, items())
    assert next(results) == 1
    with pytest.raises(ValueError, match="the iterable fails"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)
    with pytest.raises(TypeError):
        next(shared_pool.imap(square, 5))

    class Sized:
        def __len__(self) -> int:
            return 3

        def __iter__(self) -> Any:
            return items()

    call = shared_pool.map_async(square, Sized())
    with pytest.raises(ValueError, match="the iterable fails"):
        call.get(20)


def test_a_closed_pool_reads_an_iterable_to_its_end(dragon: BaseContext) -> None:
    go_on = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        go_on.wait(20)
        yield 2

    pool = dragon.Pool(1)
    results = pool.imap(square, items())
    pool.close()
    assert next(results) == 1
    go_on.set()
    pool.join()
    assert list(results) == [4]


def test_pools_in_pools_in_pools(dragon: BaseContext) -> None:
    with dragon.Pool(1) as pool:
        assert pool.apply(pools_in_pools, (2,)) == 7


def test_several_pools_and_pools_made_by_threads_work_side_by_side(dragon: BaseContext) -> None:
    results: dict[int, Any] = {}

    def use_a_pool(i: int) -> None:
        with dragon.Pool(2) as pool:
            results[i] = pool.starmap(add, [(i, x) for x in range(20)], 1)

    threads = [threading.Thread(target=use_a_pool, args=(i,)) for i in range(3)]
    with dragon.Pool(1) as pool:
        for thread in threads:
            thread.start()
        assert pool.map(square, range(20)) == [x * x for x in range(20)]
        for thread in threads:
            thread.join(25)
    assert results == {i: [i + x for x in range(20)] for i in range(3)}


def test_one_pool_is_used_by_many_threads(shared_pool: Any) -> None:
    results: dict[int, Any] = {}

    def use(i: int) -> None:
        results[i] = [shared_pool.apply(add, (i, x)) for x in range(30)]

    threads = [threading.Thread(target=use, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(25)
    assert results == {i: [i + x for x in range(30)] for i in range(4)}


def test_a_pool_that_cannot_start_leaves_no_worker_and_no_descriptor(dragon: BaseContext) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(ArithmeticError, match="refuses"):
            dragon.Pool(2, print, (Refuses(),))
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_a_call_after_the_end_is_refused(dragon: BaseContext) -> None:
    pool = dragon.Pool(1)
    with pytest.raises(ValueError, match="still running"):
        pool.join()
    pool.close()
    for call in (pool.apply, pool.map_async, pool.imap, pool.starmap):
        with pytest.raises(ValueError, match="not running"):
            call(count, ())
    pool.join()
    pool.terminate()
    pool.join()
