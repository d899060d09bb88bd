"""Questions of workers of other services, which the MCP client of the call answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from mcp import Client
from mcp_types import ElicitResult

from nfcli.models.protocol.frames import ClientMessage, Command
from support.fabric.hub import Frames, accepted, reply_frames, result
from support.mcp.asking_worker import LEGACY, MODERN, accept, answering, with_asked_client
from support.mcp.called_tools import PING
from support.mcp.served_worker import Serve
from support.mcp.tool_entries import entry

MODES = pytest.mark.parametrize("mode", [LEGACY, MODERN])
ARGUMENTS = {"target": "r1"}
ASKED = {"id": "q1", "question": "Commit?", "default": False, "timeout": 60, "metadata": {}}


class AskingScript:
    """A worker that asks and returns the data of the answer; `requests` are its questions, of which the first counts.

    `answers` are the PUTs so far.
    """

    def __init__(self, *requests: Any) -> None:
        self._requests = requests
        self.answers: list[dict[str, Any]] = []

    def __call__(self, name: str, message: ClientMessage) -> list[Frames]:
        """Answer a message of the client's."""
        if message.command == Command.PUT:
            self.answers.append(json.loads(message.data))
            return [reply_frames(message, "200", {name: result(self.answers[-1])})]
        if message.command != Command.POST:
            return []
        told = {"worker": name, "event_type": "progress", "message": "comparing", "severity": "ERROR"}
        events = [
            {"worker": name, "event_type": "input_request", "message": "?", "extras": {"input_request": request}}
            for request in self._requests
        ]
        return [
            accepted(name, message),
            *(reply_frames(message, "200", event, Command.EVENT) for event in (told, *events)),
        ]


@pytest.fixture
def worker(served_worker: Serve, hub: Any, connect_fabric: Callable[..., Any]) -> Any:
    """Serve a worker on a fabric with the task `ping` of service `net`, whose workers a test chooses."""
    hub.workers = {}
    worker = served_worker(fabric=connect_fabric(), auth_bearer={"issuer_url": None}, tools={"timeout": 20})
    worker.worker.catalogue.replace("net", [entry(outputSchema={"type": "object"})])
    return worker


def _ping(worker: Any, mode: str, answer: Any) -> dict[str, Any]:
    called = with_asked_client(worker, mode, answer, lambda client: client.call_tool(PING, ARGUMENTS))
    assert called.structured_content is not None, called.content
    return dict(called.structured_content)


def _answer(value: Any, *, cancel: bool = False) -> dict[str, Any]:
    return {"input_id": "q1", "value": value, "cancel": cancel, "metadata": {}}


@MODES
def test_answers_go_to_the_worker_that_asked(worker: Any, hub: Any, mode: str) -> None:
    """In the shape of NFP, one after another."""
    hub.workers = {name: ("net", AskingScript({**ASKED, "metadata": {"preview": name}})) for name in ("n1", "n2")}
    answers = {"n1": True, "n2": False}
    asked: list[str] = []

    async def answer(params: Any) -> ElicitResult:
        asked.append(params.message)
        return accept(answers[params.message.partition("\n")[0]])

    found = _ping(worker, mode, answer)
    assert {name: each["result"] for name, each in found.items()} == {"n1": _answer(True), "n2": _answer(False)}
    assert sorted(asked) == ["n1\n\nn1: Commit?", "n2\n\nn2: Commit?"]


@MODES
@pytest.mark.parametrize(
    ("default", "case"),
    [
        (True, (ElicitResult(action="decline"), _answer(False))),
        (5, (ElicitResult(action="decline"), _answer(None, cancel=True))),
        ("a", (ElicitResult(action="cancel"), _answer(None, cancel=True))),
        (5, (accept(7), _answer(7))),
    ],
)
def test_no_is_said_as_the_worker_expects_it(worker: Any, hub: Any, mode: str, default: Any, case: Any) -> None:
    """For yes or no that is false; other questions are declined."""
    hub.workers = {"n1": ("net", AskingScript({**ASKED, "default": default}))}
    given, put = case
    answer, _ = answering(given)
    assert _ping(worker, mode, answer)["n1"]["result"] == put


@MODES
def test_a_client_that_cannot_be_asked_ends_the_question_at_once(worker: Any, hub: Any, mode: str) -> None:
    """The worker hears that nobody answers, and the reason stands in its result."""
    hub.workers = {"n1": ("net", AskingScript(ASKED))}
    found = _ping(worker, mode, None)["n1"]
    assert found["result"] == _answer(None, cancel=True)
    assert "this MCP client can't be asked" in found["errors"][-1]


@MODES
def test_a_question_is_asked_once_and_others_that_are_not_valid_never(worker: Any, hub: Any, mode: str) -> None:
    """Fabrics have programs of all kinds."""
    wrong = [None, [], {}, {"id": ""}, {**ASKED, "id": "q2", "default": [1]}, {**ASKED, "id": "q3", "metadata": 1}]
    hub.workers = {"n1": ("net", AskingScript(*wrong, ASKED, ASKED))}
    answer, asked = answering(accept(True))
    assert _ping(worker, mode, answer)["n1"]["result"] == _answer(True)
    assert len(asked) == 1


@MODES
def test_events_are_progress_notifications(worker: Any, hub: Any, mode: str) -> None:
    """With the worker's name and the severity."""
    hub.workers = {"n1": ("net", AskingScript(ASKED))}
    told: list[str | None] = []

    async def note(_progress: float, _total: float | None, message: str | None) -> None:
        told.append(message)

    async def use(client: Client) -> Any:
        return await client.call_tool(PING, ARGUMENTS, progress_callback=note)

    answer, _ = answering(accept(True))
    with_asked_client(worker, mode, answer, use)
    assert "ERROR: n1: comparing" in told
