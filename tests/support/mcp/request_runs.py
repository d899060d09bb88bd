"""Requests that run with a token, in process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

from nfcli.worker.http.active_requests import RunningRequests
from nfcli.worker.http.allowed_hosts import Names
from nfcli.worker.http.exchange import App
from nfcli.worker.http.middleware import Caller, Gate, Policy
from support.mcp.served_worker import WAIT_SECONDS

Send = Callable[[Any], Awaitable[None]]


class Site:
    """A gate in this loop, before an application of the test's own; `live` are the tokens that are good.

    `revoke` is what a store calls after it has deleted tokens.
    """

    def __init__(self, app: App) -> None:
        self.live = {"t"}
        self.requests = RunningRequests()
        self._listeners: list[Callable[[Sequence[str]], None]] = []
        self._app = app
        self.policy = Policy(
            "w1",
            Names.of(["localhost"]),
            Names.of([]),
            authenticate=lambda token: Caller(token, frozenset(), {}) if token in self.live else None,
            is_live=lambda token: token in self.live,
        )
        self._gate = Gate(self._running, self.requests)

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[tuple[Policy, App]]:
        with self.requests.listening(self._listeners, self.policy.is_live):
            yield self.policy, self._app

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Let requests in, until the end of the block."""
        has_begun, may_end = asyncio.Event(), asyncio.Event()

        async def receive() -> Any:
            if has_begun.is_set():
                await may_end.wait()

        async def send(_message: Any) -> None:
            has_begun.set()

        lifespan = asyncio.create_task(self._gate({"type": "lifespan"}, receive, send))
        await has_begun.wait()
        try:
            yield
        finally:
            may_end.set()
            await lifespan
            assert self._listeners == []

    def revoke(self, token: str = "t") -> None:
        """End a token, as a store does it."""
        self.live.discard(token)
        for tell in self._listeners:
            tell([token])

    async def post(self, send: Send, token: str = "t") -> None:
        """Have the gate serve a request that comes with a token."""
        headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {token}".encode())]
        scope = {"type": "http", "method": "POST", "path": "/mcp", "headers": headers, "client": ("127.0.0.1", 1)}

        async def receive() -> Any:
            return {"type": "http.request", "body": b"{}"}

        await self._gate(scope, receive, send)

    async def ask(self, token: str = "t") -> list[Any]:
        """Return status and bodies of the answer to a request."""
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message.get("status", message.get("body")))

        await self.post(send, token)
        return sent


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test in a loop, for a bounded time."""
    asyncio.run(asyncio.wait_for(test(), WAIT_SECONDS))
