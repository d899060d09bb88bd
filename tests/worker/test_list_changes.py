"""Streams that tell of changed lists, from a client's and an attacker's seat: nothing comes to a token that has ended."""

from __future__ import annotations

import asyncio
import http.client
import json
import runpy
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import PromptsListChanged, ToolsListChanged

from nfcli.worker import exchange, list_changes, running
from nfcli.worker.catalogue import NoRules, ToolCatalogue
from nfcli.worker.list_changes import ListChanges

HERE = Path(__file__)
_served = runpy.run_path(str(HERE.with_name("served_worker.py")))
_entries = runpy.run_path(str(HERE.with_name("test_catalogue.py")))
_running = runpy.run_path(str(HERE.with_name("test_running.py")))
served_worker = _served["served_worker"]
TOKEN, WAIT_SECONDS = _served["TOKEN"], _served["WAIT_SECONDS"]
HANDSHAKE_ERA, SINGLE_POST_ERA = _served["HANDSHAKE_ERA"], _served["SINGLE_POST_ERA"]
entry, PROMPT, Site, run = _entries["entry"], _entries["PROMPT"], _running["Site"], _running["run"]
TOOLS, PROMPTS = "notifications/tools/list_changed", "notifications/prompts/list_changed"
NO_METADATA = {"issuer_url": None, "max_wrong_tokens_per_minute": 0}
ASKED = {"notifications": {"toolsListChanged": True, "promptsListChanged": True}}

Serve = Callable[..., Any]
Send = Callable[[Any], Awaitable[None]]

in_both_eras = pytest.mark.parametrize("era", [HANDSHAKE_ERA, SINGLE_POST_ERA])


class Stream:
    """A stream as a client of that era opens it: with a GET, or with `subscriptions/listen`."""

    def __init__(self, worker: Any, era: str, *headers: str, token: str | None = TOKEN) -> None:
        self._connection = worker.connect()
        self._connection.sendall(_request(worker, era, headers, token))
        self._response = http.client.HTTPResponse(self._connection)
        self._response.begin()
        self.status = self._response.status
        self.headers = {name.lower(): value for name, value in self._response.getheaders()}
        self.is_open = self.headers["content-type"] == "text/event-stream"
        if self.is_open and era == SINGLE_POST_ERA:
            assert self.next()["method"] == "notifications/subscriptions/acknowledged"
        elif self.is_open:
            assert self._response.readline().startswith(b":")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._response.close()
        self._connection.close()

    def body(self) -> Any:
        """Return the JSON of a refusal."""
        return json.loads(self._response.read())

    def next(self) -> Any:
        """Return the next message, None when the stream has ended."""
        while line := self._response.readline():
            if line.startswith(b"data: "):
                return json.loads(line.removeprefix(b"data: "))
        return None

    def methods(self) -> list[str | None]:
        """Return the methods of all messages until the stream's end."""
        found = []
        while (message := self.next()) is not None:
            found.append(message.get("method"))
        return found

    def has_ended(self) -> bool:
        """Whether what has come so far has the end of the stream in it; no matter what is still to come."""
        self._connection.setblocking(False)
        received = b""
        try:
            while chunk := self._connection.recv(65_536):
                received += chunk
        except BlockingIOError:
            return received.endswith(b"0\r\n\r\n")
        finally:
            self._connection.settimeout(WAIT_SECONDS)
        return True


def _request(worker: Any, era: str, headers: tuple[str, ...], token: str | None) -> bytes:
    if era == SINGLE_POST_ERA:
        pairs = tuple(tuple(line.split(": ", 1)) for line in headers)
        request: bytes = worker.request("subscriptions/listen", ASKED, era=era, token=token, headers=pairs)
        return request
    usual = {"host": worker.url.split("/")[2], "accept": "text/event-stream", "mcp-protocol-version": era}
    if token is not None:
        usual["authorization"] = f"Bearer {token}"
    chosen = {**usual, **dict(line.split(": ", 1) for line in headers)}
    lines = [f"{name}: {value}" for name, value in chosen.items() if value]
    return "\r\n".join(["GET /mcp HTTP/1.1", *lines, "", ""]).encode()


