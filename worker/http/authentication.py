"""Authentication of requests: credentials, rate limit, scopes, and the recheck before a response is sent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress

import anyio
from starlette.types import Scope

from ..client_network import client_network
from .policy import AccessPolicy, AuthScheme, Caller
from .rate_limit import WINDOW_SECONDS
from .responses import NO_STORE, TOO_MANY_REQUESTS, StaticResponse, error_response

log = logging.getLogger(__name__)

RESPONSE_DELAY_SECONDS = 0.05

_STORE_FAILED = error_response(503, "tokens cannot be checked at the moment; retry later")
_LOCKED_OUT = tuple(
    error_response(
        TOO_MANY_REQUESTS,
        f"too many wrong tokens from this address; retry in {seconds} s",
        (b"retry-after", b"%d" % seconds),
        NO_STORE,
    )
    for seconds in range(WINDOW_SECONDS + 1)
)


def authenticate(
    policy: AccessPolicy, scope: Scope, headers: Mapping[bytes, bytes]
) -> tuple[AuthScheme, Caller] | StaticResponse:
    """Return the scheme and the caller of a request, or the response that rejects it."""
    credentials = None
    for scheme in policy.schemes:
        credentials = scheme.read_credentials(headers)
        if credentials is not None:
            break
    if not credentials:
        return policy.unauthenticated if credentials is None else policy.empty_credentials
    peer = scope.get("client")
    address = peer[0] if peer else ""
    network = client_network(address)
    lockout = check_lockout(policy, network)
    if lockout is not None:
        policy.on_rejected(address, "too many wrong tokens", credentials)
        return lockout
    try:
        caller = scheme.authenticate(credentials)
    except Exception as error:  # noqa: BLE001  not a rejection: the client must not discard its token
        return _store_failed(error)
    if caller is None:
        record_failure(policy, network, credentials)
        policy.on_rejected(address, "wrong token", credentials)
        return check_lockout(policy, network) or scheme.invalid
    if not caller.scopes.issuperset(policy.required_scopes):
        policy.on_rejected(address, "insufficient scope", credentials)
        return scheme.insufficient_scope
    return scheme, caller


def recheck_token(
    policy: AccessPolicy, scheme: AuthScheme, token: str, cancel_scope: anyio.CancelScope
) -> StaticResponse | None:
    """Return the response that replaces the application's where the token has ended since the request began."""
    # A revoked token may have been stored again meanwhile: it is another token then.
    if cancel_scope.cancel_called:
        return scheme.invalid
    try:
        return None if policy.is_live(token) else scheme.invalid
    except Exception as error:  # noqa: BLE001  not a rejection either
        return _store_failed(error)


async def delay_response() -> None:
    """Delay 429 responses so that a flood of guesses cannot starve other clients."""
    # A server that stops cancels requests: the response is sent at once then.
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(RESPONSE_DELAY_SECONDS)


def _store_failed(error: Exception) -> StaticResponse:
    log.error("cannot check tokens: %s", type(error).__name__)
    return _STORE_FAILED


def check_lockout(policy: AccessPolicy, network: str) -> StaticResponse | None:
    """Return the response to a network that is locked out for its wrong tokens, else None."""
    seconds = policy.limiter.retry_after(network) if policy.limiter is not None else 0
    return _LOCKED_OUT[seconds] if seconds else None


def record_failure(policy: AccessPolicy, network: str, credentials: str) -> None:
    """Count a wrong token; log the lock-out that may begin with it."""
    if policy.limiter is not None and policy.limiter.record_failure(network, credentials):
        log.warning(
            "too many wrong tokens from %s: its requests with a token are rejected for up to a minute; if many clients "
            "share that address, add it to trusted_proxies if it is a reverse proxy's, or raise "
            "max_wrong_tokens_per_minute, of worker %s in the inventory",
            network or "an unknown address",
            policy.worker_name,
        )
