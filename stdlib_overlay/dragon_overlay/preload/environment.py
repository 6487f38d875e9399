"""Which variables of the environment the preloaded modules looked at when they were imported."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dragon_overlay.preload.rules import READ_BY_LIBRARIES

#: The values, before an import and after it, of each variable that was looked at; of those only
#: libraries in C look at, if they were set.
_values: dict[str, set[str | None]] = {}
_is_noted = False


def changed(environ: Mapping[str, str]) -> str:
    """Ask whether preloaded modules would find another environment if a child imported them.

    A child that is to have such an environment must not be forked from this process: a library that
    is loaded does not look again at OMP_NUM_THREADS.

    Args:
        environ: the environment that the child is to have.

    Returns:
        The name of a variable that was looked at and has another value; "" if there is none, in
        particular if nothing has been preloaded.
    """
    for name, values in _values.items():
        if environ.get(name) not in values:
            return name
    if _is_noted:
        for name in environ:
            if name.startswith(READ_BY_LIBRARIES) and name not in _values:
                return name
    return ""


@contextmanager
def noting_what_is_read() -> Iterator[None]:
    """Note the variables that are looked at meanwhile, by modules written in Python."""
    global _is_noted
    before = dict(os.environ)
    environ: Any = os.environ
    environb: Any = os.environb
    noting = _Noting(environ._data)
    environ._data = environb._data = noting
    try:
        yield
    finally:
        environ._data = environb._data = dict(noting.items())  # which notes nothing
    _is_noted = True
    names = noting.names | {name for name in before if name.startswith(READ_BY_LIBRARIES)}
    for name in names:
        _values.setdefault(name, set()).update((before.get(name), os.environ.get(name)))


class _Noting(dict[bytes, bytes]):
    """What `os.environ` keeps its variables in, with notes of those that are read."""

    def __init__(self, data: Mapping[bytes, bytes]) -> None:
        super().__init__(data)
        self.names: set[str] = set()

    def __getitem__(self, name: bytes) -> bytes:
        self.names.add(os.fsdecode(name))
        return super().__getitem__(name)

    def __iter__(self) -> Iterator[bytes]:
        self.names.update(map(os.fsdecode, self.keys()))
        return super().__iter__()
