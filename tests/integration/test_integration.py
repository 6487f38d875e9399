"""Programs of other people's libraries print under start method "dragon" what they print elsewhere.

Each program in programs/ uses a library as its documentation shows it, and knows nothing of dragon:
it takes the default start method, or the one that its first argument names. The reference is the
same program, run by python3 with "spawn".

The executable is $DRAGON_EXE, by default build/dragon. A virtual environment that is active is used
by both: that is how libraries are tested which the distribution does not have.
"""

import functools
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from whole_run import run_whole, shared_memory_names, wait_until_empty

REPO = Path(__file__).resolve().parents[2]
PROGRAMS = Path(__file__).parent / "programs"
DRAGON = Path(os.environ.get("DRAGON_EXE", REPO / "build" / "dragon")).absolute()
ENVIRONMENT = os.environ.get("VIRTUAL_ENV")
SYSTEM = os.environ.get("DRAGON_PYTHON", "/usr/bin/python3.11")
PYTHON = Path(ENVIRONMENT) / "bin" / "python3" if ENVIRONMENT else Path(SYSTEM)
LIMIT_S = 300


class Way(NamedTuple):
    """How a program comes to use start method "dragon"."""

    options: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


WAYS = {
    "option": Way(options=("--start-method", "dragon")),
    "name": Way(arguments=("dragon",)),
    "joblib": Way(environment=(("JOBLIB_START_METHOD", "dragon"),)),
}

#: By package: how it is installed.
SOURCES = {
    "dask": "python3-dask",
    "joblib": "python3-joblib",
    "numpy": "python3-numpy",
    "pandas": "python3-pandas",
    "sklearn": "python3-sklearn",
    "torch": "python3-torch, or `pip install torch` in a virtual environment",
}

#: By program: the packages that it imports, and the `WAYS` in which it is run.
RUNS = {
    "numpy_carriers": (("numpy",), ("option", "name")),
    "numpy_linear_algebra": (("numpy",), ("option",)),
    "numpy_shared": (("numpy",), ("option",)),
    "numpy_random": (("numpy",), ("option",)),
    "joblib_parallel": (("joblib", "numpy"), ("option", "joblib")),
    "sklearn_jobs": (("sklearn", "joblib", "numpy"), ("option",)),
    "pandas_pool": (("pandas", "numpy"), ("name",)),
    "dask_processes": (("dask", "numpy"), ("name",)),
    "torch_dataloader": (("torch",), ("option", "name")),
    "torch_tensors": (("torch",), ("option",)),
    "torch_random": (("torch", "numpy"), ("option",)),
}


@functools.cache
def is_importable(package: str) -> bool:
    find = f"import importlib.util, sys; sys.exit(not importlib.util.find_spec({package!r}))"
    return subprocess.run([PYTHON, "-c", find]).returncode == 0


def run(command: list[str | Path], **changes: str) -> subprocess.CompletedProcess[str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "DRAGON_", "JOBLIB_", "DASK_"))
    }
    always = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONWARNINGS": "ignore"}
    return run_whole(command, kept | always | changes, LIMIT_S)


@pytest.fixture(scope="module")
def helper() -> Iterator[ThreadPoolExecutor]:
    """One thread: references are run beside the tests."""
    with ThreadPoolExecutor(1) as executor:
        yield executor


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left(helper: ThreadPoolExecutor) -> Iterator[None]:
    """All programs together leave no name in /dev/shm."""
    before = shared_memory_names()
    yield
    assert not wait_until_empty(lambda: shared_memory_names() - before), "/dev/shm"


_references: dict[str, Future[subprocess.CompletedProcess[str]]] = {}


@pytest.mark.parametrize(
    ("name", "way"), [(name, way) for name, (_, ways) in RUNS.items() for way in ways]
)
def test_a_program_prints_what_it_prints_under_spawn(
    helper: ThreadPoolExecutor, name: str, way: str
) -> None:
    for package in RUNS[name][0]:
        if not is_importable(package):
            pytest.skip(f"{package} is not installed: {SOURCES[package]}")
    program = PROGRAMS / f"{name}.py"
    if name not in _references:
        _references[name] = helper.submit(run, [PYTHON, program, "spawn"])
    options, arguments, environment = WAYS[way]
    done = run([DRAGON, *options, program, *arguments], **dict(environment))
    reference = _references[name].result()
    assert (reference.stderr, reference.returncode) == ("", 0)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.splitlines() == reference.stdout.splitlines() != []


def test_every_program_is_run() -> None:
    assert {program.stem for program in PROGRAMS.glob("*.py")} == set(RUNS)
