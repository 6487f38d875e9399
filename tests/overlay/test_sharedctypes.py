"""Value, Array, RawValue, RawArray, copy and synchronized, as programs use them.

Where a test runs with "dragon" and "spawn", the standard library is the reference.
"""

from __future__ import annotations

import copy
import ctypes
import gc
import multiprocessing
import operator
import os
import pickle
import signal
import threading
import time
import weakref
from collections.abc import Callable
from multiprocessing import sharedctypes as stock
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest
import sharedctypes_children as children
from overlay_support import n_blocks, until
from sharedctypes_children import Doubled, Either, Line, Point

import _dragon
from dragon_overlay import sharedctypes
from dragon_overlay.synchronize import RLock

Operation = Callable[[Any], Any]


def n_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def forked(action: Callable[[], Any]) -> int:
    """The exit status of a forked copy of this process that does this."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# ---- as in the standard library ----


def outcome(operation: Operation, ctx: Any) -> str:
    """What an operation gives, or how it fails."""
    try:
        return repr(operation(ctx))
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        return f"{type(error).__name__}: {error}".replace("BaseContext", "DragonContext")


def changed(obj: Any, name: str, value: Any) -> Any:
    setattr(obj, name, value)
    return getattr(obj, name)


def items_changed(obj: Any, key: Any, value: Any) -> Any:
    obj[key] = value
    return obj[:]


ALIKE: dict[str, Operation] = {
    "value": lambda c: c.Value("i", 5).value,
    "values of all codes": lambda c: [c.Value(code, 7).value for code in "bBhHiIlLqQfd"],
    "smallest": lambda c: [c.Value(code, -(2**15)).value for code in "bBhHiIlLqQ"],
    "codes set": lambda c: [changed(c.Value(k), "value", 8) for k in "bBhHiIlLqQfd"],
    "too large": lambda c: [changed(c.Value(k), "value", 2**70 + 3) for k in "bBhHiIlLqQ"],
    "too small": lambda c: [changed(c.Value(k), "value", -1) for k in "bBhHiIlLqQ"],
    "reals": lambda c: [changed(c.Value(k), "value", 0.1) for k in "fd"],
    "infinity": lambda c: changed(c.Value("f"), "value", 1e300),
    "bool as int": lambda c: changed(c.Value("h"), "value", True),
    "bool": lambda c: changed(c.Value(ctypes.c_bool), "value", True),
    "truth": lambda c: changed(c.Value(ctypes.c_bool), "value", [0]),
    "char": lambda c: changed(c.Value("c", b"x"), "value", 121),
    "no char": lambda c: changed(c.Value("c"), "value", b"xy"),
    "wide char": lambda c: changed(c.Value("u", "x"), "value", "\N{SNOWMAN}"),
    "long double": lambda c: c.Array(ctypes.c_longdouble, [1, 2.5])[:],
    "zeroed": lambda c: (c.Value("q").value, c.Array("d", 3)[:], c.Value(Point).x),
    "real as int": lambda c: c.Value("i", 1.5),
    "word as int": lambda c: changed(c.Value("i"), "value", "x"),
    "word as real": lambda c: changed(c.Value("d"), "value", "x"),
    "no such code": lambda c: c.Value("z"),
    "no type": lambda c: c.Value(5),
    "too many arguments": lambda c: c.Value("i", 1, 2),
    "item": lambda c: c.Array("i", [1, 2, 3])[1],
    "last item": lambda c: c.Array("i", [1, 2, 3])[-1],
    "item set": lambda c: items_changed(c.Array("i", [1, 2, 3]), -2, 9),
    "item as object": lambda c: items_changed(c.Array("i", [1, 2]), 0, ctypes.c_int(9)),
    "item that is none": lambda c: items_changed(c.Array("i", [1, 2]), 0, "x"),
    "real item": lambda c: items_changed(c.Array("d", 2), 0, 3),
    "item behind the end": lambda c: c.Array("i", 2)[2],
    "item before the start": lambda c: c.Array("i", 2)[-3],
    "item far away": lambda c: c.Array("i", 2)[2**70],
    "item set behind the end": lambda c: items_changed(c.Array("i", 2), 2, 1),
    "item of a name": lambda c: c.Array("i", 2)["a"],
    "item of True": lambda c: c.Array("i", [4, 5])[True],
    "slice": lambda c: c.Array("i", range(9))[2:7],
    "backwards": lambda c: c.Array("i", range(9))[::-2],
    "slice of reals": lambda c: c.Array("d", [0.5, 1.5])[:],
    "slice behind the end": lambda c: (
        c.Array("i", 3)[1:99],
        c.Array("i", 3)[5:],
        c.Array("i", 0)[:],
    ),
    "slice in large steps": lambda c: (c.Array("i", range(9))[7::-3], c.Array("i", 9)[:: 2**70]),
    "slice in no steps": lambda c: c.Array("i", 3)[::0],
    "slice of names": lambda c: c.Array("i", 3)["a":],
    "slice of structures": lambda c: [p.y for p in c.Array(Point, [(1, 2), (3, 4)])[::-1]],
    "slice of bools": lambda c: c.Array(ctypes.c_bool, [1, 0, 1])[:2],
    "slice of a string": lambda c: (c.Array("c", b"abc")[1:], c.Array("u", "abc")[::-1]),
    "index of": lambda c: operator.indexOf(c.Array("i", [4, 5]), 5),
    "slice set": lambda c: items_changed(c.Array("i", 4), slice(1, 3), [7, 8]),
    "slice of another length": lambda c: items_changed(c.Array("i", 4), slice(1, 3), [7]),
    "iterated": lambda c: list(c.Array("h", [3, 1, 2])),
    "reversed": lambda c: list(reversed(c.Array("h", [3, 1, 2]))),
    "contained": lambda c: (2 in c.Array("i", [1, 2]), 3 in c.Array("i", [1, 2])),
    "empty": lambda c: (len(c.Array("i", 0)), c.Array("i", [])[:]),
    "truth of an array": lambda c: (bool(c.Array("i", 0)), bool(c.Array("i", 1))),
    "negative size": lambda c: c.Array("i", -1),
    "real size": lambda c: c.Array("i", 2.5),
    "huge size": lambda c: c.Array("i", 2**61),
    "string": lambda c: c.Array("c", b"hel\0lo").value,
    "raw string": lambda c: c.Array("c", b"hel\0lo").raw,
    "string set": lambda c: changed(c.Array("c", 6), "value", b"abc"),
    "raw string set": lambda c: changed(c.Array("c", 3), "raw", b"a\0c"),
    "string too long": lambda c: changed(c.Array("c", 2), "value", b"abc"),
    "string item": lambda c: items_changed(c.Array("c", b"abc"), 1, b"x"),
    "wide string": lambda c: items_changed(c.Array("u", "abc"), 1, "x"),
    "fields": lambda c: (c.Value(Point, 3, 2.5).x, c.Value(Point, 3, 2.5).y),
    "field by name": lambda c: c.Value(Point, 3, y=2.5),
    "field set": lambda c: changed(c.Value(Point), "y", 4),
    "field that is none": lambda c: changed(c.Value(Point), "x", "no"),
    "field of a union": lambda c: changed(c.Value(Either), "number", 2**32 + 1),
    "no such field": lambda c: c.Value(Point).z,
    "field of a field": lambda c: c.Value(Line, b"a", ((1, 2), (3, 4))).ends[1].y,
    "structures": lambda c: c.Array(Point, [(1, 2), (3, 4)])[1].y,
    "own type": lambda c: c.Value(Doubled, 4).value,
    "pointer": lambda c: bool(c.RawValue(ctypes.POINTER(ctypes.c_int))),
    "class names": lambda c: [type(o).__name__ for o in (c.Value("i"), c.Value(Point))],
    "classes": lambda c: [
        isinstance(c.Value("i"), stock.Synchronized),
        isinstance(c.Value(Line), stock.SynchronizedBase),
        isinstance(c.Array("i", 1), stock.SynchronizedArray),
        isinstance(c.Array("c", 1), stock.SynchronizedString),
        isinstance(c.Array("i", 1), stock.Synchronized),
    ],
    "raw types": lambda c: (type(c.RawValue("i")), type(c.RawArray("i", 2))),
    "without lock": lambda c: (type(c.Value("i", lock=False)), type(c.Array("i", 2, lock=False))),
    "no lock": lambda c: c.Value("i", 5, lock="no"),
    "no lock for an array": lambda c: c.Array("i", 5, lock=5),
    "lock by position": lambda c: c.Array("i", 5, False).value,
    "new lock": lambda c: type(c.Value("i", lock=None).get_lock()).__name__,
    "acquired": lambda c: (v := c.Value("i")).acquire(True, 0.1) and v.release(),
    "acquired by name": lambda c: c.Value("i").acquire(block=False, timeout=None),
    "entered": lambda c: c.Value("i").__enter__(),
    "released": lambda c: c.Value("i").release(),
    "no such attribute": lambda c: c.Value("i").foo,
    "attribute of a program": lambda c: changed(c.Value("i"), "foo", 5),
    "pickled": lambda c: pickle.dumps(c.Value("i")),
    "pickled for a pipe": lambda c: ForkingPickler.dumps(c.Array("i", 2)),
    "raw pickled for a pipe": lambda c: ForkingPickler.dumps(c.RawValue("i")),
    "copied": lambda c: copy.copy(c.Value("i")),
    "raw copied": lambda c: copy.copy(c.RawValue("i", 5)).value,
    "deep copied": lambda c: copy.deepcopy(c.Array("i", 2)),
    "another lock": lambda c: c.Value("i", 5, lock=threading.Lock()).value,
    "another lock for an array": lambda c: c.Array("i", [5], lock=threading.RLock())[0],
}


@pytest.mark.parametrize("operation", ALIKE.values(), ids=ALIKE.keys())
def test_does_what_the_standard_library_does(operation: Operation) -> None:
    expected = outcome(operation, multiprocessing.get_context("spawn"))
    assert outcome(operation, multiprocessing.get_context("dragon")) == expected


def test_what_cannot_be_deleted_is_refused(ctx: Any) -> None:
    value, array = ctx.Value("i", 5), ctx.Array("i", 2)
    with pytest.raises(AttributeError, match="no deleter"):
        del value.value
    with pytest.raises(AttributeError, match="__delitem__"):
        del array[0]


def test_looks_like_the_standard_librarys(ctx: Any) -> None:
    assert repr(ctx.Value("i", 5)) == "<Synchronized wrapper for c_int(5)>"


def test_the_functions_of_multiprocessing_follow_the_start_method(dragon: Any, run: Any) -> None:
    text = """
