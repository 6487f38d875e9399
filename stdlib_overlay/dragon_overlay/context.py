"""DragonContext, and how it gets into the standard library's contexts.

``install`` runs once, when ``multiprocessing.context`` has just been loaded and
``multiprocessing`` itself has not yet copied the default context's methods.
Importing this module is cheap: what a context makes is imported when it is made,
as in the standard library.

Source: Lib/multiprocessing/context.py of CPython 3.11.
"""

from __future__ import annotations

import functools
from multiprocessing import context as _stock
from types import ModuleType
from typing import Any

import _dragon
import _dragon_boot
import _dragon_launch
from dragon_overlay import dispatch
from dragon_overlay.process import DragonProcess

#: What multiprocessing offers as functions and what must follow the current start method. The
#: standard library binds these names to the default context, where they would make stock objects.
_DISPATCHED = (
    "Array",
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "JoinableQueue",
    "Lock",
    "Pipe",
    "Pool",
    "Queue",
    "RLock",
    "RawArray",
    "RawValue",
    "Semaphore",
    "SimpleQueue",
    "Value",
)

#: Set by the program's own ``import dragon``.
_is_announced = False
_is_prepared = False


class DragonContext(_stock.BaseContext):
    """The context of start method "dragon": processes and primitives of the runtime."""

    _name = "dragon"
    Process = DragonProcess

    def get_context(self, method: str | None = None) -> Any:
        """Return this context, or that of another method.

        Run when somebody uses this one: the first process is not far.
        """
        if method is None:
            _prepare_to_start()
        return super().get_context(method)

    def _check_available(self) -> None:
        """Run when somebody chooses this context."""
        _prepare_to_start()

    def Lock(self, *, robust: bool = False) -> Any:
        from dragon_overlay.synchronize import Lock

        return Lock(robust=robust, ctx=self.get_context())

    def RLock(self, *, robust: bool = False) -> Any:
        from dragon_overlay.synchronize import RLock

        return RLock(robust=robust, ctx=self.get_context())

    def Condition(self, lock: Any = None) -> Any:
        from dragon_overlay.synchronize import Condition

        return Condition(lock, ctx=self.get_context())

    def Semaphore(self, value: int = 1) -> Any:
        from dragon_overlay.synchronize import Semaphore

        return Semaphore(value, ctx=self.get_context())

    def BoundedSemaphore(self, value: int = 1) -> Any:
        from dragon_overlay.synchronize import BoundedSemaphore

        return BoundedSemaphore(value, ctx=self.get_context())

    def Event(self) -> Any:
        from dragon_overlay.synchronize import Event

        return Event(ctx=self.get_context())

    def Barrier(self, parties: int, action: Any = None, timeout: float | None = None) -> Any:
        from dragon_overlay.synchronize import Barrier

        return Barrier(parties, action, timeout, ctx=self.get_context())

    def Queue(self, maxsize: int = 0) -> Any:
        from dragon_overlay.queues import Queue

        return Queue(maxsize, ctx=self.get_context())

    def JoinableQueue(self, maxsize: int = 0) -> Any:
        from dragon_overlay.queues import JoinableQueue

        return JoinableQueue(maxsize, ctx=self.get_context())

    def SimpleQueue(self) -> Any:
        from dragon_overlay.queues import SimpleQueue

        return SimpleQueue(ctx=self.get_context())

    def RawValue(self, typecode_or_type: Any, *args: Any) -> Any:
        from dragon_overlay.sharedctypes import RawValue

        return RawValue(typecode_or_type, *args)

    def RawArray(self, typecode_or_type: Any, size_or_initializer: Any) -> Any:
        from dragon_overlay.sharedctypes import RawArray

        return RawArray(typecode_or_type, size_or_initializer)

    def Value(self, typecode_or_type: Any, *args: Any, lock: Any = True) -> Any:
        from dragon_overlay.sharedctypes import Value

        return Value(typecode_or_type, *args, lock=lock)

    def Array(self, typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True) -> Any:
        from dragon_overlay.sharedctypes import Array

        return Array(typecode_or_type, size_or_initializer, lock=lock)

    def Pipe(self, duplex: bool = True) -> Any:
        from dragon_overlay.connection import Pipe

        return Pipe(duplex)

    def Pool(
        self,
        processes: int | None = None,
        initializer: Any = None,
        initargs: Any = (),
        maxtasksperchild: int | None = None,
        *,
        max_worker_rss: int | None = None,
    ) -> Any:
        from dragon_overlay.pool.dragon_pool import DragonPool

        context = self.get_context()
        return DragonPool(
            processes,
            initializer,
            initargs,
            maxtasksperchild,
            context=context,
            max_worker_rss=max_worker_rss,
        )


def announce() -> None:
    """Give "dragon" the rights that a program's own ``import dragon`` asks for.

    It is listed first in ``get_all_start_methods()``, a program may leave it for another start
    method without ``force=True``, the standard library's classes make its objects, and their
    modules need no import of their own.
    """
    global _is_announced
    if not _is_announced:
        _is_announced = True
        for name in dispatch.ASKED_FOR:
            _dragon_boot.complete(name, dispatch.install)
        _dragon_boot.complete("multiprocessing", dispatch.offer_modules)


def _prepare_to_start() -> None:
    global _is_prepared
    # Most processes that others started start none themselves.
    if not _is_prepared and not _dragon_launch.is_child:
        _is_prepared = True
        from dragon_overlay import seed

        seed.prepare()


def install(module: ModuleType, default_method: str | None = None) -> None:
    """Make "dragon" a start method of ``multiprocessing.context``.

    Args:
        module: ``multiprocessing.context``, just executed.
        default_method: start method that is used where the program chooses none; the program's
            own choice wins, and ``get_start_method(allow_none=True)`` stays None.

    Raises:
        ValueError: there is no start method of that name.
    """
    _dragon.begin()
    contexts = module._concrete_contexts
    contexts["dragon"] = DragonContext()
    for name in _DISPATCHED:
        setattr(module.DefaultContext, name, _dispatcher(getattr(module.BaseContext, name)))
    _extend_default_context(module.DefaultContext)
    if default_method is not None:
        if default_method not in contexts:
            raise ValueError(f"cannot find context for {default_method!r}")
        module._default_context._default_context = contexts[default_method]
    if _dragon_launch.is_portable:
        from dragon_overlay import portable

        portable.install(module.reduction)
    if _is_announced or default_method == "dragon":
        _prepare_to_start()


def _dispatcher(stock_method: Any) -> Any:
    @functools.wraps(stock_method)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.get_context(), stock_method.__name__)(*args, **kwargs)

    return method


def _extend_default_context(default_context: Any) -> None:
    stock_set = default_context.set_start_method
    stock_all = default_context.get_all_start_methods

    @functools.wraps(stock_set)
    def set_start_method(self: Any, method: str | None, force: bool = False) -> None:
        current = self._actual_context
        if _is_announced and isinstance(current, DragonContext) and method != "dragon":
            force = True
        stock_set(self, method, force)

    @functools.wraps(stock_all)
    def get_all_start_methods(self: Any) -> list[str]:
        stock: list[str] = stock_all(self)
        return ["dragon", *stock] if _is_announced else stock

    default_context.set_start_method = set_start_method
    default_context.get_all_start_methods = get_all_start_methods
