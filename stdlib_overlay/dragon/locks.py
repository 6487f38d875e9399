"""Locks in memory that processes share, whose next holder is told if the last one died.

A lock lies in memory of the program's: usually a block of a ``dragon.managed_memory`` pool, or any
other writable buffer that processes share, mapped at any address. Works under ``dragon`` and under
plain ``python3``.

    block = pool.alloc(FIFOLock.size())
    lock = FIFOLock.init(block.get_memview())   # once; the others: FIFOLock.attach(memview)
    with lock:
        if lock.owner_died:
            repair()                            # what the lock protects may be half changed
        change()

A thread holds it, not a process: only the thread that locked it can unlock it, and a thread that
ends while it holds the lock counts as dead, as a killed process does.

``lock()`` and the entry of ``with`` wait for the lock; nothing else here waits.
"""

from __future__ import annotations

import enum
import errno
from types import TracebackType
from typing import NoReturn, Self

import _dragon
from dragon.dtypes import DragonException, DragonObjectDestroyed, get_rc_string
from dragon.rc import DragonError

__all__ = [
    "DragonLock",
    "DragonLockDestroyed",
    "DragonLockError",
    "DragonLockTimeout",
    "FIFOLock",
    "GreedyLock",
    "Type",
]


class Type(enum.IntEnum):
    """Who gets a lock next.

    ``FIFO``: who came first, among 64 that wait. ``FIFOLITE``: likewise, among 16, in less memory.
    Those who find all places in line taken wait for one, in no order. ``GREEDY``: whoever is first
    to look when it is free; the fastest and the smallest.
    """

    FIFO = 1
    FIFOLITE = 2
    GREEDY = 3


class DragonLockError(DragonException, RuntimeError):
    """An operation on a lock failed, and did nothing.

    Args:
        msg: what happened.
        lib_err: number of the error (``dragon.rc.DragonError``).
    """

    def __str__(self) -> str:
        code = "none" if self.lib_err is None else get_rc_string(self.lib_err)
        return f"{self.msg} (Dragon Lock Error Code={code})"


class DragonLockTimeout(DragonLockError, TimeoutError):
    """The lock did not become free in time."""


class DragonLockDestroyed(DragonLockError, DragonObjectDestroyed):
    """Somebody has destroyed the lock; it may be while we waited."""


_CODES = {
    errno.EDEADLK: (DragonError.LOCK_PTHREAD_MUTEX_LOCK, "this thread holds it already"),
    errno.EPERM: (DragonError.LOCK_PTHREAD_MUTEX_UNLOCK, "this thread has not locked it here"),
    errno.EBUSY: (DragonError.LOCK_PTHREAD_MUTEX_DESTROY, "a thread holds it or waits for it"),
    errno.EINVAL: (
        DragonError.INVALID_ARGUMENT,
        "the memory is smaller than size() says, or not aligned to 8 bytes",
    ),
}


def _named(what: str, error: OSError) -> DragonLockError:
    """What the C module raised, as an error of this module."""
    if isinstance(error, _dragon.Destroyed):
        return DragonLockDestroyed(f"{what}: the lock was destroyed", DragonError.OBJECT_DESTROYED)
    if isinstance(error, _dragon.StaleHandle):
        text = f"{what}: there is no lock in this memory"
        return DragonLockError(text, DragonError.LOCK_NOT_INITD)
    code, text = _CODES.get(error.errno or 0, (DragonError.FAILURE, str(error)))
    return DragonLockError(f"{what}: {text}", code)


