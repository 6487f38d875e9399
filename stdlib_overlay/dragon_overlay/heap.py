"""Shared memory by the piece, from the pool: BufferWrapper, and an Arena for the stock heap.

The standard library maps files and has a heap of its own in them. Here the pool is the heap, and
each piece is an object of the runtime: the last user in any process gives its memory back. There is
no file, and no descriptor.

Source: Lib/multiprocessing/heap.py of CPython 3.11.
"""

from __future__ import annotations

import sys
from multiprocessing import heap as stock
from typing import Any

import _dragon
from dragon_overlay import reduction

__all__ = ["BufferWrapper", "DragonArena"]


class _Memory(_dragon.SharedBuffer):
    """Zeroed memory in the pool. `memoryview` of it is writable, and keeps it."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel by name, to processes and in messages.

        Raises:
            RuntimeError: if no process is being started and no message is being written.
        """
        return _rebuild, (type(self), reduction.export(self), self._size, self.__dict__)


def _rebuild(cls: Any, name: bytes, size: int, attributes: dict[str, Any]) -> Any:
    memory = cls.__new__(cls)
    memory._attach(name, size)
    memory.__dict__.update(attributes)
    return memory


class BufferWrapper(_Memory, stock.BufferWrapper):
    """A piece of shared memory."""

    def __init__(self, size: int, *, ctx: Any = None) -> None:
        """Take memory.

        Args:
            size: bytes, 0 or more.
            ctx: for the signature's sake.

        Raises:
            ValueError: size is negative.
            OverflowError: size is larger than any memory.
            _dragon.PoolFull: there is no room for it; a MemoryError.
        """
        if size < 0:
            raise ValueError(f"Size {size:n} out of range")
        if sys.maxsize <= size:
            raise OverflowError(f"Size {size:n} too large")
        self._create(size)

    def create_memoryview(self) -> memoryview:
        """A writable view of all of it."""
        return memoryview(self)


class DragonArena(_Memory, stock.Arena):
    """What the standard library's Heap takes its blocks from, in the pool."""

    #: In place of the descriptor of a file.
    fd = -1

    def __init__(self, size: int, fd: int = -1) -> None:
        """Take memory.

        Args:
            size: bytes, 0 or more.
            fd: for the signature's sake; there is no file that could be opened.

        Raises:
            ValueError: size is negative, or fd is one. _dragon.PoolFull: there is no room for it.
        """
        if fd != -1:
            raise ValueError("a DragonArena is memory of the pool, not a file's")
        self._create(size)

    @property
    def size(self) -> int:  # type: ignore[override]
        """In bytes."""
        return self._size

    @property
    def buffer(self) -> memoryview:  # type: ignore[override]
        """A writable view of all of it."""
        return memoryview(self)
