"""Exhaustive search of what becomes of a block that is in a message when processes die.

A block has one holder tag, changed by compare and swap; a channel has a tail and a head, each
stored by one word, and slots that name blocks. The rules (runtime/channel/in_flight.h):

    send:     (the block is tagged with the sender) write the slot; head + 1
    receive:  lock; read the slot; tag the block with the receiver; tail + 1; unlock
    discard:  lock; read the slot; free the block; tail + 1; unlock
    share:    tag the block SHARED, and only then let others know its name
    sweep d:  for each channel read tail, head and the slots between, one after the other, without
              a lock; then for each block tagged d: tag it CHANNEL if it was read, else free it. The
              number d is given to another process only when no sweep of it is under way

A block that the program allocates for itself ("alloc shared") is SHARED and may be known to others
from the beginning; it stays so until somebody has received it.

All interleavings of these steps are visited (breadth first, sequentially consistent), with a
death before any step where the setting says so; whoever has nothing else to do sweeps the dead,
and may be killed doing so. The lock of a dead holder goes to the next one as it is.

A state is wrong if a block is freed under a message, under a living process that has it, or under
others who may know it while it was not given away; an end (nobody can go on, all dead are swept) if
a block is live that no message, no living process and no other has. Only where messages are
discarded (their channel was destroyed) a message may name a block that is gone; nobody gets it
then.

Senders of one channel exclude each other by a lock that is no part of this; here a channel has one
sender at a time.

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
    "sent_as_channels": "the sender tags the block as the channel's before it commits",
    "hold_after_commit": "the receiver commits and then tags the block",
    "no_hold": "the receiver does not tag the block",
    "one_channel_read": "the sweep reads only one of the channels",
    "all_slots_read": "the sweep keeps what any slot names, also behind the tail",
    "tags_read_first": "the sweep looks at the tags, then reads the channels, then stores",
    "kept_stay": "what is kept stays tagged with the dead",
    "keep_by_store": "the sweep looks at a tag and then stores CHANNEL",
    "discard_after_commit": "who discards a message commits and then frees its block",
    "told_first": "who shares a block tells its name and then tags it",
    "given_is_held": "who gives a shared block away tags it as its own before it commits",
    "slot_reused_early": "a dead process's number is given away before the sweep has ended",
}

FREE = 0
CHANNEL = -1
SHARED = -2
N_CHANNELS = 2
N_SLOTS = 2


class Channel(NamedTuple):
    """A bounded channel with a ring of N_SLOTS; `lock` is its receivers' (0: nobody)."""

    tail: int = 0
    head: int = 0
    slots: tuple[int, ...] = (0,) * N_SLOTS  # block, from 1 on; 0: none was ever here
    lock: int = 0


class Thread(NamedTuple):
    """One process. `at` is the next step of todo[0], "" between operations."""

    todo: tuple[str, ...]
    at: str = ""
    block: int = 0  # in its hands
    read: int = 0  # a word that was read: tail, head, or a tag
    position: int = 0
    which: int = 0  # of the dead, that is swept
    kept: frozenset[int] = frozenset()  # what the channels name
    tagged: frozenset[int] = frozenset()  # mutation tags_read_first
    is_dead: bool = False


class State(NamedTuple):
    """Everything. tags[b - 1] is the holder of block b: FREE, CHANNEL or a process."""

    tags: tuple[int, ...]
    channels: tuple[Channel, ...]
    threads: tuple[Thread, ...]
    unswept: frozenset[int] = frozenset()
    known: frozenset[int] = frozenset()  # blocks that are others' as well
    n_allocated: int = 0
    n_deaths: int = 0
    wrong: str = ""


@dataclass(frozen=True)
class Setting:
    """What the search allows.

    Attributes:
        todo: for each process its operations: "alloc", "alloc shared", "send C", "receive C",
            "discard C" with a channel's number; "send" sends what was allocated or received last,
            "share" shares it, and "free" frees it.
        n_deaths: how many processes may be killed, each before any of its steps.
        reborn: operations of a process that gets the number of a dead one; () for none.
        mutation: a key of MUTATIONS, or "".
    """

    todo: tuple[tuple[str, ...], ...]
    n_deaths: int = 1
    reborn: tuple[str, ...] = ()
    mutation: str = ""

    def first_state(self) -> State:
        """Empty channels; as many blocks as are allocated at the most."""
        steps = [step for todo in (*self.todo, self.reborn) for step in todo]
        n_blocks = sum(step.startswith("alloc") for step in steps)
        channels = (Channel(),) * N_CHANNELS
        return State((FREE,) * n_blocks, channels, tuple(Thread(todo) for todo in self.todo))

    def discards(self) -> bool:
        """Somebody discards messages."""
        return any(step.startswith("discard") for todo in self.todo for step in todo)


