"""Files through channels, under plain python3 and under dragon."""

import pickle
import random
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from channel_children import writer_that_dies
from channel_support import MIB, ends_with_interrupt, in_thread

from dragon.channels import (
    Channel,
    ChannelAdapterMsgTypes,
    ChannelDestroyed,
    ChannelEmpty,
    ChannelError,
    ChannelFull,
    ChannelHandleNotOpenError,
    ChannelRecvError,
    ChannelRecvTimeout,
    ChannelSendError,
    ChannelSendTimeout,
    Many2ManyReadingChannelFile,
    Many2ManyWritingChannelFile,
    Peer2PeerReadingChannelFile,
    Peer2PeerWritingChannelFile,
)
from dragon.managed_memory import MemoryPool

EOT = ChannelAdapterMsgTypes.EOT
PICKLE = ChannelAdapterMsgTypes.PICKLE_PROT_5
RAW = ChannelAdapterMsgTypes.RAW_BYTES

KINDS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "peer": (Peer2PeerWritingChannelFile, Peer2PeerReadingChannelFile),
    "many": (Many2ManyWritingChannelFile, Many2ManyReadingChannelFile),
}
OBJECTS = [None, 7, "x" * 300, list(range(10_000)), {"a": (1.5, b"b" * 200_000)}, bytearray(5000)]
SMALL = {"small_blk_size": 8, "large_blk_size": 16, "huge_blk_size": 32}


@pytest.fixture(params=KINDS)
def files(request: Any, channel: Channel) -> tuple[Any, Any]:
    writing, reading = KINDS[request.param]
    return writing(channel), reading(channel)


@pytest.fixture
def no_leak(pool: MemoryPool, channel: Channel) -> Iterator[None]:
    before = pool.current_allocations
    yield
    assert channel.num_msgs == 0
    assert pool.current_allocations == before


pytestmark = pytest.mark.usefixtures("no_leak")


def write(file: Any, data: bytes) -> None:
    with file:
        file.write(data)


# ---- pickles ----


@pytest.mark.parametrize("number", range(len(OBJECTS)))
def test_an_object_arrives(files: tuple[Any, Any], number: int) -> None:
    writing, reading = files
    with writing:
        pickle.dump(OBJECTS[number], writing, protocol=5)
    with reading:
        assert reading.check_header() == (PICKLE, None)
        assert pickle.load(reading) == OBJECTS[number]


def test_objects_arrive_one_after_the_other(files: tuple[Any, Any]) -> None:
    writing, reading = files
    for number in range(5):
        with writing:
            pickle.dump([number] * 2000, writing, protocol=5)
    for number in range(5):
        with reading:
            assert pickle.load(reading) == [number] * 2000


def test_an_object_larger_than_the_pool_arrives_piece_by_piece(channel: Channel) -> None:
    data = random.Random(5).randbytes(16 * MIB)
    writing = Peer2PeerWritingChannelFile(channel, timeout=20)

    def dump() -> None:
        with writing:
            pickle.dump(data, writing, protocol=5)

    thread, results = in_thread(dump)
    with Peer2PeerReadingChannelFile(channel, timeout=20) as reading:
        assert pickle.load(reading) == data
    thread.join()
    assert results == [None]


@pytest.mark.parametrize("options", [SMALL, SimpleNamespace(**SMALL), None])
def test_blocks_grow_as_the_options_say(channel: Channel, options: Any) -> None:
    data = random.Random(1).randbytes(8 + 16 + 32 + 32 + 5)
    write(Peer2PeerWritingChannelFile(channel, options=options), data)
    assert channel.num_msgs == (5 if options else 1)
    with Peer2PeerReadingChannelFile(channel, options=options) as reading:
        assert reading.read() == data


def test_blocks_may_lie_in_another_pool(name: str, pool: MemoryPool, channel: Channel) -> None:
    with MemoryPool(MIB, name[-8:], 8) as other:
        for writing, reading in [
            (
                Peer2PeerWritingChannelFile(channel, options={"buffer_pool": other}),
                Peer2PeerReadingChannelFile(channel),
            ),
            (Many2ManyWritingChannelFile(channel, other), Many2ManyReadingChannelFile(channel)),
        ]:
            before = pool.current_allocations
            write(writing, bytes(500))
            assert (pool.current_allocations, other.current_allocations) == (before, 1)
            with reading:
                assert reading.read() == bytes(500)
            assert other.current_allocations == 0


# ---- raw bytes, EOT ----


