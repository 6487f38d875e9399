"""What started processes run in these tests. Imports no pytest, so that they start fast."""

import multiprocessing
import multiprocessing.connection
import multiprocessing.queues
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

from dragon_overlay.process import DragonProcess
from dragon_overlay.queues import Queue


@dataclass
class Point:
    x: int
    y: int


class Count(int):
    """An int of another type."""


class Word(str):
    """A str of another type."""


class Pair(tuple[Any, ...]):
    """A tuple of another type."""


class Refuses:
    """Cannot be pickled."""

    def __reduce__(self) -> Any:
        raise ArithmeticError("refuses to be pickled")


class RefusesToArrive:
    """Can be pickled and not unpickled."""

    def __reduce__(self) -> Any:
        return _refuse, ()


def _refuse() -> None:
    raise ArithmeticError("refuses to arrive")


class PutsWhilePickled:
    """Its pickling puts something into a queue."""

    def __init__(self, target: Any) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        self.target.put(["from within"])
        return str, ("outer",)


class Registered:
    """Pickled by what is registered with ForkingPickler."""


def echo(inbox: Any, outbox: Any) -> None:
    """Send back all that comes, up to None."""
    for item in iter(inbox.get, None):
        outbox.put(item)


def describe(inbox: Any, outbox: Any) -> None:
    """Say type, sum and writability of one array, having written into it."""
    array = inbox.get()
    total = float(array.sum())
    array[...] = -1
    outbox.put((type(array).__name__, total, str(array.dtype)))


def put_all(target: Any, items: Any) -> None:
    for item in items:
        target.put(item)


def become_a_daemon(results: Any) -> None:
    """End at once and leave a copy, which uses objects from before the fork."""
    context = multiprocessing.get_context("dragon")
    locks = [context.Lock() for _ in range(50)]
    if os.fork():
        return
    status = 1
    try:
        results.put(locks[-1].acquire(block=False))
        status = 0
    finally:
        os._exit(status)


def put_range(target: Any, name: str, n: int) -> None:
    for i in range(n):
        target.put((name, i))


def add_up(source: Any, results: Any) -> None:
    results.put(sum(iter(source.get, None)))


def get_one(source: Any, results: Any | None = None) -> None:
    item = source.get()
    if results is not None:
        results.put(item)


def do_tasks(tasks: Any, done: Any) -> None:
    for item in iter(tasks.get, None):
        done.put(item)
        tasks.task_done()
    tasks.task_done()


def set_event_of(inbox: Any) -> None:
    inbox.get().set()


def hold_lock_of(inbox: Any, outbox: Any) -> None:
    lock = inbox.get()
    outbox.put(lock.acquire(block=False))


def put_into_queue_of(inbox: Any) -> None:
    inbox.get().put("through the inner queue")


def put_while_name_known(target: Any) -> None:
    target.put(target.label)


def report_facts(results: Any) -> None:
    """What a child finds around it."""
    me = multiprocessing.current_process()
    results.put(
        {
            "pid": os.getpid(),
            "ppid": os.getppid(),
            "name": me.name,
            "daemon": me.daemon,
            "parent": multiprocessing.parent_process().pid,  # type: ignore[union-attr]
            "cwd": os.getcwd(),
            "variable": os.environ.get("OVERLAY_TEST"),
            "method": multiprocessing.get_start_method(allow_none=True),
            "stdin": os.fstat(0).st_rdev == os.stat(os.devnull).st_rdev,
            "argv": sys.argv,
            "threads": threading.active_count(),
        }
    )


def return_nothing() -> None:
    pass


def exit_with(code: Any) -> None:
    sys.exit(code)


def raise_error() -> None:
    raise LookupError("the child's own error")


