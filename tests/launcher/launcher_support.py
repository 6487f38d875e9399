"""How the tests run an executable from outside."""

import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

PYTHON = "/usr/bin/python3.11"
TIMEOUT_S = 30


class Outcome(NamedTuple):
    """What a run left behind.

    Attributes:
        stdout: Text of standard output.
        stderr: Text of standard error.
        status: Exit status; negative: the signal it died of.
    """

    stdout: str
    stderr: str
    status: int


def clean_environment() -> dict[str, str]:
    """Return the environment without what changes a Python's behaviour."""
    names = ("PYTHON", "DRAGON_", "VIRTUAL_ENV", "__PYVENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    return kept | {"PYTHONDONTWRITEBYTECODE": "1"}


def run_program(
    *command: str | Path,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    stdin: str = "",
) -> Outcome:
    """Run a command to its end, in a clean environment plus env."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=clean_environment() | (env or {}),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return Outcome(done.stdout, done.stderr, done.returncode)


def neutral(text: str, executable: Path | str) -> str:
    """Replace what may differ between two Pythons: their name, and addresses."""
    return re.sub(r"0x[0-9a-f]{6,}", "0xADDRESS", text.replace(str(executable), "EXECUTABLE"))
