"""Where a request came from: the client's address, and the scheme and host of the URL that it used."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple

from starlette.types import Scope

from .elements import ForwardingError, parse_address, parse_forwarded, parse_node, split_list

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_EXTENSION = "nfcli.origin"
_FORWARDED, _FOR = b"forwarded", b"x-forwarded-for"
_PROTO, _HOST = b"x-forwarded-proto", b"x-forwarded-host"
_HEADERS = frozenset({_FORWARDED, _FOR, _PROTO, _HOST})
_SCHEMES = frozenset({"http", "https"})
_HOST_TEXT = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_REMEMBERED_ADDRESSES = 4096


class RequestOrigin(NamedTuple):
    """Where a request came from.

    `address` is the client's, empty if unknown; `scheme` (http or https) and `host` (as in a Host header, with its
    port unless that is the default) are those of the URL that the client used. `proxy` is the address of the trusted
    proxy that the request came through, empty if there was none.
    """

    address: str
    scheme: str
    host: str
    proxy: str = ""

    @property
    def base_url(self) -> str:
        """The URL that the client used, without a path."""
        return f"{self.scheme}://{self.host}"


class _Report(NamedTuple):
    """What one kind of headers says about the client; None where it says nothing."""

    address: str | None
    scheme: str | None
    host: str | None


class TrustedProxies:
    """The proxies whose headers about their clients count; those of all other peers have no effect.

    `networks` may be replaced while requests are served, from their loop's thread.
    """

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._is_trusted: Callable[[str], bool]
        self.replace(networks)

    def replace(self, networks: Iterable[str]) -> None:
        """Trust these addresses and networks, in CIDR notation, and no others from now on."""
        parsed = tuple(ipaddress.ip_network(network) for network in networks)
        self.networks: tuple[Network, ...] = parsed

        @lru_cache(_REMEMBERED_ADDRESSES)
        def is_trusted(text: str) -> bool:
            address = parse_address(text)
            return address is not None and any(address in network for network in parsed)

        self._is_trusted = is_trusted

    def __contains__(self, address: object) -> bool:
        """Whether the text `address` is that of a trusted proxy."""
        return bool(self.networks) and isinstance(address, str) and self._is_trusted(address)

    def resolve(self, scope: Scope) -> RequestOrigin:
        """Return where a request came from, by the headers of trusted proxies; for other peers, by its connection.

        Of the addresses that were appended on the way, the client's is the last that isn't a trusted proxy's. What a
        client wrote before it has no effect.

        Raises:
            ForwardingError: the headers are malformed, or X-Forwarded-* and Forwarded contradict each other.
        """
        peer = scope.get("client")
        address = str(peer[0]) if peer else ""
        scheme, host = str(scope.get("scheme", "http")), _first_host(scope)
        if address not in self:
            return RequestOrigin(address, scheme, host)
        headers = _lists(scope)
        report = _merge(self._x_forwarded(address, headers), self._forwarded(address, headers))
        if report is None:
            return RequestOrigin(address, scheme, host, address)
        return RequestOrigin(report.address or address, report.scheme or scheme, report.host or host, address)

    def _x_forwarded(self, peer: str, headers: Mapping[bytes, str]) -> _Report | None:
        """Return what the X-Forwarded-* headers say; None without any."""
        nodes, schemes, hosts = (split_list(headers.get(name, "")) for name in (_FOR, _PROTO, _HOST))
        if not nodes and not schemes and not hosts:
            return None
        address, hops = self._client(peer, nodes) if nodes else (None, 1)
        return _Report(address, _scheme(_from_end(schemes, hops)), _host(_from_end(hosts, hops)))

    def _forwarded(self, peer: str, headers: Mapping[bytes, str]) -> _Report | None:
        """Return what the Forwarded header says; None without one."""
        elements = parse_forwarded(headers[_FORWARDED]) if _FORWARDED in headers else []
        if not elements:
            return None
        address, hops = self._client(peer, [element.get("for", "") for element in elements])
        element = elements[-hops]
        return _Report(address, _scheme(element.get("proto")), _host(element.get("host")))

    def _client(self, peer: str, nodes: Sequence[str]) -> tuple[str, int]:
        """Return the client's address, and which of `nodes` it is, counted from the end.

        `nodes` are what each proxy appended: the sender of the request that it got. A trusted proxy that doesn't say
        who that was counts as the client.
        """
        address = peer
        for hops, node in enumerate(reversed(nodes), 1):
            sender = parse_node(node)
            if sender is None:
                return address, hops
            address = str(sender)
            if not self._is_trusted(address):
                return address, hops
        return address, len(nodes)


def remember(scope: Scope, origin: RequestOrigin) -> None:
    """Make a request's client, scheme and Host those of its origin, for everything that reads the scope."""
    if origin.proxy:
        scope["client"] = (origin.address, 0)
        scope["scheme"] = origin.scheme
        others = [(name, value) for name, value in scope["headers"] if name != b"host"]
        scope["headers"] = [(b"host", origin.host.encode("latin-1")), *others]
    scope.setdefault("extensions", {})[_EXTENSION] = origin


def request_origin(scope: Scope) -> RequestOrigin:
    """Return where a request came from that the middleware has accepted: the only function that tells it."""
    origin: RequestOrigin = scope["extensions"][_EXTENSION]
    return origin


def names_host(scope: Scope) -> bool:
    """Whether a proxy's headers name the host of the URL that the client used."""
    headers = _lists(scope)
    return _HOST in headers or any("host" in element for element in parse_forwarded(headers.get(_FORWARDED, "")))


def names_sender(scope: Scope) -> bool:
    """Whether the headers of a proxy name the address that it got a request from, which may be its own machine's."""
    headers = _lists(scope)
    senders = split_list(headers.get(_FOR, ""))[-1:]
    with suppress(ForwardingError):
        senders += [element.get("for", "") for element in parse_forwarded(headers.get(_FORWARDED, ""))[-1:]]
    return any(parse_node(sender) is not None for sender in senders)


def _first_host(scope: Scope) -> str:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")


def _lists(scope: Scope) -> dict[bytes, str]:
    """Return the proxies' headers; the values of repeated ones in one list, as RFC 9110 section 5.3 says."""
    found: dict[bytes, list[str]] = {}
    for name, value in scope["headers"]:
        if name in _HEADERS:
            found.setdefault(name, []).append(value.decode("latin-1"))
    return {name: ", ".join(values) for name, values in found.items()}


def _merge(first: _Report | None, second: _Report | None) -> _Report | None:
    """Return what both kinds of headers say.

    A proxy sets one kind, and passes the other on as the client sent it: where they differ, one of them is forged.
    """
    if first is None or second is None:
        return first or second
    pairs = ((first.address, second.address), (first.scheme, second.scheme), (first.host, second.host))
    if any(one is not None and other is not None and one != other for one, other in pairs):
        raise ForwardingError("X-Forwarded-* and Forwarded differ; the proxy must remove the kind that it does not set")
    return _Report(*(other if one is None else one for one, other in pairs))


def _from_end(values: Sequence[str], hops: int) -> str | None:
    """Return what the proxy wrote that also wrote the `hops`th address from the end, or the nearest before it."""
    return values[-min(hops, len(values))] if values else None


def _scheme(value: str | None) -> str | None:
    if value is not None and value.lower() not in _SCHEMES:
        raise ForwardingError("the scheme that the proxy names is neither http nor https")
    return None if value is None else value.lower()


def _host(value: str | None) -> str | None:
    if value is not None and not _HOST_TEXT.fullmatch(value):
        raise ForwardingError("the host that the proxy names is not a host name or address")
    return None if value is None else value.lower()
