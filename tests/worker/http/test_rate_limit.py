"""Wrong tokens are counted by address: who guesses is locked out for a while, and nobody else."""

from __future__ import annotations

import logging
import select
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfcli.models.tokens import BearerTokenRecord
from nfcli.worker.http import middleware as gate
from nfcli.worker.http import rate_limit as guesses
from nfcli.worker.http.rate_limit import GuessLimit, counted_address
from nfcli.worker.tokens.store import TokenStore
from support.mcp.served_worker import HANDSHAKE_ERA, SINGLE_POST_ERA, TOKEN, WAIT_SECONDS, read_answer

ERAS = [HANDSHAKE_ERA, SINGLE_POST_ERA]
ELSEWHERE = "127.0.0.2"
WRONG = (401, "the token is unknown, expired or deleted")

Serve = Callable[..., Any]


@pytest.fixture
def monotonic() -> SimpleNamespace:
    """Return a clock that stands still; a test moves it by setting `now` (seconds)."""
    return SimpleNamespace(now=1000.0)


def reason(answer: tuple[int, dict[str, str], Any]) -> tuple[int, str]:
    """Return status and reason of a refusal."""
    return answer[0], answer[2]["error"]["message"]


def guess(worker: Any, count: int) -> list[int]:
    """Try as many wrong tokens, all in time; return the statuses of the answers."""
    statuses = []
    with worker.connect() as connection:
        for number in range(count):
            connection.sendall(worker.request(token=f"guess{number}"))
            statuses.append(read_answer(connection)[0])
    return statuses


