"""ProcessPoolExecutor over the runtime."""

import concurrent.futures
import multiprocessing
import threading
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from multiprocessing.context import BaseContext
from typing import Any

import numpy
import pytest
from children import (
    add,
    doubled,
    fail,
    initialise,
    is_initialised,
    kill_self,
    nap,
    nap_and_exit,
    square,
)
from overlay_support import Outcome


@pytest.fixture
def executor() -> Iterator[concurrent.futures.ProcessPoolExecutor]:
    context = multiprocessing.get_context("dragon")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
        yield executor


def test_an_executor_maps_and_submits(executor: Any) -> None:
    assert list(executor.map(square, range(30), chunksize=4)) == [i * i for i in range(30)]
    assert executor.submit(add, 1, y=2).result(20) == 3


def test_an_executor_passes_arrays_and_errors(executor: Any) -> None:
    array = numpy.ones(50_000)
    assert executor.submit(doubled, array).result(20).sum() == 100_000
    with pytest.raises(ValueError, match="task 7 fails"):
        executor.submit(fail, 7).result(20)
    with pytest.raises(Exception, match="pickle"):
        executor.submit(square, threading.Lock()).result(20)
    assert executor.submit(square, 2).result(20) == 4


def test_a_killed_worker_breaks_the_executor_at_once(dragon: BaseContext) -> None:
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=dragon) as executor:
        pending = executor.submit(nap, 1)
        with pytest.raises(BrokenProcessPool):
            executor.submit(kill_self).result(10)
        with pytest.raises(BrokenProcessPool):
            pending.result(10)


def test_an_executor_uses_the_context_of_the_current_method(run: Callable[..., Outcome]) -> None:
    text = """
import concurrent.futures, multiprocessing
if __name__ == "__main__":
    with concurrent.futures.ProcessPoolExecutor(1) as executor:
        print(executor.submit(abs, -1).result(), type(executor._result_queue).__module__)
"""
    done = run(text, options=["--start-method", "dragon"])
    assert done == ("1 dragon_overlay.queues\n", "", 0)


def test_an_executor_runs_its_initializer_and_renews_its_workers(dragon: BaseContext) -> None:
    with concurrent.futures.ProcessPoolExecutor(
        1, mp_context=dragon, initializer=initialise, initargs=(5,), max_tasks_per_child=1
    ) as executor:
        assert [executor.submit(is_initialised, i).result(20) for i in range(2)] == [(5, 0), (5, 1)]


# ---- races of the standard library's executor, which end in a hang there ----


def test_an_executor_with_nothing_but_a_cancelled_call_left_ends(
    dragon: BaseContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = concurrent.futures.ProcessPoolExecutor(1, mp_context=dragon)
    assert executor.submit(square, 1).result(20) == 1
    thread: Any = executor._executor_manager_thread  # type: ignore[attr-defined]
    stock_wait = connection.wait

    def wait(objects: Any, timeout: float | None = None) -> Any:
        ready = stock_wait(objects, timeout)
        is_for_results = threading.current_thread() is thread and len(objects) > 1
        if is_for_results and not executor._shutdown_thread:  # type: ignore[attr-defined]
            # The thread has seen that something happens, but not yet what.
            executor.submit(square, 3).cancel()
            executor.shutdown(wait=False)
        return ready

    monkeypatch.setattr(connection, "wait", wait)
    executor.submit(square, 2)
    thread.join(20)
    assert not thread.is_alive()


def test_an_executor_breaks_while_a_large_call_is_written(dragon: BaseContext) -> None:
    large = bytes(64 << 20)
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=dragon) as executor:
        futures = [executor.submit(nap_and_exit, 0.2), executor.submit(len, large)]
        for future in futures:
            with pytest.raises(BrokenProcessPool):
                future.result(20)
