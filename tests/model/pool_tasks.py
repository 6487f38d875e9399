"""All interleavings of a pool's tasks (docs/pool.md): who has them, whoever dies when.

A model of one dispatcher, some workers with an inbox and a word each, and the results' channel. A
step is one access to what processes share, or one thing that only its process sees. Channels do
what they promise: a put or a take has happened or it has not.

What the search looks for in each state it can reach:

- *done twice*: a call was made again;
- *answered twice*, *answered wrongly*: as it says; a result without a call is wrong, too;
- *too many died*: more calls have failed than workers were killed;
- *lost*: nothing can happen any more, and a call has no answer.

Run as a program it prints the table; the tests are in test_models.py. Each entry of MUTATIONS
breaks the protocol in one place; the search must find each of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from search import Result, print_table, visit

#: Ways to break the protocol, to show that the search would notice.
MUTATIONS = {
    "begin_late": "the word names a call when it has been made",
    "clear_early": "the word is cleared before the last result is put",
    "results_at_end": "the results of a task are put when all its calls have been made",
    "journal_unread": "results that a dead worker has kept are not looked for",
    "journal_goes_on": "what is kept after a message goes behind what was sent",
    "word_stands_still": "a call after one whose result was kept is not named",
    "end_overtakes": "the end of a worker is told before its results have been received",
    "inbox_stays": "the next worker of a place finds the inbox of the dead one",
    "word_of_any_task": "of the word only the item is looked at",
    "numbers_again": "the tasks of each worker are numbered from 1",
    "rest_dropped": "what a dead worker had not begun is not done",
    "looks_first": "a worker looks whether a call was withdrawn, and then names it",
    "withdrawn_blindly": "what is withdrawn is done by others, whatever the worker has begun",
    "read_blindly": "what was read of a journal is believed without a second look at the word",
    "read_early": "a journal is read before what was sent has been received",
    "read_again": "results that were read in the journal are taken again when they are sent",
    "read_from_start": "results that were read are taken again from a dead worker's journal",
    "withdrawn_again": "calls behind one that was withdrawn are withdrawn in its place",
    "stop_ignored": "where a worker has stopped, nobody goes on",
    "stop_takes_all": "where a worker has stopped, all its later tasks are taken for withdrawn",
    "withdrawn_died": "a worker is said to have died in a call that was withdrawn",
}


class Task(NamedTuple):
    """Items from first to below end; in a place's list, n_done of them have been received."""

    number: int
    first: int
    end: int
    n_done: int = 0
    n_read: int = 0  # results that were read in the journal before they were sent


class Place(NamedTuple):
    """A worker, and what is kept of it."""

    at: str = "take"  # the worker's next step; "dead", "told": so is the dispatcher
    has: Task | None = None  # n_done: calls made
    word: tuple[int, int] = (0, 0)  # number, item
    journal: tuple[int, ...] = ()  # items whose results were kept
    n_kept: int = 0  # of them, not sent
    inbox: tuple[Task, ...] = ()
    given: tuple[Task, ...] = ()  # the dispatcher's list
    #: The first call that is withdrawn, and the first number that is not.
    withdrawn: tuple[tuple[int, int], int] = ((0, 0), 0)


class Looking(NamedTuple):
    """A look at a worker."""

    i: int
    word: tuple[int, int]  # that it had
    at: str = "marked"  # what was sent before is being received; then read, withdraw, check
    read: tuple[int, ...] | None = None  # of the journal


class State(NamedTuple):
    """Everything."""

    places: tuple[Place, ...]
    waiting: tuple[tuple[int, int], ...]
    calls: tuple[int, ...]  # how often each was made
    answers: tuple[str, ...]  # of each call, a letter an answer: r, or d for died
    #: Place, number, first item, how many; or one of the three below.
    results: tuple[tuple[int, int, int, int], ...] = ()
    putting: tuple[int, Task] | None = None  # what the dispatcher is about to put where
    number: int = 0  # of the latest task
    n_deaths: int = 0
    looking: Looking | None = None
    n_looks: int = 0


#: Kinds of messages in place of a number of results.
ENDED = 0
STOPPED = -1
MARK = -2


@dataclass(frozen=True)
class Setting:
    """What the search allows.

    Attributes:
        n_items: calls to be made.
        chunksize: of them in a task.
        n_workers: workers.
        n_deaths: how many may be killed, before any step.
        depth: tasks that a worker may have at a time.
        n_looks: how often a worker may be looked at.
        mutation: a key of MUTATIONS, or "".
    """

    n_items: int = 4
    chunksize: int = 2
    n_workers: int = 1
    n_deaths: int = 2
    depth: int = 1
    n_looks: int = 0
    mutation: str = ""

    def first_state(self) -> State:
        """Before anybody took a step."""
        zeros, nothing = (0,) * self.n_items, ("",) * self.n_items
        return State((Place(),) * self.n_workers, ((0, self.n_items),), zeros, nothing)


