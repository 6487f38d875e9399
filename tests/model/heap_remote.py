"""Exhaustive search of the protocol of one word a block: the heap's (docs/heap.md).

Each block has one word, {holder, generation}, outside the memory that blocks use. Every change
of it is one compare and swap, by whoever: allocation {nobody, g} -> {me, g + 1}, transfer
{h, g} -> {me, g}, release by anybody {h, g} -> {nobody, g}. Lists of free blocks are private
guesses. Only returning a chunk and giving it another class happens under the robust lock:

    close: each word {nobody, g} -> {closed, g}, or undo and leave it; then the chunk's last
           generation = the largest of these words and of what it was when the chunk was opened,
           by the distance from the latter, as generations wrap around; then kind = free
    open:  word i = {nobody, 1 + last + i}; opened = last; then kind = class

All interleavings of these steps are visited (breadth first, sequentially consistent), with a
death before any step where the setting says so. The model is one chunk with two words. Class
"a" has two blocks; class "b" has one, which begins where the first of "a" does and which has the
*other* word, so that offset and generation alone must tell blocks of the two classes apart.

A state is wrong if a block is handed out that overlaps a live one, a stale handle frees
something, or a live block's word or chunk changes under it; an end (nobody can go on; the dead
are swept; the lock is repaired) if a block is neither live nor free.

Run as a program it prints the table; the tests are in test_models.py. Each entry of
MUTATIONS breaks the protocol in one place; the search must find something wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from search import Result, print_table, visit

#: Ways to break the protocol, to show that the search would notice.
MUTATIONS = {
    "alloc_by_store": "an allocation stores the word instead of comparing and swapping",
    "kind_read_first": "an allocation looks at the chunk's class before it reads the word",
    "free_by_store": "a release stores the word instead of comparing and swapping",
    "generation_ignored": "a release does not compare the generation",
    "close_by_store": "closing looks at a word and then stores it",
    "free_before_closed": "closing looks whether all words are free but closes none",
    "open_keeps_generations": "opening leaves the generations as they are",
    "open_counts_each_word": "opening raises each generation by itself, not above all",
    "last_not_noted": "closing does not note the largest generation",
    "measured_from_noted": "closing measures from what the last closer noted, who may have died",
    "no_repair": "who gets the lock of a dead holder does not reopen closed words",
    "sweep_by_store": "the sweeper looks at a holder and then stores the word",
    "slot_reused_early": "a dead process's number is given away before the sweep has ended",
    "words_in_data": "the words lie in memory that blocks of another class use",
}

NOBODY = 0
CLOSED = -1
N_GENERATIONS = 1 << 32

#: Class -> offset of each block -> index of its word.
WORDS_OF = {"a": {0: 0, 1: 1}, "b": {0: 1}}


class Word(NamedTuple):
    """The word of a block."""

    holder: int
    generation: int


class Block(NamedTuple):
    """A block that was handed out, as only the search knows it."""

    kind: str
    offset: int
    generation: int
    number: int


class Thread(NamedTuple):
    """One process. `at` is the next step of todo[0], "" between operations."""

    todo: tuple[str, ...]
    at: str = ""
    word: Word = Word(0, 0)
    which: int = 0  # word, or dead process
    block: Block | None = None
    is_dead: bool = False


class State(NamedTuple):
    """Everything: the chunk, the lock (-n: held by the dead n), processes; what was handed out.

    `last` is the chunk's last generation, `opened` what that was when the chunk was opened:
    both stand in the chunk's line.
    """

    kind: str
    words: tuple[Word, Word]
    lock: int
    threads: tuple[Thread, ...]
    last: int = 0
    opened: int = 0
    unswept: frozenset[int] = frozenset()
    live: frozenset[Block] = frozenset()
    handles: frozenset[Block] = frozenset()
    n_deaths: int = 0
    wrong: str = ""


@dataclass(frozen=True)
class Setting:
    """What the search allows.

    Attributes:
        todo: for each process its operations, in order: "alloc a", "alloc b", "free" (any
            handle ever given out), "hold" (likewise), "close", "open a", "open b".
        n_deaths: how many processes may be killed, each before any of its steps.
        reborn: operations of a process that gets the number of a dead one; () for none.
        mutation: a key of MUTATIONS, or "".
    """

    todo: tuple[tuple[str, ...], ...]
    n_deaths: int = 0
    reborn: tuple[str, ...] = ()
    mutation: str = ""

    def first_state(self) -> State:
        """A chunk of class "a" without blocks."""
        words = (Word(NOBODY, 0), Word(NOBODY, 0))
        return State("a", words, 0, tuple(Thread(todo) for todo in self.todo))


# ---- changing parts of a state ----


def _with(s: State, i: int, **changes: Any) -> State:
    thread = s.threads[i]._replace(**changes)
    return s._replace(threads=(*s.threads[:i], thread, *s.threads[i + 1 :]))


def _done(s: State, i: int) -> State:
    """The operation has ended."""
    return _with(s, i, **Thread(s.threads[i].todo[1:])._asdict())


def _put(s: State, index: int, word: Word) -> State:
    words = (word, s.words[1]) if index == 0 else (s.words[0], word)
    return s._replace(words=words)


def _block_at(s: State, index: int) -> Block | None:
    for block in s.live:
        if WORDS_OF[block.kind][block.offset] == index:
            return block
    return None


def _forget(s: State, block: Block | None) -> State:
    return s._replace(live=s.live - {block}) if block else s


# ---- alloc: pop a guess, read its word, look at the class, compare and swap ----


def _alloc(s: State, i: int, kind: str, mutation: str) -> Iterator[State]:
    t = s.threads[i]
    first = "kind" if mutation == "kind_read_first" else "read"
    if t.at == "":
        for index in WORDS_OF[kind].values():
            yield _with(s, i, at=first, which=index)
    elif t.at == "read":
        then = "take" if mutation == "kind_read_first" else "kind"
        word = s.words[t.which]
        yield _with(s, i, at=then, word=word) if word.holder == NOBODY else _done(s, i)
    elif t.at == "kind":
        then = "read" if mutation == "kind_read_first" else "take"
        yield _with(s, i, at=then) if s.kind == kind else _done(s, i)
    elif s.words[t.which] != t.word and mutation != "alloc_by_store":
        yield _done(s, i)
    else:
        yield _done(_hand_out(s, i, kind), i)


def _hand_out(s: State, i: int, kind: str) -> State:
    t = s.threads[i]
    offset = next(o for o, index in WORDS_OF[kind].items() if index == t.which)
    block = Block(kind, offset, t.word.generation + 1, len(s.handles))
    if any(b.kind != kind or b.offset == offset for b in s.live):
        s = s._replace(wrong="a block is handed out twice")
    s = _put(s, t.which, Word(i + 1, block.generation))
    return s._replace(live=s.live | {block}, handles=s.handles | {block})


# ---- free and hold: by any handle, also a stale one ----


def _by_handle(s: State, i: int, what: str, mutation: str) -> Iterator[State]:
    t = s.threads[i]
    if t.at == "":
        for handle in s.handles:
            yield _with(s, i, at="locate", block=handle)
        if not s.handles:
            yield _done(s, i)
        return
    assert t.block
    if t.at == "locate":
        index = WORDS_OF.get(s.kind, {}).get(t.block.offset)
        yield _done(s, i) if index is None else _with(s, i, at="look", which=index)
    elif t.at == "look":
        word = s.words[t.which]
        same = word.generation == t.block.generation or mutation == "generation_ignored"
        if word.holder in (NOBODY, CLOSED) or not same:
            yield _done(s, i)
        else:
            yield _with(s, i, at="swap", word=word)
    elif s.words[t.which] != t.word and not (mutation == "free_by_store" and what == "free"):
        yield _with(s, i, at="look", word=Word(0, 0))  # somebody changed it: look again
    elif what == "free":
        yield _done(_free(s, i), i)
    else:
        yield _done(_put(s, t.which, Word(i + 1, t.word.generation)), i)


def _free(s: State, i: int) -> State:
    t = s.threads[i]
    assert t.block
    if t.block not in s.live or WORDS_OF[t.block.kind][t.block.offset] != t.which:
        s = s._replace(wrong="a stale handle frees something")
    return _put(_forget(s, t.block), t.which, Word(NOBODY, t.word.generation))


# ---- close and open: under the robust lock ----


def _lock(s: State, i: int, mutation: str) -> Iterator[State]:
    if s.lock == 0:
        yield _with(s, i, at="begin")._replace(lock=i + 1)
    elif s.lock < 0:
        then = "begin" if mutation == "no_repair" else "repair 0"
        yield _with(s, i, at=then)._replace(lock=i + 1)


def _repair(s: State, i: int, index: int) -> Iterator[State]:
    word = s.words[index]
    if s.kind in WORDS_OF and word.holder == CLOSED:
        s = _put(s, index, Word(NOBODY, word.generation))
    yield _with(s, i, at="repair 1" if index == 0 else "begin")


def _unlock(s: State, i: int) -> State:
    return _done(s._replace(lock=0), i)


def _close(s: State, i: int, mutation: str) -> Iterator[State]:
    t = s.threads[i]
    if t.at == "begin":
        yield _with(s, i, at="look 0") if s.kind in WORDS_OF else _unlock(s, i)
    elif t.at.startswith("look"):
        index = int(t.at[-1])
        is_used = index in WORDS_OF[s.kind].values()
        if not is_used:
            yield _with(s, i, at=_after_closing(index))
        elif s.words[index].holder != NOBODY:
            yield _with(s, i, at="undo 0")
        elif mutation == "free_before_closed":
            yield _with(s, i, at=_after_closing(index))
        else:
            yield _with(s, i, at=f"shut {index}", word=s.words[index])
    elif t.at.startswith("shut"):
        index = int(t.at[-1])
        if s.words[index] != t.word and mutation != "close_by_store":
            yield _with(s, i, at="undo 0")
        else:
            after = _put(s, index, Word(CLOSED, t.word.generation))
            yield _with(after, i, at=_after_closing(index), word=Word(0, 0))
    elif t.at.startswith("undo"):
        yield _undo(s, i, int(t.at[-1]))
    elif t.at == "return":
        used = [s.words[index].generation for index in WORDS_OF[s.kind].values()]
        first = s.last if mutation == "measured_from_noted" else s.opened
        last = max(first, *used, key=lambda g: (g - first) % N_GENERATIONS)
        if mutation == "last_not_noted":
            last = s.last
        yield _with(s._replace(last=last), i, at="publish")
    else:
        yield _unlock(s._replace(kind="free"), i)


def _after_closing(index: int) -> str:
    return "look 1" if index == 0 else "return"


def _undo(s: State, i: int, index: int) -> State:
    word = s.words[index]
    if word.holder == CLOSED:
        s = _put(s, index, Word(NOBODY, word.generation))
    return _with(s, i, at="undo 1") if index == 0 else _unlock(s, i)


def _open(s: State, i: int, kind: str, mutation: str) -> Iterator[State]:
    t = s.threads[i]
    if t.at == "begin":
        after = _with(s, i, at="set 0")
        yield after if s.kind == "free" else _unlock(s, i)
    elif t.at.startswith("set"):
        index = int(t.at[-1])
        word = Word(NOBODY, 1 + s.last + index)
        if mutation == "open_keeps_generations":
            word = Word(NOBODY, s.words[index].generation)
        elif mutation == "open_counts_each_word":
            word = Word(NOBODY, s.words[index].generation + 1)
        yield _with(_put(s, index, word), i, at="set 1" if index == 0 else "publish")
    else:
        yield _unlock(s._replace(kind=kind, opened=s.last), i)


# ---- the dead ----


def _sweep(s: State, i: int, mutation: str) -> Iterator[State]:
    """Whoever has nothing else to do sweeps: word by word, whatever the chunk's class."""
    t = s.threads[i]
    if t.at == "":
        for number in sorted(s.unswept):
            yield _with(s, i, at="sweep 0", which=number)
        return
    verb, index = t.at.split()[0], int(t.at[-1])
    word = s.words[index]
    onward = "sweep 1" if index == 0 else "swept 0"
    if verb == "swept":
        after = s._replace(unswept=s.unswept - {t.which})
        yield _with(after, i, at="", which=0)
    elif verb == "sweep":
        if word.holder == t.which:
            yield _with(s, i, at=f"clear {index}", word=word)
        else:
            yield _with(s, i, at=onward, word=Word(0, 0))
    elif word != t.word and mutation != "sweep_by_store":
        yield _with(s, i, at=f"sweep {index}", word=Word(0, 0))  # changed: look again
    else:
        yield _with(_clear_swept(s, t, index), i, at=onward, word=Word(0, 0))