def lock_out(worker: Any) -> None:
    """Guess as often as locks an address out; the guess that is one too many is told so."""
    assert guess(worker, 11) == [401] * 10 + [429]


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("token", [TOKEN, "wrong"])
def test_address_that_guessed_too_often_is_told_when_to_come_back(served_worker: Serve, era: str, token: str) -> None:
    """Eleven guesses are one too many; after that nothing is looked up, good tokens neither."""
    worker = served_worker()
    lock_out(worker)
    worker.looked_up.clear()
    status, headers, body = worker.post(era=era, token=token)
    seconds = int(headers["retry-after"])
    assert 50 <= seconds <= 60
    message = f"too many wrong tokens came from this address: try again in {seconds} s"
    assert (status, body) == (429, {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": message}})
    assert headers.keys() == {"content-type", "content-length", "cache-control", "retry-after"}
    assert worker.looked_up == []


def test_ten_guesses_are_let_pass(served_worker: Serve) -> None:
    """People mistype, and a client may have an old token."""
    worker = served_worker()
    assert guess(worker, 10) == [401] * 10
    assert worker.post()[0] == 200


def test_other_addresses_are_served_meanwhile(served_worker: Serve) -> None:
    """A lock-out is its address's own."""
    worker = served_worker()
    lock_out(worker)
    assert worker.post(source=ELSEWHERE)[0] == 200
    assert reason(worker.post(source=ELSEWHERE, token="wrong")) == WRONG
    assert worker.post()[0] == 429


def test_locked_out_address_is_held_up_and_nobody_else_is(
    served_worker: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As fast as it could guess, a flood would be answered at the cost of the others; a stop waits for no answer."""
    worker = served_worker()
    lock_out(worker)
    monkeypatch.setattr(gate, "HOLD_UP_SECONDS", 10 * WAIT_SECONDS)
    with worker.connect() as connection:
        connection.sendall(worker.request(token="wrong"))
        assert worker.post(source=ELSEWHERE)[0] == 200
        assert select.select([connection], [], [], 0)[0] == []
        worker.stop()
        assert read_answer(connection)[0] == 429


def test_locked_out_address_is_answered_as_ever_where_no_token_comes(served_worker: Serve) -> None:
    """Health checks go on, and a client that asks without a token learns that it needs one."""
    worker = served_worker()
    lock_out(worker)
    assert worker.get("/health")[0] == 200
    assert worker.get("/unknown", f"authorization: Bearer {TOKEN}")[0] == 404
    assert worker.get("/.well-known/oauth-protected-resource")[0] == 200
    assert reason(worker.post(token=None)) == (401, "a bearer token is needed")
    assert worker.get("/mcp", f"authorization: Bearer {TOKEN}")[0] == 429


@pytest.mark.parametrize("header", ["Bearer", "Bearer two words", "bearer \xff", "Bearer {token}"])
def test_all_that_is_no_good_token_counts(served_worker: Serve, header: str) -> None:
    """Malformed, unknown, deleted; the eleventh was too many."""
    worker = served_worker()
    worker.store.store("automation", "t", None)
    worker.store.delete(token="t")
    guesses = [worker.post(headers=(("authorization", header.format(token="t")),))[0] for _ in range(11)]
    assert guesses == [401] * 10 + [429]
    assert worker.post()[0] == 429


def test_expired_token_counts(served_worker: Serve) -> None:
    """It was a good one, but guessing among old ones must not pay."""
    worker = served_worker()
    worker.store.store("automation", "t", 60)
    worker.now += 60
    assert [worker.post(token="t")[0] for _ in range(11)] == [401] * 10 + [429]
    assert worker.post()[0] == 429


def test_requests_that_guess_nothing_do_not_count(served_worker: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """No token, another scheme, a scope that is missing, what is refused before, and a store that can't say."""
    is_down = False
    lookup = TokenStore.lookup

    def failing(store: TokenStore, token: str) -> BearerTokenRecord | None:
        if is_down:
            raise OSError("disk gone")
        return lookup(store, token)

    monkeypatch.setattr(TokenStore, "lookup", failing)
    worker = served_worker(auth_bearer={"required_scopes": ["admin"], "token_scopes": []})
    for _ in range(11):
        assert worker.post(token=None)[0] == 401
        assert worker.post(headers=(("authorization", "Basic wrong"),))[0] == 401
        assert worker.post(headers=(("host", "evil.example.com"),), token="wrong")[0] == 421
        assert worker.post()[0] == 403
        is_down = True
        assert worker.post()[0] == 503
        is_down = False
    assert worker.post()[0] == 403


@pytest.mark.parametrize("limit", [0, None])
def test_limit_can_be_switched_off(served_worker: Serve, limit: int | None) -> None:
    """Behind a proxy all clients share its address."""
    worker = served_worker(auth_bearer={"max_wrong_tokens_per_minute": limit})
    assert guess(worker, 30) == [401] * 30
    assert worker.post()[0] == 200


def test_limit_can_be_set(served_worker: Serve) -> None:
    """One wrong token is let pass, two are not."""
    worker = served_worker(auth_bearer={"max_wrong_tokens_per_minute": 1})
    assert guess(worker, 2) == [401, 429]
    assert worker.post()[0] == 429


def test_log_tells_of_a_lock_out_once(served_worker: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """With what to do where it is no attack, and without the tokens."""
    worker = served_worker()
    lock_out(worker)
    for _ in range(5):
        assert worker.post(token="wrong")[0] == 429
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "\n".join(record.getMessage() for record in told) == (
        "too many wrong tokens from 127.0.0.1: requests with a token are refused there for up to a minute; where "
        "many clients share an address, see max_wrong_tokens_per_minute of worker w1 in the inventory"
    )


def test_lock_out_ends_when_a_guess_is_a_minute_old(monotonic: SimpleNamespace) -> None:
    """The wait is told in whole seconds, rounded up, and one more guess locks again."""
    limit = GuessLimit(2, lambda: monotonic.now)
    for step in (0, 10, 10):
        assert limit.wait_seconds("a") == 0
        monotonic.now += step
        limit.count("a")
    assert limit.wait_seconds("a") == 40
    monotonic.now += 39.001
    assert limit.wait_seconds("a") == 1
    monotonic.now += 0.999
    assert limit.wait_seconds("a") == 0
    limit.count("a")
    assert limit.wait_seconds("a") == 10
    monotonic.now += 60
    assert limit.wait_seconds("a") == 0


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([0.0, 0.5, 7.0, 20.0, 59.9, 60.0])), max_size=40))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_wait_is_that_of_a_list_of_all_guesses(steps: list[tuple[str, float]]) -> None:
    """Whatever two addresses do, and whatever was forgotten since."""
    now = 0.0
    limit = GuessLimit(3, lambda: now)
    tried: dict[str, list[float]] = {"a": [], "b": []}
    for address, step in steps:
        now += step
        for each, times in tried.items():
            recent = [moment for moment in times if now < moment + 60]
            wait = -int((now - recent[-4] - 60) // 1) if len(recent) > 3 else 0
            assert limit.wait_seconds(each) == wait
        if limit.wait_seconds(address) == 0:
            limit.count(address)
            tried[address].append(now)


def test_table_of_addresses_is_bounded(monotonic: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was quiet for longest is forgotten; guesses count as being heard of."""
    monkeypatch.setattr(guesses, "MAX_ADDRESSES", 100)
    limit = GuessLimit(1, lambda: monotonic.now)
    for address in ("first", "second", "first", "second", "first"):
        limit.count(address)
    for number in range(98):
        limit.count(f"{number}")
    assert (len(limit), limit.wait_seconds("first"), limit.wait_seconds("second")) == (100, 60, 60)
    limit.count("one more")
    assert (len(limit), limit.wait_seconds("first"), limit.wait_seconds("second")) == (100, 60, 0)


def test_addresses_are_forgotten_after_a_quiet_minute(monotonic: SimpleNamespace) -> None:
    """Two with each guess that comes, so that none takes long."""
    limit = GuessLimit(1, lambda: monotonic.now)
    for number in range(5):
        limit.count(f"{number}")
    monotonic.now += 60
    for left in (4, 2, 1, 1):
        limit.count("later")
        assert len(limit) == left


def test_log_is_bounded_too(monotonic: SimpleNamespace) -> None:
    """Once a minute for an address, ten times for all of them."""
    limit = GuessLimit(1, lambda: monotonic.now)
    assert [limit.count("a") for _ in range(4)] == [False, True, False, False]
    told = 1 + sum(limit.count(f"{number}") for number in range(50) for _ in range(2))
    assert told == 10
    monotonic.now += 60
    assert [limit.count("a") for _ in range(3)] == [False, True, False]


@pytest.mark.parametrize(
    ("peer", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
        ("not:an:address", "not:an:address"),
    ],
)
def test_peers_are_counted_by_what_they_can_change_at_will(peer: str, counted: str) -> None:
    """IPv6 by its /64; IPv4 as itself, however the socket shows it."""
    assert counted_address(peer) == counted


def test_refused_tokens_get_into_the_audit_trail(served_worker: Serve) -> None:
    """With address, reason and a fingerprint of the token; requests without one don't."""
    worker = served_worker(
        auth_bearer={"max_wrong_tokens_per_minute": 1, "required_scopes": ["admin"], "token_scopes": []}
    )
    worker.post()
    worker.post(token=None)
    assert guess(worker, 2) == [401, 429]
    worker.post()
    worker.audit.close()
    entries = worker.audit.entries(10)
    assert [(entry.actor, entry.operation, entry.reason) for entry in entries] == [
        ("127.0.0.1", "refuse", "insufficient scope"),
        ("127.0.0.1", "refuse", "wrong token"),
        ("127.0.0.1", "refuse", "wrong token"),
        ("127.0.0.1", "refuse", "too many wrong tokens"),
    ]
    first, second, third, last = [entry.tokens for entry in entries]
    assert first == last
    assert len({*first, *second, *third}) == 3
