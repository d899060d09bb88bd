"""Streams that tell of changed lists, as clients see them: who gets one, and what is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.subscriptions import PromptsListChanged, ToolsListChanged

from nfcli.worker.mcp import notifications as list_changes
from nfcli.worker.mcp.notifications import ListChanges
from nfcli.worker.tools.catalogue import ToolCatalogue
from nfcli.worker.tools.policy import ToolPolicy
from support.mcp.change_streams import NO_METADATA, PROMPTS, TOOLS, Stream, change, in_both_eras
from support.mcp.served_worker import HANDSHAKE_ERA, SINGLE_POST_ERA, TOKEN, WAIT_SECONDS
from support.mcp.tool_entries import PROMPT, entry

Serve = Callable[..., Any]
Open = Callable[..., Any]


@in_both_eras
def test_those_who_listen_are_told_which_list_has_changed(stream_site: Any, open_stream: Open, era: str) -> None:
    """Only that: they ask for the list then. A change that isn't one is not told."""
    stream = open_stream(stream_site, era)
    assert stream.headers["content-type"] == "text/event-stream"
    change(stream_site, "a")
    assert stream.next()["method"] == TOOLS
    change(stream_site, "a")
    change(stream_site, "a", mcp={**entry()["mcp"], "prompts": [PROMPT]})
    assert stream.next()["method"] == PROMPTS
    stream_site.worker.catalogue.retain([])
    assert [stream.next()["method"], stream.next()["method"]] == [TOOLS, PROMPTS]


def test_the_older_form_s_messages_are_notifications_and_nothing_else(stream_site: Any, open_stream: Open) -> None:
    """As MCP 2025-11-25 has them."""
    stream = open_stream(stream_site, HANDSHAKE_ERA)
    change(stream_site, "a")
    assert stream.next() == {"jsonrpc": "2.0", "method": TOOLS}


