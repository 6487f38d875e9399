"""Channels: ordered queues of messages in a pool of shared memory.

Any number of threads and processes of this user send to and receive from a channel. Works under
``dragon`` and under plain ``python3``; a channel is passed to another process by pickle, or by
``serialize()`` and ``attach()``. It exists until ``destroy()``. A process that is killed at any
moment leaves the channel usable; at most the message it was sending or receiving is lost.
"""

from __future__ import annotations

import enum
import struct
import weakref
from types import TracebackType
from typing import Any, Final

import _dragon
from dragon.dtypes import (
    ADAPTIVE_WAIT,
    DEFAULT_WAIT_MODE,
    IDLE_WAIT,
    SPIN_WAIT,
    WHEN_BUFFERED,
    DragonException,
    DragonObjectDestroyed,
    ReturnWhen,
    WaitMode,
)
from dragon.managed_memory import DragonMemoryError, DragonPoolError, MemoryAlloc, MemoryPool
from dragon.rc import DragonError

__all__ = [
    "ADAPTIVE_WAIT",
    "IDLE_WAIT",
    "SPIN_WAIT",
    "USE_CHANNEL_RECVH_DEFAULT",
    "USE_CHANNEL_SENDH_DEFAULT",
    "Channel",
    "ChannelDestroyed",
    "ChannelEmpty",
    "ChannelError",
    "ChannelFull",
    "ChannelHandleNotOpenError",
    "ChannelRecvError",
    "ChannelRecvH",
    "ChannelRecvTimeout",
    "ChannelSendError",
    "ChannelSendH",
    "ChannelSendTimeout",
    "ChannelTimeout",
    "ChannelValueError",
    "EventType",
    "Message",
    "OwnershipOnSend",
    "PollResult",
    "copy_on_send",
    "transfer_ownership_on_send",
]

_UINT64 = struct.Struct("=Q")
_CHANNEL = struct.Struct("=QQQ")  # uid, generation, offset

_DEFAULT_BLOCK_BYTES = 1024
_MIN_BLOCK_BYTES = 256
_DEFAULT_CAPACITY = 100


class ChannelError(DragonException):
    """An operation on a channel failed."""


class ChannelTimeout(ChannelError, TimeoutError):
    """Time was up."""


class ChannelHandleNotOpenError(ChannelError):
    """The handle has not been opened, or it has been closed."""


class ChannelValueError(ChannelError, ValueError):
    """The channel cannot do what it is asked for."""


class ChannelSendError(ChannelError):
    """A message could not be sent."""


class ChannelSendTimeout(ChannelSendError, TimeoutError):
    """There was no room in time."""


class ChannelFull(ChannelSendError, TimeoutError):
    """There is no room, and the send was not to wait."""


class ChannelRecvError(ChannelError):
    """A message could not be received."""


class ChannelRecvTimeout(ChannelRecvError, TimeoutError):
    """No message came in time."""


class ChannelEmpty(ChannelRecvError, TimeoutError):
    """There is no message, and the receive was not to wait."""


class ChannelDestroyed(ChannelError, DragonObjectDestroyed):
    """The channel has been destroyed, by this or another process, before or during the call."""


class OwnershipOnSend(enum.IntEnum):
    """Whose a message's memory is after a send."""

    copy_on_send = 0
    transfer_ownership_on_send = 1


copy_on_send: Final = OwnershipOnSend.copy_on_send
transfer_ownership_on_send: Final = OwnershipOnSend.transfer_ownership_on_send


class EventType(enum.IntEnum):
    """What ``Channel.poll`` waits for, or asks."""

    POLLNOTHING = 0
    POLLIN = 1
    POLLOUT = 2
    POLLINOUT = 3
    POLLEMPTY = 4
    POLLFULL = 5
    POLLSIZE = 6


POLLNOTHING: Final = EventType.POLLNOTHING
POLLIN: Final = EventType.POLLIN
POLLOUT: Final = EventType.POLLOUT
POLLINOUT: Final = EventType.POLLINOUT
POLLEMPTY: Final = EventType.POLLEMPTY
POLLFULL: Final = EventType.POLLFULL
POLLSIZE: Final = EventType.POLLSIZE

