"""Imports without a trial, in a process that is thrown away if they turn out to be unsafe.

Most programs import nothing that could do harm to a server of forks. A server-to-be that imports at
once, and looks then at what has come of it, is ready in half the time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from dragon_overlay.preload import state, traces
from dragon_overlay.preload.trial import (
    Guard,
    Output,
    import_as_main_does,
    reason_of_threads,
)

#: Generators that their modules seed from the operating system. Of any other, only a comparison of
#: two processes could tell.
_SEEDED_ANEW = {"numpy.random.mtrand._rand", "torch.default_generator"}


def import_all(names: Sequence[str], excluded: Callable[[str], str]) -> str:
    """Import modules here. Blocks.

    Args:
        names: modules, not yet imported here.
        excluded: says why a module must not be imported, also not by another; "" if it may.

    Returns:
        Why nothing must be forked from this process any more; "" if that is safe, and then all of
        the modules are loaded.
    """
    refused: list[str] = []
    guard = Guard(excluded, refused.append)
    sys.meta_path.insert(0, guard)
    output = Output()
    before, threads, known = traces.look(), traces.n_threads(), set(sys.modules)
    try:
        for name in names:
            guard.begin(name)
            import_as_main_does(name)
    except BaseException as error:  # noqa: BLE001  # whatever it is: this process will end
        return f"importing raises {type(error).__name__}"
    finally:
        sys.meta_path.remove(guard)
    new = set(sys.modules) - known
    if refused:
        return refused[0]
    if state.has_others(new, _SEEDED_ANEW):
        return "it has a random generator"
    reason = reason_of_threads(threads, new) or traces.difference(before, traces.look())
    if reason or traces.has_children():
        return reason or "it starts a process"
    if output.n_bytes() > 0:
        return "it writes to standard output or error"
    output.stop()
    state.keep(new, {})
    return ""
