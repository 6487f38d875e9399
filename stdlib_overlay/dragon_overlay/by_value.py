"""What goes from a starter to its workers, and that they cannot import, travels by value.

The standard pickler sends functions and classes by name. That fails for lambdas and what is defined
inside a function; and what is defined in a ``__main__`` that was typed at a prompt, given by ``-c``
or read from standard input arrives as a name that nobody knows there. Both are sent as code then,
by `cloudpickle` if it is installed. Programs that need none of it do not import it, and pickle as
ever: the standard pickler goes first.

Used for targets, initializers, tasks and their arguments; results and objects in queues are the
standard library's.
"""

from __future__ import annotations

import copyreg
import functools
import io
import operator
import os
import sys
from collections import ChainMap
from collections.abc import Callable, Mapping
from multiprocessing import process, spawn
from multiprocessing.reduction import ForkingPickler
from pickle import PickleBuffer, Pickler, PicklingError, loads
from types import MappingProxyType
from typing import Any

from dragon_overlay import reduction

#: What ``functools.cache`` makes; it pickles by name only, also with cloudpickle.
_CachedFunction = type(functools.cache(len))


@functools.cache
def _is_file(folder: str, path: str) -> bool:
    return os.path.isfile(os.path.join(folder, path))


def main_is_importable() -> bool:
    """True if a started process can have this process's ``__main__``.

    It cannot where no file holds it, and it does not import the ``__main__`` of a package, folder
    or archive.

    Source: Lib/multiprocessing/spawn.py (get_preparation_data, _fixup_main_from_name).
    """
    main = sys.modules["__main__"]
    name = getattr(main.__spec__, "name", None)
    if name is not None:
        return name != "__main__" and not name.endswith(".__main__")
    path = getattr(main, "__file__", None)
    folder = process.ORIGINAL_DIR or ""  # type: ignore[attr-defined]  # typeshed lacks it
    return path is not None and _is_file(folder, path)


def preparation_data(name: str) -> dict[str, Any]:
    """``spawn.get_preparation_data`` that tells the child no ``__main__`` which it cannot import.

    Where a program is read from standard input, ``__main__.__file__`` is "<stdin>".

    Raises:
        RuntimeError: this process is itself still importing its main.
    """
    data: dict[str, Any] = spawn.get_preparation_data(name)
    if "init_main_from_path" in data and not main_is_importable():
        del data["init_main_from_path"]
    return data


class _NamelessError(PicklingError):
    """Something of a ``__main__`` that the worker cannot import."""


def _is_of_main(obj: Any) -> bool:
    """True if obj has a name in ``__main__``, as functions, classes and type variables have."""
    return getattr(obj, "__module__", None) == "__main__" and hasattr(obj, "__name__")


#: Takes buffers out of a pickle; only messages have room for them.
_TakeBuffer = Callable[[PickleBuffer], object]


def _reducers(
    take_buffer: _TakeBuffer | None, more: Mapping[Any, Any] = MappingProxyType({})
) -> Mapping[Any, Any]:
    """Those of multiprocessing, for arrays those of messages if it is one, then more."""
    extra: dict[Any, Any] = ForkingPickler._extra_reducers  # type: ignore[attr-defined]
    arrays = {} if take_buffer is None else reduction.array_reducers()
    maps: list[Any] = [extra, copyreg.dispatch_table, arrays, more]
    return ChainMap(*maps)


def _protocol(take_buffer: _TakeBuffer | None) -> int | None:
    """The one of multiprocessing, or the one that knows buffers."""
    return None if take_buffer is None else 5


class _WatchingPickler(Pickler):
    """The standard pickler, which refuses what would arrive as a name in a ``__main__`` not there.

    As it asks for each object it is slower, and used only where main cannot be imported.
    """

    dispatch_table: Any

    def __init__(self, file: Any, take_buffer: _TakeBuffer | None = None) -> None:
        super().__init__(file, _protocol(take_buffer), buffer_callback=take_buffer)
        self.dispatch_table = _reducers(take_buffer)

    def reducer_override(self, obj: Any) -> Any:
        if _is_of_main(obj):
            raise _NamelessError(
                f"Can't pickle {obj!r}: started processes cannot import the __main__ that has it"
            )
        return NotImplemented


def is_about_names(error: Exception) -> bool:
    """True if a pickler has failed because an object is not found by its name.

    That is a PicklingError or, depending on the version of Python and where the object is, an
    AttributeError; other errors of these types are those of a class's own pickling.
    """
    return str(error).startswith("Can't pickle ")


