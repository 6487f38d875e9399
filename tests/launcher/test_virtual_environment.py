"""Virtual environments: dragon inside one, beside an active one, and making one."""

from collections.abc import Callable
from pathlib import Path

import pytest
from launcher_support import PYTHON, Outcome, run_program

Dragon = Callable[..., Outcome]

SHOW = (
    "import only_here, subprocess, sys\n"
    "print(sys.prefix, sys.base_prefix, sys.executable, only_here.__file__, sep='\\n')"
)


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of python3 with a module that exists nowhere else."""
    root = tmp_path_factory.mktemp("environment") / "venv"
    assert run_program(PYTHON, "-m", "venv", "--without-pip", root).status == 0
    packages = next((root / "lib").glob("python3.*")) / "site-packages"
    (packages / "only_here.py").write_text("")
    return root


@pytest.fixture(scope="module")
def venv_dragon(venv: Path, exe: Path) -> Path:
    """A link to dragon in the bin/ of the environment."""
    link = venv / "bin" / "dragon"
    link.symlink_to(exe)
    return link


def in_environment(outcome: Outcome, venv: Path, executable: Path) -> bool:
    """Say whether the program ran in the environment, as that executable."""
    assert outcome.status == 0, outcome.stderr
    prefix, base, named, module = outcome.stdout.splitlines()
    return (Path(prefix), base, Path(named)) == (venv, "/usr", executable) and module.startswith(
        str(venv)
    )


def test_link_in_bin_uses_the_environment(venv: Path, venv_dragon: Path) -> None:
    assert in_environment(run_program(venv_dragon, "-c", SHOW), venv, venv_dragon)


@pytest.mark.parametrize("option", ["-I", "-E", "-s"])
def test_link_in_bin_uses_it_under(option: str, venv: Path, venv_dragon: Path) -> None:
    assert in_environment(run_program(venv_dragon, option, "-c", SHOW), venv, venv_dragon)


def test_active_environment_is_used_by_a_dragon_elsewhere(venv: Path, exe: Path) -> None:
    outcome = run_program(exe, "-c", SHOW, env={"VIRTUAL_ENV": str(venv)})
    assert in_environment(outcome, venv, exe)


@pytest.mark.parametrize("option", ["-I", "-E"])
def test_active_environment_is_used_under(option: str, venv: Path, exe: Path) -> None:
    outcome = run_program(exe, option, "-c", SHOW, env={"VIRTUAL_ENV": str(venv)})
    assert in_environment(outcome, venv, exe)


def test_programs_started_by_sys_executable_stay_in_it(venv: Path, exe: Path) -> None:
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SHOW!r}])"
    outcome = run_program(exe, "-c", code, env={"VIRTUAL_ENV": str(venv)})
    assert in_environment(outcome, venv, exe)


def test_own_environment_wins_over_the_active_one(
    venv: Path, venv_dragon: Path, tmp_path: Path
) -> None:
    outcome = run_program(venv_dragon, "-c", SHOW, env={"VIRTUAL_ENV": str(tmp_path)})
    assert in_environment(outcome, venv, venv_dragon)


@pytest.mark.parametrize("value", ["", "/nowhere"])
def test_environment_that_is_none_is_ignored(exe: Path, value: str) -> None:
    outcome = run_program(exe, "-c", "import sys; print(sys.prefix)", env={"VIRTUAL_ENV": value})
    assert outcome.stdout == "/usr\n"


def test_python_home_wins_over_the_active_environment(venv: Path, exe: Path) -> None:
    env = {"VIRTUAL_ENV": str(venv), "PYTHONHOME": "/usr"}
    outcome = run_program(exe, "-c", "import sys; print(sys.prefix)", env=env)
    assert outcome.stdout == "/usr\n"


def test_venv_module_makes_an_environment_of_dragon(exe: Path, tmp_path: Path) -> None:
    assert run_program(exe, "-m", "venv", "--without-pip", tmp_path / "new").status == 0
    for name in (exe.name, "python", "python3"):
        python = tmp_path / "new" / "bin" / name
        outcome = run_program(python, "-c", "import sys; print(sys.prefix, sys._base_executable)")
        assert outcome.stdout == f"{tmp_path / 'new'} {exe}\n"
        assert "(dragon " in run_program(python, "--version").stdout


def test_environment_made_inside_an_environment_works(venv_dragon: Path, tmp_path: Path) -> None:
    assert run_program(venv_dragon, "-m", "venv", "--without-pip", tmp_path / "new").status == 0
    outcome = run_program(
        tmp_path / "new" / "bin" / "python", "-c", "import sys; print(sys.prefix)"
    )
    assert outcome.stdout == f"{tmp_path / 'new'}\n"


def test_pip_runs(dragon: Dragon) -> None:
    outcome = dragon("-m", "pip", "--version")
    assert outcome.status == 0, outcome.stderr
    assert outcome.stdout.startswith("pip ")
