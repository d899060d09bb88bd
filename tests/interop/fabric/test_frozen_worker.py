"""A worker of ours that is stopped by a signal for a while, behind the reference's broker."""

from __future__ import annotations

from typing import Any

import pytest

from nfcli import NorFab
from support.norfab.sites import EnvironmentJoiner, FabricMaker
from support.workers import WorkerRunner, frozen

NAME = "frozen-worker"


@pytest.mark.slow
def test_jobs_that_were_abandoned_are_not_done_when_the_worker_goes_on(
    new_fabric: FabricMaker, joined_environment: EnvironmentJoiner, running_worker: WorkerRunner
) -> None:
    """Neither those of our client, which have a deadline, nor those of the reference's, which have none."""
    with new_fabric({}) as fabric:
        fabric.start()
        environment = joined_environment(fabric, NAME)
        with running_worker(environment, NAME) as worker, NorFab(environment.inventory_file) as norfab:
            fabric.await_workers(NAME)
            ours = norfab.make_client()
            their_job: dict[str, Any] = {"service": "fastmcp", "task": "bearer_token_store", "workers": [NAME]}
            assert value(ours, "bearer_token_list") == []
            with frozen(worker.process.pid):
                abandoned = value(ours, "bearer_token_store", timeout=3.0, username="ann", token="ours")
                assert abandoned[0].startswith("no answer within 3 s, so the outcome is unknown: ")
                kwargs = {"username": "ann", "token": "theirs"}
                fabric.client.call("submit_job", **their_job, uuid="theirs", kwargs=kwargs, timeout=1)
                done = fabric.client.call("end_job", uuid="theirs")
                assert done["state"] == "STALE"
                still = value(ours, "bearer_token_store", timeout=2.0, username="ann", token="ours-too")
                assert still[0].startswith("no answer within 2 s, ")
            assert value(ours, "bearer_token_list") == []
            kwargs = {"username": "ann", "token": "theirs-in-time"}
            fabric.client.call("submit_job", **their_job, uuid="in-time", kwargs=kwargs, timeout=20)
            assert fabric.client.call("end_job", uuid="in-time")["state"] == "COMPLETED"
            assert [entry["token"] for entry in value(ours, "bearer_token_list")] == ["theirs-in-time"]


def value(client: Any, task: str, *, timeout: float = 20.0, **kwargs: Any) -> Any:
    """Run a job of the one worker; return its value, or its errors."""
    (result,) = client.run_job("fastmcp", task, kwargs=kwargs, workers=NAME, timeout=timeout).values()
    return result["errors"] if result["failed"] else result["result"]


@pytest.mark.slow
def test_a_job_for_any_worker_goes_to_one_that_answers(
    new_fabric: FabricMaker, joined_environment: EnvironmentJoiner, running_worker: WorkerRunner
) -> None:
    """The broker lists the one that is stopped as alive for its whole hold time."""
    with new_fabric({}) as fabric:
        fabric.start()
        environment = joined_environment(fabric, "stopped", "runs")
        with (
            running_worker(environment, "stopped") as stopped,
            running_worker(environment, "runs"),
            NorFab(environment.inventory_file) as norfab,
        ):
            fabric.await_workers("stopped", "runs")
            client = norfab.make_client()
            with frozen(stopped.process.pid):
                for _ in range(5):
                    results = client.run_job("fastmcp", "bearer_token_list", workers="any", timeout=8)
                    assert [(name, result["failed"]) for name, result in results.items()] == [("runs", False)]
