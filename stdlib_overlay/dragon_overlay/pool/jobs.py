"""Jobs: what a call of a pool's method becomes, and what the program waits on.

Each is the standard library's result object of its kind, answered call by call. One thread answers
a job, the dispatcher's or, if the job has callbacks, the one that runs these.

Source: Lib/multiprocessing/pool.py of CPython 3.11.
"""

from __future__ import annotations

import abc
import multiprocessing
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing import pool as _stock
from typing import Any, NamedTuple

import _dragon
from dragon_overlay.pool.progress import Progress
from dragon_overlay.pool.protocol import APPLY, CALL, STARMAP

_Callback = Callable[[Any], object] | None


#: So many tasks are read from an iterable ahead of what workers have taken.
_WINDOW = 1000


class Limits(NamedTuple):
    """What the calls of a job may take, see the methods of DragonPool."""

    timeout: float | None = None
    retries: int = 0
    lookahead: int | None = None

    @classmethod
    def of(cls, timeout: float | None, retries: int, lookahead: int | None = None) -> Limits:
        """Limits that make sense, or ValueError."""
        if timeout is None and not retries and lookahead is None:
            return _NONE
        if timeout is not None and not timeout > 0:
            raise ValueError(f"timeout must be a positive number of seconds, not {timeout!r}")
        if retries < 0:
            raise ValueError(f"retries must be 0 or more, not {retries!r}")
        if lookahead is not None and lookahead < 1:
            raise ValueError(f"lookahead must be 1 or more, or None, not {lookahead!r}")
        return cls(timeout, retries, lookahead)


_NONE = Limits()


class Pace:
    """What a call takes, about."""

    ns: float | None = None  # None: not known

    def took(self, n: int, time_ns: int) -> None:
        """So many calls have taken so long."""
        each = time_ns / n
        self.ns = each if self.ns is None else max(each, (each + self.ns) / 2)


class Job(abc.ABC):
    """What the dispatcher knows of a job."""

    # Of the standard library's classes.
    _job: int
    _cache: dict[int, Any]
    _pool: Any

    func: Any
    mode: int
    items: Any  # index -> item, of those that have no answer
    chunksize: int  # items of a task
    pace: Pace  # of its calls
    is_open = False  # the dispatcher has taken it
    has_callbacks = False
    progress: Progress | None = None
    limits: Limits
    _n_deaths: dict[int, int] | None = None  # of calls whose worker has died

    def describe(self, func: Any, mode: int, items: Any, chunksize: int) -> None:
        """Say what is to be done."""
        self.func = func
        self.mode = mode
        self.items = items
        self.chunksize = chunksize
        self.limits = Limits()
        self.pace = Pace()

    def may_retry(self, index: int) -> bool:
        """Whether a call whose worker has died is to be made once more; counts that."""
        if self._n_deaths is None:
            self._n_deaths = {}
        n = self._n_deaths[index] = self._n_deaths.get(index, 0) + 1
        return n <= self.limits.retries

    def items_of(self, first: int, n: int) -> Any:
        """N items from the first on."""
        return self.items[first : first + n]

    @abc.abstractmethod
    def answer(self, index: int, success: bool, value: Any) -> None:
        """The call of this index has ended. Runs callbacks."""

    def answer_all(self, first: int, results: list[Any]) -> None:
        """The calls from an index on have ended with these results. Runs callbacks."""
        for index, value in enumerate(results, first):
            self.answer(index, True, value)

    def runs_callbacks(self, index: int) -> bool:
        """Whether the program's code may run in an answer."""
        return self.has_callbacks or self.progress is not None

    @abc.abstractmethod
    def abandon(self, error: Exception) -> None:
        """No answer will come: who waits gets the error. No callback is run."""

    def begin(self, first: int, end: int) -> tuple[int, int]:
        """Items from first to below end are about to go to a worker.

        Returns:
            those that shall go: from the first number to below the second one. What is before is
            not wanted any more, what is behind will come again.
        """
        return first, end

    def take_back(self, first: int, end: int) -> None:  # noqa: B027  # most need nothing then
        """Items from first to below end, which have begun for `begin`, will begin once more."""

    def open(self) -> None:
        """Note that the dispatcher has taken it."""
        self.is_open = True

    def call_of(self, index: int) -> tuple[Any, Any]:
        """The function that is called, and all arguments of a call."""
        (item,) = self.items_of(index, 1)
        if self.mode == APPLY:
            args, kwargs = item
            return self.func, (*args, dict(kwargs)) if kwargs else tuple(args)
        return self.func, item if self.mode == STARMAP else (item,)

    def is_call_of(self, index: int, job: Job) -> bool:
        """Whether the call of an index is of a job."""
        return self is job

    def give_up(self, index: int) -> None:
        """Do not retry a call."""
        self._n_deaths = {**(self._n_deaths or {}), index: self.limits.retries}


