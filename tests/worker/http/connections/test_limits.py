"""What one connection may occupy: heads, requests ahead of their turn, answers that nobody reads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from nfcli.models.tasks.base import TaskInput
from nfcli.worker.http.connections import protocol
from nfcli.worker.jobs.context import WorkerContext
from nfcli.worker.jobs.task import ToolHints, task
from support.mcp.served_worker import TOKEN, WAIT_SECONDS, ServedWorker, read_response, read_statuses
from support.strangers import is_closed, send_unread, wait_until

Serve = Callable[..., Any]
HOLD = "service_fastmcp__task_hold"
HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
POST = b"POST /mcp HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer " + TOKEN.encode() + b"\r\n"
MIB = 1024 * 1024


class Holder:
    """A worker with the tool `hold`, which waits until `may_end`."""

    def __init__(self, serve: Serve) -> None:
        self.has_begun, self.may_end = threading.Event(), threading.Event()

        def hold(_worker: WorkerContext, _arguments: TaskInput) -> bool:
            """Wait."""
            self.has_begun.set()
            return self.may_end.wait(WAIT_SECONDS)

        tasks = ModuleType("tasks")
        vars(tasks).update(hold=task(result=bool, mcp=ToolHints("Hold"))(hold))
        self.worker: ServedWorker = serve(tasks)

    @property
    def call(self) -> bytes:
        """A request that calls the tool."""
        return self.worker.request("tools/call", {"name": HOLD, "arguments": {}})


@pytest.fixture
def holder(served_worker: Serve) -> Iterator[Holder]:
    """Serve the tool; it ends with the test."""
    made = Holder(served_worker)
    yield made
    made.may_end.set()


def too_long(worker: ServedWorker) -> int:
    """Return how many connections were closed because of what they sent."""
    return worker.http.counters()["requests_too_long"]


@pytest.mark.parametrize(
    "endless",
    [
        HEALTH,
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: " + b"x" * 60_000,
        b"GET /health HTTP/1.1\r\nhost: localhost\r\n" + b"a:b\r\n" * 20_000,
        b"GET /" + b"x" * 60_000,
        POST + b"content-length: 9000000\r\n\r\n" + b"x" * 60_000,
        b"\r\n" * 30_000,
    ],
)
def test_what_follows_an_active_call_is_limited(holder: Holder, endless: bytes) -> None:
    """Whole requests, a head, a body: the connection closes, which ends the call's request too."""
    with holder.worker.connect() as connection:
        connection.sendall(holder.call)
        assert holder.has_begun.wait(WAIT_SECONDS)
        assert send_unread(connection, endless * (MIB // len(endless)))
    assert too_long(holder.worker) == 1


def test_requests_that_follow_an_active_call_are_answered_in_order(holder: Holder) -> None:
    """As long as they are few, however they are cut; also one with a body."""
    worker = holder.worker
    sent = HEALTH + worker.request("ping") + b"GET /x HTTP/1.1\r\nhost: localhost\r\n\r\n" + worker.request() + HEALTH
    for size in (1, 7, 4096, len(sent)):
        with worker.connect() as connection:
            holder.may_end.clear()
            holder.has_begun.clear()
            connection.sendall(holder.call)
            assert holder.has_begun.wait(WAIT_SECONDS)
            for start in range(0, len(sent), size):
                connection.sendall(sent[start : start + size])
            holder.may_end.set()
            assert read_statuses(connection, 6) == [200, 200, 200, 404, 200, 200]
    assert too_long(worker) == 0


@pytest.mark.parametrize("count", [protocol.MAX_PIPELINED_REQUESTS, protocol.MAX_PIPELINED_REQUESTS + 1])
@pytest.mark.parametrize("is_one_packet", [True, False])
def test_number_of_requests_that_follow_a_call_is_limited(holder: Holder, count: int, is_one_packet: bool) -> None:
    """Whether they come with the call or after it."""
    holder.may_end.set()
    with holder.worker.connect() as connection:
        if is_one_packet:
            connection.sendall(holder.call + HEALTH * count)
        else:
            holder.may_end.clear()
            connection.sendall(holder.call)
            assert holder.has_begun.wait(WAIT_SECONDS)
            connection.sendall(HEALTH * (count + 1))  # one of them is no longer ahead once the call has ended
            holder.may_end.set()
        if count == protocol.MAX_PIPELINED_REQUESTS:
            assert set(read_statuses(connection, count + 1)) == {200}
        else:
            assert is_closed(connection)
            assert too_long(holder.worker) == 1


def test_requests_whose_answers_are_not_read_are_limited(served_worker: Serve) -> None:
    """One connection sends 10 MiB of them: it closes early."""
    worker = served_worker()
    for request in (HEALTH, b"GET / HTTP/1.1\r\n\r\n", worker.request("ping"), worker.request(token=None)):
        with worker.connect() as connection:
            assert send_unread(connection, request * (10 * MIB // len(request)))
    assert too_long(worker) == 4


@pytest.mark.parametrize("header_count", [protocol.MAX_HEADERS, protocol.MAX_HEADERS + 1])
def test_number_of_headers_is_limited(served_worker: Serve, header_count: int) -> None:
    """Each takes far more memory than it has bytes."""
    worker = served_worker()
    with worker.connect() as connection:
        connection.sendall(HEALTH[:-2] + b"a:b\r\n" * (header_count - 1) + b"\r\n")
        if header_count == protocol.MAX_HEADERS:
            assert read_response(connection, "GET")[0] == 200
        else:
            assert is_closed(connection)
            assert too_long(worker) == 1


@pytest.mark.parametrize("tail", [b"1;" + b"x" * 60_000, b"0\r\nx: " + b"x" * 60_000, b"0\r\n" + b"a:b\r\n" * 20_000])
def test_chunk_extensions_and_trailers_are_limited(served_worker: Serve, tail: bytes) -> None:
    """They are neither head nor body, and have no limit of their own."""
    worker = served_worker()
    with worker.connect() as connection:
        assert send_unread(connection, POST + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n" + tail)
    assert too_long(worker) == 1


def test_body_in_tiny_chunks_is_accepted(served_worker: Serve) -> None:
    """Its framing is six times as long as the body."""
    worker = served_worker()
    head, _, body = worker.request("ping").partition(b"\r\n\r\n")
    head = b"\r\n".join(line for line in head.split(b"\r\n") if not line.startswith(b"content-length"))
    padded = body[:-1] + b" " * 40_000 + b"}"
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in padded)
    assert worker.send(head + b"\r\ntransfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")[0] == 200


@pytest.mark.slow
def test_answer_that_is_not_read_closes_the_connection(served_worker: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client may read slowly, but has to read; that keep-alive ends is not enough."""
    monkeypatch.setattr(protocol, "UNREAD_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(protocol, "UNREAD_CHECK_SECONDS", 0.1)
    worker = served_worker()
    with worker.connect() as connection:
        worker.stall(connection)
        wait_until(lambda: not worker.http.connections)
    assert worker.http.counters()["clients_too_slow"] == 1


def test_closed_connections_log_one_line_each_kind(served_worker: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """With the address and the limit; the counters have the rest."""
    worker = served_worker()
    for _ in range(3):
        with worker.connect() as connection:
            assert send_unread(connection, b"GET /" + b"x" * 40_000)
    assert [message for message in caplog.messages if message.startswith("HTTP")] == [
        "HTTP connection of 127.0.0.1 closed: a head of more than 32768 bytes"
    ]
    assert worker.http.counters()["requests_too_long"] == 3
