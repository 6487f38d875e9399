"""Arbitrary descriptions of pools, blocks and channels, and queue messages, from Python.

usage: fuzz_descriptors.py [SECONDS [SEED [INPUTS]]]

Descriptions that were valid are changed at random, or made up; each must be refused with a
documented exception, and soon, or name what exists. Under ``dragon`` messages in a queue's shared
memory are changed, too. With INPUTS, so many for each parser, whatever the time. Prints the seed,
and the input of a failure; ends with 1 then.
"""

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
import os
import pickle
import random
import statistics
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _dragon
from dragon.channels import Channel, ChannelError
from dragon.managed_memory import DragonMemoryError, MemoryAlloc, MemoryPool

MEDIAN_S = 0.001
LONGEST_S = 0.1
#: A loaded machine may take a process off its core for longer than a call may take; such a call is
#: tried again, and counts if it is slow each time.
TRIES = 3

CORPUS = Path(__file__).with_name("corpus") / "descriptors"

Doer = Callable[[bytes], object]


class FuzzError(Exception):
    """What a fuzz run is for."""


class Case:
    """One parser: what it takes, valid inputs, and what it may raise."""

    def __init__(
        self,
        name: str,
        do: Doer,
        seeds: list[bytes],
        documented: tuple[type[Exception], ...],
        prepare: Doer = bytes,
    ) -> None:
        self.name = name
        self.do = do
        self.seeds = seeds
        self.documented = documented
        self.prepare = prepare
        self.seconds: list[float] = []
        self.n_accepted = 0

    def _timed(self, data: bytes) -> float:
        self.prepare(data)
        begin = time.perf_counter()
        try:
            self.do(data)
            self.n_accepted += 1
        except self.documented:
            pass
        except Exception as error:
            raise FuzzError(
                f"{self.name}: {type(error).__name__}: {error}; input {data.hex()}"
            ) from error
        return time.perf_counter() - begin

    def run(self, data: bytes) -> None:
        """Give it the input. FuzzError: another exception, or it takes too long."""
        seconds = self._timed(data)
        for _ in range(TRIES - 1):
            if seconds <= LONGEST_S:
                break
            seconds = min(seconds, self._timed(data))
        if seconds > LONGEST_S:
            raise FuzzError(f"{self.name}: {seconds:.3f} s for {data.hex()}")
        self.seconds.append(seconds)

    def finish(self) -> None:
        """Print what it did. FuzzError: it is slow as a rule."""
        median = statistics.median(self.seconds)
        print(
            f"{self.name:16} {len(self.seconds):7} inputs, {self.n_accepted:6} accepted,"
            f" median {1e6 * median:6.1f} us, longest {1e3 * max(self.seconds):6.2f} ms"
        )
        if median > MEDIAN_S:
            raise FuzzError(f"{self.name}: the median is {median:.6f} s")


# ---- inputs ----


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, put in, taken out, doubled; or a number set to an edge."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(6):
            case 0 if changed:
                changed[at % len(changed)] ^= 1 << rng.randrange(8)
            case 1 if changed:
                changed[at % len(changed)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, 0x2F))
            case 2:
                changed[at:at] = rng.randbytes(rng.randrange(1, 9))
            case 3:
                del changed[at : at + rng.randrange(1, 9)]
            case 4:
                number = rng.choice((0, 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1))
                changed[at - at % 8 : at - at % 8 + 8] = struct.pack("=Q", number)
            case _:
                changed[at:at] = changed[: rng.randrange(len(changed) + 1)]
    return bytes(changed)


def make(case: Case, rng: random.Random) -> bytes:
    """An input: usually a changed valid one."""
    if rng.randrange(10) == 0:
        return rng.randbytes(rng.choice((0, 1, 7, 8, 39, 40, 56, 300)))
    return mutate(rng.choice(case.seeds), rng)


# ---- the parsers ----


def attach_block(data: bytes) -> None:
    """Attach, and look at what it is."""
    block = MemoryAlloc.attach(data)
    with block.get_memview() as view:
        bytes(view[-1:])
    block.detach()


def attach_channel(data: bytes) -> None:
    """Attach, and look at what it is."""
    channel = Channel.attach(data)
    channel.num_msgs  # noqa: B018
    channel.detach()


def in_pickle(attach: Callable[[bytes], object]) -> Doer:
    """The same by a pickle that is whole but for the description in it."""

    class Description:
        def __init__(self, data: bytes) -> None:
            self.data = data

        def __reduce__(self) -> tuple[Any, ...]:
            return attach, (self.data,)

    return lambda data: pickle.loads(pickle.dumps(Description(data)))


def descriptor_cases(pool: MemoryPool) -> list[Case]:
    """Everything that takes a description."""
    block, part = pool.alloc(1000), pool.alloc(70000).clone(100, 500)
    freed = pool.alloc(10)
    stale = freed.serialize()
    freed.free()
    channel = Channel(pool, 5)
    pools = [pool.serialize()]
    blocks = [block.serialize(), part.serialize(), stale]
    channels = [channel.serialize()]
    of_pool = (DragonMemoryError, ValueError)
    of_block = (DragonMemoryError,)
    of_channel = (ChannelError,)
    return [
        Case("pool", MemoryPool.attach, pools, of_pool),
        Case("pool name", MemoryPool.serialized_uid_fname, pools, of_pool),
        Case("block", attach_block, blocks, of_block),
        Case("channel", attach_channel, channels, of_channel),
        Case("channel number", Channel.serialized_uid, channels, of_channel),
        Case("pickled pool", in_pickle(MemoryPool.attach), pools, of_pool),
        Case("pickled block", in_pickle(MemoryAlloc.attach), blocks, of_block),
        Case("pickled channel", in_pickle(Channel.attach), channels, of_channel),
    ]