# What the C module calls them; bits.
_EVENT_BITS: Final = {POLLIN: 1, POLLOUT: 2, POLLINOUT: 3, POLLEMPTY: 4, POLLFULL: 8}


class _HandleDefault(enum.Enum):
    USE = enum.auto()


USE_CHANNEL_SENDH_DEFAULT: Final = _HandleDefault.USE
USE_CHANNEL_RECVH_DEFAULT: Final = _HandleDefault.USE

_Timeout = float | None | _HandleDefault

# What the C module receives: payload, size, hints, clientid, is it a description of memory?
_Found = tuple[bytes | _dragon.Allocation, int, int, int, bool]


class PollResult:
    """What a poll found out besides yes and no.

    Args:
        value: for POLLSIZE the number of messages.
        rc: number of the error, SUCCESS if there was none.
    """

    def __init__(self, value: int = 0, rc: int = DragonError.SUCCESS) -> None:
        self.value = value
        self.rc = rc

    def __repr__(self) -> str:
        return f"PollResult(value={self.value}, rc={self.rc})"


class Message:
    """Bytes to send, or received, with two numbers of the sender's own.

    Made by ``create_alloc``, ``create_from_mem``, ``create_empty`` and ``ChannelRecvH.recv``. A
    message has its memory until it is destroyed or given away; nothing else frees it.
    """

    def __init__(
        self,
        memory: MemoryAlloc | bytearray | None,
        hints: int = 0,
        clientid: int = 0,
    ) -> None:
        self._memory = memory
        self.hints = hints
        self.clientid = clientid

    @classmethod
    def create_alloc(
        cls,
        mpool: MemoryPool,
        nbytes: int,
        hints: int = 0,
        clientid: int = 0,
        timeout: float | None = None,
    ) -> Message:
        """A message of nbytes, contents undefined, in a new block; waits for room in the pool.

        Args:
            mpool: where the block is.
            nbytes: at least 0.
            hints: number that the receiver gets.
            clientid: number that the receiver gets.
            timeout: seconds to wait for room; None: for ever.

        Raises:
            ChannelError: there was no room in time, or no wait can make room.
            OverflowError: nbytes is negative.
        """
        if nbytes < 0:
            raise OverflowError(f"nbytes must be at least 0, not {nbytes}")
        try:
            memory = mpool.alloc_blocking(nbytes, timeout) if nbytes else mpool.alloc(0)
        except TimeoutError as error:
            raise ChannelError(str(error), DragonError.TIMEOUT) from error
        except DragonPoolError as error:
            raise ChannelError(error.msg, error.lib_err) from error
        return cls(memory, hints, clientid)

    @classmethod
    def create_from_mem(cls, mem: MemoryAlloc, hints: int = 0, clientid: int = 0) -> Message:
        """A message whose bytes are those of a block, which becomes the message's."""
        return cls(mem, hints, clientid)

    @classmethod
    def create_empty(cls) -> Message:
        """A message without memory, for ``ChannelRecvH.recv(dest_msg)`` to fill."""
        return cls(None)

    def bytes_memview(self) -> memoryview:
        """The message's bytes, writable. The view stays valid as long as it exists.

        Raises:
            ChannelError: the message has no memory (any more).
        """
        if self._memory is None:
            raise ChannelError("the message has no memory", DragonError.INVALID_MESSAGE)
        if isinstance(self._memory, bytearray):
            return memoryview(self._memory)
        try:
            return self._memory.get_memview()
        except DragonMemoryError as error:
            raise ChannelError(error.msg, error.lib_err) from error

    def tobytes(self) -> bytes:
        """A copy of the bytes.

        Raises:
            ChannelError: the message has no memory (any more).
        """
        with self.bytes_memview() as view:
            return bytes(view)

    def clear_payload(self, start: int = 0, stop: int | None = None) -> None:
        """Set the bytes from start to before stop to zero; None: to the end.

        Raises:
            ChannelError: the message has no memory, or not these bytes.
        """
        with self.bytes_memview() as view:
            last = view.nbytes if stop is None else stop
            if not 0 <= start <= last <= view.nbytes:
                text = f"bytes {start} to {last} are no part of {view.nbytes}"
                raise ChannelError(text, DragonError.INVALID_ARGUMENT)
            view[start:last] = bytes(last - start)

    def destroy(self, free_mem: bool = True) -> None:
        """Give the memory back, or with free_mem false only forget it.

        Raises:
            ChannelError: the message has no memory (any more).
        """
        memory, self._memory = self._memory, None
        if memory is None:
            raise ChannelError("the message has no memory", DragonError.INVALID_MESSAGE)
        if free_mem and isinstance(memory, MemoryAlloc):
            try:
                memory.free()
            except DragonMemoryError as error:
                raise ChannelError(error.msg, error.lib_err) from error

    @property
    def hints(self) -> int:
        """Number that travels along, 0 <= hints < 2**64."""
        return self._hints

    @hints.setter
    def hints(self, value: int) -> None:
        self._hints = _check_word("hints", value)

    @property
    def clientid(self) -> int:
        """Number that travels along, 0 <= clientid < 2**64."""
        return self._clientid

    @clientid.setter
    def clientid(self, value: int) -> None:
        self._clientid = _check_word("clientid", value)

    def _fill(self, data: memoryview) -> None:
        """Copy data into the message's memory; without any, into memory of its own."""
        if self._memory is None:
            self._memory = bytearray(data)
            return
        with self.bytes_memview() as view:
            if view.nbytes < data.nbytes:
                text = f"{data.nbytes} bytes do not fit into the {view.nbytes} of the destination"
                raise ChannelError(text, DragonError.INVALID_ARGUMENT)
            view[: data.nbytes] = data
        if isinstance(self._memory, bytearray):
            self._memory = self._memory[: data.nbytes]
        else:
            self._memory = self._memory.clone(0, data.nbytes)

    def __enter__(self) -> Message:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._memory is not None:
            self.destroy()


