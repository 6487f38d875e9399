"""Channels that are semaphores, under plain python3 and under dragon."""

import pickle
import time
from typing import Any

import pytest
from channel_children import taker_and_giver, taker_that_dies
from channel_support import ends_with_interrupt, in_thread, lets_others_run

from dragon.channels import (
    POLLBARRIER,
    POLLIN,
    POLLRESET,
    SEMAPHORE_P,
    SEMAPHORE_PEEK,
    SEMAPHORE_V,
    SEMAPHORE_Z,
    Channel,
    ChannelDestroyed,
    ChannelError,
    ChannelValueError,
    PollResult,
)
from dragon.managed_memory import MemoryPool

MAXIMUM = 2**31 - 1


def make(pool: MemoryPool, value: int = 0, bounded: bool = False) -> Channel:
    kind: dict[str, bool] = {"bounded_semaphore" if bounded else "semaphore": True}
    return Channel(pool, 5, initial_sem_value=value, **kind)


def value_of(channel: Channel) -> int:
    result = PollResult()
    assert channel.poll(0, event_mask=SEMAPHORE_PEEK, poll_result=result)
    return result.value


def test_a_semaphore_has_the_shape_of_one(pool: MemoryPool) -> None:
    with Channel(pool, 5, block_size=4096, capacity=20, semaphore=True) as channel:
        assert (channel.capacity, channel.block_size, channel.num_msgs) == (1, 8, 0)


def test_units_are_taken_and_given(pool: MemoryPool) -> None:
    with make(pool, 2) as channel:
        for left in [1, 0]:
            result = PollResult()
            assert channel.poll(0, event_mask=SEMAPHORE_P, poll_result=result) is True
            assert (result.value, result.rc) == (left, 0)
        assert channel.poll(0, event_mask=SEMAPHORE_P) is False
        for value in [1, 2, 3]:
            assert channel.poll(event_mask=SEMAPHORE_V) is True
            assert value_of(channel) == value


def test_a_bounded_semaphore_does_not_overflow(pool: MemoryPool) -> None:
    with make(pool, 1, bounded=True) as channel:
        with pytest.raises(ChannelValueError) as caught:
            channel.poll(event_mask=SEMAPHORE_V)
        assert isinstance(caught.value, ValueError)
        assert value_of(channel) == 1
        assert channel.poll(event_mask=SEMAPHORE_P)
        assert channel.poll(event_mask=SEMAPHORE_V)
    with make(pool, MAXIMUM) as channel, pytest.raises(ChannelValueError):
        channel.poll(event_mask=SEMAPHORE_V)


def test_a_wrong_place_for_the_result_costs_no_unit(pool: MemoryPool) -> None:
    with make(pool, 1) as channel:
        with pytest.raises(TypeError, match="poll_result must be a PollResult"):
            channel.poll(0, event_mask=SEMAPHORE_P, poll_result=0)
        assert value_of(channel) == 1


def test_a_poll_for_a_unit_lasts_as_long_as_it_is_to(pool: MemoryPool) -> None:
    with make(pool) as channel:
        begin = time.monotonic()
        result = PollResult()
        assert channel.poll(0.1, event_mask=SEMAPHORE_P, poll_result=result) is False
        assert time.monotonic() - begin > 0.1
        assert result.rc != 0


def test_a_unit_wakes_who_waits_for_it(pool: MemoryPool) -> None:
    with make(pool) as channel:
        begin = time.monotonic()
        assert lets_others_run(
            lambda: channel.poll(20, event_mask=SEMAPHORE_P),
            lambda: channel.poll(event_mask=SEMAPHORE_V),
        )
        assert time.monotonic() - begin < 0.9


def test_the_last_unit_that_is_taken_wakes_who_waits_for_zero(pool: MemoryPool) -> None:
    with make(pool, 2) as channel:
        waiters = [in_thread(lambda: channel.poll(20, event_mask=SEMAPHORE_Z)) for _ in range(3)]
        assert channel.poll(event_mask=SEMAPHORE_P)
        assert channel.poll(0, event_mask=SEMAPHORE_Z) is False
        for thread, results in waiters:
            thread.join(0.02)
            assert results == []
        begin = time.monotonic()
        assert channel.poll(event_mask=SEMAPHORE_P)
        for thread, results in waiters:
            thread.join()
            assert results == [True]
        assert time.monotonic() - begin < 0.9
        assert channel.poll(0, event_mask=SEMAPHORE_Z) is True


@pytest.mark.parametrize("event, value", [(SEMAPHORE_P, 0), (SEMAPHORE_Z, 1)])
def test_ctrl_c_ends_a_wait(pool: MemoryPool, event: int, value: int) -> None:
    with make(pool, value) as channel:
        ends_with_interrupt(lambda: channel.poll(event_mask=event))
        assert value_of(channel) == value


@pytest.mark.parametrize("event, value", [(SEMAPHORE_P, 0), (SEMAPHORE_Z, 1)])
def test_who_waits_on_a_semaphore_that_is_destroyed_learns_of_it(
    pool: MemoryPool, event: int, value: int
) -> None:
    channel = make(pool, value)
    other = pickle.loads(pickle.dumps(channel))
    thread, results = in_thread(lambda: other.poll(event_mask=event))
    thread.join(0.05)
    assert results == []
    begin = time.monotonic()
    channel.destroy()
    thread.join()
    assert isinstance(results[0], ChannelDestroyed)
    assert time.monotonic() - begin < 0.9


def test_a_semaphore_has_no_messages(pool: MemoryPool) -> None:
    with make(pool) as channel:
        for handle in [channel.sendh(), channel.recvh()]:
            with pytest.raises(ChannelError, match="semaphore"):
                handle.open()
        for event in [POLLIN, POLLBARRIER, POLLRESET]:
            with pytest.raises(ChannelError, match="semaphore"):
                channel.poll(0, event_mask=event)


def test_a_queue_is_no_semaphore(channel: Channel) -> None:
    for event in [SEMAPHORE_P, SEMAPHORE_V, SEMAPHORE_Z, SEMAPHORE_PEEK]:
        with pytest.raises(ChannelError, match="semaphore"):
            channel.poll(0, event_mask=event, poll_result=PollResult())


def test_asking_for_the_value_needs_a_place_for_it(pool: MemoryPool) -> None:
    with make(pool) as channel, pytest.raises(ValueError):
        channel.poll(0, event_mask=SEMAPHORE_PEEK)


@pytest.mark.parametrize(
    "arguments",
    [
        {"semaphore": True, "bounded_semaphore": True},
        {"semaphore": True, "initial_sem_value": -1},
        {"semaphore": True, "initial_sem_value": "1"},
        {"semaphore": True, "initial_sem_value": MAXIMUM + 1},
    ],
)
def test_a_bad_argument_is_an_error(pool: MemoryPool, arguments: dict[str, Any]) -> None:
    with pytest.raises(ChannelError):
        Channel(pool, 5, **arguments)
    assert pool.current_allocations == 0


@pytest.mark.slow
def test_processes_count_together_and_who_is_killed_keeps_its_unit(
    pool: MemoryPool, processes: Any
) -> None:
    with make(pool, 2) as channel:
        counters = [processes(taker_and_giver, channel.serialize(), 500) for _ in range(3)]
        for process in counters:
            process.join()
            assert process.exitcode == 0
        assert value_of(channel) == 2
        killed = processes(taker_that_dies, channel.serialize())
        killed.join()
        assert value_of(channel) == 1
        assert channel.poll(0, event_mask=SEMAPHORE_P)
        assert channel.poll(20, event_mask=SEMAPHORE_Z)
