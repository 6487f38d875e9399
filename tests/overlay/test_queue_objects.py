"""What goes into a queue comes out: values, types, identities, arrays."""

import array
import math
import pickle
import queue
import threading
import tracemalloc
from collections import Counter, OrderedDict
from collections.abc import Callable
from decimal import Decimal
from multiprocessing.context import BaseContext
from multiprocessing.reduction import ForkingPickler
from typing import Any, ClassVar

import numpy
import pytest
from children import (
    Count,
    Pair,
    Point,
    PutsWhilePickled,
    Refuses,
    RefusesToArrive,
    Registered,
    Word,
    describe,
    echo,
    hold_lock_of,
    put_into_queue_of,
    set_event_of,
)
from overlay_support import Outcome, n_blocks

MIB = 1 << 20
#: Payload that fits into a message: one byte less, exactly, one more; and the same around the
#: size from which buffers travel out of band.
SIZES = [0, 1, 102, 103, 104, 105, 106, 65535, 65536, 65537, 10 * MIB]

VALUES = [
    None,
    True,
    False,
    0,
    -1,
    2**63 - 1,
    -(2**63),
    2**63,
    -(2**63) - 1,
    2**64,
    10**400,
    0.0,
    -0.0,
    1e-320,
    math.inf,
    -math.inf,
    math.pi,
    1 + 2j,
    Decimal("0.1"),
    "",
    "\0",
    "grüße 世界 \U0001f409",
    "\ud800 alone \udfff",
    (),
    (None,),
    ("\ud800",),
    (1, (2, (3, [4]))),
    tuple(range(11)),
    tuple(range(12)),
    tuple(range(13)),
    (2**63, 1),
    (b"x" * 99, 1),
    (b"x" * 102,),
    (b"x" * 103,),
    (b"x" * 300, "y" * 300),
    (1.5, None, True, False, "s", b"b", -7),
    [],
    [1, [2, [3]]],
    {},
    {"a": 1, (1, 2): {3}},
    {"z": 1, "a": -2, "": None, "é": 1.5, 7: "seven", None: True, b"b": b"", 2.5: 2**62},
    {"big": 2**63},
    {2**63: "big"},
    {"\ud800": 1},
    {"nested": {"a": 1}},
    {"k" * 255: b"v" * 255},  # the longest that items of messages can be; one more is pickled
    {"k" * 256: b"v" * 256},
    ("x" * 255, b"y" * 255),
    ("x" * 256, b"y" * 256),
    (b"x" * 254,) * 4,  # all that there is room for
    (b"x" * 255,) * 4,
    {i: i for i in range(51)},  # likewise
    {i: i for i in range(52)},
    {1, 2, 3},
    frozenset({"x"}),
    bytearray(b"abc"),
    range(5),
    slice(1, 2, 3),
    Ellipsis,
    NotImplemented,
    int,
    len,
    Point(1, 2),
    [Point(1, 2)] * 3,
    b"bytes",
    bytes(range(256)),
]


def passed(ctx: BaseContext, item: Any) -> Any:
    """The item after it went through a queue."""
    q = ctx.Queue()
    q.put(item)
    return q.get(timeout=10)


def is_same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and repr(one) == repr(other)


@pytest.mark.parametrize(
    "item", VALUES, ids=lambda item: repr(item)[:40].encode("ascii", "replace").decode()
)
@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue", "JoinableQueue"])
def test_a_value_comes_out_as_it_went_in(dragon: BaseContext, kind: str, item: Any) -> None:
    q = getattr(dragon, kind)()
    q.put(item)
    assert is_same(q.get(), item)


def test_all_values_come_back_from_another_process_in_order(ctx: BaseContext) -> None:
    inbox, outbox = ctx.Queue(), ctx.Queue()
    items = [item for item in VALUES if item is not None]
    child = ctx.Process(target=echo, args=(inbox, outbox))
    child.start()
    for item in [*items, None]:
        inbox.put(item)
    received = [outbox.get() for _ in items]
    child.join()
    assert [repr(item) for item in received] == [repr(item) for item in items]
    assert [type(item) for item in received] == [type(item) for item in items]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "make", [bytes, bytearray, lambda n: "x" * n, lambda n: "é" * n, lambda n: "世" * n]
)
def test_text_and_bytes_of_sizes_around_the_limits(
    dragon: BaseContext, make: Callable[[int], Any], size: int
) -> None:
    item = make(size)
    received = passed(dragon, item)
    assert type(received) is type(item)
    assert received == item


