"""Access policy of the MCP server: allowed hosts, authentication schemes, limits, public documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from starlette.types import ASGIApp

from .allowed_hosts import HostPatterns
from .forwarding.origin import RequestOrigin, TrustedProxies
from .public.readiness import Readiness
from .rate_limit import FailedAuthLimiter
from .responses import StaticResponse, challenge_response

HEALTH_PATH = "/health"
READY_PATH = "/ready"


@dataclass(frozen=True)
class Caller:
    """The authenticated sender of a request.

    The request ends when `token` does; it expires at `expires_at` (whole epoch seconds), None: never. `scope_entries`
    are added to the ASGI scope that the application gets.
    """

    token: str
    scopes: frozenset[str]
    scope_entries: Mapping[str, Any]
    username: str = ""
    expires_at: int | None = None


@dataclass(frozen=True)
class AuthScheme:
    """One HTTP authentication scheme (RFC 9110 section 11).

    `challenge` is the value of WWW-Authenticate where a request has no credentials, `invalid` the response to
    credentials that are not valid, or no longer. `read_credentials` returns those among a request's headers, None where
    it has none of this scheme, "" where it only names the scheme; `authenticate` their caller, None where they are not
    valid, and raises where the token store fails.
    """

    name: str
    challenge: str
    invalid: StaticResponse
    insufficient_scope: StaticResponse
    read_credentials: Callable[[Mapping[bytes, bytes]], str | None]
    authenticate: Callable[[str], Caller | None]


@dataclass(frozen=True)
class AccessPolicy:
    """What the MCP server accepts.

    The first of `schemes` whose credentials a request has is used; without any there is no authentication. `is_live`
    returns whether a token is still valid, and raises where the token store fails. `on_rejected` is called with
    address, reason and credentials of each request that authentication rejects, from the loop; it must neither block
    nor raise. `shared_with` are the origins whose pages may read responses. `documents` are public responses to GET and
    HEAD by path, `readiness` makes those to the ready probe, `stream_app` serves GET of the MCP paths. `proxies` are
    those whose headers about their clients count; `at_url` returns the policy for requests through them by the URL that
    the client used, None where it is the same. `forward_auth` is the policy for requests to another server, whose proxy
    asks about them, None where none may ask.
    """

    worker_name: str
    hosts: HostPatterns
    origins: HostPatterns
    schemes: tuple[AuthScheme, ...] = ()
    required_scopes: tuple[str, ...] = ()
    is_live: Callable[[str], bool] = lambda _token: True
    limiter: FailedAuthLimiter | None = None
    on_rejected: Callable[[str, str, str], object] = lambda _address, _reason, _credentials: None
    shared_with: HostPatterns = field(default_factory=lambda: HostPatterns.parse(()))
    documents: Mapping[str, StaticResponse] = field(default_factory=dict)
    readiness: Readiness = field(default_factory=Readiness)
    stream_app: ASGIApp | None = None
    proxies: TrustedProxies = field(default_factory=TrustedProxies)
    at_url: Callable[[str], AccessPolicy] | None = None
    forward_auth: AccessPolicy | None = None

    def for_origin(self, origin: RequestOrigin) -> AccessPolicy:
        """Return the policy for a request from `origin`."""
        return self.at_url(origin.base_url) if origin.proxy and self.at_url is not None else self

    @cached_property
    def unauthenticated(self) -> StaticResponse:
        """The response to a request without credentials."""
        return self._challenge("authentication required: send {} credentials", "no_token")

    @cached_property
    def empty_credentials(self) -> StaticResponse:
        """The response to a request that names a scheme and has no credentials, as of a client without its token."""
        reason = "authentication required: the Authorization header has no token; send {} credentials"
        return self._challenge(reason, "empty_token")

    def _challenge(self, reason: str, refusal: str) -> StaticResponse:
        names = " or ".join(scheme.name for scheme in self.schemes)
        challenges = (scheme.challenge for scheme in self.schemes)
        return challenge_response(401, reason.format(names), *challenges, refusal=refusal)
