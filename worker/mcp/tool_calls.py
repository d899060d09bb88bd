"""Calls of tools: tasks of this worker in a thread, those of other services as jobs on the fabric."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

import anyio
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, CallToolRequestParams, CallToolResult, InputRequiredResult, TextContent

from ...models.errors import NfcliError, ToolCallError
from ...models.invisible import has_invisible
from ...models.protocol.jobs import Result, failure_reason, strip_tracebacks
from ..jobs.channels.base import Channel
from ..tools.catalogue import ToolCatalogue
from ..tools.definitions import PublishedTool, ReadArguments
from ..tools.policy import ToolUser
from ..tools.texts import clean_line, clean_strings
from .call_places import (
    CHECK_PLACES,
    CHECK_PLACES_PER_TOKEN,
    CHECKS_WAITING_PER_TOKEN,
    JOB_PLACES,
    JOB_PLACES_PER_TOKEN,
    AskingLimit,
    CallPlaces,
    TaskRun,
    TaskThreads,
)
from .questions.asking_calls import AskingCalls
from .questions.job_questions import JobQuestions, Listen
from .questions.tool_channel import ToolChannel
from .result_budget import current_reservation
from .running_calls import RunningCalls, call_key, current_user, mcp_client_name
from .user_limits import UserLimits

log = logging.getLogger(__name__)

SLACK_SECONDS = 5.0  # on top of the timeout that the fabric itself observes
MAX_REASON_CHARACTERS = 1_000
_ASKED = "asked"
_ESCAPED = re.compile(r"\\u00|\\[bf]")  # a control character in JSON, or a text that looks like one

RunTask = Callable[[str, dict[str, Any], ToolUser | None, threading.Event, Channel], Result]
"""Runs a task of this worker for a user; its result is not wanted any more once the event is set. From any thread."""


class RunJob(Protocol):
    """Runs a task of another service on all of its workers."""

    def __call__(
        self, service: str, task: str, kwargs: dict[str, Any], *, reserve: Callable[[int], str | None], listen: Listen
    ) -> Awaitable[Mapping[str, Any]]:
        """Return `{worker: Result}`; `reserve` is called as by `BrokerJob`, from any thread."""


OnCall = Callable[[str, str, float], None]
_Results = dict[str, Any]
_Value = TypeVar("_Value")


class ToolCalls:
    """Calls the tools of a catalogue; belongs to the loop that serves MCP.

    `run_task` runs a task of the worker itself, `read_arguments` returns the arguments that it would get, by all of
    their names; both are called from other threads. `asking` asks clients.
    `run_job` runs a task on all workers of another service and returns `{worker: Result}`, or raises an NfcliError,
    after `timeout` seconds at the latest; it is None without a broker. `on_call` is called with the name of the tool,
    empty for an unknown one, the outcome, and the seconds that the call took. `running` are the calls that are being
    served; `limits` those of each user.
    """

    def __init__(
        self,
        worker_name: str,
        catalogue: ToolCatalogue,
        *,
        run_task: RunTask,
        asking: AskingCalls,
        read_arguments: ReadArguments,
        run_job: RunJob | None,
        timeout: float,
        limits: UserLimits | None = None,
        on_call: OnCall | None = None,
    ) -> None:
        self._worker_name = worker_name
        self._catalogue = catalogue
        self._run_task = run_task
        self._asking = asking
        self._read_arguments = read_arguments
        self._run_job = run_job
        self._timeout = timeout
        self._limits = limits or UserLimits(())
        self._on_call = on_call
        self.running = RunningCalls()
        self._asking_limit = AskingLimit()
        self._threads = TaskThreads(asking=self._asking_limit)
        # Apart: a task that waits for something must not delay them, and they take turns for the processor.
        self._checks = TaskThreads(CHECK_PLACES, CHECK_PLACES_PER_TOKEN, CHECKS_WAITING_PER_TOKEN)
        self._job_places = CallPlaces(JOB_PLACES, JOB_PLACES_PER_TOKEN)

    async def call(
        self, context: ServerRequestContext[Any, Any], params: CallToolRequestParams
    ) -> CallToolResult | InputRequiredResult:
        """Run the task of a tool; errors other than an unknown tool are returned as results.

        A call ends when its client cancels it, or disconnects. A task of this worker that has begun is notified, and
        its result discarded; the job of another service is no longer awaited.

        Raises:
            MCPError: there is no such tool, or none that the caller may use; or the call was cancelled.
        """
        tool, user = self._catalogue.tools.get(params.name), current_user()
        if tool is None or not tool.access.allows(user):
            if tool is not None:
                log.warning("MCP client %r may not call %s: tools.policy", mcp_client_name(), tool.name)
            self._observe("" if tool is None else tool.name, "unknown" if tool is None else "denied", time.monotonic())
            raise MCPError(
                INVALID_PARAMS, f"unknown tool {params.name[:64]!r}; call tools/list for the available names"
            )
        log.info(
            "MCP client %r calls %s", mcp_client_name(), tool.task if tool.is_own else f"{tool.task} of {tool.service}"
        )
        key = call_key(context.request, context.request_id)
        started, outcome = time.monotonic(), "limited"
        try:
            with self._limits.call("" if user is None else user.name):
                outcome = "cancelled"
                outcome, result = await self.running.run(
                    key, context.request, partial(self._call, tool, context, params, key.token)
                )
        except ToolCallError as refusal:
            return _failure(str(refusal))
        finally:
            if outcome != _ASKED:  # the next request goes on with the call
                self._observe(tool.name, outcome, started)
        return result

    def _observe(self, tool: str, outcome: str, started: float) -> None:
        if self._on_call is not None:
            self._on_call(tool, outcome, time.monotonic() - started)

    async def check(self, token: str, function: Callable[[], _Value]) -> _Value:
        """Return what a function returns that takes processor time; those for one token take turns.

        Raises:
            ToolCallError: too many of them are waiting; and what the function raises.
        """
        return await self._checks.run(token, lambda _cancelled: function())

    async def _call(
        self,
        tool: PublishedTool,
        context: ServerRequestContext[Any, Any],
        params: CallToolRequestParams,
        token: str,
    ) -> tuple[str, CallToolResult | InputRequiredResult]:
        """Return the outcome of a call, and what its client gets."""
        arguments = params.arguments or {}
        try:
            if not tool.is_own or tool.guardrails.has_argument_rules:
                refusal = await self.check(token, partial(tool.refusal, arguments, self._read_arguments))
                if refusal is not None:
                    return "refused", _failure(refusal)
            run = self._run_own if tool.is_own else self._run_elsewhere
            results = await self._asking.run(context, params, token, partial(run, tool, arguments, token))
            if isinstance(results, InputRequiredResult):
                return _ASKED, results
            result = await self._call_result(tool, results, token)
        except NfcliError as error:
            return "failed", await self._failed_call(tool, error, token)
        except MCPError:
            raise
        except Exception as error:  # noqa: BLE001  the SDK would send its text to the client
            log.error("call of %s failed: %s", tool.name, type(error).__name__)
            return "failed", _failure(f"internal error in the call of {tool.name}: {type(error).__name__}")
        return "failed" if result.is_error else "ok", result

    async def _failed_call(self, tool: PublishedTool, error: NfcliError, token: str) -> CallToolResult:
        reason = clean_line(str(error), None)
        if tool.guardrails.has_result_rules:
            try:
                reason = await self.check(token, partial(tool.guardrails.filter_text, tool.name, reason))
            except ToolCallError as busy:
                reason = str(busy)
        return _failure(reason)

    async def _call_result(self, tool: PublishedTool, results: _Results, token: str) -> CallToolResult:
        """Return the result of a call as guardrails and the rule about invisible characters leave it."""
        results, text = await self.check(token, partial(_published, tool, results))
        # Those of other services were counted when they came.
        if tool.is_own and (refusal := current_reservation().take(len(text))) is not None:
            raise ToolCallError(refusal)
        user = current_user()
        self._limits.count_result("" if user is None else user.name, len(text))
        reasons = _reasons(results)
        if reasons and tool.guardrails.has_result_rules:
            reasons = await self.check(token, partial(tool.guardrails.filter_text, tool.name, reasons))
        return CallToolResult(
            content=[TextContent(type="text", text=each) for each in ([reasons] if reasons else []) + [text]],
            structured_content=results,
            is_error=any(isinstance(result, Mapping) and bool(result.get("failed")) for result in results.values()),
        )

    async def _run_own(
        self, tool: PublishedTool, arguments: dict[str, Any], token: str, channel: ToolChannel
    ) -> _Results:
        user = current_user()

        def run(run: TaskRun) -> Result:
            channel.begin_wait = run.give_place
            return self._run_task(tool.task, arguments, user, run.cancelled, channel)

        result = await self._threads.run(token, run)
        return {self._worker_name: result.model_dump(mode="json")}

    async def _run_elsewhere(
        self, tool: PublishedTool, arguments: dict[str, Any], token: str, channel: ToolChannel
    ) -> _Results:
        """Return `{worker: Result}`.

        Raises:
            NfcliError: no worker returned a result.
        """
        if self._run_job is None:
            raise ToolCallError(f"cannot call service {tool.service}: this worker has no broker")
        questions, asked = JobQuestions(channel), self._asking_limit.once(token)
        channel.begin_wait = asked.take
        await self._job_places.acquire(token)
        try:
            results = await self._await_job(self._run_job, tool, arguments, questions)
        finally:
            self._job_places.release(token)
            questions.close()
            asked.give()
        if not results:
            raise ToolCallError(f"no worker of service {tool.service} answered: check show norfab workers")
        return results

    async def _await_job(
        self, run_job: RunJob, tool: PublishedTool, arguments: dict[str, Any], questions: JobQuestions
    ) -> _Results:
        reserve = current_reservation().take
        try:
            with anyio.fail_after(self._timeout + SLACK_SECONDS):
                found = await run_job(tool.service, tool.task, arguments, reserve=reserve, listen=questions.listen)
        except TimeoutError:
            raise ToolCallError(f"service {tool.service} did not answer within {self._timeout:g} s") from None
        return {name: _checked(result, questions.refusals.get(name)) for name, result in found.items()}


def _checked(result: object, refusal: str | None) -> object:
    """Return a worker's result as it may be returned, with the reason why its question was not answered."""
    if isinstance(result, Mapping):
        checked = strip_tracebacks(result)
        if refusal is not None:
            errors = checked.get("errors")
            checked["errors"] = [*(errors if isinstance(errors, list) else []), refusal]
        return checked
    return {"result": None, "failed": True, "errors": ["the worker's answer is not a result"], "messages": []}


