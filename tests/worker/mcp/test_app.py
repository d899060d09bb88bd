"""The MCP application behind a real uvicorn: authentication, challenges, metadata, the worker's own tools."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from nfcli.models.tasks.base import TaskInput
from nfcli.worker.http.bearer import INVALID_CREDENTIALS
from nfcli.worker.jobs.context import WorkerContext
from nfcli.worker.jobs.task import ToolHints, task
from nfcli.worker.tokens.store import TokenStore
from support.mcp.served_worker import HANDSHAKE_ERA, SINGLE_POST_ERA, TOKEN, WAIT_SECONDS, ServedWorker
from support.own_tools import OWN_TOOLS
from support.tokens.token_store import delete_tokens, store_token

ERAS = [HANDSHAKE_ERA, SINGLE_POST_ERA]
NO_METADATA = {"issuer_url": None, "resource_server_url": None}

Serve = Callable[..., Any]

in_both_eras = pytest.mark.parametrize("era", ERAS)


@pytest.fixture(scope="module")
def plain_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Serve a worker shared by the tests that do not change it, without metadata and rate limit."""
    bearer = {**NO_METADATA, "max_wrong_tokens_per_minute": 0}
    with ServedWorker(tmp_path_factory.mktemp("plain") / "tokens", auth_bearer=bearer) as worker:
        yield worker


def rejection(answer: tuple[int, dict[str, str], Any]) -> tuple[int, str | None, str]:
    """Return status, challenge and error message of a response."""
    status, headers, body = answer
    return status, headers.get("www-authenticate"), body["error"]["message"]


def make_invalid(worker: Any, reason: str) -> str:
    """Return a token that was never stored, has expired or was deleted."""
    if reason == "expired":
        store_token(worker.store, "automation", "t", 60)
        assert worker.post(token="t")[0] == 200
        worker.now += 60
    elif reason == "deleted":
        store_token(worker.store, "automation", "t", None)
        assert worker.post(token="t")[0] == 200
        delete_tokens(worker.store, token="t")
    return "t"


@in_both_eras
def test_request_without_token_is_challenged_without_an_error_code(plain_worker: Any, era: str) -> None:
    """RFC 6750 section 3: no error code without credentials."""
    assert rejection(plain_worker.post(era=era, token=None)) == (
        401,
        "Bearer",
        "authentication required: send Bearer credentials",
    )


@in_both_eras
@pytest.mark.parametrize("reason", ["wrong", "expired", "deleted"])
def test_invalid_token_gets_401_invalid_token(served_worker: Serve, era: str, reason: str) -> None:
    """The three reasons cannot be distinguished by a client."""
    worker = served_worker(auth_bearer=NO_METADATA)
    token = make_invalid(worker, reason)
    expected = (401, 'Bearer error="invalid_token"', "the token is unknown, expired or deleted")
    assert rejection(worker.post(era=era, token=token)) == expected


@in_both_eras
def test_valid_token_is_served(plain_worker: Any, era: str) -> None:
    """The four tools are listed; tasks that manage tokens are not."""
    status, headers, body = plain_worker.post(era=era)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert [tool["name"] for tool in body["result"]["tools"]] == OWN_TOOLS


@in_both_eras
def test_token_without_a_required_scope_is_forbidden_with_the_scopes_named(served_worker: Serve, era: str) -> None:
    """A client learns which scopes to request."""
    bearer = {**NO_METADATA, "required_scopes": ["read", "write"], "token_scopes": ["read"]}
    worker = served_worker(auth_bearer=bearer)
    expected = (403, 'Bearer error="insufficient_scope", scope="read write"', "the token lacks a required scope")
    assert rejection(worker.post(era=era)) == expected


@in_both_eras
def test_tokens_have_the_required_scopes_by_default(served_worker: Serve, era: str) -> None:
    """`token_scopes` defaults to `required_scopes`."""
    assert served_worker(auth_bearer={"required_scopes": ["read"]}).post(era=era)[0] == 200


@in_both_eras
def test_expiry_is_exact(served_worker: Serve, era: str) -> None:
    """The SDK alone would accept a token up to a second too long."""
    worker = served_worker()
    store_token(worker.store, "automation", "t", 60)
    worker.now += 59.999
    assert worker.post(era=era, token="t")[0] == 200
    worker.now += 0.001
    assert worker.post(era=era, token="t")[0] == 401


