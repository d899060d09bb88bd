"""The outermost ASGI middleware: checks of a request before the MCP SDK sees it.

In this order: path (404), headers of trusted proxies (400), Host (421) and Origin (403), headers (400, 431),
credentials (429 after too many wrong tokens from the address, 401, 403, or 503 while the token store fails), method
(405), body (408, 413). The SDK checks credentials and body size again; here they come in an order that reveals least to
unauthenticated clients and costs least, and each rejection has a body. Probes come first: those who send them know an
address at most.

The token is looked up again when the response begins: a token that was deleted since the request came gets no answer.
For a streamed response that applies to each part, and the stream ends with the token.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial

from starlette.types import ASGIApp, Receive, Scope, Send

from ...models.inventory.schema import WorkerInventory
from .active_requests import ActiveRequests
from .allowed_hosts import host_patterns, origin_patterns, sharing_patterns
from .authentication import authenticate, delay_response, recheck_token
from .connections.protocol import mark_known
from .forwarding.elements import ForwardingError
from .forwarding.origin import RequestOrigin, names_host, names_sender, remember, request_origin
from .policy import HEALTH_PATH, READY_PATH, AccessPolicy, AuthScheme, Caller
from .public.cross_origin import (
    REQUESTED_HEADERS,
    REQUESTED_METHOD,
    REQUESTED_NETWORK,
    is_preflight,
    preflight_response,
    share_response,
    shared_origin,
)
from .public.oauth import oauth_error
from .request_cycle import RequestCycle
from .responses import CLOSE, TOO_MANY_REQUESTS, StaticResponse, error_response
from .verification.forward_auth import VERIFY_PATH, as_forward_auth, verified
from .verification.introspection import INTROSPECT_PATH, Introspection

log = logging.getLogger(__name__)

MCP_PATHS = frozenset({"/mcp", "/mcp/"})
MAX_AUTHORIZATION_BYTES = 2 * 1024
_MAX_LOGGED_VALUES = 100
_MAX_LOGGED_CHARACTERS = 100
_SINGLE_HEADERS = frozenset(
    {
        *(b"host", b"origin", b"authorization", b"content-length", b"content-type"),
        *(REQUESTED_METHOD, REQUESTED_HEADERS, REQUESTED_NETWORK),
    }
)

_HEALTHY = StaticResponse(200)
_NOT_FOUND = error_response(404, "nothing is served at this path; MCP is at /mcp")
_READ_ONLY = error_response(405, "this path is for GET and HEAD only", (b"allow", b"GET, HEAD"))
_POST_ONLY = error_response(405, "this MCP server has no streams; send a POST", (b"allow", b"POST"))
_GET_OR_POST_ONLY = error_response(
    405, "this MCP server has no sessions; send a POST or a GET", (b"allow", b"GET, POST")
)
_HOST_NOT_ALLOWED = error_response(421, "Host not allowed; the worker's log names the setting to change")
_ORIGIN_NOT_ALLOWED = error_response(403, "Origin not allowed; the worker's log names the setting to change")
_AUTHORIZATION_TOO_LONG = error_response(431, f"Authorization exceeds {MAX_AUTHORIZATION_BYTES} bytes")
_STOPPING = error_response(503, "the worker is stopping", CLOSE)


class RequestMiddleware:
    """An ASGI application that passes the requests that a policy allows on to another one.

    `requests` gets the authenticated ones while they are served. `lifespan` makes the context that is entered between
    the lifespan's startup and shutdown; before and after, every request gets 503. `close_streams` ends streamed
    responses, which would not end by themselves; the server calls it as it stops. `introspection` returns what answers
    resource servers, by where their request came from; None: they may not ask.
    """

    def __init__(
        self,
        app: ASGIApp,
        policy: AccessPolicy,
        requests: ActiveRequests,
        lifespan: Callable[[], AbstractAsyncContextManager[object]],
        close_streams: Callable[[], None] | None = None,
        *,
        introspection: Callable[[RequestOrigin], Introspection] | None = None,
    ) -> None:
        self.close_streams = close_streams or (lambda: None)
        self._app = app
        self._policy = policy
        self._introspection = introspection
        self._requests = requests
        self._lifespan = lifespan
        self._is_open = False
        self._logged: set[tuple[str, str]] = set()

    def allow_hosts(self, inventory: WorkerInventory, url: str) -> None:
        """Allow the hosts and origins of a changed inventory from now on; from the thread of the requests' loop."""
        self._policy = replace(
            self._policy,
            hosts=host_patterns(inventory, url),
            origins=origin_patterns(inventory, url),
            shared_with=sharing_patterns(inventory, url),
        )
        self._logged.clear()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or the application's lifespan."""
        if scope["type"] == "http":
            await self._dispatch(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._run_lifespan(receive, send)
        else:
            await send({"type": "websocket.close"})

    async def _run_lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        phase = "startup"
        try:
            async with self._lifespan():
                self._is_open = True
                await send({"type": "lifespan.startup.complete"})
                phase = "shutdown"
                await receive()
        except Exception:
            log.exception("%s of the MCP server failed", phase)
            await send({"type": f"lifespan.{phase}.failed"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
        finally:
            self._is_open = False

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in {HEALTH_PATH, READY_PATH}:
            await self._answer_probe(scope, send)
            return
        headers, duplicate = _single_headers(scope)
        origin = shared_origin(headers, self._policy.shared_with)
        if origin is not None:
            send = share_response(send, origin)
        checked = self._check(scope, headers, duplicate)
        if isinstance(checked, StaticResponse):
            if checked.status == TOO_MANY_REQUESTS:
                await delay_response()
            await checked.send(send)
            return
        if not isinstance(checked, Introspection):
            mark_known(scope)
        cycle = RequestCycle(
            self._app_for(scope, checked), scope, receive, send, reads_body=not self._is_forward_auth(scope)
        )
        try:
            if checked is None or isinstance(checked, Introspection):
                await cycle.run(headers.get(b"content-length"))
            else:
                await self._serve_caller(*checked, cycle, headers.get(b"content-length"))
        except asyncio.CancelledError:
            # The server's grace period is over; nothing awaits this task, so it may end here.
            await cycle.respond(_STOPPING)

    def _app_for(self, scope: Scope, checked: tuple[AuthScheme, Caller] | Introspection | None) -> ASGIApp:
        if isinstance(checked, Introspection):
            return checked.serve
        if checked is not None and self._is_forward_auth(scope):
            return verified(checked[1])
        stream_app = self._policy.stream_app
        return self._app if scope["method"] == "POST" or stream_app is None else stream_app

    def _is_forward_auth(self, scope: Scope) -> bool:
        """Whether a proxy asks about a request to another server."""
        return bool(scope["path"] == VERIFY_PATH) and self._policy.forward_auth is not None

    async def _answer_probe(self, scope: Scope, send: Send) -> None:
        response = _HEALTHY
        if scope["method"] not in {"GET", "HEAD"}:
            response = _READ_ONLY
        elif not self._is_open:
            response = _STOPPING
        elif scope["path"] == READY_PATH:
            response = await self._policy.readiness.response()
        await response.send(send)

    def _check(
        self, scope: Scope, headers: Mapping[bytes, bytes], duplicate: str | None
    ) -> StaticResponse | tuple[AuthScheme, Caller] | Introspection | None:
        """Return the response to a request that the application does not get, or its caller; None without schemes.

        Of one that asks about a token, what answers it: whom it is from may be in its body.
        """
        if not self._is_open:
            return _STOPPING
        if self._is_forward_auth(scope) or (scope["path"] == INTROSPECT_PATH and self._introspection is not None):
            return self._check_question(scope, headers, duplicate)
        response = self._reject_early(scope, headers, duplicate)
        if response is not None:
            return response
        policy = self._policy.for_origin(request_origin(scope))
        authenticated = authenticate(policy, scope, headers) if policy.schemes else None
        if isinstance(authenticated, StaticResponse) or scope["method"] == "POST":
            return authenticated
        if self._policy.stream_app is None:
            return _POST_ONLY
        return authenticated if scope["method"] == "GET" else _GET_OR_POST_ONLY

    def _check_question(
        self, scope: Scope, headers: Mapping[bytes, bytes], duplicate: str | None
    ) -> StaticResponse | tuple[AuthScheme, Caller] | Introspection:
        """Check a request of another server, or of a proxy in front of one, that asks about a token."""
        response = self._check_headers(scope, headers, duplicate)
        if self._introspection is not None and scope["path"] == INTROSPECT_PATH:
            return response or self._introspection(request_origin(scope)).check(scope, headers)
        if response is not None:
            return as_forward_auth(response)
        # Where the proxy doesn't name the other server's host, its metadata is unknown, and none is named.
        policy = self._policy.for_origin(request_origin(scope)) if names_host(scope) else self._policy
        checked = authenticate(policy.forward_auth or policy, scope, headers)
        return as_forward_auth(checked) if isinstance(checked, StaticResponse) else checked

    async def _serve_caller(
        self, scheme: AuthScheme, caller: Caller, cycle: RequestCycle, content_length: bytes | None
    ) -> None:
        """Serve an authenticated request for as long as its token is valid."""
        cycle.scope.update(caller.scope_entries)
        with self._requests.track(caller.token) as cancel_scope:
            cycle.recheck = partial(recheck_token, self._policy, scheme, caller.token, cancel_scope)
            cycle.cancel = cancel_scope.cancel
            await cycle.run(content_length)
        await cycle.end_stream()
        if cycle.rejection is not None:
            await cycle.respond(cycle.rejection)
        elif cancel_scope.cancelled_caught:
            await cycle.respond(scheme.invalid)

    def _reject_early(
        self, scope: Scope, headers: Mapping[bytes, bytes], duplicate: str | None
    ) -> StaticResponse | None:
        """Return the response to a request that needs no authentication or breaks a rule for all requests."""
        path, method = scope["path"], scope["method"]
        document = self._policy.documents.get(path)
        refusal = oauth_error(method, path) if document is None and self._policy.schemes else None
        if document is None and refusal is None and path not in MCP_PATHS:
            return _NOT_FOUND
        response = self._check_headers(scope, headers, duplicate)
        if response is None and is_preflight(method, headers):
            return self._check_preflight(headers)
        if response is None and document is not None:
            documents = self._policy.for_origin(request_origin(scope)).documents
            return documents[path] if method in {"GET", "HEAD"} else _READ_ONLY
        return response or refusal

    def _check_preflight(self, headers: Mapping[bytes, bytes]) -> StaticResponse:
        if shared_origin(headers, self._policy.shared_with) is not None:
            return preflight_response(headers)
        self._warn_once("Origin", headers[b"origin"].decode("latin-1"), "allowed_origins")
        return _ORIGIN_NOT_ALLOWED

    def _check_headers(
        self, scope: Scope, headers: Mapping[bytes, bytes], duplicate: str | None
    ) -> StaticResponse | None:
        """Return the response to a request whose headers break a rule, else None; its scope has its origin then."""
        host = headers.get(b"host", b"").decode("latin-1")
        try:
            origin = self._policy.proxies.resolve(scope)
        except ForwardingError as error:
            return self._reject_forwarding(scope, str(error))
        # Both names: a client could have sent X-Forwarded-Host itself, through a proxy that doesn't set it.
        for name in {host, origin.host}:
            if not self._policy.hosts.allows(name):
                self._warn_once("Host", name, "allowed_hosts")
                return _HOST_NOT_ALLOWED
        web_origin = headers.get(b"origin", b"").decode("latin-1")
        if b"origin" in headers and not self._policy.origins.allows(web_origin):
            self._warn_once("Origin", web_origin, "allowed_origins")
            return _ORIGIN_NOT_ALLOWED
        if len(headers.get(b"authorization", b"")) > MAX_AUTHORIZATION_BYTES:
            return _AUTHORIZATION_TOO_LONG
        if duplicate is not None:
            return error_response(400, f"more than one {duplicate} header")
        self._warn_about_silence(scope, origin)
        remember(scope, origin)
        return None

    def _reject_forwarding(self, scope: Scope, reason: str) -> StaticResponse:
        proxy = scope["client"][0]
        if self._is_first("proxy", f"{proxy}: {reason}"):
            log.warning("rejected a request that came through the proxy %s: %s", proxy, reason)
        return error_response(400, reason)

    def _warn_about_silence(self, scope: Scope, origin: RequestOrigin) -> None:
        is_silent = origin.proxy and origin.address == origin.proxy and not names_sender(scope)
        if is_silent and self._is_first("proxy", origin.proxy):
            log.warning(
                "the trusted proxy %s does not name its clients: they count as one address; "
                "let it set X-Forwarded-For (man page proxies)",
                origin.proxy,
            )

    def _warn_once(self, header: str, value: str, key: str) -> None:
        """Log which setting to change."""
        value = value[:_MAX_LOGGED_CHARACTERS]
        if self._is_first(header, value):
            log.warning(
                "rejected a request with %s %r; if clients use it legitimately, add it to %s of worker %s in the "
                "inventory",
                *(header, value, key, self._policy.worker_name),
            )

    def _is_first(self, kind: str, value: str) -> bool:
        """Whether to log a value: once each, and 100 values in all: a flood must not fill the log."""
        if (kind, value) in self._logged or len(self._logged) >= _MAX_LOGGED_VALUES:
            return False
        self._logged.add((kind, value))
        return True


def _single_headers(scope: Scope) -> tuple[dict[bytes, bytes], str | None]:
    """Return the headers that are checked here, and the name of one that came more than once."""
    found: dict[bytes, bytes] = {}
    duplicate = None
    for name, value in scope["headers"]:
        if name in found:
            duplicate = name.decode()
        elif name in _SINGLE_HEADERS:
            found[name] = value
    return found, duplicate
