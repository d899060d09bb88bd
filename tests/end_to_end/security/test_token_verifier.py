"""`BearerTokenVerifier` and its key, which may ask a real worker about tokens and nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp.server.auth.provider import AccessToken

from nfcli import BearerTokenVerifier, Client, UsageError
from nfcli.models.environment.curve_keys import KeyPair, ensure_verifier_key
from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from nfcli.models.inventory.loader import load_inventory
from nfcli.shell.transport.direct import DirectTransport
from support.workers import EnvironmentFactory, NfcliRunner, RunningWorker, WorkerRunner

Verify = Callable[[BearerTokenVerifier], Coroutine[Any, Any, Any]]


@pytest.fixture
def ann(client: Client) -> Iterator[str]:
    """Store a token of `ann`; return it."""
    store(client, "of-ann", 3600)
    yield "of-ann"
    delete(client, "of-ann")


def store(client: Client, token: str, expire: int | None = None) -> None:
    """Store a token of `ann`."""
    kwargs = {"username": "ann", "token": token, "expire": expire}
    (result,) = client.run_job("fastmcp", "bearer_token_store", kwargs=kwargs).values()
    assert result["result"] is True


def delete(client: Client, token: str) -> None:
    """Delete a token, if it is there."""
    client.run_job("fastmcp", "bearer_token_delete", kwargs={"token": token})


def with_verifier(environment: Environment, verify: Verify, **options: Any) -> Any:
    """Run `verify` with a verifier for the environment."""

    async def run() -> Any:
        async with BearerTokenVerifier(environment.inventory_file, **options) as verifier:
            return await verify(verifier)

    return asyncio.run(run())


def test_active_token_becomes_an_access_token(environment: Environment, client: Client, ann: str) -> None:
    """With user and expiry in whole seconds, and the resource that the server names."""
    (listed,) = client.run_job("fastmcp", "bearer_token_introspect", kwargs={"token": ann}).values()
    found = with_verifier(environment, lambda v: v.verify_token(ann), resource="https://files.example.com/mcp")
    assert found == AccessToken(
        token=ann,
        client_id="ann",
        subject="ann",
        scopes=[],
        expires_at=-int(-listed["result"]["expires"] // 1),
        resource="https://files.example.com/mcp",
    )


@pytest.mark.parametrize("token", ["unknown", "", "é", "with blanks", "x" * 5000], ids=lambda token: token[:10])
def test_other_tokens_have_no_access_token(
    environment: Environment, worker: RunningWorker, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Also those that can't be tokens: that is nothing to log."""
    assert worker.process.poll() is None
    with caplog.at_level(logging.WARNING):
        assert with_verifier(environment, lambda v: v.verify_token(token)) is None
    assert not caplog.messages


def test_deleted_token_is_refused_by_the_next_request(environment: Environment, client: Client, ann: str) -> None:
    """No answer is kept; the verifier has the same connection all the time."""

    async def verify(verifier: BearerTokenVerifier) -> list[bool]:
        seen = []
        for _ in range(3):
            seen.append(await verifier.verify_token(ann) is not None)
            await asyncio.to_thread(delete, client, ann)
            seen.append(await verifier.verify_token(ann) is not None)
            await asyncio.to_thread(store, client, ann)
        return seen

    assert with_verifier(environment, verify) == [True, False] * 3


def test_many_requests_are_verified_at_the_same_time(environment: Environment, ann: str) -> None:
    """Each gets the answer to its own question."""

    async def verify(verifier: BearerTokenVerifier) -> list[bool]:
        tokens = [ann if number % 2 else f"unknown-{number}" for number in range(100)]
        return [found is not None for found in await asyncio.gather(*map(verifier.verify_token, tokens))]

    assert with_verifier(environment, verify) == [bool(number % 2) for number in range(100)]


def limited_client(environment: Environment) -> tuple[Client, KeyPair]:
    """Return a client with the verifier's key."""
    environment.prepare()
    inventory, keys = load_inventory(environment), ensure_verifier_key(environment)
    return Client(environment, inventory, keys, DirectTransport(environment, inventory, keys)), keys


@pytest.mark.parametrize(
    ("task", "kwargs"),
    [
        ("bearer_token_list", {}),
        ("bearer_token_store", {"username": "eve", "token": "of-eve"}),
        ("bearer_token_delete", {"username": "ann"}),
        ("get_inventory", {}),
        ("list_tasks", {}),
        ("echo", {"text": "x"}),
        ("no_such_task", {}),
    ],
)
def test_its_key_may_do_nothing_else(
    environment: Environment, client: Client, ann: str, task: str, kwargs: dict[str, Any]
) -> None:
    """Whatever the task; the refusal is in the audit trail, by the name of the key."""
    limited, _ = limited_client(environment)
    with limited:
        (refused,) = limited.run_job("fastmcp", task, kwargs=kwargs).values()
        rows = limited.show_workers()
        (asked,) = limited.run_job("fastmcp", "bearer_token_introspect", kwargs={"token": ann}).values()
    assert (refused["failed"], refused["result"]) == (True, None)
    assert "this client's key may only ask about tokens" in refused["errors"][0]
    assert [row["status"] for row in rows] == ["dead"]
    assert asked["result"]["username"] == "ann"
    (trail,) = client.run_job("fastmcp", "get_audit", kwargs={"operation": "refuse", "last": 50}).values()
    assert {"verifier"} <= {line["actor"] for line in trail["result"]}


