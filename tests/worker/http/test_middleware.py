"""The request middleware as an unauthenticated client meets it: paths, hosts, headers and bodies."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from nfcli.worker.http import request_cycle
from nfcli.worker.http.active_requests import ActiveRequests
from nfcli.worker.http.allowed_hosts import HostPatterns
from nfcli.worker.http.middleware import RequestMiddleware
from nfcli.worker.http.policy import AccessPolicy
from support.mcp.served_worker import HANDSHAKE_ERA, SINGLE_POST_ERA, TOKEN, ServedWorker, read_response

ERAS = [HANDSHAKE_ERA, SINGLE_POST_ERA]
HOST_NOT_ALLOWED = "Host not allowed; the worker's log names the setting to change"
ORIGIN_NOT_ALLOWED = "Origin not allowed; the worker's log names the setting to change"
NOT_FOUND = {
    "jsonrpc": "2.0",
    "id": None,
    "error": {"code": -32600, "message": "nothing is served at this path; MCP is at /mcp"},
}
PUBLIC = {"host": "0.0.0.0"}  # noqa: S104  what is tested

Serve = Callable[..., Any]

in_both_eras = pytest.mark.parametrize("era", ERAS)


@pytest.fixture(scope="module")
def _shared_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with ServedWorker(tmp_path_factory.mktemp("plain") / "tokens") as worker:
        yield worker


@pytest.fixture
def plain_worker(_shared_worker: Any) -> Any:
    """Return a worker shared by the tests that do not change it."""
    _shared_worker.looked_up.clear()
    return _shared_worker


def reason(answer: tuple[int, dict[str, str], Any]) -> tuple[int, str]:
    """Return status and error message of a response."""
    return answer[0], answer[2]["error"]["message"]


@in_both_eras
@pytest.mark.parametrize("path", ["/mcp", "/mcp/"])
def test_both_spellings_of_the_path_are_served_without_a_redirect(plain_worker: Any, era: str, path: str) -> None:
    """Clients drop the Authorization header when they follow a redirect."""
    assert plain_worker.post(era=era, path=path)[0] == 200


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "path",
    [
        *("/", "/mcp/x", "/MCP", "//mcp", "/mcp//", "/health/", "/registers", "/Register", "/token/", "/sse"),
        *("/.well-known/oauth-protected-resource/x", "/.well-known/oauth-protected-resource/", "/mcp/../health"),
    ],
)
def test_unknown_path_is_a_plain_404(plain_worker: Any, path: str, method: str) -> None:
    """Any other response makes some clients start OAuth; the token is not looked up."""
    answer = plain_worker.get(path, f"authorization: Bearer {TOKEN}", "content-length: 0", method=method)
    assert (answer[0], json.loads(answer[2])) == (404, NOT_FOUND)
    assert set(answer[1]) == {"content-type", "content-length"}
    assert plain_worker.looked_up == []


def test_unknown_path_has_no_body_for_head(plain_worker: Any) -> None:
    """Its headers are those of a GET."""
    head, get = (plain_worker.get("/", method=method) for method in ("HEAD", "GET"))
    assert (head[0], head[2]) == (404, b"")
    assert head[1] == get[1] == {"content-type": "application/json", "content-length": str(len(get[2]))}


def test_health_check_reveals_nothing(plain_worker: Any) -> None:
    """It needs no token, and looks up none."""
    assert plain_worker.get("/health") == (200, {"content-length": "0"}, b"")
    assert plain_worker.get("/health", "authorization: Bearer x") == (200, {"content-length": "0"}, b"")
    status, headers, body = plain_worker.get("/health", method="DELETE")
    assert (status, headers["allow"]) == (405, "GET, HEAD")
    assert json.loads(body)["error"]["message"] == "this path is for GET and HEAD only"
    assert plain_worker.looked_up == []


@pytest.mark.parametrize("path", ["/register", "/mcp", "/.well-known/oauth-protected-resource"])
@pytest.mark.parametrize("settings", [{}, PUBLIC, {**PUBLIC, "host": ""}, {**PUBLIC, "host": "::"}])
def test_foreign_host_is_rejected_on_every_bind_before_the_token_is_looked_up(
    served_worker: Serve, settings: dict[str, Any], path: str
) -> None:
    """DNS rebinding reaches nothing."""
    worker = served_worker(**settings)
    host = f"evil.example.com:{worker.url.rpartition(':')[2].removesuffix('/mcp')}"
    assert reason(worker.post(path=path, headers=(("host", host),))) == (421, HOST_NOT_ALLOWED)
    assert worker.looked_up == []


@pytest.mark.parametrize(
    "host",
    ["", "localhost..", "127.0.0.1:x", "127.0.0.1:80x", "localhost:8001@evil.example.com", "127.0.0.2", "[::2]:1"],
)
def test_host_that_resembles_an_own_name_is_rejected(plain_worker: Any, host: str) -> None:
    """Names match completely, ports are numbers."""
    assert reason(plain_worker.post(headers=(("host", host),))) == (421, HOST_NOT_ALLOWED)


def test_request_without_host_is_rejected(plain_worker: Any) -> None:
    """HTTP/1.0 requests may have none."""
    status, _, _ = plain_worker.send(b"GET /mcp HTTP/1.0\r\n\r\n")
    assert status == 421


@in_both_eras
@pytest.mark.parametrize("host", ["localhost", "LocalHost:1", "127.0.0.1", "127.0.0.1:9999", "[::1]:9999", "[::1]"])
def test_loopback_names_are_served_with_any_port(plain_worker: Any, era: str, host: str) -> None:
    """A port may be forwarded; names are not case-sensitive, in the SDK's own check neither."""
    assert plain_worker.post(era=era, headers=(("host", host),))[0] == 200


