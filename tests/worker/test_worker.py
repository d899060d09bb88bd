"""The composition root: what a worker opens and closes, and what ends it."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from nfcli.models.environment.worker_lock import read_owner
from nfcli.models.errors import TokenStoreBusyError, WorkerStartError
from nfcli.models.inventory.schema import WorkerInventory
from nfcli.models.protocol.broker_connection import BrokerAddress
from nfcli.worker.configuration.loading import Configuration
from nfcli.worker.tokens import transfers
from nfcli.worker.worker import Worker
from support.fabric.broker import FabricBroker
from support.fabric.worker import eventually

WAIT_SECONDS = 10.0


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Make workers that run in this process and can't end it; they are closed at the end of the test."""
    environment = Environment(tmp_path, None)
    environment.prepare()
    with ExitStack() as opened:

        def make_one(*, broker: BrokerAddress | None = None, endpoint: str | None = None, **options: Any) -> Worker:
            inventory = WorkerInventory(service="fastmcp", port=0, endpoint=endpoint)
            configuration = Configuration(inventory, broker)
            worker = Worker(environment, DEFAULT_WORKER, configuration, stop_deadline_seconds=None, **options)
            opened.callback(worker.close)
            return worker

        yield make_one


@pytest.fixture
def worker(make: Callable[..., Worker]) -> Worker:
    """A worker in direct mode that sweeps without a pause."""
    return make(sweep_seconds=0.001, sweep_retry_seconds=0.002)


def served(worker: Worker, meanwhile: Callable[[], Awaitable[None]]) -> int:
    """Start the worker, serve while `meanwhile` runs, and return the exit status."""
    worker.start()

    async def run() -> int:
        serving = asyncio.create_task(worker.serve())
        await meanwhile()
        return await asyncio.wait_for(serving, WAIT_SECONDS)

    return asyncio.run(run())


def test_a_worker_whose_zeromq_thread_ends_exits_with_a_failure(worker: Worker) -> None:
    """So that a service manager restarts it."""

    async def end_thread() -> None:
        worker.transport.stop()

    assert served(worker, end_thread) == 1


def test_a_worker_whose_http_server_ends_exits_with_a_failure(worker: Worker) -> None:
    """The same."""

    async def end_server() -> None:
        await worker.http.stop(0.1)

    assert served(worker, end_server) == 1


def test_state_that_norfab_begins_to_publish_is_logged_once(
    worker: Worker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """NorFab is started in the environment's folder while the worker runs."""

    def logged() -> list[str]:
        return [record.message for record in caplog.records if record.levelname == "CRITICAL"]

    async def publish() -> None:
        (tmp_path / "__norfab__").mkdir()
        await asyncio.to_thread(eventually, lambda: bool(logged()))
        worker.request_stop()

    assert served(worker, publish) == 0
    assert logged() == [worker.environment.publication_problem()]


def test_a_failed_sweep_is_repeated(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy database ends neither the sweeps nor the worker."""

    async def sweep_twice() -> None:
        loop, twice, calls = asyncio.get_running_loop(), asyncio.Event(), []

        def sweep() -> int:
            calls.append("sweep")
            if len(calls) > 1:
                loop.call_soon_threadsafe(twice.set)
                return 0
            raise TokenStoreBusyError("token store busy, nothing changed")

        monkeypatch.setattr(worker.context.store, "has_expired", lambda: True)
        monkeypatch.setattr(worker.context.store, "sweep", sweep)
        await asyncio.wait_for(twice.wait(), WAIT_SECONDS)
        worker.request_stop()

    assert served(worker, sweep_twice) == 0


def test_the_disk_is_swept_only_if_tokens_have_expired(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether some have is known without the disk."""
    looks = iter([False, False, True])
    swept: list[int] = []

    async def sweep_once() -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def has_expired() -> bool:
            if swept:
                loop.call_soon_threadsafe(done.set)
            return next(looks, False)

        def sweep() -> int:
            swept.append(sum(1 for _ in looks))
            return 0

        monkeypatch.setattr(worker.context.store, "has_expired", has_expired)
        monkeypatch.setattr(worker.context.store, "sweep", sweep)
        await asyncio.wait_for(done.wait(), WAIT_SECONDS)
        worker.request_stop()

    assert served(worker, sweep_once) == 0
    assert swept == [0]


def test_a_backup_that_was_abandoned_is_removed(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of all tokens doesn't stay on disk until the next backup or the worker's end."""
    monkeypatch.setattr(transfers, "IDLE_SECONDS", 0.0)

    async def abandon_one() -> None:
        session = worker.context.transfers.snapshot
        with session.open() as transfer:
            transfer.file.touch()
            session.commit(transfer, size=0, sha256="")
        assert await asyncio.to_thread(eventually, lambda: not session.folder.exists())
        worker.request_stop()

    assert served(worker, abandon_one) == 0


def test_a_start_that_fails_closes_what_was_open(make: Callable[..., Worker]) -> None:
    """Lock, store and port are free again when a later step fails."""
    broken = make(endpoint="tcp://192.0.2.1:1")
    with pytest.raises(WorkerStartError, match=r"endpoint tcp://192\.0\.2\.1:1 "):
        broken.start()
    assert read_owner(broken.environment.lock_file(DEFAULT_WORKER)) is None
    make().start()


def test_a_worker_publishes_its_addresses_in_its_lock_file(worker: Worker) -> None:
    """Shells find it by them."""
    worker.start()
    owner = read_owner(worker.environment.lock_file(DEFAULT_WORKER))
    assert owner is not None
    assert (owner.ready, owner.url, owner.endpoint) == (True, worker.context.url, worker.context.endpoint)


def test_a_worker_with_a_broker_joins_it_and_ends_at_once(
    make: Callable[..., Worker], caplog: pytest.LogCaptureFixture
) -> None:
    """No thread of its connections is left, and the log has no warning."""
    broker = FabricBroker(keepalive_seconds=2.5, hold_seconds=10.0)
    broker.start()
    with closing(broker):
        worker = make(broker=broker.address)
        worker.start()
        assert worker.context.endpoint == broker.address.endpoint
        assert worker.context.discovery is not None
        worker.close()
    assert {thread.name for thread in threading.enumerate()} & {"discovery", "fabric-client", "fabric"} == set()
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []
