"""Each name of multiprocessing's documentation, used under start method "dragon" with a child."""

import importlib
import logging
import multiprocessing
import multiprocessing.dummy
import multiprocessing.heap
import multiprocessing.managers
import multiprocessing.pool
import multiprocessing.queues
import multiprocessing.sharedctypes
import os
import queue
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing import connection, reduction, resource_tracker, shared_memory
from typing import Any

import documented_children as child
import pytest

#: Name -> what uses it. A name is as in the documentation, without "multiprocessing.".
USES: dict[str, Callable[[], None]] = {}


def uses(*names: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Say which documented names a function uses."""

    def note(function: Callable[[], None]) -> Callable[[], None]:
        for name in names:
            assert name not in USES, name
            USES[name] = function
        return function

    return note


@pytest.fixture(autouse=True, scope="module")
def dragon_is_the_method() -> Iterator[None]:
    """The functions of `multiprocessing` make objects of start method "dragon"."""
    context: Any = multiprocessing.context._default_context  # type: ignore[attr-defined]
    before = context._actual_context
    multiprocessing.set_start_method("dragon", force=True)
    yield
    context._actual_context = before


def begin(target: Callable[..., Any], *args: Any, **options: Any) -> Any:
    process = multiprocessing.Process(target=target, args=args, **options)
    process.start()
    return process


def end(process: Any) -> None:
    process.join()
    assert process.exitcode == 0


def begin_report(function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    """Have a child call function; what is returned waits for the result."""
    results: Any = multiprocessing.SimpleQueue()
    process = begin(child.report, results, function, args)

    def result() -> Any:
        went_well, value = results.get()
        end(process)
        assert went_well, value
        return value

    return result


def in_child(function: Callable[..., Any], *args: Any) -> Any:
    """What function returns in a child."""
    return begin_report(function, *args)()


# ---- processes ----


@uses("Process", "Process.start", "Process.join", "Process.name", "Process.daemon", "Process.pid")
def _() -> None:
    entered, leave = multiprocessing.Event(), multiprocessing.Event()
    process = multiprocessing.Process(
        group=None, target=child.gate, name="gate", args=(entered,), kwargs={"leave": leave}
    )
    assert (process.pid, process.exitcode, process.daemon) == (None, None, False)
    process.daemon = True
    process.start()
    entered.wait()
    assert process.name == "gate"
    assert process.pid == process.ident != os.getpid()
    process.join(0)
    leave.set()
    end(process)


@uses("Process.is_alive", "Process.exitcode", "Process.sentinel", "Process.close", "Process.run")
def _() -> None:
    entered, leave = multiprocessing.Event(), multiprocessing.Event()
    process = begin(child.gate, entered, leave)
    assert process.is_alive()
    assert connection.wait([process.sentinel], 0) == []
    leave.set()
    assert connection.wait([process.sentinel]) == [process.sentinel]
    end(process)
    assert not process.is_alive()
    process.close()
    with pytest.raises(ValueError, match="closed"):
        process.is_alive()
    results: Any = multiprocessing.SimpleQueue()
    adder = child.Adder(results, 1, 2, 3)
    adder.start()
    assert results.get() == 6
    end(adder)
    assert (adder.name, adder.daemon) == ("adder", True)


@uses("Process.terminate", "Process.kill")
def _() -> None:
    for stop, number in [("terminate", signal.SIGTERM), ("kill", signal.SIGKILL)]:
        entered, leave = multiprocessing.Event(), multiprocessing.Event()
        process = begin(child.gate, entered, leave)
        entered.wait()
        getattr(process, stop)()
        process.join()
        assert process.exitcode == -number


@uses("current_process", "parent_process", "active_children", "cpu_count", "Process.authkey")
def _() -> None:
    assert multiprocessing.parent_process() is None
    entered, leave = multiprocessing.Event(), multiprocessing.Event()
    process = begin(child.gate, entered, leave)
    assert process in multiprocessing.active_children()
    leave.set()
    end(process)
    assert process not in multiprocessing.active_children()
    facts = in_child(child.facts)
    me = multiprocessing.current_process()
    assert facts["pid"] != facts["parent"] == os.getpid() == me.pid
    assert facts["authkey"] == me.authkey
    assert facts["children"] == []
    assert facts["processors"] == multiprocessing.cpu_count() == os.cpu_count()


@uses("get_start_method", "set_start_method", "get_context", "get_all_start_methods")
def _() -> None:
    assert in_child(child.facts)["method"] == multiprocessing.get_start_method() == "dragon"
    assert multiprocessing.get_context() is multiprocessing.get_context("dragon")
    assert {"fork", "spawn", "forkserver"} <= set(multiprocessing.get_all_start_methods())
    with pytest.raises(RuntimeError):
        multiprocessing.set_start_method("dragon")


@uses("freeze_support", "set_executable", "set_forkserver_preload", "allow_connection_pickling")
def _() -> None:
    multiprocessing.freeze_support()
    multiprocessing.allow_connection_pickling()
    multiprocessing.set_executable(sys.executable)
    multiprocessing.set_forkserver_preload(["documented_children"])
    assert in_child(child.double, 4) == 8


@uses("ProcessError", "BufferTooShort", "AuthenticationError", "TimeoutError")
def _() -> None:
    for error in ["BufferTooShort", "AuthenticationError", "TimeoutError"]:
        assert issubclass(getattr(multiprocessing, error), multiprocessing.ProcessError)
    with multiprocessing.Pool(1) as pool, pytest.raises(multiprocessing.TimeoutError):
        pool.apply_async(signal.pause).get(0)


# ---- pools ----


@uses("Pool", "pool.Pool", "Pool.apply", "Pool.map", "Pool.starmap", "Pool.imap")
def _() -> None:
    with multiprocessing.Pool(2, maxtasksperchild=50) as pool:
        assert isinstance(pool, multiprocessing.pool.Pool)
        assert pool.apply(child.add, (1,), {"y": 2}) == 3
        assert pool.map(child.double, range(5), chunksize=2) == [0, 2, 4, 6, 8]
        assert pool.starmap(child.add, [(1, 2), (3, 4)]) == [3, 7]
        assert list(pool.imap(child.double, range(3))) == [0, 2, 4]
        assert sorted(pool.imap_unordered(child.double, range(3), 2)) == [0, 2, 4]


@uses("Pool.apply_async", "Pool.map_async", "Pool.starmap_async", "Pool.imap_unordered")
def _() -> None:
    called: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with multiprocessing.Pool(2) as pool:
        assert pool.apply_async(child.double, (3,), callback=called.put).get(20) == 6
        assert called.get(timeout=20) == 6
        failed = pool.apply_async(child.double, (), error_callback=called.put)
        assert isinstance(called.get(timeout=20), TypeError)
        assert not failed.successful()
        assert pool.map_async(child.double, [1, 2]).get(20) == [2, 4]
        assert pool.starmap_async(child.add, [(1, 2)]).get(20) == [3]


@uses("Pool.close", "Pool.join", "Pool.terminate", "pool.AsyncResult")
def _() -> None:
    pool = multiprocessing.Pool(1)
    result = pool.apply_async(child.double, (2,))
    assert isinstance(result, multiprocessing.pool.AsyncResult)
    pool.close()
    pool.join()
    result.wait()
    assert result.ready()
    assert result.successful()
    with pytest.raises(ValueError, match="not running"):
        pool.apply(child.double, (1,))
    pool = multiprocessing.Pool(1)
    pool.apply_async(signal.pause)
    pool.terminate()
    pool.join()


@uses("pool.ThreadPool")
def _() -> None:
    with multiprocessing.pool.ThreadPool(2) as pool:
        assert pool.map(in_child, [os.getpid]) != [os.getpid()]


# ---- queues and pipes ----


@uses("Queue", "Queue.put", "Queue.get", "Queue.qsize", "Queue.empty", "Queue.full", "Queue.close")
def _() -> None:
    q: Any = multiprocessing.Queue(2)
    assert isinstance(q, multiprocessing.queues.Queue)
    end(begin(q.put, "from the child"))
    q.put_nowait(2)
    assert (q.qsize(), q.full(), q.empty()) == (2, True, False)
    with pytest.raises(queue.Full):
        q.put(3, timeout=0.01)
    assert (q.get(timeout=20), q.get_nowait()) == ("from the child", 2)
    with pytest.raises(queue.Empty):
        q.get(block=False)
    q.close()
    q.join_thread()


@uses("Queue.join_thread", "Queue.cancel_join_thread", "Queue.put_nowait", "Queue.get_nowait")
def _() -> None:
    q: Any = multiprocessing.Queue()
    q.cancel_join_thread()
    q.put_nowait("not lost")
    assert in_child(q.get_nowait) == "not lost"
    q.close()
    q.join_thread()
    with pytest.raises(ValueError, match="closed"):
        q.put(1)


@uses("SimpleQueue", "SimpleQueue.put", "SimpleQueue.get", "SimpleQueue.empty")
def _() -> None:
    q: Any = multiprocessing.SimpleQueue()
    assert q.empty()
    end(begin(q.put, [1, 2]))
    assert not q.empty()
    assert q.get() == [1, 2]
    q.close()


@uses("JoinableQueue", "JoinableQueue.task_done", "JoinableQueue.join")
def _() -> None:
    q: Any = multiprocessing.JoinableQueue()
    for item in "abc":
        q.put(item)
    taken = begin_report(child.take_all, q)
    q.join()
    assert taken() == ["a", "b", "c"]
    with pytest.raises(ValueError, match="task_done"):
        q.task_done()


@uses("Pipe", "connection.Connection", "Connection.send", "Connection.recv", "Connection.poll")
def _() -> None:
    ours, theirs = multiprocessing.Pipe()
    process = begin(child.echo, theirs)
    theirs.close()
    items: list[Any] = ["word", [1], b"bytes"]
    for item in items:
        ours.send(item)
        assert ours.poll(20)
        assert ours.recv() == item * 2
    ours.close()
    end(process)
    reader, writer = multiprocessing.Pipe(duplex=False)
    assert (reader.readable, reader.writable) == (writer.writable, writer.readable) == (True, False)
    end(begin(writer.send, "one way"))
    assert reader.recv() == "one way"
    writer.close()
    with pytest.raises(EOFError):
        reader.recv()


@uses("Connection.send_bytes", "Connection.recv_bytes", "Connection.recv_bytes_into")
def _() -> None:
    with multiprocessing.Pipe()[0] as closed:
        pass
    with pytest.raises(OSError, match="closed"):
        closed.send_bytes(b"")
    ours, theirs = multiprocessing.Pipe()
    result = begin_report(child.bytes_from, theirs)
    ours.send_bytes(b"first")
    ours.send_bytes(b"a second one", 2, 6)
    ours.send_bytes(b"too long")
    assert result() == (b"first", b"second", 8)


@uses("Connection.fileno", "Connection.close", "Connection.closed")
def _() -> None:
    ours, theirs = multiprocessing.Pipe()
    process = begin(theirs.send, 1)
    assert select.select([ours.fileno()], [], [], 20)[0] == [ours.fileno()]
    end(process)
    assert not ours.closed
    ours.close()
    assert ours.closed
    with pytest.raises(OSError, match="closed"):
        ours.fileno()


@uses("connection.wait")
def _() -> None:
    pipe_end, theirs = multiprocessing.Pipe()
    q: Any = multiprocessing.Queue()
    sock, peer = socket.socketpair()
    read_fd, write_fd = os.pipe()
    entered, leave = multiprocessing.Event(), multiprocessing.Event()
    process = begin(child.gate, entered, leave)
    everything = [pipe_end, q._reader, sock, read_fd, process.sentinel]  # type: ignore[attr-defined]
    assert connection.wait(everything, 0) == []

    def ready() -> list[Any]:
        return [one for one in everything if one in connection.wait(everything, 20)]

    senders = [
        (pipe_end, lambda: end(begin(theirs.send, 1))),
        (everything[1], lambda: end(begin(q.put, 1))),
        (sock, lambda: peer.send(b"x")),
        (read_fd, lambda: os.write(write_fd, b"x")),
        (process.sentinel, lambda: (leave.set(), process.join())),
    ]
    for i, (_, send) in enumerate(senders, 1):
        send()
        assert ready() == everything[:i]
    for fd in (read_fd, write_fd):
        os.close(fd)
    sock.close()
    peer.close()


@uses("connection.Listener", "connection.Client", "Listener.accept", "Listener.close")
def _() -> None:
    for family in ["AF_UNIX", "AF_INET"]:
        with connection.Listener(family=family, authkey=b"key") as listener:
            result = begin_report(child.connect, listener.address, b"key")
            with listener.accept() as accepted:
                assert accepted.recv() == "hello"
                accepted.send("welcome")
            assert result() == "welcome"
            if family == "AF_INET":
                assert listener.last_accepted[0] == "127.0.0.1"  # type: ignore[index]


@uses("Listener.last_accepted", "connection.deliver_challenge", "connection.answer_challenge")
def _() -> None:
    with connection.Listener(authkey=b"right") as listener:
        result = begin_report(child.connect_with_wrong_key, listener.address)
        with pytest.raises(multiprocessing.AuthenticationError):
            listener.accept()
        assert result() != "let in"
    a, b = multiprocessing.Pipe()
    process = begin(connection.answer_challenge, b, b"key")  # type: ignore[attr-defined]
    connection.deliver_challenge(a, b"key")  # type: ignore[attr-defined]
    end(process)


# ---- synchronization ----


def use_lock(lock: Any) -> None:
    assert in_child(child.hold, lock) == (True, True)
    with lock:
        result = begin_report(child.hold, lock)
    assert result()[1]


@uses("Lock", "Lock.acquire", "Lock.release")
def _() -> None:
    lock = multiprocessing.Lock()
    use_lock(lock)
    with pytest.raises(ValueError, match="released too many times"):
        lock.release()


@uses("RLock", "RLock.acquire", "RLock.release")
def _() -> None:
    lock = multiprocessing.RLock()
    use_lock(lock)
    with lock, lock:
        assert not lock.acquire(block=False) or lock.release() is None
    with pytest.raises(AssertionError):
        lock.release()


@uses("Semaphore", "BoundedSemaphore")
def _() -> None:
    for semaphore in (multiprocessing.Semaphore(2), multiprocessing.BoundedSemaphore(2)):
        assert semaphore.acquire()
        assert semaphore.get_value() == 1
        use_lock(semaphore)
        semaphore.release()
    with pytest.raises(ValueError, match="released too many times"):
        semaphore.release()


@uses(
    "Condition", "Condition.wait", "Condition.wait_for", "Condition.notify", "Condition.notify_all"
)
def _() -> None:
    for notify in ("notify", "notify_all"):
        condition, ready = multiprocessing.Condition(), multiprocessing.Event()
        words = multiprocessing.Value("i", 0, lock=False)
        result = begin_report(child.wait_for_word, condition, words, ready)
        ready.wait()
        with condition:
            words.value = 5
            getattr(condition, notify)()
            assert condition.wait(0) is False
        assert result() == 5


@uses("Event", "Event.set", "Event.clear", "Event.wait", "Event.is_set")
def _() -> None:
    event = multiprocessing.Event()
    assert not event.wait(0)
    end(begin(event.set))
    assert event.is_set()
    assert event.wait()
    event.clear()
    assert not event.is_set()


@uses("Barrier", "Barrier.wait", "Barrier.abort", "Barrier.reset", "Barrier.parties")
def _() -> None:
    barrier = multiprocessing.Barrier(2, timeout=20)
    result = begin_report(child.come, barrier)
    assert {barrier.wait(), result()} == {0, 1}
    assert (barrier.parties, barrier.n_waiting, barrier.broken) == (2, 0, False)
    end(begin(barrier.abort))
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait()
    barrier.reset()
    assert not barrier.broken


# ---- shared values ----


@uses("Value", "Array", "RawValue", "RawArray", "sharedctypes.RawValue", "sharedctypes.RawArray")
def _() -> None:
    value, array = multiprocessing.Value("i", 1), multiprocessing.Array("i", range(5))
    raw_value, raw_array = multiprocessing.RawValue("d", 1.5), multiprocessing.RawArray("c", b"abc")
    point = multiprocessing.sharedctypes.RawValue(child.Point, 1, 2)
    changed = in_child(child.change_values, value, array, raw_value, raw_array, point)
    assert changed == ([0, 7, 8, 3, 4], 3)
    assert (value.value, array[:], raw_value.value) == (2, [0, 7, 8, 3, 4], 2.5)
    assert (raw_array.raw, point.x, point.y) == (b"zbc", 3, 4.5)
    assert len(multiprocessing.sharedctypes.RawArray(child.Point, 3)) == 3


@uses("sharedctypes.Value", "sharedctypes.Array", "sharedctypes.copy", "sharedctypes.synchronized")
def _() -> None:
    types = multiprocessing.sharedctypes
    value = types.Value("i", 1, lock=True)
    array = types.Array("i", [1, 2, 3, 4, 5], lock=multiprocessing.RLock())
    point = types.synchronized(types.RawValue(child.Point, 1, 2))
    copied = types.copy(point.get_obj())
    raw = types.RawValue("d"), types.RawArray("c", 3)
    in_child(child.change_values, value, array, *raw, point)
    with point.get_lock(), array.get_lock():
        assert (value.value, array[1], point.x, copied.x) == (2, 7, 3, 1)


# ---- managers ----


@uses("Manager", "managers.SyncManager", "managers.Namespace", "managers.BaseProxy")
def _() -> None:
    with multiprocessing.Manager() as manager:
        assert isinstance(manager, multiprocessing.managers.SyncManager)
        shared: dict[str, Any] = {
            "dict": manager.dict(),
            "list": manager.list([1]),
            "namespace": manager.Namespace(),
            "value": manager.Value("i", 0),
            "array": manager.Array("i", [1, 2]),
            "queue": manager.Queue(),
            "event": manager.Event(),
            "lock": manager.Lock(),
            "condition": manager.Condition(),
            "nested": manager.list([manager.list()]),
        }
        in_child(child.change_managed, shared)
        assert dict(shared["dict"]) == {"key": [1]}
        assert (list(shared["list"]), shared["namespace"].x) == ([1, "item"], 5)
        assert (shared["value"].value, list(shared["array"])) == (6, [9, 2])
        assert (shared["queue"].get(), shared["event"].is_set()) == ("queued", True)
        assert shared["nested"][0][:] == ["deep"]
        assert isinstance(shared["dict"], multiprocessing.managers.BaseProxy)
        with manager.RLock(), manager.Semaphore(1), manager.BoundedSemaphore(1):
            assert manager.Barrier(1).wait() == 0
        with manager.Pool(1) as pool:
            assert pool.map(child.double, [1]) == [2]


@uses("managers.BaseManager", "BaseManager.register", "BaseManager.start", "BaseManager.shutdown")
def _() -> None:
    manager = child.StoreManager()
    manager.start()
    store = manager.Store(10)  # type: ignore[attr-defined]
    assert in_child(child.add_through, store, 5) == 15
    assert store.add(1) == 16
    manager.shutdown()


@uses("BaseManager.get_server", "BaseManager.connect", "BaseManager.address")
def _() -> None:
    addresses: Any = multiprocessing.SimpleQueue()
    server = begin(child.serve, addresses)
    address = addresses.get()
    assert in_child(child.add_remotely, address, 5) == 105
    assert child.add_remotely(address, 1) == 106
    server.terminate()
    server.join()


@uses("shared_memory.SharedMemory", "shared_memory.ShareableList")
def _() -> None:
    memory: Any = shared_memory.SharedMemory(create=True, size=100)
    try:
        assert in_child(child.write_shared, memory.name) >= 100
        assert memory.buf[1] == 42
    finally:
        memory.close()
        memory.unlink()
    make_list: Any = shared_memory.ShareableList
    shared_list = make_list(["long enough", 1, None, b"b", 2.5])
    try:
        assert in_child(child.change_list, shared_list) == ["changed", 1, None, b"b", 2.5]
        assert shared_list[0] == "changed"
    finally:
        shared_list.shm.close()
        shared_list.shm.unlink()


@uses("managers.SharedMemoryManager")
def _() -> None:
    with multiprocessing.managers.SharedMemoryManager() as manager:
        memory: Any = manager.SharedMemory(50)
        assert in_child(child.write_shared, memory.name) >= 50
        assert memory.buf[1] == 42
        assert in_child(child.change_list, manager.ShareableList(["a word"]))[0] == "changed"


# ---- what lies below ----


@uses("heap.BufferWrapper", "heap.Arena")
def _() -> None:
    buffer = multiprocessing.heap.BufferWrapper(16)
    results: Any = multiprocessing.SimpleQueue()
    end(begin(child.report, results, child.write_buffer, (buffer,)))
    assert results.get() == (True, 16)
    assert buffer.create_memoryview()[3] == 33
    arena = multiprocessing.heap.Arena(4096)
    end(begin(child.report, results, child.write_arena, (arena,)))
    assert results.get() == (True, 4096)
    assert arena.buffer[5] == 55


@uses("reduction.DupFd", "reduction.send_handle", "reduction.recv_handle")
def _() -> None:
    read_fd, write_fd = os.pipe()
    ours, theirs = multiprocessing.Pipe()
    end(begin(child.write_to_fd, _Carrier(write_fd)))
    assert os.read(read_fd, 100) == b"through DupFd"
    process = begin(child.write_to_handle, theirs)
    reduction.send_handle(ours, write_fd, process.pid)
    end(process)
    assert os.read(read_fd, 100) == b"through the handle"
    os.close(read_fd)
    os.close(write_fd)


class _Carrier:
    """In the arguments of a process: a DupFd of a descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> Any:
        return _same, (reduction.DupFd(self.fd),)  # type: ignore[attr-defined]


def _same(x: Any) -> Any:
    return x


@uses("reduction.ForkingPickler", "connections and sockets in messages and arguments")
def _() -> None:
    ours, theirs = multiprocessing.Pipe()
    inner, their_inner = multiprocessing.Pipe()
    sock, their_sock = socket.socketpair()
    process = begin(child.use_received, theirs)
    ours.send(their_inner)
    ours.send(their_sock)
    assert inner.recv() == "on the connection"
    assert sock.recv(100) == b"on the socket"
    end(process)
    sock.send(b"in the arguments")
    result = begin_report(child.read_socket, their_sock)
    assert result() == b"in the arguments"
    sock.close()
    their_sock.close()
    pickled = reduction.ForkingPickler.dumps([1, "two"])
    assert in_child(reduction.ForkingPickler.loads, bytes(pickled)) == [1, "two"]


@uses("get_logger", "log_to_stderr")
def _() -> None:
    logger = multiprocessing.get_logger()
    before = logger.level, list(logger.handlers)
    try:
        assert multiprocessing.log_to_stderr(logging.INFO) is logger
        assert in_child(child.log, logging.INFO) == logging.INFO
        assert in_child(child.handlers) == 1
    finally:
        logger.setLevel(before[0])
        logger.handlers[:] = before[1]
        multiprocessing.util._log_to_stderr = False  # type: ignore[attr-defined]


@uses("dummy")
def _() -> None:
    dummy = multiprocessing.dummy
    q: Any = dummy.Queue()
    thread = dummy.Process(target=lambda: q.put(in_child(os.getpid)))
    thread.start()
    thread.join()
    assert q.get() != os.getpid()
    with dummy.Pool(2) as pool:
        assert pool.map(abs, [-1]) == [1]


@uses("resource_tracker")
def _() -> None:
    resource_tracker.ensure_running()
    _, is_alive = in_child(child.tracker_state)
    assert is_alive
    tracker = resource_tracker._resource_tracker  # type: ignore[attr-defined]
    assert tracker._check_alive()


# ---- the tests ----

#: Public by the modules' `__all__`, and no part of the documentation.
UNDOCUMENTED = {"reducer", "Token"}


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(f, id=" ".join(n for n in USES if USES[n] is f))
        for f in dict.fromkeys(USES.values())
    ],
)
def test_documented_names_work(use: Callable[[], None]) -> None:
    use()


MODULES = ["connection", "heap", "managers", "pool", "queues", "shared_memory", "sharedctypes"]


@pytest.mark.parametrize("module", ["", *MODULES])
def test_every_public_name_is_used(module: str) -> None:
    name = f"multiprocessing.{module}".rstrip(".")
    used = {name.removeprefix(f"{module}.") for name in USES}
    assert set(importlib.import_module(name).__all__) - used <= UNDOCUMENTED