import multiprocessing as m
for method in ("spawn", "dragon"):
    m.set_start_method(method, force=True)
    raw = m.RawValue("i"), m.RawArray("i", 2)
    print(*(type(o).__module__ for o in (m.Value("i"), m.Array("i", 2))),
          *(type(o._wrapper).__module__ for o in raw))
"""
    assert run(text).stdout.splitlines() == [
        "multiprocessing.sharedctypes multiprocessing.sharedctypes "
        "multiprocessing.heap multiprocessing.heap",
        "dragon_overlay.sharedctypes dragon_overlay.sharedctypes "
        "dragon_overlay.heap dragon_overlay.heap",
    ]


def test_the_functions_of_the_module_follow_the_start_method_too(run: Any) -> None:
    text = """
import multiprocessing as m
from multiprocessing.sharedctypes import *
from multiprocessing import sharedctypes
def makers():
    value, array, raw = Value("i", 1), Array("i", 2), RawArray("i", 2)
    locked, copied = synchronized(RawValue("i", 3)), copy(raw)
    objects = [value, array, locked, raw._wrapper, copied._wrapper, value.get_obj()._wrapper]
    return {type(o).__module__.partition(".")[0] for o in objects}
RawValue("i")
assert m.get_start_method(allow_none=True) is None
before = makers()
m.set_start_method("dragon", force=True)
stock = m.get_context("spawn")
value, raw = stock.Value("i"), stock.RawArray("i", 2)
print(before, makers())
print(*(type(o).__module__ for o in (value, value.get_obj()._wrapper, raw._wrapper)))
print(type(Value("i", ctx=stock)).__module__, type(Value("i", ctx=m)).__module__, Value.__module__)
"""
    assert run(text).stdout.splitlines() == [
        "{'multiprocessing'} {'dragon_overlay'}",
        "multiprocessing.sharedctypes multiprocessing.heap multiprocessing.heap",
        "multiprocessing.sharedctypes dragon_overlay.sharedctypes multiprocessing.sharedctypes",
    ]


# ---- other processes ----


@pytest.mark.parametrize("lock", [True, False])
def test_a_child_changes_what_its_starter_sees(ctx: Any, lock: bool) -> None:
    number, real = ctx.Value("i", 21, lock=lock), ctx.Value(ctypes.c_double, 1.5, lock=lock)
    array, string = ctx.Array("q", range(5), lock=lock), ctx.Array("c", 12, lock=lock)
    point = ctx.Value(Point, 3, 2, lock=lock)
    string.value = b"hello"
    child = ctx.Process(target=children.double_all, args=(number, real, array, string, point))
    child.start()
    child.join()
    assert (child.exitcode, number.value, real.value, list(array)) == (0, 42, 3, [0, 2, 4, 6, 8])
    assert (string.value, point.x, point.y) == (b"hellohello", 6, 4)


def test_arrays_of_arrays_and_structures_reach_a_child(dragon: Any) -> None:
    grid, points = dragon.RawArray(ctypes.c_int * 3, 2), dragon.Array(Point, 3)
    child = dragon.Process(target=children.fill_grid, args=(grid, points))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert [list(row) for row in grid] == [[0, 1, 2], [10, 11, 12]]
    assert [(p.x, p.y) for p in points] == [(0, 0), (1, 0.5), (2, 1)]


def test_adding_under_the_lock_loses_nothing(dragon: Any) -> None:
    value, array = dragon.Value("q", 0), dragon.Array("i", 7)
    workers = [dragon.Process(target=children.add, args=(value, 2000)) for _ in range(3)]
    workers += [dragon.Process(target=children.add_to_items, args=(array, 700)) for _ in range(3)]
    for worker in workers:
        worker.start()
    children.add(value, 2000)
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 6
    assert (value.value, array[:]) == (8000, [300] * 7)


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue", "JoinableQueue"])
def test_they_go_through_queues_and_back(dragon: Any, kind: str) -> None:
    inbox, outbox = getattr(dragon, kind)(), getattr(dragon, kind)()
    values = [dragon.Value("i", 1), dragon.RawValue("d", 2), dragon.Value(ctypes.c_short, 3)]
    child = dragon.Process(target=children.add_and_answer, args=(inbox, outbox, 3))
    child.start()
    for value in values:
        inbox.put(value)
    returned = [outbox.get() for _ in values]
    child.join()
    assert [value.value for value in values] == [2, 3, 4]
    for value in returned:
        value.value += 10
    assert [value.value for value in values] == [12, 13, 14]
    assert [type(value) for value in returned] == [type(value) for value in values]


def test_they_go_through_pipes(dragon: Any) -> None:
    value, (ours, theirs) = dragon.Value("i", 1), dragon.Pipe()
    ours.send((value, dragon.RawArray("i", [1, 2])))
    received, array = theirs.recv()
    received.value += 1
    assert (value.value, list(array)) == (2, [1, 2])


def test_what_is_in_a_queue_alone_is_not_lost(dragon: Any) -> None:
    q = dragon.Queue()
    q.put(dragon.Array("c", b"hello"))
    q.put(dragon.RawArray(Point, [(1, 2)]))
    assert q.get().value == b"hello"
    assert q.get()[0].y == 2


def test_a_lock_that_two_share_is_one_after_the_journey(dragon: Any) -> None:
    lock, q = dragon.Lock(), dragon.Queue()
    q.put((dragon.Value("i", lock=lock), dragon.Array("i", 2, lock=lock)))
    value, array = q.get()
    assert value.get_lock() is array.get_lock()
    with value.get_lock():
        assert not lock.acquire(False)


def test_workers_of_a_pool_get_them_first_or_with_a_task(dragon: Any) -> None:
    value = dragon.Value("i", 0)
    with dragon.Pool(2, children.set_shared, (value,)) as pool:
        assert pool.map(children.add_to_shared, range(10)) == list(range(10))
        assert pool.map(children.add_to, [(value, n) for n in range(10)]) == list(range(10))
    assert value.value == 90


def test_a_forked_child_uses_them(dragon: Any) -> None:
    value, array = dragon.Value("i", 1), dragon.Array("i", [1, 2])

    def change() -> None:
        with value.get_lock():
            value.value += 1
        array[0] = 7
        made_here = dragon.Value("d", 2.5)
        assert made_here.value == 2.5

    assert forked(change) == 0
    assert (value.value, array[:]) == (2, [7, 2])
    # A child of start method "fork" pickles nothing.
    child = multiprocessing.get_context("fork").Process(target=children.add, args=(value, 10))
    child.start()
    child.join()
    assert (child.exitcode, value.value) == (0, 12)


def test_a_fork_in_which_the_lock_is_held_leaves_it_to_the_parent(dragon: Any) -> None:
    value = dragon.Value("i", 1)

    def try_it() -> None:
        assert not value.acquire(False)

    with value:
        assert forked(try_it) == 0
    assert value.acquire(False)


def test_a_process_of_another_start_method_is_refused(dragon: Any) -> None:
    for shared in (dragon.Value("i"), dragon.RawArray("i", 2)):
        child = multiprocessing.get_context("spawn").Process(target=print, args=(shared,))
        with pytest.raises(RuntimeError, match=rf"{type(shared).__name__} objects of start method"):
            child.start()


# ---- death ----


def test_a_killed_holder_keeps_the_lock(ctx: Any) -> None:
    value, is_held, forever = ctx.Value("i", 0), ctx.Event(), ctx.Event()
    child = ctx.Process(target=children.hold_for_ever, args=(value, is_held, forever))
    child.start()
    assert is_held.wait(30)
    child.kill()
    child.join()
    assert not value.acquire(True, 0.01)
    assert value.get_obj().value == 1


def test_killed_writers_leave_whole_numbers(dragon: Any) -> None:
    array = dragon.Array("Q", 16, lock=False)
    for _ in range(3):
        has_begun = dragon.Event()
        writer = dragon.Process(target=children.write_for_ever, args=(array, has_begun))
        writer.start()
        assert has_begun.wait(30)
        writer.kill()
        writer.join()
    assert all(number == number % 256 * 0x0101010101010101 for number in array)


def test_the_memory_lives_until_its_last_user_in_any_process(dragon: Any) -> None:
    is_kept, may_go, q = dragon.Event(), dragon.Event(), dragon.Queue()
    before = n_blocks()
    value = dragon.Value("i", 41)
    child = dragon.Process(target=children.keep_until, args=(value, is_kept, may_go))
    child.start()
    q.put(value)
    assert is_kept.wait(30)
    del value
    may_go.set()
    child.join()
    assert child.exitcode == 0
    assert q.get().value == 42
    child.close()
    del child
    q.close()
    assert until(lambda: n_blocks() <= before)


def test_the_memory_of_a_killed_last_user_is_given_back(dragon: Any) -> None:
    is_kept, may_go = dragon.Event(), dragon.Event()
    before = n_blocks()
    value = dragon.Value("i", 41)
    child = dragon.Process(target=children.keep_until, args=(value, is_kept, may_go))
    child.start()
    assert is_kept.wait(30)
    del value
    child.kill()
    child.join()
    child.close()
    del child
    assert until(lambda: n_blocks() <= before)


# ---- memory ----


def test_a_view_keeps_the_memory(dragon: Any) -> None:
    before = n_blocks()
    view = memoryview(dragon.Array("i", [1, 2, 3]).get_obj())
    item = dragon.Array(Point, [(1, 2), (3, 4)])[1]
    filler = [dragon.RawArray("i", [9] * 3) for _ in range(50)]
    assert (view.cast("B").cast("i").tolist(), item.x, item.y) == ([1, 2, 3], 3, 4)
    del view, item, filler
    assert n_blocks() <= before


def test_numpy_works_on_the_memory_itself(dragon: Any) -> None:
    numpy = pytest.importorskip("numpy")
    array = dragon.Array("d", 4)
    view = numpy.frombuffer(array.get_obj())
    view[:] = [1, 2, 3, 4]
    assert array[:] == [1, 2, 3, 4]
    del array
    filler = [dragon.RawArray("d", [9] * 4) for _ in range(50)]
    assert view.sum() == 10
    del filler


def test_memory_that_was_used_before_is_zeroed(dragon: Any) -> None:
    for size in (1, 100, 5_000, 300_000):
        for _ in range(3):
            array = dragon.RawArray("B", size)
            assert bytes(array) == bytes(size)
            ctypes.memset(array, 0xFF, size)
            del array


@pytest.mark.parametrize("type_", [ctypes.c_longdouble, ctypes.c_double, Line, ctypes.c_char])
def test_memory_is_aligned_for_any_type(dragon: Any, type_: Any) -> None:
    for n in range(1, 20):
        assert ctypes.addressof(dragon.RawArray(type_, n)) % 64 == 0


def test_thousands_made_and_dropped_leave_nothing(dragon: Any) -> None:
    def make(n: int) -> None:
        for i in range(n):
            dragon.Value("i", i)
            dragon.Array("d", i % 50)

    make(10)
    blocks, descriptors = n_blocks(), n_descriptors()
    make(20_000)
    assert n_blocks() <= blocks
    assert n_descriptors() <= descriptors


def test_thousands_alive_need_no_descriptor(dragon: Any) -> None:
    dragon.Value("i")
    before = n_descriptors()
    values = [dragon.Value("i", i) for i in range(10_000)]
    assert n_descriptors() <= before
    assert all(value.value == i for i, value in enumerate(values))


def test_in_a_cycle_they_are_collected(dragon: Any) -> None:
    before = n_blocks()
    value: Any = dragon.Value("i", 5)
    value.itself = value
    gone = weakref.ref(value)
    del value
    gc.collect()
    assert gone() is None
    assert n_blocks() <= before


def test_more_than_the_pool_has_is_refused_by_name(dragon: Any) -> None:
    with pytest.raises(MemoryError, match=r"does not fit into the pool \(asked for 8\d{13} bytes"):
        dragon.Array("d", 10**13)
    assert dragon.Array("d", 10)[:] == [0] * 10


# ---- locks ----


def test_an_access_waits_for_the_lock_and_others_run(dragon: Any) -> None:
    value, array = dragon.Value("i", 1), dragon.Array("i", [1], lock=dragon.Lock())
    string = dragon.Array("c", b"a")
    accesses: list[Callable[[], Any]] = [
        lambda: value.value,
        lambda: setattr(value, "value", 2),
        lambda: array[0],
        lambda: array.__setitem__(0, 2),
        lambda: string.value,
    ]
    for shared, access in zip((value, value, array, array, string), accesses, strict=True):
        has_ended = threading.Event()
        thread = threading.Thread(target=lambda a=access, e=has_ended: (a(), e.set()))
        with shared:
            thread.start()
            assert not has_ended.wait(0.02)
        assert has_ended.wait(30)
        thread.join()


def test_the_lock_is_held_by_none_after_an_error(dragon: Any) -> None:
    value, array = dragon.Value("i", 1), dragon.Array("i", 2)
    operations: list[tuple[Any, Callable[[], Any]]] = [
        (value, lambda: setattr(value, "value", "no")),
        (array, lambda: array[5]),
        (array, lambda: array.__setitem__(0, "no")),
        (array, lambda: array["no"]),
    ]
    for shared, operation in operations:
        with pytest.raises((TypeError, IndexError)):
            operation()
        assert shared.get_lock()._semlock._is_zero() is False


def test_a_signal_handler_interrupts_an_access_that_waits(dragon: Any) -> None:
    value = dragon.Value("i", 1)
    is_held, may_release = threading.Event(), threading.Event()

    def hold() -> None:
        with value:
            is_held.set()
            may_release.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    assert is_held.wait(30)
    is_next = threading.Event()

    def interrupt() -> None:
        is_next.wait(30)
        time.sleep(0.05)  # as a rule, it waits by then
        os.kill(os.getpid(), signal.SIGINT)

    killer = threading.Thread(target=interrupt)
    killer.start()
    with pytest.raises(KeyboardInterrupt):
        is_next.set()
        _ = value.value
    killer.join()
    may_release.set()
    holder.join()
    assert value.value == 1


class CountingLock(RLock):
    """A lock of a program's, which must be asked."""

    n = 0

    def acquire(self, *args: Any, **kwargs: Any) -> bool:
        self.n += 1
        return super().acquire(*args, **kwargs)