@pytest.fixture
def site(served_worker: Serve) -> Any:
    """Serve a worker on a fabric; it has a second token, `t`."""
    worker = served_worker(fabric=object(), auth_bearer=NO_METADATA)
    worker.store.store("other", "t", None)
    return worker


@pytest.fixture
def opened() -> Iterator[Callable[..., Stream]]:
    """Open streams until the end of the test; arguments are those of `Stream`."""
    with ExitStack() as streams:
        yield lambda *args, **kwargs: streams.enter_context(Stream(*args, **kwargs))


def change(worker: Any, *names: str, **changes: Any) -> None:
    """Publish these tasks of another service."""
    worker.worker.catalogue.replace("net", [entry(name, **changes) for name in names])


@in_both_eras
def test_those_who_listen_are_told_which_list_has_changed(site: Any, opened: Callable[..., Stream], era: str) -> None:
    """Only that: they ask for the list then. A change that isn't one is not told."""
    stream = opened(site, era)
    assert stream.headers["content-type"] == "text/event-stream"
    change(site, "a")
    assert stream.next()["method"] == TOOLS
    change(site, "a")
    change(site, "a", mcp={**entry()["mcp"], "prompts": [PROMPT]})
    assert stream.next()["method"] == PROMPTS
    site.worker.catalogue.keep_only([])
    assert [stream.next()["method"], stream.next()["method"]] == [TOOLS, PROMPTS]


def test_the_older_form_s_messages_are_notifications_and_nothing_else(site: Any, opened: Callable[..., Stream]) -> None:
    """As MCP 2025-11-25 has them."""
    stream = opened(site, HANDSHAKE_ERA)
    change(site, "a")
    assert stream.next() == {"jsonrpc": "2.0", "method": TOOLS}


