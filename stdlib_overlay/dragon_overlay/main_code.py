"""The code of the program's main, compiled once for all children.

A child runs main's file as the module ``__mp_main__`` (Lib/multiprocessing/spawn.py, by way of
`runpy.run_path`), which compiles it anew each time. The fork server compiles it before it forks;
a child uses that if the file is still the same.
"""

from __future__ import annotations

import opcode
import os
import runpy
import sys
from collections.abc import Iterator
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
        # Nor need a child look whether it is an archive, which takes it longer than running it.
        sys.path_importer_cache.setdefault(path, None)
    runpy._get_code_from_file = _get_code  # type: ignore[attr-defined]


def imported_by_main() -> frozenset[str] | None:
    """Return the packages that the compiled main names in any import, None if it is not known."""
    if not _compiled:
        return None
    (code,) = _compiled.values()
    return frozenset(_imported_by(code))


def _imported_by(code: CodeType) -> Iterator[str]:
    import_name = opcode.opmap["IMPORT_NAME"]
    high = 0
    for at in range(0, len(code.co_code), 2):
        operation, low = code.co_code[at], code.co_code[at + 1]
        if operation == import_name:
            yield code.co_names[high | low].partition(".")[0]
        high = (high | low) << 8 if operation == opcode.EXTENDED_ARG else 0
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _imported_by(constant)


def _get_code(run_name: str, path: str) -> tuple[CodeType, str]:
    code = _compiled.get(_key(os.fspath(path)))  # type: ignore[arg-type]
    if code is not None:
        return code, path
    found: tuple[CodeType, str] = _stock_get_code(run_name, path)
    return found
