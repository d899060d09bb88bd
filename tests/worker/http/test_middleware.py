"""The outermost layer from a stranger's seat: paths, names, headers and bodies, before and without the MCP SDK."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from nfcli.worker.http import exchange
from nfcli.worker.http import middleware as gate
from nfcli.worker.http.active_requests import RunningRequests
from support.mcp.served_worker import HANDSHAKE_ERA, SINGLE_POST_ERA, TOKEN, ServedWorker, read_answer

ERAS = [HANDSHAKE_ERA, SINGLE_POST_ERA]
FOREIGN_HOST = "this Host is not allowed: the worker's log says what to change"
FOREIGN_ORIGIN = "this Origin is not allowed: the worker's log says what to change"
PUBLIC = {"host": "0.0.0.0"}  # noqa: S104  what is tested

Serve = Callable[..., Any]

in_both_eras = pytest.mark.parametrize("era", ERAS)


@pytest.fixture(scope="module")
def _shared_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with ServedWorker(tmp_path_factory.mktemp("plain") / "tokens") as worker:
        yield worker


@pytest.fixture
def plain_worker(_shared_worker: Any) -> Any:
    """Return the worker of all tests that change nothing."""
    _shared_worker.looked_up.clear()
    return _shared_worker


def reason(answer: tuple[int, dict[str, str], Any]) -> tuple[int, str]:
    """Return status and reason of a refusal."""
    return answer[0], answer[2]["error"]["message"]


@in_both_eras
@pytest.mark.parametrize("path", ["/mcp", "/mcp/"])
def test_both_spellings_of_the_path_are_served_without_a_redirect(plain_worker: Any, era: str, path: str) -> None:
    """Clients drop the Authorization header when they follow one."""
    assert plain_worker.post(era=era, path=path)[0] == 200


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "path",
    [
        *("/", "/mcp/x", "/MCP", "//mcp", "/mcp//", "/health/", "/register", "/authorize", "/token", "/sse"),
        *("/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"),
        *("/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-protected-resource/", "/mcp/../health"),
    ],
)
def test_unknown_path_is_a_plain_404(plain_worker: Any, path: str, method: str) -> None:
    """Anything else would send some clients off to OAuth; nobody's token is looked at."""
    answer = plain_worker.get(path, f"authorization: Bearer {TOKEN}", "content-length: 0", method=method)
    assert answer == (404, {"content-length": "0"}, b"")
    assert plain_worker.looked_up == []


def test_health_says_nothing_but_that_it_is_there(plain_worker: Any) -> None:
    """No token is needed, and none is looked at."""
    assert plain_worker.get("/health") == (200, {"content-length": "0"}, b"")
    assert plain_worker.get("/health", "authorization: Bearer x") == (200, {"content-length": "0"}, b"")
    assert plain_worker.get("/health", method="DELETE") == (405, {"allow": "GET, HEAD", "content-length": "0"}, b"")
    assert plain_worker.looked_up == []


@pytest.mark.parametrize("path", ["/health", "/mcp", "/.well-known/oauth-protected-resource"])
@pytest.mark.parametrize("settings", [{}, PUBLIC, {**PUBLIC, "host": ""}, {**PUBLIC, "host": "::"}])
def test_foreign_host_is_refused_on_every_bind_before_the_token_is_looked_at(
    served_worker: Serve, settings: dict[str, Any], path: str
) -> None:
    """A page that rebinds its name to this machine's address reaches nothing."""
    worker = served_worker(**settings)
    host = f"evil.example.com:{worker.url.rpartition(':')[2].removesuffix('/mcp')}"
    assert reason(worker.post(path=path, headers=(("host", host),))) == (421, FOREIGN_HOST)
    assert worker.looked_up == []


@pytest.mark.parametrize(
    "host", ["", "localhost.", "127.0.0.1:", "127.0.0.1:80x", "localhost:8001@evil.example.com", "127.0.0.2", "[::2]:1"]
)
def test_host_that_only_looks_like_an_own_one_is_refused(plain_worker: Any, host: str) -> None:
    """Names are compared whole, ports are numbers."""
    assert reason(plain_worker.post(headers=(("host", host),))) == (421, FOREIGN_HOST)


def test_request_without_host_is_refused(plain_worker: Any) -> None:
    """HTTP/1.0 leaves it out."""
    status, _, _ = plain_worker.ask(b"GET /health HTTP/1.0\r\n\r\n")
    assert status == 421


