"""Active requests by bearer token, and their cancellation when the token is revoked or expires."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager

import anyio

log = logging.getLogger(__name__)

EXPIRY_CHECK_SECONDS = 0.5
REVOKE_TIMEOUT_SECONDS = 1.0


class ActiveRequests:
    """The authenticated requests that are being served; each is cancelled when its token ends.

    A revocation has cancelled them before it is acknowledged to the client that asked for it; an expiry cancels them
    within `EXPIRY_CHECK_SECONDS`. `revoke` may be called from any thread, all else belongs to the server's loop.
    """

    def __init__(self) -> None:
        self._scopes: dict[str, set[anyio.CancelScope]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._is_live: Callable[[str], bool] = lambda _token: True
        self._expiry_check: asyncio.TimerHandle | None = None
        self._waiting: list[tuple[set[anyio.CancelScope], threading.Event]] = []

    @contextmanager
    def watch(
        self, on_revoked: list[Callable[[Sequence[str]], None]], is_live: Callable[[str], bool]
    ) -> Iterator[None]:
        """Follow a store's revocations and its tokens' expiry; `is_live` must neither block nor raise."""
        self._is_live = is_live
        self._thread = threading.get_ident()
        self._loop = asyncio.get_running_loop()
        on_revoked.append(self.revoke)
        try:
            yield
        finally:
            on_revoked.remove(self.revoke)
            self._loop = None
            if self._expiry_check is not None:
                self._expiry_check.cancel()
                self._expiry_check = None

    @contextmanager
    def track(self, token: str) -> Iterator[anyio.CancelScope]:
        """Track one request for the length of the block; its scope is cancelled when the token ends."""
        scopes = self._scopes.setdefault(token, set())
        self._schedule_expiry_check()
        with anyio.CancelScope() as scope:
            scopes.add(scope)
            try:
                yield scope
            finally:
                scopes.discard(scope)
                if not scopes:
                    self._scopes.pop(token, None)
                if self._waiting:
                    self._notify_waiting(scope)

    def revoke(self, tokens: Sequence[str]) -> None:
        """Cancel the requests of `tokens`, which lookups no longer find.

        When this returns they have ended, streams included, and what could no longer be cancelled has been sent. It
        waits at most `REVOKE_TIMEOUT_SECONDS` for a busy loop: they are cancelled later then, and a warning is logged.
        """
        loop = self._loop
        if loop is None:
            return
        revoked = frozenset(tokens)
        if threading.get_ident() == self._thread:
            self._cancel(revoked)
            return
        # Always through the loop: a request that was authorized just now is tracked before this call runs there.
        is_done = threading.Event()
        try:
            loop.call_soon_threadsafe(self._cancel, revoked, is_done)
        except RuntimeError:  # the loop is closed: no request is active
            return
        if not is_done.wait(REVOKE_TIMEOUT_SECONDS):
            log.warning(
                "MCP server busy for %d s: requests with a revoked token may have been answered in that time",
                REVOKE_TIMEOUT_SECONDS,
            )

    def _cancel(self, revoked: Container[str], is_done: threading.Event | None = None) -> None:
        # Few requests are active; a restored backup may revoke a hundred thousand tokens.
        ending = {scope for token, scopes in self._scopes.items() if token in revoked for scope in scopes}
        for scope in ending:
            scope.cancel()
        if is_done is not None and ending:
            self._waiting.append((ending, is_done))
        elif is_done is not None:
            # One iteration later: a request whose awaited result has just arrived runs on in this iteration.
            asyncio.get_running_loop().call_soon(is_done.set)

    def _notify_waiting(self, scope: anyio.CancelScope) -> None:
        """Wake the callers of `revoke` whose last request this was, one iteration later: it has been sent by then."""
        for ending, is_done in self._waiting:
            ending.discard(scope)
            if not ending:
                asyncio.get_running_loop().call_soon(is_done.set)
        self._waiting = [(ending, is_done) for ending, is_done in self._waiting if ending]

    def _schedule_expiry_check(self) -> None:
        if self._expiry_check is None and self._loop is not None:
            self._expiry_check = self._loop.call_later(EXPIRY_CHECK_SECONDS, self._cancel_expired)

    def _cancel_expired(self) -> None:
        """Cancel the requests of expired tokens; the store's own sweep may come much later."""
        self._expiry_check = None
        if self._scopes:
            self._schedule_expiry_check()
            self._cancel({token for token in self._scopes if not self._is_live(token)})
