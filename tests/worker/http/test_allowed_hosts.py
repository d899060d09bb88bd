"""Allowed Host and Origin headers."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfcli.models.inventory.schema import WorkerInventory
from nfcli.worker.http.allowed_hosts import HostPatterns, host_patterns, origin_patterns

names = st.text(string.ascii_letters + string.digits + ".-", min_size=1).filter(lambda name: name[-1] != ".")
ports = st.integers(0, 65_535).map(str)


@given(name=names, port=ports, other=ports)
def test_pattern_allows_its_name_and_port(name: str, port: str, other: str) -> None:
    """`NAME` allows no port, `NAME:PORT` that port, `NAME:*` any port or none."""
    assert HostPatterns.parse([name]).allows(name.swapcase())
    assert not HostPatterns.parse([name]).allows(f"{name}:{port}")
    assert HostPatterns.parse([f"{name}:{port}"]).allows(f"{name}:{other}") == (port == other)
    assert not HostPatterns.parse([f"{name}:{port}"]).allows(name)
    assert HostPatterns.parse([f"{name}:*"]).allows(f"{name}:{port}")
    assert HostPatterns.parse([f"{name}:*"]).allows(name)


@given(name=names, value=st.text(), port=st.text(st.sampled_from("0189²x: @")))
def test_nothing_but_the_name_and_a_port_is_allowed(name: str, value: str, port: str) -> None:
    """For any header value; a port may be empty."""
    allowed = HostPatterns.parse([f"{name}:*"])
    assert allowed.allows(value) <= value.lower().startswith(name.lower().removesuffix("."))
    assert allowed.allows(f"{name}:{port}") == (not port or (port.isascii() and port.isdigit()))


@pytest.mark.parametrize(
    "value",
    [
        *("LOCALHOST", "localhost.", "LocalHost.:8001", "localhost:", "localhost.:", "127.0.0.1:", "[::1]:"),
        *("[0:0:0:0:0:0:0:1]", "[0000::0001]:8001", "[::0.0.0.1]", "mcp.example.com.", "MCP.example.com:443"),
    ],
)
def test_other_notations_of_an_allowed_host_are_allowed(value: str) -> None:
    """RFC 3986 section 3.2.2; in Origin, too."""
    inventory = WorkerInventory(
        service="fastmcp",
        allowed_hosts=("mcp.Example.com.", "mcp.example.com:443"),
        allowed_origins=("https://mcp.example.com", "https://mcp.example.com:443"),
    )
    assert host_patterns(inventory, "http://127.0.0.1:8001/mcp").allows(value)
    assert origin_patterns(inventory, "http://127.0.0.1:8001/mcp").allows(f"HTTPS://{value}")


@pytest.mark.parametrize(
    "value",
    [
        *("localhost..", ".localhost", ".", "", ":", ":8001", "localhost.:x", "localhost:8001.", "localhost:8001:"),
        *(
            "[:::1]",
            "[1:2]",
            "[::1].",
            "[::1]x",
            "[::2]",
            "::1",
            "[localhost]",
            "[::1",
            "[::1%25lo]",
            "localhost.evil",
            "localhost @x",
        ),
    ],
)
def test_other_hosts_stay_forbidden(value: str) -> None:
    """Nothing is read as a notation that isn't one."""
    inventory = WorkerInventory(service="fastmcp")
    assert not host_patterns(inventory, "http://127.0.0.1:8001/mcp").allows(value)
    assert not origin_patterns(inventory, "http://127.0.0.1:8001/mcp").allows(f"http://{value}")


@pytest.mark.parametrize(
    ("host", "url", "own"),
    [
        ("127.0.0.1", "http://127.0.0.1:8001/mcp", set()),
        ("10.1.2.3", "http://10.1.2.3:8001/mcp", {"10.1.2.3"}),
        ("fd00::1", "http://[fd00::1]:8001/mcp", {"[fd00::1]"}),
        ("mcp.example.com", "http://mcp.example.com:8001/mcp", {"mcp.example.com"}),
        ("", "http://127.0.0.1:8001/mcp", set()),
    ],
)
def test_own_names_are_loopback_and_the_bind_address(host: str, url: str, own: set[str]) -> None:
    """All interfaces have no name; the names they are reached by belong into the inventory."""
    inventory = WorkerInventory(service="fastmcp", host=host)
    expected = {"localhost", "127.0.0.1", "[::1]"} | own
    assert host_patterns(inventory, url) == HostPatterns(frozenset(expected), frozenset(expected))
    origins = frozenset(f"{scheme}://{name}" for scheme in ("http", "https") for name in expected)
    assert origin_patterns(inventory, url) == HostPatterns(origins, origins)


def test_name_without_a_port_is_allowed_with_the_worker_s_port() -> None:
    """And without one, behind a proxy; a name with a port is allowed with that one only."""
    inventory = WorkerInventory(service="fastmcp", allowed_hosts=("a.example.com", "b.example.com:1", "[fd00::1]"))
    given_names = host_patterns(inventory, "http://127.0.0.1:8001/mcp").exact - {"localhost", "127.0.0.1", "[::1]"}
    assert given_names == {"a.example.com", "a.example.com:8001", "b.example.com:1", "[fd00::1]", "[fd00::1]:8001"}


@pytest.mark.parametrize(
    ("pattern", "allowed", "refused"),
    [
        (
            "*.example.com",
            ["a.example.com", "a.b.example.com", "A.Example.COM.", "a.example.com:8001"],
            [
                "example.com",
                ".example.com",
                "aexample.com",
                "a.example.com:80",
                "a.example.com.evil",
                "a b.example.com",
            ],
        ),
        ("*.example.com:*", ["a.example.com", "a.example.com:80"], ["a.example.com:x", "example.com"]),
        ("*.example.com:80", ["a.example.com:80"], ["a.example.com", "a.example.com:8001"]),
        (
            "10.0.0.0/8",
            ["10.1.2.3", "10.1.2.3:8001"],
            ["10.1.2.3:80", "11.0.0.1", "10.1", "010.1.2.3", "10.1.2.3.example.com", "[::ffff:10.1.2.3]"],
        ),
        ("10.0.0.0/8:*", ["10.1.2.3", "10.1.2.3:80"], ["11.0.0.1:80"]),
        ("fd00::/8", ["[fd00::1]", "[FD00:0::1]:8001"], ["fd00::1", "[fe00::1]", "[fd00::1]:80"]),
        ("[fd00::/8]:*", ["[fd00::1]:80"], ["[fe00::1]:80"]),
        (
            "*",
            ["evil.example.com", "evil.example.com:80", "1.2.3.4", "[fe00::1]:80", "a_b"],
            ["", 'a"', "a b", "a/b", "a@b", "a:b", "[x]", "::1", "é"],
        ),
    ],
)
def test_wildcards_allow_what_they_stand_for(pattern: str, allowed: list[str], refused: list[str]) -> None:
    """Without a port, they allow none and the worker's own; nothing but a host is ever allowed."""
    inventory = WorkerInventory(service="fastmcp", allowed_hosts=[pattern])
    patterns = host_patterns(inventory, "http://127.0.0.1:8001/mcp")
    assert [value for value in allowed if not patterns.allows(value)] == []
    assert [value for value in refused if patterns.allows(value)] == []
