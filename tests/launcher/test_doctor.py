"""`dragon doctor`."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from launcher_support import PYTHON, Outcome, run_program

REFUSE = Path(__file__).parents[1] / "support" / "refuse.py"
Dragon = Callable[..., Outcome]


def facts(text: str) -> dict[str, str]:
    """Return the lines by their names."""
    pairs = (re.split(r"\s{2,}", line, maxsplit=1) for line in text.splitlines())
    return dict(pairs)


def test_doctor_tells_how_dragon_is_built(dragon: Dragon, exe: Path) -> None:
    outcome = dragon("doctor")
    report = facts(outcome.stdout)
    assert outcome.status == 0
    assert report["executable"] == str(exe)
    assert report["prefix"] == "/usr"
    assert report["python"] == dragon("--version").stdout.split()[1]
    assert "malloc" in report["allocator"] or "C library" in report["allocator"]
    assert report["children start by"].startswith("fork")


def test_doctor_tries_what_the_runtime_needs(dragon: Dragon) -> None:
    report = facts(dragon("doctor").stdout)
    for name in ("standard library", "memfd", "pidfd", "robust mutex"):
        assert report[name] == "works"


def test_doctor_tries_how_children_are_made(dragon: Dragon) -> None:
    report = facts(dragon("doctor").stdout)
    for name in ("hidden child", "passing of files", "adoption", "close_range"):
        assert report[name] == "works"


@pytest.mark.parametrize(
    ("refused", "check", "error"),
    [
        ("hidden-child", "hidden child", "Operation not permitted"),
        ("subreaper", "adoption", "Operation not permitted"),
    ],
)
def test_doctor_says_why_children_are_executed(
    exe: Path, refused: str, check: str, error: str
) -> None:
    outcome = run_program(PYTHON, REFUSE, refused, exe, "doctor")
    report = facts(outcome.stdout)
    assert report[check].startswith(f"FAILS: {error}; allow ")
    assert report["children start by"] == f"exec of dragon, because '{check}' fails"
    assert outcome.status == 0  # programs run, if more slowly


def test_doctor_knows_what_only_makes_it_slower(exe: Path) -> None:
    report = facts(run_program(PYTHON, REFUSE, "close-range", exe, "doctor").stdout)
    assert report["close_range"].startswith("FAILS: Function not implemented; ")
    assert report["children start by"].startswith("fork")


def test_doctor_leaves_no_process_behind(exe: Path) -> None:
    # Here orphans are adopted, so that none could hide.
    text = f"""
import ctypes, os, subprocess
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
subprocess.run([{str(exe)!r}, "doctor"], stdout=subprocess.DEVNULL, check=True)
try:
    print(os.waitpid(-1, os.WNOHANG))
except ChildProcessError:
    print("none")
"""
    assert run_program(PYTHON, "-c", text) == ("none\n", "", 0)


def test_doctor_counts_the_cpus_it_may_use(exe: Path) -> None:
    report = facts(run_program("taskset", "-c", "0", exe, "doctor").stdout)
    assert report["cpus"].endswith("1 for this process")


def test_doctor_exits_with_1_when_something_fails(exe: Path) -> None:
    outcome = run_program("sh", "-c", 'ulimit -f 0; trap "" XFSZ; exec "$0" doctor | cat', exe)
    assert "memfd              FAILS: " in outcome.stdout


def test_doctor_takes_no_argument(dragon: Dragon) -> None:
    outcome = dragon("doctor", "now")
    assert (outcome.stdout, outcome.status) == ("", 2)
    assert "now" in outcome.stderr


def test_doctor_runs_inside_an_environment(exe: Path, tmp_path: Path) -> None:
    (tmp_path / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "dragon").symlink_to(exe)
    report = facts(run_program(tmp_path / "bin" / "dragon", "doctor").stdout)
    assert report["environment"] == str(tmp_path / "bin" / "dragon")
