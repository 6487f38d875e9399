"""The receiving end of a queue in select, poll, epoll, asyncio and connection.wait."""

import asyncio
import os
import queue
import select
import socket
import time
from collections.abc import Callable
from multiprocessing import connection
from multiprocessing.context import BaseContext
from typing import Any

import pytest
from children import count_if_ready, get_one, put_all, put_when_told, return_nothing
from overlay_support import Outcome, until


def is_readable(source: Any, timeout_s: float = 0) -> bool:
    return bool(select.select([source], [], [], timeout_s)[0])


@pytest.fixture(params=["Queue", "SimpleQueue", "JoinableQueue"])
def q(request: pytest.FixtureRequest, ctx: BaseContext) -> Any:
    return getattr(ctx, request.param)()


def test_the_reader_is_readable_while_something_is_in_the_queue(q: Any) -> None:
    reader = q._reader
    assert not is_readable(reader)
    q.put(1)
    q.put([2])
    assert is_readable(reader, 5)
    q.get()
    assert is_readable(reader, 5)
    q.get()
    assert not is_readable(reader)
    q.put(3)
    assert is_readable(reader, 5)


def test_a_registered_descriptor_stays_true_over_many_rounds(q: Any) -> None:
    with select.epoll() as epoll:
        epoll.register(q._reader.fileno(), select.EPOLLIN)
        for i in range(50):
            assert epoll.poll(0) == []
            q.put(i)
            assert len(epoll.poll(5)) == 1
            assert len(epoll.poll(0)) == 1
            assert q.get() == i


def test_a_put_of_ones_own_process_is_visible_at_once(run: Callable[..., Outcome]) -> None:
    text = """
import multiprocessing, select
q = multiprocessing.get_context("dragon").SimpleQueue()
epoll = select.epoll()
epoll.register(q._reader.fileno(), select.EPOLLIN)
seen = []
for i in range(200):
    q.put(i)
    seen.append(bool(epoll.poll(0)))
    q.get()
    epoll.poll(0)
print(seen.count(False))
"""
    assert run(text).stdout == "0\n"


def test_poll_and_fileno_agree_with_the_stock_reader(q: Any) -> None:
    reader = q._reader
    assert reader.fileno() == reader.fileno() == q._reader.fileno()
    assert reader.poll() is False
    assert reader.poll(0.01) is False
    assert reader.poll(-1) is False
    q.put(1)
    assert reader.poll(5) is True
    assert reader.poll(None) is True
    assert not reader.closed
    q.get()


def test_poll_waits_for_another_process(ctx: BaseContext) -> None:
    q, gate = ctx.SimpleQueue(), ctx.Event()
    child = ctx.Process(target=put_when_told, args=(gate, q, "x"))
    child.start()
    gate.set()
    assert q._reader.poll(20)
    assert q.get() == "x"
    child.join()


def test_select_wakes_for_a_put_of_another_process(ctx: BaseContext) -> None:
    q, gate = ctx.SimpleQueue(), ctx.Event()
    child = ctx.Process(target=put_when_told, args=(gate, q, "x"))
    child.start()
    assert not is_readable(q._reader)
    gate.set()
    assert is_readable(q._reader, 20)
    child.join()


def test_the_descriptor_falls_when_another_process_takes_the_item(ctx: BaseContext) -> None:
    q = ctx.SimpleQueue()
    q.put(1)
    assert is_readable(q._reader, 5)
    child = ctx.Process(target=get_one, args=(q,))
    child.start()
    child.join()
    # Asked by object: select calls fileno() anew.
    assert until(lambda: not is_readable(q._reader), 2)


def test_a_loop_that_asks_poll_before_get_does_not_spin(dragon: BaseContext) -> None:
    q = dragon.SimpleQueue()
    q.put(1)
    with select.epoll() as epoll:
        epoll.register(q._reader.fileno(), select.EPOLLIN)
        child = dragon.Process(target=get_one, args=(q,))
        child.start()
        child.join()
        assert not q._reader.poll()
        assert q.empty()
        assert epoll.poll(0) == []


def test_get_lowers_the_descriptor_after_another_process_took_the_item(dragon: BaseContext) -> None:
    q = dragon.Queue()
    q.put(1)
    with select.epoll() as epoll:
        epoll.register(q._reader.fileno(), select.EPOLLIN)
        child = dragon.Process(target=get_one, args=(q,))
        child.start()
        child.join()
        with pytest.raises(queue.Empty):
            q.get_nowait()
        assert epoll.poll(0) == []
        q.put(2)
        assert len(epoll.poll(5)) == 1


