"""Strangers at the worker's ROUTER: connections without a key, messages without an end."""

from __future__ import annotations

import os
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from nfcli.models.environment.curve_keys import ensure_key_pair
from nfcli.models.protocol.frames import ClientMessage, Command
from nfcli.worker.transport.connections import guard, sockets, table
from support.direct_server import WAIT_MILLISECONDS
from support.strangers import connections, descriptors, wait_until

Connect = Callable[..., Any]


def run_job(peer: Any, uuid: str) -> list[str]:
    """Run a task; return the statuses of its two replies."""
    peer.send(Command.POST, uuid, {"task": "add"})
    return [peer.read()[0], peer.read()[0]]


def test_silent_connections_shut_nobody_out(
    server: Any, connect_peer: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The oldest close; clients that are connected and new ones are served, and one line is logged."""
    monkeypatch.setattr(resource, "getrlimit", lambda _limit: (200, 200))
    early = connect_peer()
    assert run_job(early, "u1") == ["202", "200"]
    with connections(server.endpoint, 80):
        wait_until(lambda: server.direct.counters()["connections_closed"] >= 68)
        assert server.direct.counters()["connections"] <= 12 + 1
        assert run_job(early, "u2") == ["202", "200"]
        assert run_job(connect_peer(), "u3") == ["202", "200"]
    wait_until(lambda: server.direct.counters()["connections"] == 2)
    assert caplog.messages == ["ZeroMQ connections of 127.0.0.1 closed: more than 12 that have not authenticated"]


def send_long(peer: Any) -> None:
    """Send one message of 400 frames and 40 MB."""
    for _ in range(400):
        peer.dealer.send(b"x" * 100_000, zmq.SNDMORE)
    peer.dealer.send(b"")


def test_long_message_closes_its_connection(
    server: Any, connect_peer: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a client whose key was removed just now; others are served meanwhile."""
    monkeypatch.setattr(table, "MAX_INCOMPLETE_BYTES", 1024 * 1024)
    monkeypatch.setattr(guard, "MEASURE_SECONDS", 0.01)
    keys = ensure_key_pair(server.environment.clients_folder, "ann")
    peer, other = connect_peer(keys), connect_peer()
    assert run_job(peer, "u1") == ["202", "200"]
    (server.environment.clients_folder / "ann.key").unlink()
    send_long(peer)
    peer.wait_for(zmq.EVENT_DISCONNECTED)
    assert run_job(other, "u2") == ["202", "200"]
    wait_until(lambda: server.direct.counters()["messages_too_long"] == 1)
    closed = [message for message in caplog.messages if message.startswith("ZeroMQ")]
    assert closed == ["ZeroMQ connection of 127.0.0.1 closed: a message of more than 1 MiB, or too many at once"]


def test_other_socket_with_the_descriptor_of_a_client_is_not_measured(
    server: Any, connect_peer: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """ZeroMQ has closed it meanwhile, and HTTP may use the descriptor, or nobody."""
    monkeypatch.setattr(table, "MAX_INCOMPLETE_BYTES", 1_000)
    monkeypatch.setattr(guard, "MEASURE_SECONDS", 0.01)
    peer = connect_peer()
    assert run_job(peer, "u1") == ["202", "200"]
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as sender:
        receiver, _ = listener.accept()
        found: list[socket.socket | None] = [None, receiver]
        borrowed: list[int] = []

        @contextmanager
        def socket_at(descriptor: int) -> Iterator[socket.socket | None]:
            borrowed.append(descriptor)
            yield found[len(borrowed) % 2]

        monkeypatch.setattr(sockets, "socket_at", socket_at)
        with receiver:
            for _ in range(3):
                sender.sendall(b"x" * 5_000)
                enough = len(borrowed) + 4
                wait_until(lambda: len(borrowed) >= enough)  # noqa: B023
    assert run_job(peer, "u2") == ["202", "200"]
    assert server.direct.counters()["messages_too_long"] == 0
    assert caplog.messages == []


@pytest.mark.parametrize("is_unread", [True, False])
def test_growth_of_the_process_stands_for_unread_bytes_of_a_socket_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_unread: bool
) -> None:
    """Nobody counts these; a client that has sent nothing doesn't cause the growth."""
    asked: list[None] = []

    def resident_bytes() -> int:
        asked.append(None)
        return 100_000_000 * len(asked)

    monkeypatch.setattr(sockets, "resident_bytes", resident_bytes)
    monkeypatch.setattr(sockets, "has_unread", lambda _borrowed: is_unread)
    monkeypatch.setattr(guard, "MEASURE_SECONDS", 0.01)
    path = tmp_path / "s"
    with zmq.Context[zmq.Socket[bytes]]() as context, context.socket(zmq.ROUTER) as router:
        limited = guard.ConnectionGuard(router, 5)
        router.bind(f"ipc://{path}")
        limited.start(f"ipc://{path}")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            wait_until(lambda: len(asked) > 5 or limited.counters()["messages_too_long"] == 1)
            assert limited.counters()["messages_too_long"] == is_unread
        limited.stop()


def test_guard_waits_until_something_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without connections for any time; with some, until the next measuring."""
    waits: list[float | None] = []

    class Poller(zmq.Poller):
        def poll(self, timeout: float | None = None) -> list[tuple[Any, int]]:
            waits.append(timeout)
            return super().poll(timeout)

    monkeypatch.setattr(guard.zmq, "Poller", Poller)
    with zmq.Context[zmq.Socket[bytes]]() as context, context.socket(zmq.ROUTER) as router:
        limited = guard.ConnectionGuard(router, 5)
        port = router.bind_to_random_port("tcp://127.0.0.1")
        limited.start(f"tcp://127.0.0.1:{port}")
        with connections(f"tcp://127.0.0.1:{port}", 1):
            wait_until(lambda: limited.counters()["connections"] == 1 and len(waits) > 3)
        limited.stop()
    assert set(waits) == {None, 100}


def test_frames_beyond_those_of_a_request_are_ignored(connect_peer: Connect) -> None:
    """As by a broker; they aren't kept."""
    peer = connect_peer()
    frames = ClientMessage(Command.GET, "fastmcp", b"all", "u1", b"{}").frames()
    peer.dealer.send_multipart([*frames, *[b"x"] * 2_000])
    assert peer.read()[0] == "202"
    assert peer.read()[0] == "404"


def test_client_with_many_messages_at_once_is_served(server: Any, connect_peer: Connect) -> None:
    """Whole messages are no long message, however much they are together."""
    peer = connect_peer()
    count, filler = 60, "x" * 900_000
    for number in range(count):
        peer.send(Command.POST, f"u{number}", {"task": "nosuch", "kwargs": {"filler": filler}})
    for _ in range(2 * count):
        peer.read()
    assert server.direct.counters()["messages_too_long"] == 0


def test_stop_ends_in_time_while_strangers_connect(server: Any) -> None:
    """The thread that accepts connections doesn't wait for the one that limits them."""
    is_over = threading.Event()

    def connect() -> None:
        host, _, port = server.endpoint.removeprefix("tcp://").rpartition(":")
        while not is_over.is_set():
            with ExitStack() as opened:
                try:
                    for _ in range(20):
                        opened.enter_context(socket.create_connection((host, int(port)), 1))
                except OSError:
                    return

    strangers = [threading.Thread(target=connect) for _ in range(3)]
    for stranger in strangers:
        stranger.start()
    wait_until(lambda: server.direct.counters()["connections"] > 0)
    stopping = threading.Thread(target=server.direct.stop, daemon=True)
    stopping.start()
    stopping.join(WAIT_MILLISECONDS / 1_000)
    assert not stopping.is_alive()
    is_over.set()
    for stranger in strangers:
        stranger.join()


def test_connections_end_as_clients_leave(server: Any, connect_peer: Connect) -> None:
    """None is counted for ever."""
    for number in range(5):
        peer = connect_peer()
        assert run_job(peer, f"u{number}") == ["202", "200"]
        peer.close()
    wait_until(lambda: server.direct.counters()["connections"] == 0)


def test_nothing_stays_open_after_the_end() -> None:
    """Neither of the limits nor of the socket; stopping twice is harmless."""
    before = descriptors(os.getpid())
    with zmq.Context[zmq.Socket[bytes]]() as context, context.socket(zmq.ROUTER) as router:
        limited = guard.ConnectionGuard(router, 5)
        port = router.bind_to_random_port("tcp://127.0.0.1")
        limited.start(f"tcp://127.0.0.1:{port}")
        with connections(f"tcp://127.0.0.1:{port}", 3):
            wait_until(lambda: limited.counters()["connections"] == 3)
        wait_until(lambda: limited.counters()["connections"] == 0)
        limited.stop()
        limited.stop()
    assert descriptors(os.getpid()) == before
