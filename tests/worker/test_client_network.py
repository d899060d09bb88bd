"""The network that limits on clients count a peer address by."""

from __future__ import annotations

import pytest

from nfcli.worker.client_network import client_network


@pytest.mark.parametrize(
    ("peer", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
        ("not:an:address", "not:an:address"),
    ],
)
def test_network_is_what_a_client_cannot_change_at_will(peer: str, network: str) -> None:
    """The /64 of an IPv6 address; an IPv4 address itself, however the socket represents it."""
    assert client_network(peer) == network
