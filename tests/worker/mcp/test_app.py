"""The MCP server behind a real uvicorn: who is let in, how others are refused, and what tools there are."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from nfcli.models.tasks.base import TaskInput
from nfcli.worker.jobs.context import WorkerContext
from nfcli.worker.jobs.task import ToolHints, task
from nfcli.worker.tokens.store import TokenStore
from support.mcp.served_worker import HANDSHAKE_ERA, SINGLE_POST_ERA, TOKEN, WAIT_SECONDS, ServedWorker

ERAS = [HANDSHAKE_ERA, SINGLE_POST_ERA]
TOOLS = ["get_inventory", "get_status", "get_tools", "get_version"]
NO_METADATA = {"issuer_url": None, "resource_server_url": None}

Serve = Callable[..., Any]

in_both_eras = pytest.mark.parametrize("era", ERAS)


@pytest.fixture(scope="module")
def plain_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Serve one worker, which publishes no metadata, for all tests that change nothing; it counts no wrong tokens."""
    bearer = {**NO_METADATA, "max_wrong_tokens_per_minute": 0}
    with ServedWorker(tmp_path_factory.mktemp("plain") / "tokens", auth_bearer=bearer) as worker:
        yield worker


def refused(answer: tuple[int, dict[str, str], Any]) -> tuple[int, str | None, str]:
    """Return status, challenge and reason of a refusal."""
    status, headers, body = answer
    return status, headers.get("www-authenticate"), body["error"]["message"]


def make_invalid(worker: Any, reason: str) -> str:
    """Return a token that was never stored, has expired or was deleted."""
    if reason == "expired":
        worker.store.store("automation", "t", 60)
        assert worker.post(token="t")[0] == 200
        worker.now += 60
    elif reason == "deleted":
        worker.store.store("automation", "t", None)
        assert worker.post(token="t")[0] == 200
        worker.store.delete(token="t")
    return "t"


@in_both_eras
def test_request_without_token_is_challenged_without_an_error_code(plain_worker: Any, era: str) -> None:
    """RFC 6750 section 3: who sent nothing did nothing wrong."""
    assert refused(plain_worker.post(era=era, token=None)) == (401, "Bearer", "a bearer token is needed")


@in_both_eras
@pytest.mark.parametrize("reason", ["wrong", "expired", "deleted"])
def test_invalid_token_is_refused_as_such(served_worker: Serve, era: str, reason: str) -> None:
    """The three can't be told apart from outside."""
    worker = served_worker(auth_bearer=NO_METADATA)
    token = make_invalid(worker, reason)
    expected = (401, 'Bearer error="invalid_token"', "the token is unknown, expired or deleted")
    assert refused(worker.post(era=era, token=token)) == expected


@in_both_eras
def test_right_token_is_served(plain_worker: Any, era: str) -> None:
    """The four tools are listed, those that manage tokens aren't."""
    status, headers, body = plain_worker.post(era=era)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert [tool["name"] for tool in body["result"]["tools"]] == [f"service_fastmcp__task_{name}" for name in TOOLS]


@in_both_eras
def test_token_without_a_required_scope_is_forbidden_with_the_scopes_named(served_worker: Serve, era: str) -> None:
    """A client that could get a better token learns which."""
    bearer = {**NO_METADATA, "required_scopes": ["read", "write"], "token_scopes": ["read"]}
    worker = served_worker(auth_bearer=bearer)
    expected = (403, 'Bearer error="insufficient_scope", scope="read write"', "the token lacks a scope")
    assert refused(worker.post(era=era)) == expected


@in_both_eras
def test_tokens_carry_the_required_scopes_unless_told_otherwise(served_worker: Serve, era: str) -> None:
    """`token_scopes` defaults to `required_scopes`."""
    assert served_worker(auth_bearer={"required_scopes": ["read"]}).post(era=era)[0] == 200


@in_both_eras
def test_expiry_counts_to_the_moment(served_worker: Serve, era: str) -> None:
    """The SDK alone would serve a token up to a second too long."""
    worker = served_worker()
    worker.store.store("automation", "t", 60)
    worker.now += 59.999
    assert worker.post(era=era, token="t")[0] == 200
    worker.now += 0.001
    assert worker.post(era=era, token="t")[0] == 401


@in_both_eras
@pytest.mark.parametrize("header", [f"bearer {TOKEN}", f"BEARER {TOKEN}", f"Bearer   {TOKEN} "])
def test_scheme_is_read_as_http_reads_it(plain_worker: Any, era: str, header: str) -> None:
    """RFC 9110: the scheme's letter case doesn't matter."""
    assert plain_worker.post(era=era, headers=(("authorization", header),))[0] == 200


