"""What else can happen to a question over MCP: wrong answers, other clients, revoked tokens, clients that have gone."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Self

import pytest

from nfcli.worker.mcp.questions.sessions import ClientSessions
from nfcli.worker.mcp.questions.tool_channel import GONE
from support.mcp.asking_worker import CHANGE, TWICE, AskingTasks
from support.mcp.served_worker import HANDSHAKE_ERA, SINGLE_POST_ERA, TOKEN, Serve
from support.tokens.token_store import store_token

ANSWER = {"action": "accept", "content": {"answer": True}}
FORMS = {"_meta": {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}}}}
WRONG_ANSWERS = [
    {},
    {"action": "agree"},
    {"action": "accept"},
    {"action": "accept", "content": {}},
    {"action": "accept", "content": {"answer": "yes"}},
    {"action": "accept", "content": {"answer": None}},
    {"action": "accept", "content": {"other": True}},
]


@pytest.fixture
def tasks() -> AskingTasks:
    """Return tasks that ask."""
    return AskingTasks()


@pytest.fixture
def worker(served_worker: Serve, tasks: AskingTasks) -> Any:
    """Serve a worker with these tasks, which a second user has a token of."""
    worker = served_worker(tasks.module, auth_bearer={"issuer_url": None, "max_wrong_tokens_per_minute": 0})
    store_token(worker.store, "eve", "eves-token", None)
    return worker


class Talk:
    """A client of the 2025 era that declares elicitation, message by message."""

    def __init__(self, worker: Any, token: str = TOKEN, *, version: str = HANDSHAKE_ERA, **capability: Any) -> None:
        self._worker, self.token = worker, token
        params = {
            "protocolVersion": version,
            "clientInfo": {"name": "test", "version": "1"},
            "capabilities": {"elicitation": {}, **capability},
        }
        status, headers, _ = worker.post("initialize", params, token=token)
        assert status == 200
        self.session = headers.get("mcp-session-id", "")

    def call(self, tool: str = CHANGE, **arguments: Any) -> OpenCall:
        """Call a tool that asks; return its stream."""
        params = {"name": tool, "arguments": arguments}
        request = self._worker.request(
            "tools/call", params, token=self.token, headers=(("mcp-session-id", self.session),)
        )
        return OpenCall(self._worker, request)

    def respond(self, question: dict[str, Any], *, token: str = "", **response: Any) -> int:
        """Send a JSON-RPC response to a question, by default to accept it; return the HTTP status."""
        message = {"jsonrpc": "2.0", "id": question["id"], **(response or {"result": ANSWER})}
        body = json.dumps(message).encode()
        head = self._worker.request(
            "x", token=token or self.token, headers=(("mcp-session-id", self.session),)
        ).partition(b"\r\ncontent-length")[0]
        status, _, _ = self._worker.send(head + b"\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        return int(status)


class OpenCall:
    """The stream of a call."""

    def __init__(self, worker: Any, request: bytes) -> None:
        self._connection = worker.connect()
        self._connection.sendall(request)
        self._response = http.client.HTTPResponse(self._connection, method="POST")
        self._response.begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    def next(self) -> dict[str, Any]:
        """Return the next message."""
        while line := self._response.readline():
            if line.startswith(b"data: "):
                return dict(json.loads(line.removeprefix(b"data: ")))
        raise AssertionError("the stream has ended")

    def result(self) -> dict[str, Any]:
        """Return the result of the worker, which must be what comes next."""
        return dict(self.next()["result"]["structuredContent"]["w1"])

    def cut(self) -> None:
        """Disconnect."""
        self._response.close()
        self._connection.close()


@pytest.fixture
def call(worker: Any) -> Iterator[Callable[..., tuple[Talk, OpenCall, dict[str, Any]]]]:
    """Make calls that ask; return client, stream and question."""
    with ExitStack() as calls:

        def make(**arguments: Any) -> tuple[Talk, OpenCall, dict[str, Any]]:
            talk = Talk(worker)
            opened = calls.enter_context(talk.call(**arguments))
            question = opened.next()
            assert question["method"] == "elicitation/create"
            return talk, opened, question

        yield make


Ask = Callable[..., tuple[Talk, OpenCall, dict[str, Any]]]


def test_only_clients_with_elicitation_get_a_session(worker: Any) -> None:
    """Others are served without, as before; the id is bound to the token."""
    session = Talk(worker).session
    assert session.startswith("form-")
    assert Talk(worker, elicitation={"form": {}}).session.startswith("form-")
    assert Talk(worker, elicitation={"url": {}}).session == ""
    assert Talk(worker, elicitation=None).session == ""
    assert Talk(worker, version="2025-03-26").session == ""
    sessions = ClientSessions(b"k" * 32)
    made = sessions.new_id("t")
    assert sessions.is_valid(made, "t")
    wrong = [(made, "u"), (made[:-1], "t"), (made + "0", "t"), ("", "t"), ("form-", "t"), (made.upper(), "t")]
    assert [sessions.is_valid(*each) for each in wrong] == [False] * len(wrong)
    assert not ClientSessions(b"l" * 32).is_valid(made, "t")


def test_a_client_with_the_session_of_another_token_is_not_asked(worker: Any, tasks: AskingTasks) -> None:
    """Nor is one that made an id up; its other calls are served."""
    talk = Talk(worker, "eves-token")
    talk.session = Talk(worker).session
    status, _, body = worker.post(
        "tools/call", {"name": CHANGE}, token="eves-token", headers=(("mcp-session-id", talk.session),)
    )
    assert (status, body["result"]["isError"]) == (200, True)
    assert "can't be asked" in str(tasks.end())


def test_an_answer_is_taken_once(call: Ask, tasks: AskingTasks) -> None:
    """By whoever has the token and the question's id; a second one is ignored."""
    talk, stream, question = call()
    assert talk.respond(question) == 202
    assert talk.respond(question, result={"action": "decline"}) in {202, 400}
    assert (stream.result()["result"], tasks.end()) == (True, True)


