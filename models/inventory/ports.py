"""Workers of one machine whose MCP servers would bind the same port: only one of them could start."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from itertools import combinations

from .schema import WorkerInventory

_ALL_IPV4, _ALL = "0.0.0.0", "::"  # noqa: S104  compared, not bound; the second takes IPv4 connections too
_LOCALHOST = frozenset({"127.0.0.1", "::1"})


def port_problem(workers: Mapping[str, WorkerInventory]) -> str | None:
    """Return the two workers that can't both run, and the remedy; None if all can."""
    fixed = ((name, worker) for name, worker in workers.items() if worker.port)
    for (first, one), (second, other) in combinations(fixed, 2):
        if one.port == other.port and _meet(_addresses(one.host), _addresses(other.host)):
            return (
                f"{first} and {second} have the same port {one.port}: give one of them another port, or 0 for a free "
                "one; if they run on different machines, list those of this one in topology.workers"
            )
    return None


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
