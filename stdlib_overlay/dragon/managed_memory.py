"""Pools of shared memory and blocks in them.

Works under ``dragon`` and under plain ``python3``. A pool made here is a POSIX shared-memory file
that only its user can open; it stays until ``destroy()``.
"""

from __future__ import annotations

import enum
import errno
import struct
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import _dragon
from dragon.dtypes import DragonException
from dragon.rc import DragonError
from dragon.utils import hash as hash_bytes
from dragon.utils import host_id

__all__ = [
    "DRAGON_MEMORY_DEFAULT_TIMEOUT",
    "DragonMemoryError",
    "DragonMemoryTypeError",
    "DragonPoolAllocationNotAvailable",
    "DragonPoolAttachFail",
    "DragonPoolCreateFail",
    "DragonPoolError",
    "MemoryAlloc",
    "MemoryPool",
]

_UINT64 = struct.Struct("=Q")
_POOL = struct.Struct("=QQ")  # uid, host; then the name
_BLOCK = struct.Struct("=QQQQQ")  # generation, offset, bytes of the block, first, size

DRAGON_MEMORY_DEFAULT_TIMEOUT = 300

_DEFAULT_MIN_BLOCK_BYTES = 32
_MIN_BLOCKS = 5  # a pool for fewer of them is a mistake


class DragonMemoryError(DragonException):
    """An operation on pool memory failed.

    Args:
        lib_err: number of the error, of ``dragon.rc.DragonError``.
        msg: what happened.
    """

    lib_err: int

    def __init__(self, lib_err: int, msg: str) -> None:
        super().__init__(msg, lib_err)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.lib_err, self.msg)


class DragonMemoryTypeError(DragonMemoryError, TypeError):
    """What was given describes no block that exists."""


class DragonPoolError(DragonMemoryError):
    """An operation on a pool failed."""

    class Errors(enum.IntEnum):
        """Kinds of failure."""

        SUCCESS = 0
        FAIL = 1
        CREATE_FAIL = 2
        ATTACH_FAIL = 3


class DragonPoolCreateFail(DragonPoolError):
    """A pool could not be created."""


class DragonPoolAttachFail(DragonPoolError):
    """A pool could not be attached to."""


class DragonPoolAllocationNotAvailable(DragonPoolError):
    """The pool has no block of that size now."""


