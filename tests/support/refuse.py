"""Run a command as in a container that refuses system calls.

    refuse.py WHAT[,WHAT...] COMMAND [ARGUMENT...]

WHAT is one of the names in REFUSALS.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from typing import NamedTuple

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_LOAD, _AND, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
_ERRNO, _ALLOW = 0x00050000, 0x7FFF0000
_FIRST_ARGUMENT = 16  # offset in struct seccomp_data

_IS_ARM = platform.machine() == "aarch64"
_CLONE, _PRCTL, _CLOSE_RANGE = (220, 167, 436) if _IS_ARM else (56, 157, 436)


class Refusal(NamedTuple):
    """A system call that fails if its first argument, masked, has a value."""

    number: int
    mask: int
    value: int
    error: int


REFUSALS = {
    # Without an exit signal, and not a thread. Threads and forks of the C library are left alone.
    "hidden-child": Refusal(_CLONE, 0x100FF, 0, errno.EPERM),
    "subreaper": Refusal(_PRCTL, 0xFFFFFFFF, 36, errno.EPERM),
    "close-range": Refusal(_CLOSE_RANGE, 0, 0, errno.ENOSYS),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def refuse(refusal: Refusal) -> None:
    """Have the calling process, and those that it starts, refused."""
    steps = [
        (_LOAD, 0, 0, 0),
        (_JUMP_IF_EQUAL, 0, 4, refusal.number),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_AND, 0, 0, refusal.mask),
        (_JUMP_IF_EQUAL, 0, 1, refusal.value),
        (_RETURN, 0, 0, _ERRNO | refusal.error),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = b"".join(struct.pack("=HBBI", *step) for step in steps)
    program = _Program(len(steps), code)
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0),
    ):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    for name in sys.argv[1].split(","):
        refuse(REFUSALS[name])
    os.execvp(sys.argv[2], sys.argv[2:])