def test_wait_mixes_queues_sockets_pipes_and_sentinels(ctx: BaseContext) -> None:
    first, second = ctx.SimpleQueue(), ctx.SimpleQueue()
    here, there = socket.socketpair()
    pipe_here, pipe_there = ctx.Pipe()
    child = ctx.Process(target=return_nothing)
    child.start()
    with here, there, pipe_here, pipe_there:
        others = [first._reader, second._reader, here, pipe_here]
        assert connection.wait([*others, child.sentinel], 20) == [child.sentinel]
        assert connection.wait(others, 0) == []
        second.put(1)
        assert connection.wait(others, 5) == [second._reader]
        there.send(b"x")
        assert set(connection.wait(others, 5)) == {second._reader, here}
        second.get()
        here.recv(1)
        pipe_there.send(1)
        assert connection.wait(others, 5) == [pipe_here]
    child.join()


def test_what_a_process_put_is_seen_no_later_than_its_end(dragon: BaseContext) -> None:
    for i in range(100):  # a descriptor raised by a thread came too late in three of a hundred
        q: Any = dragon.SimpleQueue()
        child = dragon.Process(target=put_all, args=(q, [i]))
        child.start()
        assert q._reader in connection.wait([q._reader, child.sentinel], 20)
        assert q.get() == i
        child.join()


def test_asyncio_reads_items_as_they_come(ctx: BaseContext) -> None:
    q = ctx.SimpleQueue()
    items = list(range(50))
    received: list[int] = []

    async def collect() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def take() -> None:
            received.append(q.get())
            if len(received) == len(items):
                done.set_result(None)

        loop.add_reader(q._reader.fileno(), take)
        await asyncio.wait_for(done, 20)
        loop.remove_reader(q._reader.fileno())

    child = ctx.Process(target=put_all, args=(q, items))
    child.start()
    asyncio.run(collect())
    child.join()
    assert received == items


def test_more_processes_than_a_channel_has_entries_can_poll(dragon: BaseContext) -> None:
    q, results = dragon.SimpleQueue(), dragon.SimpleQueue()
    children = [dragon.Process(target=count_if_ready, args=(q, results)) for _ in range(10)]
    for child in children:
        child.start()
    for _ in children:
        assert results.get() == "polling"
    q.put("seen by all")
    assert [results.get() for _ in children] == [True] * 10
    for child in children:
        child.join()


def test_many_polled_queues_in_one_process(dragon: BaseContext) -> None:
    queues = [dragon.SimpleQueue() for _ in range(300)]
    readers = [q._reader for q in queues]
    assert connection.wait(readers, 0) == []
    for chosen in [0, 255, 256, 299]:
        queues[chosen].put(1)
        assert connection.wait(readers, 5) == [readers[chosen]]
        queues[chosen].get()
    assert connection.wait(readers, 0) == []


def test_descriptors_are_given_back_with_the_queue(dragon: BaseContext) -> None:
    dragon.SimpleQueue()._reader.fileno()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        q = dragon.SimpleQueue()
        q._reader.fileno()
        q.close()
        dragon.Queue()._reader.fileno()
    del q
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_queue_needs_no_descriptor_until_asked(dragon: BaseContext) -> None:
    before = len(os.listdir("/proc/self/fd"))
    queues = [dragon.Queue() for _ in range(100)]
    locks = [dragon.Lock() for _ in range(100)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(queues) == len(locks)


def test_a_closed_reader_raises_os_error(ctx: BaseContext) -> None:
    q = ctx.SimpleQueue()
    reader = q._reader
    reader.close()
    assert reader.closed
    for call in [reader.fileno, reader.poll]:
        with pytest.raises(OSError, match="handle is closed"):
            call()


def test_recv_and_send_of_the_ends_work(ctx: BaseContext) -> None:
    q = ctx.SimpleQueue()
    q._writer.send({"a": 1})
    assert q._reader.poll(5)
    assert q._reader.recv() == {"a": 1}


def test_an_idle_descriptor_costs_no_time(dragon: BaseContext) -> None:
    q = dragon.SimpleQueue()
    q._reader.fileno()
    start = time.process_time()
    assert not is_readable(q._reader, 0.3)
    assert time.process_time() - start < 0.1
