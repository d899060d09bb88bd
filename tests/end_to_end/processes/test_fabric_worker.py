"""Worker processes that join a fabric; the broker is the tests' own, with the intervals of NorFab's."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest

from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from nfcli.models.protocol.broker_replies import HOLD_SECONDS, KEEPALIVE_SECONDS
from support.fabric.broker import WAIT_SECONDS, FabricBroker, FabricPeer
from support.programs import ProgramStarter, assert_one_line
from support.workers import EnvironmentFactory, WorkerRunner

pytestmark = pytest.mark.slow

PING = b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}'
CONFIGURED = {"service": "fastmcp", "port": 0, "authentication_enabled": True}
TOKEN = "fabric-token-1"


@pytest.fixture
def broker() -> Iterator[Any]:
    """Return a broker that runs and has the inventory of a worker."""
    broker = FabricBroker(KEEPALIVE_SECONDS, HOLD_SECONDS)
    broker.inventories[DEFAULT_WORKER] = CONFIGURED
    broker.start()
    yield broker
    broker.close()


MakeEnvironment = Callable[..., Environment]


@pytest.fixture
def make_environment(environment_factory: EnvironmentFactory, broker: Any) -> MakeEnvironment:
    """Make environments that join the broker; `is_remote`: only the broker has the worker's inventory."""

    def make(*, is_remote: bool = False) -> Environment:
        environment = environment_factory()
        assert environment.inventory_file is not None
        inventory = json.loads(environment.inventory_file.read_text())
        inventory["broker"] = {"endpoint": broker.endpoint, "shared_key": broker.keys.public.decode()}
        if is_remote:
            del inventory["workers"]
        environment.inventory_file.write_text(json.dumps(inventory))
        return environment

    return make


@pytest.fixture
def run_job(broker: Any, token_watch: Any) -> Iterator[Callable[..., Any]]:
    """Send a job through the broker; return the task's value."""
    token_watch.note(TOKEN)
    peers: list[Any] = []

    def run(task: str, **kwargs: Any) -> Any:
        peer = FabricPeer(broker, b"client")
        peers.append(peer)
        peer.post(f"job-{len(peers)}", {"task": task, "kwargs": kwargs})
        while True:
            command, status, data = peer.read()
            if (command, status) == (b"0x05", "200"):
                peer.close()
                assert data[DEFAULT_WORKER]["errors"] == []
                return data[DEFAULT_WORKER]["result"]

    yield run
    for peer in peers:
        peer.close()


