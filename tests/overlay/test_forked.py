"""os.fork() and start method "fork" in a program that uses the runtime."""

import gc
import multiprocessing
import multiprocessing.connection
import os
import pickle
import select
import subprocess
import threading
from collections.abc import Callable
from multiprocessing.context import BaseContext
from typing import Any

import numpy
import pytest
from children import become_a_daemon, put_all, square
from overlay_support import Outcome, is_asleep, n_blocks, until


def in_a_copy(action: Callable[[], Any]) -> int:
    """Run action in a forked copy of this process; what waitpid says of it."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)  # the copy must not go on as a second pytest
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_both_sides_of_a_fork_use_the_queues(dragon: BaseContext) -> None:
    to_copy, from_copy = dragon.Queue(), dragon.SimpleQueue()
    to_copy.put("before")

    def copy() -> None:
        from_copy.put([to_copy.get(), numpy.ones(20_000)])

    assert in_a_copy(copy) == 0
    word, array = from_copy.get()
    assert (word, array.sum()) == ("before", 20_000)
    to_copy.put("after")
    assert to_copy.get() == "after"


def test_both_sides_of_a_fork_use_the_locks_and_events(dragon: BaseContext) -> None:
    lock, event = dragon.Lock(), dragon.Event()
    with lock:
        assert in_a_copy(lambda: event.set() if not lock.acquire(block=False) else 1 / 0) == 0
    assert event.is_set()
    assert lock.acquire(block=False)


def test_a_queue_made_in_the_copy_works_there(dragon: BaseContext) -> None:
    def copy() -> None:
        q = dragon.Queue()
        q.put([1])
        assert q.get() == [1]

    assert in_a_copy(copy) == 0


def test_a_copy_can_start_processes(dragon: BaseContext) -> None:
    q = dragon.Queue()

    def copy() -> None:
        child = dragon.Process(target=put_all, args=(q, ["from a grandchild"]))
        child.start()
        child.join()
        assert child.exitcode == 0

    assert in_a_copy(copy) == 0
    assert q.get(timeout=5) == "from a grandchild"


def test_a_copy_that_drops_the_objects_does_not_take_them_from_the_parent(
    dragon: BaseContext,
) -> None:
    q, lock = dragon.Queue(), dragon.Lock()
    q.put("kept")
    objects = [q, lock]

    def copy() -> None:
        objects.clear()

    del q, lock
    assert in_a_copy(copy) == 0
    assert objects[0].get() == "kept"
    assert objects[1].acquire(block=False)


def test_a_received_array_is_valid_on_both_sides_of_a_fork(dragon: BaseContext) -> None:
    q = dragon.Queue()
    q.put(numpy.arange(100_000.0))
    arrays = [q.get()]

    def copy() -> None:
        assert arrays[0][99_999] == 99_999
        arrays.clear()

    assert in_a_copy(copy) == 0
    for _ in range(3):
        q.put(numpy.zeros(100_000))
        q.get()
    assert arrays[0][99_999] == 99_999


class ForksOnArrival:
    """Its unpickling forks. Whoever is not first waits for the other's end and use_memory()."""

    copy_is_first: bool
    use_memory: Callable[[], None]
    pid = -1
    done: tuple[int, int]

    def __setstate__(self, state: object) -> None:
        cls = type(self)
        cls.pid = os.fork()
        if cls.copy_is_first and cls.pid:
            os.waitid(os.P_PID, cls.pid, os.WEXITED | os.WNOWAIT)
            cls.use_memory()
        elif not cls.copy_is_first and not cls.pid:
            os.read(cls.done[0], 1)

    def __getstate__(self) -> object:
        return "a state"


@pytest.mark.parametrize("copy_is_first", [True, False])
@pytest.mark.parametrize("beside", ["bytes", "array"])
@pytest.mark.parametrize("carrier", ["Queue", "Pipe"])
def test_both_sides_of_a_fork_in_the_middle_of_a_get_have_the_object(
    dragon: BaseContext, copy_is_first: bool, beside: str, carrier: str
) -> None:
    text = [str(i) for i in range(20_000)]  # in the pickle, behind what forks
    large = bytes(100_000) if beside == "bytes" else numpy.arange(100_000.0)
    inner = dragon.SimpleQueue()
    q: Any = dragon.Queue()
    reader, writer = dragon.Pipe(duplex=False)
    fillers = dragon.Queue()

    def use_memory() -> None:
        """Write over what was freed."""
        for _ in range(10):
            fillers.put(["?" * 5] * 20_000 + [str(-i) for i in range(5000)])
            fillers.put(numpy.zeros(100_000 + 30_000))

    ForksOnArrival.copy_is_first = copy_is_first
    ForksOnArrival.use_memory = staticmethod(use_memory)
    ForksOnArrival.done = os.pipe()
    (q.put if carrier == "Queue" else writer.send)([ForksOnArrival(), text, large, inner])
    del inner
    pid = os.getpid()
    status = 1
    try:
        received = q.get() if carrier == "Queue" else reader.recv()
        assert received[1] == text
        assert numpy.array_equal(received[2], large) or received[2] == large
        received[3].put(1)
        status = 0
    finally:
        if os.getpid() != pid:
            os._exit(status)
    if not copy_is_first:
        del received
        use_memory()
        os.write(ForksOnArrival.done[1], b".")
    for fd in ForksOnArrival.done:
        os.close(fd)
    assert os.waitstatus_to_exitcode(os.waitpid(ForksOnArrival.pid, 0)[1]) == 0


