"""The outermost ASGI layer: what is decided about a request before the MCP SDK sees it.

In this order: path (404), Host (421) and Origin (403), headers (400, 431), the bearer token (401, 403, or 503 while the
store can't say), method (405), body (408, 413). The SDK checks Host, Origin, credentials and body size again behind it;
here they come in an order that tells strangers least, cost least, and are answered in full.

Challenges follow RFC 6750 section 3: no error code where no token was sent, the scopes where one is missing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio

from .answers import Answer, Challenges, refusal
from .names import Names

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MCP_PATHS = frozenset({"/mcp", "/mcp/"})
HEALTH_PATH = "/health"
MAX_BODY_BYTES = 256 * 1024
MAX_AUTHORIZATION_BYTES = 2 * 1024
BODY_SECONDS = 15.0
_MAX_LOGGED_NAMES = 100
_MAX_LOGGED_CHARACTERS = 100
_SINGLE_HEADERS = frozenset({b"host", b"origin", b"authorization", b"content-length"})

_NOT_FOUND = Answer(404)
_READ_ONLY = Answer(405, headers=((b"allow", b"GET, HEAD"),))
_POST_ONLY = refusal(405, "this MCP server has no streams: send a POST", (b"allow", b"POST"))
_FOREIGN_HOST = refusal(421, "this Host is not allowed: the worker's log says what to change")
_FOREIGN_ORIGIN = refusal(403, "this Origin is not allowed: the worker's log says what to change")
_LONG_CREDENTIALS = refusal(431, f"Authorization is longer than {MAX_AUTHORIZATION_BYTES} bytes")
_CLOSE = (b"connection", b"close")
_LONG_BODY = refusal(413, f"the body is longer than {MAX_BODY_BYTES} bytes", _CLOSE)
_SLOW_BODY = refusal(408, f"the body did not come within {BODY_SECONDS:g} s", _CLOSE)
_STORE_DOWN = refusal(503, "tokens can't be checked at the moment: try again later")
_STOPPING = refusal(503, "the worker is stopping", _CLOSE)


@dataclass(frozen=True)
class Caller:
    """Who a request comes from: the token and its scopes, and what the layers behind find in the ASGI scope."""

    token: str
    scopes: frozenset[str]
    scope_entries: Mapping[str, Any]


@dataclass(frozen=True)
class Policy:
    """What the gate lets pass; known once the worker's port is.

    `documents` are the paths that anybody may read, the health check among them. `authenticate` returns None for a
    token that isn't good and raises where that can't be said; without it nobody is asked for a token.
    """

    worker_name: str
    hosts: Names
    origins: Names
    authenticate: Callable[[str], Caller | None] | None = None
    challenges: Challenges = field(default_factory=Challenges)
    required_scopes: tuple[str, ...] = ()
    documents: Mapping[str, Answer] = field(default_factory=lambda: {HEALTH_PATH: Answer(200)})


class RunningRequests:
    """The requests under way, by token, so that they end with it. `revoke` may be called from any thread."""

    def __init__(self) -> None:
        self._scopes: dict[str, set[anyio.CancelScope]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    @contextmanager
    def listening(self, on_revoked: list[Callable[[str], None]]) -> Iterator[None]:
        """Follow a store's revocations, from the loop that serves the requests."""
        self._loop = asyncio.get_running_loop()
        on_revoked.append(self.revoke)
        try:
            yield
        finally:
            on_revoked.remove(self.revoke)
            self._loop = None

    @contextmanager
    def entry(self, token: str) -> Iterator[anyio.CancelScope]:
        """Hold a place for one request; its scope is cancelled when the token is revoked."""
        scopes = self._scopes.setdefault(token, set())
        with anyio.CancelScope() as scope:
            scopes.add(scope)
            try:
                yield scope
            finally:
                scopes.discard(scope)
                if not scopes:
                    self._scopes.pop(token, None)

    def revoke(self, token: str) -> None:
        """End the requests that came with `token`; returns at once."""
        # Always by way of the loop: a request that was let in a moment ago has its place there before this comes.
        loop = self._loop
        if loop is not None:
            loop.call_soon_threadsafe(self._cancel, token)

    def _cancel(self, token: str) -> None:
        for scope in list(self._scopes.get(token, ())):
            scope.cancel()


