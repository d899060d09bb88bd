"""Clients without a token or an authorized key: the memory and the descriptors of a real worker stay within limits."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from nfcli import Client, NorFab
from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from support.strangers import (
    MIB,
    connect,
    connections,
    memory_bytes,
    open_ones,
    send_unread,
)
from support.workers import EnvironmentFactory, RunningWorker, WorkerRunner

pytestmark = pytest.mark.slow

ELSEWHERE = "127.0.0.2"
HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
MAX_MORE_BYTES = 32 * MIB


@pytest.fixture
def environment(environment_factory: EnvironmentFactory) -> Environment:
    """Make an environment whose worker clients reach by TCP."""
    return environment_factory(endpoint="tcp://127.0.0.1:*")


@pytest.fixture
def worker(environment: Environment, running_worker: WorkerRunner) -> Iterator[RunningWorker]:
    """Run the worker."""
    with running_worker(environment) as running:
        yield running


@pytest.fixture
def client(environment: Environment, worker: RunningWorker) -> Iterator[Client]:  # noqa: ARG001  it has to run
    """Connect an authorized client."""
    norfab = NorFab(environment.inventory_file)
    yield norfab.make_client()
    norfab.destroy()


def stats(client: Client) -> dict[str, int]:
    """Return the limits' counters of `get_stats`."""
    report = client.run_job("fastmcp", "get_stats")[DEFAULT_WORKER]
    found: dict[str, int] = report["result"]["limits"]
    return found


def log_lines(environment: Environment, text: str) -> int:
    """Return how many lines of the worker's log contain a text."""
    lines = environment.log_file(DEFAULT_WORKER).read_text(encoding="utf-8").splitlines()
    return sum(text in json.loads(line)["message"] for line in lines)


@pytest.mark.parametrize(
    "request_bytes", [b"GET / HTTP/1.1\r\n\r\n", HEALTH, b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * 90 + b"\r\n"]
)
def test_pipelined_requests_without_reading_cost_little_memory(worker: RunningWorker, request_bytes: bytes) -> None:
    """10 MiB on one connection, which closes."""
    before = memory_bytes(worker.process.pid)
    with connect(worker.url) as connection:
        assert send_unread(connection, request_bytes * (10 * MIB // len(request_bytes)))
    assert memory_bytes(worker.process.pid) < before + MAX_MORE_BYTES


def test_heads_and_pipelines_on_all_connections_cost_little_memory(worker: RunningWorker) -> None:
    """What one address may occupy altogether: as much as possible on each connection, as many as possible."""
    before = memory_bytes(worker.process.pid)
    with connections(worker.url, 100) as held:
        for number, connection in enumerate(open_ones(held)):
            send_unread(connection, (b"GET / HTTP/1.1\r\nx: " if number % 2 else HEALTH * 16) + b"x" * 30_000, 0.0)
        assert memory_bytes(worker.process.pid) < before + MAX_MORE_BYTES


def test_silent_connections_leave_room_for_others(
    environment: Environment, worker: RunningWorker, client: Client
) -> None:
    """520 from one address: a line in the log, a number in the counters, and both addresses are served."""
    with connections(worker.url, 520) as held:
        for source in (None, ELSEWHERE):
            with connect(worker.url, source) as other:
                other.sendall(HEALTH)
                assert other.recv(100).startswith(b"HTTP/1.1 200")
        assert len(open_ones(held)) <= 100
        found = stats(client)
    assert found["http_connections_closed"] >= 420
    assert found["http_connections"] <= 102
    assert log_lines(environment, "more than 100 connections without a valid token") == 1
