"""A channel of dragon.channels in select, selectors, epoll and asyncio."""

import asyncio
import multiprocessing
import os
import select
import selectors
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.context import BaseContext
from typing import Any

import pytest

from dragon.channels import Channel, ChannelDestroyed, ChannelEmpty, ChannelError
from dragon.managed_memory import MemoryPool


@pytest.fixture
def channel() -> Iterator[Channel]:
    with Channel(MemoryPool.attach_default(), 77) as channel:
        yield channel


def is_readable(source: Any, timeout_s: float = 0) -> bool:
    return bool(select.select([source], [], [], timeout_s)[0])


def send(channel: Channel, *messages: bytes) -> None:
    with channel.sendh() as sender:
        for message in messages:
            sender.send_bytes(message)


def receive(channel: Channel) -> bytes:
    with channel.recvh() as receiver:
        return receiver.recv_bytes(timeout=20)


def n_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_it_is_readable_exactly_while_a_message_waits(channel: Channel) -> None:
    with select.epoll() as epoll:
        epoll.register(channel.fileno(), select.EPOLLIN)
        for size in (1, 100_000):
            assert epoll.poll(0) == []
            send(channel, b"x" * size, b"y")
            assert len(epoll.poll(0)) == 1
            receive(channel)
            assert len(epoll.poll(0)) == 1
            receive(channel)
    assert not is_readable(channel)


def test_the_number_stays_the_same_and_is_closed_with_the_object(channel: Channel) -> None:
    assert channel.fileno() == channel.fileno()
    other = Channel.attach(channel.serialize())
    before = n_descriptors()
    for _ in range(20):
        other.fileno()
    assert n_descriptors() == before + 1
    other.detach()
    assert n_descriptors() == before
    send(channel, b"x")  # nobody is left to be rung who was


def test_several_objects_of_a_channel_have_a_descriptor_each(channel: Channel) -> None:
    other = Channel.attach(channel.serialize())
    assert other.fileno() != channel.fileno()
    assert not is_readable(other)
    send(channel, b"x")
    assert is_readable(channel)
    assert is_readable(other, 20)
    receive(channel)
    assert not is_readable(channel)
    with other.recvh() as receiver, pytest.raises(ChannelEmpty):
        receiver.recv_bytes(timeout=0)
    assert not is_readable(other)


def send_one(channel: Channel) -> None:
    send(channel, b"from a child")


def take_one(channel: Channel) -> None:
    receive(channel)


def destroy(channel: Channel) -> None:
    channel.destroy()


def test_a_message_of_another_process_wakes_a_selector(
    dragon: BaseContext, channel: Channel
) -> None:
    with selectors.DefaultSelector() as selector:
        key = selector.register(channel, selectors.EVENT_READ, "tag")
        child = dragon.Process(target=send_one, args=(channel,))
        child.start()
        assert selector.select(20) == [(key, selectors.EVENT_READ)]
        assert receive(channel) == b"from a child"
        assert selector.select(0) == []
        child.join()


def test_it_falls_when_asked_after_another_process_took_the_message(
    dragon: BaseContext, channel: Channel
) -> None:
    send(channel, b"x")
    with select.epoll() as epoll:
        epoll.register(channel.fileno(), select.EPOLLIN)
        child = dragon.Process(target=take_one, args=(channel,))
        child.start()
        child.join()
        assert channel.num_msgs == 0
        assert epoll.poll(0) == []
        assert not channel.poll(0)
        send(channel, b"y")
        assert len(epoll.poll(0)) == 1


def test_whoever_waits_learns_that_the_channel_was_destroyed(
    dragon: BaseContext, channel: Channel
) -> None:
    with select.epoll() as epoll, channel.recvh() as receiver:
        epoll.register(channel.fileno(), select.EPOLLIN)
        child = dragon.Process(target=destroy, args=(channel,))
        child.start()
        assert len(epoll.poll(20)) == 1
        with pytest.raises(ChannelDestroyed):
            receiver.recv_bytes(timeout=0)
        with pytest.raises(ChannelDestroyed):
            channel.fileno()
        child.join()


def test_an_event_loop_is_told(dragon: BaseContext, channel: Channel) -> None:
    async def gather() -> list[bytes]:
        loop = asyncio.get_running_loop()
        messages: asyncio.Queue[bytes] = asyncio.Queue()
        with channel.recvh() as receiver:
            loop.add_reader(channel, lambda: messages.put_nowait(receiver.recv_bytes(timeout=0)))
            try:
                return [await asyncio.wait_for(messages.get(), 20) for _ in range(3)]
            finally:
                loop.remove_reader(channel)

    children = [dragon.Process(target=send_one, args=(channel,)) for _ in range(3)]
    for child in children:
        child.start()
    assert asyncio.run(gather()) == [b"from a child"] * 3
    for child in children:
        child.join()


def test_a_killed_process_leaves_others_their_descriptor(
    dragon: BaseContext, channel: Channel
) -> None:
    here, there = multiprocessing.get_context("dragon").Pipe()
    child = dragon.Process(target=wait_for_ever, args=(channel, there))
    child.start()
    assert here.poll(20)
    child.kill()
    child.join()
    assert not is_readable(channel)
    send(channel, b"x")
    assert is_readable(channel)


def wait_for_ever(channel: Channel, ready: Any) -> None:
    channel.fileno()
    ready.send(True)
    select.select([channel], [], [])


def test_a_forked_child_has_a_descriptor_of_its_own(channel: Channel) -> None:
    with select.epoll() as epoll:
        epoll.register(channel.fileno(), select.EPOLLIN)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                was_readable = is_readable(channel)
                send(channel, b"x")
                status = 0 if not was_readable and is_readable(channel) else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert len(epoll.poll(20)) == 1
        assert receive(channel) == b"x"
        assert epoll.poll(0) == []


def test_a_channel_in_another_pool_has_none_and_says_what_to_do() -> None:
    with (
        MemoryPool(1 << 20, f"fileno{os.getpid()}", 7) as pool,
        Channel(pool, 78) as channel,
        pytest.raises(ChannelError, match=r"channel 78 is not in the default pool.*ChannelSet"),
    ):
        channel.fileno()


def test_a_semaphore_has_none() -> None:
    with (
        Channel(MemoryPool.attach_default(), 78, semaphore=True) as channel,
        pytest.raises(ChannelError, match="is a semaphore"),
    ):
        channel.fileno()


def test_a_detached_channel_has_none(channel: Channel) -> None:
    other = Channel.attach(channel.serialize())
    other.detach()
    with pytest.raises(ChannelError):
        other.fileno()


def test_a_process_without_descriptors_says_so() -> None:
    code = """
import os, resource
from dragon.channels import *
from dragon.managed_memory import MemoryPool
channel = Channel(MemoryPool.attach_default(), 1)
limit = len(os.listdir("/proc/self/fd"))
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
files = []
try:
    while True:
        files.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
try:
    channel.fileno()
except ChannelError as error:
    print(error)
os.close(files.pop())
os.close(files.pop())
print(channel.fileno() >= 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert "Too many open files" in done.stdout
    assert done.stdout.endswith("True\n")


def test_no_descriptor_is_there_that_nobody_asked_for(channel: Channel) -> None:
    before = n_descriptors()
    send(channel, b"x")
    receive(channel)
    assert n_descriptors() == before
