"""The HTTP server: limits of connections, graceful shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import select
import signal
import socket
import struct
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from nfcli.models.errors import WorkerStartError
from nfcli.models.inventory.schema import WorkerInventory
from nfcli.models.tasks.base import TaskInput
from nfcli.worker.http.connections import protocol
from nfcli.worker.http.listener import HttpListener
from nfcli.worker.http.server import HttpServer
from nfcli.worker.jobs.context import WorkerContext
from nfcli.worker.jobs.task import ToolHints, task
from support.mcp.served_worker import HANDSHAKE_ERA, SINGLE_POST_ERA, TOKEN, WAIT_SECONDS, read_response
from support.strangers import wait_until

Serve = Callable[..., Any]


@pytest.fixture
def listener() -> Iterator[HttpListener]:
    """Bind a free port of loopback."""
    with HttpListener.bind(WorkerInventory(service="fastmcp", port=0)) as bound:
        yield bound


async def lifespan_only(_scope: Any, receive: Any, send: Any) -> None:
    """Handle the lifespan, as every application does."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


def test_responses_do_not_name_the_server(served_worker: Serve) -> None:
    """No Server header helps attackers."""
    with served_worker().connect() as connection:
        connection.sendall(b"GET /x HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert b"server:" not in connection.recv(4096).lower()


def test_connection_serves_many_requests(served_worker: Serve) -> None:
    """Rejected ones, too."""
    with served_worker().connect() as connection:
        for _ in range(3):
            connection.sendall(b"POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}")
            assert read_response(connection)[0] == 401


@pytest.mark.parametrize("begun", [b"", b"POST /mcp HTTP/1.1\r\nhost: loc"])
def test_headers_that_do_not_arrive_time_out(
    served_worker: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, begun: bytes
) -> None:
    """On a new connection and after a request; no warning, as browsers open connections that they may not use."""
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(protocol, "HEADER_TIMEOUT_SECONDS", 0.05)
    worker = served_worker()
    with worker.connect() as fresh:
        fresh.sendall(begun)
        assert is_closed(fresh)
    with worker.connect() as used:
        used.sendall(b"GET /x HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert read_response(used)[0] == 404
        used.sendall(b"G")
        assert is_closed(used)
    assert caplog.messages == []


def test_body_after_its_rejection_is_limited_in_time(served_worker: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The response has been sent; further bytes count as headers of the next request."""
    monkeypatch.setattr(protocol, "HEADER_TIMEOUT_SECONDS", 0.05)
    with served_worker().connect() as connection:
        connection.sendall(b"POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n")
        assert read_response(connection)[0] == 401
        connection.sendall(b"{")
        assert is_closed(connection)


def test_oversized_headers_close_the_connection(served_worker: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long before the timeout; uvicorn itself would buffer them without limit."""
    monkeypatch.setattr(protocol, "HEADER_TIMEOUT_SECONDS", 10 * WAIT_SECONDS)
    with served_worker().connect() as connection:
        connection.sendall(b"GET /mcp HTTP/1.1\r\nhost: localhost\r\nx: " + b"x" * protocol.MAX_HEADER_BYTES)
        assert is_closed(connection)


def test_upgrade_to_a_websocket_is_not_offered(served_worker: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Asking for one leaves no line in the log."""
    caplog.set_level(logging.INFO)
    worker = served_worker()
    caplog.clear()
    head = b"GET /mcp HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    assert worker.send(head + b"sec-websocket-version: 13\r\nsec-websocket-key: x\r\n\r\n")[0] == 401
    assert worker.send(b"\x16\x03\x01\x02\x00 hello\r\n\r\n")[0] == 400
    assert [message for message in caplog.messages if "manager" not in message] == []


def test_trailers_are_ignored(served_worker: Serve) -> None:
    """Proxies do not check them: neither a token nor a Host there has an effect."""
    worker = served_worker()
    head, _, body = worker.request("ping", token=None).partition(b"\r\n\r\n")
    head = b"\r\n".join(line for line in head.split(b"\r\n") if not line.startswith(b"content-length"))
    chunk = b"\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n" % (len(body), body)
    token = b"authorization: Bearer " + TOKEN.encode()
    assert worker.send(head + chunk + token + b"\r\n\r\n")[0] == 401
    assert worker.send(head + b"\r\n" + token + chunk + b"host: evil\r\nx: y\r\n\r\n")[0] == 200


def is_closed(connection: socket.socket) -> bool:
    """Wait until the server closes the connection."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def make_tasks(has_begun: threading.Event, may_end: threading.Event) -> ModuleType:
    """Return a module with the task `hold`, which waits."""

    def hold(_worker: WorkerContext, _arguments: TaskInput) -> bool:
        """Wait."""
        has_begun.set()
        return may_end.wait(WAIT_SECONDS)

    tasks = ModuleType("tasks")
    vars(tasks).update(hold=task(result=bool, mcp=ToolHints("Hold"))(hold))
    return tasks


@pytest.mark.parametrize("era", [HANDSHAKE_ERA, SINGLE_POST_ERA])
def test_stop_ends_calls_and_incomplete_requests_after_the_grace_period(
    served_worker: Serve, era: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A call gets 503 then, and the log has no traceback."""
    has_begun, may_end = threading.Event(), threading.Event()
    worker = served_worker(make_tasks(has_begun, may_end), grace_seconds=0.3)
    responses: list[Any] = []
    params = {"name": "service_fastmcp__task_hold", "arguments": {}}
    caller = threading.Thread(target=lambda: responses.append(worker.post("tools/call", params, era=era)))
    caller.start()
    assert has_begun.wait(WAIT_SECONDS)
    with worker.connect() as silent, worker.connect() as in_head, worker.connect() as in_body:
        in_head.sendall(b"POST /mcp HT")
        in_body.sendall(
            f"POST /mcp HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n"
            "expect: 100-continue\r\ncontent-length: 9\r\n\r\n".encode()
        )
        assert in_body.recv(100).startswith(b"HTTP/1.1 100")
        started = time.monotonic()
        worker.stop()
        assert time.monotonic() - started < 0.3 + 0.5
        assert read_response(in_body)[0] == 503
        assert is_closed(silent)
        assert is_closed(in_head)
    caller.join(WAIT_SECONDS)
    may_end.set()
    assert [(status, body["error"]["message"]) for status, _, body in responses] == [(503, "the worker is stopping")]
    assert [record for record in caplog.records if record.exc_info] == []


def test_call_may_take_longer_than_its_headers(served_worker: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a request is complete, its connection has no timeout, and the count of header bytes restarts."""
    monkeypatch.setattr(protocol, "HEADER_TIMEOUT_SECONDS", 0.3)
    has_begun, may_end = threading.Event(), threading.Event()
    worker = served_worker(make_tasks(has_begun, may_end))
    with worker.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert read_response(connection)[0] == 200
        connection.sendall(worker.request("tools/call", {"name": "service_fastmcp__task_hold", "arguments": {}}))
        assert has_begun.wait(WAIT_SECONDS)
        assert select.select([connection], [], [], 0.6)[0] == []
        may_end.set()
        assert read_response(connection)[0] == 200


def test_client_that_does_not_read_does_not_delay_a_stop(served_worker: Serve) -> None:
    """Its connection is aborted, whatever is still to be written."""
    worker = served_worker()
    with worker.connect() as connection:
        worker.stall(connection)
        worker.stop()
        assert worker.http.connections == set()


def reset(connection: socket.socket) -> None:
    """Close a connection with a reset, as a client that crashes does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_lost_connection_is_released_at_once(served_worker: Serve) -> None:
    """By default uvicorn keeps it for 30 s: a busy client could fill the memory."""
    worker = served_worker()
    connection = worker.connect()
    connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert read_response(connection)[0] == 200
    served = [weakref.ref(each) for each in worker.http.connections]
    reset(connection)
    wait_until(lambda: gc.collect() >= 0 and served[0]() is None)
    assert len(served) == 1


def test_connection_lost_in_a_pipeline_logs_no_error(served_worker: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """The server notifies only the last request; the response to the first one is discarded."""
    has_begun, may_end = threading.Event(), threading.Event()
    worker = served_worker(make_tasks(has_begun, may_end))
    connection = worker.connect()
    call = worker.request("tools/call", {"name": "service_fastmcp__task_hold", "arguments": {}})
    connection.sendall(call + b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert has_begun.wait(WAIT_SECONDS)
    reset(connection)
    wait_until(lambda: not worker.http.connections)
    may_end.set()
    wait_until(lambda: not worker.http.requests)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_call_that_ends_within_the_grace_period_is_answered(served_worker: Serve) -> None:
    """A stop waits for active requests."""
    has_begun, may_end = threading.Event(), threading.Event()
    worker = served_worker(make_tasks(has_begun, may_end), grace_seconds=WAIT_SECONDS)
    responses: list[Any] = []
    params = {"name": "service_fastmcp__task_hold", "arguments": {}}
    caller = threading.Thread(target=lambda: responses.append(worker.post("tools/call", params)))
    caller.start()
    assert has_begun.wait(WAIT_SECONDS)
    stopper = threading.Thread(target=worker.stop)
    stopper.start()
    with contextlib.suppress(ConnectionError):
        while True:  # until the port is closed, as the first step of a stop is
            worker.connect().close()
    may_end.set()
    stopper.join(WAIT_SECONDS)
    caller.join(WAIT_SECONDS)
    assert [status for status, _, _ in responses] == [200]


def test_stop_closes_the_port_and_idle_connections(served_worker: Serve) -> None:
    """No further request is served."""
    worker = served_worker()
    with worker.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert read_response(connection)[0] == 200
        worker.stop()
        assert is_closed(connection)
    with pytest.raises(ConnectionRefusedError):
        worker.connect()


def test_stop_before_serve_and_twice_is_harmless(listener: HttpListener) -> None:
    """A worker may be stopped at any time."""

    async def run() -> None:
        http = HttpServer(lifespan_only, listener)
        await http.stop()
        await http.stop()

    asyncio.run(asyncio.wait_for(run(), WAIT_SECONDS))


def test_signal_handlers_are_left_to_the_process(listener: HttpListener) -> None:
    """By default uvicorn installs its own, and raises captured signals again when it ends."""

    async def run() -> None:
        has_started = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            has_started.set()
            await lifespan_only(scope, receive, send)

        http = HttpServer(app, listener)
        serving = asyncio.create_task(http.serve())
        await has_started.wait()
        assert signal.getsignal(signal.SIGTERM) is before
        await http.stop(0.1)
        await serving

    before = signal.getsignal(signal.SIGTERM)
    asyncio.run(asyncio.wait_for(run(), WAIT_SECONDS))


def test_failed_startup_of_the_application_is_an_error(listener: HttpListener) -> None:
    """By default uvicorn exits the interpreter."""

    async def failing(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": ""})

    async def run() -> None:
        http = HttpServer(failing, listener)
        try:
            await http.serve()
        finally:
            await http.stop()

    with pytest.raises(WorkerStartError, match=r"^the MCP server failed to start: see the worker's log$"):
        asyncio.run(asyncio.wait_for(run(), WAIT_SECONDS))


def test_application_that_does_not_end_does_not_delay_a_stop(listener: HttpListener) -> None:
    """The process ends without waiting for its shutdown."""

    async def run() -> None:
        is_serving = asyncio.Event()

        async def stuck(_scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "lifespan.startup.complete"})
            is_serving.set()
            await asyncio.Event().wait()

        http = HttpServer(stuck, listener)
        serving = asyncio.create_task(http.serve())
        await is_serving.wait()
        await http.stop(0.1)
        serving.cancel()

    started = time.monotonic()
    asyncio.run(asyncio.wait_for(run(), WAIT_SECONDS))
    assert time.monotonic() - started < 0.1 + 0.5 + 1
