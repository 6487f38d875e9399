"""Pools of shared memory and blocks in them.

Works under ``dragon`` and under plain ``python3``. A pool made here is unmanaged: a POSIX
shared-memory file that only its user can open. It stays until ``destroy()``, also when the process
that made it is killed; then ``rm /dev/shm/D<fname>M`` removes it. Under ``dragon`` the node has a
managed pool as well, which goes with its last process (``MemoryPool.attach_default``).

A process may be killed at any moment: pool and blocks stay whole, and the blocks that it had
allocated stay allocated. The memory of messages that it had in its hands comes back: in a named
pool when another process asks for facts, joins, or finds the pool full.

``alloc_blocking`` and ``MemoryAlloc.copy`` wait for room, as long as their time-outs say, in
seconds, without the GIL, and let signal handlers run. ``attach_default`` waits until the node is
open. Nothing else here waits.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import _dragon
from dragon._memory_alloc import MemoryAlloc, MemoryAllocations
from dragon._memory_names import PoolName, file_of, find_pool, remember
from dragon._memory_types import (
    AllocType,
    DragonMemoryError,
    DragonMemoryTypeError,
    DragonPoolAllocationNotAvailable,
    DragonPoolAttachFail,
    DragonPoolCreateFail,
    DragonPoolDetachFail,
    DragonPoolError,
    PoolType,
    number_of,
)
from dragon.rc import DragonError
from dragon.utils import host_id

if TYPE_CHECKING:
    from multiprocessing.util import Finalize
    from types import TracebackType

__all__ = [
    "DRAGON_MEMORY_DEFAULT_TIMEOUT",
    "AllocType",
    "DragonMemoryError",
    "DragonMemoryTypeError",
    "DragonPoolAllocationNotAvailable",
    "DragonPoolAttachFail",
    "DragonPoolCreateFail",
    "DragonPoolDetachFail",
    "DragonPoolError",
    "MemoryAlloc",
    "MemoryAllocations",
    "MemoryPool",
    "PoolType",
]

DRAGON_MEMORY_DEFAULT_TIMEOUT = 300  # seconds

_DEFAULT_MIN_BLOCK_BYTES = 32
_MIN_BLOCKS = 5  # a pool for fewer of them is a mistake
_FIRST_LOCAL_UID = 2**59  # of make_process_local; the next 2**58 are drawn from

# All objects of this process, by their identity, for finding numbers that are used.
_objects: WeakValueDictionary[int, MemoryPool] = WeakValueDictionary()


class MemoryPool:
    """Shared memory of a fixed size, from which any process of this user takes blocks.

    Usable from any thread and any process that has it, by pickle or by ``serialize()`` and
    ``attach()``. Each object of a pool is detached from on its own; a process maps a pool once,
    however many objects it has. As a context manager it is destroyed at the end if this object
    created it, and detached from otherwise.

    A pool has a file, ``/dev/shm/D<fname>M``, until somebody destroys it: one that nobody has
    destroyed stays there, with its blocks, when the programs that used it have ended, however they
    did. ``make_process_local`` makes one that goes with its process.

    A pool of another machine can be attached to, described and detached from; everything else
    raises DragonPoolError.

    Args:
        size: bytes, enough for five of the smallest blocks (160, if min_block_size is None);
            rounded up to whole chunks of 4 KiB, from 64 MiB on of 64 KiB. The system gives memory
            when blocks are allocated, not before.
        fname: name of the pool, at least one character, without "/"; the file system takes up to
            253 bytes.
        uid: number of the pool, 0 <= uid < 2**64; not used twice at a time by a process.
        pre_alloc_blocks: numbers of blocks by size; a hint, which this heap does not need.
        min_block_size: bytes that the smallest block takes up; None: 64.
        max_allocations: more blocks than these are refused, however small; None: no limit.
        gpu_memory: must be False.
        numa_node: must be negative.

    Raises:
        DragonPoolCreateFail: name or number is used or bad, the size too small, or there is no
            memory.
        TypeError, OverflowError: size, uid or another number is no such number.
        RuntimeError: pre_alloc_blocks is no list of numbers.
        NotImplementedError: gpu_memory or numa_node is asked for.
    """

    _pool: _dragon.Pool | None = None
    _name: PoolName = PoolName(0, 0)
    _is_creator: bool = False
    _is_remote: bool = False
    _serialized: bytes | None = None
    _at_exit: Finalize | None = None

    def __init__(
        self,
        size: int,
        fname: str,
        uid: int,
        pre_alloc_blocks: list[int] | None = None,
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
            least = f"{_MIN_BLOCKS} blocks of {smallest} bytes"
            text = f"cannot create pool {fname!r}: {size} bytes are less than {least}"
            raise DragonPoolCreateFail(DragonError.INVALID_ARGUMENT, text)
        if _is_used(uid):
            text = f"cannot create pool {fname!r}: this process has a pool of number {uid}"
            raise DragonPoolCreateFail(DragonError.INVALID_ARGUMENT, text)
        try:
            pool = _dragon.Pool.create(
                file_of(fname), size, uid, min_block_size or 0, max_allocations or 0
            )
        except (OSError, MemoryError, ValueError) as error:
            text = f"cannot create pool {fname!r}: {error}"
            if isinstance(error, FileExistsError):
                text += ": a pool has that name, or was left by a program that did not destroy it"
            raise DragonPoolCreateFail(number_of(error), text) from error
        self._set(PoolName(uid, host_id(), name=fname), pool)
        self._is_creator = True
        remember(self._name, pool)

    def _set(self, name: PoolName, pool: _dragon.Pool | None) -> None:
        self._name = name
        self._pool = pool
        self._is_remote = pool is None
        self._is_creator = False
        self._serialized = name.pack()
        _objects[id(self)] = self

    # ---- other ways to get one ----

    @classmethod
    def empty_pool(cls) -> MemoryPool:
        """An object without a pool: every operation on it raises DragonPoolError."""
        return cls.__new__(cls)

    @classmethod
    def serialized_uid_fname(cls, pool_ser: bytes) -> tuple[int, str]:
        """Number and file name of a described pool, without attaching to it.

        The file name is empty for the default pool of a node, which has no file.

        Raises:
            TypeError: pool_ser is not bytes-like.
            ValueError: it is empty.
            DragonPoolAttachFail: it describes no pool.
        """
        name = PoolName.parse(pool_ser)
        return name.uid, file_of(name.name) if name.name else ""

    @classmethod
    def attach(
        cls, pool_ser: bytes, *, existing_memory_pool: MemoryPool | None = None
    ) -> MemoryPool:
        """Use the pool that ``serialize()`` described, made by any process of this user.

        A pool of another machine, or of another number than the pool that has its name here, is
        attached to as non-local. Does not wait.

        Args:
            pool_ser: the description.
            existing_memory_pool: the object to use for it, such as one of ``empty_pool()``; None:
                a new one.

        Raises:
            TypeError: pool_ser is not bytes-like.
            ValueError: it is empty, or existing_memory_pool has a pool.
            DragonPoolAttachFail: it describes no pool that exists.
        """
        self = cls.empty_pool() if existing_memory_pool is None else existing_memory_pool
        if self._is_usable():
            raise ValueError(f"existing_memory_pool has {self._name}")
        name = PoolName.parse(pool_ser)
        self._set(name, find_pool(name))
        return self

    @classmethod
    def attach_default(cls) -> MemoryPool:
        """Use the default pool of the node that this process belongs to.

        It has no file and goes with the node; other processes of the node, and only they, can
        attach to it. Waits until the node is open.

        Raises:
            DragonPoolAttachFail: the process has no dragon runtime.
        """
        try:
            pool = _dragon.Pool.default()
        except RuntimeError as error:
            raise DragonPoolAttachFail(DragonError.NOT_FOUND, str(error)) from error
        self = cls.empty_pool()
        self._set(PoolName(pool.uid(), host_id(), node=pool.uid()), pool)
        return self

    @classmethod
    def make_process_local(
        cls,
        name: str,
        size: int,
        min_block_size: int | None = None,
        pre_allocs: list[int] | None = None,
        timeout: float | None = None,
        gpu_memory: bool = False,
    ) -> MemoryPool:
        """A pool that is destroyed when this process ends, unless it is killed.

        Others can attach to it until then. Works without a runtime, too. Does not wait.

        Args:
            name: as fname of ``MemoryPool``.
            size: bytes.
            min_block_size: as of ``MemoryPool``.
            pre_allocs: as pre_alloc_blocks of ``MemoryPool``.
            timeout: seconds, at least 0; nothing here takes long.
            gpu_memory: must be False.

        Raises:
            ValueError: timeout is negative or no number.
            As ``MemoryPool``.
        """
        from multiprocessing.util import Finalize  # begins to open the node

        _check_timeout(timeout)
        uid = _FIRST_LOCAL_UID + random.SystemRandom().getrandbits(58)
        self = cls(size, name, uid, pre_allocs, min_block_size, gpu_memory=gpu_memory)
        # Priority -1: after the children that multiprocessing waits for.
        self._at_exit = Finalize(None, _remove, (self._require(), file_of(name)), exitpriority=-1)
        return self

    # ---- blocks ----

    def alloc(self, size: int, alloc_type: AllocType | None = None) -> MemoryAlloc:
        """A block of size bytes, contents undefined. Does not wait.

        The block stays until somebody frees it: it can outlive the object and the process. A block
        of 0 bytes takes up nothing.

        Args:
            size: bytes.
            alloc_type: what ``get_allocations`` is to say of it; None: DATA.

        Raises:
            DragonPoolAllocationNotAvailable: there is no such room now.
            DragonPoolError: max_allocations is reached, or the pool is gone or not local.
            DragonMemoryError: alloc_type is no AllocType.
            TypeError, RuntimeError: size is no number of bytes.
        """
        if not isinstance(size, int):
            raise TypeError(f"size must be int, not {type(size).__name__}")
        if size < 0:
            raise RuntimeError(f"size must be at least 0, not {size}")
        return self._alloc(size, _label(alloc_type))

    def _alloc(self, size: int, label: int) -> MemoryAlloc:
        pool = self._require()
        if size == 0:
            return MemoryAlloc(self, None, 0, 0)
        try:
            return MemoryAlloc(self, pool.alloc(size, label), 0, size)
        except (MemoryError, OverflowError) as error:
            raise self._no_room(pool, size, error) from error

    def _no_room(self, pool: _dragon.Pool, size: int, error: Exception) -> DragonPoolError:
        numbers = pool.statistics()
        if 0 < numbers["max_blocks"] <= numbers["n_blocks"]:
            text = f"{self._name} has its {numbers['max_blocks']} allocations"
            return DragonPoolError(DragonError.MEMORY_POOL_FULL, text)
        text = f"{self._name}: {error}"
        if isinstance(error, OverflowError):
            text = f"{self._name}: {size} bytes are more than its {numbers['size_bytes']}"
        code = DragonError.DYNHEAP_REQUESTED_SIZE_NOT_AVAILABLE
        return DragonPoolAllocationNotAvailable(code, text)

    def alloc_blocking(
        self, size: int, timeout: float | None = None, alloc_type: AllocType | None = None
    ) -> MemoryAlloc:
        """A block of size bytes, contents undefined; waits until there is room.

        Args:
            size: bytes, at least 1.
            timeout: seconds, at least 0; None: for ever.
            alloc_type: what ``get_allocations`` is to say of it; None: DATA.

        Raises:
            TimeoutError: there was no room in time.
            DragonPoolError: timeout is 0 and there is no room now; no wait can make room for
                this size; max_allocations is reached; the pool is gone or not local.
            DragonMemoryError: alloc_type is no AllocType.
            TypeError, RuntimeError, ValueError: size or timeout is no such number.
        """
        if isinstance(size, int) and size < 1:
            raise RuntimeError(f"size must be at least 1, not {size}")
        if _check_timeout(timeout) == 0:
            return self.alloc(size, alloc_type)
        if not isinstance(size, int):
            raise TypeError(f"size must be int, not {type(size).__name__}")
        return self._alloc_blocking(size, timeout, _label(alloc_type))

    def _alloc_blocking(self, size: int, timeout: float | None, label: int) -> MemoryAlloc:
        pool = self._require()
        try:
            block = pool.alloc_wait(size, timeout, label)
        except (MemoryError, OverflowError) as error:
            raise self._no_room(pool, size, error) from error
        if block is None:
            raise TimeoutError(f"{self._name}: no {size} bytes in {timeout} s")
        return MemoryAlloc(self, block, 0, size)

    def _alloc_message(self, size: int, timeout: float | None) -> MemoryAlloc:
        """Memory for a message: as alloc_blocking, but it is freed if this process is killed.

        Args:
            size: bytes, at least 0.
            timeout: seconds; None: for ever; 0: try once.
        """
        if _check_timeout(timeout) == 0 or size == 0:
            return self._alloc(size, _dragon.ALLOC_HELD)
        return self._alloc_blocking(size, timeout, _dragon.ALLOC_HELD)

    def alloc_from_bytes(self, source: bytes) -> MemoryAlloc:
        """A block that holds a copy of the bytes. Does not wait.

        Args:
            source (bytes-like): C-contiguous.

        Raises:
            DragonPoolAllocationNotAvailable: there is no room for them now.
            DragonPoolError: max_allocations is reached, or the pool is gone or not local.
            TypeError: source is not bytes-like, or not contiguous.
        """
        with memoryview(source) as view, view.cast("B") as data:
            block = self.alloc(data.nbytes)
            with block.get_memview() as memory:
                memory[:] = data
        return block

    def alloc_from_id(self, id: int) -> MemoryAlloc:
        """The block that has this ``id``, which stays until somebody frees it, whoever made it.

        Raises:
            DragonPoolError: there is none (any more), or the pool is gone or not local.
        """
        pool = self._require()
        try:
            block = pool.find(id >> 32, id & 0xFFFFFFFF)
        except (OSError, OverflowError, TypeError) as error:
            text = f"{self._name} has no allocation {id}"
            raise DragonPoolError(DragonError.NOT_FOUND, text) from error
        return MemoryAlloc(self, block, 0, len(block), is_attached=True)

    def allocation_exists(self, id: int) -> bool:
        """True if a block has this ``id``. DragonPoolError: the pool is gone or not local."""
        try:
            return self._require().has(id >> 32, id & 0xFFFFFFFF)
        except (OverflowError, TypeError):
            return False

    def get_allocations(self, alloc_type: AllocType | None = None) -> MemoryAllocations:
        """The blocks that there are now, all or those of one type, as they lie in memory.

        Exact for blocks that are there all the time. Costs a look at each block.

        Raises:
            DragonPoolError: the pool is gone or not local.
            DragonMemoryError: alloc_type is no AllocType.
        """
        wanted = set(AllocType) if alloc_type is None else {_label(alloc_type)}
        return MemoryAllocations(
            [
                (offset << 32 | generation, AllocType(label))
                for offset, generation, label in self._require().blocks()
                if label in wanted
            ]
        )

    # ---- lifetime ----

    def serialize(self) -> bytes:
        """A description of the pool for ``attach()``, in any process of this user and machine.

        Raises:
            DragonPoolError: the pool was destroyed or detached here, and not described for later.
        """
        if self._serialized is None:
            raise self._gone()
        return self._serialized

    def _words(self) -> bytes:
        """The description, also of a pool that is gone."""
        return self._name.pack()

    def destroy(self) -> None:
        """Remove the pool. Processes that have it open keep its memory until they end.

        Raises:
            DragonPoolError: it is gone already, not local, or was not created by this object.
        """
        pool = self._require()
        if not self._is_creator:
            text = f"{self._name} was not created by this object"
            raise DragonPoolError(DragonError.DYNHEAP_DESTROY_BY_NON_OWNER, text)
        self._end()
        if self._at_exit is not None:
            self._at_exit.cancel()
        if not _remove(pool, file_of(self._name.name)):
            text = f"cannot destroy {self._name}: somebody removed its file"
            raise DragonPoolError(DragonError.NOT_FOUND, text)

    def detach(self, serialize: bool = False) -> None:
        """Stop using the pool through this object. Others keep it, and so do blocks and views.

        Args:
            serialize: keep a description, so that ``serialize()`` still works.

        Raises:
            DragonPoolDetachFail: it was destroyed or detached here before.
        """
        if not self._is_usable():
            raise DragonPoolDetachFail(DragonError.INVALID_STATE, self._gone().msg)
        kept = self._serialized if serialize else None
        self._end()
        self._serialized = kept

    def _end(self) -> None:
        self._pool = None
        self._is_remote = False
        self._serialized = None

    def register(self, timeout: float | None = None) -> None:
        """Hand the pool over to the runtime, to be destroyed with it. Not possible here.

        Args:
            timeout: seconds, at least 0; nothing waits.

        Raises:
            DragonPoolError: always: nodes keep no list of unmanaged pools. A pool that goes with
                the node is its default pool; one that goes with the process,
                ``make_process_local``.
            ValueError: timeout is negative or no number.
        """
        self._cannot_register(timeout)

    def deregister(self, timeout: float | None = None) -> None:
        """Take the pool back from the runtime. Not possible, as ``register`` is not.

        Args:
            timeout: seconds, at least 0; nothing waits.

        Raises:
            As ``register``.
        """
        self._cannot_register(timeout)

    def _cannot_register(self, timeout: float | None) -> None:
        _check_timeout(timeout)
        self._require()
        text = f"{self._name}: nodes keep no list of unmanaged pools, whose lifetime they would end"
        raise DragonPoolError(DragonError.NOT_IMPLEMENTED, text)

    def process_local_register_with_gpu(self) -> None:
        """Make the memory known to a GPU. NotImplementedError: it needs the GPU's library."""
        raise NotImplementedError("registering memory with a GPU needs the GPU's runtime library")

    def process_local_unregister_with_gpu(self) -> None:
        """Undo that. NotImplementedError: it needs the GPU's library."""
        raise NotImplementedError("registering memory with a GPU needs the GPU's runtime library")

    def _is_usable(self) -> bool:
        return self._pool is not None or self._is_remote

    def _gone(self) -> DragonPoolError:
        text = f"{self._name} was destroyed or detached here"
        if not self._name.uid and not self._name.host:
            text = "this MemoryPool has no pool: attach(..., existing_memory_pool=...) gives it one"
        return DragonPoolError(DragonError.INVALID_STATE, text)

    def _require(self) -> _dragon.Pool:
        if self._pool is not None:
            return self._pool
        if not self._is_remote:
            raise self._gone()
        text = f"{self._name} is not on this machine, or not the pool that was described"
        raise DragonPoolError(DragonError.MEMORY_OPERATION_ATTEMPT_ON_NONLOCAL_POOL, text)

    # ---- facts. Those that count blocks look at each of them ----

    @property
    def muid(self) -> int:
        """The pool's number. The default pool of a node has the node's."""
        return self._name.uid

    @property
    def rt_uid(self) -> int:
        """Number of the node whose default pool this is; 0: it is unmanaged and of no node."""
        return self._name.node

    @property
    def is_local(self) -> bool:
        """True unless the pool is another machine's."""
        return not self._is_remote

    @property
    def size(self) -> int:
        """Bytes that blocks can take up: what was asked for, rounded up to whole chunks."""
        return self._require().statistics()["size_bytes"]

    @property
    def free_space(self) -> int:
        """Bytes that no block takes up; exact at this moment."""
        return self._require().statistics()["free_bytes"]

    @property
    def utilization(self) -> float:
        """Percent of ``size`` that blocks take up, 0 to 100."""
        numbers = self._require().statistics()
        return 100.0 * (numbers["size_bytes"] - numbers["free_bytes"]) / numbers["size_bytes"]

    @property
    def current_allocations(self) -> int:
        """Number of blocks; exact at this moment."""
        return self._require().statistics()["n_blocks"]

    @property
    def max_allocations(self) -> int:
        """The most blocks that there may be; without a limit, the smallest that fit in."""
        numbers = self._require().statistics()
        return numbers["max_blocks"] or numbers["n_smallest"]

    @property
    def max_used_allocations(self) -> int | None:
        """The most blocks that there have been at one time; None: not counted.

        The default pool of a node does not count: its processes allocate without a lock.
        """
        numbers = self._require().statistics()
        return numbers["most_blocks"] if self._name.name else None

    @property
    def num_block_sizes(self) -> int:
        """How many sizes blocks can have: those of small ones, and all numbers of chunks."""
        return self._require().n_block_sizes()

    @property
    def free_blocks(self) -> dict[int, int]:
        """What could be allocated now, in as large pieces as there are: numbers by size.

        Small blocks that lie beside live ones in their chunk, and stretches of memory without a
        live block, each of which would serve for one block or be divided. All of it together fits;
        it is less than ``free_space`` where the end of a chunk is too short for a block.
        """
        return self._require().free_blocks()

    def __enter__(self) -> MemoryPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._is_usable():
            return
        if self._is_creator:
            self.destroy()
        else:
            self.detach()

    def __reduce__(self) -> tuple[Any, ...]:
        return MemoryPool.attach, (self.serialize(),)


