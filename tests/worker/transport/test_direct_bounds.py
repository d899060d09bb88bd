"""The limits of direct mode's socket, and the thread that owns it."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import zmq

from nfcli.models.environment.curve_keys import ensure_key_pair
from nfcli.models.protocol.frames import Command, encode_data
from nfcli.worker.transport.curve_auth import AuthorizedKeys
from nfcli.worker.transport.direct import DirectServer
from support.direct_server import ANY_PORT, WAIT_MILLISECONDS
from support.fabric.worker import eventually
from support.strangers import descriptors

WAIT_SECONDS = WAIT_MILLISECONDS / 1_000

Connect = Callable[..., Any]


def test_limits_are_set_when_the_socket_is_made(server: Any) -> None:
    """Set later they wouldn't apply to existing connections; most of ZeroMQ's defaults are unlimited."""
    clients = AuthorizedKeys(server.environment.clients_folder)
    direct = DirectServer(server.worker, server.executor, keys=server.keys, clients=clients)
    names = (
        *("LINGER", "MAXMSGSIZE", "SNDHWM", "RCVHWM", "HANDSHAKE_IVL", "ZAP_ENFORCE_DOMAIN", "CURVE_SERVER"),
        *("TCP_KEEPALIVE", "TCP_KEEPALIVE_IDLE", "TCP_KEEPALIVE_INTVL", "TCP_KEEPALIVE_CNT"),
    )
    found = {name: direct.router.getsockopt(getattr(zmq, name)) for name in names}
    direct.stop()
    assert found == {
        "LINGER": 500,
        "MAXMSGSIZE": 1024 * 1024,
        "SNDHWM": 1_000,
        "RCVHWM": 100,
        "HANDSHAKE_IVL": 5_000,
        "ZAP_ENFORCE_DOMAIN": 1,
        "CURVE_SERVER": 1,
        "TCP_KEEPALIVE": 1,
        "TCP_KEEPALIVE_IDLE": 5,
        "TCP_KEEPALIVE_INTVL": 5,
        "TCP_KEEPALIVE_CNT": 3,
    }


def test_no_descriptor_stays_open_after_the_end(server: Any) -> None:
    """Neither ZeroMQ's own nor the mailbox's."""
    clients = AuthorizedKeys(server.environment.clients_folder)
    before = descriptors(os.getpid())
    direct = DirectServer(server.worker, server.executor, keys=server.keys, clients=clients)
    direct.bind(ANY_PORT)
    direct.start()
    assert descriptors(os.getpid()) > before
    direct.stop()
    assert descriptors(os.getpid()) == before


def test_error_while_a_message_is_handled_costs_that_message_alone(
    server: Any, connect_peer: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is counted and logged by its type, and the thread goes on."""
    peer = connect_peer()
    peer.send(Command.POST, "u1", {"task": "add"})
    assert [peer.read()[0], peer.read()[0]] == ["202", "200"]

    def fail(_clients: AuthorizedKeys, key: str) -> bool:
        raise OSError(f"a disk that fails while {key} is sought")

    with monkeypatch.context() as patch:
        patch.setattr(AuthorizedKeys, "access", fail)
        peer.send(Command.POST, "u2", {"task": "add"})
        assert eventually(lambda: server.direct.counters()["invalid"] == 1)
    assert caplog.messages == ["message dropped: OSError"]
    peer.send(Command.POST, "u3", {"task": "add"})
    assert [peer.read()[0], peer.read()[0]] == ["202", "200"]


def test_a_client_that_does_not_read_loses_replies_and_delays_no_other(server: Any, connect_peer: Connect) -> None:
    """Its replies are dropped and counted, others are served meanwhile, and the worker stops in time."""
    silent = connect_peer()
    count = 6_000
    # The reply repeats the target. 4 KiB each are more than both sides and the system between them hold.
    target = encode_data(["w1", "x" * 4_096])
    for _ in range(count):
        silent.send(Command.GET, "u1", to=target)
    other = connect_peer()
    other.send(Command.POST, "u2", {"task": "add"})
    assert [other.read()[0], other.read()[0]] == ["202", "200"]
    counters = server.direct.counters()
    assert counters["dropped"] > 0
    assert counters["sent"] + counters["dropped"] >= count
    stopping = threading.Thread(target=server.direct.stop, daemon=True)
    stopping.start()
    stopping.join(WAIT_SECONDS)
    assert not stopping.is_alive()


def test_only_the_owning_thread_uses_the_socket(
    server: Any, connect_peer: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs end in other threads, and ZeroMQ's sockets aren't thread-safe."""
    threads: dict[str, set[str]] = defaultdict(set)

    def watch(name: str) -> None:
        real = getattr(zmq.Socket, name)

        def watched(socket: Any, *args: Any, **options: Any) -> Any:
            if socket is server.direct.router:
                threads[name].add(threading.current_thread().name)
            return real(socket, *args, **options)

        monkeypatch.setattr(zmq.Socket, name, watched)

    for name in ("send", "recv"):
        watch(name)
    server.gate.set()
    peer = connect_peer()
    for number, task in enumerate(("add", "hold", "nosuch")):
        peer.send(Command.POST, f"u{number}", {"task": task})
        assert [peer.read()[0], peer.read()[0]] == ["202", "200"]
    peer.send(Command.GET, "u0")
    assert [peer.read()[0], peer.read()[0]] == ["202", "200"]
    assert threads == {"send": {"direct"}, "recv": {"direct"}}


def test_a_flood_with_a_key_that_is_no_longer_allowed_leaves_ten_lines(
    server: Any, connect_peer: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log and in the audit trail, with the key's beginning; the rest is counted."""
    keys = ensure_key_pair(server.environment.clients_folder, "ann")
    peer = connect_peer(keys)
    peer.send(Command.POST, "u", {"task": "add"})
    assert [peer.read()[0], peer.read()[0]] == ["202", "200"]
    (server.environment.clients_folder / "ann.key").unlink()
    for number in range(30):
        peer.send(Command.POST, f"u{number}", {"task": "add"})
        assert peer.read()[0] == "403"
    server.worker.audit.close()
    entries = server.worker.audit.entries(100)
    assert [entry.suppressed for entry in entries] == [*[0] * 10, 20]
    assert {(entry.actor, entry.operation, entry.reason) for entry in entries[:10]} == {
        (keys.public.decode()[:8], "refuse", "this client's key is not allowed")
    }
    assert caplog.messages == ["message refused: the key of a connected client is no longer authorized"] * 10
    assert server.direct.counters()["denied"] == 30
