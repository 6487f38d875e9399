"""Where modules come from: found without being imported, and told apart.

A module is of the *library* if it is built in or embedded, or lies in the standard library or below
a folder named site-packages or dist-packages, wherever that is: environments and user folders
included. Every other one is the program's *own*, also if it was installed as editable.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any, NamedTuple

_EMBEDDED = "<dragon>/"


def _standard_folders() -> tuple[str, ...]:
    """Folders of the standard library; sysconfig knows them too, but takes milliseconds."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    archive = f"{version.replace('.', '')}.zip"
    folders = {os.path.dirname(os.__file__)}
    for prefix in (sys.base_prefix, sys.base_exec_prefix):
        for lib in {"lib", sys.platlibdir}:
            folders |= {os.path.join(prefix, lib, version), os.path.join(prefix, lib, archive)}
    return tuple(sorted(folder + os.sep for folder in folders))


_STANDARD_FOLDERS = _standard_folders()


def is_library(file: str) -> bool:
    """Return whether a file (or folder) belongs to the library."""
    if file.startswith((_EMBEDDED, *_STANDARD_FOLDERS)) or file + os.sep in _STANDARD_FOLDERS:
        return True
    parts = file.split(os.sep)
    return "site-packages" in parts or "dist-packages" in parts


class Place(NamedTuple):
    """Where a module is.

    Attributes:
        file: its file; "" if it has none (built in, namespace).
        folders: of a package: where its modules are looked for.
        is_library: see the head of this file.
    """

    file: str
    folders: tuple[str, ...] | None
    is_library: bool


def place_of(spec: ModuleSpec) -> Place:
    """The place that an import system's answer names."""
    locations = spec.submodule_search_locations
    folders = None if locations is None else tuple(locations)
    file = (spec.origin or "") if spec.has_location else ""
    own = not is_library(file) if file else not all(map(is_library, folders or ()))
    return Place(file, folders, not own)


class Places:
    """Finds modules as an import would, on a path of its own, and remembers them.

    Nothing is imported, and the caches of the import system stay as they are.
    """

    def __init__(self, path: Sequence[str]) -> None:
        self._path = path
        self._finders: dict[str, Any] = {}
        self._places: dict[str, Place | None] = {}

    def find(self, name: str) -> Place | None:
        """Return where a module is; None if it is nowhere, or only its package's code knows."""
        if name not in self._places:
            self._places[name] = self._find(name)
        return self._places[name]

    def _find(self, name: str) -> Place | None:
        package = name.rpartition(".")[0]
        folders: Sequence[str] | None = None
        if package:
            parent = self.find(package)
            if parent is None or parent.folders is None:
                return None
            folders = parent.folders
        for finder in sys.meta_path:
            spec = self._ask(finder, name, folders)
            if spec is not None:
                return place_of(spec)
        return None

    def _ask(self, finder: Any, name: str, folders: Sequence[str] | None) -> ModuleSpec | None:
        if finder is PathFinder:
            return self._find_on_path(name, self._path if folders is None else folders)
        try:
            found: ModuleSpec | None = finder.find_spec(name, folders)
        except Exception:  # noqa: BLE001  # somebody's finder; an import will show its error
            return None
        return found

    def _find_on_path(self, name: str, folders: Sequence[str]) -> ModuleSpec | None:
        """PathFinder's search; its own one for a namespace needs the parent to be imported."""
        portions: list[str] = []
        for folder in folders:
            finder = self._finder_of(folder)
            spec: ModuleSpec | None = finder.find_spec(name) if finder else None
            if spec is not None and spec.loader is not None:
                return spec
            if spec is not None:
                portions += spec.submodule_search_locations or ()
        if not portions:
            return None
        namespace = ModuleSpec(name, None, is_package=True)
        namespace.submodule_search_locations = portions
        return namespace

    def _finder_of(self, folder: str) -> Any:
        if folder not in self._finders:
            self._finders[folder] = _new_finder(folder)
        return self._finders[folder]


def _new_finder(folder: str) -> Any:
    for hook in sys.path_hooks:
        try:
            return hook(folder)
        except ImportError:
            continue
    return None
