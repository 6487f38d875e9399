"""How pools and blocks are described in bytes, and how a description leads to a pool.

A pool: its number, its machine, a mark, and then the name of its file, or for the default pool of
a node the node's number. A block: the length of its pool's description, that, and its place.
"""

from __future__ import annotations

import struct
from typing import NamedTuple
from weakref import WeakValueDictionary

import _dragon
from dragon._memory_types import DragonMemoryTypeError, DragonPoolAttachFail, number_of
from dragon.rc import DragonError
from dragon.utils import host_id

_UINT64 = struct.Struct("=Q")
_HEAD = struct.Struct("=QQ4s")  # number, machine, mark
_PLACE = struct.Struct("=IQQQQ")  # generation, offset, bytes of the block, first, size
_NAMED = b"DPN1"
_DEFAULT = b"DPD1"

# The pools that are open here, so that a process maps each once, however often it attaches.
_open_pools: WeakValueDictionary[tuple[str, int], _dragon.Pool] = WeakValueDictionary()


class PoolName(NamedTuple):
    """What a description of a pool says."""

    uid: int
    host: int
    name: str = ""  # of an unmanaged pool
    node: int = 0  # of a node's default pool

    def __str__(self) -> str:
        if self.name:
            return f"pool {self.name!r}"
        return f"the default pool of node {self.node:#x}" if self.node else "the empty MemoryPool"

    def pack(self) -> bytes:
        """Describe the pool in bytes."""
        if self.name:
            return _HEAD.pack(self.uid, self.host, _NAMED) + self.name.encode()
        return _HEAD.pack(self.uid, self.host, _DEFAULT) + _UINT64.pack(self.node)

    @classmethod
    def parse(cls, pool_ser: bytes) -> PoolName:
        """Read a description.

        Raises:
            TypeError: it is not bytes-like.
            ValueError: it is empty.
            DragonPoolAttachFail: it is none.
        """
        data = bytes(memoryview(pool_ser))
        if not data:
            raise ValueError("pool_ser is empty")
        try:
            uid, host, mark = _HEAD.unpack_from(data)
            rest = data[_HEAD.size :]
            if mark == _NAMED:
                name = rest.decode()
                file_of(name)
                return cls(uid, host, name=name)
            if mark == _DEFAULT:
                return cls(uid, host, node=_UINT64.unpack(rest)[0])
        except (struct.error, ValueError) as error:
            raise no_pool(data) from error
        raise no_pool(data)


class BlockName(NamedTuple):
    """What a description of a block says."""

    pool_ser: bytes
    generation: int
    offset: int
    n_bytes: int  # of the block; 0 if there is none, because nothing was asked for
    first: int
    size: int

    def pack(self) -> bytes:
        """Describe the block in bytes."""
        return _UINT64.pack(len(self.pool_ser)) + self.pool_ser + _PLACE.pack(*self[1:])

    @classmethod
    def parse(cls, ser: bytes) -> BlockName:
        """Read a description. TypeError: not bytes-like. DragonMemoryTypeError: it is none."""
        data = bytes(memoryview(ser))
        length = len(data) - _UINT64.size - _PLACE.size
        if length <= 0 or _UINT64.unpack_from(data)[0] != length:
            raise no_block()
        end = _UINT64.size + length
        self = cls(data[_UINT64.size : end], *_PLACE.unpack_from(data, end))
        if self.first + self.size > self.n_bytes:
            raise no_block()
        return self


def no_pool(pool_ser: bytes) -> DragonPoolAttachFail:
    """Make the error for bytes that describe no pool."""
    text = f"these {len(pool_ser)} bytes describe no pool: it takes what serialize() returned"
    return DragonPoolAttachFail(DragonError.INVALID_ARGUMENT, text)


def no_block() -> DragonMemoryTypeError:
    """Make the error for bytes that describe no block."""
    return DragonMemoryTypeError(DragonError.INVALID_ARGUMENT, "these bytes describe no block")


def file_of(name: str) -> str:
    """Return the shared-memory file of an unmanaged pool. ValueError: such names cannot be."""
    if not name or "/" in name or "\0" in name:
        raise ValueError("a pool's name has at least one character, none of them '/' or zero")
    return f"/D{name}M"


def remember(name: PoolName, pool: _dragon.Pool) -> None:
    """Note a pool that was made here, for `find_pool`."""
    _open_pools[name.name, name.uid] = pool


def find_pool(name: PoolName) -> _dragon.Pool | None:
    """Open a pool, or use it if it is open here.

    Returns:
        The pool; None if it is not of this machine, or its place has a pool of another number.

    Raises:
        DragonPoolAttachFail: it does not exist (any more), or is not for this process.
    """
    if name.host != host_id():
        return None
    try:
        pool = _find_named(name) if name.name else _find_default(name)
    except (OSError, MemoryError, RuntimeError) as error:
        text = f"cannot attach to {name}: {error}"
        raise DragonPoolAttachFail(number_of(error), text) from error
    return pool if pool.uid() == name.uid else None


def _find_named(name: PoolName) -> _dragon.Pool:
    file = file_of(name.name)
    pool = _open_pools.get((name.name, name.uid))
    if pool is None or not pool.has_name(file):  # another may have the name now
        pool = _dragon.Pool.open(file)
        _open_pools[name.name, pool.uid()] = pool
    return pool


def _find_default(name: PoolName) -> _dragon.Pool:
    pool = _dragon.Pool.default()
    if pool.uid() != name.node:
        raise _dragon.StaleHandle("it belongs to another program")
    return pool
