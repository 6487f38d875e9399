"""What a program imports, read from its source; nothing of the program is executed.

Read are the main file and the program's own modules that it imports, in the order in which an
import would come to them. Only what every child executes counts: the level of the module, not
functions, nor what stands below ``if __name__ == "__main__"`` or ``if TYPE_CHECKING``.

Reading ends at a statement that may change what later imports mean, such as
``sys.path.insert(...)`` or ``os.environ["OMP_NUM_THREADS"] = "1"``: what is imported after it is
left to the child.
"""

from __future__ import annotations

import ast
import os
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress

from dragon_overlay.preload.places import Place, Places
from dragon_overlay.preload.rules import names_in, with_parents

#: Source that is read for one plan, at most: 150 ms. What comes after it is left to the child.
MAX_SOURCE_BYTES = 2 << 20

#: Objects whose change gives later imports another meaning, and what may be asked of them.
_GROUND = {
    *("environ", "os.environ", "os.environb"),
    *("sys.meta_path", "sys.modules", "sys.path", "sys.path_hooks"),
}
_HARMLESS = {"append", "copy", "count", "extend", "get", "index", "items", "keys", "values"}
#: Functions that do so: of os, and of gevent and eventlet.
_GROUND_FUNCTIONS = {"monkey_patch", "patch_all", "putenv", "unsetenv"}
_GROUND_WORDS = (b"environ", b"sys", b"putenv", b"unsetenv", b"patch")


def plan(main_path: str | None, path: Sequence[str], named: Iterable[str] = ()) -> list[str]:
    """Choose the modules that a server of forks should have loaded for a program's children.

    These are the modules of the library (the standard library, site-packages) that the program
    imports at module level, directly or through modules of its own, and those that the user or the
    caller names, which may be the program's own. What cannot be read or found is left out. Reads
    DRAGON_PRELOAD: names to add; set but empty: nothing at all is chosen.

    Args:
        main_path: file of the program's main; None if it has none (a prompt, ``-c``).
        path: the program's ``sys.path``.
        named: more names, those of ``multiprocessing.set_forkserver_preload``; ``__main__`` is
            passed over.

    Returns:
        Dotted names, in the order of import, each once.
    """
    wish = os.environ.get("DRAGON_PRELOAD")
    if wish is not None and not names_in(wish):
        return []
    reader = _Reader(path)
    if main_path is not None:
        reader.read_main(main_path)
    asked = [*named, *names_in(wish or "")]
    return list(dict.fromkeys([*reader.found, *(name for name in asked if name != "__main__")]))


class _Reader:
    """Follows a program's imports. found: names of the library's modules, in order."""

    def __init__(self, path: Sequence[str]) -> None:
        self.found: dict[str, None] = {}
        self._path = path
        self._places = Places(path)
        self._followed: set[str] = set()
        self._bytes_left = MAX_SOURCE_BYTES
        self._is_over = False

    def read_main(self, file: str) -> None:
        package = _package_of(os.path.abspath(file), self._path)
        if package:
            self._follow(package)
        self._read(file, package)

    def _read(self, file: str, package: str) -> None:
        tree, may_change_ground = self._parse(file)
        with suppress(RecursionError):  # nested too deeply: the rest is the child's
            _Walk(self, package, may_change_ground).statements(tree)

    def _parse(self, file: str) -> tuple[list[ast.stmt], bool]:
        try:
            with open(file, "rb") as stream:
                source = stream.read(self._bytes_left + 1)
            self._bytes_left -= len(source)
            if self._bytes_left < 0:
                self._is_over = True
                return [], False
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the child's compiler will say it
                tree = ast.parse(source, file)
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            return [], False
        return tree.body, any(word in source for word in _GROUND_WORDS)

    @property
    def is_over(self) -> bool:
        """Whether what follows is left to the child."""
        return self._is_over

    def end(self) -> None:
        self._is_over = True

    def follow(self, name: str) -> bool:
        """Note ``import a.b.c``: each of a, a.b and a.b.c. False if one is not found."""
        return all(map(self._follow, with_parents(name)))

    def _follow(self, name: str) -> bool:
        place = self._places.find(name)
        if place is None:
            return False
        if self._is_over:
            return True
        if place.is_library:
            self.found.setdefault(name)
        elif name not in self._followed:
            self._followed.add(name)
            self._read_own(name, place)
        return True

    def _read_own(self, name: str, place: Place) -> None:
        if place.file.endswith(".py"):
            package = name if place.folders is not None else name.rpartition(".")[0]
            self._read(place.file, package)


