"""Connections in select, epoll, asyncio and connection.wait; descriptors that are passed."""

import asyncio
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from multiprocessing import connection, reduction
from multiprocessing.context import BaseContext
from typing import Any

import pytest
from children import return_nothing
from connection_children import (
    count_with_select,
    echo,
    send_all,
    send_when_told,
    wait_and_send_back,
    write_to_received_descriptor,
)
from overlay_support import Outcome


def is_readable(source: Any, timeout_s: float = 0) -> bool:
    return bool(select.select([source], [], [], timeout_s)[0])


@pytest.fixture
def pipe(ctx: BaseContext) -> Any:
    return ctx.Pipe()


# ---- the descriptor -----------------------------------------------------------------------------


def test_the_descriptor_is_readable_exactly_while_there_is_something(pipe: Any) -> None:
    here, there = pipe
    for _ in range(3):
        assert not is_readable(there)
        here.send(1)
        assert is_readable(there)
        here.send(2)
        there.recv()
        assert is_readable(there)
        there.recv()
        assert not is_readable(there)
    here.close()
    assert is_readable(there)


def test_a_descriptor_that_is_asked_for_late_knows_of_earlier_messages(pipe: Any) -> None:
    here, there = pipe
    here.send(1)
    there.recv()
    here.send(2)
    here.send(3)
    assert is_readable(there)
    there.recv()
    there.recv()
    assert not is_readable(there)


def test_a_descriptor_stays_the_same(pipe: Any) -> None:
    here, there = pipe
    assert there.fileno() == there.fileno() != here.fileno()
    with socket.socket(fileno=os.dup(there.fileno())) as copy:
        assert copy.family == socket.AF_UNIX


def test_a_registered_descriptor_stays_true_over_many_rounds(pipe: Any) -> None:
    here, there = pipe
    with select.epoll() as epoll:
        epoll.register(there.fileno(), select.EPOLLIN)
        for i in range(50):
            assert epoll.poll(0) == []
            here.send(i)
            assert len(epoll.poll(5)) == 1
            assert there.poll()
            assert there.recv() == i


def test_a_descriptor_can_be_waited_for_at_its_edges(pipe: Any) -> None:
    here, there = pipe
    with select.epoll() as epoll:
        epoll.register(there.fileno(), select.EPOLLIN | select.EPOLLET)
        for i in range(5):
            here.send(i)
            assert len(epoll.poll(5)) == 1
            assert there.recv() == i


def test_select_wakes_for_another_process(ctx: BaseContext) -> None:
    reader, writer = ctx.Pipe(duplex=False)
    gate = ctx.Event()
    child = ctx.Process(target=send_when_told, args=(gate, writer, "x"))
    child.start()
    writer.close()
    assert not is_readable(reader)
    gate.set()
    assert is_readable(reader, 20)
    assert reader.recv() == "x"
    assert is_readable(reader, 20), "its end"
    child.join()


def test_a_child_that_only_selects_misses_nothing(ctx: BaseContext) -> None:
    reader, writer = ctx.Pipe(duplex=False)
    child = ctx.Process(target=count_with_select, args=(reader,))
    child.start()
    reader.close()
    for i in range(200):
        writer.send(i)
    writer.close()
    child.join()
    assert child.exitcode == 200


def test_asyncio_reads_a_connection(ctx: BaseContext) -> None:
    here, there = ctx.Pipe()
    child = ctx.Process(target=echo, args=(there,))
    child.start()
    received: list[int] = []

    async def talk() -> None:
        done = asyncio.Event()

        def read() -> None:
            received.append(here.recv())
            if len(received) == 20:
                done.set()

        asyncio.get_running_loop().add_reader(here, read)
        for i in range(20):
            here.send(i)
            await asyncio.sleep(0)
        await done.wait()
        asyncio.get_running_loop().remove_reader(here)

    asyncio.run(talk())
    assert received == list(range(20))
    here.send(None)
    child.join()


