"""The client of a request, by the headers of trusted proxies."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfcli.worker.http.forwarding.elements import ForwardingError, parse_forwarded
from nfcli.worker.http.forwarding.origin import RequestOrigin, TrustedProxies

PROXIES = TrustedProxies(["10.0.0.0/8", "192.0.2.1", "fd00::/8"])
PROXY = "10.0.0.1"
FOR, PROTO, HOST = "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"
DIFFER = "X-Forwarded-* and Forwarded differ; the proxy must remove the kind that it does not set"
MALFORMED = "the Forwarded header is malformed (RFC 7239 section 4)"


def origin(*headers: tuple[str, str], peer: str | None = PROXY, proxies: TrustedProxies = PROXIES) -> RequestOrigin:
    """Return the origin of a request with these headers, to the Host `w1:8001` over plain HTTP."""
    pairs = [(b"host", b"w1:8001"), *((name.encode(), value.encode("latin-1")) for name, value in headers)]
    client = None if peer is None else (peer, 50_000)
    return proxies.resolve({"type": "http", "client": client, "scheme": "http", "headers": pairs})


def address(*headers: tuple[str, str], peer: str = PROXY) -> str:
    """Return the client's address."""
    return origin(*headers, peer=peer).address


@pytest.mark.parametrize("peer", ["203.0.113.7", "192.0.2.2", "::1", "fe80::1%eth0", "not an address", ""])
def test_headers_of_others_have_no_effect(peer: str) -> None:
    """Whoever isn't a proxy could claim to be any client."""
    forged = ((FOR, "198.51.100.1"), (PROTO, "https"), (HOST, "a"), ("forwarded", 'for=198.51.100.1;host=a, ;;="'))
    assert origin(*forged, peer=peer) == RequestOrigin(peer, "http", "w1:8001")
    assert origin(*forged, proxies=TrustedProxies()) == RequestOrigin(PROXY, "http", "w1:8001")
    assert origin(*forged, peer=None) == RequestOrigin("", "http", "w1:8001")


