"""What ProcessPoolExecutor sends to workers of start method "dragon" may travel by value.

Its calls go through a queue of a class of its own, whichever the start method; the locks in it
tell for whom it was made. ``install`` runs when ``concurrent.futures.process`` has been loaded.

Source: Lib/concurrent/futures/process.py of CPython 3.11.
"""

from __future__ import annotations

import functools
import io
import pickle
from types import ModuleType
from typing import Any


def install(module: ModuleType) -> None:
    """Have executors whose context is "dragon" send calls by value where they must."""
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
        if isinstance(obj, stock_call) and _is_ours(self._rlock):
            obj = CallItem(obj.work_id, obj.fn, obj.args, obj.kwargs)
        stock_put(self, obj, *args, **kwargs)

    module._SafeQueue.put = put


def _is_ours(lock: Any) -> bool:
    from dragon_overlay.synchronize import Lock

    return isinstance(lock, Lock)


def _nothing() -> None:
    pass