# ---- pieces of state ----


def _put(values: tuple[int, ...], i: int, value: int) -> tuple[int, ...]:
    return (*values[:i], value, *values[i + 1 :])


def _place(s: State, i: int, **changes: object) -> State:
    place = s.places[i]._replace(**changes)  # type: ignore[arg-type]
    return s._replace(places=(*s.places[:i], place, *s.places[i + 1 :]))


def _answer(s: State, item: int, letter: str) -> State:
    answers = (*s.answers[:item], s.answers[item] + letter, *s.answers[item + 1 :])
    return s._replace(answers=answers)


# ---- the worker ----


def _worker(s: State, i: int, setting: Setting) -> Iterator[State]:
    """After the next step of a worker."""
    place, task = s.places[i], s.places[i].has
    after = _step(s, i, setting)
    if after is not None:
        yield after
    if place.at == "put" and task is not None and task.first + task.n_done + 1 < task.end:
        journal = (*place.journal[: place.n_kept], task.first + task.n_done)
        at = "call" if setting.mutation in ("begin_late", "word_stands_still") else "begin"
        has = task._replace(n_done=task.n_done + 1)
        yield _place(s, i, at=at, has=has, journal=journal, n_kept=place.n_kept + 1)


def _step(s: State, i: int, setting: Setting) -> State | None:
    """Likewise, with the result of a call sent."""
    place, broken = s.places[i], setting.mutation
    if place.at == "take":
        if not place.inbox:
            return None
        return _place(s, i, at="begin", has=place.inbox[0], inbox=place.inbox[1:])
    task = place.has
    assert task is not None
    item = task.n_done
    call = task.number, item
    if broken == "looks_first" and place.at in ("begin", "look"):
        if place.at == "look":
            return _place(s, i, word=call, at="call")
        return _place(s, i, at="stop" if _is_withdrawn(place, call) else "look")
    if place.at == "begin":
        s = _place(s, i, word=call)
        return _place(s, i, at="put" if broken == "begin_late" else "look")
    if place.at == "look":
        return _place(s, i, at="stop" if _is_withdrawn(place, call) else "call")
    if place.at in ("stop", "say"):
        return _stop(s, i, task)
    if place.at == "call":
        s = s._replace(calls=_put(s.calls, task.first + item, s.calls[task.first + item] + 1))
        return _place(s, i, at="begin" if broken == "begin_late" else "put")
    is_last = task.first + item + 1 == task.end
    if place.at == "put":
        if broken == "results_at_end":
            if is_last:
                s = s._replace(results=(*s.results, (i, task.number, 0, item + 1)))
        elif broken == "clear_early" and is_last and place.word != (0, 0):
            return _place(s, i, word=(0, 0))
        else:
            n = place.n_kept
            s = s._replace(results=(*s.results, (i, task.number, item - n, n + 1)))
            s = _place(s, i, n_kept=n if broken == "journal_goes_on" and not is_last else 0)
        if is_last:
            return _place(s, i, at="clear")
        at = "call" if broken == "begin_late" else "begin"
        return _place(s, i, at=at, has=task._replace(n_done=item + 1))
    return _place(s, i, at="take", word=(0, 0), has=None)


def _is_withdrawn(place: Place, call: tuple[int, int]) -> bool:
    first, end = place.withdrawn
    return first <= call and call[0] < end


def _stop(s: State, i: int, task: Task) -> State:
    """The worker's call was withdrawn: results that were not sent go first."""
    place = s.places[i]
    if place.at == "say":
        s = s._replace(results=(*s.results, (i, task.number, task.n_done, STOPPED)))
        return _place(s, i, at="take", has=None)
    n = place.n_kept
    if n == 0:
        return _place(s, i, at="say", word=(0, 0))
    s = s._replace(results=(*s.results, (i, task.number, task.n_done - n, n)))
    return _place(s, i, n_kept=0)


def _death(s: State, i: int, setting: Setting) -> Iterator[State]:
    """A worker is killed, or the supervisor tells of one that was."""
    place = s.places[i]
    if place.at == "dead":
        end = ((i, 0, 0, 0),)
        results = end + s.results if setting.mutation == "end_overtakes" else s.results + end
        yield _place(s, i, at="told")._replace(results=results)
    elif place.at != "told" and s.n_deaths < setting.n_deaths:
        yield _place(s, i, at="dead", has=None)._replace(n_deaths=s.n_deaths + 1)


# ---- the dispatcher ----