@in_both_eras
def test_what_can_be_listened_to_is_said_before(site: Any, era: str) -> None:
    """In the handshake, and in what stands for it."""
    if era == HANDSHAKE_ERA:
        params = {"protocolVersion": era, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        told = site.post("initialize", params)[2]["result"]["capabilities"]
    else:
        told = site.post("server/discover", era=era)[2]["result"]["capabilities"]
    assert told == {"tools": {"listChanged": True}, "prompts": {"listChanged": True}}


@in_both_eras
def test_a_deleted_token_s_stream_has_ended_when_the_deletion_returns(
    site: Any, opened: Callable[..., Stream], era: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What happens later isn't told any more; other streams go on."""
    monkeypatch.setattr(running, "REVOKE_SECONDS", WAIT_SECONDS)
    ending, going_on = opened(site, era, token="t"), opened(site, era)
    site.store.delete(token="t")
    assert ending.has_ended()
    change(site, "a")
    assert going_on.next()["method"] == TOOLS
    assert not going_on.has_ended()


@in_both_eras
def test_nothing_is_told_to_a_deleted_token(site: Any, opened: Callable[..., Stream], era: str) -> None:
    """The stream ends as a whole, not in the middle of a word."""
    ending = opened(site, era, token="t")
    site.store.delete(token="t")
    change(site, "a")
    assert ending.methods() == []


@in_both_eras
def test_an_expired_token_s_stream_ends(site: Any, opened: Callable[..., Stream], era: str) -> None:
    """Nobody tells of it: the server looks twice a second."""
    site.store.store("other", "short", 60)
    ending = opened(site, era, token="short")
    site.now += 60
    assert ending.methods() == []


@in_both_eras
def test_a_change_is_not_told_to_a_token_that_expired_a_moment_ago(
    site: Any, opened: Callable[..., Stream], era: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part of a stream is looked at, not only its beginning."""
    monkeypatch.setattr(running, "LOOK_SECONDS", 10 * WAIT_SECONDS)
    site.store.store("other", "short", 60)
    ending = opened(site, era, token="short")
    site.now += 60
    change(site, "a")
    assert ending.methods() == []


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
def test_strangers_get_no_stream(site: Any, era: str, headers: tuple[str, ...], token: str | None, status: int) -> None:
    """A stream is asked for like everything else."""
    with Stream(site, era, *headers, token=token) as stream:
        assert (stream.status, stream.headers["content-type"]) == (status, "application/json")


def test_a_token_without_a_required_scope_gets_no_stream(served_worker: Serve) -> None:
    """The same for scopes."""
    bearer = {**NO_METADATA, "required_scopes": ["read"], "token_scopes": []}
    with Stream(served_worker(fabric=object(), auth_bearer=bearer), HANDSHAKE_ERA) as stream:
        assert stream.status == 403


@pytest.mark.parametrize("accept", ["", "application/json", "text/html, application/json;q=1"])
def test_a_get_must_accept_a_stream(site: Any, accept: str) -> None:
    """A browser that is pointed at the URL is told what is there."""
    with Stream(site, HANDSHAKE_ERA, f"accept: {accept}") as stream:
        told = "a GET opens a stream of changes: Accept must name text/event-stream"
        assert (stream.status, stream.body()["error"]["message"]) == (406, told)
    with Stream(site, HANDSHAKE_ERA, "accept: application/json, Text/Event-Stream;q=0.5") as stream:
        assert stream.status == 200


@pytest.mark.parametrize("version", [SINGLE_POST_ERA, "2030-01-01", "x"])
def test_a_get_of_another_mcp_version_is_refused(site: Any, version: str) -> None:
    """2026-07-28 has no stream for a GET."""
    with Stream(site, HANDSHAKE_ERA, f"mcp-protocol-version: {version}") as stream:
        told = "this MCP version has no stream for a GET: send subscriptions/listen"
        assert (stream.status, stream.headers["allow"], stream.body()["error"]["message"]) == (405, "POST", told)
    with Stream(site, HANDSHAKE_ERA, "mcp-protocol-version: ") as stream:
        assert stream.status == 200


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_refused(site: Any, method: str) -> None:
    """There is no session that a DELETE could end."""
    status, headers, _ = site.get("/mcp", f"authorization: Bearer {TOKEN}", method=method)
    assert (status, headers["allow"]) == (405, "GET, POST")


def test_in_direct_mode_there_is_nothing_to_listen_to(served_worker: Serve) -> None:
    """The tools never change there."""
    worker = served_worker(auth_bearer=NO_METADATA)
    with Stream(worker, HANDSHAKE_ERA) as stream:
        told = "this MCP server has no streams: send a POST"
        assert (stream.status, stream.headers["allow"], stream.body()["error"]["message"]) == (405, "POST", told)
    with Stream(worker, SINGLE_POST_ERA) as stream:
        assert (stream.status, stream.body()["error"]["code"]) == (404, -32601)


def test_streams_are_bounded(site: Any, opened: Callable[..., Stream], monkeypatch: pytest.MonkeyPatch) -> None:
    """Both kinds together; all else is served."""
    monkeypatch.setattr(list_changes, "MAX_STREAMS", 2)
    opened(site, SINGLE_POST_ERA)
    told = "too many streams are open: ask again for the lists, now and then"
    with Stream(site, HANDSHAKE_ERA):
        with Stream(site, HANDSHAKE_ERA) as refused:
            assert (refused.status, refused.body()["error"]["message"]) == (503, told)
        with Stream(site, SINGLE_POST_ERA) as refused:
            assert refused.body()["error"]["message"] == told
            assert site.post()[0] == 200


def test_a_silent_stream_is_kept_alive(
    site: Any, opened: Callable[..., Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By comments, which clients pass over; without them nobody would find that the other side is dead."""
    monkeypatch.setattr(list_changes, "KEEP_ALIVE_SECONDS", 0.01)
    stream = opened(site, HANDSHAKE_ERA)
    lines = [stream._response.readline() for _ in range(6)]
    assert lines == [b"\n", b": nothing has changed\n"] * 3


@in_both_eras
@pytest.mark.parametrize("has_authentication", [True, False])
def test_streams_end_at_once_when_the_worker_stops(
    served_worker: Serve, opened: Callable[..., Stream], era: str, *, has_authentication: bool
) -> None:
    """They aren't given the time that other requests are."""
    worker = served_worker(
        fabric=object(),
        grace_seconds=3 * WAIT_SECONDS,
        authentication_enabled=has_authentication,
        auth_bearer=NO_METADATA,
    )
    stream = opened(worker, era, token=TOKEN if has_authentication else None)
    change(worker, "a")
    assert stream.next()["method"] == TOOLS
    worker.stop()
    assert stream.methods() == ([None] if era == SINGLE_POST_ERA else [])


def test_the_sdk_s_client_hears_of_changes_and_of_the_end(site: Any) -> None:
    """A stream that ends by itself is no lost one."""
    heard: list[object] = []

    async def listen() -> None:
        headers = {"authorization": f"Bearer {TOKEN}"}
        async with (
            httpx2.AsyncClient(headers=headers, trust_env=False) as http,
            Client(streamable_http_client(site.url, http_client=http), mode="auto") as client,
            client.listen(tools_list_changed=True, prompts_list_changed=True) as events,
        ):
            await asyncio.to_thread(change, site, "a")
            heard.append(await anext(events))
            await asyncio.to_thread(change, site, "a", mcp={**entry()["mcp"], "prompts": [PROMPT]})
            heard.append(await anext(events))
            stop = asyncio.create_task(asyncio.to_thread(site.stop))
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

    catalogue = ToolCatalogue("w1", "fastmcp", [], NoRules())
    asyncio.run(asyncio.wait_for(test(), WAIT_SECONDS))


def test_a_change_after_the_end_is_nothing() -> None:
    """The fabric's thread may be a little late."""

    async def follow() -> Any:
        following = ListChanges().following(catalogue)
        following.__enter__()
        return following

    catalogue = ToolCatalogue("w1", "fastmcp", [], NoRules())
    following = asyncio.run(follow())
    assert catalogue.replace("net", [entry()]) == ["service_net__task_ping"]
    following.__exit__(None, None, None)
    assert catalogue.on_change == []


def test_no_stream_begins_while_the_worker_stops() -> None:
    """A connection that is still open may ask for one."""

    async def test() -> None:
        changes, sent = ListChanges(), []
        changes.close()

        async def send(message: Any) -> None:
            sent.append(message.get("status"))

        await changes({"headers": [(b"accept", b"text/event-stream")]}, send, send)
        assert sent[0] == 503
        with pytest.raises(MCPError, match="the worker is stopping"):
            await changes.listen(None, None)  # type: ignore[arg-type]

    run(test)


def test_a_deletion_is_not_held_up_by_a_stream_that_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last word is not waited for either: the connection is cut then."""
    monkeypatch.setattr(exchange, "LAST_WORD_SECONDS", 0.01)
    sent: list[Any] = []

    async def app(_scope: Any, _receive: Any, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"event", "more_body": True})

    async def test() -> None:
        is_full = asyncio.Event()

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                is_full.set()
                await asyncio.Event().wait()
            sent.append(message)

        async with site.open():
            request = asyncio.create_task(site.post(send))
            await is_full.wait()
            await asyncio.to_thread(site.revoke)
            await request

    site = Site(app)
    run(test)
    assert [message["type"] for message in sent] == ["http.response.start"]


def test_a_stream_is_broken_off_where_the_store_can_not_say_any_more(caplog: pytest.LogCaptureFixture) -> None:
    """What can't be checked is not told."""
    sent: list[Any] = []

    async def app(_scope: Any, _receive: Any, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        site.live = None
        await send({"type": "http.response.body", "body": b"second", "more_body": True})
        await asyncio.Event().wait()

    async def test() -> None:
        async def send(message: Any) -> None:
            sent.append(message.get("body"))

        async with site.open():
            await site.post(send)
            site.live = set()

    site = Site(app)
    run(test)
    assert sent == [None, b"first", b""]
    assert caplog.messages == ["tokens can't be checked: TypeError"]


@in_both_eras
def test_a_client_that_goes_away_leaves_its_place(site: Any, era: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one may have to try again until that is noticed."""
    monkeypatch.setattr(list_changes, "MAX_STREAMS", 1)
    for _ in range(3):
        is_open = False
        while not is_open:
            with Stream(site, era) as stream:
                is_open = stream.is_open
