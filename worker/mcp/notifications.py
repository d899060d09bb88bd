"""Notifications of changed lists: `subscriptions/listen` (2026-07-28), a GET's event stream (2025-11-25).

Both carry only list_changed notifications. They are ordinary requests: the middleware authenticates them and ends them
with their token.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import anyio
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import ListenHandler
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import PromptsListChanged, ServerEvent, ToolsListChanged
from mcp_types import INTERNAL_ERROR, SubscriptionsListenRequestParams, SubscriptionsListenResult
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.types import Message, Receive, Scope, Send

from ..http.responses import CLOSE, EVENT_STREAM, StaticResponse, error_response
from ..tools.catalogue import ListChange, ToolCatalogue

log = logging.getLogger(__name__)

MAX_STREAMS = 100
MAX_STREAMS_PER_USER = 20
MAX_BUFFERED_EVENTS = 16
KEEP_ALIVE_SECONDS = 15.0

_TOO_MANY = "too many notification streams are open; poll the lists instead"
_FULL = error_response(503, _TOO_MANY)
_STOPPING = error_response(503, "the worker is stopping", CLOSE)
_NOT_ACCEPTABLE = error_response(406, "a GET opens a notification stream; Accept must include text/event-stream")
_OTHER_VERSION = error_response(
    405, "this MCP version has no stream for a GET; send subscriptions/listen", (b"allow", b"POST")
)
_START: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": list(EVENT_STREAM),
}
_END: Message = {"type": "http.response.body", "body": b"", "more_body": False}
_COMMENT = b": nothing has changed\n\n"


def _encode_event(method: str) -> bytes:
    return f"event: message\ndata: {json.dumps({'jsonrpc': '2.0', 'method': method})}\n\n".encode()


_EVENTS: dict[type[ServerEvent], bytes] = {
    ToolsListChanged: _encode_event("notifications/tools/list_changed"),
    PromptsListChanged: _encode_event("notifications/prompts/list_changed"),
}


class _EventStream:
    """The pending events of one GET's stream; repeated changes while the client does not read are sent once."""

    def __init__(self) -> None:
        self.pending: dict[type[ServerEvent], None] = {}
        self.has_ended = False
        self.woken = asyncio.Event()

    def add(self, event: ServerEvent) -> None:
        self.pending[type(event)] = None
        self.woken.set()

    def end(self) -> None:
        self.has_ended = True
        self.woken.set()


class _Bus:
    """The SDK's `SubscriptionBus`, within one loop."""

    def __init__(self) -> None:
        self._listeners: set[Callable[[ServerEvent], None]] = set()

    def send(self, event: ServerEvent) -> None:
        for listener in list(self._listeners):
            listener(event)

    async def publish(self, event: ServerEvent) -> None:
        self.send(event)

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        self._listeners.add(listener)
        return partial(self._listeners.discard, listener)


class ListChangeNotifier:
    """The notification streams of an MCP server, of both kinds; belongs to the loop that serves them.

    An instance is the ASGI application for GET requests.
    """

    def __init__(self) -> None:
        self._bus = _Bus()
        self._listen = ListenHandler(self._bus, max_subscriptions=MAX_STREAMS, max_buffered_events=MAX_BUFFERED_EVENTS)
        self._streams: set[_EventStream] = set()
        self._open: Counter[str] = Counter()
        self._is_closed = False
        self._lock = threading.Lock()
        self._pending: set[type[ServerEvent]] = set()

    @contextmanager
    def watch(self, catalogue: ToolCatalogue) -> Iterator[None]:
        """Notify clients of a catalogue's changes, from whichever thread, for the length of the block."""
        loop = asyncio.get_running_loop()

        def on_change(change: ListChange) -> None:
            with self._lock:
                is_scheduled = bool(self._pending)
                self._pending |= {ToolsListChanged} if change.tools else set()
                self._pending |= {PromptsListChanged} if change.prompts else set()
            if not is_scheduled:
                try:
                    loop.call_soon_threadsafe(self._send_pending)
                except RuntimeError:  # the loop is closed: there are no streams
                    log.debug("tool or prompt list changed after the MCP server's end")

        catalogue.on_change.append(on_change)
        try:
            yield
        finally:
            catalogue.on_change.remove(on_change)

    def close(self) -> None:
        """Complete all streams, and reject new ones."""
        self._is_closed = True
        for stream in self._streams:
            stream.end()
        self._listen.close()

    async def listen(
        self, context: ServerRequestContext[Any, Any], params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """Handle `subscriptions/listen`.

        Raises:
            MCPError: too many streams are open, or the worker is stopping.
        """
        if self._is_closed:
            raise MCPError(INTERNAL_ERROR, "the worker is stopping")
        access = get_access_token()
        user = "" if access is None else access.client_id
        if self._is_full(user):
            raise MCPError(INTERNAL_ERROR, _TOO_MANY)
        with self._slot(user):
            return await self._listen(context, params)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a GET."""
        user = getattr(scope.get("user"), "username", "")
        rejection = self._reject(scope, user)
        if rejection is not None:
            await rejection.send(send)
            return
        stream = _EventStream()
        self._streams.add(stream)
        unsubscribe = self._bus.subscribe(stream.add)
        watch = asyncio.create_task(_end_on_disconnect(receive, stream))
        try:
            with self._slot(user):
                await send(_START)
                await _send_events(stream, send)
                await send(_END)
        finally:
            watch.cancel()
            unsubscribe()
            self._streams.discard(stream)

    def _reject(self, scope: Scope, user: str) -> StaticResponse | None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        version = headers.get(b"mcp-protocol-version")
        if version is not None and version not in HANDSHAKE_PROTOCOL_VERSIONS:
            return _OTHER_VERSION
        media_types = {each.partition(";")[0].strip().lower() for each in headers.get(b"accept", "").split(",")}
        if "text/event-stream" not in media_types:
            return _NOT_ACCEPTABLE
        if self._is_closed:
            return _STOPPING
        return _FULL if self._is_full(user) else None

    def _is_full(self, user: str) -> bool:
        """Whether no further stream is allowed, for this user (empty without authentication) or for all of them."""
        return self._open.total() >= MAX_STREAMS or (user != "" and self._open[user] >= MAX_STREAMS_PER_USER)

    @contextmanager
    def _slot(self, user: str) -> Iterator[None]:
        self._open[user] += 1
        try:
            yield
        finally:
            self._open[user] -= 1
            self._open += Counter()  # drops zero counts

    def _send_pending(self) -> None:
        with self._lock:
            pending, self._pending = self._pending, set()
        for event in (ToolsListChanged, PromptsListChanged):
            if event in pending:
                self._bus.send(event())


async def _send_events(stream: _EventStream, send: Send) -> None:
    """Send events, or comments that keep the connection alive, until the stream ends."""
    while not stream.has_ended:
        body = b"".join(_EVENTS[kind] for kind in stream.pending if kind in _EVENTS) or _COMMENT
        stream.pending.clear()
        stream.woken.clear()
        await send({"type": "http.response.body", "body": body, "more_body": True})
        with anyio.move_on_after(KEEP_ALIVE_SECONDS):
            await stream.woken.wait()


async def _end_on_disconnect(receive: Receive, stream: _EventStream) -> None:
    """End a stream when its client disconnects."""
    while (await receive())["type"] != "http.disconnect":
        pass
    stream.end()