def _those_that(may_begin: Callable[[int], bool], first: int, end: int) -> tuple[int, int]:
    """The next numbers from first to below end that may begin: from the one to below the other."""
    while first < end and not may_begin(first):
        first += 1
    last = min(first + 1, end)
    while last < end and may_begin(last):
        last += 1
    return first, last


class _Waited(Job):
    """A job that is waited for as a whole."""

    _callback: _Callback
    _error_callback: _Callback
    _success: bool
    _value: Any

    def _finish(self) -> None:
        callback = self._callback if self._success else self._error_callback
        try:
            if callback is not None:
                callback(self._value)
        except BaseException:  # noqa: BLE001  # the program's; whoever waits must not hang for it
            sys.excepthook(*sys.exc_info())
        finally:
            self._end()

    def _end(self) -> None:
        self.func = self.items = self._callback = self._error_callback = None
        self._let_go_on()
        self._cache.pop(self._job, None)
        self._pool = None

    @abc.abstractmethod
    def ready(self) -> bool:
        """Whether it has ended."""

    @abc.abstractmethod
    def _let_go_on(self) -> None:
        """It has ended: wake those who wait."""

    def abandon(self, error: Exception) -> None:
        if not self.ready():
            self._success, self._value = False, error
            self._end()


class SingleCall(_dragon.Call, Job):
    """A job of one call, which may go past the dispatcher."""


class ApplyJob(SingleCall, _Waited, _stock.ApplyResult):  # type: ignore[type-arg]
    """One call."""

    mode = APPLY
    chunksize = 1
    limits = Limits()

    def __init__(
        self, pool: Any, func: Any, call: Any, callback: _Callback, error_callback: _Callback
    ) -> None:
        dispatcher = pool._dispatcher
        self._desk = dispatcher.desk
        self._pool = pool
        self._cache = dispatcher.jobs
        self._callback = callback
        self._error_callback = error_callback
        self.has_callbacks = callback is not None or error_callback is not None
        self.func = func
        self.items = (call,)
        self.pace = dispatcher.pace
        self._job = next(_stock.job_counter)  # type: ignore[attr-defined]
        self._cache[self._job] = self

    def ready(self) -> bool:
        return self._is_done

    def wait(self, timeout: float | None = None) -> None:
        if not self._is_done:
            self._desk.wait(self, timeout)

    def get(self, timeout: float | None = None) -> Any:
        self.wait(timeout)
        if not self._is_done:
            raise multiprocessing.TimeoutError
        if self._success:
            return self._value
        raise self._value

    def _let_go_on(self) -> None:
        self._end_call()

    def answer(self, index: int, success: bool, value: Any) -> None:
        self._success, self._value = success, value
        self._finish()


