"""multiprocessing.Pool and ThreadPool over the runtime."""

import multiprocessing
import multiprocessing.pool
import os
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing.context import BaseContext
from typing import Any

import numpy
import pytest
from children import (
    Refuses,
    add,
    doubled,
    fail,
    fail_if_three,
    initialise,
    is_initialised,
    kill_self,
    nap,
    own_pid,
    pool_in_a_process,
    square,
)
from overlay_support import Outcome, is_alive, n_blocks, until


@pytest.fixture(scope="module")
def shared_pool() -> Iterator[Any]:
    """A pool that tests use which leave it as it was."""
    with multiprocessing.get_context("dragon").Pool(2) as pool:
        yield pool


def test_map_gives_results_in_order(shared_pool: Any) -> None:
    assert shared_pool.map(square, range(100)) == [i * i for i in range(100)]
    assert shared_pool.map(square, range(100), chunksize=7) == [i * i for i in range(100)]
    assert shared_pool.map(square, []) == []


def test_imap_and_imap_unordered_give_all_results(shared_pool: Any) -> None:
    expected = [i * i for i in range(50)]
    assert list(shared_pool.imap(square, range(50))) == expected
    assert list(shared_pool.imap(square, iter(range(50)), chunksize=4)) == expected
    assert sorted(shared_pool.imap_unordered(square, range(50))) == expected


def test_starmap_and_apply_give_their_results(shared_pool: Any) -> None:
    assert shared_pool.starmap(add, [(1, 2), ("a", "b")]) == [3, "ab"]
    assert shared_pool.starmap_async(add, [(1, 2)]).get(10) == [3]
    assert shared_pool.apply(add, (1,), {"y": 5}) == 6
    assert shared_pool.map_async(square, [3]).get(10) == [9]


def test_callbacks_are_called_with_results_and_errors(shared_pool: Any) -> None:
    results: list[Any] = []
    errors: list[BaseException] = []
    called = threading.Semaphore(0)

    def keep(kept: list[Any]) -> Callable[[Any], None]:
        return lambda value: (kept.append(value), called.release())[1]

    shared_pool.apply_async(square, (4,), callback=keep(results), error_callback=keep(errors))
    shared_pool.apply_async(fail, (4,), callback=keep(results), error_callback=keep(errors))
    shared_pool.map_async(square, [1, 2], callback=keep(results))
    for _ in range(3):
        assert called.acquire(timeout=10)
    assert sorted(results, key=str) == [16, [1, 4]]
    assert [str(error) for error in errors] == ["task 4 fails"]


def test_an_error_in_a_task_is_raised_with_the_workers_traceback(shared_pool: Any) -> None:
    with pytest.raises(ValueError, match="task 1 fails") as caught:
        shared_pool.apply(fail, (1,))
    assert "in fail" in str(caught.value.__cause__)
    with pytest.raises(ValueError, match="three"):
        shared_pool.map(fail_if_three, range(6))
    results = shared_pool.imap(fail_if_three, range(5))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert next(results) == 4


@pytest.mark.parametrize("argument", [threading.Lock(), Refuses()])
def test_an_argument_that_cannot_be_pickled_is_an_error_of_its_call(
    shared_pool: Any, argument: Any
) -> None:
    with pytest.raises(Exception, match="pickle"):
        shared_pool.apply_async(square, (argument,)).get(10)
    assert shared_pool.apply(square, (3,)) == 9


def test_a_result_that_cannot_be_pickled_is_an_error_of_its_call(shared_pool: Any) -> None:
    with pytest.raises(multiprocessing.pool.MaybeEncodingError):
        shared_pool.apply_async(threading.Lock).get(10)
    assert shared_pool.apply(square, (3,)) == 9


def test_a_timeout_of_get_leaves_the_pool_usable(dragon: BaseContext) -> None:
    with dragon.Pool(2) as pool:
        with pytest.raises(multiprocessing.TimeoutError):
            pool.apply_async(nap, (1,)).get(0.05)
        assert pool.apply(square, (3,)) == 9


