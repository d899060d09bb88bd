"""The verifier: what a token stands for, and that it fails closed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from mcp.server.auth.provider import AccessToken, TokenVerifier

from nfcli.models.tokens import BearerTokenRecord
from nfcli.worker.http.token_verifier import DiskcacheBearerTokenVerifier
from nfcli.worker.tokens.store import TokenStore


def verify(verifier: TokenVerifier, token: str) -> AccessToken | None:
    """Ask as the SDK does."""
    return asyncio.run(verifier.verify_token(token))


@pytest.fixture
def store(open_store: Callable[[], TokenStore]) -> TokenStore:
    """Return a store with a token that lives for a minute and one that lives for ever."""
    store = open_store()
    store.store("alice", "minute", 60)
    store.store("bob", "ever", None)
    return store


def test_token_stands_for_its_user(store: TokenStore, clock: SimpleNamespace) -> None:
    """Scopes and resource are the same for all; the expiry is never before the store's."""
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


def test_token_for_ever_has_no_expiry(store: TokenStore) -> None:
    """Nor a resource where none is published."""
    verifier = DiskcacheBearerTokenVerifier(store, (), None)
    assert verify(verifier, "ever") == AccessToken(token="ever", client_id="bob", subject="bob", scopes=[])


def test_token_dies_at_its_moment(store: TokenStore, clock: SimpleNamespace) -> None:
    """Not with the second that the moment is in, and for good."""
    verifier = DiskcacheBearerTokenVerifier(store, (), None)
    clock.now += 59.999
    assert verify(verifier, "minute") is not None
    clock.now += 0.001
    assert verify(verifier, "minute") is None
    clock.now -= 30
    assert verify(verifier, "minute") is None


def test_deleted_token_is_refused_on_the_next_request(store: TokenStore) -> None:
    """Nothing is cached."""
    verifier = DiskcacheBearerTokenVerifier(store, (), None)
    assert verify(verifier, "ever") is not None
    store.delete(token="ever")
    assert verify(verifier, "ever") is None


@pytest.mark.parametrize("token", ["", "unknown", "EVER", "ever ", "\x00", "\udcff", "x" * 100_000])
def test_anything_else_is_refused(store: TokenStore, token: str) -> None:
    """Whatever was sent."""
    assert verify(DiskcacheBearerTokenVerifier(store, (), None), token) is None


def test_closed_store_lets_nobody_in(store: TokenStore) -> None:
    """The last moments of a worker are no exception."""
    verifier = DiskcacheBearerTokenVerifier(store, (), None)
    store.close()
    assert verify(verifier, "ever") is None


def test_fault_of_the_store_is_a_no_to_the_sdk_and_an_error_to_the_gate(caplog: pytest.LogCaptureFixture) -> None:
    """The SDK would answer an exception with a bare 500; the log doesn't repeat what was asked."""

    class Broken:
        def lookup(self, token: str) -> BearerTokenRecord | None:
            raise OSError(f"can't look up {token}")

    verifier = DiskcacheBearerTokenVerifier(Broken(), (), None)
    caplog.set_level(logging.DEBUG, logger="nfcli")
    assert verify(verifier, "secret-token") is None
    assert caplog.messages == ["the token store can't be asked: OSError"]
    with pytest.raises(OSError, match="can't look up"):
        verifier.find("secret-token")