class Channel:
    """An ordered queue of messages in a pool.

    Usable from any thread and any process that has it. As a context manager it is destroyed at the
    end if this object created it, and detached from otherwise.

    Args:
        mem_pool: where the channel is, and the blocks of messages that do not fit into it.
        c_uid: number of the channel, 0 <= c_uid < 2**64; not used twice at a time by a process.
        block_size: bytes, at least 256. Kept for programs that ask for it: small messages travel
            in the channel's own memory and others in blocks of their own size in any case.
        capacity: messages that the channel holds, at least 1.

    Raises:
        ChannelError: an argument is of a wrong type or too small, the number is used, or the pool
            is full.
        TypeError, OverflowError: c_uid is no such number.
    """

    _channel: _dragon.Channel | None = None

    def __init__(
        self,
        mem_pool: MemoryPool,
        c_uid: int,
        block_size: int | None = None,
        capacity: int | None = None,
    ) -> None:
        if not isinstance(mem_pool, MemoryPool):
            raise _wrong(f"mem_pool must be a MemoryPool, not {type(mem_pool).__name__}")
        if not isinstance(c_uid, int):
            raise TypeError(f"c_uid must be int, not {type(c_uid).__name__}")
        if not 0 <= c_uid < 2**64:
            raise OverflowError(f"c_uid must be at least 0 and below 2**64, not {c_uid}")
        block = _check_least("block_size", block_size, _DEFAULT_BLOCK_BYTES, _MIN_BLOCK_BYTES)
        most = _check_least("capacity", capacity, _DEFAULT_CAPACITY, 1)
        other = _created.get(c_uid)
        if other is not None and other._is_usable():
            raise _wrong(f"this process has a channel of number {c_uid}")
        try:
            channel = _dragon.Channel.create(mem_pool._require(), c_uid, most, block, 0, 0, None)
        except (OSError, MemoryError, DragonPoolError) as error:
            text = f"cannot create channel {c_uid}: {error}"
            raise ChannelError(text, DragonError.FAILURE) from error
        self._set(channel, mem_pool, is_creator=True)
        _created[c_uid] = self

    def _set(self, channel: _dragon.Channel, pool: MemoryPool, is_creator: bool) -> None:
        self._channel = channel
        self._pool = pool
        self._is_creator = is_creator
        self._serialized: bytes | None = None
        self._uid, self._capacity, self._block_size = channel.facts()[:3]

    @classmethod
    def attach(cls, ch_ser: bytes, mem_pool: MemoryPool | None = None) -> Channel:
        """Use the channel that ``serialize()`` described, made by any process of this user.

        Args:
            ch_ser: the description.
            mem_pool: the channel's pool, if this process has it already.

        Raises:
            ChannelDestroyed: the channel does not exist any more.
            ChannelError: it describes no channel.
        """
        pool_ser, uid, generation, offset = cls._parse(ch_ser)
        pool = cls._pool_of(pool_ser, mem_pool)
        try:
            channel = _dragon.Channel.open(pool._require(), offset, generation)
        except _dragon.StaleHandle as error:
            raise _destroyed(f"channel {uid} does not exist any more") from error
        except (OSError, MemoryError, DragonPoolError) as error:
            text = f"cannot attach to channel {uid}: {error}"
            raise ChannelError(text, DragonError.FAILURE) from error
        if channel.facts()[0] != uid:
            raise _wrong("these bytes describe another channel")
        self = cls.__new__(cls)
        self._set(channel, pool, is_creator=False)
        return self

    @staticmethod
    def _pool_of(pool_ser: bytes, mem_pool: MemoryPool | None) -> MemoryPool:
        try:
            if mem_pool is not None and mem_pool.serialize() == pool_ser:
                return mem_pool
            return MemoryPool.attach(pool_ser)
        except (DragonPoolError, ValueError) as error:
            text = f"cannot attach to the channel's pool: {error}"
            raise ChannelError(text, DragonError.FAILURE) from error

    @staticmethod
    def _parse(ch_ser: bytes) -> tuple[bytes, int, int, int]:
        data = bytes(memoryview(ch_ser))
        length = len(data) - _UINT64.size - _CHANNEL.size
        if length <= 0 or _UINT64.unpack_from(data)[0] != length:
            raise _wrong("these bytes describe no channel")
        uid, generation, offset = _CHANNEL.unpack_from(data, _UINT64.size + length)
        if generation >= 2**32:
            raise _wrong("these bytes describe no channel")
        return data[_UINT64.size : _UINT64.size + length], uid, generation, offset

    @classmethod
    def serialized_uid(cls, ch_ser: bytes) -> int:
        """Number of a described channel, without attaching to it. ChannelError: it is none."""
        return cls._parse(ch_ser)[1]

    @classmethod
    def serialized_pool_uid_fname(cls, ch_ser: bytes) -> tuple[int, str]:
        """Number and file name of a described channel's pool, without attaching to it.

        Raises:
            ChannelError: it describes no channel.
        """
        try:
            return MemoryPool.serialized_uid_fname(cls._parse(ch_ser)[0])
        except (DragonPoolError, ValueError) as error:
            raise _wrong("these bytes describe no channel") from error

    def serialize(self) -> bytes:
        """A description of the channel for ``attach()``, in any process of this machine.

        Raises:
            ChannelError: the channel was destroyed or detached here, and not described before.
        """
        if self._serialized is None or self._channel is not None:
            offset, generation = self._require().place()
            pool = self._pool.serialize()
            place = _CHANNEL.pack(self._uid, generation, offset)
            self._serialized = _UINT64.pack(len(pool)) + pool + place
        return self._serialized

    def destroy(self) -> None:
        """End the channel for all processes; who waits on it gets ChannelDestroyed.

        The memory of messages in it is freed.

        Raises:
            ChannelDestroyed: it was destroyed before.
            ChannelError: it was detached here.
        """
        channel = self._require()
        self._discard_messages(channel)
        try:
            channel.destroy()
        except _dragon.Destroyed as error:
            raise _destroyed(f"channel {self._uid} was destroyed") from error
        finally:
            self._channel = None
            self._serialized = None

    def _discard_messages(self, channel: _dragon.Channel) -> None:
        """Free what is in other pools, which the runtime does not know."""
        try:
            while (found := channel.receive(0)) is not None:
                _unpack(self._pool, found).destroy()
        except (_dragon.Destroyed, ChannelError):
            pass  # destroyed by another process; or the memory is gone with its pool

    def detach(self, serialize: bool = False) -> None:
        """Stop using the channel in this process. Others keep it.

        Args:
            serialize: keep a description, so that ``serialize()`` still works.

        Raises:
            ChannelError: it was destroyed or detached here.
        """
        self._require()
        if serialize:
            self.serialize()
        self._channel = None

    def sendh(
        self,
        return_mode: ReturnWhen = WHEN_BUFFERED,
        wait_mode: WaitMode = DEFAULT_WAIT_MODE,
        timeout: float | None = None,
    ) -> ChannelSendH:
        """A handle to send with; to be opened. timeout: of its sends, None: for ever."""
        return ChannelSendH(self, return_mode, wait_mode, timeout)

    def recvh(
        self, wait_mode: WaitMode = DEFAULT_WAIT_MODE, timeout: float | None = None
    ) -> ChannelRecvH:
        """A handle to receive with; to be opened. timeout: of its receives, None: for ever."""
        return ChannelRecvH(self, wait_mode, timeout)

    def poll(
        self,
        timeout: float | None = None,
        wait_mode: WaitMode = DEFAULT_WAIT_MODE,
        event_mask: int = POLLIN,
        poll_result: PollResult | None = None,
    ) -> bool:
        """Wait until the channel is as event_mask says; True if it is.

        POLLIN: it has a message; POLLOUT: it has room; POLLINOUT: either; POLLEMPTY: it has no
        message; POLLFULL: it has no room. POLLSIZE does not wait and puts the number of messages
        into poll_result.

        Args:
            timeout: seconds, at least 0; None: for ever.
            wait_mode: any.
            event_mask: an EventType.
            poll_result: gets what the poll found out.

        Raises:
            ValueError: timeout or event_mask is none.
            ChannelDestroyed: the channel was destroyed, before or during the wait.
            ChannelError: it was detached here.
        """
        channel = self._require()
        seconds = _check_timeout(timeout)
        if event_mask == POLLSIZE:
            return self._poll_size(poll_result)
        bits = _EVENT_BITS.get(_event(event_mask))
        if bits is None:
            raise ValueError(f"event_mask must be an event to poll for, not {event_mask!r}")
        try:
            holds = channel.watch(bits, seconds)
        except _dragon.Destroyed as error:
            raise _destroyed(f"channel {self._uid} was destroyed") from error
        if poll_result is not None:
            poll_result.value = int(event_mask) if holds else 0
            poll_result.rc = DragonError.SUCCESS if holds else DragonError.TIMEOUT
        return holds

    def _poll_size(self, poll_result: PollResult | None) -> bool:
        if poll_result is None:
            raise ValueError("POLLSIZE needs a poll_result for its answer")
        poll_result.value = self.num_msgs
        poll_result.rc = DragonError.SUCCESS
        return True

    def get_pool(self) -> MemoryPool:
        """The pool it is in."""
        return self._pool

    def _require(self) -> _dragon.Channel:
        if self._channel is None:
            raise _destroyed("the channel was destroyed or detached here")
        return self._channel

    def _is_usable(self) -> bool:
        if self._channel is None or self._pool._pool is None:
            return False
        try:
            self._channel.count()
        except _dragon.Destroyed:
            return False
        return True

    @property
    def cuid(self) -> int:
        """The channel's number."""
        return self._uid

    @property
    def capacity(self) -> int:
        """Messages that it can hold."""
        return self._capacity

    @property
    def block_size(self) -> int:
        """As it was made with."""
        return self._block_size

    @property
    def num_msgs(self) -> int:
        """Messages in it at this moment. ChannelDestroyed: it was destroyed."""
        try:
            return self._require().count()
        except _dragon.Destroyed as error:
            raise _destroyed(f"channel {self._uid} was destroyed") from error

    @property
    def is_local(self) -> bool:
        """True: it is on this machine."""
        return True

    def __enter__(self) -> Channel:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_creator and self._is_usable():
            self.destroy()
        self._channel = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Channel.attach, (self.serialize(),)


