"""A token that is deleted while one of two worker processes is frozen for longer than the broker keeps it."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest

from nfcli.models.environment.paths import Environment
from nfcli.models.protocol.broker_replies import HOLD_SECONDS, KEEPALIVE_SECONDS
from support.fabric.broker import WAIT_SECONDS, FabricBroker
from support.workers import EnvironmentFactory, NfcliRunner, RunningWorker, WorkerRunner

pytestmark = pytest.mark.slow

NAMES = ("w1", "w2")
TOKEN = "token-of-a-frozen-worker"
PING = b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}'


@pytest.fixture
def broker() -> Iterator[Any]:
    """Run a broker."""
    broker = FabricBroker(KEEPALIVE_SECONDS, HOLD_SECONDS)
    broker.start()
    yield broker
    broker.close()


@pytest.fixture
def make_environment(environment_factory: EnvironmentFactory, broker: Any) -> Callable[..., Environment]:
    """Make environments of that broker; `own` are the workers that run there."""

    def make(*own: str) -> Environment:
        environment = environment_factory(*own)
        assert environment.inventory_file is not None
        inventory = json.loads(environment.inventory_file.read_text())
        inventory["broker"] = {"endpoint": broker.endpoint, "shared_key": broker.keys.public.decode()}
        inventory["topology"] = {"workers": list(own)}
        if not own:
            del inventory["workers"]
        environment.inventory_file.write_text(json.dumps(inventory))
        return environment

    return make


@pytest.fixture
def workers(
    make_environment: Callable[..., Environment], running_worker: WorkerRunner, broker: Any
) -> Iterator[dict[str, RunningWorker]]:
    """Run both workers; one that is frozen goes on at the end."""
    environment = make_environment(*NAMES)
    with ExitStack() as stack:
        running = {name: stack.enter_context(running_worker(environment, name)) for name in NAMES}
        stack.callback(os.kill, running["w2"].process.pid, signal.SIGCONT)
        for name in NAMES:
            broker.wait_until_registered(name)
        yield running


def ping(worker: RunningWorker) -> int:
    """Send an MCP request with the token; return the status."""
    connection = HTTPConnection(urlsplit(worker.url).netloc, timeout=WAIT_SECONDS)
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", "Accept": "application/json"}
    try:
        connection.request("POST", "/mcp", PING, headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_deletion_names_the_worker_on_which_the_token_stays_valid(
    make_environment: Callable[..., Environment], workers: dict[str, RunningWorker], broker: Any, nfcli: NfcliRunner
) -> None:
    """Repeated once the worker is back, it reaches that one too."""
    client = make_environment()
    auth = ("fastmcp", "auth")
    stored = nfcli(*auth, "create-token", "username", "ann", "token", TOKEN, environment=client)
    assert (stored.returncode, [ping(workers[name]) for name in NAMES]) == (0, [200, 200])
    workers["w2"].process.send_signal(signal.SIGSTOP)
    broker.forget("w2")
    deleted = nfcli(*auth, "delete-token", "token", TOKEN, environment=client)
    assert (deleted.returncode, json.loads(deleted.stdout)) == (1, {"w1": True})
    assert re.fullmatch(
        r"w2: [^\n]* not registered [^\n]* not reached: start it and repeat this, [^\n]*\n", deleted.stderr
    )
    workers["w2"].process.send_signal(signal.SIGCONT)
    assert [ping(workers[name]) for name in NAMES] == [401, 200]
    broker.wait_until_registered("w2")
    again = nfcli(*auth, "delete-token", "token", TOKEN, environment=client)
    assert (again.returncode, json.loads(again.stdout)) == (0, {"w1": False, "w2": True})
    assert [ping(workers[name]) for name in NAMES] == [401, 401]
