"""The modules that the executable carries, and what it adds to multiprocessing."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from launcher_support import Outcome, run_program

Dragon = Callable[..., Outcome]


def test_embedded_package_is_found_before_any_folder(dragon: Dragon, tmp_path: Path) -> None:
    for name in ("dragon", "dragon_overlay"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong one')")
        outcome = dragon("-c", f"import {name} as m; print(m.__file__, m.__path__)")
        assert outcome.stdout == f"<dragon>/{name}/__init__.py ['<dragon>/{name}']\n"


def test_embedded_module_that_does_not_exist_is_an_import_error(dragon: Dragon) -> None:
    outcome = dragon("-c", "import dragon_overlay.nosuch")
    assert "ModuleNotFoundError: No module named 'dragon_overlay.nosuch'" in outcome.stderr


def test_embedded_source_is_shown_by_inspect(dragon: Dragon) -> None:
    code = (
        "import inspect, dragon_overlay.context as c; print('def install' in inspect.getsource(c))"
    )
    assert dragon("-c", code).stdout == "True\n"


@pytest.mark.parametrize("option", ["-B", "-O", "-OO"])
def test_embedded_code_is_compiled_for_the_optimization(dragon: Dragon, option: str) -> None:
    code = "import dragon_overlay.context as c; print(c.__doc__ is None)"
    assert dragon(option, "-c", code).stdout == f"{option == '-OO'}\n"


FAIL = "import dragon_overlay.context as c\n"
UNCAUGHT = FAIL + "c.install(None, None)"
CAUGHT = (
    FAIL + "import traceback\ntry: c.install(None, None)\nexcept Exception: traceback.print_exc()"
)


@pytest.mark.parametrize("code", [UNCAUGHT, CAUGHT], ids=["uncaught", "caught"])
def test_traceback_shows_the_source_of_embedded_modules(
    dragon: Dragon, tmp_path: Path, code: str
) -> None:
    (tmp_path / "context.py").write_text("the wrong source\n" * 1000)
    lines = dragon("-c", code).stderr.splitlines()
    frame = next(i for i, line in enumerate(lines) if "<dragon>/dragon_overlay/context.py" in line)
    assert lines[frame + 1].startswith("    ")
    assert "wrong" not in lines[frame + 1]


INTERRUPTED = (
    "from dragon_overlay import context\n"
    "class Context:\n"
    "    def __getattr__(self, name):\n"
    "        raise KeyboardInterrupt\n"
)


@pytest.mark.parametrize(
    "end, status",
    [
        ("context.install(Context(), None)", -signal.SIGINT),
        (
            "import sys\n"
            "try:\n    context.install(Context(), None)\n"
            "except KeyboardInterrupt:\n    sys.excepthook(*sys.exc_info())",
            0,
        ),
    ],
    ids=["uncaught", "shown"],
)
def test_an_interrupt_of_an_embedded_module_ends_the_process_as_elsewhere(
    dragon: Dragon, end: str, status: int
) -> None:
    outcome = dragon("-c", INTERRUPTED + end)
    assert "<dragon>/dragon_overlay/context.py" in outcome.stderr
    assert outcome.status == status


def test_uncaught_error_elsewhere_is_printed_by_the_interpreter(dragon: Dragon) -> None:
    plain = dragon("-c", "1/0")
    with_overlay = dragon("-c", "import dragon_overlay; 1/0")
    assert plain == with_overlay
    code = "import sys, dragon_overlay; print(sys.excepthook is sys.__excepthook__)"
    assert dragon("-c", code).stdout == "True\n"


def test_boot_imports_nothing_that_python3_has_not_loaded(dragon: Dragon) -> None:
    code = "import sys; print([n for n in sys.modules if 'dragon' in n])"
    assert dragon("-I", "-S", "-c", code).stdout == "['_dragon_launch', '_dragon_boot']\n"


def test_multiprocessing_context_stays_the_stdlibs(dragon: Dragon) -> None:
    code = (
        "import inspect, multiprocessing.context as c\n"
        "print(c.__file__, type(c.__loader__).__name__, vars(c.__loader__), c.__cached__)\n"
        "print(inspect.getsource(c) == open(c.__file__).read(), c.__spec__.loader is c.__loader__)"
    )
    file = "/usr/lib/python3.11/multiprocessing/context.py"
    where, same = dragon("-c", code).stdout.splitlines()
    assert where.startswith(
        f"{file} SourceFileLoader {{'name': 'multiprocessing.context', 'path': '{file}'}}"
    )
    assert where.endswith("__pycache__/context.cpython-311.pyc")
    assert same == "True True"


@pytest.mark.parametrize("words", [[], ["-I"], ["-S"], ["-O"], ["--no-runtime"]])
def test_start_method_is_registered_in_every_mode(dragon: Dragon, words: list[str]) -> None:
    code = (
        "import multiprocessing as m; print(m.get_context('dragon').get_start_method(),"
        " m.get_start_method(), m.get_start_method(allow_none=True))"
    )
    assert dragon(*words, "-c", code).stdout == "dragon fork fork\n"


def test_start_method_option_changes_the_default_only(dragon: Dragon) -> None:
    code = (
        "import multiprocessing as m\n"
        "print(m.get_start_method(allow_none=True), m.get_start_method())\n"
        "m.set_start_method('spawn', force=True); print(m.get_start_method())"
    )
    assert dragon("--start-method", "dragon", "-c", code).stdout == "None dragon\nspawn\n"


def test_start_method_is_added_if_site_loaded_multiprocessing(exe: Path, tmp_path: Path) -> None:
    code = "import multiprocessing as m; print(m.get_start_method())"
    (tmp_path / "sitecustomize.py").write_text("import multiprocessing\n")
    env = {"PYTHONPATH": str(tmp_path)}
    outcome = run_program(exe, "--start-method", "dragon", "-c", code, env=env)
    assert outcome.stdout == "dragon\n"


def test_reloaded_context_keeps_the_start_method(dragon: Dragon) -> None:
    code = (
        "import importlib, multiprocessing.context as c\n"
        "importlib.reload(c); print('dragon' in c._concrete_contexts)"
    )
    assert dragon("-c", code).stdout == "True\n"


def test_child_options_pass_on_the_default_start_method(dragon: Dragon) -> None:
    code = "import _dragon_launch as l; print(l.child_options(), l.version)"
    version = dragon("--version").stdout.split()[3].rstrip(",)")
    assert dragon("-c", code).stdout == f"[] {version}\n"
    assert dragon("--start-method", "dragon", "-c", code).stdout == (
        f"['--start-method=dragon'] {version}\n"
    )
