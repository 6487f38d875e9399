"""dragon.channels, under plain python3 and under dragon."""

import gc
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from channel_support import MIB, SHM, in_thread, lets_others_run

import dragon.dtypes
from dragon import channels
from dragon.channels import (
    ADAPTIVE_WAIT,
    BUF_READ,
    BUF_WRITE,
    GREEDY,
    IDLE_WAIT,
    MASQUERADE_AS_REMOTE,
    MSGS_FLOW_CONTROL,
    NO_FLAGS,
    POLLEMPTY,
    POLLFULL,
    POLLIN,
    POLLINOUT,
    POLLOUT,
    POLLSIZE,
    Channel,
    ChannelBarrierBroken,
    ChannelDestroyed,
    ChannelEmpty,
    ChannelError,
    ChannelFlags,
    ChannelFull,
    ChannelHandleNotOpenError,
    ChannelRecvError,
    ChannelRecvH,
    ChannelRecvTimeout,
    ChannelRemoteOperationNotSupported,
    ChannelSendError,
    ChannelSendH,
    ChannelSendTimeout,
    ChannelSetError,
    ChannelSetTimeout,
    ChannelTimeout,
    ChannelValueError,
    EventType,
    FlowControl,
    LockType,
    Message,
    OwnershipOnSend,
    PollResult,
    discard_gateways,
    register_gateways_from_env,
    transfer_ownership_on_send,
)
from dragon.dtypes import (
    RECV_SYNC_MANUAL,
    RECV_SYNC_SIGNAL,
    DragonException,
    DragonObjectDestroyed,
)
from dragon.managed_memory import MemoryAlloc, MemoryPool

SIZES = [0, 1, 8, 79, 80, 81, 1000, 70_000]  # 80 bytes travel in the channel itself


# ---- making ----


def test_a_new_channel_is_empty_and_knows_itself(pool: MemoryPool, channel: Channel) -> None:
    assert (channel.cuid, channel.capacity, channel.block_size) == (3, 100, 1024)
    assert (channel.num_msgs, channel.is_local) == (0, True)
    assert channel.get_pool() is pool


