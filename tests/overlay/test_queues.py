"""How queues behave: arguments, limits, waiting, closing, counting; several processes."""

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.context import BaseContext
from typing import Any

import pytest
from children import (
    Counting,
    Labelled,
    add_up,
    do_tasks,
    get_one,
    put_all,
    put_range,
    put_when_told,
    put_while_name_known,
)
from overlay_support import Outcome, until

# ---- arguments ----


def test_get_from_an_empty_queue_without_waiting_raises_empty(ctx: BaseContext) -> None:
    q = ctx.Queue()
    for call in [
        q.get_nowait,
        lambda: q.get(False),
        lambda: q.get(block=False),
        lambda: q.get(False, 10),
        lambda: q.get(True, 0),
        lambda: q.get(timeout=0),
        lambda: q.get(timeout=-1),
        lambda: q.get(timeout=-1.5),
        lambda: q.get(True, -1e300),
        lambda: q.get(timeout=0.001),
        lambda: q.get(block=0),
    ]:
        with pytest.raises(queue.Empty):
            call()


def test_put_into_a_full_queue_without_waiting_raises_full(ctx: BaseContext) -> None:
    q = ctx.Queue(maxsize=1)
    q.put("first")
    for call in [
        lambda: q.put_nowait(1),
        lambda: q.put(1, False),
        lambda: q.put(1, block=False),
        lambda: q.put(obj=1, block=False),
        lambda: q.put(1, False, 10),
        lambda: q.put(1, True, 0),
        lambda: q.put(1, timeout=0),
        lambda: q.put(1, timeout=-1),
        lambda: q.put(1, True, 0.001),
        lambda: q.put([1], timeout=0),
        lambda: q.put(b"x" * 100_000, timeout=0),
    ]:
        with pytest.raises(queue.Full):
            call()
    assert q.get(timeout=5) == "first"


@pytest.mark.parametrize(
    "put",
    [
        lambda q: q.put("x"),
        lambda q: q.put(obj="x"),
        lambda q: q.put("x", True, None),
        lambda q: q.put("x", block=True, timeout=1),
        lambda q: q.put(timeout=1, obj="x"),
        lambda q: q.put("x", False),
        lambda q: q.put_nowait("x"),
    ],
)
@pytest.mark.parametrize(
    "get",
    [
        lambda q: q.get(),
        lambda q: q.get(True),
        lambda q: q.get(True, 5),
        lambda q: q.get(block=True, timeout=5),
        lambda q: q.get(timeout=5),
        lambda q: q.get(timeout=None),
    ],
)
def test_all_forms_of_the_calls_are_accepted(dragon: BaseContext, put: Any, get: Any) -> None:
    q = dragon.Queue()
    assert put(q) is None
    assert get(q) == "x"


WRONG = {
    "put()": lambda q: q.put(),
    "put of four": lambda q: q.put(1, 2, 3, 4),
    "put of an unknown name": lambda q: q.put(1, nonsense=2),
    "put of a timeout that is no number": lambda q: q.put(1, timeout="soon"),
    "get of three": lambda q: q.get(1, 2, 3),
    "get of an unknown name": lambda q: q.get(obj=1),
    "get of a timeout that is no number": lambda q: q.get(timeout="soon"),
    "get_nowait of one": lambda q: q.get_nowait(1),
    "put_nowait()": lambda q: q.put_nowait(),
    "qsize of one": lambda q: q.qsize(1),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_type_errors_that_say_what(dragon: BaseContext, name: str) -> None:
    q = dragon.Queue(1)
    with pytest.raises(TypeError) as caught:
        q.put("full")
        WRONG[name](q)
    assert len(str(caught.value)) > 10
    assert q.qsize() == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda q: q.put(1, obj=2),
        lambda q: q.put(1, True, block=False),
        lambda q: q.put(1, True, 1, timeout=2),
    ],
)
def test_an_argument_given_twice_is_a_type_error(dragon: BaseContext, call: Any) -> None:
    with pytest.raises(TypeError, match="multiple values"):
        call(dragon.Queue())