@pytest.mark.parametrize("size", [0, 1, 1000, 300_000])
def test_raw_bytes_arrive_as_many_as_are_announced(files: tuple[Any, Any], size: int) -> None:
    writing, reading = files
    data = random.Random(size).randbytes(size)
    with writing:
        writing.write_raw_header(size)
        writing.write(data)
        writing.write(b"more")
    with reading:
        assert reading.check_header() == (RAW, size)
        assert reading.check_header() == (RAW, size)  # nothing is taken
        reading.advance_raw_header(size)
        assert reading.read() == data
        assert reading.read(1) == b""


def test_raw_bytes_may_be_all_the_rest(files: tuple[Any, Any]) -> None:
    writing, reading = files
    with writing:
        writing.write_raw_header(2**56 - 1)
        writing.write(b"abc")
        writing.write(b"defg")
    with reading:
        kind, n_bytes = reading.check_header()
        assert (kind, n_bytes) == (RAW, None)
        reading.advance_raw_header(n_bytes)
        assert reading.read() == b"abcdefg"


def test_the_header_is_as_documented(channel: Channel) -> None:
    writing = Many2ManyWritingChannelFile(channel)
    with writing:
        writing.write_raw_header(0x010203)
    with channel.recvh() as recvh:
        assert recvh.recv_bytes(timeout=0) == b"\x40\x03\x02\x01\0\0\0\0"
        with writing:
            writing.write_eot()
        assert recvh.recv_bytes(timeout=0) == b"\x20"


def test_a_header_over_several_messages_is_read(channel: Channel) -> None:
    writing = Peer2PeerWritingChannelFile(channel)
    with writing:
        writing.write(b"\x40\x05")
        writing.flush()
        writing.write(bytes(6))
        writing.flush()
        writing.write(b"12345")
    assert channel.num_msgs == 3
    with Peer2PeerReadingChannelFile(channel) as reading:
        assert reading.check_header() == (RAW, 5)
        reading.advance_raw_header(5)
        assert reading.read() == b"12345"


def test_the_end_of_all_is_told(files: tuple[Any, Any]) -> None:
    writing, reading = files
    with writing:
        writing.write_eot()
    with reading:
        assert reading.check_header() == (EOT, None)


def test_what_is_no_header_is_an_error(files: tuple[Any, Any]) -> None:
    writing, reading = files
    for data in [b"\x99", b"\x40\1", b"\x80\4"]:
        write(writing, data)
        with reading, pytest.raises(ChannelRecvError, match="no header"):
            reading.check_header()
    write(writing, b"\x80\5.")
    with reading, pytest.raises(ChannelRecvError):
        reading.advance_raw_header(3)


@pytest.mark.parametrize("n_bytes", [-1, 2**56])
def test_a_number_that_no_header_can_hold_is_an_error(files: tuple[Any, Any], n_bytes: int) -> None:
    with files[0] as writing, pytest.raises(ValueError):
        writing.write_raw_header(n_bytes)


# ---- reading ----


def test_reads_of_all_sizes_give_the_bytes_in_order(channel: Channel) -> None:
    data = random.Random(2).randbytes(1000)
    for step in [1, 7, 999, 1000, 2000]:
        write(Peer2PeerWritingChannelFile(channel, options=SMALL), data)
        with Peer2PeerReadingChannelFile(channel) as reading:
            assert b"".join(iter(lambda: reading.read(step), b"")) == data  # noqa: B023
        write(Peer2PeerWritingChannelFile(channel, options=SMALL), data)
        with Peer2PeerReadingChannelFile(channel) as reading:
            buffer, found = bytearray(step), b""
            while n_bytes := reading.readinto(buffer):
                found += buffer[:n_bytes]
            assert found == data


def test_a_side_buffer_gets_what_is_read(files: tuple[Any, Any]) -> None:
    writing, reading = files
    side = bytearray()
    with writing:
        pickle.dump([1, 2], writing, protocol=5)
    with reading:
        reading.set_side_buf(side)
        assert pickle.load(reading) == [1, 2]
        reading.set_side_buf(None)
    assert pickle.loads(side) == [1, 2]


def test_remaining_data_is_what_was_not_read(channel: Channel) -> None:
    write(Many2ManyWritingChannelFile(channel), b"0123456789")
    with Many2ManyReadingChannelFile(channel) as reading:
        assert reading.read(4) == b"0123"
        assert reading.get_remaining_data() == b"456789"
        assert reading.get_remaining_data() == b""


