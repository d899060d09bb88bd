"""Who caused a line of the audit trail, and how far that is known."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from ...models.tasks.audit import Authentication
from ..client_network import client_network
from .text import MAX_DETAIL_CHARACTERS, masked, printable

_LOCAL_PEER = re.compile(r"localhost:([0-9]+):[0-9]+:([0-9]+)")
_MAPPED_IPV4 = "::ffff:"
_EXAMINED_CHARACTERS = 2 * 1024  # the longest token has half as many


@dataclass(frozen=True)
class Actor:
    """The sender of a job, or of a refused request.

    `name` is the one that its key has here, or a name that it gave itself; `authenticated` says which: it is None for a
    name that nothing proves. `origin` is `user@host` as the client reports it, which is never proven. `address` is what
    the operating system knows of the connection, empty if nothing. `job` is the job's uuid, which the client chooses.
    """

    name: str
    authenticated: Authentication | None = None
    origin: str = ""
    address: str = ""
    job: str = ""

    def with_job(self, *, uuid: str, origin: str, address: str, is_token: Callable[[str], object]) -> Actor:
        """Return this actor with what is known of a job; what the client wrote is cut, and tokens in it are masked."""
        return replace(
            self,
            origin=_detail(origin, is_token),
            address=printable(address, MAX_DETAIL_CHARACTERS),
            job=_detail(uuid, is_token),
        )


def as_actor(actor: Actor | str) -> Actor:
    """Return an actor of which only the name is known, unless it is one already."""
    return Actor(actor) if isinstance(actor, str) else actor


def http_actor(address: str) -> Actor:
    """Return the sender of an MCP request: the network that its failures count against, and its address."""
    return Actor(client_network(address), address=peer_address(address))


def peer_address(peer: str) -> str:
    """Return the address of a ZeroMQ peer: of TCP its IP address, of a local socket its user id and process id.

    `peer` is the metadata `Peer-Address`, which libzmq reads from the operating system.
    """
    local = _LOCAL_PEER.fullmatch(peer)
    return f"uid {local[1]} pid {local[2]}" if local else peer.removeprefix(_MAPPED_IPV4)


def _detail(text: str, is_token: Callable[[str], object]) -> str:
    # Masked before it is cut: the beginning of a token would not be recognized.
    return masked(printable(text, _EXAMINED_CHARACTERS), (), is_token)[:MAX_DETAIL_CHARACTERS]
