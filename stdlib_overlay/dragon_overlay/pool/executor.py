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
from dragon_overlay.pool.future_jobs import FutureJob, MappedJob
from dragon_overlay.pool.jobs import Limits
from dragon_overlay.pool.letters import small_call

__all__ = ["Future", "ProcessPoolExecutor"]


class Future(concurrent.futures.Future):  # type: ignore[type-arg]
    """The result of a call, which can also be killed."""

    _job: FutureJob | None = None
    _has_callbacks = False

    def cancel(self) -> bool:
        """Cancel the call, unless it is under way or has ended; whether it is cancelled."""
        is_cancelled = super().cancel()
        if is_cancelled and self._job is not None:
            self._job.wake()
        return is_cancelled

    def result(self, timeout: float | None = None) -> Any:
        """The call's result, or its exception; waits for it."""
        return super().result(self._wait(timeout))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The call's exception, or None; waits for its end."""
        return super().exception(self._wait(timeout))

    def _wait(self, timeout: float | None) -> float | None:
        """Wait for the end; how long is left to wait then."""
        if self._job is None or self.done():
            return timeout
        self._job.wait(timeout)
        return None if timeout is None else 0.0

    def kill(self) -> None:
        """Cancel the call; if it is under way, kill its worker, which is replaced.

        The future of a call that is killed fails with dragon.WorkerDied, and is not retried. Does
        not wait. Nothing happens to a call that has ended, or goes to a worker at this moment
        together with others and has not begun.
        """
        if not self.cancel() and self._job is not None:
            self._job.kill()

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
        return self.executor._submit(fn, args, kwargs, self.limits)

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
        return _results(self.executor._start(fn, items, chunksize, self.limits), deadline)


def _results(job: MappedJob | None, deadline: float | None) -> Iterator[Any]:
    if job is None:
        return
    try:
        if deadline is None:
            yield from job
        else:
            yield from _until(deadline, job)
    finally:
        job.cancel()


def _until(deadline: float, job: MappedJob) -> Iterator[Any]:
    while True:
        try:
            result = job.next(max(0.0, deadline - time.monotonic()))
        except StopIteration:
            return
        except multiprocessing.TimeoutError:
            raise TimeoutError from None
        yield result


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

    def _submit(self, fn: Any, args: Any, kwargs: Any, limits: Limits) -> Future:
        future = Future()
        call = small_call(fn, args, kwargs) if limits.timeout is None else None
        with self._lock:
            self._require_running()
            job = FutureJob(self._dispatcher, future, fn, (args, kwargs), limits)
            if call is None:
                self._dispatcher.submit(job, 1)
            else:
                self._dispatcher.submit_call(job, call)
        return future

    def _start(self, fn: Any, items: list[Any], chunksize: int, limits: Limits) -> MappedJob | None:
        with self._lock:
            self._require_running()
            if not items:
                return None
            job = MappedJob(self._dispatcher, fn, items, chunksize, limits)
            self._dispatcher.submit(job, len(items))
        return job

    def _require_running(self) -> None:
        if self._is_shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if self._dispatcher.error is not None:
            raise self._dispatcher.error

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
                job.cancel()
                if kill_workers:
                    self._dispatcher.kill(job)
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
