"""A process that is killed leaves no memory of messages behind, and takes no sent message with it.

Most tests run in a named pool, whose processes take care of each other, and in the default pool of
a node, whose supervisor does; the latter only where the interpreter is dragon.
"""

import gc
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from typing import Any

import channel_children as children
import pytest
from channel_support import MIB, spawn

import _dragon
from dragon.channels import Channel, ChannelEmpty, Message, transfer_ownership_on_send
from dragon.managed_memory import AllocType, MemoryAlloc, MemoryPool

SIZE = 3000  # of messages: they do not fit into a slot
KILLED = -signal.SIGKILL
N_KILLS = 120  # of a storm
N_MESSAGES = 16  # on their way in a storm


class Place:
    """A pool, what it had at the beginning, and processes that use it."""

    def __init__(self, pool: MemoryPool, context: Any) -> None:
        self.pool = pool
        self.context = context
        self._started: list[BaseProcess] = []
        self.begin()

    def begin(self) -> None:
        """What the pool has now it is to have in the end."""
        gc.collect()
        self.before = self.now()

    def now(self) -> tuple[int, int]:
        """How many blocks there are, and bytes that are free."""
        return self.pool.current_allocations, self.pool.free_space

    def has_all_back(self) -> bool:
        """Wait until the pool is as in the beginning."""
        return until(lambda: self.now() == self.before)

    def has_more(self, n_blocks: int) -> bool:
        """Wait until the pool has so many blocks more than in the beginning."""
        return until(lambda: self.pool.current_allocations == self.before[0] + n_blocks)

    def start(self, target: Callable[..., None], *args: Any) -> BaseProcess:
        """Start a process."""
        process: BaseProcess = self.context.Process(target=target, args=args)
        process.start()
        self._started.append(process)
        return process

    def run(self, target: Callable[..., None], *args: Any) -> int | None:
        """Run a process to its end; its exit code."""
        process = self.start(target, *args)
        process.join()
        return process.exitcode

    def end(self) -> None:
        """Kill what still runs."""
        for process in self._started:
            process.kill()
            process.join()


def until(condition: Callable[[], bool]) -> bool:
    """Ask for a condition until it holds; False: it did not within 20 s."""
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def short_name() -> str:
    """A name that fits, with the rest of a block's description, into a slot."""
    return f"t{random.SystemRandom().getrandbits(32):x}"


@pytest.fixture(params=["named", "default"])
def place(request: pytest.FixtureRequest, processes: object) -> Iterator[Place]:
    if request.param == "default" and not _dragon.has_node():
        pytest.skip("plain python3 has no node, and so no default pool")
    if request.param == "default":
        place = Place(MemoryPool.attach_default(), multiprocessing.get_context("dragon"))
        yield place
        place.end()
        return
    with MemoryPool(4 * MIB, short_name(), 7) as pool:
        place = Place(pool, spawn)
        yield place
        place.end()


@pytest.fixture
def channel(place: Place) -> Iterator[Channel]:
    with Channel(place.pool, 3, capacity=4) as channel:
        place.begin()
        yield channel


@pytest.fixture
def answers() -> Iterator[Channel]:
    """A channel elsewhere."""
    with MemoryPool(MIB, short_name(), 9) as pool, Channel(pool, 9) as channel:
        yield channel


def fill(channel: Channel) -> None:
    with channel.sendh() as sendh:
        for _ in range(channel.capacity):
            sendh.send_bytes(b"x")


def drain(channel: Channel) -> list[bytes]:
    """The messages of a channel."""
    with channel.recvh() as recvh:
        return [recvh.recv_bytes() for _ in range(channel.num_msgs)]


def send(channel: Channel, size: int = SIZE) -> None:
    with channel.sendh() as sendh:
        sendh.send_bytes(children.content(size))


def data_of(pool: MemoryPool) -> MemoryAlloc:
    """The one block of SIZE that the program has allocated."""
    found = pool.get_allocations(AllocType.DATA)
    blocks = [pool.alloc_from_id(found.alloc_id(i)) for i in range(found.num_allocs)]
    (block,) = [block for block in blocks if block.size == SIZE]
    return block


# ---- killed ----


def test_a_sender_killed_while_it_waits_for_room_leaves_no_copy(
    place: Place, channel: Channel
) -> None:
    fill(channel)
    sender = place.start(children.sender, channel.serialize(), SIZE)
    assert place.has_more(1), "it has made its copy"
    sender.kill()
    sender.join()
    assert place.has_all_back()
    assert drain(channel) == [b"x"] * 4


