"""Handles of channels: what sends, and what receives."""

from __future__ import annotations

import sys
import threading
import time
from typing import Self

import _dragon
from dragon._channel_base import (
    USE_CHANNEL_RECVH_DEFAULT,
    USE_CHANNEL_SENDH_DEFAULT,
    ChannelDestroyed,
    ChannelEmpty,
    ChannelError,
    ChannelFull,
    ChannelHandleNotOpenError,
    ChannelRecvError,
    ChannelRecvTimeout,
    ChannelSendError,
    ChannelSendTimeout,
    Context,
    HandleDefault,
    OfOneProcess,
    OwnershipOnSend,
    Timeout,
    cast,
    check_timeout,
    copy_on_send,
    destroyed,
    not_so,
    transfer_ownership_on_send,
    wrong,
)
from dragon._channel_message import Found, Message, unpack
from dragon.dtypes import (
    DEFAULT_WAIT_MODE,
    RECV_SYNC_MANUAL,
    WHEN_BUFFERED,
    RecvNotifType,
    ReturnWhen,
    WaitMode,
)
from dragon.managed_memory import DragonMemoryError, MemoryAlloc, MemoryPool
from dragon.rc import DragonError

ReturnMode = ReturnWhen | int | str
Mode = WaitMode | int | str

_BROKEN_INDEX = -1  # what a party of a broken barrier receives
_INDEX_BYTES = 4


class Ends:
    """What handles need of a channel; its base class, which makes them."""

    _channel: _dragon.Channel | None = None
    _pool: MemoryPool
    _buffer_pool: MemoryPool | None
    _is_semaphore: bool
    _uid: int
    #: Where this thread waits in the barrier, as ``at``; None until a thread has arrived in it.
    _places: threading.local | None

    def sendh(
        self,
        return_mode: ReturnMode = WHEN_BUFFERED,
        wait_mode: Mode = DEFAULT_WAIT_MODE,
        timeout: float | None = None,
    ) -> ChannelSendH:
        """A handle to send with; to be opened. Does not wait.

        Args:
            return_mode: any: on one machine a message is always in the channel when a send returns.
            wait_mode: any.
            timeout: seconds that its sends wait, at least 0; None: for ever.

        Raises:
            ValueError: an argument is none of its kind.
        """
        return ChannelSendH(self, return_mode, wait_mode, timeout)

    def recvh(
        self,
        notification_type: RecvNotifType | int | str = RECV_SYNC_MANUAL,
        signal: int | None = None,
        wait_mode: Mode = DEFAULT_WAIT_MODE,
        timeout: float | None = None,
    ) -> ChannelRecvH:
        """A handle to receive with; to be opened. Does not wait.

        Args:
            notification_type: RECV_SYNC_MANUAL.
            signal: None.
            wait_mode: any.
            timeout: seconds that its receives wait, at least 0; None: for ever.

        Raises:
            ValueError: an argument is none of its kind.
            NotImplementedError: messages are to be told by a signal.
        """
        return ChannelRecvH(self, notification_type, signal, wait_mode, timeout)

    def _require(self) -> _dragon.Channel:
        if self._channel is None:
            text = f"channel {self._uid} was destroyed or detached here"
            raise ChannelDestroyed(text, DragonError.OBJECT_DESTROYED)
        return self._channel


