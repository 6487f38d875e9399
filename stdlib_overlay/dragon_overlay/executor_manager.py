"""The managing thread of the standard library's executor, with fewer hand-overs on a call's way.

There, ``submit`` wakes the managing thread, which puts the call into the queue to the workers and
waits for each result with a selector. A hand-over to a thread that sleeps costs tens of
microseconds, and one to a thread that wants the GIL of a busy one 5 ms. Here

- who submits puts its call into the queue itself, if there is room, and wakes nobody;
- results come through a pipe that wakes the managing thread directly, and while there are more of
  them it takes one after the other without asking what else has happened.

What the thread decides, and until when a call can be cancelled, is as it was. One thread at a time
moves calls into the queue; who finds that another one does leaves its own to it, as that one looks
again after it has let go.

Source: Lib/concurrent/futures/process.py of CPython 3.11.
"""

from __future__ import annotations

import functools
import threading
import traceback
from types import ModuleType
from typing import Any

#: An attribute of executors of start method "dragon": their ``_SilentWaker``.
_WAKER = "_dragon_waker"


def install(module: ModuleType) -> None:
    """Complete ``concurrent.futures.process``, just executed."""
    stock = module._ExecutorManagerThread
    ours = _manager_class(stock)

    def new(cls: Any, executor: Any) -> Any:
        is_ours = cls is stock and hasattr(executor, _WAKER)
        return object.__new__(ours if is_ours else cls)

    stock.__new__ = new
    module._ThreadWakeup._dragon_silent = _silent_class(module._ThreadWakeup)
    _let_submit_feed(module.ProcessPoolExecutor)


def begin(executor: Any) -> None:
    """Give an executor of start method "dragon", which was just made, the parts from here."""
    executor._result_queue = Results(executor._mp_context)
    waker = executor._executor_manager_thread_wakeup
    waker.__class__ = waker._dragon_silent
    waker.submitting = set()
    setattr(executor, _WAKER, waker)


class Results:
    """In place of the executor's SimpleQueue: a pipe, whose sender wakes who waits for it.

    The descriptor of a queue is raised by one more thread.
    """

    def __init__(self, context: Any) -> None:
        self._reader, self._writer = context.Pipe(duplex=False)

    def __getstate__(self) -> Any:
        return self._writer

    def __setstate__(self, writer: Any) -> None:
        self._writer = writer

    def put(self, result: Any) -> None:
        """Send a result; in workers."""
        self._writer.send(result)

    def close(self) -> None:
        """Nothing more will be taken."""
        self._reader.close()
        self._writer.close()


def _silent_class(stock: Any) -> Any:
    class SilentWaker(stock):  # type: ignore[misc]
        """Wakes the managing thread, but not for calls that are submitted just now."""

        submitting: set[int]  # identifiers of threads

        def wakeup(self) -> None:
            if threading.get_ident() not in self.submitting:
                super().wakeup()

    return SilentWaker


def _let_submit_feed(executor_class: Any) -> None:
    stock_submit = executor_class.submit

    @functools.wraps(stock_submit)
    def submit(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        waker = getattr(self, _WAKER, None)
        if waker is None:
            return stock_submit(self, *args, **kwargs)
        n_processes = _n_processes(self)
        thread = threading.get_ident()
        waker.submitting.add(thread)
        try:
            future = stock_submit(self, *args, **kwargs)
        finally:
            waker.submitting.discard(thread)
        if _n_processes(self) != n_processes:
            with self._shutdown_lock:
                waker.wakeup()  # there is one more whose end is to be seen
        manager = self._executor_manager_thread
        if manager is not None:  # not shut down meanwhile
            manager.add_call_item_to_queue()
        return future

    executor_class.submit = submit


def _n_processes(executor: Any) -> int:
    return len(executor._processes or ())  # None after its end


def _manager_class(stock: Any) -> Any:
    class ManagerThread(stock):  # type: ignore[misc]
        """The managing thread of an executor of start method "dragon"."""

        def __init__(self, executor: Any) -> None:
            super().__init__(executor)
            #: Held by the thread that moves calls, for a short time.
            self._moving = threading.Lock()
            #: Written with ``_moving``: no call will be moved any more.
            self._is_over = False

        def add_call_item_to_queue(self) -> None:
            """Move calls into the queue to the workers, as long as it has room. Any thread."""
            while self._has_calls_to_move() and self._moving.acquire(blocking=False):
                try:
                    if not self._is_over:
                        super().add_call_item_to_queue()
                finally:
                    self._moving.release()

        def _has_calls_to_move(self) -> bool:
            return not (self._is_over or self.work_ids_queue.empty() or self.call_queue.full())

        def wait_result_broken_or_wakeup(self) -> Any:
            """Take a result, or wait until something happens."""
            reader = self.result_queue._reader
            if not reader._has_message:
                return super().wait_result_broken_or_wakeup()
            try:
                return reader.recv(), False, None
            except BaseException as error:  # noqa: BLE001 # whatever unpickling raises
                return None, True, traceback.format_exception(error)

        def flag_executor_shutting_down(self) -> None:
            """Cancel what is to be cancelled.

            Afterwards cancelled calls are dropped. In the standard library the thread looked for
            calls that are left, found a cancelled one, dropped it, and then waited for its result.
            CPython 3.12 drops them before it looks.
            """
            with self._moving:
                super().flag_executor_shutting_down()
            self.add_call_item_to_queue()

        def terminate_broken(self, cause: Any) -> None:
            """Have all calls fail."""
            self._stop_moving()
            super().terminate_broken(cause)

        def join_executor_internals(self) -> None:
            """End the workers."""
            self._stop_moving()
            super().join_executor_internals()

        def _stop_moving(self) -> None:
            with self._moving:
                self._is_over = True

    return ManagerThread
