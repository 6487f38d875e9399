"""Every example prints what it promises, under dragon and under plain Python, and leaves nothing.

The expected output is worked out here by other means than the example's own: one process, another
algorithm, or a number from the literature. The executable is $DRAGON_EXE, by default build/dragon.
"""

import ast
import functools
import hashlib
import importlib.util
import os
import random
import re
import subprocess
import zlib
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest
from whole_run import run_whole, shared_memory_names, wait_until_empty

REPO = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((REPO / "examples").glob("[0-9][0-9]_*.py"))
DRAGON = Path(os.environ.get("DRAGON_EXE", REPO / "build" / "dragon")).absolute()
PYTHON = Path("/usr/bin/python3.11")
RUN_LIMIT_S = 60

Start = Callable[..., subprocess.CompletedProcess[str]]  # (number, *arguments): run an example


# Running a program and looking at what it leaves


def run(command: list[str | Path], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; fail if it leaves a process or a name in /dev/shm.

    Args:
        command: the program and its arguments.
        environment: variables to add to this process's.
    """
    environ = {k: v for k, v in os.environ.items() if k != "DRAGON_START_METHOD"}
    before = shared_memory_names()
    done = run_whole(command, environ | environment, RUN_LIMIT_S)
    assert not wait_until_empty(lambda: shared_memory_names() - before), "/dev/shm"
    return done


@pytest.fixture(params=["dragon", "spawn"])
def start(request: pytest.FixtureRequest) -> Start:
    """Return a function that runs an example by its number, under one of the two interpreters."""
    method = request.param
    executable = DRAGON if method == "dragon" else PYTHON
    if not executable.exists():
        pytest.skip(f"{executable} does not exist")

    def start_example(number: int, *args: str | Path) -> subprocess.CompletedProcess[str]:
        path = EXAMPLES[number - 1]
        if "import numpy" in path.read_text() and not has_numpy(executable):
            pytest.skip(f"{executable.name} has no numpy")
        return run([executable, path, "--method", method, *args])

    return start_example


@functools.cache
def has_numpy(executable: Path) -> bool:
    """Tell whether an interpreter finds numpy."""
    find = "import importlib.util, sys; sys.exit(not importlib.util.find_spec('numpy'))"
    return subprocess.run([executable, "-c", find]).returncode == 0


def assert_prints(done: subprocess.CompletedProcess[str], expected: str) -> None:
    """Check a finished program: output as expected, nothing on stderr, exit status 0."""
    assert (done.stderr, done.stdout, done.returncode) == ("", expected, 0)


# What the examples print


def test_01_prints_the_prime_factors_in_order(start: Start) -> None:
    factors = {
        1001: (7, 11, 13),
        65_537: (65_537,),  # a Fermat prime
        600_851_475_143: (71, 839, 1471, 6857),
        1_000_000_007: (1_000_000_007,),
        2**50 - 1: (3, 11, 31, 251, 601, 1801, 4051),
    }
    lines = [f"{number} = {' * '.join(map(str, parts))}\n" for number, parts in factors.items()]
    lines.append("the worker ended with exit status 0\n")
    assert_prints(start(1), "".join(lines))


@functools.cache
def points_inside() -> int:
    """Count as example 02 does, in this process: 40 generators, 100,000 points each."""
    inside = 0
    for generator in map(random.Random, range(40)):
        draws = [generator.random() for _ in range(200_000)]
        inside += sum(x * x + y * y < 1 for x, y in zip(draws[::2], draws[1::2], strict=True))
    return inside


@pytest.mark.slow
def test_02_prints_the_same_estimate_as_one_process(start: Start) -> None:
    inside = points_inside()
    assert_prints(
        start(2),
        f"{inside} of 4000000 points lie inside the quarter circle\n"
        f"pi is about {inside / 1e6:.4f}\n",
    )


@functools.cache
def sorted_numbers() -> "array[int]":
    """Return example 03's three million numbers, sorted by the built-in function."""
    return array("I", sorted(array("I", random.Random(2024).randbytes(12_000_000))))


@pytest.mark.slow
def test_03_prints_the_checksum_of_the_sorted_numbers(start: Start) -> None:
    numbers = sorted_numbers()
    assert_prints(
        start(3),
        "3000000 numbers, in order: True\n"
        f"smallest {numbers[0]}, median {numbers[1_500_000]}, largest {numbers[-1]}\n"
        f"checksum {zlib.crc32(numbers):08x}\n",
    )


def test_04_counts_the_words_of_a_folder(start: Start, tmp_path: Path) -> None:
    files = {
        "a.txt": "One ring, one RING; one ring!",  # one 3, ring 3
        "b/c/deep.md": "ring of of of\n" * 100,  # ring 100; "of" is too short
        "b/code.py": "tail = head\n\x00\xff",  # tail 1, head 1; not UTF-8
        "empty.c": "",
        "picture.png": "ring ring",  # not text
        ".git/config.txt": "hidden",
        "build-x/made.c": "made",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="latin-1")
    assert_prints(
        start(4, tmp_path),
        "108 words, 4 different ones, in 4 files\n"
        "     103 ring\n"
        "       3 one\n"
        "       1 head\n"
        "       1 tail\n",
    )


def test_04_without_a_folder_reads_the_project(start: Start) -> None:
    done = start(4)
    assert (done.stderr, done.returncode) == ("", 0)
    assert " dragon\n" in done.stdout
    assert len(done.stdout.splitlines()) == 11


@functools.cache
def blurred_picture() -> tuple[float, int]:
    """Return mean and checksum of example 05's result, computed pixel row by pixel row.

    The kernel is an outer product, so a pass over the rows and one over the columns do the same
    as the two-dimensional sum.
    """
    import numpy as np

    y, x = np.mgrid[:1024, :1024]
    picture = np.bitwise_and(np.bitwise_xor(x * y // 64, x + 2 * y), 255)
    taps = np.array([1, 8, 28, 56, 70, 56, 28, 8, 1])
    for _ in range(2):
        padded = np.pad(picture, ((0, 0), (4, 4)), mode="edge")
        picture = np.array([np.convolve(row, taps, mode="valid") for row in padded]).T
    return picture.mean() / 256**2, zlib.crc32(picture.tobytes())


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("numpy"), reason="numpy is not installed")
def test_05_prints_the_checksum_of_the_blurred_picture(start: Start) -> None:
    mean, checksum = blurred_picture()
    assert_prints(
        start(5),
        f"equal to the direct computation: True\nmean {mean:.3f}, checksum {checksum:08x}\n",
    )


@pytest.mark.slow
def test_06_prints_the_number_of_primes(start: Start) -> None:
    # pi(10^6) and pi(2 * 10^7), as in published tables of the prime-counting function.
    assert_prints(start(6), "78498 primes below 1000000\n1270607 primes below 20000000\n")


def sha256_lines(paths: list[Path]) -> str:
    """Return what sha256sum prints for these files."""
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path}\n" for path in paths)


def test_07_prints_checksums_in_the_order_of_the_arguments(start: Start, tmp_path: Path) -> None:
    paths = [tmp_path / f"{9 - n}.bin" for n in range(10)]
    for n, path in enumerate(paths):
        path.write_bytes(random.Random(n).randbytes(n * 50_000))
    assert_prints(start(7, *paths), sha256_lines(paths))


def test_07_without_arguments_takes_the_examples(start: Start) -> None:
    assert_prints(start(7), sha256_lines(EXAMPLES))


def test_07_reports_a_file_it_cannot_read_and_exits_1(start: Start, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    done = start(7, missing)
    expected = (f"FAILED {missing}: No such file or directory\n", "", 1)
    assert (done.stderr, done.stdout, done.returncode) == expected


def test_07_runs_as_a_command_when_dragon_is_on_the_path(tmp_path: Path) -> None:
    if not DRAGON.exists():
        pytest.skip(f"{DRAGON} does not exist")
    (tmp_path / "dragon").symlink_to(DRAGON)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    assert_prints(run([EXAMPLES[6]], PATH=path), sha256_lines(EXAMPLES))


# What the examples look like


def test_the_examples_are_numbered_from_01_to_07() -> None:
    assert [path.name[:2] for path in EXAMPLES] == [f"{n:02}" for n in range(1, 8)]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short_and_says_how_to_run_it(path: Path) -> None:
    text = path.read_text()
    docstring = ast.get_docstring(ast.parse(text)) or ""
    assert len(text.splitlines()) < 80
    assert "Run it:" in docstring and path.name in docstring


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_imports_dragon_before_multiprocessing(path: Path) -> None:
    imports = re.findall(r"^ *(?:import|from) ([\w.]+)", path.read_text(), re.MULTILINE)
    bringers = ("multiprocessing", "concurrent.futures")
    assert imports.index("dragon") < min(map(imports.index, set(bringers) & set(imports)))
