"""dragon.managed_memory, under plain python3 and under dragon."""

import multiprocessing
import os
import pickle
import random
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import _dragon
from dragon import _memory_names
from dragon.managed_memory import (
    DragonMemoryError,
    DragonPoolAllocationNotAvailable,
    DragonPoolAttachFail,
    DragonPoolCreateFail,
    DragonPoolError,
    MemoryAlloc,
    MemoryPool,
)
from dragon.rc import DragonError
from dragon.utils import host_id

MIB = 1 << 20
SHM = Path("/dev/shm")


@pytest.fixture
def name() -> Iterator[str]:
    """A name that no other pool has; whatever pool got it is removed."""
    name = f"test{os.getpid()}x{random.getrandbits(40):x}"
    yield name
    for file in SHM.glob(f"D{name}*M"):
        file.unlink()


@pytest.fixture
def pool(name: str) -> Iterator[MemoryPool]:
    with MemoryPool(MIB, name, 7) as pool:
        yield pool


# ---- pools ----


def test_a_new_pool_is_empty_and_knows_itself(pool: MemoryPool) -> None:
    assert pool.size == MIB
    assert pool.free_space == MIB
    assert (pool.utilization, pool.current_allocations, pool.muid) == (0.0, 0, 7)
    assert pool.is_local


def test_the_file_of_a_pool_is_open_to_its_user_only(name: str, pool: MemoryPool) -> None:
    assert stat.S_IMODE((SHM / f"D{name}M").stat().st_mode) == 0o600


def test_sizes_are_rounded_up(name: str) -> None:
    with MemoryPool(1000, name, 1) as pool:
        assert 1000 <= pool.size <= 65536
        assert pool.alloc(1).size == 1


def test_a_name_that_is_taken_is_an_error_and_leaves_the_first_pool(
    name: str, pool: MemoryPool
) -> None:
    with pytest.raises(DragonPoolCreateFail, match=f"{name}.*or was left by") as caught:
        MemoryPool(MIB, name, 8)
    assert caught.value.lib_err == DragonError.MEMORY_ERRNO
    assert isinstance(caught.value.__cause__, FileExistsError)
    assert pool.alloc(10).size == 10


@pytest.mark.parametrize("bad", ["", "a/b", "../x", "a\0b", "x" * 300])
def test_a_bad_name_is_an_error(bad: str) -> None:
    with pytest.raises(DragonPoolCreateFail):
        MemoryPool(MIB, bad, 1)


def test_names_may_be_any_text(name: str) -> None:
    with MemoryPool(MIB, name + " ü 世", 1) as pool:
        assert MemoryPool.attach(pool.serialize()).size == MIB


