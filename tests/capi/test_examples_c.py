"""The C programs of examples/c print what they promise and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("DRAGON_EXE", REPO / "build" / "dragon")).absolute().parent
END_LIMIT_S = 5


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    assert not list(Path("/dev/shm").glob("dragon-ring-*"))


def program(name: str) -> Path:
    path = BUILD / "examples" / "c" / name
    if not path.exists():
        pytest.skip(f"{path} does not exist")
    return path


def output(name: str, *arguments: int) -> str:
    command: list[str | Path] = [program(name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def comes_true_in_time(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + END_LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize(("processes", "rounds"), [(1, 1), (1, 50), (2, 1), (5, 200), (64, 3)])
def test_the_token_counts_each_pass(processes: int, rounds: int) -> None:
    expected = f"{processes} processes, {rounds} rounds: the token is {processes * rounds}\n"
    assert output("ring", processes, rounds) == expected


@pytest.mark.parametrize(
    ("producers", "blocks", "kibibytes"), [(1, 1, 1), (1, 40, 64), (3, 20, 1), (16, 5, 2048)]
)
def test_the_consumer_adds_up_every_word(producers: int, blocks: int, kibibytes: int) -> None:
    n_all, n_words = producers * blocks, kibibytes * 128
    # Block b holds b, b + 1, ...: the sum over all blocks, by the formula for such sums.
    total = n_words * (n_all * (n_all - 1) // 2) + n_all * (n_words * (n_words - 1) // 2)
    assert output("producer_consumer", producers, blocks, kibibytes) == (
        f"{n_all} blocks of {kibibytes} KiB from {producers} producers: sum {total % 2**64:016x}\n"
        "0 blocks left in the pool\n"
    )


@pytest.mark.parametrize("name", ["ring", "producer_consumer"])
def test_wrong_arguments_give_a_usage_line_and_status_2(name: str) -> None:
    done = subprocess.run([program(name), "0"], capture_output=True, text=True, timeout=20)
    assert (done.stdout, done.returncode) == ("", 2)
    assert done.stderr.startswith(f"usage: {name} ")


@pytest.mark.parametrize(
    ("name", "arguments"), [("ring", ["4", "999999999"]), ("producer_consumer", ["3", "999999999"])]
)
def test_a_killed_program_leaves_no_process_and_no_memory(name: str, arguments: list[str]) -> None:
    started = subprocess.Popen([program(name), *arguments], stdout=subprocess.DEVNULL)
    try:
        assert comes_true_in_time(lambda: len(children_of(started.pid)) == 3)
        own_name = f"dragon-ring-{started.pid}"  # goes once the token has come round
        assert comes_true_in_time(lambda: own_name not in os.listdir("/dev/shm"))
        children = children_of(started.pid)
    finally:
        started.send_signal(signal.SIGKILL)
        started.wait()
    assert comes_true_in_time(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))