@pytest.mark.parametrize("peer", [PROXY, "::ffff:10.0.0.1", "192.0.2.1", "fd00::5", "fd00::5%eth0"])
def test_trusted_proxy_names_its_client(peer: str) -> None:
    """With the scheme and the host of the URL that it used; the proxy may connect over a dual-stack socket."""
    expected = RequestOrigin("198.51.100.1", "https", "mcp.example.com", peer)
    assert origin((FOR, "198.51.100.1"), (PROTO, "https"), (HOST, "mcp.example.com"), peer=peer) == expected
    assert origin(("forwarded", 'for=198.51.100.1;proto=HTTPS;host="MCP.example.com"'), peer=peer) == expected
    assert expected.base_url == "https://mcp.example.com"


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        (["198.51.100.1"], "198.51.100.1"),
        (["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
        (["1.1.1.1", "198.51.100.1"], "198.51.100.1"),
        (["1.1.1.1, 10.9.9.9, 198.51.100.1"], "198.51.100.1"),
        (["198.51.100.1, 10.0.0.2,192.0.2.1"], "198.51.100.1"),
        (["1.1.1.1, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        (["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        (["198.51.100.1:4711"], "198.51.100.1"),
        (["[2001:db8::1]:4711"], "2001:db8::1"),
        (["[2001:db8::1]"], "2001:db8::1"),
        (["2001:DB8:0::1"], "2001:db8::1"),
        (["::ffff:198.51.100.1"], "198.51.100.1"),
        (["198.51.100.1, unknown"], PROXY),
        (["198.51.100.1, 10.0.0.2, 10.0.0.x"], PROXY),
        (["198.51.100.1, unknown, 10.0.0.2"], "10.0.0.2"),
        (["1.1.1.1:x"], PROXY),
        (["[::1]x"], PROXY),
        (["1.1.1.1, "], "1.1.1.1"),
        ([""], PROXY),
        ([" , ,"], PROXY),
    ],
)
def test_client_is_the_last_address_that_is_not_a_trusted_proxy_s(nodes: list[str], expected: str) -> None:
    """What a client sent itself stands before it; a proxy that names nobody counts as the client."""
    assert address(*((FOR, node) for node in nodes)) == expected
    elements = [f'For="{node.strip()}"' for each in nodes for node in each.split(",") if node.strip()]
    assert address(("forwarded", ", ".join(elements))) == expected


@given(forged=st.text(st.characters(max_codepoint=255)))
def test_nothing_that_a_client_sends_hides_its_address(forged: str) -> None:
    """The proxy appends the address to whatever comes; with Forwarded, the request may be refused instead."""
    assert address((FOR, f"{forged}, 198.51.100.1")) == "198.51.100.1"
    assert address((FOR, forged), (FOR, "198.51.100.1")) == "198.51.100.1"
    for appended in ("for=198.51.100.1", 'for="198.51.100.1:80";proto=https'):
        with suppress(ForwardingError):
            assert address(("forwarded", f"{forged}, {appended}")) == "198.51.100.1"


@pytest.mark.parametrize(
    ("schemes", "expected"),
    [("https", "https"), ("http, https", "https"), ("https, http", "http"), ("HTTPS", "https"), ("", "http")],
)
def test_scheme_and_host_are_those_that_the_same_proxy_appended(schemes: str, expected: str) -> None:
    """A client may have sent others before; a proxy that replaces them leaves one."""
    assert origin((FOR, "1.1.1.1, 198.51.100.1"), (PROTO, schemes)).scheme == expected
    through_two = ((FOR, "1.1.1.1, 198.51.100.1, 10.0.0.2"), (PROTO, "http, https, http"), (HOST, "a, b, c"))
    assert (origin(*through_two).scheme, origin(*through_two).host) == ("https", "b")
    forwarded = "for=1.1.1.1;host=a, for=198.51.100.1;host=b;proto=https, for=10.0.0.2;host=c"
    assert origin(("forwarded", forwarded)) == RequestOrigin("198.51.100.1", "https", "b", PROXY)


def test_scheme_of_one_proxy_alone_counts_for_all_of_them() -> None:
    """Where others in the row don't append theirs; and a row of trusted proxies has a beginning."""
    assert origin((FOR, "198.51.100.1, 10.0.0.2"), (PROTO, "https")).scheme == "https"
    expected = RequestOrigin("10.0.0.3", "https", "a", PROXY)
    assert origin((FOR, "10.0.0.3, 10.0.0.2"), (PROTO, "https, http"), (HOST, "a, b")) == expected
    assert origin(("forwarded", "for=10.0.0.3;proto=https;host=a, for=10.0.0.2;proto=http;host=b")) == expected


def test_proxy_may_send_both_kinds_if_they_agree() -> None:
    """And each may say what the other doesn't."""
    both = ((FOR, "198.51.100.1"), (PROTO, "https"), ("forwarded", "for=198.51.100.1;host=a"))
    assert origin(*both) == RequestOrigin("198.51.100.1", "https", "a", PROXY)
    assert origin((HOST, "a"), ("forwarded", "for=198.51.100.1")) == RequestOrigin("198.51.100.1", "http", "a", PROXY)


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        (((FOR, "198.51.100.1"), ("forwarded", "for=203.0.113.9")), DIFFER),
        (((FOR, "198.51.100.1"), ("forwarded", "for=unknown")), DIFFER),
        (((FOR, "198.51.100.1"), (PROTO, "https"), ("forwarded", "for=198.51.100.1;proto=http")), DIFFER),
        (((FOR, "198.51.100.1"), (HOST, "a"), ("forwarded", "for=198.51.100.1;host=b")), DIFFER),
        (((PROTO, "wss"),), "the scheme that the proxy names is neither http nor https"),
        (((HOST, 'a", evil="'),), "the host that the proxy names is not a host name or address"),
        ((("forwarded", "for=1.1.1.1;for=2.2.2.2"),), MALFORMED),
        ((("forwarded", 'for="1.1.1.1'),), MALFORMED),
        ((("forwarded", "for=1.1.1.1 proto=https"),), MALFORMED),
        ((("forwarded", "for"),), MALFORMED),
    ],
)
def test_contradictions_and_malformed_headers_are_refused(headers: tuple[tuple[str, str], ...], message: str) -> None:
    """A proxy passes on the kind of headers that it doesn't set, so a client may have sent it."""
    with pytest.raises(ForwardingError) as caught:
        origin(*headers)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", []),
        (" , ;,", []),
        ('for="_gazonk"', [{"for": "_gazonk"}]),
        ('For="[2001:db8:cafe::17]:4711"', [{"for": "[2001:db8:cafe::17]:4711"}]),
        (
            "for=192.0.2.60;proto=http;by=203.0.113.43",
            [{"for": "192.0.2.60", "proto": "http", "by": "203.0.113.43"}],
        ),
        ("for=192.0.2.43, for=198.51.100.17", [{"for": "192.0.2.43"}, {"for": "198.51.100.17"}]),
        (r'a="b\"c\\,d;e"', [{"a": 'b"c\\,d;e'}]),
    ],
)
def test_forwarded_is_read_as_its_specification_says(value: str, expected: list[dict[str, str]]) -> None:
    """These are RFC 7239's own examples, and escapes in a string."""
    assert parse_forwarded(value) == expected


def test_networks_can_be_replaced() -> None:
    """What was remembered of addresses is forgotten."""
    proxies = TrustedProxies(["10.0.0.0/8"])
    assert "10.0.0.1" in proxies
    proxies.replace(["192.0.2.1"])
    assert ("10.0.0.1" in proxies, "192.0.2.1" in proxies, None in proxies) == (False, True, False)


def test_long_texts_of_clients_are_not_remembered() -> None:
    """A proxy that sets one kind of headers passes the other on, with 30 kB of a client's in each request."""
    tracemalloc.start()
    try:
        for number in range(100):
            for header in (("forwarded", f'for="_{number}{"x" * 30_000}"'), (FOR, f"{number}{'x' * 30_000}")):
                assert address(header) == PROXY
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000