def _clear_swept(s: State, t: Thread, index: int) -> State:
    if s.words[index].holder != t.which or not s.threads[t.which - 1].is_dead:
        s = s._replace(wrong="a living process loses a block to the sweeper")
    s = _forget(s, _block_at(s, index))
    return _put(s, index, Word(NOBODY, t.word.generation))


def _kill(s: State, i: int) -> State:
    s = _with(s, i, **Thread((), is_dead=True)._asdict())
    lock = -(i + 1) if s.lock == i + 1 else s.lock
    return s._replace(lock=lock, unswept=s.unswept | {i + 1}, n_deaths=s.n_deaths + 1)


def _scribble(s: State) -> Iterator[State]:
    """Mutation words_in_data: the user of a "b" writes what once stood in the first word."""
    if s.kind == "b" and any(b.kind == "b" for b in s.live) and s.words[0].holder == NOBODY:
        for b in s.handles:
            if b.kind == "a" and b.offset == 0:
                yield _put(s, 0, Word(1, b.generation))


# ---- the search ----


def _steps_of(s: State, i: int, mutation: str) -> Iterator[State]:
    t = s.threads[i]
    if t.is_dead:
        return
    if not t.todo:
        yield from _sweep(s, i, mutation)
        return
    what, _, kind = t.todo[0].partition(" ")
    if what == "alloc":
        yield from _alloc(s, i, kind, mutation)
    elif what in ("free", "hold"):
        yield from _by_handle(s, i, what, mutation)
    elif t.at == "":
        yield from _lock(s, i, mutation)
    elif t.at.startswith("repair"):
        yield from _repair(s, i, int(t.at[-1]))
    elif what == "close":
        yield from _close(s, i, mutation)
    else:
        yield from _open(s, i, kind, mutation)


