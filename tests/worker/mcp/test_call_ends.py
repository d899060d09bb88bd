"""Calls of tools whose client has gone or has cancelled them, and what one token's calls can't hold up."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from queue import SimpleQueue
from types import ModuleType
from typing import Any

import pytest
from pydantic import model_validator

from nfcli.models.tasks.base import TaskInput
from nfcli.worker.jobs.context import WorkerContext
from nfcli.worker.jobs.task import task
from nfcli.worker.mcp.call_places import TASK_PLACES, TASK_PLACES_PER_TOKEN, WAITING_PER_TOKEN
from support.mcp.called_tools import PING, Fabric, Serve, in_both_eras
from support.mcp.change_streams import NO_METADATA
from support.mcp.served_worker import TOKEN, WAIT_SECONDS, read_response
from support.mcp.tool_entries import entry
from support.tokens.token_store import store_token

OWN = "service_fastmcp__task_"
MANY_CALLS = 45
CANCELLED = {"code": -32800, "message": "Request cancelled"}


class Tools:
    """Two tools: `hold` waits for the gate, whoever has gone; `heed` waits until it is cancelled."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.begun: SimpleQueue[str] = SimpleQueue()
        self.ended: SimpleQueue[bool] = SimpleQueue()

    def module(self) -> ModuleType:
        """Return a module of these tasks, one that returns at once, and one whose arguments are checked at the gate."""

        class SlowlyChecked(TaskInput):
            @model_validator(mode="before")
            @classmethod
            def _wait(cls, value: object) -> object:
                self.begun.put("check")
                self.gate.wait(3 * WAIT_SECONDS)
                return value

        def slowly_checked(_worker: WorkerContext, _arguments: SlowlyChecked) -> bool:
            return True

        def hold(_worker: WorkerContext, _arguments: TaskInput) -> bool:
            self.begun.put("hold")
            return self.gate.wait(3 * WAIT_SECONDS)

        def heed(worker: WorkerContext, _arguments: TaskInput) -> bool:
            self.begun.put("heed")
            self.ended.put(worker.cancelled.wait(WAIT_SECONDS))
            return True

        def quick(worker: WorkerContext, _arguments: TaskInput) -> bool:
            return worker.cancelled.is_set()

        tasks = ModuleType("tasks")
        vars(tasks).update({each.__name__: task(result=bool)(each) for each in (hold, heed, quick)})
        vars(tasks).update(slowly_checked=task(arguments=SlowlyChecked, result=bool)(slowly_checked))
        return tasks


@pytest.fixture
def tools() -> Iterator[Tools]:
    """Return the tools, and let them end in the end."""
    tools = Tools()
    yield tools
    tools.gate.set()


@pytest.fixture
def site(served_worker: Serve, tools: Tools) -> Any:
    """Serve these tools and one of another service, to two tokens."""
    worker = served_worker(tools.module(), fabric=Fabric(), auth_bearer=NO_METADATA)
    worker.worker.catalogue.replace("net", [entry()])
    store_token(worker.store, "other", "t", None)
    return worker


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    """Close connections in the end."""
    with ExitStack() as opened:
        yield opened


def begin(site: Any, opened: ExitStack, name: str, **request: Any) -> socket.socket:
    """Send a call over a new connection."""
    connection: socket.socket = opened.enter_context(site.connect())
    arguments = {"target": "r1"} if name == PING else {}
    connection.sendall(site.request("tools/call", {"name": name, "arguments": arguments}, **request))
    return connection


def wait_begun(tools: Tools, count: int) -> None:
    """Wait until so many more calls have begun."""
    for _ in range(count):
        tools.begun.get(timeout=WAIT_SECONDS)


def cancel(site: Any, request_id: object, era: str, token: str = TOKEN) -> int:
    """Send `notifications/cancelled`; return the status of the response."""
    message = site.request("notifications/cancelled", {"requestId": request_id}, era=era, token=token, request_id=None)
    status: int = site.send(message)[0]
    return status


def quick(site: Any, token: str) -> Any:
    """Call a tool that returns at once; return its result."""
    _, _, body = site.post("tools/call", {"name": f"{OWN}quick", "arguments": {}}, token=token)
    return body["result"]["structuredContent"]["w1"]["result"]


@in_both_eras
def test_a_task_learns_that_its_client_has_gone(site: Any, tools: Tools, opened: ExitStack, era: str) -> None:
    """A call of an event nobody waits for could go on for hours."""
    connection = begin(site, opened, f"{OWN}heed", era=era)
    wait_begun(tools, 1)
    connection.close()
    assert tools.ended.get(timeout=WAIT_SECONDS) is True


def test_a_task_learns_that_its_client_has_gone_with_other_requests_waiting(
    site: Any, tools: Tools, opened: ExitStack
) -> None:
    """They were sent behind it over the same connection."""
    connection = begin(site, opened, f"{OWN}heed")
    wait_begun(tools, 1)
    connection.sendall(site.request() * 2)
    connection.close()
    assert tools.ended.get(timeout=WAIT_SECONDS) is True


