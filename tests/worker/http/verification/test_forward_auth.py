"""What `/verify` answers to a proxy that asks about requests to another server."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nfcli.models.inventory.schema import WorkerInventory
from nfcli.worker.http.responses import REFUSAL, error_response
from nfcli.worker.http.verification.forward_auth import as_forward_auth
from support.mcp.served_worker import START, TOKEN, ServedWorker, read_response
from support.tokens.token_store import delete_tokens, store_token

PROXY, ELSEWHERE = "127.0.0.1", "127.0.0.2"
NAME = "mcp.example.com"
METADATA = "/.well-known/oauth-protected-resource"
BEARER = {"forward_auth": True, "token_scopes": ["mcp", "files:read"]}
SETTINGS = {"trusted_proxies": [PROXY], "allowed_hosts": [NAME], "auth_bearer": BEARER}

Serve = Callable[..., Any]


@pytest.fixture(scope="module")
def shared_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedWorker]:
    """Serve a worker that proxies on this machine may ask."""
    with ServedWorker(tmp_path_factory.mktemp("verify") / "tokens", **SETTINGS) as served:
        yield served


def verify(
    worker: Any, token: str | None = TOKEN, *, client: str = "", method: str = "GET", source: str = PROXY, **more: str
) -> tuple[int, dict[str, str], bytes]:
    """Ask about a request of a client; `more` are headers, with _ for -."""
    headers = {"host": NAME, "x_forwarded_for": client, "x_forwarded_host": NAME, "x_forwarded_proto": "https", **more}
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items() if value]
    answer: tuple[int, dict[str, str], bytes] = worker.send(
        "\r\n".join([f"{method} /verify HTTP/1.1", *lines, "", ""]).encode("latin-1"), source
    )
    return answer


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
def test_valid_token_names_its_user_whatever_the_method(shared_worker: ServedWorker, method: str) -> None:
    """All the headers are there, none is empty, and nothing is said in a body or kept."""
    assert verify(shared_worker, method=method) == (
        200,
        {
            "x-auth-user": "automation",
            "x-auth-scopes": "files%3Aread mcp",
            "x-auth-expires": "-",
            "cache-control": "no-store",
            "content-length": "0",
        },
        b"",
    )


def test_head_of_a_request_is_enough(shared_worker: ServedWorker) -> None:
    """A proxy that leaves Content-Length as it was sends no body; the answer doesn't wait for one."""
    assert verify(shared_worker, method="POST", content_length="3000000")[0] == 200
    assert verify(shared_worker, "wrong", client="203.0.113.50", method="POST", content_length="3000000")[0] == 401


@pytest.mark.parametrize(
    ("username", "expected"),
    [
        ("ann@example.com", "ann@example.com"),
        ("Ann, B. <a>", "Ann%2C%20B.%20%3Ca%3E"),
        ("Jürgen~{x}", "J%C3%BCrgen%7E%7Bx%7D"),
        ("-", "%2D"),
        ("%2D", "%252D"),
    ],
)
def test_user_is_encoded_for_a_header(shared_worker: ServedWorker, username: str, expected: str) -> None:
    """No name can end a header, add to a list, or read as the name of nobody."""
    store_token(shared_worker.store, username, "odd-name", None)
    try:
        assert verify(shared_worker, "odd-name")[1]["x-auth-user"] == expected
    finally:
        delete_tokens(shared_worker.store, token="odd-name")


def test_expiry_is_in_a_header_and_no_scope_is_a_dash(served_worker: Serve) -> None:
    """In whole seconds, rounded up; a header without a value would be dropped."""
    worker = served_worker(auth_bearer={"forward_auth": True})
    store_token(worker.store, "ann", "short", 60)
    headers = worker.get("/verify", "authorization: Bearer short")[1]
    assert (headers["x-auth-expires"], headers["x-auth-scopes"]) == (str(int(START) + 61), "-")


def test_deleted_and_expired_tokens_are_refused_at_once(served_worker: Serve) -> None:
    """The next answer is 401."""
    worker = served_worker(**SETTINGS)
    store_token(worker.store, "ann", "short", 60)
    assert [verify(worker)[0], verify(worker, "short")[0]] == [200, 200]
    delete_tokens(worker.store, token=TOKEN)
    worker.now += 60
    assert [verify(worker)[0], verify(worker, "short")[0]] == [401, 401]


