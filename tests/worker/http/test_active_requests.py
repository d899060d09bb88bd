"""Requests end with their token: no response is still being sent when a deletion is acknowledged."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pytest
from starlette.types import Send

from nfcli.worker.http import active_requests
from nfcli.worker.http.active_requests import ActiveRequests
from nfcli.worker.http.policy import Caller
from support.mcp.middleware_bench import MiddlewareBench, run
from support.mcp.served_worker import WAIT_SECONDS


async def respond(_scope: Any, _receive: Any, send: Send) -> None:
    """Send a complete response, without waiting for anything."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"secret", "more_body": True})
    await send({"type": "http.response.body", "body": b"more secrets"})


def signal_scheduling(monkeypatch: pytest.MonkeyPatch, is_scheduled: threading.Event) -> None:
    """Set the event after another thread has scheduled a call on the running loop."""
    loop = asyncio.get_running_loop()
    schedule = loop.call_soon_threadsafe

    def call_soon_threadsafe(*args: Any) -> Any:
        schedule(*args)
        is_scheduled.set()

    monkeypatch.setattr(loop, "call_soon_threadsafe", call_soon_threadsafe)


def test_response_is_replaced_when_its_token_has_ended_before_it_begins() -> None:
    """Even before the revocation is reported; all that the application sends is dropped."""

    async def app(scope: Any, receive: Any, send: Send) -> None:
        bench.live.clear()
        await respond(scope, receive, send)

    async def test() -> None:
        async with bench.open():
            assert await bench.request() == bench.rejection

    bench = MiddlewareBench(app)
    run(test)


