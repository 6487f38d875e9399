"""A shared object is freed when its last user is gone or dead, and not before.

Users are processes and messages. What a killed process used comes back when its death has been
noticed, so these tests wait for that; what a living one drops comes back at once.
"""

import gc
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from multiprocessing.context import BaseContext
from typing import Any

import numpy
import pytest
from children import RefusesToArrive
from lifetime_children import (
    KINDS,
    hold,
    hold_in_pool,
    keep_getting,
    make,
    make_and_hold,
    make_send_and_hold,
    receive_and_hold,
    send_arrays_with,
    start_and_hold,
    use,
)
from overlay_support import n_blocks, until

#: How many queues are made and dropped in a loop.
N_IN_A_LOOP = 100_000
#: How many locks, and queues, live at the same time.
N_ALIVE = 10_000

all_kinds = pytest.mark.parametrize("kind", KINDS)
#: One with messages, one without, one with blocks of its own, one of several objects.
some_kinds = pytest.mark.parametrize("kind", ["Queue", "Lock", "Condition", "Array"])


def n_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True, scope="module")
def earlier_tests_have_left() -> None:
    """Let the processes that other tests have killed give back what they used."""
    seen = [n_blocks()]

    def is_the_same_as_ever() -> bool:
        seen.append(n_blocks())
        return len(seen) > 20 and len(set(seen[-20:])) == 1

    assert until(is_the_same_as_ever, 20)


@pytest.fixture
def start(dragon: BaseContext) -> Iterator[Callable[..., Any]]:
    """Start a process that says when it is ready; all are killed at the end."""
    children = []
    ready = dragon.Queue()
    at_first = n_blocks()

    def start_one(target: Callable[..., Any], *args: Any) -> Any:
        child = dragon.Process(target=target, args=(ready, *args))
        child.start()
        children.append(child)
        assert ready.get(timeout=20) == child.pid
        return child

    start_one.ready = ready  # type: ignore[attr-defined]
    yield start_one
    for child in children:
        kill(child)
    assert until(lambda: n_blocks() <= at_first)  # so that no other test counts them


def kill(child: Any) -> None:
    child.kill()
    child.join()


# ---- the last user is killed ----


@all_kinds
def test_an_object_goes_with_the_killed_process_that_made_it(start: Any, kind: str) -> None:
    before = n_blocks()
    child = start(make_and_hold, kind)
    assert n_blocks() > before
    kill(child)
    assert until(lambda: n_blocks() == before)


@some_kinds
def test_an_object_lives_as_long_as_any_of_its_users(
    dragon: BaseContext, start: Any, kind: str
) -> None:
    before = n_blocks()
    thing = make(dragon, kind)
    first, second = start(hold, thing), start(hold, thing)
    kill(first)
    use(thing)
    del thing
    assert n_blocks() > before
    kill(second)
    assert until(lambda: n_blocks() == before)


@some_kinds
def test_the_death_of_another_user_takes_nothing_from_this_one(
    dragon: BaseContext, start: Any, kind: str
) -> None:
    thing = make(dragon, kind)
    with_it = n_blocks()
    for _ in range(3):
        kill(start(hold, thing))
        use(thing)
    assert until(lambda: n_blocks() == with_it)
    use(thing)


# ---- messages ----


@all_kinds
def test_an_object_that_only_a_message_uses_arrives(dragon: BaseContext, kind: str) -> None:
    q = dragon.Queue()
    before = n_blocks()
    thing = make(dragon, kind)
    q.put([thing, thing, "twice"])
    del thing
    gc.collect()
    first, second, _ = q.get()
    assert first is second
    use(first)
    del first, second
    assert n_blocks() == before


@all_kinds
def test_a_message_that_is_dropped_drops_what_is_in_it(dragon: BaseContext, kind: str) -> None:
    before = n_blocks()
    q = dragon.Queue()
    for _ in range(3):
        q.put((make(dragon, kind), numpy.zeros(20_000)))
        q.put([make(dragon, kind)])
    assert n_blocks() > before
    del q
    assert n_blocks() == before


@some_kinds
def test_an_array_outlives_what_came_with_it(dragon: BaseContext, kind: str) -> None:
    q = dragon.Queue()
    before = n_blocks()
    q.put((make(dragon, kind), numpy.full(20_000, 7.0)))
    thing, array = q.get()
    use(thing)
    del thing
    assert n_blocks() == before + 1
    assert (array == 7).all()
    del array
    assert n_blocks() == before