@in_both_eras
def test_hosts_and_origins_of_the_inventory_are_served(served_worker: Serve, era: str) -> None:
    """A name without a port is allowed alone, behind a proxy, and with the worker's port."""
    origins = ["https://app.example.com", "http://dev.example.com:*"]
    worker = served_worker(allowed_hosts=["mcp.example.com", "any.example.com:*"], allowed_origins=origins)
    port = worker.url.rpartition(":")[2].removesuffix("/mcp")

    def status(header: str, value: str) -> int:
        return worker.post(era=era, headers=((header, value),))[0]

    for host in ("mcp.example.com", f"MCP.example.com:{port}", "any.example.com", "any.example.com:1"):
        assert status("host", host) == 200
    for origin in ("https://app.example.com", "http://dev.example.com", "http://dev.example.com:3000"):
        assert status("origin", origin) == 200
    assert status("host", "mcp.example.com:1") == 421
    assert status("origin", "http://app.example.com") == 403
    assert status("origin", "https://app.example.com:8443") == 403


@in_both_eras
@pytest.mark.parametrize("origin", ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:9"])
def test_own_origins_are_served(plain_worker: Any, era: str, origin: str) -> None:
    """Pages served by this machine may call."""
    assert plain_worker.post(era=era, headers=(("origin", origin),))[0] == 200


@in_both_eras
@pytest.mark.parametrize(
    "origin", ["https://evil.example.com", "null", "", "http://localhost.evil.example.com", "file://", "localhost"]
)
def test_foreign_origin_is_rejected_before_the_token_is_looked_up(plain_worker: Any, era: str, origin: str) -> None:
    """Browsers send Origin with each cross-site request; other clients send none."""
    assert reason(plain_worker.post(era=era, headers=(("origin", origin),))) == (403, ORIGIN_NOT_ALLOWED)
    assert plain_worker.looked_up == []


def test_log_names_the_setting_once_for_each_host_or_origin(
    served_worker: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """At most a hundred lines, however many values a client invents."""
    worker = served_worker()
    caplog.set_level(logging.WARNING)
    for header, value in (("host", "a.example.com"), ("origin", "https://b.example.com"), ("host", "\xe9" * 200)):
        for _ in range(2):
            worker.post(headers=((header, value),))
    rest = "if clients use it legitimately, add it to"
    assert caplog.messages == [
        f"rejected a request with Host 'a.example.com'; {rest} allowed_hosts of worker w1 in the inventory",
        f"rejected a request with Origin 'https://b.example.com'; {rest} allowed_origins of worker w1 in the inventory",
        f"rejected a request with Host '{100 * 'é'}'; {rest} allowed_hosts of worker w1 in the inventory",
    ]
    for number in range(100):
        worker.post(headers=(("host", f"{number}.example.com"),))
    assert len(caplog.messages) == 100


@in_both_eras
@pytest.mark.parametrize("value", [f"Bearer {TOKEN}", "Basic x", ""])
def test_two_authorization_headers_are_rejected(plain_worker: Any, era: str, value: str) -> None:
    """A proxy may use one of them and the server the other."""
    headers = (("authorization", f"Bearer {TOKEN}"), ("Authorization", value))
    assert reason(plain_worker.post(era=era, headers=headers)) == (400, "more than one authorization header")
    assert plain_worker.looked_up == []


@pytest.mark.parametrize("name", ["host", "origin"])
@pytest.mark.parametrize("second", ["localhost", "evil.example"])
def test_two_host_or_origin_headers_are_rejected(plain_worker: Any, name: str, second: str) -> None:
    """RFC 9112 section 3.2, RFC 6454 section 7.3."""
    values = [each if name == "host" else f"http://{each}" for each in ("localhost", second)]
    headers = tuple((name, value) for value in values)
    assert reason(plain_worker.post(headers=headers)) == (400, f"more than one {name} header")


@in_both_eras
def test_overlong_authorization_is_rejected_before_the_lookup(plain_worker: Any, era: str) -> None:
    """Tokens have at most 1,024 characters."""

    def post(length: int) -> tuple[int, dict[str, str], Any]:
        answer: tuple[int, dict[str, str], Any] = plain_worker.post(era=era, token="x" * (length - len("Bearer ")))
        return answer

    assert reason(post(2049)) == (431, "Authorization exceeds 2048 bytes")
    assert plain_worker.looked_up == []
    assert post(2048)[0] == 401


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "OPTIONS", "HEAD", "PATCH"])
@pytest.mark.parametrize("path", ["/mcp", "/mcp/"])
def test_only_post_is_served(plain_worker: Any, method: str, path: str) -> None:
    """There are no streams to open and no sessions to end; without a token not even that is revealed."""
    status, headers, _ = plain_worker.get(
        path, f"authorization: Bearer {TOKEN}", "accept: text/event-stream", method=method
    )
    assert (status, headers["allow"]) == (405, "POST")
    assert plain_worker.get(path, "accept: text/event-stream", method=method)[0] == 401


