"""What `meson install` puts down is enough to compile and run a C program: headers, library, .pc.

The build folder is that of the executable $DRAGON_EXE, by default build/ of the checkout.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("DRAGON_EXE", REPO / "build" / "dragon")).absolute().parent
HEADER = REPO / "runtime" / "dragon.h"
NINJA = os.environ.get("NINJA", "ninja")
WARNINGS = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wundef", "-Werror"]
CHECK_VERSION = """
#include <dragon.h>
#include <dragon.h>
#include <stdio.h>
_Static_assert(DRAGON_VERSION_NUMBER >= DRAGON_VERSION_OF(0, 1, 0), "a number that #if compares");
int main(void)
{
    printf("%d.%d.%d %s", DRAGON_VERSION_MAJOR, DRAGON_VERSION_MINOR, DRAGON_VERSION_PATCH,
           DRAGON_VERSION);
}
"""


def run(command: Sequence[str | Path], **environment: str) -> str:
    """Run a program to its end, which must be a good one; return what it printed."""
    done = subprocess.run(
        command,
        cwd=BUILD,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install into a folder that stands for the root of the file system."""
    if not (BUILD / "build.ninja").exists():
        pytest.skip(f"{BUILD} is not configured")
    folder = tmp_path_factory.mktemp("installed")
    # As the build would, but without building: by the meson that configured the folder.
    install = run([NINJA, "-t", "commands", "install"]).splitlines()[-1]
    assert "--no-rebuild" in install
    run([*shlex.split(install), "--tags", "devel"], DESTDIR=str(folder))
    return folder


def pkg_config(root: Path, *arguments: str) -> list[str]:
    (found,) = root.rglob("dragon.pc")
    answer = run(
        ["pkg-config", *arguments, "dragon"],
        PKG_CONFIG_LIBDIR=str(found.parent),
        PKG_CONFIG_PATH="",
        PKG_CONFIG_SYSROOT_DIR=str(root),
    )
    return shlex.split(answer)


def compile_and_run(root: Path, source: str, folder: Path, *options: str) -> str:
    program = folder / "program"
    (folder / "program.c").write_text(source)
    flags = pkg_config(root, "--cflags"), pkg_config(root, "--libs")
    run(["gcc", *WARNINGS, *options, *flags[0], folder / "program.c", *flags[1], "-o", program])
    return run(["timeout", "20", program])


def usage_example() -> str:
    """Return the example in the comment of dragon.h, as a program."""
    comment = HEADER.read_text().split("*/")[0]
    lines = re.findall(r"^ \*     (.*)$", comment, re.MULTILINE)
    assert len(lines) >= 10
    includes = "".join(f"#include <{name}.h>\n" for name in ("dragon", "stdio", "unistd"))
    return f"{includes}int main(void)\n{{\n" + "\n".join(lines) + "\n}\n"


def test_the_versions_agree(root: Path, tmp_path: Path) -> None:
    (version,) = pkg_config(root, "--modversion")
    assert compile_and_run(root, CHECK_VERSION, tmp_path) == f"{version} {version}"


@pytest.mark.parametrize("options", [[], ["-O2", "-static-pie"], ["-fsanitize=undefined"]])
def test_the_example_in_the_header_runs(root: Path, tmp_path: Path, options: list[str]) -> None:
    assert compile_and_run(root, usage_example(), tmp_path, *options) == "hello\n"


@pytest.mark.parametrize("name", ["ring", "producer_consumer"])
def test_the_example_programs_compile_as_they_say(root: Path, tmp_path: Path, name: str) -> None:
    source = (REPO / "examples" / "c" / f"{name}.c").read_text()
    assert f"cc {name}.c $(pkg-config --cflags --libs dragon) -o {name}" in source
    assert compile_and_run(root, source, tmp_path)


def test_every_installed_header_compiles_alone(root: Path, tmp_path: Path) -> None:
    (folder,) = root.rglob("include/dragon")
    headers = sorted(path.relative_to(folder) for path in folder.rglob("*.h"))
    assert Path("dragon.h") in headers
    for header in headers:
        source = f"#include <{header}>\nint main(void) {{ return 0; }}\n"
        assert compile_and_run(root, source, tmp_path) == ""


def test_only_headers_that_dragon_h_needs_are_installed(root: Path, tmp_path: Path) -> None:
    (folder,) = root.rglob("include/dragon")
    (tmp_path / "all.c").write_text("#include <dragon.h>\n")
    listed = run(["gcc", "-M", *pkg_config(root, "--cflags"), tmp_path / "all.c"])
    needed = {Path(word) for word in listed.replace("\\\n", " ").split() if str(folder) in word}
    assert needed == set(folder.rglob("*.h"))


def test_no_name_of_this_machine_is_in_the_package_file(root: Path) -> None:
    (found,) = root.rglob("dragon.pc")
    assert str(REPO) not in found.read_text() and str(BUILD) not in found.read_text()