def test_a_message_that_cannot_be_unpickled_drops_what_is_in_it(dragon: BaseContext) -> None:
    q = dragon.SimpleQueue()
    before = n_blocks()
    extras: list[Any] = ["small", numpy.zeros(20_000)]
    for extra in extras:
        q.put([dragon.Lock(), dragon.Queue(), RefusesToArrive(), extra])
        with pytest.raises(ArithmeticError):
            q.get()
    assert n_blocks() == before


def test_queues_in_queues_in_queues_go_with_the_outermost(dragon: BaseContext) -> None:
    before = n_blocks()
    inner: Any = dragon.Lock()
    for kind in ["Queue", "SimpleQueue", "JoinableQueue"] * 20:
        outer = make(dragon, kind)
        outer.put([inner])
        inner = outer
    del outer
    for _ in range(30):  # half of them is taken apart
        (inner,) = inner.get()
    assert not inner.empty()
    del inner
    assert n_blocks() == before


def test_thousands_of_messages_share_an_object(dragon: BaseContext) -> None:
    before = n_blocks()
    q, lock = dragon.Queue(), dragon.Lock()
    for i in range(5000):
        q.put((lock, i))
    del lock
    for i in range(2500):
        lock, number = q.get()
        assert number == i
    use(lock)
    del q
    use(lock)
    del lock
    assert n_blocks() == before


@some_kinds
def test_a_killed_receiver_gives_back_what_it_received(
    dragon: BaseContext, start: Any, kind: str
) -> None:
    inbox = dragon.Queue()
    before = n_blocks()
    inbox.put(make(dragon, kind))
    child = start(receive_and_hold, inbox)
    assert n_blocks() > before
    kill(child)
    assert until(lambda: n_blocks() == before)


@all_kinds
def test_what_a_killed_sender_had_sent_arrives(dragon: BaseContext, start: Any, kind: str) -> None:
    inbox = dragon.Queue()
    before = n_blocks()
    for _ in range(3):
        kill(start(make_send_and_hold, inbox, kind))
    for _ in range(2):
        use(inbox.get(timeout=5))
    inbox.get()
    assert until(lambda: n_blocks() == before)


def test_what_a_killed_sender_had_sent_goes_with_the_queue(dragon: BaseContext, start: Any) -> None:
    before = n_blocks()
    inbox, lock = dragon.Queue(), dragon.Lock()
    kill(start(send_arrays_with, inbox, numpy.zeros(20_000), lock))
    kill(start(make_send_and_hold, inbox, "Queue"))
    del lock
    assert inbox.qsize() == 2
    del inbox
    assert until(lambda: n_blocks() == before)


def test_a_receiver_killed_in_the_middle_of_it_leaves_nothing(dragon: BaseContext) -> None:
    before = n_blocks()
    for _ in range(5):
        inbox = dragon.Queue()
        child = dragon.Process(target=keep_getting, args=(inbox,))
        child.start()
        for n in range(300):
            inbox.put(make(dragon, "Lock" if n % 2 else "Queue"))
        assert until(lambda inbox=inbox: inbox.qsize() < 300)
        kill(child)
        child.close()
        del inbox, child
    assert until(lambda: n_blocks() == before)


# ---- processes that start processes ----


def test_arguments_outlive_a_killed_starter(dragon: BaseContext, start: Any) -> None:
    before = n_blocks()
    lock = dragon.Lock()
    middle = dragon.Process(target=start_and_hold, args=(start.ready, lock))
    middle.start()
    pids = {start.ready.get(timeout=20), start.ready.get(timeout=20)}
    (last,) = pids - {middle.pid}
    kill(middle)
    use(lock)
    del lock
    # The head does not know this one, but for its place in the node.
    with_it = n_blocks()
    assert with_it > before
    os.kill(last, signal.SIGKILL)
    assert until(lambda: n_blocks() == before)


def test_a_chain_of_killed_processes_hands_an_object_on(dragon: BaseContext, start: Any) -> None:
    boxes = [dragon.Queue() for _ in range(3)]
    before = n_blocks()
    kill(start(make_send_and_hold, boxes[0], "Queue"))
    for source, target in itertools.pairwise(boxes):
        target.put(source.get(timeout=5))
    thing = boxes[2].get(timeout=5)
    child = start(hold, thing)
    del thing
    assert n_blocks() > before
    kill(child)
    assert until(lambda: n_blocks() == before)


