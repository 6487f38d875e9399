"""Sets of channels, under plain python3 and under dragon."""

import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from channel_children import set_that_waits
from channel_support import MIB, ends_with_interrupt, in_thread, lets_others_run

from dragon.channels import (
    ADAPTIVE_WAIT,
    IDLE_WAIT,
    POLLBARRIER,
    POLLEMPTY,
    POLLFULL,
    POLLIN,
    POLLINOUT,
    POLLOUT,
    SPIN_WAIT,
    Channel,
    ChannelDestroyed,
    ChannelSet,
    ChannelSetError,
    ChannelSetTimeout,
)
from dragon.managed_memory import MemoryPool


@pytest.fixture
def channels(pool: MemoryPool) -> Iterator[list[Channel]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Channel(pool, number, capacity=2)) for number in range(4)]


@pytest.fixture
def channel_set(pool: MemoryPool, channels: list[Channel]) -> Iterator[ChannelSet]:
    with ChannelSet(pool, channels) as channel_set:
        yield channel_set


def send(channel: Channel, data: bytes = b"") -> None:
    with channel.sendh() as sendh:
        sendh.send_bytes(data, timeout=20)


def receive(channel: Channel) -> bytes:
    with channel.recvh() as recvh:
        return recvh.recv_bytes(timeout=0)


# ---- looking ----


def test_a_set_without_messages_is_a_time_out(channel_set: ChannelSet) -> None:
    with pytest.raises(ChannelSetTimeout) as caught:
        channel_set.poll(0)
    assert isinstance(caught.value, TimeoutError)
    begin = time.monotonic()
    with pytest.raises(ChannelSetTimeout):
        channel_set.poll(0.1)
    assert time.monotonic() - begin > 0.1


def test_a_set_of_no_channels_is_a_time_out(pool: MemoryPool) -> None:
    with ChannelSet(pool, []) as channel_set, pytest.raises(ChannelSetTimeout):
        channel_set.poll(0)


@pytest.mark.parametrize("capture", [False, True])
def test_a_message_sent_before_the_poll_is_reported_until_it_is_taken(
    pool: MemoryPool, channels: list[Channel], capture: bool
) -> None:
    with ChannelSet(pool, channels, capture_all_events=capture) as channel_set:
        send(channels[2])
        for _ in range(3):
            found, event = channel_set.poll(0)
            assert found is channels[2]
            assert event is POLLIN
        receive(channels[2])
        with pytest.raises(ChannelSetTimeout):
            channel_set.poll(0)


def test_a_send_does_not_wait_for_a_poller(
    channels: list[Channel], channel_set: ChannelSet
) -> None:
    for channel in channels:
        send(channel)
    found = set()
    for _ in channels:
        channel, _event = channel_set.poll(0)
        receive(channel)
        found.add(channel.cuid)
    assert found == {0, 1, 2, 3}


def test_channels_take_turns(channels: list[Channel], channel_set: ChannelSet) -> None:
    for channel in channels:
        send(channel)
    found = [channel_set.poll(0)[0].cuid for _ in range(12)]
    assert found == [0, 1, 2, 3] * 3


@pytest.mark.parametrize(
    "mask, n_messages, event",
    [
        (POLLIN, 1, POLLIN),
        (POLLOUT, 1, POLLOUT),
        (POLLEMPTY, 0, POLLEMPTY),
        (POLLFULL, 2, POLLFULL),
        (POLLINOUT, 0, POLLOUT),
        (POLLINOUT, 1, POLLINOUT),
        (POLLINOUT, 2, POLLIN),
        (POLLIN | POLLOUT, 2, POLLIN),
    ],
)
def test_the_event_says_what_holds(
    pool: MemoryPool, channels: list[Channel], mask: int, n_messages: int, event: int
) -> None:
    for _ in range(n_messages):
        send(channels[0])
    with ChannelSet(pool, channels[:1], event_mask=mask) as channel_set:
        assert channel_set.poll(0) == (channels[0], event)


# ---- waiting ----


@pytest.mark.parametrize(
    "mask, before, change",
    [
        (POLLIN, 0, send),
        (POLLFULL, 1, send),
        (POLLOUT, 2, receive),
        (POLLEMPTY, 1, receive),
    ],
)
def test_a_change_ends_a_poll_at_once(
    pool: MemoryPool,
    channels: list[Channel],
    mask: int,
    before: int,
    change: Callable[[Channel], Any],
) -> None:
    for channel in channels:
        for _ in range(before):
            send(channel)
    with ChannelSet(pool, channels, event_mask=mask) as channel_set:
        thread, results = in_thread(channel_set.poll)
        thread.join(0.05)
        assert results == []
        begin = time.monotonic()
        change(channels[3])
        thread.join()
        assert results == [(channels[3], mask)]
        assert time.monotonic() - begin < 0.9


def test_channels_of_several_pools_are_polled_together(
    name: str, pool: MemoryPool, channel: Channel
) -> None:
    with MemoryPool(MIB, name + "b", 8) as other_pool, Channel(other_pool, 9) as other:
        channel_set = ChannelSet(pool, [channel, other])
        found, _event = lets_others_run(lambda: channel_set.poll(20), lambda: send(other))
        assert found is other


