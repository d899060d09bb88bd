"""The limits of direct mode's socket, and the thread that owns it."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import zmq

from nfcli.models.protocol.frames import BrokerMessage, Command
from nfcli.worker.transport.curve_auth import AuthorizedKeys
from nfcli.worker.transport.direct import DirectServer
from support.direct_server import WAIT_MILLISECONDS

WAIT_SECONDS = WAIT_MILLISECONDS / 1_000

Connect = Callable[..., Any]


def test_limits_are_set_when_the_socket_is_made(server: Any) -> None:
    """Set later they wouldn't apply to existing connections; most of ZeroMQ's defaults are unlimited."""
    clients = AuthorizedKeys(server.environment.clients_folder)
    direct = DirectServer(server.worker, server.executor, keys=server.keys, clients=clients)
    names = ("LINGER", "MAXMSGSIZE", "SNDHWM", "RCVHWM", "HANDSHAKE_IVL", "ZAP_ENFORCE_DOMAIN", "CURVE_SERVER")
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
    }


def test_a_client_that_does_not_read_loses_replies_and_delays_no_other(server: Any, connect_peer: Connect) -> None:
    """Its replies are dropped and counted, others are served meanwhile, and the worker stops in time."""
    silent = connect_peer(identity=b"silent")
    silent.send(Command.POST, "u1", {"task": "add"})
    assert silent.read()[0] == "202"
    count = 6_000  # of 4 KiB: more than both sides and the system between them hold
    answer = BrokerMessage(Command.RESPONSE, "fastmcp", "u1", "200", b" " * 4096)
    for _ in range(count):
        server.direct._mailbox.put((b"silent", answer))
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

    for name in ("send", "recv", "recv_multipart"):
        watch(name)
    server.gate.set()
    peer = connect_peer()
    for number, task in enumerate(("add", "hold", "nosuch")):
        peer.send(Command.POST, f"u{number}", {"task": task})
        assert [peer.read()[0], peer.read()[0]] == ["202", "200"]
    peer.send(Command.GET, "u0")
    assert [peer.read()[0], peer.read()[0]] == ["202", "200"]
    assert threads == {"send": {"direct"}, "recv": {"direct"}, "recv_multipart": {"direct"}}
