"""Types of the values in an inventory that name hosts and networks, of clients and of proxies."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError

from .types import invalid_value, parse_list, parse_network_name, parse_text

ANY_HOST = "*"
_MAPPED_BITS = 96
_NETWORK = re.compile(r"(?P<bracket>\[)?(?P<network>[0-9A-Fa-f:.]+/[0-9]+)(?(bracket)\])(?P<port>:(?:\*|[0-9]{1,5}))?")
_HOSTS = (
    "must be NAME, *.NAME, ADDRESS/BITS, or one of them with :PORT or :*, with IPv6 in brackets; or * for every name"
)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _parse_network(text: str, value: Any) -> Network:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise invalid_value("must be an IP address or a network, as in 192.0.2.1 or 10.0.0.0/8", value) from None
    if network.network_address != ipaddress.ip_address(text.partition("/")[0]):
        raise invalid_value(f"must be a network or an address: {network}, or {text.partition('/')[0]}", value)
    return _as_ipv4(network)


def _as_ipv4(network: Network) -> Network:
    """Return a network of IPv4-mapped addresses as the one of IPv4 that it is."""
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < _MAPPED_BITS:
        return network
    return ipaddress.IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))


def _parse_proxy(value: Any) -> str:
    network = _parse_network(parse_text(value).strip(), value)
    if network.prefixlen == 0:
        raise invalid_value("must not be every address: then each client could claim to be any other", value)
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def _parse_host(value: Any) -> str:
    """Accept a host name, or a pattern; networks of IPv6 come out in brackets, as addresses of URLs are written."""
    text = parse_text(value)
    if text == ANY_HOST:
        return text
    found = _NETWORK.fullmatch(text)
    if found:
        network = str(_parse_network(found["network"], value))
        return (f"[{network}]" if ":" in network else network) + (found["port"] or "")
    name = text.removeprefix("*.")
    try:
        parse_network_name(name)
    except PydanticCustomError:
        name = ""
    if not name or (name != text and name.startswith("[")):
        raise invalid_value(_HOSTS, value)
    return text


HostPatternTexts = Annotated[tuple[Annotated[str, BeforeValidator(_parse_host)], ...], BeforeValidator(parse_list)]
ProxyNetworks = Annotated[
    tuple[Annotated[str, BeforeValidator(_parse_proxy)], ...],
    BeforeValidator(parse_list),
    AfterValidator(lambda networks: tuple(dict.fromkeys(networks))),
]
