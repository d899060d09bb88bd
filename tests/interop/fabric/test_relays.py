"""Jobs that NorFab's workflow service runs for whoever may call it: at our workers, and as an MCP tool."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from nfcli.models.environment.curve_keys import ensure_client_key
from nfcli.worker.tools.relays import RELAY_NOTICE
from support.norfab.observers import until
from support.norfab.sites import EnvironmentJoiner, FabricMaker, ToolSiteMaker
from support.workers import NfcliRunner, WorkerRunner

WORKFLOW = "workflow-worker-1"
OPEN, NAMING, TRUSTING, CHECKED = "open-worker", "naming-worker", "trusting-worker", "checked-worker"
SETTINGS: dict[str, dict[str, Any]] = {
    OPEN: {},
    NAMING: {"tools": {"policy": [{"service": "workflow", "tasks": ["run"]}]}},
    TRUSTING: {"allowed_relays": [WORKFLOW]},
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def relay_site(new_fabric: FabricMaker, new_tool_site: ToolSiteMaker) -> Iterator[Any]:
    """Run a workflow worker of NorFab's and three of ours that differ in what they allow it."""
    with new_fabric({WORKFLOW: {"service": "workflow"}}) as fabric:
        fabric.start(WORKFLOW)
        with new_tool_site(fabric, SETTINGS) as site:
            for worker in site.workers.values():
                worker.await_services({"fastmcp", "workflow"})
            yield site


def _steps(worker: str) -> dict[str, Any]:
    listing = {"service": "fastmcp", "workers": [worker], "task": "bearer_token_list"}
    storing = {
        "service": "fastmcp",
        "workers": [worker],
        "task": "bearer_token_store",
        "kwargs": {"username": "relayed", "token": f"relayed-to-{worker}"},
    }
    return {"name": "flow", "listing": listing, "storing": storing}


def test_workflow_is_a_tool_only_where_a_rule_names_it(relay_site: Any) -> None:
    """By default its other tasks are tools."""
    assert "run" not in relay_site.workers[OPEN].tools("workflow")
    assert "get_version" in relay_site.workers[OPEN].tools("workflow")
    assert "run" in relay_site.workers[NAMING].tools("workflow")


def test_status_names_the_published_relays(relay_site: Any) -> None:
    """Other workers have none."""
    results = relay_site.client.run_job("fastmcp", "get_status")
    relays = {name: result["result"]["relays"] for name, result in results.items()}
    assert relays == {OPEN: [], NAMING: ["service_workflow__task_run"], TRUSTING: []}


@pytest.mark.parametrize("target", [OPEN, NAMING])
def test_mcp_client_of_a_workflow_manages_no_tokens(relay_site: Any, target: str) -> None:
    """The workflow worker's jobs come from its own client, whoever has called it."""
    flow = relay_site.workers[NAMING].values("workflow", "run", workflow=_steps(target))[WORKFLOW]["flow"]
    reasons = [flow[step][target]["errors"] for step in ("listing", "storing")]
    assert all(f"jobs of worker {WORKFLOW} are refused" in reason for (reason,) in reasons), reasons
    assert [flow[step][target]["result"] for step in ("listing", "storing")] == [None, None]
    stored = relay_site.client.run_job("fastmcp", "bearer_token_check", kwargs={"token": f"relayed-to-{target}"})
    assert stored[target]["result"] is False


def test_inventory_allows_a_relay_by_name(relay_site: Any) -> None:
    """Then it may do what its callers want."""
    flow = relay_site.workers[NAMING].values("workflow", "run", workflow=_steps(TRUSTING))[WORKFLOW]["flow"]
    assert flow["storing"][TRUSTING]["result"] is True
    stored = relay_site.client.run_job("fastmcp", "bearer_token_check", kwargs={"token": f"relayed-to-{TRUSTING}"})
    assert stored[TRUSTING]["result"] is True


def test_check_names_the_published_relay(
    relay_site: Any, joined_environment: EnvironmentJoiner, running_worker: WorkerRunner, nfcli: NfcliRunner
) -> None:
    """Of a worker that runs; the environment has no fault because of it."""
    environment = joined_environment(relay_site.fabric, CHECKED, **SETTINGS[NAMING])
    environment.prepare()
    ensure_client_key(environment)  # without one the worker isn't asked
    with running_worker(environment, CHECKED) as running:
        relay_site.fabric.await_workers(CHECKED)
        until(lambda: "service_workflow__task_run" in _relays(relay_site, CHECKED), "the relay is published")
        lines = nfcli("--check", environment=environment).stdout.splitlines()
        assert running.process.poll() is None
    expected = f"ok    {CHECKED} relays: published: service_workflow__task_run: {RELAY_NOTICE}"
    assert [line for line in lines if "relays" in line] == [expected]


def _relays(site: Any, worker: str) -> list[str]:
    relays: list[str] = site.client.run_job("fastmcp", "get_status", workers=worker)[worker]["result"]["relays"]
    return relays