def ping(url: str, token: str) -> int:
    """Ask the MCP server with a token; return the status."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=WAIT_SECONDS)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Accept": "application/json"}
    try:
        connection.request("POST", "/mcp", PING, headers)
        return connection.getresponse().status
    finally:
        connection.close()


def worker_command(environment: Environment) -> list[str]:
    """Return the command that runs the worker."""
    return [sys.executable, "-m", "nfcli.worker", "--environment", str(environment.folder), "--name", DEFAULT_WORKER]


def test_a_worker_serves_its_mcp_clients_while_the_broker_is_gone_and_joins_it_again(
    make_environment: MakeEnvironment, running_worker: WorkerRunner, broker: Any, run_job: Callable[..., Any]
) -> None:
    """Tokens are managed through the broker, asked for without it."""
    environment = make_environment()
    with running_worker(environment) as worker:
        assert worker.endpoint == broker.endpoint
        assert run_job("bearer_token_store", username="alice", token=TOKEN) is True
        broker.stop()
        assert (ping(worker.url, TOKEN), ping(worker.url, "another")) == (200, 401)
        broker.start()
        broker.wait_until_registered(DEFAULT_WORKER)
        assert run_job("bearer_token_check", token=TOKEN) is True
        stats, status = run_job("get_stats"), run_job("get_worker_status")
        trail = run_job("get_audit")
    assert (stats["broker"], stats["reconnects"], stats["keepalives_sent"] > 1) == (broker.endpoint, 1, True)
    assert status["broker"] == broker.endpoint
    assert status["security"] == {
        "worker_private_key_file": str(environment.keys_folder / f"{DEFAULT_WORKER}.key_secret"),
        "broker_public_key_file": "broker.shared_key",
        "zmq_auth": True,
    }
    assert [row["actor"] for row in trail if row["operation"] == "create"] == ["fabric:client"]
    broker.wait_for(lambda: broker.seen[-1] == (DEFAULT_WORKER.encode(), b"0x03"))


def test_a_worker_starts_before_its_broker(
    make_environment: MakeEnvironment, running_worker: WorkerRunner, broker: Any, run_job: Callable[..., Any]
) -> None:
    """Ready for its MCP clients; and it joins as soon as it can."""
    environment = make_environment()
    broker.stop()
    with running_worker(environment) as worker:
        assert ping(worker.url, "another") == 401
        broker.start()
        broker.wait_until_registered(DEFAULT_WORKER)
        assert run_job("bearer_token_list") == []
    log = environment.log_file(DEFAULT_WORKER).read_text()
    assert log.count("no broker answered at") == 1


def test_a_worker_takes_its_inventory_from_the_broker(
    make_environment: MakeEnvironment, running_worker: WorkerRunner, broker: Any, run_job: Callable[..., Any]
) -> None:
    """With authentication as it says there."""
    broker.inventories[DEFAULT_WORKER] = {**CONFIGURED, "auth_bearer": {"token_ttl": 100}, "jobs_compress": False}
    with running_worker(make_environment(is_remote=True)) as worker:
        assert ping(worker.url, "another") == 401
        shown = run_job("get_inventory")
    assert (shown["authentication_enabled"], shown["auth_bearer"]["token_ttl"]) == (True, 100)


@pytest.mark.parametrize(
    ("inventory", "reason"),
    [
        (None, "worker fastmcp-worker-1: "),
        ({"status": "MMI Request Timeout"}, ": workers.fastmcp-worker-1.status: "),
        ({**CONFIGURED, "prot": 1}, ": workers.fastmcp-worker-1.prot: "),
        (
            {"service": "fastmcp", "host": "0.0.0.0"},  # noqa: S104  NorFab's own default
            "host 0.0.0.0 ",
        ),
    ],
    ids=["none", "no inventory", "misspelt", "open to everybody"],
)
def test_without_a_good_inventory_a_worker_does_not_start(
    make_environment: MakeEnvironment, start_program: ProgramStarter, broker: Any, inventory: Any, reason: str
) -> None:
    """One line and a status; it never runs with an incomplete configuration."""
    broker.inventories[DEFAULT_WORKER] = inventory
    program = start_program(command=worker_command(make_environment(is_remote=True)))
    assert program.end() == 1
    assert reason in program.err
    assert program.err.count("\n") == 1
    assert json.loads(program.out)["event"] == "failed"
    assert broker.entries == {}


def test_a_worker_of_another_service_is_skipped(
    make_environment: MakeEnvironment, start_program: ProgramStarter, broker: Any
) -> None:
    """Said to whoever started it; and nothing is left of it."""
    broker.inventories[DEFAULT_WORKER] = {"service": "netbox"}
    environment = make_environment(is_remote=True)
    program = start_program(command=worker_command(environment))
    assert (program.end(), program.err) == (0, "")
    assert json.loads(program.out) == {"event": "skipped", "name": DEFAULT_WORKER, "service": "netbox"}
    assert not environment.state_folder.exists()


def test_the_second_worker_of_a_name_does_not_start(
    make_environment: MakeEnvironment, running_worker: WorkerRunner, start_program: ProgramStarter, broker: Any
) -> None:
    """Wherever it runs; the first one keeps its connection."""
    with running_worker(make_environment()):
        second = start_program(command=worker_command(make_environment()))
        assert second.end() == 1
        assert_one_line(second.err, f"worker {DEFAULT_WORKER}", broker.endpoint)
        assert broker.count(b"0x01", DEFAULT_WORKER) == 1


def test_a_broker_whose_key_is_not_known_is_an_error_of_the_inventory(
    make_environment: MakeEnvironment, start_program: ProgramStarter
) -> None:
    """Nothing is sent to whoever listens there."""
    environment = make_environment()
    assert environment.inventory_file is not None
    inventory = json.loads(environment.inventory_file.read_text())
    del inventory["broker"]["shared_key"]
    environment.inventory_file.write_text(json.dumps(inventory))
    program = start_program(command=worker_command(environment))
    assert program.end() == 1
    assert "broker: its public key is not known: set shared_key to it" in program.err
