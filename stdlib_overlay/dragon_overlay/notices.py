"""The line on stderr for who waits in vain, as the process that he waits for was killed.

`_dragon` calls ``tell``, once a process, object and death, when a wait has lasted 5 s.
"""

from __future__ import annotations

import os
from multiprocessing import process

from dragon_overlay.ends import end_in_words, short_repr
from dragon_overlay.start_log import tell as _print


def tell(obj: object, was_holder: bool, seconds: float, pid: int, name: str, status: int) -> None:
    """Say that a wait for an object is one for a dead process.

    Args:
        obj: what is waited for.
        was_holder: the process held it; else it was the last other one that used it.
        seconds: how long this process has waited.
        pid: of the dead process.
        name: of the dead process, "" if it is not known.
        status: how it ended, as ``os.waitpid`` gives it; 0xffff: nobody saw that.
    """
    if getattr(obj, "_dragon_is_internal", False):
        return
    own = f"{process.current_process().name} (pid {os.getpid()})"
    dead = f"{name} (pid {pid})" if name else f"pid {pid}"
    if was_holder:
        why = f"its last holder, {dead}, {end_in_words(status)}, and it stays locked"
    else:
        why = f"no other process uses it any more; the last one, {dead}, {end_in_words(status)}"
    _print(f"{own} has waited {seconds:.0f} s for {short_repr(obj)}: {why}")
