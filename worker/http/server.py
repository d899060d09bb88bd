"""The HTTP server: uvicorn on bound sockets.

uvicorn's signal handlers are off: the process has its own.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
import uvloop
from starlette.types import ASGIApp

from ...models.errors import WorkerStartError
from .connections.acceptor import Acceptor
from .connections.protocol import Connection
from .connections.table import ConnectionTable, HttpLimits
from .listener import BACKLOG, HttpListener
from .tls.certificates import ServerCertificate
from .tls.handshake import Handshake

GRACE_SECONDS = 3.0
KEEP_ALIVE_SECONDS = 30
# uvicorn checks ten times a second whether to exit, and waits as long for closed connections.
_SLACK_SECONDS = 0.4
_FLUSH_SECONDS = 0.1


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop for the server: uvloop serves a third more requests than asyncio's own."""
    return uvloop.new_event_loop()


class HttpServer:
    """Serves an ASGI application on a listener's sockets, which it closes when it stops; belongs to one loop.

    `on_stop` is called as the stop begins, so that the application can end what would not end by itself. Connections of
    `proxies` are those of many clients: the limits per address do not apply to them. With a `certificate` HTTPS is
    served.
    """

    def __init__(
        self,
        app: ASGIApp,
        listener: HttpListener,
        *,
        on_stop: Callable[[], None] = lambda: None,
        proxies: Container[str] = frozenset(),
        certificate: ServerCertificate | None = None,
    ) -> None:
        self._listener = listener
        self._on_stop = on_stop
        self._certificate = certificate
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._limits = HttpLimits()
        self._table = ConnectionTable(self._limits, proxies)
        self._server = _Server(
            uvicorn.Config(
                app,
                # Called as a class would be.
                http=self._make_connection,  # type: ignore[arg-type]
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
            ),
            self._limits,
        )

    def _make_connection(self, **kwargs: Any) -> asyncio.Protocol:
        """Return the protocol of a new connection; `kwargs` are uvicorn's."""
        table, limits, certificate = self._table, self._limits, self._certificate
        if certificate is None:
            return Connection(table=table, limits=limits, **kwargs)

        def make_encrypted(raw: asyncio.Transport) -> Connection:
            return Connection(table=table, limits=limits, raw=raw, **kwargs)

        return Handshake(
            make_encrypted,
            context=lambda: certificate.context,
            table=table,
            limits=limits,
            connections=kwargs["server_state"].connections,
        )

    @property
    def connections(self) -> set[Any]:
        """The open connections, uvicorn's protocol objects."""
        return self._server.server_state.connections

    @property
    def requests(self) -> set[asyncio.Task[None]]:
        """The tasks of the requests that are being served."""
        return self._server.server_state.tasks

    def counters(self) -> dict[str, int]:
        """Return the number of open connections, and how often each limit on them was applied."""
        return {"connections": len(self._table), **self._limits.counters()}

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
    """uvicorn without its signal handlers, and with an acceptor that copes without file descriptors."""

    def __init__(self, config: uvicorn.Config, limits: HttpLimits) -> None:
        super().__init__(config)
        self._limits = limits

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        for listener in sockets or []:
            acceptor = Acceptor(listener, self._make_protocol, self._limits, self.config.ssl)
            self.servers.append(acceptor)  # type: ignore[arg-type]  # uvicorn only closes it

    def _make_protocol(self) -> asyncio.Protocol:
        make = self.config.http_protocol_class
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)  # type: ignore[call-arg]

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
