"""Exhaustive search of how runs change hands without the heap's lock (docs/heap.md).

A run is a chunk, or two, with one word {holder, generation}. Who frees one notes it in an entry,
{first chunk, length}, that others may read, take, or write over at any time: an entry is a guess
and nothing else. So there are no entries here: whoever wants a run may believe at any time that
one of any length is free. That covers entries that are stale, doubled or lost, and every death
between freeing a run and noting it, or between taking the entry and taking the run.

    run n:  read the word; look whether the chunk is a run, of the length n; compare and swap;
            then write the size as asked, then the generation that it belongs to
    find:   read the word; kind; the size's generation; size; word again: all must belong together
    close:  (lock) word {nobody, g} -> {closed, g}; note g; kind of the rest = free; kind = free
    make n: (lock, the chunk is free) word = {nobody, 1 + last}; kind of the rest; length;
            kind = run
    repair: (lock of a dead holder) a run whose word is closed is given back to the end; words of
            small blocks are opened again; a rest without its run is free

Size and its generation lie in the second and third word of the run's chunk, as words that are
closed: late swaps of small blocks, whose words these were, must not fit. The model is a chunk
that is free, a run, or holds two small blocks, and the one after it, which is free or the run's
rest. Generations and sizes are small numbers so that they coincide where they can.

A state is wrong if a block is handed out that overlaps a live one or has another length than its
taker believes, if a chunk of a live run is given away, if somebody reads a size that no holder of
that generation asked for, or a stale handle frees something; an end if a word stays closed.

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
    "take_by_store": "who takes a run stores the word instead of comparing and swapping",
    "kind_read_first": "who takes a run looks at the kind and the length before the word",
    "length_ignored": "who takes a run does not look at its length",
    "length_read_first": "who takes a run looks at the length before the word",
    "size_before_take": "the size is written before the swap",
    "generation_before_size": "the size's generation is written before the size",
    "generation_ignored": "who reads a size does not compare its generation",
    "found_at_once": "who reads a size does not read the word again",
    "size_is_open": "the size is no closed word: a late swap of a small block may fit",
    "close_by_store": "closing looks at the word and then stores it",
    "length_after_kind": "who makes a run says how long it is after saying that it is one",
    "repair_opens_runs": "repair opens the word of a run again that was being given back",
    "repair_frees_unseen": "repair looks at a run's word, and frees the run by stores",
    "repair_leaves_rests": "repair leaves the rest of no run as it is",
    "last_not_noted": "closing does not note the generation",
}

NOBODY = 0
CLOSED = -1
N_WORDS = 3
SIZE, SIZED = 1, 2  # the words of a run's chunk that say its size, and of which generation

#: What a chunk may be -> its words.
WORDS_OF = {"small": (0, 1), "run": (0,)}


class Word(NamedTuple):
    """The word of a block, or of a size."""

    holder: int
    generation: int


class Block(NamedTuple):
    """A block that was handed out, as only the search knows it."""

    kind: str
    place: int  # of its word
    generation: int
    length: int = 0  # chunks of a run
    size: int = 0  # of a run, as asked


class Thread(NamedTuple):
    """One process. `at` is the next step of todo[0], "" between operations."""

    todo: tuple[str, ...]
    at: str = ""
    word: Word = Word(0, 0)
    which: int = 0  # word, or dead process
    size: int = 0  # that was read
    block: Block | None = None
    is_dead: bool = False


class State(NamedTuple):
    """Everything: the chunk, the lock (-n: held by the dead n), processes; what was handed out.

    `rest` is the kind of the chunk behind, `length` how many the run has, `last` and `opened` as
    in heap_remote.py.
    """

    kind: str
    words: tuple[Word, ...]
    threads: tuple[Thread, ...]
    rest: str = "free"
    length: int = 0
    lock: int = 0
    last: int = 0
    opened: int = 0
    unswept: frozenset[int] = frozenset()
    live: frozenset[Block] = frozenset()
    made: frozenset[Block] = frozenset()  # ever taken
    handles: frozenset[Block] = frozenset()  # whose allocation has ended
    n_deaths: int = 0
    wrong: str = ""


@dataclass(frozen=True)
class Setting:
    """What the search allows.

    Attributes:
        todo: for each process its operations, in order: "run N S" (N chunks, for a size S),
            "small" (a small block), "free" (any handle ever given out), "find", "close",
            "make N", "open" (for small blocks).
        n_deaths: how many processes may be killed, each before any of its steps.
        is_run: the chunk is a free run of length 1 at first, else one of small blocks.
        mutation: a key of MUTATIONS, or "".
    """

    todo: tuple[tuple[str, ...], ...]
    n_deaths: int = 0
    is_run: bool = True
    mutation: str = ""

    def first_state(self) -> State:
        """A chunk without blocks, as it is when it was just opened."""
        threads = tuple(Thread(todo) for todo in self.todo)
        if self.is_run:
            words = (Word(NOBODY, 1), Word(NOBODY, 0), Word(NOBODY, 0))
            return State("run", words, threads, length=1)
        return State("small", (Word(NOBODY, 1), Word(NOBODY, 2), Word(NOBODY, 0)), threads)


# ---- changing parts of a state ----


def _with(s: State, i: int, **changes: Any) -> State:
    thread = s.threads[i]._replace(**changes)
    return s._replace(threads=(*s.threads[:i], thread, *s.threads[i + 1 :]))


def _done(s: State, i: int) -> State:
    """The operation has ended."""
    return _with(s, i, **Thread(s.threads[i].todo[1:])._asdict())


def _put(s: State, index: int, word: Word) -> State:
    return s._replace(words=(*s.words[:index], word, *s.words[index + 1 :]))


def _block_at(s: State, index: int) -> Block | None:
    for block in s.live:
        if block.place == index:
            return block
    return None


def _forget(s: State, block: Block | None) -> State:
    return s._replace(live=s.live - {block}) if block else s


# ---- taking a run, or a small block ----

#: Mutation -> the steps of "run"; what a step is followed by.
_ORDER = {
    "": ("read", "kind", "length", "take", "size", "sized"),
    "kind_read_first": ("kind", "length", "read", "take", "size", "sized"),
    "length_ignored": ("read", "kind", "take", "size", "sized"),
    "length_read_first": ("length", "read", "kind", "take", "size", "sized"),
    "size_before_take": ("read", "kind", "length", "size", "sized", "take"),
    "generation_before_size": ("read", "kind", "length", "take", "sized", "size"),
}


def _run(s: State, i: int, length: int, size: int, mutation: str) -> Iterator[State]:
    order = _ORDER.get(mutation, _ORDER[""])
    t = s.threads[i]
    at = t.at or order[0]
    onward = order[order.index(at) + 1] if at != order[-1] else ""
    if at == "read":
        free = s.words[0].holder == NOBODY
        yield _with(s, i, at=onward, word=s.words[0]) if free else _done(s, i)
    elif at == "kind":
        yield _with(s, i, at=onward) if s.kind == "run" else _done(s, i)
    elif at == "length":
        yield _with(s, i, at=onward) if s.length == length else _done(s, i)
    elif at == "take":
        if s.words[0] != t.word and mutation != "take_by_store":
            yield _done(s, i)
            return
        block = Block("run", 0, t.word.generation + 1, length, size)
        after = _with(_hand_out(s, i, block), i, at=onward, block=block)
        yield after if onward else _return(after, i)
    else:
        word = Word(CLOSED, t.word.generation + 1)
        if at == "size":
            word = Word(NOBODY if mutation == "size_is_open" else CLOSED, size)
        after = _with(_put(s, SIZE if at == "size" else SIZED, word), i, at=onward)
        yield after if onward else _return(after, i)


def _hand_out(s: State, i: int, block: Block) -> State:
    if any(b.kind != block.kind or b.place == block.place for b in s.live):
        s = s._replace(wrong="a block is handed out twice")
    if block.kind == "run" and s.length != block.length:
        s = s._replace(wrong="a run has another length than its taker believes")
    s = _put(s, block.place, Word(i + 1, block.generation))
    return s._replace(live=s.live | {block}, made=s.made | {block})


def _return(s: State, i: int) -> State:
    """The allocation has ended, so others may get to know of the block."""
    block = s.threads[i].block
    assert block
    return _done(s._replace(handles=s.handles | {block}), i)


def _small(s: State, i: int, mutation: str) -> Iterator[State]:
    del mutation  # those of small blocks are in heap_remote.py
    t = s.threads[i]
    if t.at == "":
        for index in WORDS_OF["small"]:
            if s.words[index].holder == NOBODY:
                yield _with(s, i, at="kind", which=index, word=s.words[index])
        if all(s.words[index].holder != NOBODY for index in WORDS_OF["small"]):
            yield _done(s, i)
    elif t.at == "kind":
        yield _with(s, i, at="take") if s.kind == "small" else _done(s, i)
    elif s.words[t.which] != t.word:
        yield _done(s, i)
    else:
        block = Block("small", t.which, t.word.generation + 1)
        yield _return(_with(_hand_out(s, i, block), i, block=block), i)


# ---- release, and who reads a size ----


def _free(s: State, i: int) -> Iterator[State]:
    t = s.threads[i]
    if t.at == "":
        for handle in s.handles:
            yield _with(s, i, at="locate", block=handle)
        if not s.handles:
            yield _done(s, i)
        return
    assert t.block
    if t.at == "locate":
        is_block = t.block.place in WORDS_OF.get(s.kind, ())
        yield _with(s, i, at="look") if is_block else _done(s, i)
    elif t.at == "look":
        word = s.words[t.block.place]
        is_it = word.holder not in (NOBODY, CLOSED) and word.generation == t.block.generation
        yield _with(s, i, at="swap", word=word) if is_it else _done(s, i)
    elif s.words[t.block.place] != t.word:
        yield _with(s, i, at="look", word=Word(0, 0))
    else:
        if t.block not in s.live:
            s = s._replace(wrong="a stale handle frees something")
        after = _forget(s, t.block)
        yield _done(_put(after, t.block.place, Word(NOBODY, t.block.generation)), i)


def _find(s: State, i: int, mutation: str) -> Iterator[State]:
    t = s.threads[i]
    if t.at == "":
        live = s.words[0].holder not in (NOBODY, CLOSED)
        yield _with(s, i, at="kind", word=s.words[0]) if live else _done(s, i)
    elif t.at == "kind":
        yield _with(s, i, at="sized") if s.kind == "run" else _done(s, i)
    elif t.at == "sized":
        is_it = s.words[SIZED] == Word(CLOSED, t.word.generation)
        go_on = is_it or mutation == "generation_ignored"
        yield _with(s, i, at="size") if go_on else _done(s, i)
    elif t.at == "size":
        yield _with(s, i, at="again", size=s.words[SIZE].generation)
    else:
        if s.words[0] == t.word or mutation == "found_at_once":
            asked = {b.size for b in s.made if b.generation == t.word.generation}
            if t.size not in asked:
                s = s._replace(wrong="somebody reads the size of another block")
        yield _done(s, i)


# ---- close, make, open: under the robust lock ----


def _lock(s: State, i: int) -> Iterator[State]:
    if s.lock == 0:
        yield _with(s, i, at="begin")._replace(lock=i + 1)
    elif s.lock < 0:
        yield _with(s, i, at="repair")._replace(lock=i + 1)


def _unlock(s: State, i: int) -> State:
    return _done(s._replace(lock=0), i)


def _repair(s: State, i: int, mutation: str) -> Iterator[State]:
    """Runs first: a rest without its run is free then. Small blocks word by word in one step:
    that is searched in heap_remote.py."""
    t = s.threads[i]
    unseen = mutation == "repair_frees_unseen" and s.words[0].holder == NOBODY
    if s.kind == "run" and t.at == "repair" and unseen:
        yield _with(s, i, at="repair unseen")
    elif t.at == "repair unseen":
        yield _with(s._replace(kind="free", rest="free", last=s.words[0].generation), i, at="begin")
    elif s.kind == "run" and s.words[0].holder == CLOSED and mutation == "repair_opens_runs":
        yield _with(_put(s, 0, Word(NOBODY, s.words[0].generation)), i, at="repair")
    elif s.kind == "run" and s.words[0].holder == CLOSED:
        yield _with(s, i, at="note", word=s.words[0])
    elif s.kind == "run":
        yield _with(s, i, at="begin")
    else:
        if s.kind == "small":
            for index in WORDS_OF["small"]:
                if s.words[index].holder == CLOSED:
                    s = _put(s, index, Word(NOBODY, s.words[index].generation))
        if mutation != "repair_leaves_rests":
            s = s._replace(rest="free")
        yield _with(s, i, at="begin")


def _close(s: State, i: int, mutation: str) -> Iterator[State]:
    t = s.threads[i]
    if t.at == "begin" and s.kind == "run":
        yield _with(s, i, at="shut") if s.words[0].holder == NOBODY else _unlock(s, i)
    elif t.at == "begin":
        yield from _close_small(s, i)
    elif t.at == "shut" and s.words[0].holder == NOBODY:
        yield _with(s, i, at="shut 0", word=s.words[0])
    elif t.at == "shut" or (s.words[0] != t.word and mutation != "close_by_store"):
        yield _unlock(s, i)
    else:
        yield _with(_put(s, 0, Word(CLOSED, t.word.generation)), i, at="note")


def _close_small(s: State, i: int) -> Iterator[State]:
    """In one step: it is searched in heap_remote.py."""
    words = s.words
    if s.kind == "small" and words[0].holder == words[1].holder == NOBODY:
        last = max(words[0].generation, words[1].generation)
        for index in WORDS_OF["small"]:
            s = _put(s, index, Word(CLOSED, words[index].generation))
        s = s._replace(kind="free", last=last)
    yield _unlock(s, i)


def _give_back(s: State, i: int, mutation: str) -> Iterator[State]:
    """A run whose word is closed. Who repairs goes on to its own operation, here: ends it."""
    t = s.threads[i]
    if t.at == "note":
        last = s.last if mutation == "last_not_noted" else s.words[0].generation
        yield _with(s._replace(last=last), i, at="rest")
    elif t.at == "rest":
        yield _with(s._replace(rest="free"), i, at="first")
    else:
        yield _unlock(s._replace(kind="free"), i)


def _make(s: State, i: int, length: int, mutation: str) -> Iterator[State]:
    t = s.threads[i]
    last_steps = ("say", "publish")
    if mutation == "length_after_kind":
        last_steps = ("publish", "say")
    if t.at == "begin":
        is_free = s.kind == "free" and s.rest == "free"
        yield _with(s, i, at="word") if is_free else _unlock(s, i)
    elif t.at == "word":
        yield _with(_put(s, 0, Word(NOBODY, 1 + s.last))._replace(opened=s.last), i, at="behind")
    elif t.at == "behind":
        yield _with(s._replace(rest="rest") if length == 2 else s, i, at=last_steps[0])
    else:
        after = s._replace(length=length) if t.at == "say" else s._replace(kind="run")
        is_last = t.at == last_steps[1]
        yield _unlock(after, i) if is_last else _with(after, i, at=last_steps[1])


def _open(s: State, i: int) -> Iterator[State]:
    """For small blocks, in one step: it is searched in heap_remote.py."""
    if s.kind == "free":
        for index in WORDS_OF["small"]:
            s = _put(s, index, Word(NOBODY, 1 + s.last + index))
        s = s._replace(kind="small", opened=s.last)
    yield _unlock(s, i)


# ---- the dead ----


def _sweep(s: State, i: int) -> Iterator[State]:
    """Whoever has nothing else to do sweeps. Reading a word and swapping it is one step here."""
    for number in sorted(s.unswept):
        after = s._replace(unswept=s.unswept - {number})
        for index in WORDS_OF.get(s.kind, ()):
            if s.words[index].holder == number:
                after = _forget(after, _block_at(s, index))
                after = _put(after, index, Word(NOBODY, s.words[index].generation))
        yield _with(after, i, at="")


def _kill(s: State, i: int) -> State:
    s = _with(s, i, **Thread((), is_dead=True)._asdict())
    lock = -(i + 1) if s.lock == i + 1 else s.lock
    return s._replace(lock=lock, unswept=s.unswept | {i + 1}, n_deaths=s.n_deaths + 1)


# ---- the search ----


def _steps_of(s: State, i: int, mutation: str) -> Iterator[State]:
    t = s.threads[i]
    if t.is_dead:
        return
    if not t.todo:
        yield from _sweep(s, i)
        return
    what, *numbers = t.todo[0].split()
    if what == "run":
        yield from _run(s, i, int(numbers[0]), int(numbers[1]), mutation)
    elif what == "small":
        yield from _small(s, i, mutation)
    elif what == "free":
        yield from _free(s, i)
    elif what == "find":
        yield from _find(s, i, mutation)
    elif t.at == "":
        yield from _lock(s, i)
    elif t.at.startswith("repair"):
        yield from _repair(s, i, mutation)
    elif t.at in ("note", "rest", "first"):
        yield from _give_back(s, i, mutation)
    elif what == "close":
        yield from _close(s, i, mutation)
    elif what == "make":
        yield from _make(s, i, int(numbers[0]), mutation)
    else:
        yield from _open(s, i)


def _steps_of_fate(s: State, setting: Setting) -> Iterator[State]:
    """What may happen but need not."""
    for i, t in enumerate(s.threads):
        if not t.is_dead and s.n_deaths < setting.n_deaths:
            yield _kill(s, i)


def _wrong_now(s: State) -> str:
    """What must hold in every state."""
    for b in s.live:
        word = s.words[b.place]
        if s.kind != b.kind or (b.length == 2 and s.rest != "rest"):
            return "a chunk of a live block is given away"
        if word.holder in (NOBODY, CLOSED) or word.generation != b.generation:
            return "a live block's word was changed"
        sized = (s.words[SIZE].generation, s.words[SIZED].generation)
        if b.kind == "run" and b in s.handles and sized != (b.size, b.generation):
            return "a live block has another's size"
    if s.wrong == "" and len({(b.place, b.generation) for b in s.made}) < len(s.made):
        return "two blocks have the same name"
    return s.wrong


def _wrong_at_end(s: State) -> str:
    """What must hold when nobody can go on; the next locker repairs."""
    if s.lock != 0 or s.unswept:
        return ""
    for index in WORDS_OF.get(s.kind, ()):
        word = s.words[index]
        if word.holder == CLOSED:
            return "a block is lost: closed for ever"
        if word.holder > 0 and not _block_at(s, index):
            return "a block is lost: held by nobody's handle"
    if s.rest == "rest" and (s.kind != "run" or s.length == 1):
        return "a chunk is lost: the rest of no run"
    return ""


def search(setting: Setting) -> Result[State]:
    """Visit all states that can be reached; with a mutation, until something is wrong.

    Returns:
        what was found.
    """

    def steps(s: State, result: Result[State]) -> Iterable[State]:
        own = [a for i in range(len(s.threads)) for a in _steps_of(s, i, setting.mutation)]
        wrong = _wrong_now(s) or ("" if own else _wrong_at_end(s))
        if wrong:
            result.note(wrong, s)
            return ()
        return (*own, *_steps_of_fate(s, setting))

    return visit(setting.first_state(), steps, setting)


_ONE, _OTHER, _TWO = "run 1 2", "run 1 3", "run 2 4"
_LONGER = ("close", "make 2", _TWO)
_BACK = ("close", "make 2", "close", "make 1")
SETTINGS = {
    "three believe that a run is free": Setting(
        ((_ONE, "free", _OTHER, "free"), (_OTHER, "free"), ("find", _ONE, "free"))
    ),
    "the length changes": Setting(((_ONE, "free", _ONE), (*_LONGER, "free"), (_TWO, "find"))),
    "the length changes back": Setting(((_ONE, "free"), (*_BACK, _OTHER), (_TWO, "find", "free"))),
    "two change the length": Setting(
        (("close", "make 2", "free"), ("close", "make 1"), (_ONE, _TWO), ("find",))
    ),
    "a run becomes small blocks": Setting(
        ((_ONE, "free", _ONE), ("close", "open", "small", "free"), ("find", "free"))
    ),
    "small blocks become a run": Setting(
        (("small", "free"), ("close", "make 1", _ONE, "find"), ("small",)), is_run=False
    ),
    "killed": Setting(((_ONE, "free"), (_OTHER, "find", "free"), (_ONE, "free")), n_deaths=2),
    "killed while the length changes": Setting(
        ((*_LONGER, "free"), ("close", "make 1"), (_ONE,), ("find",)), n_deaths=2
    ),
    "killed while a long one is given back": Setting(
        (("close", "make 2", "close"), (*_BACK, _ONE), (_TWO, "free")), n_deaths=2
    ),
    "killed while a run becomes small blocks": Setting(
        ((_ONE, "free"), ("close", "open"), ("close", "make 1", "small"), ("find",)), n_deaths=2
    ),
}
#: What brings each mutation out.
BROKEN = {
    "take_by_store": SETTINGS["three believe that a run is free"],
    "kind_read_first": SETTINGS["the length changes"],
    "length_ignored": SETTINGS["the length changes"],
    "length_read_first": SETTINGS["the length changes"],
    "size_before_take": SETTINGS["three believe that a run is free"],
    "generation_before_size": SETTINGS["three believe that a run is free"],
    "generation_ignored": SETTINGS["three believe that a run is free"],
    "found_at_once": SETTINGS["three believe that a run is free"],
    "size_is_open": SETTINGS["small blocks become a run"],
    "close_by_store": SETTINGS["the length changes"],
    "length_after_kind": SETTINGS["the length changes"],
    "repair_opens_runs": SETTINGS["killed while a long one is given back"],
    "repair_frees_unseen": SETTINGS["killed while the length changes"],
    "repair_leaves_rests": SETTINGS["killed while a long one is given back"],
    "last_not_noted": SETTINGS["the length changes back"],
}


if __name__ == "__main__":
    sys.exit(print_table(search, SETTINGS, BROKEN, MUTATIONS))
