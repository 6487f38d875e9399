"""What the other processes do in test_sharedctypes.py and test_heap.py. Imports no pytest."""

from __future__ import annotations

import ctypes
import itertools
from typing import Any


class Point(ctypes.Structure):
    _fields_ = [("x", ctypes.c_int), ("y", ctypes.c_double)]


class Either(ctypes.Union):
    _fields_ = [("number", ctypes.c_uint32), ("octets", ctypes.c_ubyte * 4)]


class Line(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char * 8), ("ends", Point * 2)]


class Doubled(ctypes.c_int):
    """A simple type whose value is another than what is in the memory."""

    value = property(lambda self: 2 * ctypes.c_int.value.__get__(self))  # type: ignore[assignment]


def double_all(number: Any, real: Any, array: Any, string: Any, point: Any) -> None:
    number.value *= 2
    real.value *= 2
    for i in range(len(array)):
        array[i] *= 2
    string.value *= 2
    point.x *= 2
    point.y *= 2


def fill_grid(grid: Any, points: Any) -> None:
    for i, row in enumerate(grid):
        for j in range(len(row)):
            row[j] = 10 * i + j
    for i, point in enumerate(points):
        point.x, point.y = i, i / 2


def add(value: Any, n: int) -> None:
    """Add 1, n times."""
    for _ in range(n):
        with value.get_lock():
            value.value += 1


def add_to_items(array: Any, n: int) -> None:
    for _, i in zip(range(n), itertools.cycle(range(len(array)))):
        with array:
            array[i] += 1


def add_and_answer(inbox: Any, outbox: Any, n: int) -> None:
    """Change n objects that come through a queue; send each back."""
    for _ in range(n):
        value = inbox.get()
        value.value += 1
        outbox.put(value)


def keep_until(value: Any, is_kept: Any, may_go: Any) -> None:
    is_kept.set()
    may_go.wait(30)
    value.value += 1


def hold_for_ever(value: Any, is_held: Any, forever: Any) -> None:
    with value:
        value.value = 1
        is_held.set()
        forever.wait(30)


def write_for_ever(array: Any, has_begun: Any) -> None:
    """Write numbers all of whose bytes are alike, in and out of the lock."""
    for i in itertools.count():
        array[i % len(array)] = (i % 256) * 0x0101010101010101
        if i == 1000:
            has_begun.set()


shared: Any = None


def set_shared(value: Any) -> None:
    global shared
    shared = value


def add_to_shared(n: int) -> int:
    with shared.get_lock():
        shared.value += n
    return n


def add_to(argument: tuple[Any, int]) -> int:
    value, n = argument
    with value.get_lock():
        value.value += n
    return n


def write_memory(memory: Any, text: bytes) -> None:
    memory.create_memoryview()[: len(text)] = text


def write_arena(arena: Any, text: bytes) -> None:
    memoryview(arena.buffer)[: len(text)] = text
