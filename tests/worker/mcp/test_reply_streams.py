"""Replies to calls that take long: event streams for clients that accept them."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import ModuleType
from typing import Any

import pytest
from mcp import Client
from starlette.types import Message, Receive, Scope, Send

from nfcli.models.tasks.base import TaskInput
from nfcli.worker.jobs.context import WorkerContext
from nfcli.worker.jobs.task import task
from nfcli.worker.mcp.reply_streams import Pace, ReplyStreams
from support.mcp.called_tools import MODES, in_both_eras, with_client
from support.mcp.served_worker import WAIT_SECONDS
from support.tokens.token_store import delete_tokens

SOON = Pace(begin=0.01, progress=0.01, comment=0.01)
HOLD, QUICK = "service_fastmcp__task_hold", "service_fastmcp__task_quick"
JSON_ONLY = ("accept", "application/json")
COMMENT = b": still running\n"

Serve = Callable[..., Any]


class Gate:
    """Two tasks: `hold` waits for the gate, or with `is_cancellable` until it is cancelled; `quick` doesn't."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.was_cancelled: SimpleQueue[bool] = SimpleQueue()
        self.is_cancellable = False
        self.begun = threading.Semaphore(0)

    def module(self) -> ModuleType:
        """Return a module of the tasks."""

        def hold(worker: WorkerContext, _arguments: TaskInput) -> str:
            self.begun.release()
            (worker.cancelled if self.is_cancellable else self.gate).wait(WAIT_SECONDS)
            self.was_cancelled.put(worker.cancelled.is_set())
            return "done"

        def quick(_worker: WorkerContext, _arguments: TaskInput) -> str:
            return "done"

        tasks = ModuleType("tasks")
        vars(tasks).update({each.__name__: task(result=str)(each) for each in (hold, quick)})
        return tasks


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Return the gate, and open it in the end."""
    gate = Gate()
    yield gate
    gate.gate.set()


@pytest.fixture
def site(served_worker: Serve, gate: Gate) -> Any:
    """Serve the tasks; streams begin at once."""
    return served_worker(gate.module(), pace=SOON, auth_bearer={"issuer_url": None})


@contextmanager
def called(worker: Any, era: str, *headers: tuple[str, str], progress_token: Any = None) -> Iterator[Any]:
    """Call `hold`; yield the response, of which the head may have come."""
    params: dict[str, Any] = {"name": HOLD, "arguments": {}}
    request = worker.request("tools/call", params, era=era, headers=headers, request_id="r1")
    if progress_token is not None:
        head, body = request.split(b"\r\n\r\n", 1)
        message = json.loads(body)
        message["params"].setdefault("_meta", {})["progressToken"] = progress_token
        body = json.dumps(message).encode()
        lines = [line for line in head.split(b"\r\n") if not line.startswith(b"content-length")]
        request = b"\r\n".join([*lines, b"content-length: %d" % len(body), b"", body])
    with worker.connect() as connection:
        connection.sendall(request)
        yield http.client.HTTPResponse(connection)


def events(response: Any) -> list[Any]:
    """Return the messages of a stream until its end."""
    return [json.loads(line[6:]) for line in response if line.startswith(b"data: ")]


def text_of(reply: dict[str, Any]) -> Any:
    """Return the result of the task in a reply."""
    return reply["result"]["structuredContent"]["w1"]["result"]


@in_both_eras
@pytest.mark.parametrize("token", ["p", 7, 0, ""])
def test_long_call_streams_progress_and_then_its_reply(site: Any, gate: Gate, era: str, token: Any) -> None:
    """To the client's token, with values that increase."""
    with called(site, era, progress_token=token) as response:
        response.begin()
        first = next(line for line in response if line.startswith(b"data: "))
        gate.gate.set()
        *progress, reply = [json.loads(first[6:]), *events(response)]
    assert (response.status, response.getheader("content-type")) == (200, "text/event-stream")
    assert response.getheader("x-accel-buffering") == "no"
    assert {(each["method"], each["params"]["progressToken"]) for each in progress} == {
        ("notifications/progress", token)
    }
    values = [each["params"]["progress"] for each in progress]
    assert sorted(set(values)) == values
    assert (reply["id"], text_of(reply)) == ("r1", "done")


@in_both_eras
def test_long_call_without_a_token_streams_comments(site: Any, gate: Gate, era: str) -> None:
    """They keep the connection alive, and mean nothing to the client."""
    with called(site, era) as response:
        response.begin()
        assert [response.readline(), response.readline(), response.readline()] == [COMMENT, b"\n", COMMENT]
        gate.gate.set()
        (reply,) = events(response)
    assert text_of(reply) == "done"