class Calls(Job):
    """Single calls of several jobs, that go to workers together."""

    def __init__(self, jobs: Sequence[tuple[Job, bytes]], pace: Pace) -> None:
        """Put jobs together.

        Args:
            jobs: of one call each, and their calls as the worker unpickles them.
            pace: of all such calls of a pool.
        """
        self.describe(None, CALL, [call for _, call in jobs], 1)
        self.pace = pace
        self._jobs = [job for job, _ in jobs]

    def open(self) -> None:
        for job in self._jobs:
            job.is_open = True

    def call_of(self, index: int) -> tuple[Any, Any]:
        return self._jobs[index].call_of(0)

    def is_call_of(self, index: int, job: Job) -> bool:
        return self._jobs[index] is job

    def begin(self, first: int, end: int) -> tuple[int, int]:
        return _those_that(self._begins, first, end)

    def _begins(self, index: int) -> bool:
        return self._jobs[index].begin(0, 1) == (0, 1)

    def take_back(self, first: int, end: int) -> None:
        for job in self._jobs[first:end]:
            job.take_back(0, 1)

    def may_retry(self, index: int) -> bool:
        return self._jobs[index].may_retry(0)

    def give_up(self, index: int) -> None:
        self._jobs[index].give_up(0)

    def runs_callbacks(self, index: int) -> bool:
        return self._jobs[index].runs_callbacks(0)

    def answer(self, index: int, success: bool, value: Any) -> None:
        self._jobs[index].answer(0, success, value)

    def abandon(self, error: Exception) -> None:
        for job in self._jobs:
            job.abandon(error)


class MapJob(_Waited, _stock.MapResult):  # type: ignore[type-arg]
    """Many calls that are waited for together; it has ended when all of them have."""

    _event: threading.Event
    _number_left: int
    _value: list[Any]

    def __init__(
        self,
        pool: Any,
        func: Any,
        mode: int,
        items: Sequence[Any],
        chunksize: int,
        callback: _Callback,
        error_callback: _Callback,
    ) -> None:
        super().__init__(pool, chunksize, len(items), callback, error_callback)
        self.has_callbacks = callback is not None or error_callback is not None
        self.describe(func, mode, items, chunksize)
        self._number_left = len(items)
        self._error: Any = None

    def ready(self) -> bool:
        return self._event.is_set()

    def _let_go_on(self) -> None:
        self._event.set()

    def answer(self, index: int, success: bool, value: Any) -> None:
        if success:
            self._value[index] = value
        elif self._success:
            self._success, self._error = False, value
        self._ended(1)

    def answer_all(self, first: int, results: list[Any]) -> None:
        self._value[first : first + len(results)] = results
        self._ended(len(results))

    def _ended(self, n: int) -> None:
        self._number_left -= n
        if self._number_left == 0:
            if not self._success:
                self._value = self._error
            self._finish()


