"""What the programs of test_limits.py share; imported by them, and by their children."""

import os
from collections.abc import Callable
from multiprocessing import connection, shared_memory
from typing import Any

MIB = 1 << 20


def attempt(do: Callable[[], Any]) -> Any:
    """What it returns; or the text of a documented error of want, never of anything else."""
    try:
        return do()
    except (MemoryError, OSError, EOFError) as error:
        return f"{type(error).__name__}: {error}"


def nothing() -> None:
    """Return."""


def put_bytes(queue: Any, size: int) -> None:
    """Put so many bytes."""
    queue.put(b"x" * size)


def put_until_full(queue: Any, size: int) -> None:
    """Put until the pool is full, then that error's text; end as if nothing had happened."""
    try:
        while True:
            queue.put(b"x" * size)
    except MemoryError as error:
        queue.put(str(error))


def put_under_locks(queues: list[Any], locks: list[Any], number: int) -> None:
    """Put the number into each queue while holding the lock of the same index."""
    for queue, lock in zip(queues, locks, strict=True):
        with lock:
            queue.put(number)


def take_all(queue: Any) -> list[Any]:
    """What is in the queue."""
    items = []
    while not queue.empty():
        items.append(queue.get())
    return items


def exit_code(context: Any, target: Callable[..., Any] = nothing, args: Any = ()) -> int | None:
    """Of a process that does that."""
    process = context.Process(target=target, args=args)
    process.start()
    process.join()
    code: int | None = process.exitcode
    return code


def mapped(context: Any) -> list[int]:
    """What a pool makes of some numbers."""
    with context.Pool(2) as pool:
        numbers: list[int] = pool.map(abs, [-1, -2, -3])
    return numbers


def managed(context: Any) -> dict[str, int]:
    """A dict that was in a manager."""
    with context.Manager() as manager:
        shared = manager.dict(a=1)
        return dict(shared)


def listened(context: Any) -> str:
    """A message of a child through a Listener."""
    with connection.Listener(family="AF_UNIX", authkey=b"key") as listener:
        process = context.Process(target=say_hello, args=(listener.address,))
        process.start()
        with listener.accept() as line:
            text: str = line.recv()
        process.join()
    return text


def say_hello(address: Any) -> None:
    """Say it to a Listener."""
    with connection.Client(address, authkey=b"key") as line:
        line.send("hello")


def left() -> list[str]:
    """Names in /dev/shm, which is the program's own in some tests."""
    return os.listdir("/dev/shm")


def fill_shared_memory(name: str) -> None:
    """Write into all of it."""
    block: Any = shared_memory.SharedMemory(name)
    block.buf[:] = b"y" * block.size
    block.close()
