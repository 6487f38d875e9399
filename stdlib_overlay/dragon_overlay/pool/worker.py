"""What a worker of a pool runs: takes tasks from its inbox, sends a result after each call.

A result is sent, or kept in shared memory, before the next call begins. So a worker that dies has
one call on its conscience: the one that its words name (`protocol.Words`), if that has no result.
"""

from __future__ import annotations

import reprlib
import resource
import signal
import time
import traceback
from collections.abc import Callable
from multiprocessing import pool as _stock
from pathlib import Path
from typing import Any, NamedTuple

from dragon_overlay.pool import protocol
from dragon_overlay.pool.letters import Letter, SealedResult
from dragon_overlay.pool.protocol import APPLY, MAP, Channel, Words
from dragon_overlay.pool.stacks import StackFile

# typeshed lacks them.
MaybeEncodingError: Any = _stock.MaybeEncodingError  # type: ignore[attr-defined]

#: Results are kept for a common message so long.
_KEEP_NS = 1_000_000

#: Results of exactly these types are small, and cannot fail to travel; or they are up to a size.
_SMALL = frozenset({bool, float, type(None)})
_SMALL_UP_TO = frozenset({bytes, str})
_SMALL_BYTES = 1000


class Station(NamedTuple):
    """Where a worker works."""

    place: int
    generation: int  # of the place's workers, from 1
    inbox: Channel
    results: Channel
    words: Words
    stack: StackFile | None  # None: it has arrived, and crashes are watched for

    def report(self, kind: int, *rest: Any) -> None:
        """Say something that is not about a call."""
        self.results.put((self.place, self.generation, 0, 0, kind, *rest))


class Reporter:
    """Says why a worker ends before it runs: to `startup` it is a queue."""

    def __init__(self, station: Station) -> None:
        self._station = station._replace(stack=None)

    def put(self, failure: tuple[int, str]) -> None:
        """Take (pid, text)."""
        self._station.report(protocol.NOT_READY, failure[1])


def work(
    station: Station,
    initializer: Callable[..., object] | None,
    initargs: Any,
    max_tasks: int | None,
    max_rss: int | None,
) -> None:
    """Run a worker to its end."""
    worker = _Worker(station)
    try:
        if initializer is not None:
            initializer(*initargs)
    except BaseException:
        station.report(protocol.NOT_READY, traceback.format_exc())
        raise
    station.report(protocol.READY)
    worker.run(max_tasks, max_rss)


class _Worker:
    def __init__(self, station: Station) -> None:
        self._station = station
        self._head = station.place, station.generation
        self._put = station.results.put
        self._words = station.words.of_place(station.place)
        self._is_calling = False
        # An interrupt at the terminal goes to the whole program: a call is interrupted, a worker
        # that waits for one is not, and what becomes of it is for the pool to say. What came since
        # the worker was started (`Plan.start`) is met here.
        signal.signal(signal.SIGINT, self._interrupt)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def _interrupt(self, number: int, frame: object) -> None:
        if self._is_calling:
            raise KeyboardInterrupt

    def run(self, max_tasks: int | None, max_rss: int | None) -> None:
        n_left = -1 if max_tasks is None else max_tasks
        while n_left != 0 and (max_rss is None or _own_bytes() <= max_rss):
            message = self._station.inbox.get()
            if message is None:
                break
            self._do(*message)
            n_left -= 1
            del message  # and the memory of what was in it

    def _do(self, number: int, n_items: int, letter: Letter) -> None:
        begin = self._words.begin
        begin(number, 0, time.monotonic_ns())
        try:
            mode, func, items = letter.open()
        except BaseException as error:  # noqa: BLE001  # whatever the program's unpickling raises
            for i in range(n_items):
                begin(number, i, time.monotonic_ns())
                self._send_error(number, i, error)
        else:
            self._call_all(number, mode, func, items)
        self._words.clear()

    def _call_all(self, number: int, mode: int, func: Any, items: Any) -> None:
        """Call func with each item. Quick calls with small results share a message."""
        words = self._words
        kept: list[Any] = []  # the results before this item that were not sent; in the journal, too
        last = len(items) - 1
        now = sent_at = time.monotonic_ns()
        for i, item in enumerate(items):
            words.begin(number, i, now)
            try:
                self._is_calling = True
                if mode == MAP:
                    value = func(item)
                elif mode == APPLY:
                    value = func(*item[0], **item[1])
                else:
                    value = func(*item)
                self._is_calling = False
            except BaseException as error:  # noqa: BLE001  # the program's; it goes back
                self._is_calling = False
                self._send_kept(number, i, kept)
                self._send_error(number, i, error)
                now = sent_at = time.monotonic_ns()
                continue
            now = time.monotonic_ns()
            if _is_small(value):
                is_soon = i < last and now - sent_at < _KEEP_NS
                if is_soon and words.keep(value):
                    kept.append(value)
                    continue
                kept.append(value)
                self._send_kept(number, i + 1, kept)
            else:
                self._send_kept(number, i, kept)
                self._send(number, i, value)
            sent_at = now

    def _send_kept(self, number: int, end: int, kept: list[Any]) -> None:
        """Send the results of the items before end."""
        if kept:
            self._put((*self._head, number, end - len(kept), protocol.RESULTS, kept))
            kept.clear()
            self._words.sent()

    def _send(self, number: int, i: int, value: Any) -> None:
        try:
            self._put((*self._head, number, i, protocol.SEALED, SealedResult(value)))
        except Exception as error:  # noqa: BLE001  # whatever the object's own pickling raises
            self._send_error(number, i, MaybeEncodingError(error, _Shown(value)), error)

    def _send_error(
        self, number: int, i: int, error: BaseException, reason: BaseException | None = None
    ) -> None:
        text = _traceback_of(reason or error)
        head = (*self._head, number, i, protocol.ERROR, text)
        try:
            self._put((*head, SealedResult(_that_can_be_raised(error))))
        except Exception as why:  # noqa: BLE001  # whatever the exception's own pickling raises
            self._put((*head, SealedResult(MaybeEncodingError(why, _Shown(error)))))


def _is_small(value: Any) -> bool:
    kind = type(value)
    if kind in _SMALL:
        return True
    if kind is int:
        return bool(-(1 << 62) < value < 1 << 62)
    return kind in _SMALL_UP_TO and len(value) <= _SMALL_BYTES


def _own_bytes() -> int:
    """Memory that this process alone has: what is resident, but for what is shared."""
    _, resident, shared, *_ = Path("/proc/self/statm").read_text().split()
    return (int(resident) - int(shared)) * resource.getpagesize()


class _Shown:
    """An object whose repr cannot fail."""

    def __init__(self, obj: Any) -> None:
        try:
            self._text = repr(obj)
        except Exception:  # noqa: BLE001  # the program's own __repr__
            self._text = reprlib.repr(obj)

    def __repr__(self) -> str:
        return self._text


def _traceback_of(error: BaseException) -> str:
    """Without the lines of this module."""
    tb = error.__traceback__
    while tb is not None and tb.tb_frame.f_code.co_filename == __file__:
        tb = tb.tb_next
    return "".join(traceback.format_exception(type(error), error, tb))


def _that_can_be_raised(error: BaseException) -> BaseException:
    """The error as the waiting program gets it: what would end that program is only named."""
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return RuntimeError(f"the task raised {error!r}")
    return error
