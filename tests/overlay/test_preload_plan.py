"""What preloading reads out of programs: dragon_overlay.preload.plan."""

import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from preload_support import write_tree

from dragon_overlay.preload import plan, reading

Plan = Callable[..., list[str]]

#: The library that programs of these tests import from.
LIBRARY = {
    "site-packages/lib/__init__.py": "",
    "site-packages/lib/part/__init__.py": "",
    "site-packages/lib/part/detail.py": "",
    "site-packages/one.py": "",
    "site-packages/two.py": "",
}


@pytest.fixture(autouse=True)
def no_wish_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DRAGON_PRELOAD", raising=False)


@pytest.fixture
def plan_of(tmp_path: Path) -> Plan:
    """The plan for a main, given as text, beside other files."""

    def plan_of(main: str, files: dict[str, str] | None = None, named: Any = ()) -> list[str]:
        write_tree(tmp_path, LIBRARY | {"main.py": main} | (files or {}))
        path = [str(tmp_path), *sys.path, str(tmp_path / "site-packages")]
        return plan(str(tmp_path / "main.py"), path, named)

    return plan_of


def test_modules_are_named_in_the_order_of_import_and_once(plan_of: Plan) -> None:
    assert plan_of("import two, json\nimport one\nimport two as other") == ["two", "json", "one"]


def test_all_parents_of_a_module_are_named(plan_of: Plan) -> None:
    assert plan_of("import lib.part.detail") == ["lib", "lib.part", "lib.part.detail"]


def test_a_name_imported_from_a_package_counts_if_it_is_a_module(plan_of: Plan) -> None:
    assert plan_of("from lib.part import detail, value") == ["lib", "lib.part", "lib.part.detail"]
    assert plan_of("from os import path, getpid\nfrom one import *") == ["os", "one"]


@pytest.mark.parametrize(
    "text",
    [
        "def f():\n    import one",
        "async def f():\n    import one",
        "if __name__ == '__main__':\n    import one",
        "if '__main__' == __name__ and ready():\n    import one",
        "if __name__ != '__main__':\n    pass\nelse:\n    import one",
        "if not __name__ == '__main__':\n    pass\nelse:\n    import one",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import one",
        "import typing as t\nif t.TYPE_CHECKING:\n    import one",
        "class A:\n    def f(self):\n        import one",
    ],
)
def test_what_a_child_does_not_run_does_not_count(plan_of: Plan, text: str) -> None:
    assert "one" not in plan_of(text)


@pytest.mark.parametrize(
    "text",
    [
        "if __name__ == '__main__':\n    pass\nelse:\n    import one",
        "if __name__ != '__main__':\n    import one",
        "if not TYPE_CHECKING:\n    import one",
        "if unknown():\n    pass\nelif other():\n    import one",
        "class A:\n    import one",
        "with a():\n    for b in c:\n        import one",
        "while a:\n    pass\nelse:\n    import one",
        "match a:\n    case 1:\n        import one",
        "try:\n    import one\nexcept ImportError:\n    pass",
        "try:\n    pass\nexcept ImportError:\n    pass\nelse:\n    import one",
        "try:\n    pass\nfinally:\n    import one",
    ],
)
def test_what_a_child_may_run_counts(plan_of: Plan, text: str) -> None:
    assert plan_of(text) == ["one"]


def test_the_second_choice_counts_only_if_the_first_is_missing(plan_of: Plan) -> None:
    text = "try:\n    import {}\nexcept ImportError:\n    import two"
    assert plan_of(text.format("one")) == ["one"]
    assert plan_of(text.format("there_is_none")) == ["two"]
    assert plan_of(text.format("lib.there_is_none")) == ["lib", "two"]


def test_own_modules_are_followed_and_not_named(plan_of: Plan) -> None:
    files = {"own.py": "import one, other", "other.py": "import own, two\nimport main"}
    assert plan_of("import own, json", files) == ["one", "two", "json"]


def test_nothing_of_the_program_is_executed(plan_of: Plan) -> None:
    assert plan_of("import own\nraise SystemExit", {"own.py": "import one\n1 / 0"}) == ["one"]
    assert "own" not in sys.modules


def test_relative_imports_are_followed(plan_of: Plan) -> None:
    files = {
        "pack/__init__.py": "from . import a",
        "pack/a.py": "from .deep.b import x\nfrom .. import beyond",
        "pack/deep/__init__.py": "",
        "pack/deep/b.py": "from ..c import y\nfrom .. import d",
        "pack/c.py": "import one",
        "pack/d.py": "import two",
    }
    assert plan_of("import pack", files) == ["one", "two"]


def test_the_main_of_a_package_has_the_packages_imports(tmp_path: Path) -> None:
    files = {
        "pack/__init__.py": "import one",
        "pack/main.py": "from .sub import x",
        "pack/sub.py": "import two",
    }
    write_tree(tmp_path, LIBRARY | files)
    path = [str(tmp_path), str(tmp_path / "site-packages")]
    assert plan(str(tmp_path / "pack/main.py"), path) == ["one", "two"]


def test_relative_imports_of_a_script_lead_nowhere(plan_of: Plan) -> None:
    assert plan_of(
        "from . import own\nfrom .own import x\nimport two", {"own.py": "import one"}
    ) == ["two"]


