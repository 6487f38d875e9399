"""Exceptions and small types that the core modules share."""

from __future__ import annotations

__all__ = ["DragonException"]


class DragonException(Exception):
    """Base of the exceptions of the core modules.

    Args:
        msg: what happened.
        lib_err: number of the error, or None.
    """

    def __init__(self, msg: str, lib_err: int | None = None) -> None:
        super().__init__(msg, lib_err)
        self.msg = msg
        self.lib_err = lib_err

    def __str__(self) -> str:
        return self.msg