def die_of(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(60)


def exit_at_once(code: int) -> None:
    os._exit(code)


def wait_on(gate: Any) -> None:
    gate.wait()


def sleep_after(ready: Any) -> None:
    ready.put(os.getpid())
    time.sleep(60)


def put_keywords(results: Any, *args: Any, **kwargs: Any) -> None:
    results.put((args, kwargs))


def nest(method: str, depth: int, results: Any) -> None:
    """Start a chain of processes; each reports its depth."""
    results.put(depth)
    if depth > 0:
        child = multiprocessing.get_context(method).Process(
            target=nest, args=(method, depth - 1, results)
        )
        child.start()
        child.join()
        assert child.exitcode == 0


def start_sleeper(pids: Any) -> None:
    """Start a process that would outlive this one, tell its pid, and wait for it."""
    child = multiprocessing.get_context("dragon").Process(target=time.sleep, args=(60,))
    child.start()
    pids.put(child.pid)
    child.join()


def sum_of_squares(n: int) -> int:
    """Sum up in a pool of this process's own."""
    with multiprocessing.get_context("dragon").Pool(2) as pool:
        return sum(pool.map(square, range(n)))


def hold_array(inbox: Any, outbox: Any) -> None:
    """Keep a received array until killed."""
    array = inbox.get()
    outbox.put(array.nbytes)
    time.sleep(60)


def send_and_hold_arrays(outbox: Any, inbox: Any, ready: Any) -> None:
    """Send arrays, keep others that were sent and received, wait for the end."""
    import numpy  # not at the top: most children need no numpy

    for i in range(3):
        outbox.put(numpy.full(20_000, i))
    for _ in range(2):
        inbox.put(numpy.zeros(20_000))
    kept = [inbox.get(), inbox.get()]
    ready.set()
    assert inbox.get() == "end", kept


def put_for_ever(target: Any, started: Any) -> None:
    """Put numbers and arrays until killed."""
    import numpy  # not at the top: most children need no numpy, and it takes long to import

    array = numpy.ones(20_000)
    started.set()
    while True:
        target.put(1)
        target.put(array)


def get_for_ever(source: Any, started: Any) -> None:
    started.set()
    while True:
        source.get()


def put_when_told(gate: Any, target: Any, item: Any) -> None:
    gate.wait()
    target.put(item)


def count_if_ready(source: Any, results: Any) -> None:
    source._reader.fileno()
    results.put("polling")
    results.put(multiprocessing.connection.wait([source._reader], 20) == [source._reader])


def get_from_inner(inbox: Any, results: Any) -> None:
    results.put(inbox.get().get())


class Runs(DragonProcess):
    """A process with run() and attributes."""

    def __init__(self, results: Any, word: str) -> None:
        super().__init__()
        self.results = results
        self.word = word

    def run(self) -> None:
        self.results.put([self.word, self.name])


class Labelled(Queue):
    """A user's subclass."""

    def __init__(self, label: str, ctx: Any) -> None:
        super().__init__(ctx=ctx)
        self.label = label


class Counting(multiprocessing.queues.Queue):  # type: ignore[type-arg]
    """The well-known recipe: a subclass of the standard library's queue with its own state."""

    def __init__(self, ctx: Any) -> None:
        super().__init__(ctx=ctx)
        self.label = "kept by getstate"

    def __getstate__(self) -> Any:
        return super().__getstate__(), self.label

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state[0])
        self.label = state[1]


# ---- tasks for pools ----


def square(x: Any) -> Any:
    return x * x


def add(x: Any, y: Any) -> Any:
    return x + y


def fail(x: Any) -> Any:
    raise ValueError(f"task {x} fails")


def fail_if_three(x: int) -> int:
    if x == 3:
        raise ValueError("three")
    return x


def doubled(array: Any) -> Any:
    array *= 2
    return array


def put_with_lock(lock: Any, target: Any, connection: Any, item: Any) -> None:
    with lock:
        target.put(item)
        connection.send(item)


def own_pid(x: Any = None) -> int:
    return os.getpid()


def nap(x: Any) -> Any:
    time.sleep(60)


def is_initialised(x: Any) -> Any:
    return _initial, x


_initial: Any = None


def initialise(value: Any) -> None:
    global _initial
    _initial = value


def pool_in_a_process(method: str, results: Any) -> None:
    with multiprocessing.get_context(method).Pool(2) as pool:
        results.put(pool.map(square, range(5)))


def kill_self(x: Any = None) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def nap_and_exit(seconds: float) -> None:
    time.sleep(seconds)
    os._exit(1)
