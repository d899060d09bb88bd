"""Cross-origin requests of web pages (the Fetch standard's CORS protocol): who may read responses, and preflights.

Tokens travel in a header that pages set themselves, so credentials of the browser are never allowed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from starlette.types import Message, Send

from ..allowed_hosts import HostPatterns
from ..responses import Header, StaticResponse

REQUESTED_METHOD = b"access-control-request-method"
REQUESTED_HEADERS = b"access-control-request-headers"
REQUESTED_NETWORK = b"access-control-request-private-network"
PREFLIGHT_SECONDS = 600
_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, \t-]{1,4096}")
# What a page needs besides the headers that each may read: why it was refused, and when to try again.
_EXPOSED = b"WWW-Authenticate, Retry-After"


def is_preflight(method: str, headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request only asks whether a page may send another one."""
    return method == "OPTIONS" and b"origin" in headers and REQUESTED_METHOD in headers


def preflight_response(headers: Mapping[bytes, bytes]) -> StaticResponse:
    """Return the response that allows what the preflight of an allowed origin asks for.

    `share_response` names the origin.
    """
    allowed: list[Header] = [
        (b"access-control-allow-methods", b"GET, POST"),
        (b"access-control-max-age", b"%d" % PREFLIGHT_SECONDS),
    ]
    names = headers.get(REQUESTED_HEADERS, b"")
    if _NAMES.fullmatch(names):
        allowed.append((b"access-control-allow-headers", names))
    if headers.get(REQUESTED_NETWORK) == b"true":
        allowed.append((b"access-control-allow-private-network", b"true"))
    return StaticResponse(204, headers=tuple(allowed))


def share_response(send: Send, origin: bytes) -> Send:
    """Return a `send` that lets pages of `origin` read the response, whatever it is."""
    added = [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", _EXPOSED),
        (b"vary", b"Origin"),
    ]

    async def send_shared(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *added]}
        await send(message)

    return send_shared


def shared_origin(headers: Mapping[bytes, bytes], allowed: HostPatterns) -> bytes | None:
    """Return the origin of a request whose response its page may read, else None."""
    origin = headers.get(b"origin")
    return origin if origin is not None and allowed.allows(origin.decode("latin-1")) else None