class _Handle(Context, OfOneProcess):
    """What both kinds of handle have: they are opened, closed, and have a time-out."""

    def __init__(self, channel: Ends, wait_mode: Mode, timeout: float | None) -> None:
        if not isinstance(channel, Ends):
            raise wrong(f"not a Channel but {type(channel).__name__}")
        self._ch = channel
        self._wait_mode = cast(WaitMode, wait_mode)
        self._timeout = check_timeout(timeout)
        self._is_open = False

    def open(self) -> None:
        """Begin to use the handle. Does not wait.

        Raises:
            ChannelError: it is open already, or the channel is gone or a semaphore.
        """
        if self._is_open:
            raise ChannelError(f"{self._name()} is open already", DragonError.INVALID_STATE)
        self._ch._require()
        if self._ch._is_semaphore:
            raise not_so(f"channel {self._ch._uid} is a semaphore: it has no messages")
        self._is_open = True

    def close(self) -> None:
        """End its use. Does not wait: a message is in the channel when its send returns.

        Raises:
            ChannelHandleNotOpenError: it is not open.
        """
        if not self._is_open:
            raise self._not_open()
        self._is_open = False

    def _require(self) -> _dragon.Channel:
        if not self._is_open:
            raise self._not_open()
        return self._ch._require()

    def _name(self) -> str:
        return f"the {type(self).__name__} of channel {self._ch._uid}"

    def _not_open(self) -> ChannelHandleNotOpenError:
        text = f"{self._name()} is not open: call open(), or use `with`"
        return ChannelHandleNotOpenError(text, DragonError.INVALID_STATE)

    def _seconds(self, blocking: bool, timeout: Timeout) -> float | None:
        if isinstance(timeout, HandleDefault):
            timeout = self._timeout
        seconds = check_timeout(timeout)
        return seconds if blocking else 0

    def __enter__(self) -> Self:
        self.open()
        return self

    def _leave(self, has_raised: bool) -> None:
        if self._is_open:
            self.close()


