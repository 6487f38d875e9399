"""Fixtures of the launcher's tests: the executable under test."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from launcher_support import Outcome, run_program


@pytest.fixture(scope="session")
def exe() -> Path:
    """The executable under test: $DRAGON_EXE, or the one of this checkout."""
    default = Path(__file__).parents[2] / "build" / "dragon"
    path = Path(os.environ.get("DRAGON_EXE", default)).resolve()
    if not path.exists():
        pytest.fail(f"no executable at {path}: build it, or set DRAGON_EXE")
    return path


@pytest.fixture
def dragon(exe: Path, tmp_path: Path) -> Callable[..., Outcome]:
    """Run dragon with the words given, in an empty folder."""

    def run(*words: str | Path, **options: Any) -> Outcome:
        options.setdefault("cwd", tmp_path)
        return run_program(exe, *words, **options)

    return run
