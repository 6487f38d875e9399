"""Channels: ordered queues of messages in a pool of shared memory.

Any number of threads and processes of this user send to and receive from a channel. Works under
``dragon`` and under plain ``python3``; a channel is passed to another process by pickle, or by
``serialize()`` and ``attach()``. It exists until ``destroy()``. A process that is killed at any
moment leaves the channel usable; at most the message it was sending or receiving is lost, and the
memory of the messages in its hands is freed. What it had sent arrives.

Sends and receives (channel files do both), polls and ``Message.create_alloc`` wait as long as their
time-outs say, in seconds, without the GIL, and let signal handlers run. Nothing else here waits.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import struct
import weakref
from typing import Any, Final

import _dragon
from dragon._channel_base import (
    CHANNEL_CLEANUP,
    EVENT_BITS,
    FIFO,
    GREEDY,
    LITE,
    MASQUERADE_AS_REMOTE,
    MEMORY_FLOW_CONTROL,
    MSGS_FLOW_CONTROL,
    NO_FLAGS,
    NO_FLOW_CONTROL,
    POLLBARRIER,
    POLLBARRIER_ABORT,
    POLLBARRIER_ISBROKEN,
    POLLBARRIER_RELEASE,
    POLLBARRIER_WAITERS,
    POLLBLOCKED_RECEIVERS,
    POLLEMPTY,
    POLLFULL,
    POLLIN,
    POLLINOUT,
    POLLNOTHING,
    POLLOUT,
    POLLRESET,
    POLLSIZE,
    RESOURCES_FLOW_CONTROL,
    SEMAPHORE_P,
    SEMAPHORE_PEEK,
    SEMAPHORE_V,
    SEMAPHORE_Z,
    USE_CHANNEL_RECVH_DEFAULT,
    USE_CHANNEL_SENDH_DEFAULT,
    ChannelAdapterMsgTypes,
    ChannelBarrierBroken,
    ChannelBarrierReady,
    ChannelDestroyed,
    ChannelEmpty,
    ChannelError,
    ChannelFlags,
    ChannelFull,
    ChannelHandleNotOpenError,
    ChannelRecvError,
    ChannelRecvTimeout,
    ChannelRemoteOperationNotSupported,
    ChannelSendError,
    ChannelSendTimeout,
    ChannelSetError,
    ChannelSetTimeout,
    ChannelTimeout,
    ChannelValueError,
    Context,
    EventType,
    FlowControl,
    LockType,
    OwnershipOnSend,
    PollResult,
    cast,
    check_least,
    check_member,
    check_timeout,
    copy_on_send,
    destroyed,
    not_so,
    one_machine,
    transfer_ownership_on_send,
    wrong,
)
from dragon._channel_files import (
    Many2ManyReadingChannelFile,
    Many2ManyWritingChannelFile,
    Peer2PeerReadingChannelFile,
    Peer2PeerWritingChannelFile,
)
from dragon._channel_handles import ChannelRecvH, ChannelSendH, Ends, Mode
from dragon._channel_message import Found, Message, unpack
from dragon._channel_polls import OF_QUEUES, OF_SEMAPHORES, QUESTIONS
from dragon._channel_set import ChannelSet
from dragon.dtypes import (
    ADAPTIVE_WAIT,
    DEFAULT_WAIT_MODE,
    IDLE_WAIT,
    SPIN_WAIT,
    DragonException,
    WaitMode,
)
from dragon.managed_memory import DragonPoolError, MemoryPool
from dragon.rc import DragonError

__all__ = [
    "ADAPTIVE_WAIT",
    "BUF_READ",
    "BUF_WRITE",
    "CHANNEL_CLEANUP",
    "FIFO",
    "GREEDY",
    "IDLE_WAIT",
    "LITE",
    "MASQUERADE_AS_REMOTE",
    "MEMORY_FLOW_CONTROL",
    "MSGS_FLOW_CONTROL",
    "NO_FLAGS",
    "NO_FLOW_CONTROL",
    "POLLBARRIER",
    "POLLBARRIER_ABORT",
    "POLLBARRIER_ISBROKEN",
    "POLLBARRIER_RELEASE",
    "POLLBARRIER_WAITERS",
    "POLLBLOCKED_RECEIVERS",
    "POLLEMPTY",
    "POLLFULL",
    "POLLIN",
    "POLLINOUT",
    "POLLNOTHING",
    "POLLOUT",
    "POLLRESET",
    "POLLSIZE",
    "RESOURCES_FLOW_CONTROL",
    "SEMAPHORE_P",
    "SEMAPHORE_PEEK",
    "SEMAPHORE_V",
    "SEMAPHORE_Z",
    "SPIN_WAIT",
    "USE_CHANNEL_RECVH_DEFAULT",
    "USE_CHANNEL_SENDH_DEFAULT",
    "Channel",
    "ChannelAdapterMsgTypes",
    "ChannelBarrierBroken",
    "ChannelBarrierReady",
    "ChannelDestroyed",
    "ChannelEmpty",
    "ChannelError",
    "ChannelFlags",
    "ChannelFull",
    "ChannelHandleNotOpenError",
    "ChannelRecvError",
    "ChannelRecvH",
    "ChannelRecvTimeout",
    "ChannelRemoteOperationNotSupported",
    "ChannelSendError",
    "ChannelSendH",
    "ChannelSendTimeout",
    "ChannelSet",
    "ChannelSetError",
    "ChannelSetTimeout",
    "ChannelTimeout",
    "ChannelValueError",
    "EventType",
    "FlowControl",
    "LockType",
    "Many2ManyReadingChannelFile",
    "Many2ManyWritingChannelFile",
    "Message",
    "OwnershipOnSend",
    "Peer2PeerReadingChannelFile",
    "Peer2PeerWritingChannelFile",
    "PollResult",
    "copy_on_send",
    "discard_gateways",
    "register_gateways_from_env",
    "transfer_ownership_on_send",
]

_UINT64 = struct.Struct("=Q")
_CHANNEL = struct.Struct("=QQQ")  # uid, generation, offset

_DEFAULT_BLOCK_BYTES = 1024
_MIN_BLOCK_BYTES = 256
_SEMAPHORE_BLOCK_BYTES = 8
_DEFAULT_CAPACITY = 100
_DEFAULT_SPINNERS = 32
_DEFAULT_EVENT_BCASTS = 8
_MAX_SEMAPHORE = 2**31 - 1
_FIRST_OWN_UID = 2**63  # numbers of channels that the runtime numbers
_FIRST_GATEWAY = "DRAGON_GW1"

BUF_READ: Final = 0x100
BUF_WRITE: Final = 0x200

_NO_POLLS: Final = {POLLNOTHING, CHANNEL_CLEANUP}


class Channel(Ends, Context):
    """An ordered queue of messages in a pool; or a semaphore; or a barrier.

    Usable from any thread and any process that has it. As a context manager it is destroyed at the
    end if this object created it, and detached from otherwise.

    Semaphore: made with ``semaphore`` or ``bounded_semaphore``; ``poll`` takes (SEMAPHORE_P), gives
    (SEMAPHORE_V), waits for zero (SEMAPHORE_Z) and asks (SEMAPHORE_PEEK). A process that is killed
    keeps what it has taken.

    Barrier of as many parties as the capacity is: each party, in one thread, polls POLLBARRIER and
    then receives a message, which is its index, or -1 if the barrier broke. The last to arrive gets
    ChannelBarrierReady instead of True, runs the action, and polls POLLBARRIER_RELEASE before it
    receives. A party that is killed while it waits counts as arrived; if the one that is to release
    is killed, the others learn within about a second that the barrier is broken. POLLBARRIER_ABORT
    breaks it, POLLRESET makes it whole; after either, who still waits receives -1. The parties'
    indices are no messages that ``num_msgs`` counts.

    Args:
        mem_pool: where the channel is, and the blocks of messages that do not fit into it.
        c_uid: number of the channel, 0 <= c_uid < 2**64; not used twice at a time by a process.
        block_size: bytes, at least 256. Kept for programs that ask for it: small messages travel
            in the channel's own memory and others in blocks of their own size in any case.
        capacity: messages that the channel holds, or parties of the barrier, at least 1.
        lock_type: a LockType; kept for programs that ask for it.
        fc_type: a FlowControl; kept for programs that ask for it.
        flags: a ChannelFlags; MASQUERADE_AS_REMOTE is not there yet.
        def_alloc_pool: where ``send_bytes`` puts bytes that do not fit into the channel; None:
            mem_pool.
        max_spinners: any number; waiters adapt by themselves.
        max_event_bcasts: any number; a channel may be in any number of sets.
        semaphore: make a semaphore.
        bounded_semaphore: make a semaphore that has never more than its first value.
        initial_sem_value: the semaphore's first value.

    Raises:
        ChannelError: an argument is of a wrong type or too small, the number is used, or the pool
            is full.
        TypeError, OverflowError: c_uid is no such number.
        NotImplementedError: flags has MASQUERADE_AS_REMOTE.
    """

    _pool: MemoryPool
    _is_creator: bool
    _is_process_local = False
    _serialized: bytes | None = None

    def __init__(
        self,
        mem_pool: MemoryPool,
        c_uid: int,
        block_size: int | None = None,
        capacity: int | None = None,
        lock_type: LockType | int | None = None,
        fc_type: FlowControl | int | None = None,
        flags: ChannelFlags | int | None = None,
        def_alloc_pool: MemoryPool | None = None,
        max_spinners: int | None = None,
        max_event_bcasts: int | None = None,
        semaphore: bool = False,
        bounded_semaphore: bool = False,
        initial_sem_value: int = 0,
    ) -> None:
        pool = _check_pool("mem_pool", mem_pool)
        if not isinstance(c_uid, int):
            raise TypeError(f"c_uid must be int, not {type(c_uid).__name__}")
        if not 0 <= c_uid < 2**64:
            raise OverflowError(f"c_uid must be at least 0 and below 2**64, not {c_uid}")
        shape = (
            check_least("capacity", capacity, _DEFAULT_CAPACITY, 1),
            check_least("block_size", block_size, _DEFAULT_BLOCK_BYTES, _MIN_BLOCK_BYTES),
        )
        kinds = (
            check_member("lock_type", lock_type, LockType, LITE),
            check_member("fc_type", fc_type, FlowControl, NO_FLOW_CONTROL),
        )
        check_least("max_spinners", max_spinners, _DEFAULT_SPINNERS, 0)
        check_least("max_event_bcasts", max_event_bcasts, _DEFAULT_EVENT_BCASTS, 0)
        _check_flags(flags)
        value = _semaphore_of(semaphore, bounded_semaphore, initial_sem_value)
        if value is not None:
            shape = (1, _SEMAPHORE_BLOCK_BYTES)
        if def_alloc_pool is not None:
            _check_pool("def_alloc_pool", def_alloc_pool)
        other = _created.get(c_uid)
        if other is not None and other._is_usable():
            raise wrong(f"this process has a channel of number {c_uid}")
        try:
            channel = _dragon.Channel.create(pool._require(), c_uid, *shape, *kinds, value)
        except (OSError, MemoryError, DragonPoolError) as error:
            text = f"cannot create channel {c_uid}: {_text_of(error)}"
            raise ChannelError(text, DragonError.FAILURE) from error
        self._set(channel, pool, def_alloc_pool, is_creator=True)
        _created[c_uid] = self

    def _set(
        self,
        channel: _dragon.Channel,
        pool: MemoryPool,
        buffer_pool: MemoryPool | None,
        is_creator: bool,
    ) -> None:
        self._channel = channel
        self._pool = pool
        self._buffer_pool = buffer_pool
        self._places = None
        self._is_creator = is_creator
        self._uid, self._capacity, self._block_size, lock, control, is_semaphore = channel.facts()
        self._lock_type, self._fc_type = LockType(lock), FlowControl(control)
        self._is_semaphore = is_semaphore

    @classmethod
    def attach(cls, ch_ser: bytes, mem_pool: MemoryPool | None = None) -> Channel:
        """Use the channel that ``serialize()`` described, made by any process of this user.

        Args:
            ch_ser: the description.
            mem_pool: where ``send_bytes`` puts bytes that do not fit into the channel; None: the
                channel's pool.

        Raises:
            ChannelDestroyed: the channel does not exist any more.
            ChannelError: it describes no channel, its pool cannot be attached to, or mem_pool is no
                pool.
            TypeError: ch_ser is not bytes-like.
        """
        pool_ser, uid, generation, offset = cls._parse(ch_ser)
        if mem_pool is not None:
            _check_pool("mem_pool", mem_pool)
        pool = cls._pool_of(pool_ser, mem_pool)
        try:
            channel = _dragon.Channel.open(pool._require(), offset, generation)
        except _dragon.StaleHandle as error:
            raise destroyed(uid) from error
        except (OSError, MemoryError, DragonPoolError) as error:
            text = f"cannot attach to channel {uid}: {_text_of(error)}"
            raise ChannelError(text, DragonError.FAILURE) from error
        self = cls.__new__(cls)
        try:
            self._set(channel, pool, None if mem_pool is pool else mem_pool, is_creator=False)
        except ValueError as error:
            raise wrong("these bytes describe another channel") from error
        if self._uid != uid:
            raise wrong("these bytes describe another channel")
        return self

    @classmethod
    def _restore(cls, ch_ser: bytes, buffer_pool: MemoryPool) -> Channel:
        """The channel of a pickle that had a pool of its own for bytes."""
        return cls.attach(ch_ser, buffer_pool)

    @classmethod
    def make_process_local(
        cls,
        pool: MemoryPool | None = None,
        block_size: int | None = None,
        capacity: int | None = None,
        timeout: float | None = None,
    ) -> Channel:
        """A new channel that is destroyed when this process ends.

        One whose process is killed stays in its pool, as long as that exists.

        Args:
            pool: where it is; None: in the node's default pool.
            block_size: as for Channel.
            capacity: as for Channel.
            timeout: seconds, at least 0, or None; nothing here has to wait.

        Raises:
            ChannelError: this process has no dragon runtime; as for Channel.
            ValueError: timeout is negative.
        """
        check_timeout(timeout)
        if not _dragon.has_node():
            text = "make_process_local needs the runtime: run the program with `dragon`"
            raise not_so(text)
        uid = _FIRST_OWN_UID + secrets.randbelow(_FIRST_OWN_UID)
        self = cls(pool or MemoryPool.attach_default(), uid, block_size, capacity)
        self._is_process_local = True
        # multiprocessing's finalizers run in its children, too, where those of atexit do not.
        from multiprocessing.util import Finalize

        Finalize(None, _destroy_at_exit, (self._require(),), exitpriority=0)
        return self

    def destroy_process_local(self, timeout: float | None = None) -> None:
        """Destroy a channel that ``make_process_local`` made, before the process ends.

        Args:
            timeout: seconds, at least 0; nothing here takes long.

        Raises:
            ChannelError: this process did not make it so, or it is gone already.
            ValueError: timeout is negative.
        """
        check_timeout(timeout)
        if not self._is_process_local:
            raise not_so(f"channel {self._uid} is not local to this process")
        self.destroy()

    @classmethod
    def ta_update_nodes(cls, nodes: list[tuple[int, str]]) -> None:
        """Tell which machines there are. ChannelRemoteOperationNotSupported: always, so far."""
        raise one_machine("ta_update_nodes")

    def notify_on_destroy(self) -> None:
        """Have other machines told of its end. ChannelRemoteOperationNotSupported: always, so far.

        On this machine, who uses the channel is told in any case.
        """
        self._require()
        raise one_machine("notify_on_destroy")

    @staticmethod
    def _pool_of(pool_ser: bytes, mem_pool: MemoryPool | None) -> MemoryPool:
        try:
            if mem_pool is not None and mem_pool.serialize() == pool_ser:
                return mem_pool
            return MemoryPool.attach(pool_ser)
        except (DragonPoolError, ValueError) as error:
            text = f"cannot attach to the channel's pool: {_text_of(error)}"
            raise ChannelError(text, DragonError.FAILURE) from error

    @staticmethod
    def _parse(ch_ser: bytes) -> tuple[bytes, int, int, int]:
        data = bytes(memoryview(ch_ser))
        length = len(data) - _UINT64.size - _CHANNEL.size
        if length <= 0 or _UINT64.unpack_from(data)[0] != length:
            raise wrong("these bytes describe no channel")
        uid, generation, offset = _CHANNEL.unpack_from(data, _UINT64.size + length)
        if generation >= 2**32:
            raise wrong("these bytes describe no channel")
        return data[_UINT64.size : _UINT64.size + length], uid, generation, offset

    @classmethod
    def serialized_uid(cls, ch_ser: bytes) -> int:
        """Number of a described channel, without attaching to it.

        Raises:
            ChannelError: it describes no channel.
            TypeError: ch_ser is not bytes-like.
        """
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
            raise wrong("these bytes describe no channel") from error

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
            raise destroyed(self._uid) from error
        finally:
            self._channel = None
            self._serialized = None

    def _discard_messages(self, channel: _dragon.Channel) -> None:
        """Free what is in other pools, which the runtime does not know."""
        with contextlib.suppress(OSError):  # destroyed by another process
            while (found := channel.receive(0)) is not None:
                _free(self._pool, found)

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

    def poll(
        self,
        timeout: float | None = None,
        wait_mode: Mode = DEFAULT_WAIT_MODE,
        event_mask: EventType | int = POLLIN,
        poll_result: PollResult | None = None,
    ) -> bool:
        """Wait until the channel is as event_mask says, or do what it says; True if that is so.

        POLLIN: it has a message; POLLOUT: it has room; POLLINOUT: either; POLLEMPTY: it has no
        message; POLLFULL: it has no room. A semaphore has SEMAPHORE_P, _V, _Z and _PEEK instead.

        Without waiting, POLLSIZE, POLLBARRIER_WAITERS and POLLBLOCKED_RECEIVERS put a number into
        poll_result, POLLBARRIER_ISBROKEN answers, POLLBARRIER_ABORT and POLLBARRIER_RELEASE do so,
        and POLLRESET frees all messages and makes the barrier whole. POLLBARRIER waits only while
        the action of the parties before is run.

        Args:
            timeout: seconds, at least 0; None: for ever.
            wait_mode: any.
            event_mask: an EventType.
            poll_result: gets what the poll found out.

        Raises:
            ValueError: timeout, wait_mode or event_mask is none, or poll_result is needed.
            TypeError: poll_result is no PollResult.
            ChannelValueError: SEMAPHORE_V, and the semaphore has its maximum.
            ChannelBarrierReady: POLLBARRIER, and the caller is to release.
            ChannelBarrierBroken: POLLBARRIER or POLLBARRIER_RELEASE, and the barrier is broken.
            ChannelDestroyed: the channel was destroyed, before or during the wait.
            ChannelError: it was detached here; it has no such event.
        """
        channel = self._require()
        seconds = check_timeout(timeout)
        cast(WaitMode, wait_mode)
        event = _event(event_mask)
        if event in QUESTIONS and poll_result is None:
            raise ValueError(f"{event.name} needs a poll_result for its answer")
        if poll_result is not None and not isinstance(poll_result, PollResult):
            raise TypeError(f"poll_result must be a PollResult, not {type(poll_result).__name__}")
        try:
            holds, value = self._answer(channel, event, seconds)
        except _dragon.Destroyed as error:
            raise destroyed(self._uid) from error
        except ChannelError:
            raise
        except (OSError, ValueError) as error:
            raise not_so(f"channel {self._uid}: {error}") from error
        if poll_result is not None:
            poll_result.value = value
            poll_result.rc = DragonError.SUCCESS if holds else DragonError.TIMEOUT
        return holds

    def _answer(
        self, channel: _dragon.Channel, event: EventType, seconds: float | None
    ) -> tuple[bool, int]:
        polls = OF_SEMAPHORES if self._is_semaphore else OF_QUEUES
        if event in polls:
            return polls[event](self, channel, seconds)
        if self._is_semaphore or event in OF_SEMAPHORES:
            kind = "a" if self._is_semaphore else "no"
            raise not_so(f"channel {self._uid} is {kind} semaphore: it has no {event.name}")
        if event == POLLRESET:
            return self._reset(channel)
        holds = channel.watch(EVENT_BITS[event], seconds)
        return holds, int(event) if holds else 0

    def _reset(self, channel: _dragon.Channel) -> tuple[bool, int]:
        if self._capacity <= _dragon.BARRIER_MAX_PARTIES:
            channel.barrier_reset()
        while (found := channel.receive(0)) is not None:
            _free(self._pool, found)
        return True, 0

    def fileno(self) -> int:
        """A descriptor that is readable while a message waits, for select, selectors, asyncio.

        Also once the channel was destroyed: the receive that follows raises ChannelDestroyed. It
        is there to be waited for, not to be read. Does not block; needs the runtime.

        It is right after each operation of this process on this object, and is raised for a message
        of any process. If another process, or another object, takes the last message, it stays
        readable until the next operation here: receive with timeout 0 and expect ChannelEmpty.

        The number stays the same until ``destroy()``, ``detach()`` or the end of this object closes
        it: take it out of selectors and event loops before. A forked child asks for one of its own.

        Raises:
            ChannelError: this process has no dragon runtime; the channel is in another pool than
                ``MemoryPool.attach_default()``; it is a semaphore; it was detached here; this
                process may not open another descriptor.
            ChannelDestroyed: it was destroyed.
        """
        channel = self._require()
        what = f"channel {self._uid}"
        if self._is_semaphore:
            raise not_so(f"{what} is a semaphore: it has no messages to wait for")
        if not _dragon.has_node():
            text = f"{what}: a thread of the runtime raises the descriptor, and there is none: run"
            raise not_so(f"{text} the program with `dragon`, or wait with poll() or a ChannelSet")
        try:
            return channel.fileno()
        except ValueError as error:
            text = f"{what} is not in the default pool, where senders can ring this process: make"
            text += " it in MemoryPool.attach_default(), or wait with poll() or a ChannelSet"
            raise not_so(text) from error
        except _dragon.Destroyed as error:
            raise destroyed(self._uid) from error
        except OSError as error:
            raise not_so(f"{what}: {error}") from error

    def get_pool(self) -> MemoryPool:
        """The pool it is in."""
        return self._pool

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
            raise destroyed(self._uid) from error

    @property
    def lock_type(self) -> LockType:
        """As it was made with."""
        return self._lock_type

    @property
    def fc_type(self) -> FlowControl:
        """As it was made with."""
        return self._fc_type

    @property
    def blocked_receivers(self) -> int:
        """Threads of all processes that wait in a receive now, 64 at the most."""
        return self._number_of(POLLBLOCKED_RECEIVERS)

    @property
    def barrier_count(self) -> int:
        """Parties that wait in the barrier now; 0 if it is broken."""
        return self._number_of(POLLBARRIER_WAITERS)

    @property
    def broken_barrier(self) -> bool:
        """True: the barrier is broken, until POLLRESET."""
        return self._number_of(POLLBARRIER_ISBROKEN) != 0

    def _number_of(self, event: EventType) -> int:
        result = PollResult()
        self.poll(0, event_mask=event, poll_result=result)
        return result.value

    @property
    def default_alloc_pool(self) -> MemoryPool:
        """Where ``send_bytes`` puts bytes that do not fit into the channel."""
        return self._buffer_pool or self._pool

    @property
    def is_local(self) -> bool:
        """True: it is on this machine."""
        return True

    def _leave(self, has_raised: bool) -> None:
        if self._is_creator and self._is_usable():
            self.destroy()
        self._channel = None

    def __reduce__(self) -> tuple[Any, ...]:
        if self._buffer_pool is None:
            return Channel.attach, (self.serialize(),)
        return Channel._restore, (self.serialize(), self._buffer_pool)


_created: weakref.WeakValueDictionary[int, Channel] = weakref.WeakValueDictionary()


def register_gateways_from_env() -> None:
    """Use the gateways to other machines that the environment names (DRAGON_GW1, ...).

    Raises:
        ChannelRemoteOperationNotSupported: it names one; there are no other machines so far.
    """
    if _FIRST_GATEWAY in os.environ:
        raise one_machine(_FIRST_GATEWAY)


def discard_gateways() -> None:
    """Stop using gateways to other machines. There are none, so far."""


def _free(pool: MemoryPool, found: Found) -> None:
    with contextlib.suppress(ChannelError):  # its memory is gone with its pool
        unpack(pool, found).destroy()


def _destroy_at_exit(channel: _dragon.Channel) -> None:
    with contextlib.suppress(_dragon.Destroyed):  # the program, or another process, was faster
        channel.destroy()


def _text_of(error: Exception) -> str:
    return error.msg if isinstance(error, DragonException) else str(error)


def _event(event_mask: int) -> EventType:
    if isinstance(event_mask, EventType) and event_mask not in _NO_POLLS:
        return event_mask
    try:
        event = EventType(event_mask)
    except ValueError:
        event = POLLNOTHING
    if event in _NO_POLLS:
        raise ValueError(f"event_mask must be an event to poll for, not {event_mask!r}")
    return event


def _check_pool(name: str, pool: MemoryPool) -> MemoryPool:
    if not isinstance(pool, MemoryPool):
        raise wrong(f"{name} must be a MemoryPool, not {type(pool).__name__}")
    if not pool.is_local:
        raise wrong(f"{name} is on another machine")
    return pool


def _check_flags(flags: ChannelFlags | int | None) -> None:
    if flags not in (None, NO_FLAGS, MASQUERADE_AS_REMOTE):
        raise wrong(f"flags must be ChannelFlags, not {flags!r}")
    if flags == MASQUERADE_AS_REMOTE:
        raise NotImplementedError("MASQUERADE_AS_REMOTE: there are no remote channels so far")


def _semaphore_of(semaphore: bool, bounded: bool, value: int) -> tuple[int, int] | None:
    """First value and maximum of the semaphore that is asked for; None: none is."""
    check_least("initial_sem_value", value, 0, 0, _MAX_SEMAPHORE + 1)
    if semaphore and bounded:
        raise wrong("a channel is either a semaphore or a bounded semaphore")
    if not (semaphore or bounded):
        return None
    return value, value if bounded else _MAX_SEMAPHORE


# Their home for programs, tracebacks and pickles is this module.
for _public in list(globals().values()):
    if isinstance(_public, type) and _public.__module__.startswith("dragon._channel"):
        _public.__module__ = __name__
del _public
