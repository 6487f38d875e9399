"""Pipe and its connections: what goes through them, how they are closed, how they travel.

Most tests run with the standard library's pipe, too, which says how it should be.
"""

import multiprocessing
import os
import pickle
import resource
import signal
import threading
from array import array
from collections.abc import Callable
from multiprocessing import connection, reduction
from multiprocessing.context import BaseContext
from typing import Any

import pytest
from children import Refuses, RefusesToArrive
from connection_children import (
    describe_array,
    die_when_told,
    echo,
    echo_bytes,
    receive_and_die,
    send_all,
    send_and_die,
    use_received,
)
from overlay_support import Outcome, is_asleep, n_blocks, until

import _dragon
from dragon_overlay import connection as overlay_connection
from dragon_overlay.connection import Connection

ITEMS = [None, True, 7, -(2**80), 1.5, "text", b"bytes", (1, "a"), [1, {"b": 2}], "x" * 100_000]


@pytest.fixture
def pipe(ctx: BaseContext) -> Any:
    return ctx.Pipe()


# ---- what goes through --------------------------------------------------------------------------


def test_objects_come_out_as_they_went_in_and_in_order(pipe: Any) -> None:
    for here, there in (pipe, pipe[::-1]):
        for item in ITEMS[:-1]:
            here.send(item)
        assert [there.recv() for _ in ITEMS[:-1]] == ITEMS[:-1]


def test_objects_come_back_from_another_process(ctx: BaseContext) -> None:
    here, there = ctx.Pipe()
    child = ctx.Process(target=echo, args=(there,))
    child.start()
    there.close()
    for item in ITEMS[1:]:
        here.send(item)
        assert here.recv() == item
    here.send(None)
    child.join()


@pytest.mark.parametrize("size", [0, 1, 104, 105, 65535, 65536, 1 << 20])
def test_bytes_come_back_from_another_process(ctx: BaseContext, size: int) -> None:
    here, there = ctx.Pipe()
    child = ctx.Process(target=echo_bytes, args=(there,))
    child.start()
    there.close()
    message = os.urandom(size) or b"not empty"
    here.send_bytes(message)
    assert here.recv_bytes() == message
    here.send_bytes(b"")
    child.join()
    with pytest.raises(EOFError):
        here.recv_bytes()


def test_an_empty_message_is_a_message(pipe: Any) -> None:
    here, there = pipe
    here.send_bytes(b"")
    assert there.poll()
    assert there.recv_bytes() == b""
    assert not there.poll()


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [((), b"abcdef"), ((2,), b"cdef"), ((2, 3), b"cde"), ((6,), b""), ((0, 0), b"")],
)
def test_a_part_of_a_buffer_is_sent(pipe: Any, arguments: Any, sent: bytes) -> None:
    here, there = pipe
    here.send_bytes(b"abcdef", *arguments)
    assert there.recv_bytes() == sent


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((-1,), "offset is negative"),
        ((7,), "buffer length < offset"),
        ((0, -1), "size is negative"),
        ((2, 5), r"buffer length < offset \+ size"),
    ],
)
def test_a_part_that_is_not_in_the_buffer_is_refused(pipe: Any, arguments: Any, text: str) -> None:
    here, there = pipe
    with pytest.raises(ValueError, match=text):
        here.send_bytes(b"abcdef", *arguments)
    assert not there.poll()


def test_buffers_of_larger_items_are_taken_as_bytes(pipe: Any) -> None:
    here, there = pipe
    numbers = array("i", range(4))
    here.send_bytes(numbers)
    assert there.recv_bytes() == numbers.tobytes()
    here.send_bytes(numbers, 4, 8)
    assert there.recv_bytes() == numbers.tobytes()[4:12]


