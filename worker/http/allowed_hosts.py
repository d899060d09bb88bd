"""Allowed Host and Origin headers: protection against DNS rebinding and cross-site requests."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address
from urllib.parse import urlsplit

from ...models.inventory.schema import WorkerInventory

_ANY_PORT = ":*"
# An address or a name without its final dot, and a port.
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\[\]:]*[^\[\]:.])\.?)(?::|(:[0-9*]+))?")


@dataclass(frozen=True)
class HostPatterns:
    """Allowed values of a header: `exact` ones, and names that are allowed with any port."""

    exact: frozenset[str]
    with_any_port: frozenset[str]

    @classmethod
    def parse(cls, patterns: Iterable[str]) -> HostPatterns:
        """Parse patterns: `NAME` or `NAME:PORT` allows that value, `NAME:*` the name with any port or without one."""
        lowered = {canonical_host(pattern) for pattern in patterns}
        with_any_port = frozenset(pattern.removesuffix(_ANY_PORT) for pattern in lowered if pattern.endswith(_ANY_PORT))
        return cls(frozenset(pattern.removesuffix(_ANY_PORT) for pattern in lowered), with_any_port)

    def allows(self, value: str) -> bool:
        """Whether the header may have this value, in whatever notation."""
        return self._has(value.lower()) or self._has(canonical_host(value))

    def _has(self, value: str) -> bool:
        if value in self.exact:
            return True
        name, _, port = value.rpartition(":")
        return name in self.with_any_port and port.isascii() and port.isdigit()


def canonical_host(value: str) -> str:
    """Return a Host or an Origin in one notation (RFC 3986 section 3.2.2).

    It is in lower case, has neither the final dot of an absolute name nor an empty port, and addresses are written as
    short as possible.
    """
    value = value.lower()
    scheme, mark, netloc = value.rpartition("://")
    found = _HOST.fullmatch(netloc)
    if found is None:
        return value
    address, name, port = found.groups()
    if address is not None:
        try:
            name = f"[{IPv6Address(address)}]"
        except ValueError:
            return value
    return f"{scheme}{mark}{name}{port or ''}"


def host_patterns(inventory: WorkerInventory, url: str) -> HostPatterns:
    """Return the allowed Host headers of a worker that is bound to `url`.

    Loopback names and the bind address are allowed with any port, since a port may be forwarded. A name of the
    inventory without a port is allowed without one (behind a proxy) and with the worker's own.
    """
    hosts, port = inventory.allowed_hosts, urlsplit(url).port
    with_own_port = (f"{name}:{port}" for name in hosts if ":" not in name.rpartition("]")[2])
    return HostPatterns.parse([*_own_patterns(url), *hosts, *with_own_port])


def origin_patterns(inventory: WorkerInventory, url: str) -> HostPatterns:
    """Return the allowed Origin headers of a worker that is bound to `url`: its own and those of the inventory."""
    own = (f"{scheme}://{pattern}" for scheme in ("http", "https") for pattern in _own_patterns(url))
    return HostPatterns.parse([*own, *inventory.allowed_origins])


def _own_patterns(url: str) -> Iterator[str]:
    """Yield patterns of the loopback names and of the bind address."""
    netloc = urlsplit(url).netloc
    host, _, port = netloc.rpartition(":")
    for name in {"localhost", "127.0.0.1", "[::1]", host if port.isdigit() else netloc}:
        yield f"{name}{_ANY_PORT}"
