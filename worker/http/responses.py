"""The answers that the gate gives by itself, made once; and the challenges among them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

JSON = (b"content-type", b"application/json")
TOO_MANY_REQUESTS = 429
_INVALID_REQUEST = -32600
_NO_STORE = (b"cache-control", b"no-store")


@dataclass(frozen=True)
class Answer:
    """A whole HTTP response; the length is added to the headers."""

    status: int
    body: bytes = b""
    headers: tuple[Header, ...] = ()

    async def send(self, send: Send) -> None:
        """Send it as an ASGI application does."""
        start, body = self._messages
        await send(start)
        await send(body)

    @cached_property
    def _messages(self) -> tuple[Message, Message]:
        headers = [*self.headers, (b"content-length", b"%d" % len(self.body))]
        return (
            {"type": "http.response.start", "status": self.status, "headers": headers},
            {"type": "http.response.body", "body": self.body},
        )


def refusal(status: int, reason: str, *headers: Header, code: int = _INVALID_REQUEST) -> Answer:
    """Return an answer whose body is a JSON-RPC error without id, as MCP has it for refused requests."""
    error = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": reason}}
    return Answer(status, json.dumps(error).encode(), (JSON, *headers))


def too_many_guesses(seconds: int) -> Answer:
    """Return the answer to an address that sent too many wrong tokens and may try again in `seconds`."""
    reason = f"too many wrong tokens came from this address: try again in {seconds} s"
    return refusal(TOO_MANY_REQUESTS, reason, (b"retry-after", b"%d" % seconds), _NO_STORE)


class Challenges:
    """The answers to requests without the right token; RFC 6750 section 3, RFC 9728 section 5.1.

    Args:
        required_scopes: what a token must carry.
        metadata_url: where the protected-resource metadata is published; None publishes nothing and says nothing of it.
    """

    def __init__(self, required_scopes: tuple[str, ...] = (), metadata_url: str | None = None) -> None:
        hint = [] if metadata_url is None else [f'resource_metadata="{metadata_url}"']
        scopes = " ".join(required_scopes)
        self.missing = _challenge(401, "a bearer token is needed", hint)
        self.invalid = _challenge(401, "the token is unknown, expired or deleted", ['error="invalid_token"', *hint])
        self.insufficient_scope = _challenge(
            403, "the token lacks a scope", ['error="insufficient_scope"', f'scope="{scopes}"', *hint]
        )


def _challenge(status: int, reason: str, parameters: list[str]) -> Answer:
    value = f"Bearer {', '.join(parameters)}".rstrip()
    return refusal(status, reason, (b"www-authenticate", value.encode()), _NO_STORE)
