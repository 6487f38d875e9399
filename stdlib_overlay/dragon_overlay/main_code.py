"""The code of the program's main, compiled once for all children.

A child runs main's file as the module ``__mp_main__`` (Lib/multiprocessing/spawn.py, by way of
`runpy.run_path`), which compiles it anew each time. The fork server compiles it before it forks;
a child uses that if the file is still the same.
"""

from __future__ import annotations

import os
import runpy
from types import CodeType

_Key = tuple[str, int, int, int]

_compiled: dict[_Key, CodeType] = {}
_stock_get_code = runpy._get_code_from_file  # type: ignore[attr-defined]


def _key(path: str) -> _Key | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return path, status.st_ino, status.st_mtime_ns, status.st_size


def prepare(path: str) -> None:
    """Compile the file at path, which may be anything. To be called once, before the first fork."""
    key = _key(path)
    if key is not None and os.path.isfile(path):
        try:
            code, _ = _stock_get_code("__mp_main__", path)
        except Exception:  # noqa: BLE001  # the child meets it again, where it can be told
            return
        _compiled[key] = code
    runpy._get_code_from_file = _get_code  # type: ignore[attr-defined]


def _get_code(run_name: str, path: str) -> tuple[CodeType, str]:
    code = _compiled.get(_key(os.fspath(path)))  # type: ignore[arg-type]
    if code is not None:
        return code, path
    found: tuple[CodeType, str] = _stock_get_code(run_name, path)
    return found
