"""Allowed Host and Origin headers: protection against DNS rebinding and cross-site requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from ...models.inventory.schema import WorkerInventory

_ANY_PORT = ":*"


@dataclass(frozen=True)
class HostPatterns:
    """Allowed values of a header: `exact` ones, and names that are allowed with any port."""

    exact: frozenset[str]
    with_any_port: frozenset[str]

    @classmethod
    def parse(cls, patterns: Iterable[str]) -> HostPatterns:
        """Parse patterns: `NAME` or `NAME:PORT` allows that value, `NAME:*` the name with any port or without one."""
        lowered = {pattern.lower() for pattern in patterns}
        with_any_port = frozenset(pattern.removesuffix(_ANY_PORT) for pattern in lowered if pattern.endswith(_ANY_PORT))
        return cls(frozenset(pattern.removesuffix(_ANY_PORT) for pattern in lowered), with_any_port)

    def allows(self, value: str) -> bool:
        """Whether the header may have this value; not case-sensitive."""
        value = value.lower()
        if value in self.exact:
            return True
        name, _, port = value.rpartition(":")
        return name in self.with_any_port and port.isascii() and port.isdigit()

    def patterns(self) -> list[str]:
        """Return the patterns in the syntax of the MCP SDK, where `NAME:*` requires a port."""
        return sorted(self.exact) + [f"{name}{_ANY_PORT}" for name in sorted(self.with_any_port)]


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
