"""All interleavings of the FIFO lock of the runtime (runtime/sync/lock.[ch]).

A model of the line: threads that lock and unlock a lock with places for those who
wait. A step is one access to shared memory, or one call of the kernel or of the robust
mutexes `holder` and `alive`, which are taken to do what they promise: one owner, and whoever
tries a dead owner's gets it. The order of memory accesses is that of the program (the
C code has full fences where it matters).

What the search looks for in each state it can reach:

- *overtaken*: a thread got the lock while another stood in line that had been there
  when the first one called;
- *lost*: nobody died, no living thread can take a step of its own accord, and yet
  somebody sleeps. The look that ends each sleep after DRAGON_LOCK_LOOK_NS does not
  count: the protocol must not rely on it while nobody dies;
- *wedged*: with looks, and without further deaths, the living cannot all come to their
  end. Nothing that a killed process leaves behind may do that.

The first look of wait_in_turn, before it announces itself, is left out (it can only
make the wait shorter).

Run as a program it prints the table; the tests are in test_models.py. Each entry
of MUTATIONS breaks the protocol in one place; the search must find each of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from search import Result, print_table, visit

#: Ways to break the protocol, to show that the search would notice.
MUTATIONS = {
    "overtake": "a thread that comes does not look at the line",
    "no_second_look": "a waiter does not look between announcing and sleeping",
    "wake_before_unlock": "the first in line is looked for before the lock is free",
    "leave_silently": "a waiter that gives up wakes nobody",
    "no_burial": "a dead thread keeps its place in line",
    "rash_burial": "a place is taken out of the line without asking whether its thread lives",
    "ticket_late": "a place is in line before its ticket is written",
    "leave_before_take": "a waiter steps out of line before it tries to lock",
    "wake_the_last": "the highest ticket is woken",
    "no_door": "a place that becomes free is told to nobody",
    "silent_burial": "a place that becomes free by a burial is told to nobody",
}

NOBODY = -1
DEAD = -2


class Thread(NamedTuple):
    """One thread. `at` names the next step, the others are its variables."""

    at: str = "arrive"
    n_left: int = 1  # times it will lock
    place: int = NOBODY  # whose `alive` it holds, and which stands in line from "publish" on
    bits: int = 0  # of `queued`, as read
    found: int = NOBODY  # the place found first in line
    then: str = ""  # where a search of the line goes on
    announced: bool = False
    has_buried: bool = False
    gives_up: bool = False  # its time is over
    before: int = 0  # bit i: thread i stood in line when this one called


class State(NamedTuple):
    """Everything. Tickets of places that nobody has are 0 in canonical states."""

    threads: tuple[Thread, ...]
    holder: int  # thread, NOBODY or DEAD
    queued: int
    alive: tuple[int, ...]  # of each place: thread, NOBODY or DEAD
    tickets: tuple[int, ...]
    words: tuple[int, ...]  # 1: parked
    next_ticket: int
    n_deaths: int = 0
    overtaken: bool = False


@dataclass(frozen=True)
class Setting:
    """What the search allows.

    Attributes:
        n_threads: threads.
        n_times: how often each of them locks.
        n_places: places in line.
        n_deaths: how many threads may be killed, before any step.
        timeouts: a sleeping waiter may give up.
        mutation: a key of MUTATIONS, or "".
    """

    n_threads: int = 3
    n_times: int = 1
    n_places: int = 3
    n_deaths: int = 0
    timeouts: bool = False
    mutation: str = ""

    def first_state(self) -> State:
        """Before anybody took a step."""
        threads = (Thread(n_left=self.n_times),) * self.n_threads
        places = (NOBODY,) * self.n_places
        zeros = (0,) * self.n_places
        return State(threads, NOBODY, 0, places, zeros, zeros, 1)


# ---- pieces of state ----


def _put(values: tuple[int, ...], i: int, value: int) -> tuple[int, ...]:
    return (*values[:i], value, *values[i + 1 :])


def _go(s: State, i: int, **changes: object) -> State:
    thread = s.threads[i]._replace(**changes)  # type: ignore[arg-type]
    return s._replace(threads=(*s.threads[:i], thread, *s.threads[i + 1 :]))


def _in_line(s: State) -> int:
    """Bit i: thread i is alive and stands in line."""
    return sum(1 << owner for p, owner in enumerate(s.alive) if owner >= 0 and s.queued >> p & 1)


def _is_free(owner: int) -> bool:
    return owner in (NOBODY, DEAD)


def _lowest(s: State, bits: int, mutation: str) -> int:
    places = [p for p in range(len(s.tickets)) if bits >> p & 1]
    if not places:
        return NOBODY
    choose = max if mutation == "wake_the_last" else min
    return choose(places, key=lambda p: s.tickets[p])


# ---- looking for the first in line: first_alive ----


def _search(s: State, i: int, then: str) -> State:
    return _go(s, i, at="read_queued", then=then, has_buried=False)


def _search_step(s: State, i: int, mutation: str) -> State:
    t = s.threads[i]
    if t.at == "read_queued":
        return _go(s, i, at="read_tickets", bits=s.queued)
    if t.at == "read_tickets":  # one after the other in C; they change as whole places do
        found = _lowest(s, t.bits, mutation if t.then == "wake" else "")
        mine = t.place if t.then == "turn" else NOBODY
        ask = found not in (NOBODY, mine) and mutation != "no_burial"
        return _go(s, i, at="ask" if ask else "found", found=found, bits=0)
    if t.at == "ask":
        if mutation == "rash_burial":
            return _go(s, i, at="take_out_rashly")
        if not _is_free(s.alive[t.found]):
            return _go(s, i, at="found")
        owned = s._replace(alive=_put(s.alive, t.found, i))
        return _go(owned, i, at="take_out")
    if t.at == "take_out":
        out = s._replace(queued=s.queued & ~(1 << t.found))
        return _go(out, i, at="let_go")
    if t.at == "take_out_rashly":
        out = s._replace(queued=s.queued & ~(1 << t.found))
        return _go(out, i, at="read_queued", has_buried=True)
    assert t.at == "let_go"
    gone = s._replace(alive=_put(s.alive, t.found, NOBODY))
    if mutation != "silent_burial":
        gone = _wake_door(gone)
    return _go(gone, i, at="read_queued", has_buried=True)


def _found(s: State, i: int, mutation: str) -> State:
    """The search is over: what it was for."""
    t = s.threads[i]
    mine = t.place if t.then == "turn" else NOBODY
    if t.has_buried and t.found not in (NOBODY, mine):
        return _go(s, i, at="wake_word", has_buried=False)
    return _after_search(s, i, mutation)


def _after_search(s: State, i: int, mutation: str) -> State:
    t = s.threads[i]
    found = t.found
    s = _go(s, i, found=NOBODY, has_buried=False)
    if t.then == "outside":
        return _go(s, i, at="take" if found == NOBODY else "claim", then="")
    if t.then == "turn":
        if found in (NOBODY, t.place):
            at = "step_out_early" if mutation == "leave_before_take" else "take"
            return _go(s, i, at=at, then="")
        return _not_now(_go(s, i, then=""), i)
    if t.then == "wake_early" and found == NOBODY:
        return _go(s, i, at="unlock_late", then="")
    if t.then == "wake_early":
        return _go(s, i, at="wake_word", found=found, then="wake_early_done")
    assert t.then == "wake"
    if found == NOBODY:
        return _done(_go(s, i, then=""), i)
    return _go(s, i, at="wake_word", found=found, then="wake_done")


def _wake_word(s: State, i: int, mutation: str) -> State:
    """Exchange the word; wake the sleeper (the kernel's step is one with it: the
    sleeper sleeps only while its word is 1)."""
    p = s.threads[i].found
    s = s._replace(words=_put(s.words, p, 0))
    for j, t in enumerate(s.threads):
        if t.at == "asleep" and t.place == p:
            s = _go(s, j, at="turn", announced=False)
    if s.threads[i].then == "wake_early_done":
        return _go(s, i, at="unlock_late", found=NOBODY, then="")
    if s.threads[i].then == "wake_done":
        return _done(_go(s, i, found=NOBODY, then=""), i)
    return _after_search(s, i, mutation)


def _done(s: State, i: int) -> State:
    """The end of unlock, or of leaving."""
    left = s.threads[i].n_left - 1
    return _go(s, i, at="arrive" if left else "done", n_left=left, gives_up=False, before=0)


# ---- waiting ----


def _not_now(s: State, i: int) -> State:
    """After a look that found the lock busy."""
    t = s.threads[i]
    if t.gives_up:
        return _go(s, i, at="step_out")
    return _go(s, i, at="sleep" if t.announced else "announce")


def _claim(s: State, i: int) -> Iterator[State]:
    """Own a place that nobody has, or whose thread is dead; or wait at the door."""
    free = [p for p in range(len(s.alive)) if not s.queued >> p & 1 and _is_free(s.alive[p])]
    dead = [p for p in range(len(s.alive)) if _is_free(s.alive[p])]
    for p in (free or dead)[:1]:
        owned = s._replace(alive=_put(s.alive, p, i))
        yield _go(owned, i, at="clear", place=p)
    if not dead:
        yield _go(s, i, at="at_door")


def _got_it(s: State, i: int) -> State:
    """`holder` is locked: the moment that the order is about."""
    t = s.threads[i]
    if t.before & _in_line(s) & ~(1 << i):
        s = s._replace(overtaken=True)
    s = s._replace(holder=i)
    return _go(s, i, at="unlock" if t.place == NOBODY else "step_out", gives_up=False)


def _step_out(s: State, i: int) -> State:
    t = s.threads[i]
    s = s._replace(queued=s.queued & ~(1 << t.place))
    # Whoever called before may overtake it from now on: it is another call's turn then.
    for j, other in enumerate(s.threads):
        s = _go(s, j, before=other.before & ~(1 << i))
    return _go(s, i, at="let_place_go")


def _wake_door(s: State) -> State:
    """The eventcount's wake, in one step with what it tells of (eventcount.py)."""
    for j, other in enumerate(s.threads):
        if other.at == "at_door":
            return _go(s, j, at="claim")
    return s


