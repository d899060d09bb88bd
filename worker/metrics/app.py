"""The HTTP server's application for metrics, and the one that counts the responses of another."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..http.allowed_hosts import HostPatterns
from ..http.responses import REFUSAL, StaticResponse

METRICS_PATH = "/metrics"
_TEXT = (b"content-type", b"text/plain; charset=utf-8")
_NOT_FOUND = StaticResponse(404, b"only /metrics is served at this address\n", (_TEXT,))
_READ_ONLY = StaticResponse(405, b"send a GET\n", (_TEXT, (b"allow", b"GET, HEAD")))
_HOST_NOT_ALLOWED = StaticResponse(
    421, b"Host not allowed: use an IP address, or add the name to allowed_hosts\n", (_TEXT,)
)


class MetricsApp:
    """Serves the metrics of a registry, one reading at a time: it takes milliseconds, in a thread.

    A Host header must be an IP address or one of `hosts`: pages in a browser of this machine could read the metrics by
    DNS rebinding. These may be replaced at any time.
    """

    def __init__(self, registry: CollectorRegistry, hosts: HostPatterns) -> None:
        self.hosts = hosts
        self._registry = registry
        self._lock = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or the application's lifespan."""
        if scope["type"] == "http":
            await (await self._respond(scope)).send(send)
        elif scope["type"] == "lifespan":
            for phase in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{phase}.complete"})
        else:
            await send({"type": "websocket.close"})

    async def _respond(self, scope: Scope) -> StaticResponse:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if scope["path"] != METRICS_PATH:
            return _NOT_FOUND
        if not self._is_allowed(headers.get(b"host", "")):
            return _HOST_NOT_ALLOWED
        if scope["method"] not in {"GET", "HEAD"}:
            return _READ_ONLY
        encode, content_type = choose_encoder(headers.get(b"accept", ""))
        async with self._lock:
            text = await asyncio.to_thread(encode, self._registry)
        return StaticResponse(200, text, ((b"content-type", content_type.encode()),))

    def _is_allowed(self, host: str) -> bool:
        return not host or _is_address(host) or self.hosts.allows(host)


def _is_address(host: str) -> bool:
    """Whether a Host header is an IP address, with a port or without one."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class CountingApp:
    """Calls `on_response` with method, status and reason of refusal of each response of another application."""

    def __init__(self, app: ASGIApp, on_response: Callable[[str, int, str], None]) -> None:
        self._app = app
        self._on_response = on_response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or the application's lifespan."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._on_response(scope["method"], message["status"], message.get(REFUSAL, ""))
            await send(message)

        await self._app(scope, receive, send_counted)