@pytest.mark.parametrize("size", SIZES)
def test_large_items_inside_other_objects(dragon: BaseContext, size: int) -> None:
    item = {"bytes": b"b" * size, "text": ("t" * size, [bytearray(size)])}
    assert passed(dragon, item) == item


def test_nan_stays_nan(dragon: BaseContext) -> None:
    assert math.isnan(passed(dragon, math.nan))
    assert math.isnan(passed(dragon, (math.nan,))[0])


@pytest.mark.parametrize(
    "item",
    [
        Count(5),
        Word("w"),
        Pair((1, 2)),
        True,
        (Count(5), Word("w")),
        OrderedDict(b=1, a=2),
        Counter("aab"),
        {Word("w"): Count(5)},
    ],
)
def test_subclasses_of_plain_types_keep_their_type(ctx: BaseContext, item: Any) -> None:
    received = passed(ctx, item)
    assert type(received) is type(item)
    assert received == item
    if isinstance(item, (tuple, dict)):
        assert [type(i) for i in received] == [type(i) for i in item]


def test_a_dict_keeps_its_order_and_its_receiver_can_change_it(ctx: BaseContext) -> None:
    item = {f"key{i}": i for i in (3, 1, 2)}
    received = passed(ctx, item)
    received["key0"] = 0
    assert list(received) == ["key3", "key1", "key2", "key0"]
    assert list(item) == ["key3", "key1", "key2"]


def test_an_object_that_occurs_twice_is_one_object_afterwards(ctx: BaseContext) -> None:
    inner: list[Any] = [1]
    cycle: list[Any] = [inner, inner]
    cycle.append(cycle)
    received = passed(ctx, cycle)
    assert received[0] is received[1]
    assert received[2] is received


def test_an_exception_travels_with_its_arguments(ctx: BaseContext) -> None:
    received = passed(ctx, KeyError("k", 1))
    assert type(received) is KeyError
    assert received.args == ("k", 1)


def test_a_later_change_by_the_sender_is_not_seen(dragon: BaseContext) -> None:
    item = [1]
    large = numpy.zeros(20_000)
    q = dragon.Queue()
    q.put(item)
    q.put(large)
    item.append(2)
    large[:] = 7
    assert q.get() == [1]
    assert q.get().sum() == 0


# ---- what cannot be pickled ----


@pytest.mark.parametrize("item", [Refuses(), [1, Refuses()], lambda: None, threading.Lock()])
def test_simple_queue_raises_what_pickling_raises_and_goes_on(ctx: BaseContext, item: Any) -> None:
    q = ctx.SimpleQueue()
    with pytest.raises((ArithmeticError, pickle.PicklingError, AttributeError, TypeError)):
        q.put(item)
    q.put("next")
    assert q.get() == "next"


def test_what_a_large_item_needed_to_be_pickled_is_given_back(dragon: BaseContext) -> None:
    # A pickler's memo never shrinks, and clearing it takes as long as it has room: each small item
    # after a large one took milliseconds.
    queue = dragon.SimpleQueue()
    tracemalloc.start()
    try:
        queue.put([(i,) for i in range(200_000)])
        queue.get()
        n_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert n_bytes < 1 << 20
    queue.put((1,))
    assert queue.get() == (1,)


def test_memoryviews_cannot_be_sent(ctx: BaseContext) -> None:
    with pytest.raises(TypeError, match="memoryview"):
        ctx.SimpleQueue().put(memoryview(b"x"))


