"""Exceptions and small types that the core modules share."""

from __future__ import annotations

import enum
from typing import Any, Final

import _dragon
from dragon.rc import DragonError

__all__ = [
    "ADAPTIVE_WAIT",
    "DEFAULT_WAIT_MODE",
    "IDLE_WAIT",
    "RECV_SYNC_MANUAL",
    "RECV_SYNC_SIGNAL",
    "SPIN_WAIT",
    "WHEN_BUFFERED",
    "WHEN_DEPOSITED",
    "WHEN_IMMEDIATE",
    "WHEN_RECEIVED",
    "DragonError",
    "DragonException",
    "DragonObjectDestroyed",
    "RecvNotifType",
    "ReturnWhen",
    "WaitMode",
    "get_rc_string",
    "getlasterrstr",
]


class DragonException(Exception):
    """Base of the exceptions of the core modules.

    Args:
        msg: what happened.
        lib_err: number of the error (``dragon.rc.DragonError``), or None.
        lib_msg: more about it, such as ``getlasterrstr()``; or None.
        lib_err_str: the name of lib_err; None: that of ``get_rc_string``.
    """

    def __init__(
        self,
        msg: str,
        lib_err: int | None = None,
        lib_msg: str | None = None,
        lib_err_str: str | None = None,
    ) -> None:
        super().__init__(msg)
        self.msg = msg
        self.lib_err = lib_err
        self.lib_msg = lib_msg
        self.lib_err_str = lib_err_str

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.msg, self.lib_err, self.lib_msg, self.lib_err_str)

    def __str__(self) -> str:
        text = self.msg
        if self.lib_err is not None:
            name = self.lib_err_str or get_rc_string(self.lib_err)
            text = f"Dragon Message: {text} | Return Code: {name}"
        return text if self.lib_msg is None else f"{text}\n{self.lib_msg}"


class DragonObjectDestroyed(DragonException):
    """The object that was used has been destroyed, by this or another process."""


class WaitMode(enum.IntEnum):
    """How to wait. Accepted everywhere; every wait here adapts by itself."""

    IDLE_WAIT = 0
    SPIN_WAIT = 1
    ADAPTIVE_WAIT = 2


class ReturnWhen(enum.IntEnum):
    """When a send returns. On one machine the message is always in the channel by then."""

    WHEN_IMMEDIATE = 0
    WHEN_BUFFERED = 1
    WHEN_DEPOSITED = 2
    WHEN_RECEIVED = 3


class RecvNotifType(enum.IntEnum):
    """How a receiver learns of a message."""

    RECV_SYNC_SIGNAL = 0
    RECV_SYNC_MANUAL = 1


IDLE_WAIT: Final = WaitMode.IDLE_WAIT
SPIN_WAIT: Final = WaitMode.SPIN_WAIT
ADAPTIVE_WAIT: Final = WaitMode.ADAPTIVE_WAIT
DEFAULT_WAIT_MODE: Final = WaitMode.ADAPTIVE_WAIT

WHEN_IMMEDIATE: Final = ReturnWhen.WHEN_IMMEDIATE
WHEN_BUFFERED: Final = ReturnWhen.WHEN_BUFFERED
WHEN_DEPOSITED: Final = ReturnWhen.WHEN_DEPOSITED
WHEN_RECEIVED: Final = ReturnWhen.WHEN_RECEIVED

RECV_SYNC_SIGNAL: Final = RecvNotifType.RECV_SYNC_SIGNAL
RECV_SYNC_MANUAL: Final = RecvNotifType.RECV_SYNC_MANUAL


def getlasterrstr() -> str:
    """Where the last error of this thread in the runtime came from, as "a.c:12 < b.c:40".

    Of the last one, even if it has been dealt with since; empty if there was none.
    """
    return _dragon.last_error()


def get_rc_string(rc: int) -> str:
    """Name an error number.

    Args:
        rc: a number of ``dragon.rc.DragonError``, or any other.

    Returns:
        The name with its prefix, such as "DRAGON_TIMEOUT".
    """
    try:
        return f"DRAGON_{DragonError(rc).name}"
    except ValueError:
        return f"DRAGON_{DragonError.BAD_RETURN_CODE.name} ({rc})"
