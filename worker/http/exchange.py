"""One HTTP request that was let in: its body, read within bounds, and the response that goes out while it may."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from .responses import Answer, refusal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY_BYTES = 256 * 1024
BODY_SECONDS = 15.0
LAST_WORD_SECONDS = 1.0
_LENGTH_DIGITS = 9

_CLOSE = (b"connection", b"close")
_LONG_BODY = refusal(413, f"the body is longer than {MAX_BODY_BYTES} bytes", _CLOSE)
_SLOW_BODY = refusal(408, f"the body did not come within {BODY_SECONDS:g} s", _CLOSE)


class Exchange:
    """One request that was let in and the response to it.

    `late_refusal` is asked when the application begins its response, and for each part of a stream: if that returns an
    answer it becomes `refusal`, and whatever the application sends is dropped; a stream is broken off.
    """

    def __init__(self, app: App, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.late_refusal: Callable[[], Answer | None] = lambda: None
        self.break_off: Callable[[], None] = lambda: None
        self.refusal: Answer | None = None
        self._app = app
        self._receive = receive
        self._send = send
        self._body: bytes | None = None
        self._has_started = False
        self._is_streaming = False

    async def run(self, content_length: bytes | None) -> None:
        """Read the whole body and hand the request on."""
        problem = await self._read_body(content_length)
        if problem is not None:
            await self.answer(problem)
        elif self._body is not None:
            await self._app(self.scope, self._replay, self._watch)

    async def answer(self, answer: Answer) -> None:
        """Answer in the application's stead, unless it has begun to."""
        if not self._has_started:
            await answer.send(self._pass_on)

    async def end_stream(self) -> None:
        """End a stream that was broken off, so that its client needn't wait for more."""
        if self._is_streaming:
            # A client that doesn't read would hold this up as well: its connection is cut then.
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORD_SECONDS):
                    await self._pass_on({"type": "http.response.body", "body": b"", "more_body": False})

    async def _read_body(self, content_length: bytes | None) -> Answer | None:
        """Set `_body`, or leave it None when the client has gone; return what refuses the body."""
        if content_length is not None and _is_long(content_length):
            return _LONG_BODY
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await self._receive()
                    if message["type"] != "http.request":
                        return None
                    body += message.get("body", b"")
                    if len(body) > MAX_BODY_BYTES:
                        return _LONG_BODY
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            return _SLOW_BODY
        self._body = bytes(body)
        return None

    async def _replay(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def _watch(self, message: Message) -> None:
        is_part = message.get("more_body", False)
        if self.refusal is None and (is_part or not self._has_started):
            self.refusal = self.late_refusal()
            if self.refusal is not None and self._has_started:
                self.break_off()
        if self.refusal is None:
            await self._pass_on(message)

    async def _pass_on(self, message: Message) -> None:
        if self._has_started:
            self._is_streaming = message.get("more_body", False)
        await self._send(message)
        # Only now: a client that doesn't read holds up the first message, and that may be cancelled.
        self._has_started = True


def _is_long(content_length: bytes) -> bool:
    # Thousands of leading zeros are no error of HTTP, but more than int() takes.
    digits = content_length.lstrip(b"0")
    return content_length.isdigit() and (len(digits) > _LENGTH_DIGITS or int(digits or b"0") > MAX_BODY_BYTES)
