"""MCP clients of four origins against a real server, in both protocol eras: the SDK's, aiohttp's, FastMCP's and curl.

aiohttp-tiny-mcp has a wire of its own, FastMCP goes over the SDK's; curl sends what the manual says to send.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import httpx2
import pytest
from aiohttp_tiny_mcp import Client as TinyClient
from aiohttp_tiny_mcp.client.base import ClientError as TinyError
from aiohttp_tiny_mcp.protocol.selection import AdapterSet
from fastmcp.client import Client as FastmcpClient
from fastmcp.client.transports import StreamableHttpTransport
from mcp import Client as SdkClient
from mcp import MCPError
from mcp.client.streamable_http import streamable_http_client

from nfcli.worker.http.bearer import INVALID_CREDENTIALS
from support.mcp.served_worker import HANDSHAKE_ERA, SINGLE_POST_ERA, TOKEN, WAIT_SECONDS, ServedWorker
from support.own_tools import OWN_TOOLS
from support.tokens.token_store import delete_tokens, store_token

STATUS = "service_fastmcp__task_get_status"

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")


@dataclass
class Seen:
    """What a client saw: the tools' names, what a call of `get_status` gave, or why it was refused; and each answer."""

    tools: list[str] = field(default_factory=list)
    status: dict[str, Any] = field(default_factory=dict)
    refusal: str | None = None
    answers: list[tuple[int, str | None]] = field(default_factory=list)


Drive = Callable[[str, dict[str, str], str, Seen], Awaitable[None]]


def _watching(headers: dict[str, str], seen: Seen) -> httpx2.AsyncClient:
    async def note(response: httpx2.Response) -> None:
        seen.answers.append((response.status_code, response.headers.get("www-authenticate")))

    return httpx2.AsyncClient(headers=headers, event_hooks={"response": [note]}, trust_env=False)


def _mode(era: str) -> str:
    return "legacy" if era == HANDSHAKE_ERA else era


async def drive_sdk(url: str, headers: dict[str, str], era: str, seen: Seen) -> None:
    """Use the MCP SDK's client."""
    async with (
        _watching(headers, seen) as http,
        SdkClient(streamable_http_client(url, http_client=http), mode=_mode(era)) as client,
    ):
        seen.tools = [tool.name for tool in (await client.list_tools()).tools]
        seen.status = (await client.call_tool(STATUS, {})).structured_content


async def drive_fastmcp(url: str, headers: dict[str, str], era: str, seen: Seen) -> None:
    """Use FastMCP's client."""
    transport = StreamableHttpTransport(
        url, headers, httpx_client_factory=lambda **kwargs: _watching(kwargs["headers"], seen)
    )
    async with FastmcpClient(transport, mode=_mode(era)) as client:
        seen.tools = [tool.name for tool in await client.list_tools()]
        seen.status = (await client.call_tool(STATUS, {})).structured_content or {}


async def drive_tiny(url: str, headers: dict[str, str], era: str, seen: Seen) -> None:
    """Use aiohttp-tiny-mcp's client."""

    async def note(_session: Any, _context: Any, done: aiohttp.TraceRequestEndParams) -> None:
        seen.answers.append((done.response.status, done.response.headers.get("www-authenticate")))

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(note)
    adapter = AdapterSet.default().by_version[era]
    async with (
        aiohttp.ClientSession(headers=headers, trace_configs=[trace]) as session,
        TinyClient(url, adapter, session=session) as client,
    ):
        await client.initialize()
        seen.tools = [tool.name for tool in await client.list_tools()]
        result = await client.call_tool(STATUS, {})
        assert not isinstance(result, dict)
        seen.status = result.structured_content


def use(drive: Drive, url: str, token: str | None, era: str) -> Seen:
    """List tools and call one; a refusal is noted, anything else that goes wrong is raised."""
    seen = Seen()
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}

    async def run() -> None:
        await asyncio.wait_for(drive(url, headers, era, seen), WAIT_SECONDS)

    try:
        asyncio.run(run())
    except* (MCPError, TinyError) as group:
        errors = list(_leaves(group))
        seen.refusal = str(errors[0])
    return seen


