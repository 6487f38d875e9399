"""What processes of the tests of dragon.channels do."""

import os
import signal
import sys

from dragon.channels import (
    POLLBARRIER,
    POLLBARRIER_RELEASE,
    SEMAPHORE_P,
    SEMAPHORE_V,
    Channel,
    ChannelBarrierBroken,
    ChannelBarrierReady,
    ChannelSet,
    Peer2PeerWritingChannelFile,
)

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
