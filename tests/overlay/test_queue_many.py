"""put_many and get_many of the queues, which the standard library's have not."""

import queue
import threading
from collections.abc import Iterator
from multiprocessing.context import BaseContext
from typing import Any

import pytest
from children import Refuses, RefusesToArrive, echo
from overlay_support import n_blocks

KINDS = ["Queue", "SimpleQueue", "JoinableQueue"]


@pytest.mark.parametrize("kind", KINDS)
def test_many_objects_go_in_and_come_out_in_order(dragon: BaseContext, kind: str) -> None:
    q = getattr(dragon, kind)()
    items = [None, 1, "two", b"3" * 1000, [4], {"five": 5}]
    assert q.put_many(items) == 6
    assert q.get_many(4) == items[:4]
    assert q.get_many(4) == items[4:]


@pytest.mark.parametrize("kind", KINDS)
def test_many_and_single_calls_mix(dragon: BaseContext, kind: str) -> None:
    q = getattr(dragon, kind)()
    q.put(1)
    assert q.put_many(iter([2, 3])) == 2
    assert q.get() == 1
    assert q.get_many(10) == [2, 3]


@pytest.mark.parametrize("kind", KINDS)
def test_none_put_is_none_and_fewer_than_one_cannot_be_got(dragon: BaseContext, kind: str) -> None:
    q = getattr(dragon, kind)()
    assert q.put_many([]) == 0
    for n in (0, -1):
        with pytest.raises(ValueError, match="must be at least 1"):
            q.get_many(n)
    with pytest.raises(TypeError):
        q.get_many("1")
    with pytest.raises(TypeError):
        q.put_many(1)


def test_nothing_comes_from_an_empty_queue(dragon: BaseContext) -> None:
    q = dragon.Queue()
    assert q.get_many(3, block=False) == []
    assert q.get_many(3, timeout=0.001) == []


def test_what_has_no_room_is_not_put(dragon: BaseContext) -> None:
    q: Any = dragon.Queue(3)
    assert q.put_many(range(5), block=False) == 3
    assert q.put_many([7], timeout=0.001) == 0
    assert q.get_many(9) == [0, 1, 2]


def test_get_many_waits_for_one(dragon: BaseContext) -> None:
    inbox, outbox = dragon.Queue(), dragon.Queue()
    child = dragon.Process(target=echo, args=(inbox, outbox))
    child.start()
    inbox.put("there and back")
    assert outbox.get_many(3, timeout=20) == ["there and back"]
    inbox.put(None)
    child.join()


def test_put_many_waits_for_room(dragon: BaseContext) -> None:
    q: Any = dragon.Queue(2)
    taken: list[int] = []

    def take() -> None:
        while len(taken) < 100:
            taken.extend(q.get_many(7))

    thread = threading.Thread(target=take)
    thread.start()
    assert q.put_many(range(100)) == 100
    thread.join()
    assert taken == list(range(100))


def test_closed_queues_refuse(dragon: BaseContext) -> None:
    q, simple = dragon.Queue(), dragon.SimpleQueue()
    q.close()
    simple.close()
    for call in (lambda: q.put_many([1]), lambda: q.get_many(1)):
        with pytest.raises(ValueError, match="is closed"):
            call()
    for call in (lambda: simple.put_many([1]), lambda: simple.get_many(1)):
        with pytest.raises(OSError, match="closed"):
            call()


def test_what_cannot_be_pickled_is_reported_and_the_rest_put(
    dragon: BaseContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    q: Any = dragon.Queue()
    failures: list[str] = []
    monkeypatch.setattr(
        type(q), "_on_queue_feeder_error", staticmethod(lambda e, obj: failures.append(str(e)))
    )
    assert q.put_many([1, Refuses(), 2]) == 3
    assert failures == ["refuses to be pickled"]
    assert q.get_many(3) == [1, 2]


def test_what_cannot_be_pickled_is_raised_by_a_simple_queue(dragon: BaseContext) -> None:
    q: Any = dragon.SimpleQueue()
    with pytest.raises(ArithmeticError, match="refuses to be pickled"):
        q.put_many([1, Refuses(), 2])
    assert q.get_many(3) == [1]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_that_came_before_what_cannot_be_unpickled(
    dragon: BaseContext, kind: str
) -> None:
    q = getattr(dragon, kind)()
    q.put_many([1, 2, RefusesToArrive(), 3])
    with pytest.raises(ArithmeticError, match="refuses to arrive") as caught:
        q.get_many(4)
    assert caught.value.taken == [1, 2]  # type: ignore[attr-defined]
    assert q.get_many(4) == [3]
    q.put(RefusesToArrive())
    with pytest.raises(ArithmeticError) as caught:
        q.get_many(4)
    assert not hasattr(caught.value, "taken")


def test_objects_put_by_many_are_counted_as_to_be_done(dragon: BaseContext) -> None:
    q: Any = dragon.JoinableQueue()
    q.put_many([1, 2])
    for _ in q.get_many(2):
        q.task_done()
    q.join()
    with pytest.raises(ValueError, match="too many times"):
        q.task_done()


@pytest.mark.parametrize("kind", KINDS)
def test_many_calls_leave_no_block(dragon: BaseContext, kind: str) -> None:
    q = getattr(dragon, kind)()
    before = n_blocks()
    q.put_many([b"x" * 1000] * 10)
    q.get_many(10)
    assert n_blocks() == before


def numbers() -> Iterator[int]:
    yield 1
    raise queue.Empty


def test_an_iterable_that_fails_puts_nothing(dragon: BaseContext) -> None:
    q: Any = dragon.Queue()
    with pytest.raises(queue.Empty):
        q.put_many(numbers())
    assert q.empty()
