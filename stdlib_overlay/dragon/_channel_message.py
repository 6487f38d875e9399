"""Messages of channels."""

from __future__ import annotations

import _dragon
from dragon._channel_base import ChannelError, ChannelRecvError, Context, check_word
from dragon.managed_memory import DragonMemoryError, DragonPoolError, MemoryAlloc, MemoryPool
from dragon.rc import DragonError

#: What the C module receives: payload, size, hints, clientid, is it a description of memory?
Found = tuple[bytes | _dragon.Allocation, int, int, int, bool]

_SCRIBBLED_BYTES = 4096  # of a message that is destroyed while it is viewed


class Message(Context):
    """Bytes to send, or received, with two numbers of the sender's own.

    Made by ``create_alloc``, ``create_from_mem``, ``create_empty`` and ``ChannelRecvH.recv``. A
    message has its memory until it is destroyed or given away; nothing else frees it but the end
    of its process, and that only if it was not made from a block of the program's.
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
            hints: number that the receiver gets, 0 <= hints < 2**64.
            clientid: number that the receiver gets, 0 <= clientid < 2**64.
            timeout: seconds to wait for room, at least 0; None: for ever.

        Raises:
            ChannelError: there was no room in time, or no wait can make room; hints or clientid is
                no such number.
            OverflowError: nbytes is negative.
            TypeError: mpool is no MemoryPool, or nbytes no int.
            ValueError: timeout is negative or no number.
        """
        _check_type("mpool", mpool, MemoryPool)
        _check_type("nbytes", nbytes, int)
        check_word("hints", hints)  # before there is memory that nobody would free
        check_word("clientid", clientid)
        if nbytes < 0:
            raise OverflowError(f"nbytes must be at least 0, not {nbytes}")
        try:
            memory = mpool._alloc_message(nbytes, timeout)
        except TimeoutError as error:
            raise ChannelError(str(error), DragonError.TIMEOUT) from error
        except DragonPoolError as error:
            raise ChannelError(error.msg, error.lib_err) from error
        return cls(memory, hints, clientid)

    @classmethod
    def create_from_mem(cls, mem: MemoryAlloc, hints: int = 0, clientid: int = 0) -> Message:
        """A message whose bytes are those of a block, which becomes the message's.

        Args:
            mem: the block.
            hints: number that the receiver gets, 0 <= hints < 2**64.
            clientid: number that the receiver gets, 0 <= clientid < 2**64.

        Raises:
            ChannelError: hints or clientid is no such number.
            TypeError: mem is no MemoryAlloc.
        """
        _check_type("mem", mem, MemoryAlloc)
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
            TypeError: start or stop is no int.
        """
        with self.bytes_memview() as view:
            last = view.nbytes if stop is None else stop
            _check_type("start", start, int)
            _check_type("stop", last, int)
            if not 0 <= start <= last <= view.nbytes:
                text = f"bytes {start} to {last} are no part of {view.nbytes}"
                raise ChannelError(text, DragonError.INVALID_ARGUMENT)
            view[start:last] = bytes(last - start)

    def destroy(self, free_mem: bool = True) -> None:
        """Give the memory back, or with free_mem false leave it to who finds it in the pool.

        Views of it that exist in this process stay valid and do not show the message any more.

        Raises:
            ChannelError: the message has no memory (any more).
        """
        memory, self._memory = self._memory, None
        if memory is None:
            raise ChannelError("the message has no memory", DragonError.INVALID_MESSAGE)
        if free_mem and isinstance(memory, MemoryAlloc):
            try:
                _scribble(memory)
                memory.free()
            except DragonMemoryError as error:
                raise ChannelError(error.msg, error.lib_err) from error
        elif isinstance(memory, MemoryAlloc):
            memory._share()

    @property
    def hints(self) -> int:
        """Number that travels along, 0 <= hints < 2**64. ChannelError: it is set to another."""
        return self._hints

    @hints.setter
    def hints(self, value: int) -> None:
        self._hints = check_word("hints", value)

    @property
    def clientid(self) -> int:
        """Number that travels along, 0 <= clientid < 2**64. ChannelError: it is set to another."""
        return self._clientid

    @clientid.setter
    def clientid(self, value: int) -> None:
        self._clientid = check_word("clientid", value)

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

    def _leave(self, has_raised: bool) -> None:
        if self._memory is not None:
            self.destroy()


def _check_type(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {kind.__name__}, not {type(value).__name__}")


def _scribble(memory: MemoryAlloc) -> None:
    """Make a mistake visible: views of a destroyed message begin with zeros."""
    if memory._require().n_views() > 0:
        memory.clear(0, min(memory.size, _SCRIBBLED_BYTES))


def unpack(pool: MemoryPool, found: Found) -> Message:
    """The message that the C module received from a channel of pool.

    Raises:
        ChannelRecvError: its memory is gone.
    """
    payload, size, hints, clientid, is_name = found
    if isinstance(payload, _dragon.Allocation):
        return Message(MemoryAlloc(pool, payload, 0, size, is_attached=True), hints, clientid)
    if not is_name:
        return Message(bytearray(payload), hints, clientid)
    try:
        memory = MemoryAlloc.attach(payload)
    except DragonMemoryError as error:
        raise ChannelRecvError(error.msg, error.lib_err) from error
    memory._hold()
    return Message(memory, hints, clientid)
