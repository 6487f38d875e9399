"""Channels that are barriers, under plain python3 and under dragon."""

import gc
import os
import sys
import threading
import time
import weakref
from collections import Counter
from typing import Any

import pytest
from channel_children import BROKEN, party, party_that_dies, receiver_that_waits, waiter_of_barrier
from channel_support import ends_with_interrupt, in_thread

from dragon.channels import (
    POLLBARRIER,
    POLLBARRIER_ABORT,
    POLLBARRIER_ISBROKEN,
    POLLBARRIER_RELEASE,
    POLLBARRIER_WAITERS,
    POLLBLOCKED_RECEIVERS,
    POLLRESET,
    Channel,
    ChannelBarrierBroken,
    ChannelBarrierReady,
    ChannelDestroyed,
    ChannelEmpty,
    ChannelError,
    ChannelRecvTimeout,
    Message,
    PollResult,
    transfer_ownership_on_send,
)
from dragon.managed_memory import MemoryPool

N = 3


@pytest.fixture
def barrier(pool: MemoryPool) -> Any:
    with Channel(pool, 8, capacity=N) as channel:
        yield channel


def index_in(data: bytes) -> int:
    return int.from_bytes(data, sys.byteorder, signed=True)


def arrive_and_receive(channel: Channel, action: Any = None) -> int:
    """What a program does: the index, -1 if the barrier broke while it waited."""
    with channel.recvh() as recvh:
        try:
            assert channel.poll(timeout=20, event_mask=POLLBARRIER)
        except ChannelBarrierReady:
            if action is not None:
                action()
            channel.poll(timeout=0, event_mask=POLLBARRIER_RELEASE)
        return index_in(recvh.recv_bytes(timeout=20))


def start_waiting(channel: Channel, n: int) -> list[tuple[threading.Thread, list[Any]]]:
    """Start parties, and wait until they wait."""
    waiters = [in_thread(lambda: arrive_and_receive(channel)) for _ in range(n)]
    end = time.monotonic() + 20
    while channel.barrier_count < n or channel.blocked_receivers < n:
        assert time.monotonic() < end
        time.sleep(0.001)
    return waiters


def results_of(waiters: list[tuple[threading.Thread, list[Any]]]) -> list[Any]:
    for thread, _results in waiters:
        thread.join()
    return [results[0] for _thread, results in waiters]


# ---- passing ----


def test_all_parties_are_released_with_their_indices(barrier: Channel) -> None:
    order: list[str] = []
    for _ in range(5):
        waiters = start_waiting(barrier, N - 1)
        mine = arrive_and_receive(barrier, lambda: order.append("action"))
        assert sorted([*results_of(waiters), mine]) == list(range(N))
    assert order == ["action"] * 5
    assert (barrier.barrier_count, barrier.blocked_receivers, barrier.num_msgs) == (0, 0, 0)


def test_the_action_is_run_before_anybody_is_released(barrier: Channel) -> None:
    waiters = start_waiting(barrier, N - 1)
    with pytest.raises(ChannelBarrierReady):
        barrier.poll(event_mask=POLLBARRIER)
    for thread, results in waiters:
        thread.join(0.02)
        assert results == []
    late, late_results = in_thread(lambda: barrier.poll(0.05, event_mask=POLLBARRIER))
    late.join()
    assert late_results == [False]  # it may try again when the action is over
    assert barrier.poll(event_mask=POLLBARRIER_RELEASE) is True
    assert sorted(results_of(waiters)) == [0, 1]
    with barrier.recvh() as recvh:
        assert index_in(recvh.recv_bytes(timeout=0)) == 2
        with pytest.raises(ChannelEmpty):
            recvh.recv_bytes(timeout=0)


def test_a_barrier_of_one_party_is_ready_at_once(pool: MemoryPool) -> None:
    with Channel(pool, 8, capacity=1) as channel:
        assert [arrive_and_receive(channel) for _ in range(3)] == [0, 0, 0]


def test_questions_are_answered(barrier: Channel) -> None:
    waiters = start_waiting(barrier, 2)
    result = PollResult()
    assert barrier.poll(event_mask=POLLBARRIER_WAITERS, poll_result=result)
    assert (result.value, barrier.barrier_count) == (2, 2)
    assert barrier.poll(event_mask=POLLBLOCKED_RECEIVERS, poll_result=result)
    assert (result.value, barrier.blocked_receivers) == (2, 2)
    assert barrier.poll(event_mask=POLLBARRIER_ISBROKEN) is False
    assert barrier.broken_barrier is False
    for event in [POLLBARRIER_WAITERS, POLLBLOCKED_RECEIVERS]:
        with pytest.raises(ValueError):
            barrier.poll(event_mask=event)
    arrive_and_receive(barrier)
    results_of(waiters)