_created: weakref.WeakValueDictionary[int, Channel] = weakref.WeakValueDictionary()


class _Handle:
    """What both kinds of handle have: they are opened, closed, and have a time-out."""

    _DEFAULT_TIMEOUT: _Timeout = _HandleDefault.USE

    def __init__(self, channel: Channel, wait_mode: WaitMode, timeout: float | None) -> None:
        if not isinstance(channel, Channel):
            raise _wrong(f"not a Channel but {type(channel).__name__}")
        _check_timeout(timeout)
        self._ch = channel
        self._wait_mode = wait_mode
        self._timeout = timeout
        self._is_open = False

    def open(self) -> None:
        """Begin to use the handle. ChannelError: the channel is gone, or it is open."""
        if self._is_open:
            raise ChannelError("the handle is open", DragonError.INVALID_STATE)
        self._ch._require()
        self._is_open = True

    def close(self) -> None:
        """End its use. ChannelHandleNotOpenError: it is not open."""
        if not self._is_open:
            raise ChannelHandleNotOpenError("the handle is not open", DragonError.INVALID_STATE)
        self._is_open = False

    def _require(self) -> _dragon.Channel:
        if not self._is_open:
            raise ChannelHandleNotOpenError("the handle is not open", DragonError.INVALID_STATE)
        return self._ch._require()

    def _seconds(self, blocking: bool, timeout: _Timeout) -> float | None:
        if isinstance(timeout, _HandleDefault):
            timeout = self._timeout
        seconds = _check_timeout(timeout)
        return seconds if blocking else 0

    def __reduce__(self) -> tuple[Any, ...]:
        raise NotImplementedError("a handle belongs to its process: pass on the channel")