def test_arguments_of_a_pools_task_go_with_its_killed_worker(dragon: BaseContext) -> None:
    before = n_blocks()
    ready, lock = dragon.Queue(), dragon.Lock()
    with dragon.Pool(1) as pool:
        pool.apply_async(hold_in_pool, (ready, lock))
        worker = ready.get(timeout=20)
        with_worker = n_blocks()
        os.kill(worker, signal.SIGKILL)
        pool.terminate()
        pool.join()
    use(lock)
    del lock, ready, pool
    assert with_worker > before
    assert until(lambda: n_blocks() == before)


# ---- forked copies ----


def in_a_copy(action: Callable[[], Any]) -> int:
    """Run action in a forked copy, which then ends without a word; its exit code."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@some_kinds
def test_a_copy_that_drops_an_object_takes_nothing_from_its_parent(
    dragon: BaseContext, kind: str
) -> None:
    before = n_blocks()
    things = [make(dragon, kind)]

    def drop() -> None:
        use(things[0])
        things.clear()
        gc.collect()

    for _ in range(3):
        assert in_a_copy(drop) == 0
        use(things[0])
    things.clear()
    assert until(lambda: n_blocks() == before)


@all_kinds
def test_an_object_goes_with_the_killed_copy_that_used_it_last(
    dragon: BaseContext, kind: str
) -> None:
    before = n_blocks()
    things = [make(dragon, kind)]
    go, went = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(go[0], 1)
        try:
            use(things[0])
            os.write(went[1], b"y")
        finally:
            signal.pause()
    things.clear()
    assert n_blocks() > before
    os.write(go[1], b"x")
    assert os.read(went[0], 1) == b"y"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for fd in (*go, *went):
        os.close(fd)
    assert until(lambda: n_blocks() == before)


def test_copies_of_copies_have_uses_of_their_own(dragon: BaseContext) -> None:
    before = n_blocks()
    q = dragon.Queue()
    things = [dragon.Lock(), dragon.Event(), q]

    def deeper() -> None:
        assert in_a_copy(lambda: things[2].put(["from the copy of a copy"])) == 0
        things.clear()

    assert in_a_copy(deeper) == 0
    assert q.get() == ["from the copy of a copy"]
    use(things[0])
    del q
    things.clear()
    assert until(lambda: n_blocks() == before)


def test_what_a_copy_made_goes_with_it(dragon: BaseContext) -> None:
    before = n_blocks()
    kept: list[Any] = []
    boxes = [dragon.Queue()]

    def make_some() -> None:
        kept.extend([dragon.Lock(), dragon.Queue()])
        boxes[0].put(kept)

    assert in_a_copy(make_some) == 0
    lock, queue = boxes[0].get()
    use(lock)
    use(queue)
    del lock, queue
    boxes.clear()
    assert until(lambda: n_blocks() == before)


class ForksWhilePickled:
    """Its pickling forks."""

    def __reduce__(self) -> Any:
        assert in_a_copy(lambda: None) == 0
        return str, ("forked",)


def test_a_fork_in_the_middle_of_a_message_loses_nothing(dragon: BaseContext) -> None:
    before = n_blocks()
    q = dragon.SimpleQueue()
    q.put([dragon.Lock(), ForksWhilePickled(), dragon.Lock()])
    first, _, second = q.get()
    use(first)
    use(second)
    del first, second, q
    assert until(lambda: n_blocks() == before)


# ---- many ----


def test_queues_that_are_made_and_dropped_leave_nothing(dragon: BaseContext) -> None:
    before, fds = n_blocks(), n_fds()
    for n in range(N_IN_A_LOOP):
        q = dragon.Queue()
        if n % 100 == 0:
            q.put([q.qsize(), dragon.Lock()])
    del q
    assert n_blocks() == before
    assert n_fds() == fds


def test_thousands_of_live_locks_and_queues_need_no_descriptors(dragon: BaseContext) -> None:
    before, fds = n_blocks(), n_fds()
    locks = [dragon.Lock() for _ in range(N_ALIVE)]
    queues = [dragon.Queue() for _ in range(N_ALIVE)]
    queues[-1].put(locks[-1])
    assert n_fds() == fds
    use(queues[0])
    use(queues[-1].get())
    locks.clear()
    queues.clear()
    assert n_blocks() == before


def test_a_killed_process_gives_thousands_of_objects_back(dragon: BaseContext, start: Any) -> None:
    before = n_blocks()
    things = [dragon.Lock() for _ in range(2000)]
    child = start(hold, *things)
    things.clear()
    assert n_blocks() >= before + 2000
    kill(child)
    assert until(lambda: n_blocks() == before)
