"""What the workers of a pool and the process that has it say to each other (docs/pool.md).

To a worker, through its inbox: ``(number, n_items, Letter)``, or None: end. The letter has ``(mode,
function, items)``. From all workers, through one channel: ``(place, generation,
number, item, kind, ...)``. Beside that a worker notes in shared words what it is doing, so that
this is known when it is dead, and keeps small results in a journal there until it sends several.
"""

from __future__ import annotations

import io
import marshal
from typing import Any

import _dragon
from dragon_overlay.heap import BufferWrapper
from dragon_overlay.reduction import Shared

# ---- how items become calls ----

APPLY = 0  # func(*item[0], **item[1])
MAP = 1  # func(item)
STARMAP = 2  # func(*item)

# ---- kinds of messages from workers, and what follows ----

READY = 0  # can be given tasks
NOT_READY = 1  # text: the traceback of what ends it before it is ready
RESULTS = 2  # a list: the objects of this item and those behind it
SEALED = 3  # the object, Arrived
ERROR = 4  # text: the traceback; the exception, Arrived

# ---- kinds of messages from the pool's own threads ----

ENDED = 5  # exit code, or None: unknown
FAILED_HERE = 6  # the exception; never sent


class Channel(Shared, _dragon.SimpleQueue):
    """A queue without bounds, so that nobody waits in ``put``."""

    def __init__(self) -> None:
        self._create(0, 0)

    def take_all(self) -> None:
        """Drop what is in it. Others may take from it at the same time."""
        while self._poll(0):
            self._discard()


#: Words of a place: a cache line, so that no worker slows another down.
_N_WORDS = 8
_DOING = 0
_SINCE = 1
_JOURNAL_BYTES = 16384


class Words(BufferWrapper):
    """What each worker is doing: written by the worker of a place, read by everybody.

    A word is written by one store of 8 bytes. `_DOING` is the commit: of a call, its task's number
    in the upper half and its item's index plus 1 in the lower one; 0: none. `_SINCE`, the time at
    which the call began, is written before it. A worker that is killed leaves the call that it was
    in, or one whose result it has sent already, which the reader of the results knows.

    The journal has the results of those items before the one of `_DOING` that were not yet sent,
    in their order, by `marshal`. It is read only when the worker is dead.
    """

    def __init__(self, n_places: int) -> None:
        super().__init__(n_places * (_N_WORDS * 8 + _JOURNAL_BYTES))
        self._n_places = n_places

    def of_place(self, place: int) -> PlaceWords:
        """The words and the journal of one place."""
        view = memoryview(self)
        word, byte = place * _N_WORDS * 8, self._n_places * _N_WORDS * 8 + place * _JOURNAL_BYTES
        words = view[word : word + _N_WORDS * 8].cast("Q")
        return PlaceWords(words, view[byte : byte + _JOURNAL_BYTES])


class PlaceWords:
    """The words and the journal of one place, see Words."""

    def __init__(self, words: memoryview, journal: memoryview) -> None:
        self._words = words
        self._journal = journal
        self._n_bytes = 0

    def begin(self, number: int, item: int, now_ns: int) -> None:
        """The worker begins a call. What it has kept before is valid from now on.

        Args:
            number: of the task.
            item: its item.
            now_ns: the monotonic clock.
        """
        self._words[_SINCE] = now_ns
        self._words[_DOING] = (number & 0xFFFFFFFF) << 32 | item + 1

    def keep(self, result: Any) -> bool:
        """Write a result into the journal, behind others. False: there is no room.

        Args:
            result: of a type that marshal knows.
        """
        data = marshal.dumps(result)
        end = self._n_bytes + len(data)
        if end > _JOURNAL_BYTES:
            return False
        self._journal[self._n_bytes : end] = data
        self._n_bytes = end
        return True

    def sent(self) -> None:
        """The worker has sent what was in the journal."""
        self._n_bytes = 0

    def kept(self, n: int) -> list[Any]:
        """The first n results in the journal of a worker that is dead."""
        file = io.BytesIO(self._journal)
        return [marshal.load(file) for _ in range(n)]

    def since(self) -> float:
        """When the latest call began, by the monotonic clock."""
        return self._words[_SINCE] / 1e9

    def clear(self) -> None:
        """The worker has sent all results of its task."""
        self._words[_DOING] = 0

    def item_of(self, number: int) -> int | None:
        """The item of the task whose call has begun; None: it is not that task's."""
        doing = self._words[_DOING]
        return (doing & 0xFFFFFFFF) - 1 if doing and doing >> 32 == number & 0xFFFFFFFF else None


def numbers() -> Any:
    """Numbers for tasks, none of them 0."""
    n = 0
    while True:
        n += 1
        yield n
