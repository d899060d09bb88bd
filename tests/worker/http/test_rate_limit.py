"""Rate limit of wrong tokens per client network."""

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
from nfcli.worker.http import authentication, rate_limit
from nfcli.worker.http.rate_limit import FailedAuthLimiter
from nfcli.worker.tokens.store import TokenStore
from support.mcp.served_worker import HANDSHAKE_ERA, SINGLE_POST_ERA, TOKEN, WAIT_SECONDS, read_response
from support.tokens.token_store import delete_tokens, store_token

ERAS = [HANDSHAKE_ERA, SINGLE_POST_ERA]
ELSEWHERE = "127.0.0.2"

Serve = Callable[..., Any]


@pytest.fixture
def monotonic() -> SimpleNamespace:
    """Return a clock that stands still; a test advances it by setting `now` (seconds)."""
    return SimpleNamespace(now=1000.0)


def guess(worker: Any, count: int) -> list[int]:
    """Try `count` wrong tokens in a row; return the statuses of the responses."""
    statuses = []
    with worker.connect() as connection:
        for number in range(count):
            connection.sendall(worker.request(token=f"guess{number}"))
            statuses.append(read_response(connection)[0])
    return statuses


def test_one_stale_token_locks_nobody_out(served_worker: Serve) -> None:
    """A client that retries with an old token, however often, is one mistake: clients beside it are served."""
    worker = served_worker()
    assert [worker.post(token="old")[0] for _ in range(30)] == [401] * 30
    assert worker.post()[0] == 200


def test_different_wrong_tokens_lock_out_whatever_is_sent_between(served_worker: Serve) -> None:
    """Repeating one token or sending a valid one hides no guesses."""
    worker = served_worker()
    for number in range(10):
        assert worker.post(token=f"guess{number}")[0] == 401
        assert worker.post(token="guess0")[0] == 401
        assert worker.post()[0] == 200
    assert worker.post(token="guess10")[0] == 429
    assert worker.post()[0] == 429


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "bearer   ", "Bearer \t"])
def test_empty_token_counts_as_none(served_worker: Serve, header: str) -> None:
    """It is no guess but a client whose token is not set; the response says so and asks for credentials."""
    worker = served_worker()
    responses = [worker.post(headers=(("authorization", header),)) for _ in range(11)]
    assert {status for status, _, _ in responses} == {401}
    _, headers, body = responses[-1]
    assert "error=" not in headers["www-authenticate"]
    assert body["error"]["message"] == (
        "authentication required: the Authorization header has no token; send Bearer credentials"
    )
    assert worker.looked_up == []
    assert worker.post()[0] == 200


