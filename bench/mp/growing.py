"""Measure one point of how cost grows: growing.py KIND METHOD NUMBER. Prints the number."""

from __future__ import annotations

import multiprocessing
import sys
import time
from typing import Any

#: How many messages all producers send together, as a rule.
_N_MESSAGES = 50_000
#: How many bytes of messages are sent, as a rule.
_N_BYTES = 256 << 20


def _put(queue: Any, ready: Any, n: int, size: int | None) -> None:
    message = 7 if size is None else b"x" * size
    ready.wait()
    for _ in range(n):
        queue.put(message)


def _get(queue: Any, ready: Any, n: int) -> None:
    ready.wait()
    for _ in range(n):
        queue.get()


def parties(context: Any, n: int) -> float:
    """Microseconds a message that n producers send to n consumers."""
    each = max(20, _N_MESSAGES // n)
    queue, ready = context.Queue(), context.Barrier(2 * n + 1)
    workers = [context.Process(target=_put, args=(queue, ready, each, None)) for _ in range(n)]
    workers += [context.Process(target=_get, args=(queue, ready, each)) for _ in range(n)]
    for worker in workers:
        worker.start()
    ready.wait()
    begin = time.perf_counter()
    for worker in workers:
        worker.join()
    return (time.perf_counter() - begin) / each / n * 1e6


def depth(context: Any, n: int) -> float:
    """Microseconds an object, where n are put before the first is taken."""
    queue = context.Queue()
    rounds = max(1, 10_000 // n)
    begin = time.perf_counter()
    for _ in range(rounds):
        for i in range(n):
            queue.put(i)
        for _ in range(n):
            queue.get()
    took_s = time.perf_counter() - begin
    queue.close()
    queue.join_thread()
    return took_s / rounds / n * 1e6


def size(context: Any, n: int) -> float:
    """Microseconds a message of n bytes, one way."""
    count = max(3, min(20_000, _N_BYTES // n))
    queue, ready = context.Queue(4), context.Barrier(2)
    taker = context.Process(target=_get, args=(queue, ready, count))
    taker.start()
    message = b"x" * n
    ready.wait()
    begin = time.perf_counter()
    for _ in range(count):
        queue.put(message)
    taker.join()
    return (time.perf_counter() - begin) / count * 1e6


def nothing(_: int) -> None:
    """Do nothing."""


def workers(context: Any, n: int) -> float:
    """Milliseconds a worker, of a pool that is started, called as often, and ended."""
    begin = time.perf_counter()
    pool = context.Pool(n)
    pool.map(nothing, range(n), 1)
    pool.close()
    pool.join()
    return (time.perf_counter() - begin) / n * 1e3


def main() -> None:
    """Run the command line."""
    kind, method, number = sys.argv[1:]
    kinds = {"parties": parties, "depth": depth, "size": size, "workers": workers}
    print(kinds[kind](multiprocessing.get_context(method), int(number)))


if __name__ == "__main__":
    main()