def test_a_message_with_the_index_is_as_other_messages(pool: MemoryPool) -> None:
    with Channel(pool, 8, capacity=1) as channel, channel.recvh() as recvh:
        with pytest.raises(ChannelBarrierReady):
            channel.poll(event_mask=POLLBARRIER)
        channel.poll(event_mask=POLLBARRIER_RELEASE)
        with recvh.recv(timeout=0) as message:
            assert index_in(message.tobytes()) == 0
        with channel.sendh() as sendh:  # and it is a queue as ever
            sendh.send_bytes(b"data")
        assert recvh.recv_bytes(timeout=0) == b"data"


# ---- breaking ----


def test_an_abort_tells_all_who_wait_and_all_who_come(barrier: Channel) -> None:
    waiters = start_waiting(barrier, 2)
    begin = time.monotonic()
    assert barrier.poll(event_mask=POLLBARRIER_ABORT) is True
    assert results_of(waiters) == [-1, -1]
    assert time.monotonic() - begin < 0.9
    assert barrier.broken_barrier is True
    assert barrier.barrier_count == 0
    with pytest.raises(ChannelBarrierBroken) as caught:
        barrier.poll(event_mask=POLLBARRIER)
    assert isinstance(caught.value, threading.BrokenBarrierError)
    with pytest.raises(ChannelBarrierBroken):
        barrier.poll(event_mask=POLLBARRIER_RELEASE)


def test_a_reset_repairs(barrier: Channel) -> None:
    waiters = start_waiting(barrier, 2)
    barrier.poll(event_mask=POLLBARRIER_ABORT)
    assert barrier.poll(event_mask=POLLRESET) is True
    assert results_of(waiters) == [-1, -1]  # although they may look only now
    assert barrier.broken_barrier is False
    waiters = start_waiting(barrier, N - 1)
    assert arrive_and_receive(barrier) == N - 1
    assert sorted(results_of(waiters)) == [0, 1]


def test_a_reset_tells_those_who_wait(barrier: Channel) -> None:
    waiters = start_waiting(barrier, 2)
    barrier.poll(event_mask=POLLRESET)
    assert results_of(waiters) == [-1, -1]
    assert barrier.barrier_count == 0


def test_who_gave_up_waiting_leaves_nothing_behind_after_a_reset(barrier: Channel) -> None:
    with barrier.recvh() as recvh:
        assert barrier.poll(event_mask=POLLBARRIER)
        with pytest.raises(ChannelRecvTimeout):
            recvh.recv_bytes(timeout=0.02)
        barrier.poll(event_mask=POLLBARRIER_ABORT)
        barrier.poll(event_mask=POLLRESET)
    waiters = start_waiting(barrier, N - 1)
    assert arrive_and_receive(barrier) == N - 1
    assert sorted(results_of(waiters)) == [0, 1]


def test_an_action_that_fails_breaks_the_barrier_by_an_abort(barrier: Channel) -> None:
    waiters = start_waiting(barrier, N - 1)
    with barrier.recvh() as recvh:
        with pytest.raises(ChannelBarrierReady):
            barrier.poll(event_mask=POLLBARRIER)
        barrier.poll(event_mask=POLLBARRIER_ABORT)
        assert index_in(recvh.recv_bytes(timeout=0)) == -1
        with pytest.raises(ChannelBarrierBroken):
            barrier.poll(event_mask=POLLBARRIER_RELEASE)
    assert results_of(waiters) == [-1, -1]
    barrier.poll(event_mask=POLLRESET)
    waiters = start_waiting(barrier, N - 1)
    assert arrive_and_receive(barrier) == N - 1
    results_of(waiters)


def test_only_who_is_ready_releases(barrier: Channel) -> None:
    with pytest.raises(ChannelError, match="ChannelBarrierReady"):
        barrier.poll(event_mask=POLLBARRIER_RELEASE)


def test_an_object_that_goes_while_its_thread_is_to_release_breaks_the_barrier(
    barrier: Channel,
) -> None:
    waiters = start_waiting(barrier, N - 1)
    other = Channel.attach(barrier.serialize())
    with pytest.raises(ChannelBarrierReady):
        other.poll(event_mask=POLLBARRIER)
    del other
    assert results_of(waiters) == [-1, -1]