class MemoryPool:
    """Shared memory of a fixed size, from which any process of this user takes blocks.

    Usable from any thread and any process that has it, by pickle or by ``serialize()`` and
    ``attach()``. As a context manager it is destroyed at the end if this object created it.

    Args:
        size: bytes; rounded up to what the heap divides memory into.
        fname: name of the pool, without "/".
        uid: number of the pool, 0 <= uid < 2**64.
        pre_alloc_blocks: numbers of blocks by size; a hint, which this heap does not need.
        min_block_size: bytes that the smallest block takes up; None: what the heap likes.
        max_allocations: more blocks than these are refused, however small; None: no limit.
        gpu_memory: must be False.
        numa_node: must be negative.

    Raises:
        DragonPoolCreateFail: the name is taken or bad, the size too small, or there is no memory.
        TypeError, OverflowError: size, uid or another number is no such number.
        RuntimeError: pre_alloc_blocks is no list of numbers.
        NotImplementedError: gpu_memory or numa_node is asked for.
    """

    _pool: _dragon.Pool | None = None
    _name: str = ""
    _uid: int = 0
    _is_creator: bool = False

    def __init__(
        self,
        size: int,
        fname: str,
        uid: int,
        pre_alloc_blocks: Sequence[int] | None = None,
        min_block_size: int | None = None,
        max_allocations: int | None = None,
        gpu_memory: bool = False,
        numa_node: int = -1,
    ) -> None:
        if not isinstance(fname, str):
            raise TypeError(f"fname must be str, not {type(fname).__name__}")
        _check_number("size", size)
        _check_number("uid", uid)
        if max_allocations is not None:
            _check_number("max_allocations", max_allocations)
        _check_blocks(pre_alloc_blocks)
        _check_places(gpu_memory, numa_node)
        smallest = _DEFAULT_MIN_BLOCK_BYTES if min_block_size is None else min_block_size
        _check_number("min_block_size", smallest)
        if size < _MIN_BLOCKS * smallest:
            text = f"cannot create pool {fname!r}: {size} bytes are less than {_MIN_BLOCKS} blocks"
            raise DragonPoolCreateFail(DragonError.INVALID_ARGUMENT, text)
        try:
            self._pool = _dragon.Pool.create(
                _file(fname), size, uid, min_block_size or 0, max_allocations or 0
            )
        except (OSError, MemoryError, ValueError) as error:
            text = f"cannot create pool {fname!r}: {error}"
            raise DragonPoolCreateFail(_number(error), text) from error
        self._name = fname
        self._uid = uid
        self._is_creator = True

    @classmethod
    def empty_pool(cls) -> MemoryPool:
        """An object without a pool: every operation on it raises DragonPoolError."""
        return cls.__new__(cls)

    @classmethod
    def serialized_uid_fname(cls, pool_ser: bytes) -> tuple[int, str]:
        """Number and file name of a described pool, without attaching to it.

        Raises:
            ValueError: pool_ser is empty.
            DragonPoolAttachFail: it describes no pool.
        """
        if not pool_ser:
            raise ValueError("pool_ser is empty")
        name, uid, _host = cls._parse(pool_ser)
        return uid, f"/D{name}M"

    @classmethod
    def attach(cls, pool_ser: bytes) -> MemoryPool:
        """Use the pool that ``serialize()`` described, made by any process of this user.

        Raises:
            ValueError: pool_ser is empty.
            DragonPoolAttachFail: it describes no pool that exists.
        """
        if not pool_ser:
            raise ValueError("pool_ser is empty")
        name, uid, host = cls._parse(pool_ser)
        if host != host_id():
            text = f"pool {name!r} is on another machine"
            raise DragonPoolAttachFail(DragonError.MEMORY_OPERATION_ATTEMPT_ON_NONLOCAL_POOL, text)
        self = cls.__new__(cls)
        try:
            self._pool = _dragon.Pool.open(_file(name), uid)
        except (OSError, MemoryError, ValueError) as error:
            text = f"cannot attach to pool {name!r}: {error}"
            raise DragonPoolAttachFail(_number(error), text) from error
        self._name = name
        self._uid = uid
        self._is_creator = False
        return self

    @staticmethod
    def _parse(pool_ser: bytes) -> tuple[str, int, int]:
        try:
            uid, host = _POOL.unpack_from(pool_ser)
            return bytes(pool_ser[_POOL.size :]).decode(), uid, host
        except (struct.error, UnicodeDecodeError) as error:
            text = f"these bytes describe no pool: {error}"
            raise DragonPoolAttachFail(DragonError.INVALID_ARGUMENT, text) from error

    def serialize(self) -> bytes:
        """A description of the pool for ``attach()``, in any process of this machine."""
        self._require()
        return _POOL.pack(self._uid, host_id()) + self._name.encode()

    def alloc(self, size: int) -> MemoryAlloc:
        """A block of size bytes, contents undefined. Does not wait.

        The block stays until somebody frees it: it can outlive the object and the process.

        Raises:
            DragonPoolAllocationNotAvailable: there is no such room now.
            DragonPoolError: max_allocations is reached, or the pool is gone.
            TypeError, RuntimeError: size is no number of bytes.
        """
        if not isinstance(size, int):
            raise TypeError(f"size must be int, not {type(size).__name__}")
        if size < 0:
            raise RuntimeError(f"size must be at least 0, not {size}")
        pool = self._require()
        self._check_limit(pool)
        try:
            return MemoryAlloc(self, pool.alloc(size), 0, size)
        except (MemoryError, OverflowError) as error:
            raise self._no_room(pool, size, error) from error

    def _check_limit(self, pool: _dragon.Pool) -> None:
        limit = pool.max_blocks()
        if limit and pool.statistics()[3] >= limit:
            text = f"pool {self._name!r} has its {limit} allocations"
            raise DragonPoolError(DragonError.MEMORY_POOL_FULL, text)

    def _no_room(self, pool: _dragon.Pool, size: int, error: Exception) -> DragonPoolError:
        text = f"pool {self._name!r}: {error}"
        if isinstance(error, OverflowError):
            text = f"pool {self._name!r}: {size} bytes are more than its {pool.statistics()[0]}"
        code = DragonError.DYNHEAP_REQUESTED_SIZE_NOT_AVAILABLE
        return DragonPoolAllocationNotAvailable(code, text)

    def alloc_blocking(self, size: int, timeout: float | None = None) -> MemoryAlloc:
        """A block of size bytes, contents undefined; waits until there is room.

        Args:
            size: bytes, at least 1.
            timeout: seconds, at least 0; None: for ever.

        Raises:
            TimeoutError: there was no room in time.
            DragonPoolError: timeout is 0 and there is no room now; no wait can make room for
                this size; max_allocations is reached; the pool is gone.
            TypeError, RuntimeError, ValueError: size or timeout is no such number.
        """
        if isinstance(size, int) and size < 1:
            raise RuntimeError(f"size must be at least 1, not {size}")
        if _check_timeout(timeout) == 0:
            return self.alloc(size)
        if not isinstance(size, int):
            raise TypeError(f"size must be int, not {type(size).__name__}")
        pool = self._require()
        self._check_limit(pool)
        try:
            block = pool.alloc_wait(size, timeout)
        except (MemoryError, OverflowError) as error:
            raise self._no_room(pool, size, error) from error
        if block is None:
            raise TimeoutError(f"pool {self._name!r}: no {size} bytes in {timeout} s")
        return MemoryAlloc(self, block, 0, size)

    def alloc_from_bytes(self, source: bytes) -> MemoryAlloc:
        """A block that holds a copy of the bytes. Does not wait.

        Raises:
            DragonPoolAllocationNotAvailable: there is no room for them now.
        """
        with memoryview(source) as view:
            block = self.alloc(view.nbytes)
            with block.get_memview() as memory:
                memory[:] = view.cast("B")
        return block

    def alloc_from_id(self, id: int) -> MemoryAlloc:
        """The block that has this ``id``.

        Raises:
            DragonPoolError: there is none (any more).
        """
        try:
            block = self._require().find(id >> 32, id & 0xFFFFFFFF)
        except (OSError, OverflowError, TypeError) as error:
            text = f"pool {self._name!r} has no allocation {id}"
            raise DragonPoolError(DragonError.NOT_FOUND, text) from error
        return MemoryAlloc(self, block, 0, len(block), is_attached=True)

    def allocation_exists(self, id: int) -> bool:
        """True if a block has this ``id``."""
        self._require()
        try:
            self.alloc_from_id(id).detach()
        except DragonPoolError:
            return False
        return True

    def destroy(self) -> None:
        """Remove the pool. Processes that have it open keep its memory until they end.

        Raises:
            DragonPoolError: it is gone already.
        """
        self._require()
        self._pool = None
        try:
            _dragon.Pool.unlink(_file(self._name))
        except OSError as error:
            text = f"cannot destroy pool {self._name!r}: {error}"
            raise DragonPoolError(_number(error), text) from error

    def detach(self) -> None:
        """Stop using the pool in this process. Others keep it."""
        self._require()
        self._pool = None

    def _require(self) -> _dragon.Pool:
        if self._pool is None:
            text = f"pool {self._name!r} was destroyed or detached here"
            raise DragonPoolError(DragonError.INVALID_STATE, text)
        return self._pool

    @property
    def muid(self) -> int:
        """The pool's number."""
        return self._uid

    @property
    def size(self) -> int:
        """Bytes that blocks can take up."""
        return self._require().statistics()[0]

    @property
    def free_space(self) -> int:
        """Bytes that no block takes up; exact at this moment."""
        return self._require().statistics()[2]

    @property
    def utilization(self) -> float:
        """Percent of ``size`` that blocks take up, 0 to 100."""
        size, _committed, free, _n_blocks = self._require().statistics()
        return 100.0 * (size - free) / size

    @property
    def current_allocations(self) -> int:
        """Number of blocks; exact at this moment."""
        return self._require().statistics()[3]

    @property
    def max_allocations(self) -> int | None:
        """The most blocks that there may be; None: no limit."""
        return self._require().max_blocks() or None

    @property
    def is_local(self) -> bool:
        """True: the pool is on this machine."""
        return True

    def __enter__(self) -> MemoryPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            if self._is_creator:
                self.destroy()
            else:
                self.detach()

    def __reduce__(self) -> tuple[Any, ...]:
        return MemoryPool.attach, (self.serialize(),)


