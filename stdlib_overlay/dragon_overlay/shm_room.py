"""``multiprocessing.shared_memory`` where /dev/shm is short: an error when a block is made.

``install`` runs when ``multiprocessing.shared_memory`` has been loaded.

A file in /dev/shm gets its memory page by page as it is touched, and whoever touches a page for
which there is none is killed by SIGBUS: in a container, where 64 MiB are usual, that is how
programs find out that their blocks do not fit.
"""

from __future__ import annotations

import errno
import functools
import os
from types import ModuleType
from typing import Any

#: A file system smaller than this gives a block all of its memory when it is made, which takes
#: 0.8 s a GiB, time that the first use saves. In a larger one, where programs may count on memory
#: that they never touch being free of charge, a block must only fit into what is free then.
_SMALL_BYTES = 1 << 30


def install(module: ModuleType) -> None:
    """Have ``SharedMemory(create=True)`` raise OSError (ENOSPC) where there is no room for it."""
    stock_init: Any = module.SharedMemory.__init__

    @functools.wraps(stock_init)
    def init(
        self: Any, name: str | None = None, create: bool = False, size: int = 0, **more: Any
    ) -> None:
        stock_init(self, name=name, create=create, size=size, **more)
        if not create:
            return
        try:
            _have_memory(self._fd, size)
        except OSError:
            self.close()
            self.unlink()
            raise

    module.SharedMemory.__init__ = init


def _have_memory(fd: int, size: int) -> None:
    room = os.statvfs(fd)
    total, free = room.f_blocks * room.f_frsize, room.f_bavail * room.f_frsize
    if total == 0:  # without a limit
        return
    try:
        if size > free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if total < _SMALL_BYTES:
            os.posix_fallocate(fd, 0, size)
    except OSError as error:
        text = f"SharedMemory of {size} bytes: {error.strerror} (/dev/shm has {free} of {total})"
        raise OSError(error.errno, text) from None
