"""The temporary directory of a program: one for all its processes, gone when the head has ended.

In the standard library each process makes its own (`multiprocessing.util.get_temp_dir`; managers
and listeners have their sockets there) and removes it when it exits; what is killed leaves it
behind. Here the head thinks of a path before it starts its first process, tells it to its seed and
its children, and whoever needs the folder first makes it. The head removes it when it exits, and if
it is killed, the seed does (launcher/seed.h).

The path is nobody's to guess, the folder is made with mode 0700, and one that was there before must
be ours and be so.

Source: get_temp_dir in Lib/multiprocessing/util.py of CPython 3.11.
"""

from __future__ import annotations

import os
import stat
import sys
from multiprocessing import process
from types import ModuleType
from typing import Any

import _dragon
import _dragon_launch
from dragon_overlay import seed

#: In the configuration of a process, which its children inherit: the path.
_KEY = "dragon_tempdir"

_LETTERS = "abcdefghijklmnopqrstuvwxyz012345"

#: In a head that has tried to plan: the path, "" if there is none.
_planned: str | None = None


def plan() -> None:
    """In a head that is about to need the folder, or to start a process: have a path for it."""
    global _planned
    if _planned is None and not _dragon_launch.is_child and _dragon.is_head():
        _planned = _new_path()
        if _planned:
            _keep(_planned)
            _config()[_KEY] = _planned


def share(process_obj: Any) -> None:
    """Tell a child, before it is started, of the folder."""
    plan()
    if _KEY in _config():
        process_obj._config[_KEY] = _config()[_KEY]


def install(util: ModuleType) -> None:
    """Complete ``multiprocessing.util``, just executed."""
    stock_get_temp_dir = util.get_temp_dir

    def get_temp_dir() -> str:
        config = _config()
        if config.get("tempdir") is None:
            if _is_in_use():
                plan()
            path = _path()
            if path and _make(path):
                config["tempdir"] = path
                util.info("created temporary directory %s", path)
        return str(stock_get_temp_dir())

    util.get_temp_dir = get_temp_dir  # type: ignore[attr-defined]


def _config() -> dict[str, Any]:
    config: dict[str, Any] = process.current_process()._config  # type: ignore[attr-defined]
    return config


def _is_in_use() -> bool:
    """Whether "dragon" is the start method of this process, or was chosen by nobody else."""
    from dragon_overlay.context import DragonContext

    default: Any = sys.modules["multiprocessing.context"]._default_context
    return isinstance(default._actual_context or default._default_context, DragonContext)


def _path() -> str | None:
    """The path, but for stock children: they inherit it, and do not end with the head."""
    return _config().get(_KEY) if _dragon_launch.is_child else _planned


def _new_path() -> str:
    if "tempfile" in sys.modules:
        try:
            folder = sys.modules["tempfile"].gettempdir()
        except FileNotFoundError:  # nothing can be written anywhere; most programs need not
            return ""
    else:  # what it would say; importing it takes as long as starting the process
        named = [os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")]
        folder = next(filter(None, [*named, "/tmp"]))
    folder = os.path.abspath(folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        return ""
    # As long as the library's: what lies in it may be a socket, whose path has a limit.
    name = "".join([_LETTERS[byte % 32] for byte in os.urandom(8)])
    return os.path.join(folder, f"pymp-{name}")


def _keep(path: str) -> None:
    """Have the folder removed at the end of this process, by whatever that comes."""
    from multiprocessing import util

    def remove() -> None:
        if os.path.isdir(path):
            import shutil

            shutil.rmtree(path, ignore_errors=True)
        _config()["tempdir"] = None

    util.Finalize(None, remove, exitpriority=-100)
    seed.keep(path)


def _make(path: str) -> bool:
    """Whether there is such a folder now, of ours alone."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        status = os.lstat(path)
        return (
            stat.S_ISDIR(status.st_mode)
            and status.st_uid == os.geteuid()
            and stat.S_IMODE(status.st_mode) == 0o700
        )
    except OSError:
        return False
    return True