def _let_place_go(s: State, i: int, mutation: str) -> State:
    t = s.threads[i]
    s = s._replace(alive=_put(s.alive, t.place, NOBODY))
    if mutation != "no_door":
        s = _wake_door(s)
    s = _go(s, i, place=NOBODY, announced=False)
    if s.holder == i:
        return _go(s, i, at="unlock")
    if mutation == "leave_silently":
        return _done(s, i)
    return _search(s, i, "wake")


def _wait_step(s: State, i: int, mutation: str) -> Iterator[State]:
    t = s.threads[i]
    if t.at == "arrive":
        called = _go(s, i, before=_in_line(s))
        if mutation == "overtake":
            yield _go(called, i, at="take")
        else:
            # The first access of the call, in the same step.
            yield _search_step(_search(called, i, "outside"), i, mutation)
    elif t.at == "take":
        if _is_free(s.holder):
            yield _got_it(s, i)
        else:
            yield _go(s, i, at="claim") if t.place == NOBODY else _not_now(s, i)
    elif t.at == "step_out_early":
        yield _go(s._replace(queued=s.queued & ~(1 << t.place)), i, at="take_late")
    elif t.at == "take_late":
        if _is_free(s.holder):
            yield _got_it(s, i)
        else:
            yield _go(s._replace(queued=s.queued | 1 << t.place), i, at="announce")
    elif t.at == "claim":
        yield from _claim(s, i)
    elif t.at == "clear":
        cleared = s._replace(queued=s.queued & ~(1 << t.place), words=_put(s.words, t.place, 0))
        yield _go(cleared, i, at="publish_early" if mutation == "ticket_late" else "ticket")
    elif t.at == "publish_early":
        yield _go(s._replace(queued=s.queued | 1 << t.place), i, at="ticket")
    elif t.at == "ticket":  # two steps in C: the number, then writing it to where only we look
        tickets = _put(s.tickets, t.place, s.next_ticket)
        yield _go(s._replace(tickets=tickets, next_ticket=s.next_ticket + 1), i, at="publish")
    elif t.at == "publish":
        yield _go(s._replace(queued=s.queued | 1 << t.place), i, at="turn")
    elif t.at == "turn":
        if t.announced or mutation == "no_second_look" or t.gives_up:
            yield _search(s, i, "turn")
        else:
            yield _go(s, i, at="announce")
    elif t.at == "announce":
        look = "sleep" if mutation == "no_second_look" else "turn"
        yield _go(s._replace(words=_put(s.words, t.place, 1)), i, at=look, announced=True)
    elif t.at == "sleep":  # the kernel compares and queues in one step
        if s.words[t.place] == 1:
            yield _go(s, i, at="asleep")
        else:
            yield _go(s, i, at="turn", announced=False)
    elif t.at == "step_out":
        yield _step_out(s, i)
    elif t.at == "let_place_go":
        yield _let_place_go(s, i, mutation)


