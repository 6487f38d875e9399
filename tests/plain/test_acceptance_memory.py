"""What portable programs rely on in dragon.managed_memory: its public names, and nothing else."""

import os
import pickle
import random
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from dragon.managed_memory import (
    AllocType,
    DragonMemoryError,
    DragonPoolAllocationNotAvailable,
    DragonPoolAttachFail,
    DragonPoolCreateFail,
    DragonPoolError,
    MemoryAlloc,
    MemoryPool,
    PoolType,
)
from dragon.rc import DragonError

KIB = 1 << 10
MIB = 1 << 20


def new_name() -> str:
    return f"acceptance{os.getpid()}x{random.getrandbits(32):x}"


@pytest.fixture
def pool() -> Iterator[MemoryPool]:
    pool = MemoryPool(MIB, new_name(), 1)
    yield pool
    pool.destroy()


@pytest.fixture
def small() -> Iterator[MemoryPool]:
    pool = MemoryPool(32 * KIB, new_name(), 2)
    yield pool
    pool.destroy()


def flipped(words: bytes, at: int) -> bytes:
    return words[:at] + bytes([words[at] ^ 0xFF]) + words[at + 1 :]


# ---- making pools ----


def test_values_of_enums() -> None:
    assert [kind.value for kind in PoolType] == [0, 1, 2, 3, 4]
    assert [kind.name for kind in PoolType] == ["SHM", "HUGEPAGE", "GPU", "FILE", "PRIVATE"]
    assert [kind.value for kind in AllocType] == [0, 1, 2, 3]
    assert [kind.name for kind in AllocType] == ["DATA", "CHANNEL", "CHANNEL_BUFFER", "BOOTSTRAP"]
    assert DragonError.SUCCESS.value == 0