@in_both_eras
@pytest.mark.parametrize("host", ["localhost", "LocalHost:1", "127.0.0.1", "127.0.0.1:9999", "[::1]:9999", "[::1]"])
def test_loopback_names_are_served_with_any_port(plain_worker: Any, era: str, host: str) -> None:
    """A port may be forwarded, and a name's letter case doesn't matter: not to the SDK's own check either."""
    assert plain_worker.post(era=era, headers=(("host", host),))[0] == 200


@in_both_eras
def test_given_hosts_and_origins_are_served(served_worker: Serve, era: str) -> None:
    """A bare name stands for itself behind a proxy and for itself with the worker's own port."""
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
    """Pages of this machine may call."""
    assert plain_worker.post(era=era, headers=(("origin", origin),))[0] == 200


@in_both_eras
@pytest.mark.parametrize(
    "origin", ["https://evil.example.com", "null", "", "http://localhost.evil.example.com", "file://", "localhost"]
)
def test_foreign_origin_is_refused_before_the_token_is_looked_at(plain_worker: Any, era: str, origin: str) -> None:
    """A browser sends it with every page's request; other clients send none."""
    assert reason(plain_worker.post(era=era, headers=(("origin", origin),))) == (403, FOREIGN_ORIGIN)
    assert plain_worker.looked_up == []


def test_log_says_once_which_line_lets_a_name_in(served_worker: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A hundred lines for a hundred names, and no more, however many a stranger makes up."""
    worker = served_worker()
    caplog.set_level(logging.WARNING)
    for header, value in (("host", "a.example.com"), ("origin", "https://b.example.com"), ("host", "\xe9" * 200)):
        for _ in range(2):
            worker.post(headers=((header, value),))
    rest = "if clients rightly use it, add it to"
    assert caplog.messages == [
        f"refused a request with Host 'a.example.com': {rest} allowed_hosts of worker w1 in the inventory",
        f"refused a request with Origin 'https://b.example.com': {rest} allowed_origins of worker w1 in the inventory",
        f"refused a request with Host '{100 * 'é'}': {rest} allowed_hosts of worker w1 in the inventory",
    ]
    for number in range(100):
        worker.post(headers=(("host", f"{number}.example.com"),))
    assert len(caplog.messages) == 100


@in_both_eras
@pytest.mark.parametrize("value", [f"Bearer {TOKEN}", "Basic x", ""])
def test_two_authorization_headers_are_refused(plain_worker: Any, era: str, value: str) -> None:
    """A proxy may look at the one and the server at the other."""
    headers = (("authorization", f"Bearer {TOKEN}"), ("Authorization", value))
    assert reason(plain_worker.post(era=era, headers=headers)) == (400, "more than one authorization header")
    assert plain_worker.looked_up == []


def test_two_host_headers_are_refused(plain_worker: Any) -> None:
    """RFC 9112 section 3.2."""
    assert reason(plain_worker.post(headers=(("host", "localhost"), ("host", "localhost")))) == (
        400,
        "more than one host header",
    )


@in_both_eras
def test_overlong_authorization_is_refused_unread(plain_worker: Any, era: str) -> None:
    """No token is longer than 1,024 characters."""

    def post(length: int) -> tuple[int, dict[str, str], Any]:
        answer: tuple[int, dict[str, str], Any] = plain_worker.post(era=era, token="x" * (length - len("Bearer ")))
        return answer

    assert reason(post(2049)) == (431, "Authorization is longer than 2048 bytes")
    assert plain_worker.looked_up == []
    assert post(2048)[0] == 401


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "OPTIONS", "HEAD", "PATCH"])
@pytest.mark.parametrize("path", ["/mcp", "/mcp/"])
def test_only_post_is_served(plain_worker: Any, method: str, path: str) -> None:
    """There are no streams to open and no sessions to end; without a token not even that is said."""
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
def test_body_of_256_kib_is_served_and_a_longer_one_refused(plain_worker: Any, era: str) -> None:
    """The SDK's own limit is 4 MiB."""
    base = len(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {}}))
    for surplus, expected in ((0, 200), (1, 413)):
        ping = {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {}}
        body = json.dumps(ping).encode() + b" " * (256 * 1024 - base + surplus)
        head = _head(plain_worker, f"content-length: {len(body)}", f"mcp-protocol-version: {ERAS[0]}")
        assert plain_worker.ask(head + body)[0] == expected
    answer = plain_worker.post(era=era, params={"cursor": "x" * 256 * 1024})
    assert reason(answer) == (413, "the body is longer than 262144 bytes")


def test_overlong_body_is_refused_before_it_is_sent(plain_worker: Any) -> None:
    """Its announced length is enough, and the connection ends with it."""
    status, headers, _ = plain_worker.ask(_head(plain_worker, "content-length: 262145"))
    assert (status, headers["connection"]) == (413, "close")


