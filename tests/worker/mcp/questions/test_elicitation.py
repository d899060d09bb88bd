"""Questions of a tool's task, answered by the SDK's clients of both protocol eras."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from mcp import Client
from mcp_types import ElicitResult

from support.mcp.asking_worker import (
    CHANGE,
    LEGACY,
    MODERN,
    REPORT,
    TWICE,
    AskingTasks,
    accept,
    answering,
    call,
    with_asked_client,
)
from support.mcp.served_worker import Serve

MODES = pytest.mark.parametrize("mode", [LEGACY, MODERN])


@pytest.fixture
def tasks() -> AskingTasks:
    """Return tasks that ask."""
    return AskingTasks()


@pytest.fixture
def worker(served_worker: Serve, tasks: AskingTasks) -> Iterator[Any]:
    """Serve a worker with these tasks."""
    return served_worker(tasks.module, auth_bearer={"issuer_url": None})


@MODES
@pytest.mark.parametrize(
    ("default", "given", "result"),
    [(False, True, True), (True, False, False), (5, 7, 7), (0.5, 2.5, 2.5), ("a", "b", "b"), (None, "c", "c")],
)
def test_an_answer_reaches_the_task(worker: Any, mode: str, default: Any, given: Any, result: Any) -> None:
    """A form with one field of the default's type."""
    answer, asked = answering(accept(given))
    found = call(worker, mode, answer, default=default)
    assert (found["result"], found["failed"]) == (result, False)
    [params] = asked
    field = params.requested_schema["properties"]["answer"]
    kinds = {bool: "boolean", int: "integer", float: "number"}
    assert (params.message, field["type"]) == ("Commit?", kinds.get(type(default), "string"))
    assert field.get("default") == default


@MODES
@pytest.mark.parametrize("action", ["decline", "cancel"])
def test_a_user_who_declines_says_no(worker: Any, mode: str, action: Any) -> None:
    """Both ways of it, whatever the default."""
    answer, _ = answering(ElicitResult(action=action))
    assert call(worker, mode, answer, default=True)["result"] is False


@MODES
def test_a_preview_is_above_the_question(worker: Any, mode: str) -> None:
    """Clients show the message alone."""
    answer, asked = answering(accept(True))
    call(worker, mode, answer, preview="+ vlan 5\n+ vlan 6")
    assert asked[0].message == "+ vlan 5\n+ vlan 6\n\nCommit?"


@MODES
def test_a_task_asks_twice(worker: Any, mode: str) -> None:
    """Each question has its own answer."""
    answer, asked = answering(accept(True), accept(False))
    assert call(worker, mode, answer, TWICE)["result"] == [True, False]
    assert len(asked) == 2


@MODES
def test_a_client_without_elicitation_is_refused_at_once(worker: Any, tasks: AskingTasks, mode: str) -> None:
    """With the reason, and what to use instead; the task isn't left waiting."""
    found = call(worker, mode, None)
    reason = tasks.end()
    assert (found["failed"], found["errors"]) == (True, [reason])
    assert "this MCP client can't be asked: use one with elicitation" in str(reason)
    assert "nfcli's shell" in str(reason)


@MODES
def test_silence_is_no(worker: Any, tasks: AskingTasks, mode: str) -> None:
    """The task goes on without the client's answer."""

    async def never(_params: Any) -> ElicitResult:
        assert await asyncio.to_thread(tasks.end) is False
        return accept(True)

    assert call(worker, mode, never, default=True, timeout=1)["result"] is False


@MODES
def test_progress_is_sent_to_a_client_that_has_asked_for_it(worker: Any, mode: str) -> None:
    """Each event with its severity, in order, before the result; the progress increases."""
    told: list[tuple[float, str | None]] = []

    async def note(progress: float, _total: float | None, message: str | None) -> None:
        told.append((progress, message))

    async def use(client: Client) -> Any:
        quiet = await client.call_tool(REPORT, {})
        assert told == []
        return quiet, await client.call_tool(REPORT, {}, progress_callback=note)

    quiet, loud = with_asked_client(worker, mode, None, use)
    assert quiet.structured_content["w1"]["result"] == loud.structured_content["w1"]["result"] == "done"
    assert [message for _, message in told] == ["first", "WARNING: second"]
    assert told[0][0] < told[1][0]


@MODES
def test_calls_that_ask_hold_up_no_others(worker: Any, mode: str) -> None:
    """Five of one token are the most; the sixth is refused, and other calls run."""
    go_on = asyncio.Event()
    asked: asyncio.Queue[None] = asyncio.Queue()

    async def answer(_params: Any) -> ElicitResult:
        asked.put_nowait(None)
        await go_on.wait()
        return accept(True)

    async def use(client: Client) -> Any:
        waiting = [asyncio.ensure_future(client.call_tool(CHANGE, {})) for _ in range(5)]
        for _ in waiting:
            await asked.get()
        refused = await client.call_tool(CHANGE, {})
        done = await client.call_tool(REPORT, {})
        go_on.set()
        return refused, done, await asyncio.gather(*waiting)

    refused, done, answered = with_asked_client(worker, mode, answer, use)
    assert refused.structured_content["w1"]["errors"] == ["5 calls of this token have asked questions: answer them"]
    assert done.structured_content["w1"]["result"] == "done"
    assert [each.structured_content["w1"]["result"] for each in answered] == [True] * 5
