"""The resource servers on the page, as processes of their own, ask a worker about the tokens of MCP clients."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from support import examples
from support.mcp.served_worker import HANDSHAKE_ERA, SINGLE_POST_ERA, TOKEN, ServedWorker
from support.mcp.server_programs import FASTMCP_PYTHON, NO_FASTMCP, ServerProgram, run_server
from support.tokens.token_store import delete_tokens, store_token

pytestmark = pytest.mark.slow

FILES = {block.file: block.text for block in examples.blocks("man/pages/other-servers.md") if block.file}
SERVERS = {"sdk_server.py": sys.executable, "fastmcp_server.py": FASTMCP_PYTHON}
INTROSPECTION = [{"users": ["files-server"], "resources": ["https://files.example.com/mcp"]}]
SECRET = "of+the/server="


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedWorker]:
    """Serve a worker with the resource server of the page."""
    folder = tmp_path_factory.mktemp("introspected") / "tokens"
    with ServedWorker(folder, auth_bearer={"introspection": INTROSPECTION}) as served:
        store_token(served.store, "files-server", SECRET, None)
        yield served


@pytest.fixture(scope="module", params=SERVERS)
def server(
    request: pytest.FixtureRequest, worker: ServedWorker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProgram]:
    """Run each server of the page."""
    with running(request.param, worker.url, tmp_path_factory.mktemp("server")) as found:
        yield found


@contextmanager
def running(name: str, worker: str, folder: Path) -> Iterator[ServerProgram]:
    """Run a server of the page that asks the worker at a URL."""
    if not SERVERS[name]:
        pytest.skip(NO_FASTMCP)
    changes = {"127.0.0.1:8001": urlsplit(worker).netloc}
    with run_server([SERVERS[name]], folder, FILES[name], changes, FILES_SERVER_TOKEN=SECRET) as found:
        yield found


@pytest.mark.parametrize("era", [HANDSHAKE_ERA, SINGLE_POST_ERA])
def test_server_knows_the_user_of_a_token(server: ServerProgram, era: str) -> None:
    """In both eras of the protocol."""
    assert server.whoami(TOKEN, era) == "automation"


@pytest.mark.parametrize("token", [None, "wrong", SECRET + "x"])
def test_server_refuses_others(server: ServerProgram, token: str | None) -> None:
    """The worker says that they aren't active."""
    assert server.send(server.request(token=token))[0] == 401


def test_deleted_token_is_refused_at_once(server: ServerProgram, worker: ServedWorker) -> None:
    """By the next request; wrong tokens of its clients don't lock the server out."""
    store_token(worker.store, "ann", "of-ann", None)
    assert server.whoami("of-ann", SINGLE_POST_ERA) == "ann"
    delete_tokens(worker.store, username="ann")
    statuses = {server.send(server.request(token=token))[0] for token in ("of-ann", *(f"g{n}" for n in range(15)))}
    assert statuses == {401}
    assert server.whoami(TOKEN, SINGLE_POST_ERA) == "automation"


@pytest.mark.parametrize("name", SERVERS)
def test_server_lets_nobody_use_it_without_its_worker(name: str, tmp_path: Path) -> None:
    """The worker doesn't answer: its users are refused, and the server goes on."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with running(name, nowhere, tmp_path) as server:
        status, _, body = server.send(server.request())
    assert (status, json.loads(body)["error"]) == (401, "invalid_token")