@pytest.mark.parametrize("kind, method", [("Queue", "put_nowait"), ("SimpleQueue", "put")])
def test_obj_may_be_given_by_name(dragon: BaseContext, kind: str, method: str) -> None:
    q = getattr(dragon, kind)()
    getattr(q, method)(obj="named")
    assert q.get() == "named"


@pytest.mark.parametrize("timeout", [float("nan")])
def test_a_timeout_that_is_not_a_number_does_not_wait_for_ever(
    dragon: BaseContext, timeout: float
) -> None:
    with pytest.raises((ValueError, queue.Empty)):
        dragon.Queue().get(timeout=timeout)


def test_maxsize_must_be_a_number(ctx: BaseContext) -> None:
    with pytest.raises(TypeError):
        ctx.Queue("many")


def test_a_queue_whose_init_was_not_called_says_so(dragon: BaseContext) -> None:
    kind = type(dragon.Queue())
    blank = kind.__new__(kind)
    for call in [blank.get, blank.qsize, lambda: blank.put(1), blank.empty, blank.full]:
        with pytest.raises(ValueError, match="__init__"):
            call()


def test_init_called_twice_leaves_a_new_queue(dragon: BaseContext) -> None:
    q = dragon.Queue()
    q.put(1)
    q._reader.fileno()
    q.__init__(2, ctx=dragon)
    assert q.empty()
    q.put(2)
    assert q.get() == 2


# ---- sizes ----


def test_qsize_empty_and_full_follow_what_is_in_the_queue(ctx: BaseContext) -> None:
    q = ctx.Queue(maxsize=2)
    assert (q.qsize(), q.empty(), q.full()) == (0, True, False)
    q.put(1)
    assert until(lambda: not q.empty())
    assert (q.qsize(), q.full()) == (1, False)
    q.put(2)
    assert (q.qsize(), q.empty(), q.full()) == (2, False, True)
    q.get()
    q.get()
    assert (q.qsize(), q.empty(), q.full()) == (0, True, False)


@pytest.mark.parametrize("maxsize", [0, -1])
def test_a_queue_without_limit_is_never_full(ctx: BaseContext, maxsize: int) -> None:
    q = ctx.Queue(maxsize)
    for i in range(3000):
        q.put(i, block=False)
    assert not q.full()
    assert [q.get() for _ in range(3000)] == list(range(3000))


def test_put_is_there_when_put_returns(dragon: BaseContext) -> None:
    q = dragon.Queue()
    for item in [1, "x" * 200, [1], b"y" * 100_000]:
        q.put(item)
        assert q.qsize() == 1
        assert q.get_nowait() == item


@pytest.mark.parametrize("maxsize", [1, 2, 7, 1000])
def test_a_limited_queue_takes_exactly_its_limit(dragon: BaseContext, maxsize: int) -> None:
    q = dragon.Queue(maxsize)
    for _ in range(2):
        for i in range(maxsize):
            q.put_nowait(i)
        with pytest.raises(queue.Full):
            q.put_nowait(0)
        assert [q.get_nowait() for _ in range(maxsize)] == list(range(maxsize))


# ---- waiting ----


def test_get_waits_for_a_put_of_another_process(ctx: BaseContext) -> None:
    q, gate = ctx.Queue(), ctx.Event()
    child = ctx.Process(target=put_when_told, args=(gate, q, "late"))
    child.start()
    gate.set()
    assert q.get(timeout=20) == "late"
    child.join()


def test_put_waits_for_a_slot(ctx: BaseContext) -> None:
    q, results = ctx.Queue(1), ctx.Queue()
    q.put("first")
    child = ctx.Process(target=get_one, args=(q, results))
    child.start()
    q.put("second", timeout=20)
    assert (results.get(), q.get()) == ("first", "second")
    child.join()


@pytest.mark.parametrize(
    "call",
    [
        lambda q: q.get(timeout=0.1),
        lambda q: q.get(True, 0.1),
    ],
)
def test_get_ends_with_its_timeout(ctx: BaseContext, call: Any) -> None:
    q = ctx.Queue()
    start = time.monotonic()
    with pytest.raises(queue.Empty):
        call(q)
    assert 0.09 < time.monotonic() - start < 2