# ---- descriptors that are passed ----------------------------------------------------------------


def test_a_descriptor_is_passed_between_messages(ctx: BaseContext) -> None:
    here, there = ctx.Pipe()
    read_end, write_end = os.pipe()
    child = ctx.Process(target=write_to_received_descriptor, args=(there,))
    child.start()
    here.send("a descriptor follows")
    reduction.send_handle(here, write_end, child.pid)
    here.send(b"through the descriptor")
    assert here.recv() == "done"
    child.join()
    os.close(write_end)
    assert os.read(read_end, 100) == b"through the descriptor"
    assert os.read(read_end, 1) == b""
    os.close(read_end)


def test_a_passed_descriptor_is_something_to_wait_for(pipe: Any) -> None:
    here, there = pipe
    reduction.send_handle(here, 0, os.getpid())
    assert there.poll()
    assert connection.wait([there]) == [there]
    os.close(reduction.recv_handle(there))
    assert not there.poll()
    here.send(1)
    assert there.recv() == 1


def test_a_receive_in_the_place_of_a_descriptor_is_refused(dragon: BaseContext) -> None:
    here, there = dragon.Pipe()
    reduction.send_handle(here, 0, os.getpid())
    with pytest.raises(OSError, match="recv_handle"):
        there.recv()
    os.close(reduction.recv_handle(there))


def test_a_plain_byte_in_the_place_of_a_descriptor_is_refused(pipe: Any) -> None:
    here, there = pipe
    os.write(here.fileno(), b"\0")
    with pytest.raises(RuntimeError):
        reduction.recv_handle(there)


def test_a_descriptor_comes_through_behind_the_bytes_of_many_messages(dragon: BaseContext) -> None:
    here, there = dragon.Pipe()
    for i in range(100):
        here.fileno()  # the next message writes a byte of its own
        here.send(i)
    reduction.send_handle(here, 0, os.getpid())
    os.close(reduction.recv_handle(there))
    assert [there.recv() for _ in range(100)] == list(range(100))


# ---- wait ---------------------------------------------------------------------------------------


def test_wait_tells_what_is_ready_of_a_mixture(ctx: BaseContext) -> None:
    here, there = ctx.Pipe()
    reader, writer = ctx.Pipe(duplex=False)
    stock_here, stock_there = connection.Pipe()
    q = ctx.SimpleQueue()
    left, right = socket.socketpair()
    child = ctx.Process(target=return_nothing)
    child.start()
    mixture = [there, reader, stock_there, q._reader, left.fileno(), child.sentinel]
    child.join()
    assert connection.wait(mixture, 0) == [child.sentinel]
    mixture.pop()
    assert connection.wait(mixture, 0) == []
    assert connection.wait(mixture, 0.01) == []
    ready = set()
    for make_ready, one in (
        (lambda: here.send(1), there),
        (lambda: right.send(b"x"), left.fileno()),
        (lambda: stock_here.send(1), stock_there),
        (lambda: q.put(1), q._reader),
        (writer.close, reader),
    ):
        make_ready()
        ready.add(one)
        while set(connection.wait(mixture, 5)) != ready:
            pass  # the queue's descriptor is raised by a thread
    left.close()
    right.close()


def test_wait_takes_each_descriptor_once(pipe: Any) -> None:
    here, there = pipe
    here.send(1)
    for twice in ([there, there], [here, there, here], [there, there.fileno()]):
        with pytest.raises(KeyError, match="already registered"):
            connection.wait(twice, 0)
    assert connection.wait([here, there], 0) == [there]


def test_wait_wakes_for_another_process(ctx: BaseContext) -> None:
    pipes = [ctx.Pipe(duplex=False) for _ in range(5)]
    gate = ctx.Event()
    child = ctx.Process(target=send_when_told, args=(gate, pipes[3][1], "x"))
    child.start()
    timer = threading.Timer(0.05, gate.set)
    timer.start()
    assert connection.wait([reader for reader, _ in pipes], 20) == [pipes[3][0]]
    timer.join()
    child.join()


