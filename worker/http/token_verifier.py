"""Resolve a bearer token to its owner. Fails closed; logs nothing about tokens."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from starlette.authentication import AuthCredentials

from ...models.tokens import BearerTokenRecord
from .policy import Caller

log = logging.getLogger(__name__)


class TokenLookup(Protocol):
    """The part of a token store that the verifier uses."""

    def lookup(self, token: str) -> BearerTokenRecord | None:
        """Return the record of a token that is stored and has not expired."""


class DiskcacheBearerTokenVerifier:
    """Verify tokens against a token store; implements the MCP SDK's `TokenVerifier`.

    Nothing is cached: a token that was deleted or has expired is rejected on the next request.

    Args:
        store: the token store, which alone decides expiry, to the microsecond.
        scopes: scopes of every token.
        resource: the resource that tokens are valid for (RFC 8707), None where none is published.
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
        return Caller(token, frozenset(access.scopes), entries)

    async def verify_token(self, token: str) -> AccessToken | None:
        """Return the access token that a valid token stands for; None otherwise, also where the store fails."""
        try:
            return self.find(token)
        except Exception as error:  # noqa: BLE001  an exception would reach the client as a bare 500
            log.error("cannot look up tokens: %s", type(error).__name__)
            return None
