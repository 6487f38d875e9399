"""Managers and proxies: which of them talk through shared memory, and what happens at the end.

That they do what the standard library's do is for CPython's own tests.
"""

import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from multiprocessing import connection, process
from multiprocessing.context import BaseContext
from multiprocessing.managers import BaseManager, SyncManager
from typing import Any

import numpy
import pytest

from dragon_overlay.errors import WorkerDied
from dragon_overlay.proxy_connection import ProxyConnection


@pytest.fixture
def manager(dragon: BaseContext) -> Iterator[SyncManager]:
    with dragon.Manager() as manager:
        yield manager


def connection_of(proxy: Any) -> Any:
    """What this thread calls the manager through."""
    proxy._callmethod("__len__")
    return proxy._tls.connection


def set_item(items: Any, key: str, value: Any, kind: Any) -> None:
    items[key] = value
    items["kind"] = type(connection_of(items)) is kind


def test_a_proxy_calls_its_manager_through_shared_memory(manager: SyncManager) -> None:
    assert type(connection_of(manager.dict())) is ProxyConnection


def test_a_proxy_in_a_child_calls_through_shared_memory(
    dragon: BaseContext, manager: SyncManager
) -> None:
    items = manager.dict()
    child = dragon.Process(target=set_item, args=(items, "a", 1, ProxyConnection))
    child.start()
    child.join()
    assert items.copy() == {"a": 1, "kind": True}


def test_a_temporary_directory_with_a_long_name_leaves_the_standard_librarys_socket(
    dragon: BaseContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        # The standard library's names of 17 bytes still fit into an address of 108, ours do not.
        long = os.path.join(folder, "a" * (108 - 20 - len(folder)))
        os.mkdir(long)
        monkeypatch.setitem(process.current_process()._config, "tempdir", long)  # type: ignore[attr-defined]
        with dragon.Manager() as manager:
            assert type(connection_of(manager.dict())) is connection.Connection


def test_a_proxy_in_a_child_of_another_start_method_calls_through_the_socket(
    manager: SyncManager,
) -> None:
    items = manager.dict()
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=set_item, args=(items, "a", 1, connection.Connection))
    child.start()
    child.join()
    assert items.copy() == {"a": 1, "kind": True}


def test_each_thread_has_a_connection_of_its_own(manager: SyncManager) -> None:
    items = manager.list()
    seen: list[Any] = [connection_of(items)]
    thread = threading.Thread(target=lambda: seen.append(connection_of(items)))
    thread.start()
    thread.join()
    assert [type(one) for one in seen] == [ProxyConnection, ProxyConnection]
    assert seen[0] is not seen[1]


def test_a_manager_at_an_address_of_the_programs_is_the_standard_librarys(
    dragon: BaseContext, tmp_path: Any
) -> None:
    manager = SyncManager(address=str(tmp_path / "manager"), ctx=dragon)  # type: ignore[call-arg]
    with manager:
        assert type(connection_of(manager.list())) is connection.Connection


def test_a_manager_of_another_start_method_is_the_standard_librarys() -> None:
    with multiprocessing.get_context("spawn").Manager() as manager:
        assert type(connection_of(manager.list())) is connection.Connection


def test_a_manager_that_cannot_take_the_pipe_serves_the_socket(
    manager: SyncManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dragon_overlay import managers

    monkeypatch.setattr(managers, "_REQUEST", "a_request_that_it_does_not_know")
    items = manager.list([1, 2])
    assert type(connection_of(items)) is connection.Connection
    assert list(items) == [1, 2]


def test_the_death_of_a_manager_ends_the_calls_to_it(manager: SyncManager) -> None:
    event = manager.Event()
    event.is_set()
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            event.wait()
        except (EOFError, OSError) as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    os.kill(manager._process.pid, signal.SIGKILL)  # type: ignore[attr-defined]
    thread.join(20)
    assert not thread.is_alive()
    assert len(errors) == 1
    with pytest.raises((EOFError, OSError)):
        event.is_set()


class CutShortError(Exception):
    """What the signal handler raises."""


class Service:
    """What a manager has."""

    def interrupt_and_wait(self, pid: int) -> None:
        os.kill(pid, signal.SIGUSR1)
        threading.Event().wait()

    def answer(self) -> str:
        return "an answer"


class ServiceManager(BaseManager):
    pass


ServiceManager.register("Service", Service)


def test_a_call_that_a_signal_has_ended_does_not_keep_the_next_one_from_its_answer(
    dragon: BaseContext,
) -> None:
    def interrupt(*_: object) -> None:
        raise CutShortError

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with ServiceManager(ctx=dragon) as manager:  # type: ignore[call-arg]
            service = manager.Service()  # type: ignore[attr-defined]
            with pytest.raises(CutShortError):
                service.interrupt_and_wait(os.getpid())
            assert service.answer() == "an answer"
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_manager_keeps_arrays_of_its_own(manager: SyncManager) -> None:
    items = manager.dict()
    array = numpy.arange(100_000)
    items["array"] = array
    array[:] = 0
    first, second = items["array"], items["array"]
    first[:] = 1
    assert second.sum() == sum(range(100_000))


def test_errors_and_proxies_of_results_come_back(manager: SyncManager) -> None:
    outer = manager.dict()
    outer["inner"] = manager.list([1])
    outer["inner"].append(2)
    assert list(outer["inner"]) == [1, 2]
    with pytest.raises(KeyError, match="missing"):
        outer["missing"]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_managers_pool_tells_of_a_worker_that_died(dragon: BaseContext) -> None:
    with dragon.Manager() as manager, manager.Pool(1) as pool:  # type: ignore[attr-defined]
        with pytest.raises(WorkerDied, match="SIGKILL"):
            pool.apply(die)
        assert pool.map(abs, [-1, -2]) == [1, 2]
