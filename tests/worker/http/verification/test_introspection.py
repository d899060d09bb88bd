"""What `/introspect` answers to resource servers (RFC 7662), and to others."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlencode

import pytest
from pydantic import ValidationError

from nfcli.models.inventory.schema import WorkerInventory
from support.mcp.served_worker import START, TOKEN, ServedWorker
from support.tokens.token_store import delete_tokens, store_token

SERVER, SECRET = "files-1", "of/the+server="
ODD, ODD_SECRET = "team: é", "odd-server"
RESOURCE = "https://files.example.com/mcp"
BEARER = {
    "token_scopes": ["mcp", "files:read"],
    "issuer_url": "https://issuer.example.com",
    "introspection": [
        {"users": [SERVER, "team*"], "resources": [RESOURCE]},
        {"users": ["files-*"], "resources": ["https://a.example.com", "https://b.example.com"]},
        {"users": ["plain"]},
    ],
}
FORM = "application/x-www-form-urlencoded"

Serve = Callable[..., Any]
Answer = tuple[int, dict[str, str], Any]


@pytest.fixture(scope="module")
def shared_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedWorker]:
    """Serve a worker that three kinds of resource servers may ask."""
    with ServedWorker(tmp_path_factory.mktemp("introspect") / "tokens", auth_bearer=BEARER) as served:
        for username, token in ((SERVER, SECRET), (ODD, ODD_SECRET), ("files-2", "two"), ("plain", "plain-server")):
            store_token(served.store, username, token, None)
        yield served


def basic(username: str, secret: str, quote: Callable[[str], str] = str) -> str:
    """Return the credentials of HTTP Basic."""
    text = f"{quote(username)}:{quote(secret)}".encode()
    return f"Basic {base64.b64encode(text).decode()}"


CREDENTIALS = basic(SERVER, SECRET)


def ask(
    worker: Any,
    body: dict[str, Any] | str,
    credentials: str | None = CREDENTIALS,
    *,
    content_type: str = FORM,
    method: str = "POST",
    path: str = "/introspect",
    source: str | None = None,
) -> Answer:
    """Ask about a token; return status, headers and the JSON body."""
    text = body if isinstance(body, str) else urlencode(body, doseq=True)
    lines = [f"{method} {path} HTTP/1.1", "host: localhost", f"content-type: {content_type}"]
    lines += [f"authorization: {credentials}"] if credentials is not None else []
    head = "\r\n".join([*lines, f"content-length: {len(text)}", "", ""])
    status, headers, received = worker.send((head + text).encode("latin-1"), source)
    return status, headers, json.loads(received) if received else None


def test_active_token_is_described(shared_worker: ServedWorker) -> None:
    """With all that verifiers of MCP servers look at; nothing may keep the answer."""
    status, headers, body = ask(shared_worker, {"token": TOKEN, "token_type_hint": "access_token"})
    assert (status, headers["content-type"], headers["cache-control"]) == (200, "application/json", "no-store")
    assert body == {
        "active": True,
        "scope": "mcp files:read",
        "client_id": "automation",
        "username": "automation",
        "sub": "automation",
        "token_type": "Bearer",
        "iat": int(START),
        "aud": RESOURCE,
        "iss": "https://issuer.example.com",
    }


@pytest.mark.parametrize(
    ("credentials", "audience"),
    [
        (f"Bearer {SECRET}", RESOURCE),
        (f"bearer  {SECRET}", RESOURCE),
        (basic(SERVER, SECRET, quote_plus), RESOURCE),
        (basic(ODD, ODD_SECRET, quote_plus), RESOURCE),
        (basic("files-2", "two"), ["https://a.example.com", "https://b.example.com"]),
    ],
)
def test_resource_servers_authenticate_in_each_way(
    shared_worker: ServedWorker, credentials: str, audience: str | list[str]
) -> None:
    """Basic as it stands and encoded; the audience is that of the first entry that has the user."""
    status, _, body = ask(shared_worker, {"token": TOKEN}, credentials)
    assert (status, body["active"], body["aud"]) == (200, True, audience)


def test_audience_is_the_worker_s_resource_unless_an_entry_has_others(shared_worker: ServedWorker) -> None:
    """As the worker's metadata name it."""
    body = ask(shared_worker, {"token": TOKEN}, "Bearer plain-server")[2]
    assert body["aud"] == shared_worker.url.removesuffix("/mcp")