def _unlock_step(s: State, i: int, mutation: str) -> State:
    t = s.threads[i]
    if mutation == "wake_before_unlock" and t.at == "unlock":
        return _search(s, i, "wake_early")
    free = s._replace(holder=NOBODY)
    if t.at == "unlock_late":
        return _done(_go(free, i, found=NOBODY), i)
    return _search(free, i, "wake")


_SEARCHING = {"read_queued", "read_tickets", "ask", "take_out", "take_out_rashly", "let_go"}
_AT_REST = {"asleep", "at_door", "done", "dead"}


def _own_steps(s: State, i: int, mutation: str) -> Iterator[State]:
    """The states after the thread's next step."""
    t = s.threads[i]
    if t.at in _SEARCHING:
        yield _search_step(s, i, mutation)
    elif t.at == "found":
        yield _found(s, i, mutation)
    elif t.at == "wake_word":
        yield _wake_word(s, i, mutation)
    elif t.at in ("unlock", "unlock_late"):
        yield _unlock_step(s, i, mutation)
    elif t.at not in _AT_REST:
        yield from _wait_step(s, i, mutation)


def _kill(s: State, i: int) -> State:
    """The kernel marks what it held, one by one; here at once."""
    alive = tuple(DEAD if owner == i else owner for owner in s.alive)
    holder = DEAD if s.holder == i else s.holder
    return _go(
        s._replace(alive=alive, holder=holder, n_deaths=s.n_deaths + 1),
        i,
        **Thread(at="dead", n_left=0)._asdict(),
    )


