"""Sockets that another part of the process may close at any time, by their descriptors."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

import pytest

from nfcli.worker.transport.connections.sockets import SocketHolder, identity


@pytest.fixture
def holder() -> Iterator[SocketHolder]:
    """Return a holder, which is closed in the end."""
    made = SocketHolder()
    yield made
    made.close()


def test_held_socket_is_shut_down_and_not_the_one_that_got_its_descriptor(holder: SocketHolder) -> None:
    """Both see it: the client of the first one its end, that of the second one what is sent."""
    first, first_client = socket.socketpair()
    descriptor = first.fileno()
    with first_client:
        with holder.socket_at(descriptor) as held:
            assert held is not None
            known = identity(held)
            first.close()
            second, second_client = socket.socketpair()
            assert descriptor in {second.fileno(), second_client.fileno()}
            held.shutdown(socket.SHUT_RDWR)
        assert first_client.recv(1) == b""
    with second, second_client, holder.socket_at(descriptor) as other:
        assert other is not None
        assert identity(other) != known
        second.sendall(b"x")
        assert second_client.recv(1) == b"x"


def test_socket_is_closed_once_it_is_not_held(holder: SocketHolder) -> None:
    """Its client doesn't wait for the next one."""
    ours, client = socket.socketpair()
    with client:
        with ours, holder.socket_at(ours.fileno()):
            pass
        assert client.recv(1) == b""


def test_what_is_no_socket_is_none(holder: SocketHolder) -> None:
    """A file, and what is closed."""
    file = os.open(os.devnull, os.O_RDONLY)
    with holder.socket_at(file) as held:
        assert held is None
    os.close(file)
    with holder.socket_at(file) as held:
        assert held is None
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(file)


def test_held_socket_is_not_inherited(holder: SocketHolder) -> None:
    """A child process would keep it open."""
    ours, client = socket.socketpair()
    with ours, client, holder.socket_at(ours.fileno()) as held:
        assert held is not None
        assert not held.get_inheritable()
