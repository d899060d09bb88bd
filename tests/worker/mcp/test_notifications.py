"""Notification streams of changed lists: who gets one, and what is sent."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.subscriptions import PromptsListChanged, ToolsListChanged
from starlette.types import Message

from nfcli.worker.mcp import notifications
from nfcli.worker.mcp.notifications import ListChangeNotifier
from nfcli.worker.tools.catalogue import ToolCatalogue
from nfcli.worker.tools.policy import ToolPolicy
from support.mcp.called_tools import Fabric
from support.mcp.change_streams import NO_METADATA, PROMPTS, TOOLS, Stream, change, in_both_eras
from support.mcp.served_worker import HANDSHAKE_ERA, SINGLE_POST_ERA, TOKEN, WAIT_SECONDS
from support.mcp.tool_entries import PROMPT, entry
from support.tokens.token_store import store_token

Serve = Callable[..., Any]
Open = Callable[..., Any]


@in_both_eras
def test_clients_are_notified_which_list_has_changed(stream_site: Any, open_stream: Open, era: str) -> None:
    """A replacement with equal entries is no change."""
    stream = open_stream(stream_site, era)
    assert stream.headers["content-type"] == "text/event-stream"
    change(stream_site, "a")
    assert stream.next()["method"] == TOOLS
    change(stream_site, "a")
    change(stream_site, "a", mcp={**entry()["mcp"], "prompts": [PROMPT]})
    assert stream.next()["method"] == PROMPTS
    stream_site.worker.catalogue.retain([])
    assert [stream.next()["method"], stream.next()["method"]] == [TOOLS, PROMPTS]


def test_get_stream_carries_json_rpc_notifications(stream_site: Any, open_stream: Open) -> None:
    """As MCP 2025-11-25 specifies."""
    stream = open_stream(stream_site, HANDSHAKE_ERA)
    change(stream_site, "a")
    assert stream.next() == {"jsonrpc": "2.0", "method": TOOLS}


@in_both_eras
def test_list_changes_are_announced_as_capabilities(stream_site: Any, era: str) -> None:
    """In the handshake, or by server/discover."""
    if era == HANDSHAKE_ERA:
        params = {"protocolVersion": era, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        found = stream_site.post("initialize", params)[2]["result"]["capabilities"]
    else:
        found = stream_site.post("server/discover", era=era)[2]["result"]["capabilities"]
    assert found == {"tools": {"listChanged": True}, "prompts": {"listChanged": True}}


@in_both_eras
@pytest.mark.parametrize(
    ("headers", "token", "status"),
    [
        ((), None, 401),
        ((), "wrong", 401),
        (("authorization: Basic x",), None, 401),
        (("origin: https://evil.example.com",), TOKEN, 403),
        (("origin: https://evil.example.com",), None, 403),
        (("host: evil.example.com",), TOKEN, 421),
    ],
    ids=str,
)
def test_streams_require_what_other_requests_require(
    stream_site: Any, era: str, headers: tuple[str, ...], token: str | None, status: int
) -> None:
    """A valid token, an allowed Host and Origin."""
    with Stream(stream_site, era, *headers, token=token) as stream:
        assert (stream.status, stream.headers["content-type"]) == (status, "application/json")


def test_a_token_without_a_required_scope_gets_no_stream(served_worker: Serve) -> None:
    """Nor does any other request."""
    bearer = {**NO_METADATA, "required_scopes": ["read"], "token_scopes": []}
    with Stream(served_worker(fabric=Fabric(), auth_bearer=bearer), HANDSHAKE_ERA) as stream:
        assert stream.status == 403


@pytest.mark.parametrize("accept", ["", "application/json", "text/html, application/json;q=1"])
def test_a_get_must_accept_a_stream(stream_site: Any, accept: str) -> None:
    """The error explains the URL to someone who opens it in a browser."""
    with Stream(stream_site, HANDSHAKE_ERA, f"accept: {accept}") as stream:
        message = "a GET opens a notification stream; Accept must include text/event-stream"
        assert (stream.status, stream.body()["error"]["message"]) == (406, message)
    with Stream(stream_site, HANDSHAKE_ERA, "accept: application/json, Text/Event-Stream;q=0.5") as stream:
        assert stream.status == 200


@pytest.mark.parametrize("version", [SINGLE_POST_ERA, "2030-01-01", "x"])
def test_a_get_of_another_mcp_version_is_rejected(stream_site: Any, version: str) -> None:
    """2026-07-28 has no stream for a GET."""
    with Stream(stream_site, HANDSHAKE_ERA, f"mcp-protocol-version: {version}") as stream:
        message = "this MCP version has no stream for a GET; send subscriptions/listen"
        assert (stream.status, stream.headers["allow"], stream.body()["error"]["message"]) == (405, "POST", message)
    with Stream(stream_site, HANDSHAKE_ERA, "mcp-protocol-version: ") as stream:
        assert stream.status == 200


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_rejected(stream_site: Any, method: str) -> None:
    """There is no session that a DELETE could end."""
    status, headers, _ = stream_site.get("/mcp", f"authorization: Bearer {TOKEN}", method=method)
    assert (status, headers["allow"]) == (405, "GET, POST")


def test_direct_mode_has_no_streams(served_worker: Serve) -> None:
    """The tools never change there."""
    worker = served_worker(auth_bearer=NO_METADATA)
    with Stream(worker, HANDSHAKE_ERA) as stream:
        message = "this MCP server has no streams; send a POST"
        assert (stream.status, stream.headers["allow"], stream.body()["error"]["message"]) == (405, "POST", message)
    with Stream(worker, SINGLE_POST_ERA) as stream:
        assert (stream.status, stream.body()["error"]["code"]) == (404, -32601)


def test_number_of_streams_is_limited(stream_site: Any, open_stream: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both kinds together; other requests are served."""
    monkeypatch.setattr(notifications, "MAX_STREAMS", 2)
    open_stream(stream_site, SINGLE_POST_ERA)
    message = "too many notification streams are open; poll the lists instead"
    with Stream(stream_site, HANDSHAKE_ERA):
        with Stream(stream_site, HANDSHAKE_ERA) as rejected:
            assert (rejected.status, rejected.body()["error"]["message"]) == (503, message)
        with Stream(stream_site, SINGLE_POST_ERA) as rejected:
            assert rejected.body()["error"]["message"] == message
            assert stream_site.post()[0] == 200