def _head(worker: Any, *lines: str) -> bytes:
    usual = ("POST /mcp HTTP/1.1", f"host: {worker.url.split('/')[2]}", f"authorization: Bearer {TOKEN}")
    more = ("content-type: application/json", "accept: application/json")
    return "\r\n".join([*usual, *more, *lines, "", ""]).encode()


@in_both_eras
def test_body_of_256_kib_is_served_and_a_larger_one_rejected(plain_worker: Any, era: str) -> None:
    """The SDK's own limit is 4 MiB."""
    base = len(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {}}))
    for surplus, expected in ((0, 200), (1, 413)):
        ping = {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {}}
        body = json.dumps(ping).encode() + b" " * (256 * 1024 - base + surplus)
        head = _head(plain_worker, f"content-length: {len(body)}", f"mcp-protocol-version: {ERAS[0]}")
        assert plain_worker.send(head + body)[0] == expected
    answer = plain_worker.post(era=era, params={"cursor": "x" * 256 * 1024})
    assert reason(answer) == (413, "request body exceeds 262144 bytes")


def test_oversized_body_is_rejected_before_it_is_sent(plain_worker: Any) -> None:
    """Its Content-Length suffices, and the connection is closed."""
    status, headers, _ = plain_worker.send(_head(plain_worker, "content-length: 262145"))
    assert (status, headers["connection"]) == (413, "close")


