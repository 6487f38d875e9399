"""The title of processes: what `ps` shows of a worker."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from launcher_support import Outcome

SHOW = """
import multiprocessing, os, sys
from pathlib import Path
from typing import Any

def show(*notes):
    words = Path("/proc/self/cmdline").read_bytes().rstrip(b"\\0").decode()
    print([words, Path("/proc/self/comm").read_text().rstrip("\\n"), *notes], flush=True)
"""


def show(dragon: Callable[..., Outcome], tmp_path: Path, text: str) -> list[list[Any]]:
    """Run a program and return the lists that it prints."""
    (tmp_path / "program.py").write_text(SHOW + text)
    done = dragon("program.py")
    assert (done.stderr, done.status) == ("", 0)
    return [eval(line) for line in done.stdout.splitlines()]


def test_a_worker_shows_its_name(dragon: Callable[..., Outcome], tmp_path: Path) -> None:
    text = """
if __name__ == "__main__":
    context = multiprocessing.get_context("dragon")
    for name in ("reader", "größe " * 9, "nul\\0here", "lone \\udc80", None):
        process = context.Process(target=show, name=name); process.start(); process.join()
    with context.Pool(1) as pool:
        pool.apply(show)
"""
    assert show(dragon, tmp_path, text) == [
        ["dragon: reader", "dragon: reader"],
        ["dragon: " + "größe " * 9, "dragon: größe"],
        ["dragon: nul", "dragon: nul"],
        ["dragon: lone ?", "dragon: lone ?"],
        ["dragon: DragonProcess-5", "dragon: DragonP"],
        ["dragon: DragonPoolWorker-6", "dragon: DragonP"],
    ]


def test_a_program_without_workers_keeps_its_command_line(
    dragon: Callable[..., Outcome], tmp_path: Path
) -> None:
    [[words, name]] = show(dragon, tmp_path, "show()")
    assert words.split("\0")[1:] == ["program.py"]
    assert name == "dragon"


def test_a_title_leaves_the_program_what_it_was_given(
    dragon: Callable[..., Outcome], tmp_path: Path
) -> None:
    text = """
def changes():
    seen = (sys.argv, sys.executable, dict(os.environ), os.popen("env | sort").read())
    return seen[:1] + (seen[1], str(sorted(seen[2].items())), seen[3])

def worker(expected):
    show(changes() == expected, sys.orig_argv[0] == sys.executable)

if __name__ == "__main__":
    # Longer than the words were: the title lies over the environment.
    name = "x" * 2000
    context = multiprocessing.get_context("dragon")
    process = context.Process(target=worker, args=(changes(),), name=name)
    process.start(); process.join()
"""
    [[title, name, is_same, is_executable]] = show(dragon, tmp_path, text)
    assert title.startswith("dragon: " + "x" * 500)
    assert name == "dragon: xxxxxxx"
    assert is_same and is_executable


@pytest.mark.parametrize("n_bytes", [0, 1, 30, 31, 32, 33, 100, 5000, 1_000_000])
def test_titles_of_any_length_are_cut_between_characters(
    dragon: Callable[..., Outcome], tmp_path: Path, n_bytes: int
) -> None:
    text = f"""
import _dragon_launch
for title in ("é" * ({n_bytes} // 2), "short"):
    _dragon_launch.set_title(title)
    show()
print([os.environ["HOME"], os.popen("echo $HOME").read().strip()])
"""
    (long, name), short, home = show(dragon, tmp_path, text)
    assert set(long) <= {"é"} and set(name) <= {"é"}
    assert len(long.encode()) <= n_bytes and len(name.encode()) == min(n_bytes // 2 * 2, 14)
    assert len(long) == n_bytes // 2 or len(long) > 100
    assert short == ["short", "short"]
    assert home[0] == home[1] != ""


def test_the_environment_is_seen_from_outside_where_the_title_is_short(
    dragon: Callable[..., Outcome], tmp_path: Path
) -> None:
    text = """
def worker():
    print([Path("/proc/self/environ").read_text().count("HOME=")])

if __name__ == "__main__":
    process = multiprocessing.get_context("dragon").Process(target=worker, name="short")
    process.start(); process.join()
"""
    assert show(dragon, tmp_path, text) == [[1]]


def test_a_title_is_a_str(dragon: Callable[..., Outcome]) -> None:
    done = dragon("-c", "import _dragon_launch; _dragon_launch.set_title(b'x')")
    assert "TypeError: set_title: str expected, not bytes" in done.stderr
