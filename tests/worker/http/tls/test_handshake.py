"""HTTPS: what the handshake of a connection may occupy, and that everything else is as over plain HTTP."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from nfcli.worker.http.connections import protocol, table
from nfcli.worker.http.tls import handshake
from support.mcp.certificates import make_certificates, make_client_certificate, trusting
from support.mcp.served_worker import HANDSHAKE_ERA, SINGLE_POST_ERA, WAIT_SECONDS, ServedWorker, read_response
from support.strangers import connect, connections, is_closed, open_ones

Serve = Callable[..., ServedWorker]
HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
BEGUN = b"\x16\x03\x01\x02\x00\x01"
ELSEWHERE = "127.0.0.9"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("era", [HANDSHAKE_ERA, SINGLE_POST_ERA])
def test_mcp_is_served_over_https(tls_worker: Serve, version: ssl.TLSVersion, era: str) -> None:
    """The URL, the challenge and the metadata say so."""
    worker = tls_worker()
    assert worker.client_tls is not None
    worker.client_tls.minimum_version = worker.client_tls.maximum_version = version
    assert worker.url.startswith("https://127.0.0.1:")
    assert worker.post(era=era)[0] == 200
    status, headers, _ = worker.post(era=era, token=None)
    base = worker.url.removesuffix("/mcp")
    assert status == 401
    assert f'resource_metadata="{base}/' in headers["www-authenticate"]
    assert worker.get("/.well-known/oauth-protected-resource")[2].startswith(b'{"resource":"%s"' % base.encode())


def test_versions_before_tls_1_2_are_refused(tls_worker: Serve) -> None:
    """A client that offers none newer gets an alert (RFC 8996)."""
    worker = tls_worker()
    hello = bytes.fromhex("160301002d010000290301" + "00" * 32 + "000002002f0100")
    with connect(worker.url) as connection:
        connection.sendall(hello)
        assert connection.recv(7) == bytes.fromhex("15030100020246")  # fatal, protocol_version
    assert worker.http.counters()["handshakes_failed"] == 1


@pytest.mark.parametrize("size", [1, 65_536])
def test_request_that_comes_with_the_end_of_the_handshake_is_answered(
    tls_worker: Serve, certificates: Path, size: int
) -> None:
    """In one packet, or byte by byte."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting(certificates).wrap_bio(incoming, outgoing, server_hostname="localhost")
    with connect(tls_worker().url) as connection:
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                send_in_pieces(connection, outgoing.read(), size)
                incoming.write(connection.recv(65_536))
        client.write(HEALTH)
        send_in_pieces(connection, outgoing.read(), size)
        answer = b""
        while not answer:
            incoming.write(connection.recv(65_536))
            try:
                answer = client.read(65_536)
            except ssl.SSLWantReadError:
                continue
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


def send_in_pieces(connection: socket.socket, data: bytes, size: int) -> None:
    """Send data in packets of `size` bytes."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for start in range(0, len(data), size):
        connection.sendall(data[start : start + size])


@pytest.mark.parametrize("sent", [HEALTH, b"POST /mcp HTTP/1.1\r\nauthorization: Bearer secret-token\r\n\r\n", b"x"])
def test_plain_http_gets_a_response_that_names_https(tls_worker: Serve, sent: bytes) -> None:
    """In plain HTTP, and nothing else is read of it."""
    worker = tls_worker()
    with connect(worker.url) as connection:
        connection.sendall(sent)
        status, headers, body = read_response(connection, "GET")
        assert (status, body) == (400, b"this port serves HTTPS: use a URL that begins with https://\n")
        assert headers["connection"] == "close"
        assert is_closed(connection)
    assert worker.looked_up == []


@pytest.mark.parametrize("begun", [b"", b"\x16", BEGUN])
def test_unfinished_handshake_is_closed(tls_worker: Serve, monkeypatch: pytest.MonkeyPatch, begun: bytes) -> None:
    """As a request head is, by the same limit."""
    monkeypatch.setattr(handshake, "HANDSHAKE_TIMEOUT_SECONDS", 0.05)
    worker = tls_worker()
    with connect(worker.url) as connection:
        connection.sendall(begun)
        assert is_closed(connection)
    assert worker.http.counters()["clients_too_slow"] == 1
    assert has_no_connection(worker)


def has_no_connection(worker: ServedWorker) -> bool:
    """Wait until the server has no connection left, for a limited time."""
    pause = threading.Event()
    for _ in range(int(WAIT_SECONDS * 100)):
        if not worker.http.connections and worker.http.counters()["connections"] == 0:
            return True
        pause.wait(0.01)  # leaves the processor to the server
    return False


def test_encrypted_head_that_does_not_come_is_closed(tls_worker: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit on heads begins with the end of the handshake."""
    monkeypatch.setattr(protocol, "HEADER_TIMEOUT_SECONDS", 0.05)
    with tls_worker().connect() as connection:
        connection.sendall(b"GET /hea")
        assert is_closed(connection)


