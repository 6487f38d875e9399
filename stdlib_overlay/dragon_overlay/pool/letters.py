"""Letters: objects that are pickled apart from the message that carries them.

What cannot be unpickled, whatever the reason, must not take the message along, which says whose it
is. So the object goes as bytes in the message. Large buffers still travel out of band.

What an object uses of the runtime is the message's until that has been unpickled (docs/objects.md).
A task is opened later, by a worker that has said so; what it uses is kept by the pool until its
calls have ended. A result is opened with its message: nobody else may have what it uses.
"""

from __future__ import annotations

import io
from pickle import PickleBuffer, PicklingError, loads
from typing import Any

import _dragon
from dragon_overlay import by_value


class Sealed:
    """An object on its way; it arrives as a Letter."""

    def __init__(self, obj: Any, error: Exception | None = None) -> None:
        """Seal obj.

        Args:
            obj: what is to be sent; pickled when the message is.
            error: why pickling by name has failed: it goes by value.
        """
        self._obj = obj
        self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        file, buffers = io.BytesIO(), list[Any]()
        by_value.dump_in_message(self._obj, file, buffers.append, self._error)
        return Letter, (PickleBuffer(file.getbuffer()), buffers)


class SealedResult(Sealed):
    """A result on its way back: pickled as the standard library does; it arrives as Arrived."""

    def __reduce__(self) -> tuple[Any, ...]:
        file, buffers = io.BytesIO(), list[Any]()
        by_value.dump_by_name(self._obj, file, buffers.append)
        return _arrive, (PickleBuffer(file.getbuffer()), buffers)


class Letter:
    """An object that has arrived, still pickled."""

    def __init__(self, data: Any, buffers: list[Any]) -> None:
        self._data = data
        self._buffers = buffers

    def open(self) -> Any:
        """The object; once, as its buffers are views of the message. Raises whatever that does."""
        return loads(self._data, buffers=self._buffers)


class Arrived:
    """A result that was unpickled with its message, or the error of that."""

    def __init__(self, obj: Any, error: BaseException | None) -> None:
        self._obj = obj
        self._error = error

    def open(self) -> Any:
        """The object. Raises what unpickling it has raised."""
        if self._error is not None:
            raise self._error
        return self._obj


def _arrive(data: Any, buffers: list[Any]) -> Arrived:
    try:
        return Arrived(loads(data, buffers=buffers), None)
    except BaseException as error:  # noqa: BLE001  # whatever the object's own unpickling raises
        return Arrived(None, error)


def put_task(inbox: Any, number: int, n_items: int, task: Any) -> None:
    """Send a worker a task, by value if the standard pickler refuses a name in it.

    It arrives as (number, n_items, letter).

    Raises:
        PicklingError: and whatever else pickling raises; nothing was sent.
    """
    try:
        if by_value.main_is_importable():
            inbox._put_letter(number, n_items, task)
        else:
            inbox.put((number, n_items, Sealed(task)))
    except (PicklingError, AttributeError) as error:
        if not by_value.is_about_names(error):
            raise
        inbox.put((number, n_items, Sealed(task, error)))


#: Calls up to this size are pickled by who submits them, and travel with others.
_SMALL_CALL_BYTES = 1000


def small_call(func: Any, args: Any, kwargs: Any) -> bytes | None:
    """A call as CALL has it; None: it is to go alone."""
    if type(args) is not tuple or type(kwargs) is not dict:
        return None
    call = _dragon.pickle_small((func, args, kwargs), _SMALL_CALL_BYTES)
    if call is not None and b"__main__" in call and not by_value.main_is_importable():
        return None
    return call