def _give(s: State, i: int, setting: Setting) -> State:
    first, stop = s.waiting[0]
    end = min(first + setting.chunksize, stop)
    rest = ((end, stop),) if end < stop else ()
    number = s.number + 1
    if setting.mutation == "numbers_again":
        number = 1 + len(s.places[i].given)
    task = Task(number, first, end)
    s = s._replace(waiting=rest + s.waiting[1:], putting=(i, task), number=s.number + 1)
    return _place(s, i, given=(*s.places[i].given, task))


def _finish_putting(s: State) -> State:
    assert s.putting is not None
    i, task = s.putting
    s = s._replace(putting=None)
    return _place(s, i, inbox=(*s.places[i].inbox, task))


def _receive(s: State, setting: Setting) -> State:
    i, number, item, n = s.results[0]
    s = s._replace(results=s.results[1:])
    if n == ENDED:
        return _divide(s, i, setting)
    if n == MARK:
        assert s.looking is not None
        return s._replace(looking=s.looking._replace(at="read"))
    if n == STOPPED:
        if setting.mutation == "stop_ignored":
            return s
        return _cut(s, i, number, item, later=setting.mutation == "stop_takes_all")
    given: list[Task] = []
    for task in s.places[i].given:
        if task.number != number:
            given.append(task)
            continue
        for k in range(item + (setting.mutation != "read_again") * task.n_read, item + n):
            s = _answer(s, task.first + k, "r")
        if task.first + item + n < task.end:
            given.append(task._replace(n_done=item + n, n_read=0))
    return _place(s, i, given=tuple(given))


def _cut(s: State, i: int, number: int, item: int, *, later: bool) -> State:
    """A worker's task ends before an item, and what it had from there on waits again."""
    given: list[Task] = []
    rest: list[tuple[int, int]] = []
    for task in s.places[i].given:
        at = item if task.number == number else 0
        if task.number != number and not (later and task.number > number):
            given.append(task)
            continue
        if task.first + at < task.end:
            rest.append((task.first + at, task.end))
        if task.n_done < at:
            given.append(task._replace(end=task.first + at))
    return _place(s._replace(waiting=tuple(rest) + s.waiting), i, given=tuple(given))


def _look(s: State, setting: Setting) -> State:
    """The next step of a look at a worker."""
    look, broken = s.looking, setting.mutation
    assert look is not None
    i, number, item = look.i, *look.word
    place = s.places[i]
    task = next((t for t in place.given if t.number == number), None)
    if task is None or (task.first + item >= task.end and broken != "withdrawn_again"):
        return s._replace(looking=None)
    if look.at == "read" and look.read is None:
        return s._replace(looking=look._replace(read=place.journal))
    if look.at == "read":
        if place.word != look.word and broken != "read_blindly":
            return s._replace(looking=None)
        assert look.read is not None
        for k in range(task.n_done, item):
            there = k - task.n_done + task.n_read
            right = look.read[there : there + 1] == (task.first + k,)
            s = _answer(s, task.first + k, "r" if right else "wrong")
        read = max(0, item - task.n_done)
        task = task._replace(n_done=task.n_done + read, n_read=task.n_read + read)
        given = tuple(task if t.number == number else t for t in place.given)
        return _place(s, i, given=given)._replace(looking=look._replace(at="withdraw"))
    if look.at == "withdraw":
        s = _place(s, i, withdrawn=((number, item + 1), s.number + 1))
        return s._replace(looking=look._replace(at="check"))
    if place.word == look.word or broken == "withdrawn_blindly":
        s = _cut(s, i, number, item + 1, later=True)
    return s._replace(looking=None)


def _divide(s: State, i: int, setting: Setting) -> State:
    place, broken = s.places[i], setting.mutation
    rest: list[tuple[int, int]] = []
    for given in place.given:
        task, n_kept = given, place.word[1] - given.n_done
        n_read = 0 if broken == "read_from_start" else given.n_read
        if place.word[0] == task.number and n_kept > 0 and broken != "journal_unread":
            for k in range(n_kept):
                there = n_read + k
                right = place.journal[there : there + 1] == (task.first + task.n_done + k,)
                s = _answer(s, task.first + task.n_done + k, "r" if right else "wrong")
            task = task._replace(n_done=task.n_done + n_kept)
        first = task.first + task.n_done
        word = (task.number, task.n_done)
        if (place.word == word and (first < task.end or broken == "withdrawn_died")) or (
            broken == "word_of_any_task" and place.word[0] and place.word[1] == task.n_done
        ):
            s = _answer(s, first, "d")
            first += 1
        if first < task.end and broken != "rest_dropped":
            rest.append((first, task.end))
    s = s._replace(waiting=tuple(rest) + s.waiting)
    inbox = place.inbox if broken == "inbox_stays" else ()
    fresh = Place(given=(), inbox=inbox)
    s = s._replace(places=(*s.places[:i], fresh, *s.places[i + 1 :]))
    return (
        s
        if s.looking is None or s.looking.i != i
        else s._replace(
            looking=None, results=tuple(message for message in s.results if message[3] != MARK)
        )
    )


