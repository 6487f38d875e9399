"""How far a map has come, on stderr: one line that changes on a terminal, a few lines elsewhere.

Written when calls end, not by a clock, and by the thread that runs callbacks, so that a terminal
that is held up holds no worker up.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any, TextIO

#: Seconds between two lines: of a terminal, of anything else.
_TERMINAL_S = 0.1
_PLAIN_S = 10.0


class Progress:
    """Counts the ended calls of a job."""

    def __init__(self, func: Any, n_all: int | None, file: TextIO | None = None) -> None:
        """Begin.

        Args:
            func: what is called.
            n_all: calls; None: unknown.
            file: where to write; None: stderr, and nothing at all if DRAGON_PROGRESS is 0.
        """
        self._name = getattr(func, "__name__", None) or type(func).__name__
        self._n_all = n_all
        self._n = 0
        self._begin = time.monotonic()
        self._file = file
        if file is None and os.environ.get("DRAGON_PROGRESS") != "0":
            self._file = sys.stderr
        self._is_terminal = self._file is not None and self._file.isatty()
        self._next = self._begin + (_TERMINAL_S if self._is_terminal else _PLAIN_S)
        self._is_open = False  # the line has no end yet
        self._lock = threading.Lock()  # two threads may tell of the last call

    def add(self, n: int) -> None:
        """So many more calls have ended."""
        with self._lock:
            self._n += n
            now = time.monotonic()
            if self._n == self._n_all:
                self._end()
            elif now >= self._next:
                self._next = now + (_TERMINAL_S if self._is_terminal else _PLAIN_S)
                self._write(now, is_last=False)

    def expect(self, n_all: int) -> None:
        """So many calls it will be."""
        with self._lock:
            self._n_all = n_all
            if self._n == n_all:
                self._end()

    def close(self) -> None:
        """No more calls will end."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        """Write the last line, once."""
        self._write(time.monotonic(), is_last=True)
        self._file = None

    def _write(self, now: float, *, is_last: bool) -> None:
        if self._file is None:
            return
        line = self._line(now - self._begin)
        self._is_open = self._is_terminal and not is_last
        before, after = ("\r", "\x1b[K") if self._is_terminal else ("", "")
        try:
            self._file.write(before + line + after + ("" if self._is_open else "\n"))
            self._file.flush()
        except (OSError, ValueError):  # closed, or nobody reads it: the calls matter more
            self._file = None

    def _line(self, passed_s: float) -> str:
        rate = self._n / passed_s if passed_s > 0 else 0.0
        parts = [f"{self._name}: {self._n}"]
        if self._n_all is not None:
            parts[0] += f"/{self._n_all}"
            parts.append(f"{100 * self._n // max(1, self._n_all)} %")
        parts.append(f"{rate:.0f}/s" if rate >= 10 else f"{rate:.2g}/s")
        if self._n_all is not None and self._n < self._n_all and rate > 0:
            parts.append(f"{_clock((self._n_all - self._n) / rate)} left")
        else:
            parts.append(f"in {_clock(passed_s)}")
        return ", ".join(parts)


def _clock(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{s:02}" if hours else f"{minutes}:{s:02}"
