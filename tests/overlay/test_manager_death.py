"""Every call of a proxy whose manager's server has ended raises, and says what has happened."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing.context import BaseContext
from typing import Any

import pytest
from overlay_support import is_asleep, until

LOST = (EOFError, ConnectionError, FileNotFoundError)
NAMED = r"the server of SyncManager, \S+ \(pid {}\) at '\S+', was killed by SIGKILL"

CALLS: dict[str, Callable[[Any], object]] = {
    "list": lambda m: m.kept["list"].append(1),
    "dict": lambda m: m.kept["dict"]["a"],
    "queue": lambda m: m.kept["queue"].get(),
    "lock": lambda m: m.kept["lock"].acquire(),
    "namespace": lambda m: m.kept["namespace"].x,
    "value": lambda m: m.kept["value"].value,
    "new list": lambda m: m.list(),
    "another thread": lambda m: in_thread(m.kept["list"].pop),
}


def in_thread(call: Callable[[], object]) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001  # what it is, is what is tested
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    raise errors[0]


@pytest.fixture
def manager(dragon: BaseContext) -> Iterator[Any]:
    manager: Any = dragon.Manager()
    manager.kept = {
        "list": manager.list([1]),
        "dict": manager.dict(a=1),
        "queue": manager.Queue(),
        "lock": manager.Lock(),
        "namespace": manager.Namespace(x=1),
        "value": manager.Value("i", 1),
    }
    yield manager
    manager.shutdown()


def kill(manager: Any) -> int:
    pid: int = manager._process.pid
    os.kill(pid, signal.SIGKILL)
    manager._process.join()
    return pid


@pytest.mark.parametrize("call", CALLS)
def test_a_call_after_the_servers_death_names_it(manager: Any, call: str) -> None:
    CALLS["list"](manager)  # has a connection
    pid = kill(manager)
    for _ in range(2):
        with pytest.raises(LOST, match=NAMED.format(pid)):
            CALLS[call](manager)


def test_a_call_under_way_when_the_server_dies_raises(manager: Any) -> None:
    pid = manager._process.pid
    caller = threading.main_thread()

    def kill_in_call() -> None:
        until(lambda: is_asleep(caller))
        os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_in_call)
    killer.start()
    with pytest.raises(LOST, match=NAMED.format(pid)):
        manager.kept["queue"].get()
    killer.join()


def append(proxy: Any, ready: Any, go: Any, result: Any) -> None:
    ready.put(proxy[0])
    go.wait()
    try:
        proxy.append(2)
    except BaseException as error:  # noqa: BLE001  # what it is, is what is tested
        result.put((type(error).__name__, str(error)))


def test_a_call_in_another_process_names_the_address(dragon: BaseContext, manager: Any) -> None:
    ready, go, result = dragon.Queue(), dragon.Event(), dragon.Queue()
    child = dragon.Process(target=append, args=(manager.kept["list"], ready, go, result))
    child.start()
    assert ready.get() == 1
    kill(manager)
    go.set()
    kind, text = result.get(timeout=20)
    child.join()
    assert kind in ("BrokenPipeError", "ConnectionResetError", "EOFError")
    assert f"the server of the manager at {manager._address!r} has ended" in text


def test_an_error_of_the_referent_stays_as_it_is(manager: Any) -> None:
    with pytest.raises(KeyError, match="'b'"):
        manager.kept["dict"].pop("b")


def test_a_lost_connection_to_a_living_server_is_no_death(manager: Any) -> None:
    with pytest.raises(EOFError) as caught:
        manager.kept["value"].set(EndsConnection())
    assert str(caught.value) == ""
    assert manager._number_of_objects() > 0


class EndsConnection:
    """The server takes the error of its unpickling for the end of the connection."""

    def __reduce__(self) -> Any:
        return _raise, ()


def _raise() -> None:
    raise EOFError


def test_managers_of_other_start_methods_say_what_they_said() -> None:
    manager = multiprocessing.get_context("spawn").Manager()
    proxy = manager.list([1])
    kill(manager)
    with pytest.raises(LOST) as caught:
        proxy.append(1)
    assert "the server of" not in str(caught.value)