@pytest.mark.parametrize(
    "view",
    [
        memoryview(b"abcdef")[::2],
        memoryview(b"abcdef")[::-1],
        memoryview(b"abcdef").cast("H")[::2],
        memoryview(b"abcdef").cast("B", [3, 2])[::2],
    ],
    ids=["strided", "backwards", "strided, of larger items", "strided rows"],
)
def test_a_buffer_whose_bytes_do_not_lie_in_a_row_is_refused(
    ctx: BaseContext, view: memoryview
) -> None:
    here, _ = ctx.Pipe()  # of its own: the standard library's has sent a header by then
    with pytest.raises(TypeError):
        here.send_bytes(view)


def test_nothing_is_received_into_a_buffer_that_cannot_take_it(dragon: BaseContext) -> None:
    here, there = dragon.Pipe()
    here.send_bytes(b"abc")
    for buffer in (memoryview(bytearray(8))[::2], b"........", "text"):
        with pytest.raises(TypeError):
            there.recv_bytes_into(buffer)
    assert there.recv_bytes() == b"abc"  # where the standard library's is lost


def test_a_message_is_received_into_a_buffer(pipe: Any) -> None:
    here, there = pipe
    buffer = bytearray(b"." * 8)
    here.send_bytes(b"abc")
    assert there.recv_bytes_into(buffer, 2) == 3
    assert buffer == b"..abc..."
    for offset, text in ((-1, "negative offset"), (9, "offset too large")):
        with pytest.raises(ValueError, match=text):
            there.recv_bytes_into(buffer, offset)


def test_a_message_that_does_not_fit_is_in_the_exception(pipe: Any) -> None:
    here, there = pipe
    here.send_bytes(b"too long")
    here.send_bytes(b"next")
    with pytest.raises(multiprocessing.BufferTooShort) as caught:
        there.recv_bytes_into(bytearray(4))
    assert caught.value.args == (b"too long",)
    assert there.recv_bytes() == b"next"


def test_too_long_a_message_ends_receiving(ctx: BaseContext) -> None:
    here, there = ctx.Pipe()
    here.send_bytes(b"12345")
    with pytest.raises(OSError, match="bad message length"):
        there.recv_bytes(4)
    assert not there.readable
    assert not there.closed
    there.send("still")
    assert here.recv() == "still"
    reader, writer = ctx.Pipe(duplex=False)
    writer.send_bytes(b"12345")
    with pytest.raises(OSError, match="bad message length"):
        reader.recv_bytes(maxlength=4)
    assert reader.closed


def test_a_negative_maximum_is_refused(pipe: Any) -> None:
    with pytest.raises(ValueError, match="negative maxlength"):
        pipe[1].recv_bytes(-1)


def test_objects_and_bytes_are_the_same_messages(pipe: Any) -> None:
    here, there = pipe
    for item in ITEMS[:-1]:
        here.send(item)
        assert pickle.loads(there.recv_bytes()) == item
        here.send_bytes(pickle.dumps(item))
        assert there.recv() == item


def test_what_cannot_be_pickled_is_raised_and_not_sent(pipe: Any) -> None:
    here, there = pipe
    with pytest.raises(ArithmeticError):
        here.send(Refuses())
    here.send("next")
    assert there.recv() == "next"


def test_what_cannot_be_unpickled_is_raised_and_taken(pipe: Any) -> None:
    here, there = pipe
    here.send(RefusesToArrive())
    here.send("next")
    with pytest.raises(ArithmeticError):
        there.recv()
    assert there.recv() == "next"


def test_large_arrays_arrive_writable(ctx: BaseContext) -> None:
    numpy = pytest.importorskip("numpy")
    here, there = ctx.Pipe()
    child = ctx.Process(target=describe_array, args=(there,))
    child.start()
    here.send(numpy.ones(100_000))
    assert here.recv() == ("ndarray", 100_000.0, "float64")
    child.join()


def test_a_received_array_is_memory_of_the_pool_and_gives_it_back(dragon: BaseContext) -> None:
    numpy = pytest.importorskip("numpy")
    here, there = dragon.Pipe()
    here.send([1])
    there.recv()
    before = n_blocks()
    here.send(numpy.ones(100_000))
    received = there.recv()
    assert not received.flags.owndata
    assert n_blocks() == before + 1
    del received
    assert n_blocks() == before
    here.send(numpy.ones(100_000))
    assert pickle.loads(there.recv_bytes()).sum() == 100_000
    assert n_blocks() == before


