"""Exhaustive search of the eventcount protocol of runtime/wait/eventcount.[ch].

All interleavings of the atomic steps of some waiters and wakers are visited
(breadth first, memory sequentially consistent: the code has a full fence where
that matters). The condition is a counter of items. A waiter takes items as
dragon_wait_until does: look, announce, look, sleep, look. A waker adds an item
and wakes one.

A state is *stuck* when nobody that is alive can take a step of its own accord,
and yet a waiter sleeps while an item is there. What somebody may do but need
not (be killed, time out) does not count as a step of its own accord. A sleep
also ends after DRAGON_EVENTCOUNT_PARK_NS; the search leaves that out, since the
question is whether the protocol ever relies on it.

Found for the protocol as it stands:

- no stuck state, whatever waiters and wakers do and whenever waiters time out;
- after the death of a waker, stuck states in which it died between adding the
  item and waking;
- after the death of a waiter, stuck states in which it died between being woken
  and taking: it took the wake with it.

The last two are what the park's end (or a supervisor's waking of all) is for.

Run as a program it prints the table; the tests are in test_models.py. Each entry of
MUTATIONS breaks the protocol in one place; the search must find each of them stuck.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from search import Result, print_table, visit

#: Ways to break the protocol, to show that the search would notice.
MUTATIONS = {
    "key_read_late": "the waiter reads its key after announcing itself",
    "no_second_look": "the waiter does not look between announcing and sleeping",
    "cleared_before_wake": "the waker sets `cleared` whether or not it woke a sleeper",
    "arrived_read_late": "the waker reads `arrived` after moving the sequence",
    "no_move": "the waker wakes without moving the sequence",
    "leave_when_woken": "a waiter that was woken may time out without another look",
}


class Waiter(NamedTuple):
    """One waiting thread. `at` names the next step."""

    at: str = "look"
    key: int = 0
    n_wanted: int = 1
    was_woken: bool = False  # and has not looked since


class Waker(NamedTuple):
    """One waking thread."""

    at: str = "add"
    arrived: int = 0
    n_left: int = 1


class State(NamedTuple):
    """Everything: shared words and threads. Also what happened to the dead."""

    items: int
    sequence: int
    arrived: int
    cleared: int
    waiters: tuple[Waiter, ...]
    wakers: tuple[Waker, ...]
    waker_died_owing: bool = False
    waiter_died_woken: bool = False


@dataclass(frozen=True)
class Setting:
    """What the search allows.

    Attributes:
        n_waiters: threads that wait.
        n_wanted: items each of them takes before it is done.
        n_wakers: threads that add items.
        n_added: items each of them adds.
        timeouts: a sleeping waiter may time out (and leaves after a last look).
        kill_waiters: a waiter may be killed before any step.
        kill_wakers: a waker may be killed before any step.
        mutation: a key of MUTATIONS, or "".
    """

    n_waiters: int = 2
    n_wanted: int = 2
    n_wakers: int = 2
    n_added: int = 1
    timeouts: bool = False
    kill_waiters: bool = False
    kill_wakers: bool = False
    mutation: str = ""

    def first_state(self) -> State:
        """Before anybody took a step."""
        waiters = (Waiter(n_wanted=self.n_wanted),) * self.n_waiters
        wakers = (Waker(n_left=self.n_added),) * self.n_wakers
        return State(0, 0, 0, 0, waiters, wakers)


# ---- the waiter: dragon_wait_until, dragon_eventcount_prepare, _park ----


def _with_waiter(s: State, i: int, waiter: Waiter) -> State:
    return s._replace(waiters=(*s.waiters[:i], waiter, *s.waiters[i + 1 :]))


def _look(s: State, i: int, otherwise: str) -> State:
    """Take an item if there is one, in one step as a compare and swap does."""
    w = s.waiters[i]._replace(was_woken=False)
    if s.items == 0:
        return _with_waiter(s, i, w._replace(at=otherwise))
    w = w._replace(n_wanted=w.n_wanted - 1, key=0)
    w = w._replace(at="look" if w.n_wanted else "done")
    return _with_waiter(s._replace(items=s.items - 1), i, w)


def _waiter_step(s: State, i: int, mutation: str) -> State | None:
    """The state after the waiter's next step; None if it has none of its own accord."""
    w = s.waiters[i]
    if w.at == "look":
        return _look(s, i, "announce" if mutation == "key_read_late" else "read_key")
    if w.at == "read_key":
        then = "look_again" if mutation == "key_read_late" else "announce"
        return _with_waiter(s, i, w._replace(at=then, key=s.sequence))
    if w.at == "announce":
        then = "read_key" if mutation == "key_read_late" else "look_again"
        if then == "look_again" and mutation == "no_second_look":
            then = "sleep"
        return _with_waiter(s._replace(arrived=s.arrived + 1), i, w._replace(at=then))
    if w.at == "look_again":
        return _look(s, i, "sleep")
    if w.at == "sleep":  # the kernel compares and queues in one step
        return _with_waiter(s, i, w._replace(at="asleep" if s.sequence == w.key else "look"))
    if w.at == "last_look":
        return _look(s, i, "done")
    return None  # asleep, done, dead