class ChannelSendH(_Handle):
    """Sends to a channel. Messages of one handle arrive in their order.

    As a context manager it is opened and closed. Time-outs: omitted, the handle's own; None, for
    ever; 0, or blocking false, one try.

    Args:
        ch: the channel.
        return_mode: any: on one machine a message is always in the channel when a send returns.
        wait_mode: any.
        timeout: seconds that a send waits; None: for ever.
        debug: any; nothing is traced.

    Raises:
        ValueError: an argument is none of its kind.
    """

    def __init__(
        self,
        ch: Ends,
        return_mode: ReturnMode = WHEN_BUFFERED,
        wait_mode: Mode = DEFAULT_WAIT_MODE,
        timeout: float | None = None,
        debug: int = 0,
    ) -> None:
        super().__init__(ch, wait_mode, timeout)
        self._return_mode = cast(ReturnWhen, return_mode)

    def send(
        self,
        msg: Message,
        dest_msg: Message | None = None,
        ownership: OwnershipOnSend = copy_on_send,
        blocking: bool = True,
        timeout: Timeout = USE_CHANNEL_SENDH_DEFAULT,
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
            timeout: seconds to wait for room in the channel.

        Raises:
            ChannelFull: there is no room now, and the call was not to wait.
            ChannelSendTimeout: there was no room in time.
            ChannelSendError: the memory of msg is gone; or there is no room in the pool for the
                copy, which is not waited for.
            ChannelHandleNotOpenError: the handle is not open.
            ChannelDestroyed: the channel was destroyed, before or during the wait.
            ValueError: timeout is negative or no number.
            TypeError: msg or dest_msg is no Message.
        """
        channel = self._require()
        seconds = self._seconds(blocking, timeout)
        _check_message("msg", msg)
        if dest_msg is not None:
            _check_message("dest_msg", dest_msg)
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
            raise self._error(error) from error
        if ownership == transfer_ownership_on_send and msg._memory is not None:
            msg.destroy()

    def _send_into(
        self, channel: _dragon.Channel, msg: Message, dest: Message, seconds: float | None
    ) -> None:
        with msg.bytes_memview() as source:
            memory = dest._memory
            if isinstance(memory, MemoryAlloc) and memory.size == 0 and source.nbytes:
                dest._memory = memory.pool._alloc_message(source.nbytes, 0)
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
        timeout: Timeout = USE_CHANNEL_SENDH_DEFAULT,
    ) -> None:
        """Send a copy of bytes.

        Args:
            buf (bytes-like): C-contiguous.
            msg_len: how many bytes of it, from its begin; 0: all.
            blocking: wait for room.
            timeout: seconds to wait for room in the channel; with a def_alloc_pool, also in that.

        Raises:
            ChannelFull: there is no room now, and the call was not to wait.
            ChannelSendTimeout: there was no room in time.
            ChannelSendError: the bytes do not fit into the channel, and there is no room for them
                in its pool (which is not waited for), or can be none in its def_alloc_pool.
            ChannelHandleNotOpenError: the handle is not open.
            ChannelDestroyed: the channel was destroyed, before or during the wait.
            ValueError: timeout is negative or no number; msg_len is negative, or more than there
                are.
            TypeError, BufferError: buf has no bytes in one piece, or msg_len is no int.
        """
        channel = self._require()
        seconds = self._seconds(blocking, timeout)
        if msg_len:
            buf = _first(buf, msg_len)
        if self._ch._buffer_pool is not None:
            self._send_from(channel, self._ch._buffer_pool, buf, (0, 0), seconds)
            return
        try:
            is_sent = channel.send(buf, 0, 0, seconds)
        except (OSError, MemoryError) as error:
            raise self._error(error) from error
        if not is_sent:
            self._finish(is_sent, seconds)

    def _send_from(
        self,
        channel: _dragon.Channel,
        pool: MemoryPool,
        buf: bytes | bytearray | memoryview,
        words: tuple[int, int],
        seconds: float | None,
    ) -> None:
        """Send a copy that, unless it is small, lies in a block of pool. words: of the message."""
        view = memoryview(buf).cast("B")
        try:
            if view.nbytes <= _dragon.CHANNEL_NAME_BYTES:
                self._finish(channel.send(view, *words, seconds), seconds)
            else:
                begin = time.monotonic()
                msg = Message(_copy_in(pool, view, seconds), *words)
                self._give_or_free(channel, msg, _rest(seconds, begin))
        except ChannelError:
            raise
        except TimeoutError as error:
            raise ChannelSendTimeout(str(error), DragonError.TIMEOUT) from error
        except (OSError, MemoryError, DragonMemoryError) as error:
            raise self._error(error) from error

    def _give_or_free(self, channel: _dragon.Channel, msg: Message, seconds: float | None) -> None:
        try:
            self._give(channel, msg, seconds)
        finally:
            if msg._memory is not None:
                msg.destroy()

    def _error(self, error: Exception) -> ChannelError:
        """What went wrong below a send, as an exception of a send."""
        if isinstance(error, _dragon.Destroyed):
            return destroyed(self._ch._uid)
        if isinstance(error, MemoryError):
            text = f"channel {self._ch._uid}: {error}"
            return ChannelSendError(text, DragonError.DYNHEAP_REQUESTED_SIZE_NOT_AVAILABLE)
        if isinstance(error, ChannelError | DragonMemoryError):
            return ChannelSendError(error.msg, error.lib_err)
        return ChannelSendError(str(error), DragonError.INVALID_MESSAGE)

    def _finish(self, is_sent: bool, seconds: float | None) -> None:
        if is_sent:
            return
        if seconds == 0:
            raise ChannelFull(f"channel {self._ch._uid} is full", DragonError.CHANNEL_FULL)
        text = f"channel {self._ch._uid} had no room in {seconds} s"
        raise ChannelSendTimeout(text, DragonError.TIMEOUT)


class ChannelRecvH(_Handle):
    """Receives from a channel. Each message goes to one receiver.

    As a context manager it is opened and closed. Time-outs: omitted, the handle's own; None, for
    ever; 0, or blocking false, one try.

    Args:
        ch: the channel.
        notification_type: RECV_SYNC_MANUAL.
        signal: None.
        wait_mode: any.
        timeout: seconds that a receive waits; None: for ever.

    Raises:
        ValueError: an argument is none of its kind.
        NotImplementedError: messages are to be told by a signal.
    """

    def __init__(
        self,
        ch: Ends,
        notification_type: RecvNotifType | int | str = RECV_SYNC_MANUAL,
        signal: int | None = None,
        wait_mode: Mode = DEFAULT_WAIT_MODE,
        timeout: float | None = None,
    ) -> None:
        super().__init__(ch, wait_mode, timeout)
        if cast(RecvNotifType, notification_type) != RECV_SYNC_MANUAL:
            raise NotImplementedError("RECV_SYNC_SIGNAL: messages are not told by signals")
        if signal is not None:
            raise ValueError("a signal is for RECV_SYNC_SIGNAL only")

    def recv(
        self,
        dest_msg: Message | None = None,
        blocking: bool = True,
        timeout: Timeout = USE_CHANNEL_RECVH_DEFAULT,
    ) -> Message:
        """Take the oldest message.

        A thread that has arrived in the channel's barrier (POLLBARRIER) waits for its release
        instead: its next message is its index, a signed number of 4 bytes in the machine's order,
        -1 if the barrier broke.

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
            ValueError: timeout is negative or no number.
            TypeError: dest_msg is no Message.
        """
        if dest_msg is not None and not isinstance(dest_msg, Message):
            raise TypeError(f"dest_msg must be a Message, not {type(dest_msg).__name__}")
        msg = unpack(self._ch._pool, self._take(blocking, timeout))
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
        self, blocking: bool = True, timeout: Timeout = USE_CHANNEL_RECVH_DEFAULT
    ) -> bytes:
        """Take the oldest message's bytes; nothing is to be freed.

        Args:
            blocking: wait for a message.
            timeout: seconds to wait.

        Raises:
            As ``recv``.
        """
        found = self._take(blocking, timeout)
        if isinstance(found[0], bytes) and not found[4]:
            return found[0]
        with unpack(self._ch._pool, found) as msg:
            return msg.tobytes()

    def _take(self, blocking: bool, timeout: Timeout) -> Found:
        channel = self._require()
        seconds = self._seconds(blocking, timeout)
        places = self._ch._places
        place = None if places is None else getattr(places, "at", None)
        try:
            if place is None:
                found = channel.receive(seconds)
            else:
                found = self._pass_barrier(channel, place, seconds)
        except _dragon.Destroyed as error:
            raise destroyed(self._ch._uid) from error
        except OSError as error:
            raise ChannelRecvError(str(error), DragonError.INVALID_MESSAGE) from error
        if found is not None:
            return found
        if seconds == 0:
            raise ChannelEmpty(f"channel {self._ch._uid} is empty", DragonError.CHANNEL_EMPTY)
        text = f"channel {self._ch._uid} had no message in {seconds} s"
        raise ChannelRecvTimeout(text, DragonError.TIMEOUT)

    def _pass_barrier(
        self, channel: _dragon.Channel, place: tuple[int, int], seconds: float | None
    ) -> Found | None:
        """The message of a party that has arrived; None: the barrier was not released in time."""
        outcome = channel.barrier_wait(*place, seconds)
        if outcome == _dragon.BARRIER_NOT_YET:
            return None
        index = place[1] if outcome == _dragon.BARRIER_PASSED else _BROKEN_INDEX
        if self._ch._places is not None:
            del self._ch._places.at
        return index.to_bytes(_INDEX_BYTES, sys.byteorder, signed=True), _INDEX_BYTES, 0, 0, False


def _check_message(name: str, msg: Message) -> None:
    if not isinstance(msg, Message):
        text = f"{name} must be a Message, not {type(msg).__name__}; send_bytes() sends bytes"
        raise TypeError(text)


def _first(buf: bytes | bytearray | memoryview, n_bytes: int) -> memoryview:
    if not isinstance(n_bytes, int):
        raise TypeError(f"msg_len must be int, not {type(n_bytes).__name__}")
    data = memoryview(buf).cast("B")
    if not 0 <= n_bytes <= data.nbytes:
        raise ValueError(f"msg_len must be from 0 to {data.nbytes}, not {n_bytes}")
    return data[:n_bytes]


def _rest(seconds: float | None, begin: float) -> float | None:
    """What is left of seconds that began at a time of the monotonic clock; 0 only if it was 0."""
    if not seconds:
        return seconds
    return max(1e-9, begin + seconds - time.monotonic())


def _copy_in(pool: MemoryPool, data: memoryview, seconds: float | None) -> MemoryAlloc:
    """A copy in a block of pool; waits for room."""
    memory = pool._alloc_message(data.nbytes, seconds)
    with memory.get_memview() as view:
        view[:] = data
    return memory
