"""What the workers of a pool and the process that has it say to each other (docs/pool.md).

To a worker, through its inbox: ``(number, n_items, Letter)``, or None: end. The letter has ``(mode,
function, items)``, or with 0 for n_items a single call, ``(function, arguments, keywords)``. From
all workers, through one channel: ``(place, generation, number, item, kind, ...)``. Beside that a
worker notes in shared words what it is doing, so that this is known when it is dead, keeps small
results in a journal there until it sends several, and is told there which calls were withdrawn.
"""

from __future__ import annotations

import _dragon
from dragon_overlay.heap import BufferWrapper
from dragon_overlay.reduction import Shared

# ---- how items become calls ----

APPLY = 0  # func(*item[0], **item[1])
MAP = 1  # func(item)
STARMAP = 2  # func(*item)
CALL = 3  # the item is a pickle of func, arguments and keywords

# ---- kinds of messages from workers, and what follows ----

READY = 0  # can be given tasks
NOT_READY = 1  # text: the traceback of what ends it before it is ready
RESULTS = 2  # of this item and those behind it: how many; what the journal has of them; the
#              nanoseconds that these calls took
SEALED = 3  # the object, Arrived
ERROR = 4  # text: the traceback; the exception, Arrived
STOPPED = 5  # from this item on nothing was begun, as it was withdrawn

# ---- kinds of messages from the pool's own threads ----

ENDED = 6  # exit code, or None: unknown
FAILED_HERE = 7  # the exception; never sent
LOOK = 8  # what was sent before the dispatcher noted what workers are doing has been received


class Channel(Shared, _dragon.SimpleQueue):
    """A queue without bounds, so that nobody waits in ``put``."""

    #: Whose end it means that nobody sends any more is the pool's own affair (notices.py).
    _dragon_is_internal = True

    def __init__(self) -> None:
        self._create(0, 0)

    def take_all(self) -> None:
        """Drop what is in it. Others may take from it at the same time."""
        while self._poll(0):
            self._discard()


class Words(BufferWrapper):
    """What each worker is doing: written by the worker of a place, read by everybody.

    One word, `doing`, names the call by the number of its task and its item, and is written by one
    store of 8 bytes: the commit. The time at which the call began is written before it. A worker
    that is killed leaves the call that it was in, or one whose result it has sent already, which
    the reader of the results knows.

    The journal has the results of those items before the one that is named that were not yet sent,
    in their order. What is in it does not change as long as that call is named. The rules are
    those of `_dragon/place_words.h`.
    """

    def __init__(self, n_places: int) -> None:
        super().__init__(n_places * _dragon.PLACE_BYTES)
        self._n_places = n_places

    def of_place(self, place: int) -> _dragon.PlaceWords:
        """The words and the journal of one place."""
        return _dragon.PlaceWords(self, place, self._n_places)