def test_content_length_with_thousands_of_leading_zeros_is_understood(plain_worker: Any) -> None:
    """HTTP allows them, int() does not; a length beyond the limit is rejected with them, too."""
    request = plain_worker.request()
    length = str(len(request.partition(b"\r\n\r\n")[2])).encode()
    assert plain_worker.send(request.replace(b"length: " + length, b"length: " + b"0" * 5_000 + length))[0] == 200
    assert plain_worker.send(_head(plain_worker, "content-length: " + "0" * 5_000 + "262145"))[0] == 413


def test_oversized_body_without_a_length_is_rejected_while_it_arrives(plain_worker: Any) -> None:
    """Chunks are counted as they arrive."""
    with plain_worker.connect() as connection:
        connection.sendall(_head(plain_worker, "transfer-encoding: chunked"))
        for _ in range(5):
            connection.sendall(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        assert read_response(connection)[0] == 413


def test_body_of_an_unauthenticated_request_is_not_awaited(plain_worker: Any) -> None:
    """Such a client cannot make the server buffer anything."""
    head = _head(plain_worker, "content-length: 200000").replace(TOKEN.encode(), b"unknown")
    assert plain_worker.send(head)[0] == 401


def test_body_that_does_not_arrive_times_out(served_worker: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit applies to the entire body, not to the time between bytes."""
    monkeypatch.setattr(request_cycle, "BODY_TIMEOUT_SECONDS", 0.05)
    worker = served_worker()
    with worker.connect() as connection:
        connection.sendall(_head(worker, "content-length: 10") + b"{")
        status, headers, _ = read_response(connection)
    assert (status, headers["connection"]) == (408, "close")


def test_client_that_disconnects_within_a_body_leaves_no_trace(
    plain_worker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Other clients are served, and nothing is logged."""
    with plain_worker.connect() as connection:
        connection.sendall(_head(plain_worker, "content-length: 10") + b"{")
    assert plain_worker.post()[0] == 200
    assert caplog.messages == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"jsonrpc": "2.0"}', b"\xff", b"[" * 5000])
@in_both_eras
def test_malformed_body_is_a_client_error(plain_worker: Any, era: str, body: bytes) -> None:
    """Always 400; the next request is served."""
    head = _head(plain_worker, f"content-length: {len(body)}", f"mcp-protocol-version: {era}", "mcp-method: ping")
    assert plain_worker.send(head + body)[0] == 400
    assert plain_worker.post(era=era)[0] == 200


def call_app(application: RequestMiddleware, scope: dict[str, Any], *messages: str) -> list[dict[str, Any]]:
    """Call an ASGI application without a server; return the messages that it sent."""
    received = iter(messages)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": next(received)}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(application(scope, receive, send))
    return sent


@asynccontextmanager
async def failing_lifespan() -> AsyncIterator[None]:
    """Fail during startup."""
    raise OSError("no disk")
    yield


@pytest.fixture
def not_started() -> RequestMiddleware:
    """Return the middleware of an application whose startup fails."""

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        raise AssertionError

    policy = AccessPolicy("w1", HostPatterns.parse([]), HostPatterns.parse([]))
    return RequestMiddleware(app, policy, ActiveRequests(), failing_lifespan)


def test_requests_outside_the_lifespan_get_503(not_started: RequestMiddleware) -> None:
    """Before the startup and after the shutdown, for every path; WebSockets are closed."""
    scope = {"type": "http", "method": "GET", "path": "/health", "headers": []}
    assert call_app(not_started, scope)[0]["status"] == 503
    assert call_app(not_started, {"type": "websocket"}) == [{"type": "websocket.close"}]


def test_failed_startup_is_reported_to_the_server(
    not_started: RequestMiddleware, caplog: pytest.LogCaptureFixture
) -> None:
    """It must not begin to serve; the log has the reason."""
    assert call_app(not_started, {"type": "lifespan"}, "lifespan.startup") == [{"type": "lifespan.startup.failed"}]
    assert caplog.messages == ["startup of the MCP server failed"]
