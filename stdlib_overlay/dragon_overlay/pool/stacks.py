"""The Python stack of a worker that ends badly, in a memory file that outlives it.

`faulthandler` writes it: by itself on SIGSEGV, SIGBUS, SIGABRT, SIGFPE and SIGILL, on STACK_SIGNAL
when the pool asks. Its handlers run in C and need no GIL, so that also a call that hangs in C shows
where.
"""

from __future__ import annotations

import faulthandler
import os
import signal
from multiprocessing import reduction
from typing import Any

#: Asks a worker for its stack. A real-time signal: programs have their uses for the others.
STACK_SIGNAL = signal.SIGRTMAX - 3

#: Of a stack so much is kept.
_MAX_BYTES = 16384


class StackFile:
    """Where the stack of a worker goes. The pool makes it, the worker writes it."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("dragon-pool-stack", os.MFD_CLOEXEC)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to a process that is being started."""
        return _watch_for_crashes, (reduction.DupFd(self.fd),)

    def clear(self) -> None:
        """Be empty for the next worker. There must be none now."""
        os.ftruncate(self.fd, 0)
        os.lseek(self.fd, 0, os.SEEK_SET)  # the position is shared with the workers

    def n_bytes(self) -> int:
        """How much has been written."""
        return os.fstat(self.fd).st_size

    def read(self) -> str | None:
        """What was written; None: nothing."""
        return os.pread(self.fd, _MAX_BYTES, 0).decode(errors="replace").rstrip() or None

    def close(self) -> None:
        """Give the memory back."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _watch_for_crashes(descriptor: Any) -> None:
    """In the worker, on arrival."""
    fd = descriptor.detach()
    if not faulthandler.is_enabled():  # else the program has asked for stacks on stderr
        faulthandler.enable(fd)
    faulthandler.register(STACK_SIGNAL, fd)
