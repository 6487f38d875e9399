"""Pools of shared memory and blocks in them.

Works under ``dragon`` and under plain ``python3``. A pool made here is a POSIX shared-memory file
that only its user can open; it stays until ``destroy()``.
"""

from __future__ import annotations

import errno
import struct
from types import TracebackType
from typing import Any

import _dragon
from dragon.dtypes import DragonException

__all__ = [
    "DragonMemoryError",
    "DragonPoolAllocationNotAvailable",
    "DragonPoolAttachFail",
    "DragonPoolCreateFail",
    "DragonPoolError",
    "MemoryAlloc",
    "MemoryPool",
]

_UINT64 = struct.Struct("=Q")
_POOL = struct.Struct("=QQ")  # uid, host; then the name
_BLOCK = struct.Struct("=QQQ")  # generation, offset, size


class DragonMemoryError(DragonException):
    """An operation on pool memory failed.

    Args:
        lib_err: number of the error.
        msg: what happened.
    """

    def __init__(self, lib_err: int, msg: str) -> None:
        super().__init__(msg, lib_err)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.lib_err, self.msg)


class DragonPoolError(DragonMemoryError):
    """An operation on a pool failed."""


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
        size: bytes; rounded up to 64 KiB.
        fname: name of the pool, without "/".
        uid: number of the pool, 0 <= uid < 2**64.

    Raises:
        DragonPoolCreateFail: the name is taken or bad, the size is 0, or there is no memory.
        TypeError, OverflowError: size or uid is no such number.
    """

    def __init__(self, size: int, fname: str, uid: int) -> None:
        if not isinstance(fname, str):
            raise TypeError(f"fname must be str, not {type(fname).__name__}")
        for name, number in (("size", size), ("uid", uid)):
            if not isinstance(number, int):
                raise TypeError(f"{name} must be int, not {type(number).__name__}")
            if not 0 <= number < 2**64:
                raise OverflowError(f"{name} must be at least 0 and below 2**64, not {number}")
        try:
            self._pool: _dragon.Pool | None = _dragon.Pool.create(_file(fname), size, uid)
        except (OSError, MemoryError, ValueError) as error:
            text = f"cannot create pool {fname!r}: {error}"
            raise DragonPoolCreateFail(_number(error), text) from error
        self._name = fname
        self._uid = uid
        self._is_creator = True

    @classmethod
    def attach(cls, pool_ser: bytes) -> MemoryPool:
        """Use the pool that ``serialize()`` described, made by any process of this user.

        Raises:
            ValueError: pool_ser is empty.
            DragonPoolAttachFail: it describes no pool that exists.
        """
        if not pool_ser:
            raise ValueError("pool_ser is empty")
        name, uid = cls._parse(pool_ser)
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
    def _parse(pool_ser: bytes) -> tuple[str, int]:
        try:
            uid, _host = _POOL.unpack_from(pool_ser)
            return bytes(pool_ser[_POOL.size :]).decode(), uid
        except (struct.error, UnicodeDecodeError) as error:
            text = f"these bytes describe no pool: {error}"
            raise DragonPoolAttachFail(errno.EINVAL, text) from error

    def serialize(self) -> bytes:
        """A description of the pool for ``attach()``, in any process of this machine."""
        self._require()
        return _POOL.pack(self._uid, 0) + self._name.encode()

    def alloc(self, size: int) -> MemoryAlloc:
        """A block of size bytes, contents undefined. Does not wait.

        The block stays until somebody frees it: it can outlive the object and the process.

        Raises:
            DragonPoolAllocationNotAvailable: there is no such room now.
            TypeError, RuntimeError: size is no number of bytes.
        """
        if not isinstance(size, int):
            raise TypeError(f"size must be int, not {type(size).__name__}")
        if size < 0:
            raise RuntimeError(f"size must be at least 0, not {size}")
        pool = self._require()
        try:
            return MemoryAlloc(self, pool.alloc(size))
        except OverflowError as error:
            text = f"pool {self._name!r}: {size} bytes are more than its {self.size}"
            raise DragonPoolAllocationNotAvailable(errno.ENOMEM, text) from error
        except MemoryError as error:
            text = f"pool {self._name!r}: {error}"
            raise DragonPoolAllocationNotAvailable(errno.ENOMEM, text) from error

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
            raise DragonPoolError(errno.EINVAL, text)
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
    """A block of a pool. Made by ``MemoryPool.alloc`` or ``MemoryAlloc.attach``.

    Nothing frees the block but ``free()``: it may be shared with others.
    """

    def __init__(self, pool: MemoryPool, block: _dragon.Allocation) -> None:
        self._pool = pool
        self._block = block

    @classmethod
    def attach(cls, ser: bytes) -> MemoryAlloc:
        """Use the block that ``serialize()`` described.

        Raises:
            TypeError: ser is not bytes-like.
            DragonMemoryError: it describes no block that exists.
        """
        data = bytes(memoryview(ser))
        length = len(data) - _UINT64.size - _BLOCK.size
        if length < 0 or _UINT64.unpack_from(data)[0] != length:
            raise DragonMemoryError(errno.EINVAL, "these bytes describe no block")
        pool = MemoryPool.attach(data[_UINT64.size : _UINT64.size + length])
        generation, offset, size = _BLOCK.unpack_from(data, _UINT64.size + length)
        if generation >= 2**32:
            raise DragonMemoryError(errno.EINVAL, "these bytes describe no block")
        try:
            block = pool._require().find(offset, generation)
        except OSError as error:
            text = f"cannot attach to the block: {error}"
            raise DragonMemoryError(_number(error), text) from error
        if len(block) != size:
            raise DragonMemoryError(errno.EINVAL, "these bytes describe another block")
        return cls(pool, block)

    def serialize(self) -> bytes:
        """A description of the block for ``attach()``, in any process of this machine."""
        offset, generation = self._block.place()
        pool = self._pool.serialize()
        return _UINT64.pack(len(pool)) + pool + _BLOCK.pack(generation, offset, len(self._block))

    def get_memview(self) -> memoryview:
        """The block's memory: writable, ``size`` bytes. The block cannot be freed while it exists.

        Raises:
            DragonMemoryError: the block was freed or detached here.
        """
        try:
            return memoryview(self._block)
        except OSError as error:
            raise DragonMemoryError(_number(error), str(error)) from error

    def free(self) -> None:
        """Give the block back to the pool.

        Raises:
            DragonMemoryError: it was freed before, or views of it exist in this process.
        """
        try:
            self._block.free()
        except (OSError, BufferError) as error:
            raise DragonMemoryError(_number(error), str(error)) from error

    def detach(self) -> None:
        """Forget the block here without freeing it."""
        try:
            self._block.detach()
        except OSError as error:
            raise DragonMemoryError(_number(error), str(error)) from error

    @property
    def size(self) -> int:
        """Bytes, as asked for."""
        return len(self._block)

    @property
    def id(self) -> int:
        """Number of the block; no other block of the pool has or had it."""
        return self._block.place()[1]

    @property
    def pool(self) -> MemoryPool:
        """The pool it is in."""
        return self._pool

    def __reduce__(self) -> tuple[Any, ...]:
        return MemoryAlloc.attach, (self.serialize(),)


def _file(name: str) -> str:
    if not name or "/" in name or "\0" in name:
        raise ValueError(f"{name!r} is no name of a pool")
    return f"/D{name}M"


def _number(error: BaseException) -> int:
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    number = getattr(error, "errno", None)
    return number if isinstance(number, int) else errno.EINVAL
