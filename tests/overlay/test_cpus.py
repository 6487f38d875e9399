"""How many workers pools and executors have by default, and what cpu_count() says."""

import concurrent.futures
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.context import BaseContext
from typing import Any

import pytest
from children import own_pid
from overlay_support import Outcome

import _dragon
from dragon_overlay import cpus

#: No machine has so many.
MANY = 1_000_000


@pytest.mark.parametrize(
    ("n_of_mask", "quota", "expected"),
    [(8, None, 8), (8, 3, 3), (2, 3, 2), (8, 1, 1), (1, None, 1)],
)
def test_the_mask_and_the_quota_limit_what_is_usable(
    monkeypatch: pytest.MonkeyPatch, n_of_mask: int, quota: int | None, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(n_of_mask)))
    monkeypatch.setattr(_dragon, "cpu_limit", lambda: quota)
    assert cpus.n_usable() == expected


def test_the_quota_of_this_system_is_none_or_at_least_one_processor() -> None:
    quota = _dragon.cpu_limit()
    assert quota is None or quota >= 1


@pytest.fixture
def three_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that may use three processors, on a machine with very many."""
    monkeypatch.setattr(os, "cpu_count", lambda: MANY)
    monkeypatch.setattr(cpus, "n_usable", lambda: 3)


@pytest.mark.usefixtures("three_usable")
def test_a_pool_has_a_worker_for_each_usable_processor(dragon: BaseContext) -> None:
    with dragon.Pool() as pool:
        assert len(pool._pool) == 3  # type: ignore[attr-defined]
    with dragon.Pool(2) as pool:
        assert len(pool._pool) == 2  # type: ignore[attr-defined]


@pytest.mark.usefixtures("three_usable")
def test_an_executor_has_as_many_workers_at_most(dragon: BaseContext) -> None:
    make: Any = concurrent.futures.ProcessPoolExecutor
    with make(mp_context=dragon) as executor:
        assert executor._max_workers == 3
        assert executor.submit(own_pid).result() in executor._processes
    assert make(2, dragon)._max_workers == 2


@pytest.mark.usefixtures("three_usable")
def test_executors_of_other_methods_keep_the_stock_size() -> None:
    spawn = multiprocessing.get_context("spawn")
    make: Any = concurrent.futures.ProcessPoolExecutor
    assert make(mp_context=spawn)._max_workers == MANY
    # Without a context, but with this, an executor takes "spawn".
    assert make(max_tasks_per_child=1)._max_workers == MANY


@pytest.mark.usefixtures("three_usable")
def test_the_number_of_processors_is_the_machines(dragon: BaseContext) -> None:
    assert dragon.cpu_count() == multiprocessing.cpu_count() == MANY


@pytest.mark.parametrize("n_workers", [0, -1])
def test_no_workers_are_still_refused(dragon: BaseContext, n_workers: int) -> None:
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        concurrent.futures.ProcessPoolExecutor(n_workers, dragon)


AFFINITY = """
import concurrent.futures, multiprocessing, os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
def sizes(q):
    with multiprocessing.Pool() as pool:
        q.put((len(pool._pool), concurrent.futures.ProcessPoolExecutor()._max_workers))
if __name__ == "__main__":
    multiprocessing.set_start_method("dragon")
    q = multiprocessing.Queue()
    sizes(q)
    p = multiprocessing.Process(target=sizes, args=(q,))
    p.start()
    print(q.get(), q.get(), multiprocessing.cpu_count() == os.cpu_count())
    p.join()
"""


def test_a_process_bound_to_one_processor_and_its_child_have_pools_of_one(
    run: Callable[..., Outcome],
) -> None:
    assert run(AFFINITY) == Outcome("(1, 1) (1, 1) True\n", "", 0)
