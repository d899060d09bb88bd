"""The configurations of forward authentication on the page, in real proxies before a server without authentication."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from support import examples
from support.fabric.worker import eventually
from support.mcp.protected_server import ProtectedServer
from support.mcp.proxies import NAME, PROGRAMS, Program, Proxied, run_proxy
from support.mcp.served_worker import HANDSHAKE_ERA, SINGLE_POST_ERA, TOKEN, WAIT_SECONDS, ServedWorker
from support.tokens.token_store import delete_tokens, store_token

pytestmark = pytest.mark.slow

FILES = {block.file: block.text for block in examples.blocks("man/pages/other-servers.md") if block.file}
OTHERS = {"haproxy.cfg": ("verify.lua",)}
METADATA = f"https://{NAME}/.well-known/oauth-protected-resource"
SETTINGS = {"allowed_hosts": [NAME], "trusted_proxies": ["127.0.0.1"]}
FORGED = {
    "X-Auth-User": "root",
    "x-auth-scopes": "admin",
    "X-Auth-Expires": "9",
    "X_Auth_User": "root",
    "X-Forwarded-For": "9.9.9.9",
    "X-Forwarded-Host": "evil.example.com",
    "Forwarded": "for=9.9.9.9;host=evil.example.com",
}
in_both_eras = pytest.mark.parametrize("era", [HANDSHAKE_ERA, SINGLE_POST_ERA])


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedWorker]:
    """Serve a worker as the page configures it."""
    bearer = {"forward_auth": True, "token_scopes": ["mcp"]}
    with ServedWorker(tmp_path_factory.mktemp("asked") / "tokens", **SETTINGS, auth_bearer=bearer) as served:
        yield served


@pytest.fixture(scope="module")
def server() -> Iterator[ProtectedServer]:
    """Serve MCP without authentication."""
    with ProtectedServer() as served:
        yield served


@pytest.fixture(scope="module", params=PROGRAMS, ids=lambda program: program.name)
def program(request: pytest.FixtureRequest) -> Program:
    """Return each proxy."""
    found: Program = request.param
    return found


@pytest.fixture(scope="module")
def proxied(
    program: Program, worker: ServedWorker, server: ProtectedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxied]:
    """Run the proxy before the server."""
    folder = tmp_path_factory.mktemp(program.name)
    with run_proxy(program, folder, files(program), addresses(urlsplit(worker.url).netloc, server.address)) as found:
        yield found


def files(program: Program) -> dict[str, str]:
    """Return the files of a proxy on the page."""
    return {name: FILES[name] for name in (program.file, *OTHERS.get(program.file, ()))}


def addresses(worker: str, server: str) -> dict[str, str]:
    """Return what stands for the addresses on the page."""
    return {"127.0.0.1:8001": worker, "127.0.0.1:9000": server}


def call(proxied: Proxied, era: str, tool: str, headers: dict[str, str], arguments: dict[str, Any]) -> Any:
    """Call a tool with the SDK's client; return its structured content."""

    async def run() -> Any:
        mounts = {f"https://{NAME}": _Redirected(proxied)}
        async with (
            httpx2.AsyncClient(headers=headers, mounts=mounts, trust_env=False) as http_client,
            Client(
                streamable_http_client(proxied.url, http_client=http_client),
                mode="legacy" if era == HANDSHAKE_ERA else era,
            ) as client,
        ):
            assert [each.name for each in (await client.list_tools()).tools] == ["whoami", "steps"]
            return (await client.call_tool(tool, arguments)).structured_content

    return asyncio.run(asyncio.wait_for(run(), WAIT_SECONDS))


def challenges(proxied: Proxied, request: bytes, source: str | None = None) -> tuple[int, list[str]]:
    """Send a request; return the status, and each challenge."""
    with proxied.connect(source) as connection:
        connection.sendall(request)
        with closing(http.client.HTTPResponse(connection)) as response:
            response.begin()
            return response.status, response.headers.get_all("www-authenticate", [])


class _Redirected(httpx2.AsyncHTTPTransport):
    """Connects to the proxy's port of this machine, whatever the URL's host."""

    def __init__(self, proxied: Proxied) -> None:
        super().__init__(verify=proxied.context)
        self._port = proxied.port

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.url = request.url.copy_with(host="127.0.0.1", port=self._port)
        request.extensions["sni_hostname"] = NAME
        return await super().handle_async_request(request)


@in_both_eras
def test_client_with_a_token_uses_the_server(proxied: Proxied, era: str) -> None:
    """The server learns the user, and neither the token nor what the client forges."""
    seen = call(proxied, era, "whoami", {"Authorization": f"Bearer {TOKEN}", **FORGED}, {})
    assert {name: value for name, value in seen.items() if "auth" in name} == {
        "x-auth-user": "automation",
        "x-auth-scopes": "mcp",
        "x-auth-expires": "-",
    }
    assert TOKEN not in json.dumps(seen)


