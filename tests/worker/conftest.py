"""What the worker's tests share: token stores whose time the test sets, served workers, clients of a fabric."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import zmq

from nfcli.models.environment.curve_keys import KeyPair
from nfcli.models.protocol.broker_presence import Timeouts
from nfcli.worker.audit.trail import AuditTrail
from nfcli.worker.fabric.client import MAX_JOBS, MAX_MESSAGE_BYTES, FabricClient
from nfcli.worker.tokens.store import TokenStore
from nfcli.worker.tools.discovery import Discovery, Intervals
from support.fabric.hub import Hub
from support.fabric.services import INTERVALS, TIMEOUTS, Catalogue, Connect, Make, discover_through
from support.mcp.served_worker import Serve, ServedWorker
from support.tokens.raw_database import RawDatabase

START = 1_780_000_000.25


@pytest.fixture
def clock() -> SimpleNamespace:
    """Return a clock that stands still; a test moves it by setting `now` (epoch seconds), alone or with `ticks`.

    Alone it is as if somebody had set it; `ticks` is the monotonic clock's reading.
    """
    return SimpleNamespace(now=START, ticks=0.0)


@pytest.fixture
def tokens_folder(tmp_path: Path) -> Path:
    """Return where `open_store` keeps its database; it doesn't exist yet."""
    return tmp_path / "tokens"


@pytest.fixture
def open_store(clock: SimpleNamespace, tokens_folder: Path) -> Iterator[Callable[[], TokenStore]]:
    """Open the test's token database with the test's clock, as often as wanted; the end of the test closes it."""
    with ExitStack() as opened:

        def open_one() -> TokenStore:
            store = TokenStore(
                tokens_folder, clock=lambda: clock.now, ticks=lambda: clock.ticks, lock_timeout_seconds=0.2
            )
            return opened.enter_context(store)

        yield open_one


@pytest.fixture
def trail(clock: SimpleNamespace, tmp_path: Path) -> Iterator[AuditTrail]:
    """Return an audit trail with the test's clock, in `audit-w1.jsonl`."""
    with AuditTrail(tmp_path / "audit-w1.jsonl", bytes(32), clock=lambda: clock.now) as trail:
        yield trail


@pytest.fixture
def raw_database(tokens_folder: Path) -> RawDatabase:
    """Return raw access to the test's token database."""
    return RawDatabase(tokens_folder)


@pytest.fixture
def served_worker(tmp_path: Path) -> Iterator[Serve]:
    """Serve workers until the end of the test; arguments are those of `ServedWorker` without the folder."""
    with ExitStack() as opened:

        def serve(*tasks: ModuleType, **settings: Any) -> ServedWorker:
            folder = tmp_path / f"w{len(list(tmp_path.iterdir()))}"
            folder.mkdir(mode=0o700)
            return opened.enter_context(ServedWorker(folder / "tokens", *tasks, **settings))

        yield serve


@pytest.fixture
def hub() -> Iterator[Hub]:
    """Run a broker without workers."""
    hub = Hub()
    yield hub
    hub.stop()


@pytest.fixture
def catalogue() -> Catalogue:
    """Return an empty catalogue."""
    return Catalogue()


@pytest.fixture
def connect_fabric(hub: Hub) -> Iterator[Connect]:
    """Start clients of the broker."""
    with ExitStack() as started:

        def start(
            *,
            address: Any = None,
            max_jobs: int = MAX_JOBS,
            max_message_bytes: int = MAX_MESSAGE_BYTES,
            **timeouts: float,
        ) -> FabricClient:
            limits = {"max_jobs": max_jobs, "max_message_bytes": max_message_bytes}
            chosen = Timeouts(**{**vars(TIMEOUTS), **timeouts})
            keys = KeyPair(*zmq.curve_keypair())
            client = FabricClient("w0", address or hub.address, keys, timeouts=chosen, **limits)
            client.start()
            started.callback(client.stop)
            return client

        yield start


@pytest.fixture
def make_discovery(connect_fabric: Connect, catalogue: Catalogue) -> Iterator[Make]:
    """Make discoveries of service `own`, each with a client of the broker."""
    with ExitStack() as opened:

        def make_one(*, intervals: Intervals = INTERVALS, **timeouts: float) -> Discovery:
            client = connect_fabric(**timeouts)
            discovery = discover_through(client, catalogue, intervals)
            opened.callback(discovery.stop)
            opened.callback(client.stop)
            opened.callback(discovery.request_stop)
            return discovery

        yield make_one
