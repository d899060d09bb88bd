"""A worker process that requires signed jobs: the shell and the API work, everything else doesn't; without a broker."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
import uuid as uuids
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from nfcli import Client
from nfcli.models.environment.curve_keys import KeyPair, ensure_client_key, format_certificate, read_client_key
from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from nfcli.models.environment.private_files import write_private
from nfcli.models.protocol.frames import ClientMessage, Command
from nfcli.models.protocol.jobs import encode_request
from nfcli.models.protocol.signatures import JobSigner
from nfcli.models.signing_keys import SigningKey
from support.workers import EnvironmentFactory, NfcliRunner, RunningWorker, WorkerRunner

pytestmark = pytest.mark.slow

WAIT_MILLISECONDS = 10_000


@pytest.fixture(scope="module")
def environment(environment_factory: EnvironmentFactory) -> Environment:
    """Make an environment whose worker requires signed jobs."""
    return environment_factory(signed_jobs="required", endpoint="tcp://127.0.0.1:*")


@contextlib.contextmanager
def _connected(environment: Environment, worker: RunningWorker, keys: KeyPair) -> Iterator[zmq.Socket[bytes]]:
    """Connect with an authorized key, and with nothing of nfcli's client besides."""
    with zmq.Context[zmq.Socket[bytes]]() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.curve_publickey, dealer.curve_secretkey = keys.public, keys.secret
        dealer.curve_serverkey = read_client_key(environment.keys_folder / f"{worker.name}.key").public
        dealer.connect(worker.endpoint)
        yield dealer


def run(dealer: zmq.Socket[bytes], data: bytes, uuid: str) -> dict[str, Any]:
    """Post a job as it is; return its result."""
    dealer.send_multipart(ClientMessage(Command.POST, "fastmcp", DEFAULT_WORKER.encode(), uuid, data).frames())
    while dealer.poll(WAIT_MILLISECONDS):
        *_, command, _, _, status, payload = dealer.recv_multipart()
        if (command, status) == (Command.RESPONSE, b"200"):
            result: dict[str, Any] = json.loads(payload)[DEFAULT_WORKER]
            return result
    raise AssertionError("no answer")


def signed(keys: KeyPair, uuid: str, task: str, **kwargs: Any) -> bytes:
    """Return a job as nfcli's client signs it."""
    signer = JobSigner(keys.public.decode(), SigningKey(keys.secret), time.time)
    return signer.sign(encode_request(task, kwargs, timeout=30), uuid=uuid, service="fastmcp", workers=[DEFAULT_WORKER])


def test_shell_and_api_sign_their_jobs(environment: Environment, client: Client, nfcli: NfcliRunner) -> None:
    """They work as with every other worker, backups included; the audit trail has what proved the client."""
    done = nfcli("-c", "fastmcp", "auth", "create-token", "username", "ann", "token", "t1", environment=environment)
    assert (done.returncode, json.loads(done.stdout)) == (0, {DEFAULT_WORKER: True}), done.stderr
    listed = client.run_job("fastmcp", "bearer_token_list")[DEFAULT_WORKER]["result"]
    assert [(row["username"], row["token"]) for row in listed] == [("ann", "t1")]
    assert client.run_job("fastmcp", "bearer_token_check", kwargs={"token": "t1"})[DEFAULT_WORKER]["result"] is True
    backup = environment.folder / "backup.db"
    assert nfcli("-c", "--backup", str(backup), environment=environment).returncode == 0
    lines = client.run_job("fastmcp", "get_audit")[DEFAULT_WORKER]["result"]
    assert {(line["actor"], line["authenticated"]) for line in lines} == {("client", "signature")}


def test_authorized_key_without_signature_is_refused(environment: Environment, worker: RunningWorker) -> None:
    """As NorFab's client sends jobs, or an older nfcli."""
    with _connected(environment, worker, ensure_client_key(environment)) as dealer:
        result = run(dealer, encode_request("bearer_token_list", {}, timeout=30), uuids.uuid4().hex)
    assert result["failed"] is True
    assert "it takes signed jobs only" in result["errors"][0]


def test_repetition_after_a_restart_is_refused(
    environment_factory: EnvironmentFactory, running_worker: WorkerRunner
) -> None:
    """Killed in between; the deleted token stays deleted."""
    environment = environment_factory(signed_jobs="required", endpoint="tcp://127.0.0.1:*")
    environment.prepare()
    keys, uuid = ensure_client_key(environment), uuids.uuid4().hex
    with running_worker(environment) as worker:
        data = signed(keys, uuid, "bearer_token_store", username="ann", token="t1")
        with _connected(environment, worker, keys) as dealer:
            assert run(dealer, data, uuid)["result"] is True
            other = uuids.uuid4().hex
            assert run(dealer, signed(keys, other, "bearer_token_delete", token="t1"), other)["result"] is True
        worker.process.kill()
    with running_worker(environment) as worker, _connected(environment, worker, keys) as dealer:
        assert "it was run before" in run(dealer, data, uuid)["errors"][0]
        last = uuids.uuid4().hex
        assert run(dealer, signed(keys, last, "bearer_token_list"), last)["result"] == []


def test_client_of_an_older_version_learns_what_to_do(
    environment_factory: EnvironmentFactory, environment: Environment, worker: RunningWorker, nfcli: NfcliRunner
) -> None:
    """Its key was authorized without a signing key; `nfcli --authorize` adds it."""
    other = environment_factory(endpoint=worker.endpoint)
    other.prepare()
    shutil.copy(environment.keys_folder / f"{worker.name}.key", other.keys_folder)
    keys = ensure_client_key(other)
    write_private(environment.clients_folder / "ann.key", format_certificate(keys.public))
    words = ("-c", "fastmcp", "auth", "list-tokens")
    refused = nfcli(*words, environment=other)
    assert refused.returncode == 1
    assert "client ann is authorized, but its key file here has no signing key: run nfcli on" in refused.stderr
    fault = f"FAULT clients/ann.key: {environment.clients_folder / 'ann.key'} has no signing key, and signed_jobs is"
    assert fault in nfcli("--check", environment=environment).stdout
    key_file = str(other.keys_folder / "client.key")
    assert nfcli("--authorize", key_file, environment=environment).returncode == 0
    assert "ok    clients/ann.key: authorized\n" in nfcli("--check", environment=environment).stdout
    assert nfcli(*words, environment=other).returncode == 0