def _dispatcher(s: State, setting: Setting) -> Iterator[State]:
    if s.putting is not None:
        yield _finish_putting(s)
        return
    if s.looking is not None and s.looking.at != "marked":
        yield _look(s, setting)
        return
    if s.results:
        yield _receive(s, setting)
    if s.looking is None and s.n_looks < setting.n_looks:
        for i, place in enumerate(s.places):
            if place.word != (0, 0) and place.at not in ("dead", "told"):
                yield _note(s, i, setting)
    if s.waiting:
        for i, place in enumerate(s.places):
            if len(place.given) < setting.depth:
                yield _give(s, i, setting)


def _note(s: State, i: int, setting: Setting) -> State:
    """Begin to look at a worker."""
    s = s._replace(n_looks=s.n_looks + 1)
    if setting.mutation == "read_early":
        return s._replace(looking=Looking(i, s.places[i].word, "read"))
    s = s._replace(results=(*s.results, (i, 0, 0, MARK)))
    return s._replace(looking=Looking(i, s.places[i].word))


# ---- the search ----


def _wrong(s: State) -> str:
    for calls, answer in zip(s.calls, s.answers, strict=True):
        if calls > 1:
            return "done twice"
        if "wrong" in answer or (answer == "r" and calls == 0):
            return "answered wrongly"
        if len(answer) > 1:
            return "answered twice"
    if sum(answer == "d" for answer in s.answers) > s.n_deaths:
        return "too many died"
    return ""


def search(setting: Setting) -> Result[State]:
    """Visit all states that can be reached; with a mutation, until something is wrong.

    Returns:
        what was found.
    """

    def steps(s: State, result: Result[State]) -> Iterable[State]:
        after = list(_dispatcher(s, setting))
        fate: list[State] = []
        for i, place in enumerate(s.places):
            if place.at not in ("dead", "told"):
                after += _worker(s, i, setting)
            fate += _death(s, i, setting)
        wrong = _wrong(s)
        if not wrong and not after and not any(p.at == "dead" for p in s.places):
            wrong = "" if all(s.answers) else "lost"
        if wrong:
            result.note(wrong, s)
            return ()
        return (*after, *fate)

    return visit(setting.first_state(), steps, setting)


SETTINGS = {
    "one worker, chunks": Setting(n_items=6, chunksize=3, n_deaths=3),
    "one long chunk": Setting(n_items=5, chunksize=5, n_deaths=2),
    "two workers": Setting(n_items=3, chunksize=1, n_workers=2, n_deaths=2),
    "two workers, chunks": Setting(n_items=4, chunksize=2, n_workers=2, n_deaths=1),
    "tasks ahead": Setting(n_items=4, chunksize=1, depth=2, n_deaths=2),
    "chunks ahead, two workers": Setting(n_items=4, chunksize=2, depth=2, n_workers=2, n_deaths=1),
    "a look": Setting(n_items=4, chunksize=4, n_deaths=1, n_looks=2),
    "a look, tasks ahead": Setting(n_items=4, chunksize=2, depth=2, n_deaths=1, n_looks=1),
    "a look, two workers": Setting(n_items=3, chunksize=3, n_workers=2, n_deaths=1, n_looks=1),
}
#: What brings each mutation out.
BROKEN = {
    "begin_late": SETTINGS["one worker, chunks"],
    "clear_early": SETTINGS["one worker, chunks"],
    "results_at_end": SETTINGS["one worker, chunks"],
    "journal_unread": SETTINGS["one worker, chunks"],
    "journal_goes_on": SETTINGS["one long chunk"],
    "word_stands_still": SETTINGS["one worker, chunks"],
    "end_overtakes": SETTINGS["one worker, chunks"],
    "inbox_stays": SETTINGS["one worker, chunks"],
    "word_of_any_task": SETTINGS["tasks ahead"],
    "numbers_again": SETTINGS["tasks ahead"],
    "rest_dropped": SETTINGS["one worker, chunks"],
    "looks_first": SETTINGS["a look, two workers"],
    "withdrawn_blindly": SETTINGS["a look, two workers"],
    "read_blindly": SETTINGS["a look"],
    "read_early": SETTINGS["a look"],
    "read_again": SETTINGS["a look"],
    "read_from_start": SETTINGS["a look"],
    "withdrawn_again": SETTINGS["a look"],
    "stop_ignored": SETTINGS["a look"],
    "stop_takes_all": SETTINGS["a look, tasks ahead"],
    "withdrawn_died": SETTINGS["a look"],
}


if __name__ == "__main__":
    sys.exit(print_table(search, SETTINGS, BROKEN, MUTATIONS))