class _Room:
    """How many tasks may be read from an iterable."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._cond = threading.Condition()

    def add(self, n: int) -> None:
        """So many more."""
        with self._cond:
            self._n += n
            self._cond.notify()

    def take_all(self) -> int:
        """Wait until there is room, and take all that there is."""
        with self._cond:
            while self._n == 0:
                self._cond.wait()
            n, self._n = self._n, 0
        return n


class Failure(NamedTuple):
    """An answer that is to be raised."""

    error: BaseException


class _Iterated(_dragon.ResultIterator, Job):
    """A job whose answers are iterated over."""

    _cond: threading.Condition
    _items: Any
    _index: int
    _length: int | None
    _unsorted: dict[int, tuple[list[Any] | Failure, int]]

    def __init__(self, pool: Any, func: Any, mode: int, chunksize: int, limits: Limits) -> None:
        """Make one without items.

        Args:
            pool: kept until the job has ended.
            func: what is called.
            mode: how, see `protocol`.
            chunksize: items of a task.
            limits: what the calls may take, and how far ahead items are read.
        """
        super().__init__(pool)  # type: ignore[call-arg]
        self.describe(func, mode, {}, chunksize)
        self.limits = limits
        self.is_over = False
        #: Chunks that the reader has read and the dispatcher has not seen, which was told of them
        #: if is_announced.
        self.read: deque[tuple[Any, ...]] = deque()
        self.is_announced = False
        self.n_read = 0  # items that the dispatcher has seen
        self.fails_after: int | None = None  # so many items: reading the next one failed
        self._n_begun = 0
        self._n_taken = 0  # results that the program has for sure
        self._n_given = 0  # results that it is taking
        ahead = limits.lookahead
        self._room = _Room(_WINDOW if ahead is None else max(1, ahead // chunksize))

    def items_of(self, first: int, n: int) -> Any:
        return [self.items[i] for i in range(first, first + n)]

    def wait_for_room(self) -> int:
        """Wait until more tasks may be read, and return how many. 0: none is wanted any more."""
        n = self._room.take_all()
        return 0 if self.is_over else n

    def take_read(self) -> int:
        """Take over what the reader has read; how many items there are now. The dispatcher."""
        self.is_announced = False  # first: what is read from now on is told again, or found here
        while self.read:
            chunk = self.read.popleft()
            self.items.update(enumerate(chunk, self.n_read))
            self.n_read += len(chunk)
        return self.n_read

    def begin(self, first: int, end: int) -> tuple[int, int]:
        if self.limits.lookahead is None and end > self._n_begun:
            self._room.add(-(-(end - self._n_begun) // self.chunksize))
            self._n_begun = end
        return first, end

    def _next_results(self, timeout: float | None) -> list[Any]:
        """The next results, some at a time; those before have been taken."""
        self._note_taken()
        results = self._wait_for_answer(timeout)
        if isinstance(results, Failure):
            self._n_given = 1
            raise results.error
        self._n_given = len(results)
        return results

    def _wait_for_answer(self, timeout: float | None) -> list[Any] | Failure:
        with self._cond:
            if not self._items and self._index != self._length:
                self._cond.wait(timeout)
            if self._items:
                answer: list[Any] | Failure = self._items.popleft()
                return answer
            if self._index == self._length:
                self._pool = None
                raise StopIteration
            raise multiprocessing.TimeoutError

    def _note_taken(self) -> None:
        before = self._n_taken // self.chunksize
        self._n_taken += self._n_given
        self._n_given = 0
        n_chunks = self._n_taken // self.chunksize - before
        if n_chunks > 0 and self.limits.lookahead is not None:
            self._room.add(n_chunks)

    def answer(self, index: int, success: bool, value: Any) -> None:
        if self.is_over:
            return
        self.items.pop(index, None)
        with self._cond:
            self._add(index, [value] if success else Failure(value), 1)

    def answer_all(self, first: int, results: list[Any]) -> None:
        if self.is_over:
            return
        for index in range(first, first + len(results)):
            del self.items[index]
        with self._cond:
            self._add(first, results, len(results))

    @abc.abstractmethod
    def _add(self, first: int, answer: list[Any] | Failure, n: int) -> None:
        """Take the answer to n calls from an index on. The condition's lock is held."""

    def _end_if_all_are_there(self) -> None:
        self._cond.notify()
        if self._index == self._length:
            self._cache.pop(self._job, None)
            self._pool = None

    def stop_reading(self) -> None:
        """Have the reader of the items end."""
        self.is_over = True
        self._room.add(1)

    def abandon(self, error: Exception) -> None:
        self.stop_reading()
        self.items.clear()
        with self._cond:
            if self._index != self._length:
                self._items.append(Failure(error))
                self._length = self._index
                self._cond.notify_all()
            self._cache.pop(self._job, None)
            self._pool = None


class IMapJob(_Iterated, _stock.IMapIterator):  # type: ignore[type-arg,misc]
    """Results in the order of the items."""

    def _add(self, first: int, answer: list[Any] | Failure, n: int) -> None:
        if first != self._index:
            self._unsorted[first] = answer, n
            return
        self._items.append(answer)
        self._index += n
        while self._index in self._unsorted:
            answer, n = self._unsorted.pop(self._index)
            self._items.append(answer)
            self._index += n
        self._end_if_all_are_there()


class IMapUnorderedJob(_Iterated, _stock.IMapUnorderedIterator):  # type: ignore[type-arg,misc]
    """Results in the order in which they come; an error of reading the items after them."""

    _last: Failure | None = None

    def _add(self, first: int, answer: list[Any] | Failure, n: int) -> None:
        if first == self.fails_after and self._index < first and isinstance(answer, Failure):
            self._last = answer
            return
        self._items.append(answer)
        self._index += n
        if self._last is not None and self._index == self.fails_after:
            self._items.append(self._last)
            self._index += 1
        self._end_if_all_are_there()
