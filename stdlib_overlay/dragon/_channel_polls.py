"""What ``Channel.poll`` does for semaphores and barriers: each answers (yes or no, a number)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import _dragon
from dragon._channel_base import (
    POLLBARRIER,
    POLLBARRIER_ABORT,
    POLLBARRIER_ISBROKEN,
    POLLBARRIER_RELEASE,
    POLLBARRIER_WAITERS,
    POLLBLOCKED_RECEIVERS,
    POLLSIZE,
    SEMAPHORE_P,
    SEMAPHORE_PEEK,
    SEMAPHORE_V,
    SEMAPHORE_Z,
    ChannelBarrierBroken,
    ChannelBarrierReady,
    ChannelValueError,
    EventType,
    not_so,
)
from dragon._channel_handles import Ends
from dragon.rc import DragonError

Answer = tuple[bool, int]
Poll = Callable[[Ends, _dragon.Channel, float | None], Answer]


def _take(_ends: Ends, channel: _dragon.Channel, seconds: float | None) -> Answer:
    is_taken = channel.semaphore_take(seconds)
    return is_taken, channel.semaphore_value()


def _give(ends: Ends, channel: _dragon.Channel, _seconds: float | None) -> Answer:
    if not channel.semaphore_give():
        text = f"channel {ends._uid}: the semaphore's value is its maximum"
        raise ChannelValueError(text, DragonError.INVALID_VALUE)
    return True, channel.semaphore_value()


def _wait_zero(_ends: Ends, channel: _dragon.Channel, seconds: float | None) -> Answer:
    is_zero = channel.semaphore_wait_zero(seconds)
    return is_zero, channel.semaphore_value()


def _peek(_ends: Ends, channel: _dragon.Channel, _seconds: float | None) -> Answer:
    return True, channel.semaphore_value()


def _broken(ends: Ends) -> ChannelBarrierBroken:
    return ChannelBarrierBroken(
        f"channel {ends._uid}: the barrier is broken", DragonError.BARRIER_BROKEN
    )


def _arrive(ends: Ends, channel: _dragon.Channel, seconds: float | None) -> Answer:
    outcome, generation, index = channel.barrier_arrive(seconds)
    if outcome == _dragon.BARRIER_BROKEN:
        raise _broken(ends)
    if outcome == _dragon.BARRIER_NOT_YET:
        return False, 0
    if ends._places is None:
        ends._places = threading.local()
    ends._places.at = (generation, index)
    if outcome == _dragon.BARRIER_LAST:
        text = f"channel {ends._uid}: all have arrived, poll POLLBARRIER_RELEASE"
        raise ChannelBarrierReady(text, DragonError.BARRIER_READY_TO_RELEASE)
    return True, index


def _release(ends: Ends, channel: _dragon.Channel, _seconds: float | None) -> Answer:
    outcome = channel.barrier_finish()
    if outcome == _dragon.BARRIER_PASSED:
        return True, 0
    if outcome is None and not channel.barrier_status()[1]:
        raise not_so(f"channel {ends._uid}: this thread did not get ChannelBarrierReady")
    raise _broken(ends)


def _abort(_ends: Ends, channel: _dragon.Channel, _seconds: float | None) -> Answer:
    channel.barrier_abort()
    return True, 0


def _is_broken(_ends: Ends, channel: _dragon.Channel, _seconds: float | None) -> Answer:
    is_broken = channel.barrier_status()[1]
    return is_broken, int(is_broken)


def _waiters(_ends: Ends, channel: _dragon.Channel, _seconds: float | None) -> Answer:
    return True, channel.barrier_status()[0]


def _blocked_receivers(_ends: Ends, channel: _dragon.Channel, _seconds: float | None) -> Answer:
    return True, channel.blocked_receivers()


def _size(_ends: Ends, channel: _dragon.Channel, _seconds: float | None) -> Answer:
    return True, channel.count()


OF_SEMAPHORES: Final[dict[EventType, Poll]] = {
    SEMAPHORE_P: _take,
    SEMAPHORE_V: _give,
    SEMAPHORE_Z: _wait_zero,
    SEMAPHORE_PEEK: _peek,
}
OF_QUEUES: Final[dict[EventType, Poll]] = {
    POLLBARRIER: _arrive,
    POLLBARRIER_ABORT: _abort,
    POLLBARRIER_RELEASE: _release,
    POLLBARRIER_ISBROKEN: _is_broken,
    POLLBARRIER_WAITERS: _waiters,
    POLLBLOCKED_RECEIVERS: _blocked_receivers,
    POLLSIZE: _size,
}
#: Whose only answer is a number: asking without a PollResult is a mistake.
QUESTIONS: Final = {SEMAPHORE_PEEK, POLLBARRIER_WAITERS, POLLBLOCKED_RECEIVERS, POLLSIZE}
