"""The HTTP server: uvicorn on bound sockets, with limits on what a connection can occupy.

uvicorn's signal handlers are off: the process has its own.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
import uvloop
from httptools import HttpRequestParser
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ...models.errors import WorkerStartError
from .listener import BACKLOG, HttpListener

GRACE_SECONDS = 3.0
KEEP_ALIVE_SECONDS = 30
HEADER_TIMEOUT_SECONDS = 10.0
MAX_HEADER_BYTES = 32 * 1024
MAX_CONNECTIONS = 500
# uvicorn checks ten times a second whether to exit, and waits as long for closed connections.
_SLACK_SECONDS = 0.4
_FLUSH_SECONDS = 0.1


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop for the server: uvloop serves a third more requests than asyncio's own."""
    return uvloop.new_event_loop()


class HttpServer:
    """Serves an ASGI application on a listener's sockets, which it closes when it stops; belongs to one loop.

    `on_stop` is called as the stop begins, so that the application can end what would not end by itself.
    """

    def __init__(self, app: ASGIApp, listener: HttpListener, *, on_stop: Callable[[], None] = lambda: None) -> None:
        self._listener = listener
        self._on_stop = on_stop
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._server = _Server(
            uvicorn.Config(
                app,
                http=_Connection,
                ws="none",
                lifespan="on",
                log_config=None,
                # uvicorn warns about malformed requests: a client could fill the log.
                log_level="error",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                backlog=BACKLOG,
            )
        )

    @property
    def connections(self) -> set[Any]:
        """The open connections, uvicorn's protocol objects."""
        return self._server.server_state.connections

    @property
    def requests(self) -> set[asyncio.Task[None]]:
        """The tasks of the requests that are being served."""
        return self._server.server_state.tasks

    async def serve(self) -> None:
        """Serve until `stop`.

        Raises:
            WorkerStartError: the application's startup failed; the log has the reason.
        """
        self._is_idle.clear()
        try:
            await self._server.serve(self._listener.sockets)
        except SystemExit:  # how uvicorn reports it
            raise WorkerStartError("the MCP server failed to start: see the worker's log") from None
        finally:
            self._is_idle.set()

    async def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """Accept no more connections, give active requests `grace_seconds` to end, then close all connections.

        Returns half a second after that at the latest. Safe to repeat.
        """
        self._server.config.timeout_graceful_shutdown = grace_seconds  # type: ignore[assignment]  # a float works too
        self._server.should_exit = True
        self._on_stop()
        try:
            await asyncio.wait_for(self._is_idle.wait(), grace_seconds + _SLACK_SECONDS)
        except TimeoutError:
            self._server.force_exit = True
        for connection in list(self.connections):
            connection.transport.abort()
        if self.requests:  # blocked until now by a client that did not read
            await asyncio.wait(self.requests, timeout=_FLUSH_SECONDS)
        self._listener.close()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Transport:
    """A transport that discards writes once its connection is lost, where uvloop's raises.

    uvicorn notifies only the last of several pipelined requests that their connection is lost.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self.is_lost = False
        self._transport = transport

    def write(self, data: bytes) -> None:
        if not self.is_lost:
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Connection(HttpToolsProtocol):
    """A connection with limits on time and size of request headers, which uvicorn lacks.

    The middleware limits bodies, uvicorn the time between requests.
    """

    parser: HttpRequestParser

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._header_timer: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._has_headers = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection, or abort it when there are too many."""
        super().connection_made(_Transport(transport))  # type: ignore[arg-type]
        # Half of the process's file descriptors are left to the rest of it.
        if len(self.connections) > min(MAX_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2):
            transport.abort()
        else:
            self._start_header_timer()

    def data_received(self, data: bytes) -> None:
        """Receive bytes; while no request is active they count as headers of the next one."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._header_bytes = 0
            self._cancel_header_timer()
            return
        self._header_bytes += len(data)
        if self._header_bytes > MAX_HEADER_BYTES:
            self.transport.abort()
        elif self._header_timer is None:
            self._start_header_timer()

    def on_message_begin(self) -> None:
        self._has_headers = False
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Receive a header; trailers are dropped: a token or a Host among them must have no effect."""
        if not self._has_headers:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._has_headers = True
        super().on_headers_complete()
        if self.parser.should_upgrade():
            # The parser reads nothing after an upgrade request: the next request needs a new connection.
            self.cycle.keep_alive = False

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_header_timer()
        # uvicorn does not cancel this timer when the client disconnects: it would keep the connection for 30 s.
        self._unset_keepalive_if_required()
        self.transport.is_lost = True  # type: ignore[attr-defined]
        super().connection_lost(exc)

    def _start_header_timer(self) -> None:
        self._header_timer = self.loop.call_later(HEADER_TIMEOUT_SECONDS, self.transport.abort)

    def _cancel_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
