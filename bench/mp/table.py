"""From the numbers of all rounds to rows of a table."""

from __future__ import annotations

import math
import statistics
from typing import Any, NamedTuple

from mp.goals import goal_of, is_met

STOCK = ("spawn", "forkserver", "fork")
METHODS = (*STOCK, "dragon")

#: What one program said: name -> Number as an object.
Numbers = dict[str, dict[str, Any]]


class Row(NamedTuple):
    """One measurement; as JSON, an object of these names."""

    name: str
    unit: str
    is_pinned: bool
    medians: dict[str, float]
    ratio: float  # median over the rounds: how many times better than the round's best stock method
    lowest: float
    highest: float
    goal: float | None
    is_met: bool | None


def rows_of(rounds: list[dict[str, Numbers]], *, is_pinned: bool) -> list[Row]:
    """Rows of the measurements that each method has in each round."""
    complete = [answers for answers in rounds if set(answers) == set(METHODS)]
    names = list(complete[0]["dragon"]) if complete else []
    return [_row(name, complete, is_pinned=is_pinned) for name in names]


def _row(name: str, rounds: list[dict[str, Numbers]], *, is_pinned: bool) -> Row:
    number = rounds[0]["dragon"][name]
    values = {
        method: [statistics.median(answers[method][name]["values"]) for answers in rounds]
        for method in METHODS
    }
    ratios = [
        _ratio(number["is_time"], *of_round) for of_round in zip(*values.values(), strict=True)
    ]
    ratio, goal = statistics.median(ratios), goal_of(name, is_pinned=is_pinned)
    return Row(
        name,
        number["unit"],
        is_pinned,
        {method: statistics.median(of_method) for method, of_method in values.items()},
        ratio,
        min(ratios),
        max(ratios),
        goal,
        is_met(goal, ratio),
    )


def _ratio(is_time: bool, *values: float) -> float:
    *stock, dragon = values
    return min(stock) / dragon if is_time else dragon / max(stock)


def as_markdown(rows: list[Row]) -> str:
    """A table, and what the ratios are in the mean."""
    head = ["measurement", "unit", *METHODS, "dragon / best stock", "spread", "goal", ""]
    lines = [head, ["---", "---", *["--:"] * (len(head) - 3), "---"]]
    for row in rows:
        verdict = {True: "met", False: "**missed**", None: ""}[row.is_met]
        lines.append([
            f"`{row.name}`", row.unit, *[_digits(row.medians[method]) for method in METHODS],
            f"{row.ratio:.2f}", f"{row.lowest:.2f} to {row.highest:.2f}",
            "" if row.goal is None else f"{row.goal:g}", verdict,
        ])  # fmt: skip
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    judged = [row for row in rows if row.is_met is not None]
    n_met = sum(row.is_met is True for row in judged)
    mean = math.exp(statistics.fmean(math.log(row.ratio) for row in rows))
    return f"{text}\n\n{n_met} of {len(judged)} goals met; geometric mean of all ratios {mean:.2f}."


#: What the short table shows: name of the measurement, whether pinned, and what it is.
_SHORT = [
    ("queue.1to1.int", False, "`Queue`, one way, an int"),
    ("queue.1to1.dict", False, "`Queue`, one way, a dict of 10 keys"),
    ("queue.1to1.1M", False, "`Queue`, one way, 1 MiB of bytes"),
    ("queue.1to1.numpy.1M", False, "`Queue`, one way, an array of 1 MiB"),
    ("queue.4to4.int", False, "`Queue`, 4 producers, 4 consumers, an int"),
    ("queue.lat.int", True, "`Queue`, there and back, an int, pinned"),
    ("pipe.lat.int", True, "`Pipe`, there and back, an int, pinned"),
    ("event.pingpong", True, "`Event`, there and back, pinned"),
    ("create.queue", False, "`Queue()`"),
    ("pool.map100k.chunk1", False, "`Pool.map` of 100,000 calls, chunksize 1"),
    ("pool.apply.lat", False, "`Pool.apply`"),
    ("executor.submit_result.lat", False, "`ProcessPoolExecutor`, submit and result"),
    ("manager.dict.get", False, "a manager's dict, one item"),
    ("wait.lat.64conns", False, "`connection.wait` for 64 connections"),
]


def short_table(rows: list[Row]) -> str:
    """A table of few lines for people who decide whether to look further."""
    lines = ["| | best stock method | dragon | ratio |", "|---|--:|--:|--:|"]
    by_name = {(row.name, row.is_pinned): row for row in rows}
    for name, is_pinned, title in _SHORT:
        row = by_name.get((name, is_pinned))
        if row is not None:
            pick = min if row.unit in ("us", "ms") else max
            best = pick(row.medians[method] for method in STOCK)
            numbers = [f"{_digits(value)} {row.unit}" for value in (best, row.medians["dragon"])]
            lines.append(f"| {title} | {' | '.join(numbers)} | {row.ratio:.1f} |")
    return "\n".join(lines)


def _digits(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