class ChannelSendH(_Handle):
    """Sends to a channel. Messages of one handle arrive in their order.

    As a context manager it is opened and closed. Time-outs: omitted, the handle's own; None, for
    ever; 0, or blocking false, one try.

    Args:
        ch: the channel.
        return_mode: any: on one machine a message is always in the channel when a send returns.
        wait_mode: any.
        timeout: seconds that a send waits; None: for ever.
    """

    def __init__(
        self,
        ch: Channel,
        return_mode: ReturnWhen = WHEN_BUFFERED,
        wait_mode: WaitMode = DEFAULT_WAIT_MODE,
        timeout: float | None = None,
    ) -> None:
        super().__init__(ch, wait_mode, timeout)
        self._return_mode = return_mode

    def send(
        self,
        msg: Message,
        dest_msg: Message | None = None,
        ownership: OwnershipOnSend = copy_on_send,
        blocking: bool = True,
        timeout: _Timeout = USE_CHANNEL_SENDH_DEFAULT,
    ) -> None:
        """Send a message.

        Args:
            msg: the message. It stays the sender's if it is copied. If its ownership is
                transferred its memory is the receiver's afterwards, without a copy unless views
                of it exist in this process, and msg is left without memory.
            dest_msg: memory to copy the message into, which then is the receiver's; one of 0 bytes
                only names the pool. dest_msg is left without memory.
            ownership: whose the memory of msg is afterwards.
            blocking: wait for room.
            timeout: seconds to wait.

        Raises:
            ChannelFull: there is no room now, and the call was not to wait.
            ChannelSendTimeout: there was no room in time.
            ChannelSendError: the memory is gone, or there is none for the copy.
            ChannelHandleNotOpenError: the handle is not open.
            ChannelDestroyed: the channel was destroyed, before or during the wait.
            ValueError: timeout is negative.
        """
        channel = self._require()
        seconds = self._seconds(blocking, timeout)
        try:
            if dest_msg is not None:
                self._send_into(channel, msg, dest_msg, seconds)
            elif ownership == transfer_ownership_on_send:
                self._give(channel, msg, seconds)
            else:
                with msg.bytes_memview() as view:
                    self._finish(channel.send(view, msg.hints, msg.clientid, seconds), seconds)
        except (ChannelSendError, ChannelDestroyed):
            raise
        except (OSError, MemoryError, ChannelError, DragonMemoryError) as error:
            raise _send_error(error) from error
        if ownership == transfer_ownership_on_send and msg._memory is not None:
            msg.destroy()

    def _send_into(
        self, channel: _dragon.Channel, msg: Message, dest: Message, seconds: float | None
    ) -> None:
        with msg.bytes_memview() as source:
            memory = dest._memory
            if isinstance(memory, MemoryAlloc) and memory.size == 0 and source.nbytes:
                dest._memory = memory.pool.alloc(source.nbytes)
                memory.free()
            dest._fill(source)
        dest.hints, dest.clientid = msg.hints, msg.clientid
        self._give(channel, dest, seconds)

    def _give(self, channel: _dragon.Channel, msg: Message, seconds: float | None) -> None:
        """Make the message's memory the receiver's."""
        memory = msg._memory
        words = (msg.hints, msg.clientid, seconds)
        if isinstance(memory, MemoryAlloc) and memory._can_be_given():
            if memory.pool.serialize() == self._ch._pool.serialize():
                offset, generation = memory._block.place()
                is_sent = channel.send_block(offset, generation, memory.size, *words)
                self._finish(is_sent, seconds)
                memory._given()
                msg._memory = None
                return
            name = memory.serialize()
            if len(name) <= _dragon.CHANNEL_NAME_BYTES:
                self._finish(channel.send_name(name, *words), seconds)
                memory._given()
                msg._memory = None
                return
        with msg.bytes_memview() as view:
            self._finish(channel.send(view, *words), seconds)
        msg.destroy()

    def send_bytes(
        self,
        buf: bytes | bytearray | memoryview,
        msg_len: int = 0,
        blocking: bool = True,
        timeout: _Timeout = USE_CHANNEL_SENDH_DEFAULT,
    ) -> None:
        """Send a copy of bytes.

        Args:
            buf: any object with bytes.
            msg_len: how many of them; 0: all.
            blocking: wait for room.
            timeout: seconds to wait.

        Raises:
            As ``send``; ValueError also if msg_len is negative or more than there are.
        """
        channel = self._require()
        seconds = self._seconds(blocking, timeout)
        if msg_len:
            buf = _first(buf, msg_len)
        try:
            is_sent = channel.send(buf, 0, 0, seconds)
        except (OSError, MemoryError) as error:
            raise _send_error(error) from error
        if not is_sent:
            self._finish(is_sent, seconds)

    def _finish(self, is_sent: bool, seconds: float | None) -> None:
        if is_sent:
            return
        text = f"channel {self._ch.cuid} is full"
        if seconds == 0:
            raise ChannelFull(text, DragonError.CHANNEL_FULL)
        raise ChannelSendTimeout(f"{text} for {seconds} s", DragonError.TIMEOUT)

    def __enter__(self) -> ChannelSendH:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_open:
            self.close()


