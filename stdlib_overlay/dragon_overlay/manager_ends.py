"""What proxies of managers say when the manager's server has ended.

The standard library lets the error of the connection out: an EOFError without a word, "Broken
pipe", "Connection refused". It stays that error, so that programs which catch it go on working, and
says which server it is about and how that has ended. Managers of other start methods are left as
they are.

Source: Lib/multiprocessing/managers.py of CPython 3.11.
"""

from __future__ import annotations

import functools
import socket
from multiprocessing import process
from types import ModuleType
from typing import Any

from dragon_overlay.ends import exit_in_words

#: How an ended server shows.
_LOST = (EOFError, ConnectionError, FileNotFoundError)
#: A server that does not answer for so long, in seconds, is alive and busy.
_ANSWER_S = 1.0


def install(module: ModuleType) -> None:
    """Have the proxies and managers of a module name servers that have ended."""
    _name_server(module.BaseProxy, "_callmethod", lambda proxy: proxy._manager)
    _name_server(module.BaseProxy, "_incref", lambda proxy: proxy._manager)
    _name_server(module.BaseManager, "_create", lambda manager: manager)


def _name_server(cls: Any, name: str, manager_of: Any) -> None:
    stock = getattr(cls, name)

    @functools.wraps(stock)
    def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        try:
            return stock(self, *args, **kwargs)
        except _LOST as error:
            manager = manager_of(self)
            address = manager._address if manager else self._token.address
            # Else it is an error of the referent's that looks the same.
            if _is_ours(manager) and not _answers(address):
                _add(error, f"the server of {_named(manager, address)}")
            raise

    setattr(cls, name, method)


def _is_ours(manager: Any) -> bool:
    from dragon_overlay.context import DragonContext
    from dragon_overlay.process import DragonProcess

    if manager is None:
        return isinstance(process.current_process(), DragonProcess)
    return isinstance(manager._ctx.get_context(), DragonContext)


def _answers(address: Any) -> bool:
    """Whether a server is at the address: it speaks first."""
    family = socket.AF_UNIX if isinstance(address, (str, bytes)) else socket.AF_INET
    with socket.socket(family) as probe:
        probe.settimeout(_ANSWER_S)
        try:
            probe.connect(address)
            return bool(probe.recv(1))
        except TimeoutError:
            return True
        except OSError:
            return False


def _named(manager: Any, address: Any) -> str:
    server = getattr(manager, "_process", None)
    kind = type(manager).__name__ if manager else "the manager"
    if server is None:
        return f"{kind} at {address!r} has ended"
    server.join(_ANSWER_S)
    how = "has ended" if server.exitcode is None else exit_in_words(server.exitcode)
    return f"{kind}, {server.name} (pid {server.pid}) at {address!r}, {how}"


def _add(error: BaseException, text: str) -> None:
    if isinstance(error, OSError) and error.strerror is not None:
        error.strerror = f"{error.strerror}: {text}"
    else:
        error.args = (text,)
