"""Queue, JoinableQueue and SimpleQueue over the runtime's channels.

The work is done by the C types; the classes here add what programs and the standard library touch
besides. All derive from the standard library's classes of the same names.

Source: Lib/multiprocessing/queues.py of CPython 3.11.
"""

from __future__ import annotations

import threading
from multiprocessing import queues as _stock
from typing import Any

import _dragon
from dragon_overlay.reduction import Shared

#: A SimpleQueue's put waits when this many objects, or bytes, are on their way, as it does when a
#: pipe is full. The standard library's pipe holds 64 KiB.
_SIMPLE_MAX_OBJECTS = 8192
_SIMPLE_MAX_BYTES = 64 << 20


class _Ends(Shared):
    """What all queues here have in place of the two ends of a pipe."""

    _dragon_closed_ends: frozenset[str] = frozenset()

    @property
    def _reader(self) -> QueueReader:
        return QueueReader(self)

    @property
    def _writer(self) -> QueueWriter:
        return QueueWriter(self)

    @property
    def _rlock(self) -> Any:
        """A lock that the standard library takes around reads; the channel needs none."""
        return self.__dict__.setdefault("_dragon_rlock", threading.Lock())

    _wlock = _rlock


class QueueReader:
    """The receiving end of a queue, for ``connection.wait``, ``select`` and direct use."""

    _name = "reader"

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._queue is self._queue

    def __hash__(self) -> int:
        return hash((self._name, id(self._queue)))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._queue!r}>"

    @property
    def closed(self) -> bool:
        """True if this end, or the queue, was closed in this process."""
        return self._queue._is_closed or self._name in self._queue._dragon_closed_ends

    def close(self) -> None:
        """Close this end in this process."""
        self._queue._dragon_closed_ends |= {self._name}

    def _require_open(self) -> None:
        if self.closed:
            raise OSError("handle is closed")

    def fileno(self) -> int:
        """A descriptor that is readable while an object is in the queue. Not to be read."""
        self._require_open()
        fd: int = self._queue._fileno()
        return fd

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Wait at most timeout seconds (None: for ever); True if an object is in the queue."""
        self._require_open()
        is_there: bool = self._queue._poll(timeout)
        return is_there

    def _dragon_has_something(self) -> bool:
        return not self.closed and self._queue._poll(0)

    def recv(self) -> Any:
        """Take the oldest object, waiting for one."""
        self._require_open()
        return self._queue.get()


class QueueWriter(QueueReader):
    """The sending end of a queue."""

    _name = "writer"

    def fileno(self) -> int:
        """Queues have no descriptor to write to."""
        raise OSError("the sending end of a dragon queue has no file descriptor")

    _dragon_has_something = None  # type: ignore[assignment]
    poll = None  # type: ignore[assignment]
    recv = None  # type: ignore[assignment]

    def send(self, obj: Any) -> None:
        """Put obj, waiting for room."""
        self._require_open()
        self._queue.put(obj)


# The standard library's queues cannot be subscripted everywhere.
class Queue(_dragon.Queue, _Ends, _stock.Queue):  # type: ignore[type-arg]
    """``multiprocessing.Queue``: any number of producers and consumers, in any processes.

    ``put`` returns when the object is in shared memory: there is no feeder thread, ``join_thread``
    has nothing to wait for, and a process may end right after its ``put``.
    """

    def __init__(self, maxsize: int = 0, *, ctx: Any = None) -> None:
        self._create(max(maxsize, 0), 0)
        self._maxsize = maxsize

    @property
    def _closed(self) -> bool:
        return self._is_closed

    def join_thread(self) -> None:
        """Nothing is left to be written after ``put``. The queue must be closed."""
        assert self._is_closed, f"Queue {self!r} not closed"

    def cancel_join_thread(self) -> None:
        """There is no thread to be joined."""


class JoinableQueue(Queue, _stock.JoinableQueue):  # type: ignore[type-arg]
    """``multiprocessing.JoinableQueue``: a Queue whose objects are counted until done."""

    # Its own, as `inspect.signature` would take that of the stock class (dispatch.py) otherwise.
    __init__ = Queue.__init__
    task_done = _dragon.Queue._task_done
    join = _dragon.Queue._join


class SimpleQueue(_dragon.SimpleQueue, _Ends, _stock.SimpleQueue):  # type: ignore[type-arg]
    """``multiprocessing.SimpleQueue``: put and get, and no more."""

    def __init__(self, *, ctx: Any = None) -> None:
        self._create(_SIMPLE_MAX_OBJECTS, _SIMPLE_MAX_BYTES)
