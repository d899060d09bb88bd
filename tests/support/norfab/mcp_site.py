"""MCP clients at workers of ours on a fabric of the reference's, in both protocol eras."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from mcp import Client as SdkClient
from mcp.client.streamable_http import streamable_http_client

from nfcli import Client
from nfcli.models.environment.paths import Environment
from nfcli.models.tasks.tools import tool_name
from support.mcp.change_streams import Stream
from support.mcp.served_worker import HANDSHAKE_ERA, SINGLE_POST_ERA, TOKEN, McpAddress

ERAS = (HANDSHAKE_ERA, SINGLE_POST_ERA)
WAIT_SECONDS = 40.0

# The workers of the fixture `tool_site`: what their inventories say under `tools`, and whose tools they have then.
OPEN, RULED, BRISK = "open-worker", "ruled-worker", "brisk-worker"
TOOLS: dict[str, dict[str, Any]] = {
    OPEN: {},
    RULED: {
        "policy": [
            {"service": "demo", "tasks": ["get_stats"], "action": "Reject"},
            {"service": "demo", "tasks": ["say", "advise", "get_*s", "hide", "bearer_token_*", "run_*"]},
            {"service": "filesharing", "tasks": ["list_files"]},
            {"service": "*", "tasks": ["bearer_token_show", "bearer_token_store", "run_shell_cmd"]},
            {"service": "fastmcp", "tasks": ["*"]},
            {"action": "reject"},
        ],
        "guardrails": [
            {
                "service": "de*",
                "task": "s*",
                "field": "text",
                "type": "contains",
                "match": "Curse",
                "message": "be kind",
            },
            {"service": "demo", "task": "say", "field": "times", "type": "regex", "match": ["^[0-9]{3,}$"]},
        ],
        "result_guardrails": [
            {"service": "*", "task": "say", "type": "replace", "match": r"key-(\d)\d+", "replace": r"key-\1***"},
            {"service": "demo", "task": "say", "type": "regex", "match": "classified"},
            {"service": "demo", "task": "say", "type": "limit", "limit": 20_000},
        ],
        "disable_builtin_guardrails": True,
    },
    BRISK: {
        "timeout": 1,
        "policy": [
            {"service": "demo", "tasks": ["run_shell_cmd"]},
            {"service": "demo", "tasks": ["advise"], "action": "reject"},
        ],
    },
}
SERVICES = {name: {"demo", "fastmcp", "filesharing"} for name in TOOLS}

in_both_eras = pytest.mark.parametrize("era", ERAS)


class McpWorker(McpAddress):
    """A running worker of ours, whose MCP server knows `TOKEN`."""

    wait_seconds = WAIT_SECONDS

    def __init__(self, running: Any) -> None:
        self.name: str = running.name
        self.url: str = running.url

    def tools(self, service: str, era: str = SINGLE_POST_ERA) -> dict[str, Any]:
        """Return the tools that are listed of a service, by the names of their tasks."""
        prefix = tool_name(service, "")
        return {
            tool["name"].removeprefix(prefix): tool
            for tool in self._result("tools/list", {}, era)["tools"]
            if tool["name"].startswith(prefix)
        }

    def services(self) -> set[str]:
        """Return the services whose tools are listed."""
        return {
            tool["name"].split("__")[0].removeprefix("service_") for tool in self._result("tools/list", {})["tools"]
        }

    def call(self, service: str, task: str, era: str = SINGLE_POST_ERA, **arguments: Any) -> dict[str, Any]:
        """Call a tool; return the result, which may be a tool's error."""
        return self._result("tools/call", {"name": tool_name(service, task), "arguments": arguments}, era)

    def failure(self, service: str, task: str, era: str = SINGLE_POST_ERA, **arguments: Any) -> str:
        """Call a tool, which must fail; return the first text."""
        found = self.call(service, task, era, **arguments)
        assert found["isError"] is True
        text: str = found["content"][0]["text"]
        return text

    def values(self, service: str, task: str, era: str = SINGLE_POST_ERA, **arguments: Any) -> dict[str, Any]:
        """Call a tool, which must succeed; return the value of each worker."""
        found = self.call(service, task, era, **arguments)
        assert found["isError"] is False, found
        return {name: result["result"] for name, result in found["structuredContent"].items()}

    def refusal(self, method: str, params: dict[str, Any], era: str) -> dict[str, Any]:
        """Send what must be refused; return the error of the protocol."""
        status, _, body = self.post(method, params, era=era)
        assert (status, "result" in body) in {(200, False), (400, False)}, body
        error: dict[str, Any] = body["error"]
        return error

    def _result(self, method: str, params: dict[str, Any], era: str = SINGLE_POST_ERA) -> dict[str, Any]:
        status, _, body = self.post(method, params, era=era)
        assert (status, "error" in body) == (200, False), body
        result: dict[str, Any] = body["result"]
        return result

    @contextmanager
    def stream(self, era: str) -> Iterator[Any]:
        """Open a stream of changes; it is cut, and so ends, when its time is over."""
        with Stream(self, era) as stream:
            timer = threading.Timer(WAIT_SECONDS, stream.cut)
            timer.start()
            try:
                yield stream
            finally:
                timer.cancel()

    def await_services(self, services: Collection[str], *, era: str = SINGLE_POST_ERA) -> set[str]:
        """Wait until tools of exactly these services are listed; return the methods of the notifications meanwhile."""
        told = set()
        with self.stream(era) as stream:
            while self.services() != set(services):
                message = stream.next()
                assert message is not None, f"there are still {self.services()}"
                told.add(message["method"])
        return told

    def use(self, use: Callable[[SdkClient], Awaitable[Any]], mode: str) -> Any:
        """Use the SDK's client, in mode `legacy`, `auto` or that of a version."""

        async def run() -> Any:
            async with (
                httpx2.AsyncClient(headers={"authorization": f"Bearer {TOKEN}"}, trust_env=False) as http,
                SdkClient(streamable_http_client(self.url, http_client=http), mode=mode) as client,
            ):
                return await use(client)

        return asyncio.run(asyncio.wait_for(run(), WAIT_SECONDS))


@dataclass(frozen=True)
class ToolSite:
    """A fabric, workers of ours on it by their names, and a client of ours.

    `environment` is the client's, of a machine without workers.
    """

    fabric: Any
    workers: dict[str, McpWorker]
    client: Client
    environment: Environment

    def run(self, service: str, task: str, **kwargs: Any) -> dict[str, Any]:
        """Run a job of a service's, past MCP; return the value of each worker."""
        results = self.client.run_job(service, task, kwargs=kwargs, timeout=WAIT_SECONDS)
        assert [result["errors"] for result in results.values() if result["failed"]] == []
        return {name: result["result"] for name, result in results.items()}

    def jobs(self, service: str) -> set[tuple[str, str, str]]:
        """Return worker, task and UUID of each job that a service's workers have had, questions like this left out."""
        asked = ("job_list", "list_tasks")
        return {
            (worker, job["task"], job["uuid"])
            for worker, jobs in self.run(service, "job_list").items()
            for job in jobs
            if job["task"] not in asked
        }