def test_a_channel_that_goes_while_another_thread_is_to_release_stays_in_memory(
    pool: MemoryPool,
) -> None:
    is_ready, is_gone = threading.Event(), threading.Event()
    channels = [Channel(pool, 8, capacity=1)]
    used = pool.current_allocations

    def lead() -> bytes:
        try:
            channels[0].poll(event_mask=POLLBARRIER)
        except ChannelBarrierReady:
            is_ready.set()
        is_gone.wait()
        with Channel(pool, 9) as channel, channel.sendh() as sendh, channel.recvh() as recvh:
            sendh.send_bytes(b"this thread locks and unlocks as ever")
            return recvh.recv_bytes()

    thread, results = in_thread(lead)
    is_ready.wait()
    inner = weakref.ref(channels[0]._require())
    channels.pop().destroy()
    gc.collect()
    assert inner() is None
    blocks = [pool.alloc(1000) for _ in range(20)]
    is_gone.set()
    thread.join()
    assert results == [b"this thread locks and unlocks as ever"]
    for block in blocks:
        block.free()
    assert pool.current_allocations == used


def test_a_forked_copy_of_the_one_that_is_to_release_breaks_nothing(barrier: Channel) -> None:
    waiters = start_waiting(barrier, N - 1)
    with pytest.raises(ChannelBarrierReady):
        barrier.poll(event_mask=POLLBARRIER)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with pytest.raises(ChannelError, match="ChannelBarrierReady"):
                barrier.poll(event_mask=POLLBARRIER_RELEASE)
            status = 0
        finally:
            barrier.detach()
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    barrier.poll(event_mask=POLLBARRIER_RELEASE)
    assert sorted(results_of(waiters)) == [0, 1]


def test_destroying_the_channel_ends_all_waits(pool: MemoryPool) -> None:
    channel = Channel(pool, 8, capacity=N)
    waiters = start_waiting(channel, 2)
    begin = time.monotonic()
    Channel.attach(channel.serialize()).destroy()
    for thread, results in waiters:
        thread.join()
        assert isinstance(results[0], ChannelDestroyed)
    assert time.monotonic() - begin < 0.9


def test_ctrl_c_ends_a_wait_and_it_may_be_taken_up_again(barrier: Channel) -> None:
    with barrier.recvh() as recvh:
        barrier.poll(event_mask=POLLBARRIER)
        ends_with_interrupt(recvh.recv_bytes)
        waiters = start_waiting_others(barrier)
        assert index_in(recvh.recv_bytes(timeout=20)) == 0
    assert sorted(results_of(waiters)) == [1, 2]


def test_ctrl_c_ends_the_wait_for_an_action(pool: MemoryPool) -> None:
    is_ready, may_release = threading.Event(), threading.Event()
    with Channel(pool, 8, capacity=1) as channel:

        def action() -> None:
            is_ready.set()
            may_release.wait()

        thread, results = in_thread(lambda: arrive_and_receive(channel, action))
        is_ready.wait()
        ends_with_interrupt(lambda: channel.poll(event_mask=POLLBARRIER))
        may_release.set()
        thread.join()
        assert results == [0]


def start_waiting_others(channel: Channel) -> list[tuple[threading.Thread, list[Any]]]:
    return [in_thread(lambda: arrive_and_receive(channel)) for _ in range(N - 1)]


def test_a_channel_too_large_for_a_barrier_says_so(pool: MemoryPool) -> None:
    with Channel(pool, 8, capacity=2**40) as channel:
        with pytest.raises(ChannelError, match="capacity"):
            channel.poll(event_mask=POLLBARRIER)
        assert channel.poll(event_mask=POLLRESET) is True


# ---- POLLRESET of messages ----


def test_a_reset_frees_the_memory_of_messages(name: str, pool: MemoryPool) -> None:
    short = name[-8:]  # whose blocks' descriptions fit into a message
    with MemoryPool(1 << 20, short, 8) as other, Channel(pool, 8) as channel:
        before = pool.current_allocations
        with channel.sendh() as sendh:
            for size in [0, 10, 10_000]:
                sendh.send_bytes(bytes(size))
            for where in [pool, other]:
                message = Message.create_alloc(where, 1000)
                sendh.send(message, ownership=transfer_ownership_on_send)
        assert (channel.num_msgs, other.current_allocations) == (5, 1)
        assert channel.poll(event_mask=POLLRESET)
        assert channel.num_msgs == 0
        assert (pool.current_allocations, other.current_allocations) == (before, 0)


