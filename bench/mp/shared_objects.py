"""Value, Array, shared_memory."""

from __future__ import annotations

from multiprocessing import shared_memory
from typing import Any

from mp.groups import group
from mp.measure import Recorder
from mp.partner import KIB, MIB, Partner, name_of


@group("sharedctypes")
def shared_ctypes(context: Any, recorder: Recorder) -> None:
    """Reading, writing, making."""
    value, raw_value = context.Value("q", 0), context.Value("q", 0, lock=False)
    array, raw_array = context.Array("d", 4096), context.Array("d", 4096, lock=False)

    def read(n: int) -> None:
        for _ in range(n):
            value.value  # noqa: B018 # that it is looked up is measured

    def add(n: int) -> None:
        for _ in range(n):
            with value.get_lock():
                value.value += 1

    def add_raw(n: int) -> None:
        for _ in range(n):
            raw_value.value += 1

    def write(n: int) -> None:
        for _ in range(n):
            value.value = 1

    def item(n: int) -> None:
        for _ in range(n):
            array[7]

    def set_item(n: int) -> None:
        for _ in range(n):
            array[7] = 1.0

    def all_items(n: int) -> None:
        for _ in range(n):
            array[:]

    def set_raw(n: int) -> None:
        for _ in range(n):
            raw_array[7] = 1.0

    def make_value(n: int) -> None:
        for _ in range(n):
            context.Value("q", 0)

    def make_array(n: int) -> None:
        for _ in range(n):
            context.Array("d", 131072)

    recorder.time_us("value.read", read)
    recorder.time_us("value.write", write)
    recorder.time_us("value.locked_add", add)
    recorder.time_us("rawvalue.add", add_raw)
    recorder.time_us("array.getitem", item)
    recorder.time_us("array.setitem", set_item)
    recorder.time_us("array.slice4096", all_items)
    recorder.time_us("rawarray.setitem", set_raw)
    recorder.time_us("create.value", make_value, most=20_000)
    recorder.time_us("array.create1M", make_array, most=500)
    _contended(context, recorder, value)


def _contended(context: Any, recorder: Recorder, value: Any) -> None:
    partners = [Partner(context, value=value) for _ in range(2)]

    def add(n: int) -> None:
        for partner in partners:
            partner.begin("add", "value", n)
        for partner in partners:
            partner.join()

    recorder.time_us("value.locked_add.contended2", add, parties=2)
    for partner in partners:
        partner.close()


def _buffer_of(memory: shared_memory.SharedMemory) -> memoryview:
    assert memory.buf is not None  # it is open
    return memory.buf


@group("shm")
def shm(_: Any, recorder: Recorder) -> None:
    """shared_memory, which is the standard library's under any method."""
    for size in (4 * KIB, MIB, 64 * MIB):

        def make(n: int, size: int = size) -> None:
            for _ in range(n):
                memory = shared_memory.SharedMemory(create=True, size=size)
                _buffer_of(memory)[0] = 1
                memory.close()
                memory.unlink()

        recorder.time_us(f"shm.create_unlink.{name_of(size)}", make, most=20_000)
    whole = shared_memory.SharedMemory(create=True, size=MIB)

    def attach(n: int) -> None:
        for _ in range(n):
            memory = shared_memory.SharedMemory(name=whole.name)
            _buffer_of(memory)[0]
            memory.close()

    recorder.time_us("shm.attach.1M", attach, most=20_000)
    whole.close()
    whole.unlink()
    items = shared_memory.ShareableList(range(100))

    def set_item(n: int) -> None:
        for _ in range(n):
            items[50] = items[51]

    recorder.time_us("shm.shareablelist.get_set", set_item)
    items.shm.close()
    items.shm.unlink()