def test_a_lock_with_methods_of_its_own_is_asked(dragon: Any) -> None:
    lock = CountingLock(ctx=dragon)
    value = dragon.Value("i", 1, lock=lock)
    value.value += 1
    assert (value.value, lock.n) == (2, 3)
    plain = dragon.RLock()
    calls: list[None] = []
    plain.release = lambda: (calls.append(None), RLock.release(plain))
    array = dragon.Array("i", 2, lock=plain)
    array[0] = 5
    assert (array[0], len(calls)) == (5, 2)


def test_a_condition_serves_as_lock(dragon: Any) -> None:
    condition = dragon.Condition()
    value = dragon.Value("i", 1, lock=condition)
    with value:
        value.value = 2
        condition.notify_all()
    assert (value.value, value.get_lock()) == (2, condition)


# ---- what else there is ----


def test_copy_takes_an_object_into_shared_memory(dragon: Any) -> None:
    point = Point(1, 2.5)
    shared = sharedctypes.copy(point)
    point.x = 9
    assert (shared.x, shared.y) == (1, 2.5)
    assert forked(lambda: setattr(shared, "x", 7)) == 0
    assert shared.x == 7


def test_objects_that_are_not_shared_can_be_synchronized(dragon: Any) -> None:
    number, array = ctypes.c_int(5), (ctypes.c_int * 3)(1, 2, 3)
    value, items = sharedctypes.synchronized(number), sharedctypes.synchronized(array)
    ctypes.resize(number, 1 << 20)  # its memory moves
    ctypes.resize(array, 1 << 20)
    value.value += 1
    items[1] += 5
    assert (number.value, list(array)) == (6, [1, 7, 3])