@pytest.mark.parametrize(
    "size, uid, kind",
    [
        (0, 1, DragonPoolCreateFail),
        (32, 1, DragonPoolCreateFail),
        (-1, 1, OverflowError),
        (2**64, 1, OverflowError),
        (2**63, 1, DragonPoolCreateFail),
        (2**50, 1, DragonPoolCreateFail),
        (1.5, 1, TypeError),
        ("1", 1, TypeError),
        (None, 1, TypeError),
        (MIB, -1, OverflowError),
        (MIB, 2**64, OverflowError),
        (MIB, "1", TypeError),
        (MIB, 1.0, TypeError),
    ],
)
def test_a_bad_size_or_uid_is_an_error_and_leaves_no_file(
    name: str, size: Any, uid: Any, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        MemoryPool(size, name, uid)
    assert not (SHM / f"D{name}M").exists()


@pytest.mark.parametrize("bad", [None, 5, b"name"])
def test_a_name_that_is_no_text_is_a_type_error(bad: Any) -> None:
    with pytest.raises(TypeError, match="fname must be str"):
        MemoryPool(MIB, bad, 1)


def test_no_memory_has_the_number_of_no_memory(name: str) -> None:
    with pytest.raises(DragonPoolCreateFail) as caught:
        MemoryPool(2**50, name, 1)
    assert caught.value.lib_err == DragonError.INTERNAL_MALLOC_FAIL


def test_destroy_removes_the_name_and_keeps_the_memory_of_others(name: str) -> None:
    pool = MemoryPool(MIB, name, 1)
    other = MemoryPool.attach(pool.serialize())
    view = pool.alloc(10).get_memview()
    pool.destroy()
    assert not (SHM / f"D{name}M").exists()
    view[:3] = b"abc"
    assert bytes(view[:3]) == b"abc"
    assert other.alloc(10).size == 10
    with pytest.raises(DragonPoolError):
        other.destroy()
    with pytest.raises(DragonPoolError):
        pool.destroy()


@pytest.mark.parametrize("end", [MemoryPool.destroy, MemoryPool.detach])
def test_an_ended_pool_refuses_everything(name: str, end: Callable[[MemoryPool], None]) -> None:
    pool = MemoryPool(MIB, name, 1)
    end(pool)
    for use in [
        lambda: pool.alloc(1),
        lambda: pool.size,
        lambda: pool.free_space,
        lambda: pool.utilization,
        lambda: pool.current_allocations,
        pool.serialize,
        pool.destroy,
        pool.detach,
        lambda: pickle.dumps(pool),
    ]:
        with pytest.raises(DragonPoolError, match=f"{name}.*destroyed or detached"):
            use()
    assert pool.muid == 1


def test_the_creators_with_block_destroys_and_others_do_not(name: str) -> None:
    with MemoryPool(MIB, name, 1) as pool:
        with MemoryPool.attach(pool.serialize()) as other:
            assert other.size == MIB
        assert (SHM / f"D{name}M").exists()
    assert not (SHM / f"D{name}M").exists()


def test_a_with_block_of_a_destroyed_pool_ends_well(name: str) -> None:
    with MemoryPool(MIB, name, 1) as pool:
        pool.destroy()


# ---- blocks ----


def test_a_block_has_its_size_and_is_writable(pool: MemoryPool) -> None:
    block = pool.alloc(100)
    view = block.get_memview()
    assert (block.size, view.nbytes, view.readonly, view.format) == (100, 100, False, "B")
    view[:] = bytes(range(100))
    assert bytes(block.get_memview()) == bytes(range(100))
    assert block.pool is pool


def test_blocks_do_not_overlap(pool: MemoryPool) -> None:
    blocks = [pool.alloc(size) for size in [1, 7, 64, 65, 1000, 8192, 8193, 70_000] * 3]
    for i, block in enumerate(blocks):
        block.get_memview()[:] = bytes([i]) * block.size
    for i, block in enumerate(blocks):
        assert bytes(block.get_memview()) == bytes([i]) * block.size
    assert pool.current_allocations == len(blocks)
    assert len({block.id for block in blocks}) == len(blocks)


@pytest.mark.parametrize(
    "size, kind",
    [
        (-1, RuntimeError),
        (1.5, TypeError),
        ("1", TypeError),
        (None, TypeError),
        (MIB, DragonPoolAllocationNotAvailable),
        (2 * MIB, DragonPoolAllocationNotAvailable),
        (2**63, DragonPoolAllocationNotAvailable),
        (2**64 - 1, DragonPoolAllocationNotAvailable),
        (2**64, DragonPoolAllocationNotAvailable),
        (10**30, DragonPoolAllocationNotAvailable),
    ],
)
def test_a_block_that_cannot_be_had_is_an_error(
    pool: MemoryPool, size: Any, kind: type[Exception]
) -> None:
    kept = pool.alloc(1)
    with pytest.raises(kind):
        pool.alloc(size)
    assert pool.current_allocations == 1
    kept.free()


def test_free_space_and_utilization_follow_the_blocks(pool: MemoryPool) -> None:
    blocks = [pool.alloc(100_000) for _ in range(5)]
    assert pool.current_allocations == 5
    assert pool.free_space <= MIB - 500_000
    assert 45 < pool.utilization < 80
    for block in blocks:
        block.free()
    assert (pool.current_allocations, pool.free_space, pool.utilization) == (0, MIB, 0.0)


@pytest.mark.parametrize("size", [10, 1000, 50_000])
def test_a_full_pool_can_be_emptied_and_filled_again(pool: MemoryPool, size: int) -> None:
    counts = []
    for _ in range(3):
        blocks = []
        with pytest.raises(DragonPoolAllocationNotAvailable, match="full"):
            while True:
                blocks.append(pool.alloc(size))
        counts.append(len(blocks))
        random.Random(1).shuffle(blocks)
        for block in blocks:
            block.free()
        assert pool.free_space == MIB
    assert counts[0] == counts[1] == counts[2] > 0


def test_free_twice_is_an_error(pool: MemoryPool) -> None:
    block, other = pool.alloc(10), pool.alloc(10)
    block.free()
    for use in [block.free, block.detach, block.get_memview]:
        with pytest.raises(DragonMemoryError, match="freed or detached"):
            use()
    assert pool.current_allocations == 1
    assert other.get_memview().nbytes == 10


def test_a_block_that_is_viewed_is_freed_with_the_last_view(pool: MemoryPool) -> None:
    block = pool.alloc(10)
    view = block.get_memview()
    part = view[2:]
    block.free()
    for use in [block.free, block.get_memview]:
        with pytest.raises(DragonMemoryError, match="freed or detached"):
            use()
    view.release()
    assert pool.current_allocations == 1
    part[:3] = b"abc"
    part.release()
    assert pool.current_allocations == 0


def test_a_viewed_block_that_another_object_frees_is_freed_once(pool: MemoryPool) -> None:
    block = pool.alloc(10)
    view = block.get_memview()
    MemoryAlloc.attach(block.serialize()).free()
    with pytest.raises(DragonMemoryError):
        block.free()
    neighbour = pool.alloc(10)
    view.release()
    assert pool.current_allocations == 1
    neighbour.free()


def test_a_block_outlives_its_object(pool: MemoryPool) -> None:
    block = pool.alloc(10)
    block.get_memview()[:] = b"0123456789"
    words = block.serialize()
    del block
    again = MemoryAlloc.attach(words)
    assert bytes(again.get_memview()) == b"0123456789"
    again.detach()
    MemoryAlloc.attach(words).free()
    assert pool.current_allocations == 0


def test_ids_are_never_used_again(pool: MemoryPool) -> None:
    ids = []
    for _ in range(20):
        block = pool.alloc(100)
        ids.append(block.id)
        block.free()
    assert len(set(ids)) == 20


def test_threads_allocate_and_free_at_once(pool: MemoryPool) -> None:
    def work(mark: int) -> None:
        for size in [10, 500, 9000] * 100:
            block = pool.alloc(size)
            view = block.get_memview()
            view[:] = bytes([mark]) * size
            assert bytes(view) == bytes([mark]) * size
            view.release()
            block.free()

    threads = [threading.Thread(target=work, args=(mark,)) for mark in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (pool.current_allocations, pool.free_space) == (0, MIB)


# ---- more of pools ----


def test_no_more_blocks_than_max_allocations(name: str) -> None:
    with MemoryPool(MIB, name, 1, None, 64, 10) as pool:
        other = MemoryPool.attach(pool.serialize())
        assert (pool.max_allocations, other.max_allocations) == (10, 10)
        blocks = [other.alloc(1) for _ in range(10)]
        ways: list[Callable[[int], MemoryAlloc]] = [pool.alloc, other.alloc, pool.alloc_blocking]
        for allocate in ways:
            with pytest.raises(DragonPoolError, match="10 allocations"):
                allocate(1)
        blocks.pop().free()
        pool.alloc(1)


@pytest.mark.parametrize(
    "arguments, kind",
    [
        ({"pre_alloc_blocks": "many"}, RuntimeError),
        ({"pre_alloc_blocks": [1, "x"]}, RuntimeError),
        ({"min_block_size": "1"}, TypeError),
        ({"min_block_size": MIB}, DragonPoolCreateFail),
        ({"max_allocations": -1}, OverflowError),
        ({"gpu_memory": True}, NotImplementedError),
        ({"numa_node": 0}, NotImplementedError),
        ({"numa_node": None}, TypeError),
    ],
)
def test_a_bad_option_is_an_error_and_leaves_no_file(
    name: str, arguments: dict[str, Any], kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        MemoryPool(MIB, name, 1, **arguments)
    assert not (SHM / f"D{name}M").exists()


def test_hints_change_nothing(name: str) -> None:
    with MemoryPool(MIB, name, 1, pre_alloc_blocks=[4, 2], min_block_size=4096) as pool:
        assert (pool.free_space, pool.max_allocations) == (MIB, MIB // 4096)


def test_an_empty_pool_can_do_nothing() -> None:
    for pool in [MemoryPool.empty_pool(), MemoryPool.__new__(MemoryPool)]:
        for use in [pool.destroy, pool.detach, pool.serialize, lambda p=pool: p.alloc(1)]:
            with pytest.raises(DragonPoolError):
                use()


def test_a_description_tells_number_and_file(name: str, pool: MemoryPool) -> None:
    words = pool.serialize()
    assert MemoryPool.serialized_uid_fname(words) == (7, f"/D{name}M")
    assert int.from_bytes(words[8:16], "little") == host_id()


def test_a_blocking_allocation_waits_for_room(pool: MemoryPool) -> None:
    kept = pool.alloc(700_000)
    timer = threading.Timer(0.05, kept.free)
    timer.start()
    block = pool.alloc_blocking(700_000, timeout=20)
    timer.join()
    assert block.size == 700_000


def test_a_blocking_allocation_gives_up_in_time(pool: MemoryPool) -> None:
    pool.alloc(700_000)
    begin = time.monotonic()
    with pytest.raises(TimeoutError):
        pool.alloc_blocking(700_000, timeout=0.1)
    assert 0.1 <= time.monotonic() - begin < 1
    with pytest.raises(DragonPoolError):
        pool.alloc_blocking(700_000, timeout=0)
    with pytest.raises(DragonPoolError):
        pool.alloc_blocking(2 * MIB)
    for arguments, kind in [((0,), RuntimeError), ((1, -1), ValueError), ((1, "1"), ValueError)]:
        with pytest.raises(kind):
            pool.alloc_blocking(*arguments)


def test_a_block_is_found_by_its_id(pool: MemoryPool) -> None:
    block = pool.alloc_from_bytes(b"hello")
    found = pool.alloc_from_id(block.id)
    assert bytes(found.get_memview()) == b"hello"
    assert found.is_the_same_as(block)
    assert pool.allocation_exists(block.id)
    block.free()
    assert not pool.allocation_exists(block.id)
    for id in [block.id, 0, -1, 2**200]:
        with pytest.raises(DragonPoolError):
            pool.alloc_from_id(id)


# ---- more of blocks ----


def test_blocks_are_equal_if_their_bytes_are(pool: MemoryPool) -> None:
    a, b, c = (pool.alloc_from_bytes(data) for data in [b"same", b"same", b"else"])
    assert (a == b, a == c, a == "same") == (True, False, False)
    assert hash(a) == hash(b) >= 0
    assert not a.is_the_same_as(b)
    with pytest.raises(DragonMemoryError):
        a.is_the_same_as(5)  # type: ignore[arg-type]


def test_a_clone_is_a_part_of_the_same_block(pool: MemoryPool) -> None:
    block = pool.alloc_from_bytes(b"0123456789")
    part = block.clone(2, 5)
    again = MemoryAlloc.attach(part.serialize())
    assert (bytes(part.get_memview()), part.size) == (b"23456", 5)
    assert bytes(again.clone(1).get_memview()) == b"3456"
    part.get_memview()[0] = 0
    assert block.get_memview()[2] == 0
    part.detach()
    with pytest.raises(DragonMemoryError):
        part.get_memview()
    for arguments, kind in [((11,), RuntimeError), ((-1,), RuntimeError), (("1",), TypeError)]:
        with pytest.raises(kind):
            block.clone(*arguments)
    block.free()
    assert pool.current_allocations == 0


def test_a_block_is_copied_into_another_pool(name: str, pool: MemoryPool) -> None:
    block = pool.alloc_from_bytes(b"0123456789")
    with MemoryPool(MIB, name + "b", 2) as other:
        copy = block.copy(other, timeout=1)
        assert (copy == block, other.current_allocations) == (True, 1)
        copy.clear(2, 4)
        assert bytes(copy.get_memview()) == b"01\0\x00456789"
        copy.clear()
        assert bytes(copy.get_memview()) == bytes(10)


def test_what_was_allocated_here_cannot_be_detached(pool: MemoryPool) -> None:
    block = pool.alloc(10)
    with pytest.raises(RuntimeError, match="not attached"):
        block.detach()
    again = MemoryAlloc.attach(block.serialize())
    again.detach()
    with pytest.raises(DragonMemoryError):
        again.get_memview()


@pytest.mark.parametrize("source", ["text", None, 5, memoryview(b"abcdef")[::2]])
def test_what_has_no_bytes_in_one_piece_takes_no_block(pool: MemoryPool, source: Any) -> None:
    with pytest.raises(TypeError):
        pool.alloc_from_bytes(source)
    assert pool.current_allocations == 0


def test_a_block_larger_than_the_pool_is_not_called_a_full_pool(pool: MemoryPool) -> None:
    for allocate in (pool.alloc, pool.alloc_blocking):
        with pytest.raises(DragonPoolAllocationNotAvailable) as caught:
            allocate(2 * MIB)
        text = f"so much does not fit into the pool (asked for {2 * MIB} bytes; its limit is {MIB},"
        assert text in str(caught.value)


def test_a_copy_needs_a_pool(pool: MemoryPool) -> None:
    with pool.alloc(10) as block, pytest.raises(TypeError, match="pool must be a MemoryPool"):
        block.copy("pool")


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"size": 159}, "159 bytes are less than 5 blocks of 32 bytes"),
        ({"fname": ""}, "a pool's name has at least one character"),
        ({"fname": "a/b"}, "none of them '/'"),
    ],
)
def test_what_cannot_be_a_pool_says_what_could(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(DragonPoolCreateFail, match=says):
        MemoryPool(**{"size": MIB, "fname": "unused", "uid": 7} | arguments)


# ---- descriptions as bytes ----


@pytest.mark.parametrize(
    "pass_on",
    [
        lambda p: MemoryPool.attach(p.serialize()),
        lambda p: pickle.loads(pickle.dumps(p)),
        lambda p: MemoryPool.attach(bytearray(p.serialize())),
        lambda p: MemoryPool.attach(memoryview(p.serialize())),
    ],
)
def test_an_attached_pool_is_the_same_pool(pool: MemoryPool, pass_on: Any) -> None:
    other = pass_on(pool)
    block = other.alloc(100)
    assert (pool.current_allocations, other.muid) == (1, 7)
    block.get_memview()[0] = 5
    assert MemoryAlloc.attach(block.serialize()).get_memview()[0] == 5
    assert pickle.loads(pickle.dumps(block)).get_memview()[0] == 5


@pytest.mark.parametrize(
    "words, kind",
    [
        (b"", ValueError),
        (b"x", DragonPoolAttachFail),
        (b"x" * 16, DragonPoolAttachFail),
        (b"\xff" * 64, DragonPoolAttachFail),
        (b"\0" * 16 + b"no such pool", DragonPoolAttachFail),
        (b"\0" * 16 + b"../../etc/passwd", DragonPoolAttachFail),
        (b"\0" * 16 + b"\0\0", DragonPoolAttachFail),
        ("text", TypeError),
        (None, TypeError),
        (5, TypeError),
    ],
)
def test_bytes_that_describe_no_pool_are_an_error(words: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        MemoryPool.attach(words)


@pytest.mark.parametrize(
    "words, kind",
    [
        (b"", DragonMemoryError),
        (b"x" * 7, DragonMemoryError),
        (b"x" * 8, DragonMemoryError),
        (b"\xff" * 64, DragonMemoryError),
        (b"\0" * 64, (DragonMemoryError, ValueError)),
        ("text", TypeError),
        (None, TypeError),
        (5, TypeError),
    ],
)
def test_bytes_that_describe_no_block_are_an_error(words: Any, kind: Any) -> None:
    with pytest.raises(kind):
        MemoryAlloc.attach(words)


def test_no_change_of_a_blocks_description_leads_to_another_block(pool: MemoryPool) -> None:
    blocks = [pool.alloc(100) for _ in range(20)]
    words = blocks[0].serialize()
    own = bytes(blocks[0].get_memview())
    for at in range(len(words)):
        for change in [0x01, 0x40, 0x80, 0xFF]:
            changed = bytearray(words)
            changed[at] ^= change
            try:
                found = MemoryAlloc.attach(bytes(changed))
            except DragonMemoryError:
                continue
            assert found.pool.is_local == (at not in range(8, 24))  # those say which pool
            if found.pool.is_local and found.size:
                assert found.id == blocks[0].id
                assert bytes(found.get_memview()) in own  # the same block, or a part of it
    for n in range(len(words)):
        with pytest.raises(DragonMemoryError):
            MemoryAlloc.attach(words[:n])


class CountingPool:
    """Stands for _dragon.Pool and counts who opens files."""

    def __init__(self) -> None:
        self.n_opened = 0

    def open(self, name: str) -> Any:
        self.n_opened += 1
        return _dragon.Pool.open(name)


def test_a_bad_description_costs_one_look_and_no_wait(
    monkeypatch: pytest.MonkeyPatch, pool: MemoryPool
) -> None:
    words = pool.serialize()
    block = pool.alloc(10).serialize()
    gone = words[:-8] + b"no-pool-"
    for attach, n_expected in [
        (lambda: MemoryPool.attach(gone), 1),
        (lambda: MemoryPool.attach(words[:-1]), 1),
        (lambda: MemoryPool.attach(words[:18]), 0),
        (lambda: MemoryAlloc.attach(block[:-1]), 0),
        (lambda: MemoryAlloc.attach(block[:-36] + bytes([1] * 36)), 0),
    ]:
        counting = CountingPool()
        with monkeypatch.context() as patch:
            patch.setattr(_memory_names, "_dragon", SimpleNamespace(Pool=counting))
            patch.setattr(time, "sleep", lambda seconds: pytest.fail("slept"))
            with pytest.raises(DragonMemoryError):
                attach()
        assert counting.n_opened == n_expected


def test_every_bit_of_the_generation_counts(pool: MemoryPool) -> None:
    words = bytearray(pool.alloc(100).serialize())
    words[-33] ^= 0x80  # the highest byte of the generation; four more numbers follow
    with pytest.raises(DragonMemoryError):
        MemoryAlloc.attach(bytes(words))


def test_a_stale_description_is_found_out(pool: MemoryPool) -> None:
    block = pool.alloc(100)
    words = block.serialize()
    block.free()
    again = pool.alloc(100)
    assert again.serialize() != words
    with pytest.raises(DragonMemoryError):
        MemoryAlloc.attach(words)


def test_a_block_freed_elsewhere_cannot_be_freed_again(pool: MemoryPool) -> None:
    block = pool.alloc(100)
    other = MemoryAlloc.attach(block.serialize())
    other.free()
    neighbour = pool.alloc(100)
    with pytest.raises(DragonMemoryError, match=f"block {block.id} of pool .* was freed before"):
        block.free()
    assert pool.current_allocations == 1
    neighbour.free()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\0" * MIB),
        lambda path: path.write_bytes(b"\xff" * MIB),
        lambda path: path.write_bytes(b"DRAGON"),
        lambda path: path.write_bytes(random.Random(3).randbytes(MIB)),
        lambda path: os.truncate(path, 4096),
        lambda path: os.truncate(path, path.stat().st_size - 65536),
        lambda path: path.unlink() or path.mkdir(),
        lambda path: path.unlink() or path.symlink_to("/etc/passwd"),
    ],
)
def test_a_damaged_file_is_refused(name: str, damage: Callable[[Path], None]) -> None:
    path = SHM / f"D{name}M"
    pool = MemoryPool(MIB, name, 1)
    words = pool.serialize()
    pool.detach()
    damage(path)
    with pytest.raises(DragonPoolAttachFail):
        MemoryPool.attach(words)
    if path.is_dir():
        path.rmdir()


