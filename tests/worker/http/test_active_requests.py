"""What a token began ends with it: no answer is on its way any more when its deletion has been acknowledged."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Any

import pytest

from nfcli.worker.http import active_requests as running
from nfcli.worker.http.middleware import Caller
from support.mcp.request_runs import Send, Site, run
from support.mcp.served_worker import WAIT_SECONDS


async def answer(_scope: Any, _receive: Any, send: Send) -> None:
    """Answer as an application does that has all it needs."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"secret", "more_body": True})
    await send({"type": "http.response.body", "body": b"more secrets"})


def refusal(site: Site) -> list[Any]:
    """Return what is sent instead of an answer to a token that isn't good."""
    return [401, site.policy.challenges.invalid.body]


def test_answer_that_is_ready_is_not_given_to_a_token_that_has_ended() -> None:
    """Whoever deletes it may not have told yet; all that the application sends is dropped."""

    async def app(scope: Any, receive: Any, send: Send) -> None:
        site.live.clear()
        await answer(scope, receive, send)

    async def test() -> None:
        async with site.open():
            assert await site.ask() == refusal(site)

    site = Site(app)
    run(test)


def test_answer_is_given_while_the_token_is_good() -> None:
    """As a whole: it has begun."""

    async def app(_scope: Any, _receive: Any, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        site.live.clear()
        await send({"type": "http.response.body", "body": b"secret"})

    async def test() -> None:
        async with site.open():
            assert await site.ask() == [200, b"secret"]

    site = Site(app)
    run(test)


def test_answer_is_503_where_the_store_can_not_say_any_more(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the answer, nor a refusal that would make the client throw a good token away."""

    async def app(scope: Any, receive: Any, send: Send) -> None:
        site.live = None  # type: ignore[assignment]
        await answer(scope, receive, send)

    async def test() -> None:
        async with site.open():
            status, body = await site.ask()
            assert (status, b"tokens can't be checked at the moment" in body) == (503, True)
            site.live = set()

    site = Site(app)
    run(test)
    assert caplog.messages == ["tokens can't be checked: TypeError"]


def test_revocation_outlasts_an_application_that_ignores_it_and_a_token_that_is_stored_again() -> None:
    """The same letters are another token then, and somebody else's."""

    async def app(scope: Any, receive: Any, send: Send) -> None:
        site.revoke()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            site.live.add("t")
            await answer(scope, receive, send)

    async def test() -> None:
        async with site.open():
            assert await site.ask() == refusal(site)

    site = Site(app)
    run(test)


def test_answer_that_waits_for_its_reader_is_not_given_to_a_deleted_token() -> None:
    """A client that doesn't read holds up what it asked for until after the deletion; it gets a 401 in the end."""

    async def test() -> None:
        sent: list[Any] = []
        is_waiting, is_reading = asyncio.Event(), asyncio.Event()

        async def send(message: Any) -> None:
            is_waiting.set()
            await is_reading.wait()
            sent.append(message.get("status", message.get("body")))

        async with site.open():
            request = asyncio.create_task(site.post(send))
            await is_waiting.wait()
            await asyncio.to_thread(site.revoke)
            is_reading.set()
            await request
            assert sent == refusal(site)

    site = Site(answer)
    run(test)


def test_revocation_waits_for_an_answer_that_is_being_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """It passed the last look at its token a moment ago: who deletes hears of success when it has left."""
    monkeypatch.setattr(running, "REVOKE_SECONDS", WAIT_SECONDS)
    is_sending, is_revoked = threading.Event(), threading.Event()
    happened = []

    def revoke() -> None:
        assert is_sending.wait(WAIT_SECONDS)
        site.revoke()
        happened.append("acknowledged")
        is_revoked.set()

    async def send(message: Any) -> None:
        if message.get("status") == 200:
            is_sending.set()
            # The loop stands still here, as a thread does that another one has taken the processor from.
            assert not is_revoked.wait(0.2)
            happened.append("sent")

    async def test() -> None:
        async with site.open():
            revoker = threading.Thread(target=revoke)
            revoker.start()
            await site.post(send)
            await asyncio.to_thread(revoker.join)

    site = Site(answer)
    run(test)
    assert happened == ["sent", "acknowledged"]


def test_answer_that_can_not_be_stopped_any_more_is_sent_before_the_revocation_returns() -> None:
    """Its client begins to read in the same round of the loop: the one who waits is woken in the next."""
    is_done, has_looked = threading.Event(), threading.Event()
    happened: list[Any] = []

    def look() -> None:
        assert is_done.wait(WAIT_SECONDS)
        happened.append("acknowledged")
        has_looked.set()

    async def test() -> None:
        is_waiting, is_reading = asyncio.Event(), asyncio.Event()

        async def send(message: Any) -> None:
            is_waiting.set()
            await is_reading.wait()
            happened.append(message.get("status", message.get("body")))

        async with site.open():
            request = asyncio.create_task(site.post(send))
            await is_waiting.wait()
            looker = threading.Thread(target=look)
            looker.start()
            is_reading.set()
            site.requests._cancel(["t"], is_done)
            has_looked.wait(0.2)  # what else there is to do in this round takes its time
            await request
            await asyncio.to_thread(looker.join)

    site = Site(answer)
    run(test)
    assert happened.index(200) < happened.index("acknowledged")


def test_request_that_was_let_in_a_moment_ago_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its token is deleted behind the back of the loop, between the look at it and the place among those under way."""
    monkeypatch.setattr(running, "REVOKE_SECONDS", WAIT_SECONDS)
    is_let_in, is_told = threading.Event(), threading.Event()

    def authenticate(token: str) -> Caller:
        is_let_in.set()
        assert is_told.wait(WAIT_SECONDS)
        return Caller(token, frozenset(), {})

    def revoke() -> None:
        assert is_let_in.wait(WAIT_SECONDS)
        site.revoke()

    async def app(_scope: Any, _receive: Any, _send: Send) -> None:
        await asyncio.Event().wait()

    async def test() -> None:
        loop = asyncio.get_running_loop()
        tell = loop.call_soon_threadsafe

        def telling(*args: Any) -> Any:
            tell(*args)
            is_told.set()

        monkeypatch.setattr(loop, "call_soon_threadsafe", telling)
        async with site.open():
            revoker = threading.Thread(target=revoke)
            revoker.start()
            assert await site.ask() == refusal(site)
            await asyncio.to_thread(revoker.join)

    site = Site(app)
    object.__setattr__(site.policy, "authenticate", authenticate)
    run(test)


def test_revocation_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A loop that stands still is told all the same; the log says what that may mean."""
    monkeypatch.setattr(running, "REVOKE_SECONDS", 0.01)

    async def app(_scope: Any, _receive: Any, _send: Send) -> None:
        revoker = threading.Thread(target=site.revoke)
        revoker.start()
        revoker.join(WAIT_SECONDS)
        assert not revoker.is_alive()
        await asyncio.Event().wait()

    async def test() -> None:
        async with site.open():
            assert await site.ask() == refusal(site)

    site = Site(app)
    run(test)
    told = "the MCP server was busy for 0 s: requests with a token that is gone may have been answered meanwhile"
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [(logging.WARNING, told)]


def test_revocation_in_the_loop_itself_waits_for_nothing() -> None:
    """It would wait for itself; what it ends has ended by the next turn."""

    async def app(_scope: Any, _receive: Any, _send: Send) -> None:
        has_begun.set()
        await asyncio.Event().wait()

    async def test() -> None:
        async with site.open():
            request = asyncio.create_task(site.ask())
            await has_begun.wait()
            started = time.monotonic()
            site.revoke()
            assert time.monotonic() - started < running.REVOKE_SECONDS
            assert await request == refusal(site)

    has_begun = asyncio.Event()
    site = Site(app)
    run(test)


def test_revocation_without_a_server_is_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A store outlives the server at both ends, and may be told of its end too late."""

    async def app(_scope: Any, _receive: Any, _send: Send) -> None:
        raise AssertionError

    async def test() -> None:
        site.requests.revoke(["t"])
        async with site.open():
            told.append(site.requests._loop)
            site.requests.revoke(["t", "unknown"])
        site.requests.revoke(["t"])

    told: list[Any] = []
    site = Site(app)
    run(test)
    site.requests._loop, site.requests._thread = told[0], 0
    site.requests.revoke(["t"])
    assert caplog.messages == []


def test_requests_end_when_their_token_expires_and_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody tells of an expiry: the loop looks."""
    monkeypatch.setattr(running, "LOOK_SECONDS", 0.01)

    async def app(scope: Any, receive: Any, send: Send) -> None:
        waiting.append(scope)
        if len(waiting) == 3:
            site.live.remove("t")
        await may_end.wait()
        await answer(scope, receive, send)

    async def test() -> None:
        async with site.open():
            ending = [asyncio.create_task(site.ask()), asyncio.create_task(site.ask())]
            going_on = asyncio.create_task(site.ask("other"))
            assert await asyncio.gather(*ending) == [refusal(site)] * 2
            assert not going_on.done()
            may_end.set()
            assert (await going_on)[0] == 200

    waiting: list[Any] = []
    may_end = asyncio.Event()
    site = Site(app)
    site.live.add("other")
    run(test)