@in_both_eras
@pytest.mark.parametrize("header", [f"bearer {TOKEN}", f"BEARER {TOKEN}", f"Bearer   {TOKEN} "])
def test_scheme_is_not_case_sensitive(plain_worker: Any, era: str, header: str) -> None:
    """RFC 9110 section 11.1."""
    assert plain_worker.post(era=era, headers=(("authorization", header),))[0] == 200


@in_both_eras
@pytest.mark.parametrize(
    ("header", "challenge"),
    [
        (f"Basic {TOKEN}", "Bearer"),
        (TOKEN, "Bearer"),
        ("Bearer", "Bearer"),
        (f"Bearer {TOKEN} x", 'Bearer error="invalid_token"'),
        (f"Bearer {TOKEN}, {TOKEN}", 'Bearer error="invalid_token"'),
        ("Bearer \xff\xfe", 'Bearer error="invalid_token"'),
    ],
)
def test_other_credentials_are_rejected(plain_worker: Any, era: str, header: str, challenge: str) -> None:
    """Another scheme and an empty token count as no credentials; any text after `Bearer` is a token."""
    answer = rejection(plain_worker.post(era=era, headers=(("authorization", header),)))
    assert answer[:2] == (401, challenge)


@in_both_eras
def test_metadata_is_published_and_named_in_every_challenge(served_worker: Serve, era: str) -> None:
    """Issuer and resource default to the worker's own URL."""
    worker = served_worker(auth_bearer={"required_scopes": ["read"], "token_scopes": []})
    base = worker.url.removesuffix("/mcp")
    hint = f'resource_metadata="{base}/.well-known/oauth-protected-resource"'
    assert rejection(worker.post(era=era, token=None))[1] == f"Bearer {hint}"
    assert rejection(worker.post(era=era, token="x"))[1] == f'Bearer error="invalid_token", {hint}'
    assert rejection(worker.post(era=era))[1] == f'Bearer error="insufficient_scope", scope="read", {hint}'
    status, headers, body = worker.get("/.well-known/oauth-protected-resource")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body) == {
        "resource": base,
        "authorization_servers": [base],
        "scopes_supported": ["read"],
        "bearer_methods_supported": ["header"],
    }


def test_metadata_path_follows_rfc_9728(served_worker: Serve) -> None:
    """The well-known part is inserted between host and path."""
    urls = {"issuer_url": "https://login.example.com", "resource_server_url": "https://mcp.example.com/team/mcp"}
    worker = served_worker(auth_bearer=urls)
    path = "/.well-known/oauth-protected-resource/team/mcp"
    assert rejection(worker.post(token=None))[1] == f'Bearer resource_metadata="https://mcp.example.com{path}"'
    assert json.loads(worker.get(path)[2]) == {
        "resource": "https://mcp.example.com/team/mcp",
        "authorization_servers": ["https://login.example.com"],
        "bearer_methods_supported": ["header"],
    }
    assert worker.get("/.well-known/oauth-protected-resource")[0] == 404


@pytest.mark.parametrize("missing", ["issuer_url", "resource_server_url"])
def test_explicit_null_of_either_url_publishes_nothing(served_worker: Serve, missing: str) -> None:
    """Some clients start OAuth as soon as metadata exists."""
    worker = served_worker(auth_bearer={missing: None})
    assert rejection(worker.post(token=None))[1] == "Bearer"
    assert worker.get("/.well-known/oauth-protected-resource")[0] == 404


@in_both_eras
def test_without_authentication_every_request_is_served(served_worker: Serve, era: str) -> None:
    """No metadata is published, and tokens are ignored."""
    worker = served_worker(authentication_enabled=False)
    assert worker.post(era=era, token=None)[0] == 200
    assert worker.post(era=era, token="unknown")[0] == 200
    assert worker.get("/.well-known/oauth-protected-resource")[0] == 404


