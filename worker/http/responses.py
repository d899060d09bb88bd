"""Prebuilt responses for rejected requests."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from http import HTTPStatus

from starlette.types import Message, Send

Header = tuple[bytes, bytes]

TOO_MANY_REQUESTS = 429
JSON = (b"content-type", b"application/json")
CLOSE = (b"connection", b"close")
NO_STORE = (b"cache-control", b"no-store")
EVENT_STREAM = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),  # nginx would collect events, and send them late
)
REFUSAL = "nfcli.refusal"
_INVALID_REQUEST = -32600
_REFUSALS = {
    400: "invalid_request",
    401: "credentials",
    403: "origin",
    404: "path",
    405: "method",
    406: "accept",
    408: "body_timeout",
    413: "body_size",
    415: "content_type",
    421: "host",
    TOO_MANY_REQUESTS: "too_many_wrong_tokens",
    431: "header_size",
    503: "unavailable",
}


@dataclass(frozen=True)
class StaticResponse:
    """A complete HTTP response that never changes; Content-Length is added to the headers, unless it is a 204.

    `refusal` is a short name of why it is sent in place of the application's response, empty if it is no refusal; by
    default it follows from the status. The first message has it under the key `REFUSAL`, which servers ignore.
    """

    status: int
    body: bytes = b""
    headers: tuple[Header, ...] = ()
    refusal: str = ""

    async def send(self, send: Send) -> None:
        """Send the response through an ASGI application's `send`."""
        start, body = self._messages
        await send(start)
        await send(body)

    def with_status(self, status: int) -> StaticResponse:
        """Return the same response, sent for the same reason, with another status."""
        return replace(self, status=status, refusal=self.refusal or _REFUSALS.get(self.status, ""))

    def encode(self) -> bytes:
        """Return the response as HTTP/1.1 sends it."""
        headers = b"".join(b"%s: %s\r\n" % header for header in self._messages[0]["headers"])
        return b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (
            *(self.status, HTTPStatus(self.status).phrase.encode(), headers, self.body),
        )

    @cached_property
    def _messages(self) -> tuple[Message, Message]:
        headers = list(self.headers)
        if self.status != HTTPStatus.NO_CONTENT:  # RFC 9110 section 8.6
            headers.append((b"content-length", b"%d" % len(self.body)))
        return (
            {
                "type": "http.response.start",
                "status": self.status,
                "headers": headers,
                REFUSAL: self.refusal or _REFUSALS.get(self.status, ""),
            },
            {"type": "http.response.body", "body": self.body},
        )


def error_response(
    status: int,
    reason: str,
    *headers: Header,
    code: int = _INVALID_REQUEST,
    request_id: int | str | None = None,
    data: object = None,
) -> StaticResponse:
    """Return a response whose body is a JSON-RPC error, as MCP specifies for rejected requests.

    Its id is null unless the request's is known.
    """
    error = {"code": code, "message": reason, **({} if data is None else {"data": data})}
    body = {"jsonrpc": "2.0", "id": request_id, "error": error}
    return StaticResponse(status, json.dumps(body).encode(), (JSON, *headers))


def challenge_response(status: int, reason: str, *challenges: str, refusal: str = "") -> StaticResponse:
    """Return an error response with WWW-Authenticate challenges (RFC 9110 section 11.6.1)."""
    headers = ((b"www-authenticate", challenge.encode()) for challenge in challenges)
    return replace(error_response(status, reason, *headers, NO_STORE), refusal=refusal)