def test_wait_for_many_connections_gets_all_and_their_ends(ctx: BaseContext) -> None:
    pipes = [ctx.Pipe(duplex=False) for _ in range(70)]
    here, there = ctx.Pipe()
    child = ctx.Process(target=wait_and_send_back, args=([r for r, _ in pipes], there))
    child.start()
    for i, (reader, writer) in enumerate(pipes):
        reader.close()
        writer.send(i)
        writer.send(i)
        writer.close()
    received = sorted(iter(here.recv, None))
    assert received == sorted([*range(70), *range(70)])
    child.join()


def test_wait_wakes_for_the_death_of_a_writer(ctx: BaseContext) -> None:
    reader, writer = ctx.Pipe(duplex=False)
    gate = ctx.Event()
    child = ctx.Process(target=send_when_told, args=(gate, writer, None))
    child.start()
    writer.close()
    timer = threading.Timer(0.05, child.kill)
    timer.start()
    assert connection.wait([reader], 20) == [reader]
    with pytest.raises(EOFError):
        reader.recv()
    timer.join()
    child.join()


def test_wait_takes_any_iterable_and_objects_that_are_equal(pipe: Any) -> None:
    here, there = pipe
    here.send(1)
    assert connection.wait(iter([there])) == [there]
    assert connection.wait((here, there), timeout=1) == [there]
    assert connection.wait([here], -1) == []
    assert connection.wait([], 0) == []


def test_wait_refuses_what_has_no_descriptor(pipe: Any) -> None:
    there: Any = pipe[1]
    text: Any = "text"
    with pytest.raises(ValueError, match="Invalid file object"):
        connection.wait([there, text], 0)
    with pytest.raises(ValueError):
        connection.wait([there, -1], 0)


def test_a_wait_of_nothing_lasts_its_time(ctx: BaseContext) -> None:
    reader, _ = ctx.Pipe(duplex=False)
    begin = time.monotonic()
    assert connection.wait([reader], 0.05) == []
    assert reader.poll(0.05) is False
    assert time.monotonic() - begin >= 0.1


def test_close_ends_a_wait_of_another_thread(dragon: BaseContext) -> None:
    here, there = dragon.Pipe()
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            connection.wait([here])
        except OSError as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    here.close()
    thread.join()
    assert str(caught[0]) == "handle is closed"
    with pytest.raises(EOFError):
        there.recv()


def test_a_signal_handler_that_raises_ends_a_wait(dragon: BaseContext) -> None:
    here, there = dragon.Pipe()

    def handle(number: int, frame: object) -> None:
        raise ArithmeticError("from the handler")

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        for wait in (here.recv, lambda: here.poll(None), lambda: connection.wait([here])):
            timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
            timer.start()
            with pytest.raises(ArithmeticError):
                wait()
            timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    there.send(1)
    assert here.recv() == 1


def test_a_writer_that_waits_for_room_goes_on_when_there_is_some(ctx: BaseContext) -> None:
    here, there = ctx.Pipe(duplex=False)
    child = ctx.Process(target=send_all, args=(there, range(20_000)))
    child.start()
    there.close()
    assert [here.recv() for _ in range(20_000)] == list(range(20_000))
    child.join()


def test_a_busy_process_of_two_threads_and_one_pipe(run: Callable[..., Outcome]) -> None:
    text = """
import multiprocessing, threading
here, there = multiprocessing.get_context("dragon").Pipe()
n, got = 20_000, []

def receive():
    for _ in range(n):
        got.append(there.recv())

threads = [threading.Thread(target=receive) for _ in range(2)]
for t in threads: t.start()
for i in range(2 * n): here.send(i)
for t in threads: t.join()
print(sorted(got) == list(range(2 * n)))
"""
    assert run(text).stdout == "True\n"
