"""Calls that are running, and what ends them early: their client cancels them, or has gone."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import anyio
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.streamable_http import REQUEST_CANCELLED
from mcp.shared.exceptions import MCPError
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..tools.policy import ToolUser

_METHOD = "notifications/cancelled"
_ValueT = TypeVar("_ValueT")


class CallKey(NamedTuple):
    """What a notification names a call by: the caller's token and address, and the request's id."""

    token: str
    address: str
    request_id: int | str


class RunningCalls:
    """The calls that are running; belongs to the loop that serves them.

    Request ids are unique for one client only, and clients may share a token: of several calls with one key none is
    cancelled by a notification.
    """

    def __init__(self) -> None:
        self._scopes: dict[CallKey, list[anyio.CancelScope]] = {}

    async def run(self, key: CallKey, request: Request | None, work: Callable[[], Awaitable[_ValueT]]) -> _ValueT:
        """Await the work of a call and return its result.

        Raises:
            MCPError: the call was cancelled, or its client has disconnected.
        """
        with self._tracked(key) as scope:
            return await _while_connected(scope, request, work)
        raise MCPError(REQUEST_CANCELLED, "Request cancelled")

    def cancel(self, key: CallKey) -> None:
        """Cancel the call with this key, if there is exactly one."""
        scopes = self._scopes.get(key, [])
        if len(scopes) == 1:
            scopes[0].cancel()

    @contextmanager
    def _tracked(self, key: CallKey) -> Iterator[anyio.CancelScope]:
        with anyio.CancelScope() as scope:
            self._scopes.setdefault(key, []).append(scope)
            try:
                yield scope
            finally:
                self._scopes[key].remove(scope)
                if not self._scopes[key]:
                    del self._scopes[key]


class CancellationApp:
    """An ASGI application that reads `notifications/cancelled` on the way to another one.

    The SDK's server keeps no state between requests, and drops them.
    """

    def __init__(self, app: ASGIApp, calls: RunningCalls) -> None:
        self._app = app
        self._calls = calls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""

        async def receive_noting() -> Message:
            message = await receive()
            # The middleware before this one passes bodies on in one piece.
            if message["type"] == "http.request" and _METHOD.encode() in message.get("body", b""):
                request_id = _cancelled_id(message["body"])
                if request_id is not None:
                    self._calls.cancel(CallKey(caller_token(), _address(scope), request_id))
            return message

        await self._app(scope, receive_noting, send)


def call_key(request: Request | None, request_id: int | str | None) -> CallKey:
    """Return the key of a call that is being served."""
    address = "" if request is None else _address(request.scope)
    return CallKey(caller_token(), address, "" if request_id is None else request_id)


def caller_token() -> str:
    """Return the token of the request that is being served, empty without authentication."""
    access = get_access_token()
    return "" if access is None else access.token


def current_user() -> ToolUser | None:
    """Return the user of the request that is being served, None without authentication."""
    access = get_access_token()
    return None if access is None else ToolUser(access.client_id, frozenset(access.scopes))


def mcp_client_name() -> str:
    """Return the name of the client that sent the current request, for the log."""
    access = get_access_token()
    return access.client_id if access else "(unauthenticated)"


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return "" if client is None else str(client[0])


def _cancelled_id(body: bytes) -> int | str | None:
    """Return the id that a notification names, None if the body is no such notification."""
    try:
        message: Any = json.loads(body)
        request_id = message["params"]["requestId"] if message["method"] == _METHOD else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return request_id if type(request_id) in {int, str} else None


async def _while_connected(
    scope: anyio.CancelScope, request: Request | None, work: Callable[[], Awaitable[_ValueT]]
) -> _ValueT:
    """Await the work and return its result; cancel the scope when the client disconnects first.

    Raises whatever the work raises.
    """
    if request is None:
        return await work()
    results: list[_ValueT] = []
    failure: Exception | None = None

    async def cancel_on_disconnect() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(cancel_on_disconnect)
        try:
            results.append(await work())
        except Exception as error:  # noqa: BLE001  the group would wrap it in an exception group
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return results[0]
