"""How objects of the runtime travel: as a name and, in a message, a use of the object."""

from __future__ import annotations

import sys
from multiprocessing.context import get_spawning_popen
from typing import Any

import _dragon


def carrier(obj: Any) -> Any:
    """What obj is to travel with: the Popen of a process that is being made; None: a message.

    Raises:
        RuntimeError: nothing is being made that could carry it, as in the standard library;
            or a process of another start method is being started.
    """
    popen = get_spawning_popen()
    name = type(obj).__name__
    if popen is None:
        if not _dragon.is_exporting():
            raise RuntimeError(
                f"{name} objects should only be shared between processes through inheritance"
            )
    elif not hasattr(popen, "keep"):
        method = popen.method
        raise RuntimeError(
            f"{name} objects of start method 'dragon' cannot be given to a process of start "
            f"method {method!r}: make them with get_context({method!r})"
        )
    return popen


def export(shared_object: _dragon.Object) -> bytes:
    """The name of a shared object, for the process or the message that is being made.

    Returns:
        bytes for the ``_attach`` of the same type, in a process of the same program.

    Raises: as ``carrier``.
    """
    popen = carrier(shared_object)
    if popen is not None:
        popen.keep(shared_object)
    return shared_object._export(popen is None)


class Shared:
    """How all types of the overlay travel: as the name of what they share, and what they carry.

    What belongs to the process stays in it: attributes whose names begin with ``_dragon_``, and
    what the C type keeps, as which thread holds a lock. Attributes that a user's subclass adds
    travel as they do elsewhere, and so does what its own ``__getstate__`` adds.
    """

    #: The names of the attributes that travel; None: all.
    _dragon_travelling: frozenset[str] | None = None

    def __getstate__(self) -> Any:
        """The state for a pickle.

        Raises:
            RuntimeError: as ``export``.
        """
        names = self._dragon_travelling or (
            k for k in self.__dict__ if not k.startswith("_dragon_")
        )
        attributes = {k: self.__dict__[k] for k in names if k in self.__dict__}
        return export(self), attributes  # type: ignore[arg-type]  # all subclasses are Objects

    def __setstate__(self, state: Any) -> None:
        exported, attributes = state
        self._attach(exported)  # type: ignore[attr-defined]
        self.__dict__.update(attributes)


#: From this size on a buffer travels out of band (DRAGON_PY_LARGE_BYTES in _dragon/payload.h).
_LARGE_BYTES = 65536


def reduce_array(array: Any) -> tuple[Any, ...]:
    """``numpy.ndarray`` in a message.

    Large arrays go out of band and arrive as views of shared memory. Small ones travel as their
    bytes and arrive owning their data, so that ``resize`` works on them. Read-only ones do so at
    any size: out of band they would arrive read-only, and the standard library's do not. So do
    those of the other byte order, which arrive in this machine's.
    """
    is_large = array.nbytes >= _LARGE_BYTES
    if is_large and array.flags.writeable and array.dtype.isnative:
        reduced: tuple[Any, ...] = array.__reduce_ex__(5)
    else:
        reduced = array.__reduce__()
    return reduced


def array_reducers() -> dict[Any, Any]:
    """The reducer of arrays in a message, by their type; empty while numpy is not in use."""
    array = getattr(sys.modules.get("numpy"), "ndarray", None)
    return {} if array is None else {array: reduce_array}
