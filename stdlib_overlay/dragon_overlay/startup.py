"""What a started process does on its way to its target: its title, and word of what went wrong.

A worker that fails before it has its process object, while it imports the program's main or
unpickles its arguments, prints the error and ends. Whoever started it may want that error, too:
processes with an attribute ``_dragon_failures``, a queue, put ``(pid, traceback)`` into it.
"""

from __future__ import annotations

import os
import sys
import traceback
from types import TracebackType
from typing import Any

import _dragon
import _dragon_launch


class Reporter:
    """Part of the preparation data: unpickled in the child, errors go to the queue, too."""

    def __init__(self, failures: Any) -> None:
        self._failures = failures

    def __reduce__(self) -> tuple[Any, ...]:
        return _report_to, (self._failures,)


class _Hook:
    """``sys.excepthook`` of a process that has not yet arrived."""

    def __init__(self, failures: Any) -> None:
        self._failures = failures
        self.previous = sys.excepthook

    def __call__(
        self, kind: type[BaseException], value: BaseException, tb: TracebackType | None
    ) -> None:
        text = "".join(traceback.format_exception(kind, value, tb))
        self._failures.put((os.getpid(), text))
        self.previous(kind, value, tb)


def _report_to(failures: Any) -> None:
    sys.excepthook = _Hook(failures)


def add_reporter(preparation: dict[str, Any], process_obj: Any) -> None:
    """Have the process report an error that it meets before it has arrived, if it is to."""
    failures = getattr(process_obj, "_dragon_failures", None)
    if failures is not None:
        preparation["dragon_reporter"] = Reporter(failures)


def arrive(process_obj: Any) -> None:
    """In the child: it has main and its process object, and is about to run."""
    if isinstance(sys.excepthook, _Hook):
        sys.excepthook = sys.excepthook.previous
    _dragon.set_name(process_obj.name)
    _dragon_launch.set_title(f"dragon: {process_obj.name}")
    _dragon_launch.note_pages()
