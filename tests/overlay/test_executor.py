"""ProcessPoolExecutor over the runtime."""

import concurrent.futures
import gc
import multiprocessing
import threading
import weakref
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
    put_with_lock,
    square,
)
from overlay_support import Outcome

from dragon_overlay import queues


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


def test_calls_carry_locks_queues_and_connections(executor: Any, dragon: BaseContext) -> None:
    queue, (reader, writer) = dragon.Queue(), dragon.Pipe(duplex=False)
    executor.submit(put_with_lock, dragon.Lock(), queue, writer, 5).result(20)
    assert (queue.get(timeout=20), reader.recv()) == (5, 5)


def test_a_call_that_cannot_be_sent_keeps_no_thread_alive(dragon: BaseContext) -> None:
    gc.collect()
    gc.disable()
    try:
        executor: Any = concurrent.futures.ProcessPoolExecutor(1, mp_context=dragon)
        with pytest.raises(Exception, match="pickle"):
            executor.submit(square, threading.Lock()).result(20)
        thread = weakref.ref(executor._executor_manager_thread)
        executor.shutdown()
        del executor
        assert thread() is None
    finally:
        gc.enable()


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
    assert done == ("1 dragon_overlay.executor_manager\n", "", 0)


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
            with thread._moving:  # so that the call is still pending
                executor.submit(square, 3).cancel()
            executor.shutdown(wait=False)
        return ready

    monkeypatch.setattr(connection, "wait", wait)
    assert executor.submit(square, 2).result(20) == 4  # it goes into its next wait, that one
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


# ---- calls that submit puts into the queue itself ----


class SubmitsWhenPickled:
    """Submits a call while the executor pickles it."""

    def __init__(self, executor: Any) -> None:
        self._executor = executor
        self.inner: Any = None

    def __reduce__(self) -> Any:
        self.inner = self._executor.submit(square, 4)
        return int, (3,)


class InterruptsWhenPickled:
    """As if the user interrupted the program while the executor pickles it."""

    def __reduce__(self) -> Any:
        raise KeyboardInterrupt


def test_a_call_that_is_submitted_while_another_is_pickled_runs(executor: Any) -> None:
    outer = SubmitsWhenPickled(executor)
    assert executor.submit(square, outer).result(20) == 9
    assert outer.inner.result(20) == 16


def test_a_submit_that_is_interrupted_leaves_no_call_that_never_ends(dragon: BaseContext) -> None:
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=dragon) as executor:
        # It is pickled by this thread, or by the managing one, which has just been woken.
        with pytest.raises(KeyboardInterrupt):
            executor.submit(square, InterruptsWhenPickled()).result(20)
        assert executor.submit(square, 2).result(20) == 4
    # Leaving the executor waits for all calls.


def test_a_call_that_the_pool_has_no_room_for_fails_alone(
    executor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(*_: Any, **__: Any) -> None:
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(queues.Queue, "put", put)
        future = executor.submit(square, 2)
        with pytest.raises(MemoryError, match="no room"):
            future.result(20)
    assert executor.submit(square, 2).result(20) == 4


def test_the_death_of_a_worker_that_a_later_submit_started_is_seen(dragon: BaseContext) -> None:
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=dragon) as executor:
        naps = [executor.submit(nap, 60)]
        with pytest.raises(BrokenProcessPool):  # at once, not when the nap is over
            executor.submit(kill_self).result(20)
        for future in naps:
            with pytest.raises(BrokenProcessPool):
                future.result(20)


def test_many_threads_submit_and_all_calls_are_done(executor: Any) -> None:
    results: list[list[int]] = []

    def submit_and_collect() -> None:
        futures = [executor.submit(square, i) for i in range(200)]
        results.append([future.result(60) for future in futures])

    threads = [threading.Thread(target=submit_and_collect) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[i * i for i in range(200)]] * 4
