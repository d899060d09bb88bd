"""The outermost ASGI layer: what is decided about a request before the MCP SDK sees it.

In this order: path (404), Host (421) and Origin (403), headers (400, 431), the bearer token (429 where too many wrong
ones came from the address, 401, 403, or 503 while the store can't say), method (405), body (408, 413). The SDK checks
Host, Origin, credentials and body size again behind it; here they come in an order that tells strangers least, cost
least, and are answered in full.

The token is looked up again when the response begins: what was asked with a good token isn't answered to a deleted one.
Where the response is a stream, that goes for each part of it, and the stream ends with the token.

Challenges follow RFC 6750 section 3: no error code where no token was sent, the scopes where one is missing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio

from .active_requests import RunningRequests
from .allowed_hosts import Names
from .exchange import App, Exchange, Receive, Scope, Send
from .rate_limit import WINDOW_SECONDS, GuessLimit, counted_address
from .responses import TOO_MANY_REQUESTS, Answer, Challenges, refusal, too_many_guesses

log = logging.getLogger(__name__)

MCP_PATHS = frozenset({"/mcp", "/mcp/"})
HEALTH_PATH = "/health"
MAX_AUTHORIZATION_BYTES = 2 * 1024
HOLD_UP_SECONDS = 0.05
_MAX_LOGGED_NAMES = 100
_MAX_LOGGED_CHARACTERS = 100
_SINGLE_HEADERS = frozenset({b"host", b"origin", b"authorization", b"content-length"})

_NOT_FOUND = Answer(404)
_READ_ONLY = Answer(405, headers=((b"allow", b"GET, HEAD"),))
_POST_ONLY = refusal(405, "this MCP server has no streams: send a POST", (b"allow", b"POST"))
_GET_OR_POST_ONLY = refusal(405, "this MCP server has no sessions: send a POST or a GET", (b"allow", b"GET, POST"))
_FOREIGN_HOST = refusal(421, "this Host is not allowed: the worker's log says what to change")
_FOREIGN_ORIGIN = refusal(403, "this Origin is not allowed: the worker's log says what to change")
_LONG_CREDENTIALS = refusal(431, f"Authorization is longer than {MAX_AUTHORIZATION_BYTES} bytes")
_CLOSE = (b"connection", b"close")
_STORE_DOWN = refusal(503, "tokens can't be checked at the moment: try again later")
_STOPPING = refusal(503, "the worker is stopping", _CLOSE)
_TOO_MANY_GUESSES = tuple(too_many_guesses(seconds) for seconds in range(WINDOW_SECONDS + 1))


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
    token that isn't good and raises where that can't be said; without it nobody is asked for a token. `is_live` says
    whether a token is still good, or raises. `guesses` limits wrong tokens; without it they aren't counted. `streams`
    answers a GET of the MCP server's paths; without it there are none. `end_streams` ends them and lets none begin.

    `on_refused` is told the address, the reason and the token of each request that is refused for its token, from the
    loop; it must neither block nor raise.
    """

    worker_name: str
    hosts: Names
    origins: Names
    authenticate: Callable[[str], Caller | None] | None = None
    is_live: Callable[[str], bool] = lambda _token: True
    guesses: GuessLimit | None = None
    on_refused: Callable[[str, str, str], object] | None = None
    challenges: Challenges = field(default_factory=Challenges)
    required_scopes: tuple[str, ...] = ()
    documents: Mapping[str, Answer] = field(default_factory=lambda: {HEALTH_PATH: Answer(200)})
    streams: App | None = None
    end_streams: Callable[[], None] = lambda: None


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

    def end_streams(self) -> None:
        """End what would otherwise go on for ever: the server is about to stop."""
        if self._open is not None:
            self._open[0].end_streams()

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
            caller, answer = _identified(policy, policy.authenticate, scope, found)
        if answer is None and scope["method"] != "POST":
            if policy.streams is None:
                answer = _POST_ONLY
            elif scope["method"] != "GET":
                answer = _GET_OR_POST_ONLY
            else:
                app = policy.streams
        if answer is not None:
            if answer.status == TOO_MANY_REQUESTS:
                await _hold_up()
            await answer.send(send)
            return
        _lower_names(scope, found)
        exchange = Exchange(app, scope, receive, send)
        try:
            if caller is None:
                await exchange.run(found.get(b"content-length"))
            else:
                await self._serve_caller(policy, caller, exchange, found.get(b"content-length"))
        except asyncio.CancelledError:
            # The server has waited long enough for this request; nobody awaits the task, so it may end here.
            await exchange.answer(_STOPPING)

    async def _serve_caller(
        self, policy: Policy, caller: Caller, exchange: Exchange, content_length: bytes | None
    ) -> None:
        """Serve a request for as long as its token is good."""
        exchange.scope.update(caller.scope_entries)
        with self._requests.entry(caller.token) as cancel_scope:
            exchange.late_refusal = partial(_late_refusal, policy, caller.token, cancel_scope)
            exchange.break_off = cancel_scope.cancel
            await exchange.run(content_length)
        await exchange.end_stream()
        if exchange.refusal is not None:
            await exchange.answer(exchange.refusal)
        elif cancel_scope.cancelled_caught:
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
    policy: Policy, authenticate: Callable[[str], Caller | None], scope: Scope, found: Mapping[bytes, bytes]
) -> tuple[Caller | None, Answer | None]:
    """Return who sent the request, or the answer that refuses it."""
    token = _bearer_token(found.get(b"authorization"))
    if token is None:
        return None, policy.challenges.missing
    peer = scope.get("client")
    address = counted_address(peer[0]) if peer else ""
    locked_out = _lock_out(policy, address)
    if locked_out is not None:
        _tell_refused(policy, address, "too many wrong tokens", token)
        return None, locked_out
    try:
        caller = authenticate(token)
    except Exception as error:  # noqa: BLE001  not a refusal: the client must not throw its token away
        log.error("tokens can't be checked: %s", type(error).__name__)
        return None, _STORE_DOWN
    if caller is None:
        _count_guess(policy, address)
        _tell_refused(policy, address, "wrong token", token)
        return None, _lock_out(policy, address) or policy.challenges.invalid
    if caller.scopes.issuperset(policy.required_scopes):
        return caller, None
    _tell_refused(policy, address, "insufficient scope", token)
    return caller, policy.challenges.insufficient_scope