class Gate:
    """An ASGI application that hands on to another one what a policy lets pass.

    `running` is entered for the time between the lifespan's startup and shutdown and yields the two; before and after,
    every request is answered 503.
    """

    def __init__(
        self, running: Callable[[], AbstractAsyncContextManager[tuple[Policy, App]]], requests: RunningRequests
    ) -> None:
        self._running = running
        self._requests = requests
        self._open: tuple[Policy, App] | None = None
        self._logged: set[tuple[str, str]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or the application's lifetime."""
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await send({"type": "websocket.close"})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        phase = "startup"
        try:
            async with self._running() as opened:
                self._open = opened
                await send({"type": "lifespan.startup.complete"})
                phase = "shutdown"
                await receive()
        except Exception:
            log.exception("the %s of the MCP server failed", phase)
            await send({"type": f"lifespan.{phase}.failed"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
        finally:
            self._open = None

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._open is None:
            await _STOPPING.send(send)
            return
        policy, app = self._open
        found, duplicate = _single_headers(scope)
        answer = self._early_answer(policy, scope, found, duplicate)
        caller = None
        if answer is None and policy.authenticate is not None:
            caller, answer = _identified(policy, policy.authenticate, found)
        if answer is None and scope["method"] != "POST":
            answer = _POST_ONLY
        if answer is not None:
            await answer.send(send)
            return
        if caller is not None:
            scope.update(caller.scope_entries)
        _lower_names(scope, found)
        exchange = _Exchange(app, scope, receive, send)
        try:
            with self._requests.entry(caller.token if caller else "") as cancel_scope:
                await exchange.run(found.get(b"content-length"))
        except asyncio.CancelledError:
            # The server has waited long enough for this request; nobody awaits the task, so it may end here.
            await exchange.answer(_STOPPING)
            return
        if cancel_scope.cancelled_caught:
            await exchange.answer(policy.challenges.invalid)

    def _early_answer(
        self, policy: Policy, scope: Scope, found: Mapping[bytes, bytes], duplicate: str | None
    ) -> Answer | None:
        """Return what answers a request that isn't for the MCP server or that breaks a rule for all."""
        path = scope["path"]
        readable = policy.documents.get(path)
        if readable is None and path not in MCP_PATHS:
            return _NOT_FOUND
        answer = self._refused_names(policy, found) or _refused_headers(found, duplicate)
        if answer is None and readable is not None:
            return readable if scope["method"] in {"GET", "HEAD"} else _READ_ONLY
        return answer

    def _refused_names(self, policy: Policy, found: Mapping[bytes, bytes]) -> Answer | None:
        host = found.get(b"host", b"").decode("latin-1")
        if not policy.hosts.allows(host):
            self._log_once(policy, "Host", host, "allowed_hosts")
            return _FOREIGN_HOST
        if b"origin" in found:
            origin = found[b"origin"].decode("latin-1")
            if not policy.origins.allows(origin):
                self._log_once(policy, "Origin", origin, "allowed_origins")
                return _FOREIGN_ORIGIN
        return None

    def _log_once(self, policy: Policy, header: str, value: str, key: str) -> None:
        """Tell the operator what to change, once for each value: a stranger must not fill the log."""
        value = value[:_MAX_LOGGED_CHARACTERS]
        if (header, value) in self._logged or len(self._logged) >= _MAX_LOGGED_NAMES:
            return
        self._logged.add((header, value))
        log.warning(
            "refused a request with %s %r: if clients rightly use it, add it to %s of worker %s in the inventory",
            *(header, value, key, policy.worker_name),
        )


class _Exchange:
    """One request that was let in and the response to it."""

    def __init__(self, app: App, scope: Scope, receive: Receive, send: Send) -> None:
        self._app = app
        self._scope = scope
        self._receive = receive
        self._send = send
        self._body: bytes | None = None
        self._has_started = False

    async def run(self, content_length: bytes | None) -> None:
        """Read the whole body and hand the request on."""
        problem = await self._read_body(content_length)
        if problem is not None:
            await self.answer(problem)
        elif self._body is not None:
            await self._app(self._scope, self._replay, self._watch)

    async def answer(self, answer: Answer) -> None:
        """Answer in the application's stead, unless it has begun to."""
        if not self._has_started:
            self._has_started = True
            await answer.send(self._send)

    async def _read_body(self, content_length: bytes | None) -> Answer | None:
        """Set `_body`, or leave it None when the client has gone; return what refuses the body."""
        if content_length is not None and content_length.isdigit() and int(content_length) > MAX_BODY_BYTES:
            return _LONG_BODY
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await self._receive()
                    if message["type"] != "http.request":
                        return None
                    body += message.get("body", b"")
                    if len(body) > MAX_BODY_BYTES:
                        return _LONG_BODY
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            return _SLOW_BODY
        self._body = bytes(body)
        return None

    async def _replay(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def _watch(self, message: Message) -> None:
        self._has_started = True
        await self._send(message)


def _single_headers(scope: Scope) -> tuple[dict[bytes, bytes], str | None]:
    """Return the headers that the gate looks at, and the name of one that came more than once."""
    found: dict[bytes, bytes] = {}
    duplicate = None
    for name, value in scope["headers"]:
        if name in _SINGLE_HEADERS:
            if name in found:
                duplicate = name.decode()
            else:
                found[name] = value
    return found, duplicate


def _lower_names(scope: Scope, found: Mapping[bytes, bytes]) -> None:
    """Write Host and Origin in small letters: the SDK's own check knows no others."""
    names = {name: value.lower() for name, value in found.items() if name in {b"host", b"origin"}}
    if any(found[name] != value for name, value in names.items()):
        scope["headers"] = [(name, names.get(name, value)) for name, value in scope["headers"]]


def _refused_headers(found: Mapping[bytes, bytes], duplicate: str | None) -> Answer | None:
    if len(found.get(b"authorization", b"")) > MAX_AUTHORIZATION_BYTES:
        return _LONG_CREDENTIALS
    return None if duplicate is None else refusal(400, f"more than one {duplicate} header")


def _bearer_token(header: bytes | None) -> str | None:
    """Return the token of an Authorization header; None for another scheme or no header (RFC 6750 section 2.1)."""
    if header is None:
        return None
    scheme, _, token = header.decode("latin-1").partition(" ")
    return token.strip(" ") if scheme.lower() == "bearer" else None


def _identified(
    policy: Policy, authenticate: Callable[[str], Caller | None], found: Mapping[bytes, bytes]
) -> tuple[Caller | None, Answer | None]:
    """Return who sent the request, or the answer that refuses it."""
    token = _bearer_token(found.get(b"authorization"))
    if token is None:
        return None, policy.challenges.missing
    try:
        caller = authenticate(token)
    except Exception as error:  # noqa: BLE001  not a refusal: the client must not throw its token away
        log.error("tokens can't be checked: %s", type(error).__name__)
        return None, _STORE_DOWN
    if caller is None:
        return None, policy.challenges.invalid
    is_enough = caller.scopes.issuperset(policy.required_scopes)
    return caller, None if is_enough else policy.challenges.insufficient_scope
