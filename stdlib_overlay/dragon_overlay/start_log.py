"""What is told on stderr about the way in which processes are started.

That children are executed although they should be forked, which takes ten times longer, is said
once a process, and never where it is as it should be. With ``start`` among the words of DRAGON_LOG,
there is a line for each start.
"""

from __future__ import annotations

import contextlib
import os
import sys

_has_told = False


def started(name: str, pid: int, why_executed: str | None, *, is_expected: bool) -> None:
    """Note that a process has been started.

    Args:
        name: of the process.
        pid: of the process.
        why_executed: why it could not be forked; None: it was.
        is_expected: that it was executed is nothing that the user should know of.
    """
    global _has_told
    if "start" in os.environ.get("DRAGON_LOG", "").split(","):
        how = "forked" if why_executed is None else f"executed: {why_executed}"
        tell(f"{name}, pid {pid}, {how}")
    elif why_executed is not None and not is_expected and not _has_told:
        _has_told = True
        tell(f"processes are executed, not forked ({why_executed}); see dragon doctor")


def seed_lost(why: str) -> None:
    """Note that the seed, of which there is one a process, is of no use any more."""
    tell(f"the seed is lost ({why}); fork servers are executed from now on")


def tell(text: str) -> None:
    """Print a line of dragon's, if there is anywhere to print it."""
    if sys.stderr is None:
        return
    with contextlib.suppress(OSError, ValueError):  # closed, or nobody reads
        print(f"dragon: {text}", file=sys.stderr, flush=True)
