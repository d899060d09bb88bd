"""The phases of a worker's process, and what ends it: a part that dies must not leave half a worker behind."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from nfcli.models.environment.worker_lock import read_owner
from nfcli.models.errors import TokenStoreBusyError, WorkerStartError
from nfcli.models.inventory.schema import WorkerInventory
from nfcli.worker import process as process_module
from nfcli.worker.worker import WorkerProcess

WAIT_SECONDS = 10.0


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerProcess]:
    """A worker that runs in this process and can't end it."""
    monkeypatch.setattr(process_module, "_exit_anyway_after", lambda *_: None)
    environment = Environment(tmp_path, None)
    environment.prepare()
    process = WorkerProcess(environment, DEFAULT_WORKER, WorkerInventory(service="fastmcp", port=0))
    yield process
    process.close()


def served(process: WorkerProcess, meanwhile: Callable[[], Awaitable[None]]) -> int:
    """Start the worker, serve while `meanwhile` runs, and return the exit status."""
    process.start()

    async def run() -> int:
        serving = asyncio.create_task(process.serve())
        await meanwhile()
        return await asyncio.wait_for(serving, WAIT_SECONDS)

    return asyncio.run(run())


def test_a_worker_whose_zeromq_thread_dies_ends_with_a_failure(process: WorkerProcess) -> None:
    """A service manager restarts it; half a worker would look healthy."""

    async def end_thread() -> None:
        process.server._stopping.set()
        process.server._outbox.wake()

    assert served(process, end_thread) == 1


def test_a_worker_whose_http_server_ends_ends_with_a_failure(process: WorkerProcess) -> None:
    """The same for the other half."""

    async def end_server() -> None:
        await process.http.stop(0.1)

    assert served(process, end_server) == 1


def test_a_sweep_that_fails_is_tried_again(process: WorkerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy database ends neither the sweeps nor the worker; it is left alone for longer."""
    monkeypatch.setattr(process_module, "SWEEP_SECONDS", 0.001)
    monkeypatch.setattr(process_module, "SWEEP_AGAIN_SECONDS", 0.002)

    async def sweep_twice() -> None:
        loop, twice, calls = asyncio.get_running_loop(), asyncio.Event(), []

        def sweep() -> int:
            calls.append("sweep")
            if len(calls) > 1:
                loop.call_soon_threadsafe(twice.set)
                return 0
            raise TokenStoreBusyError("token store busy, nothing changed")

        monkeypatch.setattr(process.worker.store, "has_expired", lambda: True)
        monkeypatch.setattr(process.worker.store, "sweep", sweep)
        await asyncio.wait_for(twice.wait(), WAIT_SECONDS)
        process.ask_to_stop()

    assert served(process, sweep_twice) == 0


def test_sweeps_come_when_there_is_something_to_sweep(process: WorkerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking costs nothing, so it is done often; the disk is left alone until there is a reason."""
    monkeypatch.setattr(process_module, "SWEEP_SECONDS", 0.001)
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

        monkeypatch.setattr(process.worker.store, "has_expired", has_expired)
        monkeypatch.setattr(process.worker.store, "sweep", sweep)
        await asyncio.wait_for(done.wait(), WAIT_SECONDS)
        process.ask_to_stop()

    assert served(process, sweep_once) == 0
    assert swept == [0]


def test_a_start_that_fails_half_way_leaves_nothing_open(process: WorkerProcess) -> None:
    """Lock, store and port are free again when a later step fails."""
    inventory = process.inventory.model_copy(update={"endpoint": "tcp://192.0.2.1:1"})
    broken = WorkerProcess(process.environment, DEFAULT_WORKER, inventory)
    with pytest.raises(WorkerStartError, match=r"endpoint tcp://192\.0\.2\.1:1 can't be bound"):
        broken.start()
    assert read_owner(process.environment.lock_file(DEFAULT_WORKER)) is None
    assert process.start()["event"] == "ready"
