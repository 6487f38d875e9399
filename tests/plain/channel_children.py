"""What processes of the tests of dragon.channels do."""

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from dragon.channels import (
    POLLBARRIER,
    POLLBARRIER_RELEASE,
    SEMAPHORE_P,
    SEMAPHORE_V,
    Channel,
    ChannelBarrierBroken,
    ChannelBarrierReady,
    ChannelSet,
    Message,
    Peer2PeerWritingChannelFile,
    transfer_ownership_on_send,
)
from dragon.managed_memory import MemoryAlloc

BROKEN = 2  # exit status of a party of a broken barrier


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def party(words: bytes, answers: bytes) -> None:
    """Take part in a barrier once, as programs do; tell the index."""
    channel = Channel.attach(words)
    with channel.recvh() as recvh, Channel.attach(answers).sendh() as sendh:
        try:
            if not channel.poll(timeout=30, event_mask=POLLBARRIER):
                sys.exit(1)
        except ChannelBarrierReady:
            channel.poll(timeout=0, event_mask=POLLBARRIER_RELEASE)
        except ChannelBarrierBroken:
            sys.exit(BROKEN)
        with recvh.recv(timeout=30) as message:
            index = int.from_bytes(message.bytes_memview(), sys.byteorder, signed=True)
        if index == -1:
            sys.exit(BROKEN)
        sendh.send_bytes(bytes([index]))


def party_that_dies(words: bytes, answers: bytes) -> None:
    """Arrive, say so, and be killed."""
    channel = Channel.attach(words)
    sendh = Channel.attach(answers).sendh()
    sendh.open()
    try:
        channel.poll(event_mask=POLLBARRIER)
        sendh.send_bytes(b"arrived")
    except ChannelBarrierReady:
        sendh.send_bytes(b"ready")
    die()


def waiter_of_barrier(words: bytes, answers: bytes) -> None:
    """Arrive, say so, and tell the index or -1, as a signed number."""
    channel = Channel.attach(words)
    with channel.recvh() as recvh, Channel.attach(answers).sendh() as sendh:
        channel.poll(event_mask=POLLBARRIER)
        sendh.send_bytes(b"arrived")
        sendh.send_bytes(recvh.recv_bytes(timeout=30))


def receiver_that_waits(channel: Channel) -> None:
    with channel.recvh() as recvh:
        recvh.recv_bytes()


def set_that_waits(words: list[bytes], answers: bytes) -> None:
    """Wait on a set; tell the number of the channel that has a message."""
    channels = [Channel.attach(word) for word in words]
    with Channel.attach(answers).sendh() as sendh:
        sendh.send_bytes(b"waiting")
        with ChannelSet(channels[0].get_pool(), channels) as channel_set:
            found, _event = channel_set.poll(30)
        sendh.send_bytes(b"%d" % found.cuid)


def taker_and_giver(words: bytes, n_rounds: int) -> None:
    """Take a unit of a semaphore and give it back, again and again."""
    channel = Channel.attach(words)
    for _ in range(n_rounds):
        channel.poll(30, event_mask=SEMAPHORE_P)
        channel.poll(0, event_mask=SEMAPHORE_V)


def taker_that_dies(words: bytes) -> None:
    Channel.attach(words).poll(event_mask=SEMAPHORE_P)
    die()


def writer_that_dies(words: bytes, n_bytes: int) -> None:
    """Write a part of a stream and be killed."""
    file = Peer2PeerWritingChannelFile(Channel.attach(words))
    file.open()
    file.write(b"\x80\x05" + bytes(n_bytes))
    file.flush()
    die()


# ---- what may die with memory of messages in its hands ----


def size_of(number: int) -> int:
    """Sizes of messages: some fit into a slot, most do not."""
    return 10 + number * 397 % 5000


def content(size: int) -> bytes:
    """The bytes of a message of that size."""
    return random.Random(size).randbytes(size)


def check(data: bytes) -> None:
    assert data == content(len(data))


def sender(words: bytes, size: int) -> None:
    with Channel.attach(words).sendh() as sendh:
        sendh.send_bytes(content(size))


