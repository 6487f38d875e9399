"""dragon: shared memory, channels and processes for Python programs.

Importing it before ``multiprocessing`` puts "dragon" first among the start methods and lets the
program switch between it and others freely, and the classes of ``multiprocessing`` make its objects
where their context is "dragon". Under plain ``python3`` the core (``dragon.managed_memory``) works;
the start method does not exist there, and says how to get it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from _dragon import PoolFull, StaleHandle

if "_dragon_launch" in sys.builtin_module_names:
    from dragon_overlay.context import announce

    announce()
    del announce
else:
    from dragon import _plain

    _plain.install()

if TYPE_CHECKING:
    from dragon_overlay.errors import TaskTimeout, WorkerDied

__all__ = ["PoolFull", "StaleHandle", "TaskTimeout", "WorkerDied", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # What they derive from takes 10 ms to import.
    if name in ("TaskTimeout", "WorkerDied"):
        from dragon_overlay import errors

        return getattr(errors, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