@in_both_eras
@pytest.mark.parametrize(
    ("header", "challenge"),
    [
        (f"Basic {TOKEN}", "Bearer"),
        (TOKEN, "Bearer"),
        ("Bearer", 'Bearer error="invalid_token"'),
        (f"Bearer {TOKEN} x", 'Bearer error="invalid_token"'),
        (f"Bearer {TOKEN}, {TOKEN}", 'Bearer error="invalid_token"'),
        ("Bearer \xff\xfe", 'Bearer error="invalid_token"'),
    ],
)
def test_other_credentials_are_refused(plain_worker: Any, era: str, header: str, challenge: str) -> None:
    """Another scheme counts as no token; anything after `Bearer` is one."""
    answer = refused(plain_worker.post(era=era, headers=(("authorization", header),)))
    assert answer[:2] == (401, challenge)


@in_both_eras
def test_metadata_is_published_and_named_in_every_challenge(served_worker: Serve, era: str) -> None:
    """Where the inventory says nothing of URLs, the worker's own stand for both."""
    worker = served_worker(auth_bearer={"required_scopes": ["read"], "token_scopes": []})
    base = worker.url.removesuffix("/mcp")
    hint = f'resource_metadata="{base}/.well-known/oauth-protected-resource"'
    assert refused(worker.post(era=era, token=None))[1] == f"Bearer {hint}"
    assert refused(worker.post(era=era, token="x"))[1] == f'Bearer error="invalid_token", {hint}'
    assert refused(worker.post(era=era))[1] == f'Bearer error="insufficient_scope", scope="read", {hint}'
    status, headers, body = worker.get("/.well-known/oauth-protected-resource")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body) == {
        "resource": base,
        "authorization_servers": [base],
        "scopes_supported": ["read"],
        "bearer_methods_supported": ["header"],
    }


def test_metadata_of_a_resource_with_a_path_lies_where_rfc_9728_says(served_worker: Serve) -> None:
    """The well-known part comes between host and path."""
    urls = {"issuer_url": "https://login.example.com", "resource_server_url": "https://mcp.example.com/team/mcp"}
    worker = served_worker(auth_bearer=urls)
    place = "/.well-known/oauth-protected-resource/team/mcp"
    assert refused(worker.post(token=None))[1] == f'Bearer resource_metadata="https://mcp.example.com{place}"'
    assert json.loads(worker.get(place)[2]) == {
        "resource": "https://mcp.example.com/team/mcp",
        "authorization_servers": ["https://login.example.com"],
        "bearer_methods_supported": ["header"],
    }
    assert worker.get("/.well-known/oauth-protected-resource")[0] == 404


@pytest.mark.parametrize("missing", ["issuer_url", "resource_server_url"])
def test_explicit_null_of_either_url_publishes_nothing(served_worker: Serve, missing: str) -> None:
    """Some clients go off to OAuth at the slightest hint of it."""
    worker = served_worker(auth_bearer={missing: None})
    assert refused(worker.post(token=None))[1] == "Bearer"
    assert worker.get("/.well-known/oauth-protected-resource")[0] == 404


@in_both_eras
def test_without_authentication_everybody_is_served(served_worker: Serve, era: str) -> None:
    """Off by default, and then nothing of tokens is said; a token that is sent all the same isn't looked at."""
    worker = served_worker(authentication_enabled=False)
    assert worker.post(era=era, token=None)[0] == 200
    assert worker.post(era=era, token="unknown")[0] == 200
    assert worker.get("/.well-known/oauth-protected-resource")[0] == 404