# ---- changing parts of a state ----


def _with(s: State, i: int, **changes: Any) -> State:
    thread = s.threads[i]._replace(**changes)
    return s._replace(threads=(*s.threads[:i], thread, *s.threads[i + 1 :]))


def _done(s: State, i: int, block: int = 0) -> State:
    """The operation has ended; the block is what the process has in its hands then."""
    t = s.threads[i]
    return _with(s, i, **Thread(t.todo[1:], block=block)._asdict())


def _put(s: State, c: int, **changes: Any) -> State:
    channel = s.channels[c]._replace(**changes)
    return s._replace(channels=(*s.channels[:c], channel, *s.channels[c + 1 :]))


def _tag(s: State, block: int, holder: int) -> State:
    return s._replace(tags=(*s.tags[: block - 1], holder, *s.tags[block:]))


def _in_channels(s: State) -> list[int]:
    """The blocks that messages name."""
    return [c.slots[p % N_SLOTS] for c in s.channels for p in range(c.tail, c.head)]


# ---- alloc, send, free ----


def _alloc(s: State, i: int, is_shared: bool) -> State:
    # Each number once: it stands for place and generation.
    block = s.n_allocated + 1
    after = _tag(s, block, SHARED if is_shared else i + 1)._replace(n_allocated=block)
    return _done(_tell(after, block) if is_shared else after, i, block)


def _tell(s: State, block: int) -> State:
    return s._replace(known=s.known | {block})


def _share(s: State, i: int, mutation: str) -> State:
    t = s.threads[i]
    if t.block == 0:
        return _done(s, i)  # nothing was received before
    if mutation == "told_first" and t.at == "":
        return _with(_tell(s, t.block), i, at="tag")
    # When others are told is the program's business: from here on they may know.
    return _done(_tell(_tag(s, t.block, SHARED), t.block), i, t.block)


def _send(s: State, i: int, c: int, mutation: str) -> Iterator[State]:
    t, channel = s.threads[i], s.channels[c]
    if t.block == 0:
        yield _done(s, i)  # nothing was received before
    elif t.at == "":
        if channel.head - channel.tail < N_SLOTS:
            after = _with(s, i, at="write")
            is_held = mutation == "given_is_held" and s.tags[t.block - 1] == SHARED
            if mutation == "sent_as_channels":
                after = _tag(after, t.block, CHANNEL)
            yield _tag(after, t.block, i + 1) if is_held else after
    elif t.at == "write":
        index = channel.head % N_SLOTS
        slots = (*channel.slots[:index], t.block, *channel.slots[index + 1 :])
        yield _with(_put(s, c, slots=slots), i, at="commit")
    else:
        given = s._replace(known=s.known - {t.block})
        yield _done(_put(given, c, head=channel.head + 1), i)


def _free(s: State, i: int) -> State:
    block = s.threads[i].block
    freed = s._replace(known=s.known - {block})
    return _done(_tag(freed, block, FREE) if block else s, i)


# ---- receive, discard: under the receivers' lock ----


def _take(s: State, i: int, c: int, discards: bool, mutation: str) -> Iterator[State]:
    t, channel = s.threads[i], s.channels[c]
    late = mutation == ("discard_after_commit" if discards else "hold_after_commit")
    if t.at == "":
        if channel.lock == 0 or s.threads[channel.lock - 1].is_dead:
            yield _with(_put(s, c, lock=i + 1), i, at="read")
    elif t.at == "read" and channel.head == channel.tail:
        yield _done(_put(s, c, lock=0), i)
    elif t.at == "read":
        block = channel.slots[channel.tail % N_SLOTS]
        skips = late or (mutation == "no_hold" and not discards)
        yield _with(s, i, at="commit" if skips else "claim", block=block)
    elif t.at == "claim":
        yield _with(_claim(s, i, discards), i, at="unlock" if late else "commit")
    elif t.at == "commit":
        after = _put(s, c, tail=channel.tail + 1)
        yield _with(after, i, at="claim" if late else "unlock")
    else:
        yield _done(_put(s, c, lock=0), i, 0 if discards else t.block)