# ---- the waker: dragon_eventcount_has_waiters, _wake_some ----


def _with_waker(s: State, i: int, waker: Waker) -> State:
    return s._replace(wakers=(*s.wakers[:i], waker, *s.wakers[i + 1 :]))


def _waker_done(s: State, i: int) -> State:
    left = s.wakers[i].n_left - 1
    return _with_waker(s, i, Waker(at="add" if left else "done", n_left=left))


def _wake(s: State, i: int, mutation: str) -> Iterator[State]:
    """futex_wake(1): any of the sleepers, in one step."""
    sleepers = [j for j, w in enumerate(s.waiters) if w.at == "asleep"]
    k = s.wakers[i]
    for j in sleepers:
        woken = _with_waiter(s, j, s.waiters[j]._replace(at="look", was_woken=True))
        yield _waker_done(woken, i)
    if not sleepers and mutation == "cleared_before_wake":
        yield _waker_done(s, i)
    elif not sleepers:
        yield _with_waker(s, i, k._replace(at="clear"))


def _waker_steps(s: State, i: int, mutation: str) -> Iterator[State]:
    """The states after the waker's next step."""
    k = s.wakers[i]
    if k.at == "add":
        yield _with_waker(s._replace(items=s.items + 1), i, k._replace(at="compare_arrived"))
    elif k.at == "compare_arrived":  # the two loads of has_waiters, in either order: this is
        yield _with_waker(s, i, k._replace(at="compare_arrived_1", arrived=s.arrived))
        yield _with_waker(s, i, k._replace(at="compare_cleared_1", arrived=s.cleared))
    elif k.at in ("compare_arrived_1", "compare_cleared_1"):  # and this the second
        other = s.cleared if k.at == "compare_arrived_1" else s.arrived
        if k.arrived == other:
            yield _waker_done(s, i)
        else:
            then = "move_early" if mutation == "arrived_read_late" else "read_arrived"
            yield _with_waker(s, i, k._replace(at=then, arrived=0))
    elif k.at == "read_arrived":
        then = "wake" if mutation in ("no_move", "arrived_read_late") else "move"
        if mutation == "cleared_before_wake":
            then = "move_and_clear"
        yield _with_waker(s, i, k._replace(at=then, arrived=s.arrived))
    elif k.at in ("move", "move_early"):
        then = "wake" if k.at == "move" else "read_arrived"
        yield _with_waker(s._replace(sequence=s.sequence + 1), i, k._replace(at=then))
    elif k.at == "move_and_clear":
        moved = s._replace(sequence=s.sequence + 1, cleared=k.arrived)
        yield _with_waker(moved, i, k._replace(at="wake"))
    elif k.at == "wake":
        yield from _wake(s, i, mutation)
    elif k.at == "clear":
        yield _waker_done(s._replace(cleared=k.arrived), i)


# ---- the search ----


def _own_steps(s: State, mutation: str) -> Iterator[State]:
    for i in range(len(s.waiters)):
        after = _waiter_step(s, i, mutation)
        if after is not None:
            yield after
    for i in range(len(s.wakers)):
        yield from _waker_steps(s, i, mutation)


