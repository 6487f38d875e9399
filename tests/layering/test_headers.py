"""Every header of the runtime compiles alone, twice in one file, with gcc and clang."""

from __future__ import annotations

import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

RUNTIME = Path(__file__).resolve().parents[2] / "runtime"
HEADERS = sorted(path.relative_to(RUNTIME).as_posix() for path in RUNTIME.rglob("*.h"))
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wundef", "-Werror", "-fsyntax-only"]


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("header", HEADERS)
def test_header_compiles_alone(header: str, compiler: str) -> None:
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    program = f'#include "{header}"\n#include "{header}"\n'
    result = subprocess.run(
        [compiler, f"-I{RUNTIME}", *FLAGS, "-xc", "-"],
        input=program,
        text=True,
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


# FUNCTION, at the start of a line: what a function returns, and its name.
INSTALLED = re.findall(r"'(\w+/\w+\.h)'", (RUNTIME / "meson.build").read_text())
FUNCTION = re.compile(r"(?:[\w]+[ *]+)+dragon_\w+\(")


@pytest.mark.parametrize("header", INSTALLED)
def test_each_function_or_group_of_them_has_a_comment(header: str) -> None:
    lines = (RUNTIME / header).read_text().splitlines()
    for before, line in pairwise(lines):
        if FUNCTION.match(line) and not line.startswith(("return", "typedef")):
            assert before.endswith(("*/", ");")), line