def test_put_ends_with_its_timeout(ctx: BaseContext) -> None:
    q = ctx.Queue(1)
    q.put(1)
    start = time.monotonic()
    with pytest.raises(queue.Full):
        q.put(2, timeout=0.1)
    assert 0.09 < time.monotonic() - start < 2


def test_a_thread_that_waits_holds_up_no_other_thread(dragon: BaseContext) -> None:
    q, results = dragon.Queue(), []
    threads = [threading.Thread(target=lambda: results.append(q.get())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for i in range(4):
        q.put(i)
    for thread in threads:
        thread.join(10)
    assert sorted(results) == [0, 1, 2, 3]


SIGNALS = """
import multiprocessing, os, queue, signal, sys, threading, time
q = multiprocessing.get_context("dragon").{make}
{fill}
def interrupt(number):
    time.sleep(0.1)
    os.kill(os.getpid(), number)
"""


@pytest.mark.parametrize(
    "make, fill, wait",
    [
        ("Queue()", "", "q.get()"),
        ("Queue()", "", "q.get(timeout=20)"),
        ("SimpleQueue()", "", "q.get()"),
        ("Queue(1)", "q.put(1)", "q.put(2)"),
        ("JoinableQueue()", "q.put(1)", "q.join()"),
        ("Queue()", "", "q._reader.poll(None)"),
        ("Queue()", "", "multiprocessing.connection.wait([q._reader])"),
    ],
)
def test_ctrl_c_interrupts_a_wait(
    run: Callable[..., Outcome], make: str, fill: str, wait: str
) -> None:
    text = (
        SIGNALS.format(make=make, fill=fill)
        + f"""
import multiprocessing.connection
threading.Thread(target=interrupt, args=(signal.SIGINT,)).start()
try:
    {wait}
except KeyboardInterrupt:
    print("interrupted")
"""
    )
    assert run(text)[:2] == ("interrupted\n", "")


def test_after_ctrl_c_the_queue_works_on(run: Callable[..., Outcome]) -> None:
    text = (
        SIGNALS.format(make="Queue(1)", fill="")
        + """
for wait in [q.get, lambda: q.put(1) or q.put(2)]:
    thread = threading.Thread(target=interrupt, args=(signal.SIGINT,))
    thread.start()
    try:
        wait()
    except KeyboardInterrupt:
        print(q.qsize())
    thread.join()
print(q.get(), q.empty())
"""
    )
    assert run(text)[:2] == ("0\n1\n1 True\n", "")


@pytest.mark.parametrize(
    "make, fill, wait, error",
    [
        ("Queue()", "", "q.get(timeout=0.4)", "Empty"),
        ("Queue(1)", "q.put(1)", "q.put(2, timeout=0.4)", "Full"),
    ],
)
def test_a_signal_handler_does_not_move_the_deadline(
    run: Callable[..., Outcome], make: str, fill: str, wait: str, error: str
) -> None:
    text = (
        SIGNALS.format(make=make, fill=fill)
        + f"""
calls = []
signal.signal(signal.SIGUSR1, lambda *_: calls.append(1))
threads = [threading.Thread(target=interrupt, args=(signal.SIGUSR1,)) for _ in range(1)]
threads[0].start()
start = time.monotonic()
try:
    {wait}
except queue.{error}:
    seconds = time.monotonic() - start
    print(len(calls), 0.39 < seconds < 0.8, seconds if seconds > 0.8 else "")
"""
    )
    assert run(text)[:2] == ("1 True \n", "")


def test_a_signal_handler_that_raises_ends_the_wait(run: Callable[..., Outcome]) -> None:
    text = (
        SIGNALS.format(make="Queue()", fill="")
        + """
def handler(*_):
    raise LookupError("by the handler")
signal.signal(signal.SIGUSR1, handler)
threading.Thread(target=interrupt, args=(signal.SIGUSR1,)).start()
try:
    q.get()
except LookupError as error:
    print(error)
"""
    )
    assert run(text)[:2] == ("by the handler\n", "")


def test_a_signal_handler_may_use_the_queue_that_is_waited_on(run: Callable[..., Outcome]) -> None:
    text = (
        SIGNALS.format(make="Queue()", fill="")
        + """
signal.signal(signal.SIGUSR1, lambda *_: q.put("by the handler"))
threading.Thread(target=interrupt, args=(signal.SIGUSR1,)).start()
print(q.get())
"""
    )
    assert run(text)[:2] == ("by the handler\n", "")


# ---- order and number ----


def test_each_producers_items_arrive_in_order(ctx: BaseContext) -> None:
    q = ctx.Queue()
    n = 300
    children = [ctx.Process(target=put_range, args=(q, name, n)) for name in "ab"]
    for child in children:
        child.start()
    received = [q.get() for _ in range(2 * n)]
    for child in children:
        child.join()
    for name in "ab":
        assert [i for who, i in received if who == name] == list(range(n))


def test_four_producers_and_four_consumers_lose_and_double_nothing(dragon: BaseContext) -> None:
    q, results = dragon.Queue(maxsize=10), dragon.Queue()
    n = 2000
    consumers = [dragon.Process(target=add_up, args=(q, results)) for _ in range(4)]
    producers = [
        dragon.Process(target=put_all, args=(q, range(k * n, (k + 1) * n))) for k in range(4)
    ]
    for process in consumers + producers:
        process.start()
    for process in producers:
        process.join()
    for _ in consumers:
        q.put(None)
    assert sum(results.get() for _ in consumers) == sum(range(4 * n))
    for process in consumers:
        process.join()
    assert q.empty()


def test_threads_and_queues_lose_and_double_nothing(dragon: BaseContext) -> None:
    q = dragon.Queue(maxsize=3)
    received: list[int] = []
    n = 500
    producers = [threading.Thread(target=put_all, args=(q, range(n))) for _ in range(3)]
    consumers = [
        threading.Thread(target=lambda: received.extend(q.get() for _ in range(n)))
        for _ in range(3)
    ]
    for thread in producers + consumers:
        thread.start()
    for thread in producers + consumers:
        thread.join()
    assert Counter(received) == Counter(dict.fromkeys(range(n), 3))


def test_a_process_may_end_right_after_its_put(ctx: BaseContext) -> None:
    q = ctx.Queue()
    child = ctx.Process(target=put_all, args=(q, [b"x" * 1_000_000, "last"]))
    child.start()
    if ctx.get_start_method() == "dragon":
        child.join()  # under spawn this would wait for the get
        assert child.exitcode == 0
    assert len(q.get(timeout=20)) == 1_000_000
    assert q.get(timeout=20) == "last"
    child.join()


# ---- closing ----


def test_a_closed_queue_refuses_put_and_get(ctx: BaseContext) -> None:
    q = ctx.Queue()
    q.close()
    for call in [lambda: q.put(1), lambda: q.put_nowait(1), q.get, q.get_nowait]:
        with pytest.raises(ValueError, match="is closed"):
            call()
    q.close()
    q.join_thread()


def test_join_thread_of_an_open_queue_is_an_assertion(ctx: BaseContext) -> None:
    q = ctx.Queue()
    with pytest.raises(AssertionError, match="not closed"):
        q.join_thread()
    q.cancel_join_thread()
    q.close()


def test_what_was_put_before_close_reaches_others(ctx: BaseContext) -> None:
    q, results = ctx.Queue(), ctx.Queue()
    child = ctx.Process(target=get_one, args=(q, results))
    child.start()
    q.put("left behind")
    q.close()
    q.join_thread()
    assert results.get(timeout=20) == "left behind"
    child.join()


def test_a_closed_simple_queue_raises_os_error(ctx: BaseContext) -> None:
    q = ctx.SimpleQueue()
    q.close()
    for call in [lambda: q.put(1), q.get, q.empty]:
        with pytest.raises(OSError, match="closed"):
            call()
    q.close()


def test_closing_here_leaves_the_queue_open_elsewhere(dragon: BaseContext) -> None:
    q, results, gate = dragon.Queue(), dragon.Queue(), dragon.Event()
    child = dragon.Process(target=put_when_told, args=(gate, q, "theirs"))
    child.start()
    again = dragon.Queue()
    again.put(q)
    q.close()
    gate.set()
    child.join()
    assert child.exitcode == 0
    assert again.get().get(timeout=5) == "theirs"
    assert results.empty()


# ---- JoinableQueue ----


def test_task_done_too_often_is_a_value_error(ctx: BaseContext) -> None:
    q = ctx.JoinableQueue()
    with pytest.raises(ValueError, match="called too many times"):
        q.task_done()
    q.put(1)
    q.get()
    q.task_done()
    with pytest.raises(ValueError, match="called too many times"):
        q.task_done()


def test_join_of_an_untouched_queue_returns(ctx: BaseContext) -> None:
    ctx.JoinableQueue().join()


def test_join_waits_until_another_process_is_done(ctx: BaseContext) -> None:
    tasks, done = ctx.JoinableQueue(), ctx.Queue()
    for item in [*range(20), None]:
        tasks.put(item)
    child = ctx.Process(target=do_tasks, args=(tasks, done))
    child.start()
    tasks.join()
    assert [done.get(timeout=5) for _ in range(20)] == list(range(20))
    child.join()


def test_join_waits_for_all_items_not_only_for_those_taken(dragon: BaseContext) -> None:
    q = dragon.JoinableQueue()
    for i in range(3):
        q.put(i)
    joined = threading.Event()
    thread = threading.Thread(target=lambda: q.join() or joined.set(), daemon=True)
    thread.start()
    for _ in range(3):
        assert not joined.wait(0.02)
        q.get()
        assert not joined.is_set()
        q.task_done()
    assert joined.wait(5)


def test_a_failed_put_is_no_task(dragon: BaseContext) -> None:
    q = dragon.JoinableQueue(1)
    q.put(1)
    with pytest.raises(queue.Full):
        q.put(2, block=False)
    q.get()
    q.task_done()
    q.join()
    with pytest.raises(ValueError):
        q.task_done()


# ---- identity ----


def test_attributes_of_a_subclass_travel_with_the_queue(dragon: BaseContext) -> None:
    q = Labelled("the label", dragon)
    child = dragon.Process(target=put_while_name_known, args=(q,))
    child.start()
    assert q.get() == "the label"
    child.join()
    assert child.exitcode == 0


def test_a_subclass_of_the_stock_queue_works_in_the_context(ctx: BaseContext) -> None:
    q = Counting(ctx)
    child = ctx.Process(target=put_while_name_known, args=(q,))
    child.start()
    assert q.get(timeout=20) == "kept by getstate"
    child.join()


def test_queues_can_be_referred_to_weakly_and_hashed(dragon: BaseContext) -> None:
    import gc
    import weakref

    q = dragon.Queue()
    reference = weakref.ref(q)
    assert {q: 1}[q] == 1
    assert q == q
    assert q != dragon.Queue()
    q.itself = q
    del q
    gc.collect()
    assert reference() is None


def test_items_may_go_through_several_queues_and_processes(dragon: BaseContext) -> None:
    queues = [dragon.SimpleQueue() for _ in range(4)]
    children = [dragon.Process(target=get_one, args=(queues[i], queues[i + 1])) for i in range(3)]
    for child in children:
        child.start()
    queues[0].put({"handed": "on"})
    assert queues[3].get() == {"handed": "on"}
    for child in children:
        child.join()


# ---- a pool of memory that is full ----


def test_a_full_pool_is_an_error_that_loses_nothing(run: Callable[..., Outcome]) -> None:
    text = """
import dragon, multiprocessing
q = multiprocessing.get_context("dragon").Queue()
n = 0
try:
    while True:
        q.put(b"x" * 1_000_000)
        n += 1
except MemoryError as error:
    print(type(error) is dragon.PoolFull, "pool is full" in str(error))
print(q.qsize() == n, sum(len(q.get()) for _ in range(n)) == n * 1_000_000)
q.put("works on")
print(q.get())
"""

    def limit() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (600 << 20, resource.RLIM_INFINITY))

    done = run(text, preexec_fn=limit)
    assert done == ("True True\nTrue True\nworks on\n", "", 0)