def test_the_answer_of_another_token_is_ignored(call: Ask, tasks: AskingTasks) -> None:
    """Though it has the question's id."""
    talk, stream, question = call()
    talk.respond(question, token="eves-token")
    talk.respond({"id": "of-no-question"})
    assert tasks.ends.empty()
    assert talk.respond(question, result={"action": "decline"}) == 202
    assert stream.result()["result"] is False


@pytest.mark.parametrize("result", WRONG_ANSWERS)
def test_a_wrong_response_ends_the_question_with_the_reason(call: Ask, tasks: AskingTasks, result: Any) -> None:
    """A client responds once; the task gets no answer, and above all no yes."""
    talk, stream, question = call()
    assert talk.respond(question, result=result) == 202
    assert stream.result()["failed"] is True
    assert str(tasks.end()).startswith("the client's answer was refused: the")


def test_a_client_that_refuses_ends_the_question(call: Ask, tasks: AskingTasks) -> None:
    """With a JSON-RPC error."""
    talk, stream, question = call()
    assert talk.respond(question, error={"code": -32600, "message": "no"}) == 202
    assert stream.result()["errors"] == [tasks.end()] == ["the client has refused to ask its user"]


def test_a_question_that_ran_out_is_withdrawn(call: Ask, tasks: AskingTasks) -> None:
    """So that the client closes its form; an answer then is ignored."""
    talk, stream, question = call(timeout=1)
    withdrawn = stream.next()
    assert (withdrawn["method"], withdrawn["params"]["requestId"]) == ("notifications/cancelled", question["id"])
    talk.respond(question)
    assert (stream.result()["result"], tasks.end()) == (False, False)


@pytest.mark.parametrize("era", [HANDSHAKE_ERA, SINGLE_POST_ERA])
def test_a_revoked_token_ends_the_question_at_once(worker: Any, tasks: AskingTasks, era: str) -> None:
    """The task gets the reason, and sees that nobody wants its result."""
    with ExitStack() as opened:
        if era == HANDSHAKE_ERA:
            opened.enter_context(Talk(worker).call()).next()
        else:
            _first_round(worker)
        worker.store.delete(token=TOKEN, before_commit=None)
        assert tasks.end() == GONE
        assert tasks.contexts.get_nowait().cancelled.is_set()