@in_both_eras
def test_what_can_be_listened_to_is_said_before(stream_site: Any, era: str) -> None:
    """In the handshake, and in what stands for it."""
    if era == HANDSHAKE_ERA:
        params = {"protocolVersion": era, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        told = stream_site.post("initialize", params)[2]["result"]["capabilities"]
    else:
        told = stream_site.post("server/discover", era=era)[2]["result"]["capabilities"]
    assert told == {"tools": {"listChanged": True}, "prompts": {"listChanged": True}}


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
def test_strangers_get_no_stream(
    stream_site: Any, era: str, headers: tuple[str, ...], token: str | None, status: int
) -> None:
    """A stream is asked for like everything else."""
    with Stream(stream_site, era, *headers, token=token) as stream:
        assert (stream.status, stream.headers["content-type"]) == (status, "application/json")


def test_a_token_without_a_required_scope_gets_no_stream(served_worker: Serve) -> None:
    """The same for scopes."""
    bearer = {**NO_METADATA, "required_scopes": ["read"], "token_scopes": []}
    with Stream(served_worker(fabric=object(), auth_bearer=bearer), HANDSHAKE_ERA) as stream:
        assert stream.status == 403


@pytest.mark.parametrize("accept", ["", "application/json", "text/html, application/json;q=1"])
def test_a_get_must_accept_a_stream(stream_site: Any, accept: str) -> None:
    """A browser that is pointed at the URL is told what is there."""
    with Stream(stream_site, HANDSHAKE_ERA, f"accept: {accept}") as stream:
        told = "a GET opens a stream of changes: Accept must name text/event-stream"
        assert (stream.status, stream.body()["error"]["message"]) == (406, told)
    with Stream(stream_site, HANDSHAKE_ERA, "accept: application/json, Text/Event-Stream;q=0.5") as stream:
        assert stream.status == 200


@pytest.mark.parametrize("version", [SINGLE_POST_ERA, "2030-01-01", "x"])
def test_a_get_of_another_mcp_version_is_refused(stream_site: Any, version: str) -> None:
    """2026-07-28 has no stream for a GET."""
    with Stream(stream_site, HANDSHAKE_ERA, f"mcp-protocol-version: {version}") as stream:
        told = "this MCP version has no stream for a GET: send subscriptions/listen"
        assert (stream.status, stream.headers["allow"], stream.body()["error"]["message"]) == (405, "POST", told)
    with Stream(stream_site, HANDSHAKE_ERA, "mcp-protocol-version: ") as stream:
        assert stream.status == 200


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_refused(stream_site: Any, method: str) -> None:
    """There is no session that a DELETE could end."""
    status, headers, _ = stream_site.get("/mcp", f"authorization: Bearer {TOKEN}", method=method)
    assert (status, headers["allow"]) == (405, "GET, POST")


def test_in_direct_mode_there_is_nothing_to_listen_to(served_worker: Serve) -> None:
    """The tools never change there."""
    worker = served_worker(auth_bearer=NO_METADATA)
    with Stream(worker, HANDSHAKE_ERA) as stream:
        told = "this MCP server has no streams: send a POST"
        assert (stream.status, stream.headers["allow"], stream.body()["error"]["message"]) == (405, "POST", told)
    with Stream(worker, SINGLE_POST_ERA) as stream:
        assert (stream.status, stream.body()["error"]["code"]) == (404, -32601)


def test_streams_are_bounded(stream_site: Any, open_stream: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both kinds together; all else is served."""
    monkeypatch.setattr(list_changes, "MAX_STREAMS", 2)
    open_stream(stream_site, SINGLE_POST_ERA)
    told = "too many streams are open: ask again for the lists, now and then"
    with Stream(stream_site, HANDSHAKE_ERA):
        with Stream(stream_site, HANDSHAKE_ERA) as refused:
            assert (refused.status, refused.body()["error"]["message"]) == (503, told)
        with Stream(stream_site, SINGLE_POST_ERA) as refused:
            assert refused.body()["error"]["message"] == told
            assert stream_site.post()[0] == 200


def test_a_user_s_streams_leave_room_for_others(
    stream_site: Any, open_stream: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One who opens them without end keeps nobody else from hearing of changes."""
    monkeypatch.setattr(list_changes, "MAX_STREAMS_OF_A_USER", 2)
    stream_site.store.store("other", "other-token", None)
    open_stream(stream_site, SINGLE_POST_ERA)
    open_stream(stream_site, HANDSHAKE_ERA)
    for era in (HANDSHAKE_ERA, SINGLE_POST_ERA):
        with Stream(stream_site, era) as refused:
            assert not refused.is_open
    with Stream(stream_site, HANDSHAKE_ERA, token="other-token") as first:
        assert first.is_open
        with Stream(stream_site, SINGLE_POST_ERA, token="other-token") as second:
            assert second.is_open


def test_a_silent_stream_is_kept_alive(stream_site: Any, open_stream: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """By comments, which clients pass over; without them nobody would find that the other side is dead."""
    monkeypatch.setattr(list_changes, "KEEP_ALIVE_SECONDS", 0.01)
    stream = open_stream(stream_site, HANDSHAKE_ERA)
    lines = [stream._response.readline() for _ in range(6)]
    assert lines == [b"\n", b": nothing has changed\n"] * 3


def test_the_sdk_s_client_hears_of_changes_and_of_the_end(stream_site: Any) -> None:
    """A stream that ends by itself is no lost one."""
    heard: list[object] = []

    async def listen() -> None:
        headers = {"authorization": f"Bearer {TOKEN}"}
        async with (
            httpx2.AsyncClient(headers=headers, trust_env=False) as http,
            Client(streamable_http_client(stream_site.url, http_client=http), mode="auto") as client,
            client.listen(tools_list_changed=True, prompts_list_changed=True) as events,
        ):
            await asyncio.to_thread(change, stream_site, "a")
            heard.append(await anext(events))
            await asyncio.to_thread(change, stream_site, "a", mcp={**entry()["mcp"], "prompts": [PROMPT]})
            heard.append(await anext(events))
            stop = asyncio.create_task(asyncio.to_thread(stream_site.stop))
            heard.extend([event async for event in events])
            await stop

    asyncio.run(asyncio.wait_for(listen(), WAIT_SECONDS))
    assert heard == [ToolsListChanged(), PromptsListChanged()]


def test_many_changes_at_once_are_told_once() -> None:
    """However many threads make them: the list is to be asked for again, that is all."""

    async def test() -> None:
        changes, heard = ListChanges(), []
        changes._bus.subscribe(heard.append)
        with changes.following(catalogue):
            threads = [
                threading.Thread(target=catalogue.replace, args=(f"s{number}", [entry()])) for number in range(20)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert heard == []
            await asyncio.to_thread(int)
            assert heard == [ToolsListChanged()]
        assert catalogue.on_change == []

    catalogue = ToolCatalogue("w1", "fastmcp", [], ToolPolicy())
    asyncio.run(asyncio.wait_for(test(), WAIT_SECONDS))


def test_a_change_after_the_end_is_nothing() -> None:
    """The fabric's thread may be a little late."""

    async def follow() -> Any:
        following = ListChanges().following(catalogue)
        following.__enter__()
        return following

    catalogue = ToolCatalogue("w1", "fastmcp", [], ToolPolicy())
    following = asyncio.run(follow())
    assert catalogue.replace("net", [entry()]) == ["service_net__task_ping"]
    following.__exit__(None, None, None)
    assert catalogue.on_change == []