@pytest.mark.parametrize("item", [1, b"x" * 8])
def test_a_pipe_takes_as_much_as_the_standard_librarys(ctx: BaseContext, item: Any) -> None:
    reader, writer = ctx.Pipe(duplex=False)
    for _ in range(270):
        writer.send(item)
    if isinstance(writer, Connection):
        for _ in range(7280 - 270):
            writer.send(item)
    assert reader.recv() == item


# ---- closing ------------------------------------------------------------------------------------


def test_an_end_of_one_direction_refuses_the_other(ctx: BaseContext) -> None:
    reader, writer = ctx.Pipe(duplex=False)
    assert (reader.readable, reader.writable) == (True, False)
    assert (writer.readable, writer.writable) == (False, True)
    for operation in (lambda: reader.send(1), lambda: reader.send_bytes(b"")):
        with pytest.raises(OSError, match="connection is read-only"):
            operation()
    for receive in (writer.recv, writer.recv_bytes, writer.poll):
        with pytest.raises(OSError, match="connection is write-only"):
            receive()
    with pytest.raises(OSError, match="connection is write-only"):
        writer.recv_bytes_into(bytearray(1))


def test_a_closed_connection_refuses_all(pipe: Any) -> None:
    here, _ = pipe
    with here as same:
        assert same is here
        assert not here.closed
    assert here.closed
    here.close()
    assert here._handle is None
    operations: list[Callable[[], Any]] = [
        lambda: here.send(1),
        lambda: here.send_bytes(b""),
        lambda: here.recv_bytes_into(bytearray(1)),
        lambda: connection.wait([here], 0),
        here.recv,
        here.recv_bytes,
        here.poll,
        here.fileno,
    ]
    for operation in operations:
        with pytest.raises(OSError, match="handle is closed"):
            operation()


def test_messages_come_before_the_end(pipe: Any) -> None:
    here, there = pipe
    here.send(1)
    here.send_bytes(b"2")
    here.close()
    assert there.recv() == 1
    assert there.recv_bytes() == b"2"
    for _ in range(2):
        assert there.poll()
        assert there.poll(None)
        with pytest.raises(EOFError):
            there.recv()
        with pytest.raises(EOFError):
            there.recv_bytes()


def test_the_first_send_to_nobody_fails(pipe: Any) -> None:
    here, there = pipe
    here.send(0)
    there.recv()
    there.close()
    for _ in range(2):
        with pytest.raises(BrokenPipeError):
            here.send(1)
        with pytest.raises(BrokenPipeError):
            here.send_bytes(b"1")


def test_a_dropped_connection_is_closed(ctx: BaseContext) -> None:
    here, there = ctx.Pipe()
    del here
    with pytest.raises(EOFError):
        there.recv()


def test_the_end_of_a_writer_that_left_messages_unread_is_the_end(dragon: BaseContext) -> None:
    here, there = dragon.Pipe()
    here.send("never read")
    there.close()
    with pytest.raises(EOFError):
        here.recv()


def test_close_ends_a_receive_of_another_thread(dragon: BaseContext) -> None:
    here, there = dragon.Pipe()
    caught: list[BaseException] = []
    started = threading.Event()

    def receive() -> None:
        started.set()
        try:
            here.recv()
        except OSError as error:
            caught.append(error)

    thread = threading.Thread(target=receive)
    thread.start()
    started.wait()
    here.close()
    thread.join()
    assert str(caught[0]) == "handle is closed"
    with pytest.raises(EOFError):
        there.recv()


def test_a_connection_is_an_instance_of_the_standard_librarys(dragon: BaseContext) -> None:
    here, there = dragon.Pipe()
    assert isinstance(here, connection.Connection)
    assert type(here) is type(there) is Connection
    assert type(connection.Pipe()[0]) is connection.Connection
    assert type(multiprocessing.get_context("spawn").Pipe()[0]) is connection.Connection


