"""Programs that start processes while they are imported, and workers that cannot start."""

import os
import signal
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import pytest
from children import fail, initialise, kill_self, nap, own_pid, square
from overlay_support import Outcome, is_alive, until

TEXT = "An attempt has been made to start a new process before the"


def test_a_process_without_the_guard_ends_with_the_error(run: Callable[..., Outcome]) -> None:
    done = run("""
import multiprocessing
process = multiprocessing.get_context("dragon").Process(target=print)
process.start()
process.join()
print(process.exitcode)
""")
    assert (done.stdout, done.status) == ("1\n", 0)
    assert done.stderr.count(TEXT) == 1


POOL = """
import multiprocessing
pool = multiprocessing.get_context("dragon").Pool(2)
results = [pool.map_async(abs, range(20_000), chunksize=1), pool.apply_async(abs, (-1,))]
results += [iter(pool.imap(abs, range(5))), pool.imap_unordered(abs, range(5))]
gets = [results[0].get, results[1].get, *[results[2].__next__] * 5, *[results[3].__next__] * 5]
gets += [lambda: pool.apply(abs, (-1,)), lambda: list(pool.imap(abs, [1, 2]))]
for get in gets:
    try:
        get()
    except Exception as error:
        print(type(error).__name__, str(error).count("An attempt has been made"))
for result in results[2:]:
    print(list(result))
pool.close()
pool.join()
"""


def test_a_pool_without_the_guard_breaks_with_the_workers_error(
    run: Callable[..., Outcome],
) -> None:
    done = run(POOL)
    assert (done.stdout, done.status) == ("BrokenProcessPool 1\n" * 14 + "[]\n" * 2, 0)
    # Three, and one that was started beside the last of them.
    assert 3 <= done.stderr.count(TEXT) <= 4


def test_an_executor_without_the_guard_breaks(run: Callable[..., Outcome]) -> None:
    done = run("""
import concurrent.futures, multiprocessing
from concurrent.futures.process import BrokenProcessPool
context = multiprocessing.get_context("dragon")
with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
    try:
        executor.submit(abs, -1).result()
    except BrokenProcessPool as error:
        print(type(error).__name__)
""")
    assert (done.stdout, done.status) == ("BrokenProcessPool\n", 0)
    assert 1 <= done.stderr.count(TEXT) <= 2


def test_a_broken_pool_is_left_by_the_with_statement(run: Callable[..., Outcome]) -> None:
    done = run("""
import multiprocessing
with multiprocessing.get_context("dragon").Pool(3) as pool:
    pool.map(abs, range(100))
""")
    assert "BrokenProcessPool: the pool is broken: 3 workers in a row" in done.stderr
    assert done.status == 1


def test_a_pool_whose_initializer_fails_breaks(
    dragon: BaseContext, capfd: pytest.CaptureFixture[str]
) -> None:
    with dragon.Pool(1, initializer=fail, initargs=(4,)) as pool:
        with pytest.raises(BrokenProcessPool, match="task 4 fails") as caught:
            pool.apply(square, (2,))
        assert "exit code 1" in str(caught.value)
        assert "in fail" in str(caught.value)
        with pytest.raises(BrokenProcessPool):
            pool.apply(square, (2,))
    assert capfd.readouterr().err.count("ValueError: task 4 fails") == 3


def test_a_pool_whose_workers_die_without_a_word_breaks(dragon: BaseContext) -> None:
    with (
        dragon.Pool(1, initializer=kill_self) as pool,
        pytest.raises(BrokenProcessPool, match=r"exit code -9$"),
    ):
        pool.map(square, range(10))


def test_workers_that_were_ready_are_replaced_for_ever(dragon: BaseContext) -> None:
    with dragon.Pool(1, initializer=initialise, initargs=(1,)) as pool:
        for _ in range(5):
            pid = pool.apply(own_pid)
            os.kill(pid, signal.SIGKILL)
            assert until(lambda pid=pid: not is_alive(pid))
            assert pool.apply_async(own_pid).get(20) != pid


def fail_but_for(n: int, folder: str) -> None:
    """Fail in all workers but the first n."""
    for i in range(n):
        try:
            os.close(os.open(f"{folder}/{i}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        return
    raise ValueError("one too many")


def test_a_pool_that_breaks_half_way_fails_the_rest(
    dragon: BaseContext, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with dragon.Pool(1, fail_but_for, (1, str(tmp_path)), maxtasksperchild=2) as pool:
        results: Any = pool.imap_unordered(square, range(10))
        assert [next(results), next(results)] == [0, 1]
        for _ in range(8):
            with pytest.raises(BrokenProcessPool, match="one too many"):
                next(results)
        with pytest.raises(StopIteration):
            next(results)
    assert capfd.readouterr().err.count("ValueError: one too many") == 3


def test_a_pool_that_breaks_ends_its_busy_workers(dragon: BaseContext, tmp_path: Path) -> None:
    with dragon.Pool(2, fail_but_for, (2, str(tmp_path))) as pool:
        busy = pool.imap(nap, range(2))
        pids = {worker.pid for worker in pool._pool}
        places = pool._dispatcher.places
        assert until(lambda: all(place.words.doing() for place in places))  # both are in a call
        os.kill(min(pids), signal.SIGKILL)
        errors = []
        for _ in range(2):
            with pytest.raises(BrokenProcessPool) as caught:
                next(busy)
            errors.append(str(caught.value))
        # One worker was killed in its call, the other one by the pool.
        assert sorted("one too many" in error for error in errors) == [False, True]
        with pytest.raises(StopIteration):
            next(busy)
        assert not any(map(is_alive, pids))
