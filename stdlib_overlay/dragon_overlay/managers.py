"""Managers whose proxies talk to them through shared memory.

The standard library's proxies send each call through a socket. Where both the manager and the
proxy's process belong to one program of ours, they go on, once they have authenticated each other
through that socket, as the two ends of a Pipe: the socket is its socket, and the proxy makes what
carries the messages. Everything else is the standard library's, and so are proxies in processes of
other start methods, and managers with an address that the program chose.

A proxy knows such a manager by its address, in whose name is the number of the node. ``install``
runs when ``multiprocessing.managers`` has been loaded.

Source: Lib/multiprocessing/managers.py of CPython 3.11.
"""

from __future__ import annotations

import functools
import os
import tempfile
import threading
from multiprocessing import process, util
from types import ModuleType
from typing import Any

import _dragon

#: The name of the request, and of the server's method, that accepts a Pipe.
_REQUEST = "dragon_accept_pipe"

#: Bytes of sockaddr_un.sun_path; the standard library's name is 17 bytes shorter than ours.
_MAX_ADDRESS = 108


def install(module: ModuleType) -> None:
    """Complete ``multiprocessing.managers``, just executed."""
    _let_servers_accept(module)
    _let_proxies_connect(module)


def _prefix() -> str:
    """How the names of the addresses of this node's managers begin."""
    return f"listener-{_dragon.node_id():016x}-"


def _is_of_node(address: Any) -> bool:
    return (
        isinstance(address, str)
        and _dragon.has_node()
        and os.path.basename(address).startswith(_prefix())
    )


# ---- the server ---------------------------------------------------------------------------------


def _is_child_of_ours() -> bool:
    from dragon_overlay.process import DragonProcess

    return isinstance(process.current_process(), DragonProcess) and _dragon.has_node()


def _let_servers_accept(module: ModuleType) -> None:
    server = module.Server
    stock_init = server.__init__

    @functools.wraps(stock_init)
    def init(self: Any, registry: Any, address: Any, authkey: Any, serializer: Any) -> None:
        if address is None and serializer == "pickle" and _is_child_of_ours():
            ours = tempfile.mktemp(prefix=_prefix(), dir=util.get_temp_dir())
            if len(os.fsencode(ours)) < _MAX_ADDRESS:
                address = ours
        stock_init(self, registry, address, authkey, serializer)

    def accept_pipe(self: Any, connection: Any, name: str, names: list[bytes]) -> None:
        """Serve a proxy, whose thread has that name, through the Pipe of these names."""
        from dragon_overlay.connection import Connection, attached, on_socket

        threading.current_thread().name = name
        there, back = (attached(of_pipe) for of_pipe in names)
        connection.send(("#RETURN", None))
        self.serve_client(on_socket(Connection, there, back, os.dup(connection.fileno())))

    server.__init__ = init
    setattr(server, _REQUEST, accept_pipe)
    server.public = [*server.public, _REQUEST]


# ---- proxies ------------------------------------------------------------------------------------


def _let_proxies_connect(module: ModuleType) -> None:
    proxy = module.BaseProxy
    stock_connect = proxy._connect

    @functools.wraps(stock_connect)
    def connect(self: Any) -> None:
        is_ours = self._Client is module.listener_client["pickle"][1]
        if not (is_ours and _is_of_node(self._token.address)):
            stock_connect(self)
            return
        util.debug("making connection to manager")
        with self._Client(self._token.address, authkey=self._authkey) as connection:
            try:
                pipe = _pipe_through(module, connection)
                pipe.of_thread, self._tls.connection = self._tls, pipe
                return
            except module.RemoteError as error:
                util.debug("the manager takes no pipe: %s", error)
        stock_connect(self)

    proxy._connect = connect


def _pipe_through(module: ModuleType, connection: Any) -> Any:
    """Make a Pipe of a connection to a manager, which stays the caller's to close."""
    from dragon_overlay.connection import new_pipe, on_socket
    from dragon_overlay.proxy_connection import ProxyConnection

    name = process.current_process().name
    if threading.current_thread() is not threading.main_thread():
        name += "|" + threading.current_thread().name
    there, back = new_pipe(), new_pipe()
    names = [there._export(False), back._export(False)]
    module.dispatch(connection, None, _REQUEST, (name, names))
    return on_socket(ProxyConnection, back, there, os.dup(connection.fileno()))