# ---- messages of a queue, in its shared memory ----

MARK = b"fuzz-descriptors-message-in-its-slot"
CHUNK_BYTES = 65536
MAPPED_BYTES = 16 << 20  # of the chunks, which begin where the heap's header says
DATA_OFFSET_AT = 32  # in struct dragon_heap_header
SLOT = struct.Struct("=IIQII104s")  # struct dragon_message: kind, size, block, payload


class QueueMessages:
    """A queue whose next message is written over before it is taken."""

    def __init__(self) -> None:
        self._queue = multiprocessing.get_context("dragon").Queue()
        fd = _dragon.node_fd()
        (begin,) = struct.unpack("=Q", os.pread(fd, 8, DATA_OFFSET_AT))
        self._memory = mmap.mmap(fd, MAPPED_BYTES, offset=begin)
        self._n_marks = 0
        self._place = 0  # of the slot of the last message
        pickled = [self._slot_of(item) for item in ([1, 2], {"a": 1}, bytearray(100_000))]
        self._pickles = {SLOT.unpack(slot)[0]: SLOT.unpack(slot)[5] for slot in pickled}
        direct = (b"y" * 5000, True, 5, -1.5, b"x" * 50, "text", (1, "a", None, 2.5), None)
        self.seeds = pickled + [self._slot_of(item) for item in direct]

    def _next_slot(self) -> int:
        """Put a message that is found in the memory again; where its slot is."""
        self._n_marks += 1
        mark = MARK + struct.pack("=Q", self._n_marks)
        self._queue.put(mark)
        chunk = self._place - self._place % CHUNK_BYTES  # where its ring is, as a rule
        found = self._memory.find(mark, self._place, chunk + CHUNK_BYTES)
        found = found if found >= 0 else self._memory.find(mark, chunk, chunk + CHUNK_BYTES)
        found = found if found >= 0 else self._memory.find(mark)
        if found < 0:
            raise FuzzError("the message is not in the mapped part of the pool")
        self._place = found - SLOT.size + 104
        return self._place

    def _slot_of(self, item: object) -> bytes:
        """The message of an item, which lies behind that of another."""
        place = self._next_slot() + SLOT.size
        self._queue.put(item)
        slot = self._memory[place : place + SLOT.size]
        self._queue.get()
        self._queue.get()
        return slot

    def prepare(self, data: bytes) -> None:
        """Put a message, and write the bytes over it.

        One whose size makes no sense stays in the queue for ever; it is made whole first.
        What a changed pickle does is the pickle's affair, so those stay whole.
        """
        if self._queue.qsize() > 0:
            self._memory[self._place : self._place + SLOT.size] = self.seeds[-1]
            with contextlib.suppress(OSError):
                self._queue.get()
        place = self._next_slot()
        *fields, payload = SLOT.unpack(data[: SLOT.size].ljust(SLOT.size, b"\0"))
        payload = self._pickles.get(fields[0], payload)
        self._memory[place : place + SLOT.size] = SLOT.pack(*fields, payload)

    def take(self, _data: bytes) -> None:
        """Take it."""
        self._queue.get(timeout=0)


def message_case() -> Case:
    """The codec of a queue's messages. A pickle cut short fails as it likes."""
    messages = QueueMessages()
    of_get = (OSError, ValueError, EOFError, pickle.UnpicklingError)
    return Case("queue message", messages.take, messages.seeds, of_get, messages.prepare)


# ---- the run ----


def corpus_of(case: Case) -> list[bytes]:
    """Inputs that were of interest once, in hexadecimal."""
    path = CORPUS / f"{case.name.removeprefix('pickled ').split()[0]}.txt"
    if not path.exists():
        return []
    return [bytes.fromhex(line) for line in path.read_text().split()]


def fuzz(cases: list[Case], rng: random.Random, seconds: float, n_each: int | None) -> None:
    """Give each case the corpus, its seeds, and changed ones until the time is up."""
    for case in cases:
        for data in (*corpus_of(case), *case.seeds):
            case.run(data)
    end = time.monotonic() + seconds
    n = 0
    while time.monotonic() < end if n_each is None else n < n_each:
        for case in cases:
            case.run(make(case, rng))
        n += 1
    for case in cases:
        case.finish()


def main(arguments: list[str]) -> int:
    """Run; 1 after a failure."""
    seconds = float(arguments[0]) if arguments else 10
    seed = int(arguments[1]) if len(arguments) > 1 else random.randrange(2**32)
    n_each = int(arguments[2]) if len(arguments) > 2 else None
    print(f"fuzz_descriptors: seed {seed}", flush=True)
    rng = random.Random(seed)
    with MemoryPool(1 << 20, f"fuzz{os.getpid()}x{seed}", 7) as pool:
        cases = descriptor_cases(pool)
        if "_dragon_launch" in sys.builtin_module_names:
            cases.append(message_case())
        try:
            fuzz(cases, rng, seconds, n_each)
        except FuzzError as error:
            print(f"fuzz_descriptors: failed with seed {seed}: {error}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
