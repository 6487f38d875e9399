"""How long an operation takes, and how many there are in a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

#: An operation, done so many times.
Operation = Callable[[int], object]


class Number(NamedTuple):
    """What was measured under one name."""

    values: list[float]
    unit: str
    is_time: bool  # less is better; otherwise more


class Recorder:
    """Measures, and keeps what it measured."""

    def __init__(self, target_s: float, repeats: int, n_tasks: int, n_workers: int) -> None:
        self.numbers: dict[str, Number] = {}
        self.n_tasks = n_tasks
        self.n_workers = n_workers
        self._target_s = target_s
        self._repeats = repeats

    def time_us(
        self, name: str, operation: Operation, parties: int = 1, most: int = 1 << 22
    ) -> None:
        """Note how long one takes, of the time that passes for `parties` at once."""
        n = self._count_for_target(operation, most)
        values = [seconds(operation, n) / n / parties * 1e6 for _ in range(self._repeats)]
        self.numbers[name] = Number(values, "us", is_time=True)

    def rate(
        self, name: str, operation: Operation, unit: str, each: float = 1, most: int = 1 << 22
    ) -> None:
        """Note how many there are in a second, each being so much of the unit."""
        n = self._count_for_target(operation, most)
        values = [n * each / seconds(operation, n) for _ in range(self._repeats)]
        self.numbers[name] = Number(values, unit, is_time=False)

    def once_ms(self, name: str, operation: Callable[[], float | None], warm_up: int = 0) -> None:
        """Note how long the whole takes, or how many seconds it says it took."""
        values = []
        for i in range(warm_up + self._repeats):
            begin = time.perf_counter()
            said_s = operation()
            took_s = time.perf_counter() - begin if said_s is None else said_s
            if i >= warm_up:
                values.append(took_s * 1e3)
        self.numbers[name] = Number(values, "ms", is_time=True)

    def _count_for_target(self, operation: Operation, most: int) -> int:
        """How many take about the target's time; a warm-up as well."""
        operation(1)
        operation(2)
        n = 1
        while True:
            took_s = min(seconds(operation, n) for _ in range(2))  # one may be interrupted
            if took_s > self._target_s / 4 or n >= most:
                break
            n = min(most, n * 4 if took_s > self._target_s / 50 else n * 16)
        return max(1, min(most, int(n * self._target_s / max(took_s, 1e-9))))


def seconds(operation: Operation, n: int) -> float:
    """How long n of them take."""
    begin = time.perf_counter()
    operation(n)
    return time.perf_counter() - begin