def test_length_with_thousands_of_zeros_in_front_is_that_length(plain_worker: Any) -> None:
    """HTTP doesn't mind them, Python's int() does; a long one is one with them, too."""
    request = plain_worker.request()
    length = str(len(request.partition(b"\r\n\r\n")[2])).encode()
    assert plain_worker.ask(request.replace(b"length: " + length, b"length: " + b"0" * 5_000 + length))[0] == 200
    assert plain_worker.ask(_head(plain_worker, "content-length: " + "0" * 5_000 + "262145"))[0] == 413


def test_overlong_body_without_a_length_is_refused_on_the_way(plain_worker: Any) -> None:
    """Chunks are counted as they come."""
    with plain_worker.connect() as connection:
        connection.sendall(_head(plain_worker, "transfer-encoding: chunked"))
        for _ in range(5):
            connection.sendall(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        assert read_answer(connection)[0] == 413


def test_body_of_a_request_without_a_token_is_not_awaited(plain_worker: Any) -> None:
    """A stranger can't make the server hold anything."""
    head = _head(plain_worker, "content-length: 200000").replace(TOKEN.encode(), b"unknown")
    assert plain_worker.ask(head)[0] == 401


def test_body_that_does_not_come_is_not_awaited_for_ever(served_worker: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait is bounded as a whole, not from byte to byte."""
    monkeypatch.setattr(exchange, "BODY_SECONDS", 0.05)
    worker = served_worker()
    with worker.connect() as connection:
        connection.sendall(_head(worker, "content-length: 10") + b"{")
        status, headers, _ = read_answer(connection)
    assert (status, headers["connection"]) == (408, "close")


def test_client_that_leaves_in_the_middle_of_a_body_disturbs_nobody(
    plain_worker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does the log fill."""
    with plain_worker.connect() as connection:
        connection.sendall(_head(plain_worker, "content-length: 10") + b"{")
    assert plain_worker.post()[0] == 200
    assert caplog.messages == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"jsonrpc": "2.0"}', b"\xff", b"[" * 5000])
@in_both_eras
def test_body_that_is_no_request_is_the_clients_error(plain_worker: Any, era: str, body: bytes) -> None:
    """400, whatever came; the next request is served."""
    head = _head(plain_worker, f"content-length: {len(body)}", f"mcp-protocol-version: {era}", "mcp-method: ping")
    assert plain_worker.ask(head + body)[0] == 400
    assert plain_worker.post(era=era)[0] == 200


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"secret": ', "the body is not JSON"),
        (b'{"jsonrpc": "2.0", "secret": 1}', "the body is not one JSON-RPC request or notification"),
        (b'[{"jsonrpc": "2.0", "method": "ping", "id": 1}]', "the body is not one JSON-RPC request or notification"),
    ],
)
def test_body_that_is_no_request_is_refused_in_our_words(plain_worker: Any, body: bytes, words: str) -> None:
    """The SDK's name the library that read it, with its version, and repeat what was sent."""
    head = _head(plain_worker, f"content-length: {len(body)}", f"mcp-protocol-version: {ERAS[0]}")
    status, _, answered = plain_worker.ask(head + body)
    assert (status, json.loads(answered)["error"]["message"]) == (400, words)


def ask_directly(application: gate.Gate, scope: dict[str, Any], *messages: str) -> list[dict[str, Any]]:
    """Call an ASGI application without a server; return what it sent."""
    received = iter(messages)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": next(received)}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(application(scope, receive, send))
    return sent


@asynccontextmanager
async def failing() -> AsyncIterator[tuple[gate.Policy, gate.App]]:
    """Be an application that can't start."""
    raise OSError("no disk")
    yield


def test_gate_that_was_not_opened_lets_nobody_in() -> None:
    """Neither before the start nor after the stop, whatever is asked for."""
    closed = gate.Gate(failing, RunningRequests())
    scope = {"type": "http", "method": "GET", "path": "/health", "headers": []}
    assert ask_directly(closed, scope)[0]["status"] == 503
    assert ask_directly(closed, {"type": "websocket"}) == [{"type": "websocket.close"}]


def test_start_that_fails_is_told_to_the_server(caplog: pytest.LogCaptureFixture) -> None:
    """It mustn't begin to listen; the log has the reason."""
    closed = gate.Gate(failing, RunningRequests())
    assert ask_directly(closed, {"type": "lifespan"}, "lifespan.startup") == [{"type": "lifespan.startup.failed"}]
    assert caplog.messages == ["the startup of the MCP server failed"]