def test_the_private_methods_that_others_call_are_there(pipe: Any) -> None:
    here, there = pipe
    here._send_bytes(b"abc")
    assert there._poll(5)
    assert there._recv_bytes().getvalue() == b"abc"
    assert here._handle == here.fileno()
    assert here._readable
    assert here._writable
    assert here._check_closed() is None
    here.close()
    with pytest.raises(EOFError):
        there._recv_bytes()


def test_wrong_arguments_are_refused(pipe: Any) -> None:
    here, there = pipe
    for operation in (
        lambda: here.send(),
        lambda: here.send(1, 2),
        lambda: here.send(object=1),
        lambda: here.send_bytes("text"),
        lambda: here.send_bytes(),
        lambda: there.recv_bytes_into(),
        lambda: there.recv_bytes("1"),
        lambda: there.poll("1"),
    ):
        with pytest.raises(TypeError):
            operation()
    assert not there.poll()


def test_a_full_pool_is_told_with_the_operation(run: Callable[..., Outcome]) -> None:
    text = """
import dragon, multiprocessing
here, there = multiprocessing.get_context("dragon").Pipe()
q = multiprocessing.get_context("dragon").Queue()
much = bytes(1_000_000)

def fill(item):
    while True: q.put(item)

for operation in (fill, here.send, here.send_bytes, lambda item: here.send([item])):
    try:
        operation(much)
    except dragon.PoolFull as error:
        print(str(error).split(":")[0])
"""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (600 << 20, resource.RLIM_INFINITY))

    done = run(text, preexec_fn=limit)
    assert done.stdout.split() == ["put", "send", "send_bytes", "send"], done.stderr


def test_a_dropped_pipe_gives_all_memory_back(dragon: BaseContext) -> None:
    dragon.Pipe()
    before = n_blocks()
    here, there = dragon.Pipe()
    for _ in range(100):
        here.send("x" * 1000)
        there.send_bytes(b"x" * 1000)
    assert n_blocks() > before
    del here, there
    assert n_blocks() == before


def n_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_of_two_connections_both_begin_or_none(dragon: BaseContext) -> None:
    here, there = dragon.Pipe()
    before = n_descriptors(), n_blocks()
    fresh = Connection.__new__(Connection)
    for pair in ((fresh, there), (there, fresh)):
        with pytest.raises(ValueError, match="invalid handle"):
            _dragon.connect(*pair, True, 8, 1024)
        assert fresh.closed
    assert (n_descriptors(), n_blocks()) == before
    there.send("still open")
    assert here.recv() == "still open"


class RefusesToBegin(Connection):
    def __init__(self, incoming: Any, outgoing: Any, fd: int) -> None:
        raise ArithmeticError("refuses to begin")


class BeginsAndFails(Connection):
    def __init__(self, incoming: Any, outgoing: Any, fd: int) -> None:
        super().__init__(incoming, outgoing, fd)
        raise ArithmeticError("begins and fails")


class Copy:
    """What gives a copy of a connection's descriptor."""

    def __init__(self, conn: Any) -> None:
        self.conn = conn

    def detach(self) -> int:
        return os.dup(self.conn._socket)


@pytest.mark.parametrize("kind", [RefusesToBegin, BeginsAndFails])
def test_a_connection_that_cannot_be_rebuilt_leaves_no_descriptor(
    dragon: BaseContext, kind: type[Connection]
) -> None:
    here, there = dragon.Pipe()
    rebuild = vars(overlay_connection)["_rebuild"]
    names = [pipe._export(False) for pipe in here._pipes]
    with pytest.raises(ArithmeticError):
        rebuild(kind, names, Copy(here))
    received = rebuild(Connection, names, Copy(here))
    here.close()
    assert not there.poll(), "received has it"
    received.close()
    assert there.poll(), "nobody else has"