def sender_without_descriptors(words: bytes, size: int) -> None:
    """Send after the program has closed the files of its pools."""
    channel = Channel.attach(words)
    for fd in os.listdir("/proc/self/fd"):
        link = Path("/proc/self/fd", fd)
        if link.is_symlink() and str(link.readlink()).startswith("/dev/shm/D"):
            os.close(int(fd))
    with channel.sendh() as sendh:
        sendh.send_bytes(content(size))
        die()


def sender_that_dies(words: bytes, size: int) -> None:
    sender(words, size)
    die()


def giver(words: bytes, size: int) -> None:
    """Allocate memory and give it away."""
    channel = Channel.attach(words)
    memory = channel.get_pool().alloc_from_bytes(content(size))
    with channel.sendh() as sendh:
        sendh.send(Message.create_from_mem(memory), ownership=transfer_ownership_on_send)


def giver_that_dies(words: bytes, size: int) -> None:
    giver(words, size)
    die()


def message_maker_that_dies(words: bytes, size: int) -> None:
    Message.create_alloc(Channel.attach(words).get_pool(), size)
    die()


def allocator_that_dies(words: bytes, size: int) -> None:
    Channel.attach(words).get_pool().alloc(size)
    die()


def receiver_that_dies(words: bytes) -> None:
    with Channel.attach(words).recvh() as recvh:
        recvh.recv(timeout=20)
        die()


def receiver_that_keeps(words: bytes) -> None:
    """Exit without having destroyed the message."""
    with Channel.attach(words).recvh() as recvh:
        recvh.recv(timeout=20)


def receiver_that_says_so(words: bytes, answers: bytes) -> None:
    with Channel.attach(words).recvh() as recvh, Channel.attach(answers).sendh() as sendh:
        recvh.recv(timeout=20)
        sendh.send_bytes(b"received")
        signal.pause()


def memory_of(message: Message) -> MemoryAlloc:
    assert isinstance(message._memory, MemoryAlloc)
    return message._memory


def receiver_that_leaves_it(words: bytes, answers: bytes, is_killed: bool) -> None:
    """Describe the memory of one message, and leave that of another to who finds it."""
    with Channel.attach(words).recvh() as recvh, Channel.attach(answers).sendh() as sendh:
        first, second = recvh.recv(timeout=20), recvh.recv(timeout=20)
        sendh.send_bytes(memory_of(first).serialize())
        sendh.send_bytes(memory_of(second).id.to_bytes(16, "little"))
        second.destroy(free_mem=False)
        if is_killed:
            die()


def receiver_that_forks(words: bytes, answers: bytes) -> None:
    """Die, and have a forked copy tell afterwards what it sees of the message."""
    with Channel.attach(words).recvh() as recvh, Channel.attach(answers).sendh() as sendh:
        message, parent = recvh.recv(timeout=20), os.getpid()
        if os.fork() != 0:
            die()
        while os.getppid() == parent:
            time.sleep(0.001)
        sendh.send_bytes(message.tobytes())
        message.destroy()
        os._exit(0)


def receiver_that_passes_on(words: bytes, further: bytes) -> None:
    """Give a message away into another channel, and die."""
    with Channel.attach(words).recvh() as recvh, Channel.attach(further).sendh() as sendh:
        sendh.send(recvh.recv(timeout=20), ownership=transfer_ownership_on_send)
        die()


def passer_on(channel: Channel, ready: Any, number: int) -> None:
    """Say so, then take a message, send one or give that one away, and so on until killed."""
    ready.send_bytes(b"ready")
    chance = random.Random(number)
    with channel.recvh() as recvh, channel.sendh() as sendh:
        while True:
            message = recvh.recv()
            check(message.tobytes())
            if chance.random() < 0.3:
                sendh.send(message, ownership=transfer_ownership_on_send)
                continue
            message.destroy()
            size = size_of(chance.randrange(10_000))
            if chance.random() < 0.5:
                sendh.send_bytes(content(size))
                continue
            made = Message.create_alloc(channel.get_pool(), size)
            made.bytes_memview()[:] = content(size)
            sendh.send(made, ownership=transfer_ownership_on_send)
