"""Forward authentication: a proxy asks about each request to another server before it passes it on.

Proxies call it `auth_request` (nginx), `forward_auth` (Caddy) or `forwardAuth` (Traefik). They understand five statuses
at most: 200 passes the request on with what its headers say about the user, all others refuse it.
"""

from __future__ import annotations

from urllib.parse import quote

from starlette.types import ASGIApp, Receive, Scope, Send

from ..policy import Caller
from ..responses import NO_STORE, TOO_MANY_REQUESTS, StaticResponse

VERIFY_PATH = "/verify"
UNKNOWN = "-"

_STATUSES = frozenset({200, 401, 403, TOO_MANY_REQUESTS, 503})
_REFUSED = 403
_UNQUOTED = "@"  # besides letters, digits and ._-~


def verified(caller: Caller) -> ASGIApp:
    """Return the application that tells a proxy who sent the request that it asks about."""
    response = StaticResponse(
        200,
        headers=(
            (b"x-auth-user", _quoted(caller.username)),
            (b"x-auth-scopes", b" ".join(map(_quoted, sorted(caller.scopes))) or UNKNOWN.encode()),
            (b"x-auth-expires", b"%d" % caller.expires_at if caller.expires_at is not None else UNKNOWN.encode()),
            NO_STORE,
        ),
    )

    async def respond(_scope: Scope, _receive: Receive, send: Send) -> None:
        await response.send(send)

    return respond


def as_forward_auth(response: StaticResponse) -> StaticResponse:
    """Return a refusal with a status that proxies understand: nginx turns all that it doesn't expect into 500."""
    return response if response.status in _STATUSES else response.with_status(_REFUSED)


def _quoted(text: str) -> bytes:
    """Return a text without anything that a header, or a list in one, gives a meaning to.

    A header is never empty: Caddy 2.6 passes a placeholder on in place of one that is.
    """
    if text in {"", UNKNOWN}:
        return b"%2D" if text else UNKNOWN.encode()
    return quote(text, safe=_UNQUOTED).replace("~", "%7E").encode()
