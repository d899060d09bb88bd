"""Event streams for requests that take long: proxies and clients end connections on which nothing is sent for a while.

A reply begins as JSON if it is ready soon. Otherwise an event stream begins, for clients that accept one: it carries
progress notifications if the request has a `progressToken`, else comments, and in the end the same reply as an event.
A task that reports its progress, or asks, makes a stream begin at once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..http.responses import EVENT_STREAM

BEGIN_SECONDS = 2.0
PROGRESS_SECONDS = 2.0
COMMENT_SECONDS = 10.0
_FLUSH_SECONDS = 0.5

_COMMENT = b": still running\n\n"
_STREAM_TYPE = "text/event-stream"
_SERVER_ERROR = -32000


class Pace(NamedTuple):
    """After how many seconds a stream begins, and how many lie between notifications and between comments."""

    begin: float = BEGIN_SECONDS
    progress: float = PROGRESS_SECONDS
    comment: float = COMMENT_SECONDS


_current: ContextVar[ReplyStream | None] = ContextVar("reply", default=None)


def current_reply() -> ReplyStream | None:
    """Return the reply of the request that is being served, None for one whose client accepts no stream."""
    return _current.get()


class ReplyStreams:
    """An ASGI application that makes an event stream of another one's JSON reply once a request takes long.

    Requests whose client accepts no stream, and replies that are streams already, pass unchanged.
    """

    def __init__(self, app: ASGIApp, pace: Pace | None = None) -> None:
        self._app = app
        self._pace = Pace() if pace is None else pace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if not _accepts_stream(scope):
            _current.set(None)
            await self._app(scope, receive, send)
            return
        reply = ReplyStream(receive, send, self._pace)
        _current.set(reply)
        try:
            await self._app(scope, reply.receive, reply.send)
        except asyncio.CancelledError:
            await reply.fail()
            raise
        finally:
            reply.close()


class ReplyStream:
    """One reply: JSON, or an event stream that begins after a while, or with a message that is sent before the reply.

    Belongs to the loop that serves the request.
    """

    def __init__(self, receive: Receive, send: Send, pace: Pace) -> None:
        self._receive = receive
        self._send = send
        self._pace = pace
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._lock = asyncio.Lock()
        self._body = b""
        self._request_id: int | str | None = None
        self._inner: list[bytes] = []
        self._is_streaming = self._is_relayed = self._has_ended = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._progress = 0.0
        self._timer = self._loop.call_later(pace.begin, self._begin)

    async def receive(self) -> Message:
        """Receive a message of the request, and keep its body."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._body += message.get("body", b"")
        return message

    async def send(self, message: Message) -> None:
        """Send a message of the application's reply."""
        async with self._lock:
            self._timer.cancel()
            if not self._is_streaming:
                self._has_ended = True
                await self._send(message)
            elif message["type"] == "http.response.start":
                self._is_relayed = _media_type(message) == _STREAM_TYPE
            elif self._is_relayed:
                self._has_ended = True
                await self._send(message)
            else:
                self._inner.append(message.get("body", b""))
                if not message.get("more_body", False):
                    await self._finish(b"".join(self._inner))

    async def fail(self) -> None:
        """End a stream whose request was cancelled. If that is because its token has ended, nothing of this is sent."""
        # A client that does not read blocks the stream: a deleted token must not wait for it.
        if not self._is_streaming or self._has_ended or self._lock.locked():
            return
        error = {"code": _SERVER_ERROR, "message": "the call was cancelled: the worker is stopping"}
        with anyio.CancelScope(shield=True), anyio.move_on_after(_FLUSH_SECONDS):
            async with self._lock:
                await self._finish(json.dumps({"jsonrpc": "2.0", "id": self._request_id, "error": error}).encode())

    def close(self) -> None:
        """Send nothing more."""
        self._has_ended = True
        self._timer.cancel()
        for task in self._tasks:
            task.cancel()

    def push(self, message: Mapping[str, Any]) -> None:
        """Send a JSON-RPC message before the reply, after those that were pushed before it; from the loop."""
        body = _event(json.dumps({"jsonrpc": "2.0", **message}, ensure_ascii=False).encode())
        self._start(self._send_part(lambda: body))

    def push_progress(self, text: str) -> None:
        """Send a progress notification with a text, if the request has a token for them."""
        request = _request(self._body)
        token = None if request is None else _progress_token(request)
        if token is not None:
            self._start(self._send_part(lambda: self._notification(token, text)))

    def _start(self, sending: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(sending)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send_part(self, body: Callable[[], bytes]) -> None:
        """Send a part of the stream, which begins with it if it hasn't yet; nothing if the reply has ended."""
        async with self._lock:
            if self._has_ended:
                return
            if not self._is_streaming:
                self._is_streaming = True
                await self._send({"type": "http.response.start", "status": 200, "headers": list(EVENT_STREAM)})
            await self._send({"type": "http.response.body", "body": body(), "more_body": True})

    def _notification(self, token: int | str, text: str | None = None) -> bytes:
        """Return a notification; the progress is the time so far, since it has to increase with each of them."""
        seconds = self._loop.time() - self._started
        self._progress = max(round(seconds, 3), round(self._progress + 0.001, 3))
        text = f"running for {seconds:.0f} s" if text is None else text
        parameters = {"progressToken": token, "progress": self._progress, "message": text}
        message = {"jsonrpc": "2.0", "method": "notifications/progress", "params": parameters}
        return _event(json.dumps(message, ensure_ascii=False).encode())

    async def _finish(self, body: bytes) -> None:
        self._has_ended = True
        # The result is a part of the stream, not its end: the middleware looks the token up before each part.
        if body:
            await self._send({"type": "http.response.body", "body": _event(body), "more_body": True})
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def _begin(self) -> None:
        """Begin a stream, if this is a request that has an answer."""
        request = _request(self._body)
        if request is not None:
            self._request_id = request["id"]
            self._start(self._keep_alive(_progress_token(request)))

    async def _keep_alive(self, token: int | str | None) -> None:
        """Send the head of a stream, and then notifications or comments until the reply ends."""
        while not self._has_ended:
            await self._send_part(lambda: _COMMENT if token is None else self._notification(token))
            await asyncio.sleep(self._pace.comment if token is None else self._pace.progress)


def _accepts_stream(scope: Scope) -> bool:
    accepted = b",".join(value for name, value in scope["headers"] if name == b"accept")
    return any(each.partition(b";")[0].strip().lower() == _STREAM_TYPE.encode() for each in accepted.split(b","))


def _media_type(start: Message) -> str:
    values = (value for name, value in start.get("headers", ()) if name.lower() == b"content-type")
    return str(next(values, b"").partition(b";")[0].strip().lower().decode("latin-1"))


def _request(body: bytes) -> Mapping[str, Any] | None:
    """Return a body that is a JSON-RPC request, else None."""
    try:
        message: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    is_request = isinstance(message, dict) and "method" in message and type(message.get("id")) in {int, str}
    return message if is_request else None


def _progress_token(request: Mapping[str, Any]) -> int | str | None:
    try:
        token = request["params"]["_meta"]["progressToken"]
    except (KeyError, TypeError):
        return None
    return token if type(token) in {int, str} else None


def _event(message: bytes) -> bytes:
    """Return a JSON-RPC message as an event; a line end can only stand between its parts."""
    return b"event: message\ndata: " + b" ".join(message.splitlines()) + b"\n\n"