@in_both_eras
def test_client_that_accepts_json_only_gets_json(site: Any, gate: Gate, era: str) -> None:
    """However long the call takes; so does one whose call is quick."""
    with called(site, era, JSON_ONLY, progress_token="p") as plain, called(site, era) as streamed:
        streamed.begin()
        assert streamed.readline() == COMMENT
        gate.gate.set()
        plain.begin()
        assert plain.getheader("content-type") == "application/json"
        assert text_of(json.loads(plain.read())) == "done"


@in_both_eras
def test_quick_call_is_answered_with_json(served_worker: Serve, gate: Gate, era: str) -> None:
    """A stream would cost more, and not every client reads one well."""
    worker = served_worker(gate.module())
    status, headers, reply = worker.post("tools/call", {"name": QUICK, "arguments": {}}, era=era)
    assert (status, headers["content-type"], text_of(reply)) == (200, "application/json", "done")


@in_both_eras
def test_stream_ends_with_its_token(site: Any, gate: Gate, era: str) -> None:
    """What the call returns after that is not sent."""
    gate.is_cancellable = True
    with called(site, era) as response:
        response.begin()
        assert response.readline() == COMMENT
        assert gate.begun.acquire(timeout=WAIT_SECONDS)
        delete_tokens(site.store, token="secret-token")
        assert events(response) == []
    assert gate.was_cancelled.get(timeout=WAIT_SECONDS) is True


@in_both_eras
def test_client_that_leaves_a_stream_cancels_its_call(site: Any, gate: Gate, era: str) -> None:
    """As one does that waits for JSON."""
    gate.is_cancellable = True
    with called(site, era) as response:
        response.begin()
        assert response.readline() == COMMENT
        assert gate.begun.acquire(timeout=WAIT_SECONDS)
    response.close()
    assert gate.was_cancelled.get(timeout=WAIT_SECONDS) is True


@in_both_eras
def test_stopping_worker_completes_streams_with_an_error(site: Any, gate: Gate, era: str) -> None:
    """So that the client does not take the end of the stream for a lost connection."""
    gate.is_cancellable = True
    with called(site, era) as response:
        response.begin()
        assert response.readline() == COMMENT
        site.stop()
        (reply,) = events(response)
    assert (reply["id"], reply["error"]["message"]) == ("r1", "the call was cancelled: the worker is stopping")


@pytest.mark.parametrize("mode", MODES)
def test_client_of_the_sdk_reads_streams(site: Any, gate: Gate, mode: str) -> None:
    """And calls back with the progress."""
    seen: list[float] = []

    async def on_progress(progress: float, _total: float | None, _message: str | None) -> None:
        seen.append(progress)
        gate.gate.set()

    async def use(client: Client) -> Any:
        return await client.call_tool(HOLD, {}, progress_callback=on_progress)

    result = with_client(site, use, mode)
    assert result.structured_content["w1"]["result"] == "done"
    assert seen


async def reply_to(body: bytes, messages: list[Message], is_late: asyncio.Event) -> list[Message]:
    """Return what is sent of an application's `messages`, which come once it `is_late`."""
    sent: list[Message] = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await is_late.wait()
        for message in messages:
            await send(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)
        if message.get("body") == COMMENT + b"\n":
            is_late.set()

    scope = {"type": "http", "headers": [(b"accept", b"application/json, Text/Event-Stream;q=0.5")]}
    await asyncio.wait_for(ReplyStreams(app, Pace(0.0, 60.0, 60.0))(scope, receive, send), WAIT_SECONDS)
    return sent


def test_stream_of_the_application_is_relayed_and_a_notification_gets_none() -> None:
    """A late stream goes on with the application's events; what has no reply is no stream, however long it takes."""
    start = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
    events = {"type": "http.response.body", "body": b"data: 1\n\n", "more_body": False}
    accepted = [{"type": "http.response.start", "status": 202}, {"type": "http.response.body", "body": b""}]

    async def run() -> None:
        is_late = asyncio.Event()
        notified = asyncio.create_task(reply_to(b'{"method": "x"}', accepted, is_late))
        begun, comment, last = await reply_to(b'{"id": 1, "method": "x"}', [start, events], is_late)
        assert (begun["status"], comment["more_body"], last) == (200, True, events)
        assert await notified == accepted

    asyncio.run(run())
