"""What the parts of ``dragon.channels`` share: exceptions, enumerations, checks of arguments."""

from __future__ import annotations

import enum
import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from dragon.dtypes import DragonException, DragonObjectDestroyed
from dragon.rc import DragonError

# ---- exceptions ----


class ChannelError(DragonException):
    """An operation on a channel failed."""


class ChannelTimeout(ChannelError, TimeoutError):
    """Time was up."""


class ChannelHandleNotOpenError(ChannelError):
    """The handle has not been opened, or it has been closed."""


class ChannelValueError(ChannelError, ValueError):
    """The channel cannot do what it is asked for: a bounded semaphore has its maximum."""


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


class ChannelBarrierBroken(ChannelError, threading.BrokenBarrierError):
    """The barrier was aborted or reset, or the process that was to release it died."""


class ChannelBarrierReady(ChannelError):
    """All parties have arrived: the caller runs the action and polls POLLBARRIER_RELEASE."""


class ChannelRemoteOperationNotSupported(ChannelError):
    """The operation needs another machine than this one."""


class ChannelDestroyed(ChannelError, DragonObjectDestroyed):
    """The channel has been destroyed, by this or another process, before or during the call."""


class ChannelSetError(ChannelError):
    """An operation on a set of channels failed."""


class ChannelSetTimeout(ChannelSetError, TimeoutError):
    """No channel of the set was as asked in time."""


# ---- enumerations; their members are module globals, too ----


class OwnershipOnSend(enum.IntEnum):
    """Whose a message's memory is after a send."""

    copy_on_send = 0
    transfer_ownership_on_send = 1


class LockType(enum.IntEnum):
    """Kinds of lock that a channel may be made with. One kind serves here for all of them."""

    FIFO = 0
    LITE = 1
    GREEDY = 2


class FlowControl(enum.IntEnum):
    """Kinds of flow control. A send waits for room in any case; there is no other control."""

    NO_FLOW_CONTROL = 0
    RESOURCES_FLOW_CONTROL = 1
    MEMORY_FLOW_CONTROL = 2
    MSGS_FLOW_CONTROL = 3


class ChannelFlags(enum.IntFlag):
    """What is special about a channel."""

    NO_FLAGS = 0
    MASQUERADE_AS_REMOTE = 1


class EventType(enum.IntEnum):
    """What ``Channel.poll`` waits for, asks, or does."""

    POLLNOTHING = 0
    POLLIN = 1
    POLLOUT = 2
    POLLINOUT = 3
    POLLEMPTY = 4
    POLLFULL = 5
    POLLSIZE = 6
    POLLRESET = 7
    POLLBARRIER = 9
    POLLBARRIER_ABORT = 10
    POLLBARRIER_RELEASE = 11
    POLLBARRIER_ISBROKEN = 12
    POLLBARRIER_WAITERS = 13
    POLLBLOCKED_RECEIVERS = 14
    SEMAPHORE_P = 15
    SEMAPHORE_V = 16
    SEMAPHORE_Z = 17
    SEMAPHORE_PEEK = 18
    CHANNEL_CLEANUP = 19


class ChannelAdapterMsgTypes(enum.Enum):
    """What a stream of a channel file begins with."""

    EOT = enum.auto()
    PICKLE_PROT_5 = enum.auto()
    RAW_BYTES = enum.auto()


copy_on_send: Final = OwnershipOnSend.copy_on_send
transfer_ownership_on_send: Final = OwnershipOnSend.transfer_ownership_on_send

FIFO: Final = LockType.FIFO
LITE: Final = LockType.LITE
GREEDY: Final = LockType.GREEDY

NO_FLOW_CONTROL: Final = FlowControl.NO_FLOW_CONTROL
RESOURCES_FLOW_CONTROL: Final = FlowControl.RESOURCES_FLOW_CONTROL
MEMORY_FLOW_CONTROL: Final = FlowControl.MEMORY_FLOW_CONTROL
MSGS_FLOW_CONTROL: Final = FlowControl.MSGS_FLOW_CONTROL

NO_FLAGS: Final = ChannelFlags.NO_FLAGS
MASQUERADE_AS_REMOTE: Final = ChannelFlags.MASQUERADE_AS_REMOTE

POLLNOTHING: Final = EventType.POLLNOTHING
POLLIN: Final = EventType.POLLIN
POLLOUT: Final = EventType.POLLOUT
POLLINOUT: Final = EventType.POLLINOUT
POLLEMPTY: Final = EventType.POLLEMPTY
POLLFULL: Final = EventType.POLLFULL
POLLSIZE: Final = EventType.POLLSIZE
POLLRESET: Final = EventType.POLLRESET
POLLBARRIER: Final = EventType.POLLBARRIER
POLLBARRIER_ABORT: Final = EventType.POLLBARRIER_ABORT
POLLBARRIER_RELEASE: Final = EventType.POLLBARRIER_RELEASE
POLLBARRIER_ISBROKEN: Final = EventType.POLLBARRIER_ISBROKEN
POLLBARRIER_WAITERS: Final = EventType.POLLBARRIER_WAITERS
POLLBLOCKED_RECEIVERS: Final = EventType.POLLBLOCKED_RECEIVERS
SEMAPHORE_P: Final = EventType.SEMAPHORE_P
SEMAPHORE_V: Final = EventType.SEMAPHORE_V
SEMAPHORE_Z: Final = EventType.SEMAPHORE_Z
SEMAPHORE_PEEK: Final = EventType.SEMAPHORE_PEEK
CHANNEL_CLEANUP: Final = EventType.CHANNEL_CLEANUP

