"""Single calls that go to an idle worker and back past the dispatcher, whatever comes between."""

import concurrent.futures
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from children import square
from overlay_support import until
from pool_children import count, pass_gate, share

from dragon_overlay.pool.executor import ProcessPoolExecutor


class Gated:
    """A pool and an executor, whose calls of pass_gate wait."""

    def __init__(self, dragon: Any) -> None:
        self.counts = dragon.RawArray("i", 9)
        self.entered, self.gate = dragon.Semaphore(0), dragon.Semaphore(0)
        initargs = (self.counts, (self.entered, self.gate))
        self.pool = dragon.Pool(2, share, initargs)
        self.executor = ProcessPoolExecutor(1, None, share, initargs)
        assert self.pool.apply(square, (2,)) == 4
        assert self.executor.submit(square, 2).result() == 4

    def signal_in_call(self) -> threading.Thread:
        """Send SIGUSR1 when a call has begun, and this thread waits for one."""
        main = threading.get_ident()

        def send() -> None:
            self.entered.acquire()
            until(lambda: sys._current_frames()[main].f_code.co_filename.endswith("jobs.py"))
            os.kill(os.getpid(), signal.SIGUSR1)

        thread = threading.Thread(target=send)
        thread.start()
        return thread


@pytest.fixture
def gated(dragon: Any) -> Iterator[Gated]:
    gated = Gated(dragon)
    before = signal.getsignal(signal.SIGUSR1)
    yield gated
    signal.signal(signal.SIGUSR1, before)
    for _ in range(9):
        gated.gate.release()
    gated.executor.shutdown()
    gated.pool.terminate()


def test_a_signal_handler_may_use_the_pool_that_its_thread_waits_for(gated: Gated) -> None:
    seen = []

    def handle(number: int, frame: object) -> None:
        seen.append(gated.pool.apply(square, (3,)))
        gated.gate.release()

    signal.signal(signal.SIGUSR1, handle)
    thread = gated.signal_in_call()
    assert gated.pool.apply(pass_gate, (1,)) == 1
    thread.join()
    assert seen == [9]


def test_a_result_can_be_asked_for_again_after_an_exception_of_a_signal_handler(
    gated: Gated,
) -> None:
    def handle(number: int, frame: object) -> None:
        raise InterruptedError

    signal.signal(signal.SIGUSR1, handle)
    calls: list[Any] = [
        gated.pool.apply_async(pass_gate, (1,)),
        gated.executor.submit(pass_gate, 2),
    ]
    for call in calls:
        with pytest.raises(InterruptedError):
            thread = gated.signal_in_call()
            call.result(20) if isinstance(call, concurrent.futures.Future) else call.get(20)
        thread.join()
    gated.gate.release()
    gated.gate.release()
    assert calls[0].get(20) == 1
    assert calls[1].result(20) == 2


def test_calls_end_that_nobody_waits_for(gated: Gated) -> None:
    result, future = gated.pool.apply_async(count, (1,)), gated.executor.submit(count, 2)
    assert until(result.ready)
    assert until(future.done)
    assert (result.get(), future.result()) == (1, 2)


def test_others_may_wait_for_futures_in_the_librarys_ways(gated: Gated) -> None:
    future = gated.executor.submit(pass_gate, 1)
    results: list[Any] = []
    waits = [
        lambda: concurrent.futures.wait([future]).done,
        lambda: set(concurrent.futures.as_completed([future])),
        lambda: {future} if future.result() == 1 else set(),
        lambda: {future} if future.exception() is None else set(),
    ]
    threads = [threading.Thread(target=lambda wait=wait: results.append(wait())) for wait in waits]
    for thread in threads:
        thread.start()
    assert gated.entered.acquire(timeout=20)
    gated.gate.release()
    for thread in threads:
        thread.join(20)
    assert results == [{future}] * 4


def test_a_callback_that_is_added_while_a_call_is_under_way_is_called(gated: Gated) -> None:
    future, done = gated.executor.submit(pass_gate, 1), threading.Event()
    assert gated.entered.acquire(timeout=20)
    future.add_done_callback(lambda _: done.set())
    gated.gate.release()
    assert future.result(20) == 1
    assert done.wait(20)


def test_a_cancelled_call_lets_those_go_on_that_wait_for_it(gated: Gated) -> None:
    running, pending = gated.executor.submit(pass_gate, 1), gated.executor.submit(count, 2)
    ended = threading.Event()

    def wait() -> None:
        with pytest.raises(concurrent.futures.CancelledError):
            pending.result()
        ended.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert pending.cancel()
    assert ended.wait(20)
    thread.join()
    gated.gate.release()
    assert running.result(20) == 1
    assert gated.counts[2] == 0


def test_threads_that_wait_for_calls_of_a_pool_go_on_beside_a_map(gated: Gated) -> None:
    results: list[Any] = []

    def calls(first: int) -> None:
        results.append([gated.pool.apply(square, (x,)) for x in range(first, first + 100)])

    threads = [threading.Thread(target=calls, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    assert gated.pool.map(square, range(5000), 1) == [x * x for x in range(5000)]
    for thread in threads:
        thread.join()
    assert sorted(results) == [[x * x for x in range(n, n + 100)] for n in range(4)]
