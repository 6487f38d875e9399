"""DragonPool: the standard library's Pool over the runtime's processes and queues.

Two things are added. Tasks may travel by value. And a pool whose workers cannot start breaks,
where the standard library's replaces them for ever: after MAX_FAILURES workers that ended before
they could take a task, with none in between that could, everything pending and all that comes later
gets an error with what the last of them had to say.

The standard library's threads run a pool and ask only one object of ours, the one that makes
processes (`_Workers`): it is called for every replacement. In a broken pool it gives out empty
places, the task handler's tasks go straight to the results, as errors, and what was pending is
failed by the thread that handles results, so that no result is touched by two threads.

Source: Lib/multiprocessing/pool.py of CPython 3.11.
"""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Iterable
from multiprocessing import pool as _stock
from typing import Any

from dragon_overlay import by_value, cpus

#: So many workers in a row may end before they are ready.
MAX_FAILURES = 3

#: A job of this name in the pool's cache fails all others, once it has a result.
_BREAK = "break"


class DragonPool(_stock.Pool):
    """``multiprocessing.Pool`` under start method "dragon".

    By default it has a worker for each processor that this process may use.
    """

    # typeshed lacks these.
    _cache: Any
    _ctx: Any
    _inqueue: Any
    _outqueue: Any

    def __init__(
        self,
        processes: int | None = None,
        initializer: Any = None,
        initargs: Any = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
    ) -> None:
        if processes is None:
            processes = cpus.n_usable()
        super().__init__(processes, initializer, initargs, maxtasksperchild, context)

    def _setup_queues(self) -> None:
        super()._setup_queues()  # type: ignore[misc]  # typeshed lacks it
        self._workers = _Workers(self._ctx.SimpleQueue(), self._inqueue, self._outqueue)
        self.Process = self._workers  # type: ignore[method-assign]
        self._quick_put = self._workers.put

    def _repopulate_pool(self) -> None:
        self._workers.cache = self._cache
        super()._repopulate_pool()  # type: ignore[misc]  # typeshed lacks it

    @staticmethod
    def _help_stuff_finish(inqueue: Any, task_handler: Any, size: int) -> None:
        """Take the tasks that nobody will do, so that the task handler is not left waiting.

        Workers may take tasks at the same time, so each one is taken only if it is there.
        """
        while task_handler.is_alive() and inqueue._reader.poll():
            inqueue._discard()


def _work(
    reports: Any, inqueue: Any, outqueue: Any, initializer: Any, initargs: Any, *rest: Any
) -> None:
    """What a worker runs: the standard library's loop, once it has said that it is ready."""
    try:
        if initializer is not None:
            initializer(*initargs)
    except BaseException:
        reports.put((os.getpid(), traceback.format_exc()))
        raise
    reports.put((os.getpid(), None))
    _stock.worker(inqueue, outqueue, None, (), *rest)  # type: ignore[attr-defined]


class _Workers:
    """Makes the workers of a pool, sends tasks to them, and gives up if they cannot start."""

    def __init__(self, reports: Any, inqueue: Any, outqueue: Any) -> None:
        self.cache: Any = None
        self._reports = reports  # of (pid, None: ready, or why it ends)
        self._inqueue = inqueue
        self._outqueue = outqueue
        self._running: list[Any] = []
        self._ready: set[int] = set()
        self._n_failures = 0
        self._text = ""
        self._lock = threading.Lock()  # between the broken state and the next task
        self._error: Exception | None = None
        self._latest: tuple[Any, int] = (None, -1)  # job and index of the latest task sent

    def __call__(self, ctx: Any, *, target: Any, args: tuple[Any, ...]) -> Any:
        """A worker to be started, which runs ``target(*args)``: the standard library's."""
        self._look_after()
        if self._error is not None:
            return _EmptyPlace()
        worker = ctx.Process(target=_work, args=(self._reports, *args))
        worker._dragon_failures = self._reports
        self._running.append(worker)
        return worker

    def put(self, task: Any) -> None:
        """Send a task to the workers; to the results, with the error, if the pool is broken."""
        if task is None:
            self._inqueue.put(None)
            return
        with self._lock:
            error = self._error
            if error is None:
                self._latest = task[:2]
        if error is None:
            by_value.put(self._inqueue, task)
        else:
            self._outqueue.put((*task[:2], (False, error)))

    def _look_after(self) -> None:
        """Count the workers that have ended, and break the pool if that is no use."""
        has_ready = False
        while not self._reports.empty():
            pid, text = self._reports.get()
            if text is None:
                self._ready.add(pid)
                has_ready = True
            else:
                self._text = text
        ended = [worker for worker in self._running if _returncode(worker) is not None]
        for worker in ended:
            self._running.remove(worker)
            if worker.pid not in self._ready:
                self._n_failures += 1
            self._ready.discard(worker.pid)
        if has_ready:
            self._n_failures = 0
        if self._n_failures >= MAX_FAILURES and self._error is None:
            self._break(ended[-1].exitcode)

    def _break(self, exitcode: int | None) -> None:
        for worker in self._running:
            worker.kill()
        for worker in self._running:
            worker.join()
        # All results of theirs are on their way by now, before the message below.
        with self._lock:  # no refused task gets in between
            self._error = _error(exitcode, self._text)
            self.cache[_BREAK] = _Breaker(self.cache, self._latest, self._error)
            self._outqueue.put((_BREAK, None, None))
        while self._inqueue._reader.poll():
            self._inqueue._discard()  # the task handler may be waiting for room


def _returncode(worker: Any) -> int | None:
    """How the process ended, as far as somebody has asked: no system call."""
    code: int | None = None if worker._popen is None else worker._popen.returncode
    return code


def _error(exitcode: int | None, text: str) -> Exception:
    from concurrent.futures.process import BrokenProcessPool

    return BrokenProcessPool(
        f"the pool is broken: {MAX_FAILURES} workers in a row ended before they were ready, the "
        f"last one with exit code {exitcode}" + (f". It said:\n\n{text}" if text else "")
    )


class _Breaker:
    """Stands in the cache of a pool as a job; its result is that of all others."""

    def __init__(self, cache: Any, latest: tuple[Any, int], error: Exception) -> None:
        self._cache = cache
        self._latest = latest
        self._error = error

    def _set(self, i: None, obj: None) -> None:
        """Called by the thread that handles results."""
        del self._cache[_BREAK]
        for job, result in list(self._cache.items()):
            for index in self._unanswered(job, result):
                result._set(index, (False, self._error))

    def _unanswered(self, job: Any, result: Any) -> Iterable[int]:
        """The tasks of a job that were sent and have no result.

        The others of the job are answered by ``_Workers.put``.
        """
        if not isinstance(result, _stock.IMapIterator):
            # One, or those of a map, which counts them and does not ask which is which.
            return range(getattr(result, "_number_left", 1))
        state: Any = result
        n_sent = self._latest[1] + 1 if job == self._latest[0] else state._length or 0
        return [i for i in range(state._index, n_sent) if i not in state._unsorted]


class _EmptyPlace:
    """In the list of a broken pool's workers, where a process would be."""

    exitcode = None
    name = "Process"
    daemon = True

    def start(self) -> None:
        """There is nothing to start."""

    terminate = join = start

    def is_alive(self) -> bool:
        """It is not."""
        return False