#: The events that are levels of a channel, as bits of the C module.
EVENT_BITS: Final = {POLLIN: 1, POLLOUT: 2, POLLINOUT: 3, POLLEMPTY: 4, POLLFULL: 8}


class HandleDefault(enum.Enum):
    """Type of the default time-out of a send or receive: the handle's own."""

    USE = enum.auto()


USE_CHANNEL_SENDH_DEFAULT: Final = HandleDefault.USE
USE_CHANNEL_RECVH_DEFAULT: Final = HandleDefault.USE

Timeout = float | None | HandleDefault


class PollResult:
    """What a poll found out besides yes and no.

    Args:
        value: the number that was asked for: of messages, of units of a semaphore, of parties
            that wait, of blocked receivers; for a barrier the party's index; otherwise the event.
        rc: number of the error, SUCCESS if there was none.
    """

    def __init__(self, value: int = 0, rc: int = DragonError.SUCCESS) -> None:
        self.value = value
        self.rc = rc

    def __repr__(self) -> str:
        return f"PollResult(value={self.value}, rc={self.rc})"


# ---- what classes share ----


class Context(ABC):
    """A context manager; what its end means is ``_leave``."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave(kind is not None)

    @abstractmethod
    def _leave(self, has_raised: bool) -> None:
        """End the use; has_raised: the body did not come to its end."""


class OfOneProcess:
    """What cannot be passed on to another process."""

    def __reduce__(self) -> tuple[Any, ...]:
        text = f"a {type(self).__name__} belongs to its process: pass on the channel"
        raise NotImplementedError(text)


# ---- errors and checks ----


def destroyed(uid: int) -> ChannelDestroyed:
    """The exception of an operation on a channel that was destroyed."""
    return ChannelDestroyed(f"channel {uid} was destroyed", DragonError.OBJECT_DESTROYED)


def wrong(text: str) -> ChannelError:
    """The exception of an argument that is of no use."""
    return ChannelError(text, DragonError.INVALID_ARGUMENT)


def not_so(text: str) -> ChannelError:
    """The exception of an operation that this channel, or its state, does not have."""
    return ChannelError(text, DragonError.INVALID_OPERATION)


def one_machine(what: str) -> ChannelRemoteOperationNotSupported:
    """The exception of what needs another machine."""
    text = f"{what}: dragon runs on one machine only, so far"
    return ChannelRemoteOperationNotSupported(
        text, DragonError.CHANNEL_OPERATION_UNSUPPORTED_REMOTELY
    )


def check_timeout(timeout: float | None) -> float | None:
    """Pass a time-out in seconds. ValueError: it is negative or none at all."""
    if timeout is None:
        return None
    if not isinstance(timeout, int | float) or not timeout >= 0:
        raise ValueError(f"timeout must be None or at least 0, not {timeout!r}")
    return timeout


def check_word(name: str, value: int) -> int:
    """Pass a number that fits into 64 bits. ChannelError: it does not."""
    if not isinstance(value, int) or not 0 <= value < 2**64:
        raise wrong(f"{name} must be an int, at least 0 and below 2**64, not {value!r}")
    return value


def check_least(name: str, value: int | None, default: int, least: int, most: int = 2**63) -> int:
    """Pass a number from least to before most; None: the default. ChannelError: it is none."""
    if value is None:
        return default
    if not isinstance(value, int) or not least <= value < most:
        raise wrong(f"{name} must be an int from {least} to before {most}, not {value!r}")
    return value


_Member = TypeVar("_Member", bound=enum.IntEnum)


def cast(kind: type[_Member], value: _Member | int | str) -> _Member:
    """The member that a member, its number, its name, or its number as text means.

    Raises:
        ValueError: none.
    """
    if isinstance(value, kind):
        return value
    try:
        if not isinstance(value, str):
            return kind(value)
        return kind[value] if value in kind.__members__ else kind(int(value))
    except ValueError as error:
        raise ValueError(f"{value!r} is no {kind.__name__}") from error


def check_member(name: str, value: int | None, kind: type[_Member], default: _Member) -> _Member:
    """Pass a member of an enumeration, or its number; None: the default. ChannelError: none."""
    if value is None:
        return default
    try:
        return kind(value)
    except ValueError as error:
        raise wrong(f"{name} must be a {kind.__name__}, not {value!r}") from error
