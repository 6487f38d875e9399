"""How processes have ended, in words."""

from __future__ import annotations

import os
import reprlib
import signal

#: A status that says that nobody saw how a process ended.
UNKNOWN = 0xFFFF

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 100
_short.maxlevel = 3


def name_of_signal(exitcode: int | None) -> str | None:
    """The name of the signal that an exit code of multiprocessing stands for, if one."""
    if exitcode is None or exitcode >= 0:
        return None
    try:
        return signal.Signals(-exitcode).name
    except ValueError:
        return f"signal {-exitcode}"


def exit_in_words(exitcode: int) -> str:
    """What has happened to a process, by its exit code as multiprocessing has it."""
    how = name_of_signal(exitcode)
    return f"was killed by {how}" if how else f"has ended with exit code {exitcode}"


def end_in_words(status: int) -> str:
    """What has happened to a process that ended uncleanly, by its status as ``waitpid`` has it."""
    if status == UNKNOWN:
        return "died in a way that nobody saw"
    exitcode = os.waitstatus_to_exitcode(status)
    return exit_in_words(exitcode) if exitcode < 0 else f"ended by os._exit({exitcode})"


def short_repr(obj: object) -> str:
    """A repr of bounded length, which does not fail."""
    try:
        return _short.repr(obj)
    except Exception as error:  # noqa: BLE001  # the program's own __repr__
        return f"<{type(obj).__name__}, whose repr fails with {type(error).__name__}>"
