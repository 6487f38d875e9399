"""The programs of ./dev bench core still run; their numbers are not looked at."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("DRAGON_EXE", REPO / "build" / "dragon")).absolute().parent
PROGRAM = BUILD / "bench" / "bench_core"


@pytest.mark.parametrize(
    ("only", "n_lines"), [("local", 2), ("fan", 4), ("transfer", 6), ("recover", 2)]
)
def test_every_line_of_the_table_is_there(only: str, n_lines: int) -> None:
    if not PROGRAM.exists():
        pytest.skip(f"{PROGRAM} does not exist")
    script = REPO / "bench" / "bench_core.py"
    options = ["--program", str(PROGRAM), "--repeats", "1", "--only", only]
    done = subprocess.run(
        [sys.executable, "-I", str(script), *options], capture_output=True, text=True, timeout=120
    )
    assert (done.stderr, done.returncode) == ("", 0)
    table = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(table) == 2 + n_lines  # and two of the head


def test_an_unknown_measurement_is_refused() -> None:
    if not PROGRAM.exists():
        pytest.skip(f"{PROGRAM} does not exist")
    done = subprocess.run([PROGRAM, "no_such", "8", "0"], capture_output=True, timeout=20)
    assert done.returncode == 2