class MemoryAlloc:
    """A block of a pool, or a part of one. Made by ``MemoryPool.alloc`` and ``MemoryAlloc.attach``.

    Nothing frees the block but ``free()``: it may be shared with others. Two are equal if their
    bytes are.
    """

    def __init__(
        self,
        pool: MemoryPool,
        block: _dragon.Allocation,
        first: int,
        size: int,
        is_attached: bool = False,
    ) -> None:
        self._pool = pool
        self._block = block
        self._first = first
        self._size = size
        self._is_attached = is_attached
        self._is_detached = False

    @classmethod
    def attach(cls, ser: bytes) -> MemoryAlloc:
        """Use the block that ``serialize()`` described.

        Raises:
            DragonMemoryTypeError: it describes no block that exists.
            TypeError: ser is not bytes-like.
        """
        data = bytes(memoryview(ser))
        length = len(data) - _UINT64.size - _BLOCK.size
        if length <= 0 or _UINT64.unpack_from(data)[0] != length:
            raise _no_block()
        generation, offset, n_bytes, first, size = _BLOCK.unpack_from(data, _UINT64.size + length)
        if generation >= 2**32 or first + size > n_bytes:
            raise _no_block()
        try:
            pool = MemoryPool.attach(data[_UINT64.size : _UINT64.size + length])
            block = pool._require().find(offset, generation)
        except (OSError, DragonPoolError) as error:
            text = f"cannot attach to the block: {error}"
            raise DragonMemoryTypeError(_number(error), text) from error
        if len(block) != n_bytes:
            raise _no_block()
        return cls(pool, block, first, size, is_attached=True)

    def serialize(self) -> bytes:
        """A description of the block for ``attach()``, in any process of this machine."""
        offset, generation = self._block.place()
        pool = self._pool.serialize()
        place = _BLOCK.pack(generation, offset, len(self._block), self._first, self._size)
        return _UINT64.pack(len(pool)) + pool + place

    def get_memview(self) -> memoryview:
        """The block's memory: writable, ``size`` bytes. It stays valid as long as the view exists.

        Raises:
            DragonMemoryError: the block was freed or detached here.
        """
        view = memoryview(self._require())
        return view[self._first : self._first + self._size]

    def free(self) -> None:
        """Give the block back to the pool; while views of it exist here, with the last of them.

        Raises:
            DragonMemoryError: it was freed or detached before.
        """
        try:
            self._require().free()
        except OSError as error:
            raise DragonMemoryError(_number(error), str(error)) from error

    def detach(self) -> None:
        """Forget the block here without freeing it.

        Raises:
            DragonMemoryError: it was freed or detached before.
            RuntimeError: it was allocated here: nobody else may know of it.
        """
        self._require()
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
        first, last = self._part(offset, None if length is None else offset + length)
        return MemoryAlloc(
            self._pool, self._block, self._first + first, last - first, is_attached=True
        )

    def copy(self, pool: MemoryPool, timeout: float | None = None) -> MemoryAlloc:
        """A copy of the bytes in another pool, or in the same; waits for room there.

        Raises:
            TimeoutError: there was no room in time.
            DragonMemoryError: the block was freed, or no wait can make room.
        """
        with self.get_memview() as source:
            block = pool.alloc_blocking(self._size, timeout) if self._size else pool.alloc(0)
            with block.get_memview() as target:
                target[:] = source
        return block

    def clear(self, start: int = 0, stop: int | None = None) -> None:
        """Set the bytes from start to before stop to zero; None: to the end.

        Raises:
            TypeError, RuntimeError: they name no part of the block.
            DragonMemoryError: the block was freed.
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
        return (self._pool.muid, self.id) == (other._pool.muid, other.id)

    def _require(self) -> _dragon.Allocation:
        if self._is_detached or self._block.is_gone():
            text = "MemoryAlloc: the block was freed or detached"
            raise DragonMemoryError(DragonError.INVALID_STATE, text)
        return self._block

    def _can_be_given(self) -> bool:
        """True if nobody here would still look at the memory after it is somebody else's."""
        return not self._is_detached and self._first == 0 and self._block.n_views() == 0

    def _given(self) -> None:
        """The block is somebody else's now."""
        self._block.detach()

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
        offset, generation = self._block.place()
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

    def __reduce__(self) -> tuple[Any, ...]:
        return MemoryAlloc.attach, (self.serialize(),)