def test_challenge_names_the_metadata_of_the_other_server(shared_worker: ServedWorker) -> None:
    """There is one challenge, with the host that the proxy reports; the document is there too."""
    hint = f'resource_metadata="https://{NAME}{METADATA}"'
    status, headers, body = verify(shared_worker, None)
    assert (status, headers["www-authenticate"]) == (401, f"Bearer {hint}")
    assert "authentication required" in json.loads(body)["error"]["message"]
    invalid = verify(shared_worker, "wrong", client="203.0.113.60")[1]["www-authenticate"]
    assert invalid == f'Bearer error="invalid_token", {hint}'
    document = shared_worker.get(METADATA, f"x-forwarded-host: {NAME}", "x-forwarded-proto: https")[2]
    assert json.loads(document)["resource"] == f"https://{NAME}"


@pytest.mark.parametrize("missing", [{"x_forwarded_host": ""}, {"source": ELSEWHERE}], ids=str)
def test_no_metadata_is_named_where_no_proxy_names_the_host(
    shared_worker: ServedWorker, missing: dict[str, str]
) -> None:
    """The worker's own would be another server's."""
    assert verify(shared_worker, None, **missing)[1]["www-authenticate"] == "Bearer"


def test_forwarded_header_names_the_host_as_well(shared_worker: ServedWorker) -> None:
    """Proxies send one kind or the other."""
    request = f"GET /verify HTTP/1.1\r\nhost: {NAME}\r\nforwarded: for=203.0.113.61;proto=https;host={NAME}\r\n\r\n"
    headers = shared_worker.send(request.encode())[1]
    assert headers["www-authenticate"] == f'Bearer resource_metadata="https://{NAME}{METADATA}"'


def test_metadata_of_worker_and_of_other_servers_stay_apart(served_worker: Serve) -> None:
    """The worker's is what its inventory says, at its own name and directly; the other's is its own."""
    own = {"resource_server_url": "https://worker.example.com", "issuer_url": "https://issuer.example.com"}
    hosts = [NAME, "worker.example.com"]
    worker = served_worker(**{**SETTINGS, "allowed_hosts": hosts, "auth_bearer": {**BEARER, **own}})

    def resource(*headers: str) -> Any:
        return json.loads(worker.get(METADATA, *headers)[2])["resource"]

    secure = "x-forwarded-proto: https"
    assert resource() == "https://worker.example.com"
    assert resource(secure, "x-forwarded-host: worker.example.com") == "https://worker.example.com"
    assert resource(secure, f"x-forwarded-host: {NAME}") == f"https://{NAME}"
    assert worker.post(token=None)[1]["www-authenticate"] == (
        f'Bearer resource_metadata="https://worker.example.com{METADATA}"'
    )
    assert verify(worker, None)[1]["www-authenticate"] == f'Bearer resource_metadata="https://{NAME}{METADATA}"'


@pytest.mark.parametrize("key", ["issuer_url", "resource_server_url"])
def test_no_metadata_is_published_where_the_inventory_says_so(served_worker: Serve, key: str) -> None:
    """Plain bearer tokens, without a hint at OAuth."""
    worker = served_worker(**{**SETTINGS, "auth_bearer": {**BEARER, key: None}})
    assert verify(worker, None)[1]["www-authenticate"] == "Bearer"


def test_missing_scope_is_403_with_a_challenge(served_worker: Serve) -> None:
    """As for requests to the worker itself."""
    bearer = {"forward_auth": True, "token_scopes": ["mcp"], "required_scopes": ["admin"]}
    worker = served_worker(**{**SETTINGS, "auth_bearer": bearer})
    status, headers, _ = verify(worker)
    expected = f'Bearer error="insufficient_scope", scope="admin", resource_metadata="https://{NAME}{METADATA}"'
    assert (status, headers["www-authenticate"]) == (403, expected)
    assert "x-auth-user" not in headers