@pytest.mark.parametrize(
    "arguments, kind",
    [
        ({"block_size": 10}, ChannelError),
        ({"block_size": "1024"}, ChannelError),
        ({"capacity": 0}, ChannelError),
        ({"capacity": 2**64}, ChannelError),
        ({"lock_type": 3}, ChannelError),
        ({"lock_type": "FIFO"}, ChannelError),
        ({"fc_type": 4}, ChannelError),
        ({"flags": 2}, ChannelError),
        ({"flags": "x"}, ChannelError),
        ({"flags": MASQUERADE_AS_REMOTE}, NotImplementedError),
        ({"max_spinners": -1}, ChannelError),
        ({"max_event_bcasts": "8"}, ChannelError),
        ({"def_alloc_pool": 3}, ChannelError),
        ({"c_uid": -1}, OverflowError),
        ({"c_uid": 2**64}, OverflowError),
        ({"c_uid": "1"}, TypeError),
        ({"mem_pool": None}, ChannelError),
    ],
)
def test_a_bad_argument_is_an_error(
    pool: MemoryPool, arguments: dict[str, Any], kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        Channel(**({"mem_pool": pool, "c_uid": 5} | arguments))
    assert pool.current_allocations == 0


def test_a_channel_keeps_what_it_was_made_with(pool: MemoryPool) -> None:
    arguments = (pool, 9, 2048, 5, GREEDY, MSGS_FLOW_CONTROL, NO_FLAGS, pool, 3, 4)
    with Channel(*arguments) as channel, pickle.loads(pickle.dumps(channel)) as other:
        for same in [channel, other]:
            assert (same.block_size, same.capacity) == (2048, 5)
            assert same.lock_type is LockType.GREEDY
            assert same.fc_type is FlowControl.MSGS_FLOW_CONTROL
    with Channel(pool, 9) as channel:
        assert channel.lock_type is LockType.LITE
        assert channel.fc_type is FlowControl.NO_FLOW_CONTROL
        assert channel.default_alloc_pool is pool


def test_names_have_the_numbers_that_programs_know() -> None:
    numbers = dict.fromkeys(range(20))
    del numbers[8]
    assert [event.value for event in EventType] == list(numbers)
    assert (EventType.POLLBARRIER, EventType.SEMAPHORE_PEEK) == (9, 18)
    assert POLLIN | POLLOUT == POLLINOUT
    for kind in [EventType, LockType, FlowControl, ChannelFlags, OwnershipOnSend]:
        for member in kind:
            assert getattr(channels, member.name) is member
    for name in channels.__all__:
        assert hasattr(channels, name)
    assert (BUF_READ, BUF_WRITE) == (0x100, 0x200)


def test_a_channel_needs_arguments() -> None:
    with pytest.raises(TypeError):
        Channel()  # type: ignore[call-arg]


def test_a_number_is_used_once_at_a_time(pool: MemoryPool, channel: Channel) -> None:
    with pytest.raises(ChannelError, match="number 3"):
        Channel(pool, 3)
    for _ in range(10):
        Channel(pool, 0).destroy()


def test_a_destroyed_channel_leaves_nothing_in_its_pool(pool: MemoryPool) -> None:
    channel = Channel(pool, 4)
    with channel.sendh() as sendh:
        for size in SIZES:
            sendh.send_bytes(bytes(size))
        other = Message.create_alloc(pool, 10)
        sendh.send(other, ownership=transfer_ownership_on_send)
    channel.destroy()
    assert (pool.current_allocations, pool.free_space) == (0, pool.size)


def test_a_channel_that_does_not_fit_is_an_error(name: str) -> None:
    with MemoryPool(65536, name, 7) as pool:
        blocks = []
        while pool.free_space > 8192:
            blocks.append(pool.alloc(8000))
        with pytest.raises(ChannelError):
            for i in range(100):
                blocks.append(Channel(pool, i))


# ---- bytes ----


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_arrive_as_they_were_sent(channel: Channel, size: int, kind: Any) -> None:
    data = random.Random(size).randbytes(size)
    with channel.sendh() as sendh, channel.recvh() as recvh:
        sendh.send_bytes(kind(data))
        assert channel.num_msgs == 1
        got = recvh.recv_bytes()
    assert (type(got), got) == (bytes, data)
    assert channel.num_msgs == 0


def test_a_part_of_the_bytes_is_sent(channel: Channel) -> None:
    with channel.sendh() as sendh, channel.recvh() as recvh:
        sendh.send_bytes(bytearray(b"0123456789"), 4)
        assert recvh.recv_bytes() == b"0123"
        with pytest.raises(ValueError):
            sendh.send_bytes(b"0123", 5)
        with pytest.raises(ValueError):
            sendh.send_bytes(b"0123", -1)


def test_messages_arrive_in_order(channel: Channel) -> None:
    with channel.sendh() as sendh, channel.recvh() as recvh:
        for i in range(100):
            sendh.send_bytes(b"%d" % i)
        assert [recvh.recv_bytes() for _ in range(100)] == [b"%d" % i for i in range(100)]


def test_received_bytes_leave_nothing_in_the_pool(pool: MemoryPool, channel: Channel) -> None:
    before = pool.current_allocations
    with channel.sendh() as sendh, channel.recvh() as recvh:
        for size in SIZES:
            sendh.send_bytes(bytes(size))
            recvh.recv_bytes()
    assert pool.current_allocations == before


def test_bytes_may_lie_in_another_pool_than_the_channel(name: str, channel: Channel) -> None:
    with (
        MemoryPool(MIB, name[-8:], 8) as other,
        Channel.attach(channel.serialize(), other) as sender,
        pickle.loads(pickle.dumps(sender)) as copy,
        channel.recvh() as recvh,
    ):
        assert sender.default_alloc_pool is other
        assert copy.default_alloc_pool.muid == 8
        assert channel.default_alloc_pool is not other
        for channel_of in [sender, copy]:
            for size in SIZES:
                with channel_of.sendh() as sendh:
                    sendh.send_bytes(b"x" * size, timeout=1)
                assert other.current_allocations == (size > 80)
                assert recvh.recv_bytes(timeout=0) == b"x" * size
                assert other.current_allocations == 0


def test_bytes_that_do_not_fit_into_the_other_pool_are_an_error(
    name: str, pool: MemoryPool
) -> None:
    with (
        MemoryPool(MIB, name[-8:], 8) as other,
        Channel(pool, 9, 1024, 1) as channel,
        Channel.attach(channel.serialize(), other) as sender,
        sender.sendh() as sendh,
    ):
        with pytest.raises(ChannelSendError):
            sendh.send_bytes(bytes(2 * MIB))
        kept = other.alloc(other.free_space - 100_000)
        with pytest.raises(ChannelSendTimeout):
            sendh.send_bytes(bytes(200_000), timeout=0.05)
        kept.free()
        sendh.send_bytes(b"")
        for timeout, kind in [(0, ChannelFull), (0.05, ChannelSendTimeout)]:
            with pytest.raises(kind):
                sendh.send_bytes(bytes(1000), timeout=timeout)
        assert other.current_allocations == 0


# ---- messages ----


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("transfer", [False, True])
def test_a_message_arrives_with_its_numbers(
    pool: MemoryPool, channel: Channel, size: int, transfer: bool
) -> None:
    before = pool.current_allocations
    data = random.Random(size).randbytes(size)
    msg = Message.create_alloc(pool, size, hints=5, clientid=2**64 - 1)
    with msg.bytes_memview() as view:
        view[:] = data
    with channel.sendh() as sendh, channel.recvh() as recvh:
        sendh.send(msg, ownership=transfer_ownership_on_send if transfer else 0)
        got = recvh.recv()
    assert (got.tobytes(), got.hints, got.clientid) == (data, 5, 2**64 - 1)
    got.destroy()
    if not transfer:
        assert msg.tobytes() == data
        msg.destroy()
    with pytest.raises(ChannelError):
        msg.bytes_memview()
    assert pool.current_allocations == before


def test_transferred_memory_is_not_copied(pool: MemoryPool, channel: Channel) -> None:
    block = pool.alloc(100_000)
    place = block.id
    with channel.sendh() as sendh, channel.recvh() as recvh:
        sendh.send(Message.create_from_mem(block), ownership=transfer_ownership_on_send)
        got = recvh.recv()
    assert isinstance(got._memory, MemoryAlloc)
    assert got._memory.id == place
    got.destroy()


def test_memory_that_is_viewed_is_copied_rather_than_given_away(
    pool: MemoryPool, channel: Channel
) -> None:
    before = pool.current_allocations
    msg = Message.create_alloc(pool, 1000)
    view = msg.bytes_memview()
    view[:5] = b"hello"
    with channel.sendh() as sendh, channel.recvh() as recvh:
        sendh.send(msg, ownership=transfer_ownership_on_send)
        view[:5] = b"xxxxx"
        with recvh.recv() as got:
            assert got.tobytes()[:5] == b"hello"
    del view
    assert pool.current_allocations == before


def test_memory_of_another_pool_is_transferred(name: str, channel: Channel) -> None:
    with MemoryPool(MIB, name + "b", 8) as other:
        block = other.alloc(100_000)
        block.get_memview()[:3] = b"abc"
        msg = Message.create_from_mem(block, hints=9)
        with channel.sendh() as sendh, channel.recvh() as recvh:
            sendh.send(msg, ownership=transfer_ownership_on_send)
            got = recvh.recv()
            assert (got.tobytes()[:3], got.hints) == (b"abc", 9)
            got.destroy()
            assert other.current_allocations == 0
            sendh.send(Message.create_alloc(other, 10), ownership=transfer_ownership_on_send)
        channel.destroy()
        assert other.current_allocations == 0


def test_a_message_that_did_not_go_is_still_the_senders(pool: MemoryPool) -> None:
    with Channel(pool, 9, capacity=1) as channel, channel.sendh() as sendh:
        sendh.send_bytes(b"")
        msg = Message.create_alloc(pool, 1000)
        with pytest.raises(ChannelFull):
            sendh.send(msg, ownership=transfer_ownership_on_send, blocking=False)
        assert len(msg.tobytes()) == 1000
        msg.destroy()


@pytest.mark.parametrize("size", [0, 500])
def test_a_message_is_copied_into_a_landing_pad(
    pool: MemoryPool, channel: Channel, size: int
) -> None:
    before = pool.current_allocations
    msg, pad = Message.create_alloc(pool, 500), Message.create_alloc(pool, size)
    with msg.bytes_memview() as view:
        view[:] = b"m" * 500
    with channel.sendh() as sendh, channel.recvh() as recvh:
        sendh.send(msg, pad)
        with recvh.recv() as got:
            assert got.tobytes() == b"m" * 500
    msg.destroy()
    assert pool.current_allocations == before


def test_a_message_is_received_into_memory_of_the_receiver(
    pool: MemoryPool, channel: Channel
) -> None:
    target = Message.create_alloc(pool, 10)
    with channel.sendh() as sendh, channel.recvh() as recvh:
        sendh.send_bytes(b"abc")
        assert recvh.recv(target) is target
        assert target.tobytes() == b"abc"
        sendh.send_bytes(b"longer than that")
        with pytest.raises(ChannelRecvError, match="do not fit"):
            recvh.recv(target)
        sendh.send_bytes(b"anything")
        assert recvh.recv(Message.create_empty()).tobytes() == b"anything"
    target.destroy()


def test_a_destroyed_message_has_no_memory(pool: MemoryPool) -> None:
    msg = Message.create_alloc(pool, 10)
    msg.clear_payload()
    assert msg.tobytes() == bytes(10)
    msg.destroy()
    uses: list[Callable[[], Any]] = [msg.destroy, msg.bytes_memview, msg.tobytes, msg.clear_payload]
    for use in uses:
        with pytest.raises(ChannelError):
            use()
    with pytest.raises(OverflowError):
        Message.create_alloc(pool, -1)
    with pytest.raises(ChannelError):
        Message.create_alloc(pool, 1, hints=-1)
    with pytest.raises(ChannelError):
        Message.create_alloc(pool, 2**40)


def test_a_view_of_a_destroyed_message_does_not_show_it_any_more(
    pool: MemoryPool, channel: Channel
) -> None:
    with channel.sendh() as sendh, channel.recvh() as recvh:
        for size in [10, 10_000]:
            msg = Message.create_alloc(pool, size)
            msg.bytes_memview()[:5] = b"hello"
            sendh.send(msg)
            sendh.send(msg)  # a copy may be sent again and again
            msg.destroy()
            for _ in range(2):
                got = recvh.recv()
                view = got.bytes_memview()
                assert bytes(view[:5]) == b"hello"
                got.destroy(free_mem=True)
                assert size == 10 or bytes(view[:5]) != b"hello"


def test_no_room_for_a_copy_is_an_error_and_nothing_was_sent(
    pool: MemoryPool, channel: Channel
) -> None:
    says = r"channel 3: .* does not fit into the pool"
    with channel.sendh() as sendh, pytest.raises(ChannelSendError, match=says):
        sendh.send_bytes(bytes(8 * MIB))
    assert channel.num_msgs == 0


def test_only_messages_are_sent_as_messages(channel: Channel) -> None:
    empty = Message.create_empty()
    with channel.sendh() as sendh:
        for words in [(None,), (b"bytes",), (empty, b"bytes")]:
            with pytest.raises(TypeError, match=r"must be a Message, not .*; send_bytes"):
                sendh.send(*words)
    assert channel.num_msgs == 0


# ---- waiting ----


def test_a_handle_is_to_be_opened(channel: Channel) -> None:
    with pytest.raises(ChannelHandleNotOpenError, match=r"RecvH of channel 3 .* open\(\)"):
        channel.recvh().recv(timeout=1)
    with pytest.raises(ChannelHandleNotOpenError, match=r"SendH of channel 3 .* open\(\)"):
        channel.sendh().send_bytes(b"x")
    with pytest.raises(ChannelHandleNotOpenError, match=r"SendH of channel 3 .* open\(\)"):
        channel.sendh().close()
    with pytest.raises(NotImplementedError):
        pickle.dumps(channel.sendh())


@pytest.mark.parametrize("mode", [IDLE_WAIT, 1, "2", "SPIN_WAIT", ADAPTIVE_WAIT])
def test_a_mode_is_an_object_a_number_or_a_name(channel: Channel, mode: Any) -> None:
    with channel.sendh("WHEN_DEPOSITED", mode) as sendh, channel.recvh(wait_mode=mode) as recvh:
        sendh.send_bytes(b"x")
        assert channel.poll(0, mode)
        assert recvh.recv_bytes() == b"x"


@pytest.mark.parametrize("mode", [3, -1, "3", "WHENEVER", None, 1.5])
def test_a_mode_that_does_not_exist_is_a_value_error(channel: Channel, mode: Any) -> None:
    for use in [
        lambda: channel.sendh(wait_mode=mode),
        lambda: channel.recvh(wait_mode=mode),
        lambda: channel.poll(0, mode),
        lambda: channel.recvh(mode),
    ]:
        with pytest.raises(ValueError):
            use()
    with pytest.raises(ValueError):
        channel.sendh(4 if str(mode) == "3" else mode)


def test_messages_are_not_told_by_signals(channel: Channel) -> None:
    assert channel.recvh(RECV_SYNC_MANUAL, None)
    with pytest.raises(NotImplementedError):
        channel.recvh(RECV_SYNC_SIGNAL, signal.SIGUSR1)
    with pytest.raises(ValueError):
        channel.recvh(signal=signal.SIGUSR1)


def test_a_handle_is_opened_once_at_a_time(channel: Channel) -> None:
    for handle in [channel.sendh(), channel.recvh()]:
        for _ in range(2):
            with handle, pytest.raises(ChannelError, match="of channel 3 is open already"):
                handle.open()
    for kind in [ChannelSendH, ChannelRecvH]:
        with pytest.raises(ChannelError):
            kind(None)


def test_other_threads_run_while_one_waits(pool: MemoryPool) -> None:
    with (
        Channel(pool, 9, capacity=1) as channel,
        channel.sendh() as sendh,
        channel.recvh() as recvh,
    ):
        send, receive = lambda: sendh.send_bytes(b"x"), recvh.recv_bytes
        assert lets_others_run(receive, send) == b"x"
        assert lets_others_run(channel.poll, send) is True
        assert lets_others_run(send, receive) is None
        assert lets_others_run(lambda: channel.poll(event_mask=POLLEMPTY), receive) is True


def test_time_outs_of_a_receive(channel: Channel) -> None:
    with channel.recvh(timeout=0.05) as recvh:
        for arguments in [{"timeout": 0}, {"blocking": False}]:
            with pytest.raises(ChannelEmpty):
                recvh.recv(**arguments)
        for arguments in [{}, {"timeout": 0.05}]:
            begin = time.monotonic()
            with pytest.raises(ChannelRecvTimeout):
                recvh.recv_bytes(**arguments)
            assert time.monotonic() - begin >= 0.05
        with pytest.raises(ValueError):
            recvh.recv(timeout=-1)
    with pytest.raises(ValueError):
        channel.recvh(timeout=-1)


def test_time_outs_of_a_send(pool: MemoryPool) -> None:
    n = 0
    with Channel(pool, 9, capacity=7) as channel, channel.sendh() as sendh:
        with pytest.raises(ChannelFull) as caught:
            while True:
                sendh.send_bytes(b"x", timeout=0)
                n += 1
        assert isinstance(caught.value, TimeoutError)
        assert (n, channel.num_msgs) == (7, 7)
        with pytest.raises(ChannelSendTimeout):
            sendh.send_bytes(b"x", timeout=0.05)
        with pytest.raises(ChannelFull):
            sendh.send_bytes(b"x", blocking=False)


def test_a_send_wakes_a_receive_and_a_receive_a_send(pool: MemoryPool) -> None:
    with Channel(pool, 9, capacity=1) as channel:
        recvh, sendh = channel.recvh(), channel.sendh()
        recvh.open()
        sendh.open()
        thread, results = in_thread(lambda: [recvh.recv_bytes(timeout=20) for _ in range(200)])
        for i in range(200):
            sendh.send_bytes(b"%d" % i, timeout=20)
        thread.join()
        assert results == [[b"%d" % i for i in range(200)]]


@pytest.mark.parametrize(
    "wait, n_messages",
    [
        (lambda ch: ch.recvh().__enter__().recv_bytes(), 0),
        (lambda ch: ch.sendh().__enter__().send_bytes(b"x"), 1),
        (lambda ch: ch.poll(), 0),
        (lambda ch: ch.poll(event_mask=POLLEMPTY), 1),
    ],
)
def test_who_waits_on_a_channel_that_is_destroyed_learns_of_it(
    pool: MemoryPool, wait: Callable[[Channel], Any], n_messages: int
) -> None:
    channel = Channel(pool, 9, capacity=1)
    other = Channel.attach(channel.serialize())
    with channel.sendh() as sendh:
        for _ in range(n_messages):
            sendh.send_bytes(b"")
    thread, results = in_thread(lambda: wait(other))
    thread.join(0.05)
    assert results == []
    begin = time.monotonic()
    channel.destroy()
    thread.join()
    assert isinstance(results[0], ChannelDestroyed) or n_messages
    assert results and time.monotonic() - begin < 0.9


@pytest.mark.parametrize(
    "wait",
    [
        lambda ch: ch.recvh().__enter__().recv_bytes(),
        lambda ch: ch.sendh().__enter__().send_bytes(bytes(1000)),
        lambda ch: ch.poll(event_mask=POLLFULL if ch.num_msgs == 0 else POLLEMPTY),
        lambda ch: ch.get_pool().alloc_blocking(3 * MIB),
    ],
)
@pytest.mark.parametrize("n_messages", [0, 1])
def test_a_signal_handler_that_raises_ends_a_wait(
    pool: MemoryPool, wait: Callable[[Channel], Any], n_messages: int
) -> None:
    class AlarmError(Exception):
        pass

    def handle(number: int, frame: object) -> None:
        raise AlarmError

    kept = pool.alloc(3 * MIB)
    with Channel(pool, 9, capacity=1) as channel, channel.sendh() as sendh:
        for _ in range(n_messages):
            sendh.send_bytes(b"")
        before = signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        try:
            with pytest.raises(AlarmError):
                wait(channel)
                wait(channel)  # the other kind of wait was over at once
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert channel.num_msgs <= 1
    kept.free()
    assert pool.current_allocations == 0


# ---- polling ----


def test_poll_says_what_the_channel_says(pool: MemoryPool) -> None:
    masks = [POLLIN, POLLOUT, POLLINOUT, POLLEMPTY, POLLFULL]
    with Channel(pool, 9, capacity=2) as channel, channel.sendh() as sendh:
        assert [channel.poll(0, event_mask=m) for m in masks] == [False, True, True, True, False]
        sendh.send_bytes(b"")
        assert [channel.poll(0, event_mask=m) for m in masks] == [True, True, True, False, False]
        sendh.send_bytes(b"")
        assert [channel.poll(0, event_mask=m) for m in masks] == [True, False, True, False, True]
        assert channel.poll(0, event_mask=POLLIN | POLLOUT) is True


def test_a_wrong_argument_of_a_receive_costs_no_message(channel: Channel) -> None:
    with channel.sendh() as sendh, channel.recvh() as recvh:
        sendh.send_bytes(b"kept")
        with pytest.raises(TypeError, match="dest_msg must be a Message, not bytearray"):
            recvh.recv(bytearray(10), timeout=0)
        assert recvh.recv_bytes(timeout=0) == b"kept"


@pytest.mark.parametrize(
    "arguments",
    [(), (b"x", 0, 0), (b"x", 0, 0, 0, 0), ("x", 0, 0, 0), (b"x", "0", 0, 0), (b"x", 0, None, 0)],
)
def test_wrong_arguments_of_a_send_in_c_send_nothing(
    channel: Channel, arguments: tuple[Any, ...]
) -> None:
    with pytest.raises(TypeError):
        channel._require().send(*arguments)
    assert channel.num_msgs == 0


def test_a_message_keeps_the_largest_words(channel: Channel, pool: MemoryPool) -> None:
    largest = 2**64 - 1
    with channel.sendh() as sendh, channel.recvh() as recvh:
        sendh.send(Message.create_alloc(pool, 3, hints=largest, clientid=largest))
        message = recvh.recv(timeout=0)
        assert (message.hints, message.clientid) == (largest, largest)
        message.destroy()


def test_a_wrong_argument_of_a_message_costs_no_memory(pool: MemoryPool) -> None:
    for arguments in ((pool, 10, -1), (pool, 10, 0, 2**64), (pool, 10, "x")):
        with pytest.raises(ChannelError):
            Message.create_alloc(*arguments)
    with pytest.raises(TypeError, match="nbytes must be int"):
        Message.create_alloc(pool, "10")
    with pytest.raises(TypeError, match="mpool must be MemoryPool"):
        Message.create_alloc("pool", 10)
    with pytest.raises(TypeError, match="mem must be MemoryAlloc, not int"):
        Message.create_from_mem(5)
    assert pool.current_allocations == 0


def test_a_number_of_bytes_to_send_is_an_int(channel: Channel) -> None:
    with channel.sendh() as sendh, pytest.raises(TypeError, match="msg_len must be int"):
        sendh.send_bytes(b"abc", msg_len="2")


def test_poll_size_gives_the_number(channel: Channel) -> None:
    result = PollResult()
    with channel.sendh() as sendh:
        sendh.send_bytes(b"")
        sendh.send_bytes(b"")
    assert channel.poll(event_mask=POLLSIZE, poll_result=result)
    assert (result.value, result.rc) == (2, 0)
    with pytest.raises(ValueError):
        channel.poll(event_mask=POLLSIZE)


@pytest.mark.parametrize(
    "arguments",
    [{"timeout": -1}, {"timeout": "1"}, {"event_mask": 0}, {"event_mask": -1}, {"event_mask": 99}],
)
def test_a_bad_argument_of_poll_is_a_value_error(
    channel: Channel, arguments: dict[str, Any]
) -> None:
    with pytest.raises(ValueError):
        channel.poll(**arguments)


def test_a_poll_lasts_as_long_as_it_is_to(channel: Channel) -> None:
    begin = time.monotonic()
    assert channel.poll(0.1) is False
    assert time.monotonic() - begin > 0.1


@pytest.mark.parametrize(
    "mask, before, change",
    [
        (POLLIN, 0, lambda ch: ch.sendh().__enter__().send_bytes(b"")),
        (POLLFULL, 1, lambda ch: ch.sendh().__enter__().send_bytes(b"")),
        (POLLOUT, 2, lambda ch: ch.recvh().__enter__().recv_bytes()),
        (POLLEMPTY, 1, lambda ch: ch.recvh().__enter__().recv_bytes()),
    ],
)
def test_a_change_wakes_all_who_poll_for_it(
    pool: MemoryPool, mask: int, before: int, change: Callable[[Channel], Any]
) -> None:
    with Channel(pool, 9, capacity=2) as channel, channel.sendh() as sendh:
        for _ in range(before):
            sendh.send_bytes(b"")
        pollers = [in_thread(lambda: channel.poll(event_mask=mask)) for _ in range(3)]
        for thread, results in pollers:
            thread.join(0.03)
            assert results == []
        begin = time.monotonic()
        change(channel)
        for thread, results in pollers:
            thread.join()
            assert results == [True]
        assert time.monotonic() - begin < 0.9


# ---- descriptions ----


@pytest.mark.parametrize(
    "pass_on",
    [
        lambda ch: Channel.attach(ch.serialize()),
        lambda ch: Channel.attach(bytearray(ch.serialize()), ch.get_pool()),
        lambda ch: pickle.loads(pickle.dumps(ch)),
    ],
)
def test_an_attached_channel_is_the_same_channel(channel: Channel, pass_on: Any) -> None:
    with pass_on(channel) as other:
        assert (other.cuid, other.capacity, other.block_size) == (3, 100, 1024)
        with channel.sendh() as sendh, other.recvh() as recvh:
            sendh.send_bytes(bytes(1000))
            assert recvh.recv_bytes() == bytes(1000)
    assert channel.num_msgs == 0


def test_a_description_tells_numbers_and_name(name: str, channel: Channel) -> None:
    words = channel.serialize()
    assert Channel.serialized_uid(words) == 3
    assert Channel.serialized_pool_uid_fname(words) == (7, f"/D{name}M")


def test_a_detached_channel_can_still_be_described(channel: Channel) -> None:
    other = Channel.attach(channel.serialize())
    other.detach(serialize=True)
    with pytest.raises(ChannelError):
        other.poll(0)
    assert Channel.attach(other.serialize()).cuid == 3


def test_a_destroyed_channel_is_gone(pool: MemoryPool) -> None:
    channel = Channel(pool, 9)
    words, other = channel.serialize(), pickle.loads(pickle.dumps(channel))
    channel.destroy()
    for use in [channel.destroy, channel.serialize, channel.detach, other.destroy, other.poll]:
        with pytest.raises(ChannelError):
            use()
    with pytest.raises(ChannelDestroyed):
        Channel.attach(words)
    with pytest.raises(ChannelDestroyed):
        other.sendh().__enter__().send_bytes(b"")
    with pytest.raises(ChannelDestroyed):
        _ = other.num_msgs


@pytest.mark.parametrize("words", [b"", b"x", b"\0" * 32, b"\0" * 80, b"\xff" * 80])
def test_bytes_that_describe_no_channel_are_an_error(words: bytes) -> None:
    with pytest.raises(ChannelError):
        Channel.attach(words)


def test_no_change_of_a_description_leads_anywhere_else(channel: Channel) -> None:
    words = channel.serialize()
    for at in range(len(words)):
        for change in [0x01, 0x80, 0xFF]:
            changed = bytearray(words)
            changed[at] ^= change
            with pytest.raises(ChannelError):
                Channel.attach(bytes(changed))


def test_public_types_are_at_home_in_the_public_module() -> None:
    for name in channels.__all__:
        public = getattr(channels, name)
        if isinstance(public, type):
            assert (public.__module__, public.__qualname__) == ("dragon.channels", name)
            assert pickle.loads(pickle.dumps(public)) is public


@pytest.mark.parametrize("name", [n for n in channels.__all__ if n not in dir(dragon.dtypes)])
def test_every_error_can_be_pickled(name: str) -> None:
    kind = getattr(channels, name)
    if isinstance(kind, type) and issubclass(kind, Exception):
        copy = pickle.loads(pickle.dumps(kind("what", 5)))
        assert (type(copy), copy.msg, copy.lib_err) == (kind, "what", 5)
        assert isinstance(copy, DragonException)


@pytest.mark.parametrize(
    "kind, bases",
    [
        (ChannelTimeout, (ChannelError, TimeoutError)),
        (ChannelSendTimeout, (ChannelSendError, TimeoutError)),
        (ChannelFull, (ChannelSendError, TimeoutError)),
        (ChannelRecvTimeout, (ChannelRecvError, TimeoutError)),
        (ChannelEmpty, (ChannelRecvError, TimeoutError)),
        (ChannelValueError, (ChannelError, ValueError)),
        (ChannelBarrierBroken, (ChannelError, threading.BrokenBarrierError)),
        (ChannelDestroyed, (ChannelError, DragonObjectDestroyed)),
        (ChannelSetTimeout, (ChannelSetError, TimeoutError)),
    ],
)
def test_an_error_is_what_programs_expect(
    kind: type[Exception], bases: tuple[type[Exception], ...]
) -> None:
    for base in bases:
        assert issubclass(kind, base)


def test_errors_can_be_pickled(channel: Channel) -> None:
    with channel.recvh() as recvh, pytest.raises(ChannelEmpty) as caught:
        recvh.recv(timeout=0)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (type(copy), str(copy)) == (ChannelEmpty, str(caught.value))
    assert "DRAGON_CHANNEL_EMPTY" in str(copy)


def test_of_two_threads_that_destroy_a_channel_one_succeeds(pool: MemoryPool) -> None:
    for number in range(50):
        channel = Channel(pool, number)
        other = Channel.attach(channel.serialize())
        with channel.sendh() as sendh:
            for size in [10, 1000, 10_000]:
                sendh.send_bytes(bytes(size))
        start = threading.Barrier(4)

        def destroy(which: Channel, start: threading.Barrier = start) -> str:
            start.wait()
            which.destroy()
            return "destroyed"

        threads = [in_thread(lambda ch=ch: destroy(ch)) for ch in [channel, other] * 2]
        for thread, _results in threads:
            thread.join()
        results = [results[0] for _thread, results in threads]
        assert results.count("destroyed") == 1
        assert sum(isinstance(result, ChannelDestroyed) for result in results) == 3
    del channel, other, threads, thread, results
    gc.collect()  # the errors' tracebacks know the list that knows the errors
    assert pool.current_allocations == 0


# ---- more than one machine, and the runtime ----


def test_what_needs_another_machine_says_so(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for use in [lambda: Channel.ta_update_nodes([(1, "10.0.0.1")]), channel.notify_on_destroy]:
        with pytest.raises(ChannelRemoteOperationNotSupported, match="one machine"):
            use()
    discard_gateways()
    register_gateways_from_env()
    monkeypatch.setenv("DRAGON_GW1", "x")
    with pytest.raises(ChannelRemoteOperationNotSupported):
        register_gateways_from_env()


@pytest.mark.skipif("_dragon_launch" in sys.builtin_module_names, reason="about plain python3")
def test_a_process_local_channel_needs_the_runtime(pool: MemoryPool, channel: Channel) -> None:
    with pytest.raises(ChannelError, match="run the program with `dragon`"):
        Channel.make_process_local(pool)
    with pytest.raises(ChannelError):
        channel.destroy_process_local()


PROCESS_LOCAL = """
import sys
from dragon.channels import Channel, ChannelError
from dragon.managed_memory import MemoryPool
pool = MemoryPool.attach(bytes.fromhex(sys.argv[1]))
kept, early = (Channel.make_process_local(pool, 512, 7, timeout=1) for _ in range(2))
early.destroy_process_local()
print(kept.serialize().hex(), kept.capacity, kept.block_size, kept.cuid >= 2**63)
try:
    early.destroy_process_local()
except ChannelError as error:
    print(type(error).__name__)
in_default_pool = Channel.make_process_local()
same = Channel.attach(in_default_pool.serialize())
with in_default_pool.sendh() as sendh, same.recvh() as recvh:
    sendh.send_bytes(bytes(5000))
    print(len(recvh.recv_bytes()))
sys.stdin.read()
"""


@pytest.mark.skipif("_dragon_launch" not in sys.builtin_module_names, reason="needs the runtime")
@pytest.mark.slow
def test_a_process_local_channel_goes_with_its_process(pool: MemoryPool) -> None:
    before = pool.current_allocations
    arguments = [sys.executable, "-c", PROCESS_LOCAL, pool.serialize().hex()]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        words, *shape = process.stdout.readline().split()
        assert shape == ["7", "512", "True"]
        with Channel.attach(bytes.fromhex(words)) as channel, channel.sendh() as sendh:
            sendh.send_bytes(bytes(1000))
            process.stdin.close()
            assert process.stdout.read().split() == ["ChannelDestroyed", "5000"]
            assert process.wait(20) == 0
            with pytest.raises(ChannelDestroyed):
                sendh.send_bytes(b"")
        with pytest.raises(ChannelDestroyed):
            Channel.attach(bytes.fromhex(words))
    del channel, sendh
    assert pool.current_allocations == before


# ---- other processes ----

ECHO = """
import os, sys
from dragon.channels import Channel
a, b = (Channel.attach(bytes.fromhex(word)) for word in sys.argv[1:3])
with a.recvh() as recvh, b.sendh() as sendh:
    while (data := recvh.recv_bytes()) != b"die":
        sendh.send_bytes(data)
os.kill(os.getpid(), 9)
"""


def test_another_process_answers_and_its_death_leaves_the_channels(pool: MemoryPool) -> None:
    with Channel(pool, 1) as a, Channel(pool, 2) as b:
        for _ in range(2):
            arguments = [sys.executable, "-c", ECHO, a.serialize().hex(), b.serialize().hex()]
            with a.sendh() as sendh, b.recvh() as recvh, subprocess.Popen(arguments) as process:
                for size in SIZES:
                    sendh.send_bytes(bytes([size % 256]) * size)
                    assert recvh.recv_bytes(timeout=20) == bytes([size % 256]) * size
                sendh.send_bytes(b"die")
                assert process.wait(20) == -9


def test_a_forked_process_has_the_channel(channel: Channel) -> None:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with channel.sendh() as sendh:
                sendh.send_bytes(b"from the child")
            status = 0
        finally:
            os._exit(status)
    with channel.recvh() as recvh:
        assert recvh.recv_bytes(timeout=20) == b"from the child"
    assert os.waitpid(pid, 0)[1] == 0


EXAMPLE = '''
"""Processes of plain multiprocessing talk through a channel."""
import multiprocessing
import sys
import dragon
from dragon.channels import Channel, Message
from dragon.managed_memory import MemoryPool


def work(descriptors):
    channel, answers = (Channel.attach(words) for words in descriptors.get())
    with channel.recvh() as recvh, answers.sendh() as sendh:
        with recvh.recv() as message:
            sendh.send_bytes(message.tobytes().upper())


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    pool = MemoryPool(1024**3, sys.argv[1], 2)
    channel = Channel(pool, 3)
    answers = Channel(pool, 4)
    descriptors = multiprocessing.Queue()
    processes = [multiprocessing.Process(target=work, args=(descriptors,)) for _ in range(2)]
    for process in processes:
        process.start()
        descriptors.put((channel.serialize(), answers.serialize()))
    with channel.sendh() as sendh, answers.recvh() as recvh:
        for _ in processes:
            message = Message.create_alloc(pool, 32)
            view = message.bytes_memview()
            view[:5] = b"hello"
            sendh.send(message)
            del view
            message.destroy()
        for process in processes:
            print(recvh.recv_bytes(timeout=30)[:5].decode())
            process.join()
    channel.destroy()
    answers.destroy()
    print(pool.current_allocations, [process.exitcode for process in processes])
    pool.destroy()
'''


@pytest.mark.skipif("_dragon_launch" in sys.builtin_module_names, reason="about plain python3")
@pytest.mark.slow
def test_the_documented_example_runs(name: str, tmp_path: Path) -> None:
    program = tmp_path / "example.py"
    program.write_text(EXAMPLE)
    done = subprocess.run(
        [sys.executable, str(program), f"{name}MyDragonCoreMemPool"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[:2] == ["HELLO", "HELLO"]
    assert done.stdout.splitlines()[2].endswith("[0, 0]")
    assert not list(SHM.glob(f"D{name}*"))
