"""Calls of tools of other services: results, failures, cancellation."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import pytest
from mcp import Client

from nfcli.models.errors import NoWorkersError
from nfcli.models.inventory.tool_policy import TaskGuardrail, TaskResultGuardrail
from nfcli.models.tasks.base import TaskInput
from nfcli.worker.jobs.context import WorkerContext
from nfcli.worker.jobs.task import ToolHints, task
from nfcli.worker.mcp import tool_calls
from nfcli.worker.tools.guardrails import ToolGuardrails
from nfcli.worker.tools.policy import ToolPolicy
from support.mcp.called_tools import MODES, PING, Fabric, Serve, in_both_eras, with_client
from support.mcp.served_worker import WAIT_SECONDS, read_response
from support.mcp.tool_entries import entry
from support.tokens.token_store import delete_tokens, store_token


def result(value: object = True, **changes: Any) -> dict[str, Any]:
    """Return the result of one worker."""
    return {"result": value, "failed": False, "errors": [], "messages": [], "status": "completed", **changes}


def call(worker: Any, era: str, arguments: Mapping[str, Any] | None = None, name: str = PING) -> dict[str, Any]:
    """Call a tool; return the result."""
    params = {"name": name, "arguments": dict(arguments or {"target": "r1"})}
    status, _, body = worker.post("tools/call", params, era=era)
    assert (status, "error" in body) == (200, False), body
    found: dict[str, Any] = body["result"]
    return found


def texts(found: dict[str, Any]) -> list[str]:
    """Return the texts of a result."""
    return [part["text"] for part in found["content"]]


@in_both_eras
def test_call_runs_a_job_and_returns_each_worker_s_result(
    tool_site: Any, fabric: Fabric, era: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As structured content and as JSON; client and tool are logged, but no argument."""
    caplog.set_level(logging.INFO)
    fabric.answer = {"net-1": result(), "net-2": result(value=False)}
    found = call(tool_site, era, {"target": "r1-é"})
    assert fabric.calls == [("net", "ping", {"target": "r1-é"}, 600.0)]
    assert (found["isError"], found["structuredContent"]) == (False, fabric.answer)
    assert [json.loads(text) for text in texts(found)] == [fabric.answer]
    assert caplog.messages[-1:] == ["MCP client 'automation' calls ping of net"]


