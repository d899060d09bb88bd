"""Calls of the tools of NorFab's services, as MCP clients of both eras see them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from mcp import MCPError

from nfcli.models.protocol.jobs import CHECK_BEFORE_RETRY, OUTCOME_UNKNOWN
from support.norfab.mcp_site import BRISK, OPEN, in_both_eras
from support.norfab.sites import Gate

DEMO = ["demo-worker-1", "demo-worker-2"]
KEPT_BACK = ("hide", "bearer_token_show", "run_shell_cmd", "job_details", "no_such_task")


@pytest.fixture
def worker(tool_site: Any) -> Any:
    """Take the worker that has no rules."""
    return tool_site.workers[OPEN]


@in_both_eras
def test_tools_are_what_the_tasks_say(tool_site: Any, worker: Any, era: str) -> None:
    """Description, arguments, results by worker, and annotations."""
    entries = {entry["name"]: entry for entry in tool_site.run("demo", "list_tasks")[DEMO[0]]}
    tools = worker.tools("demo", era)
    hidden = {name for name, entry in entries.items() if entry["mcp"] is False}
    assert tools.keys() == entries.keys() - hidden - set(KEPT_BACK)
    say, entry = tools["say"], entries["say"]
    assert say["description"] == "Say something, as often as wanted."
    assert say["annotations"] == {"title": "Say", "readOnlyHint": True, "openWorldHint": False}
    assert {key: say["inputSchema"][key] for key in ("type", "properties", "required")} == {
        key: entry["inputSchema"][key] for key in ("type", "properties", "required")
    }
    result = say["outputSchema"]["additionalProperties"]
    given = entry["outputSchema"]["properties"]["result"]
    described = {key: value for key, value in given.items() if key != "title"}
    assert (say["outputSchema"]["type"], result["properties"]["result"]) == ("object", described)
    assert "annotations" not in tools["stumble"]


@in_both_eras
def test_tools_of_norfabs_own_services_are_there(worker: Any, tool_site: Any, era: str) -> None:
    """The service filesharing, which every NorFab has; what it keeps to itself stays there."""
    entries = tool_site.run("filesharing", "list_tasks")["files-worker-1"]
    tools = worker.tools("filesharing", era)
    assert tools.keys() == {entry["name"] for entry in entries if entry["mcp"] is not False}
    assert "run_shell_cmd" not in tools
    assert worker.values("filesharing", "get_status", era) == {"files-worker-1": "OK"}


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_a_call_runs_on_all_workers_and_gives_each_ones_result(worker: Any, mode: str) -> None:
    """The SDK's client checks it against the schema that was published."""

    async def use(client: Any) -> Any:
        await client.list_tools()
        return await client.call_tool("service_demo__task_say", {"text": "hé", "times": 2})

    done = worker.use(use, mode)
    assert done.is_error is False
    results = done.structured_content
    assert {name: result["result"] for name, result in results.items()} == {
        name: {"text": "héhé", "worker": name} for name in DEMO
    }
    assert [(result["failed"], result["task"]) for result in results.values()] == [
        (False, f"{name}:say") for name in DEMO
    ]
    assert [json.loads(part.text) for part in done.content] == [results]


@in_both_eras
@pytest.mark.parametrize(
    ("task", "arguments", "expected"),
    [
        ("stumble", {"reason": "a root"}, "RuntimeError: stumbled over a root"),
        ("refuse", {"reason": "not today"}, "not today"),
        ("say", {"text": "x", "tiems": 2}, "TypeError: DemoWorker.say() got an unexpected keyword argument 'tiems'"),
    ],
    ids=["raises", "fails", "an argument is unknown"],
)
def test_a_task_that_fails_is_a_tool_error_with_one_line_a_worker(
    worker: Any, era: str, task: str, arguments: dict[str, Any], expected: str
) -> None:
    """Whatever NorFab's workers make of it; the results are there as well."""
    found = worker.call("demo", task, era, **arguments)
    assert (found["isError"], found["content"][0]["text"]) == (True, "\n".join(f"{name}: {expected}" for name in DEMO))
    assert [result["failed"] for result in found["structuredContent"].values()] == [True, True]


@in_both_eras
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({}, "argument text: must be given"),
        ({"text": 5, "times": 0}, "argument text: must be string; argument times: must be at least 1"),
        ({"text": "x", "job": "y"}, "argument job: can't be given, the service sets it"),
    ],
)
def test_arguments_outside_of_the_schema_of_a_norfab_task_are_refused(
    worker: Any, era: str, arguments: dict[str, Any], line: str
) -> None:
    """Before a job is sent: no worker answers."""
    found = worker.call("demo", "say", era, **arguments)
    assert (found["isError"], [each["text"] for each in found["content"]]) == (True, [line])
    assert "structuredContent" not in found


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_the_sdks_client_takes_failures_too(worker: Any, mode: str) -> None:
    """Their results fit the schema."""

    async def use(client: Any) -> Any:
        await client.list_tools()
        return [await client.call_tool(f"service_demo__task_{task}", {}) for task in ("stumble", "refuse", "say")]

    assert [done.is_error for done in worker.use(use, mode)] == [True] * 3


@pytest.mark.parametrize("mode", ["legacy", "auto"])
@pytest.mark.parametrize("task", KEPT_BACK)
def test_what_is_no_tool_can_not_be_called(worker: Any, tool_site: Any, mode: str, task: str) -> None:
    """By its name neither; no worker hears of it."""

    async def use(client: Any) -> str:
        with pytest.raises(MCPError) as caught:
            await client.call_tool(f"service_demo__task_{task}", {})
        return str(caught.value)

    before = tool_site.jobs("demo")
    assert worker.use(use, mode).startswith(f"unknown tool 'service_demo__task_{task}'")
    assert tool_site.jobs("demo") == before


@in_both_eras
def test_a_job_that_takes_too_long_is_abandoned(tool_site: Any, gate: Gate, era: str) -> None:
    """`timeout` under `tools` says after how many seconds."""
    expected = tool_site.workers[BRISK].failure("demo", "walk", era, steps=1, gate=str(gate.path))
    assert expected == "\n".join(
        f"{name}: no answer within 1 s, {OUTCOME_UNKNOWN}: {CHECK_BEFORE_RETRY}" for name in DEMO
    )
    for _ in DEMO:
        gate.release_step()


def test_lists_and_calls_need_a_token(worker: Any) -> None:
    """Other services' tools are guarded like the worker's own."""
    for token in (None, "another"):
        for method in ("tools/list", "tools/call", "prompts/list"):
            params = {"name": "service_demo__task_say"} if method == "tools/call" else {}
            assert worker.post(method, params, token=token)[0] == 401
