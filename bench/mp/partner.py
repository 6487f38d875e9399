"""A child that does what it is asked to, so that starting it is in no measurement."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from typing import Any, cast

Objects = dict[str, Any]


def _echo(objects: Objects, source: str, target: str) -> None:
    """Send back what comes, until None comes."""
    receive, send = objects[source].recv, objects[target].send
    while (message := receive()) is not None:
        send(message)


def _swallow(objects: Objects, source: str, n: int, answers: str) -> None:
    receive = objects[source].recv
    for _ in range(n):
        receive()
    objects[answers].send(None)


def _queue_echo(objects: Objects, source: str, target: str) -> None:
    get, put = objects[source].get, objects[target].put
    while (message := get()) is not None:
        put(message)


def _get(objects: Objects, queue: str, n: int) -> None:
    get = objects[queue].get
    for _ in range(n):
        get()


def _put(objects: Objects, queue: str, n: int, kind: Any) -> None:
    put, message = objects[queue].put, payload(kind)
    for _ in range(n):
        put(message)


def _lock(objects: Objects, lock: str, n: int) -> None:
    acquire, release = objects[lock].acquire, objects[lock].release
    for _ in range(n):
        acquire()
        release()


def _semaphores(objects: Objects, ping: str, pong: str, n: int) -> None:
    acquire, release = objects[ping].acquire, objects[pong].release
    for _ in range(n):
        acquire()
        release()


def _events(objects: Objects, ping: str, pong: str, n: int) -> None:
    mine, theirs = objects[ping], objects[pong]
    for _ in range(n):
        mine.wait()
        mine.clear()
        theirs.set()


def _condition(objects: Objects, condition: str, value: str, n: int) -> None:
    changed, turn = objects[condition], objects[value]
    for _ in range(n):
        with changed:
            while turn.value != 1:
                changed.wait()
            turn.value = 0
            changed.notify()


def _barrier(objects: Objects, barrier: str, n: int) -> None:
    wait = objects[barrier].wait
    for _ in range(n):
        wait()


def _wait_and_answer(objects: Objects, n_connections: int, answers: str) -> None:
    """Wait for many connections at once; answer what comes, until None comes."""
    from multiprocessing.connection import wait

    connections = [objects[f"source{i}"] for i in range(n_connections)]
    while True:
        for connection in cast("list[Any]", wait(connections)):
            if connection.recv() is None:
                return
            objects[answers].send(None)


def _add(objects: Objects, value: str, n: int) -> None:
    shared = objects[value]
    for _ in range(n):
        with shared.get_lock():
            shared.value += 1


_TASKS: dict[str, Callable[..., None]] = {
    "echo": _echo,
    "swallow": _swallow,
    "queue echo": _queue_echo,
    "get": _get,
    "put": _put,
    "lock": _lock,
    "semaphores": _semaphores,
    "events": _events,
    "condition": _condition,
    "barrier": _barrier,
    "wait": _wait_and_answer,
    "add": _add,
}


def serve(requests: Any, objects: Objects, core: int | None) -> None:
    """What the child runs."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    requests.send(None)
    while (request := requests.recv()) is not None:
        name, *arguments = request
        try:
            _TASKS[name](objects, *arguments)
        except BaseException:
            requests.send(traceback.format_exc())
            raise
        requests.send(None)


class Partner:
    """The child, and what it shares with this process."""

    #: Where partners run, in turns; none: anywhere.
    cores: list[int] = []  # noqa: RUF012 # it is set for the whole program
    _n_made = 0

    def __init__(self, context: Any, **objects: Any) -> None:
        self._requests, theirs = context.Pipe()
        core = None
        if Partner.cores:
            core = Partner.cores[Partner._n_made % len(Partner.cores)]
            Partner._n_made += 1
        self._process = context.Process(target=serve, args=(theirs, objects, core), daemon=True)
        self._process.start()
        theirs.close()
        self.join()

    def begin(self, name: str, *arguments: Any) -> None:
        """Have it begin with a task."""
        self._requests.send((name, *arguments))

    def join(self) -> None:
        """Wait until the task is done."""
        trouble = self._requests.recv()
        if trouble:
            raise RuntimeError(trouble)

    def close(self) -> None:
        """Let it end."""
        self._requests.send(None)
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._requests.close()


#: Messages: "int", "dict", a number of bytes, or ("numpy", bytes).
Kind = str | int | tuple[str, int]

KIB, MIB = 1 << 10, 1 << 20


def payload(kind: Kind) -> Any:
    """Make a message of that kind."""
    if kind == "int":
        return 7
    if kind == "dict":
        return {f"key{i}": i for i in range(10)}
    if isinstance(kind, tuple):
        import numpy

        return numpy.arange(kind[1] // 8, dtype="f8")
    assert isinstance(kind, int)
    return b"\xa5" * kind


def size_of(kind: Kind) -> int:
    """Its bytes; 0: it is an object, of which the number counts."""
    return kind if isinstance(kind, int) else kind[1] if isinstance(kind, tuple) else 0


def name_of(kind: Kind) -> str:
    """How the names of measurements call it."""
    if isinstance(kind, tuple):
        return f"numpy.{_bytes(kind[1])}"
    return _bytes(kind) if isinstance(kind, int) else kind


def _bytes(n: int) -> str:
    if n >= MIB and n % MIB == 0:
        return f"{n // MIB}M"
    return f"{n // KIB}K" if n >= KIB and n % KIB == 0 else f"{n}B"


def with_numpy(kinds: list[Kind]) -> list[Kind]:
    """Those that can be made here."""
    try:
        import numpy  # noqa: F401
    except ImportError:
        return [kind for kind in kinds if not isinstance(kind, tuple)]
    return kinds