@pytest.mark.parametrize(("token", "error"), [(None, ""), ("wrong", 'error="invalid_token", ')], ids=["none", "wrong"])
def test_client_without_a_valid_token_gets_one_challenge(
    proxied: Proxied, program: Program, token: str | None, error: str
) -> None:
    """It names the metadata of the server that the proxy is for; the document is there."""
    source = f"127.0.3.{PROGRAMS.index(program) + 1}"
    expected = f'Bearer {error}resource_metadata="{METADATA}"'
    assert challenges(proxied, proxied.request(token=token), source) == (401, [expected])
    document = json.loads(proxied.get(urlsplit(METADATA).path)[2])
    assert document["resource"] == f"https://{NAME}"
    assert proxied.get("/register", method="POST")[0] == 400


def test_wrong_tokens_lock_the_client_out_and_nobody_else(proxied: Proxied, program: Program) -> None:
    """429 reaches the client, with the time to wait."""
    number = PROGRAMS.index(program) + 1
    guesser, other = f"127.0.1.{number}", f"127.0.2.{number}"
    forged = tuple(FORGED.items())
    statuses = [proxied.status(token=f"guess{n}", source=guesser, headers=forged) for n in range(10)]
    assert statuses == [401] * 10
    status, headers, _ = proxied.send(proxied.request(token="guess10"), guesser)
    assert (status, headers["retry-after"].isdigit()) == (429, True)
    assert proxied.status(source=other, era=SINGLE_POST_ERA) == 200


def test_deleted_token_is_refused_at_once(proxied: Proxied, worker: ServedWorker) -> None:
    """By the next request."""
    store_token(worker.store, "Ann, B.", "of-ann", None)
    seen = call(proxied, SINGLE_POST_ERA, "whoami", {"Authorization": "Bearer of-ann"}, {})
    assert seen["x-auth-user"] == "Ann%2C%20B."
    delete_tokens(worker.store, username="Ann, B.")
    assert proxied.status(token="of-ann") == 401


def test_foreign_origin_and_other_paths_do_not_reach_the_server(proxied: Proxied) -> None:
    """The worker protects the server from pages of other sites too."""
    assert proxied.status(headers=(("origin", "https://evil.example.com"),)) == 403
    assert proxied.status(path="/mcp/other") == 404
    assert proxied.get("/_verify")[0] == 404
    assert proxied.get("/verify")[0] == 404


def test_large_bodies_pass(proxied: Proxied) -> None:
    """Those that the worker itself wouldn't read: the server decides."""
    params = {"name": "whoami", "arguments": {"text": "x" * 3_000_000}}
    assert proxied.status(method="tools/call", params=params, era=SINGLE_POST_ERA) == 200


def test_events_pass_one_by_one(proxied: Proxied, server: ProtectedServer) -> None:
    """The first comes while the call still runs."""
    server.may_end.clear()
    params = {"name": "steps", "arguments": {}, "_meta": {"progressToken": 1}}
    with proxied.connect() as connection, closing(http.client.HTTPResponse(connection)) as response:
        connection.sendall(proxied.request("tools/call", params, era=SINGLE_POST_ERA))
        response.begin()
        lines = (line for line in response if line.startswith(b"data: {"))
        assert json.loads(next(lines)[6:])["params"]["message"] == "begun"
        server.may_end.set()
        assert json.loads(next(lines)[6:])["result"]["structuredContent"] == {"result": "done"}


def test_missing_scope_is_403_with_one_challenge(program: Program, server: ProtectedServer, tmp_path: Path) -> None:
    """What the token lacks reaches the client."""
    bearer = {"forward_auth": True, "token_scopes": ["mcp"], "required_scopes": ["admin"]}
    with ServedWorker(tmp_path / "w" / "tokens", **SETTINGS, auth_bearer=bearer) as worker:
        netloc = urlsplit(worker.url).netloc
        with run_proxy(program, tmp_path, files(program), addresses(netloc, server.address)) as proxied:
            found = challenges(proxied, proxied.request())
    expected = f'Bearer error="insufficient_scope", scope="admin", resource_metadata="{METADATA}"'
    assert found == (403, [expected])


def test_worker_that_does_not_answer_is_503(program: Program, server: ProtectedServer, tmp_path: Path) -> None:
    """Whether it is gone or hangs, so that clients keep their tokens and the server gets no request."""
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        address = f"127.0.0.1:{hanging.getsockname()[1]}"
        with run_proxy(program, tmp_path, files(program), addresses(address, server.address)) as proxied:
            assert proxied.status() == 503
            hanging.close()
            assert eventually(lambda: proxied.status() == 503)
