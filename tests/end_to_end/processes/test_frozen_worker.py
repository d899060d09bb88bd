"""A worker that is stopped by a signal and goes on later: jobs whose client has gone are not begun."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from nfcli import Client, NorFab
from nfcli.models.environment.paths import Environment
from support.workers import RunningWorker, frozen

pytestmark = pytest.mark.slow


@pytest.fixture
def norfab(environment: Environment, worker: RunningWorker) -> Iterator[NorFab]:
    """Make clients of the worker that the module's tests share."""
    assert worker.process.poll() is None
    with NorFab(environment.inventory_file) as norfab:
        yield norfab


def run(client: Client, task: str, *, timeout: float = 20.0, **kwargs: Any) -> Any:
    """Run a job of the one worker; return its value, or its errors."""
    (result,) = client.run_job("fastmcp", task, kwargs=kwargs, timeout=timeout).values()
    return result["errors"] if result["failed"] else result["result"]


def test_a_job_that_was_abandoned_is_not_done_when_the_worker_goes_on(norfab: NorFab, worker: RunningWorker) -> None:
    """Neither a creation nor a deletion, of a client that waits for other jobs and of one that has gone."""
    stays, goes, later = (norfab.make_client() for _ in range(3))
    assert run(stays, "bearer_token_store", username="ann", token="kept") is True
    assert run(goes, "bearer_token_check", token="late") is False
    with frozen(worker.process.pid):
        for client in (stays, goes):
            (abandoned,) = run(client, "bearer_token_store", timeout=0.3, username="ann", token="late")
            (also,) = run(client, "bearer_token_delete", timeout=0.3, token="kept")
            assert abandoned == also
            assert abandoned.startswith("no answer within 0.3 s, so the outcome is unknown: ")
        goes.close()
    assert run(stays, "bearer_token_check", token="late") is False
    assert [entry["token"] for entry in run(later, "bearer_token_list", username="ann")] == ["kept"]
    reasons = {entry["reason"] for entry in run(later, "get_audit") if entry["outcome"] == "failed"}
    assert len(reasons) > 0
    assert all("after its deadline only, nothing was done" in reason for reason in reasons)
