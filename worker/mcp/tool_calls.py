"""Calls of tools: the worker's own tasks in a thread, other services' as jobs on the fabric."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

import anyio
import anyio.to_thread
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, CallToolRequestParams, CallToolResult, TextContent

from ...models.errors import NfcliError, ToolCallError
from ...models.protocol.jobs import failure_reason, strip_tracebacks
from ..fabric.client import FabricClient
from ..jobs.task_context import TaskContext
from ..tools.definitions import PublishedTool
from ..tools.schemas import clean_line

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 600.0
SLACK_SECONDS = 5.0  # the fabric is to keep the time by itself
MAX_REASON_CHARACTERS = 1_000

_Results = dict[str, Any]
_Value = TypeVar("_Value")
_Function = Callable[[], _Value]


class HttpRequest(Protocol):
    """The request that a call came with, as far as calls use it."""

    async def receive(self) -> Mapping[str, Any]:
        """Return the next ASGI message; one of type `http.disconnect` when the client has gone."""


class ToolCalls:
    """Calls the tools of a worker's catalogue; belongs to the loop that serves MCP.

    Args:
        worker: whose tools they are.
        fabric: sends jobs to other services; None where there are none.
        timeout: seconds that a job of another service may take.
    """

    def __init__(self, worker: TaskContext, fabric: FabricClient | None, timeout: float = TIMEOUT_SECONDS) -> None:
        self._worker = worker
        self._fabric = fabric
        self._timeout = timeout

    async def call(self, params: CallToolRequestParams, client: str, request: HttpRequest | None) -> CallToolResult:
        """Run the task behind a tool; whatever it says comes back as a result.

        A call that is cancelled waits for nothing any more. A task of this worker that has begun is left alone in its
        thread, and its result thrown away.

        Args:
            params: name and arguments of the tool.
            client: who calls, for the log.
            request: the request it came with; a job is not waited for any more once its client has gone.

        Raises:
            MCPError: there is no such tool.
        """
        tool = self._worker.catalogue.find(params.name)
        if tool is None:
            raise MCPError(INVALID_PARAMS, f"unknown tool {params.name[:64]!r}: tools/list names those there are")
        arguments = params.arguments or {}
        log.info("MCP client %r calls %s", client, tool.task if tool.is_own else f"{tool.task} of {tool.service}")
        try:
            if tool.guardrails.has_argument_rules:
                refusal = await _in_thread(partial(tool.guardrails.check_arguments, arguments))
                if refusal is not None:
                    return _failure(refusal)
            results = await self._results(tool, arguments, request)
            if tool.guardrails.has_result_rules:
                results = await _in_thread(partial(tool.guardrails.filter_results, tool.name, results))
            return _answer(results)
        except NfcliError as error:
            return _failure(str(error))
        except Exception as error:  # noqa: BLE001  the SDK would send its text to the client
            log.error("the call of %s failed: %s", tool.name, type(error).__name__)
            return _failure(f"internal error in the call of {tool.name}: {type(error).__name__}")

    async def _results(self, tool: PublishedTool, arguments: dict[str, Any], request: HttpRequest | None) -> _Results:
        """Return `{worker: Result}`.

        Raises:
            NfcliError: there is none.
        """
        worker = self._worker
        if tool.is_own:
            result = await _in_thread(partial(worker.registry.run, worker, tool.task, arguments))
            return {worker.name: result.model_dump(mode="json")}
        if self._fabric is None:
            raise ToolCallError(f"service {tool.service} can't be reached: this worker is not part of a fabric")
        results = await _while_connected(request, partial(self._run_job, self._fabric, tool, arguments))
        if not results:
            raise ToolCallError(f"no worker of service {tool.service} has answered: look with show norfab workers")
        return results

    async def _run_job(self, fabric: FabricClient, tool: PublishedTool, arguments: dict[str, Any]) -> _Results:
        try:
            with anyio.fail_after(self._timeout + SLACK_SECONDS):
                found = await fabric.run_job(tool.service, tool.task, arguments, timeout=self._timeout)
        except TimeoutError:
            raise ToolCallError(f"service {tool.service} has not answered within {self._timeout:g} s") from None
        return {name: _checked(result) for name, result in found.items()}


def _checked(result: object) -> object:
    if isinstance(result, Mapping):
        return strip_tracebacks(result)
    return {"result": None, "failed": True, "errors": ["the worker's answer is not a result"], "messages": []}


async def _in_thread(function: _Function[_Value]) -> _Value:
    return await anyio.to_thread.run_sync(function, abandon_on_cancel=True)


async def _while_connected(request: HttpRequest | None, work: Callable[[], Awaitable[_Results]]) -> _Results:
    """Do the work and return what it gives, or nothing when the client has gone first.

    Raises whatever the work raises.
    """
    if request is None:
        return await work()
    results: _Results = {}
    problem: Exception | None = None

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        try:
            results = await work()
        except Exception as error:  # noqa: BLE001  the group would wrap it up
            problem = error
        group.cancel_scope.cancel()
    if problem is not None:
        raise problem
    return results


def _failure(reason: str) -> CallToolResult:
    text = clean_line(reason, MAX_REASON_CHARACTERS)
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)


def _answer(results: _Results) -> CallToolResult:
    """Return what a client gets: the failed workers' reasons, one a line, and all results as JSON.

    Raises:
        ToolCallError: the results can't be written as JSON.
    """
    try:
        text = json.dumps(results, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError):
        raise ToolCallError("the workers' answer can't be written as JSON") from None
    reasons = [
        f"{clean_line(name)}: {clean_line(failure_reason(result), MAX_REASON_CHARACTERS)}"
        for name, result in results.items()
        if isinstance(result, Mapping) and result.get("failed")
    ]
    texts = [*(["\n".join(reasons)] if reasons else []), text]
    return CallToolResult(
        content=[TextContent(type="text", text=each) for each in texts],
        structured_content=results,
        is_error=bool(reasons),
    )