def test_wrong_tokens_count_for_the_client_that_the_proxy_names(shared_worker: ServedWorker) -> None:
    """Together with those that it sends to the worker itself; others are not locked out."""
    guesser = "203.0.113.1"
    guesses = [verify(shared_worker, f"guess{number}", client=guesser)[0] for number in range(10)]
    assert guesses == [401] * 10
    headers = (("host", NAME), ("x-forwarded-for", guesser))
    assert shared_worker.post(token="guess10", headers=headers)[0] == 429
    status, headers_sent, _ = verify(shared_worker, client=guesser)
    assert (status, headers_sent["retry-after"]) == (429, "60")
    assert verify(shared_worker, client="203.0.113.2")[0] == 200


def test_who_is_no_proxy_can_not_name_clients(shared_worker: ServedWorker) -> None:
    """Its own address is counted."""
    tries = [verify(shared_worker, f"g{n}", client=f"198.51.100.{n}", source=ELSEWHERE)[0] for n in range(11)]
    assert tries == [401] * 10 + [429]


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example.com"},
        {"x_forwarded_host": "evil.example.com"},
        {"origin": "https://evil.example.com"},
        {"forwarded": "for="},
        {"x_padding": "x", "authorization": "Bearer " + "x" * 3000},
        {"authorization": "Bearer a\r\nauthorization: Bearer b"},
    ],
    ids=str,
)
def test_requests_that_the_worker_would_not_take_are_403(shared_worker: ServedWorker, headers: dict[str, str]) -> None:
    """Proxies make 500 of a 400, 421 or 431, as if the worker were broken."""
    token = None if "authorization" in headers else TOKEN
    assert verify(shared_worker, token, **headers)[0] == 403


def test_metrics_have_the_reason_of_a_refusal_whatever_its_status() -> None:
    """They count what a request to the worker itself would be refused for."""
    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    for status, reason in ((421, "host"), (431, "header_size"), (401, "credentials")):
        asyncio.run(as_forward_auth(error_response(status, "no")).send(send))
        assert messages.pop(0)[REFUSAL] == reason
        messages.clear()


def test_broken_store_is_503(shared_worker: ServedWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a refusal: the client must not discard its token."""

    def broken(_token: str) -> None:
        raise OSError

    monkeypatch.setattr(shared_worker.store.index, "by_token", type("Broken", (), {"get": staticmethod(broken)})())
    assert verify(shared_worker)[0] == 503


def test_refusals_are_audited_with_the_client_s_address(tmp_path: Path) -> None:
    """As those of requests to the worker are."""
    with ServedWorker(tmp_path / "tokens", **SETTINGS) as worker:
        assert verify(worker, "wrong", client="203.0.113.9")[0] == 401
    last = json.loads((tmp_path / "audit-w1.jsonl").read_text().splitlines()[-1])
    assert (last["operation"], last["address"], last["reason"]) == ("refuse", "203.0.113.9", "wrong token")


def test_path_does_not_exist_unless_the_inventory_says_so(served_worker: Serve) -> None:
    """Whoever asks, with whatever token."""
    worker = served_worker()
    status, _, body = worker.get("/verify", f"authorization: Bearer {TOKEN}")
    assert (status, json.loads(body)["error"]["message"]) == (404, "nothing is served at this path; MCP is at /mcp")


def test_kept_connection_keeps_no_approval(served_worker: Serve) -> None:
    """Proxies ask about all their clients over a few connections."""
    worker = served_worker(**SETTINGS)
    question = f"GET /verify HTTP/1.1\r\nhost: {NAME}\r\nauthorization: Bearer {TOKEN}\r\n\r\n".encode()
    with worker.connect() as connection:
        connection.sendall(question)
        assert read_response(connection)[0] == 200
        delete_tokens(worker.store, token=TOKEN)
        connection.sendall(question)
        assert read_response(connection)[0] == 401


def test_worker_without_authentication_does_not_start_with_it(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing could be verified; without trusted proxies there is a warning."""
    caplog.set_level(logging.WARNING)
    off = WorkerInventory(service="fastmcp", auth_bearer={"forward_auth": True})
    assert off.start_problem is not None
    assert "authentication_enabled: true" in off.start_problem
    on = WorkerInventory(service="fastmcp", authentication_enabled=True, auth_bearer={"forward_auth": True})
    assert on.start_problem is None
    assert [line for line in on.warnings() if "trusted_proxies" in line]
    trusting = on.model_copy(update={"trusted_proxies": ("127.0.0.1",)})
    assert trusting.warnings() == []