def test_a_receiver_killed_with_a_message_in_its_hands_leaves_nothing(
    place: Place, channel: Channel
) -> None:
    send(channel)
    assert place.has_more(1)
    assert place.run(children.receiver_that_dies, channel.serialize()) == KILLED
    assert place.has_all_back()


def test_a_message_of_a_killed_sender_arrives(place: Place, channel: Channel) -> None:
    for _ in range(2):
        assert place.run(children.sender_that_dies, channel.serialize(), SIZE) == KILLED
    assert place.has_more(2)
    assert drain(channel) == [children.content(SIZE)] * 2
    assert place.has_all_back()


def test_memory_that_a_killed_process_had_given_away_arrives_and_is_its_receivers(
    place: Place, channel: Channel
) -> None:
    for _ in range(2):
        assert place.run(children.giver_that_dies, channel.serialize(), SIZE) == KILLED
    assert drain(channel)[0] == children.content(SIZE)
    assert place.has_all_back()
    assert place.run(children.giver_that_dies, channel.serialize(), SIZE) == KILLED
    assert place.has_more(1)
    assert place.run(children.receiver_that_dies, channel.serialize()) == KILLED
    assert place.has_all_back()


def test_memory_of_the_program_stays_if_its_process_dies_before_it_has_given_it_away(
    place: Place, channel: Channel
) -> None:
    fill(channel)
    giver = place.start(children.giver, channel.serialize(), SIZE)
    assert place.has_more(1)
    giver.kill()
    giver.join()
    assert drain(channel) == [b"x"] * 4
    block = data_of(place.pool)
    assert bytes(block.get_memview()) == children.content(SIZE)
    block.free()
    assert place.has_all_back()


def test_memory_made_for_a_message_goes_with_its_process_and_what_was_allocated_stays(
    place: Place, channel: Channel
) -> None:
    assert place.run(children.message_maker_that_dies, channel.serialize(), SIZE) == KILLED
    assert place.has_all_back()
    assert place.run(children.allocator_that_dies, channel.serialize(), SIZE) == KILLED
    assert place.run(children.sender_that_dies, channel.serialize(), 10) == KILLED
    assert place.has_more(1)
    data_of(place.pool).free()
    assert drain(channel) == [children.content(10)]


@pytest.mark.parametrize("is_killed", [True, False])
def test_memory_that_a_process_has_described_or_left_to_others_stays(
    place: Place, channel: Channel, answers: Channel, is_killed: bool
) -> None:
    send(channel)
    send(channel)
    words = channel.serialize(), answers.serialize()
    code = place.run(children.receiver_that_leaves_it, *words, is_killed)
    assert code == (KILLED if is_killed else 0)
    assert place.run(children.sender_that_dies, channel.serialize(), 10) == KILLED
    description, number = drain(answers)
    described = MemoryAlloc.attach(description)
    left = place.pool.alloc_from_id(int.from_bytes(number, "little"))
    for block in described, left:
        assert bytes(block.get_memview()) == children.content(SIZE)
        block.free()
    assert place.has_all_back()


def test_a_message_that_nobody_destroyed_goes_when_its_process_exits(
    place: Place, channel: Channel
) -> None:
    send(channel)
    assert place.run(children.receiver_that_keeps, channel.serialize()) == 0
    assert place.has_all_back()


def test_a_forked_copy_keeps_the_message_that_its_dead_parent_had(
    place: Place, channel: Channel, answers: Channel
) -> None:
    send(channel)
    words = channel.serialize(), answers.serialize()
    assert place.run(children.receiver_that_forks, *words) == KILLED
    with answers.recvh() as recvh:
        assert recvh.recv_bytes(timeout=20) == children.content(SIZE)
    assert place.has_all_back()


def test_a_message_that_is_passed_on_into_another_pool_is_its_receivers_there(
    place: Place, channel: Channel, answers: Channel
) -> None:
    words = channel.serialize(), answers.serialize()
    for _ in range(2):
        send(channel)
        assert place.run(children.receiver_that_passes_on, *words) == KILLED
    assert place.has_more(2), "it was not copied"
    with answers.recvh() as recvh, recvh.recv() as message:
        assert message.tobytes() == children.content(SIZE)
    assert place.run(children.receiver_that_dies, answers.serialize()) == KILLED
    assert place.has_all_back()


# ---- a full pool ----