@pytest.mark.parametrize(
    "arguments, kind",
    [
        ((), TypeError),
        ((MIB,), TypeError),
        ((MIB, "x"), TypeError),
        (("1", "x", 1), TypeError),
        ((1.5, "x", 1), TypeError),
        ((-1, "x", 1), OverflowError),
        ((0, "x", 1), DragonPoolCreateFail),
        ((32, "x", 1), DragonPoolCreateFail),
        ((MIB, 5, 1), TypeError),
        ((MIB, "", 1), DragonPoolCreateFail),
        ((MIB, "x" * 4096, 1), DragonPoolCreateFail),
        ((MIB, "x", "1"), TypeError),
        ((MIB, "x", 1.0), TypeError),
        ((MIB, "x", -1), OverflowError),
        ((MIB, "x", 1, "many"), RuntimeError),
        ((MIB, "x", 1, None, None, None, False, None), TypeError),
    ],
)
def test_a_pool_that_cannot_be_is_an_error(arguments: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        MemoryPool(*arguments)


def test_a_name_of_28_characters_and_the_smallest_and_largest_number_are_legal() -> None:
    for uid in [0, 2**64 - 1]:
        pool = MemoryPool(MIB, f"{os.getpid():028d}", uid)
        assert pool.muid == uid
        pool.destroy()


def test_name_and_number_are_used_once(pool: MemoryPool) -> None:
    _uid, file = MemoryPool.serialized_uid_fname(pool.serialize())
    with pytest.raises(DragonPoolCreateFail):
        MemoryPool(MIB, file[2:-1], 5)
    with pytest.raises(DragonPoolCreateFail, match="number 1"):
        MemoryPool(MIB, new_name(), 1)


def test_a_number_can_be_used_again_after_destroy() -> None:
    name = new_name()
    for _ in range(5):
        pool = MemoryPool(MIB, name, 77)
        block = pool.alloc(10)
        pool.destroy()
        del block


def test_the_callers_list_of_blocks_stays_as_it_is() -> None:
    blocks = [4, 2]
    pool = MemoryPool(MIB, new_name(), 3, blocks)
    assert blocks == [4, 2]
    pool.destroy()


def test_an_uninitialised_pool_can_do_nothing() -> None:
    for pool in [MemoryPool.__new__(MemoryPool), MemoryPool.empty_pool()]:
        uses: list[Callable[[], Any]] = [pool.destroy, pool.serialize, partial(pool.alloc, 1)]
        for use in uses:
            with pytest.raises(DragonPoolError, match="this MemoryPool has no pool: attach"):
                use()


# ---- descriptions ----


def test_a_description_begins_with_number_and_machine(pool: MemoryPool) -> None:
    words = pool.serialize()
    assert int.from_bytes(words[:8], "little") == pool.muid
    assert pool.serialize() is words
    uid, file = MemoryPool.serialized_uid_fname(words)
    assert (uid, file[:2], file[-1]) == (1, "/D", "M")
    block = pool.alloc(100).serialize()
    length = int.from_bytes(block[:8], "little")
    assert block[8 : 8 + length] == words


def test_attach_to_nothing_is_a_value_error_and_to_a_destroyed_pool_a_failure() -> None:
    pool = MemoryPool(MIB, new_name(), 3)
    words = pool.serialize()
    pool.destroy()
    with pytest.raises(ValueError):
        MemoryPool.attach(b"")
    with pytest.raises(DragonPoolAttachFail):
        MemoryPool.attach(words)


@pytest.mark.parametrize("at", [0, 7, 8, 15])
def test_a_pool_of_another_machine_can_be_attached_to_and_not_used(
    pool: MemoryPool, at: int
) -> None:
    words = flipped(pool.serialize(), at)
    remote = MemoryPool.attach(words)
    assert (pool.is_local, remote.is_local) == (True, False)
    assert remote.muid == int.from_bytes(words[:8], "little")
    assert remote.serialize() == words
    assert not pickle.loads(pickle.dumps(remote)).is_local
    for use in [
        lambda: remote.alloc(1),
        lambda: remote.alloc(0),
        lambda: remote.alloc_blocking(1, 1),
        lambda: remote.alloc_from_bytes(b"x"),
        lambda: remote.alloc_from_id(1),
        lambda: remote.allocation_exists(1),
        lambda: remote.get_allocations(),
        lambda: remote.free_space,
        lambda: remote.utilization,
        lambda: remote.current_allocations,
        lambda: remote.free_blocks,
        remote.destroy,
    ]:
        with pytest.raises(DragonPoolError):
            use()
    remote.detach()
    with pytest.raises(DragonPoolError):
        remote.detach()


@pytest.mark.parametrize("at", [8, 15, 16, 23])
def test_a_block_of_another_machine_can_be_attached_to_and_not_used(
    pool: MemoryPool, at: int
) -> None:
    block = pool.alloc_from_bytes(b"0123456789")
    words = flipped(block.serialize(), at)
    remote = MemoryAlloc.attach(words)
    part = remote.clone(2)
    assert remote.serialize() == words
    assert (remote.size, part.size, remote.id) == (10, 8, block.id)
    assert MemoryAlloc.attach(part.serialize()).size == 8
    assert not remote.is_the_same_as(block)
    for use in [
        remote.get_memview,
        remote.get_int_ptr,
        remote.free,
        remote.clear,
        lambda: remote.copy(pool),
        lambda: hash(remote),
        lambda: remote == block,
        part.get_memview,
    ]:
        with pytest.raises(DragonMemoryError):
            use()
    remote.detach()
    part.detach()


def test_attaching_a_block_to_anything_else_is_a_type_error(pool: MemoryPool) -> None:
    block = pool.alloc(10)
    for other in [5, "text", pool, block, pickle.dumps(block), b"", b"x" * 100]:
        with pytest.raises(TypeError):
            MemoryAlloc.attach(other)  # type: ignore[arg-type]


# ---- attaching and detaching in one process ----


def test_each_attachment_is_detached_on_its_own(pool: MemoryPool) -> None:
    words = pool.serialize()
    others = [MemoryPool.attach(words) for _ in range(10)]
    blocks = [other.alloc(100) for other in others]
    for other in others[1:]:
        other.detach()
        with pytest.raises(DragonPoolError):
            other.alloc(1)
    assert pool.alloc(1).size == others[0].alloc(1).size == 1
    for block in blocks:
        block.get_memview()[:] = bytes(100)
        MemoryAlloc.attach(block.serialize()).detach()
        block.free()
    assert MemoryPool.attach(words).current_allocations == 2


def test_a_detached_creator_leaves_the_pool_to_the_others() -> None:
    creator = MemoryPool(MIB, new_name(), 3)
    words = creator.serialize()
    block = creator.alloc_from_bytes(b"hello")
    other = MemoryPool.attach(words)
    creator.detach(serialize=True)
    assert creator.serialize() == words
    assert bytes(other.alloc_from_id(block.id).get_memview()) == b"hello"
    again = MemoryPool.attach(creator.serialize(), existing_memory_pool=creator)
    assert again is creator
    assert again.current_allocations == 1
    with pytest.raises(DragonPoolError):
        other.destroy()  # it did not create it
    os.unlink(f"/dev/shm{MemoryPool.serialized_uid_fname(words)[1]}")


def test_thousands_of_attached_blocks_need_no_descriptor_each(pool: MemoryPool) -> None:
    words = [pool.alloc(16).serialize() for _ in range(2000)]
    before = len(os.listdir("/proc/self/fd"))
    blocks = [MemoryAlloc.attach(each) for each in words]
    assert len(os.listdir("/proc/self/fd")) == before
    assert len({block.get_int_ptr() for block in blocks}) == 2000


# ---- allocating ----


def test_the_whole_pool_is_one_allocation(small: MemoryPool) -> None:
    for _ in range(3):
        block = small.alloc(32 * KIB)
        assert (block.size, small.current_allocations, small.utilization) == (32 * KIB, 1, 100.0)
        with pytest.raises(DragonPoolAllocationNotAvailable):
            small.alloc(1)
        block.free()
    assert small.free_space == small.size


def test_a_small_pool_is_used_up_by_single_bytes(small: MemoryPool) -> None:
    n = 0
    with pytest.raises(
        DragonPoolAllocationNotAvailable, match="DRAGON_DYNHEAP_REQUESTED_SIZE_NOT_AVAILABLE"
    ) as caught:
        while True:
            small.alloc(1)
            n += 1
    assert n == small.get_allocations().num_allocs == small.max_allocations
    assert "asked for 1 bytes; its limit is 32768, free are 0" in str(caught.value)


def test_no_more_allocations_than_max_allocations() -> None:
    pool = MemoryPool(MIB, new_name(), 3, None, None, 10)
    blocks = [pool.alloc(32) for _ in range(10)]
    assert (pool.max_allocations, pool.current_allocations) == (10, 10)
    for allocate in [pool.alloc, lambda size: pool.alloc_blocking(size, 5)]:
        with pytest.raises(DragonPoolError) as caught:
            allocate(32)
        assert not isinstance(caught.value, DragonPoolAllocationNotAvailable)
    blocks.pop().free()
    pool.alloc(32)
    pool.destroy()


def test_who_waits_is_told_when_others_take_the_last_allocation() -> None:
    pool = MemoryPool(32 * KIB, new_name(), 3, None, None, 2)
    pool.alloc(32 * KIB).free()
    pool.alloc(20 * KIB)
    code = """
    import sys
    from dragon.managed_memory import MemoryPool
    MemoryPool.attach(bytes.fromhex(sys.argv[1])).alloc(1)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), pool.serialize().hex()]
    with subprocess.Popen(command), pytest.raises(DragonPoolError, match="2 allocations"):
        pool.alloc_blocking(20 * KIB, timeout=30)
    pool.destroy()


def test_random_powers_of_two_fill_whole_chunks_exactly() -> None:
    """From 4 KiB on; smaller blocks share chunks with others of their size."""
    seed = random.getrandbits(32)
    print("seed", seed)
    choose = random.Random(seed)
    pool = MemoryPool(512 * KIB, new_name(), 3)
    for _ in range(200):
        left, blocks = 512 * KIB, []
        while left:
            size = min(4 * KIB << choose.randrange(8), left)
            size = 1 << (size.bit_length() - 1)
            blocks.append(pool.alloc(size))
            left -= size
        assert (pool.free_space, pool.free_blocks) == (0, {})
        choose.shuffle(blocks)
        for block in blocks:
            block.free()
        assert pool.free_blocks == {512 * KIB: 1}
    pool.destroy()


@pytest.mark.parametrize("timeout", [0.1, 0.4])
def test_a_blocking_allocation_gives_up_within_a_second_of_its_time(
    small: MemoryPool, timeout: float
) -> None:
    small.alloc(32 * KIB)
    begin = time.monotonic()
    with pytest.raises(TimeoutError):
        small.alloc_blocking(1, timeout)
    assert timeout <= time.monotonic() - begin < timeout + 1


def test_a_time_out_of_zero_is_one_try_and_an_error_of_pools(small: MemoryPool) -> None:
    small.alloc_blocking(32 * KIB, 0)
    with pytest.raises(DragonPoolError):
        small.alloc_blocking(1, 0)


@pytest.mark.parametrize(
    "arguments, kind",
    [
        (("1",), TypeError),
        ((1.0,), TypeError),
        ((-1,), RuntimeError),
        ((1, "DATA"), DragonMemoryError),
        ((1, 0), DragonMemoryError),
        ((1, 7), DragonMemoryError),
    ],
)
def test_an_allocation_that_cannot_be_is_an_error(
    pool: MemoryPool, arguments: Any, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        pool.alloc(*arguments)
    assert pool.current_allocations == 0


@pytest.mark.parametrize(
    "arguments, kind",
    [
        ((0,), RuntimeError),
        ((-1, 1), RuntimeError),
        (("1", 1), TypeError),
        ((1, -1), ValueError),
        ((1, "1"), ValueError),
        ((1, 1, 7), DragonMemoryError),
    ],
)
def test_a_wait_for_an_allocation_that_cannot_be_is_an_error(
    pool: MemoryPool, arguments: Any, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        pool.alloc_blocking(*arguments)


def test_zero_bytes_take_up_nothing(small: MemoryPool) -> None:
    kept = small.alloc(32 * KIB)
    nothing = small.alloc(0)
    assert (nothing.size, nothing.get_memview().nbytes, nothing.get_int_ptr()) == (0, 0, 0)
    assert small.get_allocations().num_allocs == 1
    assert MemoryAlloc.attach(nothing.serialize()) == nothing
    assert pickle.loads(pickle.dumps(nothing)).pool.muid == 2
    nothing.free()
    for use in [nothing.free, nothing.get_memview]:
        with pytest.raises(DragonMemoryError):
            use()
    kept.free()


# ---- lists of allocations ----


def test_a_list_follows_allocations_exactly(pool: MemoryPool) -> None:
    blocks: list[MemoryAlloc] = []
    for n in range(50):
        blocks.append(pool.alloc(1 + 300 * n))
        assert pool.get_allocations().num_allocs == pool.current_allocations == n + 1
    assert pool.get_allocations().alloc_id(0) == blocks[0].id
    found = pool.get_allocations()
    assert {found.alloc_id(i) for i in range(50)} == {block.id for block in blocks}
    assert all(found.alloc_type(i).value == 0 for i in range(50))
    for n in reversed(range(50)):
        blocks.pop().free()
        assert pool.get_allocations().num_allocs == n
    assert found.num_allocs == 50  # as it was
    for index in [50, -1]:
        with pytest.raises(RuntimeError):
            found.alloc_id(index)
        with pytest.raises(RuntimeError):
            found.alloc_type(index)
    assert pool.max_used_allocations == 50


def test_a_list_can_be_of_one_type(pool: MemoryPool) -> None:
    blocks = {kind: pool.alloc(100, kind) for kind in AllocType}
    blocks_blocking = {kind: pool.alloc_blocking(100, 1, kind) for kind in AllocType}
    for kind in AllocType:
        found = pool.get_allocations(kind)
        assert {found.alloc_id(i) for i in range(found.num_allocs)} == {
            blocks[kind].id,
            blocks_blocking[kind].id,
        }
        assert {found.alloc_type(i) for i in range(found.num_allocs)} == {kind}
    assert pool.get_allocations().num_allocs == 8
    with pytest.raises(DragonMemoryError):
        pool.get_allocations(1)  # type: ignore[arg-type]


def test_an_allocation_is_found_by_its_id(pool: MemoryPool) -> None:
    block = pool.alloc_from_bytes(b"hello")
    found = pool.alloc_from_id(pool.get_allocations().alloc_id(0))
    assert found.is_the_same_as(block)
    assert found == block
    assert pool.allocation_exists(block.id)
    block.free()
    assert not pool.allocation_exists(block.id)
    with pytest.raises(DragonPoolError):
        pool.alloc_from_id(block.id)


def test_free_blocks_can_all_be_allocated(pool: MemoryPool) -> None:
    kept = [pool.alloc(size) for size in [1, 100, 3000, 70_000, 20_000, 1, 200_000]]
    kept[3].free()
    free = pool.free_blocks
    assert sum(size * n for size, n in free.items()) <= pool.free_space
    assert 0 < len(free) <= pool.num_block_sizes
    for size in sorted(free, reverse=True):
        for _ in range(free[size]):
            pool.alloc(size)
    assert pool.free_blocks == {}


# ---- blocks ----


def test_content_decides_on_equality_and_hash(pool: MemoryPool, small: MemoryPool) -> None:
    a, b = pool.alloc_from_bytes(b"same"), small.alloc_from_bytes(b"same")
    longer = pool.alloc_from_bytes(b"same and more")
    assert a == b != longer
    assert hash(a) == hash(b) >= 0
    assert longer.clone(0, 4) == a
    b.get_memview()[0] = 0
    assert a != b


def test_a_block_keeps_what_it_is_asked_to(pool: MemoryPool, small: MemoryPool) -> None:
    block = pool.alloc_from_bytes(b"0123456789")
    address = block.get_int_ptr()
    assert block.clone(3).get_int_ptr() == address + 3
    assert MemoryAlloc.attach(block.serialize()).get_int_ptr() == address
    copy = block.copy(small, timeout=1)
    assert copy == block
    assert copy.pool.muid == 2
    assert not copy.is_the_same_as(block)
    block.clear(2, 4)
    assert bytes(block.get_memview()) == b"01\0\x00456789"
    with pytest.raises(TimeoutError):
        pool.alloc(20_000).copy(pool_full(small), timeout=0.05)
    for arguments, kind in [
        (("1",), TypeError),
        ((0, "1"), TypeError),
        ((-1,), RuntimeError),
        ((0, -1), RuntimeError),
    ]:
        with pytest.raises(kind):
            block.clone(*arguments)


def pool_full(pool: MemoryPool) -> MemoryPool:
    for size, n in pool.free_blocks.items():
        for _ in range(n):
            pool.alloc(size)
    return pool


def test_after_detach_there_is_no_view(pool: MemoryPool) -> None:
    block = pool.alloc(10)
    with pytest.raises(RuntimeError, match="cannot detach from memory not attached to"):
        block.detach()
    other = MemoryAlloc.attach(block.serialize())
    other.detach()
    for use in [other.get_memview, other.detach, other.free, other.get_int_ptr]:
        with pytest.raises(DragonMemoryError):
            use()
    block.free()
    with pytest.raises(DragonMemoryError):
        block.free()


def test_a_with_block_ends_the_use(pool: MemoryPool) -> None:
    with pool.alloc_from_bytes(b"hello") as block:
        with MemoryAlloc.attach(block.serialize()) as other, block.clone(1) as part:
            assert (other, bytes(part.get_memview())) == (block, b"ello")
        assert pool.current_allocations == 1
    assert pool.current_allocations == 0
    with pool.alloc(10) as block:
        block.free()


# ---- numbers while others work, and after one was killed ----

CHURN = """
import os, random, sys
from dragon.managed_memory import MemoryPool
pool = MemoryPool.attach(bytes.fromhex(sys.argv[1]))
choose = random.Random(int(sys.argv[2]))
kept = []
print("ready", flush=True)
while True:
    if len(kept) > 20 or (kept and choose.random() < 0.5):
        kept.pop(choose.randrange(len(kept))).free()
    else:
        kept.append(pool.alloc(choose.choice([1, 100, 3000, 9000])))
"""


def test_numbers_are_exact_after_allocating_processes_were_killed(pool: MemoryPool) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHURN, pool.serialize().hex(), str(seed)],
            stdout=subprocess.PIPE,
        )
        for seed in range(3)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
    for _ in range(200):  # while they work: always possible numbers
        assert 0 <= pool.current_allocations <= 63
        assert 0 <= pool.free_space <= pool.size
    for child in children:
        child.kill()
        child.communicate()
    found = pool.get_allocations()
    most = pool.max_used_allocations
    assert most is not None  # as it is for a node's default pool
    assert found.num_allocs == pool.current_allocations <= most <= 63
    for index in range(found.num_allocs):
        pool.alloc_from_id(found.alloc_id(index)).free()
    assert (pool.current_allocations, pool.utilization) == (0, 0.0)
    assert (pool.free_space, pool.free_blocks) == (pool.size, {pool.size: 1})


# ---- lifetime ----


def test_a_process_local_pool_goes_with_its_process() -> None:
    name = new_name()
    code = f"""
    from dragon.managed_memory import MemoryPool
    pool = MemoryPool.make_process_local({name!r}, {MIB})
    print(pool.alloc(10).size, pool.serialize().hex())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout.split()[0], done.stderr) == ("10", "")
    with pytest.raises(DragonPoolAttachFail):
        MemoryPool.attach(bytes.fromhex(done.stdout.split()[1]))


