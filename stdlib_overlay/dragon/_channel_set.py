"""Waiting for any of several channels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import _dragon
from dragon._channel_base import (
    EVENT_BITS,
    POLLEMPTY,
    POLLFULL,
    POLLIN,
    ChannelError,
    ChannelSetError,
    ChannelSetTimeout,
    Context,
    EventType,
    LockType,
    OfOneProcess,
    check_least,
    check_member,
    check_timeout,
    destroyed,
)
from dragon._channel_handles import Ends
from dragon.dtypes import ADAPTIVE_WAIT, IDLE_WAIT, SPIN_WAIT, WaitMode
from dragon.managed_memory import MemoryPool
from dragon.rc import DragonError

if TYPE_CHECKING:
    from dragon.channels import Channel


class ChannelSet(Context, OfOneProcess):
    """Channels that are waited for together, in one process.

    Events are levels: ``poll`` reports a channel as long as it is as event_mask says, however it
    came to be so, before the poll or during it; so whoever polls, receives, and polls again gets
    everything, and no send ever waits for a poller. Channels take turns: one that always has a
    message does not keep the others from being reported.

    As a context manager the set is closed at the end; the channels stay.

    Args:
        mem_pool: a pool; the set itself needs no memory in it, and the channels may be in others.
        channel_list: the channels, none of them a semaphore.
        lock_type: a LockType, or None; there is no lock.
        num_allowed_spin_waiters: any number; waiters adapt by themselves.
        event_mask: POLLIN, POLLOUT, POLLINOUT, POLLEMPTY or POLLFULL, for all channels.
        capture_all_events: any; as above, nothing is lost in either case.

    Raises:
        ChannelSetError: an argument is none of its kind, or a channel is gone or a semaphore.
    """

    def __init__(
        self,
        mem_pool: MemoryPool,
        channel_list: Iterable[Channel],
        lock_type: LockType | int | None = None,
        num_allowed_spin_waiters: int | None = None,
        event_mask: EventType | int = POLLIN,
        capture_all_events: bool = True,
    ) -> None:
        if not isinstance(mem_pool, MemoryPool):
            raise _wrong(f"mem_pool must be a MemoryPool, not {type(mem_pool).__name__}")
        if event_mask not in EVENT_BITS:
            raise _wrong(f"event_mask must be POLLIN, POLLOUT, ... or POLLFULL, not {event_mask!r}")
        self._mask = EventType(event_mask)
        self._channels = tuple(channel_list)
        try:
            check_member("lock_type", lock_type, LockType, LockType.LITE)
            check_least("num_allowed_spin_waiters", num_allowed_spin_waiters, 0, 0)
            self._members = tuple(_member(channel) for channel in self._channels)
            self._set: _dragon.ChannelSet | None = _dragon.ChannelSet.create(
                self._members, EVENT_BITS[self._mask]
            )
        except ChannelError as error:
            raise ChannelSetError(error.msg, error.lib_err) from error
        except _dragon.Destroyed as error:
            raise ChannelSetError(str(error), DragonError.OBJECT_DESTROYED) from error

    def poll(
        self, timeout: float | None = None, wait_mode: WaitMode = IDLE_WAIT
    ) -> tuple[Channel, EventType]:
        """Wait until a channel is as the set's event_mask says.

        Args:
            timeout: seconds, at least 0; None: for ever.
            wait_mode: IDLE_WAIT, SPIN_WAIT or ADAPTIVE_WAIT.

        Returns:
            The channel, as it is in channel_list, and which events hold.

        Raises:
            ChannelSetTimeout: none was so in time.
            ChannelDestroyed: a channel of the set was destroyed, before or during the wait. The
                others are reported by other polls.
            ChannelSetError: the set was closed.
            ValueError: timeout or wait_mode is none.
        """
        seconds = check_timeout(timeout)
        if not any(wait_mode is mode for mode in (IDLE_WAIT, SPIN_WAIT, ADAPTIVE_WAIT)):
            raise ValueError(f"wait_mode must be IDLE_WAIT or another mode, not {wait_mode!r}")
        if self._set is None:
            raise ChannelSetError("the set is closed", DragonError.INVALID_STATE)
        try:
            found = self._set.wait(seconds)
        except _dragon.Destroyed as error:
            raise destroyed(self._uid_of_destroyed()) from error
        if found is None:
            text = f"none of {len(self._channels)} channels has {self._mask.name} in {seconds} s"
            raise ChannelSetTimeout(text, DragonError.TIMEOUT)
        index, bits = found
        return self._channels[index], self._event(bits)

    def _event(self, bits: int) -> EventType:
        return self._mask if self._mask in (POLLEMPTY, POLLFULL) else EventType(bits)

    def _uid_of_destroyed(self) -> int:
        for channel, member in zip(self._channels, self._members, strict=True):
            try:
                member.count()
            except _dragon.Destroyed:
                return channel.cuid
        raise AssertionError("a destroyed channel stays destroyed")

    def close(self) -> None:
        """End the use of the set; closing it again is fine. Its channels stay."""
        self._set = None

    def _leave(self, has_raised: bool) -> None:
        self.close()


def _wrong(text: str) -> ChannelSetError:
    return ChannelSetError(text, DragonError.INVALID_ARGUMENT)


def _member(channel: Channel) -> _dragon.Channel:
    if not isinstance(channel, Ends):
        raise _wrong(f"not a Channel but {type(channel).__name__}")
    if channel._is_semaphore:
        raise _wrong(f"channel {channel.cuid} is a semaphore: it has no messages")
    return channel._require()