@in_both_eras
def test_store_that_is_down_is_503_and_not_a_refusal(
    served_worker: Serve, era: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that is told 401 throws a good token away."""

    def broken(_store: TokenStore, _token: str) -> None:
        raise OSError("disk gone, token secret-token")

    monkeypatch.setattr(TokenStore, "lookup", broken)
    worker = served_worker()
    assert refused(worker.post(era=era)) == (503, None, "tokens can't be checked at the moment: try again later")
    assert worker.get("/health")[0] == 200


@in_both_eras
def test_tool_gives_what_the_task_gave_by_worker(plain_worker: Any, era: str) -> None:
    """Structured content and the same as JSON text."""
    params = {"name": "service_fastmcp__task_get_tools", "arguments": {"brief": True}}
    result = plain_worker.post("tools/call", params, era=era)[2]["result"]
    assert result["isError"] is False
    assert [json.loads(part["text"]) for part in result["content"]] == [result["structuredContent"]]
    given = result["structuredContent"]["w1"]
    assert given["result"] == [f"service_fastmcp__task_{name}" for name in TOOLS]
    assert (given["failed"], given["errors"], given["task"]) == (False, [], "w1:get_tools")


@in_both_eras
def test_bad_arguments_are_told_in_one_sentence_a_field(plain_worker: Any, era: str) -> None:
    """They are an error of the tool, which a model can read and mend, and not of the protocol."""
    params = {"name": "service_fastmcp__task_get_tools", "arguments": {"brief": "perhaps", "nmae": "x"}}
    result = plain_worker.post("tools/call", params, era=era)[2]["result"]
    assert result["isError"] is True
    given = result["structuredContent"]["w1"]
    assert given["errors"] == ["brief: must be true or false", "nmae: no such field"]
    assert (given["result"], given["failed"]) == (None, True)


@in_both_eras
@pytest.mark.parametrize(
    "name",
    [
        *(f"service_fastmcp__task_bearer_token_{verb}" for verb in ("store", "list", "delete", "check")),
        "service_fastmcp__task_echo",
        "get_status",
    ],
)
def test_tasks_that_are_no_tools_cannot_be_called(plain_worker: Any, era: str, name: str) -> None:
    """Credentials can't be managed through the endpoint that they guard."""
    params = {"name": name, "arguments": {"username": "automation", "token": "new"}}
    error = plain_worker.post("tools/call", params, era=era)[2]["error"]
    assert error == {"code": -32602, "message": f"unknown tool {name!r}: tools/list names those there are"}
    assert [record.token for record in plain_worker.store.records()] == [TOKEN]


@in_both_eras
def test_tools_are_marked_as_harmless(plain_worker: Any, era: str) -> None:
    """Clients let a model call them without asking."""
    tools = plain_worker.post(era=era)[2]["result"]["tools"]
    assert [tool["annotations"] for tool in tools] == [
        {
            "title": title,
            "readOnlyHint": True,
            "destructiveHint": False,
            "idempotentHint": True,
            "openWorldHint": False,
        }
        for title in ("Get Inventory", "Get Status", "Get MCP Tools", "Get Version")
    ]


def test_handshake_opens_no_session(plain_worker: Any) -> None:
    """There is no session to leak or to hijack."""
    params = {"protocolVersion": ERAS[0], "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    status, headers, body = plain_worker.post("initialize", params)
    assert status == 200
    assert "mcp-session-id" not in headers
    assert body["result"]["protocolVersion"] == ERAS[0]
    assert body["result"]["serverInfo"]["name"] == "w1"
    assert body["result"]["capabilities"] == {"tools": {"listChanged": False}}


def test_nobody_can_listen_to_changes(plain_worker: Any) -> None:
    """A stream would outlive its token."""
    params = {"notifications": {"toolsListChanged": True}}
    status, headers, body = plain_worker.post("subscriptions/listen", params, era=ERAS[1])
    assert (status, headers["content-type"], body["error"]["code"]) == (404, "application/json", -32601)


@in_both_eras
def test_running_call_ends_with_its_token_and_others_go_on(served_worker: Serve, era: str) -> None:
    """What began with a good token isn't carried on with a deleted one."""
    has_begun, may_end = threading.Semaphore(0), threading.Event()

    def hold(_worker: WorkerContext, _arguments: TaskInput) -> bool:
        """Wait."""
        has_begun.release()
        return may_end.wait(WAIT_SECONDS)

    tasks = ModuleType("tasks")
    vars(tasks).update(hold=task(result=bool, mcp=ToolHints("Hold"))(hold))
    worker = served_worker(tasks, auth_bearer=NO_METADATA)
    worker.store.store("other", "t", None)
    answers: dict[str, Any] = {}

    def call(token: str) -> None:
        params = {"name": "service_fastmcp__task_hold", "arguments": {}}
        answers[token] = worker.post("tools/call", params, era=era, token=token)

    callers = {token: threading.Thread(target=call, args=(token,)) for token in (TOKEN, "t")}
    for caller in callers.values():
        caller.start()
        assert has_begun.acquire(timeout=WAIT_SECONDS)
    worker.store.delete(username="other")
    callers["t"].join(WAIT_SECONDS)
    may_end.set()
    callers[TOKEN].join(WAIT_SECONDS)
    expected = (401, 'Bearer error="invalid_token"', "the token is unknown, expired or deleted")
    assert refused(answers["t"]) == expected
    assert answers[TOKEN][2]["result"]["structuredContent"]["w1"]["result"] is True


def test_requests_leave_no_line_in_the_log_but_calls_do(plain_worker: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The SDK would log each request; an operator wants to know who called what, and never a token."""
    assert plain_worker.post("ping")[0] == 200
    caplog.set_level(logging.INFO)
    plain_worker.post("ping")
    plain_worker.post(token="unknown-token")
    plain_worker.post("tools/call", {"name": "service_fastmcp__task_get_status", "arguments": {}})
    assert caplog.messages == ["MCP client 'automation' calls get_status"]
