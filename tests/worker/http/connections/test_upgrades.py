"""Requests with an Upgrade header, and blanks around the values of headers."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from support.mcp.served_worker import SINGLE_POST_ERA, TOKEN, ServedWorker, read_response, read_statuses

Serve = Callable[..., Any]

# What a JDK's HttpClient sends on plain HTTP.
H2C = (
    ("connection", "Upgrade, HTTP2-Settings"),
    ("upgrade", "h2c"),
    ("http2-settings", "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA"),
)
WEBSOCKET = (("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13"))
TLS = (("connection", "Upgrade"), ("upgrade", "TLS/1.3, HTTP/1.1"))

any_upgrade = pytest.mark.parametrize("upgrade", [H2C, WEBSOCKET, TLS])


def chunked(request: bytes) -> bytes:
    """Return the same request with a chunked body."""
    head, _, body = request.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"content-length")]
    return b"\r\n".join([*lines, b"transfer-encoding: chunked", b"", b"%x" % len(body), body, b"0", b"", b""])


@any_upgrade
@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("size", [1, 100, 10_000])
def test_upgrade_is_ignored(
    served_worker: Serve, upgrade: tuple[tuple[str, str], ...], is_chunked: bool, size: int
) -> None:
    """The request is served with its body, however it comes, and further ones on the connection too."""
    worker: ServedWorker = served_worker()
    request = worker.request("ping", headers=upgrade)
    request = chunked(request) if is_chunked else request
    with worker.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(2):
            for start in range(0, len(request), size):
                connection.sendall(request[start : start + size])
            assert read_response(connection)[::2] == (200, b'{"jsonrpc":"2.0","id":1,"result":{}}')
        connection.sendall(worker.request("ping", headers=(*upgrade, ("host", "evil.example"))))
        assert read_response(connection)[0] == 421


@any_upgrade
def test_pipelined_upgrades_are_ignored(served_worker: Serve, upgrade: tuple[tuple[str, str], ...]) -> None:
    """In one packet with other requests, with and without a body."""
    worker: ServedWorker = served_worker()
    lines = "".join(f"{name}: {value}\r\n" for name, value in upgrade)
    probe = f"GET /health HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n".encode()
    upgrading = worker.request("ping", headers=upgrade)
    with worker.connect() as connection:
        connection.sendall(probe + upgrading + worker.request("ping") + chunked(upgrading) + probe)
        assert read_statuses(connection, 5) == [200] * 5


def test_wish_to_close_the_connection_holds_with_an_upgrade(served_worker: Serve) -> None:
    """The other words of Connection keep their meaning."""
    worker: ServedWorker = served_worker()
    status, headers, _ = worker.send(worker.request("ping", headers=(*H2C[1:], ("connection", "close, upgrade"))))
    assert (status, headers["connection"]) == (200, "close")


@pytest.mark.parametrize("framing", ["content-length: 9\r\ntransfer-encoding: chunked", "content-length: 9x"])
def test_ambiguous_body_is_refused_with_an_upgrade_too(served_worker: Serve, framing: str) -> None:
    """A proxy and the worker must not disagree on where a request ends."""
    lines = "\r\n".join(f"{name}: {value}" for name, value in H2C)
    request = f"POST /mcp HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n{framing}\r\n\r\n"
    status, headers, _ = served_worker().send(request.encode() + b"0\r\n\r\nGET /")
    assert (status, headers["connection"]) == (400, "close")


def test_invalid_http_gets_a_json_rpc_error(served_worker: Serve) -> None:
    """Such as a TLS handshake on the plain port, or CONNECT; the connection closes."""
    worker: ServedWorker = served_worker()
    for request in (b"\x16\x03\x01\x02\x00 hello\r\n\r\n", b"CONNECT localhost:80 HTTP/1.1\r\nhost: localhost\r\n\r\n"):
        status, headers, body = worker.send(request)
        assert (status, headers["connection"], headers["content-type"]) == (400, "close", "application/json")
        assert b"the request is not valid HTTP/1.1" in body


@pytest.mark.parametrize("blanks", [" ", "\t", " \t  \t"])
def test_blanks_around_header_values_are_ignored(served_worker: Serve, blanks: str) -> None:
    """In both protocol eras, for each header that is read."""
    worker: ServedWorker = served_worker()
    name = "service_fastmcp__task_get_version"
    values = {
        "authorization": f"Bearer {TOKEN}",
        "content-type": "application/json",
        "host": "localhost",
        "mcp-method": "tools/call",
        "mcp-name": name,
        "mcp-protocol-version": SINGLE_POST_ERA,
        "origin": "http://localhost",
    }
    padded = tuple((header, f"{blanks}{value}{blanks}") for header, value in values.items())
    status, _, body = worker.post("tools/call", {"name": name, "arguments": {}}, era=SINGLE_POST_ERA, headers=padded)
    assert (status, body.get("error")) == (200, None)
