"""The request middleware in front of a test's application, in process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import ASGIApp, Message, Send

from nfcli.worker.http.active_requests import ActiveRequests
from nfcli.worker.http.allowed_hosts import HostPatterns
from nfcli.worker.http.bearer import bearer_scheme
from nfcli.worker.http.middleware import RequestMiddleware
from nfcli.worker.http.policy import AccessPolicy, AuthScheme, Caller
from support.mcp.served_worker import WAIT_SECONDS


class MiddlewareBench:
    """The request middleware, in front of an application, in this loop; `live` are the valid tokens.

    Args:
        app: the application.
        authenticate: replaces the lookup of a token in `live`.
        schemes: authentication schemes besides Bearer.
    """

    def __init__(
        self,
        app: ASGIApp,
        authenticate: Callable[[str], Caller | None] | None = None,
        schemes: Sequence[AuthScheme] = (),
    ) -> None:
        self.live = {"t"}
        self.requests = ActiveRequests()
        self._listeners: list[Callable[[Sequence[str]], None]] = []
        self._policy = AccessPolicy(
            "w1",
            HostPatterns.parse(["localhost"]),
            HostPatterns.parse([]),
            schemes=(bearer_scheme(authenticate or self._authenticate), *schemes),
            is_live=lambda token: token in self.live,
        )
        self._middleware = RequestMiddleware(app, self._policy, self.requests, self._lifespan)

    @property
    def rejection(self) -> list[Any]:
        """What `request` returns where the token is not valid."""
        invalid = self._policy.schemes[0].invalid
        return [invalid.status, invalid.body]

    def _authenticate(self, token: str) -> Caller | None:
        return Caller(token, frozenset(), {}) if token in self.live else None

    @asynccontextmanager
    async def _lifespan(self) -> AsyncIterator[None]:
        with self.requests.watch(self._listeners, self._policy.is_live):
            yield

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Serve requests until the end of the block."""
        has_begun, may_end = asyncio.Event(), asyncio.Event()

        async def receive() -> Any:
            if has_begun.is_set():
                await may_end.wait()

        async def send(_message: Any) -> None:
            has_begun.set()

        lifespan = asyncio.create_task(self._middleware({"type": "lifespan"}, receive, send))
        await has_begun.wait()
        try:
            yield
        finally:
            may_end.set()
            await lifespan
            assert self._listeners == []

    def revoke(self, token: str = "t") -> None:
        """Delete a token and notify the listeners, as a store does."""
        self.live.discard(token)
        for on_revoked in self._listeners:
            on_revoked([token])

    async def post(self, send: Send, authorization: str | None = "Bearer t") -> None:
        """Serve a request with an Authorization header, or without one."""
        headers = [(b"host", b"localhost")]
        if authorization is not None:
            headers.append((b"authorization", authorization.encode()))
        scope = {"type": "http", "method": "POST", "path": "/mcp", "headers": headers, "client": ("127.0.0.1", 1)}

        async def receive() -> Any:
            return {"type": "http.request", "body": b"{}"}

        await self._middleware(scope, receive, send)

    async def messages(self, authorization: str | None) -> list[Message]:
        """Return the messages of the response to a request with this Authorization header."""
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        await self.post(send, authorization)
        return sent

    async def request(self, token: str = "t") -> list[Any]:
        """Return status and body parts of the response to a request with a token."""
        return [message.get("status", message.get("body")) for message in await self.messages(f"Bearer {token}")]


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test in an event loop, for a limited time."""
    asyncio.run(asyncio.wait_for(test(), WAIT_SECONDS))
