"""Fixtures of the tests that run under any Python."""

import os
import random
import sys
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from channel_support import MIB, SHM, spawn

from dragon.channels import Channel
from dragon.managed_memory import MemoryPool


@pytest.fixture
def name() -> Iterator[str]:
    name = f"test{os.getpid()}x{random.getrandbits(40):x}"
    yield name
    for file in SHM.glob(f"D{name}*M"):
        file.unlink()


@pytest.fixture
def pool(name: str) -> Iterator[MemoryPool]:
    with MemoryPool(4 * MIB, name, 7) as pool:
        yield pool


@pytest.fixture
def channel(pool: MemoryPool) -> Iterator[Channel]:
    with Channel(pool, 3) as channel:
        yield channel


@pytest.fixture
def processes() -> Iterator[Callable[..., BaseProcess]]:
    """Starts processes; whatever is left of them at the end is killed."""
    started: list[BaseProcess] = []

    def start(target: Callable[..., None], *args: Any) -> BaseProcess:
        process = spawn.Process(target=target, args=args)
        process.start()
        started.append(process)
        return process

    main = sys.modules["__main__"]
    spec, file = main.__spec__, main.__dict__.pop("__file__", None)
    main.__spec__ = None  # the children need not import pytest
    yield start
    main.__spec__ = spec
    if file is not None:
        main.__file__ = file
    for process in started:
        process.kill()
        process.join()