class Held(dict[str, Any]):
    """A value whose first reader waits for the gate."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.gate, self.is_read = threading.Event(), threading.Event()

    def items(self) -> Any:
        """Return the items once the gate is open."""
        self.is_read.set()
        assert self.gate.wait(WAIT_SECONDS)
        return super().items()


@in_both_eras
def test_others_are_served_while_a_long_result_is_encoded(tool_site: Any, fabric: Fabric, era: str) -> None:
    """A result of 10 MB takes a tenth of a second, in a thread of its own."""
    value = Held({"text": "x" * 10_000_000})
    fabric.answer = {"net-1": result(value)}
    with tool_site.connect() as connection:
        params = {"name": PING, "arguments": {"target": "r1"}}
        connection.sendall(tool_site.request("tools/call", params, era=era))
        assert value.is_read.wait(WAIT_SECONDS)
        assert tool_site.post("tools/list", era=era)[0] == 200
        value.gate.set()
        status, _, body = read_response(connection)
    assert (status, len(body) > 20_000_000) == (200, True)


@in_both_eras
def test_failed_worker_makes_the_call_a_tool_error(tool_site: Any, fabric: Fabric, era: str) -> None:
    """Only the last line of a traceback is returned, without control characters; the other results are included."""
    trace = "Traceback (most recent call last):\n  File x\nValueError: no\x1b such\tdevice\n"
    fabric.answer = {
        "net-1": result(),
        "net-2": result(None, failed=True, errors=[trace]),
        "net-3": result(None, failed=True, status="timeout", errors=["no answer within 600 s"]),
    }
    found = call(tool_site, era)
    expected = {**fabric.answer, "net-2": fabric.answer["net-2"] | {"errors": ["ValueError: no such\tdevice"]}}
    assert (found["isError"], found["structuredContent"]) == (True, expected)
    reasons, shown = texts(found)
    assert reasons == "net-2: ValueError: no such device\nnet-3: no answer within 600 s"
    assert json.loads(shown) == expected


@in_both_eras
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (NoWorkersError("no worker serves net"), "no worker serves net"),
        (NoWorkersError("two\nlines"), "two lines"),
        (ValueError("secret"), f"internal error in the call of {PING}: ValueError"),
        ({}, "no worker of service net answered: check show norfab workers"),
        ({"net-1": result(value=float("nan"))}, "the workers' results cannot be encoded as JSON"),
        ({"net-1": result(value="\ud800")}, "the workers' results cannot be encoded as JSON"),
    ],
    ids=str,
)
def test_job_without_results_is_a_tool_error(
    tool_site: Any, fabric: Fabric, era: str, answer: Any, reason: str
) -> None:
    """A model can read it, unlike a protocol error."""
    fabric.answer = answer
    found = call(tool_site, era)
    assert (found["isError"], texts(found), "structuredContent" in found) == (True, [reason], False)


@in_both_eras
def test_malformed_result_counts_as_a_failure(tool_site: Any, fabric: Fabric, era: str) -> None:
    """Workers of other implementations answer, too."""
    fabric.answer = {
        "net-1": "yes",
        "net-2": {},
        "net-3": {"failed": True, "errors": None},
        "net\n4": {"failed": 1, "errors": 5, "messages": "no\nluck"},
    }
    found = call(tool_site, era)
    reasons = "net-1: the worker's answer is not a result\nnet-3: failed without a reason, status None\nnet 4: 5; luck"
    assert (found["isError"], texts(found)[0]) == (True, reasons)


@in_both_eras
def test_job_times_out_even_if_the_fabric_does_not_end_it(
    tool_site: Any, fabric: Fabric, era: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call ends a little after the job's timeout."""
    monkeypatch.setattr(tool_calls, "SLACK_SECONDS", -599.99)
    fabric.hold = True
    assert texts(call(tool_site, era)) == ["service net did not answer within 600 s"]
    assert fabric.was_cancelled.is_set()


@in_both_eras
def test_tools_of_a_removed_service_are_unknown(tool_site: Any, era: str) -> None:
    """The call fails as for any unknown tool."""
    tool_site.worker.catalogue.retain([])
    error = tool_site.post("tools/call", {"name": PING}, era=era)[2]["error"]
    assert (error["code"], PING in error["message"]) == (-32602, True)


@in_both_eras
def test_tool_of_another_service_needs_a_broker(served_worker: Serve, era: str) -> None:
    """It is not published without one; the error has one line all the same."""
    worker = served_worker(auth_bearer={"issuer_url": None})
    worker.worker.catalogue.replace("net", [entry()])
    assert texts(call(worker, era)) == ["cannot call service net: this worker has no broker"]


@in_both_eras
def test_client_that_disconnects_abandons_its_job(tool_site: Any, fabric: Fabric, era: str) -> None:
    """The job is not awaited any longer; other calls go on."""
    fabric.hold = True
    with tool_site.connect() as connection:
        connection.sendall(tool_site.request("tools/call", {"name": PING, "arguments": {"target": "r1"}}, era=era))
        assert fabric.has_begun.acquire(timeout=WAIT_SECONDS)
        assert not fabric.was_cancelled.is_set()
    assert fabric.was_cancelled.wait(WAIT_SECONDS)
    fabric.hold, fabric.answer = False, {"net-1": result()}
    assert call(tool_site, era)["isError"] is False


@in_both_eras
def test_deleted_token_abandons_its_job(tool_site: Any, fabric: Fabric, era: str) -> None:
    """At once, and its client gets a 401."""
    fabric.hold = True
    store_token(tool_site.store, "other", "t", None)
    responses: list[Any] = []
    params = {"name": PING, "arguments": {"target": "r1"}}
    caller = threading.Thread(
        target=lambda: responses.append(tool_site.post("tools/call", params, era=era, token="t")), daemon=True
    )
    caller.start()
    assert fabric.has_begun.acquire(timeout=WAIT_SECONDS)
    delete_tokens(tool_site.store, username="other")
    assert fabric.was_cancelled.wait(WAIT_SECONDS)
    caller.join(WAIT_SECONDS)
    assert responses[0][0] == 401