def _steps_of_fate(s: State, setting: Setting) -> Iterator[State]:
    """What may happen but need not."""
    for i, t in enumerate(s.threads):
        if not t.is_dead and s.n_deaths < setting.n_deaths:
            yield _kill(s, i)
        may_return = i + 1 not in s.unswept or setting.mutation == "slot_reused_early"
        if t.is_dead and setting.reborn and may_return:
            yield _with(s, i, **Thread(setting.reborn)._asdict())
    if setting.mutation == "words_in_data":
        yield from _scribble(s)


def _wrong_now(s: State) -> str:
    """What must hold in every state."""
    for b in s.live:
        word = s.words[WORDS_OF[b.kind][b.offset]]
        if s.kind != b.kind:
            return "a chunk is returned with a live block in it"
        if word.holder in (NOBODY, CLOSED) or word.generation != b.generation:
            return "a live block's word was changed"
    return s.wrong


def _wrong_at_end(s: State, mutation: str) -> str:
    """What must hold when nobody can go on; the next locker has repaired."""
    if s.kind not in WORDS_OF or all(t.is_dead for t in s.threads):
        return ""
    for index in WORDS_OF[s.kind].values():
        word = s.words[index]
        repaired = s.lock < 0 and mutation != "no_repair"
        if word.holder == CLOSED and not repaired:
            return "a block is lost: closed for ever"
        if word.holder > 0 and not _block_at(s, index):
            return "a block is lost: held by nobody's handle"
    return ""


