"""How many times faster than the best stock method each measurement is to be."""

from __future__ import annotations

from fnmatch import fnmatchcase

#: What is asked of a measurement that no pattern names, less what passes for noise.
_AT_LEAST = 1.0
_NOISE = 0.05

#: Patterns of names -> goal; the first that fits counts.
_GOALS: list[tuple[str, float | None]] = [
    ("process.*", None),  # judged by `./dev bench start`
    ("*.startup*", None),
    ("pool.close_join*", None),
    ("shm.*", None),  # the standard library's own code, whatever the method
    ("*queue.1to1.int", 25),
    ("queue.4to4.int", 15),
    ("pipe.rate.int", 15),
    ("queue.1to1.dict", 3),
    ("pipe.rate.dict", 3),
    ("queue.1to1.numpy.1M", 10),
    ("pipe.bw.numpy.1M", 10),
    ("queue.1to1.numpy.16M", 25),
    ("pipe.bw.numpy.16M", 25),
    ("queue.1to1.64K", 5),
    ("queue.1to1.1M", 5),
    ("queue.1to1.16M", 5),
    ("pipe.bw.64K", 5),
    ("pipe.bw.1M", 5),
    ("pipe.bw.16M", 5),
    ("pool.map*k.chunk1", 6),
    ("pool.imap_unordered*k.chunk1", 6),
    ("pool.apply.lat", 5),
    ("pool.apply_async.rate", 4),
    ("pool.map1M.numpy_echo", 10),
    ("executor.submit_result.lat", 2),
    ("executor.submit.rate", 2),
    ("executor.map*k.chunk1", 2),
    ("create.pipe", 1),
    ("create.*", 10),
    ("manager.dict.get", 2),
    ("manager.dict.set", 2),
    ("wait.lat.8conns", 5),
    ("wait.lat.64conns", 5),
]
#: Latencies depend on where processes run more than on anything else.
_PINNED: list[tuple[str, float]] = [
    ("queue.lat.int", 50),
    ("pipe.lat.int", 50),
    ("event.pingpong", 10),
    ("condition.pingpong", 10),
    ("barrier.2parties", 10),
]
_NOT_PINNED: list[tuple[str, float]] = [("queue.lat.int", 5), ("pipe.lat.int", 5)]


def goal_of(name: str, *, is_pinned: bool) -> float | None:
    """The goal; None: there is none."""
    for pattern, goal in [*(_PINNED if is_pinned else _NOT_PINNED), *_GOALS]:
        if fnmatchcase(name, pattern):
            return goal
    return _AT_LEAST


def is_met(goal: float | None, ratio: float) -> bool | None:
    """Whether a ratio is as asked; None: nothing is asked."""
    if goal is None:
        return None
    return ratio >= (goal - _NOISE if goal == _AT_LEAST else goal)