class CountsPicklers:
    """Arrives as the number of picklers that there were when it was pickled."""

    def __reduce__(self) -> Any:
        return int, (sum(type(o) is pickle.Pickler for o in gc.get_objects()),)


class WaitsWhilePickled:
    def __init__(self) -> None:
        self.is_there = threading.Event()
        self.goes_on = threading.Event()

    def __reduce__(self) -> Any:
        self.is_there.set()
        self.goes_on.wait()
        return int, ()


def test_a_copy_forked_while_another_thread_pickles_pickles_as_ever(dragon: BaseContext) -> None:
    q, other = dragon.SimpleQueue(), dragon.SimpleQueue()
    shared = ["known to the other pickler"]
    waiting = WaitsWhilePickled()
    q.put([CountsPicklers()])
    before = q.get()
    thread = threading.Thread(target=other.put, args=([shared, waiting],))
    thread.start()
    waiting.is_there.wait()

    def copy() -> None:
        for _ in range(2):
            q.put([shared, CountsPicklers()])
            assert q.get() == [shared, *before]

    status = in_a_copy(copy)
    waiting.goes_on.set()
    thread.join()
    assert status == 0
    assert other.get() == [shared, 0]


def test_a_copy_forked_by_what_is_pickled_does_not_take_its_pickler(dragon: BaseContext) -> None:
    q, inner = dragon.SimpleQueue(), dragon.SimpleQueue()

    class Forks:
        def __reduce__(self) -> Any:
            def copy() -> None:
                inner.put([1])
                assert inner.get() == [1]

            return int, (in_a_copy(copy),)

    q.put([shared := ["twice"], Forks(), shared])
    assert q.get() == [["twice"], 0, ["twice"]]


def test_a_copy_keeps_no_connection_open_that_is_being_closed(dragon: BaseContext) -> None:
    here, there = dragon.Pipe()
    told, tell = os.pipe()

    def receive() -> None:
        with pytest.raises(OSError, match="handle is closed"):
            here.recv()

    thread = threading.Thread(target=receive)
    thread.start()
    assert until(lambda: is_asleep(thread))
    here.close()  # the thread does that when it looks
    pid = os.fork()
    if pid == 0:
        os.read(told, 1)
        os._exit(0)
    try:
        thread.join()
        assert there.poll(5), "its end, as nobody has the other end open"
    finally:
        os.write(tell, b".")
        os.waitpid(pid, 0)
        os.close(told)
        os.close(tell)


def test_a_copy_forked_inside_of_a_connection_goes_on_with_it(dragon: BaseContext) -> None:
    here, there = dragon.Pipe()
    other, others_peer = dragon.Pipe()

    class Forks:
        def __reduce__(self) -> Any:
            other.close()
            return int, (os.fork(),)

    def receive() -> None:
        with pytest.raises(OSError):
            other.recv()

    thread = threading.Thread(target=receive)
    thread.start()
    assert until(lambda: is_asleep(thread))
    pid, fd = os.getpid(), other._socket
    try:
        here.send([Forks()])
        if os.getpid() != pid:
            here.send(os.path.exists(f"/proc/self/fd/{fd}"))
    finally:
        if os.getpid() != pid:
            os._exit(0)
    thread.join()
    received = [there.recv() for _ in range(3)]
    (child,) = {item[0] for item in received if isinstance(item, list)} - {0}
    os.waitpid(child, 0)
    assert [0] in received
    assert False in received, "open in the copy"
    assert others_peer.poll()


def test_a_copy_can_close_a_queue_whose_descriptor_was_asked_for(dragon: BaseContext) -> None:
    q = dragon.SimpleQueue()
    q._reader.fileno()
    assert in_a_copy(q.close) == 0


def test_a_copy_that_reads_does_not_change_the_parents_descriptor(dragon: BaseContext) -> None:
    q = dragon.SimpleQueue()
    q.put(1)
    with select.epoll() as epoll:
        epoll.register(q._reader.fileno(), select.EPOLLIN)
        assert in_a_copy(q.get) == 0
        q.put(2)
        assert len(epoll.poll(2)) == 1


