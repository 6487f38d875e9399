"""The node's default pool as a MemoryPool."""

import multiprocessing as mp
import pickle
import subprocess
import sys

import pytest

import _dragon
from dragon import utils
from dragon.managed_memory import (
    AllocType,
    DragonPoolAttachFail,
    DragonPoolCreateFail,
    DragonPoolError,
    MemoryAlloc,
    MemoryPool,
)


def test_it_can_be_attached_to_and_described() -> None:
    pool = MemoryPool.attach_default()
    assert pool.is_local
    assert pool.muid == pool.rt_uid == utils.get_local_rt_uid() != 0
    assert MemoryPool.serialized_uid_fname(pool.serialize()) == (pool.muid, "")
    assert pool.size == _dragon.pool_statistics()["size_bytes"]
    assert pool.max_used_allocations is None
    again = pickle.loads(pickle.dumps(pool))
    with again.alloc_from_bytes(b"hello") as block:
        assert pool.alloc_from_id(block.id) == block
        assert pool.allocation_exists(block.id)
        assert block.get_int_ptr() == pool.alloc_from_id(block.id).get_int_ptr()


def test_it_cannot_be_destroyed_and_its_number_is_taken() -> None:
    pool = MemoryPool.attach_default()
    with pytest.raises(DragonPoolError, match="not created"):
        pool.destroy()
    with pytest.raises(DragonPoolCreateFail):
        MemoryPool(1 << 20, "x", pool.muid)
    pool.detach()
    with pytest.raises(DragonPoolError):
        pool.alloc(1)
    assert MemoryPool.attach_default().alloc_from_bytes(b"x").free() is None


def test_its_list_shows_what_the_runtime_made() -> None:
    pool = MemoryPool.attach_default()
    before = pool.get_allocations(AllocType.CHANNEL).num_allocs
    lock = mp.get_context("dragon").Lock()
    assert pool.get_allocations(AllocType.CHANNEL).num_allocs == before + 1
    del lock
    assert pool.get_allocations(AllocType.CHANNEL).num_allocs == before


def reply(block: MemoryAlloc, queue: "mp.Queue[MemoryAlloc]") -> None:
    block.get_memview()[:5] = b"reply"
    queue.put(MemoryPool.attach_default().alloc_from_bytes(b"mine"))


def test_its_blocks_go_to_children_and_come_back() -> None:
    context = mp.get_context("dragon")
    queue = context.Queue()
    with MemoryPool.attach_default().alloc_from_bytes(b"hello") as block:
        process = context.Process(target=reply, args=(block, queue))
        process.start()
        theirs = queue.get()
        process.join()
        assert bytes(block.get_memview()) == b"reply"
    assert bytes(theirs.get_memview()) == b"mine"
    theirs.free()


def test_another_program_cannot_attach_to_it() -> None:
    code = """
import sys
from dragon.managed_memory import *
try:
    MemoryPool.attach(bytes.fromhex(sys.argv[1]))
except DragonPoolAttachFail as error:
    print(error.msg)
"""
    words = MemoryPool.attach_default().serialize()
    done = subprocess.run(
        [sys.executable, "-c", code, words.hex()],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "it belongs to another program" in done.stdout
    with pytest.raises(DragonPoolAttachFail):
        MemoryPool.attach(words[:-1])
