"""Processes, pools, executors."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from mp.groups import group
from mp.measure import Operation, Recorder
from mp.partner import MIB, payload, with_numpy

_N_BURST = 100
_N_BLOCKS = 64


def nothing(*_: Any) -> None:
    """Do nothing."""


def increment(x: int) -> int:
    """Do almost nothing."""
    return x + 1


def echo(x: Any) -> Any:
    """Return what comes."""
    return x


def length(x: Sequence[Any]) -> int:
    """Return little for much."""
    return len(x)


def make(n: int) -> bytes:
    """Return much for little."""
    return b"r" * n


@group("process")
def processes(context: Any, recorder: Recorder) -> None:
    """One after the other, and a burst."""

    def start_and_join() -> None:
        process = context.Process(target=nothing)
        process.start()
        process.join()
        process.close()

    def start() -> float:
        process = context.Process(target=nothing)
        begin = time.perf_counter()
        process.start()
        took_s = time.perf_counter() - begin
        process.join()
        return took_s

    def burst() -> None:
        started = [context.Process(target=nothing, args=(i,)) for i in range(_N_BURST)]
        for process in started:
            process.start()
        for process in started:
            process.join()

    recorder.once_ms("process.start_join", start_and_join, warm_up=2)
    recorder.once_ms("process.start_call", start, warm_up=1)
    recorder.once_ms(f"process.burst{_N_BURST}", burst)


@group("pool.start")
def pool_start(context: Any, recorder: Recorder) -> None:
    """To the first result, and to the end."""

    def begin() -> float:
        begin = time.perf_counter()
        pool = context.Pool(recorder.n_workers)
        pool.apply(nothing)
        took_s = time.perf_counter() - begin
        pool.terminate()
        pool.join()
        return took_s

    def end() -> float:
        pool = context.Pool(recorder.n_workers)
        pool.apply(nothing)
        begin = time.perf_counter()
        pool.close()
        pool.join()
        return time.perf_counter() - begin

    recorder.once_ms(f"pool.startup{recorder.n_workers}", begin, warm_up=1)
    recorder.once_ms(f"pool.close_join{recorder.n_workers}", end)


def _thousands(n: int) -> str:
    return f"{n // 1000}k"


@group("pool.calls")
def pool_calls(context: Any, recorder: Recorder) -> None:
    """One task at a time."""
    with context.Pool(recorder.n_workers) as pool:

        def apply(n: int) -> None:
            for _ in range(n):
                pool.apply(increment, (1,))

        def apply_async(n: int) -> None:
            for result in [pool.apply_async(increment, (i,)) for i in range(n)]:
                result.get()

        recorder.time_us("pool.apply.lat", apply)
        recorder.rate("pool.apply_async.rate", apply_async, "1/s", most=50_000)


@group("pool.maps")
def pool_maps(context: Any, recorder: Recorder) -> None:
    """Many small tasks."""
    n, n_some = recorder.n_tasks, recorder.n_tasks // 5
    with context.Pool(recorder.n_workers) as pool:

        def by_one() -> None:
            check(pool.map(increment, range(n), 1), n)

        def by_default() -> None:
            check(pool.map(increment, range(n)), n)

        def unordered() -> None:
            check(sorted(pool.imap_unordered(increment, range(n_some))), n_some)

        def by_hundred() -> None:
            check(list(pool.imap(increment, range(n_some), 100)), n_some)

        def star() -> None:
            pool.starmap(nothing, [(i, i) for i in range(n_some)])

        pool.map(increment, range(1000), 1)
        recorder.once_ms(f"pool.map{_thousands(n)}.chunk1", by_one)
        recorder.once_ms(f"pool.map{_thousands(n)}.chunkdef", by_default)
        recorder.once_ms(f"pool.imap_unordered{_thousands(n_some)}.chunk1", unordered)
        recorder.once_ms(f"pool.imap{_thousands(n_some)}.chunk100", by_hundred)
        recorder.once_ms(f"pool.starmap{_thousands(n_some)}.chunkdef", star)


def check(results: list[int], n: int) -> None:
    """That what was measured was done."""
    if results != list(range(1, n + 1)):
        raise RuntimeError("a pool returned wrong results")


@group("pool.blocks")
def pool_blocks(context: Any, recorder: Recorder) -> None:
    """Few large tasks."""
    with context.Pool(recorder.n_workers) as pool:
        each = _N_BLOCKS * MIB / 1e6

        def mapping(function: Any, arguments: list[Any]) -> Operation:
            def operation(n: int) -> None:
                for _ in range(n):
                    pool.map(function, arguments, 1)

            return operation

        blocks = [payload(MIB)] * _N_BLOCKS
        recorder.rate("pool.map1M.args", mapping(length, blocks), "MB/s", each, most=20)
        recorder.rate("pool.map1M.results", mapping(make, [MIB] * _N_BLOCKS), "MB/s", each, most=20)
        recorder.rate("pool.map1M.echo", mapping(echo, blocks), "MB/s", each, most=20)
        for kind in with_numpy([("numpy", MIB)]):
            arrays = [payload(kind)] * _N_BLOCKS
            recorder.rate("pool.map1M.numpy_echo", mapping(echo, arrays), "MB/s", each, most=20)


@group("executor")
def executor(context: Any, recorder: Recorder) -> None:
    """The standard library's executor."""
    measure_executor(
        "executor", lambda: ProcessPoolExecutor(recorder.n_workers, mp_context=context), recorder
    )


def measure_executor(name: str, new: Any, recorder: Recorder) -> None:
    """Measure an executor, which new makes."""

    def begin() -> float:
        begin = time.perf_counter()
        with new() as started:
            started.submit(increment, 1).result()
            return time.perf_counter() - begin

    recorder.once_ms(f"{name}.startup{recorder.n_workers}", begin)
    n_map = recorder.n_tasks // 10
    with new() as running:

        def call(n: int) -> None:
            for _ in range(n):
                running.submit(increment, 1).result()

        def submit(n: int) -> None:
            for future in [running.submit(increment, i) for i in range(n)]:
                future.result()

        def by_one() -> None:
            check(list(running.map(increment, range(n_map))), n_map)

        def by_hundred() -> None:
            check(list(running.map(increment, range(n_map), chunksize=100)), n_map)

        recorder.time_us(f"{name}.submit_result.lat", call)
        recorder.rate(f"{name}.submit.rate", submit, "1/s", most=20_000)
        recorder.once_ms(f"{name}.map{_thousands(n_map)}.chunk1", by_one)
        recorder.once_ms(f"{name}.map{_thousands(n_map)}.chunk100", by_hundred)
