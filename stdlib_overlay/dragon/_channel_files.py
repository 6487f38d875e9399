"""Files whose bytes go through a channel: ``pickle.dump`` into one, ``pickle.load`` from the other.

A stream is what is written between ``open()`` and ``close()`` of a writing file. It begins with a
header: the byte 0x20 is the end of all (EOT); 0x80 0x05 begins a pickle of protocol 5; 0x40 and 7
bytes, a little-endian number, precede that many raw bytes (all bits set: all the rest).

``Peer2Peer`` files cut a stream into messages while it is written, for one writer and one reader at
a time. A message's ``clientid`` names the stream and the process that writes it, its ``hints`` say
which of the stream's messages it is. So a reader never takes the bytes of one stream for another's:
if the writer is killed in the middle, the reader is told so.

``Many2Many`` files send a stream as one message, when it is closed: any number of writers and
readers.
"""

from __future__ import annotations

import os
import secrets
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol, Self

from dragon._channel_base import (
    ChannelAdapterMsgTypes,
    ChannelEmpty,
    ChannelError,
    ChannelHandleNotOpenError,
    ChannelRecvError,
    ChannelRecvTimeout,
    ChannelSendError,
    Context,
    OfOneProcess,
    check_least,
    check_timeout,
    wrong,
)
from dragon._channel_handles import ChannelRecvH, ChannelSendH, Ends, Mode, ReturnMode
from dragon._channel_message import Message
from dragon.dtypes import DEFAULT_WAIT_MODE, WHEN_BUFFERED
from dragon.managed_memory import MemoryPool
from dragon.rc import DragonError

_KIB: Final = 1024

_EOT: Final = b"\x20"
_PICKLE: Final = b"\x80\x05"
_RAW: Final = b"\x40"
_RAW_HEADER_BYTES: Final = 8
_REST: Final = (1 << 56) - 1

# Bits of a message's hints; the message's number in its stream follows them.
_FIRST: Final = 1
_LAST: Final = 2
_CUT: Final = 4  # the writer gave up: what came so far is not all
_FLAG_BITS: Final = 8

_LOOK_SECONDS: Final = 1.0  # how often a reader that waits looks after the writer

Buffer = bytes | bytearray | memoryview


class Options(Protocol):
    """What ``options`` may say, as attributes or as keys: sizes in bytes, and where blocks are."""

    small_blk_size: int
    large_blk_size: int
    huge_blk_size: int
    buffer_pool: MemoryPool | None


def _option(options: Options | Mapping[str, Any] | None, name: str) -> Any:
    if isinstance(options, Mapping):
        return options.get(name)
    return getattr(options, name, None)


class _File(Context, OfOneProcess):
    """What all of them are: opened and closed, readable or writable, no lines, no positions."""

    _is_open = False

    def open(self) -> None:
        """Begin a stream. Does not wait.

        Raises:
            ChannelError: it is open already, or the channel is gone or a semaphore.
        """
        if self._is_open:
            text = f"this {type(self).__name__} is open already"
            raise ChannelError(text, DragonError.INVALID_STATE)
        self._begin()
        self._is_open = True

    def close(self) -> None:
        """End the stream; closing it again is fine.

        A writer sends what it has not sent yet, and waits for room as long as its time-out says.

        Raises:
            As ``write``, of a writer; the file is closed nevertheless. Nothing, of a reader.
        """
        if self._is_open:
            self._is_open = False
            self._end()

    @property
    def closed(self) -> bool:
        """True if it is not open."""
        return not self._is_open

    @abstractmethod
    def _begin(self) -> None:
        """What opening means besides."""

    @abstractmethod
    def _end(self) -> None:
        """What closing means besides."""

    def _give_up(self) -> None:
        """End the stream although it is not whole."""
        self._end()

    def _require_open(self) -> None:
        if not self._is_open:
            text = f"this {type(self).__name__} is not open: call open(), or use `with`"
            raise ChannelHandleNotOpenError(text, DragonError.INVALID_STATE)

    def __enter__(self) -> Self:
        self.open()
        return self

    def _leave(self, has_raised: bool) -> None:
        if not has_raised:
            self.close()
        elif self._is_open:
            self._is_open = False
            self._give_up()


# ---- writing ----