def test_a_client_that_disconnects_ends_the_question(call: Ask, tasks: AskingTasks) -> None:
    """Its task isn't kept waiting."""
    _, stream, _ = call()
    stream.cut()
    assert tasks.end() == GONE


@pytest.mark.parametrize("era", [HANDSHAKE_ERA, SINGLE_POST_ERA])
def test_a_stop_of_the_worker_ends_the_question(worker: Any, tasks: AskingTasks, era: str) -> None:
    """Before the time is over that active requests have."""
    with ExitStack() as opened:
        if era == HANDSHAKE_ERA:
            opened.enter_context(Talk(worker).call()).next()
        else:
            _first_round(worker)
        worker.stop()
        assert tasks.end() == "the worker is stopping"


def _first_round(worker: Any, tool: str = CHANGE, **arguments: Any) -> str:
    """Call a tool that asks, in the 2026 era; return the state of the call."""
    status, _, body = worker.post("tools/call", {"name": tool, "arguments": arguments, **FORMS}, era=SINGLE_POST_ERA)
    result = body["result"]
    assert (status, result["resultType"]) == (200, "input_required")
    [question] = result["inputRequests"].values()
    assert (question["method"], question["params"]["message"]) == ("elicitation/create", "Commit?")
    return str(result["requestState"])


def _next_round(
    worker: Any, state: str, answer: Any = ANSWER, *, tool: str = CHANGE, token: str = TOKEN, **arguments: Any
) -> Any:
    """Call the tool again with an answer; return the JSON-RPC message."""
    params = {"name": tool, "arguments": arguments, "requestState": state, **FORMS}
    if answer is not None:
        params["inputResponses"] = {"question": answer}
    return worker.post("tools/call", params, era=SINGLE_POST_ERA, token=token)[2]


def _value(message: Any) -> Any:
    return message["result"]["structuredContent"]["w1"]["result"]


def test_a_state_is_valid_once(worker: Any) -> None:
    """The first answer counts."""
    state = _first_round(worker)
    assert _value(_next_round(worker, state)) is True
    assert _next_round(worker, state)["error"]["code"] == -32602


def test_a_state_is_bound_to_token_tool_and_arguments(worker: Any) -> None:
    """What doesn't fit changes nothing: the right answer counts after it."""
    state = _first_round(worker, timeout=30)
    wrong: list[dict[str, Any]] = [
        {"token": "eves-token", "timeout": 30},
        {"tool": TWICE, "timeout": 30},
        {"timeout": 31},
        {},
    ]
    for each in wrong:
        assert _next_round(worker, state, **each)["error"]["code"] == -32602
    assert _next_round(worker, state[:-1], timeout=30)["error"]["code"] == -32602
    assert _value(_next_round(worker, state, timeout=30)) is True


@pytest.mark.parametrize("answer", [*WRONG_ANSWERS[2:], {"roots": []}])
def test_a_wrong_answer_leaves_the_call_waiting(worker: Any, answer: Any) -> None:
    """The client gets the reason, and can answer again."""
    state = _first_round(worker)
    error = _next_round(worker, state, answer)["error"]
    assert (error["code"], error["message"].startswith("inputResponses.question: the ")) == (-32602, True)
    assert _value(_next_round(worker, state)) is True


def test_a_client_that_comes_late_gets_what_the_task_has_done(worker: Any, tasks: AskingTasks) -> None:
    """Without its answer."""
    state = _first_round(worker, timeout=1)
    assert tasks.end() is False
    assert _value(_next_round(worker, state, timeout=1)) is False


def test_calls_that_nobody_comes_back_for_are_bounded(worker: Any, tasks: AskingTasks) -> None:
    """Five of a token are kept; of those that have ended the oldest goes."""
    states = []
    for _ in range(6):
        states.append(_first_round(worker, timeout=1))
        assert tasks.end() is False
    assert _next_round(worker, states[0], timeout=1)["error"]["code"] == -32602
    assert [_value(_next_round(worker, state, timeout=1)) for state in states[1:]] == [False] * 5