def _is_used(uid: int) -> bool:
    """True if an object of this process has a pool of that number, and nobody destroyed it."""
    for reference in _objects.valuerefs():  # a copy: other threads add to it meanwhile
        other = reference()
        if other is None or other.muid != uid:
            continue
        pool, name = other._pool, other._name.name
        if pool is not None and (not name or pool.has_name(file_of(name))):
            return True
    return False


def _remove(pool: _dragon.Pool, file: str) -> bool:
    """Remove a pool's file. False: it is gone, or another's by now."""
    try:
        is_there = pool.has_name(file)
        if is_there:
            _dragon.Pool.unlink(file)
    except FileNotFoundError:  # somebody was faster
        return False
    return is_there


def _label(alloc_type: AllocType | None) -> int:
    if alloc_type is None:
        return AllocType.DATA
    if not isinstance(alloc_type, AllocType):
        text = f"alloc_type must be an AllocType, not {alloc_type!r}"
        raise DragonMemoryError(DragonError.INVALID_ARGUMENT, text)
    return alloc_type


def _check_number(name: str, number: int) -> None:
    if not isinstance(number, int):
        raise TypeError(f"{name} must be int, not {type(number).__name__}")
    if not 0 <= number < 2**64:
        raise OverflowError(f"{name} must be at least 0 and below 2**64, not {number}")


def _check_blocks(pre_alloc_blocks: list[int] | None) -> None:
    if pre_alloc_blocks is None:
        return
    if not isinstance(pre_alloc_blocks, list) or not all(
        isinstance(n, int) and n >= 0 for n in pre_alloc_blocks
    ):
        raise RuntimeError("pre_alloc_blocks must be a list of numbers of blocks")


def _check_places(gpu_memory: bool, numa_node: int) -> None:
    if gpu_memory:
        raise NotImplementedError("pools in GPU memory need the GPU's runtime library")
    if not isinstance(numa_node, int):
        raise TypeError(f"numa_node must be int, not {type(numa_node).__name__}")
    if numa_node >= 0:
        raise NotImplementedError("pools on chosen NUMA nodes need libnuma")


def _check_timeout(timeout: float | None) -> float:
    if timeout is None:
        return float("inf")
    if not isinstance(timeout, int | float) or not timeout >= 0:
        raise ValueError(f"timeout must be None or at least 0, not {timeout!r}")
    return timeout
