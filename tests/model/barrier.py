"""All interleavings of a barrier with a roll (runtime/sync/barrier.h), whoever dies when.

A model of the phase word, of the notes of the parties' processes, and of the mutex under which
those are written and read. A step is one access to what processes share; what happens under the
mutex in one store is one step, as nobody else reads it. Each party is a process of its own; there
are as many as the barrier asks for, so that one that is dead is awaited for ever. Beside them a
process that may reset the barrier, and one that sweeps the dead.

What the search looks for in each state it can reach:

- *hang*: nothing can happen any more, and a living party waits;
- *broken for nothing*: the barrier is broken although nobody has died;
- *broken by an old death*: it is broken after a reset, and all deaths were before that began.

Wake-ups are not modelled: who waits looks again, as everywhere. Run as a program it prints the
table; the tests are in test_models.py.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from search import Result, print_table, visit

#: Ways to break the protocol, to show that the search would notice.
MUTATIONS = {
    "note_late": "a party notes its generation when it has arrived",
    "note_once": "a party that finds a newer generation arrives with its old note",
    "only_this_generation": "a death after the generation before breaks nothing",
    "take_out_first": "the sweep takes the dead one out before it breaks the barrier",
    "count_resets": "a generation that was reset is the one before",
    "reset_at_once": "a reset does not have the dead swept first",
}


class Party(NamedTuple):
    """A process that comes to the barrier."""

    at: str = "look"  # its next step; "away": it got an error; "done", "dead", "swept"
    seen: int = 0  # the generation that it has read
    noted: int = 0  # the last one that it knows it has noted
    note: int = 0  # in its entry, plus 1; 0: none
    n_left: int = 1  # how often it comes
    died_late: bool = True  # not before the reset
    is_mended: bool = False  # dead, and what its death had broken was reset


class State(NamedTuple):
    """Everything. The history of the phase word: how each generation ended."""

    parties: tuple[Party, ...]
    generation: int = 0
    n_arrived: int = 0
    is_broken: bool = False
    history: tuple[bool, ...] = ()
    resetter: str = "idle"  # "settle": has the dead swept; "advance"
    sweeper: str = "idle"  # what it does with the dead one
    swept: int = -1
    n_deaths: int = 0


@dataclass(frozen=True)
class Setting:
    """What the search allows.

    Attributes:
        n_parties: processes, and parties that the barrier asks for.
        n_times: how often each comes.
        n_deaths: how many may die, before any step; the resetter and the sweeper included.
        resets: somebody resets the barrier, once.
        mutation: a key of MUTATIONS, or "".
    """

    n_parties: int = 2
    n_times: int = 2
    n_deaths: int = 1
    resets: bool = False
    mutation: str = ""

    def first_state(self) -> State:
        """Before anybody took a step."""
        at = "settle" if self.resets else "idle"
        return State((Party(n_left=self.n_times),) * self.n_parties, resetter=at)


def _party(s: State, i: int, **changes: object) -> State:
    party = s.parties[i]._replace(**changes)  # type: ignore[arg-type]
    return s._replace(parties=(*s.parties[:i], party, *s.parties[i + 1 :]))


def _locked(s: State) -> bool:
    """Whether somebody is between two stores under the mutex."""
    return s.sweeper != "idle"


def _end_generation(s: State, *, broken: bool) -> State:
    return s._replace(
        generation=s.generation + 1,
        n_arrived=0,
        is_broken=False,
        history=(*s.history, broken),
    )


# ---- the parties ----


def _step(s: State, i: int, setting: Setting) -> State | None:
    p = s.parties[i]
    if p.at == "look":
        if s.is_broken:
            return _party(s, i, at="away")
        # note_of(0) is 1, so a party that has noted nothing always notes.
        must_note = p.noted != s.generation + 1
        if setting.mutation == "note_once" and p.note:
            must_note = False
        if setting.mutation == "note_late":
            must_note = False
        return _party(s, i, at="note" if must_note else "arrive", seen=s.generation)
    if p.at == "note":
        if _locked(s):
            return None
        # Under the mutex the generation is read again.
        return _party(s, i, at="look", note=s.generation + 1, noted=p.seen + 1)
    if p.at == "arrive":
        return _arrive(s, i, setting)
    if p.at == "note late":
        return None if _locked(s) else _party(s, i, at="wait", note=p.seen + 1)
    if p.at == "wait":
        return _wait(s, i)
    return None


def _arrive(s: State, i: int, setting: Setting) -> State:
    p = s.parties[i]
    if s.is_broken or s.generation != p.seen:
        return _party(s, i, at="look")
    if s.n_arrived + 1 == setting.n_parties:
        return _pass(_end_generation(s, broken=False), i)
    s = s._replace(n_arrived=s.n_arrived + 1)
    return _party(s, i, at="note late" if setting.mutation == "note_late" else "wait")


def _pass(s: State, i: int) -> State:
    n_left = s.parties[i].n_left - 1
    return _party(s, i, at="look" if n_left else "done", n_left=n_left)


def _wait(s: State, i: int) -> State | None:
    p = s.parties[i]
    if s.generation != p.seen:  # if it was reset: it comes once more
        return _party(s, i, at="look") if s.history[p.seen] else _pass(s, i)
    return _party(s, i, at="away") if s.is_broken else None


# ---- reset and sweep ----


def _reset(s: State, setting: Setting) -> State | None:
    if s.resetter == "settle":
        is_settled = all(p.at != "dead" for p in s.parties)
        if is_settled or setting.mutation == "reset_at_once":
            return s._replace(resetter="advance")
    elif s.resetter == "advance":
        for i, p in enumerate(s.parties):
            if p.at == "swept" or (s.swept == i and s.sweeper == "take_out"):
                s = _party(s, i, is_mended=True)
        if s.n_arrived or s.is_broken:
            s = _end_generation(s, broken=True)
        return s._replace(resetter="done")
    return None


def _sweeps(s: State, setting: Setting) -> Iterator[State]:
    first, second = "break", "take_out"
    if setting.mutation == "take_out_first":
        first, second = second, first
    if s.sweeper == "idle":
        if not _locked(s):
            for i, p in enumerate(s.parties):
                if p.at == "dead":
                    yield s._replace(sweeper=first, swept=i)
    elif s.sweeper == "break":
        after = _break(s, s.parties[s.swept].note, setting)
        yield after._replace(sweeper=second if first == "break" else "idle")
    elif s.sweeper == "take_out":
        after = _party(s, s.swept, at="swept")
        yield after._replace(sweeper="idle" if first == "break" else second)


def _break(s: State, note: int, setting: Setting) -> State:
    if not note:
        return s
    oldest = s.generation  # of those whose parties are awaited
    if setting.mutation != "only_this_generation":
        oldest -= 1
        while oldest >= 0 and s.history[oldest] and setting.mutation != "count_resets":
            oldest -= 1
    return s._replace(is_broken=True) if note - 1 >= oldest else s


# ---- deaths ----


def _deaths(s: State, setting: Setting) -> Iterator[State]:
    if s.n_deaths >= setting.n_deaths:
        return
    one_more = s._replace(n_deaths=s.n_deaths + 1)
    for i, p in enumerate(s.parties):
        # One that never came, or has come for the last time, is not awaited by anybody's rule.
        has_come = p.note or p.at in ("wait", "note late")
        if p.at not in ("dead", "swept", "done", "away") and has_come:
            yield _party(one_more, i, at="dead", died_late=s.resetter != "settle")
    if s.sweeper != "idle":
        yield one_more._replace(sweeper="idle", swept=-1)  # its mutex goes to the next one


# ---- the search ----


def _look_at(s: State, setting: Setting, result: Result[State], *, is_stuck: bool) -> None:
    dead = [p for p in s.parties if p.at in ("dead", "swept")]
    # Nobody waits in vain who was told of the death, by the error or before he reset it.
    is_told = any(p.at == "away" for p in s.parties) or all(
        p.is_mended or not p.died_late for p in dead
    )
    if is_stuck and not is_told and any(p.at == "wait" for p in s.parties):
        result.note("hang", s)
    if s.is_broken and not dead:
        result.note("broken for nothing", s)
    if s.is_broken and s.resetter == "done" and not any(p.died_late for p in dead):
        result.note("broken by an old death", s)


def search(setting: Setting) -> Result[State]:
    """Visit all states that can be reached; with a mutation, until the first bad one.

    Returns:
        what was found.
    """

    def steps(s: State, result: Result[State]) -> Iterable[State]:
        own = [_step(s, i, setting) for i in range(len(s.parties))]
        afters = [after for after in (*own, _reset(s, setting)) if after is not None]
        afters += _sweeps(s, setting)
        _look_at(s, setting, result, is_stuck=not afters)
        yield from afters
        yield from _deaths(s, setting)

    return visit(setting.first_state(), steps, setting)


#: Searched by the tests, in some seconds each.
SETTINGS = {
    "two parties, three times, one killed": Setting(n_times=3),
    "three parties, twice, two killed": Setting(n_parties=3, n_deaths=2),
    "three parties, three times, two killed": Setting(n_parties=3, n_times=3, n_deaths=2),
    "a reset, two killed": Setting(n_deaths=2, n_times=3, resets=True),
    "a reset, three parties, two killed": Setting(n_parties=3, n_deaths=2, resets=True),
}
#: What brings each mutation out.
BROKEN = {name: Setting(n_parties=3, n_deaths=2) for name in MUTATIONS}
BROKEN["note_once"] = Setting(n_parties=3, n_times=3)
BROKEN["count_resets"] = Setting(n_times=3, n_deaths=2, resets=True)
BROKEN["reset_at_once"] = Setting(resets=True)


if __name__ == "__main__":
    sys.exit(print_table(search, SETTINGS, BROKEN, MUTATIONS))