def test_an_object_that_only_claims_to_be_shared_is_used_where_it_is(dragon: Any) -> None:
    impostor = copy.copy(dragon.RawValue("i", 5))
    assert impostor._wrapper is not None
    value = sharedctypes.synchronized(impostor)
    ctypes.resize(impostor, 1 << 20)
    value.value += 1
    assert impostor.value == 6


def test_what_is_synchronized_is_not_synchronized_again(dragon: Any) -> None:
    with pytest.raises(AssertionError, match="already synchronized"):
        sharedctypes.synchronized(dragon.Value("i"))


def test_an_object_without_a_value_says_so() -> None:
    bare = sharedctypes.Synchronized.__new__(sharedctypes.Synchronized)
    for operation in (lambda: bare.value, bare.acquire, bare.get_obj, bare.__enter__):
        with pytest.raises(ValueError, match="not initialised"):
            operation()
    with pytest.raises(ValueError, match="not initialised"):
        sharedctypes.SynchronizedArray.__new__(sharedctypes.SynchronizedArray)[0]
    with pytest.raises(ValueError, match="not initialised"):
        memoryview(_dragon.SharedBuffer())


def test_an_object_is_initialised_once(dragon: Any) -> None:
    value = dragon.Value("i", 5)
    with pytest.raises(RuntimeError, match="twice"):
        value.__init__(dragon.RawValue("i", 6))
    with pytest.raises(ValueError, match="has its memory already"):
        value.get_obj()._wrapper._create(4)
    assert value.value == 5