def search(setting: Setting) -> Result[State]:
    """Visit all states that can be reached; with a mutation, until something is wrong.

    Returns:
        what was found.
    """

    def steps(s: State, result: Result[State]) -> Iterable[State]:
        own = [a for i in range(len(s.threads)) for a in _steps_of(s, i, setting.mutation)]
        wrong = _wrong_now(s) or ("" if own else _wrong_at_end(s, setting.mutation))
        if wrong:
            result.note(wrong, s)
            return ()
        return (*own, *_steps_of_fate(s, setting))

    return visit(setting.first_state(), steps, setting)


_CHANGES = ("close", "open b", "alloc b")
SETTINGS = {
    "two allocate, all free": Setting((("alloc a", "free"), ("alloc a", "free"), ("free",))),
    "a place is used twice, then the class changes": Setting(
        (("alloc a", "free", "alloc a", "free"), _CHANGES, ("free",))
    ),
    "transfer and free": Setting((("alloc a", "hold"), ("hold",), ("free",))),
    "the class changes": Setting((("alloc a", "free"), _CHANGES, ("free",))),
    "the class changes, two allocate": Setting((("alloc a", "alloc a"), _CHANGES)),
    "the class changes back": Setting(
        (("alloc a", "free"), ("close", "open b", "close", "open a", "alloc a"))
    ),
    "two change the class": Setting((("close", "open b"), ("close", "open a"), ("alloc a",))),
    "killed": Setting((("alloc a", "free"), ("alloc a", "hold"), ("free",)), n_deaths=2),
    "killed while the class changes": Setting(
        (("alloc a",), ("close", "open b"), ("close", "open b", "alloc b")), n_deaths=2
    ),
    "killed while the class changes, a place is used again": Setting(
        (("alloc a", "free") * 3 + ("free",), ("close",), ("close", "open b", "alloc b")),
        n_deaths=1,
    ),
    "a number is used again": Setting(
        (("alloc a", "hold"), ("hold",)), n_deaths=1, reborn=("alloc a",)
    ),
}
#: What brings each mutation out.
BROKEN = {
    "alloc_by_store": SETTINGS["two allocate, all free"],
    "kind_read_first": SETTINGS["the class changes, two allocate"],
    "free_by_store": SETTINGS["two allocate, all free"],
    "generation_ignored": SETTINGS["two allocate, all free"],
    "close_by_store": SETTINGS["the class changes"],
    "free_before_closed": SETTINGS["the class changes"],
    "open_keeps_generations": SETTINGS["the class changes, two allocate"],
    "open_counts_each_word": SETTINGS["a place is used twice, then the class changes"],
    "last_not_noted": SETTINGS["a place is used twice, then the class changes"],
    "measured_from_noted": SETTINGS["killed while the class changes, a place is used again"],
    "no_repair": SETTINGS["killed while the class changes"],
    "sweep_by_store": SETTINGS["killed"],
    "slot_reused_early": SETTINGS["a number is used again"],
    "words_in_data": SETTINGS["the class changes"],
}


if __name__ == "__main__":
    sys.exit(print_table(search, SETTINGS, BROKEN, MUTATIONS))
