"""The open connections of direct clients, and the choice of those that close.

ZeroMQ doesn't say which connection has authenticated: one has that has sent a message, or that is older than ZeroMQ's
own time limit for it. Of the others, the oldest of the address that has most of them close first.
"""

from __future__ import annotations

import resource
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from itertools import islice

MAX_CONNECTIONS = 1_000
MAX_CONNECTING = 500
MAX_CONNECTING_PER_ADDRESS = 250
MAX_INCOMPLETE_BYTES = 16 * 1024 * 1024
MAX_INCOMPLETE_BYTES_TOTAL = 64 * 1024 * 1024


class Peer:
    """One connection: its `descriptor`, the client's `network`, and what it has sent of a message that isn't complete.

    `incomplete` is in bytes. `identity` is the socket's, which keeps it when its descriptor is another one's.
    """

    __slots__ = ("accepted_at", "base", "descriptor", "identity", "incomplete", "messages", "network")

    def __init__(self, descriptor: int, identity: int, network: str, accepted_at: float, messages: int) -> None:
        self.descriptor = descriptor
        self.identity = identity
        self.network = network
        self.accepted_at = accepted_at
        self.messages = messages
        self.base: int | None = 0 if network else None  # clients of a socket file have no address
        self.incomplete = 0

    def measure(self, messages: int, total: int | None) -> None:
        """Take the number of messages and of bytes so far; None: the bytes can't have become more.

        The bytes of a message are counted from the first time that this is called after the one before it.
        """
        if messages != self.messages:
            self.messages, self.base, self.incomplete = messages, None, 0
        if total is None:
            return
        if self.base is None:
            self.base = total
        self.incomplete = max(0, total - self.base)


class PeerTable:
    """The connections by descriptor. Belongs to one thread.

    `messages` has the number of messages that have arrived by descriptor. `handshake_seconds` is ZeroMQ's limit;
    `monotonic` returns seconds.
    """

    def __init__(self, messages: Mapping[int, int], handshake_seconds: float, monotonic: Callable[[], float]) -> None:
        self._messages = messages
        self._handshake_seconds = handshake_seconds
        self._monotonic = monotonic
        self._connecting: OrderedDict[int, Peer] = OrderedDict()
        self._connected: OrderedDict[int, Peer] = OrderedDict()
        self._by_network: Counter[str] = Counter()

    def __len__(self) -> int:
        """Return the number of connections."""
        return len(self._connecting) + len(self._connected)

    def __iter__(self) -> Iterator[Peer]:
        """Iterate over the connections, for changes too."""
        return iter([*self._connecting.values(), *self._connected.values()])

    def add(self, descriptor: int, network: str, identity: int) -> tuple[Peer, str] | None:
        """Add a new connection; return one that has to close for it, and the reason."""
        self.remove(descriptor)
        peer = Peer(descriptor, identity, network, self._monotonic(), self._messages.get(descriptor, 0))
        self._connecting[descriptor] = peer
        self._by_network[network] += 1
        # A quarter of the process's file descriptors, half of which HTTP connections may use.
        maximum = min(MAX_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        per_address = max(1, MAX_CONNECTING_PER_ADDRESS * maximum // MAX_CONNECTIONS)
        connecting = max(1, MAX_CONNECTING * maximum // MAX_CONNECTIONS)
        is_many = self._by_network[network] > per_address
        if is_many or len(self._connecting) > connecting or len(self) > maximum:
            self.settle()
        if self._by_network[network] > per_address:
            return self._oldest_of(network), f"more than {per_address} that have not authenticated"
        if len(self._connecting) > connecting:
            return self._oldest_of(self._by_network.most_common(1)[0][0]), f"more than {connecting} at all addresses"
        if len(self) > maximum:
            is_newest_alone = len(self._connecting) == 1
            oldest = self._connected if is_newest_alone and self._connected else self._connecting
            return next(iter(oldest.values())), f"more than {maximum} at all addresses"
        return None

    def remove(self, descriptor: int) -> None:
        """Forget a connection. Safe to repeat."""
        peer = self._connecting.pop(descriptor, None)
        if peer is not None:
            self._forget_network(peer.network)
        self._connected.pop(descriptor, None)

    def settle(self) -> None:
        """Find out which connections have authenticated."""
        old = self._monotonic() - self._handshake_seconds - 1.0
        for peer in list(self._connecting.values()):
            if peer.accepted_at < old or self._messages.get(peer.descriptor, 0) != peer.messages:
                del self._connecting[peer.descriptor]
                self._forget_network(peer.network)
                self._connected[peer.descriptor] = peer

    def too_long(self) -> list[Peer]:
        """Return the connections with too much of a message that isn't complete, as last measured."""
        by_size = sorted(self, key=lambda peer: peer.incomplete)
        found = [peer for peer in by_size if peer.incomplete > MAX_INCOMPLETE_BYTES]
        total = sum(peer.incomplete for peer in islice(by_size, len(by_size) - len(found)))
        for peer in reversed(by_size[: len(by_size) - len(found)]):
            if total <= MAX_INCOMPLETE_BYTES_TOTAL:
                break
            total -= peer.incomplete
            found.append(peer)
        return found

    def _oldest_of(self, network: str) -> Peer:
        return next(peer for peer in self._connecting.values() if peer.network == network)

    def _forget_network(self, network: str) -> None:
        self._by_network[network] -= 1
        if not self._by_network[network]:
            del self._by_network[network]