def test_a_number_is_never_read_outside_the_memory(dragon: Any) -> None:
    lock = dragon.RLock()
    too_small = _dragon.SynchronizedValue(dragon.RawValue("h", 5), lock, "d", True)
    assert too_small.value == 5  # ctypes has read it
    array = _dragon.SynchronizedArray(dragon.RawArray("h", [1, 2, 3]), lock, "i", True)
    with pytest.raises(TypeError):  # it is read as one number of 4 bytes
        array[0] = "no"
    assert array[2] == 3


def test_stock_and_dragon_objects_of_one_type_live_side_by_side(dragon: Any) -> None:
    q, spawn = dragon.Queue(), multiprocessing.get_context("spawn")
    ours = dragon.RawValue("i", 1)
    theirs = spawn.Value("i", 2)
    q.put(ours)
    q.get().value += 10
    child = spawn.Process(target=children.add, args=(theirs, 5))
    child.start()
    child.join()
    assert (ours.value, theirs.value) == (11, 7)


def test_an_object_that_is_not_shared_travels_by_value(dragon: Any) -> None:
    q = dragon.Queue()
    array = dragon.RawArray(Point, [(1, 2), (3, 4)])
    q.put((dragon.RawValue("i", 1), ctypes.c_int(5), array[1]))
    _, number, point = q.get()
    point.x = 9
    assert (number.value, point.x, point.y, array[1].x) == (5, 9, 4, 3)
