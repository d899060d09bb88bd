"""The Bearer authentication scheme: tokens in the Authorization header (RFC 6750)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from .policy import AuthScheme, Caller
from .responses import challenge_response


def bearer_scheme(
    authenticate: Callable[[str], Caller | None], required_scopes: Sequence[str] = (), metadata_url: str | None = None
) -> AuthScheme:
    """Return the scheme; its challenges follow RFC 6750 section 3 and RFC 9728 section 5.1.

    Args:
        authenticate: return the caller that a token belongs to.
        required_scopes: scopes named where a token lacks one.
        metadata_url: URL of the protected-resource metadata; None where there is none.
    """
    hint = [] if metadata_url is None else [f'resource_metadata="{metadata_url}"']
    scopes = f'scope="{" ".join(required_scopes)}"'
    return AuthScheme(
        "Bearer",
        _challenge(hint),
        challenge_response(
            401, "the token is unknown, expired or deleted", _challenge(['error="invalid_token"', *hint])
        ),
        challenge_response(
            403, "the token lacks a required scope", _challenge(['error="insufficient_scope"', scopes, *hint])
        ),
        _read_token,
        authenticate,
    )


def _challenge(parameters: list[str]) -> str:
    return f"Bearer {', '.join(parameters)}".rstrip()


def _read_token(headers: Mapping[bytes, bytes]) -> str | None:
    """Return the token of the Authorization header; None without one or with another scheme (RFC 6750 section 2.1)."""
    header = headers.get(b"authorization")
    if header is None:
        return None
    scheme, _, token = header.decode("latin-1").partition(" ")
    return token.strip(" ") if scheme.lower() == "bearer" else None
