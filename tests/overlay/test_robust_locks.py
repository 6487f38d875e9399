"""A robust lock goes to the next one when its holder ends, and that one is told."""

import multiprocessing
from typing import Any

import pytest
from death_children import acquire_and_end, acquire_and_stay, end, fork_and_try
from overlay_support import until

KINDS = ["Lock", "RLock"]
#: No wait of these tests is to last that long.
LONG_S = 20


def start(dragon: Any, target: Any, *args: Any) -> Any:
    process = dragon.Process(target=target, args=args)
    process.start()
    return process


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["9", "11", "_exit", "exit", "raise"])
def test_the_next_one_gets_it_and_is_told_however_the_holder_ended(
    dragon: Any, kind: str, how: str
) -> None:
    lock = getattr(dragon, kind)(robust=True)
    start(dragon, acquire_and_end, lock, how).join()
    assert lock.acquire(timeout=LONG_S)
    assert lock.owner_died
    lock.release()
    assert not lock.owner_died
    with lock:
        assert not lock.owner_died


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_waits_gets_it_when_the_holder_is_killed(dragon: Any, kind: str) -> None:
    lock, told = getattr(dragon, kind)(robust=True), dragon.Queue()
    first = start(dragon, acquire_and_stay, lock, told)
    assert told.get() is False
    second = start(dragon, acquire_and_stay, lock, told)
    assert not lock.acquire(False)
    first.kill()
    assert told.get(timeout=LONG_S) is True
    second.kill()
    assert lock.acquire()
    assert lock.owner_died


def test_a_robust_lock_is_else_a_lock_as_ever(dragon: Any) -> None:
    lock = dragon.Lock(robust=True)
    assert (lock._semlock._get_value(), lock._semlock.maxvalue) == (1, 1)
    with pytest.raises(ValueError, match="too many times"):
        lock.release()
    with lock:
        assert repr(lock) == "<Lock(owner=MainProcess)>"
        assert not lock.acquire(False)
        assert not lock.acquire(timeout=0.001)
    assert repr(lock) == "<Lock(owner=None)>"


def test_another_process_may_release_it(dragon: Any) -> None:
    lock = dragon.Lock(robust=True)
    lock.acquire()
    start(dragon, release_and_end, lock).join()
    assert lock.acquire(timeout=LONG_S)
    assert not lock.owner_died


def release_and_end(lock: Any) -> None:
    lock.release()
    end("_exit")


def test_a_robust_rlock_is_acquired_again_by_its_holder(dragon: Any) -> None:
    lock = dragon.RLock(robust=True)
    start(dragon, acquire_and_end, lock, "9").join()
    with lock, lock:
        assert lock.owner_died
        lock.release()
        assert lock.owner_died, "still held"
        lock.acquire()
    assert not lock.owner_died


def test_a_condition_over_a_robust_lock_has_it_after_a_holders_death(dragon: Any) -> None:
    lock = dragon.Lock(robust=True)
    condition = dragon.Condition(lock)
    start(dragon, acquire_and_end, lock, "9").join()
    with condition:
        assert lock.owner_died
        assert not condition.wait(0.001)
        assert not lock.owner_died, "it was released meanwhile"


def test_the_forked_copy_of_a_holder_does_not_hold_it(dragon: Any) -> None:
    lock, results = dragon.Lock(robust=True), dragon.Queue()
    start(dragon, fork_and_try, lock, results)
    assert results.get(timeout=LONG_S) is True


def test_robust_is_a_keyword_of_dragons_locks_only(dragon: Any) -> None:
    with pytest.raises(TypeError):
        dragon.Lock(True)
    with pytest.raises(TypeError):
        multiprocessing.get_context("spawn").Lock(robust=True)  # type: ignore[call-arg]


def test_a_lock_that_is_not_robust_stays_locked(dragon: Any) -> None:
    lock = dragon.Lock()
    start(dragon, acquire_and_end, lock, "9").join()
    assert not lock.acquire(timeout=0.05)
    lock.release()
    assert lock.acquire()
    assert not lock.owner_died


def test_memory_of_a_robust_lock_comes_back(dragon: Any) -> None:
    from overlay_support import n_blocks

    start_blocks = n_blocks()
    lock = dragon.Lock(robust=True)
    start(dragon, acquire_and_end, lock, "9").join()
    lock.acquire()
    del lock
    assert until(lambda: n_blocks() <= start_blocks)