def test_queue_gives_a_pickling_error_to_its_hook_and_goes_on(
    ctx: BaseContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    q = ctx.Queue(maxsize=1)
    failures: list[tuple[Exception, Any]] = []
    called = threading.Event()

    def hook(error: Exception, item: Any) -> None:
        failures.append((error, item))
        called.set()

    monkeypatch.setattr(type(q), "_on_queue_feeder_error", staticmethod(hook))
    item = Refuses()
    q.put(item)
    assert called.wait(5)
    q.put("next", timeout=5)
    assert q.get(timeout=5) == "next"
    assert [(type(e), i is item) for e, i in failures] == [(ArithmeticError, True)]


def test_the_hook_of_a_subclass_is_called(dragon: BaseContext) -> None:
    class Recording(type(dragon.Queue())):  # type: ignore[misc]
        failures: ClassVar[list[Any]] = []

        @staticmethod
        def _on_queue_feeder_error(error: Exception, item: Any) -> None:
            Recording.failures.append(item)

    q = Recording(ctx=dragon)
    item = Refuses()
    q.put_nowait(item)
    assert Recording.failures == [item]
    assert q.empty()


def test_by_default_a_pickling_error_is_printed(run: Callable[..., Outcome]) -> None:
    done = run(
        """
import multiprocessing
q = multiprocessing.get_context("dragon").Queue()
q.put(lambda: None)
print(q.qsize())
"""
    )
    assert done.stdout == "0\n"
    assert done.status == 0
    assert "Can't pickle <function <lambda>" in done.stderr
    assert "Traceback" in done.stderr


def test_keyboard_interrupt_while_pickling_is_raised(dragon: BaseContext) -> None:
    class Interrupts:
        def __reduce__(self) -> Any:
            raise KeyboardInterrupt

    q = dragon.Queue()
    with pytest.raises(KeyboardInterrupt):
        q.put(Interrupts())
    assert q.empty()
    q.put([1])
    assert q.get() == [1]


def test_an_object_that_cannot_be_unpickled_is_taken_and_raised(ctx: BaseContext) -> None:
    q = ctx.Queue()
    q.put(RefusesToArrive())
    q.put("next")
    with pytest.raises(ArithmeticError, match="refuses to arrive"):
        q.get(timeout=5)
    assert q.get(timeout=5) == "next"


def test_a_reducer_may_put_into_the_same_queue(dragon: BaseContext) -> None:
    q = dragon.Queue()
    q.put(PutsWhilePickled(q))
    assert [q.get(), q.get()] == [["from within"], "outer"]


def test_reducers_that_put_may_be_nested(dragon: BaseContext) -> None:
    inner, outer = dragon.Queue(), dragon.Queue()

    class Deep:
        def __reduce__(self) -> Any:
            inner.put([PutsWhilePickled(inner)])
            return int, (1,)

    outer.put([Deep(), Deep()])
    assert outer.get() == [1, 1]
    assert [inner.get() for _ in range(4)] == [["from within"], ["outer"]] * 2


def test_several_threads_pickle_at_once(dragon: BaseContext) -> None:
    q = dragon.Queue()
    n_threads, n_items = 4, 300

    def work(name: int) -> None:
        for i in range(n_items):
            q.put({"name": name, "i": i, "data": [name] * (i % 50)})

    threads = [threading.Thread(target=work, args=(name,)) for name in range(n_threads)]
    for thread in threads:
        thread.start()
    received = [q.get() for _ in range(n_threads * n_items)]
    for thread in threads:
        thread.join()
    for name in range(n_threads):
        own = [item for item in received if item["name"] == name]
        assert [item["i"] for item in own] == list(range(n_items))
        assert all(item["data"] == [name] * (item["i"] % 50) for item in own)


# ---- registered reducers ----


def _arrive(word: str) -> str:
    return f"arrived by {word}"


@pytest.fixture
def registered() -> Any:
    yield lambda word: ForkingPickler.register(Registered, lambda _: (_arrive, (word,)))
    ForkingPickler._extra_reducers.pop(Registered, None)


def test_a_reducer_registered_late_is_used(ctx: BaseContext, registered: Any) -> None:
    q = ctx.Queue()
    q.put([Registered()])
    assert type(q.get(timeout=5)[0]) is Registered
    registered("one")
    q.put([Registered()])
    assert q.get(timeout=5) == ["arrived by one"]


def test_a_reducer_registered_anew_replaces_the_first(dragon: BaseContext, registered: Any) -> None:
    q = dragon.Queue()
    registered("one")
    q.put([Registered()])
    registered("two")
    q.put([Registered()])
    assert [q.get(timeout=5), q.get(timeout=5)] == [["arrived by one"], ["arrived by two"]]


# ---- objects of the runtime ----


def test_a_queue_sent_through_a_queue_is_the_same_queue(dragon: BaseContext) -> None:
    outer, inner = dragon.Queue(), dragon.Queue()
    child = dragon.Process(target=put_into_queue_of, args=(outer,))
    child.start()
    outer.put(inner)
    assert inner.get() == "through the inner queue"
    child.join()
    assert child.exitcode == 0


def test_a_lock_sent_through_a_queue_is_the_same_lock(dragon: BaseContext) -> None:
    inbox, outbox = dragon.Queue(), dragon.Queue()
    lock = dragon.Lock()
    with lock:
        child = dragon.Process(target=hold_lock_of, args=(inbox, outbox))
        child.start()
        inbox.put(lock)
        assert outbox.get() is False
    child.join()


def test_an_event_sent_through_a_queue_is_the_same_event(dragon: BaseContext) -> None:
    inbox, event = dragon.Queue(), dragon.Event()
    child = dragon.Process(target=set_event_of, args=(inbox,))
    child.start()
    inbox.put(event)
    assert event.wait(10)
    child.join()


@pytest.mark.parametrize(
    "kind",
    ["Queue", "SimpleQueue", "JoinableQueue", "Lock", "RLock", "Event", "Semaphore", "Condition"],
)
def test_an_object_sent_to_oneself_lives_as_long_as_its_last_name(
    dragon: BaseContext, kind: str
) -> None:
    q = dragon.Queue()
    start = n_blocks()
    original = getattr(dragon, kind)()
    q.put([original])
    del original
    copy = q.get()[0]
    assert type(copy).__module__.startswith("dragon_overlay.")
    del copy
    assert n_blocks() == start


@pytest.mark.parametrize(
    "kind", ["Queue", "SimpleQueue", "JoinableQueue", "Lock", "Event", "Condition"]
)
def test_pickle_dumps_of_a_shared_object_raises(ctx: BaseContext, kind: str) -> None:
    with pytest.raises(
        RuntimeError, match="should only be shared between processes through inheritance"
    ):
        pickle.dumps(getattr(ctx, kind)())


def test_a_connection_can_be_sent_through_a_queue(ctx: BaseContext) -> None:
    reader, writer = ctx.Pipe(duplex=False)
    with reader, writer:
        received = passed(ctx, writer)
        received.send("hello")
        assert reader.recv() == "hello"
        received.close()


# ---- arrays ----

ARRAYS = {
    "small": lambda: numpy.arange(10.0),
    "of 8 bytes below the limit": lambda: numpy.arange(8191.0),
    "at the limit": lambda: numpy.arange(8192.0),
    "large": lambda: numpy.arange(200_000.0),
    "of 16 MiB": lambda: numpy.ones((2048, 1024)),
    "two-dimensional": lambda: numpy.arange(60_000).reshape(200, 300),
    "in Fortran order": lambda: numpy.asfortranarray(numpy.arange(60_000.0).reshape(200, 300)),
    "not contiguous": lambda: numpy.arange(120_000.0).reshape(200, 600)[:, ::2],
    "reversed": lambda: numpy.arange(60_000.0)[::-1],
    "small, not contiguous": lambda: numpy.arange(20.0)[::2],
    "of size zero": lambda: numpy.empty((0, 5)),
    "of no dimension": lambda: numpy.array(3.5),
    "of objects": lambda: numpy.array([1, "two", [3]], dtype=object),
    "structured": lambda: numpy.zeros(20_000, dtype=[("a", "i4"), ("b", "f8")]),
    "of text": lambda: numpy.array(["one", "two"] * 9000),
    "of times": lambda: numpy.arange(20_000).astype("datetime64[s]"),
    "of booleans": lambda: numpy.arange(100_000) % 2 == 0,
    "complex": lambda: numpy.arange(20_000) * 1j,
    "big-endian": lambda: numpy.arange(20_000, dtype=">f8"),
    "broadcast": lambda: numpy.broadcast_to(numpy.arange(300.0), (200, 300)),
    "a matrix": lambda: numpy.ones((200, 300)).view(numpy.matrix),
}


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_comes_out_as_it_went_in(ctx: BaseContext, name: str) -> None:
    array = ARRAYS[name]()
    received = passed(ctx, array)
    assert type(received) is type(array)
    # numpy's own pickles may turn the byte order into the machine's.
    assert received.dtype == pickle.loads(pickle.dumps(array)).dtype
    assert received.shape == array.shape
    assert numpy.array_equal(received, array)


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
@pytest.mark.parametrize("name", set(ARRAYS) - {"broadcast"})
def test_a_received_array_is_writable_and_its_own(dragon: BaseContext, name: str) -> None:
    array = ARRAYS[name]()
    before = array.copy()
    received = passed(dragon, array)
    received[...] = numpy.zeros((), dtype=array.dtype)
    assert numpy.array_equal(array, before)


@pytest.mark.parametrize("size", [10, 20_000])
def test_a_read_only_array_arrives_writable_as_under_spawn(dragon: BaseContext, size: int) -> None:
    array = numpy.arange(float(size))
    array.flags.writeable = False
    received = passed(dragon, array)
    received[0] = 5
    assert array[0] == 0


def test_a_small_array_arrives_owning_its_data(dragon: BaseContext) -> None:
    received = passed(dragon, numpy.arange(100.0))
    assert received.flags.owndata
    received.resize(200)


def test_memory_order_is_kept(dragon: BaseContext) -> None:
    array = numpy.asfortranarray(numpy.arange(60_000.0).reshape(200, 300))
    assert passed(dragon, array).flags.f_contiguous


def test_several_arrays_in_one_object_are_apart(dragon: BaseContext) -> None:
    large, small = numpy.arange(20_000.0), numpy.arange(5)
    received = passed(dragon, {"a": large, "b": [large * 2, small], "again": large})
    assert received["a"] is received["again"]
    received["a"][:] = 0
    assert numpy.array_equal(received["b"][0], large * 2)
    assert numpy.array_equal(received["b"][1], small)


def test_views_of_one_array_arrive(ctx: BaseContext) -> None:
    array = numpy.arange(40_000.0)
    first, second = passed(ctx, (array[:20_000], array[20_000:]))
    assert numpy.array_equal(numpy.concatenate([first, second]), array)


def test_a_large_array_outlives_the_queue_it_came_from(dragon: BaseContext) -> None:
    q = dragon.Queue()
    q.put(numpy.arange(100_000.0))
    array = q.get()
    q.close()
    del q
    others = [passed(dragon, numpy.zeros(100_000)) for _ in range(3)]
    assert numpy.array_equal(array, numpy.arange(100_000.0))
    assert len(others) == 3


def test_a_received_array_can_be_sent_on(dragon: BaseContext) -> None:
    array = numpy.arange(100_000.0)
    for _ in range(3):
        array = passed(dragon, array)
    assert numpy.array_equal(array, numpy.arange(100_000.0))


def test_a_slice_keeps_the_memory_of_a_received_array(dragon: BaseContext) -> None:
    part = passed(dragon, numpy.arange(100_000.0))[10:20]
    passed(dragon, numpy.zeros(100_000))
    assert part.tolist() == list(range(10, 20))


def test_an_array_reaches_another_process(ctx: BaseContext) -> None:
    inbox, outbox = ctx.Queue(), ctx.Queue()
    child = ctx.Process(target=describe, args=(inbox, outbox))
    child.start()
    array = numpy.ones(100_000)
    inbox.put(array)
    assert outbox.get() == ("ndarray", 100_000.0, "float64")
    child.join()
    assert child.exitcode == 0
    assert array.sum() == 100_000


def test_arrays_of_the_standard_library_travel(ctx: BaseContext) -> None:
    item = array.array("d", range(20_000))
    assert passed(ctx, item) == item


def test_a_pickle_buffer_arrives_with_its_bytes(dragon: BaseContext) -> None:
    data = bytearray(b"z" * 100_000)
    assert bytes(passed(dragon, pickle.PickleBuffer(data))) == bytes(data)


# ---- memory comes back ----


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue", "JoinableQueue"])
def test_a_used_and_dropped_queue_gives_all_blocks_back(dragon: BaseContext, kind: str) -> None:
    start = n_blocks()
    q = getattr(dragon, kind)()
    for size in [1, 104, 105, 70_000, MIB]:
        q.put(b"x" * size)
        q.put([numpy.zeros(size // 8 + 1)])
    for _ in range(6):
        q.get()
    del q
    assert n_blocks() == start


def test_thousands_of_untaken_messages_give_their_blocks_back(dragon: BaseContext) -> None:
    start = n_blocks()
    q = dragon.Queue()
    for i in range(5000):
        q.put(i)
        q.put(b"y" * 200)
    assert n_blocks() > start + 5000
    del q
    assert n_blocks() == start


def test_a_received_array_gives_its_block_back_with_its_last_view(dragon: BaseContext) -> None:
    q = dragon.Queue()
    start = n_blocks()
    q.put(numpy.zeros(100_000))
    array = q.get()
    view = array[5:]
    del array
    assert n_blocks() == start + 1
    del view
    assert n_blocks() == start


def test_failures_keep_no_block(dragon: BaseContext) -> None:
    q, full = dragon.SimpleQueue(), dragon.Queue(1)
    full.put(1)
    start = n_blocks()
    for _ in range(5):
        with pytest.raises(ArithmeticError):
            q.put([numpy.zeros(20_000), Refuses()])
        with pytest.raises(queue.Full):
            full.put([numpy.zeros(20_000)], block=False)
        q.put([numpy.zeros(20_000), RefusesToArrive()])
        with pytest.raises(ArithmeticError):
            q.get()
    assert n_blocks() == start


def test_a_shared_object_in_a_message_that_failed_is_given_back(dragon: BaseContext) -> None:
    q = dragon.SimpleQueue()
    start = n_blocks()
    with pytest.raises(ArithmeticError):
        q.put([dragon.Lock(), Refuses()])
    assert n_blocks() == start


def test_a_shared_object_in_a_message_nobody_took_is_given_back(dragon: BaseContext) -> None:
    start = n_blocks()
    q = dragon.Queue()
    q.put(dragon.Lock())
    del q
    assert n_blocks() == start