async def _hold_up() -> None:
    """Keep who doesn't stop guessing busy: a flood of answers would keep the loop from those who are served."""
    # The server's stop cancels what takes too long: then the answer goes out at once.
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(HOLD_UP_SECONDS)


def _lock_out(policy: Policy, address: str) -> Answer | None:
    """Return what answers an address that has sent too many wrong tokens, None for one that hasn't."""
    seconds = policy.guesses.wait_seconds(address) if policy.guesses is not None else 0
    return _TOO_MANY_GUESSES[seconds] if seconds else None


def _count_guess(policy: Policy, address: str) -> None:
    if policy.guesses is not None and policy.guesses.count(address):
        log.warning(
            "too many wrong tokens from %s: requests with a token are refused there for up to a minute; where many "
            "clients share an address, see max_wrong_tokens_per_minute of worker %s in the inventory",
            address or "nowhere",
            policy.worker_name,
        )


def _tell_refused(policy: Policy, address: str, reason: str, token: str) -> None:
    if policy.on_refused is not None:
        policy.on_refused(address, reason, token)


def _late_refusal(policy: Policy, token: str, cancel_scope: anyio.CancelScope) -> Answer | None:
    """Return what answers a request, in the response's stead, whose token has ended since it came."""
    # A revoked token may have been stored again by now: it's another one then.
    if cancel_scope.cancel_called:
        return policy.challenges.invalid
    try:
        return None if policy.is_live(token) else policy.challenges.invalid
    except Exception as error:  # noqa: BLE001  as where it came
        log.error("tokens can't be checked: %s", type(error).__name__)
        return _STORE_DOWN
