"""The connection of a thread's proxies to a manager, given up when a call is cut short.

An exception of a signal handler, as that of Ctrl-C, may end a call before its answer is there. In
the standard library the next call of that thread takes the late answer for its own, or waits behind
the first one. Here it makes a new connection. What the manager was asked for, it does nevertheless.

Source: BaseProxy._callmethod in Lib/multiprocessing/managers.py of CPython 3.11.
"""

from __future__ import annotations

from typing import Any

from dragon_overlay.connection import Connection


class ProxyConnection(Connection):
    """One end of a Pipe, whose other end has a manager's server."""

    #: Where proxies find the connection of their thread.
    of_thread: Any = None

    def send(self, obj: Any) -> None:
        """Send a request."""
        try:
            super().send(obj)
        except BaseException:
            self._give_up()
            raise

    def recv(self) -> Any:
        """Receive the answer."""
        try:
            return super().recv()
        except BaseException:
            self._give_up()
            raise

    def _give_up(self) -> None:
        self.close()
        vars(self.of_thread).pop("connection", None)
