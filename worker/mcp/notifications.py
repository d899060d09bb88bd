"""Telling MCP clients that a list has changed: `subscriptions/listen` (2026-07-28), a GET's stream (2025-11-25).

Both carry nothing but the word that a list is no longer what it was. They are requests like any other: the gate lets
them in and ends them with their token.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import anyio
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import ListenHandler
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import PromptsListChanged, ServerEvent, ToolsListChanged
from mcp_types import INTERNAL_ERROR, SubscriptionsListenRequestParams, SubscriptionsListenResult
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from ..http.responses import Answer, refusal
from ..tools.catalogue import ListChange, ToolCatalogue

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_STREAMS = 100
MAX_STREAMS_OF_A_USER = 20
MAX_WAITING_EVENTS = 16
KEEP_ALIVE_SECONDS = 15.0

_TOO_MANY = "too many streams are open: ask again for the lists, now and then"
_FULL = refusal(503, _TOO_MANY)
_STOPPING = refusal(503, "the worker is stopping", (b"connection", b"close"))
_NOT_ACCEPTABLE = refusal(406, "a GET opens a stream of changes: Accept must name text/event-stream")
_OTHER_VERSION = refusal(
    405, "this MCP version has no stream for a GET: send subscriptions/listen", (b"allow", b"POST")
)
_START: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"content-type", b"text/event-stream"),
        (b"cache-control", b"no-cache, no-transform"),
        (b"x-accel-buffering", b"no"),
    ],
}
_END: Message = {"type": "http.response.body", "body": b"", "more_body": False}
_COMMENT = b": nothing has changed\n\n"


def _event(method: str) -> bytes:
    return f"event: message\ndata: {json.dumps({'jsonrpc': '2.0', 'method': method})}\n\n".encode()


_EVENTS: dict[type[ServerEvent], bytes] = {
    ToolsListChanged: _event("notifications/tools/list_changed"),
    PromptsListChanged: _event("notifications/prompts/list_changed"),
}


class _Stream:
    """One GET's stream: what it has to tell yet. Changes that come while the client doesn't read are told once."""

    def __init__(self) -> None:
        self.waiting: dict[type[ServerEvent], None] = {}
        self.has_ended = False
        self.woken = asyncio.Event()

    def tell(self, event: ServerEvent) -> None:
        self.waiting[type(event)] = None
        self.woken.set()

    def end(self) -> None:
        self.has_ended = True
        self.woken.set()


class _Bus:
    """The SDK's `SubscriptionBus`, for this loop alone."""

    def __init__(self) -> None:
        self._listeners: dict[object, Callable[[ServerEvent], None]] = {}

    def tell(self, event: ServerEvent) -> None:
        """Tell all that listen."""
        for listener in list(self._listeners.values()):
            listener(event)

    async def publish(self, event: ServerEvent) -> None:
        """Tell all that listen."""
        self.tell(event)

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        """Listen until the function that is returned is called."""
        key = object()
        self._listeners[key] = listener

        def unsubscribe() -> None:
            self._listeners.pop(key, None)

        return unsubscribe


class ListChanges:
    """The streams of a worker's MCP server, of both kinds; belongs to the loop that serves them.

    An instance is the ASGI application behind a GET.
    """

    def __init__(self) -> None:
        self._bus = _Bus()
        self._listen = ListenHandler(self._bus, max_subscriptions=MAX_STREAMS, max_buffered_events=MAX_WAITING_EVENTS)
        self._streams: set[_Stream] = set()
        self._open: Counter[str] = Counter()
        self._is_closed = False
        self._lock = threading.Lock()
        self._untold: set[type[ServerEvent]] = set()

    @contextmanager
    def following(self, catalogue: ToolCatalogue) -> Iterator[None]:
        """Tell of a catalogue's changes, whichever thread makes them, until the end of the block."""
        loop = asyncio.get_running_loop()

        def changed(change: ListChange) -> None:
            with self._lock:
                is_told_soon = bool(self._untold)
                self._untold |= {ToolsListChanged} if change.tools else set()
                self._untold |= {PromptsListChanged} if change.prompts else set()
            if not is_told_soon:
                try:
                    loop.call_soon_threadsafe(self._tell)
                except RuntimeError:  # closed: nobody listens any more
                    log.debug("a change of the lists came after the end")

        catalogue.on_change.append(changed)
        try:
            yield
        finally:
            catalogue.on_change.remove(changed)

    def close(self) -> None:
        """End all streams, as they should end; let none begin."""
        self._is_closed = True
        for stream in self._streams:
            stream.end()
        self._listen.close()

    async def listen(
        self, context: ServerRequestContext[Any, Any], params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """Serve `subscriptions/listen`.

        Raises:
            MCPError: there are too many streams, or the worker is stopping.
        """
        if self._is_closed:
            raise MCPError(INTERNAL_ERROR, "the worker is stopping")
        access = get_access_token()
        user = "" if access is None else access.client_id
        if self._is_full(user):
            raise MCPError(INTERNAL_ERROR, _TOO_MANY)
        with self._place(user):
            return await self._listen(context, params)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve a GET."""
        user = getattr(scope.get("user"), "username", "")
        refused = self._refusal(scope, user)
        if refused is not None:
            await refused.send(send)
            return
        stream = _Stream()
        self._streams.add(stream)
        unsubscribe = self._bus.subscribe(stream.tell)
        watch = asyncio.create_task(_watch(receive, stream))
        try:
            with self._place(user):
                await send(_START)
                await _serve(stream, send)
                await send(_END)
        finally:
            watch.cancel()
            unsubscribe()
            self._streams.discard(stream)

    def _refusal(self, scope: MutableMapping[str, Any], user: str) -> Answer | None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        version = headers.get(b"mcp-protocol-version")
        if version is not None and version not in HANDSHAKE_PROTOCOL_VERSIONS:
            return _OTHER_VERSION
        kinds = {each.partition(";")[0].strip().lower() for each in headers.get(b"accept", "").split(",")}
        if "text/event-stream" not in kinds:
            return _NOT_ACCEPTABLE
        if self._is_closed:
            return _STOPPING
        return _FULL if self._is_full(user) else None

    def _is_full(self, user: str) -> bool:
        """Whether there is no room for another stream, of this user ("": nobody was asked who it is) or at all."""
        return self._open.total() >= MAX_STREAMS or (user != "" and self._open[user] >= MAX_STREAMS_OF_A_USER)

    @contextmanager
    def _place(self, user: str) -> Iterator[None]:
        self._open[user] += 1
        try:
            yield
        finally:
            self._open[user] -= 1
            self._open += Counter()  # drops those that are zero

    def _tell(self) -> None:
        with self._lock:
            untold, self._untold = self._untold, set()
        for event in (ToolsListChanged, PromptsListChanged):
            if event in untold:
                self._bus.tell(event())


async def _serve(stream: _Stream, send: Send) -> None:
    """Tell the changes until the stream ends."""
    while not stream.has_ended:
        body = b"".join(_EVENTS[kind] for kind in stream.waiting if kind in _EVENTS) or _COMMENT
        stream.waiting.clear()
        stream.woken.clear()
        await send({"type": "http.response.body", "body": body, "more_body": True})
        with anyio.move_on_after(KEEP_ALIVE_SECONDS):
            await stream.woken.wait()


async def _watch(receive: Receive, stream: _Stream) -> None:
    """End a stream whose client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    stream.end()