def test_a_process_local_pool_can_be_destroyed_before() -> None:
    pool = MemoryPool.make_process_local(new_name(), MIB)
    words = pool.serialize()
    assert MemoryPool.attach(words).is_local
    pool.destroy()
    with pytest.raises(DragonPoolAttachFail):
        MemoryPool.attach(words)
    with pytest.raises(ValueError):
        MemoryPool.make_process_local(new_name(), MIB, timeout=-1)


def test_what_cannot_be_done_is_said(pool: MemoryPool) -> None:
    for use in [pool.register, pool.deregister]:
        with pytest.raises(DragonPoolError, match="nodes keep no list"):
            use(timeout=1)
        with pytest.raises(ValueError):
            use(timeout=-1)
    for name in ["process_local_register_with_gpu", "process_local_unregister_with_gpu"]:
        with pytest.raises(NotImplementedError, match="GPU"):
            getattr(pool, name)()
    with pytest.raises(NotImplementedError, match="GPU"):
        MemoryPool(MIB, new_name(), 3, gpu_memory=True)
    with pytest.raises(NotImplementedError, match="NUMA"):
        MemoryPool(MIB, new_name(), 3, numa_node=0)


def test_a_pool_of_more_than_half_the_memory_can_be_made() -> None:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")
    pool = MemoryPool(memory * 55 // 100, new_name(), 3)
    try:
        block = pool.alloc(MIB)
        block.get_memview()[-1] = 5
        assert pool.size >= memory * 55 // 100
        _uid, file = MemoryPool.serialized_uid_fname(pool.serialize())
        assert os.stat(f"/dev/shm{file}").st_blocks * 512 < 64 * MIB
    finally:
        pool.destroy()


# ---- the documented example ----

EXAMPLE = """
import multiprocessing as mp

from dragon.channels import Channel
from dragon.managed_memory import MemoryAlloc, MemoryPool


def work(descriptors, answers):
    channel = Channel.attach(descriptors.get())
    block = MemoryAlloc.attach(descriptors.get())
    with channel.recvh() as receive:
        answers.put(receive.recv_bytes())
    view = block.get_memview()
    answers.put(bytes(view[:5]))
    view[:5] = b"reply"
    answers.put(MemoryPool.attach(descriptors.get()).alloc_from_bytes(b"mine").serialize())


if __name__ == "__main__":
    mp.set_start_method("spawn")
    pool = MemoryPool(1024**3, "MyDragonCoreMemPool", 2)
    channel = Channel(pool, 3)
    block = pool.alloc(1000)
    block.get_memview()[:5] = b"hello"
    descriptors, answers = mp.Queue(), mp.Queue()
    process = mp.Process(target=work, args=(descriptors, answers))
    process.start()
    descriptors.put(channel.serialize())
    descriptors.put(block.serialize())
    descriptors.put(pool.serialize())
    with channel.sendh() as send:
        send.send_bytes(b"through the channel")
    print(answers.get(), answers.get())
    print(bytes(MemoryAlloc.attach(answers.get()).get_memview()))
    process.join()
    print(process.exitcode, bytes(block.get_memview()[:5]))
    channel.destroy()
    pool.destroy()
"""


@pytest.mark.slow
def test_the_documented_example(tmp_path: Any) -> None:
    program = tmp_path / "example.py"
    program.write_text(EXAMPLE)
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert done.stdout == "b'through the channel' b'hello'\nb'mine'\n0 b'reply'\n"
