"""Values and arrays of start method "dragon".

The library has functions for them, which return ctypes objects in shared memory, or such with a
lock around. ``DragonValue`` and its three siblings can be called as the functions can, and
isinstance with them tells what these have made.
"""

from __future__ import annotations

import ctypes
from typing import Any

from dragon_overlay import sharedctypes as _ours
from dragon_overlay.heap import BufferWrapper
from dragon_overlay.sharedctypes import Synchronized as DragonSynchronized
from dragon_overlay.sharedctypes import SynchronizedArray as DragonSynchronizedArray
from dragon_overlay.sharedctypes import SynchronizedBase as DragonSynchronizedBase
from dragon_overlay.sharedctypes import SynchronizedString as DragonSynchronizedString

__all__ = [
    "DragonArray",
    "DragonRawArray",
    "DragonRawValue",
    "DragonSynchronized",
    "DragonSynchronizedArray",
    "DragonSynchronizedBase",
    "DragonSynchronizedString",
    "DragonValue",
]


def _is_shared(obj: Any) -> bool:
    return isinstance(getattr(obj, "_wrapper", None), BufferWrapper)


class _Made(type):
    """The metaclass of names for what a function makes."""

    def __instancecheck__(cls, obj: Any) -> bool:
        is_array = isinstance(getattr(obj, "_obj", obj), ctypes.Array)
        is_kind: bool = cls._is_raw_or_has_lock(obj)  # type: ignore[attr-defined]
        return is_kind and is_array == cls._is_array  # type: ignore[attr-defined]


class DragonRawValue(metaclass=_Made):
    """``RawValue``: a ctypes object in shared memory."""

    _is_array = False
    _is_raw_or_has_lock = staticmethod(_is_shared)

    def __new__(cls, typecode_or_type: Any, *args: Any) -> Any:
        """Make one, as ``multiprocessing.RawValue`` does."""
        return _ours.RawValue(typecode_or_type, *args)


class DragonRawArray(metaclass=_Made):
    """``RawArray``: a ctypes array in shared memory."""

    _is_array = True
    _is_raw_or_has_lock = staticmethod(_is_shared)

    def __new__(cls, typecode_or_type: Any, size_or_initializer: Any) -> Any:
        """Make one, as ``multiprocessing.RawArray`` does."""
        return _ours.RawArray(typecode_or_type, size_or_initializer)


def _has_lock(obj: Any) -> bool:
    return isinstance(obj, DragonSynchronizedBase)


class DragonValue(metaclass=_Made):
    """``Value``: a ctypes object in shared memory, with a lock unless that is not wanted."""

    _is_array = False
    _is_raw_or_has_lock = staticmethod(_has_lock)

    def __new__(cls, typecode_or_type: Any, *args: Any, lock: Any = True, ctx: Any = None) -> Any:
        """Make one, as ``multiprocessing.Value`` does."""
        return _ours.Value(typecode_or_type, *args, lock=lock, ctx=ctx)


class DragonArray(metaclass=_Made):
    """``Array``: a ctypes array in shared memory, with a lock unless that is not wanted."""

    _is_array = True
    _is_raw_or_has_lock = staticmethod(_has_lock)

    def __new__(
        cls, typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True, ctx: Any = None
    ) -> Any:
        """Make one, as ``multiprocessing.Array`` does."""
        return _ours.Array(typecode_or_type, size_or_initializer, lock=lock, ctx=ctx)