def test_large_arrays_go_in_and_out(shared_pool: Any) -> None:
    arrays = [numpy.full(50_000, float(i)) for i in range(8)]
    for received, sent in zip(shared_pool.map(doubled, arrays), arrays, strict=True):
        assert numpy.array_equal(received, sent * 2)
    # The tasks changed their own copies.
    assert [array[0] for array in arrays] == list(range(8))


def test_arrays_are_given_back_after_their_results_are_dropped(shared_pool: Any) -> None:
    shared_pool.map(doubled, [numpy.ones(50_000)] * 2)
    start = n_blocks()
    for _ in range(3):
        results = list(shared_pool.imap_unordered(doubled, [numpy.ones(50_000)] * 4))
        del results
    # Each worker keeps its last task until the next one comes.
    assert until(lambda: n_blocks() <= start + 2, 2)


def test_many_small_tasks(shared_pool: Any) -> None:
    assert sum(shared_pool.imap_unordered(square, range(3000), chunksize=10)) == sum(
        i * i for i in range(3000)
    )


def test_work_is_shared_among_the_workers(dragon: BaseContext) -> None:
    with dragon.Pool(3) as pool:
        pids = {worker.pid for worker in pool._pool}
        assert set(pool.map(own_pid, range(60), chunksize=1)) <= pids
        assert len(pids) == 3


def test_close_and_join_finish_what_was_given(dragon: BaseContext) -> None:
    pool = dragon.Pool(2)
    results = pool.map_async(square, range(50))
    pool.close()
    with pytest.raises(ValueError, match="not running"):
        pool.apply(square, (1,))
    pool.join()
    assert results.get(1) == [i * i for i in range(50)]


def test_the_context_manager_ends_the_workers(dragon: BaseContext) -> None:
    with dragon.Pool(2) as pool:
        pids = pool.map(own_pid, range(4))
        assert pool.map(square, [2]) == [4]
    assert until(lambda: not any(map(is_alive, pids)))
    with pytest.raises(ValueError, match="not running"):
        pool.map(square, [1])


@pytest.mark.parametrize("n_tasks", [1, 4, 500])
def test_terminate_ends_a_busy_pool(dragon: BaseContext, n_tasks: int) -> None:
    pool = dragon.Pool(2)
    pool.map_async(nap, range(n_tasks), chunksize=1)
    pids = [worker.pid for worker in pool._pool]
    pool.terminate()
    pool.join()
    assert until(lambda: not any(map(is_alive, pids)))


def test_terminate_ends_a_pool_with_large_tasks_in_its_queue(dragon: BaseContext) -> None:
    start = n_blocks()
    pool = dragon.Pool(1)
    pool.map_async(nap, [numpy.ones(100_000)] * 20, chunksize=1)
    pool.terminate()
    pool.join()
    del pool
    assert until(lambda: n_blocks() <= start + 40, 2)


def test_terminate_works_after_a_worker_was_killed(dragon: BaseContext) -> None:
    pool = dragon.Pool(2)
    pool.apply_async(kill_self)
    pool.terminate()
    pool.join()


def test_a_killed_idle_worker_is_replaced(dragon: BaseContext) -> None:
    with dragon.Pool(1) as pool:
        first = pool.apply(own_pid)
        os.kill(first, 9)
        assert until(lambda: not is_alive(first))
        assert pool.apply_async(own_pid).get(20) != first


def test_maxtasksperchild_renews_the_workers(dragon: BaseContext) -> None:
    with dragon.Pool(1, maxtasksperchild=2) as pool:
        pids = pool.map(own_pid, range(6), chunksize=1)
        assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [2, 2, 2]


def test_the_initializer_runs_in_each_worker(dragon: BaseContext) -> None:
    with dragon.Pool(2, initializer=initialise, initargs=("value",)) as pool:
        assert pool.map(is_initialised, range(4), chunksize=1) == [("value", i) for i in range(4)]