def test_number_of_streams_per_user_is_limited(
    stream_site: Any, open_stream: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user who opens many leaves room for others."""
    monkeypatch.setattr(notifications, "MAX_STREAMS_PER_USER", 2)
    store_token(stream_site.store, "other", "other-token", None)
    open_stream(stream_site, SINGLE_POST_ERA)
    open_stream(stream_site, HANDSHAKE_ERA)
    for era in (HANDSHAKE_ERA, SINGLE_POST_ERA):
        with Stream(stream_site, era) as rejected:
            assert not rejected.is_open
    with Stream(stream_site, HANDSHAKE_ERA, token="other-token") as first:
        assert first.is_open
        with Stream(stream_site, SINGLE_POST_ERA, token="other-token") as second:
            assert second.is_open


def test_idle_stream_is_kept_alive(stream_site: Any, open_stream: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """By comments, which clients skip; they also detect connections that are dead."""
    monkeypatch.setattr(notifications, "KEEP_ALIVE_SECONDS", 0.01)
    stream = open_stream(stream_site, HANDSHAKE_ERA)
    lines = [stream.read_line() for _ in range(6)]
    assert lines == [b"\n", b": nothing has changed\n"] * 3


def test_sdk_client_receives_changes_and_the_end(stream_site: Any) -> None:
    """A stream that is completed is not a lost connection."""
    received: list[object] = []

    async def listen() -> None:
        headers = {"authorization": f"Bearer {TOKEN}"}
        async with (
            httpx2.AsyncClient(headers=headers, trust_env=False) as http,
            Client(streamable_http_client(stream_site.url, http_client=http), mode="auto") as client,
            client.listen(tools_list_changed=True, prompts_list_changed=True) as events,
        ):
            await asyncio.to_thread(change, stream_site, "a")
            received.append(await anext(events))
            await asyncio.to_thread(change, stream_site, "a", mcp={**entry()["mcp"], "prompts": [PROMPT]})
            received.append(await anext(events))
            stop = asyncio.create_task(asyncio.to_thread(stream_site.stop))
            received.extend([event async for event in events])
            await stop

    asyncio.run(asyncio.wait_for(listen(), WAIT_SECONDS))
    assert received == [ToolsListChanged(), PromptsListChanged()]


def test_simultaneous_changes_are_sent_once() -> None:
    """However many threads make them: clients only have to fetch the list again."""

    async def test() -> None:
        notifier, bodies = ListChangeNotifier(), asyncio.Queue[bytes]()

        async def receive() -> Message:
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Message) -> None:
            if message["type"] == "http.response.body":
                bodies.put_nowait(message["body"])

        with notifier.watch(catalogue):
            scope = {"headers": [(b"accept", b"text/event-stream")]}
            stream = asyncio.create_task(notifier(scope, receive, send))
            assert (await bodies.get()).startswith(b":")
            threads = [
                threading.Thread(target=catalogue.replace, args=(f"s{number}", [entry()])) for number in range(20)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert TOOLS.encode() in await bodies.get()
            notifier.close()
            await stream
            assert [bodies.get_nowait() for _ in range(bodies.qsize())] == [b""]
        assert catalogue.on_change == []

    catalogue = ToolCatalogue("w1", "fastmcp", [], ToolPolicy())
    asyncio.run(asyncio.wait_for(test(), WAIT_SECONDS))


def test_change_after_the_end_of_the_loop_is_ignored() -> None:
    """The fabric's thread may report it a little late."""

    async def watch() -> AbstractContextManager[None]:
        watching = ListChangeNotifier().watch(catalogue)
        watching.__enter__()
        return watching

    catalogue = ToolCatalogue("w1", "fastmcp", [], ToolPolicy())
    watching = asyncio.run(watch())
    assert catalogue.replace("net", [entry()]) == ["service_net__task_ping"]
    watching.__exit__(None, None, None)
    assert catalogue.on_change == []
