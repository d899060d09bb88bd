"""The token verifier: owners of tokens, expiry, failures."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pytest
from mcp.server.auth.provider import AccessToken, TokenVerifier

from nfcli.models.tokens import BearerTokenRecord
from nfcli.worker.http.bearer import DiskcacheBearerTokenVerifier
from nfcli.worker.tokens.store import TokenStore
from support.tokens.token_store import delete_tokens, store_token


def verify(verifier: TokenVerifier, token: str) -> AccessToken | None:
    """Verify a token as the SDK does."""
    return asyncio.run(verifier.verify_token(token))


@pytest.fixture
def store(open_store: Callable[[], TokenStore]) -> TokenStore:
    """Return a store with a token that expires after a minute and one that never expires."""
    store = open_store()
    store_token(store, "alice", "minute", 60)
    store_token(store, "bob", "ever", None)
    return store


def test_token_resolves_to_its_user(store: TokenStore, clock: SimpleNamespace) -> None:
    """Scopes and resource are the same for all tokens; the expiry is never before the store's."""
    verifier = DiskcacheBearerTokenVerifier(store, ("read", "write"), "https://mcp.example.com")
    expected = AccessToken(
        token="minute",
        client_id="alice",
        subject="alice",
        scopes=["read", "write"],
        expires_at=int(clock.now) + 61,
        resource="https://mcp.example.com",
    )
    assert verify(verifier, "minute") == expected
    assert clock.now + 60 <= (expected.expires_at or 0) < clock.now + 61


def test_token_that_never_expires_has_no_expiry(store: TokenStore) -> None:
    """It has no resource where none is published."""
    verifier = DiskcacheBearerTokenVerifier(store, (), None)
    assert verify(verifier, "ever") == AccessToken(token="ever", client_id="bob", subject="bob", scopes=[])


def test_token_expires_exactly_and_for_good(store: TokenStore, clock: SimpleNamespace) -> None:
    """Not at the next whole second; a clock that is set back does not revive it."""
    verifier = DiskcacheBearerTokenVerifier(store, (), None)
    clock.now += 59.999
    assert verify(verifier, "minute") is not None
    clock.now += 0.001
    assert verify(verifier, "minute") is None
    clock.now -= 30
    assert verify(verifier, "minute") is None


def test_deleted_token_is_rejected_on_the_next_request(store: TokenStore) -> None:
    """Nothing is cached."""
    verifier = DiskcacheBearerTokenVerifier(store, (), None)
    assert verify(verifier, "ever") is not None
    delete_tokens(store, token="ever")
    assert verify(verifier, "ever") is None


@pytest.mark.parametrize("token", ["", "unknown", "EVER", "ever ", "\x00", "\udcff", "x" * 100_000])
def test_unknown_token_is_rejected(store: TokenStore, token: str) -> None:
    """For any text."""
    assert verify(DiskcacheBearerTokenVerifier(store, (), None), token) is None


def test_closed_store_rejects_every_token(store: TokenStore) -> None:
    """Requests may arrive while a worker stops."""
    verifier = DiskcacheBearerTokenVerifier(store, (), None)
    store.close()
    assert verify(verifier, "ever") is None


def test_failing_store_rejects_in_the_sdk_and_raises_in_the_middleware(caplog: pytest.LogCaptureFixture) -> None:
    """The SDK would respond to an exception with a bare 500; the log does not contain the token."""

    class Broken:
        on_revoked: list[Callable[[Sequence[str]], None]] = []  # noqa: RUF012  as the store's

        def lookup(self, token: str) -> BearerTokenRecord | None:
            raise OSError(f"cannot look up {token}")

    verifier = DiskcacheBearerTokenVerifier(Broken(), (), None)
    caplog.set_level(logging.DEBUG, logger="nfcli")
    assert verify(verifier, "secret-token") is None
    assert caplog.messages == ["cannot look up tokens: OSError"]
    with pytest.raises(OSError, match="cannot look up"):
        verifier.authenticate("secret-token")