def test_response_that_has_begun_is_sent_completely() -> None:
    """A response that is not streamed is checked once, when it begins."""

    async def app(_scope: Any, _receive: Any, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        bench.live.clear()
        await send({"type": "http.response.body", "body": b"secret"})

    async def test() -> None:
        async with bench.open():
            assert await bench.request() == [200, b"secret"]

    bench = MiddlewareBench(app)
    run(test)


def test_response_is_503_when_the_store_fails_meanwhile(caplog: pytest.LogCaptureFixture) -> None:
    """A 401 would make the client discard a valid token."""

    async def app(scope: Any, receive: Any, send: Send) -> None:
        bench.live = None  # type: ignore[assignment]
        await respond(scope, receive, send)

    async def test() -> None:
        async with bench.open():
            assert (await bench.request())[0] == 503
            bench.live = set()

    bench = MiddlewareBench(app)
    run(test)
    assert caplog.messages == ["cannot check tokens: TypeError"]


def test_revocation_holds_when_the_application_ignores_it_and_the_token_is_stored_again() -> None:
    """The same characters are another token then, perhaps of another user."""

    async def app(scope: Any, receive: Any, send: Send) -> None:
        bench.revoke()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            bench.live.add("t")
            await respond(scope, receive, send)

    async def test() -> None:
        async with bench.open():
            assert await bench.request() == bench.rejection

    bench = MiddlewareBench(app)
    run(test)


def test_response_blocked_by_its_client_is_replaced_when_the_token_is_deleted() -> None:
    """A client that does not read cannot keep a response until after the deletion; it gets a 401."""

    async def test() -> None:
        sent: list[Any] = []
        is_waiting, is_reading = asyncio.Event(), asyncio.Event()

        async def send(message: Any) -> None:
            is_waiting.set()
            await is_reading.wait()
            sent.append(message.get("status", message.get("body")))

        async with bench.open():
            request = asyncio.create_task(bench.post(send))
            await is_waiting.wait()
            await asyncio.to_thread(bench.revoke)
            is_reading.set()
            await request
            assert sent == bench.rejection

    bench = MiddlewareBench(respond)
    run(test)


def test_revocation_waits_for_a_response_that_is_being_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its token was checked just before: the deletion is acknowledged after the response."""
    monkeypatch.setattr(active_requests, "REVOKE_TIMEOUT_SECONDS", WAIT_SECONDS)
    is_sending, is_revoked = threading.Event(), threading.Event()
    happened = []

    def revoke() -> None:
        assert is_sending.wait(WAIT_SECONDS)
        bench.revoke()
        happened.append("acknowledged")
        is_revoked.set()

    async def send(message: Any) -> None:
        if message.get("status") == 200:
            is_sending.set()
            # Blocks the loop, as a preempted thread would.
            assert not is_revoked.wait(0.2)
            happened.append("sent")

    async def test() -> None:
        async with bench.open():
            revoker = threading.Thread(target=revoke)
            revoker.start()
            await bench.post(send)
            await asyncio.to_thread(revoker.join)

    bench = MiddlewareBench(respond)
    run(test)
    assert happened == ["sent", "acknowledged"]


def test_response_that_can_no_longer_be_cancelled_is_sent_before_the_revocation_returns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its client begins to read in the loop iteration of the cancellation; `revoke` returns in the next one."""
    monkeypatch.setattr(active_requests, "REVOKE_TIMEOUT_SECONDS", WAIT_SECONDS)
    is_scheduled, is_acknowledged = threading.Event(), threading.Event()
    happened: list[Any] = []

    def revoke() -> None:
        bench.revoke()
        happened.append("acknowledged")
        is_acknowledged.set()

    async def test() -> None:
        is_waiting, is_reading = asyncio.Event(), asyncio.Event()

        async def send(message: Any) -> None:
            is_waiting.set()
            await is_reading.wait()
            is_acknowledged.wait(0.2)  # blocks the loop, as another callback of this iteration would
            happened.append(message.get("status", message.get("body")))

        signal_scheduling(monkeypatch, is_scheduled)
        async with bench.open():
            request = asyncio.create_task(bench.post(send))
            await is_waiting.wait()
            revoker = threading.Thread(target=revoke)
            revoker.start()
            assert is_scheduled.wait(WAIT_SECONDS)
            is_reading.set()
            await request
            await asyncio.to_thread(revoker.join)

    bench = MiddlewareBench(respond)
    run(test)
    assert happened.index(200) < happened.index("acknowledged")


def test_request_authenticated_during_the_revocation_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its token is deleted by another thread between the authentication and the tracking."""
    monkeypatch.setattr(active_requests, "REVOKE_TIMEOUT_SECONDS", WAIT_SECONDS)
    is_authenticated, is_scheduled = threading.Event(), threading.Event()

    def authenticate(token: str) -> Caller:
        is_authenticated.set()
        assert is_scheduled.wait(WAIT_SECONDS)
        return Caller(token, frozenset(), {})

    def revoke() -> None:
        assert is_authenticated.wait(WAIT_SECONDS)
        bench.revoke()

    async def app(_scope: Any, _receive: Any, _send: Send) -> None:
        await asyncio.Event().wait()

    async def test() -> None:
        signal_scheduling(monkeypatch, is_scheduled)
        async with bench.open():
            revoker = threading.Thread(target=revoke)
            revoker.start()
            assert await bench.request() == bench.rejection
            await asyncio.to_thread(revoker.join)

    bench = MiddlewareBench(app, authenticate)
    run(test)


def test_revocation_waits_for_a_busy_loop_for_a_limited_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The requests are cancelled later; the log says what may have happened meanwhile."""
    monkeypatch.setattr(active_requests, "REVOKE_TIMEOUT_SECONDS", 0.01)

    async def app(_scope: Any, _receive: Any, _send: Send) -> None:
        revoker = threading.Thread(target=bench.revoke)
        revoker.start()
        revoker.join(WAIT_SECONDS)
        assert not revoker.is_alive()
        await asyncio.Event().wait()

    async def test() -> None:
        async with bench.open():
            assert await bench.request() == bench.rejection

    bench = MiddlewareBench(app)
    run(test)
    warning = "MCP server busy for 0 s: requests with a revoked token may have been answered in that time"
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [(logging.WARNING, warning)]


def test_revocation_from_the_loop_itself_does_not_wait() -> None:
    """It would wait for itself; the requests end in the next iteration."""

    async def app(_scope: Any, _receive: Any, _send: Send) -> None:
        has_begun.set()
        await asyncio.Event().wait()

    async def test() -> None:
        async with bench.open():
            request = asyncio.create_task(bench.request())
            await has_begun.wait()
            started = time.monotonic()
            bench.revoke()
            assert time.monotonic() - started < active_requests.REVOKE_TIMEOUT_SECONDS
            assert await request == bench.rejection

    has_begun = asyncio.Event()
    bench = MiddlewareBench(app)
    run(test)


def test_revocation_before_and_after_the_server_does_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A store outlives the server at both ends, and may notify it after its loop is closed."""

    async def watch() -> AbstractContextManager[None]:
        requests.revoke(["t"])
        watching = requests.watch(listeners, lambda _token: True)
        watching.__enter__()
        requests.revoke(["t", "unknown"])
        return watching

    requests = ActiveRequests()
    listeners: list[Callable[[Sequence[str]], None]] = []
    watching = asyncio.run(watch())
    revoker = threading.Thread(target=requests.revoke, args=(["t"],))
    revoker.start()
    revoker.join(WAIT_SECONDS)
    assert not revoker.is_alive()
    watching.__exit__(None, None, None)
    requests.revoke(["t"])
    assert (listeners, caplog.messages) == ([], [])


def test_requests_end_when_their_token_expires_and_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop checks for expired tokens."""
    monkeypatch.setattr(active_requests, "EXPIRY_CHECK_SECONDS", 0.01)

    async def app(scope: Any, receive: Any, send: Send) -> None:
        waiting.append(scope)
        if len(waiting) == 3:
            bench.live.remove("t")
        await may_end.wait()
        await respond(scope, receive, send)

    async def test() -> None:
        async with bench.open():
            ending = [asyncio.create_task(bench.request()), asyncio.create_task(bench.request())]
            going_on = asyncio.create_task(bench.request("other"))
            assert await asyncio.gather(*ending) == [bench.rejection] * 2
            assert not going_on.done()
            may_end.set()
            assert (await going_on)[0] == 200

    waiting: list[Any] = []
    may_end = asyncio.Event()
    bench = MiddlewareBench(app)
    bench.live.add("other")
    run(test)