class ChannelRecvH(_Handle):
    """Receives from a channel. Each message goes to one receiver.

    As a context manager it is opened and closed. Time-outs: omitted, the handle's own; None, for
    ever; 0, or blocking false, one try.

    Args:
        ch: the channel.
        wait_mode: any.
        timeout: seconds that a receive waits; None: for ever.
    """

    def __init__(
        self,
        ch: Channel,
        wait_mode: WaitMode = DEFAULT_WAIT_MODE,
        timeout: float | None = None,
    ) -> None:
        super().__init__(ch, wait_mode, timeout)

    def recv(
        self,
        dest_msg: Message | None = None,
        blocking: bool = True,
        timeout: _Timeout = USE_CHANNEL_RECVH_DEFAULT,
    ) -> Message:
        """Take the oldest message.

        Args:
            dest_msg: memory to copy it into; one without memory takes the message's.
            blocking: wait for a message.
            timeout: seconds to wait.

        Returns:
            The message, or dest_msg. It is to be destroyed once it has been used.

        Raises:
            ChannelEmpty: there is no message now, and the call was not to wait.
            ChannelRecvTimeout: none came in time.
            ChannelRecvError: the message does not fit into dest_msg (it is lost), or another
                process has freed its memory.
            ChannelHandleNotOpenError: the handle is not open.
            ChannelDestroyed: the channel was destroyed, before or during the wait.
            ValueError: timeout is negative.
        """
        msg = _unpack(self._ch._pool, self._take(blocking, timeout))
        if dest_msg is None:
            return msg
        dest_msg.hints, dest_msg.clientid = msg.hints, msg.clientid
        if dest_msg._memory is None:
            dest_msg._memory = msg._memory
            return dest_msg
        try:
            with msg.bytes_memview() as view:
                dest_msg._fill(view)
        except ChannelError as error:
            raise ChannelRecvError(error.msg, error.lib_err) from error
        finally:
            msg.destroy()
        return dest_msg

    def recv_bytes(
        self, blocking: bool = True, timeout: _Timeout = USE_CHANNEL_RECVH_DEFAULT
    ) -> bytes:
        """Take the oldest message's bytes; nothing is to be freed.

        Raises:
            As ``recv``.
        """
        found = self._take(blocking, timeout)
        if isinstance(found[0], bytes) and not found[4]:
            return found[0]
        with _unpack(self._ch._pool, found) as msg:
            return msg.tobytes()

    def _take(self, blocking: bool, timeout: _Timeout) -> _Found:
        channel = self._require()
        seconds = self._seconds(blocking, timeout)
        try:
            found = channel.receive(seconds)
        except _dragon.Destroyed as error:
            raise _destroyed(f"channel {self._ch.cuid} was destroyed") from error
        except OSError as error:
            raise ChannelRecvError(str(error), DragonError.INVALID_MESSAGE) from error
        if found is not None:
            return found
        text = f"channel {self._ch.cuid} is empty"
        if seconds == 0:
            raise ChannelEmpty(text, DragonError.CHANNEL_EMPTY)
        raise ChannelRecvTimeout(f"{text} for {seconds} s", DragonError.TIMEOUT)

    def __enter__(self) -> ChannelRecvH:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_open:
            self.close()