def test_credentials_may_be_in_the_form(shared_worker: ServedWorker) -> None:
    """Of the client's id and secret; not besides those of the header, and each once."""
    fields = {"token": TOKEN, "client_id": SERVER, "client_secret": SECRET}
    assert ask(shared_worker, fields, None)[2]["active"] is True
    assert ask(shared_worker, fields)[0] == 400
    assert ask(shared_worker, {**fields, "client_secret": "wrong"}, None)[0] == 401
    assert ask(shared_worker, {**fields, "client_id": "automation"}, None)[0] == 401
    assert ask(shared_worker, {**fields, "client_secret": [SECRET, SECRET]}, None)[0] == 401


def test_expiry_is_whole_seconds_and_expired_is_inactive(served_worker: Serve) -> None:
    """To the moment; nothing else is said of a token that isn't active."""
    worker = served_worker(auth_bearer=BEARER)
    store_token(worker.store, SERVER, SECRET, None)
    store_token(worker.store, "ann", "short", 60)
    assert ask(worker, {"token": "short"})[2]["exp"] == int(START) + 61
    worker.now += 60
    assert ask(worker, {"token": "short"})[2] == {"active": False}


def test_deleted_and_unknown_tokens_are_inactive_at_once(served_worker: Serve) -> None:
    """With status 200, and never counted as wrong tokens."""
    worker = served_worker(auth_bearer=BEARER)
    store_token(worker.store, SERVER, SECRET, None)
    assert ask(worker, {"token": TOKEN})[2]["active"] is True
    delete_tokens(worker.store, token=TOKEN)
    answers = [
        ask(worker, {"token": token}) for token in (TOKEN, *(f"guess{n}" for n in range(20)), "not a token", "é")
    ]
    assert {(status, str(body)) for status, _, body in answers} == {(200, "{'active': False}")}
    assert answers[0][1]["cache-control"] == "no-store"
    delete_tokens(worker.store, token=SECRET)
    assert ask(worker, {"token": TOKEN})[0] == 401


@pytest.mark.parametrize(
    "credentials",
    [
        *(None, "Bearer", "Bearer wrong", "Basic", "Basic !", "Digest x", basic(SERVER, "wrong"), basic("bob", SECRET)),
        *(basic("nobody", "wrong"), basic("", SECRET), "Basic " + base64.b64encode(b"\xff:x").decode()),
    ],
)
def test_strangers_get_one_and_the_same_refusal(served_worker: Serve, credentials: str | None) -> None:
    """Whether their user exists or not, in whatever way they ask: nothing is learned about the token."""
    worker = served_worker(auth_bearer=BEARER)
    store_token(worker.store, SERVER, SECRET, None)
    expected = ask(worker, {}, None)
    assert expected[0] == 401
    assert expected[2]["error"] == "invalid_client"
    for method, content_type in (("POST", FORM), ("GET", FORM), ("POST", "application/json")):
        for token in (TOKEN, "unknown"):
            answer = ask(worker, {"token": token}, credentials, method=method, content_type=content_type)
            assert answer == expected
    assert set(worker.looked_up) <= {SECRET, SECRET.replace("+", " "), "wrong"}


def test_refusal_has_both_challenges(shared_worker: ServedWorker) -> None:
    """RFC 7662 section 2.1 leaves the way open."""
    lines = f"POST /introspect HTTP/1.1\r\nhost: localhost\r\ncontent-type: {FORM}\r\ncontent-length: 0\r\n\r\n"
    with shared_worker.connect() as connection:
        connection.sendall(lines.encode())
        head = connection.recv(4096).split(b"\r\n\r\n")[0].decode().lower().splitlines()
    challenges = [line.partition(": ")[2] for line in head if line.startswith("www-authenticate")]
    assert challenges == ['basic realm="introspection", charset="utf-8"', "bearer"]


def test_users_who_are_no_resource_servers_may_not_ask(shared_worker: ServedWorker) -> None:
    """Their tokens are valid, so 403; not even about their own."""
    for credentials in (f"Bearer {TOKEN}", basic("automation", TOKEN)):
        status, headers, body = ask(shared_worker, {"token": TOKEN}, credentials)
        assert (status, body["error"]) == (403, "insufficient_scope")
        assert headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="introspect"'


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"method": "GET"}, 405),
        ({"method": "PUT"}, 405),
        ({"content_type": "application/json", "body": json.dumps({"token": TOKEN})}, 415),
        ({"content_type": f"{FORM}; charset=utf-8"}, 200),
        ({"path": f"/introspect?token={TOKEN}"}, 400),
        ({"path": f"/introspect?token={TOKEN}", "body": ""}, 400),
        ({"body": ""}, 400),
        ({"body": {"token": ""}}, 400),
        ({"body": {"token": [TOKEN, TOKEN]}}, 400),
        ({"body": "token=%ff"}, 400),
        ({"body": "&".join(f"f{n}=x" for n in range(30))}, 400),
        ({"body": "token=é"}, 400),
    ],
    ids=str,
)
def test_other_forms_of_the_question_are_refused(
    shared_worker: ServedWorker, changes: dict[str, Any], expected: int
) -> None:
    """A token is never in a URL."""
    body = changes.pop("body", {"token": TOKEN})
    status, _, answer = ask(shared_worker, body, **changes)
    assert status == expected
    assert answer.get("error") == (None if expected == 200 else "invalid_request")