def test_connections_without_a_handshake_shut_nobody_out(tls_worker: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """They count from their first moment, begun handshakes too."""
    caplog.set_level(logging.WARNING)
    worker = tls_worker()
    with worker.connect() as client:
        client.sendall(worker.request())
        assert read_response(client)[0] == 200
        with connections(worker.url, 150) as held, connections(worker.url, 50) as more:
            for connection in open_ones(more)[::2]:
                connection.sendall(BEGUN)
            assert worker.get("/health")[0] == 200
            assert worker.post(source=ELSEWHERE)[0] == 200
            assert len(open_ones(held)) + len(open_ones(more)) <= table.MAX_UNKNOWN_PER_ADDRESS
        client.sendall(worker.request())
        assert read_response(client)[0] == 200
    assert [message for message in caplog.messages if "HTTP connections" in message] == [
        "HTTP connections of 127.0.0.1 closed: more than 100 connections without a valid token"
    ]


def test_failed_handshake_is_logged_with_its_reason(tls_worker: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A client that doesn't trust the CA: the operator sees which, at most one line a minute."""
    caplog.set_level(logging.INFO)
    worker = tls_worker()
    for _ in range(3):
        with connect(worker.url) as connection, pytest.raises(ssl.SSLCertVerificationError):
            ssl.create_default_context().wrap_socket(connection, server_hostname="localhost")
    assert has_no_connection(worker)
    lines = [message for message in caplog.messages if "handshake" in message]
    assert lines == ["TLS handshake with 127.0.0.1 failed: tlsv1 alert unknown ca"]
    assert worker.http.counters()["handshakes_failed"] == 3


def test_requests_whose_answers_are_not_read_are_limited(tls_worker: Serve) -> None:
    """As over plain HTTP."""
    worker = tls_worker()
    request = worker.request("ping")
    with worker.connect() as connection, pytest.raises(OSError, match=r"reset|Broken|EOF"):
        connection.sendall(request * (10 * 1024 * 1024 // len(request)))
    assert worker.http.counters()["requests_too_long"] == 1


@pytest.mark.slow
def test_answer_that_is_not_read_closes_the_connection(tls_worker: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits encrypted counts too."""
    monkeypatch.setattr(protocol, "UNREAD_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(protocol, "UNREAD_CHECK_SECONDS", 0.1)
    worker = tls_worker()
    with worker.connect() as connection:
        worker.stall(connection)
        assert has_no_connection(worker)
    assert worker.http.counters()["clients_too_slow"] == 1


def test_stop_closes_connections_at_every_stage(tls_worker: Serve) -> None:
    """Idle ones too; silent ones, and begun handshakes, are not waited for."""
    worker = tls_worker(grace_seconds=WAIT_SECONDS)
    with worker.connect() as used, connect(worker.url) as silent, connect(worker.url) as begun:
        begun.sendall(BEGUN)
        used.sendall(HEALTH)
        assert read_response(used, "GET")[0] == 200
        worker.stop()
        assert all(map(is_closed, (used, silent, begun)))


def test_client_certificate_is_required_besides_the_token(
    tls_worker: Serve, certificates: Path, tmp_path: Path
) -> None:
    """One that the CA has signed; without it no request is read, `/health` included."""
    clients = tmp_path / "clients"
    make_certificates(clients)
    make_client_certificate(clients)
    tls = {name: str(certificates / f"server.{end}") for name, end in (("certfile", "crt"), ("keyfile", "key"))}
    worker = tls_worker(tls={**tls, "client_ca": str(clients / "ca.crt")})
    for path, reason in ((None, "alert certificate required"), (certificates, "alert (unknown ca|unsupported cert)")):
        worker.client_tls = trusting(certificates)
        if path is not None:  # of another CA
            worker.client_tls.load_cert_chain(path / "server.crt", path / "server.key")
        with worker.connect() as connection, pytest.raises(ssl.SSLError, match=reason):
            connection.recv(1)
    assert worker.http.counters()["handshakes_failed"] == 2
    worker.client_tls = trusting(certificates)
    worker.client_tls.load_cert_chain(clients / "client.crt", clients / "client.key")
    assert worker.get("/health")[0] == 200
    assert worker.post()[0] == 200
    assert worker.post(token=None)[0] == 401


def test_port_without_tls_serves_plain_http(served_worker: Serve) -> None:
    """As before; a TLS client is refused."""
    worker = served_worker()
    assert urlsplit(worker.url).scheme == "http"
    assert worker.get("/health")[0] == 200
    with connect(worker.url) as connection, pytest.raises(ssl.SSLError):
        ssl.create_default_context().wrap_socket(connection, server_hostname="localhost")
