"""Enums and exceptions of ``dragon.managed_memory``, which is where programs find them."""

from __future__ import annotations

import enum
import errno
from typing import Any

import _dragon
from dragon.dtypes import DragonException
from dragon.rc import DragonError

_PUBLIC = "dragon.managed_memory"


class PoolType(enum.IntEnum):
    """Kinds of memory. Pools here are of kind SHM."""

    __module__ = _PUBLIC

    SHM = 0
    HUGEPAGE = 1
    GPU = 2
    FILE = 3
    PRIVATE = 4


class AllocType(enum.IntEnum):
    """What a block is for.

    A block shows the type that it was allocated with until it changes hands. What the runtime
    allocates shows as what it is: CHANNEL, an object that processes share (a channel, a lock);
    CHANNEL_BUFFER, the memory of a message, on its way or in a process; BOOTSTRAP, a part of the
    runtime itself.
    """

    __module__ = _PUBLIC

    DATA = 0
    CHANNEL = 1
    CHANNEL_BUFFER = 2
    BOOTSTRAP = 3


class DragonMemoryError(DragonException):
    """An operation on pool memory failed.

    Args:
        lib_err: number of the error, of ``dragon.rc.DragonError``.
        msg: what happened.
    """

    __module__ = _PUBLIC

    lib_err: int

    def __init__(self, lib_err: int, msg: str) -> None:
        super().__init__(msg, lib_err)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.lib_err, self.msg)


class DragonMemoryTypeError(DragonMemoryError, TypeError):
    """What was given describes no block that exists."""

    __module__ = _PUBLIC


class DragonPoolError(DragonMemoryError):
    """An operation on a pool failed."""

    __module__ = _PUBLIC

    class Errors(enum.IntEnum):
        """Kinds of failure."""

        SUCCESS = 0
        FAIL = 1
        CREATE_FAIL = 2
        ATTACH_FAIL = 3


class DragonPoolCreateFail(DragonPoolError):
    """A pool could not be created."""

    __module__ = _PUBLIC


class DragonPoolAttachFail(DragonPoolError):
    """A pool could not be attached to."""

    __module__ = _PUBLIC


class DragonPoolDetachFail(DragonPoolError):
    """A pool could not be detached from: it was detached or destroyed here before."""

    __module__ = _PUBLIC


class DragonPoolAllocationNotAvailable(DragonPoolError):
    """The pool has no block of that size now."""

    __module__ = _PUBLIC


def number_of(error: BaseException) -> int:
    """Return the number that says best what an exception of the C module means."""
    if isinstance(error, DragonMemoryError):
        return error.lib_err
    if isinstance(error, MemoryError):
        return DragonError.INTERNAL_MALLOC_FAIL
    if isinstance(error, _dragon.StaleHandle | FileNotFoundError):
        return DragonError.NOT_FOUND
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return DragonError.MEMORY_FILENAME_ERROR
    if isinstance(error, OSError):
        return DragonError.MEMORY_ERRNO
    return DragonError.INVALID_ARGUMENT
