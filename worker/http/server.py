"""The HTTP server: uvicorn on a socket that was bound before, with bounds on what a connection may hold up.

`bind` and `close` may be called without a loop; `serve` and `stop` belong to one loop. Whoever calls watches signals:
uvicorn's own handlers are off.
"""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ...models.errors import WorkerStartError
from ...models.inventory.schema import WorkerInventory
from .exchange import App

GRACE_SECONDS = 3.0
KEEP_ALIVE_SECONDS = 30
HEAD_SECONDS = 10.0
MAX_HEAD_BYTES = 32 * 1024
MAX_CONNECTIONS = 500
BACKLOG = 512
# uvicorn looks ten times a second whether it should exit, and waits as long for closed connections.
_SLACK_SECONDS = 0.4
_LAST_WORDS_SECONDS = 0.1
_PORT_ATTEMPTS = 5
_ALL_INTERFACES = frozenset({"", "::"})


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a loop fit for the server: uvloop serves a third more requests than asyncio's own."""
    return uvloop.new_event_loop()


def check_exposure(inventory: WorkerInventory) -> None:
    """Refuse to serve without authentication where other machines can reach the MCP server.

    Raises:
        WorkerStartError: that is so and the inventory doesn't allow it.
    """
    if inventory.exposure_problem is not None:
        raise WorkerStartError(inventory.exposure_problem)