def test_a_connection_that_cannot_be_offered_leaves_no_descriptor(
    dragon: BaseContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FailsHavingIt:
        close: Any

        def register(self, send: Any, close: Any) -> None:
            self.close = close
            raise ArithmeticError("a handler's exception")

    sharer = FailsHavingIt()
    monkeypatch.setattr("dragon_overlay.connection._sharer", lambda: sharer)
    here, there = dragon.Pipe()
    with pytest.raises(ArithmeticError):
        pickle.dumps(here)
    here.close()
    assert there.poll(), "nobody else has it"
    sharer.close()  # the sharer's, later


# ---- other processes, and their deaths ----------------------------------------------------------


@pytest.mark.parametrize("how", ["recv", "poll", "wait"])
def test_a_reader_of_a_killed_writer_gets_all_and_then_the_end(ctx: BaseContext, how: str) -> None:
    here, there = ctx.Pipe()
    child = ctx.Process(target=send_and_die, args=(there, range(100)))
    child.start()
    there.close()
    assert [here.recv() for _ in range(100)] == list(range(100))
    if how == "poll":
        assert here.poll(None)
    if how == "wait":
        assert connection.wait([here]) == [here]
    with pytest.raises(EOFError):
        here.recv()
    child.join()


def test_a_writer_that_waits_for_room_learns_of_its_readers_death(ctx: BaseContext) -> None:
    here, there = ctx.Pipe()
    gate = ctx.Event()
    child = ctx.Process(target=die_when_told, args=(gate, there))
    child.start()
    there.close()
    filler = threading.Timer(0.05, gate.set)
    filler.start()
    with pytest.raises(BrokenPipeError):
        while True:
            here.send_bytes(b"x" * 60_000)
    filler.join()
    child.join()


def test_a_writer_of_a_killed_reader_is_told(ctx: BaseContext) -> None:
    here, there = ctx.Pipe()
    child = ctx.Process(target=receive_and_die, args=(there, 3))
    child.start()
    there.close()
    for i in range(3):
        here.send(i)
    child.join()
    assert child.exitcode == -signal.SIGKILL
    with pytest.raises(BrokenPipeError):
        here.send(3)


def test_a_pipe_that_a_killed_child_used_gives_its_memory_back(dragon: BaseContext) -> None:
    def use_one() -> None:
        here, there = dragon.Pipe()
        for _ in range(100):
            here.send("x" * 1000)
        child = dragon.Process(target=receive_and_die, args=(there, 1))
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL

    use_one()
    before = n_blocks()
    for _ in range(3):
        use_one()
    assert until(lambda: n_blocks() <= before)


def test_a_child_that_ends_well_ends_its_pipe(ctx: BaseContext) -> None:
    reader, writer = ctx.Pipe(duplex=False)
    child = ctx.Process(target=send_all, args=(writer, [1, "x" * 100_000]))
    child.start()
    writer.close()
    assert reader.recv() == 1
    assert reader.recv() == "x" * 100_000
    with pytest.raises(EOFError):
        reader.recv()
    child.join()


def test_what_a_dead_child_sent_arrives(ctx: BaseContext) -> None:
    numpy = pytest.importorskip("numpy")
    reader, writer = ctx.Pipe(duplex=False)
    sent = [numpy.ones(2000), "x" * 10_000]
    child = ctx.Process(target=send_all, args=(writer, sent))
    child.start()
    writer.close()
    child.join()
    assert reader.recv().sum() == 2000
    assert reader.recv() == "x" * 10_000
    with pytest.raises(EOFError):
        reader.recv()


@pytest.mark.parametrize("carrier", ["Queue", "SimpleQueue", "Pipe", "stock Pipe"])
def test_a_connection_travels_inside_a_message(ctx: BaseContext, carrier: str) -> None:
    if carrier.endswith("Pipe"):
        outbox, inbox = connection.Pipe() if carrier == "stock Pipe" else ctx.Pipe()
        give = outbox.send
    else:
        inbox = getattr(ctx, carrier)()
        give = inbox.put
    reader, writer = ctx.Pipe(duplex=False)
    child = ctx.Process(target=use_received, args=(inbox, "through it"))
    child.start()
    give(writer)
    assert reader.recv() == "through it"
    writer.close()
    with pytest.raises(EOFError):
        reader.recv()
    child.join()


def test_a_received_connection_is_of_the_same_kind(ctx: BaseContext) -> None:
    carrier, other = ctx.Pipe()
    reader, writer = ctx.Pipe(duplex=False)
    carrier.send(reader)
    received = other.recv()
    assert type(received) is type(reader)
    assert (received.readable, received.writable) == (True, False)
    reader.close()
    writer.send(1)
    assert received.recv() == 1


def test_a_connection_is_not_for_a_process_of_another_method(dragon: BaseContext) -> None:
    here, _ = dragon.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=echo, args=(here,))
    with pytest.raises(RuntimeError, match="start method"):
        child.start()