def test_there_are_no_lines(files: tuple[Any, Any]) -> None:
    with files[1] as reading, pytest.raises(NotImplementedError):
        reading.readline()


def test_a_stream_that_is_closed_early_is_passed_over(files: tuple[Any, Any]) -> None:
    writing, reading = files
    for data in [b"a" * 5000, b"b" * 5000]:
        write(writing, data)
    with reading:
        assert reading.read(10) == b"a" * 10
    with reading:
        assert reading.read() == b"b" * 5000


# ---- opening and closing ----


def test_a_file_is_to_be_opened(files: tuple[Any, Any]) -> None:
    writing, reading = files
    uses: list[Callable[[], Any]] = [
        lambda: writing.write(b"x"),
        writing.flush,
        writing.write_eot,
        lambda: reading.read(1),
        lambda: reading.readinto(bytearray(1)),
        reading.check_header,
    ]
    for use in uses:
        with pytest.raises(ChannelHandleNotOpenError):
            use()
    for file in files:
        assert file.closed
        file.close()
        with file:
            assert not file.closed
            with pytest.raises(ChannelError):
                file.open()
        with pytest.raises(NotImplementedError):
            pickle.dumps(file)


def test_an_empty_stream_sends_nothing(files: tuple[Any, Any], channel: Channel) -> None:
    with files[0]:
        pass
    assert channel.num_msgs == 0


@pytest.mark.parametrize("kinds", KINDS.values())
def test_a_bad_argument_is_an_error(channel: Channel, kinds: tuple[Any, Any]) -> None:
    for kind in kinds:
        with pytest.raises(ChannelError):
            kind(None)
        with pytest.raises(ValueError):
            kind(channel, timeout=-1)
        with pytest.raises(ValueError):
            kind(channel, wait_mode=9)
    with pytest.raises(ChannelError):
        Peer2PeerWritingChannelFile(channel, options={"small_blk_size": 0})
    with pytest.raises(ChannelError):
        Peer2PeerWritingChannelFile(channel, options={"buffer_pool": 3})  # type: ignore[dict-item]


# ---- waiting ----


@pytest.mark.parametrize("reading", [kinds[1] for kinds in KINDS.values()])
def test_time_outs_of_a_reader(channel: Channel, reading: Any) -> None:
    begin = time.monotonic()
    with reading(channel, timeout=0.05) as file, pytest.raises(ChannelRecvTimeout):
        file.read(1)
    assert time.monotonic() - begin >= 0.05
    with reading(channel, timeout=0) as file, pytest.raises(ChannelEmpty):
        pickle.load(file)


@pytest.mark.parametrize("writing", [kinds[0] for kinds in KINDS.values()])
def test_time_outs_of_a_writer(pool: MemoryPool, writing: Any) -> None:
    with Channel(pool, 9, capacity=1) as full:
        with full.sendh() as sendh:
            sendh.send_bytes(b"")
        for timeout, kind in [(0, ChannelFull), (0.05, ChannelSendTimeout)]:
            for size in [5, 500]:
                file = writing(full, timeout=timeout)
                file.open()
                file.write(bytes(size))
                with pytest.raises(kind):
                    file.close()
                assert file.closed


def test_the_time_out_of_many_to_many_files_can_be_changed(channel: Channel) -> None:
    with Many2ManyReadingChannelFile(channel) as reading:
        reading.set_adapter_timeout(False, None)
        with pytest.raises(ChannelEmpty):
            reading.read(1)
        reading.set_adapter_timeout(True, 0.01)
        with pytest.raises(ChannelRecvTimeout):
            reading.read(1)
        with pytest.raises(ValueError):
            reading.set_adapter_timeout(True, -1)


def test_a_writer_that_waited_in_vain_for_memory_says_so(name: str) -> None:
    with MemoryPool(MIB, name + "b", 8) as small, Channel(small, 9) as channel:
        kept = small.alloc(small.free_space - 200_000)
        file = Many2ManyWritingChannelFile(channel, timeout=0.05)
        file.open()
        file.write(bytes(300_000))
        with pytest.raises(ChannelSendTimeout):
            file.close()
        file.open()
        file.write(bytes(2 * MIB))
        with pytest.raises(ChannelSendError):
            file.close()
        kept.free()


def test_ctrl_c_ends_a_read(files: tuple[Any, Any]) -> None:
    with files[1] as reading:
        ends_with_interrupt(lambda: reading.read(1))