@in_both_eras
def test_failing_store_is_503_and_not_401(served_worker: Serve, era: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A 401 would make a client discard a valid token."""

    def broken(_store: TokenStore, _token: str) -> None:
        raise OSError("disk gone, token secret-token")

    monkeypatch.setattr(TokenStore, "lookup", broken)
    worker = served_worker()
    assert rejection(worker.post(era=era)) == (503, None, "tokens cannot be checked at the moment; retry later")
    assert worker.get("/health")[0] == 200


@in_both_eras
def test_tool_returns_the_task_s_result_by_worker(plain_worker: Any, era: str) -> None:
    """As structured content, and the same as JSON text."""
    params = {"name": "service_fastmcp__task_get_tools", "arguments": {"brief": True}}
    result = plain_worker.post("tools/call", params, era=era)[2]["result"]
    assert result["isError"] is False
    assert [json.loads(part["text"]) for part in result["content"]] == [result["structuredContent"]]
    given = result["structuredContent"]["w1"]
    assert given["result"] == OWN_TOOLS
    assert (given["failed"], given["errors"], given["task"]) == (False, [], "w1:get_tools")


@in_both_eras
def test_invalid_arguments_are_a_tool_error(plain_worker: Any, era: str) -> None:
    """A model can read and correct them, unlike a protocol error."""
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
def test_tasks_that_are_not_tools_cannot_be_called(plain_worker: Any, era: str, name: str) -> None:
    """Tokens cannot be managed through the endpoint that they protect."""
    params = {"name": name, "arguments": {"username": "automation", "token": "new"}}
    error = plain_worker.post("tools/call", params, era=era)[2]["error"]
    assert error == {"code": -32602, "message": f"unknown tool {name!r}; call tools/list for the available names"}
    assert [record.token for record in plain_worker.store.records()] == [TOKEN]


@in_both_eras
def test_own_tools_are_annotated_as_read_only(plain_worker: Any, era: str) -> None:
    """Clients let a model call them without confirmation."""
    tools = plain_worker.post(era=era)[2]["result"]["tools"]
    titles = [tool["annotations"].pop("title") for tool in tools]
    assert all(titles)
    harmless = {"readOnlyHint": True, "destructiveHint": False, "idempotentHint": True, "openWorldHint": False}
    assert [tool["annotations"] for tool in tools] == [harmless] * len(OWN_TOOLS)


def test_handshake_opens_no_session(plain_worker: Any) -> None:
    """There is no session that could leak or be hijacked."""
    params = {"protocolVersion": ERAS[0], "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    status, headers, body = plain_worker.post("initialize", params)
    assert status == 200
    assert "mcp-session-id" not in headers
    assert body["result"]["protocolVersion"] == ERAS[0]
    assert body["result"]["serverInfo"]["name"] == "w1"
    assert body["result"]["capabilities"] == {"tools": {"listChanged": False}}


def test_subscriptions_are_not_offered_in_direct_mode(plain_worker: Any) -> None:
    """The tools never change there."""
    params = {"notifications": {"toolsListChanged": True}}
    status, headers, body = plain_worker.post("subscriptions/listen", params, era=ERAS[1])
    assert (status, headers["content-type"], body["error"]["code"]) == (404, "application/json", -32601)


@in_both_eras
def test_active_call_ends_with_its_token_and_others_go_on(served_worker: Serve, era: str) -> None:
    """The call gets 401 when its token is deleted."""
    has_begun, may_end = threading.Semaphore(0), threading.Event()

    def hold(_worker: WorkerContext, _arguments: TaskInput) -> bool:
        """Wait."""
        has_begun.release()
        return may_end.wait(WAIT_SECONDS)

    tasks = ModuleType("tasks")
    vars(tasks).update(hold=task(result=bool, mcp=ToolHints("Hold"))(hold))
    worker = served_worker(tasks, auth_bearer=NO_METADATA)
    store_token(worker.store, "other", "t", None)
    responses: dict[str, Any] = {}

    def call(token: str) -> None:
        params = {"name": "service_fastmcp__task_hold", "arguments": {}}
        responses[token] = worker.post("tools/call", params, era=era, token=token)

    callers = {token: threading.Thread(target=call, args=(token,)) for token in (TOKEN, "t")}
    for caller in callers.values():
        caller.start()
        assert has_begun.acquire(timeout=WAIT_SECONDS)
    delete_tokens(worker.store, username="other")
    callers["t"].join(WAIT_SECONDS)
    may_end.set()
    callers[TOKEN].join(WAIT_SECONDS)
    expected = (401, 'Bearer error="invalid_token"', INVALID_CREDENTIALS)
    assert rejection(responses["t"]) == expected
    assert responses[TOKEN][2]["result"]["structuredContent"]["w1"]["result"] is True


def test_calls_are_logged_and_other_requests_are_not(plain_worker: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Client and tool, but no token; the SDK alone would log each request."""
    assert plain_worker.post("ping")[0] == 200
    caplog.set_level(logging.INFO)
    plain_worker.post("ping")
    plain_worker.post(token="unknown-token")
    plain_worker.post("tools/call", {"name": "service_fastmcp__task_get_status", "arguments": {}})
    assert caplog.messages == ["MCP client 'automation' calls get_status"]
