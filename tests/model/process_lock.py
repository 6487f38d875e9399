"""All interleavings of a lock that processes hold (runtime/sync/process_lock.h), with deaths.

A step is one access to the word `holder` or to the table of processes. A process that dies is
replaced by a new one in its place, which has a number of its own. Wake-ups are not modelled: who
waits looks again (tests/model/eventcount.py has those).

What the search looks for in each state it can reach:

- *two in it*: two living processes hold the lock;
- *not told*: one got it after a holder had died in it, and was not told;
- *told for nothing*: one was told although the last holder had released it;
- *hang*: nothing can happen any more, and a living process has not had its turn.

Run as a program it prints the table; the tests are in test_models.py.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from search import Result, print_table, visit

#: Ways to break the protocol, to show that the search would notice.
MUTATIONS = {
    "store": "who takes over stores his number, whatever is there by then",
    "free_first": "who takes over sets the lock free and then locks it as ever",
    "numbers_again": "the process in the place of a dead one has its number",
    "ask_first": "who takes over asks whether the holder is there, and then reads who it is",
    "holder_late": "who locks it says that it is locked, and then by whom",
}

LOCKED_BY_NOBODY = -1  # only in a mutation
AT_REST = ("done", "dead")


class Process(NamedTuple):
    """A process."""

    number: int
    at: str = "lock"
    seen: int = 0
    told: bool = False
    n_left: int = 1


class State(NamedTuple):
    """Everything. owed: the last holder died in it, and nobody has been told."""

    processes: tuple[Process, ...]
    holder: int = 0
    dead: frozenset[int] = frozenset()
    next_number: int = 1
    owed: bool = False
    n_deaths: int = 0
    wrong: str = ""


@dataclass(frozen=True)
class Setting:
    """What the search allows.

    Attributes:
        n_processes: that lock it.
        n_times: how often each does.
        n_deaths: how many may die, before any step.
        mutation: a key of MUTATIONS, or "".
    """

    n_processes: int = 3
    n_times: int = 2
    n_deaths: int = 2
    mutation: str = ""

    def first_state(self) -> State:
        """Before anybody took a step."""
        n = self.n_processes
        return State(
            tuple(Process(i + 1, n_left=self.n_times) for i in range(n)), next_number=n + 1
        )


def _go(s: State, i: int, **changes: object) -> State:
    process = s.processes[i]._replace(**changes)  # type: ignore[arg-type]
    return s._replace(processes=(*s.processes[:i], process, *s.processes[i + 1 :]))


def _enter(s: State, i: int, *, told: bool) -> State:
    others = [p for j, p in enumerate(s.processes) if j != i and p.at in ("in", "unlock")]
    wrong = "two in it" if others else ""
    if not wrong and told != s.owed:
        wrong = "told for nothing" if told else "not told"
    return _go(s, i, at="in", told=told)._replace(owed=False, wrong=wrong or s.wrong)


def _step(s: State, i: int, broken: str) -> State | None:
    p = s.processes[i]
    if p.at == "lock":
        if s.holder == 0:
            if broken == "holder_late":
                return _go(s, i, at="sign")._replace(holder=LOCKED_BY_NOBODY)
            return _enter(s._replace(holder=p.number), i, told=False)
        return _go(s, i, at="ask", seen=s.holder)
    if p.at == "sign":
        return _enter(s._replace(holder=p.number), i, told=False)
    if p.at == "ask":
        if p.seen not in s.dead:
            # It looks again when there is something else to see.
            has_changed = s.holder != p.seen
            return _go(s, i, at="lock", seen=0) if has_changed else None
        return _go(s, i, at="read" if broken == "ask_first" else "take")
    if p.at == "read":
        return _go(s, i, at="take", seen=s.holder) if s.holder else _go(s, i, at="lock", seen=0)
    if p.at == "take":
        return _take(s, i, broken)
    if p.at == "in":
        return _go(s, i, at="unlock")
    if p.at == "unlock":
        at = "lock" if p.n_left > 1 else "done"
        left = _go(s, i, at=at, seen=0, told=False, n_left=p.n_left - 1)
        return left._replace(holder=0)
    return None


def _take(s: State, i: int, broken: str) -> State:
    p = s.processes[i]
    if s.holder != p.seen and broken != "store":
        return _go(s, i, at="lock", seen=0)
    if broken == "free_first":
        return _go(s, i, at="lock", seen=0)._replace(holder=0)
    return _enter(s._replace(holder=p.number), i, told=True)


def _deaths(s: State, setting: Setting) -> Iterator[State]:
    if s.n_deaths >= setting.n_deaths:
        return
    for i, p in enumerate(s.processes):
        if p.at in AT_REST:
            continue
        holds = p.at in ("in", "unlock")
        again = setting.mutation == "numbers_again"
        number = p.number if again else s.next_number
        after = s._replace(
            dead=s.dead if again else s.dead | {p.number},
            next_number=s.next_number + 1,
            owed=s.owed or holds,
            n_deaths=s.n_deaths + 1,
        )
        yield _go(after, i, number=number, at="lock", seen=0, told=False, n_left=1)


def search(setting: Setting) -> Result[State]:
    """Visit all states that can be reached; with a mutation, until the first bad one.

    Returns:
        what was found.
    """

    def steps(s: State, result: Result[State]) -> Iterable[State]:
        if s.wrong:
            result.note(s.wrong, s)
            return
        own = [_step(s, i, setting.mutation) for i in range(len(s.processes))]
        afters = [after for after in own if after is not None]
        if not afters and any(p.at not in AT_REST for p in s.processes):
            result.note("hang", s)
        yield from afters
        yield from _deaths(s, setting)

    return visit(setting.first_state(), steps, setting)


#: Searched by the tests, in some seconds each.
SETTINGS = {
    "three processes, twice each, two killed": Setting(),
    "two processes, three times each, three killed": Setting(2, 3, 3),
    "four processes, two killed": Setting(4, 1, 2),
}
#: What brings each mutation out.
BROKEN = {name: Setting() for name in MUTATIONS}


if __name__ == "__main__":
    sys.exit(print_table(search, SETTINGS, BROKEN, MUTATIONS))
