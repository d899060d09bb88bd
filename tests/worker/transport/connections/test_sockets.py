"""Sockets that another part of the process may close at any time, by their descriptors."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfcli.worker.transport.connections import sockets
from nfcli.worker.transport.connections.sockets import (
    SocketHolder,
    has_unread,
    identity,
    local_address,
    peer_address,
    received_bytes,
    resident_bytes,
    socket_at,
)

MIB = 1024 * 1024


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


def test_only_sockets_are_held(holder: SocketHolder) -> None:
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


def test_addresses_and_bytes_of_a_tcp_connection_are_read() -> None:
    """By the descriptor; a closed one has none."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as client:
            ours, _ = listener.accept()
            with ours, socket_at(ours.fileno()) as borrowed:
                assert borrowed is not None
                assert local_address(borrowed) == listener.getsockname()[1]
                assert peer_address(borrowed) == "127.0.0.1"
                assert (received_bytes(borrowed), has_unread(borrowed)) == (0, False)
                client.sendall(b"x" * 1_000)
                assert ours.recv(400, socket.MSG_WAITALL) == b"x" * 400
                assert (received_bytes(borrowed), has_unread(borrowed)) == (1_000, True)
                assert ours.recv(600, socket.MSG_WAITALL) == b"x" * 600
                assert (received_bytes(borrowed), has_unread(borrowed)) == (1_000, False)
        assert (local_address(ours), peer_address(ours), received_bytes(ours)) == (None, "", None)


def test_connection_of_a_socket_file_has_no_address_and_no_count(tmp_path: Path) -> None:
    """What waits there is known."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(path))
        listener.listen()
        client.connect(str(path))
        ours, _ = listener.accept()
        with ours:
            assert (local_address(ours), peer_address(ours), received_bytes(ours)) == (str(path), "", None)
            assert not has_unread(ours)
            client.sendall(b"x")
            assert has_unread(ours)


def test_descriptor_that_was_closed_meanwhile_has_nothing_unread() -> None:
    """ZeroMQ's thread may close it at any time."""
    ours, client = socket.socketpair()
    with client:
        client.sendall(b"x")
        os.close(ours.fileno())
        assert has_unread(ours) is False
        ours.detach()


def test_bytes_are_not_known_to_an_old_kernel() -> None:
    """It returns a shorter structure, without them."""

    class Connection:
        family = socket.AF_INET

        def getsockopt(self, *_: int) -> bytes:
            return bytes(104)

    assert received_bytes(Connection()) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [None, b"", b"1", b"1 x"])
def test_memory_that_the_system_does_not_tell_is_zero(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only Linux has the file."""
    file = tmp_path / "statm"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setattr(sockets, "_STATM", file)
    assert type(resident_bytes()) is int
    assert resident_bytes() == 0


def test_memory_of_the_process_is_known() -> None:
    """It grows with what is allocated and written."""
    before = resident_bytes()
    filled = bytearray(b"x") * (64 * MIB)
    assert before > 8 * MIB
    assert resident_bytes() - before > 32 * MIB
    assert len(filled) == 64 * MIB