def _claim(s: State, i: int, discards: bool) -> State:
    """Free the block, or make it the receiver's if it is not gone."""
    block = s.threads[i].block
    if s.tags[block - 1] == FREE:
        return s if discards else _with(s, i, block=0)
    return _tag(s, block, FREE if discards else i + 1)


# ---- the sweep of the dead ----


def _sweep(s: State, i: int, setting: Setting) -> Iterator[State]:
    t, mutation = s.threads[i], setting.mutation
    if t.at == "":
        # Where numbers are used again, one process at a time sweeps a number.
        taken = {x.which for x in s.threads} if setting.reborn else set()
        for number in sorted(s.unswept - taken):
            tagged = frozenset(b for b, holder in enumerate(s.tags, 1) if holder == number)
            yield _with(s, i, at="tail 0", which=number, tagged=_only_if(mutation, tagged))
        return
    what, n = t.at.split()[0], int(t.at.split()[1])
    if what in ("tail", "head", "slot"):
        yield _read_channel(s, i, what, n, mutation)
    elif what == "look":
        yield _look(s, i, n, mutation)
    elif what in ("keep", "free"):
        yield _settle(s, i, what, n, mutation)
    else:
        after = s._replace(unswept=s.unswept - {t.which})
        yield _with(after, i, **Thread((), block=t.block)._asdict())


def _only_if(mutation: str, tagged: frozenset[int]) -> frozenset[int]:
    return tagged if mutation == "tags_read_first" else frozenset()


def _read_channel(s: State, i: int, what: str, c: int, mutation: str) -> State:
    t, channel = s.threads[i], s.channels[c]
    if what == "tail":
        return _with(s, i, at=f"head {c}", position=channel.tail)
    if what == "head":
        kept = t.kept | set(channel.slots) if mutation == "all_slots_read" else t.kept
        return _with(s, i, at=f"slot {c}", read=channel.head, kept=frozenset(kept))
    if t.position < t.read:
        block = channel.slots[t.position % N_SLOTS]
        return _with(s, i, position=t.position + 1, kept=t.kept | {block})
    is_last = c == N_CHANNELS - 1 or mutation == "one_channel_read"
    return _with(s, i, at="look 1" if is_last else f"tail {c + 1}", read=0, position=0)


def _look(s: State, i: int, block: int, mutation: str) -> State:
    t = s.threads[i]
    if block > len(s.tags):
        return _with(s, i, at="end 0")
    is_dead_ones = s.tags[block - 1] == t.which
    if mutation == "tags_read_first":
        is_dead_ones = block in t.tagged
    if not is_dead_ones:
        return _with(s, i, at=f"look {block + 1}")
    return _with(s, i, at=f"keep {block}" if block in t.kept else f"free {block}")


def _settle(s: State, i: int, what: str, block: int, mutation: str) -> State:
    by_store = mutation in (f"{what}_by_store", "tags_read_first")
    if s.tags[block - 1] == s.threads[i].which or by_store:
        if what == "free":
            s = _tag(s, block, FREE)
        elif mutation != "kept_stay":
            s = _tag(s, block, CHANNEL)
    return _with(s, i, at=f"look {block + 1}")


# ---- the search ----


def _steps_of(s: State, i: int, setting: Setting) -> Iterator[State]:
    t, mutation = s.threads[i], setting.mutation
    if t.is_dead:
        return
    if not t.todo:
        yield from _sweep(s, i, setting)
        return
    what, _, c = t.todo[0].partition(" ")
    if what == "alloc":
        yield _alloc(s, i, c == "shared")
    elif what == "send":
        yield from _send(s, i, int(c), mutation)
    elif what == "free":
        yield _free(s, i)
    elif what == "share":
        yield _share(s, i, mutation)
    else:
        yield from _take(s, i, int(c), what == "discard", mutation)


def _kill(s: State, i: int) -> State:
    s = _with(s, i, **Thread((), is_dead=True)._asdict())
    return s._replace(unswept=s.unswept | {i + 1}, n_deaths=s.n_deaths + 1)


def _steps_of_fate(s: State, setting: Setting) -> Iterator[State]:
    """What may happen but need not."""
    for i, t in enumerate(s.threads):
        if not t.is_dead and s.n_deaths < setting.n_deaths:
            yield _kill(s, i)
        may_return = i + 1 not in s.unswept or setting.mutation == "slot_reused_early"
        if t.is_dead and setting.reborn and may_return:
            yield _with(s, i, **Thread(setting.reborn)._asdict())


