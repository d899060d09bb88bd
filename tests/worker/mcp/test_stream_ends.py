"""Notification streams end with their token, their client and the server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from mcp.shared.exceptions import MCPError

from nfcli.worker.http import active_requests, request_cycle
from nfcli.worker.mcp import notifications
from nfcli.worker.mcp.notifications import ListChangeNotifier
from support.mcp.called_tools import Fabric
from support.mcp.change_streams import NO_METADATA, TOOLS, Stream, change, in_both_eras
from support.mcp.middleware_bench import MiddlewareBench, run
from support.mcp.served_worker import SINGLE_POST_ERA, TOKEN, WAIT_SECONDS
from support.tokens.token_store import delete_tokens, store_token

Serve = Callable[..., Any]
Open = Callable[..., Any]
Send = Callable[[Any], Awaitable[None]]


@in_both_eras
def test_a_deleted_token_s_stream_has_ended_when_the_deletion_returns(
    stream_site: Any, open_stream: Open, era: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later changes are not sent to it; other streams go on."""
    monkeypatch.setattr(active_requests, "REVOKE_TIMEOUT_SECONDS", WAIT_SECONDS)
    ending, going_on = open_stream(stream_site, era, token="t"), open_stream(stream_site, era)
    delete_tokens(stream_site.store, token="t")
    assert ending.has_ended()
    change(stream_site, "a")
    assert going_on.next()["method"] == TOOLS
    assert not going_on.has_ended()


@in_both_eras
def test_nothing_is_sent_to_a_deleted_token(stream_site: Any, open_stream: Open, era: str) -> None:
    """The stream is completed, not cut within an event."""
    ending = open_stream(stream_site, era, token="t")
    delete_tokens(stream_site.store, token="t")
    change(stream_site, "a")
    assert ending.methods() == []


@in_both_eras
def test_an_expired_token_s_stream_ends(stream_site: Any, open_stream: Open, era: str) -> None:
    """The server checks twice a second."""
    store_token(stream_site.store, "other", "short", 60)
    ending = open_stream(stream_site, era, token="short")
    stream_site.now += 60
    assert ending.methods() == []


@in_both_eras
def test_change_is_not_sent_to_a_token_that_has_just_expired(
    stream_site: Any, open_stream: Open, era: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token is checked before each part of a stream, not only at its beginning."""
    monkeypatch.setattr(active_requests, "EXPIRY_CHECK_SECONDS", 10 * WAIT_SECONDS)
    store_token(stream_site.store, "other", "short", 60)
    ending = open_stream(stream_site, era, token="short")
    stream_site.now += 60
    change(stream_site, "a")
    assert ending.methods() == []


@in_both_eras
@pytest.mark.parametrize("has_authentication", [True, False])
def test_streams_end_at_once_when_the_worker_stops(
    served_worker: Serve, open_stream: Open, era: str, *, has_authentication: bool
) -> None:
    """They have no grace period."""
    worker = served_worker(
        fabric=Fabric(),
        grace_seconds=3 * WAIT_SECONDS,
        authentication_enabled=has_authentication,
        auth_bearer=NO_METADATA,
    )
    stream = open_stream(worker, era, token=TOKEN if has_authentication else None)
    change(worker, "a")
    assert stream.next()["method"] == TOOLS
    worker.stop()
    assert stream.methods() == ([None] if era == SINGLE_POST_ERA else [])


def test_streams_are_rejected_while_the_worker_stops() -> None:
    """A connection that is still open may request one."""

    async def test() -> None:
        notifier, sent = ListChangeNotifier(), []
        notifier.close()

        async def send(message: Any) -> None:
            sent.append(message.get("status"))

        await notifier({"headers": [(b"accept", b"text/event-stream")]}, send, send)
        assert sent[0] == 503
        with pytest.raises(MCPError, match="the worker is stopping"):
            await notifier.listen(None, None)  # type: ignore[arg-type]

    run(test)


def test_deletion_is_not_blocked_by_a_stream_whose_client_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is the end of the stream awaited: the connection is aborted then."""
    monkeypatch.setattr(request_cycle, "FLUSH_SECONDS", 0.01)
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

        async with bench.open():
            request = asyncio.create_task(bench.post(send))
            await is_full.wait()
            await asyncio.to_thread(bench.revoke)
            await request

    bench = MiddlewareBench(app)
    run(test)
    assert [message["type"] for message in sent] == ["http.response.start"]


def test_deletion_returns_when_all_requests_of_the_token_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long their cleanup takes: a stream of the SDK has tasks of its own to end first."""
    monkeypatch.setattr(active_requests, "REVOKE_TIMEOUT_SECONDS", WAIT_SECONDS)
    happened: list[str] = []

    async def app(_scope: Any, _receive: Any, _send: Send) -> None:
        has_begun.release()
        try:
            await asyncio.Event().wait()
        finally:
            with anyio.CancelScope(shield=True):
                for _ in range(10):
                    await asyncio.to_thread(int)
            happened.append("ended")

    async def test() -> None:
        async with bench.open():
            requests = [asyncio.create_task(bench.request()) for _ in range(2)]
            for _ in requests:
                await has_begun.acquire()
            await asyncio.to_thread(bench.revoke)
            happened.append("acknowledged")
            await asyncio.gather(*requests)

    has_begun = asyncio.Semaphore(0)
    bench = MiddlewareBench(app)
    run(test)
    assert happened == ["ended", "ended", "acknowledged"]


def test_stream_is_cancelled_when_the_store_fails(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is sent to a token that cannot be checked."""
    sent: list[Any] = []

    async def app(_scope: Any, _receive: Any, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        bench.live = None
        await send({"type": "http.response.body", "body": b"second", "more_body": True})
        await asyncio.Event().wait()

    async def test() -> None:
        async def send(message: Any) -> None:
            sent.append(message.get("body"))

        async with bench.open():
            await bench.post(send)
            bench.live = set()

    bench = MiddlewareBench(app)
    run(test)
    assert sent == [None, b"first", b""]
    assert caplog.messages == ["cannot check tokens: TypeError"]


@in_both_eras
def test_client_that_disconnects_frees_its_slot(stream_site: Any, era: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one may have to retry until that is noticed."""
    monkeypatch.setattr(notifications, "MAX_STREAMS", 1)
    for _ in range(3):
        is_open = False
        while not is_open:
            with Stream(stream_site, era) as stream:
                is_open = stream.is_open