def test_both_sides_of_a_fork_use_a_connection(dragon: BaseContext) -> None:
    here, there = dragon.Pipe()
    pid = os.fork()
    if pid == 0:
        try:
            here.close()
            there.send(there.recv() + 1)
            there.close()
        finally:
            os._exit(0)
    here.send(1)
    assert here.recv() == 2
    os.waitpid(pid, 0)
    there.send("the parent's is still open")
    assert here.recv() == "the parent's is still open"
    there.close()
    with pytest.raises(EOFError):
        here.recv()


def test_a_copy_closes_what_a_thread_of_the_other_uses(dragon: BaseContext) -> None:
    here, there = dragon.Pipe()
    thread = threading.Thread(target=here.recv)
    thread.start()
    assert until(lambda: is_asleep(thread))
    pid = os.fork()
    if pid == 0:
        try:
            fd = here._socket
            here.close()
            os.fstat(fd)
        except OSError:
            os._exit(7)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    there.send(1)
    thread.join()


def test_a_fork_process_of_multiprocessing_can_use_a_connection(dragon: BaseContext) -> None:
    here, there = dragon.Pipe()
    child = multiprocessing.get_context("fork").Process(target=echo, args=(there,))
    child.start()
    here.send([1])
    assert here.recv() == [1]
    here.send(None)
    child.join()


def test_a_signal_handler_runs_while_recv_waits(ctx: BaseContext) -> None:
    here, there = ctx.Pipe()
    ran: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: (ran.append(1), there.send("x")))
    try:
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        assert here.recv() == "x"
        assert ran == [1]
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_ctrl_c_ends_a_recv(run: Callable[..., Outcome]) -> None:
    text = """
import multiprocessing, os, signal, threading
here, there = multiprocessing.get_context("dragon").Pipe()
threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    here.recv()
except KeyboardInterrupt:
    print("interrupted")
"""
    assert run(text).stdout == "interrupted\n"


def test_the_module_level_pipe_follows_the_start_method(run: Callable[..., Outcome]) -> None:
    text = """
import multiprocessing
print(type(multiprocessing.Pipe()[0]).__module__)
multiprocessing.set_start_method("dragon", force=True)
print(type(multiprocessing.Pipe()[0]).__module__)
multiprocessing.set_start_method("spawn", force=True)
print(type(multiprocessing.Pipe(False)[0]).__module__)
"""
    stock = "multiprocessing.connection"
    assert run(text).stdout == f"{stock}\ndragon_overlay.connection\n{stock}\n"


def test_a_program_without_descriptors_left_is_told(run: Callable[..., Outcome]) -> None:
    text = """
import multiprocessing, resource
ctx = multiprocessing.get_context("dragon")
first = ctx.Pipe()
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
try:
    ctx.Pipe()
except OSError as error:
    print(error.errno)
first[0].send(1)
print(first[1].recv())
"""
    assert run(text).stdout == "24\n1\n"


def test_reduction_makes_a_pickle_that_works_once(dragon: BaseContext) -> None:
    here, there = dragon.Pipe()
    made = reduction.ForkingPickler.dumps(there)
    there.close()
    received = pickle.loads(made)
    here.send(1)
    assert received.recv() == 1