class _Lock:
    """What all locks do. Made by ``init`` and ``attach`` of the classes below."""

    _lock: _dragon.Lock
    _is_attached: bool
    _owner_died: bool

    def __init__(self) -> None:
        raise TypeError(f"{type(self).__name__} is made by init() or attach()")

    def _hold(self, lock: _dragon.Lock) -> None:
        self._lock = lock
        self._is_attached = True
        self._owner_died = False

    def _require(self, what: str) -> _dragon.Lock:
        if not self._is_attached:
            raise DragonLockError(f"{what}: the lock was detached", DragonError.LOCK_NOT_INITD)
        return self._lock

    @property
    def kind(self) -> Type:
        """Who gets it next."""
        return Type(self._lock.kind())

    @property
    def owner_died(self) -> bool:
        """True for the holder if the one before it died while it held the lock.

        What the lock protects may be half changed. False again from unlock() on. A program may
        ignore it, and takes what it finds then. Only the next holder is told.
        """
        return self._owner_died

    def lock(self, timeout: float | None = None) -> None:
        """Lock it; waits until it is free, without the GIL, and lets signal handlers run.

        ``owner_died`` says afterwards whether the last holder died.

        Args:
            timeout: seconds; 0 or less: one try; None: for ever.

        Raises:
            DragonLockTimeout: it was not free in time.
            DragonLockDestroyed: somebody has destroyed it, before or during the wait.
            DragonLockError: this thread holds it already, or it was detached here.
            TypeError, ValueError: timeout is no number.
        """
        try:
            owner_died = self._require("lock").lock(timeout)
        except OSError as error:
            raise _named("lock", error) from error
        if owner_died is None:
            raise DragonLockTimeout(f"lock: it was not free in {timeout} s", DragonError.TIMEOUT)
        self._owner_died = owner_died

    def try_lock(self) -> int:
        """Lock it if it is free and nobody stands in line for it. Does not wait.

        Returns:
            1 if this thread has locked it by this call, else 0.

        Raises:
            DragonLockDestroyed: somebody has destroyed it.
            DragonLockError: it was detached here.
        """
        try:
            owner_died = self._require("try_lock").try_lock()
        except OSError as error:
            raise _named("try_lock", error) from error
        if owner_died is None:
            return 0
        self._owner_died = owner_died
        return 1

    def unlock(self) -> None:
        """Unlock it, by the thread and the object that locked it. Does not wait.

        Raises:
            DragonLockError: this thread has not locked it through this object, or it was detached
                here.
        """
        lock = self._require("unlock")
        owner_died = self._owner_died
        # While it is ours: the next holder may be a thread with this same object.
        self._owner_died = False
        try:
            lock.unlock()
        except OSError as error:
            self._owner_died = owner_died
            raise _named("unlock", error) from error

    def detach(self) -> None:
        """Stop using it in this process and let go of its memory. Others keep it.

        Raises:
            DragonLockError: a thread of this process holds it, or waits, through this object; or it
                was detached before.
        """
        lock = self._require("detach")
        try:
            lock.detach()
        except OSError as error:
            raise _named("detach", error) from error
        self._is_attached = False

    def destroy(self) -> None:
        """End it for all processes, and let go of its memory.

        By its holder, or while nobody holds it. Those who wait get DragonLockDestroyed; the memory
        may be used for something else once all of them have been told.

        Raises:
            DragonLockDestroyed: it was destroyed before.
            DragonLockError: another thread holds it, or it was detached here.
        """
        lock = self._require("destroy")
        try:
            lock.destroy()
        except OSError as error:
            raise _named("destroy", error) from error
        self._is_attached = False

    def __enter__(self) -> Self:
        self.lock()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.unlock()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a lock cannot be pickled: send its memory, and attach() to it there")


class DragonLock(_Lock):
    """A lock of any kind."""

    @staticmethod
    def size(kind: Type) -> int:
        """Bytes that a lock of that kind takes up.

        Raises:
            DragonLockError: there is no such kind.
        """
        return _dragon.Lock.size(_kind(kind))

    @classmethod
    def init(cls, kind: Type, memview: memoryview | bytearray) -> Self:
        """Make a lock in the memory, whatever is in it; nobody may use that yet.

        Args:
            kind: who gets it next.
            memview (bytes-like): writable, contiguous, aligned to 8, at least ``size(kind)`` bytes.

        Raises:
            DragonLockError: there is no such kind; the memory is too small or not aligned.
            TypeError, BufferError: memview is no buffer, or cannot be written.
        """
        self = cls.__new__(cls)
        try:
            self._hold(_dragon.Lock.init(_kind(kind), memview))
        except OSError as error:
            raise _named("init", error) from error
        return self

    @classmethod
    def attach(cls, memview: memoryview | bytearray) -> Self:
        """Use the lock that any process made in the memory.

        Args:
            memview (bytes-like): writable, contiguous; the memory that ``init`` got, at any address
                that is a multiple of 8.

        Raises:
            DragonLockError: there is no lock, or the address is no such multiple.
            DragonLockDestroyed: it has been destroyed.
            TypeError, BufferError: memview is no buffer, or cannot be written.
        """
        self = cls.__new__(cls)
        try:
            self._hold(_dragon.Lock.open(memview))
        except OSError as error:
            raise _named("attach", error) from error
        return self


class _LockOfOneKind(_Lock):
    _kind: Type

    @classmethod
    def size(cls) -> int:
        """Bytes that such a lock takes up."""
        return _dragon.Lock.size(cls._kind)

    @classmethod
    def _make(cls, lock: _dragon.Lock) -> Self:
        self = cls.__new__(cls)
        if lock.kind() != cls._kind:
            text = f"attach: the lock in this memory is {Type(lock.kind()).name}"
            raise DragonLockError(text, DragonError.INVALID_LOCK_KIND)
        self._hold(lock)
        return self

    @classmethod
    def init(cls, memview: memoryview | bytearray) -> Self:
        """Make a lock in the memory, as ``DragonLock.init`` does, and with its errors."""
        try:
            return cls._make(_dragon.Lock.init(cls._kind, memview))
        except OSError as error:
            raise _named("init", error) from error

    @classmethod
    def attach(cls, memview: memoryview | bytearray) -> Self:
        """Use the lock in the memory, as ``DragonLock.attach`` does, and with its errors.

        Raises:
            DragonLockError: also if the lock is of another kind.
        """
        try:
            return cls._make(_dragon.Lock.open(memview))
        except OSError as error:
            raise _named("attach", error) from error


class FIFOLock(_LockOfOneKind):
    """A lock that threads get in the order in which they came."""

    _kind = Type.FIFO


class GreedyLock(_LockOfOneKind):
    """A lock that whoever is first to look gets when it is free."""

    _kind = Type.GREEDY


def _kind(kind: int) -> Type:
    try:
        return Type(kind)
    except ValueError as error:
        text = f"{kind!r} is no kind of lock"
        raise DragonLockError(text, DragonError.INVALID_LOCK_KIND) from error
