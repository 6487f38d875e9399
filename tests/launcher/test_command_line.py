"""dragon's own command line: what stands before the program."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from launcher_support import PYTHON, Outcome, run_program

Dragon = Callable[..., Outcome]

ORIG_ARGV = "import sys; print(sys.orig_argv[1:], sys.argv)"
START_METHOD = "import _dragon_launch; print(_dragon_launch.start_method)"


@pytest.mark.parametrize("words", [["--version"], ["-V"], ["-V", "nosuch.py"], ["-uV"]])
def test_version_starts_like_that_of_python3(dragon: Dragon, words: list[str]) -> None:
    outcome = dragon(*words)
    assert re.fullmatch(
        r"Python 3\.\d+\.\d+ \(dragon [\d.]+(, mimalloc [\d.]+)?\)\n", outcome.stdout
    )
    assert outcome.stdout.split()[:2] == run_program(PYTHON, "-V").stdout.split()
    assert outcome.status == 0


@pytest.mark.parametrize("words", [["-VV"], ["-V", "--version"], ["-V", "-V"]])
def test_version_asked_for_twice_adds_the_compiler(dragon: Dragon, words: list[str]) -> None:
    python = run_program(PYTHON, "-VV").stdout.strip()
    assert dragon(*words).stdout.startswith(f"{python} (dragon ")


def test_version_after_the_program_is_the_programs(dragon: Dragon) -> None:
    assert (
        dragon("-c", "import sys; print(sys.argv)", "--version").stdout == "['-c', '--version']\n"
    )


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["-?"], ["-uh"], ["-V", "--help"]])
def test_help_shows_dragons_options_and_then_pythons(dragon: Dragon, words: list[str]) -> None:
    outcome = dragon(*words)
    own, python = outcome.stdout.split("Everything else is Python's:\n")
    for word in (
        "--start-method NAME",
        "--portable",
        "--no-runtime",
        "command doctor",
        "./command",
    ):
        assert word in own
    assert "--attach-node" not in own
    assert own.startswith("usage: dragon ")
    assert python.splitlines()[1:] == run_program(PYTHON, "--help").stdout.splitlines()[1:]
    assert outcome.status == 0


@pytest.mark.parametrize("word", ["--help-env", "--help-xoptions"])
def test_pythons_other_help_is_pythons(dragon: Dragon, word: str) -> None:
    assert dragon(word).stdout == run_program(PYTHON, word).stdout != ""


@pytest.mark.parametrize("before", [[], ["-u"], ["--no-runtime"], ["-W", "error"]])
def test_unknown_option_is_named_in_one_line(dragon: Dragon, before: list[str]) -> None:
    outcome = dragon(*before, "--nonsense=3", "prog.py")
    assert outcome.status == 2
    assert outcome.stdout == ""
    assert len(outcome.stderr.splitlines()) == 1
    assert "--nonsense=3" in outcome.stderr


def test_program_that_does_not_exist_is_reported_by_python(dragon: Dragon) -> None:
    outcome = dragon("--no-runtime", "nosuch.py")
    assert outcome.status == 2
    assert "can't open file" in outcome.stderr


@pytest.mark.parametrize("method", ["dragon", "fork", "spawn", "forkserver"])
def test_start_method_can_be_any_of_multiprocessing(dragon: Dragon, method: str) -> None:
    assert dragon("--start-method", method, "-c", START_METHOD).stdout == f"{method}\n"
    assert dragon(f"--start-method={method}", "-c", START_METHOD).stdout == f"{method}\n"
    env = {"DRAGON_START_METHOD": method}
    assert dragon("-c", START_METHOD, env=env).stdout == f"{method}\n"


def test_start_method_is_none_when_nobody_asks(dragon: Dragon) -> None:
    assert dragon("-c", START_METHOD).stdout == "None\n"
    assert dragon("-c", START_METHOD, env={"DRAGON_START_METHOD": ""}).stdout == "None\n"


def test_start_method_option_wins_over_the_variable(dragon: Dragon) -> None:
    env = {"DRAGON_START_METHOD": "spawn"}
    assert dragon("--start-method=fork", "-c", START_METHOD, env=env).stdout == "fork\n"


@pytest.mark.parametrize(
    ("words", "env", "source"),
    [
        (["--start-method", "nosuch"], {}, "--start-method"),
        (["--start-method=nosuch"], {}, "--start-method"),
        ([], {"DRAGON_START_METHOD": "nosuch"}, "DRAGON_START_METHOD"),
    ],
)
def test_start_method_that_does_not_exist_is_refused(
    dragon: Dragon, words: list[str], env: dict[str, str], source: str
) -> None:
    outcome = dragon(*words, "-c", "print('ran')", env=env)
    assert (outcome.stdout, outcome.status) == ("", 2)
    assert source in outcome.stderr
    assert "'nosuch'" in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1


def test_start_method_without_a_name_is_refused(dragon: Dragon) -> None:
    outcome = dragon("--start-method")
    assert outcome.status == 2
    assert "--start-method" in outcome.stderr


@pytest.mark.parametrize(
    "word", ["--attach-node=", "--attach-node=x", "--attach-node=-1", "--attach-node"]
)
def test_attach_node_needs_a_descriptor(dragon: Dragon, word: str) -> None:
    outcome = dragon(word, "-c", "print('ran')")
    assert (outcome.stdout, outcome.status) == ("", 2)


def test_own_and_python_options_may_be_mixed(dragon: Dragon) -> None:
    code = "import sys; print(sys.flags.dont_write_bytecode, sys.warnoptions, sys.argv)"
    words = [
        "-B",
        "--start-method",
        "spawn",
        "-W",
        "ignore",
        "--no-runtime",
        "-c",
        code,
        "--no-runtime",
    ]
    assert dragon(*words).stdout == "1 ['ignore'] ['-c', '--no-runtime']\n"


@pytest.mark.parametrize("option", ["-W", "-X", "--check-hash-based-pycs"])
def test_value_of_a_python_option_is_not_taken_for_an_option(dragon: Dragon, option: str) -> None:
    outcome = dragon(option, "--start-method", "-c", "import sys; print(sys.argv)")
    python = run_program(PYTHON, option, "--start-method", "-c", "import sys; print(sys.argv)")
    assert (outcome.stdout, outcome.status) == (python.stdout, python.status)


def test_orig_argv_shows_own_options_but_no_hidden_ones(dragon: Dragon) -> None:
    words = ["--start-method", "fork", "-B", "-c", ORIG_ARGV, "a"]
    assert dragon(*words).stdout == f"{words} ['-c', 'a']\n"


def test_file_named_like_a_command_is_run_by_its_path(dragon: Dragon, tmp_path: Path) -> None:
    (tmp_path / "doctor").write_text("print('the file')")
    assert dragon("./doctor").stdout == "the file\n"
    assert dragon("--", "doctor").stdout == "the file\n"
    assert "the file" not in dragon("doctor").stdout


def test_environment_script_runs_by_its_first_line(exe: Path, tmp_path: Path) -> None:
    (tmp_path / "dragon").symlink_to(exe)
    script = tmp_path / "script"
    script.write_text("#!/usr/bin/env dragon\nimport sys; print(sys.argv, sys.executable)\n")
    script.chmod(0o755)
    outcome = run_program(script, "a", env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert outcome.stdout == f"['{script}', 'a'] {tmp_path}/dragon\n"


def test_empty_name_of_the_program_is_survived(exe: Path) -> None:
    command = 'exec -a "" "$0" -c "import sys; print(sys.executable)"'
    assert run_program("bash", "-c", command, exe).stdout == f"{exe}\n"
