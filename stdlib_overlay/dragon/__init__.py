"""dragon: shared memory, channels and processes for Python programs.

Importing it before ``multiprocessing`` puts "dragon" first among the start methods and lets the
program switch between it and others freely, and the classes of ``multiprocessing`` make its objects
where their context is "dragon". Under plain ``python3`` the core (``dragon.managed_memory``) works;
the start method does not exist there, and says how to get it.
"""

from __future__ import annotations

import sys

from _dragon import PoolFull, StaleHandle

if "_dragon_launch" in sys.builtin_module_names:
    from dragon_overlay.context import announce

    announce()
    del announce
else:
    from dragon import _plain

    _plain.install()

__all__ = ["PoolFull", "StaleHandle", "__version__"]

__version__ = "0.1.0"
