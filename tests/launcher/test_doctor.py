"""`dragon doctor`."""

import re
from collections.abc import Callable
from pathlib import Path

from launcher_support import Outcome, run_program

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
    assert report["children start by"]


def test_doctor_tries_what_the_runtime_needs(dragon: Dragon) -> None:
    report = facts(dragon("doctor").stdout)
    for name in ("standard library", "memfd", "pidfd", "robust mutex"):
        assert report[name] == "works"


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