def test_a_copy_can_poll_a_queue_of_its_own(dragon: BaseContext) -> None:
    def copy() -> None:
        q = dragon.SimpleQueue()
        q._reader.fileno()
        q.put(1)
        assert multiprocessing.connection.wait([q._reader], 5)

    assert in_a_copy(copy) == 0


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_stock_methods_work_in_a_program_that_uses_dragon(
    run: Callable[..., Outcome], method: str
) -> None:
    text = f"""
import multiprocessing
def child(q):
    q.put("stock")
if __name__ == "__main__":
    dragon_queue = multiprocessing.get_context("dragon").Queue()
    dragon_queue.put(1)
    context = multiprocessing.get_context("{method}")
    q = context.Queue()
    p = context.Process(target=child, args=(q,))
    p.start()
    print(q.get(), dragon_queue.get())
    p.join()
    with context.Pool(2) as pool:
        print(pool.map(abs, [-1, -2]), p.exitcode)
"""
    assert run(text) == ("stock 1\n[1, 2] 0\n", "", 0)


def test_a_copy_keeps_the_objects_when_its_parent_ends_at_once(dragon: BaseContext) -> None:
    q = dragon.Queue()
    children = [dragon.Process(target=become_a_daemon, args=(q,)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert [q.get(timeout=20) for _ in children] == [True, True, True]


def test_dragon_queues_work_in_forked_processes_of_multiprocessing(dragon: BaseContext) -> None:
    q = dragon.Queue()
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=put_all, args=(q, range(100))) for _ in range(3)]
    for child in children:
        child.start()
    received = [q.get(timeout=20) for _ in range(300)]
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert sum(received) == 3 * sum(range(100))


def test_a_fork_pool_runs_beside_a_dragon_pool(dragon: BaseContext) -> None:
    with dragon.Pool(2) as ours, multiprocessing.get_context("fork").Pool(2) as forked:
        assert forked.map(square, range(10)) == ours.map(square, range(10))


def test_many_forks_while_threads_use_the_queue(run: Callable[..., Outcome]) -> None:
    text = """
import multiprocessing, os, threading
q = multiprocessing.get_context("dragon").Queue()
stop = threading.Event()
def work():
    while not stop.is_set():
        q.put([1])
        q.get()
threads = [threading.Thread(target=work) for _ in range(2)]
for t in threads:
    t.start()
bad = 0
for i in range(30):
    pid = os.fork()
    if pid == 0:
        mine = multiprocessing.get_context("dragon").Queue()
        mine.put([i])
        os._exit(0 if mine.get() == [i] else 1)
    bad += os.waitpid(pid, 0)[1] != 0
stop.set()
for t in threads:
    t.join()
print(bad)
"""
    assert run(text) == ("0\n", "", 0)


def test_threads_that_fork_at_once_all_have_copies_with_objects(
    run: Callable[..., Outcome],
) -> None:
    text = """
import os, sys, threading
between = threading.Barrier(3)
assert "_dragon" not in sys.modules  # so that this handler runs after the runtime's
os.register_at_fork(before=lambda: between.wait(20))
import multiprocessing
event = multiprocessing.get_context("dragon").Event()
statuses = []
def fork():
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = event.is_set()
        finally:
            os._exit(status)
    statuses.append(os.waitpid(pid, 0)[1])
threads = [threading.Thread(target=fork) for _ in range(3)]
for t in threads:
    t.start()
for t in threads:
    t.join()
print(statuses)
"""
    assert run(text) == ("[0, 0, 0]\n", "", 0)


def test_a_signal_handler_can_fork_in_the_middle_of_a_fork(run: Callable[..., Outcome]) -> None:
    text = """
import os, signal, sys
statuses = []
def in_the_middle():
    if not statuses:
        statuses.append(None)
        signal.raise_signal(signal.SIGUSR1)
assert "_dragon" not in sys.modules  # so that this handler runs after the runtime's
os.register_at_fork(before=in_the_middle)
import multiprocessing
lock = multiprocessing.get_context("dragon").Lock()
def status_of_copy():
    pid = os.fork()
    if pid == 0:
        return None
    return os.waitpid(pid, 0)[1]
def fork(*args):
    global is_inner
    status = status_of_copy()
    is_inner = status is None  # the rest of the outer fork runs in this copy, too
    statuses.append(status)
is_inner = False
signal.signal(signal.SIGUSR1, fork)
status = status_of_copy()
if status is None:
    used = 1
    try:
        with lock:
            used = 0
    finally:
        os._exit(used)
if is_inner:
    with lock:
        pass
    os._exit(status)
print(statuses, status)
"""
    assert run(text) == ("[None, 0] 0\n", "", 0)


def test_subprocess_with_preexec_fn_leaves_the_queues_alone(dragon: BaseContext) -> None:
    q = dragon.Queue()
    q.put(1)
    subprocess.run(["true"], preexec_fn=lambda: None, check=True)
    assert q.get() == 1


@pytest.mark.parametrize("end", [lambda: os._exit(0), lambda: os.execv("/bin/true", ["true"])])
def test_objects_do_not_outlive_a_copy_that_ended(dragon: BaseContext, end: Any) -> None:
    start = n_blocks()
    objects = [dragon.Queue(), dragon.Lock()]
    in_a_copy(end)
    objects.clear()
    gc.collect()
    assert until(lambda: n_blocks() == start)