# ---- processes ----


@pytest.mark.slow
def test_twice_as_many_processes_pass_in_two_generations(
    pool: MemoryPool, barrier: Channel, processes: Any
) -> None:
    with Channel(pool, 9) as answers, answers.recvh() as recvh:
        words = barrier.serialize(), answers.serialize()
        parties = [processes(party, *words) for _ in range(2 * N)]
        indices = [recvh.recv_bytes(timeout=30)[0] for _ in parties]
        for process in parties:
            process.join()
            assert process.exitcode == 0
        assert Counter(indices) == dict.fromkeys(range(N), 2)


@pytest.mark.slow
def test_an_abort_makes_processes_leave_and_a_reset_lets_others_pass(
    pool: MemoryPool, barrier: Channel, processes: Any
) -> None:
    with Channel(pool, 9) as answers:
        words = barrier.serialize(), answers.serialize()
        parties = [processes(party, *words) for _ in range(N - 1)]
        end = time.monotonic() + 20
        while barrier.barrier_count < N - 1:
            assert time.monotonic() < end
            time.sleep(0.01)
        barrier.poll(event_mask=POLLBARRIER_ABORT)
        parties.append(processes(party, *words))
        for process in parties:
            process.join()
            assert process.exitcode == BROKEN
        barrier.poll(event_mask=POLLRESET)
        parties = [processes(party, *words) for _ in range(N)]
        for process in parties:
            process.join()
            assert process.exitcode == 0


@pytest.mark.slow
def test_a_party_that_is_killed_while_it_waits_counts_as_arrived(
    pool: MemoryPool, barrier: Channel, processes: Any
) -> None:
    with Channel(pool, 9) as answers, answers.recvh() as recvh:
        killed = processes(party_that_dies, barrier.serialize(), answers.serialize())
        assert recvh.recv_bytes(timeout=20) == b"arrived"
        killed.join()
        waiters = start_waiting_one_more(barrier)
        assert arrive_and_receive(barrier) == N - 1
        assert results_of(waiters) == [1]
        waiters = start_waiting(barrier, N - 1)  # and the next generation is whole
        assert arrive_and_receive(barrier) == N - 1
        assert sorted(results_of(waiters)) == [0, 1]


def start_waiting_one_more(channel: Channel) -> list[tuple[threading.Thread, list[Any]]]:
    waiters = [in_thread(lambda: arrive_and_receive(channel))]
    end = time.monotonic() + 20
    while channel.barrier_count < 2:
        assert time.monotonic() < end
        time.sleep(0.001)
    return waiters


@pytest.mark.slow
def test_who_is_killed_instead_of_releasing_breaks_the_barrier(
    pool: MemoryPool, barrier: Channel, processes: Any
) -> None:
    with Channel(pool, 9) as answers, answers.recvh() as recvh:
        waiters = start_waiting(barrier, N - 1)
        killed = processes(party_that_dies, barrier.serialize(), answers.serialize())
        assert recvh.recv_bytes(timeout=20) == b"ready"
        begin = time.monotonic()
        assert results_of(waiters) == [-1, -1]
        assert time.monotonic() - begin < 2
        killed.join()
        with pytest.raises(ChannelBarrierBroken):
            barrier.poll(event_mask=POLLBARRIER)
        barrier.poll(event_mask=POLLRESET)
        waiters = start_waiting(barrier, N - 1)
        assert arrive_and_receive(barrier) == N - 1
        assert sorted(results_of(waiters)) == [0, 1]


@pytest.mark.slow
def test_parties_in_other_processes_are_told_of_a_reset(
    pool: MemoryPool, barrier: Channel, processes: Any
) -> None:
    with Channel(pool, 9) as answers, answers.recvh() as recvh:
        processes(waiter_of_barrier, barrier.serialize(), answers.serialize())
        assert recvh.recv_bytes(timeout=20) == b"arrived"
        barrier.poll(event_mask=POLLRESET)
        assert index_in(recvh.recv_bytes(timeout=20)) == -1


@pytest.mark.slow
def test_a_receiver_that_is_killed_is_not_counted_as_blocked(
    channel: Channel, processes: Any
) -> None:
    receiver = processes(receiver_that_waits, channel)
    end = time.monotonic() + 20
    while channel.blocked_receivers == 0:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert channel.blocked_receivers == 1
    receiver.kill()
    receiver.join()
    assert channel.blocked_receivers == 0
