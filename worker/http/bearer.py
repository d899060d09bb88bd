"""Bearer tokens (RFC 6750): the token verifier, and the authentication scheme that uses it.

The verifier fails closed; it logs nothing about tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from starlette.authentication import AuthCredentials

from ...models.tokens import BearerTokenRecord
from .policy import AuthScheme, Caller
from .responses import challenge_response

log = logging.getLogger(__name__)

INVALID_CREDENTIALS = "the token is unknown, expired or deleted"


class TokenLookup(Protocol):
    """The part of a token store that the MCP server uses; `on_revoked` are called with tokens that were revoked."""

    on_revoked: list[Callable[[Sequence[str]], None]]

    def lookup(self, token: str) -> BearerTokenRecord | None:
        """Return the record of a token that is stored and has not expired."""


class DiskcacheBearerTokenVerifier:
    """Verify tokens against a token store; implements the MCP SDK's `TokenVerifier`.

    Nothing is cached: a token that was deleted or has expired is rejected on the next request.

    The store alone decides expiry, to the microsecond. Every token has all `scopes`; `resource` is what tokens are
    valid for (RFC 8707), None where none is published.
    """

    def __init__(self, store: TokenLookup, scopes: Sequence[str], resource: str | None) -> None:
        self._lookup = store.lookup
        self._scopes = list(scopes)
        self._resource = resource

    def find(self, token: str) -> AccessToken | None:
        """Return the access token that a valid token stands for, else None; raises whatever the store raises."""
        record = self._lookup(token)
        if record is None:
            return None
        return AccessToken(
            token=token,
            client_id=record.username,
            subject=record.username,
            scopes=self._scopes,
            # Whole seconds, rounded up: the SDK must not reject as expired what the store accepts.
            expires_at=None if record.expires is None else -int(-record.expires // 1),
            resource=self._resource,
        )

    def authenticate(self, token: str) -> Caller | None:
        """Return the caller that a valid token belongs to, else None; raises whatever the store raises."""
        access = self.find(token)
        if access is None:
            return None
        entries = {"user": AuthenticatedUser(access), "auth": AuthCredentials(access.scopes)}
        return Caller(token, frozenset(access.scopes), entries, access.client_id, access.expires_at)

    async def verify_token(self, token: str) -> AccessToken | None:
        """Return the access token that a valid token stands for; None otherwise, also where the store fails."""
        try:
            return self.find(token)
        except Exception as error:  # noqa: BLE001  an exception would reach the client as a bare 500
            log.error("cannot look up tokens: %s", type(error).__name__)
            return None


def bearer_scheme(
    authenticate: Callable[[str], Caller | None], required_scopes: Sequence[str] = (), metadata_url: str | None = None
) -> AuthScheme:
    """Return the scheme; its challenges follow RFC 6750 section 3, and RFC 9728 section 5.1 if there is metadata."""
    hint = [] if metadata_url is None else [f'resource_metadata="{metadata_url}"']
    scopes = f'scope="{" ".join(required_scopes)}"'
    return AuthScheme(
        "Bearer",
        _challenge(hint),
        challenge_response(
            401, INVALID_CREDENTIALS, _challenge(['error="invalid_token"', *hint]), refusal="invalid_token"
        ),
        challenge_response(
            403,
            "the token lacks a required scope",
            _challenge(['error="insufficient_scope"', scopes, *hint]),
            refusal="insufficient_scope",
        ),
        _read_token,
        authenticate,
    )


def _challenge(parameters: list[str]) -> str:
    return f"Bearer {', '.join(parameters)}".rstrip()


def _read_token(headers: Mapping[bytes, bytes]) -> str | None:
    """Return the token of the Authorization header; None without one or with another scheme (RFC 6750 section 2.1)."""
    scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    return token.strip(" \t") if scheme.lower() == "bearer" else None