def lock_out(worker: Any) -> None:
    """Send one wrong token more than the limit allows."""
    assert guess(worker, 11) == [401] * 10 + [429]


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("token", [TOKEN, "wrong"])
def test_locked_out_address_gets_429_with_retry_after(served_worker: Serve, era: str, token: str) -> None:
    """After eleven wrong tokens nothing is looked up, valid tokens neither."""
    worker = served_worker()
    lock_out(worker)
    worker.looked_up.clear()
    status, headers, body = worker.post(era=era, token=token)
    seconds = int(headers["retry-after"])
    assert 50 <= seconds <= 60
    message = f"too many wrong tokens from this address; retry in {seconds} s"
    assert (status, body) == (429, {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": message}})
    assert headers.keys() == {"content-type", "content-length", "cache-control", "retry-after"}
    assert worker.looked_up == []


def test_ten_wrong_tokens_are_allowed(served_worker: Serve) -> None:
    """People mistype, and clients keep old tokens."""
    worker = served_worker()
    assert guess(worker, 10) == [401] * 10
    assert worker.post()[0] == 200


def test_other_addresses_are_served_during_a_lock_out(served_worker: Serve) -> None:
    """A lock-out applies to one address only."""
    worker = served_worker()
    lock_out(worker)
    assert worker.post(source=ELSEWHERE)[0] == 200
    assert worker.post(source=ELSEWHERE, token="wrong")[0] == 401
    assert worker.post()[0] == 429


def test_responses_to_a_locked_out_address_alone_are_delayed(
    served_worker: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood of guesses must not starve other clients; a stop does not wait for the delay."""
    worker = served_worker()
    lock_out(worker)
    monkeypatch.setattr(authentication, "RESPONSE_DELAY_SECONDS", 10 * WAIT_SECONDS)
    with worker.connect() as connection:
        connection.sendall(worker.request(token="wrong"))
        assert worker.post(source=ELSEWHERE)[0] == 200
        assert select.select([connection], [], [], 0)[0] == []
        worker.stop()
        assert read_response(connection)[0] == 429


def test_requests_without_a_token_are_answered_during_a_lock_out(served_worker: Serve) -> None:
    """Health checks go on, and a client without a token learns that it needs one."""
    worker = served_worker()
    lock_out(worker)
    assert worker.get("/health")[0] == 200
    assert worker.get("/unknown", f"authorization: Bearer {TOKEN}")[0] == 404
    assert worker.get("/.well-known/oauth-protected-resource")[0] == 200
    assert worker.post(token=None)[0] == 401
    assert worker.get("/mcp", f"authorization: Bearer {TOKEN}")[0] == 429


@pytest.mark.parametrize("header", ["Bearer two words", "bearer \xff", "Bearer {token}"])
def test_every_invalid_token_counts(served_worker: Serve, header: str) -> None:
    """Malformed, unknown or deleted; one more exceeds the limit."""
    worker = served_worker(auth_bearer={"max_wrong_tokens_per_minute": 1})
    store_token(worker.store, "automation", "t", None)
    delete_tokens(worker.store, token="t")
    assert worker.post(headers=(("authorization", header.format(token="t")),))[0] == 401
    assert guess(worker, 1) == [429]
    assert worker.post()[0] == 429


def test_expired_token_counts(served_worker: Serve) -> None:
    """It was valid once, but guessing old tokens must not be free."""
    worker = served_worker(auth_bearer={"max_wrong_tokens_per_minute": 1})
    store_token(worker.store, "automation", "t", 60)
    worker.now += 60
    assert worker.post(token="t")[0] == 401
    assert guess(worker, 1) == [429]
    assert worker.post()[0] == 429


def test_other_rejections_do_not_count(served_worker: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """No token, another scheme, a missing scope, a foreign Host, a failing store."""
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
def test_limit_can_be_disabled(served_worker: Serve, limit: int | None) -> None:
    """Behind a proxy all clients share its address."""
    worker = served_worker(auth_bearer={"max_wrong_tokens_per_minute": limit})
    assert guess(worker, 30) == [401] * 30
    assert worker.post()[0] == 200


def test_limit_can_be_set(served_worker: Serve) -> None:
    """One wrong token is allowed, the second exceeds the limit."""
    worker = served_worker(auth_bearer={"max_wrong_tokens_per_minute": 1})
    assert guess(worker, 2) == [401, 429]
    assert worker.post()[0] == 429


def test_lock_out_is_logged_once(served_worker: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """With the remedy where it is no attack, and without the tokens."""
    worker = served_worker()
    lock_out(worker)
    for _ in range(5):
        assert worker.post(token="wrong")[0] == 429
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "\n".join(warnings) == (
        "too many wrong tokens from 127.0.0.1: its requests with a token are rejected for up to a minute; if many "
        "clients share that address, add it to trusted_proxies if it is a reverse proxy's, or raise "
        "max_wrong_tokens_per_minute, of worker w1 in the inventory"
    )


def test_lock_out_ends_when_the_oldest_token_is_a_minute_old(monotonic: SimpleNamespace) -> None:
    """`retry_after` is in whole seconds, rounded up; one more token locks out again."""
    limit = FailedAuthLimiter(2, lambda: monotonic.now)
    for step in (0, 10, 10):
        assert limit.retry_after("a") == 0
        monotonic.now += step
        limit.record_failure("a", f"t{step}{monotonic.now}")
    assert limit.retry_after("a") == 40
    monotonic.now += 39.001
    assert limit.retry_after("a") == 1
    monotonic.now += 0.999
    assert limit.retry_after("a") == 0
    limit.record_failure("a", "last")
    assert limit.retry_after("a") == 10
    monotonic.now += 60
    assert limit.retry_after("a") == 0


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from("tuvwx"), st.sampled_from([0.0, 0.5, 7.0, 20.0, 59.9, 60.0])),
        max_size=40,
    )
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_retry_after_matches_a_list_of_all_failures(steps: list[tuple[str, str, float]]) -> None:
    """For any sequence of failures of two networks: what counts is when each token was last tried."""
    now = 0.0
    limit = FailedAuthLimiter(3, lambda: now)
    tried: dict[str, dict[str, float]] = {"a": {}, "b": {}}
    for address, token, step in steps:
        now += step
        for each, times in tried.items():
            recent = sorted(moment for moment in times.values() if now < moment + 60)
            wait = -int((now - recent[-4] - 60) // 1) if len(recent) > 3 else 0
            assert limit.retry_after(each) == wait
        if limit.retry_after(address) == 0:
            limit.record_failure(address, token)
            tried[address][token] = now


def test_number_of_networks_is_limited(monotonic: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network whose last failure is the oldest is dropped."""
    monkeypatch.setattr(rate_limit, "MAX_NETWORKS", 100)
    limit = FailedAuthLimiter(1, lambda: monotonic.now)
    for number, address in enumerate(("first", "second", "first", "second", "first")):
        limit.record_failure(address, f"{number}")
    for number in range(98):
        limit.record_failure(f"{number}", "t")
    assert (len(limit), limit.retry_after("first"), limit.retry_after("second")) == (100, 60, 60)
    limit.record_failure("one more", "t")
    assert (len(limit), limit.retry_after("first"), limit.retry_after("second")) == (100, 60, 0)


def test_networks_are_dropped_after_a_minute_without_failures(monotonic: SimpleNamespace) -> None:
    """Two with each further failure, so that none takes long."""
    limit = FailedAuthLimiter(1, lambda: monotonic.now)
    for number in range(5):
        limit.record_failure(f"{number}", "t")
    monotonic.now += 60
    for left in (4, 2, 1, 1):
        limit.record_failure("later", "t")
        assert len(limit) == left


def test_warnings_are_limited(monotonic: SimpleNamespace) -> None:
    """One per minute for a network, ten for all of them."""
    limit = FailedAuthLimiter(1, lambda: monotonic.now)
    assert [limit.record_failure("a", f"{number}") for number in range(4)] == [False, True, False, False]
    warnings = 1 + sum(limit.record_failure(f"{number}", token) for number in range(50) for token in "tu")
    assert warnings == 10
    monotonic.now += 60
    assert [limit.record_failure("a", token) for token in "tuv"] == [False, True, False]


FORWARDED = [("x-forwarded-for", "198.51.100.{}"), ("forwarded", "for=198.51.100.{}"), ("x-real-ip", "198.51.100.{}")]


@pytest.mark.parametrize("header", FORWARDED, ids=lambda header: header[0])
def test_a_client_chooses_no_address_for_the_limit_or_the_audit_trail(
    served_worker: Serve, header: tuple[str, str]
) -> None:
    """Headers in which proxies name their clients can be sent by anybody."""
    worker = served_worker()
    name, value = header
    for number in range(11):
        status, *_ = worker.post(token=f"guess{number}", headers=((name, value.format(number)),))
    assert status == 429
    worker.audit.close()
    actors = {entry.actor for entry in worker.audit.entries(20)}
    assert actors == {"127.0.0.1", "worker"}  # its own line says how many more there were


def test_rejected_tokens_are_audited(served_worker: Serve) -> None:
    """With address, reason and a fingerprint of the token; requests without a token are not."""
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
    assert {entry.address for entry in entries} == {"127.0.0.1"}
    first, second, third, last = [entry.tokens for entry in entries]
    assert first == last
    assert len({*first, *second, *third}) == 3
