"""Who waits for long because somebody was killed gets one line on stderr."""

import contextlib
import os
import queue
import re
import threading
from collections.abc import Iterator
from multiprocessing.context import BaseContext
from typing import Any

import pytest
from death_children import acquire_and_end, end, say_and_stay
from overlay_support import until

import _dragon

UNCLEAN = {"9": "was killed by SIGKILL", "11": "was killed by SIGSEGV"}
UNCLEAN["_exit 3"] = r"ended by os\._exit\(3\)"
CLEAN = ["exit", "exit 3", "raise"]
#: Longer than the patience.
WAIT_S = 0.1
LOCKS = ["Lock", "RLock", "BoundedSemaphore"]


@pytest.fixture(autouse=True)
def no_patience() -> Iterator[None]:
    """Waits are told after a hundredth of the time."""
    _dragon.set_patience(0.05)
    yield
    _dragon.set_patience(5)


def ended(dragon: BaseContext, target: Any, *args: Any) -> Any:
    """Run a process to its end."""
    process = dragon.Process(target=target, args=args, name="Victim")
    process.start()
    process.join()
    return process


def wait_in_vain(acquire: Any) -> None:
    assert not acquire(timeout=WAIT_S)


def told(capfd: Any, wait: Any) -> list[str]:
    """The lines on stderr when there is one (the supervisor may need a moment), and no more."""
    errors = ""

    def is_told() -> bool:
        nonlocal errors
        wait()
        errors += capfd.readouterr().err
        return bool(errors)

    assert until(is_told, 20)
    wait()
    lines: list[str] = (errors + capfd.readouterr().err).splitlines()
    return lines


@pytest.mark.parametrize("kind", LOCKS)
@pytest.mark.parametrize("how", UNCLEAN)
def test_who_waits_for_a_dead_ones_lock_is_told_once(
    dragon: BaseContext, capfd: Any, kind: str, how: str
) -> None:
    lock = getattr(dragon, kind)()
    victim = ended(dragon, acquire_and_end, lock, how)
    (line,) = told(capfd, lambda: wait_in_vain(lock.acquire))
    assert re.fullmatch(
        rf"dragon: MainProcess \(pid {os.getpid()}\) has waited \d+ s for <{kind}\(.*\)>: "
        rf"its last holder, Victim \(pid {victim.pid}\), {UNCLEAN[how]}, and it stays locked",
        line,
    )


@pytest.mark.parametrize("how", CLEAN)
def test_a_clean_end_with_a_lock_is_not_told(dragon: BaseContext, capfd: Any, how: str) -> None:
    lock = dragon.Lock()
    ended(dragon, acquire_and_end, lock, how)
    wait_in_vain(lock.acquire)
    assert capfd.readouterr().err == ""


def test_a_lock_that_somebody_else_holds_by_now_is_not_told(
    dragon: BaseContext, capfd: Any
) -> None:
    lock = dragon.Lock()
    ended(dragon, acquire_and_end, lock, "9")
    lock.release()
    lock.acquire()
    wait_in_vain(lock.acquire)
    assert capfd.readouterr().err == ""


def test_a_semaphore_has_no_holder(dragon: BaseContext, capfd: Any) -> None:
    semaphore = dragon.Semaphore(1)
    ended(dragon, acquire_and_end, semaphore, "9")
    wait_in_vain(semaphore.acquire)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", ["Queue", "JoinableQueue", "SimpleQueue"])
@pytest.mark.parametrize("how", UNCLEAN)
def test_who_waits_for_dead_producers_is_told_once(
    dragon: BaseContext, capfd: Any, kind: str, how: str
) -> None:
    q = getattr(dragon, kind)()
    victim = ended(dragon, use_and_end, q, how)
    (line,) = told(capfd, lambda: q._reader.poll(WAIT_S))
    assert "has waited" in line
    assert f"{kind} object" in line
    assert re.search(
        r"no other process uses it any more; the last one, "
        rf"Victim \(pid {victim.pid}\), {UNCLEAN[how]}$",
        line,
    )


def use_and_end(obj: Any, how: str) -> None:
    end(how)


def put_in_vain(q: Any) -> None:
    with pytest.raises(queue.Full):
        q.put(2, timeout=WAIT_S)


def get_in_vain(q: Any) -> None:
    with pytest.raises(queue.Empty):
        q.get(timeout=WAIT_S)


def test_who_waits_in_get_is_told_as_well(dragon: BaseContext, capfd: Any) -> None:
    q = dragon.Queue()
    ended(dragon, use_and_end, q, "9")
    assert len(told(capfd, lambda: get_in_vain(q))) == 1


def test_who_waits_in_put_for_dead_consumers_is_told(dragon: BaseContext, capfd: Any) -> None:
    q = dragon.Queue(1)
    q.put(1)
    ended(dragon, use_and_end, q, "9")
    (line,) = told(capfd, lambda: put_in_vain(q))
    assert "was killed by SIGKILL" in line


def test_who_waits_in_join_for_dead_consumers_is_told(dragon: BaseContext, capfd: Any) -> None:
    q = dragon.JoinableQueue()
    q.put(1)
    ended(dragon, use_and_end, q, "9")
    waiter = threading.Thread(target=q.join)
    waiter.start()
    errors = ""

    def is_told() -> bool:
        nonlocal errors
        errors += capfd.readouterr().err
        return "was killed by SIGKILL" in errors

    told = until(is_told)
    q.get()
    q.task_done()
    waiter.join()
    assert told


@pytest.mark.parametrize("how", CLEAN)
def test_a_queue_whose_other_users_ended_cleanly_is_not_told(
    dragon: BaseContext, capfd: Any, how: str
) -> None:
    q = dragon.Queue()
    ended(dragon, use_and_end, q, "9")
    ended(dragon, use_and_end, q, how)
    get_in_vain(q)
    assert capfd.readouterr().err == ""


def test_a_queue_with_a_living_user_is_not_told(dragon: BaseContext, capfd: Any) -> None:
    q, ready = dragon.Queue(), dragon.Queue()
    living = dragon.Process(target=say_and_stay, args=(ready, q))
    living.start()
    ready.get()
    ended(dragon, use_and_end, q, "9")
    get_in_vain(q)
    living.kill()
    living.join()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", ["Event", "Condition"])
def test_who_waits_for_an_event_or_a_notification_of_the_dead_is_told(
    dragon: BaseContext, capfd: Any, kind: str
) -> None:
    obj = getattr(dragon, kind)()
    ended(dragon, use_and_end, obj, "9")

    def wait() -> None:
        with obj if kind == "Condition" else contextlib.nullcontext():
            assert not obj.wait(WAIT_S)

    (line,) = told(capfd, wait)
    assert "was killed by SIGKILL" in line


def test_nothing_is_said_before_the_time(dragon: BaseContext, capfd: Any) -> None:
    _dragon.set_patience(5)
    lock = dragon.Lock()
    ended(dragon, acquire_and_end, lock, "9")
    wait_in_vain(lock.acquire)
    assert capfd.readouterr().err == ""


def test_a_pool_says_nothing_of_its_own_queues(dragon: BaseContext, capfd: Any) -> None:
    from dragon_overlay.pool import protocol

    channel = protocol.Channel()
    ended(dragon, use_and_end, channel, "9")
    for _ in range(3):
        assert not channel._poll(WAIT_S)
    assert capfd.readouterr().err == ""
