"""A worker whose tasks ask the MCP client that calls them, and clients of the SDK that answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from queue import SimpleQueue
from types import ModuleType
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import ElicitRequestParams, ElicitResult

from nfcli.models.errors import TaskError
from nfcli.models.tasks.base import TaskInput
from nfcli.worker.jobs.task import task
from nfcli.worker.jobs.task_context import TaskContext
from support.mcp.served_worker import TOKEN, WAIT_SECONDS

CHANGE, TWICE, REPORT = (f"service_fastmcp__task_{name}" for name in ("change", "change_twice", "report"))
LEGACY, MODERN = "legacy", "2026-07-28"


class Ask(TaskInput):
    """Arguments of the tasks."""

    default: bool | int | float | str | None = False
    timeout: int = 60
    preview: str | None = None


class AskingTasks:
    """Tasks that ask; `ends` gets what each has got, an answer or the reason why there is none."""

    def __init__(self) -> None:
        self.ends: SimpleQueue[object] = SimpleQueue()
        self.contexts: SimpleQueue[TaskContext] = SimpleQueue()
        self.module = ModuleType("asking")

        def change(worker: TaskContext, arguments: Ask) -> object:
            self.contexts.put(worker)
            preview = None if arguments.preview is None else {"preview": arguments.preview}
            try:
                answer = worker.request_input("Commit?", arguments.default, arguments.timeout, preview)
            except TaskError as error:
                self.ends.put(str(error))
                raise
            self.ends.put(answer)
            return answer

        def change_twice(worker: TaskContext, arguments: Ask) -> list[object]:
            return [change(worker, arguments), change(worker, arguments)]

        def report(worker: TaskContext, _arguments: Ask) -> str:
            worker.progress("first")
            worker.event("second", severity="WARNING", resource="r1")
            return "done"

        for function in (change, change_twice, report):
            vars(self.module)[function.__name__] = task(arguments=Ask)(function)

    def end(self) -> object:
        """Wait for the end of a question, as a task sees it."""
        return self.ends.get(timeout=WAIT_SECONDS)


Answer = Callable[[ElicitRequestParams], Awaitable[ElicitResult]]


def answering(*results: ElicitResult) -> tuple[Answer, list[ElicitRequestParams]]:
    """Return a callback that gives these answers one after another, and the list of what it was asked."""
    asked: list[ElicitRequestParams] = []

    async def answer(params: ElicitRequestParams) -> ElicitResult:
        asked.append(params)
        return results[len(asked) - 1]

    return answer, asked


def accept(value: Any) -> ElicitResult:
    """Return the answer of a user who filled in the form."""
    return ElicitResult(action="accept", content={"answer": value})


def with_asked_client(
    worker: Any,
    mode: str,
    answer: Answer | None,
    use: Callable[[Client], Awaitable[Any]],
    *,
    token: str = TOKEN,
) -> Any:
    """Use the SDK's client, which declares elicitation if there is a callback for it."""

    async def callback(context: Any, params: ElicitRequestParams) -> ElicitResult:
        assert context is not None
        assert answer is not None
        return await answer(params)

    async def run() -> Any:
        headers = {"authorization": f"Bearer {token}"}
        async with (
            httpx2.AsyncClient(headers=headers, trust_env=False, timeout=WAIT_SECONDS) as http,
            Client(
                streamable_http_client(worker.url, http_client=http),
                mode=mode,
                elicitation_callback=None if answer is None else callback,
            ) as client,
        ):
            return await use(client)

    return asyncio.run(asyncio.wait_for(run(), 2 * WAIT_SECONDS))


def call(worker: Any, mode: str, answer: Answer | None, tool: str = CHANGE, **arguments: Any) -> Any:
    """Call a tool; return the worker's result."""
    results = with_asked_client(worker, mode, answer, lambda client: client.call_tool(tool, arguments))
    return results.structured_content["w1"]
