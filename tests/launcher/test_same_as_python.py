"""Side by side with python3: the same output, the same errors, the same exit status."""

import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
from launcher_support import PYTHON, Outcome, neutral, run_program


class Case(NamedTuple):
    """A command line, run by both.

    Attributes:
        name: What it shows.
        words: The command line after the executable.
        stdin: What it reads.
        env: Additional environment.
    """

    name: str
    words: tuple[str, ...]
    stdin: str = ""
    env: dict[str, str] | None = None


SHOW_ARGV = "import sys; print(sys.argv, sys.flags, sys.path, __name__)"

CASES = [
    Case("script", ("show.py",)),
    Case("script_with_arguments", ("show.py", "a", "-b", "--start-method", "--version")),
    Case("script_in_a_folder", ("folder/inner.py",)),
    Case("script_with_a_syntax_error", ("broken.py",)),
    Case("script_that_raises", ("raises.py",)),
    Case("script_that_raises_a_chain", ("chain.py",)),
    Case("script_that_does_not_exist", ("nosuch.py",)),
    Case("script_without_read_permission", ("/proc/1/mem",)),
    Case("empty_word_as_script", ("",)),
    Case("folder_with_main", ("app",)),
    Case("folder_without_main", ("folder",)),
    Case("zip_with_main", ("app.zip", "x")),
    Case("code", ("-c", SHOW_ARGV, "a", "-c", "--help")),
    Case("code_attached", ("-cprint(1)",)),
    Case("code_missing", ("-c",)),
    Case("code_raises", ("-c", "def f():\n  1/0\nf()")),
    Case("code_syntax_error", ("-c", "print(")),
    Case("module", ("-m", "package.module", "a", "--no-runtime")),
    Case("module_attached", ("-mpackage",)),
    Case("module_that_does_not_exist", ("-m", "nosuch.module")),
    Case("module_of_stdlib", ("-m", "json.tool"), '{"b": [1, 2]}'),
    Case("module_site", ("-m", "site", "--user-site")),
    Case("module_missing_name", ("-m",)),
    Case("dash_reads_stdin", ("-", "a"), "import sys; print(sys.argv); raise SystemExit(7)"),
    Case("no_argument_reads_stdin", (), "print('piped')\n1/0\n"),
    Case("interactive_from_pipe", ("-iq", "-c", "print(1)"), "print(2)\nx\n"),
    Case("double_dash", ("--", "show.py", "a")),
    Case("status_of_system_exit", ("-c", "raise SystemExit(3)")),
    Case("status_above_255", ("-c", "raise SystemExit(257)")),
    Case("text_of_system_exit", ("-c", "raise SystemExit('bye')")),
    Case("system_exit_none", ("-c", "raise SystemExit")),
    Case("os_exit", ("-c", "import os; os._exit(9)")),
    Case("abort", ("-c", "import os; os.abort()")),
    Case("killed_by_itself", ("-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")),
    Case("keyboard_interrupt", ("-c", "raise KeyboardInterrupt")),
    Case("faulthandler", ("-X", "faulthandler", "-c", "import os; os.abort()")),
    Case("isolated_combined", ("-Ic", SHOW_ARGV, "a"), "", {"PYTHONPATH": "/nowhere"}),
    Case("no_environment", ("-E", "-c", SHOW_ARGV), "", {"PYTHONPATH": "/nowhere"}),
    Case("python_path", ("-c", SHOW_ARGV), "", {"PYTHONPATH": "/nowhere:relative"}),
    Case("no_site", ("-S", "-c", SHOW_ARGV)),
    Case("no_user_site", ("-s", "-c", SHOW_ARGV)),
    Case("safe_path", ("-P", "-c", SHOW_ARGV)),
    Case("unbuffered_no_bytecode", ("-uB", "show.py")),
    Case("optimized", ("-O", "-c", "assert 0; print(__debug__)")),
    Case("optimized_twice", ("-OO", "-c", "def f(): 'doc'\nprint(f.__doc__)")),
    Case("warnings_attached", ("-Wd", "-c", "import warnings; warnings.warn('x', ImportWarning)")),
    Case("warnings_error", ("-W", "error", "-c", "import warnings; warnings.warn('x')")),
    Case("warnings_invalid", ("-W", "nonsense", "-c", "print(1)")),
    Case("warnings_without_value", ("-W",)),
    Case("development_mode", ("-Xdev", "-c", SHOW_ARGV)),
    Case("utf8_mode", ("-X", "utf8=0", "-c", SHOW_ARGV)),
    Case("unknown_x_option", ("-X", "nonsense=1", "-c", "import sys; print(sys._xoptions)")),
    Case("invalid_x_option", ("-X", "int_max_str_digits=a", "-c", "print(1)")),
    Case("bytes_warning", ("-bb", "-c", "b'' == ''")),
    Case("warn_default_encoding", ("-X", "warn_default_encoding", "-c", "open('/dev/null')")),
    Case("hash_seed", ("-c", "print(hash('x'))"), "", {"PYTHONHASHSEED": "3"}),
    Case("hash_seed_invalid", ("-c", "print(1)"), "", {"PYTHONHASHSEED": "x"}),
    Case("inspect_variable", ("-c", "x = 1"), "print(x)\n", {"PYTHONINSPECT": "1"}),
    Case("no_frozen_modules", ("-X", "frozen_modules=off", "-c", "import os; print(os.__spec__)")),
    Case("check_hash_based_pycs", ("--check-hash-based-pycs", "always", "-c", SHOW_ARGV)),
    Case("check_hash_based_pycs_invalid", ("--check-hash-based-pycs", "x", "-c", "1")),
    Case("unknown_short_option", ("-Z",)),
    Case("unknown_short_option_after_known", ("-uZ", "--start-method", "nonsense")),
    Case("skip_first_line", ("-x", "batch.py")),
    Case("locale_c", ("-c", "print('\\xe4'.isalpha(), ascii(open('/dev/null').encoding))"), "",
         {"LC_ALL": "C"}),
    Case("python_home_wrong", ("-c", "print(1)"), "", {"PYTHONHOME": "/nowhere"}),
    Case("encodings_and_their_files", ("-c", "import encodings, encodings.utf_8 as u\n"
         "print(encodings.__file__, encodings.__path__, u.__file__)")),
    Case("stdin_is_closed_after_use", ("-c", "print(input()); print(input())"), "one\n"),
    Case("fatal_in_thread", ("-c", "import threading as t\nx=t.Thread(target=lambda: 1/0,"
         " name='T')\nx.start()\nx.join()")),
    Case("atexit_order", ("-c", "import atexit; atexit.register(print, 'late'); print('soon')")),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with programs of every kind."""
    root = tmp_path_factory.mktemp("programs")
    for name in ("folder", "app", "package"):
        (root / name).mkdir()
    (root / "show.py").write_text(SHOW_ARGV + "; print(__file__)")
    (root / "folder" / "inner.py").write_text(SHOW_ARGV)
    (root / "app" / "__main__.py").write_text(SHOW_ARGV)
    (root / "package" / "__init__.py").write_text("print('init', __name__)")
    (root / "package" / "__main__.py").write_text(SHOW_ARGV)
    (root / "package" / "module.py").write_text(SHOW_ARGV)
    (root / "broken.py").write_text("print('never')\nx = (1,\ny = 2\n")
    (root / "raises.py").write_text("def f(n):\n    return n / 0\n\n\nprint('a')\nf(1)\n")
    (root / "chain.py").write_text(
        "try:\n    {}['x']\nexcept KeyError as error:\n    raise ValueError('outer') from error\n"
    )
    (root / "batch.py").write_text("@echo off\nprint('second line')\n")
    with zipfile.ZipFile(root / "app.zip", "w") as archive:
        archive.writestr("__main__.py", SHOW_ARGV)
    return root


def outcome(executable: Path | str, case: Case, folder: Path) -> Outcome:
    """Run the case, and make the outcome comparable."""
    result = run_program(executable, *case.words, cwd=folder, env=case.env, stdin=case.stdin)
    return Outcome(
        neutral(result.stdout, executable), neutral(result.stderr, executable), result.status
    )


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_output_errors_and_status_are_those_of_python3(case: Case, exe: Path, folder: Path) -> None:
    assert outcome(exe, case, folder) == outcome(PYTHON, case, folder)


@pytest.mark.parametrize(
    "expression",
    [
        "sys.version",
        "sys.prefix, sys.exec_prefix, sys.base_prefix",
        "sys.implementation",
        "sys.abiflags, sys.platlibdir, sys._stdlib_dir",
        "__import__('platform').python_implementation()",
        "__import__('sysconfig').get_paths()",
        "sorted(set(sys.modules) - {'_dragon_boot', '_dragon_launch'})",
        "sorted(set(sys.builtin_module_names) - {'_dragon', '_dragon_launch'})",
        "sys.path_hooks, sys.meta_path[-3:]",
        "sys.getfilesystemencoding(), sys.stdout.encoding, sys.stdin.errors",
        "sys.excepthook is sys.__excepthook__, sys.displayhook",
        "[__import__('signal').getsignal(number) for number in range(1, 32)]",
        "[thread.name for thread in __import__('threading').enumerate()]",
        "__import__('multiprocessing').get_start_method()",
    ],
)
def test_a_program_sees_the_interpreter_of_python3(
    expression: str, exe: Path, tmp_path: Path
) -> None:
    code = f"import sys; print({expression})"
    texts = [
        neutral(run_program(executable, "-c", code, cwd=tmp_path).stdout, executable)
        for executable in (exe, PYTHON)
    ]
    assert texts[0] == texts[1] != ""