def test_a_pool_runs_in_a_process(dragon: BaseContext) -> None:
    results = dragon.Queue()
    process = dragon.Process(target=pool_in_a_process, args=("dragon", results))
    process.start()
    assert results.get(timeout=20) == [0, 1, 4, 9, 16]
    process.join()
    assert process.exitcode == 0


def test_a_pool_with_no_workers_is_a_value_error(ctx: BaseContext) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ctx.Pool(0)


def test_a_pool_is_the_stock_class_and_its_repr_tells(shared_pool: Any) -> None:
    assert isinstance(shared_pool, multiprocessing.pool.Pool)
    assert "state=RUN pool_size=2" in repr(shared_pool)


def test_pools_cannot_be_pickled(shared_pool: Any) -> None:
    with pytest.raises(NotImplementedError, match="pool objects cannot be passed"):
        shared_pool.apply(square, (shared_pool,))


def test_a_pool_subclass_of_the_user_works(dragon: BaseContext) -> None:
    class Own(multiprocessing.pool.Pool):
        pass

    with Own(1, context=dragon) as pool:
        assert pool.map(square, [1, 2]) == [1, 4]


def test_thread_pools_are_untouched(run: Callable[..., Outcome]) -> None:
    text = """
import multiprocessing, multiprocessing.dummy, multiprocessing.pool
multiprocessing.set_start_method("dragon")
with multiprocessing.pool.ThreadPool(2) as pool:
    print(pool.map(abs, [-1, -2]), type(pool._inqueue).__module__)
with multiprocessing.dummy.Pool(2) as pool:
    print(pool.apply(abs, (-3,)))
"""
    assert run(text) == ("[1, 2] _queue\n3\n", "", 0)


def test_leaving_a_program_with_an_open_pool_ends_it(run: Callable[..., Outcome]) -> None:
    text = """
import multiprocessing
if __name__ == "__main__":
    pool = multiprocessing.get_context("dragon").Pool(2)
    print(pool.map(abs, [-1]))
"""
    done = run(text)
    assert (done.stdout, done.status) == ("[1]\n", 0)


class NotesWhatIsBlocked:
    """Notes the signals that are blocked while it is pickled."""

    def __init__(self) -> None:
        self.blocked: list[set[Any]] = []

    def __reduce__(self) -> Any:
        self.blocked.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        return NotesWhatIsBlocked, ()


def test_a_pool_is_made_with_interrupts_blocked_only_after_its_arguments_are_pickled(
    dragon: BaseContext,
) -> None:
    argument = NotesWhatIsBlocked()
    with dragon.Pool(2, id, (argument,)):
        assert [signal.SIGINT in blocked for blocked in argument.blocked] == [False, False]
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def is_blocked(number: int, thread: threading.Thread) -> bool:
    with open(f"/proc/self/task/{thread.native_id}/status") as status:
        (mask,) = [line.split()[1] for line in status if line.startswith("SigBlk:")]
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_the_threads_of_a_pool_leave_interrupts_to_the_main_one(dragon: BaseContext) -> None:
    before = set(threading.enumerate())
    with dragon.Pool(1):
        threads = set(threading.enumerate()) - before
        assert {thread.name for thread in threads} == {"dragon-pool", "dragon-pool-supervisor"}
        until(lambda: all(is_blocked(signal.SIGINT, thread) for thread in threads))


def test_a_pool_whose_init_was_not_begun_is_deleted_quietly(dragon: BaseContext) -> None:
    with dragon.Pool(1) as pool:
        made: Any = type(pool)
    made.__new__(made).__del__()


def test_a_worker_loads_nothing_of_the_programs_side(run: Callable[..., Outcome]) -> None:
    text = """
import multiprocessing, sys
def loaded():
    return sorted(name for name in sys.modules if name.startswith("dragon_overlay.pool."))
if __name__ == "__main__":
    with multiprocessing.get_context("dragon").Pool(1) as pool:
        print(*[name.rpartition(".")[2] for name in pool.apply(loaded)])
"""
    assert run(text) == ("letters protocol stacks worker\n", "", 0)
