"""Lambdas, local functions and classes go from a starter to its workers by value."""

import concurrent.futures
import functools
import multiprocessing
import multiprocessing.pool
import threading
from collections.abc import Callable
from multiprocessing.context import BaseContext
from typing import Any

import numpy
import pytest
from children import Refuses, square
from overlay_support import Outcome, n_blocks

pytest.importorskip("cloudpickle", reason="objects travel by value with cloudpickle only")


def run_to_end(process: Any) -> None:
    process.start()
    process.join()
    assert process.exitcode == 0


def test_a_lambda_is_a_target(dragon: BaseContext) -> None:
    results = dragon.Queue()
    run_to_end(dragon.Process(target=lambda x: results.put(x + 1), args=(1,)))
    assert results.get() == 2


def test_a_local_class_is_an_argument_and_a_process(dragon: BaseContext) -> None:
    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

    class Adder(dragon.Process):  # type: ignore[misc,name-defined]
        def __init__(self, point: Point, results: Any) -> None:
            super().__init__()
            self.point = point
            self.results = results

        def run(self) -> None:
            self.results.put((self.point.x, isinstance(self.point, Point)))

    results = dragon.Queue()
    run_to_end(Adder(Point(7), results))
    assert results.get() == (7, True)


def test_objects_of_the_runtime_work_in_a_closure(dragon: BaseContext) -> None:
    lock, event, results = dragon.Lock(), dragon.Event(), dragon.Queue()
    connection, other = dragon.Pipe()

    def target() -> None:
        with lock:
            event.set()
        other.send("through the pipe")
        results.put("through the queue")

    run_to_end(dragon.Process(target=target))
    assert event.is_set()
    assert connection.recv() == "through the pipe"
    assert results.get() == "through the queue"


def test_an_object_that_is_pickled_twice_hands_over_its_descriptor_once(
    dragon: BaseContext,
) -> None:
    connection, other = dragon.Pipe()
    # By the time the lambda is met, the connection has been pickled.
    run_to_end(dragon.Process(target=call_and_send, args=(other, lambda: 6)))
    assert connection.recv() == 6


def call_and_send(connection: Any, function: Callable[[], Any]) -> None:
    connection.send(function())


def test_all_calls_of_a_pool_take_lambdas(dragon: BaseContext) -> None:
    start = 10
    with dragon.Pool(2, initializer=lambda x: None, initargs=(lambda: 1,)) as pool:
        assert pool.apply(lambda x, *, y: x + y, (1,), {"y": 2}) == 3
        assert pool.map(lambda x: x + start, range(5)) == [10, 11, 12, 13, 14]
        assert pool.starmap(lambda x, y: x * y, [(2, 3)]) == [6]
        assert list(pool.imap(lambda x: -x, range(4), chunksize=2)) == [0, -1, -2, -3]
        assert sorted(pool.imap_unordered(lambda f: f(), [lambda: 1, lambda: 2])) == [1, 2]


def test_a_task_carries_a_lock_and_a_queue(dragon: BaseContext) -> None:
    lock, results = dragon.Lock(), dragon.Queue()

    def task(x: int) -> None:
        with lock:
            results.put(x)

    with dragon.Pool(2) as pool:
        pool.map(task, range(10), chunksize=1)
    assert sorted(results.get() for _ in range(10)) == list(range(10))


def test_a_task_by_value_that_cannot_be_sent_leaves_nothing_behind(dragon: BaseContext) -> None:
    with dragon.Pool(1) as pool:
        assert pool.apply(lambda: 1) == 1
        start = n_blocks()
        results = dragon.Queue()
        with pytest.raises(ArithmeticError, match="refuses"):
            pool.apply(lambda *args: None, (results, Refuses()))
        del results
        assert n_blocks() <= start
        assert pool.apply(square, (3,)) == 9


def test_large_and_small_arrays_go_by_value(dragon: BaseContext) -> None:
    def change(array: Any) -> Any:
        array[0] = 7
        if array.size < 1000:
            array.resize(array.size + 1, refcheck=False)
        return array.sum(), array.size

    with dragon.Pool(1) as pool:
        assert pool.apply(change, (numpy.ones(50_000),)) == (50_006, 50_000)
        assert pool.apply(change, (numpy.ones(100),)) == (106, 101)


def test_an_executor_takes_lambdas(dragon: BaseContext) -> None:
    start = 10
    with concurrent.futures.ProcessPoolExecutor(
        2, mp_context=dragon, initializer=lambda: None
    ) as executor:
        assert executor.submit(lambda x: x + start, 1).result(20) == 11
        assert list(executor.map(lambda x: x * x, range(4))) == [0, 1, 4, 9]
        with pytest.raises(ArithmeticError, match="refuses"):
            executor.submit(lambda x: x, Refuses()).result(20)
        assert executor.submit(square, 2).result(20) == 4


