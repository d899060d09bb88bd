"""Listening sockets of the MCP server, bound before anything is served."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Self

from ...models.errors import WorkerStartError
from ...models.inventory.schema import WorkerInventory
from ...models.inventory.sections.metrics import Metrics
from .port_holder import find_holder

BACKLOG = 512
_INVENTORY = "the worker's inventory"
_PORT_ATTEMPTS = 5


def check_exposure(inventory: WorkerInventory) -> None:
    """Refuse to serve other machines without authentication, and without TLS where the inventory requires that.

    Raises:
        WorkerStartError: that is so and the inventory does not allow it.
    """
    if inventory.start_problem is not None:
        raise WorkerStartError(inventory.start_problem)


class HttpListener:
    """Listening sockets at the address of an inventory; open them with `HttpListener.bind`.

    Connections queue until a server accepts them. `url` is the URL of the MCP endpoint.
    """

    def __init__(self, sockets: Sequence[socket.socket], url: str) -> None:
        self.sockets = list(sockets)
        self.url = url

    @classmethod
    def bind(cls, inventory: WorkerInventory, locate_port: Callable[[], str] = lambda: _INVENTORY) -> Self:
        """Bind and listen, so that no other process can take the port; `locate_port` returns where its key is.

        Raises:
            WorkerStartError: the port is taken or not permitted, or the host is not an address of this machine.
        """
        for attempts_left in reversed(range(_PORT_ATTEMPTS)):
            try:
                sockets = _listen(inventory.host, inventory.port)
                break
            except OSError as error:
                # A free port of a name's first address may be taken at its second one.
                if inventory.port != 0 or error.errno != errno.EADDRINUSE or not attempts_left:
                    raise WorkerStartError(_bind_error(inventory, error, locate_port)) from None
        return cls(sockets, f"{inventory.base_url(_port(sockets))}/mcp")

    @classmethod
    def bind_metrics(cls, inventory: WorkerInventory, metrics: Metrics) -> Self:
        """Bind and listen at the address of a worker's metrics, which are served without TLS.

        Raises:
            WorkerStartError: as `bind`.
        """
        address = {"host": metrics.host, "port": metrics.port, "tls": None}
        try:
            return cls.bind(inventory.model_copy(update=address))
        except WorkerStartError as error:
            raise WorkerStartError(f"metrics: {error}") from None

    def close(self) -> None:
        """Release the port. Safe to repeat."""
        for listener in self.sockets:
            listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _bind_error(inventory: WorkerInventory, error: OSError, locate_port: Callable[[], str]) -> str:
    host, port = inventory.host or "all interfaces", inventory.port
    if error.errno == errno.EADDRINUSE:
        holder = find_holder(port)
        program = f"by {holder}: stop that" if holder else ": stop the program that uses it"
        return (
            f"port {port} on {host} is already in use{' ' if holder else ''}{program}, "
            f"or set another port in {locate_port()} (0 selects a free one)"
        )
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"port {port} on {host} requires privileges: set port in {locate_port()} to 1024 or more"
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"host {host} is not an address of this machine: set host in the worker's inventory to one that is"
    return f"cannot bind port {port} on {host}: {error.strerror}: check host and port in the worker's inventory"


def _listen(host: str, port: int) -> list[socket.socket]:
    """Return listening sockets for each address of `host`, all with the same port."""
    sockets: list[socket.socket] = []
    unavailable: OSError | None = None
    with ExitStack() as opened:
        for family, address in _resolve(host):
            try:
                sockets.append(opened.enter_context(_open_listener(family, address, port or _port(sockets))))
            except OSError as error:
                # A name may have addresses that this machine does not, for instance ::1 without IPv6.
                if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                    raise
                unavailable = error
        if unavailable is not None and not sockets:
            raise unavailable
        opened.pop_all()
    return sockets


def _port(sockets: Sequence[socket.socket]) -> int:
    """Return the port of open listeners, 0 without any."""
    port: int = sockets[0].getsockname()[1] if sockets else 0
    return port


def _resolve(host: str) -> list[tuple[int, str]]:
    """Return family and address of each address of `host`; of all interfaces the one that serves IPv4 and IPv6."""
    if host in {"", "::"} and socket.has_dualstack_ipv6():
        return [(socket.AF_INET6, "::")]
    found = socket.getaddrinfo(host or "0.0.0.0", None, type=socket.SOCK_STREAM)  # noqa: S104  set in the inventory
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _open_listener(family: int, address: str, port: int) -> socket.socket:
    # asyncio sets TCP_NODELAY only where the protocol is given; without it each small response takes 40 ms.
    with ExitStack() as opened:
        listener = opened.enter_context(socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP))
        # Permits a port whose last connections are in TIME_WAIT, but none that another socket listens on.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # All interfaces include those of IPv4: the URL that is shown for them names 127.0.0.1.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((address, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
        opened.pop_all()
    return listener
