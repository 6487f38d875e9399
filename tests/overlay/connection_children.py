"""What started processes run in the tests of connections. Imports no pytest."""

import os
import select
import signal
from multiprocessing import connection, reduction
from typing import Any


def echo(conn: Any) -> None:
    """Send back all that comes, up to None."""
    for item in iter(conn.recv, None):
        conn.send(item)


def echo_bytes(conn: Any) -> None:
    """Send back all bytes that come, up to none."""
    for message in iter(conn.recv_bytes, b""):
        conn.send_bytes(message)


def send_all(conn: Any, items: Any) -> None:
    for item in items:
        conn.send(item)


def send_and_die(conn: Any, items: Any) -> None:
    send_all(conn, items)
    os.kill(os.getpid(), signal.SIGKILL)


def receive_and_die(conn: Any, n: int) -> None:
    for _ in range(n):
        conn.recv()
    os.kill(os.getpid(), signal.SIGKILL)


def send_when_told(gate: Any, conn: Any, item: Any) -> None:
    gate.wait()
    conn.send(item)


def die_when_told(gate: Any, conn: Any) -> None:
    """Hold the connection until then."""
    gate.wait()
    os.kill(os.getpid(), signal.SIGKILL)


def describe_array(conn: Any) -> None:
    """Say type, sum and writability of one array, having written into it."""
    array = conn.recv()
    total = float(array.sum())
    array[...] = -1
    conn.send((type(array).__name__, total, str(array.dtype)))


def use_received(inbox: Any, item: Any) -> None:
    """Send the item through a connection that comes through another one, or a queue."""
    conn = inbox.recv() if hasattr(inbox, "recv") else inbox.get()
    conn.send(item)
    conn.close()


def write_to_received_descriptor(conn: Any) -> None:
    """Take a message, a descriptor, and the text to write to it."""
    conn.recv()
    fd = reduction.recv_handle(conn)
    os.write(fd, conn.recv())
    os.close(fd)
    conn.send("done")


def count_with_select(conn: Any) -> None:
    """Receive only what select tells of, to the end; send back how much it was."""
    n = 0
    while select.select([conn.fileno()], [], [])[0]:
        try:
            conn.recv()
        except EOFError:
            break
        n += 1
    os._exit(n)


def wait_and_send_back(conns: Any, outbox: Any) -> None:
    """Receive from many until all have ended."""
    left = list(conns)
    while left:
        ready: Any
        for ready in connection.wait(left):
            try:
                outbox.send(ready.recv())
            except EOFError:
                left.remove(ready)
    outbox.send(None)
