"""Bounded request body and revocable response of one accepted request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .responses import CLOSE, StaticResponse, error_response

MAX_BODY_BYTES = 256 * 1024
BODY_TIMEOUT_SECONDS = 15.0
FLUSH_SECONDS = 1.0
_MAX_LENGTH_DIGITS = 9

_BODY_TOO_LARGE = error_response(413, f"request body exceeds {MAX_BODY_BYTES} bytes", CLOSE)
_BODY_TIMED_OUT = error_response(408, f"request body not received within {BODY_TIMEOUT_SECONDS:g} s", CLOSE)


class RequestCycle:
    """One accepted request and its response.

    `recheck` is called before the application's response begins, and before each part of a streamed one. When it
    returns a response, that becomes `rejection`, and what the application sends is dropped; `cancel` is called if the
    application's response has begun. Without `reads_body` the application gets no body, and none is waited for.
    """

    def __init__(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, *, reads_body: bool = True) -> None:
        self.scope = scope
        self.recheck: Callable[[], StaticResponse | None] = lambda: None
        self.cancel: Callable[[], None] = lambda: None
        self.rejection: StaticResponse | None = None
        self._app = app
        self._receive = receive
        self._send = send
        self._body: bytes | None = None if reads_body else b""
        self._has_started = False
        self._is_streaming = False

    async def run(self, content_length: bytes | None) -> None:
        """Read the body and call the application."""
        rejection = await self._read_body(content_length) if self._body is None else None
        if rejection is not None:
            await self.respond(rejection)
        elif self._body is not None:
            await self._app(self.scope, self._receive_body, self._send_checked)

    async def respond(self, response: StaticResponse) -> None:
        """Send `response` in place of the application's, unless that one has begun."""
        if not self._has_started:
            await response.send(self._forward)

    async def end_stream(self) -> None:
        """Complete a streamed response that was cancelled, so that its client does not wait for more."""
        if self._is_streaming:
            # A client that does not read would block this: its connection is aborted then.
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_SECONDS):
                    await self._forward({"type": "http.response.body", "body": b"", "more_body": False})

    async def _read_body(self, content_length: bytes | None) -> StaticResponse | None:
        """Set `_body`, left None when the client has disconnected; return the response that rejects the body."""
        if content_length is not None and _is_too_large(content_length):
            return _BODY_TOO_LARGE
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
                while True:
                    message = await self._receive()
                    if message["type"] != "http.request":
                        return None
                    body += message.get("body", b"")
                    if len(body) > MAX_BODY_BYTES:
                        return _BODY_TOO_LARGE
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            return _BODY_TIMED_OUT
        self._body = bytes(body)
        return None

    async def _receive_body(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def _send_checked(self, message: Message) -> None:
        is_partial = message.get("more_body", False)
        if self.rejection is None and (is_partial or not self._has_started):
            self.rejection = self.recheck()
            if self.rejection is not None and self._has_started:
                self.cancel()
        if self.rejection is None:
            await self._forward(message)

    async def _forward(self, message: Message) -> None:
        if self._has_started:
            self._is_streaming = message.get("more_body", False)
        await self._send(message)
        # Set afterwards: a client that does not read blocks the first message, which may be cancelled meanwhile.
        self._has_started = True


def _is_too_large(content_length: bytes) -> bool:
    # HTTP allows thousands of leading zeros, int() does not.
    digits = content_length.lstrip(b"0")
    return content_length.isdigit() and (len(digits) > _MAX_LENGTH_DIGITS or int(digits or b"0") > MAX_BODY_BYTES)
