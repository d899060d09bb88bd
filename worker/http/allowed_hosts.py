"""Which Host and Origin headers a worker answers to: a web page must not reach it under a name of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from ...models.inventory.schema import WorkerInventory

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
_ANY_PORT = ":*"
_SCHEMES = ("http", "https")


@dataclass(frozen=True)
class Names:
    """Allowed values of a header: `exact` ones, and those to which any port may be added."""

    exact: frozenset[str]
    with_any_port: frozenset[str]

    @classmethod
    def of(cls, patterns: Iterable[str]) -> Names:
        """Return the names that patterns stand for: `NAME` itself, `NAME:*` with any port or without one."""
        lowered = {pattern.lower() for pattern in patterns}
        open_ones = frozenset(pattern.removesuffix(_ANY_PORT) for pattern in lowered if pattern.endswith(_ANY_PORT))
        return cls(frozenset(pattern for pattern in lowered if not pattern.endswith(_ANY_PORT)) | open_ones, open_ones)

    def allows(self, value: str) -> bool:
        """Whether a header may have this value; letter case doesn't matter."""
        value = value.lower()
        if value in self.exact:
            return True
        name, _, port = value.rpartition(":")
        return name in self.with_any_port and port.isascii() and port.isdigit()

    def patterns(self) -> list[str]:
        """Return the names as the patterns that the MCP SDK understands, whose `NAME:*` wants a port."""
        return sorted(self.exact) + [f"{name}{_ANY_PORT}" for name in sorted(self.with_any_port)]


def host_names(inventory: WorkerInventory, url: str) -> Names:
    """Return the allowed Host headers of a worker that is bound to `url`.

    Loopback names and the bind address are allowed with any port, since a port may be forwarded. A name of the
    inventory without a port is allowed without one (behind a proxy) and with the worker's own.
    """
    parts = urlsplit(url)
    given = [*inventory.allowed_hosts, *(f"{name}:{parts.port}" for name in inventory.allowed_hosts if _is_bare(name))]
    return Names.of([*_own_names(url), *given])


def origin_names(inventory: WorkerInventory, url: str) -> Names:
    """Return the allowed Origin headers of a worker that is bound to `url`: those of its own names, and the given."""
    own = [f"{scheme}://{name}" for scheme in _SCHEMES for name in _own_names(url)]
    return Names.of([*own, *inventory.allowed_origins])


def _own_names(url: str) -> Iterator[str]:
    host, _, port = urlsplit(url).netloc.rpartition(":")
    for name in {*_LOOPBACK_NAMES, host if port.isdigit() else urlsplit(url).netloc}:
        yield f"{name}{_ANY_PORT}"


def _is_bare(name: str) -> bool:
    return ":" not in name.rpartition("]")[2]
