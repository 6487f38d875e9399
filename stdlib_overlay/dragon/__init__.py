"""dragon: shared memory, channels and processes for Python programs.

Importing it before ``multiprocessing`` puts "dragon" first among the start methods and lets the
program switch between it and others freely. It does nothing else; under plain ``python3`` the core
(``dragon.managed_memory``) works and the start method does not exist.
"""

from __future__ import annotations

import sys

from _dragon import PoolFull, StaleHandle

if "_dragon_launch" in sys.builtin_module_names:
    from dragon_overlay.context import announce

    announce()
    del announce

__all__ = ["PoolFull", "StaleHandle", "__version__"]

__version__ = "0.1.0"