def _kill_waiter(s: State, i: int) -> State:
    woken = s.waiter_died_woken or s.waiters[i].was_woken
    return _with_waiter(s, i, Waiter(at="dead", n_wanted=0))._replace(waiter_died_woken=woken)


def _kill_waker(s: State, i: int) -> State:
    owing = s.waker_died_owing or s.wakers[i].at not in ("add", "clear")
    return _with_waker(s, i, Waker(at="dead", n_left=0))._replace(waker_died_owing=owing)


def _steps_of_others(s: State, setting: Setting) -> Iterator[State]:
    """What may happen but need not: time-outs and deaths."""
    for i, w in enumerate(s.waiters):
        if setting.timeouts and w.at == "asleep":
            yield _with_waiter(s, i, w._replace(at="last_look"))
        if setting.mutation == "leave_when_woken" and w.was_woken:
            yield _with_waiter(s, i, w._replace(at="done", was_woken=False))
        if setting.kill_waiters and w.at not in ("done", "dead"):
            yield _kill_waiter(s, i)
    for i, k in enumerate(s.wakers):
        if setting.kill_wakers and k.at not in ("done", "dead"):
            yield _kill_waker(s, i)


def _canonical(s: State) -> State:
    """Waiters are alike, wakers too; and only differences of the counters matter.

    The sequence is compared with keys only, `arrived` with `cleared` and with what
    wakers have read of either.
    """
    base_key = min([s.sequence] + [w.key for w in s.waiters if w.at in _HAS_KEY])
    base_arrived = min([s.cleared] + [k.arrived for k in s.wakers if k.at in _HAS_ARRIVED])
    waiters = (w._replace(key=w.key - base_key if w.at in _HAS_KEY else 0) for w in s.waiters)
    wakers = (
        k._replace(arrived=k.arrived - base_arrived if k.at in _HAS_ARRIVED else 0)
        for k in s.wakers
    )
    return s._replace(
        sequence=s.sequence - base_key,
        arrived=s.arrived - base_arrived,
        cleared=s.cleared - base_arrived,
        waiters=tuple(sorted(waiters)),
        wakers=tuple(sorted(wakers)),
    )


_HAS_KEY = {"announce", "look_again", "sleep", "asleep"}
_HAS_ARRIVED = {
    "clear",
    "compare_arrived_1",
    "compare_cleared_1",
    "move",
    "move_and_clear",
    "wake",
}


def _is_stuck(s: State) -> bool:
    return s.items > 0 and any(w.at == "asleep" for w in s.waiters)


#: Found where nothing but the end of the park goes on.
LOST = "lost"
LOST_BY_WAKER = "lost by a waker that died between adding and waking"
LOST_BY_WAITER = "lost by a waiter that died between being woken and looking"


def search(setting: Setting) -> Result[State]:
    """Visit all states that can be reached; with a mutation, until the first lost wake-up.

    Returns:
        what was found.
    """

    def steps(s: State, result: Result[State]) -> Iterable[State]:
        own = list(_own_steps(s, setting.mutation))
        if not own and _is_stuck(s):
            _note(result, s)
        return map(_canonical, (*own, *_steps_of_others(s, setting)))

    return visit(_canonical(setting.first_state()), steps, setting)


def _note(result: Result[State], s: State) -> None:
    if s.waker_died_owing:
        result.note_explained(LOST_BY_WAKER, s)
    elif s.waiter_died_woken:
        result.note_explained(LOST_BY_WAITER, s)
    else:
        result.note(LOST, s)


SETTINGS = {
    "as it is": Setting(timeouts=True),
    "waiters killed": Setting(n_wakers=1, n_added=2, timeouts=True, kill_waiters=True),
    "wakers killed": Setting(n_wanted=1, timeouts=True, kill_wakers=True),
    "one waker, three items": Setting(n_wakers=1, n_added=3),
}
#: What brings each mutation out; most need no more than one item for each waiter.
BROKEN = {name: Setting(n_wanted=1) for name in MUTATIONS}
BROKEN["key_read_late"] = Setting()
BROKEN["arrived_read_late"] = Setting()
BROKEN["leave_when_woken"] = Setting(n_wakers=1)


if __name__ == "__main__":
    sys.exit(print_table(search, SETTINGS, BROKEN, MUTATIONS))