@in_both_eras
def test_a_task_learns_that_its_client_has_cancelled_it(site: Any, tools: Tools, opened: ExitStack, era: str) -> None:
    """The call has an error of its own."""
    connection = begin(site, opened, f"{OWN}heed", era=era, request_id="call-7")
    wait_begun(tools, 1)
    assert cancel(site, "call-7", era) == 202
    assert tools.ended.get(timeout=WAIT_SECONDS) is True
    _, _, body = read_response(connection)
    assert json.loads(body)["error"] == CANCELLED


@in_both_eras
def test_a_job_of_another_service_is_abandoned_when_it_is_cancelled(site: Any, opened: ExitStack, era: str) -> None:
    """There is no message to its workers that would say so."""
    fabric = site.fabric
    fabric.hold = True
    connection = begin(site, opened, PING, era=era, request_id=3)
    assert fabric.has_begun.acquire(timeout=WAIT_SECONDS)
    assert cancel(site, 3, era) == 202
    assert fabric.was_cancelled.wait(WAIT_SECONDS)
    assert json.loads(read_response(connection)[2])["error"] == CANCELLED


@in_both_eras
def test_nobody_cancels_calls_of_others(site: Any, tools: Tools, opened: ExitStack, era: str) -> None:
    """Another token doesn't, nor another id or type of it; two calls of one token and id can't be told apart."""
    first = begin(site, opened, f"{OWN}hold", era=era, request_id=1)
    wait_begun(tools, 1)
    for request_id, token in ((1, "t"), (2, TOKEN), ("1", TOKEN), (True, TOKEN), (None, TOKEN), ({}, TOKEN)):
        cancel(site, request_id, era, token)
    second = begin(site, opened, f"{OWN}hold", era=era, request_id=1)
    wait_begun(tools, 1)
    cancel(site, 1, era)
    assert quick(site, TOKEN) is False
    tools.gate.set()
    for connection in (first, second):
        assert "result" in json.loads(read_response(connection)[2])


def test_calls_whose_client_has_gone_hold_no_place(site: Any, tools: Tools, opened: ExitStack) -> None:
    """Although their tasks ignore it."""
    held = [begin(site, opened, f"{OWN}hold") for _ in range(TASK_PLACES_PER_TOKEN)]
    wait_begun(tools, len(held))
    for connection in held:
        connection.close()
    assert quick(site, TOKEN) is False
    assert not tools.gate.is_set()


def test_a_call_that_has_not_begun_does_not_begin_when_its_client_has_gone(
    site: Any, tools: Tools, opened: ExitStack
) -> None:
    """It leaves the queue."""
    for _ in range(TASK_PLACES_PER_TOKEN):
        begin(site, opened, f"{OWN}hold")
    wait_begun(tools, TASK_PLACES_PER_TOKEN)
    waiting = begin(site, opened, f"{OWN}heed", request_id=5)
    gone = begin(site, opened, f"{OWN}heed")
    while cancel(site, 5, "2025-11-25") == 202 and not select_readable(waiting):
        pass
    gone.close()
    assert quick(site, "t") is False
    tools.gate.set()
    assert quick(site, TOKEN) is False
    assert tools.begun.empty()


def select_readable(connection: socket.socket) -> bool:
    """Whether a response has arrived, within a moment."""
    connection.settimeout(0.05)
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except TimeoutError:
        return False


def test_checks_of_one_token_do_not_hold_up_the_calls_of_another(
    served_worker: Serve, tools: Tools, opened: ExitStack
) -> None:
    """Each check of arguments or results may take a second of processor time: they are made one after the other."""
    rule = {"service": "*", "task": "*", "field": "text", "type": "equals", "match": "no"}
    site = served_worker(tools.module(), tools={"guardrails": [rule]}, fabric=Fabric(), auth_bearer=NO_METADATA)
    store_token(site.store, "other", "t", None)
    for _ in range(MANY_CALLS):
        begin(site, opened, f"{OWN}slowly_checked")
    wait_begun(tools, 1)
    assert quick(site, "t") is False
    assert tools.begun.empty()


def test_one_token_does_not_hold_up_the_calls_of_another(site: Any, tools: Tools, opened: ExitStack) -> None:
    """Whatever number it has, and beyond a number that wait it is refused."""
    for _ in range(TASK_PLACES_PER_TOKEN + WAITING_PER_TOKEN):
        begin(site, opened, f"{OWN}hold")
    wait_begun(tools, TASK_PLACES_PER_TOKEN)
    assert quick(site, "t") is False
    _, _, body = site.post("tools/call", {"name": f"{OWN}quick", "arguments": {}})
    assert body["result"]["isError"] is True
    (text,) = (part["text"] for part in body["result"]["content"])
    assert text == f"{WAITING_PER_TOKEN} calls of this token are waiting: try again when some have ended"
    assert TASK_PLACES_PER_TOKEN < TASK_PLACES
