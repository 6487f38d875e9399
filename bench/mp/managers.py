"""Managers and their proxies."""

from __future__ import annotations

import time
from typing import Any

from mp.groups import group
from mp.measure import Recorder
from mp.partner import MIB, payload


@group("manager")
def manager(context: Any, recorder: Recorder) -> None:
    """A dict, a list, a queue and a lock of a manager."""

    def start() -> float:
        begin = time.perf_counter()
        started = context.Manager()
        started.dict()
        took_s = time.perf_counter() - begin
        started.shutdown()
        return took_s

    with context.Manager() as running:
        _measure_dict(running, recorder)
        items, queue, lock = running.list(), running.Queue(), running.Lock()

        def append(n: int) -> None:
            for i in range(n):
                items.append(i)

        def put_and_get(n: int) -> None:
            for i in range(n):
                queue.put(i)
                queue.get()

        def enter_and_leave(n: int) -> None:
            for _ in range(n):
                with lock:
                    pass

        recorder.time_us("manager.list.append", append, most=100_000)
        recorder.time_us("manager.queue.put_get", put_and_get)
        recorder.time_us("manager.lock", enter_and_leave)
    recorder.once_ms("manager.startup", start)


def _measure_dict(running: Any, recorder: Recorder) -> None:
    items, block = running.dict(), payload(MIB)

    def set_item(n: int) -> None:
        for i in range(n):
            items[f"k{i & 1023}"] = i

    def get_item(n: int) -> None:
        for _ in range(n):
            items["k0"]

    def set_block(n: int) -> None:
        for _ in range(n):
            items["block"] = block

    def get_block(n: int) -> None:
        for _ in range(n):
            items["block"]

    recorder.time_us("manager.dict.set", set_item)
    recorder.time_us("manager.dict.get", get_item)
    recorder.time_us("manager.dict.set1M", set_block)
    recorder.time_us("manager.dict.get1M", get_block)
