"""Value, Array, RawValue, RawArray, copy and synchronized in pool memory.

What is made here is what the standard library makes: a ctypes object in shared memory, and around
it, if it has a lock, an object of a subclass of the standard library's class of the same name. The
access under the lock is in C (`_dragon/synchronized.c`).

Differences that can be seen: memory is given back when its last user in any process is gone; these
objects travel through the queues of start method "dragon", too; so do arrays of arrays, which the
standard library cannot pickle; and a ctypes object that is not shared can still be pickled after
a shared one of its type was made.

Source: Lib/multiprocessing/sharedctypes.py of CPython 3.11.
"""

from __future__ import annotations

import ctypes
import weakref
from multiprocessing import sharedctypes as stock
from multiprocessing.context import BaseContext
from multiprocessing.reduction import ForkingPickler
from typing import Any

import _dragon
from dragon_overlay import reduction, synchronize
from dragon_overlay.heap import BufferWrapper

__all__ = ["Array", "RawArray", "RawValue", "Value", "copy", "synchronized"]

_stock: Any = stock  # with what typeshed lacks
_stock_reduce_ctype = _stock.reduce_ctype

# ---- ctypes objects in shared memory ----


def _new_value(type_: Any) -> Any:
    return _view(type_, BufferWrapper(ctypes.sizeof(type_)))


def _view(type_: Any, wrapper: BufferWrapper) -> Any:
    """An object of the type in the wrapper's memory."""
    reducers = ForkingPickler._extra_reducers  # type: ignore[attr-defined]  # typeshed lacks it
    if reducers.get(type_) is not reduce_ctype:
        ForkingPickler.register(type_, reduce_ctype)
    obj = type_.from_buffer(wrapper)
    obj._wrapper = wrapper
    return obj


def RawValue(typecode_or_type: Any, *args: Any) -> Any:
    """A ctypes object in shared memory.

    Args:
        typecode_or_type: a ctypes type, or the code of one as in the module `array`.
        *args: for the type's constructor; what they do not set is zero.

    Raises:
        TypeError: it is no type. _dragon.PoolFull: no room. What the constructor raises.
    """
    obj = _new_value(_stock.typecode_to_type.get(typecode_or_type, typecode_or_type))
    obj.__init__(*args)
    return obj


def RawArray(typecode_or_type: Any, size_or_initializer: Any) -> Any:
    """A ctypes array in shared memory.

    Args:
        typecode_or_type: a ctypes type, or the code of one.
        size_or_initializer: number of items, which are zero; or a sequence of them.

    Raises:
        ValueError: a negative size. As RawValue.
    """
    type_: Any = _stock.typecode_to_type.get(typecode_or_type, typecode_or_type)
    if isinstance(size_or_initializer, int):
        return _new_value(type_ * size_or_initializer)
    array = _new_value(type_ * len(size_or_initializer))
    array.__init__(*size_or_initializer)
    return array


def copy(obj: Any) -> Any:
    """A copy of a ctypes object, in shared memory."""
    new_obj = _new_value(type(obj))
    ctypes.pointer(new_obj)[0] = obj
    return new_obj


# ---- with a lock ----


def Value(
    typecode_or_type: Any, *args: Any, lock: Any = True, ctx: BaseContext | None = None
) -> Any:
    """A ctypes object in shared memory, with a lock around each access.

    Args:
        typecode_or_type: a ctypes type, or the code of one as in the module `array`.
        *args: for the type's constructor.
        lock: True or None for a new RLock; False for none, which gives what RawValue does; or
            a lock.
        ctx: the context that makes the lock.

    Raises:
        AttributeError: lock is no lock. As RawValue.
    """
    return _with_lock(RawValue(typecode_or_type, *args), lock, ctx)


def Array(
    typecode_or_type: Any,
    size_or_initializer: Any,
    *,
    lock: Any = True,
    ctx: BaseContext | None = None,
) -> Any:
    """A ctypes array in shared memory, with a lock around each access. As RawArray and Value."""
    return _with_lock(RawArray(typecode_or_type, size_or_initializer), lock, ctx)


def _with_lock(obj: Any, lock: Any, ctx: BaseContext | None) -> Any:
    if lock is False:
        return obj
    if lock in (True, None):
        lock = _new_lock(ctx)
    if not hasattr(lock, "acquire"):
        raise AttributeError(f"{lock!r} has no method 'acquire'")
    return synchronized(obj, lock, ctx)


def _new_lock(ctx: BaseContext | None) -> Any:
    return synchronize.RLock() if ctx is None else ctx.RLock()


