"""The HTTP server: what a connection may hold up, and that it always stops."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import resource
import signal
import socket
import struct
import threading
import time
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from nfcli.models.errors import WorkerStartError
from nfcli.models.inventory.schema import WorkerInventory
from nfcli.models.tasks.base import TaskInput
from nfcli.worker.http import server as http
from nfcli.worker.http.server import HttpServer
from nfcli.worker.jobs.context import WorkerContext
from nfcli.worker.jobs.task import ToolHints, task
from support.mcp.served_worker import HANDSHAKE_ERA, SINGLE_POST_ERA, TOKEN, WAIT_SECONDS, read_answer

Serve = Callable[..., Any]


async def lifespan_only(_scope: Any, receive: Any, send: Any) -> None:
    """Start and stop as an application does."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


def test_answers_do_not_name_the_server(served_worker: Serve) -> None:
    """Nor does anybody log requests."""
    with served_worker().connect() as connection:
        connection.sendall(b"GET /x HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert b"server:" not in connection.recv(4096).lower()


def test_connection_serves_many_requests(served_worker: Serve) -> None:
    """Refused ones too."""
    with served_worker().connect() as connection:
        for _ in range(3):
            connection.sendall(b"POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}")
            assert read_answer(connection)[0] == 401


@pytest.mark.parametrize("begun", [b"", b"POST /mcp HTTP/1.1\r\nhost: loc"])
def test_head_that_does_not_come_is_not_awaited_for_ever(
    served_worker: Serve, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    """Neither on a fresh connection nor after a request."""
    monkeypatch.setattr(http, "HEAD_SECONDS", 0.05)
    worker = served_worker()
    with worker.connect() as fresh:
        fresh.sendall(begun)
        assert is_closed(fresh)
    with worker.connect() as used:
        used.sendall(b"GET /x HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert read_answer(used)[0] == 404
        used.sendall(b"G")
        assert is_closed(used)


def test_body_after_its_refusal_may_not_trickle_for_ever(served_worker: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request has been answered; what still comes counts as the next head."""
    monkeypatch.setattr(http, "HEAD_SECONDS", 0.05)
    with served_worker().connect() as connection:
        connection.sendall(b"POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n")
        assert read_answer(connection)[0] == 401
        connection.sendall(b"{")
        assert is_closed(connection)


def test_endless_head_is_cut_off(served_worker: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its size, long before its time is up; left alone, uvicorn would keep all of it."""
    monkeypatch.setattr(http, "HEAD_SECONDS", 10 * WAIT_SECONDS)
    with served_worker().connect() as connection:
        connection.sendall(b"GET /mcp HTTP/1.1\r\nhost: localhost\r\nx: " + b"x" * http.MAX_HEAD_BYTES)
        assert is_closed(connection)


def test_too_many_connections_are_dropped_and_the_others_go_on(
    served_worker: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was first is served."""
    monkeypatch.setattr(http, "MAX_CONNECTIONS", 2)
    worker = served_worker()
    with worker.connect() as first, worker.connect() as second, worker.connect() as third:
        assert is_closed(third)
        for connection in (first, second):
            connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert read_answer(connection)[0] == 200


def test_connections_leave_descriptors_to_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """As few as 256 are granted by default on macOS."""
    monkeypatch.setattr(resource, "getrlimit", lambda _limit: (256, 256))
    assert http._max_connections() == 128


def test_upgrade_to_a_websocket_is_not_offered(served_worker: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Nor does asking for one fill the log."""
    caplog.set_level(logging.INFO)
    worker = served_worker()
    caplog.clear()
    head = b"GET /mcp HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    assert worker.ask(head + b"sec-websocket-version: 13\r\nsec-websocket-key: x\r\n\r\n")[0] == 401
    assert worker.ask(b"\x16\x03\x01\x02\x00 hello\r\n\r\n")[0] == 400
    assert [message for message in caplog.messages if "manager" not in message] == []


def test_headers_behind_a_body_do_not_count(served_worker: Serve) -> None:
    """Nobody looks at them on the way: neither a token nor a Host there lets anybody in."""
    worker = served_worker()
    head, _, body = worker.request("ping", token=None).partition(b"\r\n\r\n")
    head = b"\r\n".join(line for line in head.split(b"\r\n") if not line.startswith(b"content-length"))
    chunk = b"\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n" % (len(body), body)
    token = b"authorization: Bearer " + TOKEN.encode()
    assert worker.ask(head + chunk + token + b"\r\n\r\n")[0] == 401
    assert worker.ask(head + b"\r\n" + token + chunk + b"host: evil\r\nx: y\r\n\r\n")[0] == 200


def test_request_for_http_2_is_served_and_its_connection_closed(served_worker: Serve) -> None:
    """The parser reads nothing behind it: the next request, left alone, would be waited for until its time is over."""
    head = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\n"
    with served_worker().connect() as connection:
        connection.sendall(head + b"http2-settings: AAMAAABk\r\n\r\n")
        status, headers, _ = read_answer(connection, "GET")
        assert (status, headers["connection"]) == (200, "close")
        assert is_closed(connection)


def is_closed(connection: socket.socket) -> bool:
    """Wait until the server closes the connection."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def holding(has_begun: threading.Event, may_end: threading.Event) -> ModuleType:
    """Return tasks of which one waits."""

    def hold(_worker: WorkerContext, _arguments: TaskInput) -> bool:
        """Wait."""
        has_begun.set()
        return may_end.wait(WAIT_SECONDS)

    tasks = ModuleType("tasks")
    vars(tasks).update(hold=task(result=bool, mcp=ToolHints("Hold"))(hold))
    return tasks


@pytest.mark.parametrize("era", [HANDSHAKE_ERA, SINGLE_POST_ERA])
def test_stop_returns_with_calls_and_half_sent_requests_open(
    served_worker: Serve, era: str, caplog: pytest.LogCaptureFixture
) -> None:
    """They get their time; then a call is answered 503, and the log has no traceback."""
    has_begun, may_end = threading.Event(), threading.Event()
    worker = served_worker(holding(has_begun, may_end), grace_seconds=0.3)
    answers: list[Any] = []
    params = {"name": "service_fastmcp__task_hold", "arguments": {}}
    caller = threading.Thread(target=lambda: answers.append(worker.post("tools/call", params, era=era)))
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
        assert read_answer(in_body)[0] == 503
        assert is_closed(silent)
        assert is_closed(in_head)
    caller.join(WAIT_SECONDS)
    may_end.set()
    assert [(status, body["error"]["message"]) for status, _, body in answers] == [(503, "the worker is stopping")]
    assert [record for record in caplog.records if record.exc_info] == []


def test_call_may_take_longer_than_its_head(served_worker: Serve) -> None:
    """Once a request is complete, no timer runs on its connection."""
    has_begun, may_end = threading.Event(), threading.Event()
    worker = served_worker(holding(has_begun, may_end))
    with worker.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert read_answer(connection)[0] == 200
        connection.sendall(worker.request("tools/call", {"name": "service_fastmcp__task_hold", "arguments": {}}))
        assert has_begun.wait(WAIT_SECONDS)
        (served,) = worker.http._server.server_state.connections
        assert (served._head_timer, served._head_bytes) == (None, 0)
        may_end.set()
        assert read_answer(connection)[0] == 200


def test_client_that_does_not_read_holds_up_no_stop(served_worker: Serve) -> None:
    """Its connection is cut, whatever is still to be written."""
    worker = served_worker()
    with worker.connect() as connection:
        connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                connection.send(worker.request() * 100)
        connections = worker.http._server.server_state.connections
        deadline = time.monotonic() + WAIT_SECONDS
        while not any(served.flow.write_paused for served in list(connections)):
            assert time.monotonic() < deadline
        worker.stop()
        assert connections == set()


def break_off(connection: socket.socket) -> None:
    """Close a connection with a reset, as a client that crashes does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def wait_until(is_so: Callable[[], bool]) -> None:
    """Look again and again, for a bounded time."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not is_so():
        assert time.monotonic() < deadline


def test_connection_that_breaks_off_is_let_go_at_once(served_worker: Serve) -> None:
    """Kept for half a minute, as uvicorn does, those of a busy stranger would fill the memory."""
    worker = served_worker()
    connection = worker.connect()
    connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert read_answer(connection)[0] == 200
    served = [weakref.ref(each) for each in worker.http._server.server_state.connections]
    break_off(connection)
    wait_until(lambda: gc.collect() >= 0 and served[0]() is None)
    assert len(served) == 1


def test_client_that_breaks_off_a_pipeline_fills_no_log(served_worker: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Only the last of its requests is told; the answer to the first one goes nowhere."""
    has_begun, may_end = threading.Event(), threading.Event()
    worker = served_worker(holding(has_begun, may_end))
    connection = worker.connect()
    call = worker.request("tools/call", {"name": "service_fastmcp__task_hold", "arguments": {}})
    connection.sendall(call + b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert has_begun.wait(WAIT_SECONDS)
    break_off(connection)
    wait_until(lambda: not worker.http._server.server_state.connections)
    may_end.set()
    wait_until(lambda: not worker.http._server.server_state.tasks)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_call_that_ends_in_its_time_is_answered_during_the_stop(served_worker: Serve) -> None:
    """The grace is for that."""
    has_begun, may_end = threading.Event(), threading.Event()
    worker = served_worker(holding(has_begun, may_end), grace_seconds=WAIT_SECONDS)
    answers: list[Any] = []
    params = {"name": "service_fastmcp__task_hold", "arguments": {}}
    caller = threading.Thread(target=lambda: answers.append(worker.post("tools/call", params)))
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
    assert [status for status, _, _ in answers] == [200]


def test_request_that_comes_during_the_stop_is_not_served(served_worker: Serve) -> None:
    """The port is closed, and so are idle connections."""
    worker = served_worker()
    with worker.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert read_answer(connection)[0] == 200
        worker.stop()
        assert is_closed(connection)
    with pytest.raises(ConnectionRefusedError):
        worker.connect()


def test_stop_before_serve_and_twice_does_no_harm() -> None:
    """A worker may be told to stop at any time."""

    async def run() -> None:
        server = HttpServer(lifespan_only, WorkerInventory(service="fastmcp", port=0))
        server.bind()
        await server.stop()
        await server.stop()

    asyncio.run(asyncio.wait_for(run(), WAIT_SECONDS))


def test_signals_are_left_to_the_process() -> None:
    """Left alone, uvicorn would take them over, and raise them again when it has ended."""

    async def run() -> None:
        server = HttpServer(lifespan_only, WorkerInventory(service="fastmcp", port=0))
        server.bind()
        serving = asyncio.create_task(server.serve())
        while not server._server.started:
            await asyncio.wait([serving], timeout=0.01)
        assert signal.getsignal(signal.SIGTERM) is before
        await server.stop(0.1)
        await serving

    before = signal.getsignal(signal.SIGTERM)
    asyncio.run(asyncio.wait_for(run(), WAIT_SECONDS))


def test_application_that_cannot_start_is_an_error_of_one_line() -> None:
    """Left alone, uvicorn would end the interpreter."""

    async def failing(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": ""})

    async def run() -> None:
        server = HttpServer(failing, WorkerInventory(service="fastmcp", port=0))
        server.bind()
        try:
            await server.serve()
        finally:
            await server.stop()

    with pytest.raises(WorkerStartError, match=r"^the MCP server could not start: see the worker's log$"):
        asyncio.run(asyncio.wait_for(run(), WAIT_SECONDS))


def test_application_that_does_not_end_holds_up_no_stop() -> None:
    """What it was waiting for ends with the process."""

    async def stuck(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await asyncio.Event().wait()

    async def run() -> None:
        server = HttpServer(stuck, WorkerInventory(service="fastmcp", port=0))
        server.bind()
        serving = asyncio.create_task(server.serve())
        while not server._server.started:
            await asyncio.wait([serving], timeout=0.01)
        await server.stop(0.1)
        serving.cancel()

    started = time.monotonic()
    asyncio.run(asyncio.wait_for(run(), WAIT_SECONDS))
    assert time.monotonic() - started < 0.1 + 0.5 + 1
