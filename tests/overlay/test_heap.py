"""Shared memory by the piece: dragon_overlay.heap."""

from __future__ import annotations

import multiprocessing
import multiprocessing.heap
import pickle
import random
import sys
from typing import Any

import pytest
import sharedctypes_children as children
from overlay_support import n_blocks

import _dragon
from dragon_overlay.heap import BufferWrapper, DragonArena


def run(dragon: Any, target: Any, *args: Any) -> Any:
    """The exit code of a child that does this."""
    child = dragon.Process(target=target, args=args)
    child.start()
    child.join()
    return child.exitcode


@pytest.mark.parametrize("size", [0, 1, 64, 5_000, 1 << 20])
def test_a_piece_has_its_size_and_is_zeroed(size: int) -> None:
    view = BufferWrapper(size).create_memoryview()
    assert (view.nbytes, view.readonly, bytes(view)) == (size, False, bytes(size))


def test_impossible_sizes_are_refused_as_in_the_standard_library() -> None:
    for size in (-1, sys.maxsize, 2**70):
        with pytest.raises((ValueError, OverflowError)) as expected:
            multiprocessing.heap.BufferWrapper(size)
        with pytest.raises(expected.type) as error:
            BufferWrapper(size)
        assert str(error.value) == str(expected.value)


def test_a_piece_is_one_of_the_standard_librarys() -> None:
    assert isinstance(BufferWrapper(1), multiprocessing.heap.BufferWrapper)
    assert isinstance(DragonArena(1), multiprocessing.heap.Arena)


def test_a_view_keeps_the_piece_and_gives_it_back() -> None:
    before = n_blocks()
    view = BufferWrapper(10).create_memoryview()
    others = [BufferWrapper(10) for _ in range(50)]
    for other in others:
        other.create_memoryview()[:] = b"0123456789"
    assert bytes(view) == bytes(10)
    del view, others, other
    assert n_blocks() <= before


def test_a_child_and_a_queue_carry_a_piece(dragon: Any) -> None:
    memory, q = BufferWrapper(10), dragon.Queue()
    assert run(dragon, children.write_memory, memory, b"hello") == 0
    q.put(memory)
    q.get().create_memoryview()[5:] = b"there"
    assert bytes(memory.create_memoryview()) == b"hellothere"
    with pytest.raises(RuntimeError, match="BufferWrapper objects should only be shared"):
        pickle.dumps(memory)


def test_a_name_that_leads_nowhere_is_refused(dragon: Any) -> None:
    memory = BufferWrapper(10)
    name = memory._export(False)
    with pytest.raises(_dragon.StaleHandle):
        _dragon.SharedBuffer()._attach(name, 1 << 20)  # larger than it is
    with pytest.raises(ValueError, match="a size of -1 bytes"):
        _dragon.SharedBuffer()._attach(name, -1)
    with pytest.raises(_dragon.StaleHandle):
        _dragon.SharedBuffer()._attach(dragon.Lock()._export(False), 1)
    del memory
    again = _dragon.SharedBuffer()
    with pytest.raises(_dragon.StaleHandle):
        again._attach(name, 10)
    again._create(5)
    assert memoryview(again).nbytes == 5


def test_an_arena_goes_to_a_child(dragon: Any) -> None:
    arena = DragonArena(4096)
    assert (arena.size, arena.fd, len(arena.buffer)) == (4096, -1, 4096)
    assert run(dragon, children.write_arena, arena, b"hello") == 0
    assert bytes(arena.buffer[:6]) == b"hello\0"
    with pytest.raises(ValueError, match="not a file's"):
        DragonArena(4096, 0)


def test_the_standard_librarys_heap_works_in_arenas_of_the_pool(
    dragon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    heap = multiprocessing.heap.Heap()
    monkeypatch.setattr(multiprocessing.heap, "Arena", DragonArena)
    monkeypatch.setattr(multiprocessing.heap.BufferWrapper, "_heap", heap)
    monkeypatch.setattr(heap, "_DISCARD_FREE_SPACE_LARGER_THAN", 0)
    before, numbers = n_blocks(), random.Random(7)
    pieces: list[Any] = []
    for _ in range(500):
        pieces.append(multiprocessing.heap.BufferWrapper(int(numbers.lognormvariate(0, 1) * 1000)))
        if len(pieces) > 20:
            del pieces[numbers.randrange(20)]
    assert all(type(arena) is DragonArena for arena in heap._arenas)
    blocks = heap._len_to_seq.values()
    n_free = sum(stop - start for seq in blocks for _, start, stop in seq)
    used = heap._allocated_blocks.values()
    n_used = sum(stop - start for seq in used for start, stop in seq)
    assert n_free + n_used == sum(arena.size for arena in heap._arenas)
    piece = multiprocessing.heap.BufferWrapper(5)
    assert run(dragon, children.write_memory, piece, b"hello") == 0
    assert bytes(piece.create_memoryview()) == b"hello"
    del piece
    pieces.clear()
    assert (heap._n_frees, len(heap._arenas)) == (heap._n_mallocs, 0)
    assert n_blocks() <= before