@functools.cache
def _by_value_pickler() -> type[Any]:
    """The class of picklers by value. ImportError: there is no cloudpickle."""
    import cloudpickle  # type: ignore[import-untyped,import-not-found,unused-ignore]

    class ByValuePickler(cloudpickle.CloudPickler):  # type: ignore[misc]
        def __init__(self, file: Any, take_buffer: _TakeBuffer | None = None) -> None:
            # The constructor below looks at it. Later it would not be looked at any more.
            self.dispatch_table = _reducers(take_buffer, cloudpickle.CloudPickler.dispatch_table)
            super().__init__(file, _protocol(take_buffer), take_buffer)

        def reducer_override(self, obj: Any) -> Any:
            if type(obj) in copyreg.dispatch_table:
                return NotImplemented  # for classes of such a metaclass, cloudpickle does not look
            is_cached = isinstance(obj, _CachedFunction)
            if (is_cached or _is_of_main(obj)) and _is_importable(obj):
                # By value, a class of main would be another class than main's over there.
                return NotImplemented
            if is_cached:
                return _cached, (obj.__wrapped__, obj.cache_parameters())
            return super().reducer_override(obj)

    return ByValuePickler


def _is_importable(obj: Any) -> bool:
    """True if the name of obj leads to it, and will do so in a started process."""
    if obj.__module__ == "__main__" and not main_is_importable():
        return False
    name = getattr(obj, "__qualname__", obj.__name__)
    try:
        return operator.attrgetter(name)(sys.modules[obj.__module__]) is obj
    except (AttributeError, KeyError):
        return False


def _cached(function: Callable[..., Any], parameters: dict[str, Any]) -> Callable[..., Any]:
    cached: Callable[..., Any] = functools.lru_cache(**parameters)(function)
    return cached


def _dump_by_value(
    obj: Any, file: Any, error: Exception, take_buffer: _TakeBuffer | None = None
) -> None:
    """Pickle what the standard pickler has refused with error."""
    try:
        kind = _by_value_pickler()
    except ImportError:
        raise PicklingError(
            f"{error}. What cannot be imported goes to started processes by value if cloudpickle "
            f"is installed, which it is not (pip install cloudpickle)"
        ) from error
    kind(file, take_buffer).dump(obj)


def dump(obj: Any, file: io.BytesIO, forget: Callable[[], object]) -> None:
    """Pickle obj for a process that is being started, at the end of file.

    Args:
        obj: what is to go there.
        file: takes the pickle.
        forget: called before a second attempt, to undo what objects did when they were pickled.

    Raises:
        PicklingError: it has something in it that can only go by value, and there is no
            cloudpickle. Whatever else the pickler, or the object's own pickling, raises.
    """
    start = file.tell()
    try:
        if main_is_importable():
            ForkingPickler(file).dump(obj)
        else:
            _WatchingPickler(file).dump(obj)
    except (PicklingError, AttributeError) as error:
        if not is_about_names(error):
            raise
        file.seek(start)
        file.truncate()
        forget()
        _dump_by_value(obj, file, error)


def dump_by_name(obj: Any, file: io.BytesIO, take_buffer: _TakeBuffer) -> None:
    """Pickle obj as a part of the message that is being made, as the message itself would be."""
    pickler: Any = Pickler(file, _protocol(take_buffer), buffer_callback=take_buffer)
    pickler.dispatch_table = _reducers(take_buffer)
    pickler.dump(obj)


def dump_in_message(
    obj: Any, file: io.BytesIO, take_buffer: _TakeBuffer, error: Exception | None
) -> None:
    """Pickle obj for a worker, as a part of the message that is being made.

    Args:
        obj: what is to go there.
        file: takes the pickle.
        take_buffer: takes buffers.
        error: that of a first attempt, with another message, about a name: it goes by value.

    Raises: as ``dump``, and PicklingError or AttributeError about a name (``is_about_names``).
    """
    if error is not None:
        _dump_by_value(obj, file, error, take_buffer)
    elif main_is_importable():
        dump_by_name(obj, file, take_buffer)
    else:
        _WatchingPickler(file, take_buffer).dump(obj)


class ByName:
    """An object on its way to a worker: pickled in one piece, unpickled it is that object.

    It is pickled while the message around it is, so that what it uses of the runtime is counted
    for that message, and large buffers still go out of band.
    """

    def __init__(self, obj: Any) -> None:
        self._obj = obj

    def __reduce__(self) -> tuple[Any, ...]:
        file, buffers = io.BytesIO(), list[Any]()
        self._dump(file, buffers)
        return _load, (PickleBuffer(file.getbuffer()), buffers)

    def _dump(self, file: io.BytesIO, buffers: list[Any]) -> None:
        _WatchingPickler(file, buffers.append).dump(self._obj)


class ByValue(ByName):
    """An object that has to go by value, since the standard pickler has refused it with error."""

    def __init__(self, obj: Any, error: Exception) -> None:
        super().__init__(obj)
        self._error = error

    def _dump(self, file: io.BytesIO, buffers: list[Any]) -> None:
        _dump_by_value(self._obj, file, self._error, buffers.append)


def _load(data: bytearray, buffers: list[Any]) -> Any:
    return loads(data, buffers=buffers)
