"""Fixtures of the overlay's tests, which run inside dragon."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from multiprocessing.context import BaseContext
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from overlay_support import Outcome, run_script

#: No wait of a test is longer; what hangs is interrupted, and shows where.
LIMIT_S = 30


@pytest.fixture(scope="session", autouse=True)
def children_import_no_pytest() -> Iterator[None]:
    """Started processes need not import pytest's main: their functions are in modules."""
    main = sys.modules["__main__"]
    spec, file = main.__spec__, main.__dict__.pop("__file__", None)
    main.__spec__ = None
    yield
    main.__spec__ = spec
    if file is not None:
        main.__file__ = file


@pytest.fixture(autouse=True)
def nothing_hangs() -> Iterator[None]:
    """Interrupt a test that waits for ever, and end the processes that a failed test left."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"the test took more than {LIMIT_S} s")

    before = multiprocessing.active_children()
    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)
    for child in multiprocessing.active_children():
        if child not in before:
            child.kill()
            child.join()


@pytest.fixture
def dragon() -> BaseContext:
    """The context of start method "dragon"."""
    return multiprocessing.get_context("dragon")


@pytest.fixture(params=["dragon", "spawn"])
def ctx(request: pytest.FixtureRequest) -> BaseContext:
    """The context under test, and the standard library's as the reference of how it behaves."""
    method: str = request.param
    return multiprocessing.get_context(method)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Outcome]:
    """Run a program, given as text, with the dragon that runs the tests; to its end."""

    def run(text: str, *words: str, **options: object) -> Outcome:
        return run_script(text, *words, folder=tmp_path, **options)

    return run


@pytest.fixture
def new_in_shm() -> Iterator[Callable[[], set[str]]]:
    """Names in /dev/shm that were not there when the test began."""
    before = set(os.listdir("/dev/shm"))
    yield lambda: set(os.listdir("/dev/shm")) - before


@pytest.fixture
def tools(run: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """As `run`; programs can import what lies beside this file."""

    def run_with_tools(text: str, *words: str, **options: Any) -> Outcome:
        env = {"PYTHONPATH": str(Path(__file__).parent)} | options.pop("env", {})
        return run(text, *words, env=env, **options)

    return run_with_tools
