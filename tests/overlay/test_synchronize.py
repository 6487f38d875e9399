"""Locks, semaphores, events, conditions and barriers, as programs use them.

Each test runs with start methods "spawn", where the standard library is the reference, and
"dragon". What only "dragon" promises is at the end.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.synchronize as stock
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # children find their targets there
import synchronize_children as children

SOON = 30  # seconds; for what is expected to come long before


@pytest.fixture(params=["dragon", "spawn"])
def ctx(request: pytest.FixtureRequest) -> Any:
    return multiprocessing.get_context(request.param)


@pytest.fixture
def dragon() -> Any:
    return multiprocessing.get_context("dragon")


@pytest.fixture
def start() -> Iterator[Callable[..., Any]]:
    """Start processes that do not outlive the test."""
    started = []

    def start_one(ctx: Any, target: Callable[..., None], *args: Any) -> Any:
        process = ctx.Process(target=target, args=args)
        process.start()
        started.append(process)
        return process

    yield start_one
    for process in started:
        process.kill()
        process.join()
        process.close()


def exit_status(process: Any) -> Any:
    process.join(SOON)
    return process.exitcode


def in_thread(function: Callable[[], Any]) -> Any:
    """What function returns in another thread."""
    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(function()))
    thread.start()
    thread.join(SOON)
    return result[0]


def seconds_of(function: Callable[[], Any]) -> float:
    begin = time.monotonic()
    function()
    return time.monotonic() - begin


def becomes_true(condition: Callable[[], Any]) -> bool:
    end = time.monotonic() + SOON
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.001)
    return True


# ---- what they are ----

KINDS = ["Lock", "RLock", "Semaphore", "BoundedSemaphore", "Event", "Condition", "Barrier"]


def make(ctx: Any, kind: str) -> Any:
    return ctx.Barrier(2) if kind == "Barrier" else getattr(ctx, kind)()


@pytest.mark.parametrize("kind", KINDS)
def test_each_is_an_instance_of_the_standard_librarys_class(ctx: Any, kind: str) -> None:
    assert isinstance(make(ctx, kind), getattr(stock, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_none_can_be_pickled_outside_of_the_start_of_a_process(ctx: Any, kind: str) -> None:
    with pytest.raises(RuntimeError, match="should only be shared between processes"):
        pickle.dumps(make(ctx, kind))


def test_they_show_their_state(ctx: Any) -> None:
    lock, rlock, event = ctx.Lock(), ctx.RLock(), ctx.Event()
    assert repr(lock) == "<Lock(owner=None)>"
    assert repr(rlock) == "<RLock(None, 0)>"
    with lock, rlock, rlock:
        assert repr(lock) == "<Lock(owner=MainProcess)>"
        assert repr(rlock) == "<RLock(MainProcess, 2)>"
        assert in_thread(lambda: repr(lock)) == "<Lock(owner=SomeOtherThread)>"
    assert repr(ctx.Semaphore(3)) == "<Semaphore(value=3)>"
    assert repr(ctx.BoundedSemaphore(2)) == "<BoundedSemaphore(value=2, maxvalue=2)>"
    assert repr(ctx.Condition()) == "<Condition(<RLock(None, 0)>, 0)>"
    assert repr(event) == f"<Event at {id(event):#x} unset>"


# ---- locks and semaphores ----


def test_a_lock_is_held_by_one(ctx: Any) -> None:
    lock = ctx.Lock()
    assert lock.acquire() is True
    assert lock.acquire(False) is False
    assert lock.acquire(block=False) is False
    assert lock.release() is None
    assert lock.acquire(True, 1) is True


def test_a_lock_that_is_free_cannot_be_released(ctx: Any) -> None:
    with pytest.raises(ValueError, match="semaphore or lock released too many times"):
        ctx.Lock().release()


def test_a_lock_may_be_released_by_another_thread(ctx: Any) -> None:
    lock = ctx.Lock()
    lock.acquire()
    in_thread(lock.release)
    assert lock.acquire(False)


def test_a_recursive_lock_is_acquired_again_by_its_holder_only(ctx: Any) -> None:
    lock = ctx.RLock()
    assert lock.acquire() and lock.acquire(False) and lock.acquire(timeout=0)
    assert lock._semlock._count() == 3
    assert lock._semlock._is_mine()
    assert in_thread(lambda: lock.acquire(False)) is False
    for _ in range(3):
        lock.release()
    assert in_thread(lambda: lock.acquire(False)) is True


def test_a_recursive_lock_is_released_by_its_holder_only(ctx: Any) -> None:
    lock = ctx.RLock()
    text = "attempt to release recursive lock not owned by thread"
    with pytest.raises(AssertionError, match=text):
        lock.release()
    in_thread(lock.acquire)
    with pytest.raises(AssertionError, match=text):
        lock.release()


def test_a_semaphore_counts(ctx: Any) -> None:
    semaphore = ctx.Semaphore(2)
    assert semaphore.acquire() and semaphore.acquire()
    assert semaphore.get_value() == 0
    assert semaphore._semlock._is_zero()
    assert semaphore.acquire(False) is False
    semaphore.release()
    semaphore.release()
    semaphore.release()
    assert semaphore.get_value() == 3


def test_a_bounded_semaphore_does_not_exceed_its_first_value(ctx: Any) -> None:
    semaphore = ctx.BoundedSemaphore(2)
    assert semaphore._semlock.maxvalue == 2
    semaphore.acquire()
    semaphore.release()
    with pytest.raises(ValueError, match="released too many times"):
        semaphore.release()


def test_a_semaphore_cannot_begin_below_zero(ctx: Any) -> None:
    with pytest.raises(OSError):
        ctx.Semaphore(-1)


@pytest.mark.parametrize("timeout", [0, 0.0, -1, 0.1])
def test_acquire_gives_up_in_time(ctx: Any, timeout: float) -> None:
    lock = ctx.Lock()
    lock.acquire()
    took = seconds_of(lambda: lock.acquire(True, timeout))
    assert max(timeout, 0) - 0.001 <= took < max(timeout, 0) + 5


@pytest.mark.parametrize(
    "arguments",
    [{"timeout": "soon"}, {"no_such": 1}, {"block": "x"}, {"block": True, "timeout": 1, "n": 2}],
)
def test_acquire_refuses_wrong_arguments(ctx: Any, arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        ctx.Lock().acquire(**arguments)


def test_a_lock_that_one_process_holds_is_not_free_in_another(ctx: Any, start: Any) -> None:
    lock = ctx.Lock()
    with lock:
        held = start(ctx, children.try_to_acquire, lock)
        assert exit_status(held) == 3
    assert exit_status(start(ctx, children.try_to_acquire, lock)) == 0


def test_a_recursive_lock_belongs_to_the_process_that_holds_it(ctx: Any, start: Any) -> None:
    lock = ctx.RLock()
    with lock:
        assert exit_status(start(ctx, children.try_to_acquire, lock)) == 3


def test_a_killed_holder_keeps_its_lock(ctx: Any, start: Any) -> None:
    lock, has_it, forever = ctx.Lock(), ctx.Event(), ctx.Event()
    holder = start(ctx, children.acquire_and_stay, lock, has_it, forever)
    assert has_it.wait(SOON)
    holder.kill()
    assert exit_status(holder) == -signal.SIGKILL
    assert lock.acquire(timeout=0.1) is False
    lock.release()  # but anybody may release it
    assert lock.acquire(False)


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_a_lock_keeps_processes_apart(ctx: Any, start: Any, kind: str) -> None:
    lock, here, total = make(ctx, kind), ctx.BoundedSemaphore(1), ctx.Semaphore(0)
    here.acquire()
    processes = [start(ctx, children.add_units, lock, here, total, 1000) for _ in range(2)]
    assert [exit_status(p) for p in processes] == [0, 0]
    assert total.get_value() == 2000


# ---- events ----


def test_an_event_is_set_until_cleared(ctx: Any) -> None:
    event = ctx.Event()
    assert event.is_set() is False
    assert event.wait(0) is False
    event.set()
    event.set()
    assert event.is_set() is True
    assert event.wait() is True
    event.clear()
    assert event.wait(timeout=0.01) is False


def test_an_event_releases_all_processes_that_wait(ctx: Any, start: Any) -> None:
    event, n_ready = ctx.Event(), ctx.Semaphore(0)
    processes = [start(ctx, children.wait_for_event, event, n_ready) for _ in range(3)]
    for _ in processes:
        assert n_ready.acquire(timeout=SOON)
    event.set()
    assert [exit_status(p) for p in processes] == [0, 0, 0]


def test_events_go_to_and_fro(ctx: Any, start: Any) -> None:
    ping, pong = ctx.Event(), ctx.Event()
    start(ctx, children.answer_events, ping, pong, 200)
    for _ in range(200):
        ping.set()
        assert pong.wait(SOON)
        pong.clear()


# ---- conditions ----


@pytest.mark.parametrize("method", ["wait", "notify", "notify_all"])
@pytest.mark.parametrize("lock", ["Lock", "RLock"])
def test_a_condition_is_used_with_its_lock_held(ctx: Any, lock: str, method: str) -> None:
    condition = ctx.Condition(make(ctx, lock))
    with pytest.raises(AssertionError):
        getattr(condition, method)()


def test_wait_releases_all_levels_of_the_lock_and_takes_them_again(ctx: Any) -> None:
    condition = ctx.Condition()

    def notify() -> None:
        with condition:
            condition.notify()

    with condition, condition:
        notifier = threading.Thread(target=notify)
        notifier.start()
        assert condition.wait(SOON) is True
        assert condition._lock._semlock._count() == 2
        notifier.join()


def test_wait_gives_up_in_time_and_holds_the_lock(ctx: Any) -> None:
    condition = ctx.Condition(ctx.Lock())
    with condition:
        assert 0.099 <= seconds_of(lambda: condition.wait(0.1)) < 5
        assert condition.wait(timeout=0) is False
        assert condition._lock._semlock._is_mine()


def test_a_notification_without_waiters_is_lost(ctx: Any) -> None:
    condition = ctx.Condition()
    with condition:
        condition.notify(3)
        condition.notify_all()
        assert condition.wait(0.01) is False


def test_wait_for_returns_what_the_predicate_says(ctx: Any) -> None:
    condition = ctx.Condition()
    answers = iter([0, 0, 42])

    def notify_twice() -> None:
        for _ in range(2):
            with condition:
                condition.notify()
            time.sleep(0.05)

    with condition:
        assert condition.wait_for(lambda: False, 0.02) is False
        notifier = threading.Thread(target=notify_twice)
        notifier.start()
        assert condition.wait_for(lambda: next(answers), SOON) == 42
    notifier.join()


def n_sleepers(condition: Any) -> int:
    sleeping: int = condition._sleeping_count.get_value()
    woken: int = condition._woken_count.get_value()
    return sleeping - woken


def test_notify_wakes_as_many_processes_as_it_is_told(ctx: Any, start: Any) -> None:
    condition, n_notified = ctx.Condition(), ctx.Semaphore(0)
    processes = [
        start(ctx, children.wait_for_notification, condition, n_notified) for _ in range(4)
    ]
    assert becomes_true(lambda: n_sleepers(condition) == 4)
    with condition:
        condition.notify(n=2)
    for _ in range(2):
        assert n_notified.acquire(timeout=SOON)
    assert n_notified.acquire(timeout=0.1) is False
    with condition:
        condition.notify_all()
    assert [exit_status(p) for p in processes] == [0] * 4
    assert condition._wait_semaphore.get_value() == 0


# ---- barriers ----


def test_a_barrier_lets_nobody_pass_before_all_have_come(ctx: Any, start: Any) -> None:
    barrier = ctx.Barrier(3)
    processes = [start(ctx, children.pass_barrier, barrier, 50) for _ in range(2)]
    for _ in range(50):
        assert 0 <= barrier.wait(SOON) < 3
    assert [exit_status(p) for p in processes] == [0, 0]
    assert (barrier.parties, barrier.n_waiting, barrier.broken) == (3, 0, False)


def test_the_last_to_come_runs_the_action_first(ctx: Any) -> None:
    done: list[str] = []
    barrier = ctx.Barrier(2, lambda: done.append("action"))

    def wait() -> int:
        place: int = barrier.wait(SOON)
        done.append("passed")
        return place

    other = threading.Thread(target=wait)
    other.start()
    assert becomes_true(lambda: barrier.n_waiting == 1)
    assert wait() == 1
    other.join()
    assert done == ["action", "passed", "passed"]


def test_an_action_that_raises_breaks_the_barrier(ctx: Any) -> None:
    barrier = ctx.Barrier(1, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        barrier.wait()
    assert barrier.broken is True
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait()


@pytest.mark.parametrize("default", [None, 0.05])
def test_a_time_out_breaks_the_barrier_and_reset_mends_it(ctx: Any, default: Any) -> None:
    barrier = ctx.Barrier(2, timeout=default)
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait(*([] if default else [0.05]))
    assert barrier.broken
    barrier.reset()
    assert not barrier.broken


@pytest.mark.parametrize("method", ["abort", "reset"])
def test_abort_and_reset_send_waiters_of_other_processes_away(
    ctx: Any, start: Any, method: str
) -> None:
    barrier = ctx.Barrier(2)
    process = start(ctx, children.end_at_broken_barrier, barrier)
    assert becomes_true(lambda: barrier.n_waiting == 1)
    getattr(barrier, method)()
    assert exit_status(process) == 4
    assert barrier.broken is (method == "abort")


# ---- signals ----


def blocking_calls(ctx: Any) -> dict[str, Callable[[], Any]]:
    lock, rlock, condition = ctx.Lock(), ctx.RLock(), ctx.Condition()
    lock.acquire()
    in_thread(rlock.acquire)

    def wait() -> None:
        with condition:
            condition.wait(SOON)

    return {
        "Lock": lambda: lock.acquire(timeout=SOON),
        "RLock": lambda: rlock.acquire(),
        "Semaphore": lambda: ctx.Semaphore(0).acquire(),
        "Event": lambda: ctx.Event().wait(),
        "Condition": wait,
        "Barrier": lambda: ctx.Barrier(2).wait(),
    }


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Semaphore", "Event", "Condition", "Barrier"])
def test_ctrl_c_ends_each_wait(ctx: Any, kind: str) -> None:
    call = blocking_calls(ctx)[kind]
    killer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    killer.start()
    with pytest.raises(KeyboardInterrupt):
        call()
    killer.join()


def test_a_handler_that_returns_does_not_end_a_wait_or_make_it_longer(ctx: Any) -> None:
    lock = ctx.Lock()
    lock.acquire()
    n_calls = []
    old = signal.signal(signal.SIGALRM, lambda *_: n_calls.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        took = seconds_of(lambda: lock.acquire(timeout=0.3))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert 0.299 <= took < 5
    assert len(n_calls) >= 3


def test_a_barrier_party_that_was_interrupted_has_not_come(ctx: Any) -> None:
    barrier = ctx.Barrier(2)
    killer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    killer.start()
    with pytest.raises(KeyboardInterrupt):
        barrier.wait()
    killer.join()
    assert (barrier.n_waiting, barrier.broken) == (0, False)


# ---- what "dragon" adds ----


def test_a_users_subclass_travels_with_its_attributes(dragon: Any, start: Any) -> None:
    lock = children.NumberedLock(17, ctx=dragon)
    assert exit_status(start(dragon, children.report_attribute, lock)) == 17


def test_a_held_lock_travels_without_its_holder(dragon: Any, start: Any) -> None:
    lock = dragon.RLock()
    with lock:
        queue, answers = dragon.Queue(), dragon.Queue()
        start(dragon, children.receive_locks, queue, answers)
        queue.put(lock)
        assert answers.get(timeout=SOON) is False
    queue.put(lock)
    assert answers.get(timeout=SOON) is True
    queue.put(None)


def test_a_condition_that_travels_keeps_its_lock(dragon: Any) -> None:
    queue, condition = dragon.Queue(), dragon.Condition()
    queue.put((condition, condition._lock))
    copy, lock = queue.get()
    assert copy._is_same(condition)
    assert copy._lock is lock
    assert lock._is_same(condition._lock)


@pytest.mark.parametrize("is_robust", [False, True])
def test_a_condition_waits_with_a_lock_that_another_process_has_once_released(
    dragon: Any, start: Any, is_robust: bool
) -> None:
    lock = dragon.Lock(robust=is_robust)
    lock.acquire()
    assert exit_status(start(dragon, children.release, lock)) == 0
    condition = dragon.Condition(lock)
    with condition:
        assert lock._count() == 1
        assert not condition.wait(0.001)
    assert lock.acquire(False)


def test_wait_is_true_when_the_event_was_set_and_cleared_again(dragon: Any) -> None:
    event = dragon.Event()
    results: list[bool] = []
    waiters = [threading.Thread(target=lambda: results.append(event.wait(SOON))) for _ in range(4)]
    for waiter in waiters:
        waiter.start()
    time.sleep(0.1)  # not for order: late ones only make the test weaker
    while any(w.is_alive() for w in waiters):
        event.set()
        event.clear()
        time.sleep(0.001)
    assert results == [True] * 4


def test_those_are_notified_first_that_have_waited_longest(dragon: Any) -> None:
    condition = dragon.Condition()
    order: list[int] = []

    def wait(number: int) -> None:
        with condition:
            condition.wait(SOON)
            order.append(number)

    waiters = []
    for number in range(4):
        waiters.append(threading.Thread(target=wait, args=(number,)))
        waiters[-1].start()
        assert becomes_true(lambda n=number: n_sleepers(condition) == n + 1)
    for number in range(4):
        with condition:
            condition.notify()
        assert becomes_true(lambda n=number: len(order) == n + 1)
    for waiter in waiters:
        waiter.join()
    assert order == [0, 1, 2, 3]


def test_ctrl_c_leaves_a_condition_with_its_lock_held_even_if_that_takes_a_while(
    dragon: Any,
) -> None:
    condition = dragon.Condition(dragon.Lock())
    main_waits = threading.Event()

    def interrupt_while_holding_the_lock() -> None:
        main_waits.wait()
        with condition:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)

    other = threading.Thread(target=interrupt_while_holding_the_lock)
    other.start()
    with condition:
        main_waits.set()
        with pytest.raises(KeyboardInterrupt):
            condition.wait(SOON)
        assert condition._lock._is_mine()
    other.join()
    assert condition.acquire(False)


def test_an_interrupted_waiter_passes_its_notification_on(dragon: Any, start: Any) -> None:
    condition, n_notified = dragon.Condition(), dragon.Semaphore(0)
    old = signal.signal(signal.SIGUSR1, lambda *_: notify_and_fail())

    def notify_and_fail() -> None:
        assert becomes_true(lambda: n_sleepers(condition) == 2)
        with condition:
            condition.notify()  # main has waited longest: this is for it
        raise InterruptedError

    try:
        with condition:
            killer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
            waiter = start(dragon, children.wait_for_notification, condition, n_notified)
            killer.start()
            with pytest.raises(InterruptedError):
                condition.wait(SOON)
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert exit_status(waiter) == 0


def test_a_killed_waiter_takes_no_notification_with_it(dragon: Any, start: Any) -> None:
    condition, n_notified = dragon.Condition(), dragon.Semaphore(0)
    victim = start(dragon, children.wait_for_notification, condition, n_notified)
    assert becomes_true(lambda: n_sleepers(condition) == 1)
    waiter = start(dragon, children.wait_for_notification, condition, n_notified)
    assert becomes_true(lambda: n_sleepers(condition) == 2)
    victim.kill()
    victim.join()
    with condition:
        condition.notify()
    assert exit_status(waiter) == 0


def test_a_condition_works_over_a_lock_of_another_start_method(dragon: Any) -> None:
    condition = dragon.Condition(multiprocessing.get_context("spawn").RLock())

    def notify() -> None:
        with condition:
            condition.notify_all()

    with condition:
        notifier = threading.Thread(target=notify)
        notifier.start()
        assert condition.wait(SOON)
    notifier.join()


def test_a_barrier_of_nobody_is_refused(dragon: Any) -> None:
    with pytest.raises(ValueError, match="parties must be from 1"):
        dragon.Barrier(0)


def test_a_forked_child_holds_none_of_its_parents_recursive_locks(dragon: Any) -> None:
    lock = dragon.RLock()
    with lock:
        pid = os.fork()
        if pid == 0:
            os._exit(lock._is_mine() + 2 * lock.acquire(False))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert lock._is_mine()


def test_all_memory_comes_back(dragon: Any) -> None:
    _dragon = pytest.importorskip("_dragon")
    before = _dragon.pool_statistics()["n_blocks"]
    things = [make(dragon, kind) for kind in KINDS]
    assert _dragon.pool_statistics()["n_blocks"] > before
    del things
    assert _dragon.pool_statistics()["n_blocks"] == before