def _owned(s: State) -> list[int]:
    """The blocks that living processes have, and that are in no channel."""
    return [t.block for t in s.threads if t.block and not t.is_dead and not _takes(t)]


def _takes(t: Thread) -> bool:
    """The message that it looks at is not its own yet, or to be discarded."""
    what = t.todo[0].split()[0] if t.todo else ""
    return what == "discard" or (what == "receive" and t.at != "unlock")


def _wrong_now(s: State, setting: Setting) -> str:
    """What must hold in every state."""
    in_hands, in_channels = set(_owned(s)), set(_in_channels(s))
    # The send's commit is the moment from which the block is not the sender's.
    if any(s.tags[b - 1] == FREE for b in in_hands - in_channels):
        return "a living process loses its block"
    if any(s.tags[b - 1] == FREE for b in s.known):
        return "a block that others know is freed"
    if not setting.discards() and any(s.tags[b - 1] == FREE for b in in_channels):
        return "the block of a message is freed"
    return s.wrong


def _wrong_at_end(s: State) -> str:
    """What must hold when nobody can go on."""
    if s.unswept:
        return ""  # nobody is left who could sweep
    for block, holder in enumerate(s.tags, 1):
        has_somebody = block in _in_channels(s) or block in _owned(s) or block in s.known
        if holder != FREE and not has_somebody:
            return "a block is lost"
        if holder > 0 and s.threads[holder - 1].is_dead:
            return "a block is still the dead one's"
    return ""


def search(setting: Setting) -> Result[State]:
    """Visit all states that can be reached; with a mutation, until something is wrong.

    Returns:
        what was found.
    """

    def steps(s: State, result: Result[State]) -> Iterable[State]:
        own = [a for i in range(len(s.threads)) for a in _steps_of(s, i, setting)]
        wrong = _wrong_now(s, setting) or ("" if own else _wrong_at_end(s))
        if wrong:
            result.note(wrong, s)
            return ()
        return (*own, *_steps_of_fate(s, setting))

    return visit(setting.first_state(), steps, setting)


_SEND = ("alloc", "send 0")
SETTINGS = {
    "a sender and a receiver die": Setting((_SEND, ("receive 0", "free"), ()), n_deaths=2),
    "the sweeper dies, too": Setting((_SEND, ("receive 0",), (), ()), n_deaths=3),
    "two receive": Setting((_SEND, ("receive 0", "free"), ("receive 0",)), n_deaths=2),
    "slots are used again": Setting(
        ((*_SEND, *_SEND, *_SEND), ("receive 0", "free") * 2, ("receive 0",)), n_deaths=1
    ),
    "passed on": Setting((_SEND, ("receive 0", "send 1"), ("receive 1", "free")), n_deaths=2),
    "sent back": Setting(((*_SEND, "receive 1"), ("receive 0", "send 1"), ()), n_deaths=2),
    "discarded": Setting((_SEND, ("discard 0",), ("discard 0",)), n_deaths=2),
    "discarded and received": Setting((_SEND, ("discard 0",), ("receive 0",)), n_deaths=2),
    "a number is used again": Setting(
        (_SEND, ("receive 0",), ()), n_deaths=1, reborn=("alloc", "send 1")
    ),
    "shared": Setting((_SEND, ("receive 0", "share"), ("alloc", "share")), n_deaths=2),
    "the program's is given away": Setting(
        (("alloc shared", "send 0"), ("receive 0", "send 1"), ("receive 1",)), n_deaths=2
    ),
}
#: What brings each mutation out.
BROKEN = {
    "sent_as_channels": SETTINGS["a sender and a receiver die"],
    "hold_after_commit": SETTINGS["a sender and a receiver die"],
    "no_hold": SETTINGS["a sender and a receiver die"],
    "one_channel_read": SETTINGS["passed on"],
    "all_slots_read": SETTINGS["sent back"],
    "tags_read_first": SETTINGS["a sender and a receiver die"],
    "kept_stay": SETTINGS["a number is used again"],
    "keep_by_store": SETTINGS["a sender and a receiver die"],
    "discard_after_commit": SETTINGS["discarded"],
    "told_first": SETTINGS["shared"],
    "given_is_held": SETTINGS["the program's is given away"],
    "slot_reused_early": SETTINGS["a number is used again"],
}


if __name__ == "__main__":
    sys.exit(print_table(search, SETTINGS, BROKEN, MUTATIONS))
