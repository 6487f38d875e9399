"""A short run of the fuzz program for descriptions, the same each time."""

import subprocess
import sys
from pathlib import Path

FUZZ = Path(__file__).parents[1] / "fuzz" / "fuzz_descriptors.py"


def test_changed_descriptions_are_refused_as_documented() -> None:
    run = subprocess.run(
        [sys.executable, FUZZ, "0", "1", "1000"], capture_output=True, text=True, timeout=100
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "fuzz_descriptors: seed 1\n" in run.stdout
    assert run.stdout.count("accepted") == (
        9 if "_dragon_launch" in sys.builtin_module_names else 8
    )
    assert run.stderr == ""