class HttpServer:
    """Serves one ASGI application at the address that an inventory names.

    `on_stop` is called as the stop begins, so that the application can end what wouldn't end by itself.
    """

    def __init__(self, app: App, inventory: WorkerInventory, *, on_stop: Callable[[], None] = lambda: None) -> None:
        self._inventory = inventory
        self._on_stop = on_stop
        self._sockets: list[socket.socket] = []
        self._ended = asyncio.Event()
        self._is_serving = False
        self._server = _Server(
            uvicorn.Config(
                app,
                http=_Connection,
                ws="none",
                lifespan="on",
                log_config=None,
                # Its warnings are about what strangers send: they would fill the log.
                log_level="error",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                backlog=BACKLOG,
            )
        )

    def bind(self) -> str:
        """Bind and listen, so that no other process can get the port; return the URL of the MCP endpoint.

        Connections wait until `serve`.

        Raises:
            WorkerStartError: the port is taken, not allowed, or the host isn't this machine's.
        """
        for attempt in range(_PORT_ATTEMPTS):
            try:
                self._sockets = _listen(self._inventory.host, self._inventory.port)
                break
            except OSError as error:
                # A free port of a name's first address may be taken at its second one.
                if self._inventory.port != 0 or error.errno != errno.EADDRINUSE or attempt == _PORT_ATTEMPTS - 1:
                    raise WorkerStartError(self._bind_problem(error)) from None
        return f"{self._inventory.base_url(self._sockets[0].getsockname()[1])}/mcp"

    async def serve(self) -> None:
        """Serve until `stop`.

        Raises:
            WorkerStartError: the application couldn't start; the log says why.
        """
        self._is_serving = True
        try:
            await self._server.serve(self._sockets)
        except SystemExit:  # uvicorn's way to say so
            raise WorkerStartError("the MCP server could not start: see the worker's log") from None
        finally:
            self._ended.set()

    async def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """Take no more connections, give requests under way `grace_seconds` to end, then close them all.

        Returns half a second after that at the latest. Safe to repeat.
        """
        self._server.config.timeout_graceful_shutdown = grace_seconds  # type: ignore[assignment]  # a float will do
        self._server.should_exit = True
        self._on_stop()
        if self._is_serving:
            try:
                await asyncio.wait_for(self._ended.wait(), grace_seconds + _SLACK_SECONDS)
            except TimeoutError:
                self._server.force_exit = True
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
        if self._server.server_state.tasks:  # a client that didn't read held them up until now
            await asyncio.wait(self._server.server_state.tasks, timeout=_LAST_WORDS_SECONDS)
        self.close()

    def close(self) -> None:
        """Give the port back. Safe to repeat."""
        for listener in self._sockets:
            listener.close()

    def _bind_problem(self, error: OSError) -> str:
        host, port = self._inventory.host or "all interfaces", self._inventory.port
        if error.errno == errno.EADDRINUSE:
            return (
                f"port {port} on {host} is taken: end what listens there, "
                "or set another port in the worker's inventory (0 takes a free one)"
            )
        if error.errno in {errno.EACCES, errno.EPERM}:
            return f"port {port} on {host} is not for this user: set port in the worker's inventory to 1024 or more"
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            return f"host {host} is not an address of this machine: set host in the worker's inventory to one that is"
        return f"port {port} on {host} can't be bound: {error.strerror}: set host and port in the worker's inventory"


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process has its own, and ends more than this server."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Transport:
    """A connection's transport that drops what is written once it is lost, where uvloop's raises.

    uvicorn tells only the last of several requests in a pipeline that their connection is lost.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self.is_lost = False
        self._transport = transport

    def write(self, data: bytes) -> None:
        """Write, if there is still somebody to write to."""
        if not self.is_lost:
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Connection(HttpToolsProtocol):
    """A connection whose request heads are bounded in time and size, which uvicorn doesn't do.

    Bodies are bounded by the gate, pauses between requests by uvicorn.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._is_head_over = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection, or drop it when there are too many: those that are open go on."""
        super().connection_made(_Transport(transport))  # type: ignore[arg-type]
        if len(self.connections) > _max_connections():
            transport.abort()
        else:
            self._await_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes; those that come while no request is under way belong to the head of the next one."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._head_bytes = 0
            self._end_wait()
            return
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self.transport.abort()
        elif self._head_timer is None:
            self._await_head()

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._is_head_over = False
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; those that trail a body are dropped: a token or a Host among them must not count."""
        if not self._is_head_over:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the request."""
        self._is_head_over = True
        super().on_headers_complete()
        if self.parser.should_upgrade():
            # Behind a request for another protocol the parser reads nothing more: the next one needs a new connection.
            self.cycle.keep_alive = False

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the connection."""
        self._end_wait()
        # uvicorn leaves this timer be where the client broke off: for half a minute it would keep the connection.
        self._unset_keepalive_if_required()
        self.transport.is_lost = True  # type: ignore[attr-defined]
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _end_wait(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def _max_connections() -> int:
    """Leave half of the descriptors that the system grants to the rest of the process."""
    return min(MAX_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)


def _listen(host: str, port: int) -> list[socket.socket]:
    """Return listening sockets for each address of `host`, all with the same port."""
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, address in _addresses(host):
            try:
                sockets.append(_listener(family, address, port or _port(sockets)))
            except OSError as error:
                # A name may have addresses that this machine hasn't, ::1 without IPv6 for instance.
                if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                    raise
                missing = error
        if missing is not None and not sockets:
            raise missing
    except OSError:
        for listener in sockets:
            listener.close()
        raise
    return sockets


def _port(sockets: list[socket.socket]) -> int:
    port: int = sockets[0].getsockname()[1] if sockets else 0
    return port


def _addresses(host: str) -> list[tuple[int, str]]:
    if host in _ALL_INTERFACES and socket.has_dualstack_ipv6():
        return [(socket.AF_INET6, "::")]
    found = socket.getaddrinfo(host or "0.0.0.0", None, type=socket.SOCK_STREAM)  # noqa: S104  the inventory says so
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _listener(family: int, address: str, port: int) -> socket.socket:
    # asyncio sends small answers without delay only where a socket says that it is TCP; else each takes 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # A port whose last connections are still winding down may be had; one that is listened at may not.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # All interfaces are those of IPv4 too: the URL that is shown for them names 127.0.0.1.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((address, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