def test_two_sets_may_have_the_same_channels(pool: MemoryPool, channels: list[Channel]) -> None:
    sets = [ChannelSet(pool, channels) for _ in range(20)]
    waiters = [in_thread(lambda s=s: s.poll(20)) for s in sets]
    send(channels[1])
    for thread, results in waiters:
        thread.join()
        assert results == [(channels[1], POLLIN)]


def test_nothing_is_lost_between_senders_and_a_poller(
    channels: list[Channel], channel_set: ChannelSet
) -> None:
    n_rounds = 200

    def send_all(channel: Channel) -> None:
        with channel.sendh() as sendh:
            for number in range(n_rounds):
                sendh.send_bytes(b"%d" % number, timeout=20)

    threads = [in_thread(lambda ch=ch: send_all(ch))[0] for ch in channels]
    found: dict[int, list[bytes]] = {channel.cuid: [] for channel in channels}
    for _ in range(n_rounds * len(channels)):
        channel, _event = channel_set.poll(20)
        found[channel.cuid].append(receive(channel))
    for thread in threads:
        thread.join()
    assert list(found.values()) == [[b"%d" % n for n in range(n_rounds)]] * len(channels)


def test_ctrl_c_ends_a_poll(channel_set: ChannelSet) -> None:
    ends_with_interrupt(channel_set.poll)


def test_a_channel_that_is_destroyed_ends_a_poll_and_is_named(
    channels: list[Channel], channel_set: ChannelSet
) -> None:
    thread, results = in_thread(channel_set.poll)
    thread.join(0.05)
    assert results == []
    begin = time.monotonic()
    Channel.attach(channels[2].serialize()).destroy()
    thread.join()
    assert isinstance(results[0], ChannelDestroyed)
    assert "channel 2" in str(results[0])
    assert time.monotonic() - begin < 0.9
    send(channels[0])
    outcomes = []
    for _ in range(4):
        try:
            outcomes.append(channel_set.poll(0)[0].cuid)
        except ChannelDestroyed:
            outcomes.append(-1)
    assert set(outcomes) == {0, -1}


# ---- errors ----


@pytest.mark.parametrize(
    "arguments",
    [
        {"mem_pool": None},
        {"channel_list": [3]},
        {"event_mask": 0},
        {"event_mask": 99},
        {"event_mask": POLLBARRIER},
        {"lock_type": 9},
        {"num_allowed_spin_waiters": -1},
    ],
)
def test_a_bad_argument_is_an_error(pool: MemoryPool, arguments: dict[str, Any]) -> None:
    with pytest.raises(ChannelSetError):
        ChannelSet(**({"mem_pool": pool, "channel_list": []} | arguments))


def test_a_semaphore_or_a_destroyed_channel_cannot_be_in_a_set(pool: MemoryPool) -> None:
    gone = Channel(pool, 1)
    gone.destroy()
    with Channel(pool, 2, semaphore=True) as semaphore:
        for channel in [gone, semaphore]:
            with pytest.raises(ChannelSetError):
                ChannelSet(pool, [channel])
    elsewhere = Channel(pool, 3)
    Channel.attach(elsewhere.serialize()).destroy()
    with pytest.raises(ChannelSetError):
        ChannelSet(pool, [elsewhere])


def test_a_wait_mode_is_one_of_three_objects(
    channels: list[Channel], channel_set: ChannelSet
) -> None:
    send(channels[0])
    for mode in [IDLE_WAIT, SPIN_WAIT, ADAPTIVE_WAIT]:
        assert channel_set.poll(0, mode)[0] is channels[0]
    for wrong in [0, 1, 2, "IDLE_WAIT", None]:
        with pytest.raises(ValueError):
            channel_set.poll(0, wrong)
    for timeout in [-1, "1"]:
        with pytest.raises(ValueError):
            channel_set.poll(timeout)


def test_a_closed_set_and_a_pickled_set_are_errors(
    pool: MemoryPool, channels: list[Channel]
) -> None:
    with ChannelSet(pool, channels) as channel_set, pytest.raises(NotImplementedError):
        pickle.dumps(channel_set)
    with pytest.raises(ChannelSetError):
        channel_set.poll(0)
    channel_set.close()
    assert channels[0].num_msgs == 0


# ---- other processes ----


@pytest.mark.slow
def test_a_poller_that_is_killed_is_in_nobodys_way(
    pool: MemoryPool, channels: list[Channel], processes: Any
) -> None:
    words = [channel.serialize() for channel in channels]
    with Channel(pool, 9) as answers, answers.recvh() as recvh:
        before = pool.current_allocations
        for _ in range(3):
            killed = processes(set_that_waits, words, answers.serialize())
            assert recvh.recv_bytes(timeout=20) == b"waiting"
            killed.kill()
            killed.join()
        assert pool.current_allocations == before
        processes(set_that_waits, words, answers.serialize())
        assert recvh.recv_bytes(timeout=20) == b"waiting"
        send(channels[3])
        assert recvh.recv_bytes(timeout=20) == b"3"