class _WritingFile(_File):
    """A writing file; where the bytes go is for the classes below."""

    def __init__(
        self,
        channel: Ends,
        pool: MemoryPool | None,
        timeout: float | None,
        wait_mode: Mode,
        return_mode: ReturnMode,
    ) -> None:
        self._sendh = ChannelSendH(channel, return_mode, wait_mode)
        self._pool = (channel._buffer_pool or channel._pool) if pool is None else pool
        if not isinstance(self._pool, MemoryPool):
            raise wrong(f"buffer_pool must be a MemoryPool, not {type(pool).__name__}")
        self._timeout = check_timeout(timeout)
        self._waiting = bytearray()

    def _begin(self) -> None:
        self._waiting = bytearray()
        self._sendh.open()

    def _send(self, data: Buffer, words: tuple[int, int]) -> None:
        channel = self._sendh._require()
        self._sendh._send_from(channel, self._pool, data, words, self._timeout)

    def write(self, data: Buffer) -> int:
        """Write bytes; returns their number.

        Waits for room in the channel, as long as the file's time-out says, when a block is to be
        sent.

        Raises:
            ChannelHandleNotOpenError: the file is not open.
            ChannelSendTimeout, ChannelFull: there was no room in time; the stream is broken.
            ChannelSendError: there is no memory for them.
            ChannelDestroyed: the channel was destroyed.
        """
        self._require_open()
        with memoryview(data).cast("B") as view:
            self._append(view)
            return view.nbytes

    def _append(self, data: memoryview) -> None:
        self._waiting += data

    def write_raw_header(self, msg_len: int) -> None:
        """Announce raw bytes: msg_len of them; ``2**56 - 1``: all that follow.

        Raises:
            ValueError: no header can say that number.
            As ``write``.
        """
        if not 0 <= msg_len <= _REST:
            raise ValueError(f"msg_len must be at least 0 and below 2**56, not {msg_len}")
        self.write(_RAW + msg_len.to_bytes(_RAW_HEADER_BYTES - 1, "little"))

    def write_eot(self) -> None:
        """Tell the reader that nothing more comes, now or later.

        Raises:
            As ``write``.
        """
        self.write(_EOT)

    def flush(self) -> None:
        """Do nothing: the stream is sent when it is closed.

        Raises:
            ChannelHandleNotOpenError: the file is not open.
        """
        self._require_open()


