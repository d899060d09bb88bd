"""A worker of ours that requires signed jobs, on a fabric of NorFab's; and signed jobs at workers of NorFab's."""

from __future__ import annotations

import json
import time
import uuid as uuids
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import zmq

from nfcli import Client, NorFab
from nfcli.models.environment.curve_keys import KeyPair, ensure_client_key
from nfcli.models.environment.paths import Environment
from nfcli.models.protocol.broker_connection import BrokerConnection
from nfcli.models.protocol.frames import ClientMessage, Command, encode_target
from nfcli.models.protocol.jobs import encode_request
from nfcli.models.protocol.signatures import JobSigner
from nfcli.models.signing_keys import SigningKey
from support.norfab.observers import BrokerView
from support.norfab.sites import EnvironmentJoiner, FabricMaker
from support.workers import WorkerRunner

THEIRS, DEMO = "norfab-worker-1", "demo-worker-1"
OURS, SECOND = "signed-worker-1", "signed-worker-2"
WAIT_SECONDS = 30.0
TOKEN = {"username": "ann", "token": "signed-token"}

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class SignedSite:
    """A fabric with workers of NorFab's and two of ours, in one environment, that require signed jobs."""

    fabric: Any
    environment: Environment
    client: Client

    def signed(self, uuid: str, task: str, workers: Sequence[str], **kwargs: Any) -> bytes:
        """Return a job as the environment's client signs it."""
        keys = ensure_client_key(self.environment)
        signer = JobSigner(keys.public.decode(), SigningKey(keys.secret), time.time)
        request = encode_request(task, kwargs, timeout=30)
        return signer.sign(request, uuid=uuid, service="fastmcp", workers=workers)

    def send(self, name: bytes, data: bytes, uuid: str, worker: str) -> dict[str, Any]:
        """Send a job to a worker under any name, with the broker's public key alone; return the result."""
        address = BrokerView(self.fabric.endpoint, self.fabric.shared_key).address
        with zmq.Context[zmq.Socket[bytes]]() as context:
            connection = BrokerConnection(context, address, name=name, keys=KeyPair(*zmq.curve_keypair()))
            try:
                deadline = time.monotonic() + WAIT_SECONDS
                connection.wait_until_up(deadline)
                frames = ClientMessage(Command.POST, "fastmcp", encode_target([worker]), uuid, data).frames()
                assert connection.send(frames)
                return _result(connection, uuid, worker, deadline)
            finally:
                connection.close()


def _result(connection: BrokerConnection, uuid: str, worker: str, deadline: float) -> dict[str, Any]:
    while time.monotonic() < deadline:
        for message in connection.broker_messages():
            if (message.uuid, message.command, message.status) == (uuid, Command.RESPONSE, "200"):
                result: dict[str, Any] = json.loads(message.data)[worker]
                return result
        connection.wait(deadline)
    raise AssertionError("no result")


@pytest.fixture(scope="module")
def site(
    new_fabric: FabricMaker, joined_environment: EnvironmentJoiner, running_worker: WorkerRunner
) -> Iterator[SignedSite]:
    """Run them."""
    settings = {"service": "fastmcp", "host": "127.0.0.1", "port": 0, "authentication_enabled": True}
    with new_fabric({THEIRS: settings, DEMO: {"service": "demo"}}) as fabric:
        fabric.start(THEIRS, DEMO)
        environment = joined_environment(fabric, OURS, SECOND, signed_jobs="required")
        with running_worker(environment, OURS), running_worker(environment, SECOND):
            fabric.await_workers(OURS, SECOND)
            norfab = NorFab(environment.inventory_file)
            try:
                yield SignedSite(fabric, environment, norfab.make_client())
            finally:
                norfab.destroy()


def _values(results: dict[str, Any]) -> dict[str, Any]:
    return {name: result["errors"] or result["result"] for name, result in results.items()}


def test_one_signed_job_is_run_by_workers_of_both_kinds(site: SignedSite) -> None:
    """NorFab's ignore the signature, ours require it; through NorFab's broker."""
    everybody = [THEIRS, OURS, SECOND]
    stored = site.client.run_job("fastmcp", "bearer_token_store", kwargs=TOKEN, workers=everybody)
    assert _values(stored) == dict.fromkeys(everybody, True)
    checked = site.client.run_job("fastmcp", "bearer_token_check", kwargs={"token": "signed-token"}, workers=everybody)
    assert _values(checked) == dict.fromkeys(everybody, True)
    said = site.client.run_job("demo", "say", kwargs={"text": "ö"})
    assert said[DEMO]["failed"] is False
    (line,) = site.client.run_job("fastmcp", "get_audit", kwargs={"last": 1}, workers=OURS)[OURS]["result"]
    assert (line["actor"], line["authenticated"]) == ("client", "signature")


def test_norfabs_client_manages_no_tokens(site: SignedSite) -> None:
    """It can't sign; what it may do besides, it does."""
    run = site.fabric.client.call
    refused = run("run_job", service="fastmcp", task="bearer_token_list", workers=[OURS])
    assert "it takes signed jobs only" in str(refused)
    assert '"failed": false' in json.dumps(run("run_job", service="fastmcp", task="get_status", workers=[OURS]))


@pytest.mark.parametrize("name", [b"stranger", b"client-nfcli-0123456789abcdef", f"{THEIRS}-NFPClient".encode()])
def test_whoever_knows_the_brokers_key_manages_no_tokens(site: SignedSite, name: bytes) -> None:
    """Under any name: that is what a fabric without signed jobs can't prevent."""
    uuid = uuids.uuid4().hex
    request = encode_request("bearer_token_store", TOKEN, timeout=30)
    assert "it takes signed jobs only" in site.send(name, request, uuid, OURS)["errors"][0]


def test_what_the_broker_sees_can_not_be_used_again(site: SignedSite) -> None:
    """Neither at the same worker nor at another, nor with other arguments."""
    uuid = uuids.uuid4().hex
    data = site.signed(uuid, "bearer_token_store", [OURS], username="bob", token="bobs-token")
    assert site.send(b"first", data, uuid, OURS)["result"] is True
    assert "it was run before" in site.send(b"second", data, uuid, OURS)["errors"][0]
    assert "it was signed for other workers" in site.send(b"second", data, uuid, SECOND)["errors"][0]
    other = uuids.uuid4().hex
    assert "it was signed for another job" in site.send(b"second", data, other, OURS)["errors"][0]
    altered = site.signed(other, "bearer_token_store", [OURS], username="bob", token="bobs-token")
    altered = altered.replace(b"bobs-token", b"evil-token")
    assert "its signature is wrong" in site.send(b"second", altered, other, OURS)["errors"][0]
    for worker, token in ((OURS, "evil-token"), (SECOND, "bobs-token")):
        checked = site.client.run_job("fastmcp", "bearer_token_check", kwargs={"token": token}, workers=worker)
        assert _values(checked) == {worker: False}


def test_removed_key_is_out_at_once(site: SignedSite) -> None:
    """In a fabric too, where the broker accepts every key."""
    key_file = site.environment.clients_folder / "client.key"
    content = key_file.read_bytes()
    key_file.unlink()
    try:
        (reason,) = site.client.run_job("fastmcp", "bearer_token_list", workers=OURS)[OURS]["errors"]
        assert "whose key is not authorized here" in reason
    finally:
        key_file.write_bytes(content)
        key_file.chmod(0o600)
    assert site.client.run_job("fastmcp", "bearer_token_list", workers=OURS)[OURS]["failed"] is False
