"""The resource servers on the page, as processes of their own, ask a worker about the tokens of MCP clients."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from support import examples
from support.fabric.worker import eventually
from support.mcp.proxies import listens
from support.mcp.served_worker import HANDSHAKE_ERA, SINGLE_POST_ERA, TOKEN, WAIT_SECONDS, McpAddress, ServedWorker
from support.tokens.token_store import delete_tokens, store_token

pytestmark = pytest.mark.slow

FASTMCP_PYTHON = os.environ.get("NFCLI_FASTMCP_PYTHON", "")
FILES = {block.file: block.text for block in examples.blocks("man/pages/other-servers.md") if block.file}
SERVERS = {"sdk_server.py": sys.executable, "fastmcp_server.py": FASTMCP_PYTHON}
INTROSPECTION = [{"users": ["files-server"], "resources": ["https://files.example.com/mcp"]}]
SECRET = "of+the/server="
ATTEMPTS = 3
START_SECONDS = 60.0


class ResourceServer(McpAddress):
    """An MCP server that asks a worker about tokens."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/mcp"


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
) -> Iterator[ResourceServer]:
    """Run each server of the page."""
    if not SERVERS[request.param]:
        pytest.skip("NFCLI_FASTMCP_PYTHON names no Python with FastMCP")
    with running(request.param, worker.url, tmp_path_factory.mktemp("server")) as found:
        yield found


@contextmanager
def running(name: str, worker: str, folder: Path) -> Iterator[ResourceServer]:
    """Run a server of the page that asks the worker at a URL."""
    for _ in range(ATTEMPTS):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        text = FILES[name]
        for old, new in {"127.0.0.1:8001": urlsplit(worker).netloc, "port=9000": f"port={port}"}.items():
            assert old in text
            text = text.replace(old, new)
        (folder / name).write_text(text)
        with (folder / "log").open("w") as log:
            environ = {**os.environ, "FILES_SERVER_TOKEN": SECRET}
            process = subprocess.Popen([SERVERS[name], name], cwd=folder, env=environ, stdout=log, stderr=log)
        try:
            if serves(process, port):
                yield ResourceServer(port)
                return
        finally:
            process.terminate()
            process.wait(WAIT_SECONDS)
    pytest.fail((folder / "log").read_text())


def serves(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until a process accepts connections, or has ended; return whether it serves."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if eventually(lambda: listens(port) or process.poll() is not None):
            break
    return process.poll() is None


def whoami(url: str, token: str, era: str) -> Any:
    """Call the tool with the SDK's client; return its text."""

    async def run() -> Any:
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            httpx2.AsyncClient(headers=headers, trust_env=False) as http,
            Client(
                streamable_http_client(url, http_client=http), mode="legacy" if era == HANDSHAKE_ERA else era
            ) as client,
        ):
            (content,) = (await client.call_tool("whoami", {})).content
            return content.model_dump()["text"]

    return asyncio.run(asyncio.wait_for(run(), WAIT_SECONDS))


@pytest.mark.parametrize("era", [HANDSHAKE_ERA, SINGLE_POST_ERA])
def test_server_knows_the_user_of_a_token(server: ResourceServer, era: str) -> None:
    """In both eras of the protocol."""
    assert whoami(server.url, TOKEN, era) == "automation"


@pytest.mark.parametrize("token", [None, "wrong", SECRET + "x"])
def test_server_refuses_others(server: ResourceServer, token: str | None) -> None:
    """The worker says that they aren't active."""
    assert server.send(server.request(token=token))[0] == 401


def test_deleted_token_is_refused_at_once(server: ResourceServer, worker: ServedWorker) -> None:
    """By the next request; wrong tokens of its clients don't lock the server out."""
    store_token(worker.store, "ann", "of-ann", None)
    assert whoami(server.url, "of-ann", SINGLE_POST_ERA) == "ann"
    delete_tokens(worker.store, username="ann")
    statuses = {server.send(server.request(token=token))[0] for token in ("of-ann", *(f"g{n}" for n in range(15)))}
    assert statuses == {401}
    assert whoami(server.url, TOKEN, SINGLE_POST_ERA) == "automation"


@pytest.mark.parametrize("name", SERVERS)
def test_server_lets_nobody_use_it_without_its_worker(name: str, tmp_path: Path) -> None:
    """The worker doesn't answer: its users are refused, and the server goes on."""
    if not SERVERS[name]:
        pytest.skip("NFCLI_FASTMCP_PYTHON names no Python with FastMCP")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with running(name, nowhere, tmp_path) as server:
        status, _, body = server.send(server.request())
    assert (status, json.loads(body)["error"]) == (401, "invalid_token")
