"""``dragon.futures``: workers may die, and only the future of the call that they were in fails.

``ProcessPoolExecutor`` has the interface of ``concurrent.futures``, over the workers of a
``DragonPool``. The standard library's class, with a context of start method "dragon", keeps its own
contract: there one dead worker breaks the executor and all that is pending.

Source: Lib/concurrent/futures/process.py and _base.py of CPython 3.11.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from dragon_overlay import cpus
from dragon_overlay.pool.dispatcher import Dispatcher, Plan
from dragon_overlay.pool.jobs import FuturesJob, Limits
from dragon_overlay.pool.protocol import APPLY, STARMAP

__all__ = ["Future", "ProcessPoolExecutor"]


class Future(concurrent.futures.Future):  # type: ignore[type-arg]
    """The result of a call, which can also be killed."""

    _kill: Callable[[], object] | None = None
    _has_callbacks = False

    def kill(self) -> None:
        """Cancel the call; if it is under way, kill its worker, which is replaced.

        The future of a call that is killed fails with dragon.WorkerDied, and is not retried. Does
        not wait. Nothing happens to a call that has ended, or goes to a worker at this moment as a
        part of a chunk and has not begun.
        """
        if not self.cancel() and self._kill is not None:
            self._kill()

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Have fn called with the future when it is done, in some thread of this process."""
        self._has_callbacks = True
        super().add_done_callback(fn)


class _Calls(NamedTuple):
    """An executor with options."""

    executor: ProcessPoolExecutor
    limits: Limits

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """As ProcessPoolExecutor.submit, with these options."""
        (future,) = self.executor._start(fn, APPLY, [(args, kwargs)], 1, self.limits)
        return future

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[Any]:
        """As ProcessPoolExecutor.map, with these options for each call."""
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        deadline = None if timeout is None else timeout + time.monotonic()
        items = list(zip(*iterables, strict=False))
        futures = self.executor._start(fn, STARMAP, items, chunksize, self.limits)
        return _results(futures, deadline)


def _results(futures: list[Future], deadline: float | None) -> Iterator[Any]:
    futures.reverse()
    try:
        while futures:
            future = futures.pop()
            try:
                yield future.result(None if deadline is None else deadline - time.monotonic())
            finally:
                future.cancel()
                del future  # and its exception's traceback
    finally:
        for future in futures:
            future.cancel()


class ProcessPoolExecutor(concurrent.futures.Executor):
    """``concurrent.futures.ProcessPoolExecutor`` in which a dead worker fails one future only.

    Any thread may use it.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
    ) -> None:
        """Start the workers.

        Args:
            max_workers: how many; None: one for each processor that this process may use.
            mp_context: of start method "dragon", which is the default.
            initializer: called in each worker, with initargs, before its first call.
            initargs: positional arguments.
            max_tasks_per_child: so many calls, or chunks of a map, then a worker is replaced.

        Raises:
            ValueError, TypeError: of an argument. Whatever starting a process raises.
        """
        context = mp_context or multiprocessing.get_context("dragon")
        if context.get_start_method() != "dragon":
            raise ValueError(
                f"dragon.futures.ProcessPoolExecutor needs a context of start method 'dragon', "
                f"not of {context.get_start_method()!r}: use concurrent.futures for that"
            )
        if max_workers is None:
            max_workers = cpus.n_usable()
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_tasks_per_child is not None and (
            not isinstance(max_tasks_per_child, int) or max_tasks_per_child <= 0
        ):
            raise ValueError("max_tasks_per_child must be a positive integer or None")
        self._max_workers = max_workers
        plan = Plan(context, max_workers, initializer, tuple(initargs), max_tasks_per_child, None)
        self._is_shut_down = False
        self._lock = threading.Lock()  # no call comes in after shutdown has begun
        self._dispatcher = Dispatcher(plan)
        weakref.finalize(self, self._dispatcher.close).atexit = False
        _executors.add(self._dispatcher)

    def with_options(self, *, timeout: float | None = None, retries: int = 0) -> Any:
        """The same executor, whose ``submit`` and ``map`` give each call these options.

        Args:
            timeout: seconds that a call may take in its worker; then the worker is killed and
                replaced, and the future fails with dragon.TaskTimeout.
            retries: a call whose worker dies, or whose time is over, is made so many times more.

        Raises:
            ValueError: a limit makes no sense.
        """
        return _Calls(self, Limits.of(timeout, retries))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Call ``fn(*args, **kwargs)`` in a worker.

        Raises:
            BrokenProcessPool: the workers cannot start. RuntimeError: the executor was shut down.
        """
        return _Calls(self, Limits()).submit(fn, *args, **kwargs)

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[Any]:
        """Call fn with an item of each iterable, and iterate over the results in their order.

        Args:
            fn: what to call.
            iterables: read to the end of the shortest before this returns.
            timeout: seconds from now, after which asking for a result raises TimeoutError.
            chunksize: so many calls go to a worker at a time.

        Raises: as submit, and ValueError: chunksize is below 1.
        """
        calls = _Calls(self, Limits())
        return calls.map(fn, *iterables, timeout=timeout, chunksize=chunksize)

    def _start(
        self, fn: Any, mode: int, items: list[Any], chunksize: int, limits: Limits
    ) -> list[Future]:
        futures = [Future() for _ in items]
        with self._lock:
            if self._is_shut_down:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if self._dispatcher.error is not None:
                raise self._dispatcher.error
            if futures:
                job = FuturesJob(self._dispatcher, futures, fn, mode, items, chunksize, limits)
                self._dispatcher.submit(job, len(items))
        return futures

    def shutdown(
        self, wait: bool = True, *, cancel_futures: bool = False, kill_workers: bool = False
    ) -> None:
        """Take no more calls, and let the workers end when the pending ones have ended.

        Args:
            wait: until they have.
            cancel_futures: cancel the calls that have not begun.
            kill_workers: cancel these, and kill those that have.
        """
        with self._lock:
            self._is_shut_down = True
        if cancel_futures or kill_workers:
            for job in list(self._dispatcher.jobs.values()):
                for future in job.futures:
                    future.kill() if kill_workers else future.cancel()
        self._dispatcher.close()
        if wait:
            self._dispatcher.join()


#: The executors' dispatchers that may be at work.
_executors: weakref.WeakSet[Dispatcher] = weakref.WeakSet()


def _finish() -> None:
    """At the end of the program: do what is pending, as the standard library does."""
    dispatchers = list(_executors)
    for dispatcher in dispatchers:
        dispatcher.close()
    for dispatcher in dispatchers:
        dispatcher.join()


# Before the threads of the program are waited for; typeshed lacks it.
threading._register_atexit(_finish)  # type: ignore[attr-defined]