@pytest.fixture
def half(name: str) -> Iterator[tuple[Channel, int]]:
    """A channel in the smallest usual pool, and a size of which there is room for one block."""
    with MemoryPool(32 * 1024, name, 7) as pool, Channel(pool, 3) as channel:
        yield channel, pool.free_space * 2 // 3


def give(channel: Channel, size: int) -> None:
    message = Message.create_alloc(channel.get_pool(), size)
    with channel.sendh() as sendh:
        sendh.send(message, ownership=transfer_ownership_on_send)


@pytest.mark.parametrize("allocate", ["alloc", "alloc_blocking", "create_alloc", "send_bytes"])
def test_what_a_dead_process_held_makes_room(
    half: tuple[Channel, int], processes: Callable[..., BaseProcess], allocate: str
) -> None:
    channel, size = half
    give(channel, size)
    processes(children.receiver_that_dies, channel.serialize()).join()
    pool = channel.get_pool()
    if allocate == "create_alloc":
        Message.create_alloc(pool, size, timeout=0).destroy()
    elif allocate == "send_bytes":
        with channel.sendh() as sendh:
            sendh.send_bytes(bytes(size), blocking=False)
    elif allocate == "alloc":
        pool.alloc(size).free()
    else:
        pool.alloc_blocking(size, 20).free()


def test_a_wait_for_room_ends_when_the_process_that_has_it_is_killed(
    half: tuple[Channel, int], answers: Channel, processes: Callable[..., BaseProcess]
) -> None:
    channel, size = half
    give(channel, size)
    holder = processes(children.receiver_that_says_so, channel.serialize(), answers.serialize())
    with answers.recvh() as recvh:
        recvh.recv_bytes(timeout=20)
    before = signal.signal(signal.SIGALRM, lambda number, frame: holder.kill())
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        channel.get_pool().alloc_blocking(size, 20).free()
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_process_that_closed_the_pools_file_cannot_be_found_dead_but_sends_all_the_same(
    name: str, processes: Callable[..., BaseProcess]
) -> None:
    with MemoryPool(MIB, name, 7) as pool, Channel(pool, 3) as channel:
        send(channel)  # the pool has memory for one
        drain(channel)
        before = pool.current_allocations
        processes(children.sender_without_descriptors, channel.serialize(), SIZE).join()
        assert pool.current_allocations == before + 1
        assert drain(channel) == [children.content(SIZE)]
        assert pool.current_allocations == before


# ---- storms ----


def kill_many(place: Place, channel: Channel) -> None:
    """Kill processes that pass messages on, at any moment; there are always two of them."""
    seed = int(os.environ.get("DRAGON_TEST_SEED", random.randrange(2**32)))
    print("DRAGON_TEST_SEED", seed)
    chance = random.Random(seed)
    running = []
    for number in range(N_KILLS):
        while channel.num_msgs < N_MESSAGES:
            send(channel, children.size_of(chance.randrange(10_000)))
        ours, theirs = place.context.Pipe(duplex=False)
        running.append((place.start(children.passer_on, channel, theirs, number), ours))
        if len(running) < 2 and number < N_KILLS - 1:
            continue
        process, ready = running.pop(0)
        assert ready.poll(20)
        time.sleep(chance.uniform(0, 0.01))
        process.kill()
        process.join()
        assert process.exitcode == KILLED, "a message was not what was sent"
    place.end()


@pytest.mark.parametrize("kind", ["named", "default"])
def test_many_kills_leave_no_block_and_spoil_no_message(kind: str, processes: object) -> None:
    if kind == "default" and not _dragon.has_node():
        pytest.skip("plain python3 has no node, and so no default pool")
    if kind == "named":
        pool = MemoryPool(4 * MIB, short_name(), 7)
        place = Place(pool, multiprocessing.get_context("fork"))
    else:
        place = Place(MemoryPool.attach_default(), multiprocessing.get_context("dragon"))
    with Channel(place.pool, 3, capacity=100) as channel:
        fill(channel)  # its ring is as large as it gets
        drain(channel)
        place.begin()
        kill_many(place, channel)
        n_left = channel.num_msgs
        assert 0 < n_left <= N_MESSAGES + 2 * N_KILLS
        for data in drain(channel):
            children.check(data)
        assert place.has_all_back()
        with channel.recvh() as recvh, pytest.raises(ChannelEmpty):
            recvh.recv(blocking=False)
        send(channel)
        assert drain(channel) == [children.content(SIZE)]
    if kind == "named":
        place.pool.destroy()