class WatchedGuardrails(ToolGuardrails):
    """Guardrails that refuse the target `r2`, replace results, and record the threads that call them."""

    def __init__(self) -> None:
        refuse = TaskGuardrail(field="target", type="equals", match=("r2",), message="not\nr2")
        super().__init__([refuse], [TaskResultGuardrail(type="replace", match=("(?s).+",), replace="hidden")])
        self.threads: list[str] = []

    def check_arguments(self, arguments: Mapping[str, Any]) -> str | None:
        """Record the thread, and check."""
        self.threads.append(threading.current_thread().name)
        return super().check_arguments(arguments)

    def filter_results(self, tool: str, results: Mapping[str, Any]) -> dict[str, Any]:
        """Record the thread, and filter."""
        self.threads.append(threading.current_thread().name)
        return super().filter_results(tool, results)


class WatchedPolicy(ToolPolicy):
    """A policy with the same guardrails for all tools."""

    def __init__(self) -> None:
        super().__init__()
        self.watched = WatchedGuardrails()

    def guardrails(self, service: str, task: str, mcp: Mapping[str, Any]) -> ToolGuardrails:  # noqa: ARG002
        """Return the guardrails of any tool."""
        return self.watched


def echo_module() -> ModuleType:
    """Return a module with the task `greet`."""

    def greet(_worker: WorkerContext, _arguments: TaskInput) -> str:
        """Say hello."""
        return "hello"

    tasks = ModuleType("tasks")
    vars(tasks).update(greet=task(result=str, mcp=ToolHints("Greet"))(greet))
    return tasks


@in_both_eras
def test_guardrails_reject_calls_and_change_results(served_worker: Serve, fabric: Fabric, era: str) -> None:
    """For tools of other services and the worker's own; never in the loop's thread."""
    policy = WatchedPolicy()
    worker = served_worker(echo_module(), fabric=fabric, policy=policy, auth_bearer={"issuer_url": None})
    worker.worker.catalogue.replace("net", [entry()])
    fabric.answer = {"net-1": result("secret")}
    refused = call(worker, era, {"target": "r2"})
    assert (refused["isError"], texts(refused)) == (True, ["refused by a guardrail on target: not r2"])
    assert fabric.calls == []
    found = call(worker, era, {"target": "r1"})
    assert found["structuredContent"]["net-1"]["result"] == "hidden"
    assert "secret" not in texts(found)[0]
    own = "service_fastmcp__task_greet"
    params = {"name": own, "arguments": {}}
    structured = worker.post("tools/call", params, era=era)[2]["result"]["structuredContent"]
    assert structured["w1"]["result"] == "hidden"
    assert "served worker" not in policy.watched.threads


def test_long_result_is_returned_entirely(tool_site: Any, fabric: Fabric) -> None:
    """Once as structured content, once as text."""
    fabric.answer = {"net-1": result("x" * 1_000_000)}
    with tool_site.connect() as connection:
        connection.sendall(tool_site.request("tools/call", {"name": PING, "arguments": {"target": "r1"}}))
        status, _, body = read_response(connection)
    assert (status, len(body) > 2_000_000) == (200, True)


@pytest.mark.parametrize("mode", MODES)
def test_sdk_client_accepts_the_results(tool_site: Any, fabric: Fabric, mode: str) -> None:
    """It validates the structured content against the published schema."""
    fabric.answer = {"net-1": result(status="a", other=1)}

    async def use(client: Client) -> Any:
        await client.list_tools()
        found = []
        for value, changes in ((True, {"other": 1}), ("no truth value", {"failed": True}), ("no truth value", {})):
            fabric.answer = {"net-1": result(value, status="a", **changes)}
            try:
                found.append((await client.call_tool(PING, {"target": "r1"})).structured_content == fabric.answer)
            except RuntimeError as error:
                found.append("Invalid structured content" in str(error))
        return found

    assert with_client(tool_site, use, mode) == [True, True, True]