def _leaves(group: BaseExceptionGroup[Any]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Serve a worker that publishes no metadata; tests use tokens of their own.

    All of them come from one address, with more wrong tokens than would be let pass.
    """
    bearer = {"issuer_url": None, "resource_server_url": None, "max_wrong_tokens_per_minute": 0}
    folder = tmp_path_factory.mktemp("served") / "tokens"
    with ServedWorker(folder, auth_bearer=bearer) as worker:
        yield worker


@pytest.fixture(scope="module")
def scoped_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Serve a worker whose tokens lack the scope it requires."""
    bearer = {"required_scopes": ["admin"], "token_scopes": ["read"], "issuer_url": None}
    folder = tmp_path_factory.mktemp("scoped") / "tokens"
    with ServedWorker(folder, auth_bearer=bearer) as worker:
        yield worker


@pytest.fixture(params=[drive_sdk, drive_tiny, drive_fastmcp], ids=["sdk", "tiny", "fastmcp"])
def drive(request: pytest.FixtureRequest) -> Drive:
    """Return each client in turn."""
    client: Drive = request.param
    return client


@pytest.fixture(params=[HANDSHAKE_ERA, SINGLE_POST_ERA])
def era(request: pytest.FixtureRequest) -> str:
    """Return each protocol era in turn."""
    version: str = request.param
    return version


def test_right_token_works(worker: Any, drive: Drive, era: str) -> None:
    """The tools are listed, and one can be called."""
    seen = use(drive, worker.url, TOKEN, era)
    assert (seen.tools, seen.refusal) == (OWN_TOOLS, None)
    assert seen.status["w1"]["result"]["url"] == worker.url
    assert {status for status, _ in seen.answers} <= {200, 202}


def test_path_with_a_slash_at_its_end_works(worker: Any, drive: Drive, era: str) -> None:
    """Some people write it so."""
    assert use(drive, f"{worker.url}/", TOKEN, era).tools == OWN_TOOLS


def test_client_without_token_is_challenged(worker: Any, drive: Drive, era: str) -> None:
    """And tries nothing else."""
    seen = use(drive, worker.url, None, era)
    assert seen == Seen(refusal="authentication required: send Bearer credentials", answers=[(401, "Bearer")])


def test_wrong_token_is_refused(worker: Any, drive: Drive, era: str) -> None:
    """With the reason that RFC 6750 has for it."""
    seen = use(drive, worker.url, "wrong", era)
    assert seen == Seen(refusal=INVALID_CREDENTIALS, answers=[(401, 'Bearer error="invalid_token"')])


def test_expired_token_is_refused_from_its_moment_on(worker: Any, drive: Drive, era: str) -> None:
    """It worked until then."""
    store_token(worker.store, "automation", "t", 60)
    assert use(drive, worker.url, "t", era).tools == OWN_TOOLS
    worker.now += 60
    seen = use(drive, worker.url, "t", era)
    assert seen == Seen(refusal=INVALID_CREDENTIALS, answers=[(401, 'Bearer error="invalid_token"')])


def test_deleted_token_is_refused_on_the_next_request(worker: Any, drive: Drive, era: str) -> None:
    """It worked until then."""
    store_token(worker.store, "automation", "t", None)
    assert use(drive, worker.url, "t", era).tools == OWN_TOOLS
    delete_tokens(worker.store, token="t")
    seen = use(drive, worker.url, "t", era)
    assert seen == Seen(refusal=INVALID_CREDENTIALS, answers=[(401, 'Bearer error="invalid_token"')])


def test_token_without_the_scope_is_forbidden(scoped_worker: Any, drive: Drive, era: str) -> None:
    """The challenge names the scope."""
    seen = use(drive, scoped_worker.url, TOKEN, era)
    challenge = 'Bearer error="insufficient_scope", scope="admin"'
    assert seen == Seen(refusal="the token lacks a required scope", answers=[(403, challenge)])


@pytest.mark.parametrize("token", [TOKEN, None])
def test_sdk_that_finds_out_the_era_by_itself_gets_along(worker: Any, token: str | None) -> None:
    """It asks in the new way first; a refusal doesn't mislead it."""
    seen = Seen()
    headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def run() -> None:
        async with (
            _watching(headers, seen) as http,
            SdkClient(streamable_http_client(worker.url, http_client=http), mode="auto") as client,
        ):
            seen.tools = [tool.name for tool in (await client.list_tools()).tools]

    if token:
        asyncio.run(run())
        assert seen.tools == OWN_TOOLS
    else:
        with pytest.raises((MCPError, ExceptionGroup)):
            asyncio.run(run())
        assert set(seen.answers) == {(401, "Bearer")}


def curl(url: str, era: str, *options: str) -> tuple[int, str | None, Any]:
    """Ask curl for the tools; return status, challenge and the JSON that came."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    headers = ["content-type: application/json", "accept: application/json", f"mcp-protocol-version: {era}"]
    if era == SINGLE_POST_ERA:
        headers.append("mcp-method: tools/list")
        names = {"protocolVersion": era, "clientCapabilities": {}}
        message["params"] = {"_meta": {f"io.modelcontextprotocol/{name}": value for name, value in names.items()}}
    written = "\n%{http_code}\n%header{www-authenticate}"
    command = [
        "curl",
        "--silent",
        "--show-error",
        "--max-time",
        "10",
        "--data",
        json.dumps(message),
        "--write-out",
        written,
    ]
    for header in headers:
        command += ["--header", header]
    done = subprocess.run(
        [*command, *options, url], capture_output=True, text=True, check=True, timeout=2 * WAIT_SECONDS
    )
    body, status, challenge = done.stdout.rsplit("\n", 2)
    return int(status), challenge or None, json.loads(body)


@needs_curl
@pytest.mark.parametrize("path", ["", "/"])
def test_curl_lists_the_tools(worker: Any, era: str, path: str) -> None:
    """With the header written as the manual writes it, or as curl's own option does."""
    for options in (("--header", f"Authorization: Bearer {TOKEN}"), ("--oauth2-bearer", TOKEN)):
        status, challenge, body = curl(worker.url + path, era, *options)
        assert (status, challenge) == (200, None)
        assert [tool["name"] for tool in body["result"]["tools"]] == OWN_TOOLS


@needs_curl
def test_curl_is_refused_like_anybody(worker: Any, scoped_worker: Any, era: str) -> None:
    """No token, a wrong, an expired, a deleted one, and one without the scope."""
    store_token(worker.store, "automation", "short", 60)
    store_token(worker.store, "automation", "gone", None)
    bearer = "--oauth2-bearer"
    assert curl(worker.url, era, bearer, "short")[0] == curl(worker.url, era, bearer, "gone")[0] == 200
    worker.now += 60
    delete_tokens(worker.store, token="gone")
    invalid = (401, 'Bearer error="invalid_token"')
    assert curl(worker.url, era)[:2] == (401, "Bearer")
    assert [curl(worker.url, era, bearer, token)[:2] for token in ("wrong", "short", "gone")] == [invalid] * 3
    assert curl(scoped_worker.url, era, bearer, TOKEN)[:2] == (
        403,
        'Bearer error="insufficient_scope", scope="admin"',
    )
