"""The servers on the page that ask a worker over ZeroMQ, as processes of their own."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfcli import Client, NorFab
from nfcli.models.environment.paths import Environment
from support import examples
from support.mcp.served_worker import HANDSHAKE_ERA, SINGLE_POST_ERA
from support.mcp.server_programs import FASTMCP_PYTHON, NO_FASTMCP, ServerProgram, run_server
from support.workers import EnvironmentFactory, WorkerRunner

pytestmark = pytest.mark.slow

FILES = {block.file: block.text for block in examples.blocks("man/pages/other-servers.md") if block.file}
# FastMCP's own Python has none of nfcli: that of the tests is searched for what isn't there.
BESIDE = f"import runpy, sys; sys.path += {[path for path in sys.path if 'site-packages' in path]}; "
SERVERS = {
    "nfcli_server.py": [sys.executable],
    "nfcli_fastmcp_server.py": [FASTMCP_PYTHON, "-c", f"{BESIDE}runpy.run_path(sys.argv[1])"],
}


@pytest.fixture(scope="module")
def environment(environment_factory: EnvironmentFactory) -> Environment:
    """Make an environment with one worker."""
    return environment_factory()


@pytest.fixture(scope="module")
def client(environment: Environment, running_worker: WorkerRunner) -> Iterator[Client]:
    """Run the worker; return a client of it, which has stored a token of `ann`."""
    with running_worker(environment), NorFab(environment.inventory_file) as norfab:
        client = norfab.make_client()
        client.run_job("fastmcp", "bearer_token_store", kwargs={"username": "ann", "token": "of-ann"})
        yield client


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, environment: Environment, client: Client) -> Iterator[ServerProgram]:
    """Run each server of the page in the environment's folder."""
    assert client.environment == environment
    if not SERVERS[request.param][0]:
        pytest.skip(NO_FASTMCP)
    with run_server(SERVERS[request.param], environment.folder, FILES[request.param], {}) as found:
        yield found


@pytest.mark.parametrize("era", [HANDSHAKE_ERA, SINGLE_POST_ERA])
def test_server_knows_the_user_of_a_token(server: ServerProgram, era: str) -> None:
    """In both eras of the protocol."""
    assert server.whoami("of-ann", era) == "ann"


@pytest.mark.parametrize("token", [None, "wrong"])
def test_server_refuses_others(server: ServerProgram, token: str | None) -> None:
    """The worker says that they aren't active."""
    assert server.send(server.request(token=token))[0] == 401


def test_deleted_token_is_refused_at_once(server: ServerProgram, client: Client) -> None:
    """By the next request."""
    client.run_job("fastmcp", "bearer_token_store", kwargs={"username": "bob", "token": "of-bob"})
    assert server.whoami("of-bob", SINGLE_POST_ERA) == "bob"
    client.run_job("fastmcp", "bearer_token_delete", kwargs={"username": "bob"})
    status, _, body = server.send(server.request(token="of-bob"))
    assert (status, json.loads(body)["error"]) == (401, "invalid_token")


def test_key_is_private_and_in_its_own_folder(server: ServerProgram, environment: Environment) -> None:
    """The server has written nothing else."""
    assert server.url
    files = {path.name: path.stat().st_mode & 0o777 for path in Path(environment.verifiers_folder).iterdir()}
    assert files == {"verifier.key": 0o600, "verifier.key_secret": 0o600}