def _first(buf: bytes | bytearray | memoryview, n_bytes: int) -> memoryview:
    data = memoryview(buf).cast("B")
    if not 0 <= n_bytes <= data.nbytes:
        raise ValueError(f"msg_len must be from 0 to {data.nbytes}, not {n_bytes}")
    return data[:n_bytes]


def _send_error(error: Exception) -> ChannelError:
    """What went wrong below a send, as an exception of a send."""
    if isinstance(error, _dragon.Destroyed):
        return _destroyed("the channel was destroyed")
    if isinstance(error, MemoryError):
        return ChannelSendError(str(error), DragonError.DYNHEAP_REQUESTED_SIZE_NOT_AVAILABLE)
    if isinstance(error, ChannelError | DragonMemoryError):
        return ChannelSendError(error.msg, error.lib_err)
    return ChannelSendError(str(error), DragonError.INVALID_MESSAGE)


def _unpack(pool: MemoryPool, found: _Found) -> Message:
    payload, size, hints, clientid, is_name = found
    if isinstance(payload, _dragon.Allocation):
        return Message(MemoryAlloc(pool, payload, 0, size, is_attached=True), hints, clientid)
    if not is_name:
        return Message(bytearray(payload), hints, clientid)
    try:
        return Message(MemoryAlloc.attach(payload), hints, clientid)
    except DragonMemoryError as error:
        raise ChannelRecvError(error.msg, error.lib_err) from error


def _destroyed(text: str) -> ChannelDestroyed:
    return ChannelDestroyed(text, DragonError.OBJECT_DESTROYED)


def _wrong(text: str) -> ChannelError:
    return ChannelError(text, DragonError.INVALID_ARGUMENT)


def _event(event_mask: int) -> EventType:
    try:
        return EventType(event_mask)
    except ValueError as error:
        text = f"event_mask must be an event to poll for, not {event_mask!r}"
        raise ValueError(text) from error


def _check_timeout(timeout: float | None) -> float | None:
    if timeout is None:
        return None
    if not isinstance(timeout, int | float) or not timeout >= 0:
        raise ValueError(f"timeout must be None or at least 0, not {timeout!r}")
    return timeout


def _check_word(name: str, value: int) -> int:
    if not isinstance(value, int) or not 0 <= value < 2**64:
        raise _wrong(f"{name} must be an int, at least 0 and below 2**64, not {value!r}")
    return value


def _check_least(name: str, value: int | None, default: int, least: int) -> int:
    if value is None:
        return default
    if not isinstance(value, int) or not least <= value < 2**63:
        raise _wrong(f"{name} must be an int, at least {least}, not {value!r}")
    return value