class _Walk:
    """Goes through the statements of one module that run when it is imported."""

    def __init__(self, reader: _Reader, package: str, may_change_ground: bool) -> None:
        self._reader = reader
        self._package = package
        self._may_change_ground = may_change_ground

    def statements(self, body: Iterable[ast.AST]) -> bool:
        """Follow the imports in statements. False if a module was not found."""
        found = True
        for statement in body:
            if self._reader.is_over:
                break
            found = self._statement(statement) and found
        return found

    def _statement(self, statement: ast.AST) -> bool:
        if isinstance(statement, ast.Import):
            return False not in [self._reader.follow(alias.name) for alias in statement.names]
        if isinstance(statement, ast.ImportFrom):
            return self._import_from(statement)
        if isinstance(statement, ast.If):
            return self._if(statement)
        if isinstance(statement, ast.Try | ast.TryStar):
            return self._try(statement)
        if isinstance(statement, ast.Match):
            return False not in [self.statements(case.body) for case in statement.cases]
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            return True
        if hasattr(statement, "body"):  # class, with, for, while
            return self.statements([*statement.body, *getattr(statement, "orelse", ())])
        if self._may_change_ground and _changes_ground(statement):
            self._reader.end()
        return True

    def _import_from(self, statement: ast.ImportFrom) -> bool:
        name = statement.module or ""
        if statement.level:
            parts = self._package.split(".")
            parts = parts[: len(parts) - statement.level + 1]
            if not self._package or not parts:
                return False
            name = ".".join([*parts, name] if name else parts)
        if not self._reader.follow(name):
            return False
        for alias in statement.names:
            self._reader.follow(f"{name}.{alias.name}")  # if it is a module
        return True

    def _if(self, statement: ast.If) -> bool:
        runs_body, runs_else = _branches(statement.test)
        body = self.statements(statement.body) if runs_body else True
        other = self.statements(statement.orelse) if runs_else else True
        return body and other

    def _try(self, statement: ast.Try | ast.TryStar) -> bool:
        if self.statements(statement.body):
            self.statements(statement.orelse)
        else:  # the import fails, and what stands below `except` is done instead
            for handler in statement.handlers:
                self.statements(handler.body)
        self.statements(statement.finalbody)
        return True


def _package_of(file: str, path: Sequence[str]) -> str:
    """The package of the main file: "" for a script, PACKAGE for ``-m PACKAGE.module``."""
    folder = os.path.dirname(file)
    entries = [os.path.abspath(entry) for entry in path]
    if folder in entries:
        return ""
    above = [entry for entry in entries if folder.startswith(entry.rstrip(os.sep) + os.sep)]
    if not above:
        return ""
    names = os.path.relpath(folder, max(above, key=len)).split(os.sep)
    return ".".join(names) if all(name.isidentifier() for name in names) else ""


def _branches(test: ast.expr) -> tuple[bool, bool]:
    """Whether a child may run the body of an ``if``, and whether its ``else``."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        runs_body, runs_else = _branches(test.operand)
        return runs_else, runs_body
    if isinstance(test, ast.BoolOp):
        branches = [_branches(value) for value in test.values]
        join_body, join_else = (all, any) if isinstance(test.op, ast.And) else (any, all)
        return join_body(body for body, _ in branches), join_else(other for _, other in branches)
    if _dotted(test).rpartition(".")[2] == "TYPE_CHECKING":
        return False, True
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        return _branches_on_name(test)
    return True, True


def _branches_on_name(test: ast.Compare) -> tuple[bool, bool]:
    """The same for a comparison with ``__name__``, which is never "__main__" in a child."""
    sides = [test.left, test.comparators[0]]
    is_on_name = any(_dotted(side) == "__name__" for side in sides)
    if not is_on_name or not any(_is_text(side, "__main__") for side in sides):
        return True, True
    if isinstance(test.ops[0], ast.Eq):
        return False, True
    return True, not isinstance(test.ops[0], ast.NotEq)


def _is_text(node: ast.expr, text: str) -> bool:
    return isinstance(node, ast.Constant) and node.value == text


def _dotted(node: ast.AST) -> str:
    """The text of ``a.b.c``; "" for any other expression."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return ""


def _changes_ground(statement: ast.AST) -> bool:
    """Whether a simple statement changes the environment, the path or what is imported."""
    return any(map(_is_change, ast.walk(statement)))


def _is_change(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        name = _dotted(node.func)
        before, _, last = name.rpartition(".")
        return last in _GROUND_FUNCTIONS or (before in _GROUND and last not in _HARMLESS)
    if isinstance(node, ast.Attribute | ast.Name | ast.Subscript):
        target = node.value if isinstance(node, ast.Subscript) else node
        return not isinstance(node.ctx, ast.Load) and _dotted(target) in _GROUND
    return False
