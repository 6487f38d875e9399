"""What the fork server does when it cannot fork."""

import errno
import select
import socket
from collections.abc import Iterator
from typing import NoReturn

import pytest

import _dragon_launch
from dragon_overlay import fork_server
from dragon_overlay.order import RECORD


@pytest.fixture
def orders() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The starter's end of the socket for orders, and the server's."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield pair
    for one in pair:
        one.close()


@pytest.fixture
def stock(
    orders: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> fork_server._Stock:
    """A stock of spares that cannot be forked."""

    def refuse() -> NoReturn:
        raise OSError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr(_dragon_launch, "fork_spare", refuse)
    return fork_server._Stock(orders[1], select.poll())


def test_a_fork_that_fails_while_nobody_waits_is_tried_again_for_the_next_order(
    stock: fork_server._Stock,
) -> None:
    assert stock.restock() is None
    assert not stock.is_due()
    stock.missed()
    assert stock.is_due()


def test_an_order_that_waits_is_told_why_there_is_no_child(
    stock: fork_server._Stock, orders: tuple[socket.socket, socket.socket]
) -> None:
    line, theirs = socket.socketpair()
    with line, theirs:
        socket.send_fds(orders[0], [b"o"], [theirs.fileno()])
        assert stock.restock() is None
        assert RECORD.unpack(line.recv(64)) == (0, errno.EAGAIN)
