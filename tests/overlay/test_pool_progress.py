"""progress=True of a pool's methods."""

import io
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from children import fail, square
from overlay_support import Outcome

from dragon_overlay.pool import progress
from dragon_overlay.pool.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The time that Progress sees: clock.now."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: Clock.now))
    return Clock


def test_a_terminal_has_one_line_that_changes(clock: Any) -> None:
    file = Terminal()
    shown = Progress(square, 100, file)
    for n in range(1, 101):
        clock.now = n / 20
        shown.add(1)
    lines = file.getvalue().split("\r")
    assert lines[0] == ""
    assert lines[1] == "square: 2/100, 2 %, 20/s, 0:05 left\x1b[K"
    assert lines[-1] == "square: 100/100, 100 %, 20/s, in 0:05\x1b[K\n"
    assert 20 < len(lines) < 60
    assert file.getvalue().count("\n") == 1


def test_a_file_has_few_lines(clock: Any) -> None:
    file = io.StringIO()
    shown = Progress(square, 6000, file)
    for n in range(1, 6001):
        clock.now = n / 100
        shown.add(1)
    lines = file.getvalue().splitlines()
    assert lines[0] == "square: 1000/6000, 16 %, 100/s, 0:50 left"
    assert lines[-1] == "square: 6000/6000, 100 %, 100/s, in 1:00"
    assert len(lines) == 6


def test_a_number_of_calls_may_become_known_later(clock: Any) -> None:
    file = io.StringIO()
    shown = Progress(square, None, file)
    clock.now = 20.0
    shown.add(5)
    clock.now = 7200.0
    shown.add(5)
    shown.expect(10)
    shown.close()
    assert file.getvalue().splitlines() == [
        "square: 5, 0.25/s, in 0:20",
        "square: 10, 0.0014/s, in 2:00:00",
        "square: 10/10, 100 %, 0.0014/s, in 2:00:00",
    ]


def test_a_file_that_cannot_be_written_is_left_alone(clock: Any) -> None:
    file = io.StringIO()
    shown = Progress(square, 2, file)
    file.close()
    shown.add(1)
    shown.add(1)


def test_all_methods_for_many_calls_show_their_progress(
    dragon: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    with dragon.Pool(2) as pool:
        assert pool.map(square, range(9), progress=True) == [x * x for x in range(9)]
        assert pool.starmap(square, [(1,), (2,)], progress=True) == [1, 4]
        assert list(pool.imap(square, iter(range(5)), progress=True)) == [0, 1, 4, 9, 16]
        assert sorted(pool.imap_unordered(square, range(3), progress=True)) == [0, 1, 4]
        with pytest.raises(ValueError, match="fails"):
            pool.map(fail, range(4), progress=True)
        assert pool.map(square, range(9)) == [x * x for x in range(9)]
        pool.close()
        pool.join()
    shown = re.findall(r"^(\w+: \d+/\d+), 100 %, .*$", capfd.readouterr().err, re.MULTILINE)
    assert sorted(shown) == [
        "fail: 4/4",
        "square: 2/2",
        "square: 3/3",
        "square: 5/5",
        "square: 9/9",
    ]


def test_the_environment_turns_progress_off(run: Callable[..., Outcome]) -> None:
    text = """
import multiprocessing
if __name__ == "__main__":
    with multiprocessing.get_context("dragon").Pool(1) as pool:
        print(pool.map(abs, [-1, -2], progress=True))
"""
    assert run(text, env={"DRAGON_PROGRESS": "0"}) == ("[1, 2]\n", "", 0)
    done = run(text)
    assert (done.stdout, done.status) == ("[1, 2]\n", 0)
    assert done.stderr.startswith("abs: 2/2, 100 %, ")