def synchronized(obj: Any, lock: Any = None, ctx: BaseContext | None = None) -> Any:
    """Put a lock around a ctypes object, shared or not.

    Args:
        obj: the object.
        lock: by default a new RLock.
        ctx: the context that makes the lock.

    Returns:
        A Synchronized, a SynchronizedArray or -String, or an object with a property for each field.
    """
    assert not isinstance(obj, stock.SynchronizedBase), "object already synchronized"
    if isinstance(obj, ctypes._SimpleCData):
        return Synchronized(obj, lock, ctx)
    if isinstance(obj, ctypes.Array):
        if obj._type_ is ctypes.c_char:
            return SynchronizedString(obj, lock, ctx)
        return SynchronizedArray(obj, lock, ctx)
    return _class_for(type(obj))(obj, lock, ctx)


#: The classes made for structures and unions. They go when the structure's class does.
_classes: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def _class_for(structure: Any) -> Any:
    cls = _classes.get(structure)
    if cls is None:
        names = [field[0] for field in structure._fields_]
        properties = {name: _dragon.synchronized_property(name) for name in names}
        cls = type(f"Synchronized{structure.__name__}", (SynchronizedBase,), properties)
        _classes[structure] = cls
    return cls


#: Locks that are called in C, without looking for their methods.
_OUR_LOCKS: frozenset[Any] = frozenset(
    (synchronize.Lock, synchronize.RLock, synchronize.Semaphore, synchronize.BoundedSemaphore)
)

#: The numbers that C reads and writes itself, and their codes.
_CODES: dict[Any, str] = {
    type_: type_._type_
    for type_ in (
        *(ctypes.c_bool, ctypes.c_byte, ctypes.c_ubyte, ctypes.c_short, ctypes.c_ushort),
        *(ctypes.c_int, ctypes.c_uint, ctypes.c_long, ctypes.c_ulong),
        *(ctypes.c_longlong, ctypes.c_ulonglong, ctypes.c_float, ctypes.c_double),
    )
}
_NO_CODE = " "


class SynchronizedBase(_dragon.SynchronizedBase, stock.SynchronizedBase):  # type: ignore[misc,type-arg]
    """A ctypes object with a lock around it."""

    def __init__(self, obj: Any, lock: Any = None, ctx: BaseContext | None = None) -> None:
        if not lock:
            lock = _new_lock(ctx)
        is_ours = type(lock) in _OUR_LOCKS and not lock.__dict__
        _dragon.SynchronizedBase.__init__(self, obj, lock, self._code_of(obj), is_ours)

    @staticmethod
    def _code_of(_: Any) -> str:
        return _NO_CODE

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as object and lock.

        Raises:
            RuntimeError: if no process is being started and no message is being written.
        """
        reduction.carrier(self)
        return synchronized, (self._obj, self._lock)


class Synchronized(_dragon.SynchronizedValue, SynchronizedBase, stock.Synchronized):  # type: ignore[misc,type-arg]
    """A simple value: `value` is read and written under the lock."""

    @staticmethod
    def _code_of(obj: Any) -> str:
        return _CODES.get(type(obj), _NO_CODE)


class SynchronizedArray(_dragon.SynchronizedArray, SynchronizedBase, stock.SynchronizedArray):  # type: ignore[misc,type-arg]
    """An array: items and slices are read and written under the lock."""

    @staticmethod
    def _code_of(obj: Any) -> str:
        is_plain = type(obj) is obj._type_ * len(obj)
        return _CODES.get(obj._type_, _NO_CODE) if is_plain else _NO_CODE


class SynchronizedString(SynchronizedArray, stock.SynchronizedString):  # type: ignore[misc]
    """An array of characters, which has their `value` up to the first 0, and all of them, `raw`."""

    value = _dragon.synchronized_property("value")
    raw = _dragon.synchronized_property("raw")


# ---- pickling ----


def reduce_ctype(obj: Any) -> Any:
    """What ForkingPickler does with ctypes objects of types of which a shared one was made.

    Raises:
        RuntimeError: if no process is being started and no message is being written.
    """
    wrapper = getattr(obj, "_wrapper", None)
    if wrapper is None:  # not shared
        return obj.__reduce__()
    if not isinstance(wrapper, BufferWrapper):
        return _stock_reduce_ctype(obj)
    reduction.carrier(obj)
    type_, lengths = type(obj), []
    while issubclass(type_, ctypes.Array):
        lengths.append(type_._length_)
        type_ = type_._type_  # type: ignore[assignment]
    return _rebuild_ctype, (type_, lengths, wrapper)


def _rebuild_ctype(type_: Any, lengths: list[int], wrapper: BufferWrapper) -> Any:
    for length in reversed(lengths):
        type_ = type_ * length
    return _view(type_, wrapper)


# The standard library registers its own for each type of which it makes a shared object, and would
# take ours away. It looks for it under this name.
_stock.reduce_ctype = reduce_ctype
