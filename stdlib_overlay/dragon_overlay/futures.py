"""The standard library's ProcessPoolExecutor over start method "dragon".

Its calls may travel by value, and two of its races that end in a hang are decided: workers that
start in 2 ms, not 30, are in them often. Executors over other start methods stay as they are: the
locks in a queue of calls tell for whom it was made. ``install`` runs when
``concurrent.futures.process`` has been loaded.

Source: Lib/concurrent/futures/process.py of CPython 3.11.
"""

from __future__ import annotations

import functools
import io
import multiprocessing
import pickle
from types import ModuleType
from typing import Any

from dragon_overlay import cpus


def install(module: ModuleType) -> None:
    """Complete ``concurrent.futures.process``."""
    _default_to_usable_processors(module)
    _send_by_value(module)
    _take_cancelled_calls_for_done(module)
    _give_up_calls_to_the_dead(module)


def _default_to_usable_processors(module: ModuleType) -> None:
    """Have as many workers as there are processors that this process may use, if not told."""
    stock_init = module.ProcessPoolExecutor.__init__

    @functools.wraps(stock_init)
    def init(
        self: Any, max_workers: int | None = None, mp_context: Any = None, *rest: Any, **more: Any
    ) -> None:
        if max_workers is None and _is_for_dragon(mp_context, **more):
            max_workers = cpus.n_usable()
        stock_init(self, max_workers, mp_context, *rest, **more)

    module.ProcessPoolExecutor.__init__ = init


def _is_for_dragon(context: Any, *, max_tasks_per_child: Any = None, **more: Any) -> bool:
    """Whether an executor with these arguments takes start method "dragon"."""
    if context is None and max_tasks_per_child is None:  # else it takes "spawn"
        context = multiprocessing.get_context()
    return context is not None and context.get_start_method() == "dragon"


def _send_by_value(module: ModuleType) -> None:
    stock_call = module._CallItem
    stock_put = module._SafeQueue.put

    class CallItem(stock_call):  # type: ignore[misc,valid-type]
        """A call that is pickled as one of ours; errors of that reach its future as ever."""

        def __reduce__(self) -> tuple[Any, ...]:
            from dragon_overlay import by_value

            call = stock_call(self.work_id, self.fn, self.args, self.kwargs)
            file = io.BytesIO()
            by_value.dump(call, file, _nothing)
            return pickle.loads, (file.getvalue(),)

    @functools.wraps(stock_put)
    def put(self: Any, obj: Any, *args: Any, **kwargs: Any) -> None:
        if isinstance(obj, stock_call) and _is_ours(self):
            obj = CallItem(obj.work_id, obj.fn, obj.args, obj.kwargs)
        stock_put(self, obj, *args, **kwargs)

    module._SafeQueue.put = put


def _take_cancelled_calls_for_done(module: ModuleType) -> None:
    """Have an executor end that was shut down with nothing left but cancelled calls.

    Its managing thread looked for calls that are left, found a cancelled one, dropped it, and then
    waited for its result. CPython 3.12 drops them before it looks.
    """
    manager = module._ExecutorManagerThread
    stock_flag = manager.flag_executor_shutting_down

    @functools.wraps(stock_flag)
    def flag_executor_shutting_down(self: Any) -> None:
        stock_flag(self)
        if _is_ours(self.call_queue):
            self.add_call_item_to_queue()

    manager.flag_executor_shutting_down = flag_executor_shutting_down


def _give_up_calls_to_the_dead(module: ModuleType) -> None:
    """Have a broken executor end while a call is being written that no worker is left to read.

    The thread that writes waited for ever, since this process, too, can read what it writes.
    CPython 3.12 closes the reading end first.
    """
    manager = module._ExecutorManagerThread
    stock_terminate = manager.terminate_broken

    @functools.wraps(stock_terminate)
    def terminate_broken(self: Any, cause: Any) -> None:
        if _is_ours(self.call_queue):
            self.call_queue._reader.close()
        stock_terminate(self, cause)

    manager.terminate_broken = terminate_broken


def _is_ours(call_queue: Any) -> bool:
    from dragon_overlay.synchronize import Lock

    return isinstance(call_queue._rlock, Lock)


def _nothing() -> None:
    pass
