"""What a worker of a pool runs: takes tasks from its inbox, sends a result after each call.

A result is sent, or kept in shared memory, before the next call begins. So a worker that dies has
one call on its conscience: the one that its words name (`protocol.Words`), if that has no result.
"""

from __future__ import annotations

import reprlib
import resource
import signal
import traceback
from collections.abc import Callable
from multiprocessing import pool as _stock
from typing import Any, NamedTuple

import _dragon
from dragon_overlay.pool import protocol
from dragon_overlay.pool.letters import Letter, SealedResult
from dragon_overlay.pool.protocol import APPLY, Channel, Words
from dragon_overlay.pool.stacks import StackFile

# typeshed lacks them.
MaybeEncodingError: Any = _stock.MaybeEncodingError  # type: ignore[attr-defined]

#: Results are kept for a common message so long.
_KEEP_NS = 1_000_000

#: So many characters of an object are shown in an error.
_SHOWN = 2000

#: Told of each step of a worker, see WorkerLoop.probe; set by tests, before the worker is ready.
PROBE: Callable[[str], object] | None = None


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


class _Worker(_dragon.WorkerLoop):
    def __init__(self, station: Station) -> None:
        words, put = station.words.of_place(station.place), station.results.put
        super().__init__(words, put, station.place, station.generation)
        self._station = station
        self._head = station.place, station.generation
        self._put = put
        # An interrupt at the terminal goes to the whole program: a call is interrupted, a worker
        # that waits for one is not, and what becomes of it is for the pool to say. What came since
        # the worker was started (`Plan.start`) is met here.
        signal.signal(signal.SIGINT, self._interrupt)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def _interrupt(self, number: int, frame: object) -> None:
        if self.is_calling:
            raise KeyboardInterrupt

    def run(self, max_tasks: int | None, max_rss: int | None) -> None:
        self.probe, self.keep_ns = PROBE, _KEEP_NS
        n_left = -1 if max_tasks is None else max_tasks
        while n_left != 0 and (max_rss is None or _own_bytes() <= max_rss):
            message = self._station.inbox.get()
            if message is None:
                break
            self._do(*message)
            n_left -= 1
            del message  # and the memory of what was in it

    def _do(self, number: int, n_items: int, letter: Letter) -> None:
        if not self.begin(number, 0):
            return
        try:
            if n_items == 0:  # a single call that went past the dispatcher
                func, args, kwargs = letter.open()
                mode, items = APPLY, ((args, kwargs),)
            else:
                mode, func, items = letter.open()
        except BaseException as error:  # noqa: BLE001  # whatever the program's unpickling raises
            self._fail_all(number, max(1, n_items), error)
        else:
            self.call_all(number, mode, func, items)

    def _fail_all(self, number: int, n_items: int, error: BaseException) -> None:
        for i in range(n_items):
            if i > 0 and not self.begin(number, i):
                return
            self._send_error(number, i, error)
        self.finish()

    def _call(self, mode: int, func: Any, item: Any) -> Any:
        """Call func with what is not exactly a tuple and a dictionary."""
        return func(*item[0], **item[1]) if mode == APPLY else func(*item)

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


def _own_bytes() -> int:
    """Memory that this process alone has: what is resident, but for what is shared."""
    with open("/proc/self/statm") as statm:
        _, resident, shared, *_ = statm.read().split()
    return (int(resident) - int(shared)) * resource.getpagesize()


class _Shown:
    """An object whose repr cannot fail, and is no longer than a page."""

    def __init__(self, obj: Any) -> None:
        try:
            text = repr(obj)
        except Exception:  # noqa: BLE001  # the program's own __repr__
            text = reprlib.repr(obj)
        # The object may be one for which the memory pool has no room.
        self._text = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 50]}...{text[-47:]}"

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
