"""Allowed Host and Origin headers: protection against DNS rebinding and cross-site requests."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from ...models.inventory.networks import ANY_HOST
from ...models.inventory.schema import WorkerInventory

_ANY_PORT = ":*"
# An address or a name without its final dot, and a port.
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\[\]:]*[^\[\]:.])\.?)(?::|(:[0-9*]+))?")
_PLAIN_HOST = re.compile(r"(?P<name>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True)
class WildcardHost:
    """A pattern for many names: those that end in `suffix`, or without one the addresses of `network`.

    `port` is the one that they have to have, empty for none, `*` for any one or none.
    """

    suffix: str
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None
    port: str

    @classmethod
    def parse(cls, pattern: str) -> WildcardHost | None:
        """Parse `*.NAME` or `ADDRESS/BITS`, with IPv6 in brackets, and an optional port; None for other patterns."""
        name, _, port = pattern.rpartition(":") if ":" in pattern.rpartition("]")[2] else (pattern, "", "")
        if name.startswith("*."):
            return cls(name.removeprefix("*"), None, port)
        if "/" not in name or "://" in name:
            return None
        return cls("", ipaddress.ip_network(name.strip("[]")), port)

    def allows(self, name: str, port: str) -> bool:
        """Whether a Host with this name, in lower case, and this port matches."""
        if self.port not in ("*", port):
            return False
        if self.network is None:
            return name.endswith(self.suffix) and name != self.suffix
        try:
            return ipaddress.ip_address(name.strip("[]")) in self.network
        except ValueError:
            return False


@dataclass(frozen=True)
class HostPatterns:
    """Allowed values of a header: `exact` ones, and names that are allowed with any port.

    `wildcards` stand for many names; `is_any` allows every one.
    """

    exact: frozenset[str]
    with_any_port: frozenset[str]
    wildcards: tuple[WildcardHost, ...] = ()
    is_any: bool = False

    @classmethod
    def parse(cls, patterns: Iterable[str]) -> HostPatterns:
        """Parse patterns: `NAME` or `NAME:PORT` allows that value, `NAME:*` the name with any port or without one.

        NAME may be `*.NAME` or `ADDRESS/BITS`. The pattern `*` allows every value that is a host.
        """
        lowered = {canonical_host(pattern) for pattern in patterns}
        wildcards = {pattern: found for pattern in sorted(lowered) if (found := WildcardHost.parse(pattern))}
        names = lowered - wildcards.keys() - {ANY_HOST}
        with_any_port = frozenset(name.removesuffix(_ANY_PORT) for name in names if name.endswith(_ANY_PORT))
        exact = frozenset(name.removesuffix(_ANY_PORT) for name in names)
        return cls(exact, with_any_port, tuple(wildcards.values()), ANY_HOST in lowered)

    def allows(self, value: str) -> bool:
        """Whether the header may have this value, in whatever notation."""
        if self._has(value.lower()):
            return True
        canonical = canonical_host(value)
        return self._has(canonical) or ((self.is_any or bool(self.wildcards)) and self._allows_wildcard(canonical))

    def _has(self, value: str) -> bool:
        if value in self.exact:
            return True
        name, _, port = value.rpartition(":")
        return name in self.with_any_port and port.isascii() and port.isdigit()

    def _allows_wildcard(self, value: str) -> bool:
        found = _PLAIN_HOST.fullmatch(value)
        if found is None:
            return False
        return self.is_any or any(wildcard.allows(found["name"], found["port"] or "") for wildcard in self.wildcards)


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
            name = f"[{ipaddress.IPv6Address(address)}]"
        except ValueError:
            return value
    return f"{scheme}{mark}{name}{port or ''}"


def host_patterns(inventory: WorkerInventory, url: str) -> HostPatterns:
    """Return the allowed Host headers of a worker that is bound to `url`.

    Loopback names and the bind address are allowed with any port, since a port may be forwarded. A name of the
    inventory without a port is allowed without one (behind a proxy) and with the worker's own.
    """
    hosts, port = inventory.allowed_hosts, urlsplit(url).port
    with_own_port = (f"{name}:{port}" for name in hosts if ":" not in name.rpartition("]")[2] and name != ANY_HOST)
    return HostPatterns.parse([*_own_patterns(url), *hosts, *with_own_port])


def origin_patterns(inventory: WorkerInventory, url: str) -> HostPatterns:
    """Return the allowed Origin headers of a worker that is bound to `url`: its own and those of the inventory."""
    own = (f"{scheme}://{pattern}" for scheme in ("http", "https") for pattern in _own_patterns(url))
    return HostPatterns.parse([*own, *inventory.allowed_origins])


def sharing_patterns(inventory: WorkerInventory, url: str) -> HostPatterns:
    """Return the origins whose pages may read responses.

    Without authentication, whatever else is served on this machine must not: only those of the inventory.
    """
    if inventory.authentication_enabled:
        return origin_patterns(inventory, url)
    return HostPatterns.parse(inventory.allowed_origins)


def _own_patterns(url: str) -> Iterator[str]:
    """Yield patterns of the loopback names and of the bind address."""
    netloc = urlsplit(url).netloc
    host, _, port = netloc.rpartition(":")
    for name in {"localhost", "127.0.0.1", "[::1]", host if port.isdigit() else netloc}:
        yield f"{name}{_ANY_PORT}"