@pytest.mark.parametrize("writing", [kinds[0] for kinds in KINDS.values()])
def test_ctrl_c_ends_a_write(pool: MemoryPool, writing: Any) -> None:
    with Channel(pool, 9, capacity=1) as full:
        with full.sendh() as sendh:
            sendh.send_bytes(b"")
        for size in [5, 500]:
            file = writing(full, timeout=None)
            file.open()
            file.write(bytes(size))
            ends_with_interrupt(file.close)
        kept = pool.alloc(pool.free_space - 200_000)
        file.open()
        file.write(bytes(300))
        ends_with_interrupt(lambda: write_and_close(file, bytes(300_000)))
        kept.free()
        assert full.num_msgs == 1


def write_and_close(file: Any, data: bytes) -> None:
    file.write(data)
    file.close()


@pytest.mark.parametrize("reading", [kinds[1] for kinds in KINDS.values()])
def test_a_reader_of_a_channel_that_is_destroyed_learns_of_it(name: str, reading: Any) -> None:
    with MemoryPool(MIB, name + "b", 8) as pool:
        doomed = Channel(pool, 9)
        with reading(doomed) as file:
            thread, results = in_thread(lambda: file.read(1))
            thread.join(0.05)
            assert results == []
            Channel.attach(doomed.serialize()).destroy()
            thread.join()
            assert isinstance(results[0], ChannelDestroyed)


# ---- streams that are cut off ----


class BodyError(Exception):
    pass


def test_a_body_that_raises_sends_no_half_of_a_message(channel: Channel) -> None:
    with pytest.raises(BodyError), Many2ManyWritingChannelFile(channel) as writing:
        writing.write(b"half")
        raise BodyError
    assert channel.num_msgs == 0


def test_a_body_that_raises_tells_the_reader(channel: Channel) -> None:
    writing = Peer2PeerWritingChannelFile(channel)
    with pytest.raises(BodyError), writing:
        writing.write(bytes(5000))
        raise BodyError
    write(writing, b"whole")
    reading = Peer2PeerReadingChannelFile(channel)
    with reading, pytest.raises(ChannelRecvError, match="gave up"):
        reading.read()
    with reading:
        assert reading.read() == b"whole"


def test_a_stream_with_a_block_that_was_not_sent_is_not_whole(pool: MemoryPool) -> None:
    with Channel(pool, 9, capacity=2) as narrow:
        writing = Peer2PeerWritingChannelFile(narrow, options=SMALL, timeout=0)
        writing.open()
        with pytest.raises(ChannelFull):
            writing.write(bytes(1000))
        with pytest.raises(ChannelSendError):
            writing.write(b"more")
        with narrow.recvh() as recvh:
            recvh.recv_bytes()
            recvh.recv_bytes()
        writing.close()
        write(writing, b"whole")
        with Peer2PeerReadingChannelFile(narrow) as reading:
            assert reading.read() == b"whole"


@pytest.mark.slow
def test_the_reader_of_a_killed_writer_is_told(channel: Channel, processes: Any) -> None:
    process = processes(writer_that_dies, channel.serialize(), 5000)
    with Peer2PeerReadingChannelFile(channel) as reading:
        assert reading.check_header() == (PICKLE, None)
        begin = time.monotonic()
        with pytest.raises(ChannelRecvError, match="writer has ended"):
            reading.read(10_000)
        assert time.monotonic() - begin < 3
    process.join()


@pytest.mark.slow
def test_the_stream_after_that_of_a_killed_writer_is_whole(
    channel: Channel, processes: Any
) -> None:
    processes(writer_that_dies, channel.serialize(), 5000).join()
    with Peer2PeerWritingChannelFile(channel) as writing:
        pickle.dump("whole", writing, protocol=5)
    reading = Peer2PeerReadingChannelFile(channel)
    with reading, pytest.raises(ChannelRecvError, match="another one began"):
        reading.read(10_000)
    with reading:
        assert pickle.load(reading) == "whole"


@pytest.mark.slow
def test_a_time_out_of_the_reader_of_a_killed_writer_holds(
    channel: Channel, processes: Any
) -> None:
    processes(writer_that_dies, channel.serialize(), 5000).join()
    with Peer2PeerReadingChannelFile(channel, timeout=0.05) as reading:
        assert len(reading.read(5002)) == 5002
        begin = time.monotonic()
        with pytest.raises((ChannelRecvTimeout, ChannelRecvError)):
            reading.read(1)
        assert time.monotonic() - begin < 0.9
