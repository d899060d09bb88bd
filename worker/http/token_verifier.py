"""The verifier: a bearer token to who it stands for. It is small, fails closed and says nothing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from mcp.server.auth.provider import AccessToken

from ...models.tokens import BearerTokenRecord

log = logging.getLogger(__name__)


class TokenLookup(Protocol):
    """What the verifier needs of a token store."""

    def lookup(self, token: str) -> BearerTokenRecord | None:
        """Return the record of a token that is stored and has not expired."""


class DiskcacheBearerTokenVerifier:
    """Verifies tokens against a token store; implements the MCP SDK's `TokenVerifier`.

    Nothing is cached here: a token that was deleted or has expired is refused the next time it is shown.

    Args:
        store: where tokens are looked up; the store alone decides expiry, to the moment.
        scopes: what every token carries.
        resource: the resource that tokens are good for (RFC 8707), None where none is published.
    """

    def __init__(self, store: TokenLookup, scopes: Sequence[str], resource: str | None) -> None:
        self._lookup = store.lookup
        self._scopes = list(scopes)
        self._resource = resource

    def find(self, token: str) -> AccessToken | None:
        """Return what a live token stands for, else None.

        Raises whatever the store raises: a caller that can tell "no" from "can't say" should.
        """
        record = self._lookup(token)
        if record is None:
            return None
        return AccessToken(
            token=token,
            client_id=record.username,
            subject=record.username,
            scopes=self._scopes,
            # Whole seconds, rounded up: the SDK must never find a token expired that the store found live.
            expires_at=None if record.expires is None else -int(-record.expires // 1),
            resource=self._resource,
        )

    async def verify_token(self, token: str) -> AccessToken | None:
        """Return what a live token stands for, else None; never raises, and says no where the store can't say."""
        try:
            return self.find(token)
        except Exception as error:  # noqa: BLE001  an exception would reach the client as a bare 500
            log.error("the token store can't be asked: %s", type(error).__name__)
            return None