@pytest.mark.parametrize(
    ("folder", "named"),
    [
        ("venv/lib/python3.11/site-packages", True),
        (".local/lib/python3.11/site-packages", True),
        ("usr/local/lib/python3.11/dist-packages", True),
        ("work/src", False),  # what a .pth file of an editable installation names
        ("work/my-site-packages", False),
    ],
)
def test_the_library_is_told_by_its_folder(
    tmp_path: Path, plan_of: Plan, monkeypatch: pytest.MonkeyPatch, folder: str, named: bool
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / folder)])
    main = plan_of("import installed", {f"{folder}/installed.py": "import one"})
    assert main == (["installed"] if named else ["one"])


def test_what_a_finder_of_an_editable_installation_finds_is_own(
    tmp_path: Path, plan_of: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Finder:
        @staticmethod
        def find_spec(name: str, path: Any = None) -> importlib.machinery.ModuleSpec | None:
            if name != "edited":
                return None
            return importlib.util.spec_from_file_location(name, tmp_path / "src/edited.py")

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    assert plan_of("import edited", {"src/edited.py": "import two"}) == ["two"]


def test_a_finder_that_raises_is_passed_over(
    plan_of: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Finder:
        @staticmethod
        def find_spec(name: str, path: Any = None) -> None:
            raise RuntimeError

    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    assert plan_of("import one") == ["one"]


def test_a_namespace_may_be_spread_over_the_library_and_the_program(plan_of: Plan) -> None:
    files = {
        "space/mine/own.py": "import two",
        "site-packages/space/theirs/part.py": "",
    }
    text = "import space.theirs.part\nfrom space.mine import own"
    assert plan_of(text, files) == ["space.theirs", "space.theirs.part", "two"]


def test_an_own_module_hides_that_of_the_library(plan_of: Plan) -> None:
    assert plan_of("import json, one", {"json.py": "import two"}) == ["two", "one"]


@pytest.mark.parametrize(
    "content", [b"import one\n)", b"import one\n\0", b"# coding: nonsense\nimport one", b"\xff"]
)
def test_what_cannot_be_read_is_passed_over(tmp_path: Path, plan_of: Plan, content: bytes) -> None:
    (tmp_path / "own.py").write_bytes(content)
    (tmp_path / "folder.py").mkdir()
    assert plan_of("import own, folder, there_is_none.part, two") == ["two"]


def test_a_missing_main_is_passed_over(tmp_path: Path) -> None:
    assert plan(str(tmp_path / "none.py"), [str(tmp_path)]) == []
    assert plan(None, [str(tmp_path)]) == []


def test_code_nested_without_end_is_passed_over(plan_of: Plan) -> None:
    steps = "".join(f"elif a == {number}:\n    pass\n" for number in range(2000))
    assert plan_of(f"import one\nif a:\n    pass\n{steps}import two")[0] == "one"


def test_warnings_about_the_source_are_left_to_the_child(plan_of: Plan) -> None:
    assert plan_of("import one\na = '\\d'\nif a is 3:\n    pass") == ["one"]


@pytest.mark.parametrize(
    "text",
    [
        "os.environ['OMP_NUM_THREADS'] = '1'",
        "environ.setdefault('OMP_NUM_THREADS', '1')",
        "os.environ |= {}",
        "del os.environ['X']",
        "os.putenv('X', '1')",
        "sys.path.insert(0, 'vendor')",
        "sys.path[:0] = ['vendor']",
        "sys.path = []",
        "sys.meta_path.insert(0, hook)",
        "sys.modules['one'] = None",
        "gevent.monkey.patch_all()",
        "import own",
        "if True:\n    os.environ['X'] = '1'",
    ],
)
def test_reading_ends_where_later_imports_may_mean_something_else(plan_of: Plan, text: str) -> None:
    files = {"own.py": "import os\nos.environ['X'] = '1'"}
    assert [*plan_of(f"import two\n{text}\nimport one", files), "os"][:2] == ["two", "os"]


@pytest.mark.parametrize(
    "text",
    [
        "a = os.environ.get('X')",
        "a = os.environ['X']",
        "a = 'X' in os.environ",
        "sys.path.append('last')",
        "def f():\n    os.environ['X'] = '1'",
        "if __name__ == '__main__':\n    os.environ['X'] = '1'",
        "sys.stdout.write(str(sys.path))",
    ],
)
def test_reading_goes_on_where_nothing_changes(plan_of: Plan, text: str) -> None:
    assert plan_of(f"import two\n{text}\nimport one") == ["two", "one"]


def test_reading_ends_with_a_very_large_program(
    plan_of: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_SOURCE_BYTES", 100)
    files = {"small.py": "import two", "large.py": "#" * 100}
    assert plan_of("import small, large, one", files) == ["two"]


def test_the_import_system_notices_nothing(plan_of: Plan) -> None:
    caches, modules = dict(sys.path_importer_cache), set(sys.modules)
    plan_of("import own, lib.part, one", {"own.py": "import two"})
    assert (dict(sys.path_importer_cache), set(sys.modules)) == (caches, modules)


def test_the_user_and_the_caller_add_names_that_may_be_own(
    plan_of: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRAGON_PRELOAD", "own, two ,one")
    assert plan_of("import one", named=["__main__", "other"]) == ["one", "other", "own", "two"]


@pytest.mark.parametrize("value", ["", " ", ","])
def test_an_empty_wish_turns_everything_off(
    plan_of: Plan, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("DRAGON_PRELOAD", value)
    assert plan_of("import one", named=["two"]) == []