def test_errors_can_be_pickled(pool: MemoryPool) -> None:
    with pytest.raises(DragonPoolAllocationNotAvailable) as caught:
        pool.alloc(2 * MIB)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is DragonPoolAllocationNotAvailable
    assert (str(copy), copy.lib_err) == (str(caught.value), caught.value.lib_err)


# ---- other processes ----

OTHER = """
import sys
from dragon.managed_memory import MemoryAlloc
block = MemoryAlloc.attach(bytes.fromhex(sys.argv[1]))
view = block.get_memview()
print(bytes(view[:5]).decode(), block.pool.muid)
view[:5] = b"reply"
mine = block.pool.alloc(50)
print(mine.serialize().hex())
"""


def test_another_process_uses_pool_and_block(pool: MemoryPool) -> None:
    block = pool.alloc(1000)
    block.get_memview()[:5] = b"hello"
    done = subprocess.run(
        [sys.executable, "-c", OTHER, block.serialize().hex()],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.stderr == ""
    greeting, words = done.stdout.splitlines()
    assert greeting == "hello 7"
    assert bytes(block.get_memview()[:5]) == b"reply"
    assert pool.current_allocations == 2
    MemoryAlloc.attach(bytes.fromhex(words)).free()
    assert pool.current_allocations == 1


def test_blocks_outlive_a_killed_process(pool: MemoryPool) -> None:
    code = OTHER + "import os\nsys.stdout.flush()\nos.kill(os.getpid(), 9)\n"
    block = pool.alloc(10)
    done = subprocess.run(
        [sys.executable, "-c", code, block.serialize().hex()],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == -9
    assert MemoryAlloc.attach(bytes.fromhex(done.stdout.splitlines()[1])).size == 50


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_block_is_an_argument_of_a_process(pool: MemoryPool, method: str) -> None:
    block = pool.alloc(10)
    block.get_memview()[:] = b"0123456789"
    context = multiprocessing.get_context(method)
    main = sys.modules["__main__"]
    spec, file = main.__spec__, main.__dict__.pop("__file__", None)
    main.__spec__ = None  # the child need not import pytest
    try:
        process = context.Process(target=MemoryAlloc.free, args=(block,))
        process.start()
        process.join()
    finally:
        main.__spec__ = spec
        if file is not None:
            main.__file__ = file
    assert process.exitcode == 0
    assert pool.current_allocations == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_cannot_attach(pool: MemoryPool) -> None:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            MemoryPool.attach(pool.serialize())
        except DragonPoolAttachFail as error:
            status = 0 if isinstance(error.__cause__, PermissionError) else 2
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