def test_key_that_is_removed_is_refused_at_once(
    environment: Environment, ann: str, caplog: pytest.LogCaptureFixture
) -> None:
    """On the open connection; every token is refused then."""
    file = environment.verifiers_folder / "verifier.key"

    async def verify(verifier: BearerTokenVerifier) -> list[bool]:
        before = await verifier.verify_token(ann)
        content = file.read_bytes()
        file.unlink()
        try:
            after = await verifier.verify_token(ann)
        finally:
            file.touch(mode=0o600)
            file.write_bytes(content)
        return [before is not None, after is not None]

    assert with_verifier(environment, verify) == [True, False]
    assert "can't verify tokens" in caplog.text
    assert ann not in caplog.text


@pytest.mark.slow
def test_without_the_worker_every_token_is_refused(
    environment_factory: EnvironmentFactory, running_worker: WorkerRunner, caplog: pytest.LogCaptureFixture
) -> None:
    """Before it starts, and after it has ended; once it runs again, its tokens are found."""
    site = environment_factory()

    def stored() -> None:
        with limitless(site) as client:
            store(client, "of-ann")

    async def verify(verifier: BearerTokenVerifier) -> list[bool]:
        seen = [await verifier.verify_token("of-ann") is not None]
        for _ in range(2):
            with running_worker(site):
                await asyncio.to_thread(stored)
                seen.append(await verifier.verify_token("of-ann") is not None)
            seen.append(await verifier.verify_token("of-ann") is not None)
        return seen

    assert with_verifier(site, verify, timeout=2) == [False, True, False, True, False]
    assert "can't verify tokens" in caplog.text


def limitless(site: Environment) -> Client:
    """Return a client with the environment's own key."""
    from nfcli import NorFab  # noqa: PLC0415  the name is taken by nothing else

    return NorFab(site.inventory_file).make_client()


@pytest.mark.slow
def test_signatures_are_required_of_others_only(
    environment_factory: EnvironmentFactory, running_worker: WorkerRunner
) -> None:
    """The key has none to sign with: its connection proves it."""
    site = environment_factory(signed_jobs="required")
    with running_worker(site):
        with limitless(site) as client:
            store(client, "of-ann")
        found = with_verifier(site, lambda v: v.verify_token("of-ann"))
    assert found.client_id == "ann"


@pytest.mark.slow
def test_key_of_another_machine_is_authorized_for_questions_alone(
    environment: Environment, ann: str, nfcli: NfcliRunner, tmp_path: Path
) -> None:
    """`nfcli --authorize KEYFILE --verify-only`; one that may do everything is refused."""
    limited, keys = limited_client(environment)
    limited.close()
    given = tmp_path / "files-server.key"
    given.write_bytes((environment.verifiers_folder / "verifier.key").read_bytes())
    (environment.verifiers_folder / "verifier.key").unlink()
    done = nfcli("--authorize", str(given), "--verify-only", environment=environment)
    assert (done.returncode, done.stderr) == (0, "nfcli: client files-server is authorized to ask about tokens\n")
    with_key = Client(
        environment,
        load_inventory(environment),
        keys,
        DirectTransport(environment, load_inventory(environment), keys),
    )
    with with_key:
        (asked,) = with_key.run_job("fastmcp", "bearer_token_introspect", kwargs={"token": ann}).values()
    assert asked["result"]["username"] == "ann"
    again = nfcli("--authorize", str(given), "--verify-only", environment=environment)
    assert again.stderr == "nfcli: this key was authorized before, as files-server\n"
    own = environment.keys_folder / "client.key"
    refused = nfcli("--authorize", str(own), "--verify-only", environment=environment)
    assert refused.returncode == 1
    assert "lets this client do everything, nothing changed" in refused.stderr


@pytest.mark.parametrize(
    ("lines", "worker", "message"),
    [
        ("workers: {a: [service: fastmcp], b: [{service: fastmcp, port: 0}]}", None, "has several workers: name one"),
        ("workers: {a: [service: fastmcp]}", "b", "has no worker b: name one with worker=, of a"),
        ("workers: {a: [service: fastmcp]}\nbroker: {endpoint: 'tcp://127.0.0.1:1'}", None, "has a broker"),
    ],
)
def test_inventories_that_leave_open_whom_to_ask_are_refused(
    tmp_path: Path, lines: str, worker: str | None, message: str
) -> None:
    """In one line, with the remedy; nothing is written."""
    file = tmp_path / "inventory.yaml"
    file.write_text(lines)
    with pytest.raises(UsageError, match=message):
        BearerTokenVerifier(file, worker=worker)
    assert [path.name for path in tmp_path.iterdir()] == ["inventory.yaml"]


def test_worker_may_be_named(environment: Environment, ann: str) -> None:
    """As with one worker."""
    assert with_verifier(environment, lambda v: v.verify_token(ann), worker=DEFAULT_WORKER).client_id == "ann"
