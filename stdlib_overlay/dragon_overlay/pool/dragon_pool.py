"""DragonPool: the pool of workers of start method "dragon" (docs/pool.md).

To programs it is ``multiprocessing.pool.Pool``. Behind it are threads and workers of our own: each
worker has its tasks through a channel of its own, all results come through one, and what a dead
worker leaves is known call by call. Only the call that a worker died in fails.

Source: Lib/multiprocessing/pool.py of CPython 3.11.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from multiprocessing import get_context, util
from multiprocessing import pool as _stock
from typing import Any

from dragon_overlay import cpus
from dragon_overlay.pool.dispatcher import Dispatcher, Plan
from dragon_overlay.pool.jobs import ApplyJob, IMapJob, IMapUnorderedJob, Limits, MapJob
from dragon_overlay.pool.letters import small_call
from dragon_overlay.pool.progress import Progress
from dragon_overlay.pool.protocol import MAP, STARMAP

_RUN: str = _stock.RUN
_CLOSE: str = _stock.CLOSE
_TERMINATE: str = _stock.TERMINATE

_Callback = Callable[[Any], object] | None


class DragonPool(_stock.Pool):
    """``multiprocessing.Pool`` under start method "dragon".

    By default it has a worker for each processor that this process may use. Any thread may call its
    methods.
    """

    _state: str = _stock.INIT  # for __del__, also of one whose __init__ was not even begun

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
        *,
        max_worker_rss: int | None = None,
    ) -> None:
        """Start the workers.

        Args:
            processes: how many.
            initializer: called in each worker, with initargs, before its first task.
            initargs: positional arguments.
            maxtasksperchild: so many tasks, then a worker is replaced; None: no limit. What a map
                gives to a worker at a time (chunksize) is one task.
            context: of start method "dragon".
            max_worker_rss: bytes; a worker that has more memory of its own after a task is
                replaced.
                What it shares with others, as large arrays that it got, does not count.

        Raises:
            ValueError, TypeError: of an argument. Whatever starting a process raises.
        """
        if processes is None:
            processes = cpus.n_usable()
        if processes < 1:
            raise ValueError("Number of processes must be at least 1")
        if maxtasksperchild is not None and (
            not isinstance(maxtasksperchild, int) or maxtasksperchild <= 0
        ):
            raise ValueError("maxtasksperchild must be a positive int or None")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_worker_rss is not None and max_worker_rss <= 0:
            raise ValueError("max_worker_rss must be a positive number of bytes or None")
        self._ctx = context or get_context()
        self._processes = processes
        limits = maxtasksperchild, max_worker_rss
        plan = Plan(self._ctx, processes, initializer, tuple(initargs), *limits)
        self._dispatcher = Dispatcher(plan)
        self._cache = self._dispatcher.jobs
        self._terminate = util.Finalize(self, self._dispatcher.terminate, exitpriority=15)
        self._state = _RUN

    # ---- what programs and the standard library touch besides ----

    #: The standard library's ``__del__`` would wake a thread of its own by it.
    _change_notifier = None

    @property
    def _pool(self) -> list[Any]:
        """The workers' processes."""
        if self._state == _stock.INIT:
            return []
        return [place.process for place in self._dispatcher.places]

    def _repopulate_pool(self) -> None:
        """Workers that have ended are replaced without being asked for it."""

    # ---- one call ----

    def apply(
        self,
        func: Any,
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},
        *,
        timeout: float | None = None,
        retries: int = 0,
    ) -> Any:
        """Call ``func(*args, **kwds)`` in a worker, and wait for its result."""
        return self.apply_async(func, args, kwds, timeout=timeout, retries=retries).get()

    def apply_async(
        self,
        func: Any,
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},
        callback: _Callback = None,
        error_callback: _Callback = None,
        *,
        timeout: float | None = None,
        retries: int = 0,
    ) -> Any:
        """Call ``func(*args, **kwds)`` in a worker.

        Args:
            func: what to call.
            args: its positional arguments.
            kwds: its keyword arguments.
            callback: called with the result, in a thread of the pool.
            error_callback: called with the exception instead.
            timeout: seconds that a call may take from its beginning in the worker; then the worker
                is killed and replaced, and the call fails with dragon.TaskTimeout.
            retries: a call whose worker dies, or whose time is over, is made so many times more.
                Not one that raises an exception.

        Returns:
            an AsyncResult.

        Raises:
            ValueError: the pool is not running, or a limit makes no sense.
        """
        self._check_running()  # type: ignore[attr-defined]  # typeshed lacks it
        limits = Limits.of(timeout, retries)
        job = ApplyJob(self, func, (args, kwds), callback, error_callback)
        job.limits = limits
        call = small_call(func, args, kwds) if timeout is None else None
        if call is None:
            self._dispatcher.submit(job, 1)
        else:
            self._dispatcher.submit_call(job, call)
        return job

    # ---- many calls that are waited for together ----

    def map(
        self,
        func: Any,
        iterable: Iterable[Any],
        chunksize: int | None = None,
        *,
        timeout: float | None = None,
        retries: int = 0,
        progress: bool = False,
    ) -> list[Any]:
        """Call func with each item, and wait for the list of results."""
        options: dict[str, Any] = {"timeout": timeout, "retries": retries, "progress": progress}
        job = self.map_async(func, iterable, chunksize, **options)
        result: list[Any] = job.get()
        return result

    def map_async(
        self,
        func: Any,
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: _Callback = None,
        error_callback: _Callback = None,
        *,
        timeout: float | None = None,
        retries: int = 0,
        progress: bool = False,
    ) -> Any:
        """Call func with each item.

        Args:
            func: what to call.
            iterable: read to its end before this returns. An exception that this raises is the
                result if the iterable has a length, as in the standard library.
            chunksize: so many items go to a worker at a time; None: a quarter of its share.
            callback: called with the list of results, in a thread of the pool.
            error_callback: called with the first exception instead.
            timeout: of each call, see apply_async.
            retries: of each call, see apply_async.
            progress: say on stderr how far it has come, unless DRAGON_PROGRESS is 0.

        Returns:
            an AsyncResult; it is ready when all calls have ended.

        Raises:
            ValueError: the pool is not running, or a limit makes no sense.
            Exception: whatever reading the iterable raises.
        """
        limits, callbacks = Limits.of(timeout, retries), (callback, error_callback)
        return self._start_map(func, MAP, iterable, chunksize, callbacks, limits, progress)

    def starmap(
        self,
        func: Any,
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        *,
        timeout: float | None = None,
        retries: int = 0,
        progress: bool = False,
    ) -> list[Any]:
        """Call ``func(*item)`` for each item, and wait for the list of results."""
        options: dict[str, Any] = {"timeout": timeout, "retries": retries, "progress": progress}
        job = self.starmap_async(func, iterable, chunksize, **options)
        result: list[Any] = job.get()
        return result

    def starmap_async(
        self,
        func: Any,
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: _Callback = None,
        error_callback: _Callback = None,
        *,
        timeout: float | None = None,
        retries: int = 0,
        progress: bool = False,
    ) -> Any:
        """As map_async, with ``func(*item)``."""
        limits, callbacks = Limits.of(timeout, retries), (callback, error_callback)
        return self._start_map(func, STARMAP, iterable, chunksize, callbacks, limits, progress)

    def _start_map(
        self,
        func: Any,
        mode: int,
        iterable: Iterable[Any],
        chunksize: int | None,
        callbacks: tuple[_Callback, _Callback],
        limits: Limits,
        progress: bool,
    ) -> MapJob:
        self._check_running()  # type: ignore[attr-defined]  # typeshed lacks it
        try:
            items = iterable if isinstance(iterable, range) else list(iterable)
        except Exception as error:
            if not hasattr(iterable, "__len__"):
                raise
            # The standard library reads such an iterable later, and its error is the result.
            job = MapJob(self, func, mode, (None,), 1, *callbacks)
            self._dispatcher.fail(job, error)
            return job
        if chunksize is None:
            chunksize = -(-len(items) // (self._processes * 4))
        if not items:
            chunksize = 0
        job = MapJob(self, func, mode, items, chunksize, *callbacks)
        job.limits = limits
        if progress:
            job.progress = Progress(func, len(items))
        if items and chunksize > 0:
            self._dispatcher.submit(job, len(items))
        return job

    # ---- many calls whose results are iterated over ----

    def imap(
        self,
        func: Any,
        iterable: Iterable[Any],
        chunksize: Any = 1,
        *,
        timeout: float | None = None,
        retries: int = 0,
        progress: bool = False,
        lookahead: int | None = None,
    ) -> Any:
        """Call func with each item; the results come in the order of the items.

        A thread reads the iterable, not far ahead of the workers. An exception of a call is raised
        in its place; results after it can still be asked for.

        Args:
            func: what to call.
            iterable: may be without an end.
            chunksize: so many items go to a worker at a time.
            timeout: of each call, see apply_async.
            retries: of each call, see apply_async.
            progress: say on stderr how far it has come, unless DRAGON_PROGRESS is 0.
            lookahead: at most so many items, and at least one chunk, are read for which the program
                has not yet taken the result. A program that stops taking results has to terminate
                the pool: closed, it waits for the rest to be read. None: they are read as workers
                need them.

        Raises:
            ValueError: the pool is not running, chunksize is below 1, or a limit makes no sense.
        """
        limits = Limits.of(timeout, retries, lookahead)
        return self._start_imap(IMapJob, func, iterable, chunksize, limits, progress)

    def imap_unordered(
        self,
        func: Any,
        iterable: Iterable[Any],
        chunksize: Any = 1,
        *,
        timeout: float | None = None,
        retries: int = 0,
        progress: bool = False,
        lookahead: int | None = None,
    ) -> Any:
        """As imap, with the results in the order in which they come."""
        limits = Limits.of(timeout, retries, lookahead)
        return self._start_imap(IMapUnorderedJob, func, iterable, chunksize, limits, progress)

    def _start_imap(
        self,
        kind: Any,
        func: Any,
        iterable: Iterable[Any],
        chunksize: int,
        limits: Limits,
        progress: bool,
    ) -> Any:
        self._check_running()  # type: ignore[attr-defined]  # typeshed lacks it
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize!r}")
        job = kind(self, func, MAP, chunksize, limits)
        if progress:
            n_all = len(iterable) if isinstance(iterable, Sized) else None
            job.progress = Progress(func, n_all)
        self._dispatcher.expect(job)
        reader = threading.Thread(
            target=_read,
            args=(self._dispatcher, job, iterable, chunksize),
            name="dragon-pool-reader",
            daemon=True,
        )
        try:
            reader.start()
        except BaseException:
            job.abandon(RuntimeError("nobody reads the iterable"))
            raise
        return job

    # ---- the end ----

    def close(self) -> None:
        """Take no more calls; the workers end when those that were taken have ended."""
        util.debug("closing pool")
        if self._state == _RUN:
            self._state = _CLOSE
            self._dispatcher.close()

    def terminate(self) -> None:
        """End the workers now, and wait for that. Calls without a result get a ProcessError."""
        util.debug("terminating pool")
        self._state = _TERMINATE
        self._terminate()

    def join(self) -> None:
        """Wait until the workers have ended.

        Raises:
            ValueError: neither close nor terminate was called.
        """
        util.debug("joining pool")
        if self._state == _RUN:
            raise ValueError("Pool is still running")
        self._dispatcher.join()


def _read(dispatcher: Dispatcher, job: Any, iterable: Iterable[Any], chunksize: int) -> None:
    """The thread that reads the items of an imap."""
    n = 0
    error = None
    try:
        items = iter(iterable)
        while n_room := job.wait_for_room():
            n_chunks = 0
            for chunk in itertools.islice(_chunks(items, chunksize), n_room):
                n += len(chunk)
                n_chunks += 1
                job.read.append(chunk)
                if not job.is_announced:
                    job.is_announced = True
                    dispatcher.order(dispatcher.add_read, job)
                if job.is_over:
                    break
            if n_chunks < n_room:
                break
    except Exception as why:  # noqa: BLE001  # the program's iterator's
        error = why
    dispatcher.order(dispatcher.end_items, job, n, error)


def _chunks(items: Iterator[Any], chunksize: int) -> Iterator[tuple[Any, ...]]:
    """As in the standard library, a chunk that cannot be read to its end is dropped."""
    while chunk := tuple(itertools.islice(items, chunksize)):
        yield chunk
