"""The task that checks the token database of a running worker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nfcli.models.environment.paths import Environment
from nfcli.worker.audit.trail import AuditTrail
from nfcli.worker.jobs.task import TaskRegistry
from nfcli.worker.tasks import health
from nfcli.worker.tokens.store import TokenStore
from support.task_context import task_context
from support.tokens.raw_database import RawDatabase
from support.tokens.token_store import store_token

OpenStore = Callable[[], TokenStore]


@pytest.fixture
def run(trail: AuditTrail, clock: SimpleNamespace, tmp_path: Path) -> Callable[[TokenStore], Any]:
    """Run the task at a worker with this store, whose time the test sets."""

    def run_task(store: TokenStore) -> Any:
        registry = TaskRegistry(health)
        worker = task_context(Environment(tmp_path, None), registry, store, trail, clock=lambda: clock.now)
        return registry.run(worker, "check_store", {})

    return run_task


def test_the_task_is_no_tool() -> None:
    """A bearer token alone doesn't allow disk-bound checks."""
    assert [(spec.name, spec.mcp) for spec in TaskRegistry(health)] == [("check_store", None)]


def test_a_running_worker_reports_its_database(
    run: Callable[[TokenStore], Any], open_store: OpenStore, raw_database: RawDatabase, clock: SimpleNamespace
) -> None:
    """The report counts live tokens and skipped rows, and says how far the system's clock was set back."""
    with open_store() as store:
        store_token(store, "ann", "t1", None)
        store_token(store, "ann", "t2", 10)
        raw_database.plant(token="t3", value="x")
        raw_database.plant(token="t4", raw=0)
    clock.now -= 100
    store = open_store()
    assert run(store).result == {"tokens": 2, "passed_over": 2, "disk": "", "clock_behind_seconds": 100.0}
    clock.now += 200
    assert run(store).result == {"tokens": 1, "passed_over": 2, "disk": "", "clock_behind_seconds": 0.0}


def test_damage_to_the_file_of_a_running_worker_is_found(
    run: Callable[[TokenStore], Any], open_store: OpenStore, tokens_folder: Path
) -> None:
    """Damage on disk is reported even though the pages in memory are intact."""
    with open_store() as store:
        for number in range(200):
            store_token(store, "ann", f"token-{number}", None)
    store = open_store()
    assert run(store).result["tokens"] == 200
    file = tokens_folder / "cache.db"
    with file.open("r+b") as stream:
        stream.seek(8192)
        stream.write(b"\xff" * 12_288)
    result = run(store)
    assert (result.failed, len(result.errors)) == (True, 1)
    assert result.errors[0].startswith(f"{file} is damaged or no token database")
