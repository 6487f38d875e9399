"""What calls of dragon.managed_memory cost, those with bad descriptions included.

    PYTHONPATH=build/python /usr/bin/python3.11 bench/bench_memory.py

A line an operation: the least of five means over 5000 calls, in microseconds.
"""

from __future__ import annotations

import contextlib
import os
import timeit
from collections.abc import Callable

from dragon.managed_memory import DragonMemoryError, MemoryAlloc, MemoryPool

N_CALLS = 5000
N_REPEATS = 5


def cost_us(call: Callable[[], object]) -> float:
    """Measure a call, which may fail as operations on memory do."""

    def attempt() -> None:
        with contextlib.suppress(DragonMemoryError):
            call()

    return min(timeit.repeat(attempt, number=N_CALLS, repeat=N_REPEATS)) / N_CALLS * 1e6


def main() -> None:
    """Print the table."""
    with MemoryPool(1 << 20, f"bench{os.getpid()}", 5) as pool:
        pool_ser = pool.serialize()
        block_ser = pool.alloc(100).serialize()
        calls: dict[str, Callable[[], object]] = {
            "alloc(100) and free": lambda: pool.alloc(100).free(),
            "attach to a pool": lambda: MemoryPool.attach(pool_ser),
            "attach to a block": lambda: MemoryAlloc.attach(block_ser),
            "bad: no such pool": lambda: MemoryPool.attach(pool_ser + b"x"),
            "bad: no description of a pool": lambda: MemoryPool.attach(b"x" * 40),
            "bad: no description of a block": lambda: MemoryAlloc.attach(block_ser[:-1]),
            "bad: no such block": lambda: MemoryAlloc.attach(block_ser[:-36] + b"\1" * 36),
        }
        for name, call in calls.items():
            print(f"{name:32}{cost_us(call):8.2f} us")


if __name__ == "__main__":
    main()
