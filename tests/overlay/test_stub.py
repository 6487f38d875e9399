"""The stub that type checkers read, against the C module it describes."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest

import _dragon

STUB = ast.parse(
    (Path(__file__).parents[2] / "stdlib_overlay" / "_dragon.pyi").read_text(encoding="utf-8")
)

Definition = ast.FunctionDef | ast.ClassDef

#: Python says that an object has a buffer by these since 3.12; before, only C can tell.
BUFFER = {"__buffer__", "__release_buffer__"}

#: What every type, every module and every object with a __dict__ has.
EVERYWHERE = {
    "__doc__",
    "__loader__",
    "__module__",
    "__name__",
    "__new__",
    "__package__",
    "__spec__",
    "__weakref__",
}


def definitions(body: list[ast.stmt]) -> dict[str, Definition | ast.AnnAssign]:
    found: dict[str, Definition | ast.AnnAssign] = {}
    for node in body:
        if isinstance(node, Definition):
            found[node.name] = node
        elif isinstance(node, ast.AnnAssign):
            found[ast.unparse(node.target)] = node
    return found


def bases(node: ast.ClassDef) -> list[str]:
    return [ast.unparse(base) for base in node.bases]


IN_STUB = {
    name: node
    for name, node in definitions(STUB.body).items()
    # Shapes of arguments and results, with names only for type checkers.
    if not (isinstance(node, ast.ClassDef) and {"Protocol", "TypedDict"} & set(bases(node)))
}
CLASSES = {name: node for name, node in IN_STUB.items() if isinstance(node, ast.ClassDef)}
FUNCTIONS = [
    (_dragon, name, node) for name, node in IN_STUB.items() if isinstance(node, ast.FunctionDef)
]
METHODS = [
    (getattr(_dragon, class_name, None), name, node)
    for class_name, class_node in CLASSES.items()
    for name, node in definitions(class_node.body).items()
    if isinstance(node, ast.FunctionDef) and not name.startswith("__")
]


def test_module_has_the_names_of_the_stub() -> None:
    assert set(vars(_dragon)) - EVERYWHERE == set(IN_STUB)


@pytest.mark.parametrize("name", CLASSES)
def test_class_has_the_names_of_the_stub(name: str) -> None:
    # Every type has __new__; the stub says it where the parameters are its own.
    in_stub = set(definitions(CLASSES[name].body)) - BUFFER - {"__new__"}
    in_module = set(vars(getattr(_dragon, name))) - EVERYWHERE
    if "__setitem__" in in_module:
        in_module.discard("__delitem__")  # the same slot, which refuses that
    assert in_module == in_stub


@pytest.mark.parametrize("name", CLASSES)
def test_class_has_the_base_of_the_stub(name: str) -> None:
    real = [base.__name__ for base in getattr(_dragon, name).__bases__]
    assert real == (bases(CLASSES[name]) or ["object"])


@pytest.mark.parametrize("name", CLASSES)
def test_class_is_final_if_the_stub_says_so(name: str) -> None:
    is_final = any(ast.unparse(d) == "final" for d in CLASSES[name].decorator_list)
    try:
        type("Derived", (getattr(_dragon, name),), {})
    except TypeError:
        assert is_final
    else:
        assert not is_final


def is_property(node: ast.FunctionDef) -> bool:
    return any(ast.unparse(d) == "property" for d in node.decorator_list)


@pytest.mark.parametrize(
    ("owner", "name", "node"), METHODS, ids=[f"{o.__name__}.{n}" for o, n, _ in METHODS if o]
)
def test_attribute_is_of_the_kind_of_the_stub(owner: Any, name: str, node: ast.FunctionDef) -> None:
    attribute = inspect.getattr_static(owner, name)
    is_data = inspect.isgetsetdescriptor(attribute) or inspect.ismemberdescriptor(attribute)
    assert is_data == is_property(node)


def words(arguments: ast.arguments) -> list[str]:
    """The parameters as inspect.Signature prints them, without annotations and self."""
    texts = [a.arg for a in arguments.posonlyargs + arguments.args]
    for at, value in enumerate(reversed(arguments.defaults), start=1):
        texts[-at] += "=" + ast.unparse(value)
    if arguments.posonlyargs:
        texts.insert(len(arguments.posonlyargs), "/")
    return texts[1:] if texts[:1] in (["self"], ["cls"]) else texts


def documented_words(signature: str) -> list[str]:
    """The same, of what the C source documents."""
    found = [word.strip() for word in signature.strip("()").split(",") if word.strip()]
    if found[:2] == ["$self", "/"]:
        return found[2:]
    return found[1:] if found[:1] == ["$self"] else found


@pytest.mark.parametrize(
    ("owner", "name", "node"),
    FUNCTIONS + [m for m in METHODS if not is_property(m[2])],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_function_takes_the_parameters_of_the_stub(
    owner: Any, name: str, node: ast.FunctionDef
) -> None:
    signature = getattr(owner, name).__text_signature__
    if signature is not None:  # the C source documents its parameters
        assert words(node.args) == documented_words(signature)
