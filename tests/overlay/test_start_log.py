"""What is said of the way in which processes are started, and when."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from overlay_support import TIMEOUT_S, Outcome, environment, write_script

REFUSE = Path(__file__).parents[1] / "support" / "refuse.py"

BEGIN = """
import multiprocessing, os, signal, sys
context = multiprocessing.get_context("dragon")
def run(target, *args, name=None):
    process = context.Process(target=target, args=args, name=name)
    process.start()
    process.join()
    assert process.exitcode == 0
def nothing():
    pass
def nested():
    for _ in range(2):
        run(nothing)
"""

Run = Callable[..., Outcome]


def run_refused(refused: str, text: str, folder: Path) -> Outcome:
    """Run a program as in a container that refuses system calls."""
    command = ["/usr/bin/python3.11", REFUSE, refused, sys.executable, write_script(folder, text)]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return Outcome(done.stdout, done.stderr, done.returncode)


def test_nothing_is_said_where_all_is_as_it_should_be(run: Run) -> None:
    text = BEGIN + 'if __name__ == "__main__":\n    run(nothing)\n    run(nested)\n'
    assert run(text) == ("", "", 0)


def test_on_demand_each_start_is_told_with_its_way(run: Run) -> None:
    text = (
        BEGIN + 'if __name__ == "__main__":\n    run(nothing, name="a")\n    run(nothing, name="b")'
    )
    outcome = run(text, env={"DRAGON_LOG": "other,start"})
    assert (outcome.stdout, outcome.status) == ("", 0)
    assert re.fullmatch(r"dragon: a, pid \d+, forked\ndragon: b, pid \d+, forked\n", outcome.stderr)


def test_on_demand_the_reason_of_an_expected_execution_is_told(run: Run) -> None:
    text = BEGIN + 'if __name__ == "__main__":\n    run(nested, name="outer")\n'
    outer, *inner = run(text, env={"DRAGON_LOG": "start"}).stderr.splitlines()
    assert outer.endswith(", forked")
    assert len(inner) == 2
    assert all(re.search(r"(forked|executed: it is the first process .*)$", line) for line in inner)


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        ("hidden-child", "no fork server can be made: Operation not permitted"),
        ("subreaper", "orphans cannot be adopted: Operation not permitted"),
    ],
)
def test_that_processes_cannot_be_forked_is_said_once(
    tmp_path: Path, refused: str, reason: str
) -> None:
    text = BEGIN + 'if __name__ == "__main__":\n    for _ in range(4):\n        run(nothing)\n'
    said = f"dragon: processes are executed, not forked ({reason}); see dragon doctor\n"
    assert run_refused(refused, text, tmp_path) == ("", said, 0)


@pytest.mark.parametrize("end", ["sys.stderr.close()", "sys.stderr = None"])
def test_without_stderr_nothing_is_said_and_all_works(tmp_path: Path, end: str) -> None:
    text = BEGIN + (
        f'if __name__ == "__main__":\n    {end}\n'
        '    for _ in range(4):\n        run(nothing)\n    print("done")\n'
    )
    outcome = run_refused("subreaper", text, tmp_path)
    assert (outcome.stdout, outcome.status) == ("done\n", 0)


SEED = """
def seed():
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as stat:
                parent = int(stat.read().rpartition(")")[2].split()[1])
        except OSError:  # ended meanwhile
            continue
        if parent == os.getpid():
            return int(name)
"""


@pytest.mark.parametrize("first", ["", "run(nothing)"])
def test_a_seed_that_is_killed_is_told_of_once_and_done_without(run: Run, first: str) -> None:
    text = (
        BEGIN
        + SEED
        + f"""
if __name__ == "__main__":
    pid = seed()
    {first}
    os.kill(pid, signal.SIGKILL)
    for _ in range(3):
        run(nothing)
"""
    )
    outcome = run(text)
    assert (outcome.stdout, outcome.status) == ("", 0)
    assert re.fullmatch(
        r"dragon: the seed is lost \(.+\); fork servers are executed from now on\n", outcome.stderr
    )


def test_after_the_loss_of_the_seed_processes_are_still_forked(run: Run) -> None:
    text = (
        BEGIN
        + SEED
        + """
if __name__ == "__main__":
    os.kill(seed(), signal.SIGKILL)
    for _ in range(3):
        run(nothing)
"""
    )
    outcome = run(text, env={"DRAGON_LOG": "start"})
    assert outcome.status == 0
    assert [line.rpartition(", ")[2] for line in outcome.stderr.splitlines()][-2:] == ["forked"] * 2
