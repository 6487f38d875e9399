"""ProcessPoolExecutor with workers of start method "dragon": its queue, its size, its calls.

Its calls go through a queue of a class of its own, which becomes one of ours if its context is
"dragon"; ``executor_manager`` has its managing thread. Executors over other start methods stay as
they are. ``install`` runs when ``concurrent.futures.process`` has been loaded.

Source: Lib/concurrent/futures/process.py of CPython 3.11.
"""

from __future__ import annotations

import functools
import multiprocessing
import threading
from types import ModuleType
from typing import Any

from dragon_overlay import cpus, dispatch, executor_manager
from dragon_overlay.reduction import Shared


def install(module: ModuleType) -> None:
    """Complete ``concurrent.futures.process``, just executed."""
    _let_calls_travel_by_value(module._SafeQueue, module._CallItem)
    dispatch.dispatch(module._SafeQueue)
    _begin(module.ProcessPoolExecutor)
    executor_manager.install(module)


def _let_calls_travel_by_value(queue_class: Any, stock_call: Any) -> None:
    stock_error = queue_class._on_queue_feeder_error

    def refuse(self: Any, error: BaseException, obj: Any) -> None:
        stock_error(self, error, obj)
        if isinstance(self, Shared):
            _forget_frames(error)  # the future has them as text

    class OtherCall(stock_call):  # type: ignore[misc]
        """A call that is pickled in a way of its own, and is a stock call when it arrives."""

        def __init__(self, call: Any, wrap: Any) -> None:
            super().__init__(call.work_id, call.fn, call.args, call.kwargs)
            self._dragon_wrap = wrap

        def __reduce__(self) -> Any:
            return self._dragon_wrap(stock_call(self.work_id, self.fn, self.args, self.kwargs))

    def put_call(self: Any, call: Any, *args: Any, **kwargs: Any) -> None:
        from dragon_overlay import by_value

        if not by_value.main_is_importable():
            call = OtherCall(call, lambda call: by_value.ByName(call).__reduce__())
        super(queue_class, self).put(call, *args, **kwargs)

    def put(self: Any, obj: Any, *args: Any, **kwargs: Any) -> None:
        if not (isinstance(obj, stock_call) and isinstance(self, Shared)):
            super(queue_class, self).put(obj, *args, **kwargs)
            return
        try:
            put_call(self, obj, *args, **kwargs)
        except BaseException as error:
            # Nobody else knows of this call any more, and its future would never be done: there
            # is no room in the pool, or a signal handler has raised something in submit.
            refuse(self, error, obj)
            is_main = threading.current_thread() is threading.main_thread()
            if is_main and not isinstance(error, Exception):
                raise

    @functools.wraps(stock_error)
    def on_error(self: Any, error: Exception, obj: Any) -> None:
        from dragon_overlay import by_value

        is_ours = isinstance(obj, stock_call) and isinstance(self, Shared)
        if is_ours and not hasattr(obj, "_dragon_error") and by_value.is_about_names(error):
            again = OtherCall(obj, lambda call: by_value.ByValue(call, error).__reduce__())
            again._dragon_error = error  # so that it is not tried a third time
            super(queue_class, self).put(again)
        else:
            refuse(self, error, obj)

    queue_class.put = put
    queue_class._on_queue_feeder_error = on_error


def _forget_frames(error: BaseException | None) -> None:
    """Break the circle of an error, its frames, their callers' frames, and a future there.

    It would keep the thread and its executor alive until objects are next collected.
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__context__


def _begin(executor: Any) -> None:
    stock_init = executor.__init__

    @functools.wraps(stock_init)
    def init(
        self: Any, max_workers: int | None = None, mp_context: Any = None, *rest: Any, **more: Any
    ) -> None:
        is_ours = _is_for_dragon(mp_context, **more)
        if max_workers is None and is_ours:
            max_workers = cpus.n_usable()
        stock_init(self, max_workers, mp_context, *rest, **more)
        if is_ours:
            executor_manager.begin(self)

    executor.__init__ = init


def _is_for_dragon(context: Any, *, max_tasks_per_child: Any = None, **more: Any) -> bool:
    """Whether an executor with these arguments takes start method "dragon"."""
    if context is None and max_tasks_per_child is None:  # else it takes "spawn"
        context = multiprocessing.get_context()
    return context is not None and context.get_start_method() == "dragon"