def _published(tool: PublishedTool, results: _Results) -> tuple[_Results, str]:
    """Return results as they leave, and as JSON.

    Guardrails judge results as workers sent them and as they leave: what is dropped could hide a match.

    Raises:
        ToolCallError: they cannot be encoded.
    """
    if tool.guardrails.has_result_rules:
        results = tool.guardrails.filter_results(tool.name, results)
    text = _encode(results)
    if has_invisible(text) or _ESCAPED.search(text):
        results = clean_strings(results)
        if tool.guardrails.has_result_rules:
            results = tool.guardrails.filter_results(tool.name, results)
        text = _encode(results)
    return results, text


def _failure(reason: str) -> CallToolResult:
    text = clean_line(reason, MAX_REASON_CHARACTERS)
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)


def _encode(results: _Results) -> str:
    """Return results as JSON.

    Raises:
        ToolCallError: they cannot be encoded.
    """
    try:
        text = json.dumps(results, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError):
        raise ToolCallError("the workers' results cannot be encoded as JSON") from None
    return text


def _reasons(results: _Results) -> str:
    """Return the reasons of failed workers, one per line."""
    return "\n".join(
        f"{clean_line(name)}: {clean_line(failure_reason(result), MAX_REASON_CHARACTERS)}"
        for name, result in results.items()
        if isinstance(result, Mapping) and result.get("failed")
    )
