"""The layers of ARCHITECTURE.md against the #include and import lines of the sources.

The rules stand in ARCHITECTURE.md, in the fenced block whose first line is `layers:`
    layers:                        folders of runtime/, the lowest first, each may include itself
    base                           and those before it
    ...
    python.h:                      files and folders that may include Python.h
    stdlib_overlay/_dragon/
    ...
    imports:                       package: what it may import besides the stdlib and itself
    dragon_overlay: _dragon
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)


def rules(section: str) -> list[str]:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    block = re.search(r"^```\w*\n(layers:\n.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert block, "ARCHITECTURE.md has no fenced block that starts with the line 'layers:'"
    found: dict[str, list[str]] = {}
    for line in filter(None, (line.split("#")[0].strip() for line in block[1].splitlines())):
        if line in ("layers:", "python.h:", "imports:"):
            lines = found.setdefault(line[:-1], [])
        else:
            lines.append(line)
    return found[section]


def c_sources(*folders: str) -> Iterator[tuple[str, list[str]]]:
    """Each C file of the folders, as its name from the top and what it includes."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.[ch]")):
            names = [name for _, name in INCLUDE.findall(path.read_text(encoding="utf-8"))]
            yield path.relative_to(ROOT).as_posix(), names


def test_runtime_includes_downward_only() -> None:
    order = {layer: height for height, layer in enumerate(rules("layers"))}
    uphill, unknown = [], []
    for name, includes in c_sources("runtime"):
        folder = name.split("/")[1]
        if name.count("/") == 1:
            continue  # runtime/dragon.h is above all layers
        if folder not in order:
            unknown.append(name)
            continue
        for include in includes:
            included = include.split("/")[0]
            if order.get(included, 0) > order[folder]:
                uphill.append(f"{name} includes {include}")
    assert not unknown, "folders that ARCHITECTURE.md does not list"
    assert not uphill


def test_runtime_includes_nothing_of_the_floors_above_it() -> None:
    above = ("launcher/", "stdlib_overlay/", "_dragon/", "..")
    wrong = [
        (n, i) for n, includes in c_sources("runtime") for i in includes if i.startswith(above)
    ]
    assert not wrong


def test_python_header_is_included_only_where_allowed() -> None:
    allowed = tuple(rules("python.h"))
    wrong = [
        name
        for name, includes in c_sources("runtime", "stdlib_overlay", "launcher", "tests")
        if "Python.h" in includes and not name.startswith(allowed)
    ]
    assert not wrong


def imported_names(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


def import_rules() -> list[tuple[str, set[str]]]:
    split = (line.partition(":") for line in rules("imports"))
    return [(package.strip(), set(names.split())) for package, _, names in split]


def test_packages_import_only_what_they_may() -> None:
    wrong = []
    for package, allowed in import_rules():
        for path in sorted((ROOT / "stdlib_overlay" / package).rglob("*.py")):
            extra = imported_names(path) - allowed - {package} - set(sys.stdlib_module_names)
            wrong += [f"{path.relative_to(ROOT)} imports {name}" for name in sorted(extra)]
    assert not wrong