def _looks(s: State) -> Iterator[State]:
    """A sleep that ends by itself."""
    for i, t in enumerate(s.threads):
        if t.at == "asleep":
            yield _go(s, i, at="turn")
        elif t.at == "at_door":
            yield _go(s, i, at="claim")


def _steps_of_others(s: State, setting: Setting) -> Iterator[State]:
    """What may happen but need not: time-outs and deaths."""
    for i, t in enumerate(s.threads):
        if setting.timeouts and t.at == "asleep":
            yield _go(s, i, at="turn", gives_up=True)
        if s.n_deaths < setting.n_deaths and t.at not in ("done", "dead"):
            yield _kill(s, i)


# ---- the search ----


def _canonical(s: State) -> State:
    """Only the order of tickets matters, and only of those that are in line or will be."""
    known = sorted({s.tickets[p] for p in range(len(s.tickets)) if _counts(s, p)})
    rank = {ticket: n + 1 for n, ticket in enumerate(known)}
    tickets = tuple(rank[ticket] if _counts(s, p) else 0 for p, ticket in enumerate(s.tickets))
    return s._replace(tickets=tickets, next_ticket=len(known) + 1)


def _counts(s: State, p: int) -> bool:
    read = any(t.bits >> p & 1 for t in s.threads)
    return bool(s.queued >> p & 1) or s.alive[p] != NOBODY or read


def _is_at_end(s: State) -> bool:
    return all(t.at in ("done", "dead") for t in s.threads)


def search(setting: Setting) -> Result[State]:
    """Visit all states that can be reached; with a mutation, until the first bad one.

    Returns:
        what was found.
    """
    first = _canonical(setting.first_state())
    before: dict[State, list[State]] = {first: []}  # how a state is reached without deaths

    def steps(s: State, result: Result[State]) -> Iterable[State]:
        own = [a for i in range(len(s.threads)) for a in _own_steps(s, i, setting.mutation)]
        if s.overtaken:
            result.note("overtaken", s)
            return
        if not own and not _is_at_end(s) and s.n_deaths == 0:
            result.note("lost", s)
        for after in map(_canonical, (*own, *_looks(s))):
            before.setdefault(after, []).append(s)
            yield after
        for after in map(_canonical, _steps_of_others(s, setting)):
            before.setdefault(after, [])
            yield after

    result = visit(first, steps, setting)
    if not result.wrong:
        for s in _that_cannot_end(before):
            result.note("wedged", s)
    return result


def _that_cannot_end(before: dict[State, list[State]]) -> list[State]:
    can_end = {s for s in before if _is_at_end(s)}
    front = list(can_end)
    while front:
        for earlier in before[front.pop()]:
            if earlier not in can_end:
                can_end.add(earlier)
                front.append(earlier)
    return [s for s in before if s not in can_end]


#: Searched by the tests, in some seconds each.
SETTINGS = {
    "three threads": Setting(n_places=2),
    "two threads, three times each": Setting(n_threads=2, n_times=3, n_places=2, timeouts=True),
    "one place too few": Setting(n_places=1, timeouts=True),
    "one killed": Setting(n_places=1, n_deaths=1),
    "one of two killed, twice each": Setting(
        n_threads=2, n_times=2, n_places=2, n_deaths=1, timeouts=True
    ),
}
#: Searched by the program only: half a minute each.
LARGE_SETTINGS = {
    "three threads and places": Setting(timeouts=True),
    "two of three killed": Setting(n_places=2, n_deaths=2),
    "one of three killed, time-outs": Setting(n_places=2, n_deaths=1, timeouts=True),
}
#: What brings each mutation out.
BROKEN = {name: Setting(n_places=2) for name in MUTATIONS}
BROKEN["leave_silently"] = Setting(n_places=2, timeouts=True)
BROKEN["no_burial"] = Setting(n_threads=2, n_times=2, n_deaths=1)
BROKEN["no_door"] = Setting(n_places=1)
BROKEN["silent_burial"] = Setting(n_places=1, timeouts=True)


if __name__ == "__main__":
    sys.exit(print_table(search, SETTINGS | LARGE_SETTINGS, BROKEN, MUTATIONS))
