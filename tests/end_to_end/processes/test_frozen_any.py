"""One of several workers is stopped by a signal: jobs for any worker, and many jobs for that one."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

from nfcli import NorFab, NoWorkersError
from support.workers import EnvironmentFactory, WorkerRunner, frozen

pytestmark = pytest.mark.slow

NAMES = ("a", "b", "c")
JOBS = 1_020
TIMEOUT_SECONDS = 0.005


@pytest.mark.parametrize("is_connected", [False, True])
def test_a_job_for_any_worker_goes_to_one_that_answers(
    environment_factory: EnvironmentFactory, running_worker: WorkerRunner, is_connected: bool
) -> None:
    """Whether the client has used the one that is stopped before or not."""
    environment = environment_factory(*NAMES)
    with ExitStack() as opened:
        workers = {name: opened.enter_context(running_worker(environment, name)) for name in NAMES}
        client = opened.enter_context(NorFab(environment.inventory_file)).make_client()
        if is_connected:
            client.run_job("fastmcp", "bearer_token_list")
        with frozen(workers["b"].process.pid):
            for _ in range(6):
                ((name, result),) = client.run_job("fastmcp", "bearer_token_list", workers="any", timeout=8).items()
                assert (name in {"a", "c"}, result["failed"]) == (True, False)


def test_jobs_for_a_stopped_worker_keep_their_timeout(
    environment_factory: EnvironmentFactory, running_worker: WorkerRunner
) -> None:
    """However many of them are waiting, and the worker does none of them later."""
    environment = environment_factory("a")
    with running_worker(environment, "a") as worker, NorFab(environment.inventory_file) as norfab:
        client = norfab.make_client()
        client.run_job("fastmcp", "bearer_token_list")
        with frozen(worker.process.pid):
            slowest = 0.0
            for number in range(JOBS):
                started = time.monotonic()
                record = {"username": "ann", "token": f"late-{number}"}
                try:
                    client.run_job("fastmcp", "bearer_token_store", kwargs=record, timeout=TIMEOUT_SECONDS)
                except NoWorkersError as error:
                    assert str(error) == "worker a takes no more messages: check its log, or restart it"  # noqa: PT017
                slowest = max(slowest, time.monotonic() - started)
            assert slowest < 1
        later = norfab.make_client()
        assert later.run_job("fastmcp", "bearer_token_list", timeout=60)["a"]["result"] == []