def test_a_stock_executor_is_as_ever() -> None:
    spawn = multiprocessing.get_context("spawn")
    with (
        concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as executor,
        pytest.raises(Exception, match="Can't pickle"),
    ):
        executor.submit(lambda: 1).result(20)


def test_results_and_queue_items_do_not_go_by_value(
    dragon: BaseContext, capsys: pytest.CaptureFixture[str]
) -> None:
    with dragon.Pool(1) as pool, pytest.raises(multiprocessing.pool.MaybeEncodingError):
        pool.apply(lambda: lambda: 1)
    items = dragon.Queue()
    items.put(lambda: 1)
    assert items.empty()
    assert "Can't pickle" in capsys.readouterr().err


def test_what_no_pickler_can_send_is_its_error(dragon: BaseContext) -> None:
    lock = threading.Lock()
    with pytest.raises(TypeError, match=r"cannot pickle '_thread\.lock' object"):
        dragon.Process(target=print, args=(lock,)).start()
    with pytest.raises(TypeError, match=r"cannot pickle '_thread\.lock' object"):
        dragon.Process(target=lambda: lock).start()


def test_a_method_of_its_own_pickling_is_called_once(dragon: BaseContext) -> None:
    class Counts:
        n = 0

        def __getstate__(self) -> Any:
            Counts.n += 1
            raise AttributeError("a mistake of its own")

    with dragon.Pool(1) as pool, pytest.raises(AttributeError, match="a mistake of its own"):
        pool.apply(lambda x: x, (Counts(),))
    assert Counts.n == 1


MAIN = """
import multiprocessing, sys

class Point:
    pass

def is_point(point):
    return type(point) is Point

def apart():
    return (lambda point: type(point) is Point)(Point())

if __name__ == "__main__":
    with multiprocessing.get_context("dragon").Pool(1) as pool:
        print(pool.apply(is_point, (Point(),)), "cloudpickle" in sys.modules)
        print(pool.apply(lambda point: is_point(point), (Point(),)), "cloudpickle" in sys.modules)
"""


def test_what_main_defines_goes_by_name_where_main_is_imported(
    run: Callable[..., Outcome],
) -> None:
    # Also along with a lambda: by value, Point would be another class than main's in the worker.
    assert run(MAIN) == ("True False\nTrue True\n", "", 0)


def test_children_pass_on_what_came_by_value(dragon: BaseContext) -> None:
    results = dragon.Queue()

    def outer(inner: Callable[[], int]) -> None:
        process = multiprocessing.get_context("dragon").Process(
            target=lambda: results.put(inner() + 1)
        )
        process.start()
        process.join()

    run_to_end(dragon.Process(target=outer, args=(lambda: 1,)))
    assert results.get() == 2


WITHOUT = """
import multiprocessing, sys
sys.modules["cloudpickle"] = None
context = multiprocessing.get_context("dragon")

def attempt(function, *args):
    try:
        print(function(*args))
    except Exception as error:
        print(type(error).__name__, error)

def main():
    attempt(context.Process(target=lambda: 1).start)
    attempt(context.Process(target=print, args=("__main__",)).start)
    with context.Pool(1) as pool:
        attempt(pool.apply, lambda: 1)
        attempt(pool.apply, abs, (-5,))

if __name__ == "__main__":
    main()
"""


def test_without_cloudpickle_the_error_says_what_to_do(run: Callable[..., Outcome]) -> None:
    done = run(WITHOUT)
    assert (done.stderr, done.status) == ("", 0)
    start, started, task, result = (x for x in done.stdout.splitlines() if x != "__main__")
    assert (started, result) == ("None", "5")
    for line in (start, task):
        assert line.startswith("PicklingError Can't pickle local object 'main.<locals>.<lambda>'.")
        assert line.endswith("(pip install cloudpickle)")


@functools.cache
def of_this_module(x: int) -> int:
    return x + len(calls)


calls: list[int] = []


def test_cached_functions_go_by_value_only_where_they_must(dragon: BaseContext) -> None:
    @functools.lru_cache(maxsize=3, typed=True)
    def local(x: int) -> int:
        return of_this_module(x) * 10

    def describe(function: Any) -> Any:
        return function(2), function.cache_parameters(), function.__name__

    calls.append(1)
    with dragon.Pool(1) as pool:
        # The list of the worker's own module is empty.
        parameters = {"maxsize": 3, "typed": True}
        assert pool.apply(describe, (local,)) == (20, parameters, "local")
        assert pool.apply(local, (3,)) == 30
    calls.clear()
