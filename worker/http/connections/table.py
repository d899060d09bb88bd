"""The open connections, and the choice of those that close when there are too many.

A connection counts as known once a request on it had a valid token; without authentication, once one was accepted.
When an address, or all of them, has too many connections, idle ones that aren't known close first, the oldest first,
then idle ones that are. A connection with an active request is never closed for another one.
"""

from __future__ import annotations

import logging
import resource
from collections import OrderedDict
from collections.abc import Container, Iterable
from typing import Protocol

from ...client_network import client_network
from ...limit_counter import LimitCounter

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 500
MAX_CONNECTIONS_PER_ADDRESS = 400
MAX_UNKNOWN_PER_ADDRESS = 100


class OpenConnection(Protocol):
    """What the table has to know about a connection."""

    @property
    def peer(self) -> str:
        """The address of the client, empty if unknown."""

    @property
    def is_busy(self) -> bool:
        """Whether a request is active."""

    def abort(self) -> None:
        """Close the connection without waiting for unsent data."""


class HttpLimits:
    """Counters of the limits on connections."""

    def __init__(self) -> None:
        self.too_many = LimitCounter(log)
        self.too_long = LimitCounter(log)
        self.too_slow = LimitCounter(log, level=logging.INFO)  # browsers open connections that they may not use
        self.not_accepted = LimitCounter(log)
        self.failed_handshakes = LimitCounter(log, level=logging.INFO)
        self.invalid_requests = 0

    def counters(self) -> dict[str, int]:
        """Return how often connections were closed or refused because of each limit, or of what is not HTTP."""
        return {
            "connections_closed": self.too_many.count,
            "requests_too_long": self.too_long.count,
            "clients_too_slow": self.too_slow.count,
            "waits_for_descriptors": self.not_accepted.count,
            "handshakes_failed": self.failed_handshakes.count,
            "requests_invalid": self.invalid_requests,
        }


class _Network:
    """The connections of one client network: unknown ones, known ones, each with the longest unused first."""

    __slots__ = ("known", "unknown")

    def __init__(self) -> None:
        self.unknown: OrderedDict[OpenConnection, None] = OrderedDict()
        self.known: OrderedDict[OpenConnection, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self.unknown) + len(self.known)


class ConnectionTable:
    """The open connections by client network (the /64 of an IPv6 address). Belongs to the server's loop.

    Those of `proxies`, which carry the requests of many clients, count as known and have no limit but that on all.
    """

    def __init__(self, limits: HttpLimits, proxies: Container[str] = frozenset()) -> None:
        self._limits = limits
        self._proxies = proxies
        self._networks: dict[str, _Network] = {}
        self._where: dict[OpenConnection, str] = {}

    def __len__(self) -> int:
        """Return the number of open connections."""
        return len(self._where)

    def add(self, connection: OpenConnection) -> bool:
        """Add a new connection, and close another one if there are too many; return whether it may stay."""
        # Half of the process's file descriptors are left to the rest of it; there may be few of them.
        maximum = min(MAX_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        name = client_network(connection.peer)
        network = self._networks.setdefault(name, _Network())
        victim: OpenConnection | None = connection
        is_proxy = connection.peer in self._proxies
        if not is_proxy and len(network.unknown) >= _share(MAX_UNKNOWN_PER_ADDRESS, maximum):
            victim = _first_idle(network.unknown) or connection
            self._count("more than %d connections without a valid token", name, MAX_UNKNOWN_PER_ADDRESS, maximum)
        elif not is_proxy and len(network) >= _share(MAX_CONNECTIONS_PER_ADDRESS, maximum):
            victim = _first_idle(network.unknown) or _first_idle(network.known) or connection
            self._count("more than %d connections", name, MAX_CONNECTIONS_PER_ADDRESS, maximum)
        elif len(self._where) >= maximum:
            victim = self._first_idle() or connection
            self._limits.too_many.record("HTTP connections closed: more than %d of all addresses together", maximum)
        else:
            victim = None
        if victim is connection:
            self._drop_empty(name)
            return False
        (network.known if is_proxy else network.unknown)[connection] = None
        self._where[connection] = name
        if victim is not None:
            self.remove(victim)
            victim.abort()
        return True

    def remove(self, connection: OpenConnection) -> None:
        """Forget a connection. Safe to repeat."""
        name = self._where.pop(connection, None)
        if name is not None:
            network = self._networks[name]
            network.unknown.pop(connection, None)
            network.known.pop(connection, None)
            self._drop_empty(name)

    def mark_used(self, connection: OpenConnection) -> None:
        """Note that a request came on a connection: it is the last of its kind to be closed now."""
        name = self._where.get(connection)
        if name is not None:
            network = self._networks[name]
            (network.known if connection in network.known else network.unknown).move_to_end(connection)

    def mark_known(self, connection: OpenConnection) -> None:
        """Note that a request on a connection was accepted."""
        name = self._where.get(connection)
        if name is not None:
            network = self._networks[name]
            network.unknown.pop(connection, None)
            network.known[connection] = None

    def _first_idle(self) -> OpenConnection | None:
        """Return the connection to close for one of any address: of the address that has most of its kind."""
        networks = self._networks.values()
        by_unknown = sorted(networks, key=lambda network: len(network.unknown), reverse=True)
        found = next(filter(None, (_first_idle(network.unknown) for network in by_unknown)), None)
        if found is not None:
            return found
        by_known = sorted(networks, key=lambda network: len(network.known), reverse=True)
        return next(filter(None, (_first_idle(network.known) for network in by_known)), None)

    def _drop_empty(self, name: str) -> None:
        if not self._networks[name]:
            del self._networks[name]

    def _count(self, reason: str, name: str, most: int, maximum: int) -> None:
        share = _share(most, maximum)
        self._limits.too_many.record(f"HTTP connections of %s closed: {reason}", name or "an unknown address", share)


def _share(most: int, maximum: int) -> int:
    """Return the part of `maximum` that `most` is of `MAX_CONNECTIONS`, at least one connection."""
    return max(1, most * maximum // MAX_CONNECTIONS)


def _first_idle(connections: Iterable[OpenConnection]) -> OpenConnection | None:
    return next((each for each in connections if not each.is_busy), None)
