"""What the children of test_documented_names.py run. Imports no pytest, so that they start fast."""

import ctypes
import logging
import multiprocessing
import multiprocessing.managers
import os
import socket
from collections.abc import Callable
from multiprocessing import connection, reduction, resource_tracker, shared_memory
from typing import Any


def report(results: Any, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Send back what function returns, or what it raises."""
    try:
        results.put((True, function(*args)))
    except Exception as error:  # noqa: BLE001  # the test raises it
        results.put((False, f"{type(error).__name__}: {error}"))


def gate(entered: Any, leave: Any) -> None:
    entered.set()
    leave.wait()


def facts() -> dict[str, Any]:
    me, parent = multiprocessing.current_process(), multiprocessing.parent_process()
    return {
        "pid": os.getpid(),
        "name": me.name,
        "daemon": me.daemon,
        "authkey": bytes(me.authkey),
        "parent": None if parent is None else parent.pid,
        "children": multiprocessing.active_children(),
        "method": multiprocessing.get_start_method(),
        "processors": multiprocessing.cpu_count(),
    }


class Adder(multiprocessing.Process):
    def __init__(self, results: Any, *numbers: int) -> None:
        super().__init__(name="adder", daemon=True)
        self.results = results
        self.numbers = numbers

    def run(self) -> None:
        self.results.put(sum(self.numbers))


def double(x: int) -> int:
    return 2 * x


def add(x: int, y: int) -> int:
    return x + y


def echo(end: Any) -> None:
    """Send back what comes, doubled; bytes as bytes."""
    while end.poll(None):
        try:
            end.send(end.recv() * 2)
        except EOFError:
            return


def take_all(q: Any) -> list[Any]:
    taken = []
    for _ in range(3):
        taken.append(q.get(timeout=20))
        q.task_done()
    return taken


def bytes_from(end: Any) -> tuple[bytes, bytes, int]:
    buffer = bytearray(16)
    first = end.recv_bytes()
    n = end.recv_bytes_into(buffer, 2)
    try:
        end.recv_bytes_into(bytearray(1))
    except multiprocessing.BufferTooShort as error:
        return first, bytes(buffer[2 : 2 + n]), len(error.args[0])
    raise AssertionError("the buffer was too short")


def put_later(q: Any, go: Any) -> None:
    go.wait()
    q.put("late")


def connect(address: Any, authkey: bytes) -> Any:
    with connection.Client(address, authkey=authkey) as client:
        client.send("hello")
        return client.recv()


def connect_with_wrong_key(address: Any) -> str:
    try:
        connection.Client(address, authkey=b"wrong")
    except multiprocessing.AuthenticationError as error:
        return str(error)
    return "let in"


def hold(lock: Any) -> tuple[bool, bool]:
    """Whether the lock is free, and whether it can be had."""
    free = lock.acquire(block=False)
    had = free or lock.acquire(timeout=20)
    lock.release()
    return free, had


def wait_for_word(condition: Any, words: Any, ready: Any) -> int:
    with condition:
        ready.set()
        assert condition.wait_for(lambda: words.value == 5, 20)
        return int(words.value)


def come(barrier: Any) -> int:
    return int(barrier.wait(20))


class Point(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int), ("y", ctypes.c_double))


def change_values(value: Any, array: Any, raw_value: Any, raw_array: Any, point: Any) -> Any:
    with value.get_lock():
        value.value += 1
    array[1:3] = [7, 8]
    raw_value.value = 2.5
    raw_array[0] = b"z"
    point.x, point.y = 3, 4.5
    return array[:], point.x


def change_managed(shared: Any) -> None:
    shared["dict"]["key"] = [1]
    shared["list"].append("item")
    shared["namespace"].x = 5
    shared["value"].value = 6
    shared["array"][0] = 9
    shared["queue"].put("queued")
    shared["event"].set()
    with shared["lock"], shared["condition"]:
        shared["condition"].notify_all()
    shared["nested"][0].append("deep")


class Store:
    """What custom managers serve."""

    def __init__(self, start: int) -> None:
        self.total = start

    def add(self, n: int) -> int:
        self.total += n
        return self.total


class StoreManager(multiprocessing.managers.BaseManager):
    pass


StoreManager.register("Store", Store)

_store = Store(100)


def the_store() -> Store:
    return _store


class ServedManager(multiprocessing.managers.BaseManager):
    pass


ServedManager.register("the_store", the_store)


def serve(addresses: Any) -> None:
    server = ServedManager(("127.0.0.1", 0), b"key").get_server()
    addresses.put(server.address)
    server.serve_forever()


def add_remotely(address: Any, n: int) -> int:
    manager = ServedManager(address, b"key")
    manager.connect()
    return int(manager.the_store().add(n))  # type: ignore[attr-defined]


def add_through(proxy: Any, n: int) -> int:
    return int(proxy.add(n))


def write_shared(name: str) -> int:
    memory: Any = shared_memory.SharedMemory(name)
    memory.buf[1] = 42
    memory.close()
    return int(memory.size)


def change_list(shared_list: Any) -> list[Any]:
    shared_list[0] = "changed"
    return list(shared_list)


def write_buffer(buffer: Any) -> int:
    view = buffer.create_memoryview()
    view[3] = 33
    return len(view)


def write_arena(arena: Any) -> int:
    arena.buffer[5] = 55
    return int(arena.size)


def write_to_fd(dup: Any) -> None:
    fd = dup.detach()
    os.write(fd, b"through DupFd")
    os.close(fd)


def write_to_handle(end: Any) -> None:
    fd = reduction.recv_handle(end)
    os.write(fd, b"through the handle")
    os.close(fd)


def use_received(end: Any) -> None:
    """Receive a connection and a socket, and send on both."""
    inner, sock = end.recv(), end.recv()
    inner.send("on the connection")
    with sock:
        sock.sendall(b"on the socket")
    inner.close()


def read_socket(sock: socket.socket) -> bytes:
    with sock:
        return sock.recv(100)


def log(level: int) -> int:
    logger = multiprocessing.get_logger()
    logger.log(level, "from the child")
    return logger.level


def handlers() -> int:
    return len(logging.getLogger("multiprocessing").handlers)


def tracker_state() -> tuple[Any, bool]:
    tracker = resource_tracker._resource_tracker  # type: ignore[attr-defined]
    resource_tracker.ensure_running()
    return tracker._fd, tracker._check_alive()
