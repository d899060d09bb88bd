"""The MCP requests under way, by the token they came with: they end when it ends."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager

import anyio

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
REVOKE_SECONDS = 1.0


class RunningRequests:
    """The requests under way, so that they end with their tokens.

    A token that is taken away ends them before whoever took it away is told that it is gone; one that expires within
    `LOOK_SECONDS`. `revoke` may be called from any thread, all else belongs to the loop that serves the requests.
    """

    def __init__(self) -> None:
        self._scopes: dict[str, set[anyio.CancelScope]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._is_live: Callable[[str], bool] = lambda _token: True
        self._next_look: asyncio.TimerHandle | None = None
        self._awaited: list[tuple[set[anyio.CancelScope], threading.Event]] = []

    @contextmanager
    def listening(
        self, on_revoked: list[Callable[[Sequence[str]], None]], is_live: Callable[[str], bool]
    ) -> Iterator[None]:
        """Follow a store's revocations and watch its tokens' expiry; `is_live` must neither block nor raise."""
        self._is_live = is_live
        self._thread = threading.get_ident()
        self._loop = asyncio.get_running_loop()
        on_revoked.append(self.revoke)
        try:
            yield
        finally:
            on_revoked.remove(self.revoke)
            self._loop = None
            if self._next_look is not None:
                self._next_look.cancel()
                self._next_look = None

    @contextmanager
    def entry(self, token: str) -> Iterator[anyio.CancelScope]:
        """Hold a place for one request; its scope is cancelled when the token ends."""
        scopes = self._scopes.setdefault(token, set())
        self._look_later()
        with anyio.CancelScope() as scope:
            scopes.add(scope)
            try:
                yield scope
            finally:
                scopes.discard(scope)
                if not scopes:
                    self._scopes.pop(token, None)
                if self._awaited:
                    self._has_ended(scope)

    def revoke(self, tokens: Sequence[str]) -> None:
        """End the requests that came with one of `tokens`, which no look-up finds any more.

        When this returns they have ended, streams among them, and what could not be stopped any more has been sent. A
        loop that is too busy is waited for no longer than `REVOKE_SECONDS`: the end follows, and the log says so.
        """
        loop = self._loop
        if loop is None:
            return
        gone = frozenset(tokens)
        if threading.get_ident() == self._thread:
            self._cancel(gone)
            return
        # Always by way of the loop: a request that was let in a moment ago has its place there before this comes.
        is_done = threading.Event()
        try:
            loop.call_soon_threadsafe(self._cancel, gone, is_done)
        except RuntimeError:  # closed: nothing is served any more
            return
        if not is_done.wait(REVOKE_SECONDS):
            log.warning(
                "the MCP server was busy for %d s: requests with a token that is gone may have been answered meanwhile",
                REVOKE_SECONDS,
            )

    def _cancel(self, gone: Container[str], is_done: threading.Event | None = None) -> None:
        # Those under way are few, those that a restored backup takes away may be a hundred thousand.
        ending = {scope for token, scopes in self._scopes.items() if token in gone for scope in scopes}
        for scope in ending:
            scope.cancel()
        if is_done is not None and ending:
            self._awaited.append((ending, is_done))
        elif is_done is not None:
            # Once around the loop: a request can't be stopped in the round in which what it waited for has come.
            asyncio.get_running_loop().call_soon(is_done.set)

    def _has_ended(self, scope: anyio.CancelScope) -> None:
        """Tell those who wait for the last of several requests; once around the loop, its last word has been sent."""
        for ending, is_done in self._awaited:
            ending.discard(scope)
            if not ending:
                asyncio.get_running_loop().call_soon(is_done.set)
        self._awaited = [(ending, is_done) for ending, is_done in self._awaited if ending]

    def _look_later(self) -> None:
        if self._next_look is None and self._loop is not None:
            self._next_look = self._loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """End the requests whose tokens have expired; the store's own sweep may come much later."""
        self._next_look = None
        if self._scopes:
            self._look_later()
            self._cancel({token for token in self._scopes if not self._is_live(token)})
