"""Workers of one machine whose servers, MCP or metrics, would bind the same port: only one of them could start."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from itertools import combinations

from .schema import WorkerInventory

_ALL_IPV4, _ALL = "0.0.0.0", "::"  # noqa: S104  compared, not bound; the second takes IPv4 connections too
_LOCALHOST = frozenset({"127.0.0.1", "::1"})


def port_problem(workers: Mapping[str, WorkerInventory]) -> str | None:
    """Return the two servers that can't both run, and the remedy; None if all can."""
    servers = [server for name, worker in workers.items() for server in _servers(name, worker)]
    for (first, host, port), (second, other_host, other_port) in combinations(servers, 2):
        if port == other_port and _meet(_addresses(host), _addresses(other_host)):
            return (
                f"{first} and {second} have the same port {port}: give one of them another port, or 0 for a free "
                "one; if they run on different machines, list those of this one in topology.workers"
            )
    return None


def _servers(name: str, worker: WorkerInventory) -> Iterator[tuple[str, str, int]]:
    """Yield a name, the host and the port of each server of a worker with a fixed port."""
    if worker.port:
        yield name, worker.host, worker.port
    if worker.metrics is not None and worker.metrics.port:
        yield f"the metrics of {name}", worker.metrics.host, worker.metrics.port


def _addresses(host: str) -> frozenset[str]:
    """Return the addresses that a host stands for, or its name: names are not looked up."""
    if not host:
        return frozenset({_ALL_IPV4})
    name = host.casefold().removesuffix(".")
    if name == "localhost":
        return _LOCALHOST
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return frozenset({name})
    return frozenset({str(getattr(address, "ipv4_mapped", None) or address)})


def _meet(one: frozenset[str], other: frozenset[str]) -> bool:
    if one & other or _ALL in one | other:
        return True
    return (_ALL_IPV4 in one and _has_ipv4(other)) or (_ALL_IPV4 in other and _has_ipv4(one))


def _has_ipv4(addresses: frozenset[str]) -> bool:
    return any(":" not in address for address in addresses)
