"""ProcessPoolExecutor with workers of start method "dragon": its queue, its size, its calls.

Its calls go through a queue of a class of its own, which becomes one of ours if its context is
"dragon". A race in which it hangs is decided: workers that start in 2 ms, not 30, are in it often.
Executors over other start methods stay as they are. ``install`` runs when
``concurrent.futures.process`` has been loaded.

Source: Lib/concurrent/futures/process.py of CPython 3.11.
"""

from __future__ import annotations

import functools
import multiprocessing
from types import ModuleType
from typing import Any

from dragon_overlay import cpus, dispatch
from dragon_overlay.reduction import Shared


def install(module: ModuleType) -> None:
    """Complete ``concurrent.futures.process``, just executed."""
    _let_calls_travel_by_value(module._SafeQueue, module._CallItem)
    dispatch.dispatch(module._SafeQueue)
    _choose_size(module.ProcessPoolExecutor)
    _take_cancelled_calls_for_done(module._ExecutorManagerThread)


def _let_calls_travel_by_value(queue_class: Any, stock_call: Any) -> None:
    stock_error = queue_class._on_queue_feeder_error

    class OtherCall(stock_call):  # type: ignore[misc]
        """A call that is pickled in a way of its own, and is a stock call when it arrives."""

        def __init__(self, call: Any, wrap: Any) -> None:
            super().__init__(call.work_id, call.fn, call.args, call.kwargs)
            self._dragon_wrap = wrap

        def __reduce__(self) -> Any:
            return self._dragon_wrap(stock_call(self.work_id, self.fn, self.args, self.kwargs))

    def put(self: Any, obj: Any, *args: Any, **kwargs: Any) -> None:
        if isinstance(obj, stock_call) and isinstance(self, Shared):
            from dragon_overlay import by_value

            if not by_value.main_is_importable():
                obj = OtherCall(obj, lambda call: by_value.ByName(call).__reduce__())
        super(queue_class, self).put(obj, *args, **kwargs)

    @functools.wraps(stock_error)
    def on_error(self: Any, error: Exception, obj: Any) -> None:
        from dragon_overlay import by_value

        is_ours = isinstance(obj, stock_call) and isinstance(self, Shared)
        if is_ours and not hasattr(obj, "_dragon_error") and by_value.is_about_names(error):
            again = OtherCall(obj, lambda call: by_value.ByValue(call, error).__reduce__())
            again._dragon_error = error  # so that it is not tried a third time
            super(queue_class, self).put(again)
        else:
            stock_error(self, error, obj)

    queue_class.put = put
    queue_class._on_queue_feeder_error = on_error


def _choose_size(executor: Any) -> None:
    stock_init = executor.__init__

    @functools.wraps(stock_init)
    def init(
        self: Any, max_workers: int | None = None, mp_context: Any = None, *rest: Any, **more: Any
    ) -> None:
        if max_workers is None and _is_for_dragon(mp_context, **more):
            max_workers = cpus.n_usable()
        stock_init(self, max_workers, mp_context, *rest, **more)

    executor.__init__ = init


def _is_for_dragon(context: Any, *, max_tasks_per_child: Any = None, **more: Any) -> bool:
    """Whether an executor with these arguments takes start method "dragon"."""
    if context is None and max_tasks_per_child is None:  # else it takes "spawn"
        context = multiprocessing.get_context()
    return context is not None and context.get_start_method() == "dragon"


def _take_cancelled_calls_for_done(manager: Any) -> None:
    """Have an executor end that was shut down with nothing left but cancelled calls.

    Its managing thread looked for calls that are left, found a cancelled one, dropped it, and then
    waited for its result. CPython 3.12 drops them before it looks.
    """
    stock_flag = manager.flag_executor_shutting_down

    @functools.wraps(stock_flag)
    def flag_executor_shutting_down(self: Any) -> None:
        stock_flag(self)
        if isinstance(self.call_queue, Shared):
            self.add_call_item_to_queue()

    manager.flag_executor_shutting_down = flag_executor_shutting_down