class Peer2PeerWritingChannelFile(_WritingFile):
    """Writes streams to a channel with one writer and one reader at a time.

    Blocks grow with the stream: the first is small, the next large, all others huge. Each is sent
    when there is more to write than fits into it. As a context manager it is opened and closed. If
    the body raises, or a block could not be sent, the reader is told that the stream is not whole.

    Args:
        channel: where to.
        options: ``small_blk_size``, ``large_blk_size``, ``huge_blk_size`` (bytes; 1 KiB, 128 KiB,
            2 MiB) and ``buffer_pool`` (for the blocks; the channel's), as attributes or keys.
        timeout: seconds that each block waits for room; None: for ever.
        wait_mode: any.
        return_mode: any.

    Raises:
        ChannelError: channel is none, or a size is below 1.
        ValueError: timeout is negative.
    """

    def __init__(
        self,
        channel: Ends,
        *,
        options: Options | Mapping[str, Any] | None = None,
        timeout: float | None = 300,
        wait_mode: Mode = DEFAULT_WAIT_MODE,
        return_mode: ReturnMode = WHEN_BUFFERED,
    ) -> None:
        pool = _option(options, "buffer_pool")
        super().__init__(channel, pool, timeout, wait_mode, return_mode)
        self._ladder = [
            check_least(name, _option(options, name), default, 1)
            for name, default in (
                ("small_blk_size", _KIB),
                ("large_blk_size", 128 * _KIB),
                ("huge_blk_size", 2048 * _KIB),
            )
        ]
        self._most = max(self._pool.size // 8, self._ladder[0])
        self._stream = 0
        self._n_sent = 0
        self._is_whole = True  # no block was lost so far

    def _begin(self) -> None:
        super()._begin()
        self._stream = os.getpid() << 32 | secrets.randbits(32)
        self._n_sent = 0
        self._is_whole = True

    def _block_bytes(self) -> int:
        step = min(self._n_sent, len(self._ladder) - 1)
        return min(self._ladder[step], self._most)

    # The last block is sent by close() alone, which marks it: so none goes before more has come.
    def _append(self, data: memoryview) -> None:
        if not self._is_whole:
            raise ChannelSendError("a part of the stream was not sent", DragonError.INVALID_STATE)
        while len(self._waiting) + data.nbytes > (size := self._block_bytes()):
            n_fit = max(size - len(self._waiting), 0)
            if self._waiting:
                self._waiting += data[:n_fit]
                self._send_block(self._waiting, 0)
                self._waiting = bytearray()
            else:
                self._send_block(data[:n_fit], 0)
            data = data[n_fit:]
        self._waiting += data

    def _send_block(self, data: Buffer, flags: int) -> None:
        flags |= _FIRST if self._n_sent == 0 else 0
        self._is_whole = False
        self._send(data, (self._n_sent << _FLAG_BITS | flags, self._stream))
        self._is_whole = True
        self._n_sent += 1

    def flush(self) -> None:
        """Send what has been written so far.

        Raises:
            As ``write``.
        """
        self._require_open()
        if self._waiting:
            self._send_block(self._waiting, 0)
            self._waiting = bytearray()

    def _end(self) -> None:
        if not self._is_whole:
            self._give_up()
            return
        try:
            if self._waiting or self._n_sent:
                self._send_block(self._waiting, _LAST)
        finally:
            self._sendh.close()

    def _give_up(self) -> None:
        try:
            if self._n_sent:
                self._send_block(b"", _CUT)
        except ChannelError:
            pass  # the reader finds out otherwise: by the next stream, or by its time-out
        finally:
            self._sendh.close()


class Many2ManyWritingChannelFile(_WritingFile):
    """Writes each stream as one message, when it is closed; any number of writers and readers.

    As a context manager it is opened and closed; if the body raises, nothing is sent.

    Args:
        channel: where to.
        buffer_pool: where the messages are; None: in the channel's pool.
        wait_mode: any.
        return_mode: any.
        timeout: seconds that ``close`` waits for room; None: for ever.

    Raises:
        ChannelError: channel is none.
        ValueError: timeout is negative.
    """

    def __init__(
        self,
        channel: Ends,
        buffer_pool: MemoryPool | None = None,
        wait_mode: Mode = DEFAULT_WAIT_MODE,
        return_mode: ReturnMode = WHEN_BUFFERED,
        timeout: float | None = None,
    ) -> None:
        super().__init__(channel, buffer_pool, timeout, wait_mode, return_mode)

    def set_adapter_timeout(self, blocking: bool, timeout: float | None) -> None:
        """Say how long ``close`` waits for room.

        Args:
            blocking: false: not at all.
            timeout: seconds; None: for ever.

        Raises:
            ValueError: timeout is negative.
        """
        self._timeout = check_timeout(timeout) if blocking else 0

    def _end(self) -> None:
        try:
            if self._waiting:
                self._send(self._waiting, (_FIRST | _LAST, 0))
        finally:
            self._sendh.close()

    def _give_up(self) -> None:
        self._sendh.close()


# ---- reading ----


class _ReadingFile(_File):
    """A reading file; where the next message comes from is for the classes below."""

    def __init__(self, channel: Ends, timeout: float | None, wait_mode: Mode) -> None:
        self._recvh = ChannelRecvH(channel, wait_mode=wait_mode)
        self._timeout = check_timeout(timeout)
        self._message: Message | None = None
        self._view = memoryview(b"")  # what has not been read of the message
        self._is_last = False
        self._n_limit: int | None = None  # raw bytes that may still be read
        self._side: bytearray | None = None

    def _begin(self) -> None:
        self._recvh.open()
        self._is_last = False
        self._n_limit = None

    def _end(self) -> None:
        self._drop()
        self._recvh.close()

    def _drop(self) -> None:
        self._view.release()
        self._view = memoryview(b"")
        if self._message is not None:
            self._message.destroy()
            self._message = None

    def _show(self, message: Message) -> None:
        self._drop()
        self._message = message
        self._view = message.bytes_memview()

    @abstractmethod
    def _next(self) -> None:
        """Make the stream's next message the one that is read."""

    def _peek(self, size: int) -> bytes:
        """At most size bytes that come next, without taking them; fewer at the end."""
        self._require_open()
        while self._view.nbytes == 0 and not self._is_last:
            self._next()
        if self._view.nbytes < size and not self._is_last:
            return self._peek_over_messages(size)
        return bytes(self._view[:size])

    def _peek_over_messages(self, size: int) -> bytes:
        head = bytearray(self._view)
        while len(head) < size and not self._is_last:
            self._next()
            head += self._view
        self._drop()
        self._view = memoryview(head)
        return bytes(head[:size])

    def check_header(self) -> tuple[ChannelAdapterMsgTypes, int | None]:
        """Wait for the stream and say what it begins with; nothing is taken.

        Returns:
            EOT, or PICKLE_PROT_5, with None; or RAW_BYTES with their number, None: all the rest.

        Raises:
            ChannelRecvError: it begins with no header; its writer died or gave up.
            ChannelRecvTimeout, ChannelEmpty: it did not come in time.
            ChannelHandleNotOpenError, ChannelDestroyed: as a receive.
        """
        head = self._peek(_RAW_HEADER_BYTES)
        if head[:1] == _EOT:
            return ChannelAdapterMsgTypes.EOT, None
        if head[:2] == _PICKLE:
            return ChannelAdapterMsgTypes.PICKLE_PROT_5, None
        if head[:1] == _RAW and len(head) == _RAW_HEADER_BYTES:
            n_bytes = int.from_bytes(head[1:], "little")
            return ChannelAdapterMsgTypes.RAW_BYTES, None if n_bytes == _REST else n_bytes
        text = f"the stream begins with {head!r}, which is no header"
        raise ChannelRecvError(text, DragonError.INVALID_MESSAGE)

    def advance_raw_header(self, msg_len: int | None) -> None:
        """Go past the header of raw bytes; then msg_len of them can be read, None: all.

        Raises:
            As ``check_header``; ChannelRecvError also if the stream has another header.
        """
        kind, _n_bytes = self.check_header()
        if kind != ChannelAdapterMsgTypes.RAW_BYTES:
            raise ChannelRecvError("no raw bytes come here", DragonError.INVALID_MESSAGE)
        self._view = self._view[_RAW_HEADER_BYTES:]
        self._n_limit = msg_len

    def set_side_buf(self, buf: bytearray | None) -> None:
        """Have everything that is read from now on appended to buf, too; None: no longer."""
        self._side = buf

    def _is_at_end(self) -> bool:
        return self._n_limit == 0 or (self._is_last and self._view.nbytes == 0)

    def _take(self, size: int) -> memoryview:
        """The next bytes, at least 1 and at most size; a view that is valid until the next take.

        Nothing: the stream is at its end.
        """
        while self._view.nbytes == 0 and not self._is_at_end():
            self._next()
        if self._n_limit is not None:
            size = min(size, self._n_limit)
        part = self._view[:size]
        self._view = self._view[part.nbytes :]
        if self._n_limit is not None:
            self._n_limit -= part.nbytes
        if self._side is not None:
            self._side += part
        return part

    def read(self, size: int | None = -1) -> bytes:
        """Read size bytes, fewer at the end of the stream; negative or None: all.

        Raises:
            ChannelRecvError: the stream's writer died or gave up.
            ChannelRecvTimeout, ChannelEmpty: no more came in time.
            ChannelHandleNotOpenError, ChannelDestroyed: as a receive.
        """
        self._require_open()
        wanted = _REST if size is None or size < 0 else size
        found = bytearray()
        while len(found) < wanted and not self._is_at_end():
            found += self._take(wanted - len(found))
        return bytes(found)

    def readinto(self, buf: Any) -> int:
        """Read into a writable buffer until it is full or the stream ends; the number of bytes.

        Raises:
            As ``read``.
        """
        self._require_open()
        n_read = 0
        with memoryview(buf).cast("B") as target:
            while n_read < target.nbytes and not self._is_at_end():
                with self._take(target.nbytes - n_read) as part:
                    target[n_read : n_read + part.nbytes] = part
                    n_read += part.nbytes
        return n_read

    def readline(self) -> bytes:
        """There are no lines. NotImplementedError: always."""
        raise NotImplementedError("a channel file has no lines")


class Peer2PeerReadingChannelFile(_ReadingFile):
    """Reads streams of a Peer2PeerWritingChannelFile, one after the other.

    What a reader that was killed left of a stream is passed over. If the writer is killed in the
    middle of a stream, the reader gets ChannelRecvError: as soon as another stream begins, or else
    within about a second (if both see the same process ids). As a context manager it is opened and
    closed.

    Args:
        channel: where from.
        options: any; the messages say how long they are.
        wait_mode: any.
        timeout: seconds that each message is waited for; None: for ever.

    Raises:
        ChannelError: channel is none.
        ValueError: timeout is negative.
    """

    def __init__(
        self,
        channel: Ends,
        *,
        options: Options | Mapping[str, Any] | None = None,
        wait_mode: Mode = DEFAULT_WAIT_MODE,
        timeout: float | None = None,
    ) -> None:
        super().__init__(channel, timeout, wait_mode)
        self._stream = 0
        self._n_received = 0
        self._early: Message | None = None  # the first of the stream after a broken one

    def _begin(self) -> None:
        super()._begin()
        self._n_received = 0

    def _next(self) -> None:
        message = self._early
        self._early = None
        while message is None:
            message = self._receive()
            if self._n_received == 0 and not message.hints & _FIRST:
                message.destroy()
                message = None
        self._check(message)
        self._n_received += 1
        self._is_last = bool(message.hints & _LAST)
        self._show(message)

    def _check(self, message: Message) -> None:
        """Raise unless the message is the stream's next one."""
        number, flags = message.hints >> _FLAG_BITS, message.hints
        if self._n_received == 0 and flags & _FIRST:
            self._stream = message.clientid
            return
        if message.clientid == self._stream and number == self._n_received:
            if not flags & _CUT:
                return
            message.destroy()
            raise self._cut_off("its writer gave up")
        if flags & _FIRST:
            self._early = message
        else:
            message.destroy()
        raise self._cut_off("another one began")

    def _cut_off(self, why: str) -> ChannelRecvError:
        text = f"the stream ends after {self._n_received} messages: {why}"
        return ChannelRecvError(text, DragonError.EOT)

    def _receive(self) -> Message:
        """The channel's next message; in the middle of a stream with an eye on its writer."""
        if self._n_received == 0 or self._timeout == 0:
            return self._recvh.recv(timeout=self._timeout)
        left = self._timeout
        while True:
            piece = _LOOK_SECONDS if left is None else min(left, _LOOK_SECONDS)
            try:
                return self._recvh.recv(timeout=piece)
            except ChannelRecvTimeout:
                left = None if left is None else left - piece
                if _has_ended(self._stream >> 32):
                    return self._last_word()
                if left is not None and left <= 0:
                    raise

    def _last_word(self) -> Message:
        """What the writer sent before it ended, after our look."""
        try:
            return self._recvh.recv(timeout=0)
        except ChannelEmpty as error:
            raise self._cut_off("its writer has ended") from error

    def _end(self) -> None:
        try:
            super()._end()
        finally:
            self._n_received = 0


class Many2ManyReadingChannelFile(_ReadingFile):
    """Reads streams of Many2ManyWritingChannelFiles; each goes to one reader, as a whole.

    As a context manager it is opened and closed. A stream that is closed before its end is lost.

    Args:
        channel: where from.
        wait_mode: any.
        timeout: seconds that the message is waited for; None: for ever.

    Raises:
        ChannelError: channel is none.
        ValueError: timeout is negative.
    """

    def __init__(
        self,
        channel: Ends,
        wait_mode: Mode = DEFAULT_WAIT_MODE,
        timeout: float | None = None,
    ) -> None:
        super().__init__(channel, timeout, wait_mode)

    def set_adapter_timeout(self, blocking: bool, timeout: float | None) -> None:
        """Say how long a stream is waited for.

        Args:
            blocking: false: not at all.
            timeout: seconds; None: for ever.

        Raises:
            ValueError: timeout is negative.
        """
        self._timeout = check_timeout(timeout) if blocking else 0

    def get_remaining_data(self) -> bytes:
        """Read all that is left of the stream.

        Raises:
            As ``read``.
        """
        return self.read()

    def _next(self) -> None:
        self._show(self._recvh.recv(timeout=self._timeout))
        self._is_last = True


def _has_ended(pid: int) -> bool:
    """True if there is no such process, or only its exit status."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return True
    return text.rpartition(")")[2].split()[0] in ("Z", "X")
