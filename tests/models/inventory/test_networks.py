"""Hosts and proxies that an inventory may name."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from nfcli.models.inventory.networks import HostPatternTexts, ProxyNetworks
from nfcli.models.inventory.schema import WorkerInventory

HOSTS = (
    "must be NAME, *.NAME, ADDRESS/BITS, or one of them with :PORT or :*, with IPv6 in brackets; or * for every name"
)
NETWORK = "must be an IP address or a network, as in 192.0.2.1 or 10.0.0.0/8"
NOT_ALL = "must not be every address: then each client could claim to be any other"


def refusal(kind: Any, value: Any) -> str:
    """Return the message with which a type refuses a value."""
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(value)
    return str(caught.value.errors()[0]["msg"])


@pytest.mark.parametrize(
    "host",
    [
        *("a", "a.example.com", "a:1", "a:*", "127.0.0.1:80", "[::1]", "[::1]:80", "[fe80::1]:*"),
        *("*", "*.example.com", "*.example.com:8443", "*.local:*", "10.0.0.0/8", "10.0.0.0/8:80", "[fd00::/8]:*"),
    ],
)
def test_host_names_and_patterns_are_accepted_unchanged(host: str) -> None:
    """A name, every name below one, every address of a network, each with a port or any; or every name."""
    assert TypeAdapter(HostPatternTexts).validate_python([host]) == (host,)


def test_networks_of_ipv6_are_put_in_brackets() -> None:
    """As their addresses stand in a Host header."""
    assert TypeAdapter(HostPatternTexts).validate_python(["fd00::/8", "[10.0.0.0/8]"]) == ("[fd00::/8]", "10.0.0.0/8")


@pytest.mark.parametrize(
    "value",
    [
        *("", "::1", "a/b", "a:", "a:b", "http://a", "[::1", "[a]x", "[]", "[]:1"),
        *("**", "*.", "*.*", "*a", "a.*", "a.*.b", "*:1", "*:*", "*.[::1]", "/8", "10.0.0.0/", "10.0.0.0/8:x"),
    ],
)
def test_other_hosts_are_refused_by_name(value: str) -> None:
    """The message says every form that there is."""
    assert refusal(HostPatternTexts, [value]) == f"{HOSTS}, got {value!r}"


def test_proxies_are_addresses_and_networks() -> None:
    """Once each; a network of one address is that address, IPv4-mapped ones are IPv4."""
    given = ["10.0.0.0/8", " 192.0.2.1 ", "192.0.2.1/32", "::1/128", "fd00::/8", "::ffff:192.0.2.2", "::ffff:a00:0/104"]
    expected = ("10.0.0.0/8", "192.0.2.1", "::1", "fd00::/8", "192.0.2.2")
    assert TypeAdapter(ProxyNetworks).validate_python(given) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        *[
            (value, f"{NETWORK}, got {value!r}")
            for value in ("", "*", "nginx", "10.0.0.0/33", "10.0.0", "192.0.2.1:80")
        ],
        *[(value, f"{NOT_ALL}, got {value!r}") for value in ("0.0.0.0/0", "::/0", "::ffff:0:0/96")],
        ("10.0.0.5/8", "must be a network or an address: 10.0.0.0/8, or 10.0.0.5, got '10.0.0.5/8'"),
        ("fd00::1/8", "must be a network or an address: fd00::/8, or fd00::1, got 'fd00::1/8'"),
        (10, "must be text (in quotes, where YAML would read it as something else), got 10"),
    ],
)
def test_other_proxies_are_refused_by_name(value: object, message: str) -> None:
    """Host names may change their addresses; every address would trust every client."""
    assert refusal(ProxyNetworks, [value]) == message


def test_no_proxy_is_trusted_by_default() -> None:
    """Neither without the key nor where it is null."""
    assert WorkerInventory(service="fastmcp").trusted_proxies == ()
    assert WorkerInventory.model_validate({"service": "fastmcp", "trusted_proxies": None}).trusted_proxies == ()
