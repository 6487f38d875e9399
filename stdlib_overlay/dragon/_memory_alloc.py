"""Blocks of pools: MemoryAlloc and MemoryAllocations of ``dragon.managed_memory``."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import _dragon
from dragon._memory_names import BlockName, no_block
from dragon._memory_types import (
    AllocType,
    DragonMemoryError,
    DragonMemoryTypeError,
    DragonPoolError,
    number_of,
)
from dragon.rc import DragonError
from dragon.utils import hash as hash_bytes

if TYPE_CHECKING:
    from dragon.managed_memory import MemoryPool

_PUBLIC = "dragon.managed_memory"


class _NoBlock:
    """In the place of a block that takes up no memory here: of 0 bytes, or of another machine."""

    def __init__(self) -> None:
        self._is_gone = False

    def place(self) -> tuple[int, int]:
        return 0, 0

    def address(self) -> int:
        return 0

    def n_views(self) -> int:
        return 0

    def is_gone(self) -> bool:
        return self._is_gone

    def free(self) -> None:
        self._is_gone = True

    detach = free

    def share(self) -> None:
        pass

    hold = share


_Block = _dragon.Allocation | _NoBlock


class MemoryAlloc:
    """A block of a pool, or a part of one. Made by ``MemoryPool.alloc`` and ``MemoryAlloc.attach``.

    Nothing frees the block but ``free()``: it may be shared with others. Two are equal if their
    bytes are. As a context manager the block is freed at the end if it was allocated here, and
    detached from otherwise. Usable from any thread.

    A block of 0 bytes takes up nothing and is in no list; its ``id`` is 0. A block of a pool on
    another machine has no memory here: what needs it raises DragonMemoryError.
    """

    __module__ = _PUBLIC

    def __init__(
        self,
        pool: MemoryPool,
        block: _dragon.Allocation | None,
        first: int,
        size: int,
        is_attached: bool = False,
    ) -> None:
        self._pool = pool
        self._block: _Block = _NoBlock() if block is None else block
        self._first = first
        self._size = size
        self._is_attached = is_attached
        self._is_detached = False
        offset, generation = self._block.place()
        self._place = (generation, offset, 0 if block is None else len(block))

    @classmethod
    def attach(cls, ser: bytes) -> MemoryAlloc:
        """Use the block that ``serialize()`` described.

        Raises:
            DragonMemoryTypeError: it describes no block that exists.
            TypeError: ser is not bytes-like.
        """
        from dragon.managed_memory import MemoryPool  # which imports this module

        name = BlockName.parse(ser)
        try:
            pool = MemoryPool.attach(name.pool_ser)
            block = None
            if pool.is_local and name.n_bytes:
                block = pool._require().find(name.offset, name.generation)
        except (OSError, DragonPoolError) as error:
            text = f"cannot attach to the block: {error}"
            raise DragonMemoryTypeError(number_of(error), text) from error
        if block is not None and len(block) != name.n_bytes:
            raise no_block()
        self = cls(pool, block, name.first, name.size, is_attached=True)
        self._place = (name.generation, name.offset, name.n_bytes)
        return self

    def serialize(self) -> bytes:
        """A description of the block for ``attach()``, in any process of this machine."""
        self._block.share()
        return BlockName(self._pool._words(), *self._place, self._first, self._size).pack()

    def get_memview(self) -> memoryview:
        """The block's memory: writable, ``size`` bytes. It stays mapped as long as the view exists.

        What another process does to the block is not noticed: once it has freed the block, the
        view may show somebody else's bytes.

        Raises:
            DragonMemoryError: the block was freed or detached here, or is on another machine.
        """
        block = self._require()
        if isinstance(block, _NoBlock):
            return memoryview(bytearray())
        return memoryview(block)[self._first : self._first + self._size]

    def get_int_ptr(self) -> int:
        """The address of the memory in this process; 0 if it is of 0 bytes.

        Unlike a view, the number keeps nothing: it is good until somebody frees the block, or the
        last object of its pool here is gone.

        Raises:
            DragonMemoryError: the block was freed or detached here, or is on another machine.
        """
        return self._require().address() + self._first

    def free(self) -> None:
        """Give the block back to the pool; while views of it exist here, with the last of them.

        Nobody else may use it then: views that other processes have of it are not seen from here.

        Raises:
            DragonMemoryError: it was detached here, or freed before, here or by another process;
                or it is on another machine.
        """
        try:
            self._require().free()
        except _dragon.StaleHandle as error:
            text = f"block {self.id} of {self._pool._name} was freed before, by whoever had it"
            raise DragonMemoryError(DragonError.NOT_FOUND, text) from error
        except OSError as error:
            raise DragonMemoryError(number_of(error), str(error)) from error

    def detach(self) -> None:
        """Forget the block here without freeing it.

        Raises:
            DragonMemoryError: it was freed or detached before.
            RuntimeError: it was allocated here: nobody else may know of it.
        """
        self._check_not_ended()
        if not self._is_attached:
            raise RuntimeError("cannot detach from memory not attached to")
        self._is_detached = True

    def clone(self, offset: int = 0, length: int | None = None) -> MemoryAlloc:
        """Another object for the same block, or for a part of it.

        Args:
            offset: the first byte, counted in this object.
            length: bytes; None: all from there on.

        Raises:
            TypeError, RuntimeError: they name no part of the block.
        """
        if length is not None and not isinstance(length, int):
            raise TypeError(f"length must be int, not {type(length).__name__}")
        first, last = self._part(offset, None if length is None else offset + length)
        clone = MemoryAlloc(self._pool, None, self._first + first, last - first, is_attached=True)
        clone._block = self._block
        clone._place = self._place
        return clone

    def copy(self, pool: MemoryPool, timeout: float | None = None) -> MemoryAlloc:
        """A copy of the bytes in another pool, or in the same; waits for room there.

        Args:
            pool: where the copy is to be.
            timeout: seconds, at least 0; None: for ever.

        Raises:
            TimeoutError: there was no room in time.
            DragonMemoryError: the block was freed or is on another machine, or no wait can make
                room; timeout is 0 and there is no room now.
            TypeError: pool is no MemoryPool.
            ValueError: timeout is negative or no number.
        """
        from dragon.managed_memory import MemoryPool  # which imports this module

        if not isinstance(pool, MemoryPool):
            raise TypeError(f"pool must be a MemoryPool, not {type(pool).__name__}")
        with self.get_memview() as source:
            block = pool.alloc_blocking(self._size, timeout) if self._size else pool.alloc(0)
            with block.get_memview() as target:
                target[:] = source
        return block

    def clear(self, start: int = 0, stop: int | None = None) -> None:
        """Set the bytes from start to before stop to zero; None: to the end.

        Raises:
            TypeError, RuntimeError: they name no part of the block.
            DragonMemoryError: the block was freed, or is on another machine.
        """
        first, last = self._part(start, stop)
        with self.get_memview() as view:
            view[first:last] = bytes(last - first)

    def is_the_same_as(self, other: MemoryAlloc) -> bool:
        """True if both are objects for the same block.

        Raises:
            DragonMemoryError: other is no MemoryAlloc.
        """
        if not isinstance(other, MemoryAlloc):
            text = f"not a MemoryAlloc but {type(other).__name__}"
            raise DragonMemoryError(DragonError.INVALID_ARGUMENT, text)
        return (self._pool._words(), self.id) == (other._pool._words(), other.id)

    def _is_ended(self) -> bool:
        return self._is_detached or self._block.is_gone()

    def _check_not_ended(self) -> None:
        if self._is_ended():
            text = "MemoryAlloc: the block was freed or detached"
            raise DragonMemoryError(DragonError.INVALID_STATE, text)

    def _require(self) -> _Block:
        self._check_not_ended()
        if not self._pool.is_local and isinstance(self._block, _NoBlock):
            text = f"the block is in {self._pool._name}, which is not on this machine"
            raise DragonMemoryError(DragonError.MEMORY_OPERATION_ATTEMPT_ON_NONLOCAL_POOL, text)
        return self._block

    def _can_be_given(self) -> bool:
        """True if nobody here would still look at the memory after it is somebody else's."""
        return (
            not isinstance(self._block, _NoBlock)
            and not self._is_detached
            and self._first == 0
            and self._block.n_views() == 0
        )

    def _given(self) -> None:
        """The block is somebody else's now."""
        self._block.detach()

    def _hold(self) -> None:
        """The block is the memory of a message here: it goes with this process."""
        self._block.hold()

    def _share(self) -> None:
        """The block stays when this process ends."""
        self._block.share()

    def _part(self, start: int, stop: int | None) -> tuple[int, int]:
        end = self._size if stop is None else stop
        if not isinstance(start, int) or not isinstance(end, int):
            raise TypeError("the limits of a part must be int")
        if not 0 <= start <= end <= self._size:
            raise RuntimeError(f"bytes {start} to {end} are no part of {self._size}")
        return start, end

    @property
    def size(self) -> int:
        """Bytes, as asked for."""
        return self._size

    @property
    def id(self) -> int:
        """Number of the block, below 2**96; no other block of the pool has or had it."""
        generation, offset, _n_bytes = self._place
        return offset << 32 | generation

    @property
    def pool(self) -> MemoryPool:
        """The pool it is in."""
        return self._pool

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MemoryAlloc):
            return NotImplemented
        with self.get_memview() as mine, other.get_memview() as theirs:
            return mine == theirs

    def __hash__(self) -> int:
        with self.get_memview() as view:
            return hash_bytes(bytes(view))

    def __enter__(self) -> MemoryAlloc:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_ended():
            return
        if self._is_attached:
            self.detach()
        else:
            self.free()

    def __reduce__(self) -> tuple[Any, ...]:
        return MemoryAlloc.attach, (self.serialize(),)


class MemoryAllocations:
    """The blocks that a pool had at one moment. Made by ``MemoryPool.get_allocations``."""

    __module__ = _PUBLIC

    def __init__(self, blocks: Sequence[tuple[int, AllocType]]) -> None:
        self._allocations = blocks

    @property
    def num_allocs(self) -> int:
        """How many there are."""
        return len(self._allocations)

    def alloc_type(self, index: int) -> AllocType:
        """What one is for. RuntimeError: there is none of this index."""
        return self._at(index)[1]

    def alloc_id(self, index: int) -> int:
        """The ``id`` of one, for ``alloc_from_id``. RuntimeError: there is none of this index."""
        return self._at(index)[0]

    def _at(self, index: int) -> tuple[int, AllocType]:
        if not 0 <= index < len(self._allocations):
            raise RuntimeError(f"there is no allocation {index} of {len(self._allocations)}")
        return self._allocations[index]
