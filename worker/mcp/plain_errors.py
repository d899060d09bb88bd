"""What the SDK says of messages that it can't read, in our words.

Its own words quote the library that read them, with its version, and what was sent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from ..http.responses import Answer, refusal

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

BAD_REQUEST = 400
_NOT_JSON = refusal(BAD_REQUEST, "the body is not JSON", code=-32700)
_NO_MESSAGE = refusal(BAD_REQUEST, "the body is not one JSON-RPC request or notification")
_QUOTING: dict[bytes, Answer] = {b"Parse error: ": _NOT_JSON, b"Validation error: ": _NO_MESSAGE}


class PlainErrors:
    """An ASGI application that answers as another one does, but for errors that quote."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve a request."""
        held: list[Message] = []

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == BAD_REQUEST:
                held.append(message)
                return
            if held:
                start = held.pop()
                for words, own in _QUOTING.items():
                    if words in message.get("body", b""):
                        await own.send(send)
                        return
                await send(start)
            await send(message)

        await self._app(scope, receive, answer)