def _check_number(name: str, number: int) -> None:
    if not isinstance(number, int):
        raise TypeError(f"{name} must be int, not {type(number).__name__}")
    if not 0 <= number < 2**64:
        raise OverflowError(f"{name} must be at least 0 and below 2**64, not {number}")


def _check_blocks(pre_alloc_blocks: Sequence[int] | None) -> None:
    if pre_alloc_blocks is None:
        return
    if not isinstance(pre_alloc_blocks, list) or not all(
        isinstance(n, int) and n >= 0 for n in pre_alloc_blocks
    ):
        raise RuntimeError("pre_alloc_blocks must be a list of numbers of blocks")


def _check_places(gpu_memory: bool, numa_node: int) -> None:
    if gpu_memory:
        raise NotImplementedError("pools in GPU memory need the GPU's runtime library")
    if numa_node >= 0:
        raise NotImplementedError("pools on chosen NUMA nodes need libnuma")


def _check_timeout(timeout: float | None) -> float:
    if timeout is None:
        return float("inf")
    if not isinstance(timeout, int | float) or not timeout >= 0:
        raise ValueError(f"timeout must be None or at least 0, not {timeout!r}")
    return timeout


def _no_block() -> DragonMemoryTypeError:
    return DragonMemoryTypeError(DragonError.INVALID_ARGUMENT, "these bytes describe no block")


def _file(name: str) -> str:
    if not name or "/" in name or "\0" in name:
        raise ValueError(f"{name!r} is no name of a pool")
    return f"/D{name}M"


def _number(error: BaseException) -> int:
    """The error number that says best what an exception of the runtime means."""
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
