"""The network that limits on clients count a peer address by."""

from __future__ import annotations

import socket

_MAPPED_IPV4 = bytes(10) + b"\xff\xff"


def client_network(peer: str) -> str:
    """Return the network of a peer address: what a client can not change at will.

    That is the /64 of an IPv6 address, since a host can use every address of its /64, and the address itself for IPv4,
    including IPv4-mapped IPv6 addresses of dual-stack sockets.
    """
    if ":" not in peer:
        return peer
    try:
        packed = socket.inet_pton(socket.AF_INET6, peer.partition("%")[0])
    except OSError:
        return peer
    if packed.startswith(_MAPPED_IPV4):
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return f"{socket.inet_ntop(socket.AF_INET6, packed[:8] + bytes(8))}/64"
