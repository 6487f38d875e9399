"""What help() shows of the core library."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest


def public_members(kind: type) -> Iterator[tuple[str, Any]]:
    """The methods and properties that a class has from us, with their names."""
    for base in kind.__mro__:
        if base.__module__.startswith(("dragon.", "_dragon")):
            for name, member in vars(base).items():
                if not name.startswith("_") and (
                    inspect.isroutine(member) or isinstance(member, property)
                ):
                    yield f"{kind.__name__}.{name}", getattr(member, "__func__", member)


def public_names(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """The functions, the classes and their members, with their names."""
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value):
            yield from public_members(value)
        if inspect.isroutine(value) or inspect.isclass(value):
            yield name, value


@pytest.mark.parametrize("name", ["managed_memory", "channels", "locks", "dtypes", "rc", "utils"])
def test_every_public_name_is_explained_and_time_outs_have_their_unit(name: str) -> None:
    found = dict(public_names(importlib.import_module(f"dragon.{name}")))
    assert found
    for path, value in found.items():
        text = value.__doc__ or ""
        assert text.strip(), path
        if inspect.isroutine(value) and "timeout" in inspect.signature(value).parameters:
            assert "second" in text, path
