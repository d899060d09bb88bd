"""A worker that is reached directly or through a broker, and raw peers of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nfcli.models.environment.curve_keys import KeyPair, ensure_client_key
from nfcli.models.environment.paths import Environment
from nfcli.worker.tokens.store import TokenStore
from support.direct_server import Peer, Server
from support.fabric.broker import FabricBroker, FabricPeer
from support.fabric.worker import HOLD_SECONDS, KEEPALIVE_SECONDS, Joined


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A serving ROUTER in an environment of its own."""
    environment = Environment(tmp_path, None)
    environment.prepare()
    with TokenStore(environment.tokens_folder("w1")) as store:
        server = Server(environment, store)
        yield server
        server.stop()


@pytest.fixture
def connect_peer(server: Server) -> Iterator[Callable[..., Peer]]:
    """Connect peers, by default with the local client's key."""
    peers: list[Peer] = []

    def make(keys: KeyPair | str | None = "allowed", identity: bytes | None = None) -> Peer:
        pair = ensure_client_key(server.environment) if isinstance(keys, str) else keys
        peers.append(Peer(server, pair, identity))
        return peers[-1]

    yield make
    for peer in peers:
        peer.close()


@pytest.fixture
def broker() -> Iterator[FabricBroker]:
    """Return a broker that runs."""
    broker = FabricBroker(KEEPALIVE_SECONDS, HOLD_SECONDS)
    broker.start()
    yield broker
    broker.close()


@pytest.fixture
def idle(tmp_path: Path, broker: FabricBroker) -> Iterator[Joined]:
    """Return a worker that hasn't joined yet."""
    environment = Environment(tmp_path, None)
    environment.prepare()
    with TokenStore(environment.tokens_folder("w1")) as store:
        joined = Joined(environment, store, broker)
        yield joined
        joined.stop()


@pytest.fixture
def joined(idle: Joined) -> Joined:
    """Return a worker that is registered."""
    idle.join()
    return idle


@pytest.fixture
def connect_client(broker: FabricBroker) -> Iterator[Callable[..., FabricPeer]]:
    """Connect peers to the broker."""
    peers: list[FabricPeer] = []

    def make(name: bytes = b"client") -> FabricPeer:
        peers.append(FabricPeer(broker, name))
        return peers[-1]

    yield make
    for peer in peers:
        peer.close()
