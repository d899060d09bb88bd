"""Tasks that run jobs of other services for their caller: which they are, and when they become tools."""

from __future__ import annotations

from typing import Any

import pytest

from nfcli.models.inventory.tool_policy import ToolsInventory
from nfcli.worker.tools.catalogue import ToolCatalogue
from nfcli.worker.tools.policy import ToolPolicy
from nfcli.worker.tools.relays import PUBLISH_HINT, RELAY_NOTICE, is_relay, known_relays
from support.mcp.tool_entries import entry

JOB = {"service": {"type": "string"}, "task": {"type": "string"}}


def make_catalogue(*policy: dict[str, Any]) -> ToolCatalogue:
    """Return a catalogue without tasks of its own, under a policy."""
    return ToolCatalogue("w1", "fastmcp", [], ToolPolicy(ToolsInventory.model_validate({"policy": policy})))


def relay(name: str, properties: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Return the entry of a task with these properties."""
    return entry(name, inputSchema={"type": "object", "properties": properties or {}}, **changes)


def test_relays_of_norfab_are_known() -> None:
    """Those of norfab 0.25.0, whatever their schemas say."""
    assert set(known_relays()) == {
        ("workflow", "run"),
        ("agent", "invoke"),
        ("nornir", "task"),
        ("nornir", "test"),
        ("netbox", "design_deploy"),
        ("netbox", "sync_device_inventory"),
        ("netbox", "check_device_sync"),
        ("netbox", "sync_all"),
    }
    assert all(is_relay(service, task, {}) for service, task in known_relays())


@pytest.mark.parametrize(
    "properties",
    [
        JOB,
        {"Service": {}, "TASK": {}},
        {"task": {}, "kwargs": {"type": "object"}},
        {"task": {}, "args": {"type": "array"}},
        {"workflow": {"type": "object"}},
        {"steps": {"type": "array", "items": {"type": "object", "properties": JOB}}},
        {"call": {"anyOf": [{"type": "null"}, {"type": "object", "properties": JOB}]}},
    ],
)
def test_shape_gives_a_relay_away(properties: dict[str, Any]) -> None:
    """A service and a task, a task and its arguments, or a workflow, at any depth."""
    assert make_catalogue().replace("any", [relay("go", properties)]) == []


def test_shape_may_stand_in_a_definition() -> None:
    """Schemas refer to their parts."""
    schema = {
        "type": "object",
        "properties": {"steps": {"type": "array", "items": {"$ref": "#/$defs/Step"}}},
        "$defs": {"Step": {"type": "object", "properties": JOB}},
    }
    assert make_catalogue().replace("any", [entry("go", inputSchema=schema)]) == []


@pytest.mark.parametrize("name", ["run_job", "Run_Job", "job_run", "post_job", "run_workflow", "invoke_agent"])
def test_name_gives_a_relay_away(name: str) -> None:
    """In any letter case."""
    assert make_catalogue().replace("any", [relay(name)]) == []


@pytest.mark.parametrize(
    "properties", [{"service": {}, "name": {}}, {"task": {}, "last": {}}, {"kwargs": {}}, {"workflow_name": {}}]
)
def test_other_shapes_are_published(properties: dict[str, Any]) -> None:
    """Lists of jobs and tools have some of the names."""
    assert make_catalogue().replace("any", [relay("go", properties)]) == ["service_any__task_go"]


@pytest.mark.parametrize(
    ("policy", "is_published"),
    [
        ([{"service": "workflow", "tasks": ["run"]}], True),
        ([{"service": "workflow"}], False),
        ([{"service": "workflow", "tasks": ["ru*"]}], False),
        ([{"service": "*", "tasks": ["run"]}], False),
        ([{"service": "*"}, {"service": "workflow", "tasks": ["run"]}], False),
        ([{"service": "workflow", "tasks": ["run"], "action": "reject"}], False),
        ([], False),
    ],
)
def test_relay_is_published_only_by_exact_name(policy: list[dict[str, Any]], is_published: bool) -> None:
    """The first matching rule has its service and task, not a glob."""
    catalogue = make_catalogue(*policy)
    tools = ["service_workflow__task_run"] if is_published else []
    assert catalogue.replace("workflow", [relay("run")]) == tools
    assert catalogue.relays() == tools


def test_log_names_the_relay_once(caplog: pytest.LogCaptureFixture) -> None:
    """One line says what publishing it means, another why one is not published."""
    catalogue = make_catalogue({"service": "workflow", "tasks": ["run"]})
    for _ in range(2):
        catalogue.replace("workflow", [relay("run")])
        catalogue.replace("agent", [relay("invoke")])
    assert [record.getMessage() for record in caplog.records] == [
        f"tool service_workflow__task_run is published: {RELAY_NOTICE}",
        f"not published over MCP: agent invoke: {PUBLISH_HINT}",
    ]


def test_own_tasks_are_not_judged_by_their_shape() -> None:
    """The operator has chosen the plugins; those of other services come unasked."""
    own = [relay("go", JOB)]
    catalogue = ToolCatalogue("w1", "fastmcp", own, ToolPolicy())
    assert list(catalogue.tools) == ["service_fastmcp__task_go"]
    assert catalogue.relays() == []


def test_jobs_of_a_relay_are_not_shown() -> None:
    """Their arguments and results are those of the jobs that it ran, tokens among them."""
    catalogue = make_catalogue({"service": "workflow", "tasks": ["run"]})
    assert catalogue.replace("workflow", [relay("run"), relay("job_details")]) == ["service_workflow__task_run"]