def test_wrong_credentials_count_and_right_ones_that_were_accepted_go_on(served_worker: Serve) -> None:
    """A locked-out address learns nothing about new ones; the resource server there is served."""
    worker = served_worker(auth_bearer=BEARER)
    for username, token in ((SERVER, SECRET), ("plain", "plain-server")):
        store_token(worker.store, username, token, None)
    assert ask(worker, {"token": TOKEN})[0] == 200
    assert [ask(worker, {"token": TOKEN}, f"Bearer guess{n}")[0] for n in range(11)] == [401] * 10 + [429]
    status, headers, _ = ask(worker, {"token": TOKEN}, "Bearer plain-server")
    assert (status, headers["retry-after"]) == (429, "60")
    assert ask(worker, {"token": TOKEN}, f"Bearer {TOKEN}")[0] == 429
    assert worker.post()[0] == 429
    assert ask(worker, {"token": TOKEN})[2]["active"] is True
    assert ask(worker, {"token": TOKEN}, "Bearer plain-server", source="127.0.0.2")[0] == 200
    delete_tokens(worker.store, token=SECRET)
    assert ask(worker, {"token": TOKEN})[0] == 429


def test_broken_store_is_503_and_not_inactive(shared_worker: ServedWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the credentials, and for the token asked about."""
    found = shared_worker.store.index.by_token
    broken = [SECRET]

    class Broken:
        def get(self, token: str) -> Any:
            if token in broken:
                raise OSError
            return found.get(token)

    monkeypatch.setattr(shared_worker.store.index, "by_token", Broken())
    assert ask(shared_worker, {"token": TOKEN})[0] == 503
    broken[:] = [TOKEN]
    assert ask(shared_worker, {"token": TOKEN})[0] == 503


def test_refusals_are_audited_and_questions_are_not(tmp_path: Path) -> None:
    """With a fingerprint of the credentials, no token in clear text."""
    with ServedWorker(tmp_path / "tokens", auth_bearer=BEARER) as worker:
        store_token(worker.store, SERVER, SECRET, None)
        assert ask(worker, {"token": TOKEN})[0] == 200
        assert ask(worker, {"token": TOKEN}, "Bearer wrong")[0] == 401
        assert ask(worker, {"token": TOKEN}, f"Bearer {TOKEN}")[0] == 403
    lines = [json.loads(line) for line in (tmp_path / "audit-w1.jsonl").read_text().splitlines()]
    assert [line["reason"] for line in lines if line["operation"] == "refuse"] == ["wrong token", "insufficient scope"]


@pytest.mark.parametrize("settings", [{}, {"auth_bearer": {"introspection": None}}], ids=str)
def test_path_does_not_exist_without_resource_servers(served_worker: Serve, settings: dict[str, Any]) -> None:
    """Whoever asks."""
    worker = served_worker(**settings)
    assert ask(worker, {"token": TOKEN}, f"Bearer {TOKEN}")[0] == 404


def test_foreign_host_is_refused(shared_worker: ServedWorker) -> None:
    """The rules for names hold here, too."""
    request = b"POST /introspect HTTP/1.1\r\nhost: evil.example.com\r\ncontent-length: 0\r\n\r\n"
    assert shared_worker.send(request)[0] == 421


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"users": []}, "must name at least one user"),
        ({"users": ["a\nb"]}, "must be a user name or a glob"),
        ({"users": "ann"}, "must be a list"),
        ({"users": ["ann"], "resources": ["files.example.com"]}, "must be a URL"),
        ({}, "Field required"),
    ],
    ids=str,
)
def test_entries_that_mean_nothing_are_refused(entry: dict[str, Any], message: str) -> None:
    """As the inventory is loaded."""
    with pytest.raises(ValidationError, match=message):
        WorkerInventory(service="fastmcp", authentication_enabled=True, auth_bearer={"introspection": [entry]})


def test_mcp_clients_do_not_see_whose_tokens_may_ask(shared_worker: ServedWorker) -> None:
    """In the tool that shows the inventory."""
    call = {"name": "service_fastmcp__task_get_inventory", "arguments": {}}
    shown = shared_worker.post("tools/call", call)[2]["result"]["structuredContent"]
    assert "files-1" not in json.dumps(shown)
