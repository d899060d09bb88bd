"""Clients without a token or an authorized key: the memory and the descriptors of a real worker stay within limits."""

from __future__ import annotations

import json
import resource
import threading
from collections.abc import Iterator

import pytest
import zmq

from nfcli import Client, NorFab
from nfcli.models.environment.curve_keys import ensure_key_pair, read_public_key
from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from nfcli.models.protocol.frames import ClientMessage, Command
from support.strangers import MIB, WAIT_SECONDS, connect, connections, descriptors, memory_bytes, open_ones, send_unread
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


def test_worker_may_open_as_many_descriptors_as_the_system_permits(
    environment: Environment, running_worker: WorkerRunner
) -> None:
    """Whatever the shell that starts it has as its limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with running_worker(environment) as worker:
            found = resource.prlimit(worker.process.pid, resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found == (min(hard, 65_536), hard)


def test_connections_without_a_key_leave_descriptors_for_others(
    environment: Environment, worker: RunningWorker, client: Client
) -> None:
    """2,000 to the ZeroMQ endpoint of a worker that may open 600 descriptors: clients and HTTP are served."""
    resource.prlimit(worker.process.pid, resource.RLIMIT_NOFILE, (600, 600))
    with connections(worker.endpoint, 2_000):
        with connect(worker.url) as other:
            other.sendall(HEALTH)
            assert other.recv(100).startswith(b"HTTP/1.1 200")
        found = stats(client)
        norfab = NorFab(environment.inventory_file)
        assert norfab.make_client().run_job("fastmcp", "get_version")[DEFAULT_WORKER]["failed"] is False
        norfab.destroy()
        assert descriptors(worker.process.pid) < 300
    assert found["zmq_connections"] <= 150
    assert found["zmq_connections_closed"] >= 1_850
    assert log_lines(environment, "ZeroMQ connections of 127.0.0.1 closed") == 1


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_long_message_of_a_removed_client_costs_little_memory(
    environment_factory: EnvironmentFactory, running_worker: WorkerRunner, transport: str
) -> None:
    """600 frames of 1 MB: its connection closes before most of them have come."""
    environment = environment_factory(**({"endpoint": "tcp://127.0.0.1:*"} if transport == "tcp" else {}))
    with running_worker(environment) as worker, zmq.Context[zmq.Socket[bytes]]() as context:
        dealer = context.socket(zmq.DEALER)
        keys = ensure_key_pair(environment.clients_folder, "ann")
        dealer.curve_publickey, dealer.curve_secretkey = keys.public, keys.secret
        dealer.curve_serverkey = read_public_key(environment.keys_folder / f"{DEFAULT_WORKER}.key")
        dealer.linger = dealer.sndhwm = 0
        dealer.connect(worker.endpoint)
        dealer.send_multipart(ClientMessage(Command.GET, "fastmcp", b"all", "u1", b"{}").frames())
        assert dealer.poll(WAIT_SECONDS * 1_000)
        (environment.clients_folder / "ann.key").unlink()
        before = memory_bytes(worker.process.pid)
        for _ in range(600):
            dealer.send(b"x" * 1_000_000, zmq.SNDMORE)
        dealer.send(b"")
        peak = peak_memory(environment, worker.process.pid)
        dealer.close()
    # How much comes over a socket file between two looks at the memory depends on the machine.
    assert peak < before + (64 if transport == "tcp" else 512) * MIB
    assert log_lines(environment, "a message of more than 16 MiB") == 1


def peak_memory(environment: Environment, pid: int) -> int:
    """Return the most memory that a process has until it logs that a message is too long."""
    pause, peak = threading.Event(), 0
    for _ in range(int(WAIT_SECONDS * 50)):
        peak = max(peak, memory_bytes(pid))
        if log_lines(environment, "a message of more than 16 MiB"):
            return peak
        pause.wait(0.02)
    raise AssertionError("the message was not too long")
