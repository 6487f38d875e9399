"""Exhaustive search of the byte that stands for the messages of a pipe (runtime/channel/pipe.[ch]).

A pipe's messages are in a ring; who sleeps for one sleeps on a socket, in which a byte lies as
long as the ring is not empty. All interleavings of the steps of some senders and readers are
visited, with kills before any step. A lock that somebody dies with is free again, as a robust mutex
is.

A *native* reader looks at the ring first, and takes the byte back only before it sleeps. An
*external* one knows the descriptor only, as a program that uses select: it looks at the ring when
the descriptor is readable, and takes the byte back with the last message. A *switching* one is
native until it has taken a message and external from then on: it asked for the descriptor.

Whatever happens, and whoever has died where:

- no message is in the ring without a byte in the socket, in any state;
- nobody sleeps while a message is there;
- while nobody has died, one external reader never finds its descriptor readable for nothing, but
  for a message that a sender is about to commit;
- who finds that the pipe has ended has left no message behind.

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
    "commit_first": "the sender commits the message before it writes the byte",
    "noted_first": "the sender notes the byte before it writes it",
    "drop_then_note": "a reader takes the byte back before it notes that there is none",
    "drop_unlocked": "a reader looks at the ring and takes the byte back without the lock",
    "drop_always": "a reader takes the byte back whether or not the ring is empty",
    "lazy_external": "an external reader leaves the byte when it takes the last message",
    "end_unlocked": "a reader that sees the end of the stream does not look at the ring again",
}


class Sender(NamedTuple):
    """One sending process, which ends after its messages. `at` names the next step."""

    at: str = "lock"
    n_left: int = 1


class Reader(NamedTuple):
    """One reading process."""

    at: str
    is_external: bool
    switches: bool = False
    saw_end: bool = False


class State(NamedTuple):
    """Everything: the ring, the word that notes the byte, the socket, the lock, the processes."""

    n_messages: int
    is_signalled: bool
    n_bytes: int
    owner: int  # of the lock: senders are 0, 1, ..., readers 100, 101, ...; -1: free
    senders: tuple[Sender, ...]
    readers: tuple[Reader, ...]
    n_killed: int = 0


@dataclass(frozen=True)
class Setting:
    """What the search allows.

    Attributes:
        senders: messages that each of them sends.
        readers: their kinds.
        n_kills: how many may be killed.
        keeps_open: somebody else has the writing end open, so the stream never ends.
        mutation: a key of MUTATIONS, or "".
    """

    senders: tuple[int, ...] = (2, 1)
    readers: tuple[str, ...] = ("native", "external")
    n_kills: int = 0
    keeps_open: bool = True
    mutation: str = ""

    def first_state(self) -> State:
        """Before anybody took a step."""
        senders = tuple(Sender(n_left=n) for n in self.senders)
        readers = tuple(
            Reader(
                "poll" if kind == "external" else "look", kind == "external", kind == "switching"
            )
            for kind in self.readers
        )
        return State(0, False, 0, -1, senders, readers)


def _has_ended(s: State, setting: Setting) -> bool:
    """What the kernel says: nobody has the writing end open."""
    return not setting.keeps_open and all(k.at in ("done", "dead") for k in s.senders)


# ---- the sender: push_locked of channel.c, with before_commit of pipe.c ----


def _sender_step(s: State, i: int, mutation: str) -> State | None:
    k = s.senders[i]

    def to(at: str, **changes: object) -> State:
        changed = s._replace(**changes)  # type: ignore[arg-type]
        senders = (*s.senders[:i], k._replace(at=at), *s.senders[i + 1 :])
        return changed._replace(senders=senders)

    if k.at == "lock":
        return to("look", owner=i) if s.owner == -1 else None
    if k.at == "look":
        if mutation == "commit_first":
            return to("look_late", n_messages=s.n_messages + 1)
        if s.is_signalled:
            return to("commit")
        return to("note" if mutation == "noted_first" else "write")
    if k.at == "look_late":
        return to("unlock" if s.is_signalled else "write")
    if k.at == "write":
        return to("commit" if mutation == "noted_first" else "note", n_bytes=s.n_bytes + 1)
    if k.at == "note":
        after = {"noted_first": "write", "commit_first": "unlock"}.get(mutation, "commit")
        return to(after, is_signalled=True)
    if k.at == "commit":
        return to("unlock", n_messages=s.n_messages + 1)
    if k.at == "unlock":
        left = Sender("lock" if k.n_left > 1 else "done", k.n_left - 1)
        return s._replace(owner=-1, senders=(*s.senders[:i], left, *s.senders[i + 1 :]))
    return None


# ---- the reader: dragon_pipe_receive, settle ----


def _take(s: State, i: int) -> State:
    """The reader takes a message; what it does then."""
    r = s.readers[i]
    if r.switches:
        r = r._replace(at="settle", is_external=True, switches=False)
    elif not r.is_external:
        r = r._replace(at="look")
    else:
        r = r._replace(at="after_take")
    return _with_reader(s._replace(n_messages=s.n_messages - 1), i, r)


def _with_reader(s: State, i: int, reader: Reader) -> State:
    return s._replace(readers=(*s.readers[:i], reader, *s.readers[i + 1 :]))


def _reader_step(s: State, i: int, setting: Setting) -> State | None:
    r = s.readers[i]
    me = 100 + i
    mutation = setting.mutation

    def to(at: str, **changes: object) -> State:
        return _with_reader(s._replace(**changes), i, r._replace(at=at))  # type: ignore[arg-type]

    if r.at == "look":
        if s.n_messages:
            return _take(s, i)
        if r.saw_end:
            return to("end" if mutation == "end_unlocked" else "settle")
        return to("settle" if s.is_signalled or r.is_external else "poll")
    if r.at == "after_take":
        return to("poll" if s.n_messages or mutation == "lazy_external" else "settle")
    if r.at == "poll":  # asleep until the socket has something to tell
        if s.n_bytes or _has_ended(s, setting):
            saw_end = s.n_bytes == 0 or (mutation == "end_unlocked" and _has_ended(s, setting))
            return _with_reader(s, i, r._replace(at="woken", saw_end=saw_end))
        return None
    if r.at == "woken":
        if mutation == "end_unlocked" and r.saw_end:
            return to("end")
        return _take(s, i) if s.n_messages else to("settle")
    if r.at == "settle":
        if mutation == "drop_unlocked":
            return to("look_locked")
        return to("look_locked", owner=me) if s.owner == -1 else None
    if r.at == "look_locked":
        if s.n_messages and mutation != "drop_always":
            return to("unlock")
        return to("drop" if mutation == "drop_then_note" else "note")
    if r.at == "note":
        return to("end_look" if mutation == "drop_then_note" else "drop", is_signalled=False)
    if r.at == "drop":
        return to("note" if mutation == "drop_then_note" else "end_look", n_bytes=0)
    if r.at == "end_look":
        return to("unlock_end" if _has_ended(s, setting) else "unlock")
    if r.at in ("unlock", "unlock_end"):
        after = "end" if r.at == "unlock_end" else "poll" if r.is_external else "look_last"
        return to(after, owner=s.owner if mutation == "drop_unlocked" else -1)
    if r.at == "look_last":
        return _take(s, i) if s.n_messages else to("poll")
    return None


# ---- the search ----


def _killed(s: State, setting: Setting) -> Iterator[State]:
    if s.n_killed == setting.n_kills:
        return
    for i, k in enumerate(s.senders):
        if k.at not in ("done", "dead"):
            dead = (*s.senders[:i], Sender("dead", 0), *s.senders[i + 1 :])
            owner = -1 if s.owner == i else s.owner
            yield s._replace(senders=dead, owner=owner, n_killed=s.n_killed + 1)
    for i, r in enumerate(s.readers):
        if r.at not in ("end", "dead"):
            owner = -1 if s.owner == 100 + i else s.owner
            dead_reader = _with_reader(s, i, r._replace(at="dead"))
            yield dead_reader._replace(owner=owner, n_killed=s.n_killed + 1)


def _is_for_nothing(s: State) -> bool:
    alone = s.readers[0] if len(s.readers) == 1 and not s.n_killed else None
    return (
        alone is not None
        and alone.is_external
        and alone.at == "woken"
        and s.n_bytes > 0
        and s.n_messages == 0
        and s.owner == -1
    )


def _judge(s: State, setting: Setting, may_move: bool, result: Result[State]) -> None:
    if s.n_messages and not s.n_bytes:
        result.note("a message without a byte", s)
    if s.n_messages and any(r.at == "end" for r in s.readers):
        result.note("the end before a message", s)
    if _is_for_nothing(s):
        result.note("a byte for nothing", s)
    if may_move:
        return
    if s.n_messages and any(r.at == "poll" for r in s.readers):
        result.note("asleep beside a message", s)
    if not setting.keeps_open and any(r.at not in ("end", "dead") for r in s.readers):
        result.note("no end", s)


def _steps(s: State, result: Result[State], setting: Setting) -> Iterable[State]:
    moves = [_sender_step(s, i, setting.mutation) for i in range(len(s.senders))]
    moves += [_reader_step(s, i, setting) for i in range(len(s.readers))]
    after = [m for m in moves if m is not None]
    _judge(s, setting, bool(after), result)
    return [*after, *_killed(s, setting)]


def search(setting: Setting) -> Result[State]:
    """Visit all states that the setting allows."""
    return visit(setting.first_state(), lambda s, result: _steps(s, result, setting), setting)


#: The protocol as it stands.
SETTINGS = {
    "two senders, a native and an external reader": Setting(),
    "two senders and an external reader": Setting((2, 2), ("external",)),
    "one native reader, two kills": Setting((2, 2), ("native",), 2),
    "a reader that switches, two kills": Setting((2, 2), ("switching",), 2),
    "two external readers, one kill": Setting((2, 1), ("external", "external"), 1),
    "three kinds of readers, one kill": Setting((2, 1), ("native", "external", "switching"), 1),
    "the end, with two kills": Setting((2, 1), ("native", "external"), 2, False),
}

#: What brings each mutation out.
BROKEN = {
    "commit_first": Setting((1,), ("external",), 1),
    "noted_first": Setting((1, 1), ("external",), 1),
    "drop_then_note": Setting((2,), ("native", "external"), 1),
    "drop_unlocked": Setting((2,), ("native", "external")),
    "drop_always": Setting((2,), ("switching",)),
    "lazy_external": Setting((1,), ("external",)),
    "end_unlocked": Setting((1,), ("native",), 0, False),
}

if __name__ == "__main__":
    sys.exit(print_table(search, SETTINGS, BROKEN, MUTATIONS))
