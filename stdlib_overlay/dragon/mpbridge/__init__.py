"""The classes of start method "dragon", under the names that programs of the system use.

``multiprocessing`` makes objects of these classes; naming them is for isinstance and subclasses.
"""

from __future__ import annotations

import sys

if "_dragon_launch" not in sys.builtin_module_names:
    raise ImportError(
        "start method 'dragon' is part of the dragon executable: run the program with `dragon`"
    )
