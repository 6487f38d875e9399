"""What the same operations take against the physical limits of the machine, in the same run.

The group is measured under "dragon" only; bench_core.c measures the machine.
"""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Callable
from typing import Any, NamedTuple

from mp.groups import group
from mp.measure import Operation, Recorder
from mp.partner import MIB, Kind, Partner, payload, with_numpy

GROUP = "limits"

_RUN_S = 60


@group(GROUP)
def limits(context: Any, recorder: Recorder) -> None:
    """An int in one process; arrays one way, as many on their way as a probe has."""
    queue = context.SimpleQueue()

    def put_and_get(n: int) -> None:
        put, get = queue.put, queue.get
        for _ in range(n):
            put(7)
            get()

    recorder.time_us("limits.put_get.int", put_and_get)
    arrays = context.Queue(4)
    partner = Partner(context, queue=arrays)

    def putting(message: Any) -> Operation:
        def operation(n: int) -> None:
            partner.begin("get", "queue", n)
            for _ in range(n):
                arrays.put(message)
            partner.join()

        return operation

    kinds: list[Kind] = [("numpy", 8 * MIB), ("numpy", 64 * MIB)]
    for kind in with_numpy(kinds):
        assert isinstance(kind, tuple)
        name, each = f"limits.one_way.numpy.{kind[1] // MIB}M", kind[1] / 1e6
        recorder.rate(name, putting(payload(kind)), "MB/s", each, most=200)
    partner.close()


class Limit(NamedTuple):
    """A line of the table; as JSON, an object of these names."""

    title: str
    ours: float
    limit: float
    unit: str
    ratio: float  # of ours to the limit, median over the rounds
    goal: str
    is_met: bool


class _Line(NamedTuple):
    title: str
    unit: str
    goal: str
    is_met: Callable[[float], bool]


_LINES = {
    "int": _Line(
        "put + get of an int in one process; limit: 150 ns", "ns", "at most 1", lambda r: r <= 1
    ),
    "8M": _Line(
        "8 MiB array one way; limit: memcpy in two processes", "MB/s", "at least 0.8",
        lambda r: r >= 0.8,
    ),
    "64M": _Line(
        "64 MiB array one way; limit: memcpy in two processes", "MB/s", "at least 0.8",
        lambda r: r >= 0.8,
    ),
    "channel": _Line(
        "8 B one way through a channel, in C; limit: a cache line", "ns", "at most 2",
        lambda r: r <= 2,
    ),
}  # fmt: skip


def measured_by_core(program: str, *, is_pinned: bool) -> dict[str, tuple[float | None, float]]:
    """What a round of the C program says: a line's own number, if it is C, and its limit."""

    def ns(name: str, size: int) -> float:
        done = subprocess.run(
            [program, name, str(size), str(int(is_pinned))],
            capture_output=True, text=True, timeout=_RUN_S, check=True,
        )  # fmt: skip
        return float(done.stdout.split()[1])

    copies = {f"{n}M": n * MIB / ns("copy_probe", n * MIB) * 1e3 for n in (8, 64)}
    return {
        "int": (None, 150.0),
        "channel": (ns("one_way", 8), ns("one_way_probe", 8)),
        **{name: (None, mb_per_s) for name, mb_per_s in copies.items()},
    }


def limits_of(
    of_dragon: list[dict[str, Any]], of_core: list[dict[str, tuple[float | None, float]]]
) -> list[Limit]:
    """The lines of all rounds, each round's measurements being neighbours in time."""
    found = []
    for name, line in _LINES.items():
        pairs = [
            (_ours(name, numbers) if own is None else own, limit)
            for numbers, core in zip(of_dragon, of_core, strict=True)
            for own, limit in [core[name]]
        ]
        known = [(ours, limit) for ours, limit in pairs if ours is not None]
        if known:
            ratio = statistics.median(ours / limit for ours, limit in known)
            ours, limit = (statistics.median(values) for values in zip(*known, strict=True))
            found.append(
                Limit(line.title, ours, limit, line.unit, ratio, line.goal, line.is_met(ratio))
            )
    return found


def _ours(name: str, numbers: dict[str, Any]) -> float | None:
    """None: there is no numpy."""
    key = "limits.put_get.int" if name == "int" else f"limits.one_way.numpy.{name}"
    if key not in numbers:
        return None
    value: float = statistics.median(numbers[key]["values"])
    return value * 1e3 if name == "int" else value


def as_markdown(limits: list[Limit]) -> str:
    """A table."""
    lines = ["| against the machine | unit | dragon | limit | ratio | goal | |"]
    lines.append("|---|---|--:|--:|--:|---|---|")
    for limit in limits:
        verdict = "met" if limit.is_met else "**missed**"
        lines.append(
            f"| {limit.title} | {limit.unit} | {limit.ours:,.0f} | {limit.limit:,.0f} "
            f"| {limit.ratio:.2f} | {limit.goal} | {verdict} |"
        )
    return "\n".join(lines)
